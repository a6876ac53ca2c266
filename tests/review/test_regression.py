"""Cases, who answers them, folders of rasa test, and what can be said of two models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

import trackers
from genesis_lab import registry
from genesis_lab.cli import app
from genesis_lab.errors import GenesisError, InvalidInput, Unavailable
from genesis_lab.review.forgetting import forget
from genesis_lab.review.ingest import ingest
from genesis_lab.review.labelling import remove
from genesis_lab.review.models import (
    Predictor,
    deploy,
    of_classifier,
    of_messages,
    predictor,
    read_results,
    train_classifier,
    train_rasa,
)
from genesis_lab.review.nlu import examples_in
from genesis_lab.review.regression import add_cases, case_of_message, compare, list_cases, make_case, read_cases
from genesis_lab.review.store import open_store, records
from genesis_lab.review.tables import messages
from genesis_lab.settings import get_settings
from rasa_like import command, parse, rasa
from trackers import FIXTURE, annotate

BOT = Path(__file__).resolve().parents[2] / "params" / "samples" / "bot"
TESTED = BOT / "test_nlu.yml"


def answers(name="a model", **said):
    """A predictor that says these intents of these texts, and nothing of others."""

    def one(intent):
        return {"intent": intent, "confidence": 0.9, "fallback": False, "entities": None}

    return Predictor(name, lambda cases, told: [one(said[c["text"]]) if c["text"] in said else None for c in cases])


def cases(**texts):
    return [make_case("here", {"text": text, "intent": intent}) for text, intent in texts.items()]


def test_our_classifier_and_a_folder_of_rasa_answer_the_bots_own_test_set():
    given = read_cases(TESTED)
    ours = of_classifier("ours", train_classifier(BOT).model)
    report = compare(given, ours, predictor(BOT / "results", training=BOT))
    assert [side["right"]["n"] for side in report["sides"]] == [6, 6] and report["pair"]["verdict"] == "can't be told"
    assert report["sides"][0]["entities"] is None and report["sides"][1]["entities"]["n"] == 6
    assert len(json.dumps(report)) > 100


def test_what_broke_and_what_was_mended_is_listed_and_judged_by_the_interval():
    texts = {f"t{i}": "a" for i in range(30)}
    worse = compare(
        cases(**texts), answers(**{t: "b" if i < 12 else "a" for i, t in enumerate(texts)}), answers(**texts)
    )
    assert worse["verdict"].startswith("It broke more than it mended: 12 broke, 0 mended, of 30")
    assert [row["what"] for row in worse["changes"]] == ["broke"] * 12 and worse["changes"][0]["was understood"] == "a"
    few = compare(cases(**texts), answers(**texts | {"t3": "b"}), answers(**texts | {"t4": "b"}))
    assert "can't be told: 1 broke, 1 mended" in few["verdict"] and [row["what"] for row in few["changes"]] == [
        "broke",
        "mended",
    ]


def test_a_case_that_one_side_did_not_answer_is_left_out_and_said():
    report = compare(cases(x="a", y="a"), answers(x="a"), answers(x="a", y="b"))
    assert report["sides"][0]["right"]["n"] == 1 and report["left_out"] == 1
    assert "no case was answered by both" in compare(cases(x="a"), answers(x="a"), answers())["verdict"]


def test_a_text_is_one_case_and_a_contradiction_writes_nothing():
    store = open_store()
    ids = add_cases(store, [*cases(hola="saludar"), *cases(hola="saludar", adios="despedir")])
    assert ids == [1, 1, 2] and add_cases(store, cases(adios="despedir")) == [2]
    with pytest.raises(InvalidInput, match="'adios' is a case of despedir, not of saludar"):
        add_cases(store, cases(nuevo="x", adios="saludar"))
    assert [one["text"] for one in list_cases(store)] == ["hola", "adios"]


def test_the_same_cases_go_into_another_store_as_well(tmp_path):
    given = cases(hola="saludar")
    for name in ("a.sqlite", "b.sqlite"):
        assert add_cases(open_store(tmp_path / name), given) == [1]
    assert len(list_cases(open_store(tmp_path / "b.sqlite"))) == 1 and "id" not in given[0]
    assert add_cases(open_store(tmp_path / "c.sqlite"), list_cases(open_store(tmp_path / "a.sqlite"))) == [1]


@pytest.mark.parametrize("name, content, says", [
    ("a.csv", "text,intent,entities,min_confidence\nhola,saludar,,0.9\n", None),
    ("a.jsonl", '{"text": "hola", "intent": "saludar", "min_confidence": 0.9}\n', None),
    ("a.csv", "text,intent\nhola,a/b/c\n", "line 1, can't be a case: .* at most one /"),
    ("a.csv", "text,intent,min_confidence\nhola,a,7\n", "min_confidence between 0 and 1"),
    ("a.csv", "text,intent,entities\nhola,a,nonsense\n", "entities must be a JSON list"),
    ("a.jsonl", '{"text": "hola", "intent": "a", "entities": [{"start": 2, "end": 9, "entity": "x"}]}\n', "outside the text"),
    ("a.csv", "text,label\nhola,a\n", "lacks intent"),
    ("a.yml", 'version: "3.1"\nnlu: []\n', "holds no case"),
    ("a.yml", "version: 3.1\nnlu: []\n", "version must be a text"),
])  # fmt: skip
def test_cases_come_from_files_and_what_is_wrong_is_said(tmp_path, name, content, says):
    (tmp_path / name).write_text(content)
    if says is None:
        (one,) = read_cases(tmp_path / name)
        assert (one["text"], one["intent"], one["entities"], one["min_confidence"]) == ("hola", "saludar", None, 0.9)
        return
    with pytest.raises(InvalidInput, match=says):
        read_cases(tmp_path / name)


def test_a_message_becomes_a_case_of_what_a_person_said_and_can_be_removed():
    store = open_store()
    ingest(store, str(FIXTURE))
    first, second = records(
        store, sa.select(messages).where(messages.c.typed, messages.c.intent.isnot(None), ~messages.c.lossy)
    )[:2]
    annotate(store, first["key"], "faq/precio", author="ana")
    made = case_of_message(store, first["key"])
    assert case_of_message(store, first["key"]) == made and case_of_message(store, second["key"]) != made
    kept = list_cases(store)
    assert [one["intent"] for one in kept] == ["faq/precio", second["intent"]] and kept[0]["message"] == first["key"]
    report = compare(kept, of_messages(store))
    assert report["verdict"] == "1 of 2 cases are right" and report["wrong"][0]["understood"] == first["intent"]
    remove(store, "cases", made)
    assert len(list_cases(store)) == 1
    forget(store, second["sender"])
    assert list_cases(store) == []  # no model is asked for nothing
    with pytest.raises(InvalidInput, match="gone or its text was deleted"):
        case_of_message(store, second["key"])
    with pytest.raises(InvalidInput, match="can't be a case: it is gone"):
        case_of_message(store, "nothing")


def test_entities_are_compared_with_role_and_group_and_confidence_has_its_own_verdict():
    span = {"entity": "city", "start": 0, "end": 4, "role": "to"}
    case = make_case("here", {"text": "Roma", "intent": "go", "entities": [span], "min_confidence": 0.8})

    def side(**said):
        told = {
            "intent": "go",
            "confidence": 0.9,
            "fallback": False,
            "entities": [{**span, "extractor": "DIET"}, span],
        } | said
        return compare([case], Predictor("x", lambda cases, told_: [told]))["sides"][0]

    assert side()["entities"]["estimate"] == side()["sure"]["estimate"] == 1
    assert side(entities=[{**span, "role": "from"}])["entities"]["estimate"] == 0
    low = side(confidence=0.7, fallback=True)
    assert (low["right"]["estimate"], low["sure"]["estimate"], low["fallback"]["estimate"]) == (1, 0, 1)
    assert side(fallback=None)["fallback"] is None


def test_a_running_server_gives_the_real_prediction_by_its_full_name():
    place = {"start": 3, "end": 9, "entity": "city", "extractor": "DIETClassifier", "value": "Madrid"}
    number = {"start": 3, "end": 9, "entity": "number", "extractor": "DucklingEntityExtractor", "value": 1}
    full = {"default": {"response": {"intent_response_key": "faq/price"}}}
    told = {
        "en Madrid": parse("en Madrid", "go", 0.4, entities=[place, number]),
        "cuánto vale": parse("cuánto vale", "faq", 0.8, response_selector=full),
    }
    given = [
        make_case("here", {"text": "en Madrid", "intent": "go", "entities": [place]}),
        make_case("here", {"text": "cuánto vale", "intent": "faq/price"}),
    ]
    seen = []
    with rasa(told) as server:
        report = compare(given, predictor(server.address), on_progress=lambda done, total: seen.append((done, total)))
        assert server.asked.count(("POST", "/model/parse")) == 2
    side = report["sides"][0]
    assert report["verdict"] == "2 of 2 cases are right" and "old.tar.gz" in side["name"] and seen == [(1, 2), (2, 2)]
    assert side["fallback"]["estimate"] == 0.5 and side["sure"]["estimate"] == 0.5 and side["entities"]["estimate"] == 1


def test_a_server_answers_many_cases_in_one_go_and_what_that_leaves_open_text_by_text(monkeypatch):
    monkeypatch.setattr("genesis_lab.review.models.MANY", 4)
    place = {"start": 0, "end": 4, "entity": "city", "extractor": "DIETClassifier"}

    def full(key):
        return {"default": {"response": {"intent_response_key": key}}}

    told = {
        "Roma": parse("Roma", "go", entities=[place]),
        "hola": parse("hola", "greet", 0.4),
        "Lima": parse("Lima", "greet", entities=[place]),
        "precio": parse("precio", "faq", response_selector=full("faq/price")),
        "hora": parse("hora", "faq", response_selector=full("faq/price")),
    }
    meant = {"Roma": "go", "hola": "greet", "Lima": "greet", "precio": "faq/price", "hora": "faq/time"}
    given = [
        make_case("here", {"text": t, "intent": i, "entities": [place] if t == "Roma" else []})
        for t, i in meant.items()
    ]
    with rasa(told) as server:
        found = predictor(server.address).predict(given, None)
        assert server.asked[1:] == [("POST", "/model/test/intents"), ("POST", "/model/parse")]
        one_intent = [one | {"intent": "go", "entities": None} for one in given]  # Rasa evaluates two or more
        assert None not in [one["fallback"] for one in predictor(server.address).predict(one_intent, None)]
        server.tests = False
        by_text = predictor(server.address).predict(given, None)
    keys = ("intent", "confidence")
    assert [[one[key] for key in keys] for one in found] == [[one[key] for key in keys] for one in by_text]
    assert [one["intent"] for one in found] == ["go", "greet", "greet", "faq/price", "faq/price"]
    assert (
        [len(one["entities"]) for one in found] == [1, 0, 1, 0, 0]
        and found[1]["fallback"] is None
        and by_text[1]["fallback"]
    )
    with rasa(told) as server:
        asked = [one | {"intent": None} for one in given]  # as the queue asks: what a text means is the question
        assert [one["ranking"] is not None for one in predictor(server.address).predict(asked, None)] == [True] * 5


def test_a_server_that_refuses_says_what_it_needs(monkeypatch):
    with rasa({}, token="a-token-of-a-test") as server:
        with pytest.raises(Unavailable, match=r"\(401\): GENESIS_RASA_TOKEN must be its token"):
            predictor(server.address)
        monkeypatch.setenv("GENESIS_RASA_TOKEN", "a-token-of-a-test")
        get_settings.cache_clear()
        assert "old" in predictor(server.address).name
        with pytest.raises(InvalidInput, match="over https or to this machine only"):
            predictor("http://bot.example.org")
        server.api = False
        with pytest.raises(Unavailable, match=r"\(404\): it must be started with --enable-api"):
            predictor(server.address)
    with (
        rasa({}, models=(), token="a-token-of-a-test") as server,
        pytest.raises(Unavailable, match="no model is loaded"),
    ):
        predictor(server.address)
    for wrong, says in [("http://me:pw@localhost", "GENESIS_RASA_TOKEN"), ("ftp://x", "has an address like")]:
        with pytest.raises(InvalidInput, match=says) as caught:
            predictor(wrong)
        assert "pw" not in str(caught.value)
    with pytest.raises(Unavailable, match="can't be reached"):
        predictor("http://127.0.0.1:9")


def result_folder(folder, *, errors=(), right=(), report=None):
    """A folder as ``rasa test nlu --successes`` leaves it, of (text, intent, prediction)."""
    folder.mkdir()

    def rows(listed):
        return [{"text": t, "intent": i, "intent_prediction": {"name": p, "confidence": 0.9}} for t, i, p in listed]

    counts = {}
    for _, intent, predicted in [*errors, *right]:
        n, hit = counts.get(intent, (0, 0))
        counts[intent] = (n + 1, hit + (intent == predicted))
    made = {
        i: {"precision": 1.0, "recall": hit / n, "f1-score": 1.0, "support": n, "confused_with": {}}
        for i, (n, hit) in counts.items()
    }
    total = {
        "weighted avg": {"precision": 1.0, "recall": 0.5, "f1-score": 1.0, "support": len([*errors, *right])},
        "accuracy": 0.5,
    }
    for name, value in (("errors", rows(errors)), ("successes", rows(right)), ("report", report or made | total)):
        if value:
            (folder / f"intent_{name}.json").write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    return folder


def errors_in(folder):
    return sum(row["errors"] for row in read_results(folder)["labels"])


def problems_of(folder, training=None):
    return " ".join(read_results(folder, training)["problems"])


def test_a_stale_errors_file_is_named_and_not_compared(tmp_path):
    folder = result_folder(tmp_path / "r", right=[("hola", "a", "a"), ("adios", "b", "b")])
    assert errors_in(folder) == 0 and not problems_of(folder)
    old = [{"text": "x", "intent": "a", "intent_prediction": {"name": "b", "confidence": 1}}]
    (folder / "intent_errors.json").write_text(json.dumps(old))
    assert "intent_errors.json is of another run, it holds 1" in problems_of(folder)
    assert errors_in(folder) == 0  # counts come from the report
    with pytest.raises(InvalidInput, match=r"can't be compared case by case\. intent_errors\.json is of another run"):
        predictor(folder)


def test_a_report_that_is_missing_or_has_no_list_of_its_answers_is_named(tmp_path):
    folder = result_folder(tmp_path / "r", errors=[("x", "a", "b")], right=[("hola", "a", "a"), ("adios", "b", "b")])
    (folder / "intent_successes.json").unlink()
    assert "intent_successes.json is not there: test with --successes" in problems_of(folder)
    (folder / "intent_report.json").unlink()
    assert "There is no intent_report.json: Rasa writes it for two intents or more" in problems_of(folder)
    assert read_results(folder)["labels"] == [] and "is of another run" in problems_of(folder)
    (folder / "intent_errors.json").write_text("[{")
    with pytest.raises(InvalidInput, match="does not write"):
        predictor(folder)


def test_a_test_on_training_data_and_texts_under_two_intents_are_named(tmp_path):
    known = [("hola", "saludar", "saludar"), ("adiós", "despedir", "despedir")]
    assert "This scored the training data: 2 of 2" in problems_of(result_folder(tmp_path / "r", right=known), BOT)
    assert "scored the training data" not in problems_of(BOT / "results", BOT)
    twice = result_folder(tmp_path / "t", right=[("hola", "a", "a")], errors=[("hola", "b", "a")])
    assert "1 texts were tested under several intents, the first is 'hola'" in problems_of(twice)
    report = compare([make_case("here", {"text": "hola", "intent": i}) for i in "ab"], predictor(twice))
    assert [row["intent"] for row in report["wrong"]] == ["b"] and report["sides"][0]["notes"]


def test_a_response_selector_says_the_full_name(tmp_path):
    folder = result_folder(tmp_path / "r", right=[("precio", "faq", "faq"), ("hora", "faq", "faq"), ("hola", "a", "a")])
    key, wrong = "intent_response_key", [("hora", "faq/time", "faq/price")]
    rows = [{"text": t, f"{key}_target": i, f"{key}_prediction": {"name": p, "confidence": 0.8}} for t, i, p in wrong]
    (folder / "response_selection_errors.json").write_text(json.dumps(rows))
    rows = [
        {"text": "precio", f"{key}_target": "faq/price", f"{key}_prediction": {"name": "faq/price", "confidence": 0.8}}
    ]
    (folder / "response_selection_successes.json").write_text(json.dumps(rows))
    report = {
        i: {"precision": 1, "recall": r, "support": 1, "confused_with": {}}
        for i, r in (("faq/time", 0), ("faq/price", 1))
    }
    (folder / "response_selection_report.json").write_text(json.dumps(report))
    given = cases(precio="faq/price", hora="faq/time", hola="a")
    found = compare(given, predictor(folder))
    assert [(row["text"], row["understood"]) for row in found["wrong"]] == [("hora", "faq/price")]
    (folder / "response_selection_errors.json").unlink()
    with pytest.raises(InvalidInput, match=r"response_selection_errors\.json is not there"):
        predictor(folder)


def test_the_reference_folder_is_read_as_it_is():
    folder = Path(os.environ.get("GENESIS_REFERENCE_DIR") or "none") / "rasa" / "test_nlu_results"
    found = read_results(folder if folder.is_dir() else BOT / "results")
    intents = [row for row in found["labels"] if row["tested"] == "intent"]
    assert (sum(row["support"] for row in intents), found["problems"]) == (6, []) and found["labels"][0]["recall"] == 0
    assert {row["tested"] for row in found["labels"]} == {"intent", "DIETClassifier", "RegexEntityExtractor"}


def test_reports_on_stories_are_read_and_held_against_those_that_failed(tmp_path):
    folder = shutil.copytree(BOT / "results", tmp_path / "r")
    label = {"precision": 0.5, "recall": 0.5, "f1-score": 0.5, "support": 2}
    report = {
        "utter_a": label,
        "accuracy": 0.5,
        "conversation_accuracy": {"accuracy": 0.5, "correct": 1, "with_warnings": 0, "total": 2},
    }
    (folder / "story_report.json").write_text(json.dumps(report))
    (folder / "failed_test_stories.yml").write_text(
        'version: "3.1"\nstories:\n- story: ask (tests/test_stories.yml)\n  steps:\n'
        "  - intent: ask  # predicted: bye: how much\n    user: |-\n      how much\n  - action: utter_a  # predicted: utter_b\n"
        "  - action: utter_c\n"
    )
    found = read_results(folder)
    assert not found["problems"] and found["labels"][-1] | {"tested": "story", "errors": 1} in found["labels"]
    (folder / "story_report.json").write_text(
        json.dumps(report | {"conversation_accuracy": {"correct": 2, "total": 2}})
    )
    assert "failed_test_stories.yml is of another run: it holds 1 stories, story_report.json 0" in problems_of(folder)


def test_entity_errors_of_another_run_are_not_believed(tmp_path):
    folder = shutil.copytree(BOT / "results", tmp_path / "r")
    report = json.loads((folder / "DIETClassifier_report.json").read_text()) | {"accuracy": 1.0}
    (folder / "DIETClassifier_report.json").write_text(json.dumps(report))
    assert "DIETClassifier_errors.json is of another run" in problems_of(folder)


def kept_by_the_registry(name):
    """What the registry has of a training: its run and the names of its files."""
    import mlflow

    client = mlflow.MlflowClient(registry.tracking_uri())
    experiment = client.get_experiment_by_name("genesis-training").experiment_id
    (run,) = [one for one in client.search_runs([experiment]) if one.info.run_name.startswith(f"{name} ")]
    return run, {one.path for one in client.list_artifacts(run.info.run_id, "model")}


def test_rasa_trains_in_its_own_environment_and_leaves_a_job(tmp_path, own_output_root):
    seen = []
    folder, states = own_output_root / "review" / "jobs" / "first", []

    def on_progress(done, total):
        seen.append((done, total))
        states.append(json.loads((folder / "job.json").read_text()))

    job = train_rasa(BOT, "first", command(tmp_path), on_progress=on_progress)
    assert states[0]["state"] == "running" and states[0]["pid"] == job["pid"]  # what a killed kernel leaves
    assert job["state"] == "finished" and (3, 3) in seen and job == json.loads((folder / "job.json").read_text())
    assert (folder / "models" / "first.tar.gz").exists() and job["model"].endswith("first.tar.gz")
    assert (folder / "bot" / "config.yml").read_text() == (BOT / "config.yml").read_text()
    assert not (folder / "bot" / "test_nlu.yml").exists()  # Rasa would learn it
    run, files = kept_by_the_registry("first")
    assert job["registry"] == "version 1 of first" and run.info.status == "FINISHED"
    assert run.data.metrics["i_acc"] == 0.3 and "model/bot" in files
    with pytest.raises(InvalidInput, match="exists already"):
        train_rasa(BOT, "first", command(tmp_path))


def test_a_training_that_fails_shows_its_log_and_is_registered_and_what_can_not_start_is_said(
    tmp_path, own_output_root
):
    job = train_rasa(BOT, "bad", command(tmp_path, "fails"))
    assert job["state"] == "failed" and job["model"] is None and "no tokenizer" in job["said"][-1]
    run, files = kept_by_the_registry("bad")
    assert (run.info.status, run.data.params["outcome"], job["registry"]) == ("FAILED", '"failed"', "a failed run")
    assert {"model/bot", "model/log", "model/job.json"} <= files
    with pytest.raises(InvalidInput, match="There is no command 'no-such-rasa'"):
        train_rasa(BOT, "none", "no-such-rasa")
    (tmp_path / "nlu.yml").write_text("version: 3.1\nnlu: []\n")
    for train in (lambda: train_rasa(tmp_path, "none", command(tmp_path)), lambda: train_classifier(tmp_path)):
        with pytest.raises(GenesisError, match=r"nlu\.yml, line 1: version must be a text"):
            train()
    assert not (own_output_root / "review" / "jobs" / "none").exists()


def test_a_training_is_cancelled_by_a_button_and_by_an_interrupt_and_the_job_says_so(tmp_path, own_output_root):
    stop = threading.Event()
    job = train_rasa(BOT, "one", command(tmp_path, "waits"), on_progress=lambda *_: stop.set(), stop=stop)
    assert job["state"] == "cancelled" and job["model"] is None and job["registry"] == "a failed run"

    def interrupt(done, total):
        threading.Thread(target=signal.raise_signal, args=(signal.SIGINT,)).start()
        time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        train_rasa(BOT, "long", command(tmp_path, "waits"), on_progress=interrupt)
    job = json.loads((own_output_root / "review" / "jobs" / "long" / "job.json").read_text())
    assert job["state"] == "cancelled" and job["model"] is None and job["seconds"] < 30


def test_a_server_trains_on_everything_in_one_request_and_the_model_can_be_deployed(tmp_path, own_output_root):
    bot = shutil.copytree(BOT, tmp_path / "bot")
    (bot / "more.yml").write_text(
        'version: "3.1"\nnlu:\n  - intent: no\n    examples: |\n      - "claro" que [no](persona)\n'
    )
    with rasa({}, models=()) as server:
        job = train_rasa(bot, "there", server.address)
    assert job["state"] == "finished" and job["model"] == "models/20261201-1200-brave-tree.tar.gz"
    assert (own_output_root / "review" / "jobs" / "there" / job["model"]).read_bytes() == b"a model"
    (tmp_path / "all.yml").write_text(server.sent)
    said = [
        [(one["intent"], one["text"], one["entities"]) for one in examples_in(at)] for at in (bot, tmp_path / "all.yml")
    ]
    assert sorted(map(str, said[0])) == sorted(map(str, said[1])) and "- intent: no\n" in server.sent
    assert {"pipeline", "nlu", "intents", "rules", "responses"} <= server.taught.keys()
    (bot / "config.yml").write_text("language: es\n")
    with rasa({}, models=()) as server:
        job = train_rasa(bot, "refused", server.address)
    assert job["state"] == "failed" and "no pipeline" in job["said"][-1]
    assert kept_by_the_registry("refused")[0].info.status == "FAILED"


def test_what_can_not_be_sent_to_a_server_is_refused_before_there_is_a_job(tmp_path, own_output_root):
    with pytest.raises(InvalidInput, match="GENESIS_RASA_TOKEN"):
        train_rasa(BOT, "none", "http://me:pw@localhost")
    assert not (own_output_root / "review" / "jobs" / "none").exists()


def test_a_training_that_breaks_off_has_failed_and_was_not_cancelled(tmp_path, own_output_root, monkeypatch):
    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr("genesis_lab.review.models.Popen", full)
    with pytest.raises(OSError, match="No space"):
        train_rasa(BOT, "broken", command(tmp_path))
    job = json.loads((own_output_root / "review" / "jobs" / "broken" / "job.json").read_text())
    assert job["state"] == "failed"


def test_a_model_is_deployed_checked_and_rolled_back(tmp_path):
    with rasa({}, models=("old.tar.gz", "new.tar.gz")) as server:
        done = deploy(server.address, "models/new.tar.gz")
        assert done == {"model": "new.tar.gz", "back": "models/old.tar.gz"}
        assert deploy(server.address, done["back"])["model"] == "old.tar.gz"
        with pytest.raises(Unavailable, match=r"'models/none\.tar\.gz' could not be loaded"):
            deploy(server.address, "models/none.tar.gz")
        server.stuck = True
        with pytest.raises(Unavailable, match=r"still uses old.tar.gz"):
            deploy(server.address, "models/new.tar.gz")
    (tmp_path / "new.tar.gz").write_bytes(b"trained here")
    with rasa({}, models=("old.tar.gz", "new.tar.gz")) as server:
        assert deploy(server.address, str(tmp_path / "new.tar.gz"))["back"] == "models/old.tar.gz"
    with rasa({}, models=("new.tar.gz",)) as server:
        server.model = None
        assert deploy(server.address, "new.tar.gz")["back"] is None


def test_cases_are_kept_listed_and_taken_away_by_commands(tmp_path):
    def run(*words):
        return CliRunner().invoke(app, ["review", "cases", *map(str, words), "--store", str(tmp_path / "c.sqlite")])

    (tmp_path / "a.csv").write_text("text,intent\nhola,saludar\nchau,despedir\n")
    assert run(tmp_path / "a.csv").output == "1: saludar: 'hola'\n2: despedir: 'chau'\n"
    assert run("--remove", 1).output == run().output == "2: despedir: 'chau'\n"
    assert "no row 9 in cases" in str(run("--remove", 9).exception)
    (tmp_path / "b.csv").write_text("text,intent\nnueva,x\nchau,saludar\n")
    assert (
        "is a case of despedir, not of saludar" in str(run(tmp_path / "b.csv").exception)
        and "nueva" not in run().output
    )


def test_what_no_example_teaches_is_not_asked_of_a_model(tmp_path):
    store = open_store(tmp_path / "s.sqlite")
    found = [
        {"entity": "time", "start": 7, "end": 13, "value": {"grain": "day"}, "extractor": "DucklingEntityExtractor"},
        {"entity": "cuenta", "start": 0, "end": 6, "value": "CK", "extractor": "DIETClassifier"},
    ]
    trackers.tracker(
        tmp_path / "t.db",
        [("a", trackers.user("cheque mañana", "pedir", 0.9, entities=found, text_tokens=[[0, 6], [7, 13]]))],
    ).close()
    ingest(store, str(tmp_path / "t.db"))
    case_of_message(store, records(store, sa.select(messages))[0]["key"])
    (case,) = list_cases(store)
    assert case["entities"] == [{"start": 0, "end": 6, "entity": "cuenta", "text": "cheque"}]
    assert compare([case], of_messages(store))["sides"][0]["entities"]["estimate"] == 1
