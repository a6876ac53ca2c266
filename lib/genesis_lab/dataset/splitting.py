"""Splits without leakage: what belongs together stays together, and every label is spread by the same shares."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from genesis_lab.dataset.folder import Dataset, is_split_name, open_dataset
from genesis_lab.dataset.writing import DatasetWriter
from genesis_lab.domains.conversations.opening import opening
from genesis_lab.domains.quotas import whole_groups
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path
from genesis_lab.texts import same_words


def split_dataset(
    dataset: Dataset,
    target: str | Path,
    fractions: Mapping[str, float],
    *,
    groups: Sequence[Hashable] | NDArray[Any] | None = None,
    seed: int = 42,
    stratify_by: str | None = "intent",
    replace: bool = False,
) -> Dataset:
    """A copy of the dataset, cut into splits.

    Parameters
    ----------
    target : name or folder of the new dataset.
    fractions : share of each split, for example ``{"train": 0.8, "validation": 0.1, "test": 0.1}``.
    groups : one value per record, in order: records with the same value get into the same split. Near-duplicate
        clusters of the opening utterances, as a rule. None: only records with identical content are kept together.
    stratify_by : column whose values each split shall have in the same shares; None or an absent column: none.

    Raises
    ------
    InvalidInput : the shares don't add up, or there are too few groups to fill each split.
    """
    n = dataset.total
    labels: Sequence[Hashable] | None = None
    if stratify_by is not None and stratify_by in dataset.schema.names:
        labels = dataset.frame(columns=[stratify_by])[stratify_by].astype(object).tolist()
    if groups is None:
        groups = _content_groups(dataset)
    if len(groups) != n:
        raise InvalidInput(f"groups must hold one value per record ({n:,}), got {len(groups):,}.")
    assigned = assign_splits(groups, fractions, labels=labels, rng=np.random.default_rng(seed))
    note = {"fractions": dict(fractions), "seed": seed, "groups": len(pd.unique(np.asarray(groups, dtype=object)))}
    manifest = dataset.manifest | {
        "parent": {"name": dataset.name, "content_hash": dataset.content_hash},
        "split": note,
    }
    with DatasetWriter(dataset_path(target), dataset.domain, manifest, replace=replace) as writer:
        for index, split in enumerate(fractions):
            for batch in _chosen(dataset, assigned == index):
                writer.write(batch.to_pylist(), split)
    return open_dataset(target)


def assign_splits(
    groups: Sequence[Hashable] | NDArray[Any],
    fractions: Mapping[str, float],
    *,
    labels: Sequence[Hashable] | NDArray[Any] | None = None,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """The split of each record, as its place in `fractions`; groups stay whole.

    Label by label (a group counts for its most frequent one), each group goes where most records are still lacking,
    the largest groups first. What rounding leaves over is carried to the next label, so the totals come out right too.

    Parameters
    ----------
    groups : shape (n,).
    labels : shape (n,), or None to spread the records at random.

    Returns
    -------
    array of shape (n,).
    """
    _check(fractions)
    shares = list(fractions.values())
    group, names = pd.factorize(np.asarray(groups, dtype=object), use_na_sentinel=False)
    n_groups = len(names)
    if n_groups < len(shares):
        raise InvalidInput(
            f"Too few records for {len(shares)} splits: of {len(group):,}, only {n_groups:,} may be told apart "
            "(the others must stay with one of these); add more and more varied ones."
        )
    label = np.zeros(len(group), dtype=np.int64)
    if labels is not None:
        label, _ = pd.factorize(np.asarray(labels, dtype=object), use_na_sentinel=False)
    split_of = whole_groups(group, label, shares, rng)
    empty = [name for i, name in enumerate(fractions) if i not in split_of]
    if empty:
        raise InvalidInput(
            f"Split {empty[0]!r} would stay empty: {n_groups:,} groups of records are too few for a share of "
            f"{fractions[empty[0]]:g}."
        )
    return np.asarray(split_of[group])


def _check(fractions: Mapping[str, float]) -> None:
    for name, share in fractions.items():
        if not is_split_name(name):
            raise InvalidInput(f"Split name {name!r} must be made of letters, digits and underscores.")
        if not 0 < share <= 1:
            raise InvalidInput(f"The share of split {name!r} must be above 0 and at most 1, got {share:g}.")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise InvalidInput(f"The shares of the splits must add up to 1, got {sum(fractions.values()):g}.")


def _content_groups(dataset: Dataset) -> NDArray[np.uint64]:
    """A hash of each record without its id and provenance (for conversations, of its opening alone), as the words it says."""
    ignored = {"provenance"} | {name for name in dataset.schema.names if name.endswith("_id")}
    turns = "turns" in dataset.schema.names
    columns = ["turns"] if turns else [name for name in dataset.schema.names if name not in ignored]
    found = [
        same_words(said := (opening(record["turns"]) if turns else None) or str(record)) or said
        for batch in dataset.batches(columns=columns)
        for record in batch.to_pylist()
    ]
    return np.asarray(pd.util.hash_array(np.asarray(found, dtype=object), categorize=False), dtype=np.uint64)


def _chosen(dataset: Dataset, mask: NDArray[np.bool_]) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in dataset.batches():
        yield batch.filter(pa.array(mask[start : start + batch.num_rows]))
        start += batch.num_rows
