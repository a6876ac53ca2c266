"""What people decide about records, kept beside the data and applied as a new version; and the shelf of datasets."""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from genesis_lab.dataset.folder import DECISIONS, MANIFEST, Dataset, is_dataset, open_dataset, write_report
from genesis_lab.dataset.sources import read_rows
from genesis_lab.dataset.writing import DatasetWriter
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Domain
from genesis_lab.errors import InvalidInput, instead, sentence
from genesis_lab.files import check_free, dataset_path, output_root, shown, write_atomically, write_error
from genesis_lab.settings import get_settings
from genesis_lab.texts import normal

Decision = dict[str, Any]
"""One line: ``row``, ``record`` (its id), ``action``, ``value``, ``why``, ``by``, ``at``, ``content_hash``."""
ACTIONS = ("keep", "drop", "fix", "relabel", "note", "undo")


def decide(dataset: Dataset, row: int, action: str, value: Any = None, *, why: str = "", by: str = "") -> Decision:
    """Keep what a person decided about the record at place `row`; returns all that stands for it then, see `standing`.

    `value` is of fix the new texts by name (`texts_of`), of relabel the label, of note the note.
    """
    line = {"row": row, "action": action, "value": value, "why": why, "by": by or who()}
    keep_decisions(dataset, [line | {"at": datetime.now(UTC).isoformat(timespec="seconds")}])
    return standing(dataset).get(row, {})


def take(dataset: Dataset, path: Path) -> int:
    """Keep the decisions in a file from the HTML page, all or, where one makes no sense, none; how many are new."""
    names = ("row", "record", "action", "value", "why", "by", "at")
    known = [{name: line.get(name) for name in names} for line in decisions(dataset)]
    lines = ({name: (line.value or {}).get(name) for name in names} for line in read_rows(path))
    new = [one for one in lines if one not in known]
    keep_decisions(dataset, new)
    return len(new)


def keep_decisions(dataset: Dataset, lines: Sequence[Decision]) -> None:
    """Append decisions that were looked at: all, or none."""
    import pyarrow.dataset as arrow

    rows = sorted({row for row in (line["row"] for line in lines) if type(row) is int and 0 <= row < dataset.total})
    held = arrow.dataset([str(part) for part in dataset.parts()]).take(rows).to_pylist() if rows else []
    records, facets = dict(zip(rows, held, strict=True)), get_domain(dataset.domain).facets
    for line in lines:
        record = records.get(line["row"])
        if record is None or line.get("record", record[facets.id]) != record[facets.id]:
            where = f"at row {line['row']!r}: it has {dataset.total:,} rows, from 0"
            raise InvalidInput(f"{dataset.name} has no such record {where}.")
        _check(dataset, record, line["action"], line["value"])
        line |= {"record": record[facets.id], "content_hash": dataset.content_hash}
    path = dataset.path / DECISIONS
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8", "replace")
    try:
        with FileLock(path.with_name(f".{path.name}.lock")), path.open("ab+") as file:
            file.seek(max(0, file.tell() - 1))
            file.write(data if file.read(1) in (b"", b"\n") else b"\n" + data)  # else a kill has torn the last line
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(error, path) from None


def row_of(dataset: Dataset, record: str) -> int:
    """The place of the record with this id."""
    ids = dataset.frame(columns=[get_domain(dataset.domain).facets.id]).iloc[:, 0].astype(str)
    found = ids.index[ids == record]
    if len(found) != 1:
        held = f"{dataset.name} has {len(found)} records of id {record!r}"
        raise InvalidInput(f"{held}: look for it with genesis dataset show --search.")
    return int(found[0])


def decisions(dataset: Dataset) -> list[Decision]:
    """All that was decided about these very records, in order; a line that a kill has torn is left out."""
    found, path = list[Decision](), dataset.path / DECISIONS
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):
            one = json.loads(line)
            if one["content_hash"] == dataset.content_hash and one["action"] in ACTIONS and one["row"] >= 0:
                found.append(one)
    return found


def standing(dataset: Dataset) -> dict[int, Decision]:
    """Row to what stands for it: ``verdict`` (keep, drop), ``label``, ``parts`` (texts), ``notes``, ``marks``."""
    found: dict[int, Decision] = {}
    for line in decisions(dataset):
        action, row, value = line["action"], line["row"], line.get("value")
        one = found.setdefault(row, {"verdict": None, "label": None, "parts": {}, "notes": [], "why": ""})
        if action == "undo":
            del found[row]
        elif action in ("keep", "drop"):
            one |= {"verdict": action, "why": line.get("why", "")}
        elif action == "relabel":
            one["label"] = value
        elif action == "fix":
            one["parts"] |= value
        else:
            one["notes"].append(value)
    for one in found.values():
        kinds = {"fix": one["parts"], "relabel": one["label"], "note": one["notes"]}
        one["marks"] = ", ".join([*filter(None, [one["verdict"]]), *(name for name, there in kinds.items() if there)])
    return found


def apply(
    dataset: Dataset, target: str | Path | None = None, *, add: Sequence[Dataset] = (), replace: bool = False
) -> Dataset:
    """The decisions carried out as a new dataset (default: ``<name>_v2``, ``_v3`` …); the original stays as it is.

    The manifest says from which content it was made, and how many records were changed; ``reports/curation.json``
    which, by whom, when and why. Records of `add` (such as those that were asked for again) come at the end of their
    split.
    """
    stands = standing(dataset)
    changing = [one for one in stands.values() if one["verdict"] == "drop" or one["label"] or one["parts"]]
    wrong = ""
    if not changing and not add:
        marked = f"{len(stands)} records are marked, but none is to be dropped, fixed or relabelled"
        wrong = f"there is nothing to apply: {marked if stands else 'nothing has been decided'}"
    elif strange := [one.name for one in add if one.domain != dataset.domain]:
        wrong = f"{strange[0]} holds no {dataset.domain}, so it can't be added"
    elif sum(one["verdict"] == "drop" for one in changing) == dataset.total and not add:
        wrong = "every record is to be dropped: nothing would be left"
    if wrong:
        raise InvalidInput(f"Of {dataset.name} no new version is made, {wrong}.")
    stem = re.sub(r"_v\d+$", "", dataset.name)
    later = (place for n in count(2) if not os.path.lexists(place := dataset.path.with_name(f"{stem}_v{n}")))
    if (place := dataset_path(target) if target else next(later)).resolve() == dataset.path.resolve():
        raise InvalidInput(f"{dataset.name} is kept as it is: give the new version another name.")
    facets = get_domain(dataset.domain).facets
    follows = _follows(dataset, {one["label"] for one in stands.values()} - {None})
    counts, ids = dict.fromkeys(("dropped", "relabelled", "fixed", "added", "kept"), 0), set[Any]()
    rows = count()
    manifest, old = dict(dataset.manifest), dataset.content_hash
    if made := manifest.get("generation"):  # so that it is not taken for what that run made
        manifest["generation"] = made | {"curated": old}
    origin = {"dataset": dataset.name, "content_hash": old, "curation": manifest.get("curation")}
    manifest["curation"] = {"from": origin, "added": {one.name: one.content_hash for one in add}}

    def curated(split: str) -> Iterator[dict[str, Any]]:
        for record in dataset.records(split) if split in dataset.counts else ():
            one = stands.get(next(rows), {})
            if one.get("verdict") == "drop":
                counts["dropped"] += 1
                continue
            if one.get("label") and facets.label and record[facets.label] != one["label"]:
                counts["relabelled"] += 1
                record |= {facets.label: one["label"], **follows[one["label"]]}
            if one.get("parts"):
                counts["fixed"] += 1
                record = changed(record, one["parts"])
            counts["kept"] += one.get("verdict") == "keep"
            ids.add(record[facets.id])
            yield record
        for record in (record for one in add if split in one.counts for record in one.records(split)):
            if record[facets.id] is None or record[facets.id] not in ids:
                ids.add(record[facets.id])
                counts["added"] += 1
                yield record

    with DatasetWriter(place, dataset.domain, manifest, replace=replace) as writer:
        for split in dict.fromkeys(split for one in (dataset, *add) for split in one.counts):
            writer.write(curated(split), split)
        manifest["curation"]["changed"] = counts
    new = open_dataset(place)
    write_report(new, "curation", manifest["curation"] | {"decisions": decisions(dataset)})
    return new


def texts_of(dataset: Dataset, record: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a record that are written freely, by where they stand (``turns.1.text``): what may be fixed."""
    free = {name: record.get(name) for name in written_freely(dataset.domain)}
    return dict(_texts(get_domain(dataset.domain).record_type, free, ""))


@cache
def written_freely(domain: str) -> list[str]:
    """The columns that hold texts: no ids, planned attributes, or closed sets of words."""
    facets, fields = get_domain(domain).facets, get_domain(domain).record_type.model_fields
    held = {facets.id, facets.label, facets.group, facets.language, *facets.attributes, "provenance"}
    texts = {name for name, field in fields.items() if any(k is str or _is_model(k) for k in _kinds(field.annotation))}
    return [name for name in fields if name in texts - held]


def changed(record: Mapping[str, Any], parts: Mapping[str, str]) -> dict[str, Any]:
    """The record with other texts at these places."""
    made: dict[str, Any] = deepcopy(dict(record))
    for path, text in parts.items():
        *way, last = path.split(".")
        inner: Any = made
        for step in way:
            inner = inner[int(step) if isinstance(inner, list) else step]
        inner[last] = normal(text)
    return made


# the shelf


def listed() -> list[dict[str, Any]]:
    """The datasets under the output root, the newest first, as far as manifests can be read; and unfinished runs."""
    found = list[dict[str, Any]]()
    for folder in sorted((output_root() / "datasets").glob("[!.]*")):
        one: dict[str, Any] = {"name": folder.name.removesuffix(".run"), "unfinished": True}
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # no dataset
            if folder.name == one["name"]:
                manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
                one = {"name": folder.name, "records": sum(map(int, manifest["counts"].values())), "manifest": manifest}
            found.append(one | {"when": (folder / MANIFEST if "manifest" in one else folder).stat().st_mtime})
    return sorted(found, key=lambda one: -one["when"])


def put_away(name: str | Path, new: str | Path | None = None) -> str:
    """Give a dataset the name `new`, or put it where `undo` finds it; returns where it is."""
    source, shelf = dataset_path(name), output_root() / "datasets" / ".removed"
    if not is_dataset(source):
        raise InvalidInput(f"{shown(open_dataset(source).path)} holds other things besides a dataset: move it by hand.")
    number = 1 + max((int(one.stem) for one in shelf.glob("*.json")), default=0)
    target = dataset_path(new) if new else shelf / f"{number:05d}-{source.name}"
    _move(source, target)
    write_atomically(shelf / f"{number:05d}.json", json.dumps({"was": str(source), "lies": str(target)}))
    return shown(target)


def undo() -> str:
    """Take back the last `put_away` that can be, and say what is there again."""
    for note in sorted((output_root() / "datasets" / ".removed").glob("*.json"), reverse=True):
        lies, was = (Path(json.loads(note.read_text(encoding="utf-8"))[name]) for name in ("lies", "was"))
        if lies.is_dir():
            _move(lies, was)
        note.unlink()
        if was.is_dir():
            return f"{shown(was)} is there again"
    raise InvalidInput("There is nothing to take back: no dataset was deleted or renamed here.")


def _move(source: Path, target: Path) -> None:
    check_free(target, replace=False, ours=is_dataset)
    try:
        with FileLock(lock := source.with_name(f".{source.name}.lock"), timeout=0):
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
            lock.unlink(missing_ok=True)
    except Timeout:
        raise InvalidInput(f"Another process is writing {shown(source)}: wait for it.") from None
    except OSError as error:
        raise write_error(error, target) from None


def _check(dataset: Dataset, record: Mapping[str, Any], action: str, value: Any) -> None:
    """`InvalidInput` where an action makes no sense for this record."""
    domain, wrong = get_domain(dataset.domain), ""
    said = isinstance(value, str) and value.strip()
    if action not in ACTIONS:
        wrong = f"Unknown action {action!r}: there is {', '.join(ACTIONS)}."
    elif action == "relabel" and domain.facets.label is None:
        wrong = f"{domain.facets.unit.capitalize()} of {domain.name} have no label."
    elif action in ("relabel", "note") and not said:
        wrong = "The note is empty." if action == "note" else "A label is missing: say which one is right."
    elif action == "relabel" and recorded_domain(dataset.manifest) and value not in (known := labels(dataset)):
        wrong = f"There is no label {value!r} here: {instead(value, known)}"
    elif action == "fix":
        free, texts = texts_of(dataset, record), value if isinstance(value, Mapping) else {}
        written = texts and all(isinstance(text, str) and text.strip() for text in texts.values())
        if not written or texts.keys() - free.keys():
            wrong = f"A fix gives new words to one of {', '.join(free) or 'no text'}."
        elif not _fault(domain, record):  # else it is foreign, and was not whole before
            wrong = _fault(domain, changed(record, texts))
    if wrong:
        raise InvalidInput(wrong)


def _fault(domain: Domain, record: Mapping[str, Any]) -> str:
    """What the domain's model says against a record."""
    try:
        domain.record_type.model_validate(record)
    except ValidationError as error:
        return sentence(error)
    return ""


def labels(dataset: Dataset) -> list[str]:
    """The labels that its records have, or were planned to have."""
    label = get_domain(dataset.domain).facets.label
    if label is None:
        return []
    rows = dataset.sql(f"SELECT DISTINCT {label} AS label FROM data WHERE {label} IS NOT NULL")
    planned = recorded_domain(dataset.manifest)
    shares = {target.name: target.shares for target in planned.targets()} if planned else {}
    return sorted({*map(str, rows["label"]), *shares.get(label, ())})


def _follows(dataset: Dataset, wanted: set[str]) -> dict[str, dict[str, Any]]:
    """Label to the columns that follow from it, as other records or the plan have them; None where neither does."""
    facets, planned = get_domain(dataset.domain).facets, recorded_domain(dataset.manifest)
    names = [name for name, base in facets.derived.items() if base == facets.label]
    if not wanted:
        return {}
    specs = planned.specs(max(1_000, 10 * len(labels(dataset))), 0) if planned else ()
    rows = dataset.sql(f"SELECT DISTINCT {', '.join([str(facets.label), *names])} FROM data").to_dict("records")
    told = {row[facets.label]: {name: row[name] for name in names} for row in [*(s.attributes for s in specs), *rows]}
    return {label: told.get(label, dict.fromkeys(names)) for label in wanted}


def _texts(model: type[BaseModel], value: Mapping[str, Any], path: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        given, at = value.get(name), f"{path}{name}"
        inner = next(filter(_is_model, _kinds(field.annotation)), None)
        if inner is not None and given is not None:
            for i, one in enumerate(given) if isinstance(given, list) else [(None, given)]:
                yield from _texts(inner, one, f"{at}." if i is None else f"{at}.{i}.")
        elif isinstance(given, str) and str in _kinds(field.annotation):
            yield at, given


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types in an annotation; a closed set of words is none."""
    if get_origin(annotation) is not Literal:
        inner = get_args(annotation)
        yield from (kind for part in inner for kind in _kinds(part)) if inner else (annotation,)


def who() -> str:
    """Who sits here: ``GENESIS_REVIEW_NAME``, else the login."""
    with suppress(OSError, KeyError):
        return get_settings().review_name or getpass.getuser()
    return "unknown"
