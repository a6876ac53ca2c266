"""Series as others keep them: one record a series, values as a list, by the names of GluonTS and the Hugging Face hub."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from genesis_lab.domains.foreign import Reader
from genesis_lab.domains.timeseries.options import ALIASES
from genesis_lab.domains.timeseries.render import STEP_HOURS
from genesis_lab.domains.timeseries.tables import gathered


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
