"""What a dataset is made of: counts, shares, targets and associations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import figure_text
from genesis_lab.reporting.style import BLUE, INK, LINE, MEANING, MUTED, SEQUENTIAL, SERIES

Counts: TypeAlias = Mapping[str, int] | pd.Series

_ROW = 26
_THIN_ROW = 14


def distribution(
    counts: Counts, name: str, *, title: str | None = None, unit: str = "conversations", colour: str = BLUE
) -> go.Figure:
    """Horizontal bars, one per value, with count and share: sentiment, language, complexity, category …

    Values that always have the same colour (``positive``, ``en`` …) keep it. Order is as given.
    """
    values = {str(k): int(v) for k, v in dict(counts).items()}
    total = sum(values.values())
    colours = [MEANING.get(k, colour) for k in values] if all(k in MEANING for k in values) else colour
    bars = go.Bar(
        y=[figure_text(k) for k in values],
        x=list(values.values()),
        orientation="h",
        marker={"color": colours},
        text=[f"{v:,} · {_percent(v, total)}" for v in values.values()],
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:,}<extra></extra>",
    )
    if title is None:
        biggest = max(values, key=lambda k: values[k], default="")
        gap = max(values.values(), default=0) - min(values.values(), default=0)
        even = len(values) > 1 and gap <= (1 if total >= 20 * len(values) else 0)
        says = (
            "evenly spread"
            if even
            else f"most often {figure_text(biggest)} ({_percent(values.get(biggest, 0), total)})"
        )
        title = f"{figure_text(name).capitalize()}: {says}" if values else f"{figure_text(name).capitalize()}: no data"
    return figure(
        [bars],
        title=title,
        height=86 + _ROW * max(len(values), 1),
        xaxis={"title": {"text": unit}, "range": [0, 1.22 * max([1, *values.values()])]},
        yaxis=_labels(),
        bargap=0.3,
    )


def composition(
    parts: Mapping[str, Counts], *, title: str = "What the dataset is made of", unit: str = "conversations"
) -> go.Figure:
    """One 100 % bar per attribute, each cut into its values: the dataset at a glance."""
    traces, rows = [], list(parts)
    for row, counts in parts.items():
        values = {str(k): float(v) for k, v in dict(counts).items()}
        total = sum(values.values()) or 1.0
        start = 0.0
        for i, (value, count) in enumerate(values.items()):
            share = count / total
            colour = MEANING.get(value, SERIES[i % len(SERIES)])
            traces.append(
                go.Bar(
                    y=[figure_text(row)],
                    x=[share],
                    base=[start],
                    orientation="h",
                    marker={"color": colour, "line": {"color": "white", "width": 2}},
                    text=[f"{figure_text(value)} {share:.0%}"] if share >= 0.09 else [""],
                    textposition="inside",
                    insidetextanchor="middle",
                    textangle=0,
                    textfont={"color": "white" if colour in _DARK else INK},
                    hovertemplate=f"{figure_text(value)}: {share:.1%}<extra></extra>",
                )
            )
            start += share
    return figure(
        traces,
        title=title,
        height=70 + 38 * len(rows),
        xaxis={"tickformat": ".0%", "range": [0, 1], "showgrid": False, "title": {"text": f"share of {unit}"}},
        yaxis=_labels(),
        barmode="overlay",
        bargap=0.25,
    )


def intent_distribution(
    counts: Counts | pd.DataFrame, category_of: Mapping[str, str] | None = None, *, title: str | None = None,
    unit: str = "conversations",
) -> go.Figure:  # fmt: skip
    """Every intent with its count, in two columns, by category.

    Parameters
    ----------
    counts : per intent; a DataFrame (index intent, one column per language) is stacked.
    category_of : intent to category.
    """
    frame = pd.DataFrame(
        counts if isinstance(counts, pd.DataFrame) else {"all": pd.Series(dict(counts), dtype="int64")}
    )
    totals = frame.sum(axis=1)
    groups: dict[str, list[str]] = {}
    for intent in frame.index:
        groups.setdefault((category_of or {}).get(intent, ""), []).append(intent)
    blocks = [([f"<b>{figure_text(name, 28)}</b>"] if name else [], members) for name, members in groups.items()]
    columns = _two_columns(blocks) if len(frame) > 20 else [blocks]
    traces = []
    for side, column in enumerate(columns):
        for i, part in enumerate(frame.columns):
            labels: list[str] = []
            lengths: list[float | None] = []
            for heading, members in column:
                labels += heading + [figure_text(m, 40) for m in members]
                lengths += [None for _ in heading] + [int(frame.at[m, part]) for m in members]
            traces.append(
                go.Bar(
                    y=labels,
                    x=lengths,
                    orientation="h",
                    name=figure_text(part),
                    marker={"color": MEANING.get(str(part), SERIES[i % len(SERIES)])},
                    showlegend=side == 0,
                    xaxis="x2" if side else "x",
                    yaxis="y2" if side else "y",
                    hovertemplate="%{y}: %{x:,}<extra>"
                    + ("" if len(frame.columns) == 1 else figure_text(part))
                    + "</extra>",
                )
            )
    if title is None:
        low, high = (int(totals.min()), int(totals.max())) if len(totals) else (0, 0)
        each = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        title = f"{len(totals):,} intents with {each} {unit} each"
    top = max([1, *map(int, totals)]) * 1.05
    rows = max([1, *(sum(len(h) + len(m) for h, m in column) for column in columns)])
    # The right column's labels need room between the columns: about 5.4 pixels a character of 500 pixels.
    widest = max((len(m) for _, members in columns[-1] for m in members), default=0)
    gap = min(0.46, (5.4 * min(widest, 40) + 26) / 500)
    domains = [[0, (1 - gap) / 2], [(1 + gap) / 2, 1]] if len(columns) == 2 else [[0, 1]]
    sides = [
        {
            f"xaxis{n}": {"range": [0, top], "domain": domain, "anchor": f"y{n}", "title": {"text": unit}, "nticks": 4},
            f"yaxis{n}": {
                **_labels(), "anchor": f"x{n}", "tickfont": {"size": 10}, "dtick": 1,
                "autorange": False, "range": [rows - 0.5, -0.5],
            },
        }
        for n, domain in zip(("", "2"), domains, strict=False)
    ]  # fmt: skip
    axes: dict[str, Any] = {k: v for side in sides for k, v in side.items()}
    stacked = len(frame.columns) > 1
    return figure(
        traces, title=title, height=110 + _THIN_ROW * rows, legend=stacked, barmode="stack", bargap=0.25,
        legend_traceorder="normal", **axes,
    )  # fmt: skip


def target_vs_observed(
    target: Mapping[str, float],
    observed: Mapping[str, float],
    name: str,
    *,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    title: str | None = None,
) -> go.Figure:
    """Observed shares as bars (with intervals, where given), the target of each as a tick."""
    values = list(dict.fromkeys([*target, *observed]))
    seen = [observed.get(v, 0.0) for v in values]
    error = None
    if intervals:
        bounds = [intervals.get(v, (s, s)) for v, s in zip(values, seen, strict=True)]
        error = {
            "type": "data",
            "symmetric": False,
            "array": [max(high - s, 0) for (_, high), s in zip(bounds, seen, strict=True)],
            "arrayminus": [max(s - low, 0) for (low, _), s in zip(bounds, seen, strict=True)],
            "color": MUTED,
            "thickness": 1.2,
            "width": 3,
        }
    labels = [figure_text(v) for v in values]
    bars = go.Bar(
        y=labels, x=seen, orientation="h", name="observed", marker={"color": "#86aad0"}, error_x=error,
        hovertemplate="%{y}: %{x:.1%} observed<extra></extra>",
    )  # fmt: skip
    aim = [target.get(v) for v in values]
    ticks = go.Scatter(
        y=labels, x=aim, mode="markers", name="target",
        marker={"symbol": "line-ns", "size": 18, "line": {"color": INK, "width": 2.5}},
        hovertemplate="%{y}: %{x:.1%} wanted<extra></extra>",
    )  # fmt: skip
    if title is None:
        gaps = {v: abs(s - t) for v, s, t in zip(values, seen, aim, strict=True) if t is not None}
        worst = max(gaps, key=lambda v: gaps[v], default=None)
        subject = figure_text(name).capitalize()
        title = f"{subject}: no target"
        if worst is not None:
            far = 100 * gaps[worst]
            title = f"{subject} meets its target" if far < 0.05 else (
                f"{subject} is at most {far:.1f} points from its target ({figure_text(worst)})"
            )  # fmt: skip
    height = 118 + (_ROW if len(values) <= 20 else _THIN_ROW + 2) * max(len(values), 1)
    return figure(
        [bars, ticks], title=title, height=height, legend=True, bargap=0.35,
        xaxis={"tickformat": ".0%", "rangemode": "tozero", "title": {"text": "share of records"}},
        yaxis=_labels(),
    )  # fmt: skip


def association_heatmap(
    matrix: pd.DataFrame, *, measure: str = "Cramér's V", top: float = 1.0, title: str | None = None
) -> go.Figure:
    """How strongly attributes go together; NaN cells stay empty.

    Parameters
    ----------
    matrix : rows and columns are attributes (or groups and values), cells in [0, `top`].
    measure : what the cells hold.
    """
    rows, columns = [figure_text(r) for r in matrix.index], [figure_text(c) for c in matrix.columns]
    cells = [[None if pd.isna(v) else float(v) for v in row] for row in matrix.to_numpy().tolist()]
    heat = go.Heatmap(
        z=cells, x=columns, y=rows, zmin=0, zmax=top, xgap=2, ygap=2,
        colorscale=[[i / 4, c] for i, c in enumerate(SEQUENTIAL)],
        texttemplate="%{z:.2f}" if len(rows) * len(columns) <= 150 else "",
        colorbar={"title": {"text": measure, "side": "right"}, "thickness": 10, "outlinewidth": 0, "len": 0.9},
        hovertemplate="%{y} × %{x}: %{z:.3f}<extra></extra>", hoverongaps=False,
    )  # fmt: skip
    if title is None:
        pairs = {
            (r, c): cells[i][j]
            for i, r in enumerate(rows)
            for j, c in enumerate(columns)
            if r != c and cells[i][j] is not None
        }
        strongest = max(pairs, key=lambda p: pairs[p] or 0, default=None)
        title = "No association measured"
        if strongest is not None:
            title = f"Strongest association: {strongest[0]} with {strongest[1]} ({measure} {pairs[strongest]:.2f})"
    return figure(
        [heat], title=title, height=130 + 34 * max(len(rows), 2),
        xaxis={"showgrid": False, "type": "category", "side": "bottom"}, yaxis={**_labels(), "showgrid": False},
    )  # fmt: skip


_DARK = {BLUE, "#ee6677", "#228833", "#aa3377"}


def _labels() -> dict[str, Any]:
    return {
        "type": "category",
        "autorange": "reversed",
        "showgrid": False,
        "ticks": "",
        "linecolor": LINE,
        "ticksuffix": " ",
    }


def _percent(part: float, total: float) -> str:
    return f"{part / total:.1%}" if total else "–"


def _two_columns(blocks: list[tuple[list[str], list[str]]]) -> list[list[tuple[list[str], list[str]]]]:
    """Blocks in order, cut where both columns are most alike in length; a lone long block is cut in the middle."""
    if len(blocks) == 1:
        heading, members = blocks[0]
        half = (len(members) + 1) // 2
        return [[(heading, members[:half])], [(heading, members[half:])]]
    lengths = [len(h) + len(m) for h, m in blocks]
    cut = min(range(1, len(blocks)), key=lambda i: abs(sum(lengths[:i]) - sum(lengths[i:])))
    return [blocks[:cut], blocks[cut:]]
