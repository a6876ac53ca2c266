"""What may be wrong with a series, as data: values that can't be, and labels that do not fit them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from genesis_lab.domains.base import Check
from genesis_lab.domains.timeseries.kinds import Kind
from genesis_lab.domains.timeseries.marks import LEAST_EFFECT

_FORM = "schema and structure"


def checks(known: Mapping[str, Kind]) -> list[Check]:
    """Length, bounds, anomalies and gaps of one series."""
    bounds = " ".join(
        f"WHEN '{name}' THEN {end}" for name, kind in known.items() for end in [kind.low] if np.isfinite(end)
    )
    low = f"CASE series_type {bounds} END"
    least = "list_min(list_filter(target, lambda value: value IS NOT NULL))"
    types = ", ".join(f"'{name}'" for name in known)
    marks = "coalesce(len(anomalies), 0)"
    return [
        Check(
            "series_type", "consistency", "series", "records", "series_type IS NOT NULL", f"series_type NOT IN ({types})",
            "'series_type ' || series_type || ' is no known kind'", "share of a known kind", "no series names its kind", _FORM, True,
        ),
        Check(
            "length", "consistency", "series", "records", "target IS NOT NULL AND length IS NOT NULL",
            "coalesce(try_cast(length AS DOUBLE), -1) <> len(target)",
            "'length is ' || length || ', there are ' || len(target) || ' values'",
            "share whose length is the number of their values", "no series has a length and values", _FORM,
        ),
        Check(
            "bounds", "consistency", "series", "records", f"scale = 'physical' AND {low} IS NOT NULL AND {least} IS NOT NULL",
            f"{least} < {low}", f"'the least value is ' || {least} || ', ' || series_type || ' is never below ' || {low}",
            "share whose values their kind can have", "no series is in the unit of a known kind", _FORM,
        ),
        Check(
            "anomaly_count", "consistency", "series", "records", "anomaly_count IS NOT NULL",
            f"try_cast(anomaly_count AS BIGINT) <> {marks}",
            f"'anomaly_count is ' || anomaly_count || ', there are ' || {marks}",
            "share that list as many anomalies as they count", "no series counts anomalies", _FORM,
        ),
        Check(
            "anomaly_effect", "consistency", "anomalies", "anomalies", "effect IS NOT NULL",
            f"try_cast(effect AS DOUBLE) < {LEAST_EFFECT}",
            "'anomaly ' || position || ' changes its series by ' || effect || ' residuals only'",
            f"share of anomalies that change their series by {LEAST_EFFECT:g} residuals or more", "no series has anomalies",
        ),
        Check(
            "measured", "completeness", "series", "records", "target IS NOT NULL",
            f"{least} IS NULL", "'no value was measured'", "share with values", "no series has values", _FORM,
        ),
    ]  # fmt: skip
