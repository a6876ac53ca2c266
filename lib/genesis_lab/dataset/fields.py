"""Values of foreign records brought to the column's type; what does not fit is named."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from genesis_lab.texts import normal

_SURROGATE = re.compile(r"[\ud800-\udfff]")


def fitted(value: Any, kind: pa.DataType, name: str, reasons: list[str]) -> Any:
    """`value` as a value of column `name` of type `kind`; None, with a reason added, if it can't be one."""
    if value is None or (isinstance(value, float) and math.isnan(value) and not pa.types.is_floating(kind)):
        return None
    if pa.types.is_string(kind):
        return _text(value, name, reasons)
    if pa.types.is_list(kind):
        return _list(value, kind, name, reasons)
    if pa.types.is_struct(kind):
        return _struct(value, kind, name, reasons)
    try:
        if pa.types.is_timestamp(kind):
            return _moment(value)
        if pa.types.is_boolean(kind):
            return {"true": True, "false": False, "1": True, "0": False}[str(value).strip().lower()]
        if pa.types.is_date(kind):
            return dt.date.fromisoformat(str(value)[:10])
        number = float(value) if pa.types.is_floating(kind) else _whole(value)
        return pa.scalar(number, kind).as_py()
    except (ValueError, TypeError, KeyError, OverflowError, pa.ArrowException):
        reasons.append(f"{name}: expected {kind}, left empty, got {str(value)[:60]!r}")
        return None


def _text(value: Any, name: str, reasons: list[str]) -> str:
    if not isinstance(value, str):
        reasons.append(f"{name}: expected text, read as text, got {str(value)[:60]!r}")
        value = json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else str(value)
    value = normal(value)
    if _SURROGATE.search(value):
        value = _SURROGATE.sub("\ufffd", value)
        reasons.append(f"{name}: broken characters were replaced by \ufffd, got {value[:60]!r}")
    return str(value)


def _list(value: Any, kind: pa.ListType, name: str, reasons: list[str]) -> list[Any] | None:
    value = _parsed(value)
    if isinstance(value, Mapping) and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    if not isinstance(value, list | tuple):
        reasons.append(f"{name}: expected a list, left empty, got {str(value)[:60]!r}")
        return None
    return [fitted(item, kind.value_type, f"{name}.{i}", reasons) for i, item in enumerate(value, 1)]


def _struct(value: Any, kind: pa.StructType, name: str, reasons: list[str]) -> dict[str, Any] | None:
    value = _parsed(value)
    if not isinstance(value, Mapping):
        reasons.append(f"{name}: expected an object, left empty, got {str(value)[:60]!r}")
        return None
    return {f.name: fitted(value.get(f.name), f.type, f"{name}.{f.name}", reasons) for f in kind}


def _parsed(value: Any) -> Any:
    """Lists and objects stand as JSON in the cells of a CSV file."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def _moment(value: Any) -> dt.datetime:
    moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(str(value))
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
