"""The record of domain ``timeseries``: a series, what was put into it, and the recipe it was made by."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from genesis_lab.domains.base import Arrow, Provenance

Frequency = Literal["15min", "30min", "1h", "1D", "1W"]
STEP_HOURS = {"15min": 0.25, "30min": 0.5, "1h": 1.0, "1D": 24.0, "1W": 168.0}
_UNIT_HOURS = {"min": 1 / 60, "T": 1 / 60, "h": 1, "H": 1, "d": 24, "D": 24, "w": 168, "W": 168}
Trend = Literal["none", "upward", "downward", "cyclic"]
Complexity = Literal["simple", "medium", "complex"]
Quality = Literal["clean", "noisy", "missing_values"]
Scale = Literal["physical", "standardised"]
AnomalyKind = Literal["spike", "drop", "plateau", "drift", "outage", "level_shift", "stuck", "variance_change"]
ANOMALIES: tuple[str, ...] = get_args(AnomalyKind)
Count = Annotated[int, Arrow("int32"), Field(ge=0)]


def frequency_of(spelling: str) -> str:
    """Our name of a frequency that others write ``1H``, ``15T`` or ``W-SUN``; of one we don't have, theirs."""
    told = re.fullmatch(r"(\d*)([a-zA-Z]+)(-[A-Z]{3})?", spelling)
    hours = int(told[1] or 1) * _UNIT_HOURS.get(told[2], 0) if told else 0
    return next((name for name, step in STEP_HOURS.items() if step == hours), spelling)


class Anomaly(BaseModel):
    """Something that should not be there; magnitude and effect in 95 % residuals of the series."""

    model_config = ConfigDict(extra="forbid")

    kind: AnomalyKind
    start: Count
    length: Count
    magnitude: float
    effect: float


class Gap(BaseModel):
    """Points that were not measured."""

    model_config = ConfigDict(extra="forbid")

    start: Count
    length: Count
    cause: str


class Series(BaseModel):
    """One series. `target` holds None where nothing was measured; never NaN."""

    model_config = ConfigDict(extra="forbid")

    series_id: str
    sector: str
    series_type: str
    frequency: Frequency
    length: Count
    start: str
    """The first stamp in UTC, ISO 8601."""
    timezone: str
    country: str
    latitude: float | None = None
    target: list[float | None]
    unit: str
    resolution: float
    scale: Scale
    language: Literal["en", "es"]
    complexity: Complexity
    data_quality: list[Quality]
    seasonality_types: list[str]
    trend_type: Trend
    anomaly_count: Count = 0
    anomalies: list[Anomaly]
    anomalies_refused: Count = 0
    """Anomalies that were asked for and found no place where they would show."""
    missing: list[Gap]
    group_id: str | None = None
    context: str
    description: str
    recipe: str
    """What the teacher wrote, as JSON; empty for imported series."""
    renderer_version: str
    seed: int
    provenance: Provenance

    @model_validator(mode="after")
    def _hangs_together(self) -> Series:
        if self.length != len(self.target):
            raise ValueError(f"length is {self.length}, but there are {len(self.target)} values")
        return self
