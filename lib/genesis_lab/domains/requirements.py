"""Role ``requirements``: concept in, YAML with title, description and three lists of requirements out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np

from genesis_lab.domains.base import Example, Spec
from genesis_lab.domains.concepts import Concept, Pen
from genesis_lab.domains.reading import Fault, Form
from genesis_lab.domains.roles import FEWEST, HERE, YamlRole
from genesis_lab.yamls import shipped

LISTS = {"functional_requirements": "FR", "non_functional_requirements": "NFR", "constraints": "C"}
"""The three lists and the letters that their ids begin with."""
FIELDS = ("title", "description", *LISTS)
TITLE, DESCRIPTION = (10, 100), 100
"""Characters of a title, and of a description at least."""


class Requirements(YamlRole):
    """The `Role` of a business analyst."""

    name = "requirements"

    @cached_property
    def form(self) -> Form:
        form = deepcopy(super().form)
        for name in LISTS:
            form["properties"][name]["maxItems"] = self.config.max_items
        return form

    def answer_grammar(self) -> str:
        """As of every role, with `FEWEST` to `max_items` items a list, no number skipped."""
        rules = [super().answer_grammar()]
        for prefix in LISTS.values():
            rule = ""
            for i in range(self.config.max_items, 0, -1):
                item = f'"- id: {prefix}{i:03d}\\n" item {rule}'
                rule = f"({item})?" if i > FEWEST else item
            rules.append(f"{prefix.lower()}: {rule}")
        return "\n".join(rules)

    def offline_text(self, spec: Spec, attempt: int) -> str:
        rng = np.random.default_rng([spec.seed, attempt])
        return self.written(offline(self.concept(spec), rng, self.config.max_items))

    def parts(
        self, data: Mapping[str, Any], found: Sequence[Fault], example: Example
    ) -> tuple[float, dict[str, float]]:
        """All fields 1/7, title and description half of that each, the three lists 5/21 each."""
        wrong = {fault.path for fault in found}
        parts = {"fields": float(all(data.get(name) is not None for name in FIELDS))}
        parts |= {name: float(data.get(name) is not None and name not in wrong) for name in ("title", "description")}
        parts |= {name: _list_score(data.get(name), [f for f in found if f.path.startswith(name)]) for name in LISTS}
        total = parts["fields"] / 7 + (parts["title"] + parts["description"]) / 14
        return total + sum(parts[name] for name in LISTS) * 5 / 21, parts

    def entries(self, data: Mapping[str, Any]) -> list[str]:
        return [str(item.get("description") or "") for item in items(data)]


def items(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The requirements of all three lists."""
    lists = [found for name in LISTS if isinstance(found := data.get(name), list)]
    return [item for found in lists for item in found if isinstance(item, Mapping)]


def _list_score(value: Any, found: Sequence[Fault]) -> float:
    """Share of five checks: a list of objects, two or more, with ids, priorities, distinct texts of 20 characters."""
    if not value or not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return 0.0
    wrong = {fault.path.rpartition(".")[2] for fault in found} & {"id", "priority", "description"}
    return 1 - (len(wrong) + any(fault.kind == "too_few" for fault in found)) / 5


def offline(concept: Concept, rng: np.random.Generator, most: int) -> dict[str, Any]:
    """Requirements that the offline teacher writes for a concept."""
    patterns, pen = shipped(HERE / "requirements" / "wording.yaml")[concept.language], Pen(concept, rng)
    asked = concept.words["do"]  # what the concept may name comes first
    features = [asked, *(one for one in rng.permutation(concept.features) if one != asked)]
    sizes = rng.integers(FEWEST, most + 1, size=3)
    of_data = max(int(sizes[0]) - len(features), int(sizes[0] > FEWEST or rng.random() < 0.3))
    frames = rng.permutation(patterns["functional"])[: sizes[0] - of_data]
    said = (
        [pen.write(p, do=do) for p, do in zip(frames, features, strict=False)] + pen.some(patterns["data"], of_data),
        pen.some(concept.qualities) + pen.some(patterns["quality"], most),
        pen.some(concept.limits) + pen.some(patterns["constraint"], most),
    )
    titles = pen.some(patterns["title"], len(patterns["title"]))
    title = next((t for t in titles if TITLE[0] <= len(t) <= TITLE[1]), titles[0][: TITLE[1]].rsplit(" ", 1)[0])
    description = pen.some(patterns["description"])[0]
    for more in pen.some(patterns["more"], len(patterns["more"])):
        if len(description) < DESCRIPTION:
            description += " " + more
    data: dict[str, Any] = {"title": title, "description": description}
    for (name, prefix), texts, n in zip(LISTS.items(), said, sizes, strict=True):
        ranks = ["High", *rng.choice(["High", "Medium", "Low"], size=n - 1, p=(0.3, 0.45, 0.25)).tolist()]
        data[name] = [
            {"id": f"{prefix}{i:03d}", "description": texts[j], "priority": rank}
            for i, (j, rank) in enumerate(zip(rng.permutation(n), ranks, strict=True), 1)
        ]
    return data
