"""Exact quotas: whole-number counts that meet given shares, and their even spread over records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def largest_remainder(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole counts that add up to `total`, each within one of ``share * total`` (Hamilton's method).

    Ties in the remainders go to the value listed first. Shares are normalised.
    """
    values = list(shares)
    weights = np.array([shares[v] for v in values], dtype=float)
    exact = weights / weights.sum() * total
    counts = np.floor(exact + 1e-9).astype(int)
    short = total - int(counts.sum())
    for i in np.argsort(-(exact - counts), kind="stable")[:short]:
        counts[i] += 1
    return dict(zip(values, counts.tolist(), strict=True))


def spread(
    counts: Mapping[str, int], strata: Sequence[NDArray[np.int64]], rng: np.random.Generator
) -> NDArray[np.int64]:
    """One value index per record: value *i* exactly ``counts[i]`` times, evenly over the strata.

    The records are ordered by the strata (first key first, groups and ties in random order); along that order each
    value is laid at equal distances with a random start. So every stratum gets its proportional share within a
    record or so, and the attributes are as good as independent, while the totals are exact.

    Parameters
    ----------
    counts : value to count, adding up to the number of records *n*.
    strata : integer codes of earlier attributes, each of shape (n,).
    rng : source of the random starts and orders.

    Returns
    -------
    array of shape (n,): positions in ``list(counts)``.
    """
    sizes = list(counts.values())
    total = sum(sizes)
    position = np.concatenate([(np.arange(size) + rng.random()) / size for size in sizes if size] or [np.empty(0)])
    value = np.repeat(np.arange(len(sizes)), sizes)
    laid = value[np.argsort(position, kind="stable")]
    # The groups of a stratum come in another random order inside each group of the one before: with the same order
    # everywhere, a value whose distance divides the groups' sizes would always fall to the same group.
    keys, group = [], np.zeros(total, dtype=np.int64)
    for codes in strata:
        group = np.unique(group * (int(codes.max(initial=0)) + 1) + codes, return_inverse=True)[1]
        keys.append(rng.random(int(group.max(initial=0)) + 1)[group])
    order = np.lexsort([rng.random(total), *reversed(keys)])
    result = np.empty(total, dtype=np.int64)
    result[order] = laid
    return result


def whole_groups(
    groups: NDArray[np.int64], labels: NDArray[np.int64], shares: Sequence[float], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each group of records the place in `shares` it goes to, so that the records' shares come out right.

    Label by label (a group counts for its most frequent one), each group goes where most records are still lacking,
    the largest groups first. What rounding leaves over is carried to the next label, so the totals come out right too.

    Parameters
    ----------
    groups, labels : codes from 0 of each record, shape (n,).

    Returns
    -------
    array of shape (number of groups,).
    """
    sizes = np.bincount(groups)
    label = _most_frequent(groups, labels)
    order = rng.permutation(len(sizes))
    order = order[np.lexsort((-sizes[order], label[order]))]
    chosen = np.empty(len(sizes), dtype=np.int64)
    lacking = np.zeros(len(shares))
    for members in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        lacking += np.asarray(shares) * sizes[members].sum()
        for member in members:
            chosen[member] = to = int(np.argmax(lacking))
            lacking[to] -= sizes[member]
    return chosen


def _most_frequent(groups: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The most frequent label of each group; of several, the lowest."""
    pairs, counts = np.unique(np.stack([groups, labels], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.unique(pairs[order, 0], return_index=True)[1]
    return np.asarray(pairs[order, 1][first], dtype=np.int64)
