"""A small HTTP server that answers as Rasa 3.6's does (``rasa run --enable-api``), and a script that trains as its command does."""

from __future__ import annotations

import http.server
import json
import re
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

FALLBACK = {"name": "nlu_fallback", "confidence": 0.5}


def parse(text: str, intent: str, confidence: float = 0.9, **more: Any) -> dict[str, Any]:
    """What ``POST /model/parse`` answers; below 0.5 the fallback steps in, as FallbackClassifier does."""
    ranking = [{"name": intent, "confidence": confidence}, {"name": "otro", "confidence": 0.02}]
    ranking = [FALLBACK, *ranking] if confidence < 0.5 else ranking
    told = {
        "text": text,
        "intent": ranking[0],
        "entities": [],
        "text_tokens": [[w.start(), w.end()] for w in re.finditer(r"\S+", text)],
        "intent_ranking": ranking,
    }
    return told | more


def tested(examples: list[dict[str, Any]], parsed: Any) -> dict[str, Any]:
    """What ``POST /model/test/intents`` answers, as ``run_evaluation`` of Rasa 3.6.21 does: nothing of intents where all are of
    one, of responses with one, of entities where no example has any; the fallback is undone."""
    said = [(one, parsed(one["text"])) for one in examples]
    intents, replies, missed = [], [], defaultdict[str, list[Any]](list)
    for one, told in said:
        first = next(guess for guess in told["intent_ranking"] if guess["name"] != "nlu_fallback")
        base = one["intent"].partition("/")[0]
        intents.append(
            {"text": one["text"], "intent": base, "predicted": first["name"], "confidence": first["confidence"]}
        )
        if base != one["intent"]:
            key = told["response_selector"]["default"]["response"]["intent_response_key"]
            targets = {"intent_response_key_target": one["intent"], "intent_response_key_prediction": key}
            replies.append({"text": one["text"], **targets, "confidence": 0.9})
        found = [span for span in told["entities"] if not span["extractor"].startswith(("Duckling", "Spacy"))]
        for extractor in {span["extractor"] for _, each in said for span in each["entities"]}:
            own = [(span["start"], span["end"], span["entity"]) for span in found if span["extractor"] == extractor]
            listed = missed[extractor]
            if sorted(own) != sorted((span["start"], span["end"], span["entity"]) for span in one["entities"]):
                listed.append({"text": one["text"], "entities": one["entities"], "predicted_entities": found})

    def part(predictions: list[Any], target: str) -> dict[str, Any] | None:
        return {"predictions": predictions, "report": {}, "errors": []} if len({one[target] for one in predictions}) > 1 else None  # fmt: skip

    by_extractor = {name: {"report": {}, "errors": errors} for name, errors in missed.items()}
    return {
        "intent_evaluation": part(intents, "intent"),
        "response_selection_evaluation": part(replies, "intent_response_key_target"),
        "entity_evaluation": by_extractor if any(one["entities"] for one in examples) else None,
    }


@contextmanager
def rasa(
    answers: dict[str, dict[str, Any]], *, models: tuple[str, ...] = ("old.tar.gz",), token: str = ""
) -> Iterator[Any]:
    """A server that has loaded the first of its models (none: it starts without one); ``.address`` and what was ``.asked``."""
    state = SimpleNamespace(
        model=models[0] if models else None, asked=[], address="", api=True, stuck=False, tests=True
    )

    def parsed(text: str) -> dict[str, Any]:
        return answers.get(text) or parse(text, "otro", 0.3)

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            place = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.command, place.path))
            what = (self.command, place.path)
            if not state.api:
                return self.say(404, {"message": "Requested URL not found"})
            if parse_qs(place.query).get("token", [""])[0] != token:
                return self.refuse(401, "NotAuthenticated", "User is not authenticated.")
            if what == ("GET", "/version"):
                return self.say(200, {"version": "3.6.21", "minimum_compatible_version": "3.5.0"})
            if what == ("POST", "/model/train"):
                assert self.headers["Content-Type"] == "application/yaml"
                state.sent, state.taught = body.decode(), yaml.safe_load(body)
                if not state.taught.get("pipeline"):
                    return self.refuse(500, "TrainingError", "An unexpected error occurred during training. Error: no pipeline")  # fmt: skip
                return self.say(200, b"a model", filename="20261201-1200-brave-tree.tar.gz")
            if what == ("PUT", "/model"):
                given = json.loads(body)["model_file"]
                if Path(given).name not in models:
                    return self.refuse(400, "BadRequest", f"Agent with name '{given}' could not be loaded.")
                state.model = state.model if state.stuck else Path(given).name
                return self.say(204, None)
            if what == ("POST", "/model/test/intents"):
                if not (state.tests and state.model):
                    return self.refuse(500, "TestingError", "An unexpected error occurred during evaluation. Error: ")
                return self.say(200, tested(json.loads(body)["rasa_nlu_data"]["common_examples"], parsed))
            if state.model is None:
                told = "No agent loaded. To continue processing, a model of a trained agent needs to be loaded."
                return self.refuse(409, "Conflict", told)
            if what == ("GET", "/status"):
                return self.say(
                    200, {"model_file": state.model, "model_id": f"id of {state.model}", "num_active_training_jobs": 0}
                )
            return self.say(200, parsed(json.loads(body)["text"]))

        def refuse(self, code: int, reason: str, message: str) -> None:
            about = {"version": "3.6.21", "status": "failure", "details": {}, "help": None, "code": code}
            self.say(code, about | {"reason": reason, "message": message})

        def say(self, code: int, value: Any, **headers: str) -> None:
            content = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
            self.send_response(code)
            for name, text in headers.items():
                self.send_header(name, text)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = answer

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


_TRAINS = """
import pathlib, sys, time
told = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1:3] == ["train", "nlu"] and pathlib.Path(told["--config"]).exists() and "hola" in pathlib.Path(told["--nlu"], "nlu.yml").read_text()
for epoch in range(1, 4):
    print(f"\\rEpochs:  {epoch * 33}%|###   | {epoch}/3 [00:0{epoch}<00:01,  1.1s/it, t_loss=2.1, i_acc=0.{epoch}]", end="", file=sys.stderr, flush=True)
    while HOW == "waits": time.sleep(0.05)
    time.sleep(0.15)
if HOW == "fails":
    sys.exit("\\nInvalidConfigException: the pipeline has no tokenizer")
pathlib.Path(told["--out"]).mkdir()
pathlib.Path(told["--out"], told["--fixed-model-name"] + ".tar.gz").write_bytes(b"a model")
"""


def command(folder: Path, how: str = "works") -> str:
    """A ``rasa`` that works, fails, or waits for ever after its first epoch."""
    script = folder / "rasa.py"
    script.write_text(f"HOW = {how!r}\n{_TRAINS}")
    return f"{sys.executable} {script}"
