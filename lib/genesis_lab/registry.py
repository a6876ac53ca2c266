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
_REPORTS, _FILES = "reports", "model"


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """One version of a registered model, and the run that trained it."""

    name: str
    version: str
    run_id: str


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
        while not _health(f"http://127.0.0.1:{port}")[0]:
            if process.poll() is not None:
                raise Unavailable(f"MLflow's server ended while it started: {shown(log)} says why.")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/#/models", process
    finally:
        _end(process)


def _end(process: Popen[bytes]) -> None:
    """Ends `process` and its group: asks first, then ends what is slow or has outlived its parent."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(TimeoutExpired):
            process.wait(5)


def register_dataset(dataset: Dataset, *, reports: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """The run id of `dataset`, registered under its name with its content hash as version.

    Registering the same content again adds `reports` (kind → JSON-safe fields) to the run that is there.
    """
    from mlflow.entities import RunTag

    source = (dataset.name, dataset.content_hash)
    with _mlflow() as client:
        run_id = _dataset_run(client, *source)
        if run_id is None:
            tags = {"genesis.domain": dataset.domain, "genesis.path": shown(dataset.path)}
            with _run(client, "dataset", "@".join(source)[: len(dataset.name) + 13], [source], tags) as run_id:
                counts = {f"records_{split}": n for split, n in dataset.counts.items()}
                _log_metrics(client, run_id, counts | {"records": dataset.total})
                client.log_dict(run_id, dict(dataset.manifest), "manifest.json")
        for kind, report in (reports or {}).items():
            client.log_dict(run_id, dict(report), f"{_REPORTS}/{kind}.json")
            _log_metrics(client, run_id, {f"{kind}.{name}": value for name, value in report.items()})
            client.log_batch(run_id, tags=[RunTag(f"genesis.report.{kind}", "yes")])
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
    kind : of run, for example ``training``.
    metrics : the numbers among them are kept.
    sources : name and content hash of each dataset learned from.
    save : writes the model's files into a new folder at the path it is given.
    curves : figure to its values, each with its step.
    reports : kind → JSON-safe fields.
    loader : the module whose ``_load_pyfunc`` MLflow may call with those files, so that it serves the model by itself;
        never a pickle.
    """
    from mlflow import pyfunc
    from mlflow.entities import LoggedModelOutput, Metric, Param
    from mlflow.exceptions import MlflowException

    check_name(name)
    with _mlflow() as client, _run(client, kind, f"{name} {sources[0][1][:8]}", sources, tags or {}) as run_id:
        client.log_batch(run_id, params=[Param(key, json.dumps(value)) for key, value in params.items()])
        _log_metrics(client, run_id, metrics)
        points = [
            Metric(key, float(value), _now(), step) for key, curve in (curves or {}).items() for step, value in curve
        ]
        for start in range(0, len(points), 1000):  # MLflow takes no more at once
            client.log_batch(run_id, metrics=points[start : start + 1000])
        for report, fields in (reports or {}).items():
            client.log_dict(run_id, dict(fields), f"{_REPORTS}/{report}.json")
        run_tags = {key: value for key, value in client.get_run(run_id).data.tags.items() if "genesis." in key}
        logged = client.create_logged_model(
            _experiment(client, kind), name, source_run_id=run_id, tags=run_tags, model_type=kind
        )
        with TemporaryDirectory() as folder:
            ours, theirs = Path(folder).resolve() / _FILES, Path(folder).resolve() / "mlflow"
            save(ours)
            if loader:
                requirements = ["genesis-lab"]
                pyfunc.save_model(str(theirs), loader, str(ours), pip_requirements=requirements)
            client.log_model_artifacts(logged.model_id, str(theirs if loader else ours))
        client.finalize_logged_model(logged.model_id, "READY")
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        # Not models:/<id>: MLflow looks that up in the process-wide store, which may be another one.
        version = client.create_model_version(
            name, logged.artifact_location, run_id, run_tags, model_id=logged.model_id
        ).version
    return RegisteredModel(name, str(version), run_id)


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
    from genesis_lab.training.models import CARD, load_model

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
    from genesis_lab.training.models import load_model, model_path

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


def lineage(name: str = MODEL, *, version: str | None = None, alias: str = CHAMPION) -> dict[str, Any]:
    """What a model was made of.

    ``datasets`` (name, content_hash, run_id or None where it was never registered, reports), ``model`` (name, version,
    run_id, aliases), and its run's ``reports`` and ``metrics``.
    """
    with _mlflow(_no_model(name, version, alias)) as client:
        found = _version(client, name, version, alias)
        run = client.get_run(found.run_id)
        datasets = []
        for one in run.inputs.dataset_inputs:
            content_hash = next(tag.value for tag in one.tags if tag.key == "genesis.content_hash")
            run_id = _dataset_run(client, one.dataset.name, content_hash)
            reports = _reports(client, run_id) if run_id else []
            datasets.append(
                {"name": one.dataset.name, "content_hash": content_hash, "run_id": run_id, "reports": reports}
            )
        order = run.data.tags["genesis.content_hash"].split(",")
        return {
            "datasets": sorted(datasets, key=lambda one: order.index(one["content_hash"])),
            "model": {
                "name": name,
                "version": str(found.version),
                "run_id": found.run_id,
                "aliases": list(found.aliases),
            },
            "reports": _reports(client, found.run_id),
            "metrics": dict(run.data.metrics),
        }


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
    answers, reason = _health(uri) if uri.startswith("http") else (True, "")
    if not answers:  # MLflow itself tries for minutes before it gives a dead server up
        raise Unavailable(
            f"The MLflow server {_public(uri)} can't be reached ({reason}): start it, or unset GENESIS_MLFLOW_TRACKING_URI."
        )
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


def _health(uri: str) -> tuple[bool, object]:
    """Whether an MLflow server answers there, or why not."""
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        urlopen(f"{uri.rstrip('/')}/health", timeout=10).close()
    except HTTPError:
        return True, ""
    except (OSError, ValueError) as error:
        return False, getattr(error, "reason", error)
    return True, ""


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
    run_id = str(client.create_run(_experiment(client, kind), run_name=title, tags=own | dict(tags)).info.run_id)
    try:
        inputs = [
            DatasetInput(
                Dataset(name, content_hash[:_DIGEST], "local", json.dumps({"uri": name})),
                [InputTag("mlflow.data.context", "training"), InputTag("genesis.content_hash", content_hash)],
            )
            for name, content_hash in sources
        ]
        client.log_inputs(run_id, inputs)
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id)


def _experiment(client: Any, kind: str) -> str:
    kind = "dataset" if kind == "dataset" else "training"
    name = "genesis-datasets" if kind == "dataset" else "genesis-training"
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    local = not get_settings().mlflow_tracking_uri
    location = (_home() / "artifacts" / kind).resolve().as_uri() if local else None
    return str(client.create_experiment(name, artifact_location=location))


def _dataset_run(client: Any, name: str, content_hash: str) -> str | None:
    # By name here, not in the filter: MLflow's language has no way to write a name with quotes in it.
    runs = client.search_runs([_experiment(client, "dataset")], f"tags.\"genesis.content_hash\" = '{content_hash}'")
    return next((str(run.info.run_id) for run in runs if run.data.tags["genesis.dataset"] == name), None)


def _log_metrics(client: Any, run_id: str, values: Mapping[str, Any]) -> None:
    """The numbers among `values`."""
    from mlflow.entities import Metric

    numbers = {name: value for name, value in values.items() if type(value) in (int, float)}
    metrics = [Metric(re.sub(r"[^\w./ -]", "_", name), float(value), _now(), 0) for name, value in numbers.items()]
    client.log_batch(run_id, metrics=metrics)


def _now() -> int:
    return time.time_ns() // 1_000_000


def _version(client: Any, name: str, version: str | None, alias: str) -> Any:
    return client.get_model_version(name, version) if version else client.get_model_version_by_alias(name, alias)


def _no_model(name: str, version: str | None, alias: str) -> str:
    if version:
        return f"There is no version {version} of model {name!r}."
    return f"Model {name!r} has no {alias}: train and register one, then promote a version."


def _reports(client: Any, run_id: str) -> list[str]:
    return [item.path for item in client.list_artifacts(run_id, _REPORTS)]
