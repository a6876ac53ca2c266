from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.domains.quotas import largest_remainder, spread

SHARES = st.lists(st.floats(0.01, 1), min_size=1, max_size=12).map(
    lambda s: {str(i): v / sum(s) for i, v in enumerate(s)}
)


@given(shares=SHARES, total=st.integers(0, 5_000))
def test_counts_add_up_and_are_within_one_of_the_share(shares, total):
    counts = largest_remainder(shares, total)
    assert sum(counts.values()) == total
    assert all(abs(counts[v] - share * total) < 1 for v, share in shares.items())


@settings(deadline=None)
@given(shares=SHARES, groups=st.integers(1, 9), each=st.integers(1, 40), seed=st.integers(0, 99))
def test_spread_keeps_the_totals_and_gives_every_stratum_its_share(shares, groups, each, seed):
    total = groups * each
    counts = largest_remainder(shares, total)
    strata = np.repeat(np.arange(groups), each)
    values = spread(counts, [strata], np.random.default_rng(seed))
    assert Counter(values.tolist()) == {i: n for i, n in enumerate(counts.values()) if n}
    for group in range(groups):
        found = Counter(values[strata == group].tolist())
        for i, n in enumerate(counts.values()):
            assert abs(found.get(i, 0) - n / groups) < 2 + len(counts) / 2
