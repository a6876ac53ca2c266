"""How good something is: the quality of a dataset, the answers of a classifier."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import figure_text
from genesis_lab.reporting.style import BLUE, LINE, MUTED, SEQUENTIAL, SERIES
from genesis_lab.reporting.tables import interval_text

MAX_CLASSES = 25
"""Classes a confusion heat map shows; of more, those that are confused most often."""

Scores = Mapping[str, float | None]


def quality_radar(scores: Scores | Mapping[str, Scores], *, title: str | None = None) -> go.Figure:
    """Part scores in [0, 1] on axes of a radar: of one dataset, or of several ({dataset: scores}).

    What was not measured (None) has no axis and is named below the title.
    """
    several: dict[str, Scores] = {"": scores} if not _nested(scores) else dict(scores)  # type: ignore[arg-type, dict-item]
    parts = list(dict.fromkeys(part for one in several.values() for part in one))
    missing = [p for p in parts if any(one.get(p) is None for one in several.values())]
    axes = [p for p in parts if p not in missing]
    only = next(iter(several.values())) if len(several) == 1 else None
    names = {p: figure_text(p) + (f"<br>{only[p]:.2f}" if only else "") for p in axes}
    traces = []
    for i, (name, one) in enumerate(several.items()):
        values = [float(one[p] or 0) for p in axes]
        traces.append(
            go.Scatterpolar(
                r=values + values[:1],
                theta=[names[p] for p in axes + axes[:1]],
                name=figure_text(name),
                mode="lines+markers",
                fill="toself",
                opacity=0.75,
                line={"color": SERIES[i % len(SERIES)], "width": 2},
                marker={"size": 6},
                hovertemplate="%{theta}: %{r:.3f}<extra></extra>",
            )
        )
    if title is None:
        lowest = min(axes, key=lambda p: min(float(one[p] or 0) for one in several.values()), default=None)
        title = "Nothing was measured" if lowest is None else f"Weakest part: {figure_text(lowest)}"
    note = f"not measured: {', '.join(map(figure_text, missing))}" if missing else ""
    return figure(
        traces, title=title, subtitle=note, height=360, legend=len(several) > 1, margin={"l": 90, "r": 90, "b": 40},
        legend_orientation="v", legend_x=0, legend_y=1,
        polar={
            "bgcolor": "white",
            "radialaxis": {"range": [0, 1], "tickvals": [0.25, 0.5, 0.75, 1], "gridcolor": LINE, "linecolor": LINE,
                           "tickfont": {"size": 10, "color": MUTED}, "angle": 45, "tickangle": 45, "ticks": ""},
            "angularaxis": {"gridcolor": LINE, "linecolor": LINE, "ticks": ""},
        },
    )  # fmt: skip


def score_list(
    scores: pd.DataFrame, *, label: str, value: str = "score", low: str = "low", high: str = "high",
    axis: str = "score", title: str | None = None, limit: int = 20,
) -> go.Figure:  # fmt: skip
    """Dots with intervals, one row per label, lowest first: worst intents, parts of a score, language results.

    Parameters
    ----------
    scores : columns `label` and `value`, and `low` and `high` where there are intervals.
    """
    frame = scores[scores[value].notna()].sort_values([value, label], kind="stable").head(limit)
    with_intervals = {low, high} <= set(frame.columns)
    dots = go.Scatter(
        y=[figure_text(v) for v in frame[label]],
        x=frame[value].astype(float).tolist(),
        mode="markers",
        marker={"color": BLUE, "size": 9},
        error_x={
            "type": "data", "symmetric": False, "color": "#86aad0", "thickness": 2, "width": 0,
            "array": (frame[high] - frame[value]).clip(lower=0).fillna(0).tolist(),
            "arrayminus": (frame[value] - frame[low]).clip(lower=0).fillna(0).tolist(),
        } if with_intervals else None,
        customdata=[
            interval_text(r[value], r.get(low), r.get(high)) for r in frame.to_dict("records")
        ],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )  # fmt: skip
    if title is None:
        first = frame.to_dict("records")[0] if len(frame) else None
        title = (
            f"Lowest {figure_text(axis)}: {figure_text(first[label])} ({first[value]:.2f})"
            if first
            else "Nothing measured"
        )
    return figure(
        [dots], title=title, height=92 + 20 * max(len(frame), 2),
        xaxis={"range": [-0.02, 1.02], "title": {"text": figure_text(axis)}},
        yaxis={"type": "category", "autorange": "reversed", "ticksuffix": " ", "dtick": 1},
    )  # fmt: skip


def confusion_heatmap(matrix: pd.DataFrame, *, title: str | None = None, limit: int = MAX_CLASSES) -> go.Figure:
    """Who is taken for whom: rows are true classes, columns predicted ones, cells the share of the row.

    Parameters
    ----------
    matrix : square, counts, the same labels in rows and columns.
    limit : of more classes than this, those in the most frequent confusions are shown; the text below the title says so.
    """
    counts = matrix.reindex(columns=matrix.index, fill_value=0).astype(float)
    share = counts.div(counts.sum(axis=1).replace(0, float("nan")), axis=0)
    errors = counts.copy()
    for label in counts.index:
        errors.at[label, label] = 0.0
    worst = errors.stack()
    pair = worst.idxmax() if len(worst) and worst.max() > 0 else None
    kept, note = list(counts.index), ""
    if len(kept) > limit:
        pairs = worst[worst > 0].sort_values(ascending=False, kind="stable").index
        most = set(list(dict.fromkeys(label for both in pairs for label in both))[:limit])
        kept = [c for c in kept if c in most]
        note = f"the {len(kept)} of {len(counts)} classes in the most frequent confusions"
    shown = share.loc[kept, kept]
    labels = [figure_text(k, 40) for k in kept]
    heat = go.Heatmap(
        z=[[None if pd.isna(v) or v == 0 else round(float(v), 3) for v in row] for row in shown.to_numpy().tolist()],
        x=labels, y=labels, zmin=0, zmax=1, xgap=1, ygap=1, hoverongaps=False,
        colorscale=[[i / 4, c] for i, c in enumerate(SEQUENTIAL)],
        texttemplate="%{z:.2f}" if len(kept) <= 12 else "",
        colorbar={"title": {"text": "share of true class", "side": "right"}, "thickness": 10, "outlinewidth": 0,
                  "tickformat": ".0%"},
        hovertemplate="%{y} taken for %{x}: %{z:.1%}<extra></extra>",
    )  # fmt: skip
    if title is None:
        title = "No class is taken for another"
        if pair is not None:
            often, all_ = int(counts.at[pair]), int(counts.loc[pair[0]].sum())
            title = f"Most often confused: {figure_text(pair[0])} taken for {figure_text(pair[1])} ({often} of {all_})"
    axis = {
        "type": "category",
        "showgrid": False,
        "ticks": "",
        "tickfont": {"size": 10 if len(kept) > 12 else 12},
        "dtick": 1,
    }
    return figure(
        [heat], title=title, subtitle=note, height=230 + 17 * max(len(kept), 6),
        xaxis={**axis, "tickangle": -45, "title": {"text": "predicted"}},
        yaxis={**axis, "autorange": "reversed", "title": {"text": "true"}},
    )  # fmt: skip


def calibration(bins: pd.DataFrame, *, title: str | None = None) -> go.Figure:
    """How often a classifier is right when it says how sure it is.

    Parameters
    ----------
    bins : columns ``confidence`` and ``accuracy`` (means per bin, in [0, 1]) and ``n``.
    """
    filled = bins[bins["n"] > 0]
    diagonal = go.Scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": LINE, "dash": "dash"},
        name="as sure as it is right",
        hoverinfo="skip",
    )
    points = go.Scatter(
        x=filled["confidence"].tolist(), y=filled["accuracy"].tolist(), mode="lines+markers", name="classifier",
        line={"color": BLUE}, marker={"size": 8}, customdata=filled["n"].tolist(),
        hovertemplate="says %{x:.0%}, right %{y:.0%} (n = %{customdata:,})<extra></extra>",
    )  # fmt: skip
    if title is None:
        n = filled["n"].sum()
        gap = float(((filled["confidence"] - filled["accuracy"]) * filled["n"]).sum() / n) if n else 0.0
        kind = (
            "surer than it is right"
            if gap > 0.02
            else "less sure than it is right"
            if gap < -0.02
            else "about as sure as right"
        )
        title = f"The classifier is {kind}" + (f" (by {abs(gap):.0%} on average)" if abs(gap) > 0.02 else "")
    return figure(
        [diagonal, points], title=title, height=340, legend=True,
        xaxis={"range": [-0.02, 1.02], "tickformat": ".0%", "title": {"text": "confidence"}},
        yaxis={"range": [-0.02, 1.02], "tickformat": ".0%", "title": {"text": "accuracy"}},
    )  # fmt: skip


def _nested(scores: object) -> bool:
    return isinstance(scores, Mapping) and any(isinstance(v, Mapping) for v in scores.values())
