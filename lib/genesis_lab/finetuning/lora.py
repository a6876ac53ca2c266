"""Teach a small model by LoRA: one loop over plain transformers and peft.

The base stays frozen in its number format, the adapters are float32. Every step takes `batch_size` examples, packs them
into rows and divides by their response tokens, so the gradient is the same however they were packed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab import __version__
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import shown
from genesis_lab.finetuning import checkpoints
from genesis_lab.finetuning.examples import question_of
from genesis_lab.finetuning.loss import row_loss
from genesis_lab.finetuning.student import Prepared, attending, memory_errors
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import peak_memory_bytes

OnProgress = Callable[[int, int], None]
_PACKAGES = ("torch", "transformers", "peft")


@dataclass(frozen=True)
class FinetuneReport:
    """A finished student: its folder, and what is recorded of its training (``training_info.json``)."""

    folder: Path
    info: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return self.info


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
        done, best, step = checkpoint.progress, checkpoint.best(), checkpoint.step
        _load_adapter(prepared, checkpoint.adapter())
        for name, part in parts.items():
            part.load_state_dict(checkpoint.tensors[name])
        _set_random_state(checkpoint.tensors["random"])

    def save() -> None:
        tensors = {name: part.state_dict() for name, part in parts.items()} | {"random": _random_state()}
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
                epochs.append(_evaluated(prepared, len(epochs), _mean_loss(done["steps"], epochs[-1]["step"]), step))
                if _best_epoch(epochs) == len(epochs) - 1:
                    best = _adapter(prepared)
                save()
            if step >= total or _out_of_patience(epochs, config.patience):
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
            facts |= {"step": step, "seconds": time.perf_counter() - started}
            done["steps"].append(facts)
            if step % config.save_every == 0:
                save()
            if on_progress:
                on_progress(step, total)
    info = _info(prepared, done)
    checkpoints.save_student(
        folder, model=prepared.model, adapter=best or _adapter(prepared), base=prepared.made_with["base"], info=info
    )
    _load_adapter(prepared, best or _adapter(prepared))
    return FinetuneReport(folder, info)


def examine(prepared: Prepared) -> tuple[list[float], list[bool], list[str]]:
    """Score, validity and text of the student's free answers to the examples it is examined on.

    Raises
    ------
    GenesisError : one can't be answered: epochs are compared on the same questions, or not at all.
    """
    if not prepared.examined:
        return [], [], []
    config = prepared.config
    provider = LocalProvider(config.base, batch_size=16, loaded=replace(prepared.loaded, model=prepared.model))
    requests = [
        replace(question_of(example), max_tokens=config.answer_tokens, temperature=0.0) for example in prepared.examined
    ]
    with attending(prepared, prepared.serving):
        answers = provider.complete_many(requests)
    texts = []
    for example, answer in zip(prepared.examined, answers, strict=True):
        if isinstance(answer, Exception):
            raise GenesisError(
                f"Example {example.id}, on which the student is examined, can't be answered: {answer}"
            ) from answer
        texts.append(answer.text)
    scores = [prepared.role.score(text, example) for text, example in zip(texts, prepared.examined, strict=True)]
    return [score.total for score in scores], [score.valid for score in scores], texts


def _found(prepared: Prepared) -> tuple[dict[str, Any] | None, checkpoints.Checkpoint | None]:
    """A finished student's record, or the checkpoint to go on from, made with the same base, data and settings."""
    checkpoints.check_place(prepared.folder)
    if prepared.config.replace:  # the student that is there stays until the new one is whole
        with suppress(InvalidInput):
            checkpoint = checkpoints.last_checkpoint(prepared.folder)
            if checkpoint and checkpoint.progress["made_with"] == prepared.made_with:
                return None, checkpoint
        return None, None
    finished = checkpoints.read_info(prepared.folder)
    checkpoint = None if finished else checkpoints.last_checkpoint(prepared.folder)
    found = finished or (checkpoint and checkpoint.progress)
    if not found:
        return None, None
    theirs, ours = found["made_with"], prepared.made_with
    if theirs != ours:
        if theirs["base_hash"] != ours["base_hash"]:
            why = f"was made from base {theirs['base']} (or other weights of that name), not from {ours['base']}"
        elif theirs["settings"] != ours["settings"]:
            changed = [name for name, value in ours["settings"].items() if theirs["settings"].get(name) != value]
            why = f"was made with other settings ({', '.join(changed)})"
        else:
            why = "was made from other data"
        what = "student" if finished else "checkpoint"
        raise InvalidInput(
            f"The {what} in {shown(prepared.folder)} {why}: choose another name for the student, or set replace: true."
        )
    return finished, checkpoint


def optimizer_of(prepared: Prepared) -> Any:
    """AdamW over the adapters."""
    import torch

    config = prepared.config
    return torch.optim.AdamW(prepared.trainable, config.learning_rate, weight_decay=config.weight_decay, fused=True)


def take_step(prepared: Prepared, step: int, optimizer: Any, scaler: Any) -> dict[str, Any]:
    """One step of the optimizer; its facts."""
    import torch

    packed = prepared.rows(prepared.batch(step))
    answered = sum(len(row.labels) for row in packed)
    prepared.model.train()
    loss = 0.0
    for row in packed:
        part = row_loss(prepared, row)
        scaler.scale(part / answered).backward()
        loss += float(part.detach()) / answered
    scaler.unscale_(optimizer)
    norm = float(torch.nn.utils.clip_grad_norm_(prepared.trainable, prepared.config.clip))
    if not (np.isfinite(loss) and (np.isfinite(norm) or scaler.is_enabled())):
        optimizer.zero_grad(set_to_none=True)
        last = checkpoints.last_checkpoint(prepared.folder)
        kept = f"the checkpoint after step {last.step} is kept" if last else "no checkpoint was made before"
        rate = prepared.config.learning_rate
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


def _evaluated(prepared: Prepared, epoch: int, train_loss: float | None, step: int) -> dict[str, Any]:
    """Loss on validation, and score and validity of free answers, after an epoch."""
    import torch

    prepared.model.eval()
    loss, answered = 0.0, 0
    with torch.no_grad():
        for row in prepared.rows(prepared.validation):
            loss += float(row_loss(prepared, row))
            answered += len(row.labels)
    stance = torch.compiler.set_stance("force_eager") if prepared.config.compile else nullcontext()
    with stance:
        scores, valid, texts = examine(prepared)
    return {
        "epoch": epoch,
        "step": step,
        "train_loss": train_loss,
        "validation_loss": loss / answered,
        "score": float(np.mean(scores)) if scores else None,
        "valid": float(np.mean(valid)) if scores else None,
        "answers": [
            {"id": example.id, "text": text, "score": score}
            for example, text, score in zip(prepared.examined, texts, scores, strict=True)
        ],
    }


def _best_epoch(epochs: Sequence[dict[str, Any]]) -> int:
    """By score where answers were scored, and by validation loss among equals; the untaught base is not a candidate."""
    return max(
        range(1, len(epochs)), key=lambda i: (epochs[i]["score"] or 0.0, -epochs[i]["validation_loss"]), default=0
    )


def _out_of_patience(epochs: Sequence[dict[str, Any]], patience: int) -> bool:
    return bool(patience) and len(epochs) > 1 and len(epochs) - 1 - _best_epoch(epochs) >= patience


def _mean_loss(steps: Sequence[dict[str, Any]], after: int) -> float:
    """Loss per response token over the steps since step `after`."""
    chosen = [step for step in steps if step["step"] > after]
    return float(np.average([s["loss"] for s in chosen], weights=[s["answered"] for s in chosen]))


def _info(prepared: Prepared, done: dict[str, Any]) -> dict[str, Any]:
    config, steps, epochs = prepared.config, done["steps"], done["epochs"]
    seconds, tokens = sum(step["seconds"] for step in steps), sum(step["tokens"] for step in steps)
    return {
        "student": shown(prepared.folder),
        "smoke": bool(config.limits),
        "limits": config.limits,
        "dataset": prepared.dataset.name,
        "made_with": prepared.made_with,
        "seed": config.seed,
        "examples": {"train": len(prepared.train), "validation": len(prepared.validation)},
        "too_long": [asdict(example) for example in prepared.too_long],
        "trainable_parameters": sum(p.numel() for p in prepared.trainable),
        "parameters": sum(p.numel() for p in prepared.model.parameters()),
        "device": prepared.loaded.device,
        "dtype": prepared.loaded.dtype,
        "attention": prepared.attention,
        "adapted": prepared.adapted,
        "notes": list(prepared.loaded.notes),
        "tokens_seen": tokens,
        "training_seconds": seconds,
        "tokens_per_s": tokens / seconds if seconds else None,
        "peak_memory_bytes": peak_memory_bytes(prepared.loaded.device),
        "stopped_early": len(steps) < prepared.total_steps,
        "best_epoch": _best_epoch(epochs),
        "versions": {"genesis-lab": __version__} | {package: version(package) for package in _PACKAGES},
        "steps": steps,
        "epochs": epochs,
    }


def _adapter(prepared: Prepared) -> dict[str, Any]:
    """A copy of the adapters' weights, by peft's names."""
    from peft import get_peft_model_state_dict

    return {name: weight.detach().cpu().clone() for name, weight in get_peft_model_state_dict(prepared.model).items()}


def _load_adapter(prepared: Prepared, weights: dict[str, Any]) -> None:
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(prepared.model, weights)


def _random_state() -> Any:
    import torch

    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def _set_random_state(states: Any) -> None:
    import torch

    torch.set_rng_state(states[0])
    if torch.cuda.is_available() and len(states) > 1:
        torch.cuda.set_rng_state_all(states[1:])


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
