"""Checks as data, counted: DuckDB asks one partition for all of them at once, whatever the domain.

Partitions are merged in the dataset's order, so that row numbers, the first offences and the sample are the same
however the data was cut.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.dataset.schema import arrow_schema
from genesis_lab.domains.base import Check, Domain, Facets
from genesis_lab.domains.language import NAMES
from genesis_lab.stats import proportion_interval
from genesis_lab.texts import normal_sql
from genesis_lab.validation.text import PERMUTATIONS, first_words, hashed, normalised, signatures
from genesis_lab.yamls import shipped

LISTED = 1_000
"""Most offences of one check that are listed by id; all are counted."""
SAMPLE_PER_CELL = 40
UNKNOWN_CELL = 2_000
"""Records sampled of those without a known label and language."""
_HEARD = 40
"""Texts of a record that are read to tell its label, so that one with ten thousand turns can't fill the memory."""

Part = dict[str, Any]
Offences = tuple[tuple[int, str], ...]
"""Row and what is wrong there."""


@dataclass(frozen=True)
class Counted:
    """What is kept of some consecutive records: per check how many were looked at, failed, and the first failures; what
    is wrong with values (`said`); ids and a few hashes (`rows`); and of each cell of label and language a `sample`, the
    records with the smallest hash of id and text: a random choice that no cut of the data can change.
    """

    n: int
    elements: Counter[str]
    found: dict[str, tuple[int, int, Offences]]
    said: Counter[tuple[str, str]]
    labels: Counter[str]
    unreadable: dict[str, str]
    rows: tuple[pa.Table, ...]
    sample: pd.DataFrame

    def column(self, name: str) -> NDArray[Any]:
        """One number per record; of ``signature`` a row of them."""
        column = pa.concat_tables(self.rows)[name].combine_chunks()
        if name == "signature":
            return np.asarray(column.flatten()).reshape(-1, PERMUTATIONS)
        return np.asarray(column)

    def offences(self, rows: Sequence[tuple[int, str]]) -> list[dict[str, Any]]:
        """The first of `rows` with the record's id, None where it has none."""
        first = rows[:LISTED]
        ids = pa.concat_tables(self.rows)["id"].take(pa.array([row for row, _ in first], pa.int64())).to_pylist()
        return [{"row": row, "record_id": one, "reason": why} for (row, why), one in zip(first, ids, strict=True)]


def merge(a: Counted, b: Counted) -> Counted:
    """What is kept of `a`'s records followed by `b`'s."""
    return Counted(
        a.n + b.n,
        a.elements + b.elements,
        {name: _joined(found, b.found[name], offset=a.n) for name, found in a.found.items()},
        a.said + b.said,
        a.labels + b.labels,
        a.unreadable | b.unreadable,
        a.rows + b.rows,
        _smallest(pd.concat([a.sample, b.sample.assign(row=b.sample["row"] + a.n)], ignore_index=True)),
    )


def count(table: pa.Table, domain: Domain, *, planned: bool = True, seed: int = 0) -> Counted:
    """What is kept of one partition. Checks of planned values are left out where `domain` isn't what was planned."""
    facets, schema = domain.facets, arrow_schema(domain.record_type)
    found: dict[str, tuple[int, int, Offences]] = {check.name: (0, 0, ()) for check in domain.checks()}
    said = Counter[tuple[str, str]]()
    checks = [
        *(check for check in domain.checks() if planned or not check.planned),
        *(_is_there(field, facets) for field in schema),
    ]
    with duckdb.connect(config={"threads": 1}) as connection:
        unreadable = flattened(connection, table, domain)
        lists = [field.name for field in schema if of_structs(field.type)]
        elements = Counter({name: connection.sql(f'SELECT count(*) FROM "{name}"').fetchall()[0][0] for name in lists})
        for over in ("records", *lists):
            for check, column, rows in _asked(connection, over, [check for check in checks if check.over == over]):
                wrong = np.flatnonzero(pc.not_equal(column, "").fill_null(False))
                reasons = column.take(pa.array(wrong)).to_pylist()
                first = dict(zip(rows[wrong][::-1].tolist(), reversed(reasons), strict=True))  # the first of each row
                new = len(column) - column.null_count, len(wrong), tuple(sorted(first.items())[:LISTED])
                found[check.name] = _joined(found.get(check.name, (0, 0, ())), new)
                if check.unit == "values":
                    said.update((check.name, reason) for reason in reasons)
        named = {"id": facets.id, "label": facets.label, "language": facets.language, "text": facets.text}
        asked = ", ".join(f"({sql or 'NULL'})::VARCHAR AS {name}" for name, sql in named.items())
        records = connection.sql(f"SELECT {asked} FROM records").to_arrow_table().combine_chunks()
        rows, frame = _hashes(records)
        known = frame["language"].isin(NAMES if facets.language else [""])
        if facets.label:
            shares = {target.name: target.shares for target in domain.targets()} if planned else {}
            known &= frame["label"].isin(shares.get(facets.label, ()))
        frame["cell"] = (frame["label"] + "/" + frame["language"]).where(known, "")
        frame["limit"] = np.where(known, SAMPLE_PER_CELL, UNKNOWN_CELL)
        frame["key"] = hashed(pa.array(frame["words"] + "|" + frame.pop("id") + f"|{seed}", pa.string()))
        sample = _smallest(frame[frame["words"] != ""])
        connection.register("wanted", sample[["row"]])
        heard = f"list_transform(({facets.texts or '[]'})[:{_HEARD}], lambda text: left(text, 1000))"
        body = f"array_to_string({heard}, ' ')" if facets.texts else facets.text or "NULL"
        bodies = connection.sql(f"SELECT row, {body} AS body FROM records JOIN wanted USING (row)").df()
    labels = Counter({e["values"]: e["counts"] for e in records["label"].drop_null().value_counts().to_pylist()})
    sample = sample.merge(bodies, on="row", how="left")
    return Counted(len(records), elements, found, said, labels, unreadable, (rows,), sample)


def flattened(connection: duckdb.DuckDBPyConnection, table: pa.Table, domain: Domain) -> dict[str, str]:
    """`table` as a table ``records`` of texts, and one for each list in it, as `domains.base.Check` describes them.

    Returns what is wrong with the columns that can't be read.
    """
    columns, problems, schema = ["row"], dict[str, str](), arrow_schema(domain.record_type)
    for field in schema:
        given = table.schema.field(field.name).type if field.name in table.column_names else None
        if given is None:
            problems[field.name] = "there is no such column"
        columns.append(f'{_cleaned(field, pa.null() if given is None else given, problems)} AS "{field.name}"')
    kept = table.select([name for name in schema.names if name in table.column_names])
    connection.register("source", kept.append_column("row", pa.array(np.arange(table.num_rows))))
    connection.execute(f"CREATE TEMP TABLE records AS SELECT {', '.join(columns)} FROM source")
    plain = ", ".join(f'"{field.name}"' for field in schema if not pa.types.is_nested(field.type))
    for name in (field.name for field in schema if of_structs(field.type)):
        each = f'unnest("{name}") AS element, generate_subscripts("{name}", 1) AS position'
        connection.execute(
            f'CREATE TEMP VIEW "{name}" AS SELECT row, {plain}, position, element.* '
            f"FROM (SELECT row, {plain}, {each} FROM records)"
        )
    return problems


def of_structs(kind: pa.DataType) -> bool:
    """Whether a column's values are lists of structs."""
    return bool((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_struct(kind.value_type))


def share(name: str, checked: int, failed: int, unit: str = "", **more: Any) -> Part:
    """A part whose value is the share of `checked` that did not fail; None where nothing was checked."""
    if not checked:
        return part(name, None, 0, unit, **{key: more[key] for key in ("meaning", "reason") if more.get(key)})
    right = checked - failed
    more |= {"interval": proportion_interval(right, checked), "failed": failed, "reason": None}
    return part(name, right / checked, checked, unit, **more)


def part(name: str, value: float | None, n: int, unit: str = "", **more: Any) -> Part:
    """One measurement of a score: a `value` in [0, 1], 1 is best, that rests on `n` `unit`; None: it can't be measured.

    `more` may hold the ``meaning`` (default: that of ``parts.yaml``), its 95 % ``interval``, how many ``failed``, the
    first ``offences``, a ``detail`` that is no part of the value, and the ``reason`` why there is none.
    """
    said = shipped(Path(__file__).with_name("parts.yaml")).get(name, {})
    plain = {"name": name, "value": value, "n": n, "unit": unit or said.get("unit"), "meaning": said.get("meaning")}
    reason = said.get("empty") if value is None else None
    return plain | {"interval": None, "failed": None, "offences": [], "detail": {}, "reason": reason} | more


def parts_of(total: Counted, checks: Sequence[Check], score: str) -> list[Part]:
    """What the checks of one score came to, in their order."""
    found = []
    for name, check in {check.name: check for check in checks if check.score == score}.items():
        checked, failed, first = total.found[name]
        of = total.n if check.over == "records" else total.elements[check.over]
        detail: dict[str, Any] = {"judged": checked, "of": of} if checked < of else {}
        if check.unit == "values":
            detail = {"values": {why: n for (one, why), n in total.said.most_common(100) if one == name}}
        said = {"meaning": check.meaning, "reason": check.empty, "offences": total.offences(first), "detail": detail}
        found.append(share(name, checked, failed, check.unit, **said))
    return found


def _is_there(field: pa.Field, facets: Facets) -> Check:
    """Whether a record has something in this field of the schema, where it must."""
    gone = f'coalesce(len("{field.name}"), 0) = 0' if of_structs(field.type) else f'"{field.name}" IS NULL'
    must = f"NOT coalesce({facets.lacking.get(field.name, 'false')}, false)"
    return Check(f"has.{field.name}", "", "fields", "records", must, gone, f"'{field.name} is missing'")


def _asked(
    connection: duckdb.DuckDBPyConnection, over: str, checks: Sequence[Check]
) -> Iterator[tuple[Check, pa.Array, NDArray[np.int64]]]:
    """For each check one text for every record (or element): null: it does not apply, empty: nothing is wrong."""
    columns = [
        f"CASE WHEN {check.applies} THEN CASE WHEN {check.fails} THEN "
        f"{check.says if isinstance(check.says, str) else repr('?')} ELSE '' END END AS c{i}"
        for i, check in enumerate(checks)
    ]
    every = ", * EXCLUDE row" if any(callable(check.says) for check in checks) else ""
    answer = connection.sql(f'SELECT {", ".join(["row", *columns])}{every} FROM "{over}"').to_arrow_table()
    rows = answer["row"].to_numpy()
    for i, check in enumerate(checks):
        column = answer[f"c{i}"].combine_chunks()
        if callable(check.says) and (mask := pc.equal(column, "?").fill_null(False)).true_count:
            column = pc.replace_with_mask(column, mask, pa.array(check.says(answer.filter(mask)), pa.string()))
        yield check, column, rows


def _hashes(records: pa.Table) -> tuple[pa.Table, pd.DataFrame]:
    """What is kept of every record, and the texts that are sampled from, null as empty."""
    texts = {name: records[name].combine_chunks().fill_null("") for name in records.column_names}
    words = normalised(texts["text"].to_pylist())
    label, language = hashed(texts["label"]), hashed(texts["language"])
    one = np.uint64(1)
    labels = np.where(pc.not_equal(texts["label"], ""), label | one, np.uint64(0))
    signature = pa.FixedSizeListArray.from_arrays(pa.array(signatures(words).ravel()), PERMUTATIONS)
    kept = {
        "id": records["id"],
        "text": np.where(pc.not_equal(words, ""), hashed(words) | one, np.uint64(0)),
        "label": labels,
        "language": language,
        "cell": labels ^ (language >> one),
        "prefix": first_words(words),
        "signature": signature,
    }
    frame = {name: pd.Series(column.to_pylist(), dtype=object) for name, column in (texts | {"words": words}).items()}
    return pa.table(kept), pd.DataFrame(frame).assign(row=np.arange(len(records)))


def _smallest(frame: pd.DataFrame) -> pd.DataFrame:
    """The records with the smallest keys of each cell, at most its ``limit``."""
    ordered = frame.sort_values(["cell", "key", "row"], kind="stable", ignore_index=True)
    rank = ordered.groupby("cell", sort=False).cumcount()
    return ordered[rank < ordered["limit"]].reset_index(drop=True)


def _joined(a: tuple[int, int, Offences], b: tuple[int, int, Offences], offset: int = 0) -> tuple[int, int, Offences]:
    """What a check found in some records, and then `offset` rows on, or another of its name in the same ones."""
    first = {row + offset: why for row, why in b[2]} | dict(a[2])
    return a[0] + b[0], a[1] + b[1], tuple(sorted(first.items())[:LISTED])


def _cleaned(field: pa.Field, given: pa.DataType, problems: dict[str, str]) -> str:
    """SQL of a field of the schema from a column of type `given`: texts, normal; null where it can't be read."""
    name, kind = f'"{field.name}"', field.type
    if of_structs(kind):
        listed = of_structs(given)
        if not listed and not pa.types.is_null(given):
            problems[field.name] = f"expected a list of {{{', '.join(m.name for m in kind.value_type)}}}, got {given}"
        packed = []
        for member in (m.name for m in kind.value_type):
            place = given.value_type.get_field_index(member) if listed else -1
            readable = place >= 0 and not pa.types.is_nested(given.value_type.field(place).type)
            if listed and not readable:
                problems[f"{field.name}.{member}"] = f"expected text, got {given.value_type}"
            packed.append(f"{member} := {normal_sql(f'(element.{member}::VARCHAR)') if readable else 'NULL::VARCHAR'}")
        source = name if listed else "NULL::STRUCT(x VARCHAR)[]"
        return f"list_transform({source}, lambda element: struct_pack({', '.join(packed)}))"
    if pa.types.is_null(given):
        return "NULL::VARCHAR"
    if pa.types.is_list(kind) and pa.types.is_list(given) and not pa.types.is_nested(kind.value_type):
        return name
    if pa.types.is_nested(kind):  # there or not is all that is asked of it
        inside = kind.field(0).name if pa.types.is_struct(kind) else ""
        known = pa.types.is_struct(given) and given.get_field_index(inside) >= 0
        return f"CASE WHEN {name}{f'.{inside}' * known} IS NOT NULL THEN 'given' END"
    if pa.types.is_nested(given):
        problems[field.name] = f"expected text, got {given}"
        return "NULL::VARCHAR"
    return normal_sql(f"({name}::VARCHAR)")
