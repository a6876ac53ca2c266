"""Retrain a bot and put the new model in use: our own classifier, or Rasa, by a command or on a server."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from shutil import copytree, which
from subprocess import DEVNULL, STDOUT, Popen
from threading import Event
from typing import Any

from genesis_lab import registry
from genesis_lab.errors import GenesisError, InvalidInput, Unavailable
from genesis_lab.files import check_free, digest, named, resolve, shown, write_atomically
from genesis_lab.review.nlu import copied, sound
from genesis_lab.review.nlu_file import Row, Source, read_source, unescaped
from genesis_lab.review.sources import rasa_server
from genesis_lab.training.config import train_config
from genesis_lab.training.examples import make_examples
from genesis_lab.training.train import Progress, TrainingReport, train

_TRAIN = "train nlu --nlu bot --config bot/config.yml --out models --fixed-model-name"
_BAR = re.compile(r"(\d+)/(\d+) \[([^\]]*)")  # as Rasa draws it: 3/60 [00:01<00:20, 2.7it/s, t_loss=2.1, i_acc=0.9]


def train_classifier(bot: Path, *, on_progress: Progress | None = None) -> TrainingReport:
    """Our classifier of a bot's data folder: TF-IDF, measured by cross-validation, so it learns from every example."""
    rows = [one for source in sound(bot) for one in source.examples if one["text"].strip()]
    examples = make_examples([one["text"] for one in rows], [one["intent"] for one in rows], name=shown(bot))
    return train(examples, train_config("cross_validation"), on_progress=on_progress)


def train_rasa(
    bot: Path, name: str, by: str = "rasa", *, on_progress: Progress | None = None, stop: Event | None = None
) -> Row:
    """Have Rasa learn a bot: ``rasa train nlu`` by a command of its own, or all of it on a server (``http://…``).

    A command tells `on_progress` its epochs; `stop` or an interrupt cancels it. A server tells nothing and can't be
    stopped. The job stays as ``outputs/review/jobs/<name>``: the copy that is learned from (``bot``), the ``log``, the
    model, and ``job.json``, which is returned: ``state`` (running, as ``pid``, also after this process was killed;
    finished, failed, cancelled), ``model`` to `deploy`, ``seconds``, Rasa's last ``figures``, the log's end (``said``),
    and what the ``registry`` has it as, which keeps it all, whatever became of it.
    """
    sources, job, words, began = sound(bot), named("review/jobs", name), shlex.split(by), time.time()
    registry.check_name(name)
    whole = _in_one_file(sources) if "://" in by else ""
    if whole:
        with rasa_server(by):  # an address that is none is refused before there is a job
            pass
    elif not (words and which(words[0])):
        raise InvalidInput(f"There is no command {by!r}: give the rasa of the bot's environment, /path/bin/rasa.")
    check_free(job, replace=False, ours=lambda path: True)
    copied(bot, job / "bot")
    told: Row = {"name": name, "bot": shown(bot), "command": by, "state": "running", "model": None, "figures": {}}
    log, state, stop = job / "log", "failed", stop or Event()
    try:
        if whole:
            told["model"] = _on_server(by, whole, job)
        else:
            _by_command(words, job, told, on_progress or (lambda *_: None), stop)
        state = "finished" if told["model"] else "failed"
    except Unavailable as error:
        log.write_text(str(error))
    except KeyboardInterrupt:
        state = "cancelled"
        raise
    finally:
        said = re.split(r"[\r\n]+", log.read_text(errors="replace").strip()) if log.exists() else []
        told |= {"seconds": time.time() - began, "said": said[-20:], "state": "cancelled" if stop.is_set() else state}
        write_atomically(job / "job.json", json.dumps(told))
        told["registry"] = _registered(job, told)
        write_atomically(job / "job.json", json.dumps(told))
    return told


def _by_command(words: list[str], job: Path, told: Row, on_progress: Progress, stop: Event) -> None:
    words = [str(Path(which(words[0]) or "").absolute()), *words[1:], *shlex.split(_TRAIN), told["name"]]
    words += ["--domain", "bot/domain.yml"] * (job / "bot" / "domain.yml").exists()
    log, model = job / "log", job / "models" / f"{told['name']}.tar.gz"
    with log.open("wb") as out:
        running = Popen(words, cwd=job, stdin=DEVNULL, stdout=out, stderr=STDOUT, start_new_session=True)
    told |= {"command": shlex.join(words), "pid": running.pid}
    write_atomically(job / "job.json", json.dumps(told))
    try:
        ended = False
        while not (ended or stop.is_set()):
            ended = running.poll() is not None
            if bars := _BAR.findall(log.read_text(errors="replace")):
                told["figures"] = {key: float(n) for key, n in re.findall(r"(\w+)=(\d+(?:\.\d+)?)", bars[-1][2])}
                on_progress(int(bars[-1][0]), int(bars[-1][1]))
            time.sleep(0.1)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
            running.wait()
    told["model"] = shown(model) if running.returncode == 0 and model.exists() else None


def _on_server(address: str, whole: str, job: Path) -> str:
    """The model as the server has it, which also answers with it."""
    write_atomically(job / "job.json", json.dumps({"state": "running", "command": address}))
    with rasa_server(address, timeout_s=None) as ask:
        answer = ask("POST", "/model/train", content=whole.encode(), headers={"Content-Type": "application/yaml"})
    model = Path("models", Path(answer.headers["filename"]).name)
    (job / "models").mkdir()
    (job / model).write_bytes(answer.content)
    return str(model)


def _registered(job: Path, told: Row) -> str:
    """Keep a job in the registry, as a version of its name or as a failed run."""
    learned = [(told["bot"], digest(*sorted((job / "bot").rglob("*.y*ml"))))]
    about: Row = {"params": {"command": told["command"], "outcome": told["state"]}, "reports": {"job": told}}
    about |= {"metrics": {"seconds": told["seconds"], **told["figures"]}, "sources": learned}
    try:
        done = told["state"] == "finished"
        kept = registry.log_run("retraining", told["name"], save=partial(copytree, job), version=done, **about)
    except GenesisError as error:
        return str(error)
    return f"version {kept.version} of {kept.name}" if kept.version else "a failed run"


def _in_one_file(sources: Sequence[Source]) -> str:
    """A bot's files as the one that ``POST /model/train`` takes: what several have under the same key is joined."""
    import yaml

    def read(*files: Source) -> list[tuple[Any, ...]]:
        return [(row["intent"], row["text"], row["entities"]) for one in files for row in one.examples]

    joined: dict[str, Any] = {}
    for root in (yaml.compose(unescaped(one.text), Loader=yaml.SafeLoader) for one in sources):
        for key, value in root.value if root else ():
            there = joined.setdefault(key.value, (key, value))[1]
            if there is not value and isinstance(value.value, list):
                there.value += value.value
    whole = yaml.MappingNode("tag:yaml.org,2002:map", list(joined.values()))
    text = str(yaml.serialize(whole, allow_unicode=True, width=10**6))
    if read(*sources) != read(read_source("all", text)):
        raise InvalidInput("The bot's files can't be joined into one unchanged, as a server asks: use a command.")
    return text


def deploy(address: str, model: str) -> Row:
    """Put a model, a path here or on the server's machine, in use on a Rasa server (``PUT /model``, ``GET /status``).

    ``model`` in use now, its ``id``, and what to deploy to go ``back`` (None: none was in use): the status says no
    folder, so it is the new one's, or the server's ``models`` where that lies here.
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
