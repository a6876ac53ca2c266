"""Series as others keep them: a record each, values as a list, by the names of GluonTS and the Hugging Face hub, or spread over the
rows of a table, long (a stamp and a value a row) or wide (a column a series)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from genesis_lab.domains.foreign import Reader
from genesis_lab.domains.timeseries.options import ALIASES
from genesis_lab.domains.timeseries.render import STEP_HOURS, stamps_of
from genesis_lab.errors import InvalidInput

_COLUMNS = {
    "series_id": ("series_id", "item_id", "unique_id", "series", "id"),
    "start": ("timestamp", "stamp", "datetime", "date", "time", "ds"),
    "target": ("target", "value", "values", "y"),
}
"""Our field to the columns of a table that hold it, a row at a time."""
_NAMED = 8
"""Rows that a sentence names; the others are counted."""
_WIDEST = 20
"""Points of a grid for each row there is: beyond it a stamp is wrong."""


class SeriesReader(Reader):
    """Finds a series in a foreign record, brings its frequency and nulls to our form, and derives what follows."""

    essential = ("target",)

    def gathered(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Long and wide tables as series."""
        self.used.add("reasons")
        return gathered(super().gathered(rows), self.field_map)

    def read(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values of our fields; NaN, infinities and their names become nulls, and are counted."""
        record, reasons = super().read(raw)
        reasons += raw.get("reasons", [])
        values = record.get("target")
        if isinstance(values, str):
            try:
                values = json.loads(values)
            except ValueError:
                reasons.append(f"target: not a list of numbers, got {values[:40]!r}")
                values = None
        if isinstance(values, list | tuple):
            numbers = [_number(value) for value in values]
            lost = sum(number is None and value is not None for number, value in zip(numbers, values, strict=True))
            if lost:
                reasons.append(f"target: {lost} values that are no numbers became nulls")
            record["target"] = numbers
            record["length"] = len(numbers)
        frequency = record.get("frequency") or raw.get("freq")
        record["frequency"] = ALIASES.get(str(frequency), frequency)
        if record["frequency"] is not None and record["frequency"] not in STEP_HOURS:
            reasons.append(f"frequency: {frequency!r} is none of {', '.join(STEP_HOURS)}")
        return record, reasons


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def gathered(rows: Iterator[Any], field_map: Mapping[str, str]) -> Iterator[Any]:
    """The rows of a source as rows of whole series; as they are, where a row holds a series already."""
    ahead = []
    for row in rows:
        ahead.append(row)
        if row.value:
            break
    first = (ahead[-1].value if ahead else None) or {}
    identity, stamp, value = (
        next((name for name in (field_map.get(ours), *names) if name in first), None)
        for ours, names in _COLUMNS.items()
    )
    rows = chain(ahead, rows)
    if stamp is None or isinstance(first.get(value), list) or str(first.get(value)).startswith("["):
        return rows
    return _put_together(rows, identity, stamp, value, field_map)


def _put_together(
    rows: Iterator[Any], identity: str | None, stamp: str, value: str | None, field_map: Mapping[str, str]
) -> Iterator[Any]:
    import pandas as pd

    read = list(rows)
    yield from (row for row in read if row.value is None)
    kept = [row for row in read if row.value is not None]
    frame = pd.DataFrame([row.value for row in kept], dtype=object)
    frame = frame.where(frame.notna(), None)
    numbers = np.array([row.number for row in kept])
    own = (identity, stamp, value)
    if value:
        where = frame.groupby(identity, sort=False, dropna=False).indices if identity else {None: np.arange(len(frame))}
        parts = [(name, np.sort(at), value) for name, at in where.items()]
    else:
        parts = [(name, np.arange(len(frame)), name) for name in frame.columns if name not in own]
    for name, at, column in parts:
        same = {key: frame[key].iloc[at[0]] for key in frame if value and key not in own}
        step = same.get(field_map.get("frequency", "frequency")) or same.get("freq")
        stamps, values = frame[stamp].iloc[at], frame[column].iloc[at]
        record, reasons = _series(stamps, values, numbers[at], same.get("timezone"), step)
        record |= {"series_id": None if name is None or name != name else str(name)}
        ours = {field_map.get(key, key): each for key, each in record.items()}
        yield replace(kept[at[0]], number=int(numbers[at[0]]), value=same | ours | {"reasons": reasons})


def _series(stamps: Any, values: Any, rows: Any, zone: Any, step: Any) -> tuple[dict[str, Any], list[str]]:
    """Start, frequency, values on a whole grid and gaps of one series, and which rows were not as they should be."""
    import pandas as pd

    at, bare = _utc(stamps, zone)
    reasons = ["start: the stamps name no zone and were read as UTC"] if bare else []
    table = pd.DataFrame({"at": at.to_numpy(), "value": pd.Series(values.to_numpy(), dtype=object), "row": rows})

    def without(wrong: Any, what: str) -> Any:
        named = table.row[wrong].tolist()
        if named:
            more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            reasons.append(f"start: rows {', '.join(map(str, named[:_NAMED]))}{more} {what}")
        return table[~wrong]

    table = without(table["at"].isna(), "have no stamp that can be read and were left out")
    without(table["at"] < table["at"].cummax(), "were out of order and were sorted in")
    table = table.sort_values("at", kind="stable")
    table = without(table["at"].duplicated(), "repeat a stamp: the first of each was kept")
    record: dict[str, Any] = {"target": table["value"].tolist(), "frequency": step, "missing": []}
    if table.empty:
        return record | {"target": None}, reasons
    record["start"] = table["at"].iloc[0].tz_localize("UTC").isoformat()
    hours = table["at"].diff().dt.total_seconds() / 3600
    known = ALIASES.get(str(step), step) or next((f for f, h in STEP_HOURS.items() if h in hours.mode().tolist()), None)
    if known not in STEP_HOURS:
        why = f"frequency: the usual step is none of {', '.join(STEP_HOURS)}, values are as they came"
        return record, [*reasons, why]
    place = (table["at"] - table["at"].iloc[0]).dt.total_seconds() / 3600 / STEP_HOURS[known]
    table = without(place % 1 != 0, f"lie between steps of {known} and were left out")
    place = place[place % 1 == 0].astype(int).to_numpy()
    if place[-1] > _WIDEST * (len(table) + 10):
        why = f"target: {len(table)} values over {place[-1]:,} steps of {known} are as they came, without nulls between"
        return record | {"frequency": known}, [*reasons, why]
    target = np.full(place[-1] + 1, None, dtype=object)
    target[place] = table["value"].to_numpy()
    record |= {"frequency": known, "target": target.tolist()}
    absent = np.setdiff1d(np.arange(len(target)), place)
    for gap in np.split(absent, np.flatnonzero(np.diff(absent) > 1) + 1) if len(absent) else []:
        record["missing"].append({"start": int(gap[0]), "length": len(gap), "cause": "no row"})
    if len(absent):
        first = stamps_of(record["start"], int(absent[0]) + 1, known)[-1].isoformat()
        reasons.append(f"target: {len(absent)} stamps have no row and became nulls, the first is {first}")
    return record, reasons


def _utc(stamps: Any, zone: Any) -> tuple[Any, bool]:
    """Stamps as naive UTC, and whether UTC is assumed: those without an offset are local to `zone`, the repeated hour by its order."""
    import pandas as pd

    local = pd.to_datetime(stamps, errors="coerce", format="ISO8601")
    if not isinstance(local.dtype, pd.DatetimeTZDtype) and zone:
        try:
            local = local.dt.tz_localize(str(zone), ambiguous="infer", nonexistent="NaT")
        except ValueError:  # the order does not tell which of the two hours is meant
            local = local.dt.tz_localize(str(zone), ambiguous="NaT", nonexistent="NaT")
    bare = not isinstance(local.dtype, pd.DatetimeTZDtype) and bool(local.notna().any())
    return pd.to_datetime(local, utc=True).dt.tz_localize(None), bare


def laid_out(records: Iterable[Mapping[str, Any]], form: str) -> tuple[list[str], Iterator[list[Any]]]:
    """Header and rows of a long or a wide table; stamps in UTC."""
    if form == "long":
        return ["series_id", "timestamp", "frequency", "value"], (
            [record["series_id"], stamp, record["frequency"], value]
            for record in records
            for stamp, value in zip(_stamps(record), record["target"], strict=True)
        )
    table: dict[str, dict[str, Any]] = {}
    names = []
    for record in records:
        names.append(record["series_id"])
        for stamp, value in zip(_stamps(record), record["target"], strict=True):
            table.setdefault(stamp, {})[record["series_id"]] = value
    return ["timestamp", *names], ([stamp, *(table[stamp].get(name) for name in names)] for stamp in sorted(table))


def _stamps(record: Mapping[str, Any]) -> list[str]:
    if not record["start"] or record["frequency"] not in STEP_HOURS:
        raise InvalidInput(
            f"Series {record['series_id']} has no stamps for a table: it starts at {record['start']!r} and its frequency "
            f"{record['frequency']!r} must be one of {', '.join(STEP_HOURS)}."
        )
    found = stamps_of(record["start"], len(record["target"]), record["frequency"])
    return found.strftime("%Y-%m-%dT%H:%M:%SZ").tolist()  # type: ignore[no-any-return]
