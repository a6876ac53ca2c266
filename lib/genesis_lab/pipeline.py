"""A pipeline: numbered notebooks run in order by papermill, from a YAML file into a run folder that tells the truth."""

from __future__ import annotations

import json
import logging
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from genesis_lab.errors import GenesisError, Interrupted, InvalidInput, StageFailed, instead
from genesis_lab.files import dataset_path, output_root, recovered, resolve, shown, write_atomically, write_error
from genesis_lab.notebooks import failure, find_notebook, kernel_config, notebook_paths, read_notebook
from genesis_lab.parameters import FROM_ENVIRONMENT, Parameter, from_parameters, read_parameters
from genesis_lab.settings import found_in, looks_secret, project_root, redact
from genesis_lab.yamls import read_yaml

METRICS_TYPE = "application/vnd.genesis-lab.metrics+json"
"""Media type of the output by which a notebook hands its metrics to the run."""
RUN_FOLDER = "run_folder"
"""A notebook that declares this parameter is given the folder of the run it is part of."""
_OWN = ("name", "description", "stages")
_PACKAGES = ["genesis-lab", "papermill", "numpy", "pandas", "pyarrow", "scikit-learn", "sentence-transformers", "torch"]
_PACKAGES += ["mlflow", "plotly"]


@dataclass(frozen=True)
class Stage:
    """One notebook of a pipeline and the parameters it is given."""

    notebook: Path
    parameters: dict[str, Any]
    declared: dict[str, Parameter]

    @property
    def values(self) -> dict[str, Any]:
        """All its parameters: those given, else their defaults."""
        return {name: declared.default for name, declared in self.declared.items()} | self.parameters


@dataclass(frozen=True)
class Pipeline:
    """A params file, checked: every parameter is known to a notebook and of its annotated type."""

    name: str
    source: str
    description: str
    shared: dict[str, Any]
    stages: list[Stage]
    command: str  # that runs it, to be pasted into a terminal


@dataclass(frozen=True)
class Run:
    """A run folder and what its ``run.json`` says."""

    folder: Path
    record: dict[str, Any]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """What each stage recorded, by the name of its notebook (``metrics.json``)."""
        return {Path(one["output"]).stem: one["metrics"] for one in self.record["stages"] if "metrics" in one}


def record_metrics(metrics: Mapping[str, float | int | str | None]) -> None:
    """Hand metrics from a notebook to the run it is part of (``metrics.json``), if there is one; shows one line."""
    from IPython.display import display

    kept = {name: round(value, 4) if isinstance(value, float) else value for name, value in metrics.items()}
    line = ", ".join(f"{name} {'not measured' if value is None else value}" for name, value in kept.items())
    display({METRICS_TYPE: kept, "text/plain": f"Recorded: {line}"}, raw=True)


def load_pipeline(path: Path, overrides: Mapping[str, str] | None = None) -> Pipeline:
    """Read and check a params file; `overrides` are command-line values by name, and win over the file's.

    ``stages`` lists notebooks in order, by number or name, each with parameters of its own or none; every top-level key
    but name and description is a parameter of all stages that declare it, so that ``papermill -f`` takes the same file.
    Notebooks are those of the ``notebooks/`` beside the file's folder, else of the checkout.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InvalidInput(f"{path} {what}: give the path of a params file, such as params/demo.yaml.")
    where, content = shown(path), read_yaml(path)
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInput(f"{where} must hold 'name: value' lines.")
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise InvalidInput(f"name in {where} must be letters, digits, - and _, got {name!r}.")
    beside = path.resolve().parent.parent / "notebooks"
    folder = beside if notebook_paths(beside) else None
    listed = [(find_notebook(one, folder), own) for one, own in _listed(content.get("stages"), where)]
    shared = {key: value for key, value in content.items() if key not in _OWN}
    stages = _checked(listed, shared, where, overrides or {})
    about, command = str(content.get("description", "")), _command("run", path, overrides or {})
    return Pipeline(name, where, about, shared, stages, command)


def single_stage(notebook: Path, overrides: Mapping[str, str]) -> Pipeline:
    """A pipeline of one notebook."""
    stages = _checked([(notebook, {})], {}, shown(notebook), overrides)
    return Pipeline(notebook.stem, shown(notebook), "", {}, stages, _command("notebook", notebook, overrides))


def settings_of(parameters: Mapping[str, Any]) -> Any:
    """The configuration of what the parameters of a notebook make or train; None of one that only looks.

    Raises
    ------
    InvalidInput : a value is impossible.
    """
    if {"total", "provider"} <= parameters.keys():
        from genesis_lab.domains import DOMAINS, get_domain
        from genesis_lab.generation import config_for

        def known(domain: str) -> int:
            return len(config_for(domain).model_fields.keys() & parameters.keys())

        config = from_parameters(config_for(parameters.get("role") or max(DOMAINS, key=known)), parameters)
        domain = get_domain(config.domain_name, **config.model_dump())
        if not domain.needs:
            domain.targets()  # refuses what its knowledge lacks, as an intent
        return config
    if "preset" in parameters:
        from genesis_lab.training.config import TrainConfig, train_config

        given = {name: value for name, value in parameters.items() if name in TrainConfig.model_fields and value}
        return train_config(parameters["preset"], **given)
    if "rank" in parameters:
        from genesis_lab.finetuning.config import FinetuneConfig

        return from_parameters(FinetuneConfig, parameters)
    return None


def run_pipeline(
    pipeline: Pipeline, *, start: str | None = None, on_stage: Callable[[str, float], None] | None = None
) -> Run:
    """Run the stages in order into ``outputs/runs/<name>-<stamp>/`` and stop at the first failure.

    `start` names the stage to go on from in the newest run folder. ``run.json`` is rewritten whole around every stage
    and ``unfinished`` until the run has come to an end of its own, so it is true even after a kill -9.

    Raises
    ------
    StageFailed : a notebook failed, in one line: notebook, cell, error, how to resume.
    InvalidInput : there is nothing to resume, or the earlier stages were run with other parameters.
    """
    first, run = (
        (0, Run(new_folder(pipeline.name), _new_record(pipeline))) if start is None else _resumed(pipeline, start)
    )
    record, began = run.record, time.monotonic() - run.record["seconds"]

    def save(entry: dict[str, Any], **facts: Any) -> None:
        entry.update(facts)
        _write_json(run.folder / "run.json", record)

    def end(status: str, error: str | None) -> None:
        save(record, status=status, error=error, finished_at=_now(), seconds=round(time.monotonic() - began, 1))

    for stage, entry in zip(pipeline.stages[first:], record["stages"][first:], strict=True):
        save(entry, status="started", started_at=_now())
        clock, name, said = time.monotonic(), stage.notebook.name, ""
        try:
            entry["metrics"] = _execute(stage, run.folder / entry["output"])
            entry["status"] = "completed"
        except KeyboardInterrupt:
            entry["status"], said = "interrupted", f"Interrupted in {name}"
        except Exception as problem:
            error = redact(" ".join(str(problem).split()))
            entry.update(status="failed", error=error)
            said = error if isinstance(problem, GenesisError) else f"{name}: {type(problem).__name__}: {error[:300]}"
        entry["seconds"] = round(time.monotonic() - clock, 1)
        if said:
            end(entry["status"], entry.get("error"))
            here = name.partition("_")[0]
            hint = f" (go on with: {pipeline.command} --from {here})" if len(pipeline.stages) > 1 else ""
            raise (StageFailed if "error" in entry else Interrupted)(said + hint)
        _write_json(run.folder / "metrics.json", run.metrics)
        save(entry)
        if on_stage:
            on_stage(stage.notebook.stem, entry["seconds"])
    end("completed", None)
    return run


def read_run(folder: Path) -> Run:
    """What a run folder says about its run; `InvalidInput` if it is none."""
    try:
        return Run(folder, dict(json.loads((folder / "run.json").read_text(encoding="utf-8"))))
    except (OSError, ValueError, TypeError):
        raise InvalidInput(f"{shown(folder)} is not a run folder: it has no readable run.json.") from None


def new_folder(name: str) -> Path:
    """A fresh ``outputs/runs/<name>-<stamp>/``."""
    folder = output_root() / "runs" / f"{name}-{datetime.now(UTC).strftime('%Y%m%d-%H%M%S-%f')[:-3]}"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise write_error(error, output_root()) from None
    return folder


def _listed(stages: Any, where: str) -> list[tuple[str | int, dict[str, Any]]]:
    """Notebook references with their own parameters, from a mapping or from a list."""
    items: list[Any] = []
    if isinstance(stages, dict):
        items = list(stages.items())
        if len({type(key) for key in stages}) > 1:
            raise InvalidInput(f"stages in {where} must be all numbers or all names: plain papermill can't sort a mix.")
    elif isinstance(stages, list):
        items = [next(iter(s.items())) if isinstance(s, dict) and len(s) == 1 else (s, None) for s in stages]
    if not items or not all(isinstance(one, str | int) and isinstance(own, dict | None) for one, own in items):
        shape = "must list notebooks by number or name, each with 'parameter: value' lines or nothing"
        raise InvalidInput(f"stages in {where} {shape}, got {stages!r}.")
    return [(one, own or {}) for one, own in items]


def _checked(
    listed: Sequence[tuple[Path, Mapping[str, Any]]],
    shared: Mapping[str, Any],
    source: str,
    overrides: Mapping[str, str],
) -> list[Stage]:
    """These notebooks as stages, each with what it declares of the parameters that are given."""
    stages = []
    for notebook, own in listed:
        stem, declared = notebook.stem, read_parameters(read_notebook(notebook), notebook.stem)
        _refuse_unknown(own, source, {stem: declared})
        given = {key: value for key, value in {**shared, **own}.items() if key in declared}
        for key, value in given.items():
            declared[key].check(value, stem)
        given |= {key: declared[key].parse(text, stem) for key, text in overrides.items() if key in declared}
        stages.append(Stage(notebook, given, declared))
    made: set[str] = set()
    everywhere = {stage.notebook.stem: stage.declared for stage in stages}
    _refuse_unknown(shared, source, everywhere)
    _refuse_unknown(overrides, "the command line", everywhere)
    for stage in stages:
        _check_values(stage, made)
    return stages


def _check_values(stage: Stage, made: set[str]) -> None:
    """Refuse, before anything runs, what a stage would stop at: impossible values, data and files that are nowhere.

    `made` are the names of the datasets that stages before it make; this one's is added.
    """
    values = stage.values
    try:
        if settings_of(values):
            made.add(str(values.get("dataset")))
        for name in ("dataset", "continue_with", "a", "b"):
            named, default = values.get(name), stage.declared[name].default if name in stage.declared else ""
            if named and named not in (*made, default) and not recovered(dataset_path(named)).exists():
                from genesis_lab.dataset import open_dataset

                open_dataset(named)  # says what there is
        for name, value in stage.parameters.items():
            is_file = isinstance(value, str) and Path(value).suffix in (".yaml", ".yml", ".csv", ".jsonl")
            if is_file and not resolve(value).is_file():
                raise InvalidInput(f"{name} must be a file that is there, got {value!r}.")
    except InvalidInput as error:
        raise InvalidInput(f"{stage.notebook.stem}: {error}") from None


def _command(what: str, path: Path, overrides: Mapping[str, str]) -> str:
    options = [word for name, text in overrides.items() for word in ("-p", f"{name}={text}")]
    return shlex.join(["genesis", what, str(path), *options])


def _refuse_unknown(given: Mapping[str, Any], source: str, declared: Mapping[str, Mapping[str, Parameter]]) -> None:
    known = sorted({name for parameters in declared.values() for name in parameters})
    for key in (key for key in given if key not in known):
        if looks_secret(key):
            raise InvalidInput(f"{key} in {source} looks like a secret: {FROM_ENVIRONMENT}, remove it.")
        raise InvalidInput(f"{key} in {source} is not a parameter of {', '.join(declared)}: {instead(key, known)}")


def _execute(stage: Stage, output: Path) -> dict[str, Any]:
    """Run one notebook; return the metrics it recorded. The executed notebook is kept unless it shows a secret."""
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # Its reading of annotations knows no `int | None`, so it warns of parameters that were checked before the run.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # else it complains of what Ctrl-C ended
    name, parameters, stopped = stage.notebook.name, dict(stage.parameters), None
    if RUN_FOLDER in stage.declared and not parameters.get(RUN_FOLDER):
        parameters[RUN_FOLDER] = str(output.parent.resolve())
    partial = output.with_name(f".{output.name}")
    # papermill fills parameters into paths with str.format: braces in a folder's name must survive that.
    source, target = (str(path).replace("{", "{{").replace("}", "}}") for path in (stage.notebook, partial))
    try:
        # Nothing is written while cells run: a kill leaves no unscanned notebook behind.
        with kernel_config() as config:
            quiet = {"progress_bar": False, "request_save_on_cell_execute": False}
            kernel = {"kernel_name": "python3", "language": "python", "config": config}
            papermill.execute_notebook(source, target, parameters, **kernel, **quiet)
    except PapermillExecutionError as error:
        stopped = f"{error.ename}: {error.evalue}"
    except DeadKernelError:
        raise StageFailed(f"{name}: its kernel died (killed, or out of memory).") from None
    if names := found_in(partial.read_text(encoding="utf-8")):
        partial.unlink()
        raise StageFailed(f"{name} shows the value of {names[0]}: the executed notebook was not kept")
    partial.replace(output)
    found: dict[str, Any] = {}
    for cell in read_notebook(output).cells:
        for made in cell.get("outputs", ()):
            if made.output_type == "error" and (stopped or made.ename == "SystemExit"):
                raise StageFailed(failure(name, cell, made.ename, made.evalue))
            found |= made.get("data", {}).get(METRICS_TYPE, {})
    if stopped:
        raise StageFailed(f"{name}: {stopped}")
    return found


def _new_record(pipeline: Pipeline) -> dict[str, Any]:
    stages: list[dict[str, Any]] = []
    for stage in pipeline.stages:
        stem = stage.notebook.stem
        times = sum(entry["notebook"] == stem for entry in stages) + 1
        output = f"{stem}.ipynb" if times == 1 else f"{stem}-{times}.ipynb"
        planned = {"notebook": stem, "status": "pending", "seconds": None}
        stages.append({**planned, "parameters": stage.parameters, "output": output})
    return {
        "name": pipeline.name,
        "status": "unfinished",
        "started_at": _now(),
        "finished_at": None,
        "seconds": 0.0,
        "error": None,
        "params_file": pipeline.source,
        "parameters": pipeline.shared,
        "versions": versions(),
        "git": _git(),
        "stages": stages,
    }


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of what shapes its numbers; None where not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), **dict.fromkeys(_PACKAGES)}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git() -> dict[str, Any] | None:
    """Commit of the checkout and whether it has changes; None outside a checkout."""
    ask = partial(subprocess.run, cwd=project_root(), capture_output=True, text=True, timeout=20, check=True)
    try:
        commit, changes = ask(["git", "rev-parse", "HEAD"]).stdout, ask(["git", "status", "--porcelain"]).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "changed": bool(changes)}


def _resumed(pipeline: Pipeline, start: str) -> tuple[int, Run]:
    """The number of the stage `start`, and the newest run of this pipeline with all from that stage on to be done."""
    wanted = find_notebook(start, pipeline.stages[0].notebook.parent)
    first = next((i for i, stage in enumerate(pipeline.stages) if stage.notebook == wanted), None)
    if first is None:
        raise InvalidInput(f"{wanted.stem} is not a stage of {pipeline.source}.")
    run = _latest_run(pipeline.name)
    fresh, before = _new_record(pipeline), run.record["stages"]
    for i, now in enumerate(fresh["stages"][:first]):
        then: dict[str, Any] = before[i] if i < len(before) else {"notebook": None}
        where = f"{now['notebook']} in {shown(run.folder)}"
        if then["notebook"] != now["notebook"] or then["status"] != "completed":
            raise InvalidInput(f"{where} has not completed: resume from it, or run without --from.")
        for name in sorted({*then["parameters"], *now["parameters"]}):
            if then["parameters"].get(name) != now["parameters"].get(name):
                raise InvalidInput(f"{where} was run with another {name}: run without --from.")
        fresh["stages"][i] = then
    fresh |= {"started_at": run.record["started_at"], "seconds": run.record["seconds"] or 0.0}
    return first, Run(run.folder, fresh)


def _latest_run(name: str) -> Run:
    for folder in sorted((output_root() / "runs").glob(f"{name}-[0-9]*"), reverse=True):
        with suppress(InvalidInput):  # somebody else's folder, or a broken one, is no reason not to go on
            if (run := read_run(folder)).record.get("name") == name:
                return run
    raise InvalidInput(f"There is no earlier run of {name} to resume: run it without --from.")


def _write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
