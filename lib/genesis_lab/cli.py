"""The command `genesis`: parses, calls, prints. What it calls is imported only then, so that --help is quick."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, cast

import typer
from typer import Argument, Option, echo

from genesis_lab import __version__
from genesis_lab.cli_dataset import commands as dataset_commands
from genesis_lab.cli_review import review_app
from genesis_lab.cli_series import tune
from genesis_lab.errors import GenesisError, Interrupted, InvalidInput
from genesis_lab.terminal import Replace, group, lines, pairs

if TYPE_CHECKING:
    from genesis_lab.generation.estimate import Estimate
    from genesis_lab.pipeline import Pipeline


app = group("From no data to a small model that provably works: generate, validate, train, report.")
reference_app = group("Real data to measure against.")
jobs_app = group("Batch jobs of Amazon Bedrock.")

Params = Annotated[Path, Argument(help="A params file, for example params/demo.yaml.")]
Overrides = Annotated[
    list[str], Option("-p", "--param", metavar="NAME=VALUE", help="Set a parameter; wins over the file's.")
]
FORMATS = ["q8_0", "q4_k_m"]


def _show_version(wanted: bool) -> None:
    if wanted:
        echo(f"genesis-lab {__version__}")
        raise typer.Exit


@app.callback()
def root(
    output_root: Annotated[Path | None, Option(help="Write here instead of outputs/ (or GENESIS_OUTPUT_ROOT).")] = None,
    version: Annotated[bool, Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    if output_root is not None:
        from genesis_lab.files import use_output_root

        use_output_root(output_root)


@app.command()
def run(
    params: Params,
    param: Overrides = [],
    start: Annotated[str | None, Option("--from", metavar="NOTEBOOK", help="Resume the newest run from here.")] = None,
    sweep: Annotated[list[str], Option(metavar="NAME=A,B,C", help="Run once a value; several: all combinations.")] = [],
    workers: Annotated[int | None, Option(min=1, help="Runs at once in a sweep (default: GENESIS_WORKERS).")] = None,
    dask: Annotated[str | None, Option(metavar="ADDRESS", help="For a sweep (default: GENESIS_DASK_ADDRESS).")] = None,
) -> None:
    """Run the notebooks of a params file in order."""
    from genesis_lab.pipeline import load_pipeline

    if not sweep:
        return _run(load_pipeline(params, pairs(param)), start)
    if start:
        raise InvalidInput("A sweep starts from the first notebook: leave out --from or --sweep.")
    import pandas as pd

    from genesis_lab.files import shown
    from genesis_lab.sweep import parse_grid, run_sweep, table

    def tell(point: dict[str, Any]) -> None:
        echo(f"{point['values']}  {point['status']}", err=True)

    grid, given = parse_grid(sweep), pairs(param)
    folder, points = run_sweep(params, grid, overrides=given, workers=workers, dask_address=dask, on_point=tell)
    echo(f"{pd.DataFrame(table(points)).to_string(index=False, na_rep='-')}\n{shown(folder)}")
    if failed := [point for point in points if point["status"] != "completed"]:
        first = f"the first with {failed[0]['values']}: {failed[0]['error']}"
        raise GenesisError(f"{len(failed)} of {len(points)} runs failed, {first}")


@app.command()
def notebook(
    reference: Annotated[str, Argument(metavar="NOTEBOOK", help="Its number or name, for example 10.")],
    param: Overrides = [],
    show: Annotated[bool, Option("--show", help="List its parameters instead of running it.")] = False,
) -> None:
    """Run one notebook, or list its parameters."""
    from genesis_lab.notebooks import find_notebook
    from genesis_lab.pipeline import single_stage

    pipeline = single_stage(find_notebook(reference), pairs(param))
    if not show:
        return _run(pipeline, None)
    for stage in pipeline.stages:
        for name, declared in stage.declared.items():
            value = stage.parameters.get(name, declared.default)
            echo(f"{name}: {declared.annotation} = {value!r}".ljust(50) + f"  {declared.help}")


@app.command()
def plan(params: Params, param: Overrides = []) -> None:
    """Show what a params file would do and cost; run nothing."""
    from genesis_lab.domains import get_domain
    from genesis_lab.files import dataset_path
    from genesis_lab.generation.estimate import Estimate, in_all
    from genesis_lab.pipeline import load_pipeline

    pipeline = load_pipeline(params, pairs(param))
    echo(f"{pipeline.name}: {pipeline.description or pipeline.source}")
    for stage in pipeline.stages:
        given = ", ".join(f"{name}={value!r}" for name, value in stage.parameters.items())
        echo(f"  {stage.notebook.stem}  {given}".rstrip())
    parts, written = [], set()
    for parameters in _generating(pipeline):
        source = get_domain(*filter(None, [parameters.get("role")]), **parameters).needs
        if source in written and not dataset_path(source).exists():
            echo(f"cost and time are not known before there is {source}, which is to be answered")
            parts.append(Estimate(parameters["total"], 0, 0, None, None))
        else:
            parts.append(_show_plan(parameters))
        written.add(parameters.get("dataset"))
    if len(parts) > 1:
        echo(f"all stages: {_expected(in_all(parts, in_turn=True))}")
    if any(part.cost_usd != 0 for part in parts):
        echo("Answers in the cache already cost nothing and are left out; what must be asked for again comes on top.")


@app.command()
def improve(
    params: Params,
    seeds: Annotated[str, Option(help="Real labelled messages: CSV or JSONL with text and label, or a dataset.")],
    param: Overrides = [],
    rounds: Annotated[int, Option(min=1, help="Rounds at most.")] = 3,
    per_round: Annotated[int, Option(min=2, help="Records that a round asks for.")] = 200,
    holdout: Annotated[float, Option(min=0.1, max=0.9, help="Share of the seeds that is only tested on.")] = 0.5,
) -> None:
    """Generate, then ask for what is mixed up as long as it gains."""
    from genesis_lab import rounds as contrast
    from genesis_lab.pipeline import load_pipeline, settings_of

    parameters = next(_generating(load_pipeline(params, pairs(param))), None)
    if parameters is None:
        raise InvalidInput(f"{params.name} has no stage that generates.")

    def tell(row: contrast.Row) -> None:
        echo(contrast.sentence(row))

    config = settings_of(parameters)
    told = contrast.improve(config, seeds, rounds=rounds, per_round=per_round, holdout=holdout, on_round=tell)
    echo(f"{told['stopped']}; the records up to round {told['kept']} are in {told['dataset']}")


app.command()(tune)


@app.command()
def health(
    teacher: Annotated[str, Argument(help="A model to ask one short question: bedrock:<model>, ollama:<model>.")] = "",
    write: Annotated[Path | None, Option(metavar="FILE", help="Params file to put its learned quota into.")] = None,
) -> None:
    """Check this machine and its teachers, and say what to do about it."""
    from genesis_lab.files import shown
    from genesis_lab.health import check_teachers, learned_limits, run_checks, write_params

    if write and not teacher:
        raise InvalidInput("--write needs the teacher whose quota to write, such as bedrock:amazon.nova-lite-v1:0.")
    if write:
        write_params(write, learned_limits(teacher))
        echo(f"written to {shown(write)}")
    checks = check_teachers(teacher) if teacher else run_checks()
    lines(checks)
    if any(check.status == "FAIL" for check in checks):
        raise typer.Exit(1)


@app.command()
def audit(
    dataset: Annotated[str, Argument(help="A dataset of teacher examples: its name or folder.")],
    fix: Annotated[str | None, Option(metavar="NEW", help="Name of a repaired copy; the original stays.")] = None,
    limit: Annotated[int, Option(min=0, help="Issues to list.")] = 20,
    replace: Replace = False,
) -> None:
    """Find every fault of a set of teacher examples, and repair what needs no judgement. Exit 1: some are left."""
    from genesis_lab.dataset import open_filled
    from genesis_lab.files import shown
    from genesis_lab.validation import examples

    found = examples.audit(open_filled(dataset))
    echo(found["summary"])
    if fix is not None:
        repaired, found = examples.fix(open_filled(dataset), fix, replace=replace)
        done = ", ".join(f"{what} {n:,}" for what, n in repaired.manifest["fixed"].items()) or "nothing to repair"
        echo(f"{shown(repaired.path)}: {done}\n{found['summary']}")
    lines(f"  {kind} {n:,}" for kind, n in found["kinds"].items())
    issues = ("  {split} row {row} ({record_id}) {kind}: {message}".format(**issue) for issue in found["issues"])
    lines(issues, limit, sum(found["kinds"].values()))
    if found["kinds"]:
        raise typer.Exit(1)


@app.command()
def predict(
    model: Annotated[str, Argument(help="A model's name or folder.")],
    text: Annotated[list[str] | None, Argument(help="Texts; without any, one a line from standard input.")] = None,
    top: Annotated[int, Option(min=1, help="Intents to show for each text.")] = 1,
) -> None:
    """Ask a trained intent classifier: the registry's champion or a folder."""
    from genesis_lab.registry import load_in_use

    texts = text or [line.strip() for line in sys.stdin if line.strip()]
    if not texts:
        raise InvalidInput("There is no text to classify: give one as an argument or one a line on standard input.")
    loaded, which = load_in_use(model)
    echo(which, err=True)
    for given, guess in zip(texts, loaded.predict(texts, top=top), strict=True):
        ranking = ((guess.intent, guess.probability), *guess.alternatives)
        echo("\t".join([given, *(f"{intent} {probability:.3f}" for intent, probability in ranking)]))


@app.command()
def mlflow(port: Annotated[int, Option(min=1, max=65535, help="Where to serve it.")] = 5000) -> None:
    """Open the registry of datasets, runs and models in MLflow's own pages."""
    from genesis_lab.registry import serve

    serve(port, echo)


@app.command("export-student")
def export_student_command(
    student: Annotated[str, Argument(help="A student's name, or the folder of an adapter or a whole model.")],
    target: Annotated[str, Argument(help="Folder to write to; its name is the student's in Ollama.")],
    format: Annotated[list[str], Option(metavar="FORMAT", help="f16, q8_0 or q4_k_m. Repeatable.")] = FORMATS,
    dataset: Annotated[str | None, Option(help="Measure every form on the test split of this dataset.")] = None,
    items: Annotated[int, Option(min=1, help="Test items to measure on.")] = 100,
    max_tokens: Annotated[int, Option(min=1, help="Longest answer to a test item, tokens.")] = 1024,
    llama_cpp: Annotated[str | None, Option(help="A llama.cpp checkout (default: its converter is fetched).")] = None,
    push: Annotated[str | None, Option(metavar="OWNER/NAME", help="Push it to the Hugging Face hub.")] = None,
    what: Annotated[str, Option(help="What to push: adapter, merged or gguf.")] = "merged",
) -> None:
    """Merge a student, write it as GGUF for llama.cpp and Ollama, and measure what that cost."""
    from genesis_lab.dataset import open_dataset
    from genesis_lab.finetuning.checkpoints import student_path
    from genesis_lab.finetuning.export import export_student, push_student, said
    from genesis_lab.finetuning.tasks import role_of
    from genesis_lab.reporting.progress import progress

    role, splits = role_of(open_dataset(dataset)) if dataset else (None, {})
    with progress(None, "Exporting", unit="answers") as bar:

        def step(name: str) -> None:
            bar.label = f"Exporting, {name}"
            bar.advance(0)

        asked: dict[str, Any] = {"role": role, "examples": splits.get("test", [])[:items], "max_tokens": max_tokens}
        told: dict[str, Any] = {"llama_cpp": llama_cpp, "on_step": step, "on_progress": bar}
        report = export_student(student_path(student), target, cast(Any, format), **asked, **told)
    echo(said(report))
    if push:
        echo(push_student(target, push, cast(Any, what)))
    if report["passed"] is False:
        raise typer.Exit(1)


@reference_app.command("fetch")
def reference_fetch(name: Annotated[str, Argument(help="The reference.")] = "banking77") -> None:
    """Fetch a reference dataset from the hub into outputs/reference."""
    from genesis_lab.files import shown
    from genesis_lab.validation.reference import fetch_reference

    echo(f"fetched into {shown(fetch_reference(name))}")


@jobs_app.command("list")
def jobs_list() -> None:
    """List those of unfinished runs and of the account."""
    from genesis_lab.files import shown
    from genesis_lab.generation.batch import known_jobs
    from genesis_lab.providers.bedrock_batch import POLICIES, BatchService

    lines(jobs := known_jobs(BatchService()))
    if not jobs:
        echo(f"no batch jobs; the IAM policies that they need are in {shown(POLICIES)}")


@jobs_app.command("stop")
def jobs_stop(job: Annotated[str, Argument(metavar="JOB", help="Its name or ARN.")]) -> None:
    """Stop a job; what it has answered is kept."""
    from genesis_lab.providers.bedrock_batch import BatchService

    BatchService().stop(job)
    echo(f"stopping {job}")


app.add_typer(dataset_commands, name="dataset")
app.add_typer(reference_app, name="reference")
app.add_typer(jobs_app, name="jobs")
app.add_typer(review_app, name="review")


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command. An error of ours is one line on standard error and exit code 1, wrong usage 2, Ctrl-C 130."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a batch system's polite kill is a Ctrl-C
    try:
        app(arguments, prog_name="genesis")
    except GenesisError as error:
        echo(f"genesis: {' '.join(str(error).split())}", err=True)
        sys.exit(130 if isinstance(error, Interrupted) else 1)
    except SystemExit as ended:
        if ended.code == 130:
            echo("genesis: stopped.", err=True)
        raise
    sys.exit(0)


def _run(pipeline: Pipeline, start: str | None) -> None:
    from genesis_lab.files import shown
    from genesis_lab.pipeline import run_pipeline

    done = run_pipeline(pipeline, start=start, on_stage=lambda name, seconds: echo(f"{name}  {seconds:.1f} s"))
    echo(f"{pipeline.name} completed in {done.record['seconds']:.1f} s: {shown(done.folder)}")
    for stage, values in done.metrics.items():
        if values:
            echo(f"  {stage}  " + ", ".join(f"{name} {value}" for name, value in values.items()))


def _generating(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    """The parameters of each stage that generates."""
    for stage in pipeline.stages:
        if {"total", "provider"} <= stage.declared.keys():
            yield stage.values


def _show_plan(parameters: dict[str, Any]) -> Estimate:
    """What one generating stage would make and cost."""
    from genesis_lab.generation.estimate import in_all
    from genesis_lab.pipeline import settings_of

    config = settings_of(parameters)
    echo(f"{config.total:,} {config.domain.facets.unit}, plan {config.plan.hash}")
    for attribute, counts in config.plan.counts().items():
        few = ", ".join(f"{value} {n:,}" for value, n in list(counts.items())[:12])
        echo(f"  {attribute}: {few}" + (f" … ({len(counts)} values)" if len(counts) > 12 else ""))
    parts = config.estimates()
    lines(f"  by {name}: {_expected(part)}" for name, part in parts.items())
    if len(parts) > 1:
        echo(f"  in all: {_expected(in_all(parts.values()))}")
    return in_all(parts.values())


def _expected(part: Estimate) -> str:
    tokens = f"{part.prompt_tokens:,} + {part.completion_tokens:,} tokens"
    return f"requests {part.requests:,}, {tokens}, cost {part.cost}, time {part.time}"


if __name__ == "__main__":
    main()
