"""Who says what a text means: a running Rasa server, a classifier, the bot in its conversations, a folder of ``rasa test``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import resolve
from genesis_lab.registry import load_in_use
from genesis_lab.review.events import entities, prediction
from genesis_lab.review.rasa_server import rasa_server
from genesis_lab.review.results import is_results, joined, read_results
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import messages

Row = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with the cases done and the cases there are."""


@dataclass(frozen=True)
class Predictor:
    """Who answers cases: ``intent`` (the real prediction's full name), ``confidence``, ``fallback`` (whether it stepped in)
    and ``entities`` of each, None for what is not known; None for a case without an answer. `notes`: what to know of it."""

    name: str
    predict: Callable[[Sequence[Row], Progress], list[Row | None]]
    notes: tuple[str, ...] = ()


def predictor(what: str | Path, *, training: Path | None = None) -> Predictor:
    """The model of a Rasa server (``http://host:5005``, another of its models with ``?model=models/new.tar.gz``), a folder
    of ``rasa test nlu`` (held against the data folder `training`), or the classifier of a name or folder."""
    if "://" in str(what):
        return of_server(str(what))
    if not is_results(folder := resolve(what)):
        return of_classifier(str(what))
    results = read_results(folder, training)
    if (answers := results["answers"]) is None:
        raise InvalidInput(f"{results['name']} can't be compared case by case. {' '.join(results['problems'])}")
    return Predictor(results["name"], lambda cases, on_progress: joined(cases, *answers), tuple(results["problems"]))


def of_classifier(name: str, model: Any = None) -> Predictor:
    """The classifier in use under a name (`registry.load_in_use`), or a `model` by that name; it finds no entities."""
    model, told = (model, name) if model else load_in_use(name)

    def predict(cases: Sequence[Row], on_progress: Progress) -> list[Row | None]:
        found = model.predict([one["text"] for one in cases])
        return [
            {"intent": one.intent, "confidence": one.probability, "fallback": None, "entities": None} for one in found
        ]

    return Predictor(told, predict)


def of_messages(store: Store, model: str | None = None) -> Predictor:
    """What the bot itself understood: of each text the newest message, of one model's (its id) or of all."""
    ours = sa.select(messages).where(messages.c.typed & messages.c.intent.isnot(None)).order_by(messages.c.timestamp)
    ours = ours.where(messages.c.model == model) if model else ours

    def predict(cases: Sequence[Row], on_progress: Progress) -> list[Row | None]:
        told = {row["text"]: row for row in records(store, ours)}
        return [told.get(one["text"]) for one in cases]

    return Predictor(f"the bot{f', model {model[:8]}' if model else ''}", predict)


def of_server(address: str) -> Predictor:
    """The model of a running Rasa server, asked case by case; ``?model=`` another that is not in use, asked for all in one
    go (``POST /model/test/intents``), which says nothing of the fallback."""
    other = parse_qs(urlsplit(address).query).get("model", [""])[0]
    with rasa_server(address) as ask:
        name = f"{urlsplit(address).netloc} ({other or ask('GET', '/status').json()['model_file']})"

    def parse(cases: Sequence[Row], on_progress: Progress) -> list[Row | None]:
        found = list[Row | None]()
        with rasa_server(address) as ask:
            for number, one in enumerate(cases, 1):
                told = ask("POST", "/model/parse", json={"text": one["text"]}).json()
                spans = [e for e in entities(told, one["text"]) if e.get("extractor") not in _LEFT_OUT]
                found.append({**prediction(told), "entities": spans})
                on_progress(number, len(cases))
        return found

    def test(cases: Sequence[Row], on_progress: Progress) -> list[Row | None]:
        data = {"rasa_nlu_data": {"common_examples": [_example(one) for one in cases]}}
        with rasa_server(address, timeout_s=None) as ask:
            told = ask("POST", "/model/test/intents", params={"model": other}, json=data).json()
        if not told["intent_evaluation"]:
            raise Unavailable(f"{name} tests nothing: Rasa wants cases of two intents or more.")
        replies = (told["response_selection_evaluation"] or {}).get("predictions", ())
        wrong = told["entity_evaluation"]
        return joined(
            cases,
            {
                (one["text"], one["intent"]): (one["predicted"], one["confidence"])
                for one in told["intent_evaluation"]["predictions"]
            },
            {
                (one["text"], one["intent_response_key_target"]): (one["intent_response_key_prediction"], None)
                for one in replies
            },
            wrong and {one["text"]: one["predicted_entities"] for each in wrong.values() for one in each["errors"]},
        )

    return Predictor(name, test if other else parse)


_LEFT_OUT = ("DucklingEntityExtractor", "SpacyEntityExtractor")
"""Extractors that no example teaches; ``rasa test`` leaves them out too."""


def _example(case: Row) -> Row:
    spans = [{**one, "value": case["text"][one["start"] : one["end"]]} for one in case["entities"] or ()]
    return {"text": case["text"], "intent": case["intent"], "entities": spans}
