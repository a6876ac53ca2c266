"""The regression test: the same cases answered by one model or by two, what broke, and whether that can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review.predictors import Predictor, Progress
from genesis_lab.review.rasa_server import SAID
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import messages
from genesis_lab.stats import paired
from genesis_lab.training.evaluation import share
from genesis_lab.yamls import shipped

Row = dict[str, Any]


def compare(
    cases: Sequence[Row],
    after: Predictor,
    before: Predictor | None = None,
    *,
    margin: float = 0.05,
    on_progress: Progress | None = None,
) -> Row:
    """Ask a model, or a new and a former one, for all cases (`cases.read_cases`); report kind ``regression``.

    A case is right if its full intent is; confidence and entities have verdicts of their own. Two models are compared by
    McNemar's test (`stats.paired`) on the cases that both answered, each text once; `margin` is the difference that matters.
    Returns ``verdict``, ``sides`` (new first: intervals, or the reason in ``not_measured``), ``pair`` (None for one),
    ``changes`` (what broke, then what was mended), ``wrong`` (by the new one), ``cases``, ``notes``.
    """
    if not cases:
        raise InvalidInput("A regression test needs cases: add some, or read a bot's test_nlu.yml.")
    who = [one for one in (after, before) if one]
    said = [one.predict(cases, on_progress or (lambda done, total: None)) for one in who]
    judged = [[_judged(*each) for each in zip(cases, answers, strict=True)] for answers in said]
    rows = [{"text": one["text"], "intent": one["intent"], **_told("", a, x), **_told("was ", b, y)}
            for one, a, x, b, y in zip(cases, said[0], judged[0], said[-1], judged[-1], strict=True)]  # fmt: skip
    both = [row for row in rows if None not in (row["right"], row["was right"])] if before else []
    verdict, pair, notes = "not compared: no case was answered by both", None, list[str]()
    if not before:
        right = [bool(row["right"]) for row in rows]
        verdict = f"{sum(right):,} of {len(right):,} cases are right"
    if before and len(both) < len(rows):
        notes.append(f"{len(rows) - len(both):,} of {len(rows):,} cases were not answered by both, and left out.")
    if both:
        sides = ([row[name] for row in both] for name in ("right", "was right", "text"))
        found = paired(*sides, margin=margin)
        verdict = f"{shipped(SAID)['verdicts'][found.verdict]}: {found.losses:,} broke, {found.wins:,} mended, of {found.difference.n:,}"
        pair = {"difference": found.difference.to_dict(), "p": found.p, "verdict": found.verdict}
        pair |= {"broke": found.losses, "mended": found.wins, "same": found.ties}
    changes = [
        {**row, "what": "mended" if row["right"] else "broke"} for row in both if row["right"] != row["was right"]
    ]
    return {
        "verdict": verdict, "sides": [_side(*each) for each in zip(who, judged, strict=True)], "pair": pair,
        "changes": sorted(changes, key=lambda row: row["what"]), "wrong": [row for row in rows if row["right"] is False],
        "cases": len(rows), "margin": margin, "notes": notes,
    }  # fmt: skip


def _judged(case: Row, said: Row | None) -> dict[str, bool | None]:
    """Whether an answer is right, sure enough, has the entities, is a fallback; None where that can't be told."""
    if said is None:
        return dict.fromkeys(("accuracy", "sure", "entities", "fallback"))
    spans = None in (said["entities"], case["entities"])
    return {"accuracy": said["intent"] == case["intent"], "fallback": said["fallback"],
            "sure": None if said["confidence"] is None else said["confidence"] >= case["min_confidence"],
            "entities": None if spans else _spans(said["entities"]) == _spans(case["entities"])}  # fmt: skip


def _spans(entities: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Entities as they are compared, with role and group; several extractors may find the same."""
    return {tuple(one.get(key) or None for key in ("start", "end", "entity", "role", "group")) for one in entities}


def _told(when: str, said: Row | None, judged: Row) -> Row:
    answer = said or {"intent": None, "confidence": None}
    return {
        f"{when}understood": answer["intent"],
        f"{when}confidence": answer["confidence"],
        f"{when}right": judged["accuracy"],
    }


def _side(who: Predictor, judged: Sequence[Row]) -> Row:
    why, side = shipped(SAID)["not_measured"], Row(name=who.name, notes=list(who.notes))
    for what in why:
        told = [row[what] for row in judged if row[what] is not None]
        side[what] = share(sum(told), len(told)).to_dict() if told else None
    return side | {"not_measured": {what: reason for what, reason in why.items() if side[what] is None}}


def deployed(store: Store) -> list[Row]:
    """The models that the events name, the newest of each source first: it is deployed now; None: the bot does not say."""
    of, at = (messages.c.source, messages.c.assistant, messages.c.model), messages.c.timestamp
    query = sa.select(
        *of, sa.func.min(at).label("first"), sa.func.max(at).label("last"), sa.func.count().label("messages")
    )
    return records(store, query.group_by(*of).order_by(messages.c.source, sa.func.max(at).desc()))
