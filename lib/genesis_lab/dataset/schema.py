"""The Arrow schema of a record, from its pydantic model. Every column may be null, so that foreign data fits."""

from __future__ import annotations

import datetime as dt
import types
from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel

from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Arrow

_PLAIN: tuple[tuple[Any, pa.DataType], ...] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    (str, pa.string()),
    (dt.datetime, pa.timestamp("us", tz="UTC")),
    (dt.date, pa.date32()),
)


def schema_of(domain: str) -> pa.Schema:
    """The columns of a domain's datasets; `InvalidInput` if there is no such domain."""
    return arrow_schema(get_domain(domain).record_type)


@lru_cache
def arrow_schema(record_type: type[BaseModel]) -> pa.Schema:
    """One nullable column per field; nested models become structs, lists lists, datetimes microseconds in UTC.

    A field's own type is said by `Arrow` in its annotation.

    Raises
    ------
    TypeError : a field's type has no column type, for example a union of text and number.
    """
    return pa.schema(_fields(record_type))


def _fields(model: type[BaseModel]) -> list[pa.Field]:
    fields = []
    for name, field in model.model_fields.items():
        said = next((part.type for part in field.metadata if isinstance(part, Arrow)), None)
        kind = pa.type_for_alias(said) if said else _arrow_type(field.annotation)
        if kind is None:
            raise TypeError(f"field {name!r} of type {field.annotation!r} has no column type")
        fields.append(pa.field(name, kind))
    return fields


def _arrow_type(annotation: Any) -> pa.DataType | None:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType, Literal):
        kinds = {_arrow_type(type(arg) if origin is Literal else arg) for arg in args if arg not in (None, type(None))}
        return kinds.pop() if len(kinds) == 1 else None
    if hasattr(annotation, "__metadata__"):
        return _arrow_type(args[0])
    if isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        return pa.list_(item) if (item := _arrow_type(args[0])) else None
    if annotation is AwareDatetime:
        return pa.timestamp("us", tz="UTC")
    if isinstance(annotation, type):
        if issubclass(annotation, BaseModel):
            return pa.struct(_fields(annotation))
        if issubclass(annotation, Enum):
            return pa.string()
        return next((arrow for python, arrow in _PLAIN if issubclass(annotation, python)), None)
    return None
