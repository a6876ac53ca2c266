"""A small HTTP server that answers as Rasa 3.6's does (``rasa run --enable-api``), and a script that trains as its command does."""

from __future__ import annotations

import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

from genesis_lab.yamls import parse_yaml

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


def tested(intent: str, told: dict[str, Any]) -> dict[str, Any]:
    """What ``POST /model/test/intents`` says of an example: the fallback is undone, a response selector has a row of its own."""
    said = next(one for one in told["intent_ranking"] if one["name"] != FALLBACK["name"])
    row = {"text": told["text"], "confidence": said["confidence"]}
    found = {"intent": row | {"intent": intent.partition("/")[0], "predicted": said["name"]}}
    if "/" in intent:
        selected = told.get("response_selector", {}).get("default", {}).get("response", {}).get("intent_response_key")
        found["response_selection"] = row | {
            "intent_response_key_target": intent,
            "intent_response_key_prediction": selected,
        }
    return found


@contextmanager
def rasa(
    answers: dict[str, dict[str, Any]], *, models: tuple[str, ...] = ("old.tar.gz",), token: str = ""
) -> Iterator[Any]:
    """A server that has loaded the first of its models (none: it starts without one); ``.address`` and what was ``.asked``."""
    state = SimpleNamespace(model=models[0] if models else None, asked=[], address="", api=True, stuck=False)

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            place = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            state.asked.append((self.command, place.path))
            what = (self.command, place.path)
            if not state.api:
                return self.say(404, {"message": "Requested URL not found"})
            if parse_qs(place.query).get("token", [""])[0] != token:
                return self.say(
                    401, {"status": "failure", "reason": "NotAuthenticated", "message": "User is not authenticated."}
                )
            if what == ("PUT", "/model"):
                given = json.loads(body)["model_file"]
                if Path(given).name not in models:
                    return self.say(400, {"message": f"Agent with name '{given}' could not be loaded."})
                state.model = state.model if state.stuck else Path(given).name
                return self.say(204, None)
            if what == ("POST", "/model/train"):
                data = parse_yaml(body.decode())
                state.trained = data
                if "pipeline" not in data:
                    said = "An unexpected error occurred during training. Error: the pipeline has no tokenizer"
                    return self.say(500, {"reason": "TrainingError", "message": said})
                return self.say(200, b"a model", filename="20261201-090000-old-fox.tar.gz")
            if state.model is None:
                return self.say(
                    409, {"reason": "Conflict", "message": "No agent loaded. To continue processing, a model …"}
                )
            if what == ("GET", "/status"):
                return self.say(
                    200, {"model_file": state.model, "model_id": f"id of {state.model}", "num_active_training_jobs": 0}
                )
            if what == ("POST", "/model/test/intents"):
                given = [
                    (one["intent"], example["text"])
                    for one in parse_yaml(body.decode())["nlu"]
                    for example in one["examples"]
                ]
                told = [tested(intent, answers.get(text) or parse(text, "otro", 0.3)) for intent, text in given]
                kinds = {
                    "intent": {i.partition("/")[0] for i, _ in given},
                    "response_selection": {i for i, _ in given if "/" in i},
                }
                return self.say(200, {  # fewer than two intents are not evaluated
                    f"{kind}_evaluation": {"predictions": [one[kind] for one in told if kind in one]} if len(names) > (kind == "intent") else None
                    for kind, names in kinds.items()
                } | {"entity_evaluation": {}})  # fmt: skip
            text = json.loads(body)["text"]
            return self.say(200, answers.get(text) or parse(text, "otro", 0.3))

        def say(self, code: int, value: Any, **headers: str) -> None:
            content = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
            self.send_response(code)
            for header in headers.items():
                self.send_header(*header)
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
    print(f"\\rEpochs:  {epoch * 33}%|###   | {epoch}/3 [00:0{epoch}<00:01,  1.1s/it, t_loss=2.1]", end="", file=sys.stderr, flush=True)
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
