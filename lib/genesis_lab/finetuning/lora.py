"""Teach a small model by LoRA: one loop over plain transformers and peft.

The base stays frozen in its number format, the adapters are float32. Every step takes `batch_size` examples, packs them
into rows and divides by their response tokens, so the gradient is the same however they were packed.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab import __version__
from genesis_lab.dataset import Dataset
from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import shown
from genesis_lab.finetuning import checkpoints
from genesis_lab.finetuning.config import FinetuneConfig
from genesis_lab.finetuning.packing import ALONE, TILED, Row, isolation, row_loss, rows
from genesis_lab.finetuning.tasks import Encoded, encode, question_of, role_of
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import LoadedModel, load_model, peak_memory_bytes

OnProgress = Callable[[int, int], None]
SAVE_EVERY = 50
"""Steps between checkpoints; one is also made after every epoch."""
_LONGEST_GRADIENT = 1.0
_PACKAGES = ("torch", "transformers", "peft")


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
    too_long: list[Encoded]
    attention: str
    serving: str
    made_with: dict[str, Any]

    @property
    def trainable(self) -> list[Any]:
        """The adapters' weights."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def parameters(self) -> dict[str, int]:
        """How many weights there are, and how many of them learn."""
        every = list(self.model.parameters())
        return {
            "trainable_parameters": sum(p.numel() for p in self.trainable),
            "parameters": sum(p.numel() for p in every),
        }

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

    def loss(self, row: Row) -> Any:
        """See `packing.row_loss`; call it while `attending`."""
        return row_loss(self.model, row, self.attention)


@dataclass(frozen=True)
class FinetuneReport:
    """A finished student: its folder, and what is recorded of its training (``training_info.json``)."""

    folder: Path
    info: dict[str, Any]

    def logged(self) -> dict[str, Any]:
        """What `registry.log_run` keeps of it: settings, curves, and the adapter's files."""
        info, made = self.info, self.info["made_with"]
        measured = {"steps": ("loss", "learning_rate"), "epochs": ("validation_loss", "score", "valid")}

        def save(folder: Path) -> None:
            folder.mkdir()
            for name in ("adapter_model.safetensors", "adapter_config.json", checkpoints.INFO):
                shutil.copy2(self.folder / name, folder)

        return {
            "params": made["settings"],
            "metrics": info,
            "sources": [(info["dataset"], made["data_hash"])],
            "save": save,
            "curves": {
                key: [(row["step"], row[key]) for row in info[part] if row[key] is not None]
                for part, keys in measured.items()
                for key in keys
            },
            "tags": {"genesis.base": made["base"], "genesis.smoke": str(info["smoke"])},
        }


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
    held = {example.id: example for example in examples["validation"]}
    folder = checkpoints.student_path(config.student)
    seen = [(e.prompt, e.answer) for split in kept.values() for e in split]
    attention, serving = (
        isolation(loaded.model, loaded.device, config.max_length), loaded.model.config._attn_implementation,
    )  # fmt: skip
    return Prepared(
        config=config,
        folder=folder,
        dataset=dataset,
        role=role,
        loaded=loaded,
        model=with_adapters(loaded.model, config),
        train=kept["train"],
        validation=kept["validation"],
        examined=[held[e.id] for e in kept["validation"][: config.examine]],
        too_long=left_out,
        attention=attention,
        serving=str(serving),
        made_with={
            "base": checkpoints.base_name(config.base, folder),
            "base_hash": checkpoints.base_hash(config.base, loaded.model.config),
            "data_hash": dataset.content_hash,
            "token_hash": hashlib.sha256(repr(seen).encode()).hexdigest(),
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


def plan(prepared: Prepared) -> dict[str, Any]:
    """What a run will take: the longest row is run forward and backward, which changes no weight.

    Returns
    -------
    ``steps``; ``tokens`` of all examples as often as they are seen, and those of them that are ``answered``;
    ``tokens_per_s`` and ``seconds`` for the steps alone, examinations between epochs come on top;
    ``peak_memory_bytes``, None where the system does not say; ``said``, all that in a sentence.
    """
    import torch

    steps = [prepared.rows(prepared.batch(step)) for step in range(1, prepared.total_steps + 1)]
    every = sorted((row for step in steps for row in step), key=lambda row: len(row.ids))
    random, rate = torch.get_rng_state(), 0.0
    prepared.model.train()
    with attending(prepared, prepared.attention), memory_errors(prepared):
        for row in (every[0], every[-1]):  # the first warms up
            started = time.perf_counter()
            prepared.loss(row).backward()
            if prepared.loaded.device == "cuda":
                torch.cuda.synchronize()
            rate = len(row.ids) / (time.perf_counter() - started)
    for parameter in prepared.trainable:
        parameter.grad = None
    torch.set_rng_state(random)
    tokens, computed = sum(row.tokens for row in every), sum(len(row.ids) for row in every)
    seconds = computed / rate
    kind = "A smoke run, whose student is no result" if prepared.config.limits else "A full run"
    takes = f"{seconds / 3600:.1f} hours" if seconds >= 7200 else f"{seconds / 60:.1f} minutes"
    return {
        "steps": len(steps),
        "tokens": tokens,
        "answered": sum(len(row.labels) for row in every),
        "tokens_per_s": tokens / seconds,
        "seconds": seconds,
        **prepared.parameters,
        "peak_memory_bytes": peak_memory_bytes(prepared.loaded.device),
        "said": f"{kind}: {len(steps):,} steps over {tokens:,} tokens will take about {takes} on this machine "
        f"({tokens / seconds:,.0f} tokens/s, measured).",
    }


def train(prepared: Prepared, *, on_progress: OnProgress | None = None) -> FinetuneReport:
    """Teach the student; a run that was stopped goes on from its last checkpoint, a finished one is read back.

    Parameters
    ----------
    on_progress : called after every step with the steps done and their number.

    Raises
    ------
    InvalidInput : the folder holds a student of another base, data or settings.
    GenesisError : the loss is no longer a number, memory or disk is full, or the run was stopped by Ctrl-C; what was
        reached is kept, and the message says how to go on.
    """
    import torch
    from peft import set_peft_model_state_dict
    from transformers import get_cosine_schedule_with_warmup

    config, folder, total = prepared.config, prepared.folder, prepared.total_steps
    finished, checkpoint = _found(prepared)
    if finished:
        if on_progress:
            on_progress(total, total)
        return FinetuneReport(folder, finished)
    optimizer = optimizer_of(prepared)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(config.warmup * total), total)
    scaler = torch.amp.GradScaler(prepared.loaded.device, enabled=prepared.loaded.dtype == "float16")
    parts = {"optimizer": optimizer, "schedule": schedule, "scaler": scaler}
    done: dict[str, Any] = {"made_with": prepared.made_with, "steps": [], "epochs": []}
    best, step = None, 0
    if checkpoint:
        done, best, step = checkpoint["progress"], checkpoint["best"], checkpoint["step"]
        set_peft_model_state_dict(prepared.model, checkpoint["adapter"])
        for name, part in parts.items():
            part.load_state_dict(checkpoint["tensors"][name])
        states = checkpoint["tensors"]["random"]
        torch.set_rng_state(states[0])
        if torch.cuda.is_available() and len(states) > 1:
            torch.cuda.set_rng_state_all(states[1:])

    def save() -> None:
        random = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]
        tensors = {name: part.state_dict() for name, part in parts.items()} | {"random": random}
        checkpoints.save_checkpoint(
            folder, step, adapter=_adapter(prepared), best=best, tensors=tensors, progress=done
        )  # fmt: skip

    with _stop_requests() as stop, attending(prepared, prepared.attention), memory_errors(prepared):
        if not done["epochs"]:
            done["epochs"].append(_evaluated(prepared, 0, None, 0))
        while True:
            epochs = done["epochs"]
            if step and (step % prepared.steps_per_epoch == 0 or step == total) and epochs[-1]["step"] < step:
                save()  # what was learned is not lost should the examination fail
                new = [each for each in done["steps"] if each["step"] > epochs[-1]["step"]]
                loss = float(np.average([s["loss"] for s in new], weights=[s["answered"] for s in new]))
                epochs.append(_evaluated(prepared, len(epochs), loss, step))
                if _best_epoch(epochs) == len(epochs) - 1:
                    best = _adapter(prepared)
                save()
            tired = config.patience and len(epochs) > 1 and len(epochs) - 1 - _best_epoch(epochs) >= config.patience
            if step >= total or tired:
                break
            if stop.is_set():
                save()
                raise GenesisError(
                    f"Stopped after step {step} of {total}: run it again with the same settings and it goes on from "
                    f"there (checkpoint in {shown(folder)})."
                )
            started = time.perf_counter()
            facts = take_step(prepared, step + 1, optimizer, scaler)
            schedule.step()
            step += 1
            done["steps"].append(facts | {"step": step, "seconds": time.perf_counter() - started})
            if step % SAVE_EVERY == 0:
                save()
            if on_progress:
                on_progress(step, total)
    best, info = best or _adapter(prepared), _info(prepared, done)
    checkpoints.save_student(folder, model=prepared.model, adapter=best, base=prepared.made_with["base"], info=info)
    set_peft_model_state_dict(prepared.model, best)
    return FinetuneReport(folder, info)


def optimizer_of(prepared: Prepared) -> Any:
    """AdamW over the adapters."""
    import torch

    return torch.optim.AdamW(prepared.trainable, prepared.config.learning_rate, weight_decay=0.0, fused=True)


def take_step(prepared: Prepared, step: int, optimizer: Any, scaler: Any) -> dict[str, Any]:
    """One step of the optimizer; its facts."""
    import torch

    packed = prepared.rows(prepared.batch(step))
    answered = sum(len(row.labels) for row in packed)
    prepared.model.train()
    loss = 0.0
    for row in packed:
        part = prepared.loss(row)
        scaler.scale(part / answered).backward()
        loss += float(part.detach()) / answered
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(prepared.trainable, _LONGEST_GRADIENT))
    rate = prepared.config.learning_rate
    if not (np.isfinite(loss) and (np.isfinite(norm) or scaler.is_enabled())):
        optimizer.zero_grad(set_to_none=True)
        last = checkpoints.last_checkpoint(prepared.folder)
        kept = f"the checkpoint after step {last['step']} is kept" if last else "no checkpoint was made before"
        raise GenesisError(
            f"The loss is no longer a number at step {step} (epoch {(step - 1) // prepared.steps_per_epoch + 1}); "
            f"{kept}. Lower learning_rate from {rate:g} to {rate / 4:g}, or set dtype to float32."
        )
    rate = optimizer.param_groups[0]["lr"]
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    tokens = sum(row.tokens for row in packed)
    return {"loss": loss, "learning_rate": rate, "gradient": norm, "tokens": tokens, "answered": answered}


def _found(prepared: Prepared) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """A finished student's record, or the checkpoint to go on from, made with the same base, data and settings."""
    checkpoints.check_place(prepared.folder)
    ours = prepared.made_with
    if prepared.config.replace:  # the student that is there stays until the new one is whole
        with suppress(InvalidInput):
            checkpoint = checkpoints.last_checkpoint(prepared.folder)
            if checkpoint and checkpoint["progress"]["made_with"] == ours:
                return None, checkpoint
        return None, None
    finished = checkpoints.read_info(prepared.folder)
    checkpoint = None if finished else checkpoints.last_checkpoint(prepared.folder)
    found = finished or (checkpoint and checkpoint["progress"])
    theirs = found["made_with"] if found else ours
    changed = [name for name, value in ours["settings"].items() if theirs["settings"].get(name) != value]
    if theirs["base_hash"] != ours["base_hash"]:
        why = f"was made from base {theirs['base']} (or other weights of that name), not from {ours['base']}"
    elif changed:
        why = f"was made with other settings ({', '.join(changed)})"
    elif any(theirs[name] != ours[name] for name in ("data_hash", "token_hash")):
        why = "was made from other data"
    else:
        return finished, checkpoint
    raise InvalidInput(
        f"The {'student' if finished else 'checkpoint'} in {shown(prepared.folder)} {why}: choose another name for the "
        "student, or set replace: true."
    )


def _evaluated(prepared: Prepared, epoch: int, train_loss: float | None, step: int) -> dict[str, Any]:
    """Loss on validation, and score and validity of free answers, after an epoch."""
    import torch

    prepared.model.eval()
    packed = prepared.rows(prepared.validation)
    with torch.no_grad():
        loss = sum(float(prepared.loss(row)) for row in packed)
    with torch.compiler.set_stance("force_eager") if prepared.config.compile else nullcontext():
        texts = _answers(prepared)
    scores = [prepared.role.score(text, example) for text, example in zip(texts, prepared.examined, strict=True)]
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": train_loss,
        "validation_loss": loss / sum(len(row.labels) for row in packed),
        "score": float(np.mean([score.total for score in scores])) if scores else None,
        "valid": float(np.mean([score.valid for score in scores])) if scores else None,
        "answers": [
            {"id": example.id, "text": text, "score": score.total}
            for example, text, score in zip(prepared.examined, texts, scores, strict=True)
        ],
    }


def _answers(prepared: Prepared) -> list[str]:
    """The student's free answers to the examples it is examined on: epochs are compared on all of them, or not at all."""
    config, asked = prepared.config, prepared.examined
    provider = LocalProvider(config.base, batch_size=16, loaded=replace(prepared.loaded, model=prepared.model))
    requests = [replace(question_of(each), max_tokens=config.answer_tokens, temperature=0.0) for each in asked]
    with attending(prepared, prepared.serving):
        answers = provider.complete_many(requests) if requests else []
    for example, answer in zip(asked, answers, strict=True):
        if isinstance(answer, Exception):
            raise GenesisError(
                f"Example {example.id}, on which the student is examined, can't be answered: {answer}"
            ) from answer
    return [answer.text for answer in answers if not isinstance(answer, Exception)]


def _best_epoch(epochs: Sequence[dict[str, Any]]) -> int:
    """By score where answers were scored, and by validation loss among equals; the untaught base is not a candidate."""
    return max(
        range(1, len(epochs)), key=lambda i: (epochs[i]["score"] or 0.0, -epochs[i]["validation_loss"]), default=0
    )


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
        **prepared.parameters,
        "device": loaded.device,
        "dtype": loaded.dtype,
        "attention": prepared.attention,
        "adapted": prepared.adapted,
        "notes": list(loaded.notes),
        "tokens_seen": tokens,
        "training_seconds": seconds,
        "tokens_per_s": tokens / seconds if seconds else None,
        "peak_memory_bytes": peak_memory_bytes(loaded.device),
        "stopped_early": len(steps) < prepared.total_steps,
        "best_epoch": _best_epoch(done["epochs"]),
        "versions": {"genesis-lab": __version__} | {package: version(package) for package in _PACKAGES},
        "steps": steps,
        "epochs": done["epochs"],
    }


def _adapter(prepared: Prepared) -> dict[str, Any]:
    """A copy of the adapters' weights, by peft's names."""
    from peft import get_peft_model_state_dict

    return {name: weight.detach().cpu().clone() for name, weight in get_peft_model_state_dict(prepared.model).items()}


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
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "can't allocate memory" not in str(error):
            raise
        row, longest = prepared.config.row_tokens, max(len(example) for example in prepared.train)
        lower = max(longest, row // 2)
        what = f"row_tokens from {row:,} to {lower:,}" if lower < row else f"max_length to {longest // 2:,}"
        raise GenesisError(
            f"The memory of the {prepared.loaded.device} does not hold a row of up to {row:,} tokens: lower {what}, or "
            "set gradient_checkpointing: true; run it again, and it goes on from the last checkpoint if there is one."
        ) from None


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Ctrl-C asks for a stop after the step in hand, so that what is saved is whole; a second one stops at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)
