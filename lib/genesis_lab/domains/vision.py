"""Role ``vision``: concept and requirements in, a product vision and its review out, each in a fenced YAML block."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from genesis_lab.domains.answers import blocks, coverage, load, terms
from genesis_lab.domains.base import Example, Score, Spec, Target
from genesis_lab.domains.concepts import Concept
from genesis_lab.domains.form import Date, Fault, Field, ListOf, Object, OneOf, Text
from genesis_lab.domains.reading import read_json
from genesis_lab.domains.requirements import LISTS as REQUIREMENT_LISTS
from genesis_lab.domains.requirements import Requirements
from genesis_lab.domains.requirements import offline as offline_requirements
from genesis_lab.domains.roles import HERE, SCHEMA, RoleConfig, RoleRecord, YamlRole, pen
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.texts import indented, same_words
from genesis_lab.yamls import dump_yaml, shipped

STATUSES = ("aligned", "needs_adjustment", "misaligned")
PLACES = ("aligned", "gaps", "conflicts")
MOST_WORDS, FEWEST_WORDS = 120, 20
"""Words of a narrative."""
OVERLAP = 0.3
"""Share of a requirement's words from which an entry without an id addresses it (the closest, if it is near several)."""
_ID = re.compile(r"\b(?:N?FR|C)-?\d{1,4}\b")
_AFTER_CONCEPT = re.compile(r"\n\s*(?:requirements|requisitos|title)\b", re.IGNORECASE)
"""Where the requirements begin in a prompt that holds them too."""
_INFINITIVE = re.compile(r"\w+[aeií]r(?:se|l[aeo]s?)?")
_ENTRY = Text(usual=(10, 180))
VISION: Mapping[str, Field] = {
    "product_name": Text(usual=(3, 90)),
    "product_summary": Text(usual=(60, 280)),
    "target_users": ListOf(of=_ENTRY, fewest=2, usual=4),
    "value_proposition": Text(usual=(40, 240)),
    "key_capabilities": ListOf(of=_ENTRY, fewest=3, usual=5),
    "non_goals": ListOf(of=_ENTRY, fewest=2, usual=4),
    "success_metrics": ListOf(of=_ENTRY, fewest=2, usual=4),
    "last_updated": Date(),
}
REVIEW: Mapping[str, Field] = {
    "status": OneOf(words=STATUSES, kind="bad_status"),
    "summary": Text(usual=(30, 240)),
    "requirements_alignment": Object(
        fields=dict.fromkeys(PLACES, ListOf(of=Field(pattern="(FR|NFR|C)00[1-6]"), usual=18))
    ),
    "recommended_actions": ListOf(of=_ENTRY, fewest=2, usual=3),
    "narrative": Text(usual=(130, 700)),
}
LISTS = {name: field.fewest for name, field in VISION.items() if isinstance(field, ListOf)}
"""Lists of the vision and how many entries a deep one has at least."""
_PARTS = (("VISION", Object(fields=VISION)), ("REVIEW", Object(fields=REVIEW)))
LABELS = tuple(label for label, _ in _PARTS)


class VisionRecord(RoleRecord):
    """A concept with its requirements, and the teacher's vision and review."""

    requirements: str


class Vision(YamlRole):
    """The `Role` of a product owner.

    `given` are records of requirements to answer, in the order of the specs, each with its split; where there are none,
    concepts are planned and the offline grammar writes their requirements.
    """

    form = Object(fields={label.lower(): part for label, part in _PARTS})
    name = "vision"
    record_type = VisionRecord
    given: Sequence[Mapping[str, Any]] = ()

    def feed(self, records: Iterable[Mapping[str, Any]], domain: str) -> None:
        """Answer the valid ones of these records of requirements, mixed by their concepts."""
        role = Requirements(RoleConfig())
        if domain != role.name:
            super().feed(records, domain)
        given = []
        for one in sorted(records, key=lambda r: (_shuffled(r.get("concept")), str(r.get("record_id")))):
            example, text = role.example(one), str(one.get("answer") or "")
            if role.score(text, example).valid:  # what other people's data does not say is told from its text
                told = {name: one.get(name) or "" for name in ("concept", "industry", "region", "emphasis", "split")}
                answer = role.tidied(text)
                given.append(told | {"language": example.language, "group": example.group, "answer": answer})
        self.given = given

    def knowledge(self) -> dict[str, str]:
        """As of every role; and of the requirements to answer, where they are given."""
        given = json.dumps(list(self.given), sort_keys=True, default=str).encode()
        told = {"requirements": hashlib.sha256(given).hexdigest()[:16]} if self.given else {}
        return super().knowledge() | told

    def targets(self) -> Sequence[Target]:
        return () if self.config.requirements else super().targets()  # what is given has the shares that it has

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        if not self.config.requirements:
            return super().specs(total, seed)
        if total > len(self.given):
            raise InvalidInput(
                f"total: {self.config.requirements} holds {len(self.given):,} valid examples of requirements, got {total:,}."
            )
        names = ("language", "emphasis", "industry", "group", "region", "split")
        seeds = [zlib.crc32(f"{seed}/{one['concept']}/{one['answer']}".encode()) for one in self.given[:total]]
        return [Spec(i, 0, own, {name: self.given[i][name] for name in names}) for i, own in enumerate(seeds)]

    def draft(self, spec: Spec) -> dict[str, Any]:
        if not self.given:
            return super().draft(spec) | {"requirements": dump_yaml(self._requirements(spec))}
        one, names = self.given[spec.index], ("concept", "language", "group", "industry", "region", "emphasis")
        return {name: one[name] for name in names} | {"requirements": one["answer"]}

    def question(self, record: Mapping[str, Any], words: Mapping[str, Any]) -> str:
        if not record.get("requirements"):  # other people's prompts hold both
            return str(record.get("concept") or "")
        return str(words["question"]).format(
            concept=indented(record["concept"]), requirements=record["requirements"].rstrip()
        )

    def facts(self, record: Mapping[str, Any]) -> dict[str, Any]:
        source = str(record.get("requirements") or record.get("concept") or "")
        return super().facts(record) | {"requirements": _texts_by_id(source)}

    def offline_text(self, spec: Spec, attempt: int) -> str:
        rng = np.random.default_rng([spec.seed, attempt, 1])
        try:
            concept = self.concept(spec)
        except KeyError:
            raise InvalidInput(
                "The offline teacher knows the products of its own concepts only: choose a model as provider to answer "
                f"{self.config.requirements}."
            ) from None
        return self.written(offline(concept, self._requirements(spec), rng))

    def answer_characters(self, spec: Spec) -> int:
        try:
            return super().answer_characters(spec)
        except InvalidInput:  # of other people's concepts the worked example tells
            return len(json.dumps(self.texts()[spec.attributes["language"]]["worked"]["answer"], ensure_ascii=False))

    def _requirements(self, spec: Spec) -> dict[str, Any]:
        if self.given:
            return dict(load(self.given[spec.index]["answer"]))
        return offline_requirements(self.concept(spec), np.random.default_rng([spec.seed, 0]), self.config.max_items)

    def written(self, data: Mapping[str, Any]) -> str:
        return "".join(f"```yaml {label}\n{dump_yaml(data[label.lower()])}```\n" for label in LABELS)

    def answer_grammar(self) -> str:
        """The two blocks with their fields in order and texts of bounded length."""
        rules = [f'"```yaml {label}\\n" {part.body()} "```\\n"' for label, part in _PARTS]
        return f"start: {' '.join(rules)}\n"

    def read(self, text: str) -> tuple[Any, Sequence[Fault]]:
        return _read(text)

    def mended(self, text: str, example: Example) -> str:
        data = self.meant(text)
        if len(data) < len(LABELS):
            return text
        known = {_number(i): i for i in example.facts.get("requirements", {})}
        whole = self.form.mended(data)
        if isinstance(alignment := whole["review"].get("requirements_alignment"), dict):
            for place, entries in alignment.items():
                alignment[place] = [_renamed(e, known) for e in entries] if isinstance(entries, list) else entries
        return self.written(whole)

    def wrong(self, data: Any, example: Example) -> list[Fault]:
        faults = [
            f for label, part in _PARTS if (d := data.get(label.lower())) is not None for f in part.faults(d, label)
        ]
        review = data.get("review") or {}
        words = len(str(review.get("narrative") or "").split())
        if words > MOST_WORDS:
            said = f"REVIEW.narrative has {words} words, at most {MOST_WORDS} are wanted"
            faults.append(Fault("narrative_long", "REVIEW.narrative", said))
        alignment, at = review.get("requirements_alignment"), "REVIEW.requirements_alignment"
        if isinstance(alignment, Mapping):
            where, unknown = _sorted_ids(alignment, example.facts.get("requirements", {}))
            faults += [Fault("unknown_requirement", at, f"{at} names {i}, which is no requirement") for i in unknown]
            faults += [Fault("unaddressed", at, f"{at} leaves out {i}") for i, places in where.items() if not places]
            twice = {i: " and ".join(sorted(places)) for i, places in where.items() if len(places) > 1}
            faults += [Fault("two_places", at, f"{at} lists {i} under {places}") for i, places in twice.items()]
        return faults

    def scored(self, data: Any, faults: Sequence[Fault], example: Example) -> Score:
        """Mean of schema, depth of the vision, alignment with the requirements, and specificity; content is beside it."""
        vision, review = data.get("vision", {}), data.get("review", {})
        counted = SCHEMA | {"narrative_long", "placeholder"}
        wrong = {".".join(f.path.split(".")[:2]) for f in faults if f.kind in counted}
        due = [f"{label}.{name}" for label, part in _PARTS if label not in wrong for name in part.fields]
        parts = {
            "schema": sum(path not in wrong for path in due) / len([*VISION, *REVIEW]),
            "depth": _depth(vision),
            "alignment": _alignment(review, example.facts.get("requirements", {})),
            "specificity": _specificity(review, example.language),
        }
        total = sum(parts.values()) / len(parts)
        entries = [s for name in LISTS for s in _strings(vision.get(name))]
        concept = _AFTER_CONCEPT.split(str(example.facts.get("concept", "")), maxsplit=1)[0]
        parts |= self.told(concept, [s for s in self.form.texts(data) if " " in s], entries)
        valid = len(data) == 2 and not any(f.kind in SCHEMA for f in faults)
        return Score(min(1.0, round(total, 12)), valid, parts, tuple(f.message for f in faults))


def offline(concept: Concept, requirements: Mapping[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """The vision and the review that the offline teacher writes: requirements are taken up, left out or ruled out."""
    patterns = shipped(HERE / "vision" / "wording.yaml")[concept.language]
    items = {item["id"]: item["description"] for name in REQUIREMENT_LISTS for item in requirements[name]}
    write, some = pen(concept, rng)
    status = str(rng.choice(STATUSES, p=(0.5, 0.35, 0.15)))
    ids = list(items)
    apart = sorted(some(ids, {"aligned": 0, "needs_adjustment": 1, "misaligned": 1}[status]), key=ids.index)
    held = [i for i in ids if i not in apart]
    gaps, conflicts = (apart, []) if status == "needs_adjustment" else ([], apart)
    capabilities = [items[i] for i in held if i.startswith("FR")]
    capabilities += [write(p) for p in some(patterns["key_capabilities"], max(0, 3 - len(capabilities)))]
    measured = [items[i] for i in held if i.startswith("NFR") and any(c.isdigit() for c in items[i])][:1]
    named = ", ".join(apart)
    vision = {
        "product_name": write("{product}"),
        "product_summary": write(some(patterns["product_summary"], 1)[0]),
        "target_users": [write(p) for p in some(patterns["target_users"], 2)],
        "value_proposition": write(some(patterns["value_proposition"], 1)[0]),
        "key_capabilities": capabilities,
        "non_goals": [
            *(write(patterns["out_of_scope"], text=items[i][0].lower() + items[i][1:]) for i in conflicts),
            *(write(p) for p in some(patterns["non_goals"], 2)),
        ][:2],
        "success_metrics": [*measured, *(write(p) for p in some(patterns["success_metrics"], 2 - len(measured)))],
        "last_updated": f"2025-{int(rng.integers(1, 13)):02d}-{int(rng.integers(1, 29)):02d}",
    }
    actions = [write(some(patterns["gap"], 1)[0], id=i) for i in gaps]
    actions += [write(some(patterns["conflict"], 1)[0], id=i) for i in conflicts]
    told = patterns["narrative"]
    review = {
        "status": status,
        "summary": write(some(patterns["summary"][status], 1)[0], ids=named),
        "requirements_alignment": {"aligned": held, "gaps": gaps, "conflicts": conflicts},
        "recommended_actions": actions + [write(p) for p in some(patterns["action"], 2 - len(actions))],
        "narrative": " ".join(write(some(told[part], 1)[0], ids=named) for part in ("opening", status, "closing")),
    }
    return {"vision": vision, "review": review}


@lru_cache(maxsize=64)
def _read(text: str) -> tuple[dict[str, Any], tuple[Fault, ...]]:
    """Vision and review, and what is wrong with the form they came in."""
    found, faults = blocks(text, LABELS, (*VISION, *REVIEW, "vision", "review"))
    pair = _json_pair(text) if not any(block.label for block in found) else None
    if pair is not None:
        return pair, (*faults, Fault("json_answer", "", "JSON where YAML is due"))
    read: dict[str, Mapping[str, Any]] = {}
    for block in found:
        if block.data is not None and not isinstance(block.data, Mapping) and block.label:
            faults.append(Fault("no_object", block.label, f"the block {block.label} must hold fields"))
        parts = {block.label: block.data} if block.label else _unlabelled(block.data)
        if not block.label:
            faults += [Fault("fence_label", part, f"the block must begin with ```yaml {part}") for part in parts]
        if parts:
            faults += [fault for fault in block.faults if fault not in faults]
        read |= {label: data for label, data in parts.items() if isinstance(data, Mapping)}  # the last is the answer
    for label in LABELS:
        if label not in read and not any(fault.path == label for fault in faults):
            faults.append(Fault("missing_block", label, f"the {label} block is missing"))
    return {label.lower(): data for label, data in read.items()}, tuple(faults)


def _unlabelled(data: Any) -> dict[str, Any]:
    """Which of the two a block without a label is, or both in one."""
    if not isinstance(data, Mapping):
        return {}
    both = {label: data[label.lower()] for label in LABELS if isinstance(data.get(label.lower()), Mapping)}
    if both:
        return both
    if "product_name" in data and "status" in data:
        review = {name: value for name, value in data.items() if name in REVIEW}
        return {"VISION": {n: v for n, v in data.items() if n not in review}, "REVIEW": review}
    return {"VISION": data} if "product_name" in data else {"REVIEW": data} if "status" in data else {}


def _json_pair(text: str) -> dict[str, Any] | None:
    fields = {name: {"type": "object"} for name in ("vision", "review")}
    for due in (["vision", "review"], ["vision"], ["review"]):
        try:
            pair = read_json(text, {"type": "object", "properties": fields, "required": due})
        except ParseFailure:
            continue
        return {name: pair[name] for name in fields if pair.get(name) is not None}
    return None


def _sorted_ids(alignment: Mapping[str, Any], requirements: Mapping[str, str]) -> tuple[dict[str, set[str]], list[str]]:
    """Each requirement and the places it is put in, by its id or by its words; and ids that no requirement has."""
    where: dict[str, set[str]] = {i: set() for i in requirements}
    unknown: list[str] = []
    for place in PLACES:
        for entry in _strings(alignment.get(place)):
            ids = _ID.findall(entry)
            unknown += [i for i in ids if requirements and i not in requirements]
            addressed = [i for i in ids if i in where]
            if not ids and requirements:
                closest = max(requirements, key=lambda i: coverage(terms(requirements[i]), entry))
                addressed = [closest] if coverage(terms(requirements[closest]), entry) >= OVERLAP else []
            for i in addressed:
                where[i].add(place)
    return where, list(dict.fromkeys(unknown))


def _depth(vision: Mapping[str, Any]) -> float:
    """Share of six checks: a summary and a value that say something, and lists that are long enough and distinct."""
    lists = {name: _strings(vision.get(name)) for name in LISTS}
    enough = {n: len({same_words(s) for s in found if len(s) >= 8}) >= LISTS[n] for n, found in lists.items()}
    measurable = all(any(c.isdigit() for c in metric) for metric in lists["success_metrics"])
    checks = (
        len(str(vision.get("product_summary") or "")) >= 60,
        len(str(vision.get("value_proposition") or "")) >= 40,
        *(enough | {"success_metrics": enough["success_metrics"] and measurable}).values(),
    )
    return sum(checks) / len(checks)


def _alignment(review: Mapping[str, Any], requirements: Mapping[str, str]) -> float:
    """Share of requirements put in exactly one place (half for more than one); ids that don't exist count against it."""
    alignment = review.get("requirements_alignment")
    if not isinstance(alignment, Mapping):
        return 0.0
    where, unknown = _sorted_ids(alignment, requirements)
    if not where:
        return float(all(isinstance(alignment.get(place), list) for place in PLACES))
    return sum(1 / len(places) if len(places) < 3 else 0 for places in where.values() if places) / (
        len(where) + len(unknown)
    )


def _specificity(review: Mapping[str, Any], language: str) -> float:
    """Mean of: share of actions (of at least two) that begin with a verb and say what; a narrative of fitting length."""
    actions = _strings(review.get("recommended_actions"))
    verbs = shipped(HERE / "vision" / "wording.yaml")["first_verbs"]
    firsts = [a.split()[0].strip(".,-").lower() for a in actions if len(a.split()) >= 4]
    concrete = [one for one in firsts if (_INFINITIVE.fullmatch(one) if language == "es" else one in verbs)]
    words = len(str(review.get("narrative") or "").split())
    return (len(concrete) / max(2, len(actions)) + (FEWEST_WORDS <= words <= MOST_WORDS)) / 2


def _number(requirement: str) -> str:
    """An id without leading zeros: ``FR01`` and ``FR001`` are the same requirement."""
    return re.sub(r"(?<=[A-Z])0+(?=\d)", "", requirement)


def _renamed(entry: Any, known: Mapping[str, str]) -> Any:
    return _ID.sub(lambda m: known.get(_number(m[0]), m[0]), entry) if isinstance(entry, str) else entry


def _texts_by_id(source: str) -> dict[str, str]:
    """Id to description of every requirement in a YAML text, or in a prompt that holds one."""
    try:
        data = load(source)
    except ValueError:
        data = None
    if isinstance(data, Mapping) and any(name in data for name in REQUIREMENT_LISTS):
        items = [i for name in REQUIREMENT_LISTS for i in data.get(name) or [] if isinstance(i, Mapping)]
        return {str(i.get("id")): str(i.get("description")) for i in items}
    stated = r"\b((?:N?FR|C)\d{2,4})\b[\"']?,?\s*\n?\s*[\"']?(?:description)?[\"']?:?\s*(.*)"
    return dict(re.findall(stated, source))


def _shuffled(concept: Any) -> str:
    """What to sort by, so that the first few are mixed."""
    return hashlib.md5(concept.encode(), usedforsecurity=False).hexdigest() if isinstance(concept, str) else "~"


def _strings(value: Any) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
