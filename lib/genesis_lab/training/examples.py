"""The labelled texts that a classifier learns from, and how they are divided without leakage."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.conversations.opening import opening
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import normal, same_words

Index = NDArray[np.int64]
Strings = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Where texts come from: a dataset's name, content hash and the number of its records used."""

    name: str
    content_hash: str
    records: int


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts with their intent, language, group and split, in the order of their source.

    Records of one group (near-duplicates) never straddle a division. `split` is ``train`` where the source has no
    splits of its own.
    """

    texts: Strings
    labels: Strings
    languages: Strings
    groups: Index
    split: Strings
    sources: tuple[Source, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, index: NDArray[Any]) -> Examples:
        """The records at `index` (positions, or a boolean mask)."""
        return replace(
            self,
            texts=self.texts[index],
            labels=self.labels[index],
            languages=self.languages[index],
            groups=self.groups[index],
            split=self.split[index],
        )


def make_examples(
    texts: Sequence[str],
    labels: Sequence[str],
    languages: Sequence[str | None] | None = None,
    *,
    groups: Sequence[int] | None = None,
    split: Sequence[str] | None = None,
    name: str = "texts",
    content_hash: str | None = None,
) -> Examples:
    """Examples from plain lists; without `groups`, texts that say the same words are one group.

    Raises
    ------
    InvalidInput : the lists are not equally long, or a text or label is not a non-empty string.
    """
    n = len(texts)
    for what, values in (("labels", labels), ("languages", languages), ("groups", groups), ("split", split)):
        if values is not None and len(values) != n:
            raise InvalidInput(f"There must be as many {what} as texts ({n}), got {len(values)}.")
    for what, strings in (("text", texts), ("label", labels)):
        for row, value in enumerate(strings):
            if not isinstance(value, str) or not value.strip():
                raise InvalidInput(f"Every {what} must be a non-empty string, got {value!r} in row {row}.")
    texts, labels = normal(list(texts)), normal(list(labels))
    if content_hash is None:
        pairs = "\n".join(f"{text!r}\t{label!r}" for text, label in zip(texts, labels, strict=True))
        content_hash = hashlib.sha256(pairs.encode()).hexdigest()
    array = np.empty(n, dtype=object)
    array[:] = texts
    return Examples(
        texts=array,
        labels=np.asarray(labels, dtype=str),
        languages=np.asarray(
            [language or "unknown" for language in languages] if languages is not None else ["unknown"] * n
        ),
        groups=np.asarray(groups, dtype=np.int64) if groups is not None else same_wording(texts),
        split=np.asarray(split if split is not None else ["train"] * n, dtype=object),
        sources=(Source(name, content_hash, n),),
    )


def read_examples(dataset: Any, *, groups: Sequence[int] | None = None) -> tuple[Examples, list[str]]:
    """The `opening` of each conversation, and what was left out.

    Parameters
    ----------
    dataset : `genesis_lab.dataset.Dataset`.
    groups : one group number per record of the dataset, split by split in the order of ``dataset.counts``.

    Raises
    ------
    InvalidInput : the dataset is not one of conversations, or `groups` has another length.
    """
    if dataset.domain != "conversations":
        raise InvalidInput(f"Intent classifiers learn from conversations, got a dataset of {dataset.domain}.")
    if groups is not None and len(groups) != dataset.total:
        raise InvalidInput(f"There must be one group per record ({dataset.total}), got {len(groups)}.")
    texts: list[str] = []
    labels, languages, splits = [], [], []
    for split in dataset.counts:
        frame = dataset.frame(split, columns=["intent", "language", "turns"])
        texts += [opening(turns) or "" for turns in frame["turns"]]
        labels += list(frame["intent"])
        languages += [language if isinstance(language, str) else None for language in frame["language"]]
        splits += [split] * len(frame)
    usable = [
        row
        for row, (text, label) in enumerate(zip(texts, labels, strict=True))
        if text and isinstance(label, str) and label.strip()
    ]
    messages = []
    if len(usable) < len(texts):
        left = len(texts) - len(usable)
        messages.append(f"{left} of {len(texts)} records have no opening text or no intent and were left out.")
    examples = make_examples(
        [texts[row] for row in usable],
        [labels[row] for row in usable],
        [languages[row] for row in usable],
        groups=[groups[row] for row in usable] if groups is not None else None,
        split=[splits[row] for row in usable] if len(dataset.counts) > 1 else None,
        name=dataset.path.name,
        content_hash=dataset.content_hash,
    )
    return examples, messages


def same_wording(texts: Sequence[str]) -> Index:
    """A group number per text; texts that say the `same_words` share one."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(same_words(text) or text, len(numbers)) for text in texts],
        dtype=np.int64,
    )


def join(first: Examples, second: Examples) -> Examples:
    """Both sets as one, grouped anew by wording so that copies across the two stay together."""
    texts = np.concatenate([first.texts, second.texts])
    wording = same_wording(list(texts))
    apart = np.concatenate([first.groups, second.groups + first.groups.max(initial=-1) + 1])
    return Examples(
        texts=texts,
        labels=np.concatenate([first.labels, second.labels]),
        languages=np.concatenate([first.languages, second.languages]),
        groups=_connected(wording, apart),
        split=np.concatenate([first.split, second.split]),
        sources=first.sources + second.sources,
    )


def _connected(a: Index, b: Index) -> Index:
    """Groups in which two records are together when they are in `a` or in `b`, directly or through others."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    nodes = int(a.max(initial=-1)) + 1
    size = nodes + int(b.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(len(a)), (a, b + nodes)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][a], dtype=np.int64)


def check_learnable(examples: Examples, *, drop_rare: bool = False) -> tuple[Examples, list[str]]:
    """`examples` when there is something to learn: two intents or more, with two records each.

    Raises
    ------
    InvalidInput : fewer than two intents, or an intent with a single record and `drop_rare` is not set.
    """
    counts, messages = Counter(examples.labels.tolist()), []
    rare = sorted(label for label, n in counts.items() if n < 2)
    if rare and len(counts) > 1:
        if not drop_rare:
            raise InvalidInput(
                f"Every intent needs 2 examples, but {named(rare)} {'has' if len(rare) == 1 else 'have'} only one: "
                "add some, or set drop_rare to leave them out."
            )
        examples = examples.take(~np.isin(examples.labels, rare))
        messages.append(f"Left out for having a single example: {named(rare)}.")
        counts = Counter(examples.labels.tolist())
    if len(counts) < 2:
        found = f"only {next(iter(counts))!r}" if counts else "none"
        raise InvalidInput(f"A classifier needs at least 2 intents, got {found} in {len(examples)} records.")
    return examples, messages


def make_folds(examples: Examples, n: int, seed: int) -> tuple[list[tuple[Index, Index]], list[str]]:
    """Stratified folds (train, test) in which no group is on both sides, and what is to be said about scarce intents.

    There are `n` folds, or as many as the most varied intent has distinct wordings, but not below two; an intent with
    fewer than that is absent from some of the test sides and costs the others nothing.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    distinct = _distinct(examples)
    used, messages = min(n, max(2, *distinct.values())), []
    if used < n:
        messages.append(f"{used} folds instead of {n}: no intent has more than {used} distinct openings.")
    for count in sorted(set(distinct.values())):
        scarce = sorted(label for label, found in distinct.items() if found == count)
        if count == 1:
            messages.append(
                f"With one distinct opening, these intents are never in training and test at once: {named(scarce)}."
            )
        elif count < used:
            messages.append(f"With {count} distinct openings for {used} folds, absent from some: {named(scarce)}.")
    grouped = len(set(examples.groups.tolist())) < len(examples)
    splitter = (StratifiedGroupKFold if grouped else StratifiedKFold)(used, shuffle=True, random_state=seed)
    with quiet():
        folds = list(splitter.split(examples.texts, examples.labels, examples.groups))
    return [(kept, held) for kept, held in folds if len(kept) and len(held)], messages


def hold_out(examples: Examples, share: float, seed: int, name: str = "test") -> tuple[Index, Index, list[str]]:
    """Positions to keep and to hold out (`share` of the records, within one group), by intent and in whole groups.

    Every intent is among the kept; those that are not among the held out are named in a message.

    Raises
    ------
    InvalidInput : there are too few distinct wordings for a division of this `name`.
    """
    from genesis_lab.dataset.splitting import assign_splits

    distinct = _distinct(examples)
    single = examples.groups[np.isin(examples.labels, [label for label, count in distinct.items() if count < 2])]
    free = np.flatnonzero(~np.isin(examples.groups, single))
    try:
        split = assign_splits(
            examples.groups[free],
            {"train": 1 - share, name: share},
            labels=examples.labels[free],
            rng=np.random.default_rng(seed),
        )
    except InvalidInput:
        raise InvalidInput(
            f"{len(examples)} records are too few to hold some out for a {name}: add distinct openings to each intent."
        ) from None
    held = np.zeros(len(examples), dtype=bool)
    held[free] = split == 1
    for label in sorted(set(examples.labels[held].tolist()) - set(examples.labels[~held].tolist())):
        own = examples.groups[held & (examples.labels == label)]
        held &= examples.groups != min(own.tolist(), key=lambda group: int((examples.groups == group).sum()))
    untested = sorted(set(examples.labels.tolist()) - set(examples.labels[held].tolist()))
    messages = [f"Learned but not tested, for want of distinct openings: {named(untested)}."] if untested else []
    return np.flatnonzero(~held), np.flatnonzero(held), messages


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


def named(labels: Sequence[str], most: int = 5) -> str:
    """The first few labels and how many more there are."""
    more = f" and {len(labels) - most} more" if len(labels) > most else ""
    return ", ".join(labels[:most]) + more


def quiet() -> Any:
    """A context without scikit-learn's warnings on scarce classes, which `make_folds` words for the user."""
    import warnings

    context = warnings.catch_warnings(action="ignore")
    return context
