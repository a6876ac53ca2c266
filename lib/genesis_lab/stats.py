"""Confidence intervals, paired tests and effect sizes: how sure are we, and how large is it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genesis_lab.errors import InvalidInput

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval and the number of items it rests on."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.2f} [{self.low:.2f}–{self.high:.2f}]"

    def to_dict(self) -> dict[str, float | int]:
        """JSON-safe fields."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high, "n": self.n}


def proportion_interval(successes: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1).

    Raises
    ------
    InvalidInput : `n` is not positive, or `successes` lies outside 0…n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInput(f"A proportion needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}.")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(successes, n, alpha=1 - level, method="wilson")
    return (float(low) if successes else 0.0), (float(high) if successes < n else 1.0)


def percentile_interval(estimate: float, replicates: ArrayLike, n: int, level: float = LEVEL) -> Interval:
    """Percentile interval from bootstrap `replicates` (Efron and Tibshirani 1993, chapter 13)."""
    low, high = np.quantile(np.asarray(replicates, dtype=float), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), n)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float] = np.mean,
    n_boot: int = 2000,
    *,
    rng: np.random.Generator,
    level: float = LEVEL,
) -> Interval:
    """Percentile bootstrap of `statistic` over the items in `values` (rows, when two-dimensional).

    Raises
    ------
    InvalidInput : there are no values.
    """
    items = np.asarray(values, dtype=float)
    n = len(items)
    if n == 0:
        raise InvalidInput("A bootstrap interval needs at least one value, got none.")
    replicates = [statistic(items[rng.integers(n, size=n)]) for _ in range(n_boot)]
    return percentile_interval(float(statistic(items)), replicates, n, level)


def paired_bootstrap_difference(
    a: ArrayLike, b: ArrayLike, *, rng: np.random.Generator, n_boot: int = 2000, level: float = LEVEL
) -> Interval:
    """Mean of ``a - b`` over the same items, resampling items (Berg-Kirkpatrick, Burkett and Klein 2012, section 2)."""
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if left.shape != right.shape:
        raise InvalidInput(f"A paired comparison needs the same items on both sides, got {len(left)} and {len(right)}.")
    return bootstrap_interval(left - right, np.mean, n_boot, rng=rng, level=level)


def mcnemar(a_correct: ArrayLike, b_correct: ArrayLike) -> float:
    """Exact two-sided p-value that two classifiers are right equally often on the same items (McNemar 1947)."""
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    if a.shape != b.shape:
        raise InvalidInput(f"McNemar's test needs the same items on both sides, got {len(a)} and {len(b)}.")
    from scipy.stats import binomtest

    only_a, only_b = int(np.sum(a & ~b)), int(np.sum(~a & b))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def sign_flip_p(differences: ArrayLike, *, rng: np.random.Generator, n: int = 10_000) -> float:
    """Two-sided p-value that paired `differences` are symmetric around 0, by `n` random sign flips.

    Monte Carlo form with the observed assignment counted in (Phipson and Smyth 2010): never 0.
    """
    values = np.asarray(differences, dtype=float)
    if not len(values):
        raise InvalidInput("A sign-flip test needs at least one difference, got none.")
    observed = abs(values.sum())
    extreme = 0
    for start in range(0, n, 1000):
        signs = rng.integers(2, size=(min(1000, n - start), len(values))) * 2 - 1
        extreme += int(np.sum(np.abs(signs @ values) >= observed - 1e-12))
    return (1 + extreme) / (1 + n)


def holm(pvalues: Sequence[float]) -> list[float]:
    """P-values adjusted for several comparisons by Holm's step-down method (Holm 1979)."""
    if not len(pvalues):
        return []
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(pvalues, method="holm")[1]]


def cramers_v(table: ArrayLike) -> float | None:
    """Bias-corrected Cramér's V of a contingency table, in [0, 1] (Bergsma 2013, section 3).

    None when a margin has fewer than two non-empty levels: there is no association to speak of.
    """
    counts = np.asarray(table, dtype=float)
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0]
    n = float(counts.sum())
    if min(counts.shape) < 2 or n < 2:
        return None
    expected = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / n
    phi2 = float(((counts - expected) ** 2 / expected).sum() / n)
    rows, columns = counts.shape
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(levels - (levels - 1) ** 2 / (n - 1) for levels in (rows, columns)) - 1
    return min(1.0, float(np.sqrt(phi2 / smaller))) if smaller > 0 else 0.0


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """Total variation distance of two distributions over the same values, in [0, 1]; counts are normalised."""
    left, right = _distributions(p, q)
    return float(np.abs(left - right).sum() / 2)


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen–Shannon divergence in bits, in [0, 1] (Lin 1991); counts are normalised."""
    from scipy.spatial.distance import jensenshannon

    left, right = _distributions(p, q)
    return float(jensenshannon(left, right, base=2) ** 2)


def cohen_d_z(differences: ArrayLike) -> float | None:
    """Cohen's d for paired differences: mean over standard deviation (Cohen 1988, section 2.3.5).

    None when it is not defined: fewer than two differences, or all the same.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2 or not (spread := float(values.std(ddof=1))):
        return None
    return float(values.mean() / spread)


def _distributions(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    if left.shape != right.shape or min(left.min(initial=0), right.min(initial=0)) < 0:
        raise InvalidInput("Two distributions must list non-negative weights over the same values.")
    if not left.sum() > 0 or not right.sum() > 0:
        raise InvalidInput("A distribution must have some weight, got only zeros.")
    return left / left.sum(), right / right.sum()
