"""Series in other forms: foreign records and tables in, long and wide tables out, and hours as forecasters take them.

A foreign record holds its values as a list, by the names of GluonTS and the Hugging Face hub; a table spreads them over
rows, long (a stamp and a value a row) or wide (a column a series).
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.foreign import Reader
from genesis_lab.domains.timeseries.record import STEP_HOURS, frequency_of
from genesis_lab.domains.timeseries.render import clock, stamps_of
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
        """The rows of long and wide tables as series; rows that hold a series already as they are."""
        self.used.add("reasons")
        rows, ahead = super().gathered(rows), list[Any]()
        for row in rows:
            ahead.append(row)
            if row.value:
                break
        first = (ahead[-1].value if ahead else None) or {}
        identity, stamp, value = (
            next((name for name in (self.field_map.get(ours), *names) if name in first), None)
            for ours, names in _COLUMNS.items()
        )
        rows = chain(ahead, rows)
        if stamp is None or isinstance(first.get(value), list) or str(first.get(value)).startswith("["):
            return rows
        return self._put_together(rows, identity, stamp, value)

    def _put_together(self, rows: Iterator[Any], identity: str | None, stamp: str, value: str | None) -> Iterator[Any]:
        import pandas as pd

        read = list(rows)
        yield from (row for row in read if row.value is None)
        kept = [row for row in read if row.value is not None]
        frame = pd.DataFrame([row.value for row in kept], dtype=object)
        frame = frame.where(frame.notna(), None)
        numbers = np.array([row.number for row in kept])
        own, every = (identity, stamp, value), np.arange(len(frame))
        if value:
            groups = frame.groupby(identity, sort=False, dropna=False).indices if identity else {None: every}
            parts = [(name, np.sort(at), value) for name, at in groups.items()]
        else:
            parts = [(name, every, name) for name in frame.columns if name not in own]
        for name, at, column in parts:
            same = {key: frame[key].iloc[at[0]] for key in frame if value and key not in own}
            step = same.get(self.field_map.get("frequency", "frequency")) or same.get("freq")
            stamps, values = frame[stamp].iloc[at], frame[column].iloc[at]
            record, reasons = _series(stamps, values, numbers[at], same.get("timezone"), step)
            record |= {"series_id": None if name is None or name != name else str(name)}
            ours = {self.field_map.get(key, key): each for key, each in record.items()}
            yield replace(kept[at[0]], number=int(numbers[at[0]]), value=same | ours | {"reasons": reasons})

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
        record["frequency"] = frequency_of(str(frequency)) if frequency else None
        if frequency and record["frequency"] not in STEP_HOURS:
            reasons.append(f"frequency: {frequency!r} is none of {', '.join(STEP_HOURS)}")
        return record, reasons


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


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
    usual = (name for name, step_hours in STEP_HOURS.items() if step_hours in hours.mode().tolist())
    known = frequency_of(str(step)) if step else next(usual, None)
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
    """Stamps as naive UTC, and whether UTC was assumed: without an offset they are local to `zone`.

    Which of two repeated hours is meant is told by their order.
    """
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
        has = f"it starts at {record['start']!r} and its frequency {record['frequency']!r}"
        due = f"must be one of {', '.join(STEP_HOURS)}"
        raise InvalidInput(f"Series {record['series_id']} has no stamps for a table: {has} {due}.")
    found = stamps_of(record["start"], len(record["target"]), record["frequency"])
    return found.strftime("%Y-%m-%dT%H:%M:%SZ").tolist()  # type: ignore[no-any-return]


# Hours


@dataclass(frozen=True, eq=False)
class Hours:
    """Series with their local clock, each array of shape (n, length)."""

    ids: list[str]
    values: NDArray[np.float64]  # NaN where nothing was measured or a series has ended
    hour: NDArray[np.int64]
    weekday: NDArray[np.int64]
    left_out: dict[str, int]  # why, and how many

    def __len__(self) -> int:
        return len(self.values)

    def filled(self) -> NDArray[np.float64]:
        """Those with seven tenths of their values, nulls filled, cut to the shortest."""
        measured = [row[: np.flatnonzero(np.isfinite(row))[-1] + 1] for row in self.values]
        whole = [made for row in measured if (made := filled(row)) is not None]
        length = min(map(len, whole), default=0)
        return np.array([row[:length] for row in whole]).reshape(len(whole), length)

    def take(self, rows: NDArray[np.int64]) -> Hours:
        """These series in this order."""
        return Hours([self.ids[i] for i in rows], self.values[rows], self.hour[rows], self.weekday[rows], self.left_out)


def filled(values: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """A series whose nulls are filled linearly; None where it lacks over 30 % of its values."""
    known = np.flatnonzero(np.isfinite(values))
    return np.interp(np.arange(len(values)), known, values[known]) if len(known) >= max(1, 0.7 * len(values)) else None


def hourly(records: Iterable[Mapping[str, Any]], length: int, fewest: int) -> Hours:
    """The first `length` hours of every series that has `fewest` or more and is no copy of an earlier one.

    Shorter steps than an hour are averaged over it, longer ones left out; what is no finite number was not measured.
    """
    gone, kept, seen = Counter[str](), [], set[Any]()
    for row, record in enumerate(records, 1):
        per_hour = 1 / STEP_HOURS.get(frequency_of(record.get("frequency") or "1h"), 2)
        values = np.array(record.get("target") or (), dtype=float)  # None becomes NaN
        values[~np.isfinite(values)] = np.nan
        name = str(record.get("series_id") or f"row {row}")
        if per_hour < 1:
            gone["are not measured every hour or more often"] += 1
            continue
        if per_hour > 1:
            parts = values[: len(values) // int(per_hour) * int(per_hour)].reshape(-1, int(per_hour))
            known = np.isfinite(parts).sum(1)
            values = np.where(known, np.nansum(parts, axis=1) / np.maximum(known, 1), np.nan)
        if len(values) < fewest:
            gone[f"are shorter than {fewest} hours"] += 1
        elif not np.isfinite(values).any():
            gone["have no value that was measured"] += 1
        elif {name, values.tobytes()} & seen:
            gone["have the id or the values of an earlier one"] += 1
        else:
            seen |= {name, values.tobytes()}
            zone = str(record.get("timezone") or "UTC")
            try:
                at = clock(str(record.get("start") or "2024-01-01"), length, "1h", zone)
            except (ValueError, KeyError):
                raise InvalidInput(f"{name}: start {record.get('start')!r} in {zone} is no date and place.") from None
            padded = np.full(length, np.nan)
            padded[: len(values)] = values[:length]
            kept.append((name, padded, at.hour.astype(int), at.weekday))
    ids, *arrays = zip(*kept, strict=True) if kept else ((), (), (), ())
    values, hour, weekday = (np.array(one).reshape(-1, length) for one in arrays)
    return Hours(list(ids), values, hour, weekday, dict(gone))
