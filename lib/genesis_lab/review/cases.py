"""Cases of the regression test: what a bot must understand, kept in the review store or read from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, Field, Json, ValidationError

from genesis_lab.dataset.sources import locate, read_rows
from genesis_lab.dataset.spreadsheet import plain_cell
from genesis_lab.errors import InvalidInput, sentence
from genesis_lab.files import shown
from genesis_lab.review.labelling import add
from genesis_lab.review.nlu import read_data
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import cases, labels, messages

Row = dict[str, Any]


class Span(BaseModel):
    """An entity, where it stands in code points of its text."""

    entity: str = Field(min_length=1)
    start: int = Field(ge=0)
    end: int = Field(ge=1)
    role: str | None = None
    group: str | None = None


class Case(BaseModel):
    """What a text must be understood as: its full intent, how sure at least, and entities (None: they are not tested)."""

    text: str = Field(pattern=r"\S")
    intent: str = Field(pattern="^[^/]+(/[^/]+)?$")
    entities: list[Span] | Json[list[Span]] | None = None
    min_confidence: float = Field(0.7, ge=0, le=1)
    message: str | None = None


def make_case(where: str, **fields: Any) -> Row:
    """A case as the functions here take it, the fields of `Case`; `InvalidInput` where one is wrong."""
    try:
        return Case(**fields).model_dump()
    except ValidationError as error:
        raise InvalidInput(f"{where}: {sentence(error)}") from None


def read_cases(path: str | Path) -> list[Row]:
    """The cases of a ``test_nlu.yml``, or of a CSV or JSONL file whose columns are fields of `Case` (entities as JSON)."""
    place = locate(path)
    if place.suffix in (".yml", ".yaml"):
        (source,) = read_data(place)
        if wrong := [one for one in source.problems if one["level"] == "error"]:
            raise InvalidInput(f"{shown(place)}, line {wrong[0]['line']}: {wrong[0]['problem']}.")
        rows = [(one["line"], one) for one in source.examples]
    else:
        cells = ((row.number, (row.value or {}).items()) for row in read_rows(place))
        rows = [(n, {k: plain_cell(v) if isinstance(v, str) else v for k, v in row if v != ""}) for n, row in cells]
    if not rows:
        raise InvalidInput(f"{shown(place)} holds no case: give examples of intents, or rows with text and intent.")
    return [
        make_case(f"{shown(place)}, line {n}", **{k: v for k, v in row.items() if v is not None}) for n, row in rows
    ]


def list_cases(store: Store) -> list[Row]:
    """The cases of a store, oldest first."""
    return records(store, sa.select(cases).order_by(cases.c.id))


def add_cases(store: Store, given: Sequence[Row], *, author: str | None = None) -> list[int]:
    """Keep cases, each text once; their ids. A text that is a case of another intent is refused, and nothing is written."""
    known = {one["text"]: one for one in list_cases(store)}
    for one in given:
        if (there := known.setdefault(one["text"], one))["intent"] != one["intent"]:
            both = f"{there['intent']} and of {one['intent']}"
            raise InvalidInput(f"{one['text'][:60]!r} would be a case of {both}: a text has one, remove the other.")
    for text, one in known.items():
        if "id" not in one:
            known[text] = {**one, "id": add(store, "cases", author=author, **one)}
    return [known[one["text"]]["id"] for one in given]


def case_of_message(store: Store, message: str, *, author: str | None = None) -> int:
    """Make a message a case, of what people say that it means, else of what was understood; the case's id."""
    found = records(store, sa.select(messages).where(messages.c.key == message, ~messages.c.lossy))
    said = (labels.c.message == message) & (labels.c.status != "rejected") & labels.c.intent.isnot(None)
    people = records(store, sa.select(labels).where(said).order_by(labels.c.status, labels.c.id.desc()))
    if not found or not found[0]["text"]:
        raise InvalidInput(f"Message {message!r} can't become a case: its text is not there, or can't be written down.")
    told = found[0]
    gold = {"intent": told["gold"], "entities": told["gold_entities"]} if told["gold"] else told
    one = {key: (people or [gold])[0][key] for key in ("intent", "entities")}
    made = make_case(f"Message {message!r}", text=told["text"], message=message, **one)
    return add_cases(store, [made], author=author)[0]
