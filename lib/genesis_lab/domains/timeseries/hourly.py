"""Series of any length, step and place as forecasters take them: hours of one length with their local clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.timeseries.options import ALIASES
from genesis_lab.domains.timeseries.render import STEP_HOURS, clock
from genesis_lab.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class Hours:
    """`values` of shape (n, length), NaN where nothing was measured or a series has ended; local `hour` and `weekday` alike."""

    ids: list[str]
    values: NDArray[np.float64]
    hour: NDArray[np.int64]
    weekday: NDArray[np.int64]
    left_out: dict[str, int]
    """Why, and how many."""

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

    Shorter steps than an hour are averaged over it, longer ones left out; values that are no finite numbers are not measured.
    """
    gone, kept, seen = Counter[str](), [], set[Any]()
    for row, record in enumerate(records, 1):
        step = record.get("frequency") or "1h"
        per_hour = 1 / STEP_HOURS.get(ALIASES.get(step, step), 2)
        values = np.array([np.nan if v is None else v for v in record.get("target") or ()], dtype=float)
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
