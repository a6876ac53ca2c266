"""What a judge is asked about a conversation, and how its answer is read."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genesis_lab.domains.conversations.opening import role_of
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.files import resolve, shown
from genesis_lab.texts import fence, indented
from genesis_lab.yamls import read_yaml

SCALE = (1, 2, 3, 4, 5)
_LABELS = ("intent", "sentiment", "resolution_status")
"""Labels of a conversation that the judge is told."""

Words = str | dict[str, str]
"""A text, or one for each language."""


class Criterion(BaseModel):
    """One thing to score. `anchors` say what some of the scores mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z][a-z_]*$")
    question: Words
    anchors: dict[int, Words]

    @property
    def title(self) -> str:
        """The question, in English if it is there."""
        return _in(self.question, "en")


class Rubric(BaseModel):
    """What a judge scores, see ``rubric.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    instructions: Words
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    words: dict[str, Words] = {}

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


def load_rubric(path: str | Path = "") -> Rubric:
    """The rubric in a YAML file; default: the one for customer service that comes with the package.

    Raises
    ------
    InvalidInput : no such file, or it has not the form of ``rubric.yaml``.
    """
    source = resolve(path) if path else Path(__file__).with_name("rubric.yaml")
    if not source.is_file():
        raise InvalidInput(f"There is no rubric file {shown(source)}.")
    try:
        return Rubric.model_validate(read_yaml(source))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"The rubric {shown(source)} is not usable: {where}: {first['msg']}.") from None


def question(record: Mapping[str, Any], rubric: Rubric, taxonomy: Taxonomy | None) -> tuple[str, str, dict[str, Any]]:
    """System prompt, message and JSON schema of the answer, in the record's language.

    What is asked first colours the rest, so records with an odd ``row`` get the criteria in reverse order.
    """
    language = record["language"] or "en"
    criteria = rubric.criteria[:: -1 if record["row"] % 2 else 1]
    parts = [_in(rubric.instructions, language)]
    for criterion in criteria:
        anchors = "; ".join(f"{score}: {_in(text, language)}" for score, text in sorted(criterion.anchors.items()))
        parts.append(f"{criterion.name}: {_in(criterion.question, language)} ({anchors})")

    def word(text: str) -> str:
        return _in(rubric.words.get(text, text), language)

    facts = [f"{word(label)}: {' '.join(record[label].split())}" for label in _LABELS if record[label]]
    if taxonomy and record["intent"] in taxonomy.names:
        described = next(intent for intent in taxonomy.intents if intent.name == record["intent"]).description
        facts[0] += f" ({getattr(described, language, described.en)})"
    said = [(role_of(turn["speaker"]) or turn["speaker"] or "?", turn["text"] or "") for turn in record["turns"]]
    turns = "\n".join(f"{' '.join(word(speaker).split())}: {indented(text)}" for speaker, text in said)
    dashes = fence("\n".join([*facts, turns]))
    return "\n\n".join(parts), "\n".join([*facts, dashes, turns, dashes]), answer_schema(criteria)


def answer_schema(criteria: Sequence[Criterion]) -> dict[str, Any]:
    """JSON schema of a judge's answer: the reason, then a score for each criterion."""
    properties: dict[str, Any] = {"reason": {"type": "string", "maxLength": 500}}
    properties |= {criterion.name: {"type": "integer", "enum": list(SCALE)} for criterion in criteria}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def read_scores(text: str, rubric: Rubric) -> tuple[dict[str, int], str]:
    """Scores and reason in a judge's answer. Raises `ParseFailure`; a score is never guessed."""
    wanted = answer_schema(rubric.criteria)
    data = read_json(text, wanted | {"required": [criterion.name for criterion in rubric.criteria]})
    scores = {}
    for criterion in rubric.criteria:
        value = as_number(data.get(criterion.name))
        if value not in SCALE:
            raise ParseFailure(f"no score from 1 to 5 for {criterion.name}")
        scores[criterion.name] = int(value)
    return scores, " ".join(str(data.get("reason") or "").split())


def as_number(value: object) -> float | None:
    """4, 4.0 and "4" as a number; anything else is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _in(words: Words, language: str) -> str:
    return words if isinstance(words, str) else words.get(language) or next(iter(words.values()))
