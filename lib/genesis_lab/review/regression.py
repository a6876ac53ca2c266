"""The regression test: the same cases answered by one model or by two, what broke, and whether that can be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.review.nlu import Row
from genesis_lab.review.numbers import rate
from genesis_lab.review.predictors import Predictor, Progress
from genesis_lab.stats import paired
from genesis_lab.yamls import shipped

SAID = Path(__file__).with_name("regression.yaml")


def compare(
    cases: Sequence[Row], after: Predictor, before: Predictor | None = None, *, on_progress: Progress = None
) -> Row:
    """Ask a model, or a new and a former one, for all cases (`cases.read_cases`); report kind ``regression``.

    A case is right if its full intent is; confidence and entities have verdicts of their own. Two models are compared by
    McNemar's test (`stats.paired`) on the cases that both answered, each text once.
    Returns ``verdict``, ``sides`` (new first: intervals, or the reason in ``not_measured``), ``pair`` (None for one),
    ``changes`` (what broke, then what was mended), ``wrong`` (by the new one), ``cases`` and ``left_out`` (how many).
    """
    if not cases:
        raise InvalidInput("A regression test needs cases: add some, or read a bot's test_nlu.yml.")
    who = [one for one in (after, before) if one]
    judged = [[*map(_judged, cases, one.predict(cases, on_progress))] for one in who]
    rows = [{"text": case["text"], "intent": case["intent"], **now, **{f"was {key}": value for key, value in was.items()}}
            for case, now, was in zip(cases, judged[0], judged[-1], strict=True)]  # fmt: skip
    both = [row for row in rows if None not in (row["right"], row["was right"])] if before else []
    right, pair = f"{sum(row['right'] is True for row in rows):,} of {len(rows):,} cases are right", None
    verdict = "No comparison: no case was answered by both" if before else right
    if both:
        found = paired(*([row[name] for row in both] for name in ("right", "was right", "text")))
        pair = {"difference": found.difference.to_dict(), "p": found.p, "verdict": found.verdict, "same": found.ties}
        pair |= {"broke": found.losses, "mended": found.wins}
        told = f"{found.losses:,} broke, {found.wins:,} mended, of {found.difference.n:,}"
        verdict = f"{shipped(SAID)['verdicts'][found.verdict]}: {told}"
    changes = [row | {"what": "mended" if row["right"] else "broke"} for row in both if row["right"] ^ row["was right"]]
    return {
        "verdict": verdict, "sides": [_side(*each) for each in zip(who, judged, strict=True)], "pair": pair,
        "changes": sorted(changes, key=lambda row: row["what"]), "wrong": [row for row in rows if row["right"] is False],
        "cases": len(rows), "left_out": len(rows) - len(both) if before else 0,
    }  # fmt: skip


def _judged(case: Row, said: Row | None) -> Row:
    """An answer, and whether it is right, sure enough, has the entities, is a fallback; None where that can't be told."""
    if said is None:
        return dict.fromkeys(("understood", "confidence", "right", "sure", "entities", "fallback"))
    sure, spans = said["confidence"], None in (said["entities"], case["entities"])
    return {
        "understood": said["intent"], "confidence": sure, "right": said["intent"] == case["intent"],
        "sure": None if sure is None else sure >= case["min_confidence"], "fallback": said["fallback"],
        "entities": None if spans else _spans(said["entities"]) == _spans(case["entities"]),
    }  # fmt: skip


def _spans(entities: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Entities as they are compared, with role and group; several extractors may find the same."""
    return {tuple(one.get(key) or None for key in ("start", "end", "entity", "role", "group")) for one in entities}


def _side(who: Predictor, judged: Sequence[Row]) -> Row:
    why, side = shipped(SAID)["not_measured"], Row(name=who.name, notes=list(who.notes))
    for what in why:
        told = [row[what] for row in judged if row[what] is not None]
        side[what] = rate(sum(told), len(told))
    return side | {"not_measured": {what: reason for what, reason in why.items() if side[what] is None}}
