"""Teach a small model by LoRA: one loop over plain transformers and peft. The base stays frozen in its number format,
the adapters are float32. Every step packs `batch_size` examples into rows and divides by their response tokens, so the
gradient is the same however they were packed."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset
from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import shown
from genesis_lab.finetuning import checkpoints
from genesis_lab.finetuning.config import FinetuneConfig
from genesis_lab.finetuning.packing import ALONE, TILED, Row, isolate, row_loss, rows
from genesis_lab.finetuning.tasks import Encoded, encode, question_of, role_of
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import LoadedModel, load_model, peak_memory_bytes

SAVE_EVERY = 50
"""Steps between checkpoints; one is also made after every epoch."""
_LONGEST_GRADIENT = 1.0
_WARM_UP = 0.1
"""Share of the steps in which the step size rises."""


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, loaded and checked: the student with fresh adapters, and the examples as token ids.
    A run goes on, or is read back, only where all of `made_with` is the same; `attention` is what `isolate` said."""

    config: FinetuneConfig
    folder: Path
    dataset: Dataset
    role: Role
    loaded: LoadedModel
    model: Any
    train: list[Encoded]
    validation: list[Encoded]
    examined: list[Example]
    too_long: list[Encoded]
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
        share = self.attention == TILED and not self.config.dropout  # a dropped input would be dropped for all
        room = 1 if self.attention == ALONE else self.config.row_tokens
        filled = self.config.compile and not share
        return rows(examples, room, share=share, filled=filled, pad=self.loaded.tokenizer.pad_token_id)

    def loss(self, row: Row) -> Any:
        return row_loss(self.model, row, self.attention)

    def facts(self) -> dict[str, Any]:
        """The weights that learn, those there are, and the layers that have an adapter by name with their number."""
        from peft.tuners.lora import LoraLayer

        layers = [name for name, layer in self.model.named_modules() if isinstance(layer, LoraLayer)]
        return {
            "trainable_parameters": sum(p.numel() for p in self.trainable),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "adapted": dict(Counter(name.rpartition(".")[2] for name in layers)),
        }


def prepare(dataset: Dataset, config: FinetuneConfig) -> Prepared:
    """Check everything that can be checked before a run (`InvalidInput`), load the base and put adapters on it."""
    import torch

    if config.quantization == "nf4" and not torch.cuda.is_available():
        why = "on a CPU bitsandbytes spoils the gradients without a word after the first evaluation"
        raise InvalidInput(f"quantization nf4 needs a CUDA GPU: {why}, so set quantization to none.")
    role, examples = role_of(dataset, seed=config.seed)
    loaded = load_model(config.base, device=config.device, dtype=config.dtype, quantization=config.quantization)
    if config.max_length > loaded.context_tokens:
        raise InvalidInput(
            f"max_length is {config.max_length:,}, but {loaded.name} reads {loaded.context_tokens:,} tokens: lower it."
        )
    kept: dict[str, list[Encoded]] = {}
    left_out: list[Encoded] = []
    for split, limit in (("train", config.train_limit), ("validation", config.val_limit)):
        fit, too_long = encode(loaded.tokenizer, loaded.eos_ids, examples[split], config.max_length)
        if not fit:
            raise InvalidInput(
                f"All {len(too_long):,} examples of split {split} are longer than max_length ({config.max_length:,} "
                f"tokens), the longest has {max(map(len, too_long)):,}: raise max_length."
            )
        kept[split] = fit[:limit]
        left_out += too_long
    folder, examined = checkpoints.student_path(config.student), {e.id for e in kept["validation"][: config.examine]}
    seen = [(e.prompt, e.answer) for split in kept.values() for e in split]
    made_with = {
        "base": checkpoints.base_name(config.base, folder),
        "base_hash": checkpoints.base_hash(config.base, loaded.model.config),
        "data_hash": dataset.content_hash,
        "token_hash": hashlib.sha256(repr(seen).encode()).hexdigest(),
        "settings": config.shaping,
    }
    return Prepared(
        config=config,
        folder=folder,
        dataset=dataset,
        role=role,
        loaded=loaded,
        attention=isolate(loaded.model, loaded.device, config.max_length),
        model=with_adapters(loaded.model, config),
        train=kept["train"],
        validation=kept["validation"],
        too_long=left_out,
        examined=[e for e in examples["validation"] if e.id in examined],
        made_with=made_with,
    )


def with_adapters(model: Any, config: FinetuneConfig) -> Any:
    """`model`, frozen, with fresh float32 adapters; the same for the same seed."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers.modeling_layers import GradientCheckpointingLayer

    torch.manual_seed(config.seed)
    layers = target_layers(model, attention_only=config.targets == "attention")
    lora = LoraConfig(task_type="CAUSAL_LM", r=config.rank, lora_dropout=config.dropout, target_modules=layers)
    lora.lora_alpha = config.alpha  # type: ignore[assignment]  # a ratio need not be whole
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
    """The linear layers of the model but its head, or those of its attention, which every family calls so somewhere."""
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    head, place = model.get_output_embeddings(), r"(attn|attention).*\." if attention_only else ""
    linear = (n for n, m in model.named_modules() if isinstance(m, Linear | Conv1D) and m is not head)
    if not (chosen := [name for name in linear if re.search(place, name, re.I)]):
        where, instead = (" in its attention", "all-linear") if attention_only else ("", "another base")
        raise InvalidInput(f"The base has no linear layers{where} that adapters could be put on: choose {instead}.")
    return chosen


def plan(prepared: Prepared) -> dict[str, Any]:
    """What a run will take, examinations aside: the longest row is run forward and backward, which changes no weight.
    ``tokens`` count every example as often as it is seen, ``answered`` are those of them that are learned."""
    import torch

    steps = [prepared.rows(prepared.batch(step)) for step in range(1, prepared.total_steps + 1)]
    every = sorted((row for step in steps for row in step), key=lambda row: len(row.ids))
    rate = 1.0
    prepared.model.train()
    with _memory_errors(prepared):
        for row in (every[0], every[-1]):  # the first warms up
            started = time.perf_counter()
            prepared.loss(row).backward()
            if prepared.loaded.device == "cuda":
                torch.cuda.synchronize()
            rate = len(row.ids) / (time.perf_counter() - started)
    prepared.model.zero_grad(set_to_none=True)
    tokens, seconds = sum(row.tokens for row in every), sum(len(row.ids) for row in every) / rate
    kind = "A smoke run, whose student is no result" if prepared.config.limits else "A full run"
    takes = f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
    said = f"{kind}: {len(steps):,} steps over {tokens:,} tokens will take about {takes} on this machine"
    return {
        "steps": len(steps),
        "tokens": tokens,
        "answered": sum(len(row.labels) for row in every),
        "tokens_per_s": tokens / seconds,
        "seconds": seconds,
        **prepared.facts(),
        "peak_memory_bytes": peak_memory_bytes(prepared.loaded.device),
        "said": f"{said} ({tokens / seconds:,.0f} tokens/s, measured).",
    }


def train(prepared: Prepared, *, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Teach the student; what ``training_info.json`` records of it. A finished one is read back, a stopped one goes on.

    Raises `InvalidInput` where the folder holds a student of another base, data or settings; `GenesisError` where
    memory or disk is full, the loss is no number or Ctrl-C came: what was reached is kept, the message says how to go
    on."""
    import torch
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from transformers import get_cosine_schedule_with_warmup

    config, folder, total = prepared.config, prepared.folder, prepared.total_steps
    finished, checkpoint = checkpoints.found(folder, prepared.made_with, replaces=config.replace)
    if finished:
        if on_progress:
            on_progress(total, total)
        return finished
    optimizer = torch.optim.AdamW(prepared.trainable, config.learning_rate, weight_decay=0.0, fused=True)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(_WARM_UP * total), total)
    scaler = torch.amp.GradScaler(prepared.loaded.device, enabled=prepared.loaded.dtype == "float16")
    parts: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    done: dict[str, Any] = {"made_with": prepared.made_with, "step": 0, "steps": [], "epochs": [], "best": None}
    if checkpoint:
        done = {name: checkpoint[name] for name in done}
        set_peft_model_state_dict(prepared.model, checkpoint["adapter"])
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])

    def adapter() -> dict[str, Any]:
        return {k: w.detach().cpu().clone() for k, w in get_peft_model_state_dict(prepared.model).items()}

    def save() -> None:
        states = {name: part.state_dict() for name, part in parts.items()}
        checkpoints.save_checkpoint(folder, done | states | {"adapter": adapter()})

    with _stop_requests() as stop, _memory_errors(prepared):
        epochs, step = done["epochs"], done["step"]
        if not epochs:
            epochs.append(_evaluated(prepared, 0, None, 0))
        while True:
            if step and (step % prepared.steps_per_epoch == 0 or step == total) and epochs[-1]["step"] < step:
                save()  # what was learned is not lost should the examination fail
                new = [each for each in done["steps"] if each["step"] > epochs[-1]["step"]]
                loss = float(np.average([s["loss"] for s in new], weights=[s["answered"] for s in new]))
                epochs.append(_evaluated(prepared, len(epochs), loss, step))
                if _best_epoch(epochs) == len(epochs) - 1:
                    done["best"] = adapter()
                save()
            tired = config.patience and len(epochs) > 1 and len(epochs) - 1 - _best_epoch(epochs) >= config.patience
            if step >= total or tired:
                break
            if stop.is_set():
                save()
                again = f"run it again with the same settings and it goes on from there (checkpoint in {shown(folder)})"
                raise GenesisError(f"Stopped after step {step} of {total}: {again}.")
            started = time.perf_counter()
            facts = take_step(prepared, step + 1, optimizer, scaler)
            schedule.step()
            done["step"] = step = step + 1
            done["steps"].append(facts | {"step": step, "seconds": time.perf_counter() - started})
            if step % SAVE_EVERY == 0:
                save()
            if on_progress:
                on_progress(step, total)
    info, base = _info(prepared, done), prepared.made_with["base"]
    checkpoints.save_student(folder, model=prepared.model, adapter=done["best"], base=base, info=info)
    set_peft_model_state_dict(prepared.model, done["best"])
    return info


def take_step(prepared: Prepared, step: int, optimizer: Any, scaler: Any) -> dict[str, Any]:
    """One step of the optimizer; its facts."""
    import torch

    torch.manual_seed(prepared.config.seed + step)  # what dropout drops is the same when a run goes on
    packed, loss = prepared.rows(prepared.batch(step)), 0.0
    answered = sum(len(row.labels) for row in packed)
    prepared.model.train()
    for row in packed:
        part = prepared.loss(row)
        scaler.scale(part / answered).backward()
        loss += float(part.detach()) / answered
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(prepared.trainable, _LONGEST_GRADIENT))
    if not (np.isfinite(loss) and (np.isfinite(norm) or scaler.is_enabled())):
        rate, epoch = prepared.config.learning_rate, (step - 1) // prepared.steps_per_epoch + 1
        raise GenesisError(
            f"The loss is no longer a number at step {step} (epoch {epoch}); the last checkpoint is kept. Lower "
            f"learning_rate from {rate:g} to {rate / 4:g}, or set dtype to float32."
        )
    rate = optimizer.param_groups[0]["lr"]
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    tokens = sum(row.tokens for row in packed)
    return {"loss": loss, "learning_rate": rate, "gradient": norm, "tokens": tokens, "answered": answered}


def _evaluated(prepared: Prepared, epoch: int, train_loss: float | None, step: int) -> dict[str, Any]:
    """Loss on validation, and score and validity of free answers, after an epoch."""
    import torch

    config, examined, scored = prepared.config, prepared.examined, []
    prepared.model.eval()
    packed = prepared.rows(prepared.validation)
    with torch.no_grad():
        loss = sum(float(prepared.loss(row)) for row in packed)
    provider = LocalProvider(config.base, batch_size=16, loaded=replace(prepared.loaded, model=prepared.model))
    requests = [replace(question_of(each), max_tokens=config.answer_tokens, temperature=0.0) for each in examined]
    with torch.compiler.set_stance("force_eager") if config.compile else nullcontext():
        answers = provider.complete_many(requests) if requests else []
    for example, answer in zip(examined, answers, strict=True):
        if isinstance(answer, Exception):  # epochs are compared on all examples, or not at all
            said = f"Example {example.id}, on which the student is examined, can't be answered: {answer}"
            raise GenesisError(said) from answer
        scored.append((example.id, answer.text, prepared.role.score(answer.text, example)))
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": train_loss,
        "validation_loss": loss / sum(len(row.labels) for row in packed),
        "score": float(np.mean([score.total for *_, score in scored])) if scored else None,
        "valid": float(np.mean([score.valid for *_, score in scored])) if scored else None,
        "answers": [{"id": id, "text": text, "score": score.total} for id, text, score in scored],
    }


def _best_epoch(epochs: Sequence[dict[str, Any]]) -> int:
    """By score where answers were scored, and by validation loss among equals; the untaught base is not a candidate."""
    by = [(epoch["score"] or 0.0, -epoch["validation_loss"]) for epoch in epochs]
    return max(range(1, len(epochs)), key=by.__getitem__, default=0)


def _info(prepared: Prepared, done: dict[str, Any]) -> dict[str, Any]:
    config, loaded, steps = prepared.config, prepared.loaded, done["steps"]
    seconds, tokens = sum(step["seconds"] for step in steps), sum(step["tokens"] for step in steps)
    return {
        "student": shown(prepared.folder),
        "smoke": bool(config.limits),
        "limits": config.limits,
        "dataset": prepared.dataset.name,
        "made_with": prepared.made_with,
        "seed": config.seed,
        "examples": {"train": len(prepared.train), "validation": len(prepared.validation)},
        "too_long": [{"id": example.id, "tokens": len(example)} for example in prepared.too_long],
        **prepared.facts(),
        "device": loaded.device,
        "dtype": loaded.dtype,
        "attention": prepared.attention,
        "notes": list(loaded.notes),
        "tokens_seen": tokens,
        "training_seconds": seconds,
        "tokens_per_s": tokens / seconds if seconds else None,
        "peak_memory_bytes": peak_memory_bytes(loaded.device),
        "stopped_early": len(steps) < prepared.total_steps,
        "best_epoch": _best_epoch(done["epochs"]),
        "versions": {package: version(package) for package in ("genesis-lab", "torch", "transformers", "peft")},
        "steps": steps,
        "epochs": done["epochs"],
    }


@contextmanager
def _memory_errors(prepared: Prepared) -> Iterator[None]:
    """Memory that does not suffice, in one sentence that says what to lower."""
    import torch

    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise GenesisError(
            f"The memory of the {prepared.loaded.device} does not hold a row of up to {prepared.config.row_tokens:,} "
            f"tokens: lower row_tokens (down to {max(map(len, prepared.train)):,}, the longest example), or set "
            "gradient_checkpointing: true; the same run then goes on from its last checkpoint."
        ) from None


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Ctrl-C asks for a stop after the step in hand, so that what is saved is whole; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(*_: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
