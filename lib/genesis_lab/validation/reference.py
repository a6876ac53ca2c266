"""Real data to measure against: where it is found, and which split is in hand."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from genesis_lab.dataset.sources import read_rows
from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, shown
from genesis_lab.hub import hub_reachable
from genesis_lab.settings import get_settings
from genesis_lab.texts import normal

Split = Literal["test", "dev", "train", "train_pool"]

BANKING77_HUB = "legacy-datasets/banking77"
"""Parquet mirror of PolyAI/banking77 (Casanueva et al. 2020, CC-BY-4.0) with both splits whole: 10,003 and 3,080."""

_ORDER: dict[str | None, tuple[Split, ...]] = {
    None: ("test", "dev"),
    "test": ("test",),
    "dev": ("dev",),
    "train": ("train", "train_pool"),
    "train_pool": ("train_pool",),
}
_NAMES = ("banking77",)


@dataclass(frozen=True, slots=True)
class Reference:
    """Real labelled texts: `texts[i]` has label `labels[i]`. `source` says where they were read from."""

    name: str
    split: Split
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    language: str
    source: str

    def __str__(self) -> str:
        return f"{self.name} {self.split} (n = {len(self):,})"

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def intents(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(sorted(set(self.labels)))

    @property
    def digest(self) -> str:
        """sha256 over texts and labels in order: two results with the same digest are about the same items."""
        lines = (f"{label}\x1f{text}\x1e" for text, label in zip(self.texts, self.labels, strict=True))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogatepass")).hexdigest()

    def select(self, intents: Sequence[str]) -> Reference:
        """The items of these intents only."""
        wanted = set(intents)
        kept = [(t, y) for t, y in zip(self.texts, self.labels, strict=True) if y in wanted]
        texts, labels = zip(*kept, strict=True) if kept else ((), ())
        return Reference(self.name, self.split, texts, labels, self.language, self.source)

    def to_dict(self) -> dict[str, Any]:
        """What reports show about it; never its sentences."""
        return {
            "name": self.name,
            "split": self.split,
            "n": len(self),
            "intents": len(self.intents),
            "language": self.language,
            "source": self.source,
            "digest": self.digest,
        }


def load_reference(name: str = "banking77", split: Split | None = None, *, fetch: bool = True) -> Reference | None:
    """The reference's items to test on, or None when it is nowhere to be had.

    Looked for in ``GENESIS_REFERENCE_DIR/<name>``, then in ``outputs/reference/<name>``, then on the Hugging Face hub
    (once per process, and only if `fetch`).

    Parameters
    ----------
    name : ``banking77``.
    split : None tests on ``test.csv``, else on ``dev.csv``; ``"train"`` is the real training pool: ``train.csv``,
        else ``train_pool.csv``. The split that was found is in the result.

    Raises
    ------
    InvalidInput : unknown name or split, or a file without columns text and category.
    """
    if name not in _NAMES:
        raise InvalidInput(f"Unknown reference {name!r}, expected {', '.join(_NAMES)}.")
    if split not in _ORDER:
        raise InvalidInput(f"Unknown split {split!r}, expected {', '.join(str(s) for s in _ORDER if s)} or None.")
    given = get_settings().reference_dir
    folders = [*([given / name] if given else []), _local_copy(name)]
    for folder in folders:
        if found := _read_folder(folder, name, split):
            return found
    if fetch and split in (None, "test", "train") and _fetched_once(name):
        return _read_folder(_local_copy(name), name, split)
    return None


def fetch_reference(name: str = "banking77", *, repo: str = BANKING77_HUB) -> Path:
    """Fetch both splits from the hub into ``outputs/reference/<name>`` and return that folder.

    Parameters
    ----------
    repo : dataset on the hub, or a local folder laid out like one; Parquet only, scripts are never run.

    Raises
    ------
    Unavailable : the hub can't be reached.
    MissingDependency : the package ``datasets`` is not installed.
    """
    if name not in _NAMES:
        raise InvalidInput(f"Unknown reference {name!r}, expected {', '.join(_NAMES)}.")
    try:
        from datasets import load_dataset
    except ImportError:
        raise MissingDependency("datasets", "Fetching a reference from the hub", "pip install datasets") from None
    try:
        if not Path(repo).is_dir() and not hub_reachable():
            raise ConnectionError("the hub does not answer")
        splits = {split: load_dataset(repo, split=split) for split in ("train", "test")}
    except (OSError, ValueError, RuntimeError) as error:
        raise Unavailable(
            f"Reference {name!r} could not be fetched from the hub ({type(error).__name__}): check the network, "
            f"or put test.csv and train.csv (columns text, category) into {shown(_local_copy(name))}."
        ) from None
    folder = _local_copy(name)
    folder.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        names = rows.features["label"].names
        temporary = folder / f"{split}.csv.partial"
        with temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("text", "category"))
            writer.writerows((text, names[label]) for text, label in zip(rows["text"], rows["label"], strict=True))
        temporary.replace(folder / f"{split}.csv")
    return folder


@lru_cache
def _fetched_once(name: str) -> bool:
    """Whether the hub gave the reference; asked once per process, so that a machine without network waits once."""
    try:
        fetch_reference(name)
    except (Unavailable, MissingDependency, OSError):
        return False
    return True


def _local_copy(name: str) -> Path:
    return output_root() / "reference" / name


def _read_folder(folder: Path, name: str, split: Split | None) -> Reference | None:
    for found in _ORDER[split]:
        path = folder / f"{found}.csv"
        if path.is_file():
            texts, labels = _read_csv(path)
            source = "GENESIS_REFERENCE_DIR" if folder != _local_copy(name) else shown(path)
            return Reference(name, found, texts, labels, "en", source)
    return None


def _read_csv(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    rows = []
    for row in read_rows(path):
        if row.problem:
            raise InvalidInput(f"{path.name}, row {row.number}: {row.problem}.")
        said = normal(row.value)
        if not {"text", "category"} <= said.keys():
            raise InvalidInput(f"{path.name} must have columns text and category, got {', '.join(said)}.")
        if said["text"] and said["category"]:
            rows.append((said["text"], said["category"]))
    if not rows:
        raise InvalidInput(f"{path.name} holds no rows with a text and a category.")
    texts, labels = zip(*rows, strict=True)
    return texts, labels
