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
