"""The Arrow schema of a record, from its pydantic model. Every column may be null, so that foreign data fits."""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel

from genesis_lab.domains import get_domain

_SMALL_COUNTS = ("turn_count", "attempts")
"""Integers that never need more than 32 bits."""
_PLAIN: tuple[tuple[Any, pa.DataType], ...] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (str, pa.string()),
    (dt.datetime, pa.timestamp("us", tz="UTC")),
    (dt.date, pa.date32()),
)


def record_type(domain: str) -> type[BaseModel]:
    """The pydantic model of a domain's records.

    Raises
    ------
    InvalidInput : there is no such domain.
    """
    return get_domain(domain).record_type


def schema_of(domain: str) -> pa.Schema:
    """The columns of a domain's datasets."""
    return arrow_schema(record_type(domain))


@lru_cache
def arrow_schema(record_type: type[BaseModel]) -> pa.Schema:
    """One nullable column per field; nested models become structs, lists lists, datetimes microseconds in UTC.

    Raises
    ------
    TypeError : a field's type has no column type, for example a union of text and number.
    """
    return pa.schema(_fields(record_type))


def _fields(model: type[BaseModel]) -> list[pa.Field]:
    return [pa.field(name, _arrow_type(field.annotation, name)) for name, field in model.model_fields.items()]


def _arrow_type(annotation: Any, name: str) -> pa.DataType:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow_type(args[0], name)
    if origin in (Union, types.UnionType):
        kinds = {_arrow_type(arg, name) for arg in args if arg is not type(None)}
        if len(kinds) == 1:
            return kinds.pop()
    elif origin is Literal:
        kinds = {_arrow_type(type(arg), name) for arg in args if arg is not None}
        if len(kinds) == 1:
            return kinds.pop()
    elif isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        return pa.list_(_arrow_type(args[0], name))
    elif annotation is AwareDatetime:
        return pa.timestamp("us", tz="UTC")
    elif isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return pa.struct(_fields(annotation))
        if annotation is int and name in _SMALL_COUNTS:
            return pa.int32()
        if issubclass(annotation, Enum):
            return pa.string()
        for python_type, arrow_type in _PLAIN:
            if issubclass(annotation, python_type):
                return arrow_type
    raise TypeError(f"field {name!r} of type {annotation!r} has no column type")
