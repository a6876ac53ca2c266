"""Anyone's data as a dataset: fields are matched and typed, broken records are named, nothing is mended in silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ValidationError

from genesis_lab.dataset.fields import fitted, lookup
from genesis_lab.dataset.folder import Dataset, is_dataset, open_dataset
from genesis_lab.dataset.foreign_chats import ChatReader
from genesis_lab.dataset.schema import arrow_schema, record_type
from genesis_lab.dataset.sources import HUB, Row, locate, read_rows, source_name
from genesis_lab.dataset.writing import DatasetWriter
from genesis_lab.domains import get_domain
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path
from genesis_lab.texts import normal

LISTED = 10_000
"""Most problems that are listed; all are counted."""
_REASONS = 5
"""Most problems named of one record."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row of the source. `row` counts from 1; `record_id` is None where there is none."""

    row: int
    record_id: str | None
    reason: str


@dataclass(frozen=True)
class ImportReport:
    """What came of an import.

    `problems` are the first ones in order, `problem_counts` counts all of them by kind. `absent_fields` no record had.
    `notes` say what was done to all records alike: fields matched, categories derived, columns not used.
    """

    read: int
    kept: int
    problems: tuple[Problem, ...]
    problem_counts: dict[str, int]
    absent_fields: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        found = sum(self.problem_counts.values())
        return f"{self.kept:,} of {self.read:,} records kept, {found:,} {'problem' if found == 1 else 'problems'}"


def import_dataset(
    source: str | Path,
    target: str | Path,
    *,
    domain: str = "conversations",
    field_map: Mapping[str, str] | None = None,
    taxonomy: Taxonomy | str | Path | None = None,
    language: str | None = None,
    replace: bool = False,
) -> tuple[Dataset, ImportReport]:
    """Import a file, a folder or a hub dataset into the dataset `target`.

    A record is kept if anything of it can be read; what is missing is null, what is wrong stays as it is and is named.
    For conversations, labelled sentences (``text``, ``label``) become conversations of one turn, and ``turn_count``
    and ``category`` are derived where they are missing.

    Parameters
    ----------
    source : .json (a list, or an object holding one), .jsonl, .csv, .parquet, a dataset folder, or
        ``hf:owner/name[:split]``.
    target : name or folder of the new dataset.
    field_map : our field to theirs, ``{"intent": "meta.label", "turns": "messages", "turns.text": "content"}``.
    taxonomy : for conversations: the taxonomy that intents shall be of; None: Banking77, but others are welcome too.
    language : the language of records that don't say.

    Raises
    ------
    InvalidInput : the source can't be read, or nothing in it looks like a record of the domain.
    """
    schema = arrow_schema(record_type(domain))
    reader = _Reader(schema, record_type(domain), normal(dict(field_map or {})), language)
    reader.aliases = get_domain(domain).facets.aliases
    if domain == "conversations":
        reader.chats = ChatReader(reader.field_map, taxonomy)
    known = {*schema.names, *(reader.chats.extra_fields if reader.chats else ())}
    unknown = [name for name in reader.field_map if name not in known]
    if unknown:
        raise InvalidInput(
            f"field_map: there is no field {unknown[0]!r} in {domain}: expected {', '.join(sorted(known))}."
        )
    details: dict[str, Any] = {
        "source": source_name(source),
        "field_map": reader.field_map,
        "language": language,
        "taxonomy": reader.chats.taxonomy.name if reader.chats else None,
    }
    target = dataset_path(target)
    manifest: dict[str, Any] = {"import": details}
    with DatasetWriter(target, domain, manifest, replace=replace) as writer:
        for split, record in reader.records(read_rows(source)):
            writer.write([record], split)
        origin = _origin(reader, domain, source, target)
        if origin:
            manifest["config"] = origin.manifest["config"]
            manifest["parent"] = {"name": origin.name, "content_hash": origin.content_hash}
            reader.origin = origin.name
        report = reader.report(source_name(source))
        details |= {key: value for key, value in report.to_dict().items() if key != "problems"}
    return open_dataset(target), report


def _origin(reader: _Reader, domain: str, source: str | Path, target: Path) -> Dataset | None:
    """The planned dataset that half or more of the records come from, by their ids, which are made from content.

    Looked for among the datasets of this workbench and beside source and target. An edited copy keeps its plan by it.
    """
    ids = reader.first_row_of_id
    places = [dataset_path("any").parent, target.parent]
    if not str(source).startswith(HUB):
        places += [locate(source).parent, locate(source)]
    best, most = None, max(1, reader.kept / 2)
    for folder in sorted({each for place in places for each in (place, *_folders(place)) if is_dataset(each)}):
        try:
            known = open_dataset(folder)
        except InvalidInput:
            continue
        if known.domain != domain or not known.manifest.get("config") or not reader.id_name:
            continue
        held = sum(hash(i) in ids for batch in known.batches(columns=[reader.id_name]) for i in batch[0].to_pylist())
        if held >= most and (best is None or held > most):
            best, most = known, held
    return best


def _folders(place: Path) -> list[Path]:
    return [each for each in place.iterdir() if each.is_dir()] if place.is_dir() else []


@dataclass
class _Reader:
    """Turns rows into records, and keeps account of what was wrong."""

    schema: pa.Schema
    model: type[BaseModel]
    field_map: dict[str, str]
    language: str | None
    chats: ChatReader | None = None
    aliases: Mapping[str, str] = field(default_factory=dict)
    read: int = 0
    kept: int = 0
    problems: list[Problem] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    missing_rows: dict[str, list[Problem]] = field(default_factory=dict)
    columns: Counter[str] = field(default_factory=Counter)
    first_row_of_id: dict[int, int] = field(default_factory=dict)
    languages_set: int = 0
    origin: str = ""

    def __post_init__(self) -> None:
        self.id_name = next((name for name in self.schema.names if name.endswith("_id")), None)
        self.taken = set(self.field_map.values())

    def records(self, rows: Iterator[Row]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            self.read += 1
            if row.value is None:
                self._name(row.number, None, [row.problem or "can't be read"])
                continue
            value = normal(row.value)
            if len(self.columns) < 200:
                self.columns.update(map(str, value))
            record, reasons = self._record(value)
            if all(value is None for value in record.values()):
                self._name(row.number, None, ["no field that is known"])
                continue
            if self.chats:
                reasons += self.chats.derive(record)
            if self.language and "language" in record and record["language"] is None:
                record["language"] = self.language
                self.languages_set += 1
            record_id = record[self.id_name] if self.id_name else None
            reasons += self._duplicate(record_id, row.number) + self._invalid(record, reasons)
            self._name(row.number, record_id, reasons)
            for name, value in record.items():
                if value is None and name != "provenance":
                    self.missing[name] += 1
                    if self.missing[name] <= LISTED:
                        self.missing_rows.setdefault(name, []).append(
                            Problem(row.number, record_id, f"{name}: missing")
                        )
            self.kept += 1
            yield row.split, record

    def report(self, source: str) -> ImportReport:
        """The account of what was read.

        Raises
        ------
        InvalidInput : there was nothing to keep.
        """
        found = ", ".join(sorted(self.columns)[:30]) or "none"
        if not self.read:
            raise InvalidInput(f"{source} holds no records.")
        if not self.kept:
            why = self.problems[0].reason if self.problems else "nothing is known"
            raise InvalidInput(
                f"None of the {self.read:,} rows of {source} can be read (row {self.problems[0].row}: {why}); "
                f"its columns are {found}: say which is which with field_map."
            )
        absent = tuple(name for name in self.schema.names if self.missing[name] == self.kept)
        unmatched = [name for name in self.field_map if name in absent]
        if unmatched:
            theirs = self.field_map[unmatched[0]]
            raise InvalidInput(f"field_map: no record has {theirs!r} for {unmatched[0]!r}; the columns are {found}.")
        if self.chats and "turns" in absent:
            raise InvalidInput(
                f"No record of {source} has turns or a text; its columns are {found}: "
                'say which is which with field_map, for example {"text": "their column", "intent": "another"}.'
            )
        for name, rows in self.missing_rows.items():
            if name not in absent:
                self.problems += rows
                self.counts[f"{name}: missing"] = self.missing[name]
        self.problems.sort(key=lambda problem: problem.row)
        return ImportReport(
            read=self.read,
            kept=self.kept,
            problems=tuple(self.problems[:LISTED]),
            problem_counts=dict(self.counts.most_common()),
            absent_fields=tuple(name for name in absent if name != "provenance"),
            notes=tuple(self._notes()),
        )

    def _notes(self) -> Iterator[str]:
        if self.chats:
            yield from self.chats.notes()
        if self.origin:
            yield f"records of {self.origin} by their ids: its plan is kept"
        if self.languages_set:
            yield f"language set to {self.language!r} in {self.languages_set:,} records that did not say"
        used = {
            *self.schema.names,
            *self.aliases.values(),
            *(path.split(".")[0] for path in self.field_map.values()),
            *self.field_map.values(),
        }
        unused = sorted(set(self.columns) - used - (self.chats.used if self.chats else set()))
        if unused:
            yield f"columns not used: {', '.join(unused[:30])}"

    def _record(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        reasons: list[str] = []
        record = {}
        if self.chats:
            raw = self.chats.labelled(raw)
        for column in self.schema:
            if self.chats and column.name == "turns":
                value = self.chats.turns(raw, reasons)
            else:
                path = self.field_map.get(column.name, column.name)
                mapped_elsewhere = column.name not in self.field_map and path in self.taken
                value = None if mapped_elsewhere else lookup(raw, path)
                if value is None and column.name not in self.field_map and column.name in self.aliases:
                    value = lookup(raw, self.aliases[column.name])
            record[column.name] = fitted(value, column.type, column.name, reasons)
        return record, reasons

    def _duplicate(self, record_id: str | None, row: int) -> list[str]:
        if record_id is None:
            return []
        first = self.first_row_of_id.setdefault(hash(record_id), row)
        return [] if first == row else [f"{self.id_name}: the same as in row {first}"]

    def _invalid(self, record: Mapping[str, Any], named: list[str]) -> list[str]:
        """What the domain's model says against the values that are there and that nothing was said about yet."""
        try:
            self.model.model_validate(record)
        except ValidationError as error:
            seen = {reason.split(":")[0] for reason in named}
            reasons = []
            for fault in error.errors(include_url=False, include_context=False):
                name = str(fault["loc"][0]) if fault["loc"] else ""
                where = ".".join(str(part + 1) if isinstance(part, int) else part for part in fault["loc"])
                if (
                    name
                    and name not in seen
                    and where not in seen
                    and record.get(name) is not None
                    and name != "provenance"
                ):
                    message = fault["msg"].removeprefix("Value error, ")
                    reasons.append(f"{where}: {message}, got {str(fault['input'])[:60]!r}")
            return reasons
        return []

    def _name(self, row: int, record_id: str | None, reasons: list[str]) -> None:
        for reason in reasons[:_REASONS]:
            self.counts[_kind(reason)] += 1
            if len(self.problems) < LISTED:
                self.problems.append(Problem(row, record_id, reason))


def _kind(reason: str) -> str:
    """A reason without its particulars, so that reasons can be counted."""
    return re.sub(r"\d+", "#", reason.split(", got ")[0])
