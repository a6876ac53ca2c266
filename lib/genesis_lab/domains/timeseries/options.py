"""What a user may choose about a set of series, and the exact plan of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genesis_lab.domains.base import Spec, Target
from genesis_lab.domains.quotas import asked_for, checked_shares, largest_remainder, spread, with_total
from genesis_lab.domains.timeseries.kinds import SECTORS, Kind
from genesis_lab.domains.timeseries.record import ANOMALIES, Frequency, Quality, Scale, Trend, frequency_of
from genesis_lab.yamls import shipped

WORDS = Path(__file__).with_name("words.yaml")
Shares = dict[str, Annotated[float, Field(ge=0, le=1)]]
DIRECT = 200
"""Values that a model can write without losing count."""
_ALLOWED: Mapping[str, Sequence[str]] = {
    "frequency_shares": get_args(Frequency),
    "trend_shares": get_args(Trend),
    "quality_shares": get_args(Quality),
    "anomaly_shares": ("0", "1", "2", "3"),
}


class Cell(BaseModel):
    """So many series of these attributes; those that are not given are spread as planned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1)
    series_type: str | None = None
    frequency: str | None = None
    language: str | None = None
    trend_type: str | None = None
    quality: str | None = None
    anomaly_count: int | None = None
    country: str | None = None


class TimeseriesConfig(BaseModel):
    """What a user can choose about a set of series."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total: int = Field(300, ge=1, le=1_000_000, description="series to generate (of cells: theirs)")
    series_types: tuple[str, ...] = Field((), description="kinds of series (none chosen: all 16)")
    kinds: str = Field("", description="path of a YAML file with your own kinds, in the form of types.yaml")
    length: int = Field(500, ge=24, le=8_760, description="points of each series")
    frequency_shares: Shares = Field({"1h": 1.0}, description="share of each frequency: 15min, 30min, 1h, 1D, 1W")
    start: str = Field("2024-01-01", description="first stamp, UTC")
    countries: tuple[str, ...] = Field(("ES", "PT", "FR", "DE"), description="where: local time, holidays and the sun")
    english_share: float = Field(0.5, ge=0, le=1, description="share described in English; the rest in Spanish")
    trend_shares: Shares = Field(
        {"none": 0.7, "upward": 0.1, "downward": 0.1, "cyclic": 0.1}, description="share of each trend"
    )
    quality_shares: Shares = Field(
        {"clean": 0.7, "noisy": 0.1, "missing_values": 0.2}, description="share of each quality of the data"
    )
    anomaly_shares: Shares = Field({"0": 0.7, "1": 0.2, "2": 0.1}, description="share of series with so many anomalies")
    group_size: int = Field(1, ge=1, le=1000, description="series of one place that share their weather (1: none do)")
    mode: Literal["recipe", "direct"] = Field(
        "recipe", description="recipe: a model describes, a program renders; direct: it writes the values (200 at most)"
    )
    scale: Scale = Field("physical", description="physical: in the kind's unit, or standardised: mean 0, spread 1")
    priors: str = Field(
        "",
        description="what offline recipes are drawn from: electricity_clients (loads tuned to public series), "
        "a file of `genesis tune`, or empty: set by hand",
    )
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same plan")
    cells: tuple[Cell, ...] = Field(
        (),
        description="exactly these instead: n of each, by series_type, language …, as a bias check's "
        "follow-up lists them",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_normal_form(cls, given: Any) -> Any:
        return with_total(given, Cell)

    @field_validator("frequency_shares", mode="before")
    @classmethod
    def _spelt(cls, shares: Any) -> Any:
        if isinstance(shares, str):
            shares = {shares: 1.0}
        return {frequency_of(str(each)): n for each, n in shares.items()} if isinstance(shares, dict) else shares

    @field_validator(*_ALLOWED)
    @classmethod
    def _adds_up(cls, shares: dict[str, float], info: Any) -> dict[str, float]:
        return checked_shares(shares, _ALLOWED[info.field_name])

    @model_validator(mode="after")
    def _can_be_written(self) -> TimeseriesConfig:
        if self.mode == "direct" and self.length > DIRECT:
            raise ValueError(f"in mode direct a model writes at most {DIRECT} values, length is {self.length}")
        return self

    @field_validator("start")
    @classmethod
    def _stamp(cls, start: str) -> str:
        import pandas as pd

        try:
            return str(pd.Timestamp(start).isoformat())
        except ValueError:
            raise ValueError(f"{start!r} is no date") from None

    @field_validator("countries")
    @classmethod
    def _known(cls, countries: tuple[str, ...]) -> tuple[str, ...]:
        places = shipped(WORDS)["places"]
        unknown = [country for country in countries if country not in places]
        if unknown or not countries:
            raise ValueError(f"unknown country {(unknown or [''])[0]!r}, expected some of {', '.join(places)}")
        return countries


def type_shares(chosen: Mapping[str, Kind]) -> dict[str, float]:
    """Share of each kind: the sectors' 50, 20, 20 and 10 % among those that are there, within one the kinds' own."""
    of_sector = {sector: [name for name, kind in chosen.items() if kind.sector == sector] for sector in SECTORS}
    whole = sum(SECTORS[sector] for sector, names in of_sector.items() if names)
    within = {sector: sum(chosen[name].share for name in names) for sector, names in of_sector.items()}
    return {name: SECTORS[kind.sector] / whole * kind.share / within[kind.sector] for name, kind in chosen.items()}


def targets(config: TimeseriesConfig, chosen: Mapping[str, Kind]) -> list[Target]:
    """The share of each value of what is planned."""
    shares = type_shares(chosen)
    sectors = {sector: sum(s for name, s in shares.items() if chosen[name].sector == sector) for sector in SECTORS}
    return [
        Target("series_type", shares),
        Target("sector", {sector: share for sector, share in sectors.items() if share}),
        Target("frequency", config.frequency_shares),
        Target("language", {"en": config.english_share, "es": 1 - config.english_share}),
        Target("trend_type", config.trend_shares),
        Target("quality", config.quality_shares),
        Target("anomaly_count", config.anomaly_shares),
        Target("country", dict.fromkeys(config.countries, 1 / len(config.countries))),
    ]


def make_specs(config: TimeseriesConfig, chosen: Mapping[str, Kind], total: int, seed: int) -> list[Spec]:
    """`total` specs whose counts meet every target by largest remainder, spread evenly over each other.

    Where there are cells, exactly those, and what they leave open so.
    """
    rng = np.random.default_rng(seed)
    planned = {target.name: target.shares for target in targets(config, chosen) if target.name != "sector"}
    codes: dict[str, np.ndarray] = {}
    given = asked_for(config.cells, total, planned)
    for name, shares in planned.items():
        over, codes[name], rows = list(codes.values())[:3], given[name], np.flatnonzero(given[name] < 0)
        codes[name][rows] = spread(largest_remainder(shares, len(rows)), [stratum[rows] for stratum in over], rng)
    labels = {name: np.array(list(shares))[codes[name]] for name, shares in planned.items()}
    seeds = rng.integers(2**31, size=total)
    ordinals, places = Counter[str](), Counter[str]()
    specs = []
    for index, at in enumerate(rng.permutation(total)):
        a: dict[str, Any] = {name: str(values[at]) for name, values in labels.items()}
        kind, country = a["series_type"], a["country"]
        anomalies = rng.choice(ANOMALIES, size=int(a.pop("anomaly_count")), replace=False)
        a |= {"sector": chosen[kind].sector, "length": config.length, "anomaly_count": len(anomalies)}
        if config.group_size > 1:
            a["group"] = f"{country}_{places[country] // config.group_size:05d}"
        specs.append(Spec(index, ordinals[kind], int(seeds[at]), a | {"anomalies": ",".join(anomalies)}))
        ordinals[kind] += 1
        places[country] += 1
    return specs
