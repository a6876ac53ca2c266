"""Datasets side by side."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import figure_text
from genesis_lab.reporting.style import SERIES
from genesis_lab.reporting.tables import interval_text


def compare_scores(scores: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """Scores in [0, 1] of datasets, one row per metric and one colour per dataset, with intervals where given.

    Parameters
    ----------
    scores : columns ``metric``, ``dataset``, ``value`` and, where known, ``low``, ``high``; missing values stay out.
    """
    datasets = list(dict.fromkeys(scores["dataset"]))
    metrics = list(dict.fromkeys(scores["metric"]))
    with_intervals = {"low", "high"} <= set(scores.columns)
    traces = []
    for i, dataset in enumerate(datasets):
        part = scores[(scores["dataset"] == dataset) & scores["value"].notna()]
        # datasets one below the other within a metric's row
        offset = (i - (len(datasets) - 1) / 2) * 0.5 / max(len(datasets), 1)
        values = part["value"].astype(float)
        traces.append(
            go.Scatter(
                x=values.tolist(),
                y=[metrics.index(m) + offset for m in part["metric"]],
                mode="markers",
                name=figure_text(dataset),
                marker={"size": 10, "color": SERIES[i % len(SERIES)], "symbol": i % 5},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 2,
                    "width": 0,
                    "array": (part["high"] - values).clip(lower=0).fillna(0).tolist(),
                    "arrayminus": (values - part["low"]).clip(lower=0).fillna(0).tolist(),
                }
                if with_intervals
                else None,
                customdata=[
                    f"{figure_text(r['metric'])} {interval_text(r['value'], r.get('low'), r.get('high'))}"
                    for r in part.to_dict("records")
                ],
                hovertemplate="%{customdata}<extra>" + figure_text(dataset) + "</extra>",
            )
        )
    if title is None:
        title = "Scores side by side"
        wide = scores.pivot_table(index="metric", columns="dataset", values="value", sort=False).dropna()
        if len(wide) and len(datasets) == 2:
            gap = (wide[datasets[0]] - wide[datasets[1]]).abs()
            title = f"The datasets differ most in {figure_text(gap.idxmax())} (by {gap.max():.2f})"
    return figure(
        traces, title=title, height=118 + 34 * max(len(metrics), 1), legend=True,
        xaxis={"range": [0, 1.02], "title": {"text": "score"}},
        yaxis={"tickvals": list(range(len(metrics))), "ticktext": [figure_text(m) for m in metrics], "ticksuffix": " ",
               "range": [len(metrics) - 0.5, -0.5]},
    )  # fmt: skip


def compare_distributions(
    shares: Mapping[str, Mapping[str, float]], name: str, *, title: str | None = None
) -> go.Figure:
    """Shares of an attribute's values in several datasets ({dataset: {value: share}}), bars side by side."""
    values = list(dict.fromkeys(v for one in shares.values() for v in one))
    traces = [
        go.Bar(
            y=[figure_text(v) for v in values],
            x=[float(one.get(v, 0.0)) for v in values],
            orientation="h",
            name=figure_text(dataset),
            marker={"color": SERIES[i % len(SERIES)]},
            hovertemplate="%{y}: %{x:.1%}<extra>" + figure_text(dataset) + "</extra>",
        )
        for i, (dataset, one) in enumerate(shares.items())
    ]
    if title is None:
        gaps = {
            v: max(o.get(v, 0.0) for o in shares.values()) - min(o.get(v, 0.0) for o in shares.values()) for v in values
        }
        widest = max(gaps, key=lambda v: gaps[v], default="")
        subject = figure_text(name).capitalize()
        same = not gaps or gaps[widest] < 0.005
        title = f"{subject}: the same in all" if same else (
            f"{subject} differs most in {figure_text(widest)} (by {100 * gaps[widest]:.0f} points)"
        )  # fmt: skip
    return figure(
        traces, title=title, height=118 + (8 + 16 * len(shares)) * max(len(values), 1), legend=True, barmode="group",
        xaxis={"tickformat": ".0%", "title": {"text": "share of conversations"}}, bargap=0.25,
        yaxis={"type": "category", "autorange": "reversed", "ticksuffix": " ", "showgrid": False},
    )  # fmt: skip
