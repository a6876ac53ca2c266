"""One block of conversations as flat columns, read from any table however broken: flattened, never repaired."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from genesis_lab.domains.conversations.opening import role_of
from genesis_lab.texts import normal, same_words

TEXT_FIELDS = (
    "conversation_id",
    "intent",
    "category",
    "sentiment",
    "complexity",
    "language",
    "turn_count",
    "emotion_arc",
    "resolution_time",
    "resolution_status",
)


@dataclass(frozen=True)
class View:
    """Flat columns of `n` records and their turns.

    `fields` holds each field as trimmed text, null where it is missing or empty. The turn arrays run over all turns
    in order; `turn_row` says whose they are. `problems` maps a column that can't be read to what is wrong with it.
    """

    n: int
    fields: dict[str, pa.StringArray]
    has_provenance: NDArray[np.bool_]
    turn_row: NDArray[np.int64]
    speaker: pa.StringArray
    text: pa.StringArray
    problems: dict[str, str] = field(default_factory=dict)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Turns of each record."""
        return np.bincount(self.turn_row, minlength=self.n).astype(np.int64)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Index of each record's first turn."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """Place of each turn in its conversation, from 0."""
        return np.arange(len(self.turn_row)) - self.starts[self.turn_row]

    @cached_property
    def who(self) -> NDArray[np.int8]:
        """Speaker of each turn, however spelt: 0 customer, 1 agent, -1 neither."""
        coded = self.speaker.dictionary_encode()
        codes = {"customer": 0, "agent": 1, None: -1}
        known = np.array([*(codes[role_of(name)] for name in coded.dictionary.to_pylist()), -1], dtype=np.int8)
        return np.asarray(known[coded.indices.fill_null(len(known) - 1).to_numpy(zero_copy_only=False)], dtype=np.int8)

    @cached_property
    def opening(self) -> pa.StringArray:
        """`genesis_lab.domains.conversations.opening.opening` of each record, null where there is none."""
        spoken = present(self.text)
        first = np.full(self.n, -1, dtype=np.int64)
        for mask in (spoken & (self.who < 0), self.who == 0):
            turns = np.flatnonzero(mask)
            rows, where = np.unique(self.turn_row[turns], return_index=True)
            first[rows] = turns[where]
        return self.text.take(pa.array(first, mask=first < 0))

    @cached_property
    def opening_words(self) -> pa.StringArray:
        """`opening` without case, accents and punctuation; empty where there is none."""
        return normalised(self.opening)


def read(table: pa.Table) -> View:
    """The flat columns of `table`; columns that are missing or of another type become nulls, named in `problems`."""
    problems: dict[str, str] = {}
    fields = {name: _text_column(table, name, problems) for name in TEXT_FIELDS}
    turn_row, speaker, text = _turns(table, problems)
    return View(table.num_rows, fields, _provenance(table), turn_row, speaker, text, problems)


def present(array: pa.Array) -> NDArray[np.bool_]:
    """Where `array` is not null."""
    return np.asarray(array.is_valid().to_numpy(zero_copy_only=False), dtype=bool)


def normalised(texts: pa.StringArray) -> pa.StringArray:
    """`genesis_lab.texts.same_words` of each text; null becomes empty."""
    return pa.array([same_words(text or "") for text in texts.to_pylist()], pa.string())


def hashed(texts: pa.Array) -> NDArray[np.uint64]:
    """64-bit hash of each text (null as empty), the same in every process."""
    from pandas.util import hash_array

    values = np.asarray(texts.fill_null("").to_numpy(zero_copy_only=False), dtype=object)
    return hash_array(values, categorize=False) if len(values) else np.empty(0, np.uint64)


def _text_column(table: pa.Table, name: str, problems: dict[str, str]) -> pa.StringArray:
    nulls = pa.nulls(table.num_rows, pa.string())
    if name not in table.column_names:
        problems[name] = "there is no such column"
        return nulls
    try:
        return _trimmed(_plain(table[name]).cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        problems[name] = f"expected text, got {table[name].type}"
        return nulls


def _turns(table: pa.Table, problems: dict[str, str]) -> tuple[NDArray[np.int64], pa.StringArray, pa.StringArray]:
    nothing = np.empty(0, np.int64), pa.array([], pa.string()), pa.array([], pa.string())
    if "turns" not in table.column_names:
        problems["turns"] = "there is no such column"
        return nothing
    turns = _plain(table["turns"])
    if pa.types.is_null(turns.type):
        return nothing
    is_list = pa.types.is_list(turns.type) or pa.types.is_large_list(turns.type)
    if not is_list or not pa.types.is_struct(turns.type.value_type):
        problems["turns"] = f"expected a list of {{speaker, text}}, got {turns.type}"
        return nothing
    items = pc.list_flatten(turns)
    rows = pc.list_parent_indices(turns).to_numpy(zero_copy_only=False).astype(np.int64)
    columns = []
    for name in ("speaker", "text"):
        try:
            columns.append(_trimmed(pc.struct_field(items, name).cast(pa.string())))
        except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
            problems[f"turns.{name}"] = f"expected text, got {items.type}"
            columns.append(pa.nulls(len(items), pa.string()))
    return rows, columns[0], columns[1]


def _provenance(table: pa.Table) -> NDArray[np.bool_]:
    if "provenance" not in table.column_names:
        return np.zeros(table.num_rows, dtype=bool)
    column = _plain(table["provenance"])
    if pa.types.is_struct(column.type) and column.type.get_field_index("provider") >= 0:
        column = pc.struct_field(column, "provider")
    return present(column)


def _plain(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _trimmed(texts: pa.StringArray) -> pa.StringArray:
    if pc.any(pc.match_substring_regex(texts, r"\pM")).as_py():  # Arrow's own NFC takes accents apart
        texts = pa.array([normal(text) for text in texts.to_pylist()], pa.string())
    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
