"""What a run needs before its first step: the base with fresh adapters on it, and the examples as token ids."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset
from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.finetuning import checkpoints
from genesis_lab.finetuning.config import FinetuneConfig
from genesis_lab.finetuning.examples import Encoded, TooLong, encode, role_examples, role_of
from genesis_lab.finetuning.packing import ALONE, TILED, Row, isolation, rows
from genesis_lab.providers.local_models import LoadedModel, load_model


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, loaded and checked: the student with fresh adapters, and the examples as token ids.

    Parameters
    ----------
    attention, serving : implementation of attention in training, and as the base was loaded.
    """

    config: FinetuneConfig
    folder: Path
    dataset: Dataset
    role: Role
    loaded: LoadedModel
    model: Any
    train: list[Encoded]
    validation: list[Encoded]
    examined: list[Example]
    too_long: list[TooLong]
    attention: str
    serving: str
    made_with: dict[str, Any]

    @property
    def trainable(self) -> list[Any]:
        """The adapters' weights."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def adapted(self) -> dict[str, int]:
        """The layers that have an adapter, by name with their number."""
        from peft.tuners.lora import LoraLayer

        return dict(Counter(n.rpartition(".")[2] for n, m in self.model.named_modules() if isinstance(m, LoraLayer)))

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.config.batch_size)

    @property
    def total_steps(self) -> int:
        return min(self.config.epochs * self.steps_per_epoch, self.config.max_steps or 2**31)

    def batch(self, step: int) -> list[Encoded]:
        """The examples of a step (from 1); each epoch has an order of its own, which follows from the seed."""
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.train))
        size = self.config.batch_size
        return [self.train[i] for i in order[place * size : (place + 1) * size]]

    def rows(self, examples: Sequence[Encoded]) -> list[Row]:
        """The examples packed; rows are of one shape where blocks are compiled."""
        pad = self.loaded.tokenizer.pad_token_id
        share = self.attention == TILED and not self.config.dropout  # a dropped input would be dropped for all
        room = 1 if self.attention == ALONE else self.config.row_tokens
        return rows(examples, room, share=share, filled=self.config.compile and not share, pad=pad)


def prepare(dataset: Dataset, config: FinetuneConfig) -> Prepared:
    """Check everything that can be checked before a run, load the base and put adapters on it.

    Raises
    ------
    InvalidInput : no student can be taught with these settings or data; one sentence says why.
    """
    import torch

    if config.quantization == "nf4" and not torch.cuda.is_available():
        raise InvalidInput(
            "quantization nf4 needs a CUDA GPU: on a CPU bitsandbytes spoils the gradients without a word after the "
            "first evaluation, so set quantization to none."
        )
    role, examples = role_of(dataset), role_examples(dataset, seed=config.seed)
    loaded = load_model(config.base, device=config.device, dtype=config.dtype, quantization=config.quantization)
    if config.max_length > loaded.context_tokens:
        raise InvalidInput(
            f"max_length is {config.max_length:,}, but {loaded.name} reads {loaded.context_tokens:,} tokens: lower it."
        )
    train, validation, too_long = _limited(examples, config, loaded)
    held = {example.id: example for example in examples["validation"]}
    folder = checkpoints.student_path(config.student)
    attention = isolation(loaded.model, loaded.device, config.max_length)
    tokens = hashlib.sha256(repr([(e.prompt, e.answer) for e in (*train, *validation)]).encode()).hexdigest()
    return Prepared(
        config=config,
        folder=folder,
        dataset=dataset,
        role=role,
        loaded=loaded,
        model=with_adapters(loaded.model, config),
        train=train,
        validation=validation,
        examined=[held[e.id] for e in validation[: config.examine]],
        too_long=too_long,
        attention=attention,
        serving=str(loaded.model.config._attn_implementation),
        made_with={
            "base": checkpoints.base_name(config.base, folder),
            "base_hash": checkpoints.base_hash(config.base, loaded.model.config),
            "data_hash": dataset.content_hash,
            "token_hash": tokens,
            "settings": config.shaping,
        },
    )


def with_adapters(model: Any, config: FinetuneConfig) -> Any:
    """`model`, frozen, with fresh float32 adapters; the same for the same seed.

    Raises
    ------
    InvalidInput : it has no layers that could have one.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.modeling_layers import GradientCheckpointingLayer

    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a ratio need not be whole
        lora_dropout=config.dropout,
        target_modules=target_layers(model, attention_only=config.targets == "attention"),
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by names that it will give up
        warnings.filterwarnings("ignore", "fan_in_fan_out", UserWarning)  # GPT-2's layers, which peft sees by itself
        wrapped = get_peft_model(model, lora)
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.compile:
        for block in model.get_decoder().modules():
            if isinstance(block, GradientCheckpointingLayer):
                block.compile()
    return wrapped


def target_layers(model: Any, *, attention_only: bool) -> list[str]:
    """The linear layers of the model's blocks, or those of their attention, as shortest names that mean no other layer.

    Families name them as they like (q_proj, qkv_proj, c_attn, query_key_value, Wqkv …), but all keep them in a part that
    is called attention or the like. The head is none of them.
    """
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    linear = {n for n, m in model.named_modules() if isinstance(m, Linear | Conv1D)}
    inside = {n for n in linear if model.get_submodule(n) is not model.get_output_embeddings()}
    chosen = {n for n in inside if not attention_only or re.search(r"attn|attention", n.rpartition(".")[0], re.I)}
    if not chosen:
        where, instead = (" in its attention", "set targets to all-linear") if inside else ("", "choose another base")
        raise InvalidInput(f"The base has no linear layers{where} that adapters could be put on: {instead}.")
    others = {n.rpartition(".")[2] for n in linear - chosen}
    parts = [n.split(".") for n in chosen]
    return sorted({".".join(part[-2:] if part[-1] in others else part[-1:]) for part in parts})


@contextmanager
def attending(prepared: Prepared, name: str) -> Iterator[None]:
    """The base computes attention by implementation `name` for a while."""
    base = prepared.model.get_base_model()
    before = base.config._attn_implementation
    base.set_attn_implementation(before if name == ALONE else name)
    try:
        yield
    finally:
        base.set_attn_implementation(before)


@contextmanager
def memory_errors(prepared: Prepared) -> Iterator[None]:
    """Memory that does not suffice, in one sentence that says what to lower and by how much."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and "can't allocate memory" not in str(error):
            raise
        config = prepared.config
        longest = max(len(example) for example in prepared.train)
        lower = max(longest, config.row_tokens // 2)
        advice = [f"lower row_tokens from {config.row_tokens:,} to {lower:,}"] if lower < config.row_tokens else []
        if not advice:
            advice.append(f"lower max_length from {config.max_length:,} to {longest // 2:,}")
        if not config.gradient_checkpointing:
            advice.append("set gradient_checkpointing: true")
        raise GenesisError(
            f"The memory of the {prepared.loaded.device} does not hold a row of up to {config.row_tokens:,} tokens: "
            f"{', or '.join(advice)}; run it again, and it goes on from the last checkpoint if there is one."
        ) from None


def _limited(
    examples: dict[str, list[Example]], config: FinetuneConfig, loaded: LoadedModel
) -> tuple[list[Encoded], list[Encoded], list[TooLong]]:
    kept, left_out = {}, []
    for split, limit in (("train", config.train_limit), ("validation", config.val_limit)):
        fit, too_long = encode(loaded.tokenizer, loaded.eos_ids, examples[split], config.max_length)
        if not fit:
            longest = max(example.tokens for example in too_long)
            raise InvalidInput(
                f"All {len(too_long):,} examples of split {split} are longer than max_length ({config.max_length:,} "
                f"tokens), the longest has {longest:,}: raise max_length."
            )
        kept[split] = fit[:limit]
        left_out += too_long
    return kept["train"], kept["validation"], left_out
