"""Datasets, training runs and models in MLflow, and how they hang together.

By default MLflow keeps its tables in SQLite under the output root (look at them with ``genesis mlflow``);
``GENESIS_MLFLOW_TRACKING_URI`` names any server.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, shown
from genesis_lab.settings import get_settings

if TYPE_CHECKING:
    import pandas as pd

    from genesis_lab.dataset import Dataset
    from genesis_lab.finetuning.lora import FinetuneReport
    from genesis_lab.training.saving import IntentModel
    from genesis_lab.training.train import TrainingReport

Kind = Literal["dataset", "training"]

MODEL = "intent-classifier"
CHAMPION = "champion"

_EXPERIMENTS: dict[Kind, str] = {"dataset": "genesis-datasets", "training": "genesis-training"}
_DIGEST = 36
"""Characters of a content hash that MLflow shows as a dataset's digest; the whole hash is a tag."""
_REPORTS = "reports"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a registered model, and the run that trained it."""

    name: str
    version: str
    run_id: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetLink:
    """A dataset that a model learned from; `run_id` is None when it was never registered."""

    name: str
    content_hash: str
    run_id: str | None
    reports: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lineage:
    """From the datasets over the training run to the model and the reports on each."""

    datasets: tuple[DatasetLink, ...]
    model: RegisteredModel
    reports: tuple[str, ...]
    metrics: dict[str, float]

    def __str__(self) -> str:
        data = " + ".join(f"{link.name}@{link.content_hash[:12]}" for link in self.datasets)
        alias = f" ({', '.join(self.model.aliases)})" if self.model.aliases else ""
        headline = ("accuracy", "macro_f1", "reference_accuracy")
        found = ", ".join(f"{name} {self.metrics[name]:.3f}" for name in headline if name in self.metrics)
        return f"{data} → run {self.model.run_id[:8]} → {self.model.name} v{self.model.version}{alias}: {found}"


def tracking_uri() -> str:
    """The MLflow store in use: the setting, else SQLite under the output root."""
    given = get_settings().mlflow_tracking_uri
    return given or f"sqlite:///{(_home() / 'mlflow.db').resolve().as_posix()}"


@contextmanager
def served(port: int) -> Iterator[tuple[str, Popen[bytes] | None]]:
    """The address of MLflow's page of models, and the process that serves it; stopped with all its workers at the end.

    Of a store that is a server already there is the address alone.

    Raises
    ------
    InvalidInput : `port` is taken.
    Unavailable : the server can't be started, or the one in the setting can't be reached.
    """
    import subprocess
    import sys

    uri = tracking_uri()
    _client(uri)  # makes the tables, or says why there are none
    if uri.startswith("http"):
        yield f"{_public(uri).rstrip('/')}/#/models", None
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise InvalidInput(f"Port {port} can't be used ({error.strerror}): choose another with --port.") from None
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    command += ["--default-artifact-root", (_home() / "artifacts").resolve().as_uri()]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # else it keeps a dozen workers for jobs we have none of
    log = _home() / "server.log"
    with log.open("wb") as file:
        # A group of its own: MLflow's workers are not told when their parent ends.
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=_home(), start_new_session=True)
    try:
        while not _answers(f"http://127.0.0.1:{port}"):
            if process.poll() is not None:
                raise Unavailable(f"MLflow's server ended while it started: {shown(log)} says why.")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/#/models", process
    finally:
        _end(process)


def _answers(address: str) -> bool:
    from urllib.request import urlopen

    try:
        urlopen(f"{address}/health", timeout=5).close()
    except OSError:
        return False
    return True


def _end(process: Popen[bytes]) -> None:
    """Ends `process` and its group: asks first, then ends what is slow or has outlived its parent."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(TimeoutExpired):
            process.wait(5)


def register_dataset(dataset: Dataset, *, reports: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The run id of `dataset`, registered under its name with its content hash as version.

    Registering the same content again adds `reports` (kind → ``to_dict()``) to the run that is there.
    """
    from mlflow.entities import RunTag

    with _mlflow() as client:
        run_id = _dataset_run(client, dataset.name, dataset.content_hash)
        if run_id is None:
            run = client.create_run(
                _experiment(client, "dataset"),
                run_name=f"{dataset.name}@{dataset.content_hash[:12]}",
                tags={
                    "genesis.kind": "dataset",
                    "genesis.dataset": dataset.name,
                    "genesis.content_hash": dataset.content_hash,
                    "genesis.domain": dataset.domain,
                    "genesis.path": shown(dataset.path),
                },
            )
            run_id = str(run.info.run_id)
            _log_inputs(client, run_id, [(dataset.name, dataset.content_hash, shown(dataset.path))])
            counts = {f"records_{split}": n for split, n in dataset.counts.items()}
            _log_metrics(client, run_id, counts | {"records": dataset.total})
            client.log_dict(run_id, dict(dataset.manifest), "manifest.json")
            client.set_terminated(run_id)
        for kind, report in (reports or {}).items():
            client.log_dict(run_id, dict(report), f"{_REPORTS}/{kind}.json")
            _log_metrics(client, run_id, {f"{kind}.{name}": value for name, value in report.items()})
            client.log_batch(run_id, tags=[RunTag(f"genesis.report.{kind}", "yes")])
    return run_id


def log_training(report: TrainingReport, *, name: str = MODEL, files: Sequence[Path] = ()) -> RegisteredModel:
    """A training run with its settings, figures and report, and its model as a new version of `name`.

    Parameters
    ----------
    files : further reports (HTML, PDF) to keep with the run.
    """
    from mlflow.entities import Param

    check_name(name)
    with _mlflow() as client:
        experiment = _experiment(client, "training")
        hashes = ",".join(source.content_hash for source in report.sources)
        tags = {
            "genesis.kind": "training",
            "genesis.dataset": "+".join(source.name for source in report.sources),
            "genesis.content_hash": hashes,
            "genesis.candidate": report.chosen,
        }
        run_id = str(client.create_run(experiment, run_name=f"{report.chosen} {hashes[:8]}", tags=tags).info.run_id)
        try:
            settings = report.config.model_dump(mode="json") | {"chosen": report.chosen}
            settings |= {f"chosen.{key}": value for key, value in report.params.items()}
            client.log_batch(run_id, params=[Param(key, json.dumps(value)) for key, value in settings.items()])
            _log_inputs(client, run_id, [(s.name, s.content_hash, s.name) for s in report.sources])
            counts = {"n_train": report.n_train, "n_test": report.n_test, "intents": report.intents}
            languages = {f"accuracy_{k}": v.estimate for k, v in report.evaluation.per_language.items()}
            seconds = {f"seconds_{step}": value for step, value in report.timings_s.items()}
            _log_metrics(client, run_id, report.metrics() | counts | languages | seconds)
            for point in report.learning_curve:
                client.log_metric(run_id, "learning_curve_accuracy", point.accuracy.estimate, step=point.records)
            client.log_dict(run_id, report.to_dict(), f"{_REPORTS}/training.json")
            for file in files:
                client.log_artifact(run_id, str(file), _REPORTS)
            version = _log_model(client, experiment, run_id, report, name, tags)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    return RegisteredModel(name, version, run_id)


def log_finetuning(report: FinetuneReport) -> RegisteredModel:
    """A fine-tuning run with its settings and curves, and its adapter as a new version of the student's name."""
    from mlflow.entities import Metric, Param

    info, name, now = report.info, report.folder.name, time.time_ns() // 1_000_000
    check_name(name)
    made = info["made_with"]
    with _mlflow() as client:
        tags = {
            "genesis.kind": "finetuning",
            "genesis.dataset": info["dataset"],
            "genesis.content_hash": made["data_hash"],
            "genesis.base": made["base"],
            "genesis.smoke": str(info["smoke"]),
        }
        run_name = f"{name} {made['data_hash'][:8]}"
        run_id = str(client.create_run(_experiment(client, "training"), run_name=run_name, tags=tags).info.run_id)
        try:
            client.log_batch(run_id, params=[Param(key, json.dumps(value)) for key, value in made["settings"].items()])
            _log_inputs(client, run_id, [(info["dataset"], made["data_hash"], info["dataset"])])
            _log_metrics(client, run_id, info)
            curves: list[tuple[Any, tuple[str, ...]]] = [(row, ("loss", "learning_rate")) for row in info["steps"]]
            curves += [(row, ("validation_loss", "score", "valid")) for row in info["epochs"]]
            points = [
                Metric(key, float(row[key]), now, row["step"])
                for row, keys in curves
                for key in keys
                if row[key] is not None
            ]
            for start in range(0, len(points), 1000):  # MLflow takes no more at once
                client.log_batch(run_id, metrics=points[start : start + 1000])
            for file in ("adapter_model.safetensors", "adapter_config.json", "training_info.json"):
                client.log_artifact(run_id, str(report.folder / file), "student")
            source = f"{client.get_run(run_id).info.artifact_uri}/student"
            version = _new_version(client, name, source, run_id, tags)
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id)
    return RegisteredModel(name, version, run_id)


def check_name(name: str) -> None:
    """Refuse a name that MLflow has no place for.

    Raises
    ------
    InvalidInput : `name` is not made of letters, digits and a few marks.
    """
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise InvalidInput(f"A model's name is made of letters, digits, '.', '-' and '_', got {name!r}.")


def promote(name: str, version: str, alias: str = CHAMPION) -> None:
    """Let `alias` of model `name` point to `version`; it leaves the version it was on."""
    with _mlflow(f"There is no version {version} of model {name!r} to promote.") as client:
        client.set_registered_model_alias(name, alias, version)


def load_registered(name: str = MODEL, *, version: str | None = None, alias: str = CHAMPION) -> IntentModel:
    """The model at `version`, or at `alias` when no version is given."""
    from genesis_lab.training.saving import CARD, load_model

    with _mlflow(_no_model(name, version, alias)) as client:
        found = _version(client, name, version, alias)
        from mlflow.artifacts import download_artifacts

        with TemporaryDirectory() as folder:
            uri = client.get_model_version_download_uri(name, found.version)
            local = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri())
            return load_model(next(Path(local).resolve().rglob(CARD)).parent)


def load_in_use(name: str) -> tuple[IntentModel, str]:
    """The classifier that everybody should ask, and in words which one it is.

    The registry's champion of that name; where there is none, or `name` is a path, the model folder.

    Raises
    ------
    InvalidInput : there is neither.
    Unavailable : the MLflow server of the settings can't be reached.
    """
    from genesis_lab.training.saving import load_model, model_path

    folder = model_path(name)
    if Path(name).name != name:
        return load_model(folder), shown(folder)
    version = ""
    if get_settings().mlflow_tracking_uri or _home().is_dir():
        with suppress(InvalidInput), _mlflow("no champion") as client:
            version = str(_version(client, name, None, CHAMPION).version)
    if version:
        return load_registered(name, version=version), f"{name} version {version}, the registry's champion"
    return load_model(name), f"{shown(folder)}, the registry has no champion of that name"


def search(kind: Kind = "training", where: str = "", *, order_by: str = "", limit: int = 100) -> pd.DataFrame:
    """Runs as a table, a row each: ``run_id, name, dataset, content_hash``, then settings and figures.

    Parameters
    ----------
    where : MLflow's filter, for example ``metrics.accuracy > 0.8 and tags."genesis.dataset" = 'demo'``.
    order_by : for example ``metrics.accuracy DESC``; by default the newest first.
    """
    with _mlflow(f"The filter {where!r} or the order {order_by!r} is not one that MLflow understands.") as client:
        experiment = _experiment(client, kind)
        runs = client.search_runs([experiment], where, max_results=limit, order_by=[order_by] if order_by else None)
    return _table(runs)


def compare(run_ids: Sequence[str]) -> pd.DataFrame:
    """Runs side by side, a column each: only settings that differ, and all figures."""
    with _mlflow("One of the runs to compare does not exist.") as client:
        table = _table([client.get_run(run_id) for run_id in run_ids])
    fixed = [
        column
        for column in table
        if column.startswith("params.") and table[column].astype(str).nunique(dropna=False) == 1
    ]
    return table.drop(columns=fixed).set_index("run_id").T


def versions(name: str = MODEL) -> list[RegisteredModel]:
    """Every version of a model, the newest first."""
    with _mlflow(f"There is no model {name!r}.") as client:
        aliases = client.get_registered_model(name).aliases
        found = client.search_model_versions(f"name = '{name}'")
    return [
        RegisteredModel(
            name, str(v.version), v.run_id, tuple(a for a, of in aliases.items() if str(of) == str(v.version))
        )
        for v in sorted(found, key=lambda v: -int(v.version))
    ]


def lineage(name: str = MODEL, *, version: str | None = None, alias: str = CHAMPION) -> Lineage:
    """What a model was made of: datasets, training run, reports."""
    with _mlflow(_no_model(name, version, alias)) as client:
        found = _version(client, name, version, alias)
        run = client.get_run(found.run_id)
        links = []
        hashes = run.data.tags["genesis.content_hash"].split(",")
        learned = {
            tag.value: one.dataset.name
            for one in run.inputs.dataset_inputs
            for tag in one.tags
            if tag.key == "genesis.content_hash"
        }
        for dataset, content_hash in ((learned[content_hash], content_hash) for content_hash in hashes):
            run_id = _dataset_run(client, dataset, content_hash)
            links.append(DatasetLink(dataset, content_hash, run_id, _reports(client, run_id) if run_id else ()))
        model = RegisteredModel(name, str(found.version), found.run_id, tuple(found.aliases))
        return Lineage(tuple(links), model, _reports(client, found.run_id), dict(run.data.metrics))


@contextmanager
def _mlflow(not_found: str = "") -> Iterator[Any]:
    """A client of the store, its errors in one sentence."""
    uri = tracking_uri()
    client = _client(uri)
    from mlflow.exceptions import MlflowException

    try:
        yield client
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST") and not_found:
            raise InvalidInput(not_found) from None
        raise Unavailable(f"MLflow at {_public(uri)} refused: {' '.join(str(error).split())[:300]}") from None


@lru_cache(maxsize=4)
def _client(uri: str) -> Any:
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # else MLflow reports its use to its makers
    if uri.startswith("http"):
        _check_server(uri)
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise MissingDependency("mlflow", "The registry", "pip install mlflow") from None
    from filelock import FileLock

    if uri.startswith("http"):
        return MlflowClient(uri)
    try:
        _home().mkdir(parents=True, exist_ok=True)
        with FileLock(_home() / ".lock"):  # two processes must not create the tables at once
            logging.getLogger("mlflow").setLevel(logging.ERROR)
            return MlflowClient(uri)
    except OSError as error:
        raise Unavailable(f"The registry can't be written to {shown(_home())}: {error.strerror}.") from None


def _check_server(uri: str) -> None:
    """MLflow itself tries for minutes before it gives a dead server up."""
    from urllib.error import HTTPError, URLError
    from urllib.request import urlopen

    try:
        urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except HTTPError:
        return
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"The MLflow server {_public(uri)} can't be reached ({reason}): start it, or unset GENESIS_MLFLOW_TRACKING_URI."
        ) from None


def _home() -> Path:
    return output_root() / "mlflow"


def _public(uri: str) -> str:
    """`uri` without a password in it, and without this machine's paths."""
    return "sqlite" if uri.startswith("sqlite") else re.sub(r"//[^/@]*@", "//", uri)


def _experiment(client: Any, kind: Kind) -> str:
    name = _EXPERIMENTS[kind]
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    local = not get_settings().mlflow_tracking_uri
    return str(
        client.create_experiment(
            name, artifact_location=(_home() / "artifacts" / kind).resolve().as_uri() if local else None
        )
    )


def _dataset_run(client: Any, name: str, content_hash: str) -> str | None:
    # By name here, not in the filter: MLflow's language has no way to write a name with quotes in it.
    runs = client.search_runs([_experiment(client, "dataset")], f"tags.\"genesis.content_hash\" = '{content_hash}'")
    return next((str(run.info.run_id) for run in runs if run.data.tags["genesis.dataset"] == name), None)


def _log_inputs(client: Any, run_id: str, datasets: Sequence[tuple[str, str, str]]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    client.log_inputs(
        run_id,
        [
            DatasetInput(
                Dataset(name, content_hash[:_DIGEST], "local", json.dumps({"uri": where})),
                [InputTag("mlflow.data.context", "training"), InputTag("genesis.content_hash", content_hash)],
            )
            for name, content_hash, where in datasets
        ],
    )


def _log_metrics(client: Any, run_id: str, values: Mapping[str, Any]) -> None:
    """The numbers among `values`."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
    metrics = [Metric(re.sub(r"[^\w./ -]", "_", name), float(value), now, 0) for name, value in numbers.items()]
    client.log_batch(run_id, metrics=metrics)


def _log_model(
    client: Any, experiment: str, run_id: str, report: TrainingReport, name: str, tags: dict[str, str]
) -> str:
    """A version of `name`: an MLflow model that loads itself by `genesis_lab.training.saving`, never by pickle."""
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput

    from genesis_lab.training.saving import save_model

    with TemporaryDirectory() as folder:
        ours, theirs = Path(folder).resolve() / "model", Path(folder).resolve() / "mlflow"
        save_model(report.model, ours)
        pyfunc.save_model(
            path=str(theirs),
            loader_module="genesis_lab.training.saving",
            data_path=str(ours),
            pip_requirements=["genesis-lab"],
        )
        logged = client.create_logged_model(experiment, name, source_run_id=run_id, tags=tags, model_type=report.chosen)
        client.log_model_artifacts(logged.model_id, str(theirs))
        client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    # Not models:/<id>: MLflow looks that up in the process-wide store, which may be another one.
    return _new_version(client, name, logged.artifact_location, run_id, tags, model_id=logged.model_id)


def _new_version(client: Any, name: str, source: str, run_id: str, tags: dict[str, str], **more: Any) -> str:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return str(client.create_model_version(name, source=source, run_id=run_id, tags=tags, **more).version)


def _version(client: Any, name: str, version: str | None, alias: str) -> Any:
    return client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)


def _no_model(name: str, version: str | None, alias: str) -> str:
    if version:
        return f"There is no version {version} of model {name!r}."
    return f"Model {name!r} has no {alias}: train and register one, then promote a version."


def _reports(client: Any, run_id: str) -> tuple[str, ...]:
    return tuple(item.path for item in client.list_artifacts(run_id, _REPORTS))


def _table(runs: Sequence[Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        [
            {
                "run_id": run.info.run_id,
                "name": run.info.run_name,
                "dataset": run.data.tags.get("genesis.dataset"),
                "content_hash": run.data.tags.get("genesis.content_hash"),
            }
            | {f"params.{key}": json.loads(value) for key, value in sorted(run.data.params.items())}
            | {f"metrics.{key}": value for key, value in sorted(run.data.metrics.items())}
            for run in runs
        ],
        columns=None if runs else ["run_id", "name", "dataset", "content_hash"],
    )
