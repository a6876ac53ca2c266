"""Role ``requirements``: concept in, YAML with title, description and three lists of requirements out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from genesis_lab.domains.answers import blocks, chosen
from genesis_lab.domains.base import Example, Score, Spec
from genesis_lab.domains.concepts import Concept
from genesis_lab.domains.form import Fault, Field, ListOf, Object, OneOf, Text
from genesis_lab.domains.reading import read_json
from genesis_lab.domains.roles import FEWEST, HERE, SCHEMA, YamlRole, pen
from genesis_lab.errors import ParseFailure
from genesis_lab.texts import same_words
from genesis_lab.yamls import shipped

LISTS = {"functional_requirements": "FR", "non_functional_requirements": "NFR", "constraints": "C"}
"""The three lists and the letters that their ids begin with."""
FIELDS = ("title", "description", *LISTS)
PRIORITIES = ("High", "Medium", "Low")
TITLE, DESCRIPTION = (10, 100), (100, 2_000)
"""Shortest and longest, characters."""
_ITEM = Object(
    fields={
        "id": Field(),
        "description": Text(shortest=20, longest=500, usual=(20, 180)),
        "priority": OneOf(words=PRIORITIES, kind="bad_priority", missing="missing_priority"),
    }
)


class Requirements(YamlRole):
    """The `Role` of a business analyst."""

    name = "requirements"

    @cached_property
    def form(self) -> Object:  # type: ignore[override]
        texts: dict[str, Field] = {
            "title": Text(shortest=TITLE[0], longest=TITLE[1], usual=TITLE),
            "description": Text(shortest=DESCRIPTION[0], longest=DESCRIPTION[1], usual=(100, 300)),
        }
        lists = {
            name: ListOf(of=_ITEM, fewest=FEWEST, most=self.config.max_items, prefix=p) for name, p in LISTS.items()
        }
        return Object(fields=texts | lists)

    def answer_grammar(self) -> str:
        """Block YAML with `FEWEST` to `max_items` items a list, ids counting up, texts of bounded length."""
        return f"start: {self.form.body()}\n"

    def offline_text(self, spec: Spec, attempt: int) -> str:
        rng = np.random.default_rng([spec.seed, attempt])
        return self.written(offline(self.concept(spec), rng, self.config.max_items))

    def read(self, text: str) -> tuple[Any, Sequence[Fault]]:
        return _read(text)

    def meant(self, text: str) -> Any:
        try:
            return read_json(text, self.schema())
        except ParseFailure:
            return self.read(text)[0]

    def wrong(self, data: Any, example: Example) -> list[Fault]:
        return [] if data is None else self.form.faults(data)

    def scored(self, data: Any, faults: Sequence[Fault], example: Example) -> Score:
        """All fields 1/7, title and description half of that each, the three lists 5/21 each; content is beside it."""
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
        parts |= self.told(str(example.facts.get("concept", "")), said, said)
        valid = bool(data) and not any(fault.kind in SCHEMA for fault in faults)
        return Score(min(1.0, round(total, 12)), valid, parts, tuple(f.message for f in faults))


@lru_cache(maxsize=64)
def _read(text: str) -> tuple[Any, tuple[Fault, ...]]:
    found, around = blocks(text, fields=FIELDS)
    block = chosen(found, FIELDS)
    faults = (*around, *block.faults)
    if block.data is None and not faults:
        faults = (Fault("no_object", "", "the answer is empty"),)
    return block.data, faults


def offline(concept: Concept, rng: np.random.Generator, most: int) -> dict[str, Any]:
    """Requirements that the offline teacher writes for a concept."""
    patterns = shipped(HERE / "requirements" / "wording.yaml")[concept.language]
    write, some = pen(concept, rng)
    asked = concept.words["do"]  # what the concept may name comes first
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


def _list_score(value: Any, prefix: str) -> float:
    """Share of five checks: it is a list of objects, has two or more, ids, priorities, distinct texts of 20 characters."""
    items = _items(value)
    if not items or not isinstance(value, list) or len(items) < len(value):
        return 0.0
    texts = [item.get("description") for item in items]
    long_enough = all(isinstance(t, str) and len(t.strip()) >= 20 for t in texts)
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
