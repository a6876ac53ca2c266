"""Where a student is kept: checkpoints on the way, the adapter and its ``training_info.json`` at the end.

A checkpoint is written under a temporary name and renamed when it is whole, and only then is the one before it
removed: a kill, a crash or a full disk leaves the last good one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from genesis_lab.dataset import Dataset
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import named, output_root, placed, resolve, shown, write_atomically, write_error
from genesis_lab.providers.identity import weights_digest
from genesis_lab.providers.local_models import BUNDLED, bundled_model, share_weights

INFO = "training_info.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
_STATE, _BEST, _TENSORS, _FINISHED = "state.json", "best.safetensors", "tensors.pt", ".finished"


def student_path(name: str | Path) -> Path:
    """The folder of a student given by bare name (under ``outputs/models``) or by path."""
    return _finish(named("models", name))


def check_place(student: Path) -> None:
    """Make the folder; raises where it can't be written, or holds an adapter that was not trained here."""
    try:
        student.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=student).close()
    except OSError as error:
        raise write_error(error, student) from None
    _finish(student)
    if any((student / name).exists() for name in (ADAPTER, ADAPTER_CONFIG)) and not (student / INFO).exists():
        raise InvalidInput(f"{shown(student)} holds an adapter that was not trained here: choose another name.")


def read_info(folder: Path) -> dict[str, Any] | None:
    """What is recorded of a finished student; None where none was finished.

    Raises
    ------
    InvalidInput : the record can't be read.
    """
    try:
        info: dict[str, Any] = json.loads((_finish(folder) / INFO).read_text(encoding="utf-8"))
        info["made_with"]["settings"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        raise InvalidInput(
            f"{shown(folder / INFO)} can't be read: train the student anew with replace: true."
        ) from None
    return info


def students_of(dataset: Dataset, reports: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the student that the kept evaluation of `reports` examined, else of the newest that `dataset` taught.

    Returns
    -------
    ``student`` (its record) and ``export`` (the record of its export) as far as there are any, and under ``left_out``
    the records that could not be read, with why.
    """
    left_out: dict[str, str] = {}

    def records(pattern: str) -> list[tuple[Path, dict[str, Any]]]:
        found = []
        for path in sorted(output_root().glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True):
            try:
                found.append((path.parent, {**json.loads(path.read_text(encoding="utf-8"))}))
            except (OSError, ValueError, TypeError):
                left_out[shown(path)] = "it can't be read"
        return found

    examined = {card["model"] for card in reports.get("evaluation", {"cards": ()})["cards"]}
    made_with = [(each, each[1].get("made_with") or {}) for each in records(f"models/*/{INFO}")]
    taught = [each for each, made in made_with if made.get("data_hash") == dataset.content_hash]
    known: dict[str, Any] = {}
    if taught:
        folder, known["student"] = max(taught, key=lambda each: f"local:{shown(each[0])}" in examined)
        exports = [export for _, export in records("*/*/export.json") if export.get("student") == shown(folder)]
        known |= {"export": exports[0]} if exports else {}
    return known | ({"left_out": left_out} if left_out else {})


def save_checkpoint(
    student: Path, step: int, *, adapter: dict[str, Any], best: dict[str, Any] | None, tensors: Any,
    progress: dict[str, Any],
) -> None:  # fmt: skip
    """Write a checkpoint: weights of the adapters, those of the best epoch so far, and `tensors` with the state of the rest.

    Earlier ones are removed once it is whole.

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
        torch.save(tensors, folder / _TENSORS)
        write_atomically(folder / _STATE, json.dumps({"step": step, "progress": progress}))

    before = _checkpoints(student)
    kept = f"the one after step {_step(before[-1])} is kept" if before else "there is none yet"
    _place(fill, student / f"checkpoint-{step:06d}", f"The checkpoint after step {step} ({kept})", _is_checkpoint)
    for old in before:
        if _step(old) != step:
            shutil.rmtree(old, ignore_errors=True)


def last_checkpoint(student: Path) -> dict[str, Any] | None:
    """What `save_checkpoint` was given last of a run that did not end; None where there is none."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = _checkpoints(student)
    if not found:
        return None
    folder = found[-1]
    try:
        return {
            **json.loads((folder / _STATE).read_text(encoding="utf-8")),
            "tensors": torch.load(folder / _TENSORS, weights_only=True),
            "adapter": load_file(folder / ADAPTER),
            "best": load_file(folder / _BEST) if (folder / _BEST).exists() else None,
        }
    except (OSError, ValueError, RuntimeError, EOFError, SafetensorError):
        raise InvalidInput(
            f"Checkpoint {shown(folder)} can't be read: remove it, or train anew with replace: true."
        ) from None


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

    _place(fill, student / _FINISHED, "The student", lambda folder: (folder / INFO).exists())
    _finish(student)
    for folder in _checkpoints(student):
        shutil.rmtree(folder, ignore_errors=True)


def base_name(source: str, student: Path) -> str:
    """How an adapter names its base: by the way from the student's folder to the base's, so that both can move."""
    folder = resolve(source)
    return Path(os.path.relpath(folder, student)).as_posix() if source != BUNDLED and folder.is_dir() else source


def base_hash(source: str, config: Any) -> str:
    """Which weights a base has: the digest of its files, or the hub's commit."""
    place = str(bundled_model()) if source == BUNDLED else source
    return weights_digest(place) or str(getattr(config, "_commit_hash", None) or source)


def _finish(student: Path) -> Path:
    """Give a student that is whole its place, file by file; a kill in between is made good by the next call."""
    whole = student / _FINISHED
    if (whole / INFO).exists():
        for name in (ADAPTER, ADAPTER_CONFIG, INFO):  # the record last: as long as it is there, this goes on
            if (whole / name).exists():
                (whole / name).replace(student / name)
        shutil.rmtree(whole, ignore_errors=True)
    return student


def _place(fill: Callable[[Path], None], target: Path, what: str, ours: Callable[[Path], bool]) -> None:
    """Let `fill` write a folder under a temporary name, then rename it to `target`."""
    with placed(target, replace=True, ours=ours) as scratch:
        try:
            scratch.mkdir()
            fill(scratch)
        except Exception as error:  # safetensors and torch have errors of their own for a disk that is full
            reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:120]
            raise GenesisError(f"{what} can't be written to {shown(target.parent)}: {reason}.") from error


def _checkpoints(student: Path) -> list[Path]:
    """Those that were written here, the oldest first."""
    return sorted(filter(_is_checkpoint, student.glob("checkpoint-[0-9]*")), key=_step)


def _is_checkpoint(folder: Path) -> bool:
    return re.fullmatch(r"checkpoint-\d+", folder.name) is not None and (folder / _STATE).exists()


def _step(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])
