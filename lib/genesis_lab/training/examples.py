"""The labelled texts that a classifier learns from, and how they are divided without leakage."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.dataset.folder import Dataset, labelled, open_dataset
from genesis_lab.dataset.sources import locate, read_rows
from genesis_lab.dataset.writing import assign_splits
from genesis_lab.domains.language import detect
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import normal, same_words
from genesis_lab.training.config import Source
from genesis_lab.validation.text import clusters

Index = NDArray[np.int64]
Strings = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts in the order of their source, with label, language, group and split (``train`` where there is none).

    Records of one group (near-duplicates) never straddle a division. `embedder` embeds them (empty: the default).
    """

    texts: Strings
    labels: Strings
    languages: Strings
    groups: Index
    split: Strings
    sources: tuple[Source, ...]
    embedder: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: NDArray[Any]) -> Examples:
        """The records at `index` (positions, or a boolean mask)."""
        columns = ("texts", "labels", "languages", "groups", "split")
        return replace(self, **{name: getattr(self, name)[index] for name in columns})


def make_examples(
    texts: Sequence[str],
    labels: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    groups: Sequence[int] | NDArray[Any] | None = None,
    split: Sequence[str] | None = None,
    name: str = "texts",
    content_hash: str | None = None,
) -> Examples:
    """Examples from lists of one length; without `groups`, texts that say the same words are one group."""
    n = len(texts)
    languages = [language or "unknown" for language in languages or [None] * n]
    split = ["train"] * n if split is None else split
    for what, strings in (("text", texts), ("label", labels)):
        for row, value in enumerate(strings):
            if not isinstance(value, str) or not value.strip():
                raise InvalidInput(f"Every {what} must be a non-empty string, got {value!r} in row {row}.")
    texts, labels = normal(list(texts)), normal(list(labels))
    if content_hash is None:
        pairs = "\n".join(f"{text!r}\t{label!r}" for text, label in zip(texts, labels, strict=True))
        content_hash = hashlib.sha256(pairs.encode()).hexdigest()
    return Examples(
        texts=np.array(texts, dtype=object),
        labels=np.asarray(labels, dtype=str),
        languages=np.asarray(languages),
        groups=same_wording(texts) if groups is None else np.asarray(groups, dtype=np.int64),
        split=np.asarray(split, dtype=object),
        sources=(Source(name, content_hash, n),),
    )


def read_examples(dataset: Dataset | Examples) -> tuple[Examples, list[str]]:
    """The text of each record (a conversation's opening) with its label, and what was left out."""
    if isinstance(dataset, Examples):
        return dataset, []
    rows = labelled(dataset)
    kept = rows[rows["text"].notna() & rows["label"].notna()]
    left = len(rows) - len(kept)
    messages = [f"{left} of {len(rows)} records have no opening text or no intent and were left out."] if left else []
    examples = make_examples(
        kept["text"].tolist(),
        kept["label"].tolist(),
        kept["language"].tolist(),
        groups=kept["group_by"].factorize()[0] if kept["group_by"].notna().any() else None,
        split=kept["split"].tolist() if len(dataset.counts) > 1 else None,
        name=dataset.name,
        content_hash=dataset.content_hash,
    )
    return examples, messages


def labelled_texts(source: Any) -> Examples:
    """Labelled texts in whatever form: `Examples`, a dataset, its name, or a file with columns text and label.

    A column language is for texts that are in another one than they read as (else the most usual).
    """
    if isinstance(source, Examples | Dataset):
        return read_examples(source)[0]
    path = locate(source)
    if path.is_dir():
        return read_examples(open_dataset(path))[0]
    rows = [row.value for row in read_rows(path) if row.value]
    column = next((name for name in ("label", "category") if rows and name in rows[0]), "label")
    kept = [row for row in rows if row.get("text") and row.get(column)]
    if not kept:
        raise InvalidInput(f"{path.name} holds no labelled texts: it must have columns text and label.")
    told = [row.get("language") or detect(row["text"]) for row in kept]
    usual = Counter(filter(None, told)).most_common(1)
    languages = [language or (usual[0][0] if usual else None) for language in told]
    return make_examples([row["text"] for row in kept], [row[column] for row in kept], languages, name=path.stem)


def same_wording(texts: Sequence[str]) -> Index:
    """A group number per text; texts that say the `same_words` share one."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(same_words(text) or text, len(numbers)) for text in texts], dtype=np.int64)


def join(first: Examples, second: Examples) -> Examples:
    """Both sets as one. What says the same words is together, and what was together in either stays so."""
    columns = ("texts", "labels", "languages", "split")
    both: dict[str, Any] = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in columns}
    wording = same_wording(both["texts"].tolist())
    apart = np.concatenate([first.groups, second.groups + first.groups.max(initial=-1) + 1])
    groups = clusters(wording, apart + len(wording), len(wording) + int(apart.max(initial=-1)) + 1)[wording]
    return Examples(**both, groups=groups, sources=first.sources + second.sources)


def check_learnable(examples: Examples, messages: list[str]) -> Examples:
    """Two intents or more, else `InvalidInput`; those with a single record are left out, as `messages` say."""
    counts = Counter(examples.labels.tolist())
    rare = sorted(label for label, n in counts.items() if n < 2)
    if rare and len(counts) > 1:
        examples = examples.take(~np.isin(examples.labels, rare))
        messages.append(f"Left out for having a single example: {named(rare)}.")
    known = np.unique(examples.labels).tolist()
    if len(known) < 2:
        found = f"only {known[0]!r}" if known else "none"
        raise InvalidInput(f"A classifier needs at least 2 intents, got {found} in {len(examples)} records.")
    return examples


def make_folds(examples: Examples, n: int, seed: int, messages: list[str]) -> list[tuple[Index, Index]]:
    """Stratified folds (train, test) in which no group is on both sides; `messages` get what is scarce.

    There are `n`, or as many as the most varied intent has distinct wordings, but not below two.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    distinct = _distinct(examples)
    used = min(n, max(2, *distinct.values()))
    if used < n:
        messages.append(f"{used} folds instead of {n}: no intent has more than {used} distinct openings.")
    for count in sorted(set(distinct.values())):
        scarce = named(sorted(label for label, found in distinct.items() if found == count))
        if count == 1:
            messages.append(
                f"With one distinct opening, these intents are never in training and test at once: {scarce}."
            )
        elif count < used:
            messages.append(f"With {count} distinct openings for {used} folds, absent from some: {scarce}.")
    grouped = len(np.unique(examples.groups)) < len(examples)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(used, shuffle=True, random_state=seed)
    with warnings.catch_warnings(action="ignore"):  # of scarce intents: worded above
        folds = list(splitter.split(examples.texts, examples.labels, examples.groups))
    return [(kept, held) for kept, held in folds if len(kept) and len(held)]


def hold_out(examples: Examples, share: float, seed: int, messages: list[str], name: str = "test") -> NDArray[np.bool_]:
    """Which records to hold out: `share` of them, by intent and in whole groups, of which every intent keeps one.

    Intents that are not among the held out are named in `messages`.
    """
    distinct, groups, labels = _distinct(examples), examples.groups, examples.labels
    single = groups[[distinct[label] < 2 for label in labels.tolist()]]
    free, rng = np.flatnonzero(~np.isin(groups, single)), np.random.default_rng(seed)
    try:
        split = assign_splits(groups[free], {"train": 1 - share, name: share}, labels=labels[free], rng=rng)
    except InvalidInput:
        raise InvalidInput(
            f"{len(examples)} records are too few to hold some out for a {name}: add distinct openings to each intent."
        ) from None
    held = np.zeros(len(examples), dtype=bool)
    held[free] = split == 1
    for label in np.setdiff1d(labels[held], labels[~held]):  # its smallest group goes back
        own, sizes = np.unique(groups[held & (labels == label)], return_counts=True)
        held &= groups != own[sizes.argmin()]
    if len(untested := np.setdiff1d(labels, labels[held])):
        messages.append(f"Learned but not tested, for want of distinct openings: {named(untested.tolist())}.")
    return held


def _distinct(examples: Examples) -> Counter[str]:
    """Distinct wordings (groups) of each intent."""
    return Counter(label for label, _ in set(zip(examples.labels.tolist(), examples.groups.tolist(), strict=True)))


def subset(examples: Examples, n: int, seed: int) -> Examples:
    """`n` records at random, their intents in proportion (each intent keeps at least two, where it has them)."""
    order = np.random.default_rng(seed).permutation(len(examples))
    rank = np.empty(len(examples))
    for label in np.unique(examples.labels):
        members = order[examples.labels[order] == label]
        rank[members] = np.arange(len(members)) / len(members)
        rank[members[:2]] = -1
    return examples.take(np.sort(order[np.argsort(rank[order], kind="stable")][:n]))


def balanced_order(labels: Sequence[str], rng: np.random.Generator) -> list[int]:
    """A random order whose every prefix holds about as many records of each label as it can."""
    seen: Counter[str] = Counter()
    ranked: list[tuple[int, int, int]] = []
    for i in rng.permutation(len(labels)):
        ranked.append((seen[labels[i]], len(ranked), int(i)))
        seen[labels[i]] += 1
    return [i for _, _, i in sorted(ranked)]


def named(labels: Sequence[str], most: int = 5) -> str:
    """The first few labels and how many more there are."""
    return ", ".join(labels[:most]) + f" and {len(labels) - most} more" * (len(labels) > most)
