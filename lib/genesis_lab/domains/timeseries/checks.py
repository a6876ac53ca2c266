"""What may be wrong with a series, as data in ``checks.yaml``: values that can't be, and labels that do not fit them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from genesis_lab.domains.base import Check
from genesis_lab.domains.timeseries.kinds import Kind
from genesis_lab.domains.timeseries.marks import LEAST_EFFECT
from genesis_lab.yamls import shipped


def checks(known: Mapping[str, Kind]) -> list[Check]:
    """Length, bounds, anomalies and gaps of one series."""
    bounds = [f"WHEN '{name}' THEN {kind.low}::DOUBLE" for name, kind in known.items() if np.isfinite(kind.low)]
    words = {
        "low": f"CASE series_type {' '.join(bounds)} END", "types": ", ".join(f"'{name}'" for name in known),
        "least": "list_min(list_filter(target, lambda value: value IS NOT NULL))",
        "marks": "coalesce(len(anomalies), 0)", "effect": f"{LEAST_EFFECT:g}",
    }  # fmt: skip
    found = []
    for name, check in shipped(Path(__file__).with_name("checks.yaml")).items():
        said = {key: value.format(**words) if isinstance(value, str) else value for key, value in check.items()}
        found.append(Check(name, **({"unit": "series", "over": "records"} | said)))
    return found
