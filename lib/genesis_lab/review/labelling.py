"""What people say of messages: labels with a second person's decision, and remarks that need none."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from genesis_lab.dataset.columns import safe_cell
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed
from genesis_lab.review.audit import append
from genesis_lab.review.nlu import examples_in, words_of
from genesis_lab.review.nlu_merge import check_example
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import REMARKS, activity, labels, messages

Decision = Literal["approved", "rejected"]


def annotate_all(store: Store, said: Sequence[Mapping[str, Any]], *, author: str | None = None) -> list[dict[str, Any]]:
    """Save the author's pending label of each message, a new one or the next version; all of them or none.

    `said` : ``message``, ``intent``, ``entities``, ``note`` and the ``seconds`` that it took; what says nothing takes back what
    was said. `author` can be given on SQLite only; on PostgreSQL it is the login.
    """
    who, rows = author_of(store, author), []
    bump = {} if store.enforced else {"version": labels.c.version + 1}
    with store.begin() as connection:
        for one in said:
            message, values = one["message"], {name: one.get(name) for name in ("intent", "entities", "note")}
            mine = (labels.c.message == message) & (labels.c.status == "pending") & (labels.c.author == who)
            done = connection.execute(sa.update(labels).where(mine).values(values | bump))
            what = "changed" if done.rowcount else "annotated"
            if not done.rowcount:
                if not connection.execute(sa.select(messages.c.key).where(messages.c.key == message)).first():
                    raise InvalidInput(f"There is no message {message!r} in {store.address}: it can't be labelled.")
                connection.execute(sa.insert(labels).values(values | _own(store, author) | {"message": message}))
            row = dict(connection.execute(sa.select(labels).where(mine)).one()._mapping)
            if not store.enforced:
                append(connection, who, what, f"annotation {row['id']} version {row['version']}", row)
            what = "withdrawn" if row["intent"] is None and row["note"] is None else what
            done_by = {"person": store.person, "action": what, "message": message, "seconds": one.get("seconds")}
            connection.execute(sa.insert(activity).values(done_by | _own(store, author)))
            rows.append(row)
    return rows


def annotate_texts(
    store: Store, said: Sequence[Mapping[str, Any]], bot: Path, *, new: Collection[str] = (), author: str | None = None
) -> list[dict[str, Any]]:
    """Save labels from elsewhere (`nlu_merge.read_examples`), of the message named, else of the newest that says the text.

    All of them or none: `InvalidInput` names each message that is gone and each intent that is neither in the training data
    `bot` nor `new`. What its author has said of a message already is not said again; returns what is new.
    """
    intents = {row["intent"] for row in examples_in(bot)} | {*new}
    typed = sa.select(messages.c.key, messages.c.text).where(messages.c.typed, messages.c.text.is_not(None))
    texts = {row["key"]: row["text"] for row in records(store, typed.order_by(messages.c.timestamp))}
    exact, newest = ({form(text): key for key, text in texts.items()} for form in (str, words_of))
    rows, problems = [], list[str]()
    for number, one in enumerate(said, 1):
        said_by = exact.get(one["text"]) or newest.get(words_of(one["text"]))
        key, intent = one.get("message") or said_by, one["intent"] or None
        if key not in texts:
            problems.append(f"{number}: there is no message {(one.get('message') or one['text'])[:60]!r}")
        elif intent not in intents and not (one.get("note") and intent is None):
            problems.append(f"{number}: there is no intent {intent!r}")
        elif one.get("entities") and one["text"] not in ("", texts[key]):
            problems.append(f"{number}: {one['text'][:60]!r} has entities, and was typed as {texts[key][:60]!r}")
        else:
            if intent:
                check_example({**one, "text": texts[key], "entities": one.get("entities") or []})
            rows.append({**one, "message": key, "intent": intent})
    if problems:
        raise InvalidInput(f"Nothing was saved. {'; '.join(problems[:20])}; {len(problems):,} labels of {len(said):,}.")
    mine = sa.select(labels).where(labels.c.author == author_of(store, author)).order_by(labels.c.id)
    latest = {row["message"]: (row["intent"], row["note"], row["entities"] or []) for row in records(store, mine)}
    rows = [one for one in rows if latest.get(one["message"]) != (one["intent"], one.get("note"), one.get("entities") or [])]  # fmt: skip
    return annotate_all(store, rows, author=author)


def pending(store: Store) -> list[dict[str, Any]]:
    """What waits for a decision, the oldest first: each label with its ``version``, its text and what was ``predicted``."""
    said = sa.or_(labels.c.intent.is_not(None), labels.c.note.is_not(None))
    return records(store, _LABELLED.where(said, labels.c.status == "pending"))


def approved(store: Store) -> list[dict[str, Any]]:
    """Approved labels that are not exported yet, as examples for `nlu_merge.plan_merge`; the text is the source's own."""
    fresh = (labels.c.status == "approved") & labels.c.exported_at.is_(None) & labels.c.intent.is_not(None)
    rows = records(store, _LABELLED.where(fresh, messages.c.text.is_not(None)))
    return [row | {"text": json.loads(row["raw"])["text"] if row["lossy"] else row["text"]} for row in rows]


_LABELLED = sa.select(
    *labels.c, *(messages.c[name] for name in ("text", "raw", "lossy")), messages.c.intent.label("predicted")
).join(messages, messages.c.key == labels.c.message).order_by(labels.c.id)  # fmt: skip


def decide(
    store: Store, annotation: int, version: int, status: Decision, reason: str = "", *, decider: str | None = None
) -> dict[str, Any]:
    """Approve or reject a pending annotation in the version that was seen; a rejection needs a reason.

    Returns the row, with ``warning`` where author and decider are one person, which only SQLite lets pass.
    """
    if status not in ("approved", "rejected"):
        raise InvalidInput(f"A decision is approved or rejected, got {status!r}.")
    if status == "rejected" and not reason.strip():
        raise InvalidInput("A rejection needs a reason: its author is shown it.")
    with store.begin() as connection:
        which = labels.c.id == annotation
        if store.enforced:
            call = sa.text("SELECT decide(:id, :version, :status, :reason)")
            connection.execute(call, {"id": annotation, "version": version, "status": status, "reason": reason})
            return dict(connection.execute(sa.select(labels).where(which)).one()._mapping)
        who = author_of(store, decider)
        values = {"status": status, "reason": reason or None, "decided_by": who, "decided_at": time.time()}
        seen = which & (labels.c.status == "pending") & (labels.c.version == version)
        done = connection.execute(sa.update(labels).where(seen).values(values)).rowcount
        found = connection.execute(sa.select(labels).where(which)).first()
        if found is None:
            raise InvalidInput(f"There is no annotation {annotation}.")
        row = dict(found._mapping)
        if not done:
            gone = f"is at version {row['version']}"
            if row["decided_by"]:
                gone = f"was {row['status']} by {row['decided_by']}"
            raise InvalidInput(f"Annotation {annotation} {gone}, what was seen is version {version}: look at it again.")
        append(connection, who, status, f"annotation {annotation} version {version}", row)
    return row | ({"warning": f"{who} decided on an annotation of their own."} if row["author"] == who else {})


def mark_exported(store: Store, ids: Sequence[int]) -> int:
    """Note that approved annotations stand in the training data now; how many were approved and not yet exported."""
    with store.begin() as connection:
        if store.enforced:
            call = sa.text("SELECT mark_exported(CAST(:ids AS int[]))")
            return int(connection.execute(call, {"ids": list(ids)}).scalar_one())
        fresh = labels.c.id.in_(ids) & (labels.c.status == "approved") & labels.c.exported_at.is_(None)
        done = connection.execute(sa.update(labels).where(fresh).values(exported_at=time.time())).rowcount
        if done:
            append(connection, store.person, "exported", f"{done} annotations", sorted(ids))
        return done


def write_labels(store: Store, path: Path, kind: str = "rows", *, replace: bool = False) -> int:
    """Write all labels with their texts, in a file that `nlu_merge.read_examples` takes back; how many.

    `kind` : ``rows``, JSON lines (a CSV by its ending) with who said what, and what became of it; or only intents and spans, as
    ``label-studio`` or ``doccano`` take them.
    """
    kept = ("message", "text", "intent", "entities", "note", "status", "reason", "author", "decided_by")
    rows: list[dict[str, Any]] = [
        {name: row[name] for name in kept} for row in records(store, _LABELLED) if row["text"]
    ]
    rows = [row for row in rows if row["intent"] or (row["note"] and kind == "rows")]
    if kind == "label-studio":
        rows = [{"data": {"text": row["text"]}, "annotations": [{"result": [_region("choices", [row["intent"]])] + [
            _region("labels", [span["entity"]], start=span["start"], end=span["end"], text=row["text"][span["start"] : span["end"]])
            for span in row["entities"] or ()]}]} for row in rows]  # fmt: skip
    elif kind == "doccano":
        rows = [{"text": row["text"], "cats": [row["intent"]], "entities": [
            [span["start"], span["end"], span["entity"]] for span in row["entities"] or ()]} for row in rows]  # fmt: skip
    elif kind != "rows":
        raise InvalidInput(f"Labels are written as rows, label-studio or doccano, got {kind!r}.")
    with placed(path, replace=replace) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            table = csv.DictWriter(file, kept)
            table.writeheader()
            cells = [row | {"entities": row["entities"] and json.dumps(row["entities"])} for row in rows]
            table.writerows({name: safe_cell(value or "") for name, value in row.items()} for row in cells)
        else:
            lines = [json.dumps(row, ensure_ascii=False) for row in rows]
            file.write(f"[{', '.join(lines)}]" if kind == "label-studio" else "".join(f"{line}\n" for line in lines))
    return len(rows)


def _region(kind: str, named: list[str], **where: Any) -> dict[str, Any]:
    """What Label Studio keeps of a choice or of a marked span."""
    names = {"from_name": "intent" if kind == "choices" else "entities", "to_name": "text", "type": kind}
    return names | {"value": {**where, kind: named}}


def add(store: Store, table: str, *, author: str | None = None, **values: Any) -> int:
    """Add a row to cases, tags, notes, flags or filters; its id."""
    with store.begin() as connection:
        done = connection.execute(sa.insert(_remark(table)).values(values | _own(store, author)))
        return int((done.inserted_primary_key or (0,))[0])


def remove(store: Store, table: str, row: int) -> None:
    """Take a row of cases, tags, notes, flags or filters away; on PostgreSQL one's own only, but for cases."""
    with store.begin() as connection:
        if not connection.execute(sa.delete(_remark(table)).where(_remark(table).c.id == row)).rowcount:
            raise InvalidInput(f"There is no row {row} in {table} that {author_of(store, None)} may remove.")


def _remark(table: str) -> sa.Table:
    if table not in REMARKS:
        raise InvalidInput(f"A remark goes into one of {', '.join(REMARKS)}, got {table!r}.")
    return REMARKS[table]


def _own(store: Store, author: str | None) -> dict[str, Any]:
    """What SQLite is told of who writes, and when; PostgreSQL knows."""
    return {} if store.enforced else {"author": author_of(store, author), "created_at": time.time()}


def author_of(store: Store, given: str | None = None) -> str:
    """Who writes: the login on PostgreSQL, else who was given or says to sit here."""
    if not store.enforced:
        return given or store.person
    if given is not None:
        raise InvalidInput("On PostgreSQL the author is the login: an author can't be given.")
    with store.begin() as connection:
        return str(connection.execute(sa.text("SELECT session_user")).scalar_one())
