"""Cases of the regression test: what a bot must understand, kept in the review store or read from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from genesis_lab.dataset.sources import locate
from genesis_lab.errors import InvalidInput
from genesis_lab.files import shown
from genesis_lab.review.events import UNTRAINED, trained
from genesis_lab.review.labelling import add
from genesis_lab.review.nlu import Row
from genesis_lab.review.nlu_merge import check_example, read_examples
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import cases, labels, messages


def make_case(where: str, given: Mapping[str, Any], message: str | None = None) -> Row:
    """A case: ``text``, full ``intent``, ``entities`` (None: not tested) and ``min_confidence`` (0.7); refused as `where`."""
    case = {key: given.get(key) for key in ("text", "intent", "entities")}
    try:
        check_example({**case, "entities": case["entities"] or []})
        least = float(given.get("min_confidence") or 0.7)
        if not str(case["text"]).strip() or not 0 <= least <= 1:
            raise InvalidInput("it needs a text, and min_confidence between 0 and 1")
    except (InvalidInput, ValueError, TypeError) as error:
        raise InvalidInput(f"{where} can't be a case: {error}.") from None
    return {**case, "min_confidence": least, "message": message}


def read_cases(path: str | Path) -> list[Row]:
    """The cases of a ``test_nlu.yml``, or of a table or JSON lines (`nlu_merge.read_examples`, and min_confidence)."""
    place = locate(path)
    return [make_case(f"{shown(place)}, line {row['line']},", row) for row in read_examples(place)]


def list_cases(store: Store) -> list[Row]:
    """The cases of a store, oldest first; those of people who were forgotten have no text, and are none."""
    return records(store, sa.select(cases).where(cases.c.text != "").order_by(cases.c.id))


def add_cases(store: Store, given: Sequence[Row], *, author: str | None = None) -> list[int]:
    """Keep cases, each text once; their ids. A text that is a case of another intent is refused, and nothing is written."""
    known = {one["text"]: one for one in list_cases(store)}
    kept = ("text", "intent", "entities", "min_confidence", "message")
    for one in given:
        there = known.setdefault(one["text"], {key: one[key] for key in kept})
        if (said := there["intent"]) != one["intent"]:
            raise InvalidInput(f"{one['text'][:60]!r} is a case of {said}, not of {one['intent']}: remove one of them.")
    for one in (one for one in known.values() if "id" not in one):
        one["id"] = add(store, "cases", author=author, **one)
    return [known[one["text"]]["id"] for one in given]


def case_of_message(store: Store, message: str, intent: str | None = None, *, author: str | None = None) -> int:
    """Make a message a case: of `intent`, else of what people say that it means, else of what was understood; its id."""
    found = records(store, sa.select(messages).where(messages.c.key == message, messages.c.text.is_not(None)))
    if not found or (told := found[0])["lossy"]:
        why = "its characters can't all be shown" if found else "it is gone or its text was deleted"
        raise InvalidInput(f"Message {message!r} can't be a case: {why}.")
    said = (labels.c.message == message) & (labels.c.status != "rejected") & labels.c.intent.isnot(None)
    people = records(store, sa.select(labels).where(said).order_by(labels.c.status, labels.c.id.desc()))
    by = {key: people[0][key] for key in ("intent", "entities")} if people else {}
    meant = told | ({"intent": told["gold"], "entities": told["gold_entities"]} if told["gold"] else {}) | by
    meant |= {"intent": intent or meant["intent"], "entities": trained(meant["entities"], UNTRAINED[:2])}
    return add_cases(store, [make_case(f"Message {message!r}", meant, message)], author=author)[0]
