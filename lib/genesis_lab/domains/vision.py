"""Role ``vision``: concept and requirements in, a product vision and its review out, each in a fenced YAML block."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from genesis_lab.domains.base import Example, Spec, Target
from genesis_lab.domains.concepts import Concept, Pen
from genesis_lab.domains.reading import Fault, coverage, faults, load, read_yaml, terms
from genesis_lab.domains.requirements import LISTS, Requirements, items
from genesis_lab.domains.requirements import offline as offline_requirements
from genesis_lab.domains.roles import HERE, SCHEMA, RoleConfig, RoleRecord, YamlRole
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import indented
from genesis_lab.yamls import dump_yaml, shipped

LABELS = ("VISION", "REVIEW")
STATUSES = {"aligned": 0.5, "needs_adjustment": 0.35, "misaligned": 0.15}
"""What a review may come to, and how often the offline teacher's does."""
WORDS = range(20, 121)
"""Words of a narrative."""
OVERLAP = 0.3
"""Share of a requirement's words from which an entry without an id addresses it; of several, the closest."""
DEPTH = {"product_summary", "value_proposition", "target_users", "key_capabilities", "non_goals", "success_metrics"}
_ENTRIES = ("target_users", "key_capabilities", "non_goals", "success_metrics")
_ALIGNMENT = "REVIEW.requirements_alignment"
_ID = re.compile(r"\b(?:N?FR|C)-?\d{1,4}\b")
_STATED = re.compile(r"\b((?:N?FR|C)\d{2,4})\b[\"']?,?\s*\n?\s*[\"']?(?:description)?[\"']?:?\s*(.*)")
_AFTER_CONCEPT = re.compile(r"\n\s*(?:requirements|requisitos|title)\b", re.IGNORECASE)
"""A requirement, and where they begin, in other people's prompts, which hold concept and requirements in one text."""
_INFINITIVE = re.compile(r"\w+[aeií]r(?:se|l[aeo]s?)?")


class VisionRecord(RoleRecord):
    """A concept with its requirements, and the teacher's vision and review."""

    requirements: str


class Vision(YamlRole):
    """The `Role` of a product owner.

    `given` are records of requirements to answer, in the order of the specs, each with its split; where there are none,
    concepts are planned and the offline grammar writes their requirements.
    """

    name = "vision"
    record_type = VisionRecord
    given: Sequence[Mapping[str, Any]] = ()

    def feed(self, records: Iterable[Mapping[str, Any]], domain: str) -> None:
        """Answer the valid ones of these records of requirements, mixed by their concepts."""
        role = Requirements(RoleConfig())
        if domain != role.name:
            super().feed(records, domain)
        given = []
        for one in sorted(records, key=lambda r: (_digest(r.get("concept")), str(r.get("record_id")))):
            example = role.example(one)
            if role.score(example.answer, example).valid:  # what other people's data does not say is told from its text
                told = {name: one.get(name) or "" for name in ("concept", "industry", "region", "emphasis", "split")}
                told |= {"language": example.language, "group": example.group}
                given.append(told | {"requirements": role.mended(example.answer)})
        self.given = given

    def knowledge(self) -> dict[str, str]:
        """As of every role; and of the requirements to answer, where they are given."""
        told = {"requirements": _digest(json.dumps(list(self.given), sort_keys=True))} if self.given else {}
        return super().knowledge() | told

    def targets(self) -> Sequence[Target]:
        return () if self.config.requirements else super().targets()  # what is given has the shares that it has

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        if not self.config.requirements:
            return super().specs(total, seed)
        if total > len(self.given):
            held = f"{self.config.requirements} holds {len(self.given):,} valid examples of requirements"
            raise InvalidInput(f"total: {held}, got {total:,}.")
        seeds = [zlib.crc32(f"{seed}/{one['concept']}/{one['requirements']}".encode()) for one in self.given[:total]]
        return [Spec(i, 0, own, _without(self.given[i], "concept", "requirements")) for i, own in enumerate(seeds)]

    def draft(self, spec: Spec) -> dict[str, Any]:
        if not self.given:
            return super().draft(spec) | {"requirements": dump_yaml(self._requirements(spec))}
        return _without(self.given[spec.index], "split")

    def question(self, record: Mapping[str, Any], words: Mapping[str, Any]) -> str:
        concept, requirements = str(record.get("concept") or ""), record.get("requirements")
        if not requirements:  # other people's prompts hold both
            return concept
        return str(words["question"]).format(concept=indented(concept), requirements=requirements.rstrip())

    def facts(self, record: Mapping[str, Any]) -> dict[str, Any]:
        concept = str(record.get("concept") or "")
        data, _ = read_yaml(str(record.get("requirements") or ""), tuple(LISTS))
        texts = {str(item.get("id")): str(item.get("description")) for item in items(data)}
        stated, idea = dict(_STATED.findall(concept)), _AFTER_CONCEPT.split(concept, maxsplit=1)[0]
        return {"concept": idea, "requirements": texts or stated}

    def offline_text(self, spec: Spec, attempt: int) -> str:
        try:
            concept = self.concept(spec)
        except KeyError:
            how = f"choose a model as provider to answer {self.config.requirements}"
            raise InvalidInput(f"The offline teacher knows the products of its own concepts only: {how}.") from None
        rng = np.random.default_rng([spec.seed, attempt, 1])
        return self.written(offline(concept, self._requirements(spec), rng))

    def _requirements(self, spec: Spec) -> dict[str, Any]:
        if self.given:
            return dict(load(self.given[spec.index]["requirements"]))
        return offline_requirements(self.concept(spec), np.random.default_rng([spec.seed, 0]), self.config.max_items)

    def written(self, data: Mapping[str, Any]) -> str:
        parts = [(label, data[label.lower()]) for label in LABELS if label.lower() in data]
        return "".join(f"```yaml {label}\n{dump_yaml(part)}```\n" for label, part in parts)

    def read_yaml(self, text: str) -> tuple[dict[str, Any], list[Fault]]:
        """What the two blocks say; no field of one is one of the other, so the fields tell which is which."""
        names = {name: tuple(part["properties"]) for name, part in self.form["properties"].items()}
        data, wrong = read_yaml(text, (*names["vision"], *names["review"], *names))
        for name in names:
            data |= data[name] if isinstance(data.get(name), Mapping) else {}
        review = {name: data[name] for name in names["review"] if name in data}
        vision = {name: value for name, value in data.items() if name not in (*names["review"], *names)}
        read = {name: part for name, part in (("vision", vision), ("review", review)) if part}
        bare = [name.upper() for name in read if f"yaml {name.upper()}" not in text]
        return read, wrong + [Fault("fence_label", name, f"the block must begin with ```yaml {name}") for name in bare]

    def wrong(self, data: Mapping[str, Any], example: Example) -> list[Fault]:
        found = []
        for label, form in zip(LABELS, self.form["properties"].values(), strict=True):
            part = data.get(label.lower())
            missing = Fault("missing_block", label, f"the {label} block is missing")
            found += [missing] if part is None else faults(form, part, label)
        review, path = data.get("review", {}), "REVIEW.narrative"
        words = len(str(review.get("narrative") or "").split())
        if words and words not in WORDS:
            kind = "narrative_long" if words >= WORDS.stop else "narrative_short"
            found.append(Fault(kind, path, f"{path} has {words} words, {WORDS[0]} to {WORDS[-1]} are wanted"))
        for one in _strings(data.get("vision", {}).get("success_metrics")):
            if not re.search(r"\d", one):
                found.append(Fault("no_number", "VISION.success_metrics", f"no number in {one[:60]!r}"))
        return found + _misplaced(review.get("requirements_alignment"), example.facts["requirements"])

    def parts(
        self, data: Mapping[str, Any], found: Sequence[Fault], example: Example
    ) -> tuple[float, dict[str, float]]:
        """Mean of schema, depth of the vision, alignment with the requirements, and specificity."""
        wrong = {".".join(f.path.split(".")[:2]) for f in found if f.kind in SCHEMA | {"narrative_long", "placeholder"}}
        forms = self.form["properties"]
        due = [f"{label}.{name}" for label in LABELS for name in forms[label.lower()]["properties"]]
        fine = [path for path in due if path not in wrong and path.split(".")[0] not in wrong]
        shallow = {name for fault in found for name in DEPTH if fault.path.startswith(f"VISION.{name}")}
        review = data.get("review", {})
        parts = {
            "schema": len(fine) / len(due),
            "depth": 1 - len(shallow) / len(DEPTH) if data.get("vision", {}) else 0.0,
            "alignment": _alignment(review.get("requirements_alignment"), found, len(example.facts["requirements"])),
            "specificity": _specificity(review, found, example.language),
        }
        return sum(parts.values()) / len(parts), parts

    def entries(self, data: Mapping[str, Any]) -> list[str]:
        return [one for name in _ENTRIES for one in _strings(data.get("vision", {}).get(name))]


def offline(concept: Concept, requirements: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The vision and the review that the offline teacher writes: requirements are taken up, left out or ruled out."""
    patterns, pen = shipped(HERE / "vision" / "wording.yaml")[concept.language], Pen(concept, rng)
    texts = {item["id"]: item["description"] for item in items(requirements)}
    status = str(rng.choice([*STATUSES], p=[*STATUSES.values()]))
    apart = sorted(rng.permutation([*texts])[: status != "aligned"].tolist(), key=[*texts].index)
    held, named = [i for i in texts if i not in apart], ", ".join(apart)
    gaps, conflicts = (apart, []) if status == "needs_adjustment" else ([], apart)
    capabilities = [texts[i] for i in held if i.startswith("FR")]
    measured = [texts[i] for i in held if i.startswith("NFR") and re.search(r"\d", texts[i])][:1]
    excluded = [pen.write(patterns["out_of_scope"], text=texts[i][0].lower() + texts[i][1:]) for i in conflicts]
    actions = [one for i in gaps for one in pen.some(patterns["gap"], id=i)]
    actions += [one for i in conflicts for one in pen.some(patterns["conflict"], id=i)]
    told = patterns["narrative"]
    vision = {
        "product_name": pen.write("{product}"),
        "product_summary": pen.some(patterns["product_summary"])[0],
        "target_users": pen.some(patterns["target_users"], 2),
        "value_proposition": pen.some(patterns["value_proposition"])[0],
        "key_capabilities": capabilities + pen.some(patterns["key_capabilities"], max(0, 3 - len(capabilities))),
        "non_goals": (excluded + pen.some(patterns["non_goals"], 2))[:2],
        "success_metrics": measured + pen.some(patterns["success_metrics"], 2 - len(measured)),
        "last_updated": f"2025-{rng.integers(1, 13):02d}-{rng.integers(1, 29):02d}",
    }
    review = {
        "status": status,
        "summary": pen.some(patterns["summary"][status], ids=named)[0],
        "requirements_alignment": {"aligned": held, "gaps": gaps, "conflicts": conflicts},
        "recommended_actions": actions + pen.some(patterns["action"], 2 - len(actions)),
        "narrative": " ".join(pen.some(told[part], ids=named)[0] for part in ("opening", status, "closing")),
    }
    return {"vision": vision, "review": review}


def _misplaced(alignment: Any, requirements: Mapping[str, str]) -> list[Fault]:
    """Requirements that are in no place or in several, by their id or their words; and ids that no requirement has."""
    if not isinstance(alignment, Mapping):
        return []
    where: dict[str, set[str]] = {number: set() for number in requirements}
    said = dict[tuple[str, str], None]()
    for place, entries in alignment.items() if requirements else ():
        for entry in _strings(entries):
            ids = _ID.findall(entry)
            unknown = [number for number in ids if number not in where]
            said |= dict.fromkeys(("unknown_requirement", f"names {one}, which is no requirement") for one in unknown)
            if not ids:
                shares = {number: coverage(terms(text), entry) for number, text in requirements.items()}
                closest = max(shares, key=lambda number: shares[number])
                ids = [closest] if shares[closest] >= OVERLAP else []
            for number in where.keys() & ids:
                where[number].add(place)
    found = [*said, *(("unaddressed", f"leaves out {number}") for number, places in where.items() if not places)]
    several = {number: " and ".join(sorted(places)) for number, places in where.items() if len(places) > 1}
    found += [("two_places", f"lists {number} under {places}") for number, places in several.items()]
    return [Fault(kind, _ALIGNMENT, f"{_ALIGNMENT} {said}") for kind, said in found]


def _alignment(alignment: Any, found: Sequence[Fault], n: int) -> float:
    """Share of requirements put in one place (half for more than one); ids that don't exist count against it."""
    if not isinstance(alignment, Mapping):
        return 0.0
    kinds = Counter(fault.kind for fault in found)
    if not n:
        return float(not any(fault.path.startswith(f"{_ALIGNMENT}.") for fault in found))
    return (n - kinds["unaddressed"] - kinds["two_places"] / 2) / (n + kinds["unknown_requirement"])


def _specificity(review: Mapping[str, Any], found: Sequence[Fault], language: str) -> float:
    """Mean of the share of actions (of two at least) that begin with a verb and say what, and a fitting narrative."""
    actions = [one.split() for one in _strings(review.get("recommended_actions"))]
    verbs = shipped(HERE / "vision" / "wording.yaml")["first_verbs"]
    firsts = [words[0].strip(".,-").lower() for words in actions if len(words) >= 4]
    concrete = [one for one in firsts if (_INFINITIVE.fullmatch(one) if language == "es" else one in verbs)]
    fits = bool(review.get("narrative")) and not any(fault.kind.startswith("narrative_") for fault in found)
    return (len(concrete) / max(2, len(actions)) + fits) / 2


def _without(record: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def _digest(text: Any) -> str:
    """Of a text; also what to sort by, so that the first few are mixed."""
    return hashlib.sha256(text.encode()).hexdigest()[:16] if isinstance(text, str) else "~"


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
