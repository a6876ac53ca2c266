"""Where a student is kept: one checkpoint on the way, then the adapter and its ``training_info.json``, written last."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from genesis_lab.dataset import Dataset
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import named, output_root, placed, resolve, shown, write_atomically, write_error
from genesis_lab.providers.identity import weights_digest
from genesis_lab.providers.local_models import BUNDLED, bundled_model, share_weights

INFO, CHECKPOINT = "training_info.json", "checkpoint.pt"
Record = dict[str, Any]
STUDENT = ("adapter_model.safetensors", "adapter_config.json", INFO)
"""The files of a finished student, in the order in which they are put in place."""


def student_path(name: str | Path) -> Path:
    """The folder of a student given by bare name (under ``outputs/models``) or by path."""
    return named("models", name)


def read_info(folder: Path) -> Record | None:
    """What is recorded of a finished student; None where none was finished, `InvalidInput` where it can't be read."""
    try:
        info: Record = json.loads((folder / INFO).read_text(encoding="utf-8"))
        info["made_with"]["settings"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError):
        raise InvalidInput(f"{shown(folder / INFO)} can't be read: train anew with replace: true.") from None
    return info


def write_beside(student: str, name: str, report: Mapping[str, Any]) -> Path:
    """Keep a report in the folder of the student that it is about."""
    file = student_path(student) / f"{name}.json"
    write_atomically(file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return file


def students_of(dataset: Dataset, reports: Mapping[str, Any]) -> dict[str, Any]:
    """The record of the ``student`` that the kept evaluation of `reports` examined, else of the newest that `dataset`
    taught, and that of its ``export``, as far as there are any; ``left_out`` names records that could not be read."""
    left_out: dict[str, str] = {}

    def records(pattern: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for path in sorted(output_root().glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True):
            try:
                yield shown(path.parent), {**json.loads(path.read_text(encoding="utf-8"))}
            except (OSError, ValueError, TypeError):
                left_out[shown(path)] = "it can't be read"

    examined = {card["model"] for card in reports.get("evaluation", {"cards": ()})["cards"]}
    every, ours = records(f"models/*/{INFO}"), dataset.content_hash
    taught = [(folder, info) for folder, info in every if (info.get("made_with") or {}).get("data_hash") == ours]
    known: dict[str, Any] = {}
    if taught:
        student, known["student"] = max(taught, key=lambda each: f"local:{each[0]}" in examined)
        exports = [export for _, export in records("*/*/export.json") if export.get("student") == student]
        known |= {"export": exports[0]} if exports else {}
    return known | ({"left_out": left_out} if left_out else {})


def save_checkpoint(student: Path, state: Mapping[str, Any]) -> None:
    """Write the tensors and plain values of `state`; where that fails, `GenesisError`, and the one before stays."""
    import torch

    try:
        with placed(student / CHECKPOINT, replace=True) as scratch:
            torch.save(dict(state), scratch)
    except RuntimeError as error:  # torch has its own for a disk that is full
        reason = " ".join(str(error).split())[:120]
        raise GenesisError(f"{shown(student / CHECKPOINT)} can't be written: {reason}.") from error


def last_checkpoint(student: Path) -> Record | None:
    """What `save_checkpoint` was given last of a run that did not end; None where there is none."""
    import torch

    try:
        state: Record = torch.load(student / CHECKPOINT, weights_only=True)
    except FileNotFoundError:
        return None
    except Exception as error:  # pickle, zip and torch have errors of their own for a file that is not whole
        where = shown(student / CHECKPOINT)
        raise InvalidInput(f"{where} can't be read: remove it, or train anew with replace: true.") from error
    return state


def save_student(student: Path, *, model: Any, adapter: Mapping[str, Any], base: str, info: Mapping[str, Any]) -> None:
    """Put a finished student in place of what was there; until its record is, the last checkpoint stands for it."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    config, whole = model.peft_config["default"], student / ".finished"
    config.base_model_name_or_path, config.inference_mode = base, True
    shutil.rmtree(whole, ignore_errors=True)
    try:
        config.save_pretrained(whole)
        save_file(dict(adapter), whole / STUDENT[0], metadata={"format": "pt"})
        share_weights(whole)
        write_atomically(whole / INFO, json.dumps(info, indent=1, ensure_ascii=False) + "\n")
        (student / INFO).unlink(missing_ok=True)
        for name in STUDENT:
            (whole / name).replace(student / name)
        (student / CHECKPOINT).unlink(missing_ok=True)
    except OSError as error:
        raise write_error(error, student) from None
    except SafetensorError as error:
        raise GenesisError(f"The student can't be written to {shown(student)}: {error}.") from error
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def found(folder: Path, made_with: Mapping[str, Any], *, replaces: bool) -> tuple[Record | None, Record | None]:
    """A finished student's record, or the checkpoint to go on from, made with the same base, data and settings.

    Of others nothing where the run `replaces` them (they stay until it is whole), else `InvalidInput`. So for an
    adapter that was not trained here; the folder is made, and raises where it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise write_error(error, folder) from None
    *adapter, info = (folder / name for name in STUDENT)
    if any(file.exists() for file in adapter) and not (info.exists() or (folder / CHECKPOINT).exists()):
        raise InvalidInput(f"{shown(folder)} holds an adapter that was not trained here: choose another name.")
    finished, checkpoint = None if replaces else read_info(folder), None
    with suppress(InvalidInput) if replaces else nullcontext():
        checkpoint = None if finished else last_checkpoint(folder)
    theirs = (finished or checkpoint or {"made_with": made_with})["made_with"]
    changed = [name for name, value in made_with["settings"].items() if theirs["settings"].get(name) != value]
    if theirs["base_hash"] != made_with["base_hash"]:
        why = f"from base {theirs['base']} (or other weights of that name), not from {made_with['base']}"
    elif changed:
        why = f"with other settings ({', '.join(changed)})"
    elif any(theirs[name] != made_with[name] for name in ("data_hash", "token_hash")):
        why = "from other data"
    else:
        return finished, checkpoint
    if replaces:
        return None, None
    there = f"The {'student' if finished else 'checkpoint'} in {shown(folder)} was made {why}"
    raise InvalidInput(f"{there}: choose another name for the student, or set replace: true.")


def logged(folder: Path, info: Mapping[str, Any]) -> dict[str, Any]:
    """What `registry.log_run` keeps of a finished student: settings, curves, and the adapter's files."""
    made = info["made_with"]

    def save(target: Path) -> None:
        target.mkdir()
        for name in STUDENT:
            shutil.copy2(folder / name, target)

    of = {"loss": "steps", "learning_rate": "steps", "validation_loss": "epochs", "score": "epochs", "valid": "epochs"}
    curves = {key: [(row["step"], row[key]) for row in info[part] if row[key] is not None] for key, part in of.items()}
    return {
        "params": made["settings"],
        "metrics": info,
        "sources": [(info["dataset"], made["data_hash"])],
        "save": save,
        "curves": curves,
        "tags": {"genesis.base": made["base"], "genesis.smoke": str(info["smoke"])},
    }


def base_name(source: str, student: Path) -> str:
    """How an adapter names its base: by the way from the student's folder to the base's, so that both can move."""
    folder = resolve(source)
    return Path(os.path.relpath(folder, student)).as_posix() if source != BUNDLED and folder.is_dir() else source


def base_hash(source: str, config: Any) -> str:
    """Which weights a base has: the digest of its files, or the hub's commit."""
    place = str(bundled_model()) if source == BUNDLED else source
    return weights_digest(place) or str(getattr(config, "_commit_hash", None) or source)
