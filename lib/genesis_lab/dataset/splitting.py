"""Splits without leakage: what belongs together stays together, and every label is spread by the same shares."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.dataset.folder import is_split_name
from genesis_lab.domains.quotas import whole_groups
from genesis_lab.errors import InvalidInput


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
    for name, share in fractions.items():
        if not is_split_name(name):
            raise InvalidInput(f"Split name {name!r} must be made of letters, digits and underscores.")
        if not 0 < share <= 1:
            raise InvalidInput(f"The share of split {name!r} must be above 0 and at most 1, got {share:g}.")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise InvalidInput(f"The shares of the splits must add up to 1, got {sum(fractions.values()):g}.")
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
