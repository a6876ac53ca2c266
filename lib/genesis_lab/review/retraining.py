"""Retrain a bot and put the new model in use: our own classifier, ``rasa train nlu`` in the user's environment, or a server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from shutil import copytree, which
from subprocess import DEVNULL, STDOUT, Popen

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import check_free, digest, named, resolve, shown, write_atomically
from genesis_lab.registry import check_name, log_run
from genesis_lab.review.nlu import Row, copied, sound, unescaped
from genesis_lab.review.sources import rasa_server
from genesis_lab.training.config import train_config
from genesis_lab.training.examples import make_examples
from genesis_lab.training.train import Progress, TrainingReport, train
from genesis_lab.yamls import dump_yaml, parse_yaml

_TRAIN = "train nlu --nlu bot --config bot/config.yml --out models --fixed-model-name"


def train_classifier(bot: Path, *, on_progress: Progress | None = None) -> TrainingReport:
    """Our classifier of a bot's data folder: TF-IDF, measured by cross-validation, so that it learns from every example."""
    rows = [one for source in sound(bot) for one in source.examples if one["text"].strip()]
    examples = make_examples([one["text"] for one in rows], [one["intent"] for one in rows], name=shown(bot))
    return train(examples, train_config("cross_validation"), on_progress=on_progress)


def train_rasa(bot: Path, name: str, command: str = "rasa", *, on_progress: Progress | None = None) -> Row:
    """Let Rasa train on a copy of the bot: by `command`, as ``rasa train nlu``, or on a running server, if that is an address.

    An interrupt cancels a command, and `on_progress` is told of its epochs; a server (``POST /model/train``) tells nothing
    and can't be stopped. The job stays as ``outputs/review/jobs/<name>``: the copy (``bot``), the ``log``, the model, and
    ``job.json``, which is returned: ``state`` (finished, failed, cancelled; ``running``, of a command as ``pid``, also after
    this process was killed), ``model`` (to `deploy`), ``seconds``, ``command``, the log's end (``said``). The registry
    keeps all of it, whatever became of it.
    """
    if "://" not in command:
        return _train_here(bot, name, command, on_progress)
    with rasa_server(command, timeout_s=None) as ask, _job(bot, name, f"POST {command}/model/train") as (job, state):
        merged: Row = {}
        for path in sorted((job / "bot").rglob("*.y*ml")):
            for key, value in (parse_yaml(unescaped(path.read_text(encoding="utf-8"))) or {}).items():
                known = merged.setdefault(key, type(value)())
                merged[key] = (
                    known + value if isinstance(value, list) else known | value if isinstance(value, dict) else value
                )
        try:
            yaml = {"content": dump_yaml(merged).encode(), "headers": {"Content-Type": "application/yaml"}}
            answer = ask("POST", "/model/train", **yaml)
        except Unavailable as error:
            state |= {"state": "failed", "said": [str(error)]}
        else:
            (job / "models").mkdir()
            (job / "models" / f"{name}.tar.gz").write_bytes(answer.content)
            state |= {"state": "finished", "model": f"models/{answer.headers['filename']}"}
    return state


def _train_here(bot: Path, name: str, command: str, on_progress: Progress | None) -> Row:
    words = shlex.split(command)
    if not words or not (found := which(words[0])):
        raise InvalidInput(f"There is no command {command!r}: give the rasa of the bot's environment, /path/bin/rasa.")
    words = [str(Path(found).absolute()), *words[1:], *shlex.split(_TRAIN), name]
    with _job(bot, name, shlex.join(words)) as (job, state):
        words += ["--domain", "bot/domain.yml"] if (job / "bot" / "domain.yml").exists() else []
        log, model = job / "log", job / "models" / f"{name}.tar.gz"
        with log.open("wb") as out:
            running = Popen(words, cwd=job, stdin=DEVNULL, stdout=out, stderr=STDOUT, start_new_session=True)
        state["pid"] = running.pid
        try:
            write_atomically(job / "job.json", json.dumps(state))
            while running.poll() is None:
                time.sleep(0.1)
                if on_progress and (epochs := re.findall(r"(\d+)/(\d+) \[", log.read_text(errors="replace"))):
                    on_progress(*map(int, epochs[-1]))
            state["state"] = "finished" if running.returncode == 0 and model.exists() else "failed"
        finally:
            if running.poll() is None:
                os.killpg(running.pid, signal.SIGTERM)
                running.wait()
            state["model"] = shown(model) if model.exists() else None
            state["said"] = re.split(r"[\r\n]+", log.read_text(errors="replace").strip())[-20:]
    return state


@contextmanager
def _job(bot: Path, name: str, command: str) -> Iterator[tuple[Path, Row]]:
    """A new job's folder with a copy of the bot, and its account, which is written and registered however the job ends."""
    job = named("review/jobs", name)
    check_name(name)
    check_free(job, replace=False, ours=lambda path: True)
    copied(bot, job / "bot")
    state: Row = {"name": name, "bot": shown(bot), "command": command, "state": "running", "model": None, "said": []}
    started = time.time()
    write_atomically(job / "job.json", json.dumps(state))
    try:
        yield job, state
    finally:
        state["state"] = "cancelled" if state["state"] == "running" else state["state"]
        state["seconds"] = time.time() - started
        write_atomically(job / "job.json", json.dumps(state))
        log_run(
            "retraining", name, params={"command": command, "outcome": state["state"]}, metrics={"seconds": state["seconds"]},
            sources=[(state["bot"], digest(*sorted((job / "bot").rglob("*.y*ml"))))], save=partial(copytree, job),
            reports={"job": state}, version=state["state"] == "finished",
        )  # fmt: skip


def deploy(address: str, model: str) -> Row:
    """Put a model, a path here or on the Rasa server's machine, in use there (``PUT /model``); checked by ``GET /status``.

    ``model`` in use now, its ``id``, and what to deploy to go ``back`` (None: none was in use): the status says no folder, so
    it is the new one's, or the server's ``models`` where that lies here.
    """
    here, before = resolve(model), None
    with rasa_server(address, timeout_s=600) as ask:
        with suppress(Unavailable):
            before = ask("GET", "/status").json()["model_file"]
        ask("PUT", "/model", json={"model_file": str(here) if here.exists() else model})
        now = ask("GET", "/status").json()
    if now["model_file"] != here.name:
        raise Unavailable(f"The server was told to use {model} and still uses {now['model_file']}.")
    folder = "models" if here.exists() else Path(model).parent
    return {"model": now["model_file"], "id": now["model_id"], "back": before and f"{folder}/{before}"}
