"""A bot's models: who says what a text means, how a new one is trained, and how it is put in use.

What a folder of ``rasa test`` holds was checked against the source of Rasa 3.6.21: an errors file is written only when
there are errors, and never removed, so counts come from the reports, and files of another run are named, not believed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree, which
from subprocess import DEVNULL, STDOUT, Popen
from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from genesis_lab import registry
from genesis_lab.errors import GenesisError, InvalidInput, Unavailable
from genesis_lab.files import check_free, digest, named, resolve, shown, write_atomically
from genesis_lab.review.events import UNTRAINED, entities, prediction, trained
from genesis_lab.review.nlu import copied, examples_in, sound
from genesis_lab.review.nlu_file import Row, Source, read_source, unescaped
from genesis_lab.review.sources import rasa_server
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import messages

if TYPE_CHECKING:
    from genesis_lab.training.train import TrainingReport

Progress = Callable[[int, int], None]
"""Called with what is done and what there is."""
Answers = dict[tuple[str, str], tuple[str | None, float | None]]
"""Text and target to prediction and confidence; a model says the same of a text however often it is asked."""
MANY = 100
"""Cases above which a Rasa server is asked for all in one go; it does not tell then where the fallback stepped in."""
_TARGETS = {"intent": "intent", "response_selection": "intent_response_key_target"}
_TRAIN = "train nlu --nlu bot --config bot/config.yml --out models --fixed-model-name"
_BAR = re.compile(r"(\d+)/(\d+) \[([^\]]*)")  # as Rasa draws it: 3/60 [00:01<00:20, 2.7it/s, t_loss=2.1, i_acc=0.9]


@dataclass(frozen=True)
class Predictor:
    """Who answers cases, each with what is known of ``intent`` (the real prediction's full name), ``confidence``,
    ``fallback`` (whether it stepped in) and ``entities``, or with None. `notes`: what to know of it.
    """

    name: str
    predict: Callable[[Sequence[Row], Progress | None], list[Row | None]]
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
    model, told = (model, name) if model else registry.load_in_use(name)

    def predict(cases: Sequence[Row], on_progress: Progress | None) -> list[Row | None]:
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

    def predict(cases: Sequence[Row], on_progress: Progress | None) -> list[Row | None]:
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


# Training, and putting a model in use


def train_classifier(bot: Path, *, on_progress: Progress | None = None) -> TrainingReport:
    """Our classifier of a bot's data folder: TF-IDF, measured by cross-validation, so it learns from every example."""
    from genesis_lab.training.config import train_config
    from genesis_lab.training.examples import make_examples
    from genesis_lab.training.train import train

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

    ``model`` in use now, and what to deploy to go ``back`` (None: none was in use): the status says no
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
    return {"model": now["model_file"], "back": before and f"{folder}/{before}"}
