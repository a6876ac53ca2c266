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
from genesis_lab.domains.base import Arrow

_MOMENT = pa.timestamp("us", tz="UTC")
_PLAIN: tuple[tuple[Any, pa.DataType], ...] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    ((str, Enum), pa.string()),
    ((dt.datetime, AwareDatetime), _MOMENT),
    (dt.date, pa.date32()),
)


def schema_of(domain: str) -> pa.Schema:
    """The columns of a domain's datasets; `InvalidInput` if there is no such domain."""
    return arrow_schema(get_domain(domain).record_type)


@lru_cache
def arrow_schema(record_type: type[BaseModel]) -> pa.Schema:
    """One column per field: nested models are structs, datetimes microseconds in UTC, else what `Arrow` says.

    A type without a column type, such as a union of text and number, is a `TypeError`.
    """
    return pa.schema(_fields(record_type))


def _fields(model: type[BaseModel]) -> list[pa.Field]:
    fields = []
    for name, field in model.model_fields.items():
        said = next((pa.type_for_alias(part.type) for part in field.metadata if isinstance(part, Arrow)), None)
        kind = said or _arrow_type(field.annotation)
        if kind is None:
            raise TypeError(f"field {name!r} of type {field.annotation!r} has no column type")
        fields.append(pa.field(name, kind))
    return fields


def _arrow_type(annotation: Any) -> pa.DataType | None:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _arrow_type(args[0])
    if origin in (Union, types.UnionType, Literal):
        meant = {type(arg) if origin is Literal else arg for arg in args} - {type(None)}
        kinds = {_arrow_type(each) for each in meant}
        return kinds.pop() if len(kinds) == 1 else None
    if isinstance(origin, type) and issubclass(origin, Sequence | set | frozenset):
        item = _arrow_type(args[0])
        return item and pa.list_(item)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return pa.struct(_fields(annotation))
    return next(
        (arrow for python, arrow in _PLAIN if isinstance(annotation, type) and issubclass(annotation, python)), None
    )
