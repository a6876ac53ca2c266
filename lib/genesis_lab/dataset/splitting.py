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
    """The split of each record as its place in `fractions`, shape (n,); groups stay whole, see `whole_groups`."""
    for name, share in fractions.items():
        if not is_split_name(name) or not 0 < share <= 1:
            must = "above 0 and at most 1, and its name made of letters, digits and underscores"
            raise InvalidInput(f"The share of split {name!r} must be {must}, got {share:g}.")
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise InvalidInput(f"The shares of the splits must add up to 1, got {sum(fractions.values()):g}.")
    each = (np.asarray(one, dtype=object) for one in (groups, np.zeros(len(groups)) if labels is None else labels))
    group, label = (pd.factorize(one, use_na_sentinel=False)[0] for one in each)
    n_groups = int(group.max(initial=-1)) + 1
    if n_groups < len(fractions):
        what = f"of {len(group):,}, only {n_groups:,} may be told apart (the others must stay with one of these)"
        raise InvalidInput(f"Too few records for {len(fractions)} splits: {what}; add more and more varied ones.")
    split_of = whole_groups(group, label, list(fractions.values()), rng)
    for i, (name, share) in enumerate(fractions.items()):
        if i not in split_of:
            why = f"{n_groups:,} groups of records are too few for a share of {share:g}"
            raise InvalidInput(f"Split {name!r} would stay empty: {why}.")
    return np.asarray(split_of[group])
