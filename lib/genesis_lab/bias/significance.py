"""How sure and how strong: p-values and effect sizes of counts against shares, and of one attribute against another.

Effects are put on one scale, Cohen's w (Cohen 1988, section 7.2), so that one set of thresholds grades them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from genesis_lab.stats import LEVEL, Interval, cramers_v

ENOUGH = 5
"""Smallest expected count for which chi-square is trusted (Cochran 1954)."""
OUTCOMES = 100_000
"""Most outcomes that the exact multinomial test lists."""
DRAWS = 4_999
"""Random tables of a Monte Carlo test."""
_BLOCK_CELLS = 5_000_000

Counts = NDArray[np.int64]
Shares = NDArray[np.float64]


def fit_p(observed: Counts, target: Shares, rng: np.random.Generator) -> tuple[float, str]:
    """P-value that `observed` (k,) was drawn with the shares `target` (k,), all positive; and the test's name.

    Exact for two values or few outcomes (sum of the probabilities of all outcomes no likelier than this one), Pearson's
    chi-square where every expected count is at least `ENOUGH`, else Monte Carlo on the chi-square statistic.
    """
    from scipy.stats import binomtest, chi2, multinomial

    n, k = int(observed.sum()), len(observed)
    if k < 2 or not n:
        return 1.0, "exact: only one value is possible"
    if k == 2:
        return float(binomtest(int(observed[0]), n, float(target[0])).pvalue), "exact binomial"
    if math.comb(n + k - 1, k - 1) <= OUTCOMES:
        log_p = multinomial.logpmf(_outcomes(n, k), n, target)
        own = multinomial.logpmf(observed, n, target)
        return min(1.0, float(np.exp(log_p[log_p <= own + 1e-9]).sum())), "exact multinomial"
    statistic = chi_square(observed, n * target)
    if n * target.min() >= ENOUGH:
        return float(chi2.sf(statistic, k - 1)), "chi-square"

    def draw(size: int) -> NDArray[np.int64]:
        return rng.multinomial(n, target, size=size)

    return _monte_carlo(statistic, n * target, draw), "Monte Carlo multinomial"


def independence_p(table: Counts, rng: np.random.Generator) -> tuple[float, str]:
    """P-value that rows and columns of `table` (r, c), without empty ones, are independent; and the test's name.

    Chi-square where every expected count is at least `ENOUGH`, else Fisher's exact test for 2 × 2 and Monte Carlo over
    tables with the same margins (Patefield 1981) for larger ones.
    """
    from scipy.stats import chi2, fisher_exact, random_table

    expected = expected_counts(table)
    statistic = chi_square(table, expected)
    if expected.min() >= ENOUGH:
        return float(chi2.sf(statistic, (table.shape[0] - 1) * (table.shape[1] - 1))), "chi-square"
    if table.shape == (2, 2):
        return float(fisher_exact(table)[1]), "Fisher's exact"
    margins = random_table(table.sum(axis=1), table.sum(axis=0), seed=rng)
    return _monte_carlo(statistic, expected, lambda size: margins.rvs(size=size)), "Monte Carlo with these margins"


def expected_counts(table: Counts) -> NDArray[np.float64]:
    """Counts if rows and columns had nothing to do with each other."""
    expected: NDArray[np.float64] = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return expected


def chi_square(observed: Counts, expected: NDArray[np.float64]) -> float:
    """Pearson's statistic."""
    return float(((observed - expected) ** 2 / expected).sum())


def cohens_w(observed: Counts, target: Shares) -> Interval:
    """Cohen's w of counts against shares, less what chance alone adds, with its 95 % interval.

    √(max(0, χ² − df) / n): the correction Bergsma (2013) makes to Cramér's V. Interval: `_noncentrality`.
    """
    n, df = int(observed.sum()), len(observed) - 1
    if not df or not n:
        return Interval(0.0, 0.0, 0.0, n)
    statistic = chi_square(observed, n * target)
    low, high = (math.sqrt(value / n) for value in _noncentrality(statistic, df))
    return Interval(math.sqrt(max(0.0, statistic - df) / n), low, high, n)


def association(table: Counts) -> tuple[Interval, float]:
    """Bias-corrected Cramér's V of `table` (no empty rows or columns, at least 2 × 2) and the Cohen's w it stands for.

    w = V · √(min(r, c) − 1) (Cohen 1988, section 7.2.3).
    """
    n, rank = int(table.sum()), min(table.shape) - 1
    df = (table.shape[0] - 1) * (table.shape[1] - 1)
    bounds = _noncentrality(chi_square(table, expected_counts(table)), df)
    low, high = (min(1.0, math.sqrt(value / (n * rank))) for value in bounds)
    v = cramers_v(table) or 0.0
    return Interval(v, min(low, v), max(high, v), n), v * math.sqrt(rank)


def _noncentrality(statistic: float, df: int) -> tuple[float, float]:
    """Noncentrality parameters for which `statistic` is at the upper and the lower end of its likely range.

    Smithson (2003), "Confidence intervals", chapter 4. Both are 0 for data evener than chance would make them.
    """
    from scipy.optimize import brentq
    from scipy.stats import ncx2

    def solve(tail: float) -> float:
        def excess(value: float) -> float:
            return float(ncx2.cdf(statistic, df, value)) - tail

        top = statistic + 10 * math.sqrt(statistic + 1) + 10
        return float(brentq(excess, 1e-9, top)) if excess(1e-9) > 0 > excess(top) else 0.0

    return solve((1 + LEVEL) / 2), solve((1 - LEVEL) / 2)


def _outcomes(n: int, k: int) -> NDArray[np.int64]:
    """All ways to put `n` records under `k` values, shape (outcomes, k): stars and bars."""
    bars = np.array(list(combinations(range(n + k - 1), k - 1)), dtype=np.int64)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), n + k - 1)])
    return np.diff(edges, axis=1) - 1


def _monte_carlo(statistic: float, expected: NDArray[np.float64], draw: Callable[[int], NDArray[np.int64]]) -> float:
    """Share of random tables at least as far off, the observed one counted in (Phipson and Smyth 2010)."""
    extreme, left = 0, DRAWS
    while left:
        size = min(left, max(1, _BLOCK_CELLS // expected.size))
        off = ((draw(size) - expected) ** 2 / expected).reshape(size, -1).sum(axis=1)
        extreme += int(np.sum(off >= statistic - 1e-9))
        left -= size
    return (1 + extreme) / (1 + DRAWS)
