"""What a quality report is made of: parts, scores, and the records that something is wrong with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from genesis_lab.stats import proportion_interval


@dataclass(frozen=True)
class Offence:
    """One record that a check found something wrong with."""

    row: int
    """Place in the dataset, from 0 (ids may be missing or repeated)."""
    record_id: str | None
    reason: str


@dataclass(frozen=True)
class Part:
    """One measurement of a score.

    Parameters
    ----------
    value : in [0, 1], 1 is best; None when it can't be measured, and then `reason` says why.
    n : how many `unit` (records, turns, texts of the sample …) the value rests on.
    meaning : what the value is, with the source of its formula.
    interval : 95 % interval where the value is a proportion or an AUC: how much another dataset of this size, made
        the same way, might differ.
    failed : how many of the n are wrong; `offences` names the first of them.
    detail : further figures that are shown but not part of the value.
    """

    name: str
    value: float | None
    n: int
    unit: str
    meaning: str
    interval: tuple[float, float] | None = None
    failed: int | None = None
    offences: tuple[Offence, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class Score:
    """The mean of the parts that could be measured, in [0, 1]; None when none could."""

    name: str
    value: float | None
    n: int
    parts: tuple[Part, ...]
    reason: str | None = None

    def part(self, name: str) -> Part:
        """The part of that name."""
        return next(part for part in self.parts if part.name == name)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)


def share(name: str, checked: int, failed: int, unit: str, meaning: str, *, empty: str, **more: Any) -> Part:
    """A part whose value is the share of `checked` that did not fail; `empty` is the reason when nothing was."""
    if not checked:
        return unmeasured(name, unit, meaning, empty)
    low, high = proportion_interval(checked - failed, checked)
    return Part(name, (checked - failed) / checked, checked, unit, meaning, (low, high), failed, **more)


def unmeasured(name: str, unit: str, meaning: str, reason: str, **more: Any) -> Part:
    """A part without a value, and why."""
    return Part(name, None, 0, unit, meaning, reason=reason, **more)


def mean_score(name: str, n: int, parts: Sequence[Part], *, reason: str | None = None) -> Score:
    """The score of these parts; None when `reason` is given or no part could be measured."""
    values = [part.value for part in parts if part.value is not None]
    if reason is None and not values:
        reasons = sorted({part.reason for part in parts if part.reason})
        reason = reasons[0] if len(reasons) == 1 else "none of its parts could be measured"
    value = None if reason or not values else float(sum(values) / len(values))
    return Score(name, value, n, tuple(parts), reason)
