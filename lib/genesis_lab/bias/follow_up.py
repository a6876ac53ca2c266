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

from genesis_lab.bias.measures import ENOUGH, RECORDS, Counts
from genesis_lab.bias.sentences import Row, listed, more
from genesis_lab.domains import get_domain
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import write_atomically
from genesis_lab.yamls import dump_yaml

MOST_RECORDS = 1_000_000
"""Most records that are asked for."""
_STEPS = 2_000
"""A follow-up of more records than this is laid in blocks of several."""

Shares = Mapping[str, Mapping[str, float]]
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

    Nothing can be taken away, so a table is held against its plan (the product of targets, or of observed shares) at
    the smallest total for which no cell has too many. `besides` take their shares from `targets`, `derived` from their
    base.
    """
    names = list(dict.fromkeys(name for table in (*off, *empty) for name in table))
    followed = {name: base for name, base in derived.items() if name in names and base in names}
    off = list(dict.fromkeys(tuple(followed.get(name, name) for name in table) for table in off))
    names = [name for name in names if name not in followed]
    if not names:
        return []
    names += [name for name in besides if name not in names]
    shares = {name: _shares(joint, name, targets) for name in names}
    values = {name: list(shares[name]) for name in names}
    cube = np.zeros([len(values[name]) + 1 for name in names], np.int64)
    places = [pd.Index(values[name]).get_indexer(pd.Index(joint[name])) for name in names]  # -1: another value
    np.add.at(cube, tuple(places), joint[RECORDS].to_numpy())

    def counts(table: Table) -> Counts:
        kept = np.einsum(cube, list(range(len(names))), [names.index(name) for name in table])
        return np.asarray(kept[(slice(-1),) * len(table)])

    def product(table: Table) -> NDArray[np.float64]:
        return np.asarray(reduce(np.multiply.outer, [np.array(list(shares[name].values())) for name in table]))

    # Attributes that are each off must not be tied together by what is added, as far as their cells are no mere chance.
    pairs = combinations([table[0] for table in off if len(table) == 1], 2)
    off += [pair for pair in pairs if counts(pair).sum() * product(pair).min() >= ENOUGH]
    tables = [table for table in off if not any(set(table) < set(other) for other in off)]
    first: dict[Table, Counts] = {}
    for pair, cells in empty.items():
        first[pair], expected = np.zeros_like(counts(pair)), product(pair) * counts(pair).sum()
        for cell in cells:
            if all(value in values[name] for name, value in zip(pair, cell, strict=True)):
                spot = tuple(values[name].index(value) for name, value in zip(pair, cell, strict=True))
                first[pair][spot] = max(1, round(expected[spot]))
    fewest, before = max((int(lack.sum()) for lack in first.values()), default=0), -1
    lacking: dict[Table, Counts] = {}
    while fewest != before:  # each table's rounding may ask for a record more, until all ask for as many
        before = fewest
        lacking = {table: _lacking(counts(table), product(table), fewest) for table in tables}
        fewest = max((int(lack.sum()) for lack in lacking.values()), default=fewest)
    records = min(fewest, MOST_RECORDS)
    if not records:
        return []
    for name in (name for name in besides if (name,) not in lacking):
        lacking[name,] = _lacking(np.zeros(len(shares[name]), np.int64), product((name,)), records)
    others: list[Table] = [pair for pair in combinations(names, 2) if pair not in lacking]
    even = {pair: product(pair) * (counts(pair).sum() + records) - counts(pair) for pair in others}
    return [
        {"records": n, "values": {name: values[name][place] for name, place in zip(names, cell, strict=True)}}
        for cell, n in _laid(names, [len(values[name]) for name in names], [first, lacking, even], records)
    ]


def _laid(
    names: list[str], shape: list[int], wanted: Sequence[Mapping[Table, NDArray[Any]]], records: int
) -> list[tuple[list[int], int]]:
    """`records` put into cells of all `names`, one by one into the cell that most tables lack, and lack most.

    What the first tables lack comes first, then what the second do; the third don't ask, but shouldn't be tied
    together.
    """
    grid = np.indices(shape).reshape(len(names), -1)
    parts = [
        (lack.astype(float).ravel(), np.ravel_multi_index([grid[names.index(n)] for n in table], lack.shape), *weights)
        for group, weights in zip(wanted, ((1000.0, 0.0), (1.0, 1e-3), (0.0, 1e-3)), strict=True)
        for table, lack in group.items()
    ]
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
    taken = counts > 0
    least = np.floor((counts[taken] - 1) / planned[taken] + 1e-9).max(initial=0) + 1
    total = min(max(int(counts.sum()) + fewest, int(least)), int(counts.sum()) + MOST_RECORDS)
    while True:
        exact = planned * total
        full = np.where(counts >= np.floor(exact + 1e-9), counts, np.floor(exact + 0.5)).astype(np.int64)
        if full.sum() <= total:
            break
        total = int(full.sum())
    room = np.argsort(full - exact, axis=None, kind="stable")
    full.flat[room[: total - int(full.sum())]] += 1
    return full - counts


def _shares(joint: pd.DataFrame, name: str, targets: Shares) -> dict[str, float]:
    if name in targets:
        return {value: share for value, share in targets[name].items() if share}
    counts = joint.groupby(name)[RECORDS].sum()
    return {str(value): float(n) / float(counts.sum()) for value, n in counts.items()}


def follow_up_plan(report: Row) -> dict[str, Any] | None:
    """The domain's options with `cells` for the records that `report` asks for; None where it can make none."""
    return _plan(report)[0]


def write_follow_up(report: Row, path: Path, *, stage: int | str, dataset: str | None = None) -> Path:
    """Write the follow-up as a params file for notebook `stage`, which ``genesis run`` and papermill run as it is.

    Its description names the records that can't be generated here; `InvalidInput` if no record can.
    """
    plan, refused = _plan(report)
    named = listed([more(addition) for addition in refused])
    if not plan:
        why = f": {named} can't be generated here" if refused else ""
        raise InvalidInput(
            f"The bias report asks for no records that could be generated{why}: there is no follow-up plan."
        )
    description = f"Records that the bias report of {report['records']:,} records asks for"
    description += f"; not among them, as they can't be generated here: {named}" if refused else ""
    content = {"name": path.stem, "description": description, "stages": [stage]}
    content |= ({"dataset": dataset} if dataset is not None else {}) | plan
    write_atomically(path, dump_yaml(content))
    return path


def _plan(report: Row) -> tuple[dict[str, Any] | None, list[Row]]:
    """The options that have all additions made, and the additions that the domain refuses."""
    wanted = report["additions"]
    refused = [] if _made(report, wanted) else [one for one in wanted if not _made(report, [one])]
    return _made(report, [addition for addition in wanted if addition not in refused]), refused


def _made(report: Row, additions: Sequence[Row]) -> dict[str, Any] | None:
    """The options that have `additions` made; None where there are none, or the domain can't make one of them."""
    cells = [{"n": addition["records"], **addition["values"]} for addition in additions]
    options = report["config"] | {"seed": (report["config"].get("seed", 0) + 1) % 2**31}
    try:
        get_domain(report["domain"], **options | {"cells": [cell | {"n": 1} for cell in cells]}).specs(len(cells), 0)
        config = get_domain(report["domain"], **options | {"cells": cells}).config
    except GenesisError:
        return None
    written = config.model_dump(mode="json", exclude_none=True)
    return written | {"cells": cells} if written.get("cells") else None
