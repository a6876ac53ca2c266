"""The regression test: what a bot must understand, answered by a model or by two, and what broke."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from genesis_lab.dataset.sources import locate
from genesis_lab.errors import InvalidInput
from genesis_lab.files import shown
from genesis_lab.review.events import UNTRAINED, trained
from genesis_lab.review.labelling import add, read_examples
from genesis_lab.review.models import Predictor, Progress
from genesis_lab.review.nlu_file import Row, check_example
from genesis_lab.review.numbers import rate
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import cases, labels, messages
from genesis_lab.stats import paired
from genesis_lab.yamls import shipped

SAID = Path(__file__).with_name("regression.yaml")
_KEPT = ("text", "intent", "entities", "min_confidence", "message")


def make_case(where: str, given: Mapping[str, Any], message: str | None = None) -> Row:
    """A case: ``text``, full ``intent``, ``entities`` (None: untested), ``min_confidence``; refused as `where`."""
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
    """The cases of a ``test_nlu.yml``, or of a table or JSON lines (`read_examples`, and min_confidence)."""
    place = locate(path)
    return [make_case(f"{shown(place)}, line {row['line']},", row) for row in read_examples(place)]


def list_cases(store: Store) -> list[Row]:
    """The cases of a store, oldest first; those of people who were forgotten have no text, and are none."""
    return records(store, sa.select(cases).where(cases.c.text != "").order_by(cases.c.id))


def add_cases(store: Store, given: Sequence[Row]) -> list[int]:
    """Keep cases, each text once; their ids. A text that is a case of another intent is refused: nothing is written."""
    known = {one["text"]: one for one in list_cases(store)}
    for one in given:
        there = known.setdefault(one["text"], {key: one[key] for key in _KEPT})
        if (said := there["intent"]) != one["intent"]:
            raise InvalidInput(f"{one['text'][:60]!r} is a case of {said}, not of {one['intent']}: remove one of them.")
    for one in (one for one in known.values() if "id" not in one):
        one["id"] = add(store, "cases", **one)
    return [known[one["text"]]["id"] for one in given]


def case_of_message(store: Store, message: str, intent: str | None = None) -> int:
    """Make a message a case: of `intent`, else of what people say it means, else of what was understood; its id."""
    found = records(store, sa.select(messages).where(messages.c.key == message, messages.c.text.is_not(None)))
    if not found or (told := found[0])["lossy"]:
        why = "its characters can't all be shown" if found else "it is gone or its text was deleted"
        raise InvalidInput(f"Message {message!r} can't be a case: {why}.")
    said = (labels.c.message == message) & (labels.c.status != "rejected") & labels.c.intent.isnot(None)
    people = records(store, sa.select(labels).where(said).order_by(labels.c.status, labels.c.id.desc()))
    meant, spans = told["intent"], told["entities"]
    if people:
        meant, spans = people[0]["intent"], people[0]["entities"]
    elif told["gold"]:
        meant, spans = told["gold"], told["gold_entities"]
    case = {"text": told["text"], "intent": intent or meant, "entities": trained(spans, UNTRAINED[:2])}
    return add_cases(store, [make_case(f"Message {message!r}", case, message)])[0]


def compare(
    cases: Sequence[Row], after: Predictor, before: Predictor | None = None, *, on_progress: Progress | None = None
) -> Row:
    """Ask a model, or a new and a former one, for all cases (`read_cases`); report kind ``regression``.

    A case is right if its full intent is; confidence and entities have verdicts of their own. Two models are compared
    by McNemar's test (`stats.paired`) on the cases that both answered, each text once. Returns ``verdict``, ``sides``
    (new first; shares with intervals, None of nothing), ``pair`` (None for one model), ``changes`` (what broke, then
    what was mended), ``wrong`` (by the new one), ``cases`` and ``left_out`` (how many).
    """
    if not cases:
        raise InvalidInput("A regression test needs cases: add some, or read a bot's test_nlu.yml.")
    who = [one for one in (after, before) if one]
    judged = [[*map(_judged, cases, one.predict(cases, on_progress))] for one in who]
    rows = [
        {"text": case["text"], "intent": case["intent"], **now, **{f"was {key}": value for key, value in was.items()}}
        for case, now, was in zip(cases, judged[0], judged[-1], strict=True)
    ]
    both = [row for row in rows if None not in (row["right"], row["was right"])] if before else []
    right, pair = f"{sum(row['right'] is True for row in rows):,} of {len(rows):,} cases are right", None
    verdict = "No comparison: no case was answered by both" if before else right
    if both:
        found = paired(*([row[name] for row in both] for name in ("right", "was right", "text")))
        pair = {"difference": found.difference.to_dict(), "p": found.p, "verdict": found.verdict}
        pair |= {"broke": found.losses, "mended": found.wins, "same": found.ties}
        told = f"{found.losses:,} broke, {found.wins:,} mended, of {found.difference.n:,}"
        verdict = f"{shipped(SAID)[found.verdict]}: {told}"
    changes = [row | {"what": "mended" if row["right"] else "broke"} for row in both if row["right"] ^ row["was right"]]
    return {
        "verdict": verdict,
        "sides": [_side(*each) for each in zip(who, judged, strict=True)],
        "pair": pair,
        "changes": sorted(changes, key=lambda row: row["what"]),
        "wrong": [row for row in rows if row["right"] is False],
        "cases": len(rows),
        "left_out": len(rows) - len(both) if before else 0,
    }


def _judged(case: Row, said: Row | None) -> Row:
    """An answer, and whether it is right, sure enough, has the entities, is a fallback; None where that is unknown."""
    if said is None:
        return dict.fromkeys(("understood", "confidence", "right", "sure", "entities", "fallback"))
    sure, untold = said["confidence"], None in (said["entities"], case["entities"])
    return {
        "understood": said["intent"],
        "confidence": sure,
        "right": said["intent"] == case["intent"],
        "sure": None if sure is None else sure >= case["min_confidence"],
        "entities": None if untold else _spans(said["entities"]) == _spans(case["entities"]),
        "fallback": said["fallback"],
    }


def _spans(entities: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Entities as they are compared, with role and group; several extractors may find the same."""
    return {tuple(one.get(key) or None for key in ("start", "end", "entity", "role", "group")) for one in entities}


def _side(who: Predictor, judged: Sequence[Row]) -> Row:
    side = Row(name=who.name, notes=list(who.notes))
    for what in ("right", "sure", "entities", "fallback"):
        told = [row[what] for row in judged if row[what] is not None]
        side[what] = rate(sum(told), len(told))
    return side
