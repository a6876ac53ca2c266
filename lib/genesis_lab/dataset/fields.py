"""Values of foreign records brought to the column's type; what does not fit is named."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from genesis_lab.texts import normal

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def fitted(value: Any, kind: pa.DataType, name: str, reasons: list[str]) -> Any:
    """`value` as a value of column `name` of type `kind`; None, with a reason added, if it can't be one."""
    if value is None or (isinstance(value, float) and math.isnan(value) and not pa.types.is_floating(kind)):
        return None
    if pa.types.is_string(kind):
        return _text(value, name, reasons)
    wanted = str(kind)
    try:
        if not pa.types.is_nested(kind):
            return _plain(value, kind)
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


def _plain(value: Any, kind: pa.DataType) -> Any:
    """A plain value as people write it: ``"3"``, ``"true"``, ``"2026-11-30T10:00:00Z"``; `ValueError` where it is none."""
    if isinstance(value, bool) and not pa.types.is_boolean(kind):
        raise ValueError
    found = _adapter(kind).validate_python(value)
    if isinstance(found, dt.datetime) and not found.tzinfo:
        found = found.replace(tzinfo=dt.UTC)
    return pa.scalar(found, kind).as_py()


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
