"""Forecasters: trained on some series, tested on others, and what a set of synthetic series is worth in real ones.

One model for all series, direct (the horizon is a feature), on values normalised by the week before the origin. Gradient
boosting and ridge regression, because they rank sets of series differently. Errors are MASE (Hyndman & Koehler 2006): the
mean absolute error over that of the daily naive forecast in the context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.errors import InvalidInput

Values = NDArray[np.float64]
Clock = tuple[NDArray[np.int_], NDArray[np.int_]]
"""Hour of the day and weekday of each point, shape (n, length) each."""

DAY, WEEK, CONTEXT, HORIZON = 24, 168, 332, 48
ORIGINS = tuple(range(CONTEXT - 1, 452, 12))
SHOTS = (1, 2, 5, 10, 20, 30)
SPLITS = 6
_FEWEST = 5
"""Real series that must be left to be forecast."""
_ROWS = 60_000
"""Rows that a forecaster is trained on at most, drawn at random."""
_REPLICATES = 1000
FEATURES = 29
_NOTHING = 1e-14
"""Change that is rounding only, relative to the level: what varies no more is constant."""


@dataclass(frozen=True)
class Windows:
    """What is forecast: `x` of shape (n, origins, horizon, features), `y` alike, and the mean and spread that undo the scaling."""

    x: NDArray[np.float32]
    y: Values
    mean: Values
    sd: Values

    def rows(self, series: Sequence[int] | NDArray[np.int_]) -> tuple[NDArray[np.float32], Values]:
        """The windows of these series one under the other, in the scale of the week before each origin."""
        y = ((self.y - self.mean) / self.sd)[series].ravel()
        x = self.x[series].reshape(-1, FEATURES)
        known = np.isfinite(y)
        return x[known], y[known]


def windows(values: Values, clock: Clock, origins: Sequence[int] = ORIGINS, horizon: int = HORIZON) -> Windows:
    """What is known at each origin about each of the next points: lags of the same hour and of the same hour of the week,
    their neighbours, the latest values, level and spread, and the calendar.

    Parameters
    ----------
    values : series of hours, shape (n, length); NaN where nothing was measured.
    origins : last known points, from 331 on.
    """
    n, length = values.shape
    ahead = np.arange(1, horizon + 1)
    t = np.asarray([origin for origin in origins if CONTEXT - 1 <= origin < length - horizon])
    if not len(t):
        raise InvalidInput(f"A forecast needs series of {CONTEXT + horizon} points or more, got {length}.")
    week = np.stack([values[:, o - WEEK + 1 : o + 1] for o in t], axis=1)
    mean = np.nanmean(week, axis=2)[..., None]
    sd = np.nanstd(week, axis=2)[..., None]
    sd = np.where(sd > _NOTHING * np.abs(mean), sd, 1.0)
    at = t[:, None] + ahead
    scaled = values[:, None, :]

    def lag(back: NDArray[np.int_]) -> Values:
        """The values `back` points before each target, NaN where they are not known yet or there are none."""
        place = at - back
        found = np.take_along_axis(
            np.broadcast_to(scaled, (n, len(t), length)), np.broadcast_to(place.clip(0, length - 1), (n, *at.shape)), 2
        )
        return np.where((place >= 0) & (place <= t[:, None]), (found - mean) / sd, np.nan)

    days = -(-ahead // DAY) * DAY
    same = [lag(days + DAY * k) for k in range(7)]
    weeks = [lag(np.full(horizon, WEEK * k)) for k in (1, 2)]
    near = [lag(days + k) for k in (1, -1, 2, -2)] + [lag(np.full(horizon, WEEK + k)) for k in (1, -1)]
    last = [lag(ahead + k) for k in range(4)]
    recent = (week[..., -DAY:] - mean) / sd
    level = [np.broadcast_to(f(recent, axis=2)[..., None], same[0].shape) for f in (np.nanmean, np.nanstd)]
    level.append(np.broadcast_to(((np.nanmax(week, axis=2)[..., None] - mean) / sd), same[0].shape))
    hour = np.take(clock[0], at, axis=1)
    weekday = np.take(clock[1], at, axis=1)
    calendar = [
        np.broadcast_to(ahead, same[0].shape),
        np.sin(hour * 2 * np.pi / 24),
        np.cos(hour * 2 * np.pi / 24),
        weekday,
        weekday >= 5,
    ]
    means = [np.nanmean(same, axis=0), np.nanmean(weeks, axis=0)]
    x = np.stack([*same, *weeks, *near, *last, *level, *means, *calendar], axis=-1).astype(np.float32)
    return Windows(x, np.take(values, at, axis=1), mean, sd)


def boosting(seed: int, **options: Any) -> Any:
    """Gradient-boosted trees on histograms; `options` of scikit-learn's ``HistGradientBoostingRegressor``."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    usual = {
        "max_iter": 200,
        "learning_rate": 0.05,
        "max_leaf_nodes": 31,
        "min_samples_leaf": 40,
        "l2_regularization": 1.0,
    }
    return HistGradientBoostingRegressor(**usual | options, random_state=seed)


def ridge(seed: int) -> Any:
    """Ridge regression, one for every horizon together; what is not known is taken to be the mean."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler(), Ridge(10.0))


FORECASTERS: Mapping[str, Callable[[int], Any]] = {"boosting": boosting, "ridge": ridge}


def fit(maker: Callable[[int], Any], data: Sequence[tuple[Windows, Any]], seed: int = 0) -> Any:
    """A forecaster trained on series of one or more sets: pairs of windows and which series of them, a smaller set counting a third of the largest."""
    parts = [one.rows(series) for one, series in data]
    rng = np.random.default_rng(seed)
    most = max(len(y) for _, y in parts)
    kept = [
        rng.permutation(len(y))[:_ROWS] if len(y) == most else rng.choice(len(y), min(most, _ROWS) // 3)
        for _, y in parts
    ]
    x = np.concatenate([part[0][rows] for part, rows in zip(parts, kept, strict=True)])
    y = np.concatenate([part[1][rows] for part, rows in zip(parts, kept, strict=True)])
    return maker(seed).fit(x, y.clip(-8, 8))


def forecast(model: Any, what: Windows, series: Any) -> Values:
    """Forecasts in the series' own scale, shape (series, origins, horizon)."""
    x = what.x[series]
    made = model.predict(x.reshape(-1, FEATURES)).reshape(x.shape[:-1])
    return np.asarray(made * what.sd[series] + what.mean[series])


def naive_scale(values: Values) -> Values:
    """The mean absolute daily difference over the context, by which MASE divides; NaN where a series is constant."""
    context = values[:, :CONTEXT]
    with np.errstate(invalid="ignore"):
        scale = np.nanmean(np.abs(context[:, DAY:] - context[:, :-DAY]), axis=1)
        return np.where(scale > _NOTHING * np.nanmax(np.abs(context), axis=1), scale, np.nan)


def mase(made: Values, what: Windows, scale: Values, series: Any, horizon: int = DAY) -> Values:
    """The error of each series over the first `horizon` points ahead; NaN for a constant one."""
    error = np.abs(made - what.y[series])[..., :horizon]
    return np.asarray(np.nanmean(error, axis=(1, 2)) / scale[series])


def baselines(what: Windows) -> dict[str, Values]:
    """What anyone can do without training: the same hour of yesterday, of last week, and the mean of the last two weeks' hours."""
    back = what.x * what.sd[..., None] + what.mean[..., None]
    return {"naive 24": back[..., 0], "naive 168": back[..., 7], "two-week mean": back[..., 23]}


def worth(
    values: Values,
    clock: Clock,
    real: Values,
    real_clock: Clock,
    *,
    forecasters: Sequence[str] = tuple(FORECASTERS),
    shots: Sequence[int] = SHOTS,
    splits: int = SPLITS,
    seed: int = 0,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """What synthetic series are worth: how well forecasters trained only on them forecast real ones, and how many real
    series teach as much. JSON-safe.

    Parameters
    ----------
    values, real : series of hours, shape (n, length); constant real ones are counted and left out.
    clock, real_clock : their local hours and weekdays.
    shots : numbers of real series that forecasters are trained on, for the curve.
    splits : draws of which real series are trained on and which are forecast; errors are means over them.
    """
    scale = naive_scale(real)
    usable = np.flatnonzero(np.isfinite(scale))
    shots = [k for k in shots if k <= len(usable) - _FEWEST]
    if not shots:
        raise InvalidInput(
            f"Worth in real series needs {_FEWEST + 1} real series that are not constant, got {len(usable)}."
        )
    constant = len(real) - len(usable)
    real, scale = real[usable], scale[usable]
    real_clock = (real_clock[0][usable], real_clock[1][usable])
    theirs, mine = windows(real, real_clock), windows(values, clock)
    everyone = np.arange(len(real))
    drawn = [np.random.default_rng([seed, s]).permutation(len(real)) for s in range(splits)]
    held_out = len(real) - max(shots)
    tested = [order[:held_out] for order in drawn]
    rules = {
        name: _estimate(mase(made, theirs, scale, everyone), tested, seed) for name, made in baselines(theirs).items()
    }
    steps, done = len(forecasters) * (1 + splits * (len(shots) + 1)), 0
    rows: list[dict[str, Any]] = []

    def step(what: str) -> None:
        nonlocal done
        done += 1
        if on_progress:
            on_progress(done, steps, what)

    for name in forecasters:
        maker = FORECASTERS[name]
        alone = fit(maker, [(mine, np.arange(len(values)))], seed)
        step(name)
        own = mase(forecast(alone, theirs, everyone), theirs, scale, everyone)
        curve, helped = np.empty((len(shots), splits, held_out)), np.empty((splits, held_out))
        for s, order in enumerate(drawn):
            for j, k in enumerate(shots):
                model = fit(maker, [(theirs, order[held_out : held_out + k])], s)
                curve[j, s] = mase(forecast(model, theirs, tested[s]), theirs, scale, tested[s])
                step(f"{name}, {k} real")
            few = order[held_out : held_out + min(5, max(shots))]
            model = fit(maker, [(mine, np.arange(len(values))), (theirs, few)], s)
            helped[s] = mase(forecast(model, theirs, tested[s]), theirs, scale, tested[s])
            step(f"{name}, 5 real and synthetic")
        by_split = np.stack([own[chosen] for chosen in tested])
        rows.append(
            {
                "forecaster": name,
                "mase": _estimate(own, tested, seed),
                "curve": [{"k": k, "mase": round(float(curve[j].mean()), 4)} for j, k in enumerate(shots)],
                "ratio_to_real": round(float(by_split.mean() / curve[-1].mean()), 4),
                "worth": _equivalent(by_split, curve, shots, seed),
                "five_real_and_synthetic": {
                    "mase": round(float(helped.mean()), 4),
                    "worth": _equivalent(helped, curve, shots, seed),
                },
            }
        )
    best = min(rules.values(), key=lambda rule: rule["estimate"])["estimate"]
    return {
        "real_series": len(real),
        "constant_real_series": constant,
        "synthetic_series": len(values),
        "baselines": rules,
        "forecasters": rows,
        "ratio_to_best_baseline": round(min(row["mase"]["estimate"] for row in rows) / best, 4),
    }


def _estimate(errors: Values, tested: Sequence[NDArray[np.int_]], seed: int) -> dict[str, Any]:
    """The mean error over the series of all splits, with an interval over series."""
    known = errors[np.isfinite(errors)]
    rng = np.random.default_rng(seed)
    means = known[rng.integers(len(known), size=(_REPLICATES, len(known)))].mean(1)
    mean = float(np.mean([np.nanmean(errors[chosen]) for chosen in tested]))
    low, high = np.quantile(means, [0.025, 0.975])
    return {"estimate": round(mean, 4), "low": round(float(low), 4), "high": round(float(high), 4), "n": len(known)}


def _equivalent(errors: Values, curve: Values, shots: Sequence[int], seed: int) -> dict[str, Any]:
    """The number of real series that teach as much, with an interval over splits and series; never extrapolated.

    Parameters
    ----------
    errors : of shape (splits, series); `curve` of shape (shots, splits, series).
    """
    rng = np.random.default_rng(seed)
    splits, series = errors.shape
    found = []
    for _ in range(_REPLICATES):
        s, i = rng.integers(splits, size=splits), rng.integers(series, size=series)
        found.append(_at(float(errors[s][:, i].mean()), curve[:, s][:, :, i].mean((1, 2)), shots))
    low, high = np.quantile(found, [0.025, 0.975])
    k = _at(float(errors.mean()), curve.mean((1, 2)), shots)
    return {"k": round(k, 1), "low": round(float(low), 1), "high": round(float(high), 1), "capped": k >= max(shots)}


def _at(error: float, curve: Values, shots: Sequence[int]) -> float:
    """Where a curve that may only fall reaches `error`, interpolated on log k; 0 below the first, the last at most."""
    falling = np.minimum.accumulate(curve)
    if error > falling[0]:
        return 0.0
    logs = np.log(np.asarray(shots, dtype=float))
    return float(np.exp(np.interp(-error, -falling, logs)))
