"""Checks as data, counted: DuckDB asks one partition for all of them at once, whatever the domain.

Partitions are merged in the dataset's order, so that row numbers, the first offences and the sample are the same however
the data was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.dataset.schema import arrow_schema
from genesis_lab.domains.base import Check, Domain
from genesis_lab.domains.language import NAMES
from genesis_lab.stats import proportion_interval
from genesis_lab.texts import normal_sql
from genesis_lab.validation.text import first_words, hashed, normalised, signatures

LISTED = 1_000
"""Most offences of one check that are listed by id; all are counted."""
SAMPLE_PER_CELL = 40
UNKNOWN_CELL = 2_000
"""Records sampled of those without a known label and language."""
_BLOCK = 25_000
"""Records flattened at a time: bounds memory whatever the partition's size."""

_HEARD = 40
"""Texts of a record that are read to tell its label, so that one with ten thousand turns can't fill the memory."""

Offences = tuple[tuple[int, str], ...]
"""Row and what is wrong there."""


@dataclass(frozen=True)
class Counted:
    """What is kept of some consecutive records.

    `found` holds for each check how many were looked at, how many failed, and the first failures; `said` counts what is
    wrong with values; `columns` are a few numbers per record (hashes, signatures); `sample` holds, for each cell of label
    and language, the records with the smallest hash of id and text: a random choice that no cut of the data can change.
    """

    n: int
    elements: Counter[str]
    found: dict[str, tuple[int, int, Offences]]
    said: Counter[tuple[str, str]]
    labels: Counter[str]
    unreadable: dict[str, str]
    ids: tuple[pa.StringArray, ...]
    columns: dict[str, tuple[NDArray[Any], ...]]
    sample: pd.DataFrame

    def column(self, name: str) -> NDArray[Any]:
        """One number (or row of numbers) per record."""
        return np.concatenate(self.columns[name])

    def offences(self, rows: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
        """The first of `rows` with the record's id, None where it has none."""
        first = rows[:LISTED]
        ids = pa.chunked_array(self.ids, pa.string()).take(pa.array([row for row, _ in first], pa.int64())).to_pylist()
        return [{"row": row, "record_id": one, "reason": why} for (row, why), one in zip(first, ids, strict=True)]


def merge(a: Counted, b: Counted) -> Counted:
    """What is kept of `a`'s records followed by `b`'s."""
    sample = pd.concat([a.sample, b.sample.assign(row=b.sample["row"] + a.n)], ignore_index=True)
    return Counted(
        a.n + b.n,
        a.elements + b.elements,
        {name: _then(found, b.found[name], a.n) for name, found in a.found.items()},
        a.said + b.said,
        a.labels + b.labels,
        a.unreadable | b.unreadable,
        a.ids + b.ids,
        {name: arrays + b.columns[name] for name, arrays in a.columns.items()},
        _smallest(sample),
    )


def count(
    table: pa.Table, domain: Domain, *, planned: bool = True, sample_per_cell: int = SAMPLE_PER_CELL, seed: int = 0
) -> Counted:
    """What is kept of one partition. Checks of planned values are left out where `domain` isn't what was planned."""
    starts = range(0, max(table.num_rows, 1), _BLOCK)
    return reduce(merge, (_block(table.slice(s, _BLOCK), domain, planned, sample_per_cell, seed) for s in starts))


def flattened(connection: duckdb.DuckDBPyConnection, table: pa.Table, domain: Domain) -> dict[str, str]:
    """`table` as a table ``records`` of texts, and one for each list in it, as `domains.base.Check` describes them.

    Returns
    -------
    Column to what is wrong with it, for those that can't be read.
    """
    columns, problems = ["row"], dict[str, str]()
    schema = arrow_schema(domain.record_type)
    for field in schema:
        column = table.schema.field(field.name).type if field.name in table.column_names else None
        columns.append(f'{_cleaned(field, column, problems)} AS "{field.name}"')
    rows = pa.array(np.arange(table.num_rows))
    kept = table.select([name for name in schema.names if name in table.column_names]).append_column("row", rows)
    connection.register("source", kept)
    connection.execute(f"CREATE TEMP TABLE records AS SELECT {', '.join(columns)} FROM source")
    plain = ", ".join(f'"{field.name}"' for field in schema if not pa.types.is_nested(field.type))
    for field in schema:
        if of_structs(field.type):
            connection.execute(
                f'CREATE TEMP TABLE "{field.name}" AS SELECT row, {plain}, position, element.* FROM (SELECT row, {plain}, '
                f'unnest("{field.name}") AS element, generate_subscripts("{field.name}", 1) AS position FROM records)'
            )
    return problems


def share(
    name: str, checked: int, failed: int, unit: str, meaning: str, empty: str = "", **more: Any
) -> dict[str, Any]:
    """A part whose value is the share of `checked` that did not fail; `empty` is the reason when nothing was."""
    if not checked:
        return part(name, None, 0, unit, meaning, reason=empty)
    value = (checked - failed) / checked
    return part(
        name,
        value,
        checked,
        unit,
        meaning,
        interval=proportion_interval(checked - failed, checked),
        failed=failed,
        **more,
    )


def part(name: str, value: float | None, n: int, unit: str, meaning: str, **more: Any) -> dict[str, Any]:
    """One measurement of a score.

    Parameters
    ----------
    value : in [0, 1], 1 is best; None when it can't be measured, and then `reason` says why.
    n : how many `unit` (records, turns, texts of the sample …) the value rests on.
    meaning : what the value is, with the source of its formula.
    more : `interval` (95 %) where the value is a proportion or an AUC; `failed`, how many of the n are wrong; `offences`, the
        first of them; `detail`, further figures that are shown but not part of the value; `reason`.
    """
    plain = {"name": name, "value": value, "n": n, "unit": unit, "meaning": meaning}
    return plain | {"interval": None, "failed": None, "offences": [], "detail": {}, "reason": None} | more


def parts_of(total: Counted, checks: Sequence[Check], score: str) -> list[dict[str, Any]]:
    """What the checks of one score came to, in their order."""
    found = []
    for name, check in {check.name: check for check in checks if check.score == score}.items():
        checked, failed, first = total.found[name]
        of = total.n if check.over == "records" else total.elements[check.over]
        detail: dict[str, Any] = {"judged": checked, "of": of} if check.unit != "values" and checked < of else {}
        if check.unit == "values":
            detail = {"values": {why: n for (one, why), n in total.said.most_common(100) if one == name}}
        offences = total.offences(first)
        found.append(
            share(name, checked, failed, check.unit, check.meaning, check.empty, offences=offences, detail=detail)
        )
    return found


def _block(table: pa.Table, domain: Domain, planned: bool, per_cell: int, seed: int) -> Counted:
    facets, schema = domain.facets, arrow_schema(domain.record_type)
    checks = [check for check in domain.checks() if planned or not check.planned]
    found: dict[str, tuple[int, int, Offences]] = {check.name: (0, 0, ()) for check in domain.checks()}
    said = Counter[tuple[str, str]]()
    with duckdb.connect(config={"threads": 1}) as connection:
        unreadable = flattened(connection, table, domain)
        elements = Counter({f.name: _rows(connection, f'"{f.name}"') for f in schema if of_structs(f.type)})
        for over in ("records", *elements):
            for check, column, rows in _asked(connection, over, [c for c in checks if c.over == over]):
                wrong = np.flatnonzero(pc.not_equal(column, "").fill_null(False))
                _, places = np.unique(rows[wrong], return_index=True)
                reasons = column.take(pa.array(wrong)).to_pylist()
                first = tuple((int(rows[wrong[p]]), reasons[p]) for p in places[:LISTED].tolist())
                new = len(column) - column.null_count, len(wrong), first
                found[check.name] = _beside(found[check.name], new)
                if check.unit == "values":
                    said.update((check.name, reason) for reason in reasons)
        holds = {f.name: f'len("{f.name}") > 0' if of_structs(f.type) else f'"{f.name}" IS NOT NULL' for f in schema}
        has = connection.sql(f"SELECT {', '.join(holds.values())} FROM records").to_arrow_table()
        for name, column in zip(holds, has.columns, strict=True):
            gone = np.flatnonzero(~column.fill_null(False).to_numpy())
            missing = tuple((row, f"{name} is missing") for row in gone[:LISTED].tolist())
            found[f"has.{name}"] = (table.num_rows, len(gone), missing)
        named = {"id": facets.id, "label": facets.label, "language": facets.language, "text": facets.text}
        asked = ", ".join(f"({sql or 'NULL'})::VARCHAR AS {name}" for name, sql in named.items())
        records = connection.sql(f"SELECT {asked} FROM records").to_arrow_table().combine_chunks()
        frame, numbers = _numbers(records)
        known = frame["language"].isin(NAMES if facets.language else [""])
        if facets.label:
            shares = {target.name: target.shares for target in domain.targets()} if planned else {}
            known &= frame["label"].isin(shares.get(facets.label, ()))
        frame["cell"] = (frame["label"] + "/" + frame["language"]).where(known, "")
        frame["limit"] = np.where(known, per_cell, UNKNOWN_CELL)
        key = (frame["words"] + "|" + frame.pop("id") + f"|{seed}").tolist()
        sample = _smallest(frame.assign(key=hashed(pa.array(key, pa.string())))[frame["words"] != ""])
        connection.register("wanted", sample[["row"]])
        spoken = (
            f"array_to_string(list_transform(({facets.texts or '[]'})[:{_HEARD}], lambda text: left(text, 1000)), ' ')"
        )
        body = f"SELECT row, {spoken if facets.texts else facets.text or 'NULL'} AS body FROM records JOIN wanted USING (row)"
        sample = sample.merge(connection.sql(body).df(), on="row", how="left")
    labels = Counter({e["values"]: e["counts"] for e in records["label"].drop_null().value_counts().to_pylist()})
    ids = (pa.concat_arrays(records["id"].chunks) if len(records) else pa.array([], pa.string()),)
    columns: dict[str, tuple[NDArray[Any], ...]] = {name: (array,) for name, array in numbers.items()}
    return Counted(len(records), elements, found, said, labels, unreadable, ids, columns, sample)


def _asked(
    connection: duckdb.DuckDBPyConnection, over: str, checks: Sequence[Check]
) -> list[tuple[Check, pa.Array, NDArray[np.int64]]]:
    """For each check one text for every record (or element): null where it does not apply, empty where nothing is wrong."""
    if not checks:
        return []
    columns = []
    for i, check in enumerate(checks):
        says = check.says if isinstance(check.says, str) else "'?'"
        columns.append(f"CASE WHEN {check.applies} THEN CASE WHEN {check.fails} THEN {says} ELSE '' END END AS c{i}")
    answer = connection.sql(f'SELECT row, {", ".join(columns)} FROM "{over}"').to_arrow_table()
    rows = answer["row"].to_numpy()
    wanted = (
        connection.sql(f'SELECT * FROM "{over}"').to_arrow_table() if any(callable(c.says) for c in checks) else None
    )
    found = []
    for i, check in enumerate(checks):
        column = answer[f"c{i}"].combine_chunks()
        if callable(check.says) and wanted is not None and (mask := pc.equal(column, "?").fill_null(False)).true_count:
            column = pc.replace_with_mask(column, mask, pa.array(check.says(wanted.filter(mask)), pa.string()))
        found.append((check, column, rows))
    return found


def _numbers(records: pa.Table) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
    """The texts that are sampled from, null as empty, and what is kept of every record."""
    texts = {name: records[name].fill_null("") for name in records.column_names}
    frame = pd.DataFrame({name: pd.Series(texts[name].to_pylist(), dtype=object) for name in texts})
    words = normalised(frame["text"])
    frame = frame.assign(row=np.arange(len(frame)), words=pd.Series(words.to_pylist(), dtype=object))
    label, language = hashed(texts["label"]), hashed(texts["language"])
    labels = np.where(frame["label"] != "", label | np.uint64(1), np.uint64(0))
    return frame, {
        "text": np.where(frame["words"] != "", hashed(words) | np.uint64(1), np.uint64(0)),
        "label": labels,
        "language": language,
        "cell": labels ^ (language >> np.uint64(1)),
        "prefix": first_words(words),
        "signature": signatures(words),
    }


def _smallest(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with the smallest keys of each cell, at most its ``limit``."""
    ordered = frame.sort_values(["cell", "key", "row"], kind="stable", ignore_index=True)
    rank = ordered.groupby("cell", sort=False).cumcount()
    return ordered[rank < ordered["limit"]].reset_index(drop=True)


def _then(a: tuple[int, int, Offences], b: tuple[int, int, Offences], offset: int) -> tuple[int, int, Offences]:
    shifted = tuple((row + offset, why) for row, why in b[2][: LISTED - len(a[2])])
    return a[0] + b[0], a[1] + b[1], a[2] + shifted


def _beside(a: tuple[int, int, Offences], b: tuple[int, int, Offences]) -> tuple[int, int, Offences]:
    """Two checks of one name, of the same records."""
    first = dict(reversed((*a[2], *b[2])))
    return a[0] + b[0], a[1] + b[1], tuple(sorted(first.items())[:LISTED])


def _cleaned(field: pa.Field, column: pa.DataType | None, problems: dict[str, str]) -> str:
    """SQL of a field of the schema, from a column of that type; null where there is none or it can't be read."""
    name = f'"{field.name}"'
    if column is None:
        problems[field.name] = "there is no such column"
    if column is None or pa.types.is_null(column):
        return "NULL::STRUCT(" + _members(field.type) + ")[]" if of_structs(field.type) else "NULL::VARCHAR"
    if of_structs(field.type):
        if not of_structs(column):
            wanted = ", ".join(f.name for f in field.type.value_type)
            problems[field.name] = f"expected a list of {{{wanted}}}, got {column}"
            return f"NULL::STRUCT({_members(field.type)})[]"
        packed = []
        for member in field.type.value_type:
            place = column.value_type.get_field_index(member.name)
            if place < 0 or pa.types.is_nested(column.value_type.field(place).type):
                problems[f"{field.name}.{member.name}"] = f"expected text, got {column.value_type}"
                packed.append(f"{member.name} := NULL::VARCHAR")
            else:
                packed.append(f"{member.name} := {normal_sql(f'(element.{member.name}::VARCHAR)')}")
        return f"list_transform({name}, lambda element: struct_pack({', '.join(packed)}))"
    if pa.types.is_nested(field.type):  # there or not is all that is asked of it
        inside = field.type.field(0).name if pa.types.is_struct(field.type) else None
        known = pa.types.is_struct(column) and column.get_field_index(inside) >= 0
        return f"CASE WHEN {name}{f'.{inside}' if known else ''} IS NOT NULL THEN 'given' END"
    if pa.types.is_nested(column):
        problems[field.name] = f"expected text, got {column}"
        return "NULL::VARCHAR"
    return normal_sql(f"({name}::VARCHAR)")


def of_structs(kind: pa.DataType) -> bool:
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type))


def _members(kind: pa.DataType) -> str:
    return ", ".join(f"{member.name} VARCHAR" for member in kind.value_type)


def _rows(connection: duckdb.DuckDBPyConnection, name: str) -> int:
    return int(connection.sql(f"SELECT count(*) FROM {name}").fetchall()[0][0])
