"""Datasets, training runs and models in MLflow, and how they hang together.

By default MLflow keeps its tables in SQLite under the output root (look at them with ``genesis mlflow``);
``GENESIS_MLFLOW_TRACKING_URI`` names any server. Search and comparison are MLflow's own: `tracking_uri` is what they need.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, shown
from genesis_lab.settings import get_settings

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset
    from genesis_lab.training.models import IntentModel

MODEL = "intent-classifier"
CHAMPION = "champion"
_DIGEST = 36
"""Characters of a content hash that MLflow shows as a dataset's digest; the whole hash is a tag."""


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a registered model, and the run that trained it."""

    name: str
    version: str
    run_id: str


def tracking_uri() -> str:
    """The MLflow store in use: the setting, else SQLite under the output root."""
    return get_settings().mlflow_tracking_uri or f"sqlite:///{(_home() / 'mlflow.db').resolve().as_posix()}"


@contextmanager
def served(port: int) -> Iterator[tuple[str, Popen[bytes] | None]]:
    """The address of MLflow's page of models, and the process that serves it; stopped with all its workers at the end.

    Of a store that is a server already there is the address alone.
    """
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
        process = Popen(command, stdout=file, stderr=file, cwd=_home(), start_new_session=True)
    try:
        while _no_answer(f"http://127.0.0.1:{port}"):
            if process.poll() is not None:
                raise Unavailable(f"MLflow's server ended while it started: {shown(log)} says why.")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/#/models", process
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, how)
            with suppress(TimeoutExpired):
                process.wait(5)


def register_dataset(dataset: Dataset, *, reports: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The run id of `dataset`, registered under its name with its content hash as version.

    Registering the same content again adds `reports` (kind → JSON-safe fields) to the run that is there.
    """
    with _mlflow() as client:
        run_id = _dataset_run(client, dataset.name, dataset.content_hash)
        if run_id is None:
            title, source = f"{dataset.name}@{dataset.content_hash[:12]}", (dataset.name, dataset.content_hash)
            tags = {"genesis.domain": dataset.domain, "genesis.path": shown(dataset.path)}
            with _run(client, "dataset", title, [source], tags) as run_id:
                counts = {f"records_{split}": n for split, n in dataset.counts.items()}
                _log(client, run_id, counts | {"records": dataset.total}, {})
                client.log_dict(run_id, dict(dataset.manifest), "manifest.json")
        for kind, report in (reports or {}).items():
            _log(client, run_id, {f"{kind}.{name}": value for name, value in report.items()}, {kind: report})
            client.set_tag(run_id, f"genesis.report.{kind}", "yes")
    return run_id


def log_run(
    kind: str,
    name: str,
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, Any],
    sources: Sequence[tuple[str, str]],
    save: Callable[[Path], object],
    curves: Mapping[str, Sequence[tuple[int, float]]] | None = None,
    reports: Mapping[str, Mapping[str, Any]] | None = None,
    tags: Mapping[str, str] | None = None,
    loader: str = "",
) -> RegisteredModel:
    """A run with its settings, figures and reports, and what it trained as a new version of model `name`.

    Parameters
    ----------
    metrics, curves : the numbers among the first; figure to its values, each with its step.
    sources : name and content hash of each dataset learned from.
    save : writes the model's files into a new folder at the path it is given.
    loader : the module whose ``_load_pyfunc`` MLflow may call with those files to serve the model; never a pickle.
    """
    check_name(name)
    with _mlflow() as client, _run(client, kind, f"{name} {sources[0][1][:8]}", sources, tags or {}) as run_id:
        import mlflow
        from mlflow.entities import Metric

        for key, value in params.items():
            client.log_param(run_id, key, json.dumps(value))
        _log(client, run_id, metrics, reports or {})
        points = [Metric(key, float(y), 0, step) for key, curve in (curves or {}).items() for step, y in curve]
        for start in range(0, len(points), 1000):  # MLflow takes no more at once
            client.log_batch(run_id, metrics=points[start : start + 1000])
        with TemporaryDirectory() as folder, mlflow.start_run(run_id):
            save(files := Path(folder).resolve() / "model")
            if loader:
                serving = {"loader_module": loader, "data_path": str(files), "pip_requirements": ["genesis-lab"]}
                model_id = mlflow.pyfunc.log_model(name=name, **serving).model_id
                source = client.get_logged_model(model_id).artifact_location
            else:
                client.log_artifacts(run_id, str(files), "model")
                model_id, source = None, f"{client.get_run(run_id).info.artifact_uri}/model"
            with suppress(mlflow.MlflowException):  # there is one already
                client.create_registered_model(name)
            version = client.create_model_version(name, source, run_id, model_id=model_id).version
    return RegisteredModel(name, str(version), run_id)


def check_name(name: str) -> None:
    """Refuse a name that MLflow has no place for."""
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise InvalidInput(f"A model's name is made of letters, digits, '.', '-' and '_', got {name!r}.")


def promote(name: str, version: str, alias: str = CHAMPION) -> None:
    """Let `alias` of model `name` point to `version`; it leaves the version it was on."""
    with _mlflow(f"There is no version {version} of model {name!r} to promote.") as client:
        client.set_registered_model_alias(name, alias, version)


def load_registered(name: str = MODEL, *, version: str | None = None, alias: str = CHAMPION) -> IntentModel:
    """The model at `version`, or at `alias` when no version is given."""
    from genesis_lab.training.models import CARD, load_model

    with _version(name, version, alias) as (client, found), TemporaryDirectory() as folder:
        from mlflow.artifacts import download_artifacts

        uri = client.get_model_version_download_uri(name, found.version)
        local = download_artifacts(artifact_uri=uri, dst_path=folder, tracking_uri=tracking_uri())
        return load_model(next(Path(local).resolve().rglob(CARD)).parent)


def load_in_use(name: str) -> tuple[IntentModel, str]:
    """The classifier that everybody should ask, and in words which one it is.

    The registry's champion of that name; where there is none, or `name` is a path, the model folder.
    """
    from genesis_lab.training.models import load_model, model_path

    folder = model_path(name)
    if Path(name).name != name:
        return load_model(folder), shown(folder)
    if get_settings().mlflow_tracking_uri or _home().is_dir():
        with suppress(InvalidInput), _version(name, None, CHAMPION) as (_, found):
            version = str(found.version)
            return load_registered(name, version=version), f"{name} version {version}, the registry's champion"
    return load_model(name), f"{shown(folder)}, the registry has no champion of that name"


def lineage(name: str = MODEL, *, version: str | None = None, alias: str = CHAMPION) -> dict[str, Any]:
    """What a model was made of.

    ``datasets`` (name, content_hash, run_id or None where it was never registered, reports), ``model`` (name, version,
    run_id, aliases), and its run's ``reports`` and ``metrics``.
    """
    with _version(name, version, alias) as (client, found):
        run, datasets = client.get_run(found.run_id), []
        for source, content_hash in json.loads(run.data.tags["genesis.sources"]):
            run_id = _dataset_run(client, source, content_hash)
            reports = _reports(client, run_id) if run_id else []
            datasets.append({"name": source, "content_hash": content_hash, "run_id": run_id, "reports": reports})
        model = {"name": name, "version": str(found.version), "run_id": found.run_id, "aliases": list(found.aliases)}
        metrics = dict(run.data.metrics)
        return {"datasets": datasets, "model": model, "reports": _reports(client, found.run_id), "metrics": metrics}


@contextmanager
def _mlflow(not_found: str = "") -> Iterator[Any]:
    """A client of the store, which is MLflow's own store meanwhile; its errors in one sentence."""
    uri = tracking_uri()
    client = _client(uri)
    import mlflow
    from mlflow.exceptions import MlflowException

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield client
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST") and not_found:
            raise InvalidInput(not_found) from None
        raise Unavailable(f"MLflow at {_public(uri)} refused: {' '.join(str(error).split())[:300]}") from None
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _version(name: str, version: str | None, alias: str) -> Iterator[tuple[Any, Any]]:
    """A client, and the model's version of that number or alias."""
    missing = f"Model {name!r} has no {alias}: train and register one, then promote a version."
    with _mlflow(f"There is no version {version} of model {name!r}." if version else missing) as client:
        found = client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)
        yield client, found


@lru_cache(maxsize=4)
def _client(uri: str) -> Any:
    for name, value in _QUIET.items():
        os.environ[name] = value
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    if reason := uri.startswith("http") and _no_answer(uri):  # MLflow itself tries for minutes
        advice = "start it, or unset GENESIS_MLFLOW_TRACKING_URI"
        raise Unavailable(f"The MLflow server {_public(uri)} can't be reached ({reason}): {advice}.")
    try:
        from mlflow import MlflowClient
    except ImportError:
        raise MissingDependency("mlflow", "The registry", "pip install mlflow") from None
    from filelock import FileLock

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # its import has set it
    try:
        _home().mkdir(parents=True, exist_ok=True)
        with FileLock(_home() / ".lock"):  # two processes must not create the tables at once
            return MlflowClient(uri)
    except OSError as error:
        raise Unavailable(f"The registry can't be written to {shown(_home())}: {error.strerror}.") from None


_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else MLflow reports its use to its makers
}


def _no_answer(uri: str) -> object:
    """Why no MLflow server answers there; empty if one does."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with suppress(HTTPError):
            urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except (OSError, ValueError) as error:
        return getattr(error, "reason", error)
    return ""


def _home() -> Path:
    return output_root() / "mlflow"


def _public(uri: str) -> str:
    """`uri` without a password in it, and without this machine's paths."""
    return "sqlite" if uri.startswith("sqlite") else re.sub(r"//[^/@]*@", "//", uri)


@contextmanager
def _run(
    client: Any, kind: str, title: str, sources: Sequence[tuple[str, str]], tags: Mapping[str, str]
) -> Iterator[str]:
    """A new run of this kind and what it read, marked as failed where something stops it."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    names, hashes = zip(*sources, strict=True)
    own = {"genesis.kind": kind, "genesis.dataset": "+".join(names), "genesis.content_hash": ",".join(hashes)}
    own["genesis.sources"] = json.dumps(sources)
    run_id = str(client.create_run(_experiment(client, kind), run_name=title, tags=own | dict(tags)).info.run_id)
    try:
        read = [Dataset(name, digest[:_DIGEST], "local", json.dumps({"uri": name})) for name, digest in sources]
        client.log_inputs(run_id, [DatasetInput(one, [InputTag("mlflow.data.context", "training")]) for one in read])
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


def _experiment(client: Any, kind: str) -> str:
    kind = "datasets" if kind == "dataset" else "training"
    if found := client.get_experiment_by_name(f"genesis-{kind}"):
        return str(found.experiment_id)
    local = not get_settings().mlflow_tracking_uri
    location = (_home() / "artifacts" / kind).resolve().as_uri() if local else None
    return str(client.create_experiment(f"genesis-{kind}", artifact_location=location))


def _dataset_run(client: Any, name: str, content_hash: str) -> str | None:
    # By name here, not in the filter: MLflow's language has no way to write a name with quotes in it.
    runs = client.search_runs([_experiment(client, "dataset")], f"tags.\"genesis.content_hash\" = '{content_hash}'")
    return next((str(run.info.run_id) for run in runs if run.data.tags["genesis.dataset"] == name), None)


def _log(client: Any, run_id: str, values: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]) -> None:
    """The numbers among `values`, and whole reports."""
    for name, value in values.items():
        if type(value) in (int, float):
            client.log_metric(run_id, re.sub(r"[^\w./ -]", "_", name), float(value))
    for kind, report in reports.items():
        client.log_dict(run_id, dict(report), f"reports/{kind}.json")


def _reports(client: Any, run_id: str) -> list[str]:
    return [item.path for item in client.list_artifacts(run_id, "reports")]
