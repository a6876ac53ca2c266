"""What people say of messages: labels, also in files, with a second person's decision; remarks; what people did."""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Literal

import pandas as pd
import sqlalchemy as sa

from genesis_lab.dataset.columns import safe_cell
from genesis_lab.dataset.sources import read_rows
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, shown
from genesis_lab.review.nlu import examples_in, sound, words_of
from genesis_lab.review.nlu_file import Row, check_example
from genesis_lab.review.numbers import rate
from genesis_lab.review.store import Store, append, records
from genesis_lab.review.tables import REMARKS, activity, labels, messages
from genesis_lab.validation.reviewers import named_alike

Decision = Literal["approved", "rejected"]
_LISTED = 20
_REJECTED = ("text", "label", "author", "decided_by", "reason")
_WRITTEN = ("message", "text", "intent", "entities", "note", "status", "reason", "author", "decided_by")
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


# Labels in files: tables, JSON lines, Rasa's own YAML, and what Label Studio and doccano export and take


def read_examples(path: Path, *, terms: bool = False) -> list[Row]:
    """Examples of training data, of a table or JSON lines with intent and text (or message), entities as JSON, and what
    else is there; or of a JSON export of Label Studio or doccano, where what nobody labelled is left out.

    `entities` is None where a row does not say. With `terms` all else that `nlu_file.Source` has in its rows as well.
    """
    if path.suffix in (".yml", ".yaml"):
        found = [one for source in sound(path) for one in (source.rows if terms else source.examples)]
    else:
        found = [said for row in read_rows(path) if (said := _said(row, path))]
    if not found:
        raise InvalidInput(f"{shown(path)} holds no case or label: give rows with text and intent.")
    return found


def _said(row: Any, path: Path) -> Row:
    """An example as a table or a tool has it; nothing of a tool's where nobody labelled it."""
    try:
        held = _of_tool(row.value or {})
        spans = held.get("entities") or None
        spans = json.loads(spans) if isinstance(spans, str) else spans
    except InvalidInput as error:
        raise InvalidInput(f"{shown(path)}, row {row.number}: {error}.") from None
    except (AttributeError, KeyError, IndexError, TypeError, ValueError):
        due = "entities must be a JSON list of start, end and entity"
        raise InvalidInput(f"{shown(path)}, row {row.number}: {due}.") from None
    if row.value and not held:
        return {}
    held = {"text": ""} | held if held.get("message") else held
    if lacking := [column for column in ("intent", "text") if column not in held]:
        why = row.problem or f"it lacks {lacking[0]}"
        raise InvalidInput(f"{shown(path)} must have the columns intent and text: {why} (row {row.number}).")
    told = {name: held[name] or "" for name in ("intent", "text")}
    return {**held, **told, "entities": spans, "line": row.number}


def _of_tool(row: Mapping[str, Any]) -> Row:
    """A row of Label Studio's JSON or doccano's JSONL as an example, empty where nobody labelled it; another as it is.

    Both count in code points, Label Studio since 2022 (pull request 308 of its frontend); it also says what a span
    reads.
    """
    if isinstance(data := row.get("data"), Mapping):
        text = data.get("text") or next(one for one in data.values() if isinstance(one, str))
        made = [one["result"] for one in row.get("annotations") or () if not one.get("was_cancelled")]
        said = [one.get("value", {}) for one in (made[0] if made else ())]
        names = [name for one in said for name in one.get("choices") or map("/".join, one.get("taxonomy", ()))]
        spans = [(one["start"], one["end"], one["labels"][0], one.get("text")) for one in said if "labels" in one]
    elif "intent" not in row and any(isinstance(row.get(key), list) for key in ("cats", "label", "labels")):
        text = row["text"] if "text" in row else row["data"]
        held = [one for key in ("cats", "label", "labels", "entities") for one in row.get(key) or ()]
        names = [one for one in held if isinstance(one, str)]
        spans = [(*one, None) for one in held if isinstance(one, list)]
        spans += [(one["start_offset"], one["end_offset"], one["label"], None) for one in held if isinstance(one, dict)]
    else:
        return dict(row)
    if len(names) > 1:
        raise InvalidInput(f"it has {len(names)} labels, an example has one intent: {', '.join(names)}")
    for start, end, name, reads in spans:
        if reads not in (None, text[start:end]):
            raise InvalidInput(f"what is marked as {name} reads {text[start:end]!r} here and {reads!r} there")
    entities = [{"start": start, "end": end, "entity": name} for start, end, name, _ in spans]
    told = {"text": text, "entities": entities} if names or spans else {}
    return told | ({"intent": names[0]} if names else {})


def write_labels(store: Store, path: Path, kind: str = "rows", *, replace: bool = False) -> int:
    """Write all labels with their texts, in a file that `read_examples` takes back; how many.

    `kind` : ``rows``, JSON lines (a CSV by its ending) with who said what, and what became of it; or only intents and
    spans, as ``label-studio`` or ``doccano`` take them.
    """
    if kind not in ("rows", "label-studio", "doccano"):
        raise InvalidInput(f"Labels are written as rows, label-studio or doccano, got {kind!r}.")
    rows: list[Row] = [{name: row[name] for name in _WRITTEN} for row in records(store, _LABELLED) if row["text"]]
    rows = [row for row in rows if row["intent"] or (row["note"] and kind == "rows")]
    with placed(path, replace=replace) as temporary:
        if kind == "label-studio":
            tasks = [{"data": {"text": row["text"]}, "annotations": [{"result": [*_regions(row)]}]} for row in rows]
            temporary.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
        elif path.suffix == ".csv":
            cells = [row | {"entities": row["entities"] and json.dumps(row["entities"])} for row in rows]
            pd.DataFrame(cells, columns=_WRITTEN).fillna("").astype(str).map(safe_cell).to_csv(temporary, index=False)
        else:
            told = rows if kind == "rows" else map(_of_doccano, rows)
            lines = (json.dumps(row, ensure_ascii=False) for row in told)
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return len(rows)


def _of_doccano(row: Row) -> Row:
    spans = [[one["start"], one["end"], one["entity"]] for one in row["entities"] or ()]
    return {"text": row["text"], "cats": [row["intent"]], "entities": spans}


def _regions(row: Row) -> Iterator[Row]:
    """What Label Studio keeps of a choice and of marked spans."""
    chosen = {"choices": [row["intent"]]}
    yield {"from_name": "intent", "to_name": "text", "type": "choices", "value": chosen}
    for one in row["entities"] or ():
        start, end = one["start"], one["end"]
        span = {"start": start, "end": end, "text": row["text"][start:end], "labels": [one["entity"]]}
        yield {"from_name": "entities", "to_name": "text", "type": "labels", "value": span}


# Remarks


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


# What people did


def people(store: Store, *, seed: int = 0) -> Row:
    """The report ``people``: who annotated how much, how fast and how well, and how far people agree.

    ``people``: ``annotations``, ``days`` on which there were any (UTC), ``a_day``, ``seconds`` (median of an
    annotation) and the share ``approved`` of those decided; None where none was timed or decided. ``rejections`` with
    their reasons; ``agreement`` on texts that several labelled (`named_alike`), and where they did not agree.
    ``stages``: how far labels have come, in use as soon as a model is seen that came after their export; ``log``: what
    people did last, newest first.
    """
    made = [
        row | {"label": row["intent"] or row["note"]}
        for row in records(store, _LABELLED)
        if row["intent"] or row["note"]
    ]
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
        "rejections": [{name: row[name] for name in _REJECTED} for row in made if row["status"] == "rejected"][
            -_LISTED:
        ],
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
