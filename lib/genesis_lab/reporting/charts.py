"""The five charts: dots, lines, bars, stack, heat. Each takes plain data and draws it; what its title says is the caller's.

A value is a number or an interval (see `html.ends`), and shares and scores are in [0, 1]. All text is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure, figure_text
from genesis_lab.reporting.html import ends, interval_text
from genesis_lab.reporting.style import BLUE, DARK, INK, LINE, MEANING, MUTED, SEQUENTIAL, SERIES

_NAMES: dict[str, Any] = {
    "type": "category", "autorange": "reversed", "showgrid": False, "ticks": "", "linecolor": LINE, "ticksuffix": " ",
    "dtick": 1,
}  # fmt: skip
UNIT = (-0.02, 1.02)
"""The axis of a score."""


def dots(
    rows: Sequence[Mapping[str, Any]], *, title: str, axis: str, subtitle: str = "", span: tuple[float, float] | None = UNIT,
    band: float = 0.0, spec: str = ",.2f",
) -> go.Figure:  # fmt: skip
    """A dot with its interval in each row: scores, parts, shares against their targets, differences.

    Parameters
    ----------
    rows : each with ``name`` and ``value``; where known ``of`` (the series: its colour), ``target`` (a tick), ``colour``,
        ``note``. A value of None is not drawn but named below the title.
    span : of the axis; None: as far as the intervals reach, to both sides of zero alike.
    band : half the width of a grey band around zero, in which a difference would not matter.
    """
    names = list(dict.fromkeys(row["name"] for row in rows))
    series = list(dict.fromkeys(row.get("of", "") for row in rows))
    traces, reach = [], band
    for i, one in enumerate(series):
        drawn = [row for row in rows if row.get("of", "") == one and ends(row["value"])[0] is not None]
        colours = [row.get("colour") or SERIES[i % len(SERIES)] for row in drawn]
        values = [ends(row["value"])[0] or 0.0 for row in drawn]
        y = [names.index(row["name"]) + (i - (len(series) - 1) / 2) * 0.5 / len(series) for row in drawn]
        notes = [row.get("note") or interval_text(row["value"], spec) for row in drawn]
        said = [f"{figure_text(row['name'])}: {figure_text(note, 200)}" for row, note in zip(drawn, notes, strict=True)]
        marker = {"size": 10, "color": colours, "symbol": i % 5}
        shape: dict[str, Any] = {"marker": marker, "customdata": said, "hovertemplate": "%{customdata}<extra></extra>"}
        error = _error([row["value"] for row in drawn])
        traces.append(go.Scatter(x=values, y=y, mode="markers", name=figure_text(one), error_x=error, **shape))
        reach = max([reach, *(abs(end) for row in drawn for end in ends(row["value"]) if end is not None)])
    aims = [(row["target"], names.index(row["name"])) for row in rows if row.get("target") is not None]
    if aims:
        tick = {"symbol": "line-ns", "size": 16, "line": {"color": INK, "width": 2.5}}
        aim = go.Scatter(x=[x for x, _ in aims], y=[y for _, y in aims], mode="markers", name="target", marker=tick)
        traces[0].name = traces[0].name or "observed"
        traces.append(aim)
    missing = list(dict.fromkeys(row["name"] for row in rows if ends(row["value"])[0] is None))
    below = "; ".join(
        [*([subtitle] if subtitle else []), *([f"not measured: {', '.join(missing)}"] if missing else [])]
    )
    step = (24 if len(names) <= 20 else 18) + 10 * (len(series) - 1)
    return figure(
        traces, title=title, subtitle=below, height=100 + step * max(len(names), 2), legend=len(series) > 1 or bool(aims),
        shapes=[_box(-band, band), _upright(0.0)] if span is None else [],
        xaxis={"range": list(span or (-1.08 * reach, 1.08 * reach)), "title": {"text": figure_text(axis, 90)}}
        | ({"tickformat": ".0%"} if "%" in spec else {}),
        yaxis={"tickvals": list(range(len(names))), "ticktext": [figure_text(name) for name in names], "ticksuffix": " ",
               "range": [len(names) - 0.5, -0.5]},
    )  # fmt: skip


def lines(
    curves: Mapping[str, Sequence[tuple[float, Any]]], *, title: str, x: str, y: str, subtitle: str = "",
    log: bool = False, ticks: bool = False, looks: Mapping[str, Mapping[str, Any]] | None = None,
    marks: Mapping[str, tuple[Any, Any]] | None = None, levels: Mapping[str, float] | None = None, **layout: Any,
) -> go.Figure:  # fmt: skip
    """A line for each curve, with a band where its values are intervals.

    Parameters
    ----------
    curves : name to points, each an x and a value.
    ticks : name every x on the axis.
    looks : name of a curve to what plotly shall do otherwise, for example ``{"mode": "lines"}``.
    marks : label to an x and a y, either of which may be an interval: a diamond in the colour of the curve at its place.
    levels : label to a y: dotted lines across.
    """
    traces, looks = [], looks or {}
    for i, (name, given) in enumerate(curves.items()):
        points = sorted(given, key=lambda point: point[0])
        colour = (looks.get(name, {}).get("line") or {}).get("color", SERIES[i % len(SERIES)])
        xs, values = [point[0] for point in points], [ends(value) for _, value in points]
        if values and all(low is not None for _, low, _ in values):
            red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
            edge = [high for *_, high in values] + [low for _, low, _ in values][::-1]
            fill = {"fill": "toself", "fillcolor": f"rgba({red},{green},{blue},0.15)", "line": {"width": 0}}
            traces.append(go.Scatter(x=xs + xs[::-1], y=edge, mode="lines", showlegend=False, hoverinfo="skip", **fill))
        look: dict[str, Any] = {
            "mode": "lines+markers", "line": {"color": colour, "width": 2}, "marker": {"size": 7, "color": colour},
            "customdata": [interval_text(value, ",.3f") for _, value in points],
            "hovertemplate": f"%{{x:,}}: %{{customdata}}<extra>{figure_text(name)}</extra>",
        }  # fmt: skip
        given_y = [estimate for estimate, *_ in values]
        traces.append(go.Scatter(x=xs, y=given_y, name=figure_text(name), **look | dict(looks.get(name, {}))))
    for i, (label, (at_x, at_y)) in enumerate((marks or {}).items()):
        diamond = {
            "symbol": "diamond",
            "size": 13,
            "color": SERIES[i % len(SERIES)],
            "line": {"color": INK, "width": 1.5},
        }
        error: dict[str, Any] = {"error_x": _error([at_x], INK), "error_y": _error([at_y], INK), "marker": diamond}
        traces.append(
            go.Scatter(x=[ends(at_x)[0]], y=[ends(at_y)[0]], mode="markers", name=figure_text(label), **error)
        )
    shapes = [_across(level) for level in (levels or {}).values()]
    notes = [
        {"xref": "paper", "x": 1, "y": level, "xanchor": "right", "yanchor": "bottom", "showarrow": False,
         "text": figure_text(label), "font": {"size": 11, "color": MUTED}}
        for label, level in (levels or {}).items()
    ]  # fmt: skip
    every = sorted({point[0] for points in curves.values() for point in points})
    wide = log and len(every) > 2 and every[0] > 0 and every[-1] / every[0] >= 8
    axis: dict[str, Any] = {
        "type": "log" if wide else "linear",
        "title": {"text": f"{figure_text(x)}{' (log scale)' if wide else ''}"},
    }
    if ticks:
        axis |= {"tickvals": every, "ticktext": [f"{value:,g}" for value in every]}
    legend = len(curves) + len(marks or {}) > 1
    below = {"legend_orientation": "v", "legend_x": 0, "legend_y": -0.2, "legend_yanchor": "top"} if marks else {}
    return figure(
        traces, title=title, subtitle=subtitle, height=470 if marks else 360, legend=legend, shapes=shapes + layout.pop("shapes", []),
        annotations=notes, xaxis=axis | layout.pop("xaxis", {}),
        yaxis={"title": {"text": figure_text(y)}, "tickformat": ".2f"} | layout.pop("yaxis", {}), **below, **layout,
    )  # fmt: skip


def bars(counts: Mapping[str, Any], *, title: str, axis: str, subtitle: str = "", spec: str = ",") -> go.Figure:
    """A bar for each name, with what it counts and its share; of several series ({series: {name: number}}), side by side."""
    several = counts if any(isinstance(one, Mapping) for one in counts.values()) else {"": counts}
    names = list(dict.fromkeys(name for one in several.values() for name in one))
    traces = []
    for i, (series, one) in enumerate(several.items()):
        values = [float(one.get(name, 0)) for name in names]
        total = sum(values)
        alone = len(several) == 1 and len(names) <= 30 and "%" not in spec
        text = [f"{value:,.0f} · {value / total:.1%}" if total else "0" for value in values] if alone else None
        meant = all(name in MEANING for name in names) and len(several) == 1
        colour: Any = [MEANING[name] for name in names] if meant else SERIES[i % len(SERIES)]
        traces.append(
            go.Bar(
                x=values, y=[figure_text(name, 40) for name in names], orientation="h", name=figure_text(series),
                marker={"color": colour}, text=text, textposition="outside", cliponaxis=False,
                hovertemplate=f"%{{y}}: %{{x:{spec}}}<extra>{figure_text(series)}</extra>",
            )
        )  # fmt: skip
    most = max([0.01 if "%" in spec else 1, *(value for trace in traces for value in trace.x)])
    row = (26 if len(names) <= 30 else 14) + 12 * (len(several) - 1)
    return figure(
        traces, title=title, subtitle=subtitle, height=90 + row * max(len(names), 1), legend=len(several) > 1, bargap=0.3,
        xaxis={"title": {"text": figure_text(axis)}, "range": [0, 1.22 * most], "tickformat": spec},
        yaxis=_NAMES | ({"tickfont": {"size": 10}} if len(names) > 30 else {}), barmode="group",
    )  # fmt: skip


def stack(parts: Mapping[str, Mapping[Any, float]], *, title: str, unit: str) -> go.Figure:
    """A 100 % bar for each attribute, cut into its values: the dataset at a glance."""
    traces, order = [], {value: place for place, value in enumerate(MEANING)}
    for row, counts in parts.items():
        values = sorted(
            ((str(k), float(v)) for k, v in counts.items()), key=lambda item: order.get(item[0], len(order))
        )
        total, start = sum(v for _, v in values) or 1.0, 0.0
        for i, (value, count) in enumerate(values):
            share, colour = count / total, MEANING.get(value, SERIES[i % len(SERIES)])
            traces.append(
                go.Bar(
                    y=[figure_text(row)], x=[share], base=[start], orientation="h", textposition="inside", textangle=0,
                    marker={"color": colour, "line": {"color": "white", "width": 2}}, insidetextanchor="middle",
                    text=[f"{figure_text(value)} {share:.0%}" if share >= 0.09 else ""],
                    textfont={"color": "white" if colour in DARK else INK},
                    hovertemplate=f"{figure_text(value)}: {share:.1%} ({count:,.0f})<extra></extra>",
                )
            )  # fmt: skip
            start += share
    return figure(
        traces, title=title, height=80 + 38 * max(len(parts), 1), barmode="overlay", bargap=0.25, yaxis=_NAMES,
        xaxis={"tickformat": ".0%", "range": [0, 1], "showgrid": False, "title": {"text": f"share of {figure_text(unit)}"}},
    )  # fmt: skip


def heat(
    cells: Mapping[tuple[str, str], float], *, title: str, measure: str, subtitle: str = "", x: str = "", y: str = ""
) -> go.Figure:
    """A square of names; a cell is in [0, 1], one that is missing stays empty."""
    names = list(dict.fromkeys(name for pair in cells for name in pair))
    labels = [figure_text(name, 40) for name in names]
    drawn = go.Heatmap(
        z=[[cells.get((row, column)) for column in names] for row in names], x=labels, y=labels, zmin=0, zmax=1, xgap=1,
        ygap=1, hoverongaps=False, colorscale=[[i / 4, c] for i, c in enumerate(SEQUENTIAL)],
        texttemplate="%{z:.2f}" if len(names) <= 12 else "", hovertemplate="%{y} × %{x}: %{z:.3f}<extra></extra>",
        colorbar={"title": {"text": figure_text(measure), "side": "right"}, "thickness": 10, "outlinewidth": 0},
    )  # fmt: skip
    font = {"tickfont": {"size": 10}} if len(names) > 12 else {}
    return figure(
        [drawn], title=title, subtitle=subtitle, height=230 + 17 * max(len(names), 6),
        xaxis={**_NAMES, "autorange": True, "tickangle": -45, "title": {"text": figure_text(x)}, **font},
        yaxis={**_NAMES, "title": {"text": figure_text(y)}, **font},
    )  # fmt: skip


def _error(values: Sequence[Any], colour: str = MUTED) -> dict[str, Any] | None:
    bounds = [ends(value) for value in values]
    if not any(low is not None for _, low, _ in bounds):
        return None
    up = [max((high or 0) - (v or 0), 0) if high is not None else 0 for v, _, high in bounds]
    down = [max((v or 0) - low, 0) if low is not None else 0 for v, low, _ in bounds]
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 3, "color": colour, "array": up,
            "arrayminus": down}  # fmt: skip


def _box(x0: float, x1: float) -> dict[str, Any]:
    return {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": x0, "x1": x1, "layer": "below", "fillcolor": LINE,
            "opacity": 0.5, "line": {"width": 0}}  # fmt: skip


def _upright(x: float) -> dict[str, Any]:
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": {"color": BLUE, "width": 1}}


def _across(y: float) -> dict[str, Any]:
    line = {"color": MUTED, "dash": "dot", "width": 1.2}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
