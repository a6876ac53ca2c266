"""Where a student is kept: checkpoints on the way, the adapter and its ``training_info.json`` at the end.

A checkpoint is written under a temporary name and renamed when it is whole, and only then is the one before it
removed: a kill, a crash or a full disk leaves the last good one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.outputs import write_atomically
from genesis_lab.paths import output_root, resolve, shown
from genesis_lab.providers.local_models import BUNDLED, bundled_model, share_weights

INFO = "training_info.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_STATE, _BEST = "state.json", "best.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after `step` steps; `tensors` holds optimizer, schedule and random numbers."""

    folder: Path
    step: int
    progress: dict[str, Any]
    tensors: Any

    def adapter(self) -> dict[str, Any]:
        """Weights of the adapters."""
        from safetensors.torch import load_file

        return load_file(self.folder / ADAPTER)

    def best(self) -> dict[str, Any] | None:
        """Weights of the best epoch so far; None before the first has ended."""
        from safetensors.torch import load_file

        return load_file(self.folder / _BEST) if (self.folder / _BEST).exists() else None


def student_path(name: str | Path) -> Path:
    """The folder of a student given by bare name (under ``outputs/models``) or by path."""
    if len(Path(name).parts) == 1 and not str(name).startswith((".", "~")):
        return output_root() / "models" / name
    return resolve(name)


def read_info(folder: Path) -> dict[str, Any] | None:
    """What is recorded of a finished student; None where none was finished.

    Raises
    ------
    InvalidInput : the record can't be read.
    """
    try:
        info: dict[str, Any] = json.loads((folder / INFO).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise InvalidInput(
            f"{shown(folder / INFO)} can't be read: train the student anew with replace: true."
        ) from None
    return info


def save_checkpoint(
    student: Path, step: int, *, adapter: dict[str, Any], best: dict[str, Any] | None, tensors: Any,
    progress: dict[str, Any],
) -> None:  # fmt: skip
    """Write a checkpoint; earlier ones are removed once it is whole.

    Raises
    ------
    GenesisError : it can't be written; the message names the last good checkpoint.
    """
    import torch
    from safetensors.torch import save_file

    def fill(folder: Path) -> None:
        save_file(adapter, folder / ADAPTER)
        if best is not None:
            save_file(best, folder / _BEST)
        torch.save(tensors, folder / "tensors.pt")
        write_atomically(folder / _STATE, json.dumps({"step": step, "progress": progress}))

    before = _checkpoints(student)
    kept = f"the one after step {_step(before[-1])} is kept" if before else "there is none yet"
    _place(fill, student / f"checkpoint-{step:06d}", f"The checkpoint after step {step} ({kept})")
    for old in before:
        if _step(old) != step:
            shutil.rmtree(old, ignore_errors=True)


def last_checkpoint(student: Path) -> Checkpoint | None:
    """The newest whole checkpoint of a run that did not end; None where there is none."""
    import torch

    found = _checkpoints(student)
    if not found:
        return None
    try:
        state = json.loads((found[-1] / _STATE).read_text(encoding="utf-8"))
        tensors = torch.load(found[-1] / "tensors.pt", weights_only=True)
    except (OSError, ValueError, RuntimeError, EOFError):
        raise InvalidInput(
            f"Checkpoint {shown(found[-1])} can't be read: remove it, or train anew with replace: true."
        ) from None
    return Checkpoint(found[-1], state["step"], state["progress"], tensors)


def save_student(student: Path, *, model: Any, adapter: dict[str, Any], base: str, info: dict[str, Any]) -> None:
    """The finished student: adapter and record are whole before the checkpoints are removed."""
    from safetensors.torch import save_file

    def fill(folder: Path) -> None:
        config = model.peft_config["default"]
        config.base_model_name_or_path, config.inference_mode = base, True
        config.save_pretrained(folder)
        save_file(adapter, folder / ADAPTER, metadata={"format": "pt"})
        share_weights(folder)
        write_atomically(folder / INFO, json.dumps(info, indent=1, ensure_ascii=False) + "\n")

    scratch = student / "finished"
    _place(fill, scratch, "The student")
    for name in (ADAPTER, ADAPTER_CONFIG, INFO):  # the record is the last: without it, the student is not finished
        (scratch / name).replace(student / name)
    clear(student, but=(ADAPTER, ADAPTER_CONFIG, INFO))


def clear(student: Path, *, but: tuple[str, ...] = ()) -> None:
    """Remove what training wrote into a student's folder, checkpoints included; nothing else is touched."""
    for name in (INFO, ADAPTER, ADAPTER_CONFIG):
        if name not in but:
            (student / name).unlink(missing_ok=True)
    for folder in (*student.glob("checkpoint-*"), *student.glob(".*.tmp"), student / "finished"):
        shutil.rmtree(folder, ignore_errors=True)


def base_name(source: str, student: Path) -> str:
    """How an adapter names its base: by the way from the student's folder to the base's, so that both can move."""
    folder = resolve(source)
    return Path(os.path.relpath(folder, student)).as_posix() if source != BUNDLED and folder.is_dir() else source


def base_hash(source: str, config: Any) -> str:
    """Which weights a base has: SHA-256 of its files, or the hub's commit."""
    folder = bundled_model() if source == BUNDLED else resolve(source)
    if not folder.is_dir():
        return str(getattr(config, "_commit_hash", None) or source)
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), folder / ADAPTER_CONFIG, folder / "config.json")):
        if path.exists():
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _place(fill: Callable[[Path], None], target: Path, what: str) -> None:
    """Let `fill` write a folder under a temporary name, then rename it to `target`."""
    scratch = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        fill(scratch)
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
    except Exception as error:  # safetensors and torch have errors of their own for a disk that is full
        shutil.rmtree(scratch, ignore_errors=True)
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
        raise GenesisError(f"{what} can't be written to {shown(target.parent)}: {reason}.") from error


def _checkpoints(student: Path) -> list[Path]:
    return sorted(student.glob("checkpoint-*"), key=_step)


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
