"""The commands `genesis review …`."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option, echo

from genesis_lab.terminal import group, pairs

review_app = group("Conversations with users.")
ReviewStore = Annotated[
    str | None,
    Option("--store", help="postgresql://… or a SQLite file (default: GENESIS_REVIEW_URL, else one under outputs)."),
]


@review_app.command("ingest")
def review_ingest(
    source: Annotated[
        str,
        Argument(
            help="SQLite file or postgresql://… of a tracker store or event broker, JSON, JSONL, or a Rasa server."
        ),
    ],
    store: ReviewStore = None,
    name: Annotated[
        str | None, Option(help="Name of the source in the store (default: the file's, the database's).")
    ] = None,
    schema: Annotated[str | None, Option(help="Schema of the events table in PostgreSQL.")] = None,
    conversation: Annotated[list[str], Option(help="Of a Rasa server: a conversation to read. Repeatable.")] = [],
    field: Annotated[
        list[str],
        Option("--field", metavar="OURS=THEIRS", help="Of other chats: messages, speaker, text, time, sender."),
    ] = [],
    gap_minutes: Annotated[
        float, Option(min=0, help="Silence that begins a session in trackers that never expire.")
    ] = 60,
    plain_senders: Annotated[bool, Option("--plain-senders", help="Show sender ids as they are, not hashed.")] = False,
    retention_days: Annotated[float | None, Option(min=0, help="Delete the texts of older messages.")] = None,
    full: Annotated[bool, Option("--full", help="Look at every row again.")] = False,
) -> None:
    """Read what is new in a bot's conversations; every row is accounted for."""
    from genesis_lab.reporting.progress import progress
    from genesis_lab.review.ingest import ingest, report_table
    from genesis_lab.review.store import open_store

    with progress(None, "Reading", unit="rows") as bar:
        report = ingest(
            open_store(store), source, name=name, schema=schema, conversations=conversation, fields=pairs(field),
            gap_minutes=gap_minutes, hash_senders=False if plain_senders else None, retention_days=retention_days, full=full, on_progress=bar.at,
        )  # fmt: skip
    echo(report_table(report))


@review_app.command("forget")
def review_forget(
    sender: Annotated[str, Argument(help="The sender's id, or the hash that is shown.")], store: ReviewStore = None
) -> None:
    """Delete what a person said: texts go, also from labels and remarks, counts stay."""
    from genesis_lab.review.forgetting import forget
    from genesis_lab.review.store import open_store

    echo(f"{forget(open_store(store), sender):,} messages have lost their text")


@review_app.command("init-db")
def review_init_db(
    url: Annotated[str, Argument(help="postgresql://login@host/database, with a login that may create roles.")],
    events: Annotated[str | None, Option(help="Rasa's table in it, schema.events, for role ingest to read.")] = None,
) -> None:
    """Make a team's review store on PostgreSQL, where the database enforces who may do what."""
    from genesis_lab.review.roles import init_db

    echo(init_db(url, events=events))


@review_app.command("grant")
def review_grant(
    login: Annotated[str, Argument(help="A login of the database.")],
    role: Annotated[str, Argument(help="viewer, developer, qa_analyst, qa_lead, admin or ingest.")],
    store: ReviewStore = None,
    revoke: Annotated[bool, Option("--revoke", help="Take the role away.")] = False,
) -> None:
    """Give a login a role in the review store; an admin's to do."""
    from genesis_lab.review.roles import grant
    from genesis_lab.review.store import open_store

    echo(grant(open_store(store), login, role, revoke=revoke))
