"""Role ``requirements``: concept in, YAML with title, description and three lists of requirements out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.answers import (
    Fault,
    as_text,
    blocks,
    chosen,
    coverage,
    field_faults,
    language_faults,
    terms,
    text_faults,
    written,
)
from genesis_lab.domains.base import Example, Score, Spec
from genesis_lab.domains.concepts import Concept, concept_terms, filled
from genesis_lab.domains.grammars import requirements_grammar
from genesis_lab.domains.reading import read_json
from genesis_lab.domains.roles import FEWEST, SCHEMA, YamlRole, draws, object_schema
from genesis_lab.errors import ParseFailure
from genesis_lab.texts import same_words
from genesis_lab.yamls import read_yaml

LISTS = {"functional_requirements": "FR", "non_functional_requirements": "NFR", "constraints": "C"}
"""The three lists and the letters that their ids begin with."""
FIELDS = ("title", "description", *LISTS)
ITEM = ("id", "description", "priority")
PRIORITIES = ("High", "Medium", "Low")
TITLE, DESCRIPTION, ITEM_TEXT = (10, 100), (100, 2_000), (20, 500)
"""Shortest and longest text of each kind, characters."""
_HERE = Path(__file__).parent


class Requirements(YamlRole):
    """The `Role` of a business analyst."""

    name = "requirements"

    def texts(self) -> Mapping[str, Any]:
        return _prompts()

    def schema(self) -> dict[str, Any]:
        text = {"type": "string"}
        item = object_schema(
            {"id": text, "description": text, "priority": {"type": "string", "enum": list(PRIORITIES)}}
        )
        items = {"type": "array", "items": item, "minItems": FEWEST, "maxItems": self.config.max_items}
        return object_schema({"title": text, "description": text} | dict.fromkeys(LISTS, items))

    def tidied(self, text: str) -> str:
        data = self._lenient(text)
        if not isinstance(data, dict) or any(fault.kind in SCHEMA for fault in _faults_of(data)):
            return text.strip()
        return as_yaml(data)

    def mended(self, text: str, example: Example) -> str:
        data = self._lenient(text)
        if not isinstance(data, dict):
            return text
        whole: dict[str, Any] = {name: as_text(data[name]) for name in FIELDS[:2] if data.get(name) is not None}
        for name, prefix in LISTS.items():
            items = _items(data.get(name))
            if not isinstance(data.get(name), list) or len(items) < len(data[name]):
                whole |= {name: data[name]} if name in data else {}
                continue
            firsts = {same_words(str(item.get("description"))): item for item in reversed(items)}
            kept = list(reversed(firsts.values())) if len(firsts) >= FEWEST else items
            whole[name] = [_mended_item(item, f"{prefix}{i:03d}") for i, item in enumerate(kept, 1)]
        return written(whole)

    def offline_text(self, spec: Spec, attempt: int) -> str:
        rng = np.random.default_rng([spec.seed, attempt])
        return as_yaml(offline(self.concept(spec), rng, self.config.max_items))

    def faults(self, text: str, example: Example) -> list[Fault]:
        found, faults = blocks(text, fields=FIELDS)
        block = chosen(found, FIELDS)
        faults += block.faults
        if block.data is None:
            return faults or [Fault("no_object", "", "the answer is empty")]
        faults += _faults_of(block.data)
        return faults + language_faults(_all_texts(block.data), example.language)

    def score(self, text: str, example: Example) -> Score:
        """All fields 1/7, title and description half of that each, the three lists 5/21 each; content is beside it."""
        faults = self.faults(text, example)
        data = chosen(blocks(text, fields=FIELDS)[0], FIELDS).data
        data = data if isinstance(data, dict) else {}
        title, description = data.get("title"), data.get("description")
        parts = {
            "fields": float(all(data.get(name) is not None for name in FIELDS)),
            "title": float(isinstance(title, str) and TITLE[0] <= len(title.strip()) <= TITLE[1]),
            "description": float(isinstance(description, str) and len(description.strip()) >= DESCRIPTION[0]),
        } | {name: _list_score(data.get(name), prefix) for name, prefix in LISTS.items()}
        total = (parts["fields"] + parts["title"] / 2 + parts["description"] / 2) / 7
        total += sum(parts[name] for name in LISTS) * 5 / 21
        said = [d for name in LISTS for item in _items(data.get(name)) if isinstance(d := item.get("description"), str)]
        wanted = concept_terms(str(example.facts.get("concept", "")))
        parts["content"] = coverage(wanted, " ".join(said))
        parts["on_topic"] = float(np.mean([bool(wanted & terms(one)) for one in said])) if said else 0.0
        valid = bool(data) and not any(fault.kind in SCHEMA for fault in faults)
        return Score(min(1.0, round(total, 12)), valid, parts, tuple(f.message for f in faults))

    def _lenient(self, text: str) -> Any:
        """What the answer holds, in JSON or YAML, whatever stands round it."""
        try:
            return read_json(text, self.schema())
        except ParseFailure:
            return chosen(blocks(text, fields=FIELDS)[0], FIELDS).data

    def answer_grammar(self) -> str:
        """Block YAML with `FEWEST` to `max_items` items a list, ids counting up, texts of bounded length."""
        return requirements_grammar(LISTS, FEWEST, self.config.max_items)


def as_yaml(data: Mapping[str, Any]) -> str:
    """A set of requirements in its plain form."""
    lists = {name: [{key: item[key] for key in ITEM} for item in data[name]] for name in LISTS}
    return written({"title": data["title"], "description": data["description"]} | lists)


def offline(concept: Concept, rng: np.random.Generator, most: int) -> dict[str, Any]:
    """Requirements that the offline teacher writes for a concept."""
    patterns, words = _wording()[concept.language], concept.words

    def write(pattern: str, **more: Any) -> str:
        return filled(pattern, words | draws(rng) | more)

    def some(choices: list[str] | tuple[str, ...], n: int) -> list[str]:
        return [choices[i] for i in rng.permutation(len(choices))[:n]]

    asked = words["do"]  # what the concept may name comes first
    features = [asked, *(one for one in some(concept.features, len(concept.features)) if one != asked)]
    sizes = rng.integers(FEWEST, most + 1, size=3)
    n = int(sizes[0])
    of_data = max(n - len(features), int(n > FEWEST or rng.random() < 0.3))
    chosen = zip(some(patterns["functional"], n - of_data), features, strict=False)
    functional = [write(p, do=do) for p, do in chosen] + [write(p) for p in some(patterns["data"], of_data)]
    qualities = [write(some(concept.qualities, 1)[0]), *(write(p) for p in some(patterns["quality"], most))]
    limits = [write(some(concept.limits, 1)[0]), *(write(p) for p in some(patterns["constraint"], most))]
    titles = [write(pattern) for pattern in some(patterns["title"], len(patterns["title"]))]
    title = next((t for t in titles if TITLE[0] <= len(t) <= TITLE[1]), titles[0][: TITLE[1]].rsplit(" ", 1)[0])
    description = write(some(patterns["description"], 1)[0])
    for more in some(patterns["more"], len(patterns["more"])):
        if len(description) < DESCRIPTION[0]:
            description += " " + write(more)
    data: dict[str, Any] = {"title": title, "description": description}
    for (name, prefix), texts, n in zip(LISTS.items(), (functional, qualities, limits), sizes, strict=True):
        order = rng.permutation(n)
        ranks = ["High", *rng.choice(PRIORITIES, size=n - 1, p=(0.3, 0.45, 0.25)).tolist()]
        data[name] = [
            {"id": f"{prefix}{i + 1:03d}", "description": texts[j], "priority": ranks[j]} for i, j in enumerate(order)
        ]
    return data


def _faults_of(data: Any) -> list[Fault]:
    faults = field_faults(data, FIELDS)
    if not isinstance(data, Mapping):
        return faults
    for name, (shortest, longest) in (("title", TITLE), ("description", DESCRIPTION)):
        if data.get(name) is not None:
            faults += text_faults(name, data[name], shortest=shortest, longest=longest)
    for name, prefix in LISTS.items():
        if data.get(name) is not None:
            faults += _list_faults(name, data[name], prefix)
    return faults


def _list_faults(name: str, items: Any, prefix: str) -> list[Fault]:
    if not isinstance(items, list):
        return [Fault("not_text", name, f"{name} must be a list of items with id, description and priority")]
    if not items:
        return [Fault("empty_list", name, f"{name} is empty")]
    faults = []
    if len(items) < FEWEST:
        faults.append(Fault("too_few", name, f"{name} must have at least {FEWEST} items, has {len(items)}"))
    ids: list[str] = []
    said: dict[str, int] = {}
    for i, item in enumerate(items):
        at = f"{name}.{i + 1}"
        faults += [f for f in field_faults(item, ITEM, at) if not f.path.endswith(".priority")]
        if not isinstance(item, Mapping):
            continue
        number = item.get("id")
        if number is not None and not (isinstance(number, str) and re.fullmatch(rf"{prefix}\d{{3}}", number)):
            faults.append(Fault("bad_id", f"{at}.id", f"{at}.id must be like {prefix}001, got {str(number)[:20]!r}"))
        elif number in ids:
            faults.append(Fault("duplicate_id", f"{at}.id", f"{at}.id repeats {number}"))
        if isinstance(number, str):
            ids.append(number)
        rank = item.get("priority")
        if rank is None:
            faults.append(Fault("missing_priority", f"{at}.priority", f"{at}.priority is missing"))
        elif rank not in PRIORITIES:
            message = f"{at}.priority must be {', '.join(PRIORITIES)}, got {str(rank)[:20]!r}"
            faults.append(Fault("bad_priority", f"{at}.priority", message))
        text = item.get("description")
        if text is not None:
            faults += text_faults(f"{at}.description", text, shortest=ITEM_TEXT[0], longest=ITEM_TEXT[1])
        if isinstance(text, str) and said.setdefault(same_words(text), i) != i:
            faults.append(Fault("repeated_text", f"{at}.description", f"{at}.description repeats that of another item"))
    right = [f"{prefix}{i + 1:03d}" for i in range(len(items))]
    if all(re.fullmatch(rf"{prefix}\d{{3}}", n) for n in ids) and len(set(ids)) == len(items) and ids != right:
        faults.append(
            Fault("id_order", name, f"{name}: ids must count up from {right[0]} without gaps, got {', '.join(ids[:6])}")
        )
    return faults


def _mended_item(item: Mapping[str, Any], number: str) -> dict[str, Any]:
    rank = str(item.get("priority") or "").strip().capitalize()
    new = {"id": number, "description": as_text(item.get("description")), "priority": rank or None}
    return {name: value for name, value in new.items() if value is not None}


def _list_score(value: Any, prefix: str) -> float:
    """Share of five checks: it is a list of objects, has two or more, ids, priorities, distinct texts of 20 characters."""
    items = _items(value)
    if not items or not isinstance(value, list) or len(items) < len(value):
        return 0.0
    texts = [item.get("description") for item in items]
    long_enough = all(isinstance(t, str) and len(t.strip()) >= ITEM_TEXT[0] for t in texts)
    checks = (
        True,
        len(items) >= FEWEST,
        [item.get("id") for item in items] == [f"{prefix}{i + 1:03d}" for i in range(len(items))],
        all(item.get("priority") in PRIORITIES for item in items),
        long_enough and len({same_words(str(t)) for t in texts}) == len(texts),
    )
    return sum(checks) / len(checks)


def _items(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _all_texts(data: Any) -> list[str]:
    if not isinstance(data, Mapping):
        return []
    found = [data.get("title"), data.get("description")]
    found += [item.get("description") for name in LISTS for item in _items(data.get(name))]
    return [text for text in found if isinstance(text, str)]


@lru_cache(maxsize=1)
def _prompts() -> dict[str, Any]:
    return dict(read_yaml(_HERE / "prompt.yaml"))


@lru_cache(maxsize=1)
def _wording() -> dict[str, Any]:
    return dict(read_yaml(_HERE / "wording.yaml"))
