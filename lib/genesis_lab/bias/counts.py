"""The mergeable counts behind every figure of the bias check: a few thousand numbers, however many records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import pandas as pd
import pyarrow as pa

from genesis_lab.bias.appearance import SEVERAL, lexicon, mentions
from genesis_lab.domains.conversations.domain import Conversations
from genesis_lab.validation.view import View, read

ATTRIBUTES = Conversations.facets.attributes
COLUMNS = (*ATTRIBUTES, "turns")
RECORDS = "records"
OUTCOMES = Conversations.facets.outcomes
"""What is compared between groups of people and places."""

_BLOCK = 25_000
"""Records flattened at a time: bounds memory whatever the partition's size."""


@dataclass(frozen=True)
class Tally:
    """Counts of a block of records, each table in no particular order.

    `joint` counts each combination of `ATTRIBUTES`; `groups` each kind, group, language and outcome of the
    conversations that mention one; `words` the conversations that mention each word. Null: the record has no value.
    """

    records: int
    joint: pa.Table
    groups: pa.Table
    words: pa.Table
    unreadable: dict[str, str]


def tally(table: pa.Table) -> Tally:
    """The counts of one partition."""
    starts = range(0, max(table.num_rows, 1), _BLOCK)
    return reduce(merge, (_block(table.slice(start, _BLOCK)) for start in starts))


def merge(a: Tally, b: Tally) -> Tally:
    """The counts of both."""
    return Tally(
        a.records + b.records,
        _sum(a.joint, b.joint),
        _sum(a.groups, b.groups),
        _sum(a.words, b.words),
        a.unreadable | b.unreadable,
    )


def frame(table: pa.Table) -> pd.DataFrame:
    """The counts as a frame, sorted, so that nothing depends on the order they came in."""
    values = [name for name in table.column_names if name != RECORDS]
    found = table.to_pandas().astype(dict.fromkeys(values, object))
    return found.sort_values(values, ignore_index=True, na_position="last")


def _block(table: pa.Table) -> Tally:
    view = read(table)
    columns = {name: view.fields[name] for name in ATTRIBUTES}
    wanted = set(COLUMNS)
    return Tally(
        view.n,
        _counted(pa.table(columns)),
        *_appearances(view),
        {name: what for name, what in view.problems.items() if name.split(".")[0] in wanted},
    )


def _appearances(view: View) -> tuple[pa.Table, pa.Table]:
    found = mentions(view, lexicon())
    language = pd.Series(view.fields["language"].to_pylist(), dtype=object)
    words = found.assign(language=found["row"].map(language))
    groups = found.drop_duplicates(["row", "kind", "group"])
    mixed = groups.duplicated(["row", "kind"], keep=False)
    groups = groups.assign(group=groups["group"].where(~mixed, SEVERAL)).drop_duplicates(["row", "kind"])
    rows = pa.array(groups["row"])
    outcome = {name: view.fields[name].take(rows) for name in ("language", *OUTCOMES)}
    return (
        _counted(pa.table({"kind": _text(groups["kind"]), "group": _text(groups["group"]), **outcome})),
        _counted(pa.table({name: _text(words[name]) for name in ("kind", "language", "group", "word")})),
    )


def _text(values: Sequence[object]) -> pa.StringArray:
    return pa.array(values, pa.string(), from_pandas=True)


def _counted(table: pa.Table) -> pa.Table:
    return _grouped(table.append_column(RECORDS, pa.array([1] * table.num_rows, pa.int64())))


def _sum(a: pa.Table, b: pa.Table) -> pa.Table:
    return _grouped(pa.concat_tables([a, b]))


def _grouped(table: pa.Table) -> pa.Table:
    values = [name for name in table.column_names if name != RECORDS]
    summed = table.group_by(values).aggregate([(RECORDS, "sum")])
    return summed.rename_columns([*values, RECORDS]).select([*values, RECORDS])
