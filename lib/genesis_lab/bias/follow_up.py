"""The way back to balance: which records to add, and the params file that has them generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    off = list(dict.fromkeys(off))
    names += [name for name in besides if names and name not in names]
    shares = {name: _shares(joint, name, targets) for name in names}
    # Attributes that are each off must not be tied together by what is added, as far as their cells are no mere chance.
    pairs = [pair for pair in combinations([table[0] for table in off if len(table) == 1], 2)
             if _counts(joint, pair, shares).sum() * _product(pair, shares).min() >= ENOUGH]  # fmt: skip
    off = [*off, *pairs]
    tables = [table for table in off if not any(set(table) < set(other) for other in off)]
    wanted = {
        pair: {
            cell: max(1, round(_expected(joint, pair, cell, shares))) for cell in cells if _possible(pair, cell, shares)
        }
        for pair, cells in empty.items()
    }
    fewest = max((sum(cells.values()) for cells in wanted.values()), default=0)
    lacking: dict[Table, Counts] = {}
    for _ in range(20):  # each table's rounding may ask for a record more, until all ask for as many
        lacking = {table: _lacking(_counts(joint, table, shares), _product(table, shares), fewest) for table in tables}
        most = max((int(lack.sum()) for lack in lacking.values()), default=fewest)
        if most == fewest and all(lack.sum() == most for lack in lacking.values()):
            break
        fewest = most
    records = min(fewest, MOST_RECORDS)
    for name in besides:
        if name in names and (name,) not in lacking:
            lacking[name,] = _lacking(np.zeros(len(shares[name]), np.int64), _product((name,), shares), records)
    return _laid(joint, names, shares, lacking, wanted, records)


def _laid(
    joint: pd.DataFrame,
    names: list[str],
    shares: Mapping[str, dict[str, float]],
    lacking: Mapping[Table, Counts],
    wanted: Mapping[Table, Mapping[Table, int]],
    records: int,
) -> list[Row]:
    """`records` put into cells of all `names`, one by one into the cell that most tables lack, and lack most."""
    if not records:
        return []
    values = {name: list(shares[name]) for name in names}
    grid = np.indices([len(values[name]) for name in names]).reshape(len(names), -1)
    at: dict[Table, Counts] = {}
    """Cell of the grid to cell of the table."""

    def left(table: Table, lack: NDArray[Any]) -> NDArray[np.float64]:
        at[table] = np.ravel_multi_index([grid[names.index(name)] for name in table], lack.shape)
        return lack.astype(float).ravel()

    asked = {table: left(table, lack) for table, lack in lacking.items()}
    even: dict[Table, NDArray[np.float64]] = {}
    for pair in combinations(names, 2):  # not asked for, but not to be tied together by the new records either
        if pair not in asked:
            counts = _counts(joint, pair, shares)
            even[pair] = left(pair, _product(pair, shares) * (counts.sum() + records) - counts)
    first: dict[Table, NDArray[np.float64]] = {}
    for table, cells in wanted.items():
        empty = np.zeros([len(values[name]) for name in table])
        for cell, n in cells.items():
            empty[tuple(values[name].index(value) for name, value in zip(table, cell, strict=True))] = n
        first[table] = left(table, empty)
    filled: Counter[int] = Counter()
    step = max(1, records // _STEPS)
    while filled.total() < records:
        score = np.zeros(grid.shape[1])
        for parts, weight in ((first, 1000.0), (asked, 1.0)):
            for table, lack in parts.items():
                score += weight * (lack > 0)[at[table]]
        for table, lack in (asked | even).items():
            score += 1e-3 * (lack / records)[at[table]]
        spot = int(np.argmax(score))
        parts = {**asked, **first}
        limits = [lack[at[table][spot]] for table, lack in parts.items() if lack[at[table][spot]] > 0]
        take = max(1, int(min(step, records - filled.total(), *limits)))
        for part in (asked, even, first):
            for table, lack in part.items():
                lack[at[table][spot]] -= take
        filled[spot] += take
    return [
        {"records": n, "values": {name: values[name][grid[place][spot]] for place, name in enumerate(names)}}
        for spot, n in sorted(filled.items(), key=lambda one: (-one[1], one[0]))
    ]


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


def _counts(joint: pd.DataFrame, table: Table, shares: Mapping[str, dict[str, float]]) -> Counts:
    index = pd.MultiIndex.from_product([list(shares[name]) for name in table], names=list(table))
    counts = joint.groupby(list(table))[RECORDS].sum()
    counts.index = pd.MultiIndex.from_arrays([counts.index.get_level_values(name).astype(str) for name in table])
    found = counts.reindex(pd.MultiIndex.from_tuples(index.to_list()), fill_value=0).to_numpy(dtype=np.int64)
    return np.asarray(found.reshape([len(shares[name]) for name in table]))


def _product(table: Table, shares: Mapping[str, dict[str, float]]) -> NDArray[np.float64]:
    parts = [np.array(list(shares[name].values())) for name in table]
    return np.asarray(np.multiply.outer(parts[0], parts[1]) if len(parts) == 2 else parts[0])


def _possible(pair: Table, cell: Table, shares: Mapping[str, dict[str, float]]) -> bool:
    return all(value in shares[name] for name, value in zip(pair, cell, strict=True))


def _expected(joint: pd.DataFrame, pair: Table, cell: Table, shares: Mapping[str, dict[str, float]]) -> float:
    chance = float(np.prod([shares[name][value] for name, value in zip(pair, cell, strict=True)]))
    return chance * float(_counts(joint, pair, shares).sum())


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
