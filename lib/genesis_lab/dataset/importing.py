"""Anyone's data as a dataset: fields are matched and typed, broken records are named, nothing is mended in silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genesis_lab.dataset.folder import Dataset, is_dataset, open_dataset
from genesis_lab.dataset.schema import fitted, schema_of
from genesis_lab.dataset.sources import HUB, Row, locate, read_rows, source_name
from genesis_lab.dataset.writing import DatasetWriter
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path
from genesis_lab.texts import normal

LISTED = 10_000
"""Most problems of one kind that are listed; all are counted."""
_REASONS = 5  # most problems named of one record


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row of the source. `row` counts from 1; `record_id` is None where there is none."""

    row: int
    record_id: str | None
    reason: str


@dataclass
class ImportReport:
    """What came of an import.

    `problems` are the first ones in order, `problem_counts` counts all of them by kind. `absent_fields` no record had.
    `notes` say what was done to all records alike: fields matched, categories derived, columns not used.
    """

    read: int = 0
    kept: int = 0
    problems: tuple[Problem, ...] = ()
    problem_counts: dict[str, int] = field(default_factory=dict)
    absent_fields: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def said(self) -> list[str]:
        """A line for each kind of problem, by the first record that has it."""
        first = {_kind(problem.reason): problem for problem in reversed(self.problems)}
        lines = []
        for kind, n in self.problem_counts.items():
            found, more = first[kind], f" (and {n - 1:,} more like it)" if n > 1 else ""
            lines.append(f"row {found.row}{f' ({found.record_id})' if found.record_id else ''}: {found.reason}{more}")
        return lines

    def __str__(self) -> str:
        found = sum(self.problem_counts.values())
        return f"{self.kept:,} of {self.read:,} records kept, {found:,} {'problem' if found == 1 else 'problems'}"


def import_dataset(
    source: str | Path,
    target: str | Path,
    *,
    domain: str = "conversations",
    field_map: Mapping[str, str] | None = None,
    taxonomy: Any = None,
    language: str | None = None,
    replace: bool = False,
) -> tuple[Dataset, ImportReport]:
    """Import a file, a folder or a hub dataset into the dataset `target`.

    A record is kept if anything of it can be read; what is missing is null, what is wrong stays as it is and is named.
    What else a record may look like is the domain's to say (`Domain.reader`): labelled sentences become conversations.

    Parameters
    ----------
    source : .json, .jsonl, .csv, .parquet, a dataset folder, or ``hf:owner/name[:split]``.
    field_map : our field to theirs, ``{"intent": "meta.label", "turns": "messages", "turns.text": "content"}``.
    taxonomy : the labels that records shall have, by name or file; None: the domain's own, but others are welcome too.
    language : the language of records that don't say.
    """
    import_, target = _Import(domain, normal(dict(field_map or {})), taxonomy, language), dataset_path(target)
    name, reader = source_name(source), import_.reader
    manifest: dict[str, Any] = {}
    with DatasetWriter(target, domain, manifest, replace=replace) as writer:
        for split, record in import_.records(reader.gathered(read_rows(source, reader))):
            writer.write([record], split)
        if origin := import_.origin(source, target):
            manifest["config"] = origin.manifest["config"]
            manifest["parent"] = {"name": origin.name, "content_hash": origin.content_hash}
        report = import_.report(name, origin)
        about = {"source": name, "field_map": reader.field_map, "language": language, **reader.about}
        manifest["import"] = about | {key: value for key, value in report.to_dict().items() if key != "problems"}
    return open_dataset(target), report


class _Import:
    """Turns rows into records, and keeps account of what was wrong."""

    def __init__(self, domain: str, field_map: dict[str, str], taxonomy: Any, language: str | None) -> None:
        self.domain, self.language, self.schema = get_domain(domain), language, schema_of(domain)
        self.facets, self.reader = self.domain.facets, self.domain.reader(field_map, taxonomy)
        known = {*self.schema.names, *self.reader.extra_fields}
        if unknown := [name for name in field_map if name not in known]:
            wrong = f"field_map: there is no field {unknown[0]!r} in {domain}"
            raise InvalidInput(f"{wrong}: expected {', '.join(sorted(known))}.")
        self.field_map = field_map
        self.read = self.kept = 0
        self.problems, self.counts = list[Problem](), Counter[str]()
        self.columns: dict[str, None] = {}
        self.row_of: dict[int, int] = {}  # hash of an id, or of a record without one, to the first row that has it

    def records(self, rows: Iterator[Row]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Split and record of each row of which anything can be read."""
        for row in rows:
            self.read += 1
            raw = normal(row.value or {})
            if len(self.columns) < 200:
                self.columns |= dict.fromkeys(map(str, raw))
            values, reasons = self.reader.read(raw)
            record = {each.name: fitted(values[each.name], each.type, each.name, reasons) for each in self.schema}
            if all(value is None for value in record.values()):
                self._name(row.number, None, [row.problem or "no field that is known"])
                continue
            reasons += self.reader.derive(record)
            if self.language and self.facets.language and record[self.facets.language] is None:
                record[self.facets.language] = self.language
                self.reader.done[f"records that did not say their language got {self.language!r}"] += 1
            record_id = record[self.facets.id]
            first = self.row_of.setdefault(hash(record_id or str(record)), row.number)
            if first != row.number:
                reasons.append(f"{self.facets.id if record_id else 'record'}: the same as in row {first}")
            reasons += self._invalid(record, {reason.split(":")[0] for reason in reasons})
            lacking = [name for name, value in record.items() if value is None and name != "provenance"]
            self._name(row.number, record_id, reasons[:_REASONS] + [f"{name}: missing" for name in lacking])
            self.kept += 1
            yield row.split, record

    def origin(self, source: str | Path, target: Path) -> Dataset | None:
        """The planned dataset that half or more of the records come from, by their ids, which are made from content.

        Looked for in this workbench and beside source and target: an edited copy keeps its plan by it.
        """
        places = [dataset_path("any").parent, target.parent]
        if not str(source).startswith(HUB):
            places += [locate(source).parent, locate(source)]
        best, most = None, max(1.0, self.kept / 2)
        for folder in sorted({each for place in places if place.is_dir() for each in (place, *place.iterdir())}):
            with suppress(InvalidInput):  # no dataset, or a damaged one
                known = open_dataset(folder) if is_dataset(folder) else None
                if known and known.domain == self.domain.name and known.manifest.get("config"):
                    ids = known.frame(columns=[self.facets.id])[self.facets.id]
                    held = sum(hash(i) in self.row_of for i in ids)
                    if held >= most and (best is None or held > most):
                        best, most = known, held
        return best

    def report(self, source: str, origin: Dataset | None) -> ImportReport:
        """The account of what was read; `InvalidInput` where there was nothing to keep."""
        found = ", ".join(sorted(self.columns)[:30]) or "none"
        if not self.read:
            raise InvalidInput(f"{source} holds no records.")
        if not self.kept:
            why = f"(row {self.problems[0].row}: {self.problems[0].reason})"
            none = f"None of the {self.read:,} rows of {source} can be read {why}"
            raise InvalidInput(f"{none}; its columns are {found}: say which is which with field_map.")
        absent = [name for name in self.schema.names if self.counts[f"{name}: missing"] == self.kept]
        for name in absent:
            if theirs := self.field_map.get(name):
                raise InvalidInput(f"field_map: no record has {theirs!r} for {name!r}; the columns are {found}.")
            if name in self.reader.essential:
                ways = dict.fromkeys([name, *self.reader.extra_fields[-1:]])
                label = f', "{self.facets.label}": "another"' if self.facets.label else ""
                how = f'say which is which with field_map, for example {{"{[*ways][-1]}": "their column"{label}}}'
                raise InvalidInput(f"No record of {source} has {' or a '.join(ways)}; its columns are {found}: {how}.")
        everywhere = {f"{name}: missing" for name in absent}
        counts = {kind: n for kind, n in self.counts.most_common() if kind not in everywhere}
        problems = [problem for problem in self.problems if problem.reason not in everywhere][:LISTED]
        notes = [*self.reader.notes()]
        if origin:
            notes.append(f"records of {origin.name} by their ids: its plan is kept")
        if unused := sorted(self.columns.keys() - self.reader.used - {*self.schema.names}):
            notes.append(f"columns not used: {', '.join(unused[:30])}")
        return ImportReport(self.read, self.kept, tuple(problems), counts, tuple(absent), tuple(notes))

    def _invalid(self, record: Mapping[str, Any], named: set[str]) -> Iterator[str]:
        """What the domain's model says against the values that are there and that nothing was said about yet."""
        try:
            self.domain.record_type.model_validate(record)
        except ValidationError as error:
            for fault in error.errors(include_url=False, include_context=False):
                where = ".".join(str(part + 1) if isinstance(part, int) else part for part in fault["loc"])
                name = where.split(".")[0]
                said = record.get(name) is None or name == "provenance" or {name, where} & named
                if not said and not self.reader.welcome(name, record[name]):
                    yield f"{where}: {fault['msg'].removeprefix('Value error, ')}, got {str(fault['input'])[:60]!r}"

    def _name(self, row: int, record_id: str | None, reasons: list[str]) -> None:
        for reason in reasons:
            self.counts[kind := _kind(reason)] += 1
            if self.counts[kind] <= LISTED:
                self.problems.append(Problem(row, record_id, reason))


def _kind(reason: str) -> str:
    """What is wrong without its particulars."""
    return re.sub(r"(?<!\w)\d+", "#", reason.split(", got ")[0])
