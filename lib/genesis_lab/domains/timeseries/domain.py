"""Domain ``timeseries``: a model (or the priors) writes a recipe, NumPy renders it."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.base import Answer, Check, Domain, Facets, Prompt, Provenance, Spec, Target
from genesis_lab.domains.language import detect
from genesis_lab.domains.reading import object_schema, read_json
from genesis_lab.domains.timeseries import record as r
from genesis_lab.domains.timeseries.checks import checks
from genesis_lab.domains.timeseries.hourly import Hours, hourly
from genesis_lab.domains.timeseries.kinds import (
    Kind,
    Moves,
    drawn,
    families,
    kinds,
    known_moves,
    level_of,
    shipped_priors,
)
from genesis_lab.domains.timeseries.marks import gaps, with_anomalies
from genesis_lab.domains.timeseries.options import WORDS, TimeseriesConfig, make_specs, targets
from genesis_lab.domains.timeseries.reader import SeriesReader
from genesis_lab.domains.timeseries.realism import realism
from genesis_lab.domains.timeseries.render import (
    RENDERER_VERSION,
    STEP_HOURS,
    Clock,
    clock,
    draws,
    render,
    rounded,
    side_by_side,
    stamps_of,
)
from genesis_lab.domains.timeseries.tables import laid_out
from genesis_lab.errors import InvalidInput, ParseFailure, instead
from genesis_lab.files import digest, resolve
from genesis_lab.yamls import file_digests, shipped

Values = NDArray[np.float64]
_RISE = {"none": 0.0, "upward": 0.35, "downward": -0.3, "cyclic": 0.25}
_NOISY = 0.2


class Timeseries(Domain):
    """The `Domain` of measured series."""

    name = "timeseries"
    facets = Facets(
        unit="series",
        id="series_id",
        label=None,
        group="group_id",
        text=None,
        language="language",
        attributes=("series_type", "sector", "frequency", "language", "trend_type", "anomaly_count", "country"),
        derived={"sector": "series_type"},
        covered=(("series_type", "language"),),
        preview="series",
        worth="forecast",
        lacking=dict.fromkeys(("latitude", "group_id", "anomalies", "missing", "seasonality_types", "recipe"), "true"),
        task_categories=("time-series-forecasting",),
        aliases={"series_id": "item_id", "target": "values"},
    )
    record_type = r.Series
    config_type = TimeseriesConfig
    config: TimeseriesConfig

    @cached_property
    def kinds(self) -> dict[str, Kind]:
        """The kinds that were chosen."""
        known, chosen = kinds(self.config.kinds), self.config.series_types
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise InvalidInput(f"Unknown series type {unknown[0]!r}: {instead(unknown[0], known)}")
        return {name: kind for name, kind in known.items() if not chosen or name in chosen}

    def knowledge(self) -> dict[str, str]:
        """Digests of what ships, and of a user's own kinds and priors."""
        c = self.config
        own = {"kinds": c.kinds, "priors": "" if shipped_priors(c.priors) else c.priors}
        return file_digests(*Path(__file__).parent.glob("*.yaml")) | {
            name: digest(resolve(source)) for name, source in own.items() if source
        }

    @cached_property
    def moves(self) -> dict[str, Moves]:
        """How the priors of offline recipes are moved, by kind."""
        return known_moves(self.config.priors, self.kinds)

    def targets(self) -> Sequence[Target]:
        """Shares of type, sector, frequency, language, trend, anomalies and country."""
        return [target for target in targets(self.config, self.kinds) if target.name in self.facets.attributes]

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        return make_specs(self.config, self.kinds, total, seed)

    def checks(self) -> Sequence[Check]:
        """What may be wrong with a series."""
        return checks(kinds(self.config.kinds))

    def reader(self, field_map: Mapping[str, str], taxonomy: Any = None) -> SeriesReader:
        """Series as others keep them: GluonTS and Hugging Face names, values as a list."""
        return SeriesReader(tuple(r.Series.model_fields), self.facets.aliases, field_map)

    def cells(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Lists as JSON."""
        return {name: json.dumps(value) if isinstance(value, list | dict) else value for name, value in record.items()}

    def table(self, records: Iterable[Mapping[str, Any]], form: str) -> tuple[list[str], Iterable[list[Any]]]:
        return laid_out(records, form)

    def realism(self, records: Iterable[Any], real: Iterable[Any], seed: int) -> dict[str, Any]:
        """By hours, of which both sides need a week; `InvalidInput` where they have not."""
        made, theirs = (hourly(each, 500, 168).filled() for each in (records, real))
        if not len(made) or not len(theirs):
            got = f"there are {len(made)} and {len(theirs)}"
            raise InvalidInput(f"Realism needs series of 168 hours or more on both sides, most of them measured: {got}")
        return realism(made, theirs, seed=seed)

    def lessons(self, records: Iterable[Mapping[str, Any]], length: int, fewest: int) -> Hours:
        return hourly(records, length, fewest)

    # The recipe

    def schema(self, kind: Kind) -> dict[str, Any]:
        """JSON schema of a recipe of this kind."""
        text = {"type": "string", "minLength": 10, "maxLength": 400}
        if self.config.mode == "direct":
            many = {"minItems": self.config.length, "maxItems": self.config.length}
            values = {"type": "array", "items": {"type": "number"}, **many}
            return object_schema({"context": text, "description": text, "values": values})
        numbers = {
            name: {"type": "number", "minimum": p.low, "maximum": p.high} for name, p in families()[kind.family].items()
        }
        return object_schema({"context": text, "description": text, "level": {"type": "number"}, **numbers})

    def prompt(self, spec: Spec) -> Prompt:
        a, kind = spec.attributes, self.kinds[spec.attributes["series_type"]]
        words, language = shipped(WORDS)[a["language"]], a["language"]
        said = "\n".join(f"{name}: {p.means}, {p.low:g} to {p.high:g}." for name, p in families()[kind.family].items())
        direct = self.config.mode == "direct"  # the program adds the trend to what is written
        task = words["direct" if direct else "task"].format(
            kind=getattr(kind, language), place=shipped(WORDS)["places"][a["country"]][language], frequency=a["frequency"],
            length=a["length"], start=self.config.start[:10], trend=words["trend"][a["trend_type"]], unit=kind.unit,
            low=kind.level[0], high=kind.level[1], level=words["level"][kind.family], parameters=said, number=spec.ordinal + 1,
            least=f"{kind.low:g}", most=f"{kind.high:g}", resolution=kind.resolution,
        )  # fmt: skip
        return Prompt(words["direct_system" if direct else "system"], (("user", task),), self.schema(kind), "recipe")

    def offline_text(self, spec: Spec, attempt: int) -> str:
        """A recipe drawn from the priors; in mode direct its values."""
        a, kind = spec.attributes, self.kinds[spec.attributes["series_type"]]
        rng = np.random.Generator(np.random.Philox(key=[spec.seed, attempt + 1]))
        z = rng.standard_normal((1, len(families()[kind.family]) + 2))
        values = drawn(kind, z[:, 1:], self.moves.get(a["series_type"], {}))
        words, language = shipped(WORDS)[a["language"]], a["language"]
        said = {"kind": getattr(kind, language), "place": shipped(WORDS)["places"][a["country"]][language]}
        said["trend"] = words["trend"][a["trend_type"]]
        texts = {"context": words["context"].format(**said), "description": words["offline"].format(**said)}
        numbers = {"level": level_of(kind, z[:, 0])} | values
        recipe = {name: _short(value[0]) for name, value in numbers.items()}
        if self.config.mode == "direct":
            recipe = {"values": rounded(self._alone(kind, recipe, spec), kind.resolution).tolist()}
        return json.dumps(texts | recipe, ensure_ascii=False)

    def answer_characters(self, spec: Spec) -> int:
        return len(self.offline_text(spec, 0))

    def parse(self, text: str, spec: Spec) -> Answer:
        """The recipe in a model's answer; raises `ParseFailure` with what is missing, out of bounds or contradictory."""
        kind = self.kinds[spec.attributes["series_type"]]
        sent = read_json(text, self.schema(kind))
        reasons, answer = [], {}
        meant = (None, spec.attributes["language"])  # one sentence may be too short to be told, both are not
        for name in ("context", "description"):
            answer[name] = str(sent[name]).strip()
            if not 10 <= len(answer[name]) <= 400:
                reasons.append(f"{name} has {len(answer[name])} characters, 10 to 400 are asked for")
            elif (found := detect(answer[name])) not in meant and detect(
                f"{sent['context']} {sent['description']}"
            ) not in meant:
                reasons.append(f"{name} must be in {spec.attributes['language']!r}, it reads as {found!r}")
        if self.config.mode == "direct":
            return self._written(sent["values"], kind, spec, answer, reasons)
        low, high = kind.level
        bounds = {"level": (low / 20 if low > 0 else low - (high - low), high * 20 if low > 0 else high + (high - low))}
        bounds |= {name: (p.low, p.high) for name, p in families()[kind.family].items()}
        for name, (least, most) in bounds.items():
            value = sent[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                reasons.append(f"{name} must be a number, got {str(value)[:40]!r}")
            elif not least <= value <= most:
                reasons.append(f"{name} must be between {least:g} and {most:g}, got {value:g}")
            answer[name] = value
        if not reasons and kind.family == "load" and not answer["morning"] + answer["midday"] + answer["evening"]:
            reasons.append("a load needs a peak: morning, midday and evening are all 0")
        if not reasons and kind.family == "price" and answer["persistence"] <= answer["clustering"]:
            reasons.append("persistence must be more than clustering")
        if reasons:
            raise ParseFailure(*reasons[:5])
        return answer

    def fingerprint(self, answer: Answer, spec: Spec) -> str:
        """The numbers of the recipe."""
        numbers = {name: value for name, value in answer.items() if not isinstance(value, str)}
        return f"{spec.attributes['series_type']}/{json.dumps(numbers, sort_keys=True)}"

    def _written(self, sent: list[Any], kind: Kind, spec: Spec, answer: Answer, reasons: list[str]) -> Answer:
        """Values that a model wrote itself."""
        wanted = spec.attributes["length"]
        if len(sent) != wanted:
            reasons.append(f"values must be a list of {wanted} numbers, got {len(sent)} of them")
        else:
            numbers = [v for v in sent if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
            wrong = [value for value in numbers if not kind.low <= value <= kind.high]
            if len(numbers) < wanted:
                reasons.append(f"{wanted - len(numbers)} of the values are no finite numbers")
            if wrong:
                reasons.append(f"values must be between {kind.low:g} and {kind.high:g} {kind.unit}, got {wrong[0]:g}")
        if reasons:
            raise ParseFailure(*reasons[:5])
        return answer | {"values": sent}

    # The series

    def values(
        self,
        kind: Kind,
        recipes: Sequence[Answer],
        seeds: Sequence[int],
        time: Sequence[Any],
        frequency: str,
        length: int,
        groups: Sequence[int | None] = (),
    ) -> Values:
        """The series of recipes of one kind, frequency and length, shape (n, length), before anything is put into them.

        `time` gives for each series start, time zone, country and latitude; `groups` seeds of the weather they share. What is coarser than an hour is rendered in
        hours and averaged; prices and volumes are not.
        """
        hours = (
            round(STEP_HOURS[frequency]) if STEP_HOURS[frequency] > 1 and kind.family not in ("price", "volume") else 1
        )
        step = "1h" if hours > 1 else frequency
        clocks = [
            clock(start, length * hours, step, zone, country, latitude) for start, zone, country, latitude in time
        ]
        parameters = {name: np.array([float(recipe[name]) for recipe in recipes]) for name in families()[kind.family]}
        level = np.array([float(recipe["level"]) for recipe in recipes])
        at: Clock = side_by_side(clocks)
        made = render(kind, parameters, level, at, step, draws(seeds, length * hours, int(at.day.max()) + 1, groups))
        return made.reshape(len(made), length, hours).mean(2) if hours > 1 else made

    def _time(self, spec: Spec) -> tuple[str, str, str, float]:
        place = shipped(WORDS)["places"][spec.attributes["country"]]
        return self.config.start, place["timezone"], spec.attributes["country"], place["latitude"]

    def _alone(self, kind: Kind, recipe: Answer, spec: Spec) -> Values:
        """The series of one recipe."""
        group = spec.attributes.get("group")
        shared = None if group is None else zlib.crc32(f"{self.config.seed}/{group}".encode())
        a = spec.attributes
        made = self.values(kind, [recipe], [spec.seed], [self._time(spec)], a["frequency"], a["length"], [shared])
        return np.asarray(made[0])

    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> r.Series:
        a, kind = spec.attributes, self.kinds[spec.attributes["series_type"]]
        length, frequency, time = a["length"], a["frequency"], self._time(spec)
        values = np.array(answer["values"], dtype=float) if "values" in answer else self._alone(kind, answer, spec)
        rng = np.random.Generator(np.random.Philox(key=[spec.seed, 2**20]))
        values = self._spoilt(values, kind, a, rng)
        day = max(1, round(24 / STEP_HOURS[frequency]))
        wanted = [name for name in a["anomalies"].split(",") if name]
        values, marks, refused = with_anomalies(values, wanted, day, kind.low, kind.high, rng)
        values = rounded(values, kind.resolution)
        facts = self._facts(values, marks, kind, a, time)
        if self.config.scale == "standardised":
            values = np.round((values - values.mean()) / (values.std() or 1.0), 6)
        missing = gaps(length, float(rng.uniform(0.01, 0.08)), rng) if a["quality"] == "missing_values" else []
        target: list[float | None] = values.tolist()
        for gap in missing:
            target[gap["start"] : gap["start"] + gap["length"]] = [None] * gap["length"]
        burdens = (a["trend_type"] != "none") + (a["anomaly_count"] > 0) + (a["quality"] != "clean")
        recipe = json.dumps(answer, ensure_ascii=False, sort_keys=True)
        return r.Series(
            series_id="series_" + hashlib.sha256(f"{spec.seed}{recipe}".encode()).hexdigest()[:16],
            sector=a["sector"], series_type=a["series_type"], frequency=frequency, length=length,
            start=stamps_of(self.config.start, 1, frequency)[0].isoformat(), timezone=time[1], country=a["country"],
            latitude=time[3], group_id=a.get("group"), target=target, unit=kind.unit, resolution=kind.resolution, scale=self.config.scale,
            language=a["language"], complexity=("simple", "medium", "complex")[min(burdens, 2)], data_quality=[a["quality"]],
            seasonality_types=list(kind.seasonality), trend_type=a["trend_type"], anomaly_count=len(marks), anomalies=marks,
            anomalies_refused=refused, missing=missing, context=answer["context"],
            description=f"{answer['description']} {facts}", recipe=recipe, renderer_version=RENDERER_VERSION, seed=spec.seed,
            provenance=provenance,
        )  # fmt: skip

    def _spoilt(self, values: Values, kind: Kind, a: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """With the planned trend, and noisy where that was planned; weather and prices are moved by their own spread, the rest is scaled."""
        t = np.linspace(0, 1, len(values))
        rise = _RISE[a["trend_type"]] * (np.sin(2 * np.pi * 1.5 * t) if a["trend_type"] == "cyclic" else t)
        noise = _NOISY * rng.standard_normal(len(values)) if a["quality"] == "noisy" else 0.0
        spread = float(values.std())
        moved = (
            values + spread * (3 * rise + noise)
            if kind.family in ("weather", "price")
            else values * (1 + rise) * (1 + noise)
        )
        return np.asarray(moved).clip(kind.low, kind.high)

    def _facts(
        self, values: Values, marks: Iterable[Mapping[str, Any]], kind: Kind, a: Mapping[str, Any], time: Any
    ) -> str:
        """What can be seen in the series, measured, in the record's language."""
        words, start, zone = shipped(WORDS)[a["language"]], time[0], time[1]
        short = {
            name: f"{value:.6g}"
            for name, value in (("low", values.min()), ("high", values.max()), ("mean", values.mean()))
        }
        said = [words["facts"].format(unit=kind.unit, **short)]
        stamps = stamps_of(start, len(values), a["frequency"]).tz_convert(zone)
        if STEP_HOURS[a["frequency"]] <= 1 and "daily" in kind.seasonality and len(values) >= 48:
            hours = np.asarray(stamps.hour)
            said.append(words["peak"].format(hour=int(np.argmax([values[hours == h].mean() for h in range(24)]))))
        named = [words["at"].format(kind=words["anomaly"][m["kind"]], date=stamps[m["start"]].date()) for m in marks]
        return " ".join(said + ([words["marks"].format(marks=", ".join(named))] if named else []))


def _short(value: float) -> float:
    return float(f"{value:.5g}")
