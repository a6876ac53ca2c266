"""Real data to measure against: where it is found, and which split is in hand."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from genesis_lab.dataset.sources import read_rows
from genesis_lab.domains import get_domain
from genesis_lab.domains.foreign import lookup
from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, placed, resolve, shown, write_atomically
from genesis_lab.hub import hub_reachable
from genesis_lab.settings import get_settings
from genesis_lab.texts import normal
from genesis_lab.yamls import read_yaml

Split = Literal["test", "dev", "train", "train_pool"]

HUB_NAME = "banking77"
"""The reference that can be fetched."""
BANKING77_HUB = "legacy-datasets/banking77"
"""Parquet mirror of PolyAI/banking77 (Casanueva et al. 2020, CC-BY-4.0) with both splits whole: 10,003 and 3,080."""
Kind = Literal["real", "stand-in"]
SHIPPED = Path(__file__).parent / "stand_in"
"""The stand-in: how it was made and how it relates to real worth stands in its ``reference.yaml``."""
STAND_IN = "stand-in: written by a language model, not by customers"
_ORDER: dict[str | None, tuple[Split, ...]] = {
    None: ("test", "dev"),
    "test": ("test",),
    "dev": ("dev",),
    "train": ("train", "train_pool"),
    "train_pool": ("train_pool",),
}
_FETCHED = "FETCHED.txt"
"""Marks a folder that may be fetched anew: nobody's own files are in it."""


@dataclass(frozen=True, slots=True)
class Reference:
    """Labelled texts to measure against: `texts[i]` has label `labels[i]`. `source` says where they were read from."""

    name: str
    split: Split
    texts: tuple[str, ...]
    labels: tuple[str, ...]
    language: str
    source: str
    kind: Kind = "real"

    def __str__(self) -> str:
        doubt = "" if self.kind == "real" else f", {STAND_IN}"
        return f"{self.name} {self.split} (n = {len(self):,}{doubt})"

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
        kept = [(t, label) for t, label in zip(self.texts, self.labels, strict=True) if label in intents]
        return replace(self, texts=tuple(t for t, _ in kept), labels=tuple(label for _, label in kept))

    def to_dict(self) -> dict[str, Any]:
        """What reports show about it; never its sentences."""
        found = {"name": self.name, "kind": self.kind, "split": self.split, "n": len(self)}
        found |= {"intents": len(self.intents), "language": self.language}
        return found | {"source": self.source, "digest": self.digest}


def load_reference(name: str = HUB_NAME, split: Split | None = None, *, fetch: bool = True) -> Reference | None:
    """The reference's items to test on, from a folder of that name or, once per process, from the hub; None: nowhere.

    Folders lie in ``GENESIS_REFERENCE_DIR``, then in ``outputs/reference``; `split` None is ``test.csv``, else
    ``dev.csv``; ``"train"`` is ``train.csv``, else ``train_pool.csv``. Columns are told as an import tells them;
    ``reference.yaml`` says ``language: es`` (else English) and, where customers did not write it, ``kind: stand-in``.
    """
    if Path(name).name != name and resolve(Path(name)).is_dir():
        if found := _read_folder(resolve(Path(name)), name, split):
            return found
        if split in (None, "test"):
            raise InvalidInput(f"Reference {shown(Path(name))} is a folder without test.csv.")
        return None
    if Path(name).name != name or name in ("", ".", ".."):
        raise InvalidInput(f"A reference is named by the name of its folder, or by its path, got {name!r}.")
    given, local = get_settings().reference_dir, _local_copy(name)
    folders = [*([given / name] if given else []), local]
    for folder in folders:
        if found := _read_folder(folder, name, split):
            return found
    known = any(folder.is_dir() for folder in folders)
    if name != HUB_NAME and (not known or split in (None, "test")):
        there = "a folder without test.csv" if known else "unknown"
        raise InvalidInput(
            f"Reference {name!r} is {there}: there is {HUB_NAME}, and every folder with test.csv and train.csv (texts "
            f"and their labels) in {shown(local.parent)} or GENESIS_REFERENCE_DIR."
        )
    wanted = name == HUB_NAME and fetch and split in (None, "test", "train")
    return _read_folder(local, name, split) if wanted and _fetched_once() else None


def for_worth(name: str = HUB_NAME) -> tuple[Reference | None, Reference | None]:
    """What worth is measured on, to test and to train on; of banking77 the stand-in where nothing real is."""
    if items := load_reference(name):
        return items, load_reference(name, "train")
    items, pool = (_read_folder(SHIPPED, "stand-in", split) if name == HUB_NAME else None for split in (None, "train"))
    return items, pool


def fetch_reference(name: str = HUB_NAME, *, repo: str = BANKING77_HUB) -> Path:
    """Fetch both splits of banking77 from the hub into ``outputs/reference/banking77`` and return that folder.

    `repo` is a dataset on the hub, or a local folder laid out like one; Parquet only, scripts are never run.
    """
    if name != HUB_NAME:
        raise InvalidInput(
            f"Only {HUB_NAME} can be fetched, got {name!r}: put a reference of your own in a folder instead."
        )
    folder = _local_copy(HUB_NAME)
    if folder.exists() and any(folder.iterdir()) and not (folder / _FETCHED).is_file():
        raise InvalidInput(f"{shown(folder)} holds files that were not fetched: move them away first.")
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
            f"Reference {HUB_NAME!r} could not be fetched from the hub ({type(error).__name__}): check the network, "
            f"or put test.csv and train.csv (columns text, category) into {shown(folder)}."
        ) from None
    with placed(folder, replace=True, ours=lambda there: (there / _FETCHED).is_file()) as scratch:
        write_atomically(scratch / _FETCHED, f"fetched from the Hugging Face hub ({BANKING77_HUB}, CC BY 4.0)\n")
        for split, rows in splits.items():
            names = rows.features["label"].names
            with (scratch / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
                pairs = zip(rows["text"], (names[label] for label in rows["label"]), strict=True)
                csv.writer(file).writerows([("text", "category"), *pairs])
    return folder


@lru_cache
def _fetched_once() -> bool:
    """Whether the hub gave the reference; a machine without network waits once."""
    try:
        fetch_reference()
    except (Unavailable, MissingDependency, OSError):
        return False
    return True


def _local_copy(name: str) -> Path:
    return output_root() / "reference" / name


def _read_folder(folder: Path, name: str, split: Split | None) -> Reference | None:
    found = next((each for each in _ORDER[split] if (folder / f"{each}.csv").is_file()), None)
    if found is None:
        return None
    path, about = folder / f"{found}.csv", folder / "reference.yaml"
    said = (read_yaml(about) or {}) if about.is_file() else {}
    told = said if isinstance(said, dict) else {}
    language, kind = told.get("language", "en"), told.get("kind", "real")
    if told is not said or not re.fullmatch("[a-z]{2,3}", str(language)) or kind not in get_args(Kind):
        raise InvalidInput(
            f"{shown(about)} must say language: a code such as en or es, and kind: real or stand-in; got {said!r}."
        )
    texts, labels = zip(*_pairs(path), strict=True)
    sources = {SHIPPED: "shipped with Genesis Lab", _local_copy(name): shown(path)}
    source = sources.get(folder, shown(path) if Path(name).name != name else "GENESIS_REFERENCE_DIR")
    if (folder / _FETCHED).is_file():
        source = f"{(folder / _FETCHED).read_text(encoding='utf-8').strip()}, kept in {source}"
    return Reference(Path(name).name, found, texts, labels, str(language), source, kind)


def _pairs(path: Path) -> list[tuple[str, str]]:
    """Texts with their labels, as they stand in a CSV, in the columns that an import would take for them."""
    domain = get_domain()
    reader = domain.reader({})
    try:
        rows = list(reader.gathered(read_rows(path, reader)))
    except InvalidInput as error:
        why = re.sub(r"\.?$|: say .*", "", str(error))
        raise InvalidInput(f"{path.name}: {why}; call the one column text and the other label.") from None
    if broken := next((row for row in rows if row.problem), None):
        raise InvalidInput(f"{path.name}, row {broken.number}: {broken.problem}.")
    text, label = (reader.field_map.get(name or "", "") for name in (reader.extra_fields[-1], domain.facets.label))
    if rows and not (text and label):
        taken = "; ".join(reader.said) or "none of them is known"
        found = ", ".join(f"`{name}`" for name in rows[0].value)
        raise InvalidInput(f"{path.name} must have a column of texts and one of labels, got {found}: {taken}.")
    both = ((lookup(row.value, text), lookup(row.value, label)) for row in rows)
    if not (pairs := [(normal(str(said)), normal(str(of))) for said, of in both if said and of not in (None, "")]):
        raise InvalidInput(f"{path.name} holds no rows with a text and a label.")
    return pairs
