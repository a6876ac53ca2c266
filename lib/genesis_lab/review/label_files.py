"""Labels in files: tables, JSON lines, Rasa's own YAML, and what Label Studio and doccano export and take."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from genesis_lab.dataset.columns import safe_cell
from genesis_lab.dataset.sources import read_rows
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, shown
from genesis_lab.review.labelling import all_labels
from genesis_lab.review.nlu import sound
from genesis_lab.review.nlu_file import Row
from genesis_lab.review.store import Store

_KEPT = ("message", "text", "intent", "entities", "note", "status", "reason", "author", "decided_by")


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
    rows: list[Row] = [{name: row[name] for name in _KEPT} for row in all_labels(store) if row["text"]]
    rows = [row for row in rows if row["intent"] or (row["note"] and kind == "rows")]
    with placed(path, replace=replace) as temporary:
        if kind == "label-studio":
            tasks = [{"data": {"text": row["text"]}, "annotations": [{"result": [*_regions(row)]}]} for row in rows]
            temporary.write_text(json.dumps(tasks, ensure_ascii=False), encoding="utf-8")
        elif path.suffix == ".csv":
            cells = [row | {"entities": row["entities"] and json.dumps(row["entities"])} for row in rows]
            pd.DataFrame(cells, columns=_KEPT).fillna("").astype(str).map(safe_cell).to_csv(temporary, index=False)
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
