"""Recipes to values, side by side: each series draws from its own stream, so alone and among others it is the same.

Then what is put into a finished series: anomalies, labelled only where they show, and gaps as loggers leave them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.timeseries.kinds import Kind
from genesis_lab.domains.timeseries.record import STEP_HOURS

Values = NDArray[np.float64]
Parameters = Mapping[str, Values]
Place = tuple[str, str, str, float]
"""Start (UTC), time zone, country of the holidays (empty: none) and latitude."""

RENDERER_VERSION = "1"
_DAILY = 7
_COMMON = 0.85
"""Correlation of the weather of series of one group."""
_PEAKS = ("morning", "midday", "evening")
LEAST_EFFECT = 3.0
"""Residual 95 % quantiles by which an anomaly must change its series to be labelled."""
_USUAL = 0.998
"""Quantile of a series' own residuals beyond which an anomaly must lie."""
_TRIES = 30
_BRIEF, _LONG = (1, 2), (24, 72)
_POINTS = {"spike": _BRIEF, "drop": _BRIEF, "plateau": (6, 24), "drift": _LONG, "outage": (4, 24)}
_POINTS |= {"level_shift": (48, 120), "stuck": (8, 36), "variance_change": _LONG}
"""Points that an anomaly lasts, fewest and most."""
_CAUSES = ("communication", "power_cut", "maintenance", "battery")
"""Of gaps."""


@dataclass(frozen=True, eq=False)
class Clock:
    """The local time of each point, shape (length,), or (n, length) after `side_by_side`; holidays are Sundays (6)."""

    hour: Values
    weekday: NDArray[np.int64]
    yearday: Values
    day: NDArray[np.int64]  # since the start
    per_day: float
    latitude: Values


@lru_cache(256)
def clock(start: str, length: int, frequency: str, timezone: str, country: str = "", latitude: float = 40.0) -> Clock:
    """The clock of a series that starts at `start` (UTC): its days follow the local time, also when that changes."""
    stamps = stamps_of(start, length, frequency).tz_convert(timezone)
    local = stamps.tz_localize(None)
    days = local.normalize()
    weekday = np.array(local.day_of_week)
    if country:
        import holidays

        years = range(days[0].year, days[-1].year + 1)
        free = {np.datetime64(day) for day in holidays.country_holidays(country, years=years)}
        weekday[np.isin(days.values.astype("datetime64[D]"), list(free))] = 6
    hours = np.array(local.hour + local.minute / 60, dtype=float)
    since, yearday = np.array((days - days[0]).days), np.array(local.day_of_year + hours / 24)
    return Clock(hours, weekday, yearday, since, 24 / STEP_HOURS[frequency], np.array(latitude))


@lru_cache(64)
def stamps_of(start: str, length: int, frequency: str):  # type: ignore[no-untyped-def]  # pandas' index
    """The stamps of a series in UTC; local ones are made of them."""
    import pandas as pd

    first = pd.Timestamp(start)
    first = first.tz_localize("UTC") if first.tz is None else first.tz_convert("UTC")
    return pd.date_range(first, periods=length, freq=pd.Timedelta(hours=STEP_HOURS[frequency]))


def side_by_side(clocks: Sequence[Clock]) -> Clock:
    """Clocks of one length and frequency as one of shape (n, length)."""
    names = ("hour", "weekday", "yearday", "day", "latitude")
    hour, weekday, yearday, day, latitude = (np.stack([getattr(one, name) for one in clocks]) for name in names)
    return Clock(hour, weekday, yearday, day, clocks[0].per_day, latitude[:, None])


@dataclass(frozen=True)
class Draws:
    """The random numbers of series, each from its seed: per point normal (2) and uniform (3), per day normal (7)."""

    normal: Values
    uniform: Values
    daily: Values


def draws(seeds: Sequence[int], length: int, days: Sequence[int], shared: Sequence[int | None] = ()) -> Draws:
    """Philox streams keyed by the seeds, for so many local days each; one seed in `shared` is one weather for most."""
    n = len(seeds)
    normal, uniform, daily = np.empty((n, 2, length)), np.empty((n, 3, length)), np.zeros((n, _DAILY, max(days)))
    for i, (seed, own) in enumerate(zip(seeds, days, strict=True)):
        rng = np.random.Generator(np.random.Philox(key=int(seed)))
        normal[i], uniform[i] = rng.standard_normal((2, length)), rng.random((3, length))
        daily[i, :, :own] = rng.standard_normal((_DAILY, own))
    for i, group in enumerate(shared):
        if group is not None:
            rng = np.random.Generator(np.random.Philox(key=[group, 1]))
            for part in (normal[i, 0], daily[i, 0, : days[i]], daily[i, 2, : days[i]]):
                part[:] = np.sqrt(1 - _COMMON**2) * part + _COMMON * rng.standard_normal(part.shape)
    return Draws(normal, uniform, daily)


def autoregressive(innovations: Values, memory: Values) -> Values:
    """AR(1) of unit variance along the last axis, `memory` of shape (n,), by a scan that doubles its reach."""
    out, power, reach = innovations * np.sqrt(1 - memory**2)[:, None], memory[:, None], 1
    out[:, 0] = innovations[:, 0]
    while reach < out.shape[1]:
        out[:, reach:] += power * out[:, :-reach]
        power, reach = power**2, 2 * reach
    return out


def render(
    kind: Kind,
    recipe: Parameters,
    places: Sequence[Place],
    frequency: str,
    length: int,
    seeds: Sequence[int],
    groups: Sequence[int | None] = (),
) -> Values:
    """The series of recipes of one kind, frequency and length, in the kind's unit and within its bounds.

    What is coarser than an hour is rendered in hours and averaged; prices and volumes are not.

    Parameters
    ----------
    recipe : every parameter of the kind's family, and the ``level``: the mean of loads and volumes, the capacity of
        plants, the first price, in the kind's unit; each of shape (n,).
    groups : seeds of the weather that series share.

    Returns
    -------
    Values of shape (n, length).
    """
    hours = round(STEP_HOURS[frequency]) if kind.family not in ("price", "volume") else 1
    hours, step = (hours, "1h") if hours > 1 else (1, frequency)
    time = side_by_side([clock(start, length * hours, step, *place) for start, *place in places])
    made = _FAMILIES[kind.family](recipe, time, draws(seeds, length * hours, time.day.max(axis=1) + 1, groups))
    level = recipe["level"][:, None]
    values = (level + made if kind.family == "weather" else level * made).clip(kind.low, kind.high)
    return np.asarray(values.reshape(len(values), length, hours).mean(2) if hours > 1 else values)


def rounded(values: Values, resolution: float) -> Values:
    """Values in whole steps of the resolution, to the last digit."""
    decimals = max(0, -int(np.floor(np.log10(resolution) + 1e-9)))
    return np.round(np.round(values / resolution) * resolution, decimals)


def _load(p: Parameters, t: Clock, d: Draws) -> Values:
    """What is consumed: wandering peaks of the day over a base, weekdays, seasons, surprises and lasting changes."""

    def column(name: str) -> Values:
        return p[name][:, None]

    rows = np.arange(len(t.hour))[:, None]
    weekend = t.weekday >= 5
    hour = t.hour - (column("jitter") * d.daily[:, 0])[rows, t.day]
    peaks = np.zeros_like(hour)
    for place, name in enumerate(_PEAKS):
        late = column("weekend_late") * weekend if name == "morning" else 0
        away = (hour - column(f"{name}_hour") - late + 12) % 24 - 12
        width = column("width") * np.where(away < 0, 1 - column("asymmetry"), 1 + column("asymmetry"))
        height = np.exp((column("drift") * autoregressive(d.daily[:, 4 + place], p["drift_memory"]))[rows, t.day])
        if name == "midday":
            height = height * np.where(weekend, column("weekend_midday"), 1)
        peaks += column(name) * height * np.exp(-0.5 * (away / width) ** 2)
    mean = sum(p[name] for name in _PEAKS) * p["width"] * np.sqrt(2 * np.pi) / 24
    peaks /= np.maximum(mean, 1e-9)[:, None]
    absent = d.daily[:, 3] < _normal_quantile(p["absent"])[:, None]
    shape = column("base") + (1 - column("base")) * peaks * ~absent[rows, t.day]
    level = np.exp((column("day_sd") * autoregressive(d.daily[:, 2], p["day_memory"]))[rows, t.day])
    level *= np.where(weekend, column("weekend"), 1) * (1 + column("yearly") * _season(t, p["yearly_month"]))
    level *= 1 + column("trend") * np.arange(hour.shape[1]) / (365 * t.per_day)
    changed = d.uniform[:, 0] < column("shifts") / (30 * t.per_day)
    steps = changed * _normal_quantile(d.uniform[:, 2]) * column("shift_size")
    level *= np.exp(np.cumsum(steps, axis=1).clip(-1.5, 1.5))
    values = level * shape
    lasting = autoregressive(d.normal[:, 0], p["noise_memory"] ** (24 / t.per_day))
    lasting = _again(lasting, p["again"], round(t.per_day))
    surprise = np.sqrt(1 - column("rough")) * lasting + np.sqrt(column("rough")) * d.normal[:, 1]
    skew = np.maximum(column("skew"), 0.01)
    surprise = (np.exp(skew * surprise) - np.exp(skew**2 / 2)) / (np.exp(skew**2) * skew)
    values = values + column("noise") * np.maximum(values, 1e-9) ** column("noise_power") * surprise
    burst = d.uniform[:, 1] < column("bursts") / t.per_day
    values += burst * column("burst_size") * -np.log(d.uniform[:, 2].clip(1e-9))
    return np.asarray(np.round(np.maximum(values, 0) * column("steps")) / column("steps"))


def _again(noise: Values, memory: Values, day: int) -> Values:
    """Noise that partly comes again at the same time of the next day, as habits do; its variance stays."""
    n, length = noise.shape
    days = np.pad(noise, ((0, 0), (0, -length % day))).reshape(n, -1, day)
    for i in range(1, days.shape[1]):
        days[:, i] = memory[:, None] * days[:, i - 1] + np.sqrt(1 - memory**2)[:, None] * days[:, i]
    return np.asarray(days.reshape(n, -1)[:, :length])


def _solar(p: Parameters, t: Clock, d: Draws) -> Values:
    """What a plant gives: the sun's height by latitude and date, clouds of the day and within it; nothing at night."""
    declination = np.deg2rad(23.45) * np.sin(2 * np.pi * (284 + t.yearday) / 365.25)
    latitude = np.deg2rad(t.latitude)
    angle = np.deg2rad(15 * (t.hour + 12 / t.per_day - 12.5))
    height = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(angle)
    clear = np.where(height > 0, height * np.exp(-0.14 / np.maximum(height, 0.02)), 0) * 1.15  # Haurwitz' clear sky
    rows = np.arange(len(t.hour))[:, None]
    daily = autoregressive(d.daily[:, 0], p["cloud_days"])[rows, t.day]
    within = autoregressive(d.normal[:, 0], np.full(len(rows), 0.85) ** (24 / t.per_day))
    clouds = p["clouds"].clip(1e-6, 1 - 1e-6)
    odds = np.log(clouds / (1 - clouds))[:, None] + 1.2 * daily + p["flicker"][:, None] * within
    return np.asarray(clear * (1 - p["loss"])[:, None] * (1 - 0.85 / (1 + np.exp(-odds))))


def _wind(p: Parameters, t: Clock, d: Draws) -> Values:
    """What a wind farm gives: Weibull speeds that last, a cubic power curve from 3 m/s to the rated 12, shut at 25."""
    from scipy.special import gamma, ndtr

    u = np.asarray(ndtr(autoregressive(d.normal[:, 0], p["memory"] ** (24 / t.per_day)))).clip(1e-9, 1 - 1e-9)
    shape = p["weibull"][:, None]
    speed = p["speed"][:, None] / gamma(1 + 1 / shape) * (-np.log(1 - u)) ** (1 / shape)
    by_day = p["daily"][:, None] * np.cos(2 * np.pi * (t.hour - 15) / 24)
    speed *= 1 + by_day + p["yearly"][:, None] * _season(t, np.full(len(u), 1.0))
    given = ((speed**3 - 27) / (1728 - 27)).clip(0, 1)
    return np.where(speed > 25, 0.0, given)


def _weather(p: Parameters, t: Clock, d: Draws) -> Values:
    """What a sensor in the open reads, around its level: the day, the year, fronts and the instrument."""
    by_day = p["daily"][:, None] * np.cos(2 * np.pi * (t.hour - p["daily_hour"][:, None]) / 24)
    by_year = p["yearly"][:, None] * _season(t, np.full(len(t.hour), 7.5))
    memory = np.exp(-1 / (p["front_days"] * t.per_day))
    fronts = p["fronts"][:, None] * autoregressive(d.normal[:, 0], memory)
    return by_day * (t.per_day > 1) + by_year + fronts + p["noise"][:, None] * d.normal[:, 1]


def _price(p: Parameters, t: Clock, d: Draws) -> Values:
    """A price from 1 on: heavy-tailed returns whose unrest clusters (GARCH), and jumps. Always positive."""
    from scipy.special import stdtrit

    n, length = t.hour.shape
    year = 365 * t.per_day
    tails = p["tails"][:, None]
    moves = stdtrit(tails, d.uniform[:, 0].clip(1e-9, 1 - 1e-9)) / np.sqrt(tails / (tails - 2))
    moves = moves.clip(-12, 12)
    usual = (p["volatility"] ** 2) / year
    a, b = p["clustering"], np.maximum(p["persistence"] - p["clustering"], 0)
    returns, variance = np.empty((n, length)), usual.copy()
    for i in range(length):
        returns[:, i] = np.sqrt(variance) * moves[:, i]
        variance = ((1 - a - b) * usual + a * returns[:, i] ** 2 + b * variance).clip(None, 100 * usual)
    jumps = (d.uniform[:, 1] < (p["jumps"] / year)[:, None]) * d.normal[:, 0] * 6 * np.sqrt(usual)[:, None]
    trend = ((p["drift"] - p["volatility"] ** 2 / 2) / year)[:, None]
    path = np.cumsum(returns + jumps + trend, axis=1)
    return np.asarray(np.exp((path - path[:, :1]).clip(-8, 8)))


def _volume(p: Parameters, t: Clock, d: Draws) -> Values:
    """What is traded: log-normal around 1, with memory, the middle of the week and days of news."""
    busy = p["spread"][:, None] * autoregressive(d.normal[:, 0], p["memory"])
    week = 1 + p["weekday"][:, None] * np.cos(2 * np.pi * (t.weekday - 2) / 5) * (t.weekday < 5)
    news = (d.uniform[:, 0] < (p["bursts"] / (365 * t.per_day))[:, None]) * p["burst_size"][:, None]
    return np.asarray(np.exp(busy - p["spread"][:, None] ** 2 / 2) * week * (1 + news))


_FAMILIES = {"load": _load, "solar": _solar, "wind": _wind, "weather": _weather, "price": _price, "volume": _volume}


def _season(t: Clock, month: Values) -> Values:
    """1 in the middle of that month, -1 half a year later."""
    return np.asarray(np.cos(2 * np.pi * (t.yearday / 365.25 - (month[:, None] - 0.5) / 12)))


def _normal_quantile(share: Values) -> Values:
    from scipy.special import ndtri

    return np.asarray(ndtri(share.clip(1e-6, 1 - 1e-6)), dtype=float)


# What is put into a finished series


def _residuals(values: Values, day: int) -> tuple[Values, float]:
    """How far values lie from what their hour and the day's level let expect, and the 95 % quantile of that."""
    if day > 1 and len(values) >= 3 * day:
        whole = len(values) // day * day
        rest = values - np.resize(np.median(values[:whole].reshape(-1, day), axis=0), len(values))
        level = np.median(rest[:whole].reshape(-1, day), axis=1)
        rest -= np.repeat(np.append(level, level[-1]), day)[: len(values)]  # a day begun has the level of the last
    else:
        rest = np.diff(values, prepend=values[:1])
    scale = float(np.quantile(np.abs(rest), 0.95)) if rest.size else 0.0
    return rest, scale if scale > 1e-14 * float(np.abs(values).max()) else 0.0


def with_anomalies(
    values: Values, wanted: Sequence[str], day: int, low: float, high: float, rng: np.random.Generator
) -> tuple[Values, list[dict[str, Any]], int]:
    """The series with the anomalies, each ``{kind, start, length, magnitude, effect}``, and how many found no place.

    Magnitude and effect are in units of the 95 % residual; none lie on each other, and what changes less than
    `LEAST_EFFECT`, or (a stuck sensor and a change of variance apart) lies no further out than the series does anyway,
    is not kept.
    """
    if not wanted:
        return values, [], 0
    rest, scale = _residuals(values, day)
    usual, changed = float(np.quantile(np.abs(rest), _USUAL)), values.copy()
    taken, found = np.zeros(len(values), dtype=bool), list[dict[str, Any]]()
    for kind in wanted:
        for _ in range(_TRIES if scale else 0):
            magnitude = float(rng.uniform(5, 9))
            length = min(int(rng.integers(*_POINTS[kind], endpoint=True)), max(1, len(values) // 3))
            start = int(rng.integers(0, len(values) - length + 1))
            part = slice(start, start + length)
            if taken[max(0, start - 2) : start + length + 2].any():
                continue
            spoilt = _spoilt(kind, changed[part], magnitude * scale, low, rng).clip(low, high)
            moved = spoilt - changed[part]
            apart = np.abs(moved) / scale
            effect = float(apart.max()) if kind != "variance_change" else float(np.quantile(apart, 0.9))
            shows = kind in ("stuck", "variance_change") or np.abs(rest[part] + moved).max() > 1.25 * usual
            if effect >= LEAST_EFFECT and shows:
                changed[part], taken[part] = spoilt, True
                mark = {"kind": kind, "start": start, "length": length, "magnitude": round(magnitude, 3)}
                found.append(mark | {"effect": round(effect, 3)})
                break
    return changed, sorted(found, key=lambda mark: mark["start"]), len(wanted) - len(found)


def _spoilt(kind: str, part: Values, size: float, low: float, rng: np.random.Generator) -> Values:
    made: dict[str, Callable[[], Values]] = {
        "spike": lambda: part + size,
        "drop": lambda: part - size,
        "plateau": lambda: np.full(len(part), part.max() + size),
        "drift": lambda: part + size * np.linspace(1 / len(part), 1, len(part)),
        "outage": lambda: np.full(len(part), max(low, 0.0) if np.isfinite(low) else part.min() - size),
        "level_shift": lambda: part + size * rng.choice([-1.0, 1.0]),
        "stuck": lambda: np.full(len(part), part[0]),
        "variance_change": lambda: part + size * rng.standard_normal(len(part)),
    }
    return made[kind]()


def gaps(length: int, share: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Gaps that make up about `share` of a series: many of a point or two, few of days; none lie on each other."""
    left, taken, found = max(1, round(share * length)), np.zeros(length, dtype=bool), list[dict[str, Any]]()
    for _ in range(200):
        if left <= 0 or length < 3:
            break
        size = int(min(left, max(1, round(float(np.exp(rng.normal(0.8, 1.1))))), length // 3))
        start = int(rng.integers(0, length - size + 1))
        if not taken[max(0, start - 1) : start + size + 1].any():
            taken[start : start + size] = True
            left -= size
            found.append({"start": start, "length": size, "cause": _CAUSES[int(rng.integers(len(_CAUSES)))]})
    return sorted(found, key=lambda gap: gap["start"])
