"""The commands `genesis review …`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Exit, Option, echo

from genesis_lab.terminal import Replace, group, lines, pairs

review_app = group("Conversations with users.")
nlu_app = group("A Rasa bot's training data.")
review_app.add_typer(nlu_app, name="nlu")
DataFolder = Annotated[Path, Argument(help="The bot's data folder, or one of its YAML files.")]
Write = Annotated[bool, Option("--write", help="Write the files; without it only the diff is shown.")]
ReviewStore = Annotated[
    str | None,
    Option("--store", help="postgresql://… or a SQLite file (default: GENESIS_REVIEW_URL, else one under outputs)."),
]


def _open(store: str | None) -> Any:
    from genesis_lab.review.store import open_store

    return open_store(store)


@review_app.command("ingest")
def review_ingest(
    source: Annotated[str, Argument(help="SQLite file, postgresql://…, JSON, JSONL, or a Rasa server.")],
    store: ReviewStore = None,
    name: Annotated[str | None, Option(help="Name of the source (default: the file's, the database's).")] = None,
    schema: Annotated[str | None, Option(help="Schema of the events table in PostgreSQL.")] = None,
    conversation: Annotated[list[str], Option(help="Of a Rasa server: a conversation to read. Repeatable.")] = [],
    field: Annotated[list[str], Option(metavar="OURS=THEIRS", help="Of other chats: where text, time … are.")] = [],
    gap_minutes: Annotated[float, Option(min=0, help="Silence that begins a session where trackers have none.")] = 60,
    plain_senders: Annotated[bool, Option("--plain-senders", help="Show sender ids as they are, not hashed.")] = False,
    retention_days: Annotated[float | None, Option(min=0, help="Delete the texts of older messages.")] = None,
    full: Annotated[bool, Option("--full", help="Look at every row again.")] = False,
) -> None:
    """Read what is new in a bot's conversations; every row is accounted for."""
    from genesis_lab.reporting.progress import progress
    from genesis_lab.review.ingest import ingest, report_table

    with progress(None, "Reading", unit="rows") as bar:
        report = ingest(
            _open(store),
            source,
            name=name,
            schema=schema,
            conversations=conversation,
            fields=pairs(field),
            gap_minutes=gap_minutes,
            hash_senders=False if plain_senders else None,
            retention_days=retention_days,
            full=full,
            on_progress=bar.at,
        )
    echo(report_table(report))


@review_app.command("export-csv")
def review_export_csv(
    out: Annotated[Path, Argument(help="The CSV file to write.")],
    of: Annotated[str, Option(help="A row for each of: messages, conversations.")] = "messages",
    days: Annotated[int, Option(min=1, help="Of so many days until today.")] = 30,
    zone: Annotated[str, Option(help="Whose days.")] = "America/Guatemala",
    store: ReviewStore = None,
    replace: Replace = False,
) -> None:
    """Write what was said as CSV, safe in spreadsheets."""
    from genesis_lab.review.conversations import write_csv
    from genesis_lab.review.numbers import dashboard

    opened = _open(store)
    report = dashboard(opened, days=days, zone=zone)
    said = f"{write_csv(opened, report, out, of, replace=replace):,} {of}"
    echo(f"{said}, {report['period']['since']} to {report['period']['until']}. {report['period']['note']}".strip())


@review_app.command("forget")
def review_forget(
    sender: Annotated[str, Argument(help="The sender's id, or the hash that is shown.")], store: ReviewStore = None
) -> None:
    """Delete what a person said: texts go, also from labels and remarks, counts stay."""
    from genesis_lab.review.forgetting import forget

    echo(f"{forget(_open(store), sender):,} messages have lost their text")


@review_app.command("annotate")
def review_annotate(
    labels: Annotated[Path, Argument(help="CSV or JSONL, or an export of Label Studio or doccano.")],
    bot: DataFolder,
    store: ReviewStore = None,
    new_intent: Annotated[list[str], Option("--new-intent", help="An intent that the bot lacks. Repeatable.")] = [],
) -> None:
    """Save labels made elsewhere as pending ones; all of them, or none and why."""
    from genesis_lab.review.labelling import annotate_texts, read_examples

    made = annotate_texts(_open(store), read_examples(labels), bot, new=new_intent)
    echo(f"{len(made):,} labels wait for a decision")


@review_app.command("export-labels")
def review_export_labels(
    out: Annotated[Path, Argument(help="The file to write: .jsonl or .csv, .json for Label Studio.")],
    kind: Annotated[str, Option("--as", help="rows, label-studio or doccano.")] = "rows",
    store: ReviewStore = None,
    replace: Replace = False,
) -> None:
    """Write all labels with their texts, as files that genesis review annotate takes."""
    from genesis_lab.review.labelling import write_labels

    echo(f"{write_labels(_open(store), out, kind, replace=replace):,} labels")


@review_app.command("decide")
def review_decide(
    label: Annotated[int, Argument(help="Its number.")],
    version: Annotated[int, Argument(help="Its version, as you saw it.")],
    decision: Annotated[str, Argument(help="approved or rejected.")],
    reason: Annotated[str, Option(help="Why; a rejection needs one, which its author is shown.")] = "",
    store: ReviewStore = None,
) -> None:
    """Approve or reject a pending label in the version that was seen."""
    from genesis_lab.review.labelling import decide

    row = decide(_open(store), label, version, decision, reason)  # type: ignore[arg-type]  # it checks
    echo(f"label {label} is {row['status']}. {row.get('warning', '')}".strip())


@review_app.command("cases")
def review_cases(
    file: Annotated[Path | None, Argument(help="Cases to keep: test_nlu.yml, CSV or JSONL.")] = None,
    remove: Annotated[list[int], Option(help="Number of a case to take away. Repeatable.")] = [],
    store: ReviewStore = None,
) -> None:
    """Keep cases of the regression test, take some away, and list them all."""
    from genesis_lab.review.labelling import remove as take_away
    from genesis_lab.review.regression import add_cases, list_cases, read_cases

    opened = _open(store)
    add_cases(opened, read_cases(file) if file else [])
    for number in remove:
        take_away(opened, "cases", number)
    lines(f"{number}: {name}: {text!r}" for number, text, name, *_ in map(dict.values, list_cases(opened)))


@review_app.command("init-db")
def review_init_db(
    url: Annotated[str, Argument(help="postgresql://login@host/database, with a login that may create roles.")],
    events: Annotated[str | None, Option(help="Rasa's table in it, schema.events, for role ingest to read.")] = None,
) -> None:
    """Make a team's review store on PostgreSQL, where the database enforces who may do what."""
    from genesis_lab.review.store import init_db

    echo(init_db(url, events=events))


@review_app.command("grant")
def review_grant(
    login: Annotated[str, Argument(help="A login of the database.")],
    role: Annotated[str, Argument(help="viewer, developer, qa_analyst, qa_lead, admin or ingest.")],
    store: ReviewStore = None,
    revoke: Annotated[bool, Option("--revoke", help="Take the role away.")] = False,
) -> None:
    """Give a login a role in the review store; an admin's to do."""
    from genesis_lab.review.store import grant

    echo(grant(_open(store), login, role, revoke=revoke))


@review_app.command("audit")
def review_audit(
    head: Annotated[
        str | None, Option(metavar="N:HASH", help="Its head as an earlier report has it: is it still there?")
    ] = None,
    store: ReviewStore = None,
) -> None:
    """Say whether the record of who changed what is whole; ends with 1 where it is not."""
    from genesis_lab.errors import InvalidInput
    from genesis_lab.review.store import audit_faults, audit_head

    number, _, told = (head or "").partition(":")
    if head and not (number.isdecimal() and told):
        raise InvalidInput(f"The head of a chain is its number and hash, as 70:986cc0…, got {head!r}.")
    opened = _open(store)
    faults = audit_faults(opened, {"number": int(number), "hash": told} if head else None)
    lines(faults)
    echo(f"{len(faults):,} faults; the chain's head is {'{number}:{hash}'.format(**audit_head(opened))}")
    if faults:
        raise Exit(1)


@nlu_app.command("check")
def nlu_check(folder: DataFolder) -> None:
    """List what Rasa refuses, passes over or would learn wrong; ends with 1 where there are errors."""
    from genesis_lab.review.nlu import check

    problems = check(folder)
    lines("{file}:{line}: {level}: {problem}".format(**row) for row in problems)
    errors = sum(row["level"] == "error" for row in problems)
    echo(f"{errors:,} errors, {len(problems) - errors:,} other remarks")
    if errors:
        raise Exit(1)


@nlu_app.command("merge")
def nlu_merge(
    folder: DataFolder,
    examples: Annotated[
        Path | None, Argument(help="Rasa's YAML, or a table of examples (default: approved labels).")
    ] = None,
    write: Write = False,
    move: Annotated[bool, Option("--move", help="Examples that stand elsewhere move here.")] = False,
    remove: Annotated[bool, Option("--remove", help="Take out, instead of adding.")] = False,
    synthetic: Annotated[str | None, Option(metavar="RUN", help="Of this run: into genesis_synthetic.yml.")] = None,
    new_intents: Annotated[str | None, Option(help="File of the folder that new intents go into.")] = None,
    branch: Annotated[
        str | None, Option(help="With --write: commit them on this branch of the bot's git repository.")
    ] = None,
    store: ReviewStore = None,
) -> None:
    """Add examples, synonyms, regexes, lookups, responses, names in the domain, or take them out: each as one line.

    What would not read back exactly is refused and listed.
    """
    from genesis_lab.dataset.curation import who
    from genesis_lab.errors import InvalidInput
    from genesis_lab.review import nlu_merge as bot
    from genesis_lab.review.labelling import approved, mark_exported, read_examples

    if remove and not examples:
        raise InvalidInput("--remove needs a file that holds what is to be taken out.")
    rows = read_examples(examples, terms=True) if examples else approved(_open(store))
    if write and branch:
        bot.on_branch(folder, branch)
    merge = bot.plan_merge(folder, rows, run=synthetic, new_intents=new_intents, move=move, remove=remove)
    echo(merge.diff(), nl=False)
    lines(merge.refusals())
    done = f"{len(bot.write(merge, who())):,} files written" if write else "nothing written: --write does"
    if write and branch and merge.files:
        done += f", commit {bot.commit(merge, f'{len(merge.added):,} examples by {who()}')} on {branch}"
    if write and not examples:
        mark_exported(_open(store), [row["id"] for row in (*merge.added, *merge.known)])
    changed = f"{len(merge.added):,} added, {len(merge.removed):,} taken out"
    echo(f"{changed}, {len(merge.known):,} known already, {len(merge.refused):,} refused; {done}")


@nlu_app.command("versions")
def nlu_versions(
    folder: DataFolder,
    file: Annotated[str | None, Argument(help="A file of the list, to put back.")] = None,
    content: Annotated[str | None, Argument(help="The hash of what it is to hold again.")] = None,
    write: Write = False,
) -> None:
    """List what was written when by whom, as hashes before and after; or put a file back to one of them."""
    from genesis_lab.dataset.curation import who
    from genesis_lab.review import nlu_merge as bot

    if file is None:
        told = "{when} {author}: {file} {before} to {after}, {added} added, {removed} taken out"
        return lines(told.format(**{"removed": 0} | one) for one in bot.versions(folder))
    merge = bot.restored(folder, file, content or "")
    echo(merge.diff(), nl=False)
    echo(f"{len(bot.write(merge, who())):,} files written" if write else "nothing written: --write does")
    return None


@nlu_app.command("taxonomy")
def nlu_taxonomy(
    folder: DataFolder,
    out: Annotated[Path, Argument(help="The YAML file to write, for taxonomy = … in a notebook's parameters.")],
    language: Annotated[str | None, Option(help="en or es (default: what config.yml says).")] = None,
) -> None:
    """Make a taxonomy for the generator of the bot's own intents and examples."""
    from genesis_lab.files import placed, shown
    from genesis_lab.review.loop import taxonomy_from
    from genesis_lab.yamls import dump_yaml

    made = taxonomy_from(folder, language)
    with placed(out) as temporary:
        temporary.write_text(dump_yaml(made), encoding="utf-8")
    echo(f"{shown(out)}: {len(made['intents']):,} intents. {made['source']}")
