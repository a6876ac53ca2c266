"""Confidence intervals, paired tests and effect sizes: how sure are we, and how large is it?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genesis_lab.errors import InvalidInput

LEVEL, POWER = 0.95, 0.8
_TIE = 1e-9


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


def percentile_interval(
    estimate: float, replicates: ArrayLike, n: int, level: float = LEVEL, *, scale: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Percentile interval from bootstrap `replicates` (Efron and Tibshirani 1993, chapter 13).

    Where all are equal, it is as wide as `mean_interval` of equal values on `scale`.
    """
    if np.ptp(replicates) <= _TIE:
        return _of_equal_values(float(estimate), n, level, scale)
    low, high = np.quantile(np.asarray(replicates, dtype=float), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(estimate), float(low), float(high), n)


def mean_interval(values: ArrayLike, level: float = LEVEL, *, scale: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Student's t interval of the mean of independent `values` on `scale`, on which it is clipped (Student 1908).

    For clustered items give one mean per cluster. With fewer than about 200 of them it keeps its level where the
    percentile bootstrap does not. A single value says nothing about the next one: its interval is the whole scale. Of n
    equal values no more is known than that others are rare (Wilson's limit of 0 of n), wherever they may lie.

    Raises
    ------
    InvalidInput : there are no values.
    """
    items = np.asarray(values, dtype=float)
    n = len(items)
    if n == 0:
        raise InvalidInput("A mean needs at least one value, got none.")
    from scipy.stats import t

    mean = float(items.mean())
    if np.ptp(items) <= _TIE:
        return _of_equal_values(mean, n, level, scale)
    half = float(t.ppf((1 + level) / 2, n - 1) * items.std(ddof=1) / np.sqrt(n))
    return Interval(mean, max(mean - half, min(scale[0], mean)), min(mean + half, max(scale[1], mean)), n)


def _of_equal_values(value: float, n: int, level: float, scale: tuple[float, float]) -> Interval:
    others = proportion_interval(0, n, level)[1] if n > 1 else 1.0
    return Interval(
        value, min(value - others * (value - scale[0]), value), max(value + others * (scale[1] - value), value), n
    )


def paired_power(difference: float, spread: float, n: int, level: float = LEVEL) -> float:
    """Chance that a paired t-test over `n` differences with standard deviation `spread` finds a true `difference`.

    Two-sided, by the noncentral t distribution (Cohen 1988, section 2.3).
    """
    from scipy.stats import nct, t

    if n < 2:
        return 0.0
    edge, shift = float(t.ppf((1 + level) / 2, n - 1)), abs(difference) / spread * np.sqrt(n)
    return 1.0 if shift > edge + 6 else float(nct.sf(edge, n - 1, shift) + nct.cdf(-edge, n - 1, shift))


def detectable_difference(spread: float, n: int, power: float = 0.8, level: float = LEVEL) -> float | None:
    """The true difference that a paired t-test over `n` differences finds with chance `power` (Bloom 1995, table 1).

    None below two differences.
    """
    if n < 2:
        return None
    from scipy.stats import t

    return float((t.ppf((1 + level) / 2, n - 1) + t.ppf(power, n - 1)) * spread / np.sqrt(n))


Verdict = Literal["better", "better but small", "worse", "equivalent", "can't be told"]
CANT_TELL: Final = "can't be told"


@dataclass(frozen=True, slots=True)
class Paired:
    """One side against another on the same items.

    Parameters
    ----------
    difference : mean of ``a - b`` with its interval; `n` counts groups where items were grouped.
    p : two-sided, by sign flips; replace it by an adjusted one with `corrected` where several are compared.
    spread : standard deviation of the differences, what a power calculation needs.
    wins, ties, losses : items (groups) in which `a` has more, the same, less.
    """

    difference: Interval
    p: float
    spread: float
    wins: int
    ties: int
    losses: int
    margin: float
    fewest: int

    @property
    def verdict(self) -> Verdict:
        """The first that applies: too few items, a difference that is proven (at least the margin, or small), sameness."""
        low, high = self.difference.low, self.difference.high
        if self.difference.n < self.fewest:
            return CANT_TELL
        if self.p < 1 - LEVEL and low > 0:
            return "better" if self.difference.estimate >= self.margin else "better but small"
        if self.p < 1 - LEVEL and high < 0:
            return "worse"
        return "equivalent" if -self.margin < low and high < self.margin else CANT_TELL

    @property
    def keeps_up(self) -> bool | None:
        """Whether `a` is at most the margin below `b`; None where the interval can't tell, or too few items can't."""
        return None if self.difference.n < self.fewest else above(self.difference, -self.margin)

    def needed(self, *, to_keep_up: bool = False) -> int:
        """Items (groups) that at this spread and with 80 % power would be enough to tell.

        To tell the difference from 0 or show that it is within the margin; or (`to_keep_up`) which side of the margin
        it is on. At least `fewest`, and more than there are.
        """
        size = self.difference.estimate
        resolution = abs(size + self.margin) if to_keep_up else max(abs(size), self.margin - abs(size))
        level, power = (NormalDist().inv_cdf(share) for share in ((1 + LEVEL) / 2, POWER))
        found = ((level + power) * self.spread / max(resolution, self.margin / 10)) ** 2
        same = level / self.margin if self.ties == self.difference.n else 0.0
        return math.ceil(max(found, same, self.fewest, self.difference.n + 1))

    def corrected(self, p: float) -> Paired:
        """The same with a p-value that was adjusted for several comparisons, for example by `holm`."""
        return replace(self, p=p)


def paired(
    a: ArrayLike,
    b: ArrayLike,
    groups: Sequence[Hashable] | None = None,
    *,
    margin: float = 0.05,
    fewest: int = 10,
    seed: int = 0,
    flips: int = 10_000,
) -> Paired:
    """Compare two sides item by item: the one way in which this package calls something better.

    Student's interval of the mean difference, with half an observation of either sign added to what was seen (Agresti
    and Min 2005, section 3, for all-or-nothing scores): 24 items that all agree do not prove that the next one will.

    Parameters
    ----------
    a, b : scores in [0, 1] of the same items, right (1) or wrong (0) among them.
    groups : what is not independent is averaged first: one label per item.
    margin : the smallest difference that matters.
    fewest : items (groups) below which nothing is proven.

    Raises
    ------
    InvalidInput : the sides differ in length, or there are no items.
    """
    left, right = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if left.shape != right.shape or not left.size:
        raise InvalidInput(f"A paired comparison needs the same items on both sides, got {left.size} and {right.size}.")
    d = left - right
    if groups is not None:
        if len(groups) != len(d):
            raise InvalidInput(f"A paired comparison needs a group for each item, got {len(groups)} for {len(d)}.")
        number = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        index = np.array([number[group] for group in groups])
        d = np.bincount(index, weights=d) / np.bincount(index)
    from scipy.stats import t

    n, changed = len(d), d[np.abs(d) > _TIE]
    tied = 1 - len(changed) / n  # how large a change is that was not seen: as those that were, or 1 where none was
    step = float(((changed**2).sum() + tied) / (len(changed) + tied))
    centre = d.sum() / (n + 2)
    variance = max(float((d**2).sum() + step) / (n + 2) - centre**2, 0.0)
    half = float(t.ppf((1 + LEVEL) / 2, max(n - 1, 1))) * np.sqrt(variance / (n + 2))
    return Paired(
        Interval(float(d.mean()), max(float(centre - half), -1.0), min(float(centre + half), 1.0), n),
        sign_flip_p(d, rng=np.random.default_rng(seed), n=flips),
        float(d.std(ddof=1)) if n > 1 else 0.0,
        int((d > _TIE).sum()),
        n - len(changed),
        int((d < -_TIE).sum()),
        margin,
        fewest,
    )


def above(value: Interval, threshold: float) -> bool | None:
    """Whether a quantity lies above a threshold; None where the threshold is within its interval: it can't be told."""
    return True if value.low > threshold else False if value.high < threshold else None


def sign_flip_p(differences: ArrayLike, *, rng: np.random.Generator, n: int = 10_000) -> float:
    """Two-sided p-value that paired `differences` are symmetric around 0.

    Exact over all sign flips of those that are not 0 where there are at most `n` (McNemar's test, where scores are right or
    wrong), else by `n` random ones with the observed assignment counted in (Phipson and Smyth 2010): never 0.
    """
    values = np.asarray(differences, dtype=float)
    if not len(values):
        raise InvalidInput("A sign-flip test needs at least one difference, got none.")
    values = values[np.abs(values) > _TIE]
    total = values.sum()
    if 2 ** len(values) <= n:
        kept = (np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1
        return float(np.mean(np.abs(2 * (kept @ values) - total) >= abs(total) - 1e-12))
    extreme = 0
    for start in range(0, n, 1000):
        kept = rng.integers(2, size=(min(1000, n - start), len(values)), dtype=np.int8).astype(float)
        extreme += int(np.sum(np.abs(2 * (kept @ values) - total) >= abs(total) - 1e-12))
    return (1 + extreme) / (1 + n)


def holm(pvalues: Sequence[float]) -> list[float]:
    """P-values adjusted for several comparisons by Holm's step-down method (Holm 1979)."""
    raw = np.asarray(pvalues, dtype=float)
    order = np.argsort(raw, kind="stable")
    steps = np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1))
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(steps, 1.0)
    return [float(p) for p in adjusted]


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


def _distributions(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    if left.shape != right.shape or min(left.min(initial=0), right.min(initial=0)) < 0:
        raise InvalidInput("Two distributions must list non-negative weights over the same values.")
    if not left.sum() > 0 or not right.sum() > 0:
        raise InvalidInput("A distribution must have some weight, got only zeros.")
    return left / left.sum(), right / right.sum()
