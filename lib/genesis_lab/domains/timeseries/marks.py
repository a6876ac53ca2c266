"""What is put into a finished series: anomalies that are labelled only where they show, noise, and gaps as loggers leave them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

KINDS = ("spike", "drop", "plateau", "drift", "outage", "level_shift", "stuck", "variance_change")
LEAST_EFFECT = 3.0
"""Residual 95 % quantiles by which an anomaly must change its series to be labelled."""
_USUAL = 0.998
"""Quantile of a series' own residuals beyond which an anomaly must lie."""
_TRIES = 30
_LENGTHS: dict[str, tuple[int, int]] = {"spike": (1, 2), "drop": (1, 2), "plateau": (6, 24), "drift": (24, 72), "outage": (4, 24), "level_shift": (48, 120),
            "stuck": (8, 36), "variance_change": (24, 72)}  # fmt: skip
CAUSES = ("communication", "power_cut", "maintenance", "battery")


def residuals(values: Values, day: int) -> tuple[Values, float]:
    """How far values lie from what their place in the day and the day's level let expect, and the 95 % quantile of that."""
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
    rest, scale = residuals(values, day)
    usual, changed = float(np.quantile(np.abs(rest), _USUAL)), values.copy()
    taken, found = np.zeros(len(values), dtype=bool), list[dict[str, Any]]()
    for kind in wanted:
        for _ in range(_TRIES if scale else 0):
            magnitude = float(rng.uniform(5, 9))
            length = min(int(rng.integers(_LENGTHS[kind][0], _LENGTHS[kind][1] + 1)), max(1, len(values) // 3))
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
            found.append({"start": start, "length": size, "cause": CAUSES[int(rng.integers(len(CAUSES)))]})
    return sorted(found, key=lambda gap: gap["start"])
