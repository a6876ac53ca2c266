"""Confidence intervals, paired tests and effect sizes: how sure are we, and how large is it?"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import NormalDist
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from genesis_lab.errors import InvalidInput

LEVEL, POWER = 0.95, 0.8
_UPPER = (1 + LEVEL) / 2  # the quantile at the upper end of a two-sided interval
_TIE = 1e-9
Verdict = Literal["better", "better but small", "worse", "equivalent", "can't be told"]
CANT_TELL: Final = "can't be told"


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
        return asdict(self)


def proportion_interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai and DasGupta 2001, section 3.1.1)."""
    if n < 1 or not 0 <= successes <= n:
        raise InvalidInput(f"A proportion needs 0 ≤ successes ≤ n and n ≥ 1, got {successes} of {n}.")
    z, share = NormalDist().inv_cdf(_UPPER), successes / n
    middle, spread = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low, high = ((middle + end) / (1 + z * z / n) for end in (-spread, spread))
    return (low if successes else 0.0), (high if successes < n else 1.0)


def percentile_interval(
    estimate: float, replicates: ArrayLike, n: int, *, scale: tuple[float, float] = (0.0, 1.0)
) -> Interval:
    """Percentile interval from bootstrap `replicates` (Efron and Tibshirani 1993, chapter 13); of equal ones as
    `mean_interval`'s.
    """
    if np.ptp(replicates) <= _TIE:
        return _of_equal_values(float(estimate), n, scale)
    low, high = np.quantile(np.asarray(replicates, dtype=float), [1 - _UPPER, _UPPER])
    return Interval(float(estimate), float(low), float(high), n)


def mean_interval(values: ArrayLike, *, scale: tuple[float, float] = (0.0, 1.0)) -> Interval:
    """Student's t interval of the mean of independent `values`, clipped to `scale` (Student 1908).

    For clustered items give one mean per cluster. Of n equal values no more is known than that others are rare
    (Wilson's limit of 0 of n), wherever they may lie; of one value nothing: its interval is the whole scale.
    """
    items = np.asarray(values, dtype=float)
    if not (n := len(items)):
        raise InvalidInput("A mean needs at least one value, got none.")
    mean = float(items.mean())
    if np.ptp(items) <= _TIE:
        return _of_equal_values(mean, n, scale)
    half = float(_t(_UPPER, n - 1) * items.std(ddof=1) / np.sqrt(n))
    return Interval(mean, max(mean - half, min(scale[0], mean)), min(mean + half, max(scale[1], mean)), n)


def _t(share: float, degrees: int) -> float:
    from scipy.stats import t

    return float(t.ppf(share, degrees))


def _of_equal_values(value: float, n: int, scale: tuple[float, float]) -> Interval:
    others = proportion_interval(0, n)[1] if n > 1 else 1.0
    low, high = value - others * (value - scale[0]), value + others * (scale[1] - value)
    return Interval(value, min(low, value), max(high, value), n)


def paired_power(difference: float, spread: float, n: int) -> float:
    """Chance that a two-sided paired t-test over `n` differences with deviation `spread` finds a true `difference`.

    By the noncentral t distribution (Cohen 1988, section 2.3).
    """
    from scipy.stats import nct

    if n < 2:
        return 0.0
    edge, shift = _t(_UPPER, n - 1), abs(difference) / spread * np.sqrt(n)
    return 1.0 if shift > edge + 6 else float(nct.sf(edge, n - 1, shift) + nct.cdf(-edge, n - 1, shift))


def detectable_difference(spread: float, n: int) -> float | None:
    """The true difference that a paired t-test finds with a chance of 80 % (Bloom 1995, table 1); None below two."""
    return None if n < 2 else float((_t(_UPPER, n - 1) + _t(POWER, n - 1)) * spread / np.sqrt(n))


@dataclass(frozen=True, slots=True)
class Paired:
    """One side against another on the same items: the mean of ``a - b``; wins are items where `a` has more.

    `p` is two-sided, by sign flips; `spread` the standard deviation of the differences. Where items were grouped, n,
    wins, ties and losses count groups. Below `fewest` of them nothing is proven, and `margin` is what matters.
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
        """The first that applies: too few items, a proven difference (at least the margin, or small), sameness."""
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
        """Items (groups) that at this spread and 80 % power would be enough, more than there are and at least `fewest`.

        To tell the difference from 0 or show that it is within the margin; or which side of the margin it is on.
        """
        size = self.difference.estimate
        resolution = abs(size + self.margin) if to_keep_up else max(abs(size), self.margin - abs(size))
        level, power = (NormalDist().inv_cdf(share) for share in (_UPPER, POWER))
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
    """Compare two sides item by item, scores in [0, 1]: the one way in which this package calls something better.

    What is of one group is not independent and averaged first. Student's interval of the mean difference, with half an
    observation of either sign added to what was seen (Agresti and Min 2005, section 3): 24 items that agree prove
    little.
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
    n, changed = len(d), d[np.abs(d) > _TIE]
    tied = 1 - len(changed) / n  # how large a change is that was not seen: as those that were, or 1 where none was
    step = float(((changed**2).sum() + tied) / (len(changed) + tied))
    centre = d.sum() / (n + 2)
    variance = max(float((d**2).sum() + step) / (n + 2) - centre**2, 0.0)
    half = _t(_UPPER, max(n - 1, 1)) * np.sqrt(variance / (n + 2))
    difference = Interval(float(d.mean()), max(float(centre - half), -1.0), min(float(centre + half), 1.0), n)
    p, spread = sign_flip_p(d, rng=np.random.default_rng(seed), n=flips), float(d.std(ddof=1)) if n > 1 else 0.0
    wins, losses = int((d > _TIE).sum()), int((d < -_TIE).sum())
    return Paired(difference, p, spread, wins, n - len(changed), losses, margin, fewest)


def above(value: Interval, threshold: float) -> bool | None:
    """Whether a quantity lies above a threshold; None where the threshold is within its interval: it can't be told."""
    return None if value.low <= threshold <= value.high else value.low > threshold


def sign_flip_p(differences: ArrayLike, *, rng: np.random.Generator, n: int = 10_000) -> float:
    """Two-sided p-value that paired `differences` are symmetric around 0, of which there is at least one.

    Exact over all sign flips of those that are not 0 where there are at most `n` (McNemar's test, where scores are
    right or wrong), else by `n` random ones with the observed assignment counted in (Phipson and Smyth 2010): never 0.
    """
    values = np.asarray(differences, dtype=float)
    values = values[np.abs(values) > _TIE]
    total = values.sum()

    def as_far(kept: NDArray[Any]) -> Any:
        return np.abs(2 * (kept @ values) - total) >= abs(total) - 1e-12

    if 2 ** len(values) <= n:
        return float(as_far((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1).mean())
    sizes = (min(1000, n - start) for start in range(0, n, 1000))
    drawn = (rng.integers(2, size=(size, len(values)), dtype=np.int8).astype(float) for size in sizes)
    return (1 + sum(int(as_far(kept).sum()) for kept in drawn)) / (1 + n)


def holm(pvalues: Sequence[float]) -> list[float]:
    """P-values adjusted for several comparisons by Holm's step-down method (Holm 1979)."""
    raw = np.asarray(pvalues, dtype=float)
    order = np.argsort(raw, kind="stable")
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * np.arange(len(raw), 0, -1)), 1.0)
    return [float(p) for p in adjusted]


def total_variation(p: ArrayLike, q: ArrayLike) -> float:
    """Total variation distance of two distributions over the same values, in [0, 1]; counts are normalised."""
    left, right = _distributions(p, q)
    return float(np.abs(left - right).sum() / 2)


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> float:
    """Jensen–Shannon divergence in bits, in [0, 1] (Lin 1991); counts are normalised."""
    from scipy.spatial.distance import jensenshannon

    return float(jensenshannon(*_distributions(p, q), base=2) ** 2)


def _distributions(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    if left.shape != right.shape or min(left.min(initial=0), right.min(initial=0)) < 0 or not left.sum() * right.sum():
        raise InvalidInput("Two distributions must list non-negative weights over the same values, not only zeros.")
    return left / left.sum(), right / right.sum()
