"""The Arrow schema of a record, from its pydantic model, and foreign values brought to it.

Every column may be null, so that foreign data fits; what does not fit is named.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pyarrow as pa
from pydantic import AwareDatetime, BaseModel, TypeAdapter

from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Arrow
from genesis_lab.texts import normal

_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PLAIN: tuple[tuple[Any, pa.DataType], ...] = (
    (bool, pa.bool_()),
    (int, pa.int64()),
    (float, pa.float64()),
    ((str, Enum), pa.string()),
    ((dt.datetime, AwareDatetime), pa.timestamp("us", tz="UTC")),
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
        if (kind := said or _arrow_type(field.annotation)) is None:
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
    fits = (arrow for python, arrow in _PLAIN if isinstance(annotation, type) and issubclass(annotation, python))
    return next(fits, None)


def fitted(value: Any, kind: pa.DataType, name: str, reasons: list[str]) -> Any:
    """`value` as a value of column `name` of type `kind`; None, with a reason added, if it can't be one."""
    if value is None or (isinstance(value, float) and math.isnan(value) and not pa.types.is_floating(kind)):
        return None
    if pa.types.is_string(kind):
        return _text(value, name, reasons)
    wanted = str(kind)
    try:
        if not pa.types.is_nested(kind):
            if isinstance(value, bool) and not pa.types.is_boolean(kind):
                raise ValueError
            found = _adapter(kind).validate_python(value)  # as people write it: "3", "true", "2026-11-30T10:00:00Z"
            if isinstance(found, dt.datetime) and not found.tzinfo:
                found = found.replace(tzinfo=dt.UTC)
            return pa.scalar(found, kind).as_py()
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):  # as it stands in a cell of a CSV file
            value = json.loads(value)
        if pa.types.is_list(kind) and isinstance(value, list | tuple):
            return [fitted(item, kind.value_type, f"{name}.{i}", reasons) for i, item in enumerate(value, 1)]
        if pa.types.is_struct(kind) and isinstance(value, Mapping):
            return {f.name: fitted(value.get(f.name), f.type, f"{name}.{f.name}", reasons) for f in kind}
        wanted = "a list" if pa.types.is_list(kind) else "an object"
    except (ValueError, TypeError, OverflowError, RecursionError, pa.ArrowException):
        pass
    reasons.append(f"{name}: expected {wanted}, left empty, got {str(value)[:60]!r}")
    return None


@lru_cache
def _adapter(kind: pa.DataType) -> TypeAdapter[Any]:
    is_ = pa.types
    plain = ((is_.is_timestamp, dt.datetime), (is_.is_boolean, bool), (is_.is_date, dt.date), (is_.is_floating, float))
    return TypeAdapter(next((python for fits, python in plain if fits(kind)), int))


def _text(value: Any, name: str, reasons: list[str]) -> str:
    if not isinstance(value, str):
        reasons.append(f"{name}: expected text, read as text, got {str(value)[:60]!r}")
        value = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    if _SURROGATE.search(value := str(normal(value))):
        value = _SURROGATE.sub("\ufffd", value)
        reasons.append(f"{name}: broken characters were replaced by \ufffd, got {value[:60]!r}")
    return str(value)
