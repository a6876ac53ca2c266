"""The commands of `genesis dataset`: bring data in, look at records, change them, take them out, keep order."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

from typer import Argument, Option, confirm, echo

from genesis_lab.terminal import Replace, group, lines, pairs

commands = group("Bring datasets in, take them out, look at them.")
Name = Annotated[str, Argument(help="A dataset's name or folder.")]
Where = Annotated[
    list[str],
    Option(metavar="NAME=A,B", help="Only these: intent=refund, words=5..20, 'check failed=any'. Repeatable."),
]


@commands.command("import")
def import_(
    source: Annotated[str, Argument(help="A file of any usual kind, a folder of them, or hf:owner/name[:split].")],
    target: Annotated[str, Argument(help="Name of the new dataset, or a folder.")],
    domain: Annotated[str, Option(help="What a record is.")] = "conversations",
    field: Annotated[list[str], Option(metavar="OURS=THEIRS", help="For example turns=messages. Repeatable.")] = [],
    taxonomy: Annotated[str | None, Option(help="banking77, or a YAML file with your intents.")] = None,
    language: Annotated[str | None, Option(help="en or es, where the data does not say.")] = None,
    preview: Annotated[bool, Option("--preview", help="Only show ten records as they would be read.")] = False,
    replace: Replace = False,
) -> None:
    """Import anyone's data; what was taken for what is said, broken records are named."""
    import json
    import shlex
    from tempfile import TemporaryDirectory

    from genesis_lab.dataset import import_dataset
    from genesis_lab.domains import get_domain
    from genesis_lab.files import shown

    with TemporaryDirectory(prefix="genesis-") as scratch:
        place = Path(scratch) / "preview" if preview else target
        dataset, report = import_dataset(
            source, place, domain=domain, field_map=pairs(field), taxonomy=taxonomy, language=language, replace=replace
        )
        if preview:
            for record in next(dataset.batches(size=10)).to_pylist():
                cells = get_domain(domain).cells(record).items()
                echo(json.dumps({name: v for name, v in cells if v is not None}, ensure_ascii=False, default=str))
    echo(f"{report}, in a preview" if preview else f"{report} in {shown(dataset.path)}")
    lines(f"  {note}" for note in report.notes)
    lines((f"  {problem}" for problem in report.said()), 20, len(report.problem_counts))
    if preview:
        told = [(o, t) for o, t in dataset.manifest["import"]["field_map"].items() if o != t]
        options = [part for ours, theirs in told for part in ("--field", f"{ours}={theirs}")]
        command = ["genesis", "dataset", "import", source, target, *options]
        echo(f"Nothing was written. To import, or to correct what is wrong: {shlex.join(command)}")


@commands.command()
def export(
    name: Name,
    target: Annotated[str, Argument(help="File or folder, hub repository owner/name, or s3://bucket/key.")],
    format: Annotated[
        str | None, Option(help="jsonl, csv, parquet, labelled (CSV of text,label), long or wide (CSV of series), hub.")
    ] = None,
    split: Annotated[str | None, Option(help="Only this split.")] = None,
    replace: Replace = False,
) -> None:
    """Export a dataset to JSONL, CSV, Parquet, Hugging Face or S3."""
    from genesis_lab.dataset import export_dataset, open_dataset

    lines(export_dataset(open_dataset(name), target, cast(Any, format), split=split, replace=replace))


@commands.command()
def discard(name: Name) -> None:
    """Throw away an unfinished run; a dataset of that name stays, and so do the answers that were paid for."""
    from genesis_lab.files import dataset_path
    from genesis_lab.generation.journal import discard

    discard(dataset_path(name))
    echo(f"the unfinished run of {name} is gone")


@commands.command("list")
def list_datasets() -> None:
    """List the datasets: how many records, what they are worth, when and by whom they were made."""
    from datetime import datetime

    import pandas as pd

    from genesis_lab.dataset import Dataset, read_reports
    from genesis_lab.dataset.curation import listed
    from genesis_lab.files import dataset_path
    from genesis_lab.reporting.html import interval_text
    from genesis_lab.reporting.reading import at, best, stand_in

    rows = []
    for one in listed():
        manifest, worth = one.get("manifest", {}), "not measured"
        card = read_reports(Dataset(dataset_path(one["name"]), manifest)).get("scorecard") if manifest else None
        if found := best(card):
            told = interval_text(found["accuracy"]) if "accuracy" in found else f"MASE {interval_text(found['mase'])}"
            worth = told + " stand-in" * bool(stand_in(card or {}))
        made, source = manifest.get("generation") or {}, at(manifest, "import.source")
        by = [made.get("provider"), made.get("model")] if made else [f"import of {source}" if source else ""]
        rows.append(
            {
                "name": one["name"],
                "records": f"{one['records']:,} {manifest['domain']}" if manifest else "unfinished run",
                "worth": worth,
                "when": f"{datetime.fromtimestamp(one['when']):%Y-%m-%d %H:%M}",
                "by": ":".join(filter(None, by)),
                "from": at(manifest, "curation.from.dataset") or "",
            }
        )
    if not rows:
        return echo("no datasets yet: genesis notebook 10 makes one, genesis dataset import brings one in")
    echo(pd.DataFrame(rows).to_string(index=False))
    echo("worth: accuracy on real data of the best model that learned from nothing else")


@commands.command()
def show(
    name: Name,
    where: Where = [],
    search: Annotated[str, Option(help="Words that must occur; case and accents don't count.")] = "",
    records: Annotated[int, Option(min=0, help="Records to show.")] = 2,
    html: Annotated[Path | None, Option(metavar="FILE", help="Write them all as one HTML page with filters.")] = None,
    replace: Replace = False,
) -> None:
    """Show the verdict on a dataset (notebook 20) and records of it; or write all as a page with filters."""
    from genesis_lab.dataset import open_dataset
    from genesis_lab.dataset.curation import standing
    from genesis_lab.files import resolve, shown
    from genesis_lab.reporting.browser import browser_of, preview_of
    from genesis_lab.reports import kept
    from genesis_lab.validation.gates import verdict_on

    dataset = open_dataset(name)
    if html is not None or where or search:
        browser = browser_of(dataset, _conditions(where))
        if html is not None:
            return echo(f"written to {shown(browser.write(resolve(html), replace=replace))}")
        found = browser.ask(browser.where, search, limit=records)
        echo(f"{found['total']:,} of {dataset.total:,} {browser.unit}")
        rows = [browser.record(row["row"]) for row in found["rows"]]
    else:
        counts = ", ".join(f"{split} {n:,}" for split, n in dataset.counts.items())
        echo(f"{shown(dataset.path)}: {dataset.total:,} {dataset.domain} ({counts})")
        if "quality" in (reports := kept(dataset)):
            verdict = verdict_on(reports)
            lines([verdict["sentence"], *(f"  {gate['outcome']:<12}  {gate['name']}" for gate in verdict["gates"])])
        echo(f"content {dataset.content_hash}")
        told = {**dataset.manifest.get("generation", {}), **dataset.manifest.get("curation", {})}
        told |= {"decided by people": f"{n:,} (genesis dataset apply)"} if (n := len(standing(dataset))) else {}
        lines(f"  {key}: {value}" for key, value in told.items())
        first = next(dataset.batches(size=max(records, 1)), None)
        rows = first.slice(0, records).to_pylist() if first else []
    preview = preview_of(dataset, fields=False)
    for row in rows:
        echo(f"\n{preview(row).text}")


@commands.command()
def decide(
    name: Name,
    record: Annotated[str, Argument(help="The record's id.")],
    action: Annotated[str, Argument(help="keep, drop, fix, relabel, note or undo.")],
    value: Annotated[str, Argument(help="The right label, the note, or of fix PLACE=TEXT (turns.0.text=…).")] = "",
    why: Annotated[str, Option(help="Why.")] = "",
) -> None:
    """Decide about one record; the decision is kept beside the data until it is applied."""
    from genesis_lab.dataset import curation, open_dataset

    dataset = open_dataset(name)
    place, _, text = value.partition("=")
    given: Any = {place: text} if action == "fix" else value or None
    stands = curation.decide(dataset, curation.row_of(dataset, record), action, given, why=why)
    echo(f"{record}: {stands.get('marks') or 'nothing is decided'}")


@commands.command()
def apply(
    name: Name,
    target: Annotated[str | None, Argument(help="Name of the new version (default: NAME_v2, _v3 …).")] = None,
    add: Annotated[list[str], Option(metavar="NAME", help="A dataset to add, such as what was asked for again.")] = [],
    decisions: Annotated[list[Path], Option(metavar="FILE", help="Decisions downloaded from the HTML page.")] = [],
    replace: Replace = False,
) -> None:
    """Make what people decided about records a new version; the original stays."""
    from genesis_lab.dataset import curation, open_dataset
    from genesis_lab.files import shown

    dataset = open_dataset(name)
    for file in decisions:
        echo(f"{curation.take(dataset, file):,} new decisions from {file.name}")
    new = curation.apply(dataset, target, add=[open_dataset(one) for one in add], replace=replace)
    changed = ", ".join(f"{what} {n:,}" for what, n in new.manifest["curation"]["changed"].items() if n)
    echo(f"{shown(new.path)}: {new.total:,} records ({changed}), content {new.content_hash[:12]}")


@commands.command("ask-again")
def ask_again(
    name: Name,
    target: Annotated[str | None, Argument(help="Name of what is generated (default: NAME_again).")] = None,
    teacher: Annotated[str, Option(help="Who is asked: bedrock:<model>, ollama:<model> (default: as before).")] = "",
    yes: Annotated[bool, Option("--yes", help="Don't ask before it begins.")] = False,
) -> None:
    """Generate anew what was dropped, in the same cells of the plan; says what it costs first."""
    from genesis_lab.asking_again import ask_again as again
    from genesis_lab.dataset import open_dataset
    from genesis_lab.files import findable, shown
    from genesis_lab.generation import generate
    from genesis_lab.reporting.progress import progress

    config: Any = again(open_dataset(name), target, teacher=teacher)
    for who, part in config.estimates().items():
        echo(f"{part.requests:,} records by {who}: cost {part.cost}, time {part.time}")
    if not yes:
        confirm("Generate them?", abort=True)
    with progress(config.total, "Generating", unit=config.domain.facets.unit) as bar:
        made = generate(config, on_progress=bar)
    echo(f"{shown(made.path)}: add it with genesis dataset apply {name} --add {findable(made.path)}")


@commands.command()
def sample(
    name: Name,
    folder: Annotated[Path, Argument(help="Folder for the sheets.")],
    reviewer: Annotated[list[str], Option(help="Who scores them. Repeatable; two at least show how far they agree.")],
    records: Annotated[int, Option(min=1, help="Records, in proportion to label and language.")] = 50,
    rubric: Annotated[str, Option(help="YAML file with your criteria (default: for customer service).")] = "",
    seed: Annotated[int, Option(help="Another seed, another sample.")] = 0,
) -> None:
    """Write a sheet for each reviewer: a sample of records to be scored from 1 to 5."""
    from genesis_lab.dataset import open_filled
    from genesis_lab.files import shown
    from genesis_lab.validation.judge import load_rubric
    from genesis_lab.validation.reviewers import write_sheets

    criteria = load_rubric(rubric)
    lines(map(shown, write_sheets(open_filled(name), folder, reviewer, criteria, n=records, seed=seed)))
    lines(f"  {one.name}: {one.title}" for one in criteria.criteria)


@commands.command()
def agreement(
    sheet: Annotated[list[Path], Argument(help="The sheets, filled in.")],
    out: Annotated[Path, Option(metavar="FILE", help="Labels for the judge of notebook 20 (human_labels).")],
    rubric: Annotated[str, Option(help="The rubric that the sheets were written for.")] = "",
    replace: Replace = False,
) -> None:
    """Say how far reviewers agree, and write their scores as the judge's human labels."""
    from genesis_lab.files import shown
    from genesis_lab.reporting.html import table
    from genesis_lab.validation import reviewers
    from genesis_lab.validation.judge import load_rubric

    scores = reviewers.read_sheets(sheet, load_rubric(rubric))
    rows = reviewers.agreement(scores)
    echo(table(rows).text if rows else "one reviewer: there is nobody to agree with")
    echo(f"{len(scores):,} scores in {shown(reviewers.write_labels(scores, out, replace=replace))}")


@commands.command()
def delete(name: Name) -> None:
    """Put a dataset away; genesis dataset undo brings it back."""
    from genesis_lab.dataset.curation import put_away

    echo(f"{name} is in {put_away(name)}; genesis dataset undo brings it back")


@commands.command()
def rename(name: Name, new: Annotated[str, Argument(help="Its new name.")]) -> None:
    """Give a dataset another name; genesis dataset undo gives back the old one."""
    from genesis_lab.dataset.curation import put_away

    echo(f"{name} is {put_away(name, new)} now")


@commands.command()
def undo() -> None:
    """Take back the last delete or rename."""
    from genesis_lab.dataset import curation

    echo(curation.undo())


def _conditions(options: list[str]) -> dict[str, Any]:
    """``intent=a,b``, ``words=5..20``, ``check failed=any`` as `Browser` takes them."""
    found: dict[str, Any] = {}
    for name, value in pairs(options).items():
        low, dots, high = value.partition("..")
        found[name] = True if value == "any" else {"from": low, "to": high} if dots else value.split(",")
    return found
