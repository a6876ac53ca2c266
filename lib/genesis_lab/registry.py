"""Datasets, training runs and models in MLflow, and how they hang together.

By default MLflow keeps its tables in SQLite under the output root (look at them with ``genesis mlflow``);
``GENESIS_MLFLOW_TRACKING_URI`` names any server. Search and comparison are MLflow's own, with `tracking_uri`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.files import output_root, shown
from genesis_lab.settings import get_settings

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset
    from genesis_lab.training.models import IntentModel

MODEL = "intent-classifier"
CHAMPION = "champion"
_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # else MLflow reports its use to its makers
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # else it tries for minutes before it gives a dead server up
}
_DIGEST = 36
"""Characters of a content hash that MLflow shows as a dataset's digest; the whole hash is a tag."""


class RegisteredModel(NamedTuple):
    """One version of a registered model, and the run that trained it."""

    name: str
    version: str
    run_id: str


def tracking_uri() -> str:
    """The MLflow store in use: the setting, else SQLite under the output root."""
    return get_settings().mlflow_tracking_uri or f"sqlite:///{(_home() / 'mlflow.db').resolve().as_posix()}"


def serve(port: int, on_start: Callable[[str], object]) -> None:
    """Serve MLflow's own pages until they are stopped; `on_start` is told where. Of a server only that is done."""
    uri = tracking_uri()
    with _mlflow() as client:  # makes the tables, or says why there are none
        client.search_registered_models(max_results=1)
    if uri.startswith("http"):
        on_start(f"The registry is at {_public(uri).rstrip('/')}/#/models")
        return
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise InvalidInput(f"Port {port} can't be used ({error.strerror}): choose another with --port.") from None
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", str(port), "--workers=1"]
    command += ["--default-artifact-root", (_home() / "artifacts").resolve().as_uri()]
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # else it keeps a dozen workers for jobs we have none of
    with (_home() / "server.log").open("wb") as log:
        # A group of its own: MLflow's workers are not told when their parent ends.
        server = Popen(command, stdout=log, stderr=log, cwd=_home(), start_new_session=True)
    try:
        on_start(f"http://127.0.0.1:{port}/#/models (Ctrl-C stops the server)")
        if server.wait():
            raise Unavailable(f"MLflow's server ended: {shown(_home() / 'server.log')} says why.")
    except KeyboardInterrupt:
        return
    finally:
        for how in (signal.SIGTERM, signal.SIGKILL):  # asked first; then what is slow, or has outlived its parent
            with suppress(ProcessLookupError, TimeoutExpired):
                os.killpg(server.pid, how)
                server.wait(5)


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
    version: bool = True,
) -> RegisteredModel:
    """A run with its settings, figures and reports, and what it trained as a new `version` of model `name`.

    Parameters
    ----------
    metrics, curves : the numbers among the first; figure to its values, each with its step.
    sources : name and content hash of each dataset learned from.
    save : writes the model's files into a new folder at the path it is given.
    version : False where nothing came of it, so that only the run is kept.
    loader : the module whose ``_load_pyfunc`` MLflow may call with those files to serve the model; never a pickle.
    """
    check_name(name)
    with _mlflow() as client, _run(client, kind, f"{name} {sources[0][1][:8]}", sources, tags or {}) as run_id:
        import mlflow
        from mlflow.entities import Metric

        mlflow.log_params({key: json.dumps(value) for key, value in params.items()})
        _log(client, run_id, metrics, reports or {})
        points = [Metric(key, float(y), 0, step) for key, curve in (curves or {}).items() for step, y in curve]
        for start in range(0, len(points), 1000):  # MLflow takes no more at once
            client.log_batch(run_id, metrics=points[start : start + 1000])
        with TemporaryDirectory() as folder:
            save(files := Path(folder).resolve() / "model")
            if loader:
                serving = {"loader_module": loader, "data_path": str(files), "pip_requirements": ["genesis-lab"]}
                model_id = mlflow.pyfunc.log_model(name=name, **serving).model_id
                source = client.get_logged_model(model_id).artifact_location
            else:
                client.log_artifacts(run_id, str(files), "model")
                model_id, source = None, f"{client.get_run(run_id).info.artifact_uri}/model"
            if not version:
                mlflow.end_run("FAILED")
                return RegisteredModel(name, "", run_id)
            with suppress(mlflow.MlflowException):  # there is one already
                client.create_registered_model(name)
            made = client.create_model_version(name, source, run_id, model_id=model_id).version
    return RegisteredModel(name, str(made), run_id)


def check_name(name: str) -> None:
    """Refuse a name that MLflow has no place for."""
    if not re.fullmatch(r"[\w.-]{1,100}", name):
        raise InvalidInput(f"A model's name is made of letters, digits, '.', '-' and '_', got {name!r}.")


def promote(name: str, version: str) -> None:
    """Make `version` the champion of model `name`."""
    with _mlflow(f"There is no version {version} of model {name!r} to promote.") as client:
        client.set_registered_model_alias(name, CHAMPION, version)


def load_in_use(name: str) -> tuple[IntentModel, str]:
    """The classifier that everybody should ask, and in words which one it is.

    The registry's champion of that name; where there is none, or `name` is a path, the model folder.
    """
    from genesis_lab.training.models import CARD, load_model, model_path

    folder = model_path(name)
    if Path(name).name != name:
        return load_model(folder), shown(folder)
    with TemporaryDirectory() as place:
        if champion := _champion(name, place):
            version, files = champion
            model = load_model(next(files.rglob(CARD), files / CARD).parent)
            return model, f"{name} version {version}, the registry's {CHAMPION}"
    return load_model(name), f"{shown(folder)}, the registry has no {CHAMPION} of that name"


def _champion(name: str, place: str) -> tuple[str, Path] | None:
    """Version and files of a model's champion, fetched to `place` where they are elsewhere; None where there is none.

    Of a store that is SQLite here MLflow's tables are read as they are: its import takes longer than an answer.
    """
    if not get_settings().mlflow_tracking_uri:
        if not (file := _home() / "mlflow.db").is_file():
            return None
        address = f"{file.resolve().as_uri()}?mode=ro"
        with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as tables:
            versions = "registered_model_aliases JOIN model_versions USING (workspace, name, version)"
            query = f"SELECT version, coalesce(storage_location, source) FROM {versions} WHERE name = ? AND alias = ?"
            row = tables.execute(query, [name, CHAMPION]).fetchone()
            if row is None or (files := Path(url2pathname(urlsplit(row[1]).path))).is_dir():
                return row and (str(row[0]), files)
    with suppress(InvalidInput), _version(name, None) as (client, found):
        from mlflow.artifacts import download_artifacts

        uri = client.get_model_version_download_uri(name, found.version)
        return str(found.version), Path(download_artifacts(artifact_uri=uri, dst_path=place)).resolve()
    return None


def lineage(name: str = MODEL, *, version: str | None = None) -> dict[str, Any]:
    """What a model was made of.

    ``datasets`` (name, content_hash, run_id or None where it was never registered, reports), ``model`` (name, version,
    run_id, aliases), and its run's ``reports`` and ``metrics``.
    """
    with _version(name, version) as (client, found):
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
    for name, value in _QUIET.items():
        os.environ[name] = value
    for chatty in ("mlflow", "alembic"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    import mlflow
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    logging.getLogger("mlflow").setLevel(logging.ERROR)  # its import has set it
    try:
        _home().mkdir(parents=True, exist_ok=True)
        with FileLock(_home() / ".lock"):  # one at a time: tables are created, and a process has one store
            before = mlflow.get_tracking_uri()
            mlflow.set_tracking_uri(uri)
            try:
                yield mlflow.MlflowClient(uri)
            finally:
                mlflow.set_tracking_uri(before)
    except OSError as error:
        raise Unavailable(f"The registry can't be written to {shown(_home())}: {error.strerror or error}.") from None
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "BAD_REQUEST") and not_found:
            raise InvalidInput(not_found) from None
        said = _public(" ".join(str(error).split()))[:300]
        raise Unavailable(f"MLflow at {_public(uri)} refused or can't be reached: {said}") from None


@contextmanager
def _version(name: str, version: str | None) -> Iterator[tuple[Any, Any]]:
    """A client, and the model's version of that number, else its champion."""
    missing = f"Model {name!r} has no {CHAMPION}: train and register one, then promote a version."
    with _mlflow(f"There is no version {version} of model {name!r}." if version else missing) as client:
        by_alias = client.get_model_version_by_alias
        yield client, client.get_model_version(name, version) if version else by_alias(name, CHAMPION)


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
    import mlflow
    from mlflow.entities import Dataset, DatasetInput, InputTag

    names, hashes = zip(*sources, strict=True)
    own = {"genesis.kind": kind, "genesis.dataset": "+".join(names), "genesis.content_hash": ",".join(hashes)}
    own |= {"genesis.sources": json.dumps(sources), **tags}
    read = [Dataset(name, digest[:_DIGEST], "local", json.dumps({"uri": name})) for name, digest in sources]
    with mlflow.start_run(experiment_id=_experiment(client, kind), run_name=title, tags=own) as run:
        purpose = [InputTag("mlflow.data.context", "training")]
        client.log_inputs(run.info.run_id, [DatasetInput(one, purpose) for one in read])
        yield run.info.run_id


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
