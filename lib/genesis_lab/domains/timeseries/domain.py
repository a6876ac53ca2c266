"""Domain ``timeseries``: a model (or the priors) writes a recipe, NumPy renders it."""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.base import Answer, Check, Domain, Facets, Prompt, Provenance, Spec, Target
from genesis_lab.domains.language import detect
from genesis_lab.domains.reading import object_schema, read_json
from genesis_lab.domains.timeseries import record as r
from genesis_lab.domains.timeseries.kinds import Kind, Moves, drawn, families, kinds, known_moves, level_of
from genesis_lab.domains.timeseries.options import WORDS, TimeseriesConfig, make_specs, targets
from genesis_lab.domains.timeseries.realism import realism
from genesis_lab.domains.timeseries.render import (
    LEAST_EFFECT,
    RENDERER_VERSION,
    Place,
    clock,
    gaps,
    render,
    rounded,
    stamps_of,
    with_anomalies,
)
from genesis_lab.domains.timeseries.tables import Hours, SeriesReader, hourly, laid_out
from genesis_lab.errors import InvalidInput, ParseFailure, instead
from genesis_lab.files import digest, resolve
from genesis_lab.yamls import file_digests, shipped

Values = NDArray[np.float64]
_RISE = {"none": 0.0, "upward": 0.35, "downward": -0.3, "cyclic": 0.25}
_NOISY = 0.2
_PERIODS = {"daily": 24, "weekly": 168, "yearly": 8766}
"""Hours; what is not longer than a step cannot be seen."""
_AT_ONCE = 250_000
"""Points that are rendered side by side."""


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
        own = {"kinds": resolve(self.config.kinds), "priors": resolve(self.config.priors)}
        digests = {name: digest(path) for name, path in own.items() if path.is_file()}
        return file_digests(*Path(__file__).parent.glob("*.yaml")) | digests

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
        """What may be wrong with a series, as data in ``checks.yaml``: values that can't be, labels that do not fit."""
        known = kinds(self.config.kinds)
        bounds = [f"WHEN '{name}' THEN {kind.low}::DOUBLE" for name, kind in known.items() if np.isfinite(kind.low)]
        words = {
            "low": f"CASE series_type {' '.join(bounds)} END",
            "types": ", ".join(f"'{name}'" for name in known),
            "least": "list_min(list_filter(target, lambda value: value IS NOT NULL))",
            "marks": "coalesce(len(anomalies), 0)",
            "effect": f"{LEAST_EFFECT:g}",
        }
        found = []
        for name, check in shipped(Path(__file__).with_name("checks.yaml")).items():
            said = {key: value.format(**words) if isinstance(value, str) else value for key, value in check.items()}
            found.append(Check(name, **({"unit": "series", "over": "records"} | said)))
        return found

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
        return {"rows": realism(made, theirs, seed)}

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
        numbers: dict[str, Any] = {"level": {"type": "number"}}
        for name, p in families()[kind.family].items():
            numbers[name] = {"type": "number", "minimum": p.low, "maximum": p.high}
        return object_schema({"context": text, "description": text, **numbers})

    def prompt(self, spec: Spec) -> Prompt:
        a, kind, words = spec.attributes, self.kinds[spec.attributes["series_type"]], self._words(spec)
        table = families()[kind.family].items()
        direct = self.config.mode == "direct"  # the program adds the trend to what is written
        task = words["direct" if direct else "task"].format(
            **self._named(spec),
            frequency=a["frequency"],
            length=a["length"],
            start=self.config.start[:10],
            unit=kind.unit,
            low=kind.level[0],
            high=kind.level[1],
            level=words["level"][kind.family],
            parameters="\n".join(f"{name}: {p.means}, {p.low:g} to {p.high:g}." for name, p in table),
            number=spec.ordinal + 1,
            least=f"{kind.low:g}",
            most=f"{kind.high:g}",
            resolution=kind.resolution,
        )
        return Prompt(words["direct_system" if direct else "system"], (("user", task),), self.schema(kind), "recipe")

    def _words(self, spec: Spec) -> Any:
        """What is said in the record's language."""
        return shipped(WORDS)[spec.attributes["language"]]

    def _named(self, spec: Spec) -> dict[str, str]:
        """Kind, place and trend in the record's language."""
        a, language = spec.attributes, spec.attributes["language"]
        place, kind = shipped(WORDS)["places"][a["country"]][language], getattr(self.kinds[a["series_type"]], language)
        return {"kind": kind, "place": place, "trend": self._words(spec)["trend"][a["trend_type"]]}

    def offline_text(self, spec: Spec, attempt: int) -> str:
        """A recipe drawn from the priors; in mode direct its values."""
        a, kind = spec.attributes, self.kinds[spec.attributes["series_type"]]
        rng = np.random.Generator(np.random.Philox(key=[spec.seed, attempt + 1]))
        z = rng.standard_normal((1, len(families()[kind.family]) + 3))
        numbers = {"level": level_of(kind, z[:, 0])} | drawn(kind, z[:, 1:], self.moves.get(a["series_type"], {}))
        words, said = self._words(spec), self._named(spec)
        texts = {"context": words["context"].format(**said), "description": words["offline"].format(**said)}
        recipe: dict[str, Any] = {name: float(f"{value[0]:.5g}") for name, value in numbers.items()}
        if self.config.mode == "direct":
            recipe = {"values": rounded(self._rendered([(recipe, spec)])[0], kind.resolution).tolist()}
        return json.dumps(texts | recipe, ensure_ascii=False)

    def answer_characters(self, spec: Spec) -> int:
        return len(self.offline_text(spec, 0))

    def parse(self, text: str, spec: Spec) -> Answer:
        """The recipe in a model's answer; `ParseFailure` says what is missing, out of bounds or contradictory."""
        kind = self.kinds[spec.attributes["series_type"]]
        sent = read_json(text, self.schema(kind))
        reasons, answer = [], {}
        together = f"{sent['context']} {sent['description']}"
        meant = (None, spec.attributes["language"])  # one sentence may be too short to be told, both are not
        for name in ("context", "description"):
            answer[name] = str(sent[name]).strip()
            if not 10 <= len(answer[name]) <= 400:
                reasons.append(f"{name} has {len(answer[name])} characters, 10 to 400 are asked for")
            elif detect(together) not in meant and (found := detect(answer[name])) not in meant:
                reasons.append(f"{name} must be in {spec.attributes['language']!r}, it reads as {found!r}")
        if self.config.mode == "direct":
            answer["values"] = sent["values"]
            reasons += self._wrong(sent["values"], kind, spec.attributes["length"])
        else:
            low, high = kind.level
            widest = (low / 20, high * 20) if low > 0 else (low - (high - low), high + (high - low))
            bounds = {"level": widest} | {name: (p.low, p.high) for name, p in families()[kind.family].items()}
            for name, (least, most) in bounds.items():
                value = answer[name] = sent[name]
                if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                    reasons.append(f"{name} must be a number, got {str(value)[:40]!r}")
                elif not least <= value <= most:
                    reasons.append(f"{name} must be between {least:g} and {most:g}, got {value:g}")
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

    def _wrong(self, sent: list[Any], kind: Kind, wanted: int) -> Iterator[str]:
        """What is wrong with values that a model wrote itself."""
        if len(sent) != wanted:
            yield f"values must be a list of {wanted} numbers, got {len(sent)} of them"
            return
        numbers = [v for v in sent if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)]
        wrong = [value for value in numbers if not kind.low <= value <= kind.high]
        if len(numbers) < wanted:
            yield f"{wanted - len(numbers)} of the values are no finite numbers"
        if wrong:
            yield f"values must be between {kind.low:g} and {kind.high:g} {kind.unit}, got {wrong[0]:g}"

    # The series

    def _place(self, spec: Spec) -> Place:
        place = shipped(WORDS)["places"][spec.attributes["country"]]
        return self.config.start, place["timezone"], spec.attributes["country"], place["latitude"]

    def _rendered(self, alike: Sequence[tuple[Answer, Spec]]) -> Values:
        """The series of recipes whose specs are of one kind, frequency and length, or the values that a model wrote."""
        answers, specs = zip(*alike, strict=True)
        if "values" in answers[0]:
            return np.array([answer["values"] for answer in answers], dtype=float)
        a, kind = specs[0].attributes, self.kinds[specs[0].attributes["series_type"]]
        names = ("level", *families()[kind.family])
        recipe = {name: np.array([float(answer[name]) for answer in answers]) for name in names}
        places, seeds = [self._place(spec) for spec in specs], [spec.seed for spec in specs]
        groups = [spec.attributes.get("group") for spec in specs]
        shared = [None if g is None else zlib.crc32(f"{self.config.seed}/{g}".encode()) for g in groups]
        return render(kind, recipe, places, a["frequency"], a["length"], seeds, shared)

    def render_all(self, answered: Iterable[tuple[Answer, Spec, Provenance]]) -> Iterator[dict[str, Any]]:
        """Those of one kind and frequency side by side, so many at a time as fit into memory."""
        hours = max(r.STEP_HOURS[name] for name, share in self.config.frequency_shares.items() if share)
        rest, fit = iter(answered), max(1, int(_AT_ONCE / max(hours, 1) / self.config.length))
        while many := list(islice(rest, fit)):
            alike: dict[tuple[str, str], list[int]] = {}
            for i, (_, spec, _) in enumerate(many):
                alike.setdefault((spec.attributes["series_type"], spec.attributes["frequency"]), []).append(i)
            values = dict[int, Values]()
            for rows in alike.values():
                values |= zip(rows, self._rendered([many[i][:2] for i in rows]), strict=True)
            yield from (self._record(*one, values[i]).model_dump() for i, one in enumerate(many))

    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> r.Series:
        return self._record(answer, spec, provenance, self._rendered([(answer, spec)])[0])

    def _record(self, answer: Answer, spec: Spec, provenance: Provenance, values: Values) -> r.Series:
        a, kind = spec.attributes, self.kinds[spec.attributes["series_type"]]
        hours, place = r.STEP_HOURS[a["frequency"]], self._place(spec)
        rng = np.random.Generator(np.random.Philox(key=[spec.seed, 2**20]))
        values = self._spoilt(values, kind, a, rng)
        wanted = [name for name in a["anomalies"].split(",") if name]
        values, marks, refused = with_anomalies(values, wanted, max(1, round(24 / hours)), kind.low, kind.high, rng)
        values = rounded(values, kind.resolution)
        facts = self._facts(values, marks, kind, spec)
        if self.config.scale == "standardised":
            values = np.round((values - values.mean()) / (values.std() or 1.0), 6)
        missing = gaps(len(values), float(rng.uniform(0.01, 0.08)), rng) if a["quality"] == "missing_values" else []
        target: list[float | None] = values.tolist()
        for gap in missing:
            target[gap["start"] : gap["start"] + gap["length"]] = [None] * gap["length"]
        burdens = (a["trend_type"] != "none") + (a["anomaly_count"] > 0) + (a["quality"] != "clean")
        recipe = json.dumps(answer, ensure_ascii=False, sort_keys=True)
        planned = ("sector", "series_type", "frequency", "length", "country", "language", "trend_type")
        return r.Series(
            **{name: a[name] for name in planned},
            series_id="series_" + hashlib.sha256(f"{spec.seed}{recipe}".encode()).hexdigest()[:16],
            start=stamps_of(self.config.start, 1, a["frequency"])[0].isoformat(),
            timezone=place[1],
            latitude=place[3],
            target=target,
            unit=kind.unit,
            resolution=kind.resolution,
            scale=self.config.scale,
            complexity=("simple", "medium", "complex")[min(burdens, 2)],
            data_quality=[a["quality"]],
            seasonality_types=[name for name in kind.seasonality if _PERIODS[name] > hours],
            anomaly_count=len(marks),
            anomalies=marks,
            anomalies_refused=refused,
            missing=missing,
            group_id=a.get("group"),
            context=answer["context"],
            description=f"{answer['description']} {facts}",
            recipe=recipe,
            renderer_version=RENDERER_VERSION,
            seed=spec.seed,
            provenance=provenance,
        )

    def _spoilt(self, values: Values, kind: Kind, a: Mapping[str, Any], rng: np.random.Generator) -> Values:
        """With the planned trend and noise: weather and prices are moved by their own spread, the rest is scaled."""
        t = np.linspace(0, 1, len(values))
        rise = _RISE[a["trend_type"]] * (np.sin(2 * np.pi * 1.5 * t) if a["trend_type"] == "cyclic" else t)
        noise = _NOISY * rng.standard_normal(len(values)) if a["quality"] == "noisy" else 0.0
        moved = values * (1 + rise) * (1 + noise)
        if kind.family in ("weather", "price"):
            moved = values + values.std() * (3 * rise + noise)
        return np.asarray(moved).clip(kind.low, kind.high)

    def _facts(self, values: Values, marks: Sequence[Any], kind: Kind, spec: Spec) -> str:
        """What can be seen in the series, measured, in the record's language."""
        words, frequency, (start, *place) = self._words(spec), spec.attributes["frequency"], self._place(spec)
        said = [words["facts"].format(unit=kind.unit, low=values.min(), high=values.max(), mean=values.mean())]
        step = r.STEP_HOURS[frequency]
        if step <= 1 and "daily" in kind.seasonality and len(values) * step >= 48:
            hours = clock(start, len(values), frequency, *place).hour.astype(int)
            said.append(words["peak"].format(hour=int(np.argmax(np.bincount(hours, values) / np.bincount(hours)))))
        if marks:
            stamps = stamps_of(start, len(values), frequency).tz_convert(place[0])
            named = (
                words["at"].format(kind=words["anomaly"][m["kind"]], date=stamps[m["start"]].date()) for m in marks
            )
            said.append(words["marks"].format(marks=", ".join(named)))
        return " ".join(said)
