"""What a run needs before its first step: the base with fresh adapters on it, and the examples as token ids."""

from __future__ import annotations

import hashlib
import warnings
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
from genesis_lab.finetuning.packing import TILED, Row, isolation, rows
from genesis_lab.providers.local_models import LoadedModel, load_model

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, loaded and checked: the student with fresh adapters, and the examples as token ids."""

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
    made_with: dict[str, Any]

    @property
    def trainable(self) -> list[Any]:
        """The adapters' weights."""
        return [p for p in self.model.parameters() if p.requires_grad]

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
        return rows(examples, self.config.row_tokens, share=share, filled=self.config.compile and not share, pad=pad)


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
    attention = isolation(loaded.model.config, loaded.device, config.max_length)
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
        made_with={
            "base": checkpoints.base_name(config.base, folder),
            "base_hash": checkpoints.base_hash(config.base, loaded.model.config),
            "data_hash": dataset.content_hash,
            "token_hash": tokens,
            "settings": config.shaping,
        },
    )


def with_adapters(model: Any, config: FinetuneConfig) -> Any:
    """`model`, frozen, with fresh float32 adapters; the same for the same seed."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a ratio need not be whole
        lora_dropout=config.dropout,
        target_modules=ATTENTION if config.targets == "attention" else config.targets,
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by names that it will give up
            wrapped = get_peft_model(model, lora)
    except ValueError:
        raise InvalidInput(
            f"The base has none of the layers {', '.join(ATTENTION)}: set targets to all-linear."
        ) from None
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if config.compile:
        for block in model.get_decoder().layers:
            block.compile()
    return wrapped


@contextmanager
def attending(prepared: Prepared, name: str) -> Iterator[None]:
    """The base computes attention by implementation `name` for a while."""
    base = prepared.model.get_base_model()
    before = base.config._attn_implementation
    base.set_attn_implementation(name)
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
