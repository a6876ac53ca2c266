from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psutil
import pytest

from genesis_lab import registry
from genesis_lab.cli import main
from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.finetuning.checkpoints import logged
from genesis_lab.settings import get_settings
from genesis_lab.training.config import train_config
from genesis_lab.training.models import save_model
from genesis_lab.training.train import train
from labelled_texts import labelled, write_dataset


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """One dataset, two training runs, one store for all tests (MLflow takes seconds to make its tables)."""
    root = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENESIS_OUTPUT_ROOT", str(root))
        get_settings.cache_clear()
        dataset = write_dataset(root / "datasets" / "small", labelled())
        run_id = registry.register_dataset(dataset, reports={"quality": {"score": 93.5, "verdict": "PASS"}})
        reports = [train(dataset, train_config(preset)) for preset in ("quick_test", "fast")]
        models = [registry.log_run("training", registry.MODEL, **report.logged()) for report in reports]
    get_settings.cache_clear()
    return root, dataset, run_id, reports, models


@pytest.fixture(autouse=True)
def same_root(world, monkeypatch, own_output_root):
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(world[0]))
    get_settings.cache_clear()


def store():
    from mlflow import MlflowClient  # not earlier: the registry has switched its reporting of use off by now

    return MlflowClient(registry.tracking_uri())


def files_of(name, version):
    from mlflow.artifacts import download_artifacts

    place = store().get_model_version_download_uri(name, version)
    return Path(download_artifacts(artifact_uri=place, tracking_uri=registry.tracking_uri()))


def test_a_dataset_is_registered_once_per_content(world):
    _, dataset, run_id, _, _ = world
    assert registry.register_dataset(dataset) == run_id
    run = store().get_run(run_id)
    assert (run.data.tags["genesis.dataset"], run.data.tags["genesis.content_hash"]) == ("small", dataset.content_hash)
    assert run.data.metrics["quality.score"] == 93.5


def test_lineage_runs_from_dataset_to_model_to_reports(world):
    _, dataset, run_id, reports, models = world
    found = registry.lineage(version=models[1].version)
    learned = {"name": "small", "content_hash": dataset.content_hash, "run_id": run_id}
    assert found["datasets"] == [learned | {"reports": ["reports/quality.json"]}]
    assert found["reports"] == ["reports/training.json"]
    assert found["metrics"]["accuracy"] == pytest.approx(reports[1].rows["evaluation"]["accuracy"]["estimate"])


def test_the_champion_predicts_as_the_model_that_was_logged(world):
    _, _, _, reports, models = world
    registry.promote(registry.MODEL, models[0].version)
    registry.promote(registry.MODEL, models[1].version)
    champion, _ = registry.load_in_use(registry.MODEL)
    texts = ["my card has not arrived", "cambiar el pin"]
    assert champion.predict(texts) == reports[1].model.predict(texts)
    aliases = [registry.lineage(version=version)["model"]["aliases"] for version in ("1", "2")]
    assert aliases == [[], ["champion"]]


def test_the_champion_is_asked_else_the_folder_and_which_one_is_said(world, capsys, monkeypatch):
    root, _, _, reports, _ = world
    first, second = (report.model for report in reports)
    save_model(first, "asked")
    assert registry.load_in_use("asked")[1] == "outputs/models/asked, the registry has no champion of that name"
    for report in reports:
        version = registry.log_run("training", "asked", **report.logged()).version
    assert registry.load_in_use("asked")[0].card.metrics == first.card.metrics, "a version is no champion by itself"
    registry.promote("asked", version)
    monkeypatch.setattr(registry, "_mlflow", None)  # whose import takes longer than the answer
    with pytest.raises(SystemExit, match="0"):
        main(["predict", "asked", "my card has not arrived"])
    out, said = capsys.readouterr()
    assert said == "asked version 2, the registry's champion\n" and out.startswith(
        "my card has not arrived\tcard_arrival"
    )
    assert registry.load_in_use("asked")[0].card.params == second.card.params
    assert registry.load_in_use(str(root / "models" / "asked"))[1] == "outputs/models/asked"
    with pytest.raises(InvalidInput, match="holds no model"):
        registry.load_in_use("never trained")


def test_a_student_is_registered_with_its_curves_and_its_adapter(world, tmp_path):
    _, dataset, run_id, _, _ = world
    files = {"adapter_model.safetensors", "adapter_config.json", "training_info.json"}
    for name in (*files, "checkpoint.bin"):
        (tmp_path / name).write_text("{}")
    steps = [{"step": n, "loss": 1 / n, "learning_rate": 0.001} for n in range(1, 1_200)]
    epochs = [{"step": n, "validation_loss": 0.5, "score": None, "valid": None} for n in (0, 1_199)]
    made = {"data_hash": dataset.content_hash, "base": "smollm2", "settings": {"rank": 8, "targets": "attention"}}
    info = {"dataset": "small", "smoke": True, "tokens_seen": 99, "made_with": made, "steps": steps, "epochs": epochs}
    registered = registry.log_run("finetuning", "student", **logged(tmp_path, info))
    found = registry.lineage("student", version=registered.version)
    assert found["datasets"][0]["run_id"] == run_id
    assert found["metrics"]["loss"] == pytest.approx(1 / 1_199) and found["metrics"]["tokens_seen"] == 99
    run = store().get_run(registered.run_id)
    assert (run.data.tags["genesis.kind"], run.data.params["rank"], run.info.status) == ("finetuning", "8", "FINISHED")
    assert {file.name for file in files_of("student", registered.version).rglob("*") if file.is_file()} == files


def test_a_run_that_something_stops_is_marked_as_failed(world):
    def save(folder):
        raise InvalidInput("the disk is full")

    with pytest.raises(InvalidInput, match="the disk is full"):
        registry.log_run("training", "half", params={}, metrics={}, sources=[("small", "0" * 64)], save=save)
    experiment = store().get_experiment_by_name("genesis-training").experiment_id
    assert [run.info.status for run in store().search_runs([experiment], "attributes.run_name = 'half 00000000'")] == [
        "FAILED"
    ]
    with pytest.raises(InvalidInput, match="half"):
        registry.lineage("half", version="1")


def test_mlflow_serves_the_registered_model_by_itself(world):
    from mlflow import pyfunc

    model = pyfunc.load_model(str(files_of(registry.MODEL, "2")))
    assert model.predict(["my card has not arrived"])[0]["label"] == "card_arrival"


def test_mlflow_finds_runs_by_figures_and_settings(world):
    experiment = store().get_experiment_by_name("genesis-training").experiment_id
    where = "metrics.accuracy > 0 and tags.\"genesis.candidate\" = 'tfidf+logistic_regression'"
    found = store().search_runs([experiment], where)
    assert found and {run.data.params["chosen"] for run in found} == {'"tfidf+logistic_regression"'}


def test_what_is_not_there_is_one_sentence():
    with pytest.raises(InvalidInput, match="There is no version 99 of model 'intent-classifier'"):
        registry.lineage(version="99")
    with pytest.raises(InvalidInput, match="has no champion"):
        registry.lineage("another")
    with pytest.raises(InvalidInput, match="no version 7 of model 'another' to promote"):
        registry.promote("another", "7")
    with pytest.raises(InvalidInput, match="There is no version 99 of model 'another'"):
        registry.lineage("another", version="99")


def test_a_dead_server_is_one_sentence(monkeypatch):
    monkeypatch.setenv("GENESIS_MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    get_settings.cache_clear()
    with pytest.raises(Unavailable, match="can't be reached") as caught:
        registry.lineage("any")
    assert "secret" not in str(caught.value)
    with pytest.raises(Unavailable, match="can't be reached"):
        registry.serve(5000, print)


def answered(place):
    with suppress(OSError), urlopen(place, timeout=60) as answer:
        return answer.read()


@pytest.mark.parametrize(("how", "busy"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_genesis_mlflow_says_where_it_is_and_leaves_no_process_behind(world, how, busy):
    """Once when it has answered, once while its server is still starting."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "genesis_lab.cli", "mlflow", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(300, server.kill)
    watchdog.start()
    try:
        assert server.stdout.readline() == f"http://127.0.0.1:{port}/#/models (Ctrl-C stops the server)\n"
        everyone = psutil.Process(server.pid).children(recursive=True)
        assert all(one.environ()["MLFLOW_DISABLE_TELEMETRY"] == "true" for one in everyone)
        place = f"http://127.0.0.1:{port}/ajax-api/2.0/mlflow/registered-models/search"
        while busy and not (answer := answered(place)) and server.poll() is None:
            time.sleep(0.5)
        assert not busy or registry.MODEL in [model["name"] for model in json.loads(answer)["registered_models"]]
        everyone = psutil.Process(server.pid).children(recursive=True)
        server.send_signal(how)
        assert (server.wait(60), *server.communicate()) == (0, "", "")
    finally:
        watchdog.cancel()
        server.kill()
    assert psutil.wait_procs(everyone, timeout=5)[1] == []


def test_a_taken_port_is_one_sentence_and_starts_nothing():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InvalidInput, match=r"Port \d+ can't be used .* choose another with --port"):
            registry.serve(other.getsockname()[1], print)


@pytest.mark.parametrize("name", ["it's", 'it\'s "both"', "two + two, at times"])
def test_a_dataset_may_have_any_name(world, name):
    dataset = write_dataset(world[0] / "datasets" / name, labelled())
    run_id = registry.register_dataset(dataset)
    assert registry.register_dataset(dataset) == run_id
    report = train(dataset, train_config("quick_test"))
    registered = registry.log_run("training", "any-name", **report.logged())
    found = registry.lineage("any-name", version=registered.version)
    assert [(link["name"], link["run_id"]) for link in found["datasets"]] == [(name, run_id)]
