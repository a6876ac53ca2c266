"""A pipeline: numbered notebooks run in order by papermill, from one YAML file, into one run folder that tells the truth."""

from __future__ import annotations

import json
import logging
import platform
import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from genesis_lab.errors import GenesisError, InvalidInput, StageFailed
from genesis_lab.files import output_root, shown, write_atomically
from genesis_lab.notebooks import failure, find_notebook, kernel_config, notebook_paths, read_notebook
from genesis_lab.parameters import Parameter, read_parameters
from genesis_lab.secret_values import found_in, looks_secret, redact
from genesis_lab.settings import project_root

METRICS_TYPE = "application/vnd.genesis-lab.metrics+json"
"""Media type of the output by which a notebook hands its metrics to the run."""
RUN_FOLDER = "run_folder"
"""A notebook that declares this parameter is given the folder of the run it is part of."""

_RESERVED = ("name", "description", "stages")
_PACKAGES = (
    "papermill",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "sentence-transformers",
    "torch",
    "mlflow",
    "plotly",
)


@dataclass(frozen=True)
class Stage:
    """One notebook of a pipeline and the parameters it is given."""

    notebook: Path
    parameters: dict[str, Any]
    declared: dict[str, Parameter]


@dataclass(frozen=True)
class Pipeline:
    """A params file, checked: every parameter is known to a notebook and of its annotated type."""

    name: str
    source: str
    description: str
    shared: dict[str, Any]
    stages: tuple[Stage, ...]


@dataclass(frozen=True)
class Run:
    """A run folder and what its ``run.json`` and ``metrics.json`` say."""

    folder: Path
    record: dict[str, Any]
    metrics: dict[str, dict[str, Any]]


def record_metrics(metrics: Mapping[str, float | int | str | None]) -> None:
    """Hand metrics from a notebook to the run it is part of; they go to ``metrics.json`` and into sweep tables.

    Floats are kept to four decimals. Shows one line, in a run or not.
    """
    from IPython.display import display

    kept = {name: round(value, 4) if isinstance(value, float) else value for name, value in metrics.items()}
    line = ", ".join(f"{name} {'not measured' if value is None else value}" for name, value in kept.items())
    display({METRICS_TYPE: kept, "text/plain": f"Recorded: {line}"}, raw=True)


def load_pipeline(path: Path, overrides: Mapping[str, str] | None = None) -> Pipeline:
    """Read and check a params file.

    ``stages`` lists the notebooks in order, by number or name, each with parameters of its own or none; ``name`` and
    ``description`` are the pipeline's; every other top-level key is a parameter of all stages that declare it, so that
    plain ``papermill … -f`` takes the same file. Notebooks are looked for in the ``notebooks/`` that stands beside the
    file's folder, else in the checkout's.

    Parameters
    ----------
    overrides : command-line values by parameter name; they win over the file's.

    Raises
    ------
    InvalidInput : in one sentence, the first thing wrong with the file.
    """
    content = _read_yaml(path)
    name = content.get("name", path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
        raise InvalidInput(f"name in {shown(path)} must be letters, digits, - and _, got {name!r}.")
    beside = path.resolve().parent.parent / "notebooks"
    folder = beside if notebook_paths(beside) else None
    listed = _listed_stages(content.get("stages"), shown(path))
    stages = [(find_notebook(reference, folder), own) for reference, own in listed]
    shared = {key: value for key, value in content.items() if key not in _RESERVED}
    return _checked(name, shown(path), str(content.get("description", "")), shared, stages, overrides or {})


def single_stage(notebook: Path, overrides: Mapping[str, str]) -> Pipeline:
    """A pipeline of one notebook."""
    return _checked(notebook.stem, shown(notebook), "", {}, [(notebook, {})], overrides)


def run_pipeline(
    pipeline: Pipeline,
    *,
    start: str | None = None,
    on_stage: Callable[[str, float], None] | None = None,
) -> Run:
    """Run the stages in order into ``outputs/runs/<name>-<stamp>/`` and stop at the first failure.

    ``run.json`` is rewritten whole before and after every stage. Its status is ``unfinished`` until the run has come
    to an end of its own, so it is true even after a kill -9.

    Parameters
    ----------
    start : number or name of the stage to go on from, in the newest run folder of this pipeline.
    on_stage : called with each notebook done and its seconds.

    Raises
    ------
    StageFailed : a notebook failed, in one line: notebook, cell, error, how to resume.
    InvalidInput : there is nothing to resume, or the earlier stages were run with other parameters.
    """
    if start is None:
        folder, first, record = new_folder(pipeline.name), 0, _new_record(pipeline)
        metrics: dict[str, Any] = {}
    else:
        folder, first, record, metrics = _resumed(pipeline, start)
    started = time.monotonic()

    def save(**facts: Any) -> None:
        record.update(facts)
        write_atomically(folder / "run.json", json.dumps(record, indent=2, ensure_ascii=False) + "\n")

    def end(status: str, error: str | None = None) -> None:
        save(
            status=status,
            error=error,
            finished_at=_now(),
            seconds=round(record["seconds"] + time.monotonic() - started, 1),
        )

    save()
    for index in range(first, len(pipeline.stages)):
        stage, entry = pipeline.stages[index], record["stages"][index]
        entry.update(status="started", started_at=_now())
        save()
        clock = time.monotonic()
        try:
            metrics[Path(entry["output"]).stem] = _execute(stage, folder / entry["output"], folder)
        except KeyboardInterrupt:
            entry.update(status="interrupted", seconds=round(time.monotonic() - clock, 1))
            end("interrupted")
            raise StageFailed(f"Interrupted in {stage.notebook.name}{_resume_hint(pipeline, stage)}.") from None
        except Exception as error:
            message = redact(" ".join(str(error).split()))
            entry.update(status="failed", seconds=round(time.monotonic() - clock, 1), error=message)
            end("failed", message)
            if not isinstance(error, GenesisError):
                message = f"{stage.notebook.name}: {type(error).__name__}: {message[:300]}"
            raise StageFailed(f"{message}{_resume_hint(pipeline, stage)}") from error
        entry.update(status="completed", seconds=round(time.monotonic() - clock, 1))
        write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
        save()
        if on_stage:
            on_stage(stage.notebook.stem, entry["seconds"])
    end("completed")
    return Run(folder, record, metrics)


def read_run(folder: Path) -> Run:
    """What a run folder says about its run.

    Raises
    ------
    InvalidInput : `folder` is not a run folder.
    """
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        metrics_file = folder / "metrics.json"
        metrics = json.loads(metrics_file.read_text(encoding="utf-8")) if metrics_file.exists() else {}
        if not isinstance(record, dict) or not isinstance(metrics, dict):
            raise ValueError
    except (OSError, ValueError):
        raise InvalidInput(f"{shown(folder)} is not a run folder: it has no readable run.json.") from None
    return Run(folder, record, metrics)


def latest_run(name: str) -> Run | None:
    """The newest run of the pipeline called `name`."""
    folders = sorted((output_root() / "runs").glob(f"{name}-[0-9]*"), reverse=True)
    for folder in folders:
        with suppress(InvalidInput):  # somebody else's folder, or a broken one, is no reason not to go on
            if (run := read_run(folder)).record.get("name") == name:
                return run
    return None


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml
    from papermill.iorw import NoDatesSafeLoader

    class StrictSafeLoader(NoDatesSafeLoader):  # type: ignore[misc]  # papermill has no types
        """papermill's own reading of YAML, so that both agree, but a key given twice is an error."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = next((key for key in keys if keys.count(key) > 1), None)
            if twice is not None:
                raise InvalidInput(f"{shown(path)} gives {twice!r} twice (line {node.start_mark.line + 1} and below).")
            return super().construct_mapping(node, deep)

    try:
        with path.open(encoding="utf-8") as file:
            content = yaml.load(file, Loader=StrictSafeLoader)  # noqa: S506  (a safe loader, subclassed)
    except FileNotFoundError:
        raise InvalidInput(f"There is no params file {shown(path)}.") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{shown(path)} can't be read as YAML: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InvalidInput(f"{shown(path)} must hold 'name: value' lines.")
    return content


def _listed_stages(stages: Any, where: str) -> list[tuple[str | int, dict[str, Any]]]:
    """Notebook references with their own parameters, from a mapping or from a list."""
    shape = f"stages in {where} must list notebooks by number or name, each with 'parameter: value' lines or nothing"
    if isinstance(stages, dict):
        items = list(stages.items())
    elif isinstance(stages, list):
        items = [next(iter(s.items())) if isinstance(s, dict) and len(s) == 1 else (s, None) for s in stages]
    else:
        raise InvalidInput(f"{shape}.")
    if not items:
        raise InvalidInput(f"{shape}, got none.")
    if isinstance(stages, dict) and len({type(key) for key in stages}) > 1:
        raise InvalidInput(f"stages in {where} must be all numbers or all names: plain papermill can't sort a mixture.")
    for reference, own in items:
        if not isinstance(reference, str | int) or not isinstance(own, dict | None):
            raise InvalidInput(f"{shape}, got {reference!r}: {own!r}.")
    return [(reference, own or {}) for reference, own in items]


def _checked(
    name: str,
    source: str,
    description: str,
    shared: Mapping[str, Any],
    listed: Sequence[tuple[Path, Mapping[str, Any]]],
    overrides: Mapping[str, str],
) -> Pipeline:
    stages = []
    for notebook, own in listed:
        declared = read_parameters(read_notebook(notebook), notebook.stem)
        for key in own:
            if key not in declared:
                _refuse_unknown(key, source, {notebook.stem: declared})
        given = {key: value for key, value in {**shared, **own}.items() if key in declared}
        for key, value in given.items():
            declared[key].check(value, notebook.stem)
        given |= {key: declared[key].parse(text, notebook.stem) for key, text in overrides.items() if key in declared}
        stages.append(Stage(notebook, given, declared))
    everywhere = {stage.notebook.stem: stage.declared for stage in stages}
    for key in (*shared, *overrides):
        if not any(key in declared for declared in everywhere.values()):
            _refuse_unknown(key, source if key in shared else "the command line", everywhere)
    return Pipeline(name, source, description, dict(shared), tuple(stages))


def _refuse_unknown(key: str, source: str, declared: Mapping[str, Mapping[str, Parameter]]) -> None:
    from difflib import get_close_matches

    if looks_secret(key):
        raise InvalidInput(f"{key} in {source} looks like a secret: secrets come from the environment only, remove it.")
    known = sorted({name for parameters in declared.values() for name in parameters})
    close = get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known) or 'none'}."
    raise InvalidInput(f"{key} in {source} is not a parameter of {', '.join(declared)}: {hint}")


def _execute(stage: Stage, output: Path, folder: Path) -> dict[str, Any]:
    """Run one notebook; return the metrics it recorded. The executed notebook is kept unless it shows a secret."""
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    # Its reading of annotations knows no `int | None`, so it warns of parameters that were checked before the run.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    parameters = dict(stage.parameters)
    if RUN_FOLDER in stage.declared and not parameters.get(RUN_FOLDER):
        parameters[RUN_FOLDER] = str(folder.resolve())
    partial = output.with_name(f".{output.name}")
    stopped = None
    try:
        # Nothing is written while cells run: a kill leaves no unscanned notebook behind.
        with kernel_config() as config:
            papermill.execute_notebook(
                _literal_path(stage.notebook), _literal_path(partial), parameters, config=config,
                progress_bar=False, request_save_on_cell_execute=False, kernel_name="python3", language="python",
            )  # fmt: skip
    except PapermillExecutionError as error:
        stopped = (error.ename, error.evalue)
    except DeadKernelError:
        raise StageFailed(f"{stage.notebook.name}: its kernel died (killed, or out of memory).") from None
    except CellTimeoutError as error:
        raise StageFailed(f"{stage.notebook.name}: {' '.join(str(error).split())[:200]}") from None
    text = partial.read_text(encoding="utf-8")
    if names := found_in(text):
        partial.unlink()
        raise StageFailed(f"{stage.notebook.name} shows the value of {names[0]}: the executed notebook was not kept")
    partial.replace(output)
    executed = read_notebook(output)
    code = [cell for cell in executed.cells if cell.cell_type == "code"]
    for cell in code:
        for shown_output in cell.outputs:
            if shown_output.output_type == "error" and (stopped or shown_output.ename == "SystemExit"):
                raise StageFailed(failure(stage.notebook.name, cell, shown_output.ename, shown_output.evalue))
    if stopped:
        raise StageFailed(f"{stage.notebook.name}: {': '.join(stopped)}")
    found: dict[str, Any] = {}
    for cell in code:
        for shown_output in cell.outputs:
            found |= shown_output.get("data", {}).get(METRICS_TYPE, {})
    return found


def _literal_path(path: Path) -> str:
    """papermill fills parameters into paths with str.format: braces in a folder's name must survive that."""
    return str(path).replace("{", "{{").replace("}", "}}")


def new_folder(name: str) -> Path:
    """A fresh ``outputs/runs/<name>-<stamp>/``."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 100))):
        folder = output_root() / "runs" / f"{name}-{stamp}{suffix}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            raise GenesisError(f"{shown(output_root())} can't be written: {error.strerror or error}.") from None
    raise GenesisError(f"{shown(output_root() / 'runs')} already holds 99 runs of {name} from this second.")


def _new_record(pipeline: Pipeline) -> dict[str, Any]:
    seen: dict[str, int] = {}
    stages = []
    for stage in pipeline.stages:
        stem = stage.notebook.stem
        seen[stem] = seen.get(stem, 0) + 1
        output = f"{stem}.ipynb" if seen[stem] == 1 else f"{stem}-{seen[stem]}.ipynb"
        stages.append({
            "notebook": stem, "status": "pending", "seconds": None, "parameters": stage.parameters, "output": output,
        })  # fmt: skip
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
    import genesis_lab

    found: dict[str, str | None] = {"python": platform.python_version(), "genesis-lab": genesis_lab.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _git() -> dict[str, Any] | None:
    """Commit of the checkout and whether it has changes; None outside a checkout."""

    def ask(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=project_root(), capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()

    try:
        return {"commit": ask("rev-parse", "HEAD"), "changed": bool(ask("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _resumed(pipeline: Pipeline, start: str) -> tuple[Path, int, dict[str, Any], dict[str, Any]]:
    wanted = find_notebook(start, pipeline.stages[0].notebook.parent)
    positions = [i for i, stage in enumerate(pipeline.stages) if stage.notebook == wanted]
    if not positions:
        raise InvalidInput(f"{wanted.stem} is not a stage of {pipeline.source}.")
    run = latest_run(pipeline.name)
    if run is None:
        raise InvalidInput(f"There is no earlier run of {pipeline.name} to resume: run it without --from.")
    fresh = _new_record(pipeline)
    for i in range(positions[0]):
        before, now = (record["stages"][i] if i < len(record["stages"]) else {} for record in (run.record, fresh))
        where = f"{now['notebook']} in {shown(run.folder)}"
        if before.get("notebook") != now["notebook"] or before["status"] != "completed":
            raise InvalidInput(f"{where} has not completed: resume from it, or run without --from.")
        if before["parameters"] != now["parameters"]:
            names = sorted(set(before["parameters"]) | set(now["parameters"]))
            changed = [n for n in names if before["parameters"].get(n) != now["parameters"].get(n)]
            raise InvalidInput(f"{where} was run with another {changed[0]}: run without --from.")
        fresh["stages"][i] = before
    fresh |= {"started_at": run.record["started_at"], "seconds": run.record["seconds"] or 0.0}
    kept = {Path(entry["output"]).stem for entry in fresh["stages"][: positions[0]]}
    metrics = {stem: values for stem, values in run.metrics.items() if stem in kept}
    return run.folder, positions[0], fresh, metrics


def _resume_hint(pipeline: Pipeline, stage: Stage) -> str:
    if len(pipeline.stages) == 1:
        return ""
    return f" (go on with: genesis run {pipeline.source} --from {stage.notebook.stem.partition('_')[0]})"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
