"""Forecasters: trained on some series, tested on others, and what a set of synthetic series is worth in real ones.

One model for all series, direct (the horizon is a feature), that learns what to add to the mean of the last two same
hours of the week, in units of how far the last week's values were from those a day before. Gradient boosting and ridge
regression, because they rank sets of series differently. Errors are MASE (Hyndman & Koehler 2006): the mean absolute
error over that of the daily naive forecast in the context. Who trains on real series is tested on others of them, over
several draws: the curve of real series says how many teach as much as a synthetic set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.dataset.sources import Real
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.stats import Interval, Paired, paired, percentile_interval
from genesis_lab.training.config import Source
from genesis_lab.training.evaluation import equivalence_sentence, equivalent
from genesis_lab.training.models import IntentModel, model_of

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

Values = NDArray[np.float64]
Row = dict[str, Any]
OnProgress = Callable[[int, int, str], None]

DAY, WEEK, CONTEXT, HORIZON, LENGTH = 24, 168, 332, 48, 500
NEEDED = CONTEXT + HORIZON
"""Hours that a series must have."""
ORIGINS = tuple(range(CONTEXT - 1, LENGTH - HORIZON, 12))
SHOTS = (1, 2, 5, 10, 20, 30)
SPLITS = 6
MOST = 2_000
"""Synthetic series that are learned from at most: the learning curve is flat there."""
LEVELS = tuple(round(0.1 * i, 1) for i in range(1, 10))
"""Quantiles that are forecast; the outer ones are an 80 % band."""
FEATURES = 30
_FEW = 5
"""Real series that are there where it is asked what synthetic ones add."""
_ROWS = 150_000
"""Rows that a forecaster is trained on at most, drawn at random."""
_REPLICATES = 1000
_LEAST = 0.05
"""The least unit in spreads of the last week: a series that repeats each day has no differences."""
_NOTHING = 1e-14
"""Change that is rounding only, relative to the level: what varies no more is constant."""


@contextmanager
def _quietly() -> Iterator[None]:
    """Without NumPy's remarks on means of nothing, which are NaN here on purpose: nothing was measured."""
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning), np.errstate(all="ignore"):
        yield


def hours_of(domain: str, records: Iterable[Mapping[str, Any]]) -> Any:
    """Those that can be forecast of the records of a domain: `domains.timeseries.tables.Hours`."""
    return get_domain(domain).lessons(records, LENGTH, NEEDED)


def series_of(dataset: Dataset, seed: int = 0) -> tuple[Any, list[str]]:
    """What is learned from a dataset, at most `MOST` series drawn at random, and in sentences what was left out."""
    rows = (record for batch in dataset.batches(size=500) for record in batch.to_pylist())
    notes = []
    if dataset.total > MOST:
        drawn = {*np.random.default_rng(seed).choice(dataset.total, MOST, replace=False).tolist()}
        rows = (record for i, record in enumerate(rows) if i in drawn)
        notes.append(f"Learned from {MOST:,} of {dataset.total:,} series, drawn at random.")
    found = hours_of(dataset.domain, rows)
    notes += [f"{n:,} series {why} and were left out." for why, n in found.left_out.items()]
    if not len(found):
        needed = f"Forecasters learn from series of {NEEDED} hours or more, {dataset.name} has none."
        raise InvalidInput(" ".join([needed, *notes]))
    return found, notes


@dataclass(frozen=True)
class Windows:
    """What is forecast, and from what."""

    x: NDArray[np.float32]  # (n, origins, horizon, features)
    y: Values  # (n, origins, horizon)
    centre: Values  # the mean of the last two same hours of the week, from which all is measured
    unit: Values  # how far values of the last week were from those a day before

    def rows(self, series: Any) -> tuple[NDArray[np.float32], Values]:
        """The windows of these series one under the other, and how far they are from their centre."""
        y = ((self.y - self.centre) / self.unit)[series].ravel()
        known = np.isfinite(y)
        return self.x[series].reshape(-1, FEATURES)[known], y[known]


@_quietly()
def windows(series: Any, origins: Sequence[int] = ORIGINS, horizon: int = HORIZON) -> Windows:
    """What is known at each origin about each of the next points, in features without a unit.

    Lags of the same hour and of that of the week, their neighbours, the latest values, level, spread, calendar.

    Parameters
    ----------
    series : `Hours`: values of shape (n, length), NaN where nothing was measured, with their local hours and weekdays.
    origins : last known points, from 331 on.
    """
    values: Values = series.values
    length = values.shape[1]
    ahead = np.arange(1, horizon + 1)
    t = np.asarray([origin for origin in origins if CONTEXT - 1 <= origin < length - horizon])
    if not len(t):
        raise InvalidInput(f"A forecast needs series of {CONTEXT + horizon} points or more, got {length}.")
    week = np.stack([values[:, o - WEEK + 1 : o + 1] for o in t], axis=1)
    day_before = np.stack([values[:, o - WEEK + 1 - DAY : o + 1 - DAY] for o in t], axis=1)
    mean, sd = (f(week, axis=2)[..., None] for f in (np.nanmean, np.nanstd))
    whole = np.nanstd(values[:, :CONTEXT], axis=1)[:, None, None]
    sd = np.where(sd > _NOTHING * np.abs(mean), sd, np.where(whole > 0, whole, 1.0))
    unit = np.nanmean(np.abs(week - day_before), axis=2)[..., None]
    unit = np.where(unit > _LEAST * sd, unit, _LEAST * sd)
    at = t[:, None] + ahead

    def lag(back: NDArray[np.int_]) -> Values:
        """The values `back` points before each target, NaN where they are not known yet or there are none."""
        place = at - back
        found = np.take(values, place.clip(0, length - 1), axis=1)
        return np.where((place >= 0) & (place <= t[:, None]), found, np.nan)

    days = -(-ahead // DAY) * DAY
    same = [lag(days + DAY * k) for k in range(7)]
    weeks = [lag(np.full(horizon, WEEK * k)) for k in (1, 2)]
    near = [lag(days + k) for k in (1, -1, 2, -2)] + [lag(np.full(horizon, WEEK + k)) for k in (1, -1)]
    last = [lag(ahead + k) for k in range(4)]
    centre = np.nanmean(weeks, axis=0)
    centre = np.where(np.isfinite(centre), centre, mean)
    recent, all_week = week[..., -DAY:], np.nanmax(week, axis=2)[..., None]
    known = [*same, *weeks, *near, *last, np.nanmean(recent, axis=2)[..., None], all_week, np.nanmean(same, axis=0)]
    scaled = [(one - centre) / unit for one in known]
    spread = [(centre - mean) / unit, np.nanstd(recent, axis=2)[..., None] / unit, sd / unit]
    weekday, day = (np.take(each, at, axis=1) for each in (series.weekday, series.hour * 2 * np.pi / DAY))
    calendar = [ahead, np.sin(day), np.cos(day), weekday, weekday >= 5]
    x = [np.broadcast_to(one, centre.shape) for one in (*scaled, *spread, *calendar)]
    return Windows(np.stack(x, axis=-1, dtype=np.float32, casting="unsafe"), np.take(values, at, axis=1), centre, unit)


def boosting(seed: int) -> Any:
    """Gradient-boosted trees on histograms; of the absolute error, as MASE is."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    shape = {"max_iter": 200, "learning_rate": 0.05, "max_leaf_nodes": 31, "min_samples_leaf": 40}
    return HistGradientBoostingRegressor(loss="absolute_error", **shape, l2_regularization=1.0, random_state=seed)


def ridge(seed: int) -> Any:
    """Ridge regression, one for every horizon together; what is not known is taken to be the mean."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="constant", fill_value=0.0), StandardScaler(), Ridge(10.0))


TITLES = {"boosting": "gradient boosting", "ridge": "ridge regression"}
FORECASTERS: Mapping[str, Callable[[int], Any]] = {"boosting": boosting, "ridge": ridge}


def fit(maker: Callable[[int], Any], data: Sequence[tuple[Windows, Any]], seed: int = 0) -> Any:
    """A forecaster trained on series of one or more sets: pairs of windows and which series of them.

    A smaller set counts a third of the largest.
    """
    parts = [one.rows(series) for one, series in data]
    rng = np.random.default_rng(seed)
    most = max(len(y) for _, y in parts)
    xs, ys = [], []
    for x, y in parts:
        rows = rng.permutation(len(y))[:_ROWS] if len(y) == most else rng.choice(len(y), min(most, _ROWS) // 3)
        xs.append(x[rows])
        ys.append(y[rows])
    return maker(seed).fit(np.concatenate(xs), np.concatenate(ys).clip(-8, 8))


def forecast(model: Any, what: Windows, series: Any) -> Values:
    """Forecasts in the series' own scale, shape (series, origins, horizon)."""
    x = what.x[series]
    made = model.predict(x.reshape(-1, FEATURES)).reshape(x.shape[:-1])
    return np.asarray(made * what.unit[series] + what.centre[series])


@_quietly()
def naive_scale(values: Values) -> Values:
    """The mean absolute daily difference over the context, by which MASE divides; NaN where a series is constant."""
    context = values[:, :CONTEXT]
    scale = np.nanmean(np.abs(context[:, DAY:] - context[:, :-DAY]), axis=1)
    return np.where(scale > _NOTHING * np.nanmax(np.abs(context), axis=1), scale, np.nan)


@_quietly()
def mase(made: Values, what: Windows, scale: Values, series: Any, horizon: int = DAY) -> Values:
    """The error of each series over the first `horizon` points ahead; NaN for a constant one."""
    error = np.abs(made - what.y[series])[..., :horizon]
    return np.asarray(np.nanmean(error, axis=(1, 2)) / scale[series])


def baselines(what: Windows) -> dict[str, Values]:
    """What needs no training: the same hour of yesterday, of last week, and the mean of the last two weeks'."""
    day, week = (what.x[..., lag] * what.unit + what.centre for lag in (0, 7))
    return {"naive 24": day, "naive 168": week, "two-week mean": what.centre}


@_quietly()
def residual_quantiles(name: str, taught: Windows, seed: int = 0) -> dict[float, float]:
    """How far above its forecast a value lies, in units of its window, at each of `LEVELS`.

    Of the quarter of the series that a forecaster trained on the others did not see (split conformal prediction by a
    local scale: Lei et al. 2018, section 5.2); with fewer than 4 series of those it learned from.
    """
    order = np.random.default_rng([seed, 1]).permutation(len(taught.y))
    kept, out = (order, order) if len(order) < 4 else (order[len(order) // 4 :], order[: len(order) // 4])
    model = fit(FORECASTERS[name], [(taught, kept)], seed)
    rest = (taught.y[out] - forecast(model, taught, out)) / taught.unit[out]
    return dict(zip(LEVELS, np.quantile(rest[np.isfinite(rest)], LEVELS).tolist(), strict=True))


def bands(made: Values, what: Windows, series: Any, offsets: Mapping[float, float]) -> Values:
    """The quantiles `LEVELS` around forecasts, shape (levels, series, origins, horizon)."""
    return np.stack([made + offsets[level] * what.unit[series] for level in LEVELS])


@dataclass(frozen=True)
class _Trial:
    """Errors on real series over splits, with intervals from a bootstrap over splits and series."""

    theirs: Windows
    scale: Values
    tested: NDArray[np.int_]
    """Which series each split is tested on, shape (splits, series)."""
    seed: int

    @cached_property
    def _picks(self) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        rng, (splits, series) = np.random.default_rng(self.seed), self.tested.shape
        return rng.integers(splits, size=(_REPLICATES, splits, 1)), rng.integers(series, size=(_REPLICATES, 1, series))

    def replicates(self, by_split: Values) -> Values:
        return np.asarray(by_split[..., self._picks[0], self._picks[1]].mean((-2, -1)))

    def interval(self, by_split: Values) -> Row:
        """The mean over splits and series."""
        return percentile_interval(float(by_split.mean()), self.replicates(by_split), len(self.scale)).to_dict()

    def mean(self, of_series: Values) -> Row:
        return self.interval(of_series[self.tested])

    def equivalent(self, by_split: Values, curve: Values, shots: Sequence[int]) -> Row:
        """The number of real series that teach as much, see `training.evaluation.equivalent`."""
        ks, own = np.array(shots, dtype=float), self.replicates(by_split)
        return equivalent(-float(by_split.mean()), -curve.mean((1, 2)), -own, -self.replicates(curve).T, ks)

    @_quietly()
    def of_bands(self, found: Values) -> Row:
        """Quantile loss (the levels' mean of twice the pinball loss, by MASE's scale) and what 80 % bands cover."""
        y, quantiles = self.theirs.y[..., :DAY], found[..., :DAY]
        level = np.array(LEVELS)[:, None, None, None]
        loss = 2 * np.nanmean((y - quantiles) * (level - (y < quantiles)), axis=(0, 2, 3)) / self.scale
        inside = np.where(np.isfinite(y), (y >= quantiles[0]) & (y <= quantiles[-1]), np.nan)
        covered = np.nanmean(inside, axis=(1, 2))
        worst = float(np.quantile(covered, 0.1))
        return {"quantile_loss": self.mean(loss), "coverage": self.mean(covered), "covered_of_the_worst": worst}


def _less(one: Values, other: Values) -> Paired:
    """By how much an error is less than another, series by series; beyond 1 counts as 1."""
    return paired(np.clip(one - other, -1, 1), np.zeros(len(one)))


def scorecard(dataset: Dataset, reference: Real | None, *, seed: int = 0, **options: Any) -> Row:
    """What a dataset of series is worth: `worth` of its series in those of `reference`, or why not. JSON-safe."""
    why, notes, found = "no reference series", list[str](), dict[str, Any](students=[], records=0)
    if reference is not None:
        try:
            mine, notes = series_of(dataset, seed)
            found, why = worth(mine, hours_of(dataset.domain, reference.records), seed=seed, **options), ""
        except InvalidInput as error:
            why = str(error).rstrip(".")
    worth_of, verdict = {}, f"not measured: {why}"
    for one in found["students"]:
        one["says"] = f"MASE {one['mase']['estimate']:.2f}, the {found['best_baseline']} {one['floor']['estimate']:.2f}"
        worth_of[one["student"]] = "worth nothing"
        if one["beats_floor"] is not False:
            worth_of[one["student"]] = equivalence_sentence(one["equivalence"], of="series")
    if found["students"]:
        first = min(found["students"], key=lambda one: float(one["mase"]["estimate"]))
        on, rule = f"on {reference} with {first['title']}", found["best_baseline"]
        reached, floor = Interval(**first["mase"]), Interval(**first["floor"])
        verdict = f"MASE {reached} {on}: {worth_of[first['student']]}."
        if first["beats_floor"] is None:
            verdict += f" Whether that is better than the {rule} ({floor}) can't be told."
        elif not first["beats_floor"]:
            verdict = f"Worth nothing: {on} MASE is {reached}, and of the {rule}, without any training, {floor}."
    not_measured = {"scorecard": why} if why else {}
    told = {"shown_as": "forecasts", "gate": "worth in real series", "reference": reference and reference.to_dict()}
    return told | found | {"notes": notes, "not_measured": not_measured, "worth": worth_of, "verdict": verdict}


def worth(
    mine: Any,
    real: Any,
    *,
    forecasters: Sequence[str] = tuple(FORECASTERS),
    shots: Sequence[int] = SHOTS,
    splits: int = SPLITS,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Row:
    """How well forecasters trained only on synthetic series forecast real ones, and how many real series teach as much.

    Parameters
    ----------
    mine, real : `Hours` to learn from and to be tested on; real ones that stand still are counted and left out.
    shots : numbers of real series that forecasters are trained on, for the curve.
    splits : draws of which real series are trained on and which are forecast; errors are means over them.
    """
    scale = naive_scale(real.values)
    usable = np.flatnonzero(np.isfinite(scale))
    shots = [k for k in shots if k <= len(usable) - _FEW]
    if not shots:
        why = "".join(f"; {n:,} {of}" for of, n in real.left_out.items())
        raise InvalidInput(
            f"Worth in real series needs {_FEW + 1} real series of {NEEDED} hours or more that do not stand "
            f"still, got {len(usable)} of {len(real) + sum(real.left_out.values())}{why}."
        )
    scale, theirs, taught = scale[usable], windows(real.take(usable)), windows(mine)
    drawn = [np.random.default_rng([seed, s]).permutation(len(usable)) for s in range(splits)]
    held_out = len(usable) - max(shots)
    trial = _Trial(theirs, scale, np.array([order[:held_out] for order in drawn]), seed)
    rules = {name: mase(made, theirs, scale, slice(None)) for name, made in baselines(theirs).items()}
    best = min(rules, key=lambda name: float(rules[name].mean()))
    sizes = sorted({max(1, len(mine) // 2**power) for power in range(6)})
    steps, total = count(1), len(forecasters) * (splits * (len(shots) + 1) + len(sizes))
    students = []

    def fitted(name: str, data: Sequence[tuple[Windows, Any]], what: str, draw: int = seed) -> Any:
        model = fit(FORECASTERS[name], data, draw)
        if on_progress:
            on_progress(next(steps), total, f"{TITLES[name]}: {what}")
        return model

    def erred(model: Any, of: Any) -> Values:
        return mase(forecast(model, theirs, of), theirs, scale, of)

    everyone = np.random.default_rng(seed).permutation(len(mine))
    few = max(k for k in (shots[0], *shots) if k <= max(_FEW, shots[0]))
    for name in forecasters:
        grown = {n: fitted(name, [(taught, everyone[:n])], f"{n:,} synthetic series") for n in sizes}
        errors = {n: erred(model, slice(None)) for n, model in grown.items()}
        curve = np.empty((len(shots), *trial.tested.shape))
        helped = np.empty(trial.tested.shape)
        for s, order in enumerate(drawn):
            of, pool = trial.tested[s], order[held_out:]
            for j, k in enumerate(shots):
                curve[j, s] = erred(fitted(name, [(theirs, pool[:k])], f"{k} real series", s), of)
            both = [(taught, everyone), (theirs, pool[:few])]
            helped[s] = erred(fitted(name, both, f"{few} real and the synthetic series", s), of)
        own, made = errors[sizes[-1]], forecast(grown[sizes[-1]], theirs, slice(None))
        by_split, alone, floor = own[trial.tested], curve[shots.index(few)], _less(rules[best], own)
        told = {"better": True, "better but small": True, "can't be told": None}
        gain = {
            "k": few,
            "real_only": float(alone.mean()),
            "with_synthetic": float(helped.mean()),
            "difference": trial.interval(alone - helped),
            "together": equivalence_sentence(trial.equivalent(helped, curve, shots), of="series"),
        }
        row: Row = {
            "student": name,
            "title": TITLES[name],
            "mase": trial.mean(own),
            "mase_48": trial.mean(mase(made, theirs, scale, slice(None), HORIZON)),
            "errors": [round(float(error), 6) for error in own],  # of each series, in the reference's order
            "floor": trial.mean(rules[best]),
            "above_floor": floor.difference.to_dict(),
            "beats_floor": told.get(floor.verdict, False),
            "ratio_to_real": float(by_split.mean() / curve[-1].mean()),
            "ratio_to_rule": float(own.mean() / rules[best].mean()),
            "k_shots": [{"k": k, "mase": trial.interval(of_k)} for k, of_k in zip(shots, curve, strict=True)],
            "equivalence": trial.equivalent(by_split, curve, shots),
            "gains": [gain],
            "learning_curve": [{"records": n, "mase": trial.mean(one), "gain": None} for n, one in errors.items()],
        }
        for step, (before, after) in zip(row["learning_curve"][1:], pairwise(errors.values()), strict=True):
            step["gain"] = _less(before, after).difference.to_dict()
        offsets = residual_quantiles(name, taught, seed)
        students.append(row | trial.of_bands(bands(made, theirs, slice(None), offsets)))
    first = min(students, key=lambda one: float(one["mase"]["estimate"]))["errors"]
    return {
        "students": students,
        "worst": [{"name": real.ids[usable[i]], "value": first[i]} for i in np.argsort(first)[:-13:-1]],
        "baselines": {name: trial.mean(errors) for name, errors in rules.items()},
        "best_baseline": best,
        "constant": len(real) - len(usable),
        "series": len(usable),
        "records": len(mine),
    }


def taught_by(real: Any) -> Callable[[Values], float]:
    """How badly ridge regression that learns from given series, in their hours, forecasts these real ones (MASE)."""
    theirs, scale = windows(real, horizon=DAY), naive_scale(real.values)

    def error(values: Values) -> float:
        first = np.zeros(len(values), dtype=int)
        made = windows(replace(real.take(first), values=values), ORIGINS[::3], DAY)
        model = fit(ridge, [(made, slice(None))])
        return float(np.nanmean(mase(forecast(model, theirs, slice(None)), theirs, scale, slice(None))))

    return error


def trained(dataset: Dataset, name: str, *, seed: int = 0) -> IntentModel:
    """A forecaster trained on all series of a dataset, to be saved and registered; its card holds bands' offsets."""
    mine, _ = series_of(dataset, seed)
    taught = windows(mine)
    model = fit(FORECASTERS[name], [(taught, slice(None))], seed)
    offsets = {f"quantile {level}": offset for level, offset in residual_quantiles(name, taught, seed).items()}
    source = Source(dataset.name, dataset.content_hash, len(mine))
    return model_of(model, name, params=offsets, sources=[source], embedder=None, seed=seed, metrics={})


def foreseen(model: IntentModel, what: Windows, series: Any = slice(None)) -> tuple[Values, Values]:
    """Forecasts of a saved forecaster and the quantiles around them, see `forecast` and `bands`."""
    made = forecast(model.estimator, what, series)
    offsets = {level: float(str(model.card.params[f"quantile {level}"])) for level in LEVELS}
    return made, bands(made, what, series, offsets)
