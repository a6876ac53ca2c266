"""What a bias check found: each attribute against its target, what goes together, who appears, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from genesis_lab.errors import InvalidInput
from genesis_lab.stats import Interval

Severity = Literal["none", "low", "medium", "high"]
SEVERITIES: tuple[Severity, ...] = ("none", "low", "medium", "high")
Subject = Literal["target", "coverage", "association", "appearance"]


def listed(values: Sequence[str], most: int = 4) -> str:
    """The first few values, and how many more there are."""
    return ", ".join(values[:most]) + f" and {len(values) - most:,} more" * (len(values) > most)


@dataclass(frozen=True)
class Thresholds:
    """From which effect, on the scale of Cohen's w, a finding is low, medium and high; the defaults are Cohen's small,
    medium and large (1988, section 7.2.3). `alpha` is the adjusted p-value from which a difference may be chance.
    """

    low: float = 0.1
    medium: float = 0.3
    high: float = 0.5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.medium <= self.high:
            raise InvalidInput(
                f"Thresholds must rise from above 0, got low {self.low:g}, medium {self.medium:g}, high {self.high:g}."
            )
        if not 0 < self.alpha < 1:
            raise InvalidInput(f"alpha must lie between 0 and 1, got {self.alpha:g}.")

    def severity(self, effect: float, p: float | None = None) -> Severity:
        """How severe an effect is; none when its adjusted `p` says that it may be chance."""
        if effect < self.low or (p is not None and p >= self.alpha):
            return "none"
        return "low" if effect < self.medium else "medium" if effect < self.high else "high"


@dataclass(frozen=True)
class Addition:
    """So many records to generate, with these values; their other attributes as planned."""

    records: int
    values: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.records:,} more {'/'.join(self.values.values())}"


@dataclass(frozen=True)
class Fit:
    """One attribute against its target.

    `observed` counts every value; `intervals` are 95 % intervals of the shares (Wilson); `missing` records have none;
    `unplanned` values have no place in the target. `w` is corrected for chance and taken over the planned values,
    `total_variation` is the share of records that would have to be of another value.
    """

    attribute: str
    n: int
    missing: int
    target: dict[str, float]
    observed: dict[str, int]
    intervals: dict[str, tuple[float, float]]
    unplanned: dict[str, int]
    w: Interval
    total_variation: float
    test: str
    p: float
    p_holm: float
    severity: Severity

    @property
    def shares(self) -> dict[str, float]:
        """Observed share of each value."""
        return {value: count / self.n for value, count in self.observed.items()}

    @property
    def differences(self) -> dict[str, float]:
        """Observed less expected records of each planned value."""
        return {value: self.observed.get(value, 0) - share * self.n for value, share in self.target.items()}


@dataclass(frozen=True)
class Cell:
    """One combination of two attributes: records counted, and expected if the two had nothing to do with each other."""

    values: tuple[str, str]
    observed: int
    expected: float


@dataclass(frozen=True)
class Association:
    """Two attributes that should not go together, over the `n` records that have both.

    `within` is the language it was measured in, None for all; `v` is the bias-corrected Cramér's V and `w` the same on
    Cohen's scale; `cells` are the combinations furthest from what independence would give; `allowed`: may go together.
    """

    attributes: tuple[str, str]
    within: str | None
    n: int
    v: Interval
    w: float
    test: str
    p: float
    p_holm: float
    severity: Severity
    cells: tuple[Cell, ...]
    allowed: bool = False


@dataclass(frozen=True)
class Coverage:
    """Every planned intent × language: `missing` cells have no record, `thin` ones less than half of their share."""

    planned: int
    covered: Interval
    missing: tuple[tuple[str, str], ...]
    thin: tuple[tuple[str, str, int], ...]
    severity: Severity


@dataclass(frozen=True)
class Appearance:
    """Who or where the conversations of one language mention.

    `groups` counts the `n` conversations that mention one group only, and under ``several`` those with more;
    `words` are the words they mention most, by group. `parity`: share of the female group among female and male, with
    its p-value; None for what has no two genders.
    """

    kind: str
    language: str | None
    records: int
    n: int
    groups: dict[str, int]
    words: dict[str, dict[str, int]]
    parity: Interval | None
    p: float | None
    p_holm: float | None
    severity: Severity
    differences: tuple[Association, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, in a sentence, and what to do about it.

    `effect` is on the scale of Cohen's w; `interval` is that of `measure`, in its own units. `additions` are the
    records that the recommendation names.
    """

    subject: Subject
    name: str
    severity: Severity
    effect: float
    measure: str
    interval: Interval
    n: int
    sentence: str
    recommendation: str = ""
    additions: tuple[Addition, ...] = ()


@dataclass(frozen=True)
class BiasReport:
    """What a bias check found. `findings` come worst first; `not_measured` maps what has no value to the reason.
    `severity` is that of the worst finding, None (and the reason under ``severity``) where nothing could be checked.

    `additions` are the records to add in all, which serve every finding at once. `config` are the options of the
    dataset's plan (the domain's own, where there was none), from which a follow-up starts.
    """

    records: int
    severity: Severity | None
    findings: tuple[Finding, ...]
    fits: tuple[Fit, ...]
    coverage: Coverage | None
    associations: tuple[Association, ...]
    appearances: tuple[Appearance, ...]
    thresholds: Thresholds
    unreadable_columns: dict[str, str]
    not_measured: dict[str, str]
    additions: tuple[Addition, ...]
    config: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)
