"""Exact quotas: whole-number counts that meet given shares, and their even spread over records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from genesis_lab.errors import InvalidInput
from genesis_lab.texts import normal

Codes = NDArray[np.int64]


def largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole counts that add up to `total`, each within one of ``share * total`` (Hamilton's method).

    Ties in the remainders go to the value listed first. Shares are normalised.
    """
    weights = np.array(list(shares.values()), dtype=float)
    exact = weights / weights.sum() * total
    counts = np.floor(exact + 1e-9).astype(int)
    counts[np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]] += 1
    return dict(zip(shares, counts.tolist(), strict=True))


def checked_shares(shares: Mapping[str, float], allowed: Sequence[str]) -> dict[str, float]:
    """A user's shares with every allowed value, 0 for those left out; `ValueError` for others or another sum than 1."""
    unknown = [value for value in shares if value not in allowed]
    if unknown:
        raise ValueError(f"unknown value {unknown[0]!r}, expected {', '.join(allowed)}")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise ValueError(f"shares must add up to 1, got {sum(shares.values()):g}")
    return {value: shares.get(value, 0.0) for value in allowed}


def with_total(given: Any, cell: Any) -> Any:
    """Options in normal form; where they hold cells, `total` is how many records these ask for."""
    given = normal(given)
    cells = given.get("cells") if isinstance(given, dict) else None
    try:
        return given | {"total": sum(cell.model_validate(one).n for one in cells)} if cells else given
    except (TypeError, ValidationError):
        return given  # the field says what is wrong


def asked_for(cells: Sequence[BaseModel], total: int, shares: Mapping[str, Mapping[str, float]]) -> dict[str, Codes]:
    """What cells of `n` records say of each: attribute to a place among its values, -1 where they leave it open."""
    given = {name: np.full(total, -1) for name in shares}
    start = 0
    for cell in cells:
        told = cell.model_dump(exclude_none=True)
        for name in told.keys() & given.keys():
            if str(told[name]) not in shares[name]:
                raise InvalidInput(f"cells ask for {name} {told[name]!r}, which is not among those planned.")
            given[name][start : start + told["n"]] = list(shares[name]).index(str(told[name]))
        start += told["n"]
    return given


def spread(counts: Mapping[str, int], strata: Sequence[Codes], rng: np.random.Generator) -> Codes:
    """One value index per record: value *i* exactly ``counts[i]`` times, evenly over the strata.

    The records are ordered by the strata (first key first, groups and ties in random order); along that order each
    value is laid at equal distances with a random start. So every stratum gets its proportional share within a
    record or so, and the attributes are as good as independent, while the totals are exact.

    Parameters
    ----------
    counts : value to count, adding up to the number of records *n*.
    strata : integer codes of earlier attributes, each of shape (n,).
    """
    sizes = list(counts.values())
    total = sum(sizes)
    position = np.concatenate([(np.arange(size) + rng.random()) / size for size in sizes if size] or [np.empty(0)])
    laid = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(position, kind="stable")]
    # The groups of a stratum come in another random order inside each group of the one before: with the same order
    # everywhere, a value whose distance divides the groups' sizes would always fall to the same group.
    keys, group = [], np.zeros(total, dtype=np.int64)
    for codes in strata:
        group = np.unique(group * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
        keys.append(rng.random(int(group.max(initial=0)) + 1)[group])
    result = np.empty(total, dtype=np.int64)
    result[np.lexsort([rng.random(total), *reversed(keys)])] = laid
    return result


def whole_groups(groups: Codes, labels: Codes, shares: Sequence[float], rng: np.random.Generator) -> Codes:
    """For each group of records the place in `shares` it goes to, so that the records' shares come out right.

    Label by label (a group counts for its most frequent one), each group goes where most records are still lacking,
    the largest groups first. What rounding leaves over is carried to the next label, so the totals come out right too.
    """
    sizes = np.bincount(groups)
    pairs, counts = np.unique(np.stack([groups, labels], axis=1), axis=0, return_counts=True)
    often = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))  # each group's most frequent label first
    label = pairs[often, 1][np.unique(pairs[often, 0], return_index=True)[1]]
    order = rng.permutation(len(sizes))
    order = order[np.lexsort((-sizes[order], label[order]))]
    chosen, lacking = np.empty(len(sizes), dtype=np.int64), np.zeros(len(shares))
    for members in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        lacking += np.asarray(shares) * sizes[members].sum()
        for member in members:
            chosen[member] = to = int(np.argmax(lacking))
            lacking[to] -= sizes[member]
    return chosen
