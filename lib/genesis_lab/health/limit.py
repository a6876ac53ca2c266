"""From calls that were let in or refused to the limit that explains them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.5
"""How far facts may be on the wrong side of a line that is nearly as good as the best, in sizes of the calls, all in all."""

Fact = tuple[float, float, float, bool]
"""One call: its time in seconds, what had been taken out of the bucket before, its size, whether it was refused."""


@dataclass(frozen=True)
class Limit:
    """A limit per minute, and the range that explains the calls nearly as well; `high` is infinite where none was reached."""

    per_minute: float
    low: float
    high: float
    how: str

    @property
    def rounded(self) -> int:
        """The roundest whole number in the interval, as quotas are round; without one, three figures, downwards."""
        size = math.floor(math.log10(max(self.per_minute, 1.0)))
        for figures in (1, 2, 3):
            value = round(self.per_minute, figures - 1 - size)
            if self.low <= value <= self.high and value == int(value):
                return int(value)
        unit = int(10 ** max(0, size - 2))
        return int(self.per_minute // unit) * unit


def fitted(facts: Sequence[Fact]) -> Limit | None:
    """The limit that agrees with the facts, or None if they say nothing.

    The line is found by linear programming: as little as possible on the wrong side of it, all in all. Of the kinds of
    bucket the first that does nearly as well is taken: one that holds a minute's worth, one that is filled anew every
    minute, any other.
    """
    kinds = {
        "a minute's worth of it at once": (1.0, -60.0),
        "counted anew every minute": (0.0, 1.0),
        "": None,
    }
    if not any(refused for *_, refused in facts):
        return None
    loose, _, _ = _line(facts, None)
    for how, kind in kinds.items():
        off, low, high = _line(facts, kind, loose + TOLERANCE)
        if off > loose + TOLERANCE:
            continue
        by_level = how.startswith("counted")
        ends = sorted(60 * rate if not by_level else held for held, rate in (low, high))
        value = sum(ends) / 2 if ends[1] < 1.5 * ends[0] else ends[0]  # rather too low than too high
        if value <= 0:
            return None
        held = (low[0] + high[0]) / 2
        return Limit(value, ends[0], ends[1], how or f"{60 * held / value:.0f} s of it at once")
    return None


Point = tuple[float, float]


def _line(facts: Sequence[Fact], kind: Point | None, allowed: float | None = None) -> tuple[float, Point, Point]:
    """How far facts are on the wrong side of the best line, and the lines ``(held, rate)`` of lowest and highest rate.

    Parameters
    ----------
    kind : ``a, b`` of a condition ``a × held + b × rate = 0`` on the line.
    allowed : how far they may be for the lowest and highest; None: those are not looked for.
    """
    from scipy.optimize import linprog

    t, taken, size, refused = (np.array(column, dtype=float) for column in zip(*facts, strict=True))
    sign = np.where(refused > 0, 1.0, -1.0)  # refused: held + rate × t ≤ taken + size
    n, unit = len(t), float(taken.max() + size.min())
    rows = np.hstack([sign[:, None], (sign * t)[:, None], -np.diag(size / unit)])
    right = sign * (taken + size) / unit
    equal = {} if kind is None else {"A_eq": [[*kind, *np.zeros(n)]], "b_eq": [0.0]}
    total = np.array([0.0, 0.0, *np.ones(n)])
    best = linprog(total, A_ub=rows, b_ub=right, bounds=(0, None), **equal)
    if allowed is None or best.fun > allowed:
        return float(best.fun), (0.0, 0.0), (0.0, 0.0)
    ends = []
    goal = np.zeros(n + 2)
    goal[0 if kind == (0.0, 1.0) else 1] = 1.0
    for direction in (1.0, -1.0):
        found = linprog(
            direction * goal,
            A_ub=np.vstack([rows, total]),
            b_ub=np.append(right, allowed),
            bounds=(0, None),
            **equal,
        )
        ends.append((float(found.x[0] * unit), float(found.x[1] * unit)))
    return float(best.fun), ends[0], ends[1]
