"""How far generated series are from real ones in 49 named features, and whether trees can tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

_LAGS = {1: 1, 2: 2, 3: 3, 6: 0.25, 12: 0.5, 24: 1.0, 48: 2.0, 168: 7.0}
"""Lags in hours, by which features are named, to points (whole numbers) or days (fractions)."""
SEASON = {"15min": 96, "30min": 48, "1h": 24, "1D": 7, "1W": 52}
"""Points of the shorter season by frequency: a day, a week of days, a year of weeks."""
_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
CORE = ("acf_1", "acf_24", "daily_strength", "weekly_strength", "diff_sd", "skew", "kurtosis", "spectral_entropy")
_DRAWS = 3
_FEWEST = 20
"""Series on either side below which trees tell nothing."""


def realism(values: Values, reference: Values, seed: int = 0) -> list[dict[str, Any]]:
    """How far generated series are from real ones: the mean KS distance over 49 features, and the AUC of trees.

    Parameters
    ----------
    values, reference : hourly series of one length, shape (n, length), without nulls; constant ones are left out.

    Returns
    -------
    Rows ``what, estimate, floor, sd, n, means, why`` (JSON-safe); ``floor`` and ``sd`` are of halves of the reference
    against each other. What cannot be measured is None, and ``why`` says so.
    """
    kept = [each[np.ptp(each, axis=1) > 1e-14 * np.abs(each).max(axis=1)] for each in (values, reference)]
    length = min(each.shape[1] for each in kept)
    made, real = (features(each[:, :length]) for each in kept)
    n = [len(each) for each in kept]
    rng = np.random.default_rng(seed)
    few = f"{_FEWEST} series on either side are needed, there are {n[0]} and {n[1]}" if min(n) < _FEWEST else None
    halves = [np.array_split(rng.permutation(n[1]), 2) for _ in range(0 if few else _DRAWS)]

    def row(what: str, measure: Callable[..., float], means: str) -> dict[str, Any]:
        found = dict.fromkeys(("estimate", "floor", "sd"))
        if not few:
            apart = [measure(_of(real, one), _of(real, other)) for one, other in halves]
            told: dict[str, Any] = {"estimate": measure(made, real), "floor": np.mean(apart), "sd": np.std(apart)}
            found = {name: round(float(value), 3) for name, value in told.items()}
        return {"what": what, **found, "n": n[0], "means": means, "why": few}

    apart = "0.5: trees cannot tell them apart"
    return [
        row("mean KS over 49 features", mean_ks, "0: each feature is distributed alike, 1: none overlaps"),
        row("AUC, 49 features", partial(_auc, names=tuple(real), rng=rng), apart),
        row("AUC, 8 features", partial(_auc, names=CORE, rng=rng), apart),
    ]


def _of(found: dict[str, Values], rows: NDArray[np.int_]) -> dict[str, Values]:
    return {name: value[rows] for name, value in found.items()}


def _auc(one: dict[str, Values], other: dict[str, Values], *, names: Sequence[str], rng: np.random.Generator) -> float:
    """Out of fold (5), both sides as many: of the larger some are drawn, three times."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    sides = [matrix({name: each[name] for name in names}) for each in (one, other)]
    fewest = min(len(side) for side in sides)
    found = []
    for draw in range(_DRAWS if len(sides[0]) != len(sides[1]) else 1):
        x = np.concatenate([side[rng.permutation(len(side))[:fewest]] for side in sides])
        y = np.repeat([1, 0], fewest)
        folds = StratifiedKFold(5, shuffle=True, random_state=draw)
        trees = ExtraTreesClassifier(60, min_samples_leaf=2, random_state=draw)
        found.append(roc_auc_score(y, cross_val_predict(trees, x, y, cv=folds, method="predict_proba")[:, 1]))
    return float(np.mean(found))


def features(values: Values, day: int = 24) -> dict[str, Values]:
    """Each feature by name, shape (n,); NaN where a series is constant or too short for it.

    Parameters
    ----------
    values : series of one frequency without nulls, shape (n, length); z-scored first, so that scale plays no part.
    day : points of the shorter season (`SEASON` of the frequency); the longer one has seven of them.
    """
    n, length = values.shape
    sd, most = values.std(axis=1, keepdims=True), np.abs(values).max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(sd > 1e-14 * most, (values - values.mean(1, keepdims=True)) / sd, np.nan)
        found: dict[str, Values] = {
            f"acf_{lag}": _acf(z, far if isinstance(far, int) else max(1, round(far * day)))
            for lag, far in _LAGS.items()
        }
        step = np.diff(z, axis=1)
        found |= {"diff_sd": step.std(1), "diff_acf_1": _acf(step, 1), "diff_acf_24": _acf(step, day)}
        found |= {"diff_kurtosis": _moment(step, 4), "diff_skew": _moment(step, 3), "rise_share": (step > 0).mean(1)}
        found |= {"same_share": (np.abs(step) < 1e-9).mean(1), "distinct_share": _distinct(z)}
        found |= {"skew": _moment(z, 3), "kurtosis": _moment(z, 4)}
        found |= {f"q{round(q * 100):02d}": np.quantile(z, q, axis=1) for q in _QUANTILES}
        days = z[:, : length // day * day].reshape(n, -1, day)
        profile, by_day = days.mean(1), days.mean(2)
        found |= {"daily_strength": profile.var(1), "day_to_day": by_day.var(1), "lumpiness": days.var(2).std(1)}
        found |= {"day_acf_1": _acf(by_day, 1), "day_acf_7": _acf(by_day, 7)}
        quarters = np.array_split(profile, 4, axis=1)
        found |= {f"level_{i * 6:02d}h": quarter.mean(1) for i, quarter in enumerate(quarters)}
        night, _, noon, _ = np.array_split(days.std(1), 4, axis=1)
        found |= {"night_spread": night.mean(1), "noon_spread": noon.mean(1)}
        rest = (days - profile[:, None]).reshape(n, -1)
        found |= {"rest_acf_1": _acf(rest, 1), "rest_acf_24": _acf(rest, day), "rest_kurtosis": _moment(rest, 4)}
        found |= _weekly(z, day)
        found |= _spectrum(z, day)
        found |= {"level_noise": _level_noise(days, profile), "trend": _trend(z)}
    return {name: np.asarray(value, dtype=float) for name, value in found.items()}


def mean_ks(found: dict[str, Values], real: dict[str, Values]) -> float:
    """The mean Kolmogorov-Smirnov distance over all features: 0 where both sets have the same distributions."""
    return float(np.mean([ks(found[name], real[name]) for name in real]))


def matrix(found: dict[str, Values]) -> Values:
    """The features side by side, shape (n, 49), missing ones as 0."""
    return np.nan_to_num(np.stack(list(found.values()), axis=1), posinf=0, neginf=0)


def ks(one: Values, other: Values) -> float:
    """The Kolmogorov-Smirnov distance of the finite values of one feature in two sets."""
    one, other = np.sort(one[np.isfinite(one)]), np.sort(other[np.isfinite(other)])
    if not len(one) or not len(other):
        return float(len(one) != len(other))
    at = np.concatenate([one, other])
    gap = np.searchsorted(one, at, "right") / len(one) - np.searchsorted(other, at, "right") / len(other)
    return float(np.abs(gap).max())


def _acf(z: Values, lag: int) -> Values:
    if z.shape[1] <= lag + 2:
        return np.full(len(z), np.nan)
    centred = z - z.mean(1, keepdims=True)
    return np.asarray((centred[:, lag:] * centred[:, :-lag]).mean(1) / centred.var(1))


def _moment(x: Values, order: int) -> Values:
    centred = x - x.mean(1, keepdims=True)
    raw = (centred**order).mean(1) / centred.std(1) ** order
    return np.asarray(np.sign(raw) * np.log1p(np.abs(raw)))


def _distinct(z: Values) -> Values:
    ordered = np.sort(z, axis=1)
    return np.asarray(1 - (np.diff(ordered, axis=1) < 1e-9).mean(1))


def _weekly(z: Values, day: int) -> dict[str, Values]:
    n, week = len(z), 7 * day
    if z.shape[1] < 2 * week:
        return dict.fromkeys(("weekly_strength", "weekend_gap", "week_rest"), np.full(n, np.nan))
    weeks = z[:, : z.shape[1] // week * week].reshape(n, -1, week)
    mean = weeks.mean(1)
    by_day = np.sort(mean.reshape(n, 7, day).mean(2), axis=1)
    return {
        "weekly_strength": mean.var(1),
        "weekend_gap": by_day[:, 2:].mean(1) - by_day[:, :2].mean(1),
        "week_rest": (weeks - mean[:, None]).std((1, 2)),
    }


def _spectrum(z: Values, day: int) -> dict[str, Values]:
    length = z.shape[1] // (7 * day) * (7 * day) or z.shape[1] // day * day
    power = np.abs(np.fft.rfft(z[:, :length], axis=1))[:, 1:] ** 2
    share = power / power.sum(1, keepdims=True)
    cycles = length // day
    found = {
        f"power_{name}": share[:, at - 1] for name, at in (("day", cycles), ("half", 2 * cycles), ("third", 3 * cycles))
    }
    found["power_slow"] = share[:, : max(1, cycles // 2)].sum(1)
    found["spectral_entropy"] = -(share * np.log(share + 1e-12)).sum(1) / np.log(share.shape[1])
    return found


def _level_noise(days: Values, profile: Values) -> Values:
    spread = days.std(1)
    centred, level = spread - spread.mean(1, keepdims=True), profile - profile.mean(1, keepdims=True)
    return np.asarray((centred * level).mean(1) / (centred.std(1) * level.std(1)))


def _trend(z: Values) -> Values:
    t = np.linspace(-1, 1, z.shape[1])
    return np.asarray((z * t).mean(1) / (t**2).mean())


def nearest(found: dict[str, Values], real: dict[str, Values]) -> float:
    """The median distance of a series of one set to the closest other one of the second, in the features' spreads."""
    a, b = matrix(found), matrix(real)
    scale = b.std(0) + 1e-9
    squared = ((a[:, None] / scale - b[None] / scale) ** 2).mean(2)
    if found is real:
        np.fill_diagonal(squared, np.inf)
    return round(float(np.median(np.sqrt(squared.min(1)))), 3)
