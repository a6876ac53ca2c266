"""What people say of messages: labels with a second person's decision, remarks without, and how people do."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review.nlu import examples_in, words_of
from genesis_lab.review.nlu_file import Row, check_example
from genesis_lab.review.numbers import rate
from genesis_lab.review.store import Store, append, records
from genesis_lab.review.tables import REMARKS, activity, labels, messages
from genesis_lab.validation.reviewers import named_alike

Decision = Literal["approved", "rejected"]
_LISTED = 20
_SHOWN = (*labels.c, messages.c.text, messages.c.raw, messages.c.lossy, messages.c.intent.label("predicted"))
_LABELLED = sa.select(*_SHOWN).join(messages, messages.c.key == labels.c.message).order_by(labels.c.id)


def annotate_all(store: Store, said: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Save the author's pending label of each message, a new one or the next version; all of them or none.

    `said` : ``message``, ``intent``, ``entities``, ``note`` and the ``seconds`` that it took; what says nothing takes
    back what was said.
    """
    who, rows = store.author, list[Row]()
    bump = {} if store.enforced else {"version": labels.c.version + 1}
    with store.begin() as connection:
        for one in said:
            message, values = one["message"], {name: one.get(name) for name in ("intent", "entities", "note")}
            mine = (labels.c.message == message) & (labels.c.status == "pending") & (labels.c.author == who)
            what = "changed"
            if not connection.execute(sa.update(labels).where(mine).values(values | bump)).rowcount:
                what = "annotated"
                if not connection.execute(sa.select(messages.c.key).where(messages.c.key == message)).first():
                    raise InvalidInput(f"There is no message {message!r} in {store.address}: it can't be labelled.")
                connection.execute(sa.insert(labels).values(values | _own(store) | {"message": message}))
            row = dict(connection.execute(sa.select(labels).where(mine)).one()._mapping)
            append(store, connection, what, f"annotation {row['id']} version {row['version']}", row)
            what = "withdrawn" if row["intent"] is None and row["note"] is None else what
            did = {"person": store.person, "action": what, "message": message, "seconds": one.get("seconds")}
            connection.execute(sa.insert(activity).values(did | _own(store)))
            rows.append(row)
    return rows


def annotate_texts(
    store: Store, said: Sequence[Mapping[str, Any]], bot: Path, *, new: Collection[str] = ()
) -> list[Row]:
    """Save labels from elsewhere (`read_examples`), of the message named, else of the newest that says the text.

    All of them or none: `InvalidInput` names each message that is gone and each intent that is neither in the training
    data `bot` nor `new`. What its author has said of a message already is not said again; returns what is new.
    """
    intents = {row["intent"] for row in examples_in(bot)} | {*new}
    typed = sa.select(messages.c.key, messages.c.text).where(messages.c.typed, messages.c.text.is_not(None))
    texts = {row["key"]: row["text"] for row in records(store, typed.order_by(messages.c.timestamp))}
    exact, newest = ({form(text): key for key, text in texts.items()} for form in (str, words_of))
    mine = sa.select(labels).where(labels.c.author == store.author).order_by(labels.c.id)
    latest = {row["message"]: _meaning(row) for row in records(store, mine)}
    rows, problems = list[Row](), list[str]()
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
    return annotate_all(store, [row for row in rows if latest.get(row["message"]) != _meaning(row)])


def _meaning(label: Row) -> tuple[Any, ...]:
    return label["intent"], label.get("note"), label.get("entities") or []


def all_labels(store: Store) -> list[Row]:
    """Every label, the oldest first, with the text of its message and what was ``predicted``."""
    return records(store, _LABELLED)


def pending(store: Store) -> list[Row]:
    """What waits for a decision, the oldest first: labels with ``version``, text and what was ``predicted``."""
    said = sa.or_(labels.c.intent.is_not(None), labels.c.note.is_not(None))
    return records(store, _LABELLED.where(said, labels.c.status == "pending"))


def approved(store: Store) -> list[Row]:
    """Approved labels not exported yet, as examples for `nlu_merge.plan_merge`; the text is the source's own."""
    fresh = (labels.c.status == "approved") & labels.c.exported_at.is_(None) & labels.c.intent.is_not(None)
    rows = records(store, _LABELLED.where(fresh, messages.c.text.is_not(None)))
    return [row | {"text": json.loads(row["raw"])["text"] if row["lossy"] else row["text"]} for row in rows]


def decide(store: Store, annotation: int, version: int, status: Decision, reason: str = "") -> Row:
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
        who = store.person
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
        append(store, connection, status, f"annotation {annotation} version {version}", row)
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
            append(store, connection, "exported", f"{done} annotations", sorted(ids))
        return done


def add(store: Store, table: str, **values: Any) -> int:
    """Add a row to cases, tags, notes, flags or filters; its id."""
    with store.begin() as connection:
        done = connection.execute(sa.insert(_remark(table)).values(values | _own(store)))
        return int((done.inserted_primary_key or (0,))[0])


def remove(store: Store, table: str, row: int) -> None:
    """Take a row of cases, tags, notes, flags or filters away; on PostgreSQL one's own only, but for cases."""
    with store.begin() as connection:
        if not connection.execute(sa.delete(_remark(table)).where(_remark(table).c.id == row)).rowcount:
            raise InvalidInput(f"There is no row {row} in {table} that {store.author} may remove.")


def _remark(table: str) -> sa.Table:
    if table not in REMARKS:
        raise InvalidInput(f"A remark goes into one of {', '.join(REMARKS)}, got {table!r}.")
    return REMARKS[table]


def _own(store: Store) -> Row:
    """What SQLite is told of who writes, and when; PostgreSQL knows."""
    return {} if store.enforced else {"author": store.person, "created_at": time.time()}


def people(store: Store, *, seed: int = 0) -> Row:
    """The report ``people``: who annotated how much, how fast and how well, and how far people agree.

    ``people``: ``annotations``, ``days`` on which there were any (UTC), ``a_day``, ``seconds`` (median of an
    annotation) and the share ``approved`` of those decided; None where none was timed or decided. ``rejections`` with
    their reasons; ``agreement`` on texts that several labelled (`named_alike`), and where they did not agree.
    ``stages``: how far labels have come, in use as soon as a model is seen that came after their export; ``log``: what
    people did last, newest first.
    """
    made = [row | {"label": row["intent"] or row["note"]} for row in all_labels(store) if row["intent"] or row["note"]]
    acts = sa.select(*activity.c, messages.c.text).outerjoin(messages, messages.c.key == activity.c.message)
    did = records(store, acts.order_by(activity.c.id.desc()))
    seconds, own = defaultdict[str, list[float]](list), defaultdict[str, list[Row]](list)
    given = defaultdict[str, dict[str, str]](dict)
    for row in (row for row in did if row["seconds"] is not None):
        seconds[row["author"]].append(row["seconds"])
    for row in made:
        own[row["author"]].append(row)
        given[words_of(row["text"] or "") or row["message"]][row["author"]] = row["label"]
    apart = [
        {"text": words, "said": [f"{who}: {label}" for who, label in said.items()]}
        for words, said in given.items()
        if len({*said.values()}) > 1
    ]
    return {
        "stages": _stages(store, made),
        "log": [row | {"at": _moment(row).isoformat(" ", "minutes")} for row in did[:_LISTED]],
        "people": [_person(author, own[author], seconds[author]) for author in sorted(own)],
        "labels": len(made),
        "agreement": named_alike(given, seed),
        "disagreements": apart[:_LISTED],
        "rejections": [row for row in made if row["status"] == "rejected"][-_LISTED:],
    }


def _person(author: str, own: Sequence[Row], seconds: Sequence[float]) -> Row:
    days = len({_moment(row).date() for row in own})
    decided = [row["status"] == "approved" for row in own if row["status"] != "pending"]
    return {
        "person": author,
        "annotations": len(own),
        "days": days,
        "a_day": len(own) / days,
        "approved": rate(sum(decided), len(decided)),
        "seconds": median(seconds) if seconds else None,
    }


def _moment(row: Row) -> datetime:
    return datetime.fromtimestamp(row["created_at"], UTC)


def _stages(store: Store, made: Sequence[Row]) -> dict[str, int]:
    first_seen = sa.select(sa.func.min(messages.c.timestamp).label("at")).where(messages.c.model.is_not(None))
    newest = max((row["at"] or 0.0 for row in records(store, first_seen.group_by(messages.c.model))), default=0.0)
    exported = [row["exported_at"] for row in made if row["exported_at"]]
    stages = {name: sum(row["status"] == name for row in made) for name in ("pending", "approved", "rejected")}
    return stages | {"exported": len(exported), "in use": sum(at < newest for at in exported)}
