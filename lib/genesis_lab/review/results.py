"""A folder of ``rasa test``, read critically: counts come from its reports, and files of another run are named, not believed.

Checked against the source of Rasa 3.6.21: an errors file is written only when there are errors, and never removed.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.files import shown
from genesis_lab.review.nlu import read_data
from genesis_lab.training.evaluation import share

Row = dict[str, Any]
Spans = dict[str, list[Row]]
Answers = dict[tuple[str, str], tuple[str | None, float | None]]
"""Text and target to prediction and confidence; a model says the same of a text however often it is asked."""
_KEYS = {"intent": ("intent", "intent_prediction"),
         "response_selection": ("intent_response_key_target", "intent_response_key_prediction")}  # fmt: skip
_TRAINED_ON = 0.9
"""Share of texts in the training data from which on a result says nothing of new ones."""
_STEP = re.compile(r"\s*(?:- )?(\w+): ?(.*?)(?:\s*# predicted: (.*))?$")


def is_results(folder: Path) -> bool:
    """Whether ``rasa test`` has written into a folder."""
    return folder.is_dir() and any(any(folder.glob(f"*_{part}.json")) for part in ("report", "errors", "successes"))


def read_results(folder: Path, training: Path | None = None) -> Row:
    """What a folder of ``rasa test`` says; a test on texts of the data folder `training` is named.

    ``accuracy`` and ``responses`` with Wilson's interval, None where not tested; ``intents`` and ``entities`` (label,
    support, errors, recall, precision, confused_with); ``failures`` of stories; ``problems`` in sentences; ``answers``
    as `joined` takes them, None where a problem forbids it.
    """
    if not is_results(folder):
        raise InvalidInput(f"{shown(folder)} holds no results of rasa test, such as intent_report.json.")
    problems = list[str]()
    (intents, answers), (responses, replies) = (_tested(folder, kind, problems) for kind in _KEYS)
    if intents is None:
        problems.append("There is no intent_report.json: Rasa writes it for two intents or more.")
    whole = answers is not None and replies is not None
    texts = Counter(text for text, _ in answers or ())
    if twice := [text for text, n in texts.items() if n > 1]:
        problems.append(f"{len(twice):,} texts were tested under several intents, the first is {twice[0]!r}.")
    known = {one["text"] for source in (read_data(training) if training else ()) for one in source.examples}
    if texts and (n := len(known & texts.keys())) >= _TRAINED_ON * len(texts):
        problems.append(f"This scored the training data: {n:,} of {len(texts):,} texts are in it.")
    entities, spans = _entities(folder, texts, problems)
    return {
        "name": shown(folder), "accuracy": _accuracy(intents), "responses": _accuracy(responses), "entities": entities,
        "intents": sorted(intents or (), key=lambda row: row["recall"]), "failures": _failures(folder, problems),
        "answers": (answers, replies, spans) if whole and intents else None, "problems": problems,
    }  # fmt: skip


def joined(
    cases: Sequence[Row], intents: Answers, responses: Answers, entities: Mapping[str, Sequence[Row]] | None
) -> list[Row | None]:
    """The prediction for each case (see `predictors.Predictor`); of a text without `entities` what was expected is there."""
    found = list[Row | None]()
    for one in cases:
        text, base = one["text"], one["intent"].partition("/")[0]
        said = intents.get((text, base))
        if said and said[0] == base != one["intent"]:  # which response it is, the selector says
            reply = responses.get((text, one["intent"]))
            said = (reply[0], said[1]) if reply else None
        spans = None if entities is None else entities.get(text, one["entities"])
        told = said and {"intent": said[0] or None, "confidence": said[1], "fallback": None, "entities": spans}
        found.append(told)
    return found


def _tested(folder: Path, kind: str, problems: list[str]) -> tuple[list[Row] | None, Answers | None]:
    """A report by label, and the answers to single texts where all are there and agree with it."""
    (target, prediction), report = _KEYS[kind], _labels(folder / f"{kind}_report.json")
    answers, whole = Answers(), True
    for part in ("errors", "successes"):
        name, listed = f"{kind}_{part}.json", _json(folder / f"{kind}_{part}.json")
        counts = {row["label"]: row["errors"] for row in report or ()}
        if part == "successes":
            counts = {row["label"]: row["support"] - row["errors"] for row in report or ()}
        try:
            held = Counter(one[target] for one in listed or ())
            found = {(one["text"], one[target]): one[prediction] for one in listed or ()}
            answers |= {key: (said["name"], said["confidence"]) for key, said in found.items()}
        except (TypeError, LookupError):
            raise InvalidInput(f"{shown(folder / name)} is not what rasa test writes: test again.") from None
        if held != +Counter(counts):
            whole, n = False, sum(counts.values())
            is_there = f"is of another run, it holds {held.total():,}: remove it and test again"
            what = is_there if listed is not None else "is not there: test with --successes"
            problems.append(f"{name} {what} ({f'the report counts {n:,}' if report is not None else 'no report'}).")
    return report, answers if whole else None


def _labels(path: Path) -> list[Row] | None:
    """A report label by label, without its averages: how often each was asked for, and missed."""
    try:
        return None if (report := _json(path)) is None else [
            {"label": label, **{key: one[key] for key in ("recall", "precision", "support")},
             "errors": round(one["support"] * (1 - one["recall"])), "confused_with": one.get("confused_with", {})}
            for label, one in report.items() if isinstance(one, dict) and "recall" in one and not label.endswith(" avg")
        ]  # fmt: skip
    except (AttributeError, TypeError, LookupError):
        raise InvalidInput(f"{shown(path)} must hold precision, recall and support by label: test again.") from None


def _accuracy(report: Sequence[Row] | None) -> Row | None:
    n, wrong = (sum(row[key] for row in report or ()) for key in ("support", "errors"))
    return share(n - wrong, n).to_dict() if n else None


def _entities(folder: Path, texts: Iterable[str], problems: list[str]) -> tuple[list[Row], Spans | None]:
    """What each extractor found by label, and the entities of each text that is listed; None where none were tested."""
    rows, spans = list[Row](), {text: list[Row]() for text in texts}
    for path in sorted(folder.glob("*_report.json")):
        if (extractor := path.name.removesuffix("_report.json")) in (*_KEYS, "story"):
            continue
        rows += [{"extractor": extractor, **row} for row in _labels(path) or ()]
        found = {part: _json(folder / f"{extractor}_{part}.json") or [] for part in ("successes", "errors")}
        if found["errors"] and _json(path).get("accuracy") == 1:
            problems.append(
                f"{extractor}_errors.json is of another run, the report counts none: remove it, test again."
            )
            found["errors"] = []
        spans |= {one["text"]: one["predicted_entities"] for part in found.values() for one in part}
    return rows, spans if rows else None


def _failures(folder: Path, problems: list[str]) -> list[Row]:
    """Where stories went another way: what was predicted stands in comments of ``failed_test_stories.yml``."""
    path, counted = folder / "failed_test_stories.yml", (_json(folder / "story_report.json") or {})
    failures, stories = list[Row](), list[str]()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        key, value, predicted = found.groups() if (found := _STEP.match(line)) else ("", "", None)
        stories += [value] if key == "story" else []
        if predicted:
            failures.append({"story": stories[-1], "step": key, "expected": value, "predicted": predicted})
    told = counted.get("conversation_accuracy") or {"total": 0, "correct": 0}
    if len(stories) == (missed := told["total"] - told["correct"]):
        return failures
    problems.append(f"{path.name} is of another run: it holds {len(stories):,} stories, story_report.json {missed:,}.")
    return []


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    except (OSError, ValueError):
        raise InvalidInput(f"{shown(path)} is not the JSON that rasa test writes: test again.") from None
