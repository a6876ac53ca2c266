"""How sure and how strong: p-values and effect sizes of counts against shares, and of one attribute against another.

Effects are put on one scale, Cohen's w (Cohen 1988, section 7.2), so that one set of thresholds grades them all.
"""

from __future__ import annotations

import math
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

Counts = NDArray[np.int64]


def fit_p(observed: Counts, target: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, str]:
    """P-value that `observed` (k,) was drawn with the shares `target` (k,), all positive; and the test's name.

    Exact for few outcomes, chi-square where it can be trusted, else Monte Carlo (Phipson and Smyth 2010).
    """
    from scipy.stats import binomtest, chi2, multinomial

    n, k = int(observed.sum()), len(observed)
    if k < 2 or not n:
        return 1.0, "exact: only one value is possible"
    if k == 2:
        return float(binomtest(int(observed[0]), n, float(target[0])).pvalue), "exact binomial"
    if math.comb(n + k - 1, k - 1) <= OUTCOMES:
        bars = np.array(list(combinations(range(n + k - 1), k - 1)), dtype=np.int64)  # n stars between k - 1 bars
        edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), n + k - 1)])
        log_p = multinomial.logpmf(np.diff(edges, axis=1) - 1, n, target)
        own = multinomial.logpmf(observed, n, target)
        return min(1.0, float(np.exp(log_p[log_p <= own + 1e-9]).sum())), "exact multinomial"
    statistic = _chi_square(observed, n * target)
    if n * target.min() >= ENOUGH:
        return float(chi2.sf(statistic, k - 1)), "chi-square"
    off = _chi_square(rng.multinomial(n, target, size=DRAWS), n * target)
    return float((1 + np.sum(off >= statistic - 1e-9)) / (1 + DRAWS)), "Monte Carlo multinomial"


def independence_p(table: Counts, rng: np.random.Generator) -> tuple[float, str]:
    """P-value that rows and columns of `table` (r, c), without empty ones, are independent; and the test's name.

    Chi-square where it can be trusted, else Fisher's exact test for 2 × 2, or Monte Carlo (Patefield 1981).
    """
    from scipy.stats import MonteCarloMethod, chi2_contingency, fisher_exact
    from scipy.stats.contingency import expected_freq

    if expected_freq(table).min() >= ENOUGH:
        return float(chi2_contingency(table, correction=False).pvalue), "chi-square"
    if table.shape == (2, 2):
        return float(fisher_exact(table).pvalue), "Fisher's exact"
    method = MonteCarloMethod(n_resamples=DRAWS, batch=max(1, 5_000_000 // table.size), rng=rng)
    found = chi2_contingency(table, correction=False, method=method)
    return float(found.pvalue), "Monte Carlo with these margins"


def cohens_w(observed: Counts, target: NDArray[np.float64]) -> Interval:
    """Cohen's w of counts against shares, less what chance alone adds, with its 95 % interval.

    √(max(0, χ² − df) / n): the correction Bergsma (2013) makes to Cramér's V. Interval: `_noncentrality`.
    """
    n, df = int(observed.sum()), len(observed) - 1
    if not df or not n:
        return Interval(0.0, 0.0, 0.0, n)
    statistic = float(_chi_square(observed, n * target))
    low, high = (math.sqrt(value / n) for value in _noncentrality(statistic, df))
    return Interval(math.sqrt(max(0.0, statistic - df) / n), low, high, n)


def association(table: Counts) -> tuple[Interval, float]:
    """Bias-corrected Cramér's V of `table` (no empty rows or columns, at least 2 × 2) and the Cohen's w it stands for.

    w = V · √(min(r, c) − 1) (Cohen 1988, section 7.2.3).
    """
    from scipy.stats import chi2_contingency

    n, rank = int(table.sum()), min(table.shape) - 1
    found = chi2_contingency(table, correction=False)
    low, high = (min(1.0, math.sqrt(value / (n * rank))) for value in _noncentrality(found.statistic, found.dof))
    v = cramers_v(table) or 0.0
    return Interval(v, min(low, v), max(high, v), n), v * math.sqrt(rank)


def _chi_square(observed: Counts, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's statistic of counts (…, k)."""
    return np.asarray(((observed - expected) ** 2 / expected).sum(axis=-1))


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
