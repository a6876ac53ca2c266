"""What is put into a finished series: anomalies that are labelled only where they show, noise, and gaps as loggers leave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

KINDS = ("spike", "drop", "plateau", "drift", "outage", "level_shift", "stuck", "variance_change")
LEAST_EFFECT = 3.0
"""Residual 95 % quantiles by which an anomaly must change its series to be labelled."""
_TRIES = 30
_LENGTHS: dict[str, tuple[int, int]] = {"spike": (1, 2), "drop": (1, 2), "plateau": (6, 24), "drift": (24, 72), "outage": (4, 24), "level_shift": (48, 120),
            "stuck": (8, 36), "variance_change": (24, 72)}  # fmt: skip
CAUSES = ("communication", "power_cut", "maintenance", "battery")


def residual_scale(values: Values, day: int) -> float:
    """The 95 % quantile of how far values lie from what their place in the day and the values around let expect."""
    length = len(values)
    if day > 1 and length >= 3 * day:
        whole = length // day * day
        days = values[:whole].reshape(-1, day)
        typical = np.median(days, axis=0)
        rest = days - typical - np.median(days - typical, axis=1, keepdims=True)
    else:
        rest = values[1:] - values[:-1]
    scale = float(np.quantile(np.abs(rest), 0.95)) if rest.size else 0.0
    return scale if scale > 1e-14 * float(np.abs(values).max()) else 0.0


def with_anomalies(
    values: Values, wanted: Sequence[str], day: int, low: float, high: float, rng: np.random.Generator
) -> tuple[Values, list[dict[str, Any]], int]:
    """The series with the anomalies, each ``{kind, start, length, magnitude, effect}``, and how many found no place.

    Magnitude and effect are in units of `residual_scale`; none lie on each other, and what changes less than
    `LEAST_EFFECT` is not kept.
    """
    scale, changed = residual_scale(values, day), values.copy()
    taken, found = np.zeros(len(values), dtype=bool), list[dict[str, Any]]()
    for kind in wanted:
        for _ in range(_TRIES if scale else 0):
            magnitude = float(rng.uniform(5, 9))
            length = min(int(rng.integers(_LENGTHS[kind][0], _LENGTHS[kind][1] + 1)), max(1, len(values) // 3))
            start = int(rng.integers(0, len(values) - length + 1))
            span = slice(max(0, start - 2), start + length + 2)
            if taken[span].any():
                continue
            part = _spoilt(kind, changed[start : start + length], magnitude * scale, low, rng).clip(low, high)
            apart = np.abs(part - changed[start : start + length]) / scale
            effect = float(apart.max()) if kind != "variance_change" else float(np.quantile(apart, 0.9))
            if effect >= LEAST_EFFECT:
                changed[start : start + length] = part
                taken[span] = True
                mark = {"kind": kind, "start": start, "length": length, "magnitude": round(magnitude, 3)}
                found.append(mark | {"effect": round(effect, 3)})
                break
    return changed, sorted(found, key=lambda mark: mark["start"]), len(wanted) - len(found)


def _spoilt(kind: str, part: Values, size: float, low: float, rng: np.random.Generator) -> Values:
    if kind == "spike":
        return part + size
    if kind == "drop":
        return part - size
    if kind == "plateau":
        return np.full(len(part), part.max() + size)
    if kind == "drift":
        return part + size * np.linspace(1 / len(part), 1, len(part))
    if kind == "outage":
        return np.full(len(part), max(low, 0.0) if np.isfinite(low) else part.min() - size)
    if kind == "level_shift":
        return np.asarray(part + size * rng.choice([-1.0, 1.0]))
    if kind == "stuck":
        return np.full(len(part), part[0])
    return part + size * rng.standard_normal(len(part))


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
