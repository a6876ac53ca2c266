"""Who says what a text means: a running Rasa server, a classifier, the bot in its conversations, ``rasa test``.

What a folder of ``rasa test`` holds was checked against the source of Rasa 3.6.21: an errors file is written only when
there are errors, and never removed, so counts come from the reports, and files of another run are named, not believed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import resolve, shown
from genesis_lab.registry import load_in_use
from genesis_lab.review.events import UNTRAINED, entities, prediction, trained
from genesis_lab.review.nlu import examples_in
from genesis_lab.review.nlu_file import Row
from genesis_lab.review.sources import rasa_server
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import messages

Progress = Callable[[int, int], object] | None
"""Called with the cases done and the cases there are."""
Answers = dict[tuple[str, str], tuple[str | None, float | None]]
"""Text and target to prediction and confidence; a model says the same of a text however often it is asked."""
MANY = 100
"""Cases above which a Rasa server is asked for all in one go; it does not tell then where the fallback stepped in."""
_TARGETS = {"intent": "intent", "response_selection": "intent_response_key_target"}


@dataclass(frozen=True)
class Predictor:
    """Who answers cases, each with what is known of ``intent`` (the real prediction's full name), ``confidence``,
    ``fallback`` (whether it stepped in) and ``entities``, or with None. `notes`: what to know of it.
    """

    name: str
    predict: Callable[[Sequence[Row], Progress], list[Row | None]]
    notes: tuple[str, ...] = ()


def predictor(what: str | Path, *, training: Path | None = None) -> Predictor:
    """The model in use on a Rasa server (``http://host:5005``), a folder of ``rasa test nlu`` (held against the data
    folder `training`), or the classifier of a name or folder.
    """
    if "://" in str(what):
        return of_server(str(what))
    folder = resolve(what)
    if not any(folder.glob("*_report.json")) and not any(folder.glob("intent_*.json")):
        return of_classifier(str(what))
    found = read_results(folder, training)
    if (answers := found["answers"]) is None:
        raise InvalidInput(f"{found['name']} can't be compared case by case. {' '.join(found['problems'])}")
    return Predictor(found["name"], lambda cases, on_progress: _joined(cases, *answers), tuple(found["problems"]))


def of_classifier(name: str, model: Any = None) -> Predictor:
    """The classifier in use under a name (`registry.load_in_use`), or a `model` by that name; it finds no entities."""
    model, told = (model, name) if model else load_in_use(name)

    def predict(cases: Sequence[Row], on_progress: Progress) -> list[Row | None]:
        said = model.predict([one["text"] for one in cases])
        untold = {"fallback": None, "entities": None}
        return [{"intent": one.intent, "confidence": one.probability, **untold} for one in said]

    return Predictor(told, predict)


def of_messages(store: Store, model: str | None = None) -> Predictor:
    """What the bot itself understood: of each text the newest message, of one model's (its id) or of all."""
    ours = messages.c.typed & messages.c.intent.isnot(None) & (messages.c.model == model if model else sa.true())
    rows = records(store, sa.select(messages).where(ours).order_by(messages.c.timestamp))
    told = {row["text"]: row | {"entities": trained(row["entities"], UNTRAINED[:2])} for row in rows}
    name = f"the bot, model {model[:8]}" if model else "the bot"
    return Predictor(name, lambda cases, on_progress: [told.get(one["text"]) for one in cases])


def of_server(address: str) -> Predictor:
    """The model in use on a Rasa server: asked text by text (``POST /model/parse``), many first in one go."""
    with rasa_server(address) as ask:
        name = f"{urlsplit(address).netloc} ({ask('GET', '/status').json()['model_file']})"

    def predict(cases: Sequence[Row], on_progress: Progress) -> list[Row | None]:
        with rasa_server(address, timeout_s=600) as ask:
            meant = [one for one in cases if one["intent"]]
            found: list[Row | None] = _in_one_go(ask, meant, cases) if len(meant) > MANY else [None for _ in cases]
            for number, one in enumerate(cases):
                if found[number] is None:
                    told = ask("POST", "/model/parse", json={"text": one["text"]}).json()
                    spans = trained(entities(told, one["text"]), UNTRAINED[:2])
                    found[number] = {**prediction(told), "entities": spans}
                if on_progress:
                    on_progress(number + 1, len(cases))
        return found

    return Predictor(name, predict)


def _in_one_go(ask: Callable[..., Any], meant: Sequence[Row], cases: Sequence[Row]) -> list[Row | None]:
    """What ``POST /model/test/intents`` says of `cases`, of which some are `meant`: no fallback, no ranking.

    None for what it leaves open: a lone intent or response, and entities, of which it reads neither role nor group.
    """
    examples = []
    for one in meant:
        spans = [{key: span[key] for key in ("start", "end", "entity")} for span in one["entities"] or ()]
        examples.append({"text": one["text"], "intent": one["intent"], "entities": spans})
    try:
        data = {"rasa_nlu_data": {"common_examples": examples}}
        told = ask("POST", "/model/test/intents", json=data).json()
    except Unavailable:  # it may still parse, or says why not
        told = {}
    said = {kind: (told.get(f"{kind}_evaluation") or {}).get("predictions", ()) for kind in _TARGETS}
    intents = {(one["text"], one["intent"]): (one["predicted"] or None, one["confidence"]) for one in said["intent"]}
    target, guess = "intent_response_key_target", "intent_response_key_prediction"
    replies = {(one["text"], one[target]): (one[guess], one["confidence"]) for one in said["response_selection"]}
    tested = told.get("entity_evaluation")  # None where no example has one
    missed = {one["text"]: one["predicted_entities"] for each in (tested or {}).values() for one in each["errors"]}
    found_spans = None if tested is None else {one["text"]: [] for one in cases} | missed
    found = _joined(cases, intents, replies, found_spans)
    return [None if one["entities"] else said for one, said in zip(cases, found, strict=True)]


def read_results(folder: Path, training: Path | None = None) -> Row:
    """What a folder of ``rasa test nlu`` says; a test on texts of the data folder `training` is named.

    ``labels``: what was tested (intent, response_selection, story, an extractor) with each label's support, errors and
    recall, lowest first; ``problems`` in sentences; ``answers`` to single texts, None where a problem forbids it.
    """
    problems, labels, spans = list[str](), list[Row](), dict[str, list[Row]]()
    try:
        files = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")}
        answers, replies = (_tested(files, kind, problems) for kind in _TARGETS)
        texts = Counter(text for text, _ in answers or ())
        spans = {text: [] for text in texts}
        for kind in sorted(name.removesuffix("_report") for name in files if name.endswith("_report")):
            labels += [{"tested": kind, **row} for row in _labels(files, kind)]
            stale = kind not in _TARGETS and files[f"{kind}_report"].get("accuracy") == 1
            if stale and files.pop(f"{kind}_errors", ()):
                problems.append(f"{kind}_errors.json is of another run, the report counts none: remove it, test again.")
            listed = [*files.get(f"{kind}_successes", ()), *files.get(f"{kind}_errors", ())]
            spans |= {one["text"]: one["predicted_entities"] for one in listed if kind not in _TARGETS}
        path = folder / "failed_test_stories.yml"
        stories = path.read_text("utf-8") if path.exists() else ""
        told = files.get("story_report", {}).get("conversation_accuracy") or {"total": 0, "correct": 0}
        if (held := stories.count("- story: ")) != (missed := told["total"] - told["correct"]):
            problems.append(f"{path.name} is of another run: it holds {held:,} stories, story_report.json {missed:,}.")
    except (AttributeError, LookupError, TypeError, ValueError, OSError):
        raise InvalidInput(f"{shown(folder)} holds what rasa test does not write: test again.") from None
    tested = {row["tested"] for row in labels}
    if "intent" not in tested:
        problems.append("There is no intent_report.json: Rasa writes it for two intents or more.")
    if twice := [text for text, times in texts.items() if times > 1]:
        problems.append(f"{len(twice):,} texts were tested under several intents, the first is {twice[0]!r}.")
    known = {one["text"] for one in examples_in(training)}
    if texts and (same := len(known & texts.keys())) >= 0.9 * len(texts):
        problems.append(f"This scored the training data: {same:,} of {len(texts):,} texts are in it.")
    said = (answers, replies, spans if tested - {*_TARGETS, "story"} else None)
    usable = "intent" in tested and None not in (answers, replies)
    return {"name": shown(folder), "labels": labels, "problems": problems, "answers": said if usable else None}


def _joined(cases: Sequence[Row], intents: Answers, replies: Answers, spans: Row | None) -> list[Row | None]:
    """The prediction for each case (see `Predictor`), by text and target; of a case without an intent by its text."""
    found, by_text = list[Row | None](), {text: said for (text, _), said in intents.items()}
    for one in cases:
        text, base = one["text"], (one["intent"] or "").partition("/")[0]
        said = intents.get((text, base)) if base else by_text.get(text)
        if said and said[0] == base != one["intent"]:  # which response it is, the selector says
            reply = replies.get((text, one["intent"]))
            said = reply and (reply[0], said[1])
        entities = None if spans is None else spans.get(text)
        found.append(said and {"intent": said[0], "confidence": said[1], "fallback": None, "entities": entities})
    return found


def _tested(files: Mapping[str, Any], kind: str, problems: list[str]) -> Answers | None:
    """The answers to single texts, None unless they are all there and agree with the report."""
    target, report, answers, whole = _TARGETS[kind], _labels(files, kind), Answers(), True
    prediction = f"{target.removesuffix('_target')}_prediction"
    wrong, asked = (Counter({row["label"]: row[key] for row in report}) for key in ("errors", "support"))
    for part, counts in (("errors", wrong), ("successes", asked - wrong)):
        listed = files.get(f"{kind}_{part}", ())
        said = {(one["text"], one[target]): one[prediction] for one in listed}
        answers |= {key: (one["name"] or None, one["confidence"]) for key, one in said.items()}
        if Counter(one[target] for one in listed) != +counts:
            stale = f"is of another run, it holds {len(listed):,}: remove it and test again"
            what = f"{kind}_{part}.json {stale if listed else 'is not there: test with --successes'}"
            problems.append(f"{what} ({kind}_report.json counts {counts.total():,}).")
            whole = False
    return answers if whole else None


def _labels(files: Mapping[str, Any], kind: str) -> list[Row]:
    """A report label by label, without its averages, lowest recall first; `errors` is how many were missed."""
    report = files.get(f"{kind}_report", {}).items()
    kept = ((label, one) for label, one in report if "recall" in str(one) and " avg" not in label)
    rows = [{"label": label, **one, "errors": round(one["support"] * (1 - one["recall"]))} for label, one in kept]
    return sorted(rows, key=lambda row: row["recall"])
