"""The way back to balance: which records to add, and the params file that has them generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.bias.sentences import Row, listed, more
from genesis_lab.bias.significance import ENOUGH
from genesis_lab.domains import get_domain
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import write_atomically
from genesis_lab.yamls import dump_yaml

MOST_RECORDS = 1_000_000
"""Most records that are asked for."""

RECORDS = "records"
"""Column of a frame of counts."""
_STEPS = 2_000
"""A follow-up of more records than this is laid in blocks of several."""

Shares = Mapping[str, Mapping[str, float]]
Counts = NDArray[np.int64]
Table = tuple[str, ...]
"""One attribute or two; of a table's cell, their values."""


def additions(
    joint: pd.DataFrame,
    targets: Shares,
    off: Sequence[Table],
    empty: Mapping[Table, Sequence[Table]] = {},
    besides: Sequence[str] = (),
    derived: Mapping[str, str] = {},
) -> list[Row]:
    """The fewest records that bring every table in `off` to its plan and fill every cell in `empty`, all at once.

    A table is planned as the product of its attributes' targets (their observed shares, where there is no target),
    rounded as quotas are. Nothing can be taken away, so it is held against its plan at the smallest total for which no
    cell has more than planned; what a cell lacks there is added. Each record added serves all tables, and keeps the
    attributes of different ones as independent as it can.

    Parameters
    ----------
    joint : records by combination of attributes.
    off : single attributes, or pairs that should not go together.
    empty : pair of attributes to those of its cells that should have a record; each gets its planned number, at least one.
    besides : further attributes that the new records take from `targets`.
    derived : attribute to the one that it follows from.
    """
    names = list(dict.fromkeys(name for table in (*off, *empty) for name in table))
    for name, base in derived.items():
        if name in names and base in names:  # the one follows from the other: its tables are the other's
            off = [tuple(base if part == name else part for part in table) for table in off]
            names.remove(name)
    if not names:
        return []
    off = list(dict.fromkeys(off))
    names += [name for name in besides if name not in names]
    shares = {name: _shares(joint, name, targets) for name in names}
    values = {name: list(shares[name]) for name in names}
    cube = np.zeros([len(values[name]) + 1 for name in names], np.int64)
    places = [
        joint[name].map({value: i for i, value in enumerate(values[name])}).fillna(-1).astype(int) for name in names
    ]
    np.add.at(cube, tuple(places), joint[RECORDS].to_numpy())  # the last place of each axis: none or another value

    def counts(table: Table) -> Counts:
        kept = np.einsum(cube, list(range(len(names))), [names.index(name) for name in table])
        return np.asarray(kept[(slice(-1),) * len(table)])

    def product(table: Table) -> NDArray[np.float64]:
        return np.asarray(reduce(np.multiply.outer, [np.array(list(shares[name].values())) for name in table]))

    # Attributes that are each off must not be tied together by what is added, as far as their cells are no mere chance.
    pairs = list(combinations([table[0] for table in off if len(table) == 1], 2))
    off = [*off, *(pair for pair in pairs if counts(pair).sum() * product(pair).min() >= ENOUGH)]
    tables = [table for table in off if not any(set(table) < set(other) for other in off)]
    first: dict[Table, Counts] = {}
    for pair, cells in empty.items():
        first[pair], expected = np.zeros_like(counts(pair)), product(pair) * counts(pair).sum()
        for cell in cells:
            if all(value in values[name] for name, value in zip(pair, cell, strict=True)):
                spot = tuple(values[name].index(value) for name, value in zip(pair, cell, strict=True))
                first[pair][spot] = max(1, round(expected[spot]))
    fewest = max((int(lack.sum()) for lack in first.values()), default=0)
    lacking: dict[Table, Counts] = {}
    for _ in range(20):  # each table's rounding may ask for a record more, until all ask for as many
        lacking = {table: _lacking(counts(table), product(table), fewest) for table in tables}
        most = max((int(lack.sum()) for lack in lacking.values()), default=fewest)
        if most == fewest and all(lack.sum() == most for lack in lacking.values()):
            break
        fewest = most
    records = min(fewest, MOST_RECORDS)
    if not records:
        return []
    for name in besides:
        if (name,) not in lacking:
            lacking[name,] = _lacking(np.zeros(len(shares[name]), np.int64), product((name,)), records)
    even: dict[Table, NDArray[np.float64]] = {pair: product(pair) * (counts(pair).sum() + records) - counts(pair)
            for pair in combinations(names, 2) if pair not in lacking}  # fmt: skip
    return [
        {"records": n, "values": {name: values[name][place] for name, place in zip(names, cell, strict=True)}}
        for cell, n in _laid(names, [len(values[name]) for name in names], first, lacking, even, records)
    ]


def _laid(
    names: list[str],
    shape: list[int],
    first: Mapping[Table, Counts],
    asked: Mapping[Table, Counts],
    even: Mapping[Table, NDArray[np.float64]],
    records: int,
) -> list[tuple[list[int], int]]:
    """`records` put into cells of all `names`, one by one into the cell that most tables lack, and lack most.

    What `first` lacks comes first, then what is `asked`; `even` is not asked for, but should not be tied together by the
    new records either.
    """
    grid = np.indices(shape).reshape(len(names), -1)
    parts = [
        (lack.astype(float).ravel(), np.ravel_multi_index([grid[names.index(name)] for name in table], lack.shape), weight, slight)
        for group, weight, slight in ((first, 1000.0, 0.0), (asked, 1.0, 1e-3), (even, 0.0, 1e-3))
        for table, lack in group.items()
    ]  # fmt: skip
    filled: Counter[int] = Counter()
    step = max(1, records // _STEPS)
    while filled.total() < records:
        score = sum((weight * (lack > 0) + slight * lack / records)[at] for lack, at, weight, slight in parts)
        spot = int(np.argmax(score))
        limits = [lack[at[spot]] for lack, at, weight, _ in parts if weight and lack[at[spot]] > 0]
        take = max(1, int(min(step, records - filled.total(), *limits)))
        for lack, at, _, _ in parts:
            lack[at[spot]] -= take
        filled[spot] += take
    return [(grid[:, spot].tolist(), n) for spot, n in sorted(filled.items(), key=lambda one: (-one[1], one[0]))]


def _lacking(counts: Counts, planned: NDArray[np.float64], fewest: int) -> Counts:
    """What each cell lacks at the smallest total, at least `fewest` above today's, for which none has too many.

    A cell has too many with more than its share rounded up, and too few with less than its share rounded down.
    """
    total = int(counts.sum()) + fewest
    taken = counts > 0
    if taken.any():
        total = max(total, int(np.max(np.floor((counts[taken] - 1) / planned[taken] + 1e-9))) + 1)
    total = min(total, int(counts.sum()) + MOST_RECORDS)
    while True:
        exact = planned * total
        full = np.where(counts >= np.floor(exact + 1e-9), counts, np.floor(exact + 0.5)).astype(np.int64)
        if full.sum() <= total:
            break
        total = int(full.sum())
    room = exact - full
    for spot in np.argsort(-room, axis=None, kind="stable")[: total - int(full.sum())]:
        full.flat[spot] += 1
    return full - counts


def _shares(joint: pd.DataFrame, name: str, targets: Shares) -> dict[str, float]:
    if name in targets:
        return {value: share for value, share in targets[name].items() if share}
    counts = joint.groupby(name)[RECORDS].sum()
    return {str(value): float(n) / float(counts.sum()) for value, n in counts.items()}


def follow_up_plan(report: Row) -> dict[str, Any] | None:
    """All fields of the domain's options, with `cells` for the records that `report` asks for; run it, check again.

    None where nothing is to be generated, or nothing that the domain can make.
    """
    return _plan(report)[0]


def write_follow_up(report: Row, path: Path, *, stage: int | str, dataset: str | None = None) -> Path:
    """Write the follow-up as a params file, which ``genesis run`` and plain papermill run as it is.

    Its description names the records that can't be generated here, if there are any.

    Parameters
    ----------
    stage : the notebook that generates.
    dataset : name for the new dataset; None: what the notebook chooses.

    Raises
    ------
    InvalidInput : there is nothing to generate, or nothing that the domain can make.
    GenesisError : `path` can't be written.
    """
    plan, refused = _plan(report)
    named = listed([more(addition) for addition in refused])
    if not plan:
        why = f": {named} can't be generated here" if refused else ""
        raise InvalidInput(
            f"The bias report asks for no records that could be generated{why}: there is no follow-up plan."
        )
    description = f"Records that the bias report of {report['records']:,} records asks for"
    if refused:
        description += f"; not among them, as they can't be generated here: {named}"
    content = {"name": path.stem, "description": description, "stages": [stage]}
    content |= ({"dataset": dataset} if dataset is not None else {}) | plan
    write_atomically(path, dump_yaml(content))
    return path


def _plan(report: Row) -> tuple[dict[str, Any] | None, list[Row]]:
    """The options that have all additions made, and the additions that the domain refuses."""
    wanted = report["additions"]
    refused = [] if _made(report, wanted) else [one for one in wanted if not _made(report, [one])]
    accepted = [addition for addition in wanted if addition not in refused]
    return _made(report, accepted) if accepted else None, refused


def _made(report: Row, additions: Sequence[Row]) -> dict[str, Any] | None:
    """The options that have `additions` made; None if the domain has no record for one of them."""
    cells = [{"n": addition["records"], **addition["values"]} for addition in additions]
    options = report["config"] | {"seed": (report["config"].get("seed", 0) + 1) % 2**31}
    try:
        for given in ([cell | {"n": 1} for cell in cells], cells):
            domain = get_domain(report["domain"], **options | {"cells": given})
            if given != cells:
                domain.specs(len(given), 0)
    except GenesisError:
        return None
    config = domain.config.model_dump(mode="json", exclude_none=True)
    return config if config.get("cells") else None
