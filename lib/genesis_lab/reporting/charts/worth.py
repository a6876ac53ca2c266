"""What a dataset is worth: against real labelled examples, and as it grows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import figure_text
from genesis_lab.reporting.style import INK, SERIES
from genesis_lab.reporting.tables import interval_text

_LEGEND_INSIDE: dict[str, Any] = {
    "showlegend": True, "legend_orientation": "v", "legend_x": 1, "legend_xanchor": "right", "legend_y": 0.02,
    "legend_yanchor": "bottom", "legend_bgcolor": "rgba(255,255,255,0.8)",
}  # fmt: skip
"""These curves rise to the right: the corner below them is free, and long names of students fit there."""


@dataclass(frozen=True)
class Mark:
    """Where a dataset stands on a student's k-shot curve.

    `score` (with `low`, `high`) is on the real test set in [0, 1]; `k` (with `k_low`, `k_high`) is the number of real
    examples per intent with the same score, None where it is off the curve.
    """

    score: float
    low: float | None = None
    high: float | None = None
    k: float | None = None
    k_low: float | None = None
    k_high: float | None = None


def k_shot_curve(
    curves: Mapping[str, pd.DataFrame],
    marks: Mapping[str, Mark] | None = None,
    *,
    floors: Mapping[str, float] | None = None,
    metric: str = "accuracy",
    title: str | None = None,
) -> go.Figure:
    """Score of students taught with k real examples per intent, and where the synthetic dataset stands.

    Parameters
    ----------
    curves : student to a frame with columns ``k``, ``score`` and, where known, ``low`` and ``high``.
    marks : student to the synthetic dataset's `Mark`, drawn in the student's colour as a diamond with its intervals.
    floors : student to the score of the label names alone, a dotted line in the student's colour.
    """
    marks = marks or {}
    traces: list[go.Scatter] = []
    ks = sorted({float(k) for frame in curves.values() for k in frame["k"]})
    for i, (student, frame) in enumerate(curves.items()):
        colour = SERIES[i % len(SERIES)]
        traces += _band(frame.sort_values("k"), "k", figure_text(student), colour)
    for i, student in enumerate(curves):
        mark = marks.get(student)
        if mark is not None:
            traces.append(_diamond(mark, figure_text(student), SERIES[i % len(SERIES)], ks[-1] if ks else 1.0))
    shapes, notes = [], []
    for i, student in enumerate(curves):
        floor = (floors or {}).get(student)
        if floor is None:
            continue
        colour = SERIES[i % len(SERIES)]
        shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": floor, "y1": floor,
                       "line": {"color": colour, "dash": "dot", "width": 1.2}})  # fmt: skip
        notes.append({"xref": "paper", "x": 1, "y": floor, "xanchor": "right", "yanchor": "bottom", "showarrow": False,
                      "text": f"label names alone {floor:.2f}", "font": {"size": 11, "color": colour}})  # fmt: skip
    if title is None:
        title = _worth(marks) or f"{metric.capitalize()} by real examples per intent"
    return figure(
        traces, title=title, height=430, shapes=shapes, annotations=notes, **_LEGEND_INSIDE,
        xaxis={"type": "log", "tickvals": ks, "ticktext": [f"{k:g}" for k in ks],
               "title": {"text": "real labelled examples per intent (log scale)"}},
        yaxis={"title": {"text": f"{metric} on real data"}, "tickformat": ".2f"},
    )  # fmt: skip


def learning_curve(
    curves: Mapping[str, pd.DataFrame], *, metric: str = "accuracy", unit: str = "synthetic conversations",
    title: str | None = None,
) -> go.Figure:  # fmt: skip
    """Score by the number of records trained on.

    Parameters
    ----------
    curves : name (student, classifier) to a frame with columns ``n``, ``score`` and, where known, ``low`` and ``high``.
    """
    traces: list[go.Scatter] = []
    for i, (name, frame) in enumerate(curves.items()):
        traces += _band(frame.sort_values("n"), "n", figure_text(name), SERIES[i % len(SERIES)])
    ns = sorted({int(n) for frame in curves.values() for n in frame["n"]})
    if title is None:
        title = f"{metric.capitalize()} by number of {unit}"
        last = {name: f.sort_values("n").tail(2) for name, f in curves.items() if len(f) > 1}
        if last:
            name, two = max(last.items(), key=lambda item: float(item[1]["score"].iloc[-1]))
            before, after = (float(v) for v in two["score"])
            first, final = (f"{int(n):,}" for n in two["n"])
            step = f"From {first} to {final} {unit} the {metric} of {figure_text(name)}"
            change = f"rises by {after - before:.3f}" if after > before else "does not rise"
            title = f"{step} {change}"
    wide = len(ns) > 2 and ns[0] > 0 and ns[-1] / ns[0] >= 8
    return figure(
        traces, title=title, height=380, **_LEGEND_INSIDE,
        xaxis={"type": "log" if wide else "linear", "tickvals": ns, "ticktext": [f"{n:,}" for n in ns],
               "title": {"text": f"{unit}{' (log scale)' if wide else ''}"}},
        yaxis={"title": {"text": metric}, "tickformat": ".2f"},
    )  # fmt: skip


def _band(frame: pd.DataFrame, x: str, name: str, colour: str) -> list[go.Scatter]:
    xs, ys = frame[x].astype(float).tolist(), frame["score"].astype(float).tolist()
    traces = []
    if {"low", "high"} <= set(frame.columns):
        red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
        edges = frame["high"].astype(float).tolist() + frame["low"].astype(float).tolist()[::-1]
        traces.append(
            go.Scatter(
                x=xs + xs[::-1],
                y=edges,
                fill="toself",
                fillcolor=f"rgba({red},{green},{blue},0.15)",
                line={"width": 0},
                mode="lines",
                showlegend=False,
                hoverinfo="skip",
            )
        )
    line = go.Scatter(
        x=xs, y=ys, mode="lines+markers", name=name, line={"color": colour, "width": 2}, marker={"size": 6},
        hovertemplate="%{x:,}: %{y:.3f}<extra>" + name + "</extra>",
    )  # fmt: skip
    return [*traces, line]


def _diamond(mark: Mark, student: str, colour: str, last_k: float) -> go.Scatter:
    x = mark.k if mark.k is not None else last_k
    sideways = None
    if mark.k is not None and mark.k_low is not None and mark.k_high is not None:
        sideways = {"type": "data", "symmetric": False, "array": [mark.k_high - x], "arrayminus": [x - mark.k_low],
                    "color": INK, "thickness": 1.5, "width": 4}  # fmt: skip
    upright = None
    if mark.low is not None and mark.high is not None:
        upright = {"type": "data", "symmetric": False, "array": [mark.high - mark.score],
                   "arrayminus": [mark.score - mark.low], "color": INK, "thickness": 1.5, "width": 4}  # fmt: skip
    return go.Scatter(
        x=[x], y=[mark.score], error_x=sideways, error_y=upright, mode="markers", name=f"this dataset, {student}",
        marker={"symbol": "diamond", "size": 13, "color": colour, "line": {"color": INK, "width": 1.5}},
        hovertemplate=f"this dataset, {student}: {interval_text(mark.score, mark.low, mark.high)}<extra></extra>",
    )  # fmt: skip


def _worth(marks: Mapping[str, Mark]) -> str | None:
    known = {s: m for s, m in marks.items() if m.k is not None and not math.isnan(m.k)}
    if not known:
        return None
    student, mark = max(known.items(), key=lambda item: item[1].score)
    worth = interval_text(mark.k, mark.k_low, mark.k_high, digits=1)
    return f"Worth {worth} real labelled examples per intent ({figure_text(student)})"
