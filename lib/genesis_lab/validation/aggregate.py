"""The mergeable aggregate behind every quality score: what is kept of a block of records, and how two are joined.

Blocks are merged in the dataset's order, so that row numbers, the first offences and the sample are the same however
the data was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from genesis_lab.validation.scores import Offence

LISTED = 1_000
"""Most offences of one check that are listed by id; all are counted."""


@dataclass(frozen=True)
class Check:
    """How many were checked and failed, and the first failures as (row, reason)."""

    checked: int
    failed: int
    first: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, checked: int, failed_rows: NDArray[np.int64], reason: Callable[[int], str]) -> Check:
        """A check of one block.

        Parameters
        ----------
        checked : records (or turns, values) looked at.
        failed_rows : the row of each failure, in order; a row may occur more than once.
        reason : what is wrong with the failure at this place of `failed_rows`.
        """
        _, places = np.unique(failed_rows, return_index=True)
        listed = [int(p) for p in places[:LISTED]]
        return cls(int(checked), len(failed_rows), tuple((int(failed_rows[p]), reason(p)) for p in listed))

    def then(self, other: Check, offset: int) -> Check:
        """This check and the same one of the following block, whose rows start at `offset`."""
        shifted = tuple((row + offset, reason) for row, reason in other.first[: LISTED - len(self.first)])
        return Check(self.checked + other.checked, self.failed + other.failed, self.first + shifted)


@dataclass(frozen=True)
class Aggregate:
    """What is kept of a block of records.

    `columns` holds a few numbers per record (hashes, signatures); `sample` holds, for each cell of intent × language,
    the records with the smallest hash of id and opening: a random choice that no cut of the data can change.
    """

    n: int
    turns: int
    ids: tuple[pa.StringArray, ...]
    checks: Mapping[str, Check]
    counts: Mapping[str, Counter[str]]
    columns: Mapping[str, tuple[NDArray[Any], ...]]
    sample: pd.DataFrame

    def column(self, name: str) -> NDArray[Any]:
        """One number (or row of numbers) per record."""
        return np.concatenate(self.columns[name])

    def offences(self, first: tuple[tuple[int, str], ...]) -> tuple[Offence, ...]:
        """(row, reason) with the record's id, null where it has none."""
        if not first:
            return ()
        ids = pa.chunked_array(self.ids, pa.string()).take(pa.array([row for row, _ in first])).to_pylist()
        return tuple(Offence(row, record_id, reason) for (row, reason), record_id in zip(first, ids, strict=True))


def merge(a: Aggregate, b: Aggregate) -> Aggregate:
    """The aggregate of `a`'s records followed by `b`'s."""
    sample = pd.concat([a.sample, b.sample.assign(row=b.sample["row"] + a.n)], ignore_index=True)
    return Aggregate(
        n=a.n + b.n,
        turns=a.turns + b.turns,
        ids=a.ids + b.ids,
        checks={name: check.then(b.checks[name], a.n) for name, check in a.checks.items()},
        counts={name: counts + b.counts[name] for name, counts in a.counts.items()},
        columns={name: arrays + b.columns[name] for name, arrays in a.columns.items()},
        sample=trimmed(sample),
    )


def trimmed(sample: pd.DataFrame) -> pd.DataFrame:
    """The records with the smallest keys of each cell, at most its ``limit``."""
    ordered = sample.sort_values(["cell", "key", "row"], kind="stable", ignore_index=True)
    rank = ordered.groupby("cell", sort=False).cumcount()
    return ordered[rank < ordered["limit"]].reset_index(drop=True)
