"""The five charts: dots, lines, bars, stack, panels. Each takes plain data and draws it; what its title says is the caller's.

A value is a number or an interval (see `html.ends`), and shares and scores are in [0, 1]. All text is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure, figure_text
from genesis_lab.reporting.html import ends, interval_text
from genesis_lab.reporting.style import BLUE, GREY, LINE, MEANING, MUTED, RED, SERIES, SHADE, on

_NAMES = {
    "type": "category", "autorange": "reversed", "showgrid": False, "ticks": "", "linecolor": LINE, "ticksuffix": " ",
    "dtick": 1,
}  # fmt: skip
_UNIT = (-0.02, 1.02)


def dots(
    rows: Sequence[Mapping[str, Any]], *, title: str, axis: str, subtitle: str = "", span: tuple[float, float] | None = _UNIT,
    band: float = 0.0, spec: str = ",.2f",
) -> go.Figure:  # fmt: skip
    """A dot with its interval in each row: scores, parts, shares against their targets, differences.

    Parameters
    ----------
    rows : each with ``name`` and ``value``; where known ``of`` (the series: its colour), ``target`` (a tick), ``colour``.
        A value of None is not drawn but named below the title.
    span : of the axis; None: as far as the intervals reach, to both sides of zero alike.
    band : half the width of a grey band around zero, in which a difference would not matter.
    """
    names = list(dict.fromkeys(figure_text(row["name"]) for row in rows))
    series = list(dict.fromkeys(row.get("of", "") for row in rows))
    measured = [row for row in rows if ends(row["value"])[0] is not None]
    aims = [row for row in rows if row.get("target") is not None]
    traces = []
    for i, one in enumerate(series):
        drawn = [row for row in measured if row.get("of", "") == one]
        colours = [row.get("colour", SERIES[i % len(SERIES)]) for row in drawn]
        traces.append(
            go.Scatter(
                x=[ends(row["value"])[0] for row in drawn], y=[figure_text(row["name"]) for row in drawn],
                error_x=_error([row["value"] for row in drawn]), mode="markers", orientation="h",
                marker={"size": 10, "color": colours, "symbol": i % 5}, name=figure_text(one or "observed"),
                customdata=[interval_text(row["value"], spec) for row in drawn],
                hovertemplate="%{y}: %{customdata}<extra></extra>",
            )
        )  # fmt: skip
    if aims:
        tick = {"symbol": "line-ns", "size": 16, "line": {"color": MUTED, "width": 2.5}}
        at, to = [row["target"] for row in aims], [figure_text(row["name"]) for row in aims]
        traces.append(go.Scatter(x=at, y=to, mode="markers", name="target", marker=tick))
    missing = dict.fromkeys(str(row["name"]) for row in rows if row not in measured)
    below = "; ".join(filter(None, [subtitle, f"not measured: {', '.join(missing)}" if missing else ""]))
    reach = 1.08 * max([band, *(abs(end) for row in measured for end in ends(row["value"]) if end is not None)])
    drawn_rows = max(len(names), 2) * ((24 if len(names) <= 20 else 18) + 10 * (len(series) - 1))
    fig = figure(
        traces, title=title, subtitle=below, height=100 + drawn_rows, legend=len(traces) > 1,
        scattermode="overlay" if aims else "group", yaxis=_NAMES | {"categoryorder": "array", "categoryarray": names},
        xaxis={"range": list(span or (-reach, reach)), "title": {"text": figure_text(axis, 90)},
               "tickformat": ".0%" if "%" in spec else ""},
    )  # fmt: skip
    if span is None:
        fig.add_vrect(-band, band, fillcolor=SHADE, line_width=0, layer="below")
        fig.add_vline(0, line={"color": BLUE, "width": 1})
    return fig


def lines(
    curves: Mapping[str, Sequence[tuple[float, Any]]], *, title: str, x: str, y: str, subtitle: str = "",
    log: bool = False, ticks: bool = False, unit: bool = False, marks: Mapping[str, tuple[Any, Any]] | None = None,
    levels: Mapping[str, float] | None = None,
) -> go.Figure:  # fmt: skip
    """A line for each curve, with a band where its values are intervals.

    Parameters
    ----------
    curves : name to points, each an x and a value.
    ticks, unit : name every x on the axis; y is a score, from 0 to 1.
    marks : label to an x and a y, either of which may be an interval: a diamond in the colour of the curve at its place,
        in no legend where it goes by a curve's name.
    levels : label to a y: dotted lines across.
    """
    traces, marks = [], marks or {}
    for i, (name, given) in enumerate(curves.items()):
        points, colour = sorted(given, key=itemgetter(0)), SERIES[i % len(SERIES)]
        xs, bounds = [at for at, _ in points], [ends(value) for _, value in points]
        if bounds and all(low is not None for _, low, _ in bounds):
            edge = [high for *_, high in bounds] + [low for _, low, _ in bounds][::-1]
            fill = {"fill": "toself", "fillcolor": colour, "opacity": 0.15, "line": {"width": 0}}
            traces.append(go.Scatter(x=xs + xs[::-1], y=edge, mode="lines", showlegend=False, hoverinfo="skip", **fill))
        traces.append(
            go.Scatter(
                x=xs, y=[estimate for estimate, *_ in bounds], name=figure_text(name), mode="lines+markers",
                line={"color": colour, "width": 2}, marker={"size": 7, "color": colour},
                customdata=[interval_text(value, ",.3f") for _, value in points],
                hovertemplate=f"%{{x:,}}: %{{customdata}}<extra>{figure_text(name)}</extra>",
            )
        )  # fmt: skip
    for i, (label, (at_x, at_y)) in enumerate(marks.items()):
        around, colour = {"color": MUTED, "width": 1.5}, SERIES[i % len(SERIES)]
        look = {"symbol": "diamond", "size": 13, "color": colour, "line": around}
        traces.append(
            go.Scatter(x=[ends(at_x)[0]], y=[ends(at_y)[0]], error_x=_error([at_x]), error_y=_error([at_y]),
                       mode="markers", marker=look, name=figure_text(label), showlegend=label not in curves)
        )  # fmt: skip
    every = sorted({at for points in curves.values() for at, _ in points})
    wide = log and len(every) > 2 and every[0] > 0 and every[-1] / every[0] >= 8
    axis: dict[str, Any] = {"type": "log" if wide else "linear"}
    axis["title"] = {"text": f"{figure_text(x)}{' (log scale)' if wide else ''}"}
    if ticks:
        axis |= {"tickvals": every, "ticktext": [f"{value:,g}" for value in every]}
    fig = figure(
        traces, title=title, subtitle=subtitle, height=360, xaxis=axis,
        yaxis={"title": {"text": figure_text(y)}, "tickformat": ".2f"} | ({"range": [-0.03, 1.03]} if unit else {}),
        legend=len(curves) + len(marks) > 1,
    )  # fmt: skip
    for label, level in (levels or {}).items():
        note = {"annotation_text": figure_text(label), "annotation_font": {"size": 11, "color": MUTED}}
        fig.add_hline(level, line={"color": MUTED, "dash": "dot", "width": 1.2}, **note)
    return fig


def bars(counts: Mapping[str, Any], *, title: str, axis: str, subtitle: str = "", spec: str = ",") -> go.Figure:
    """A bar for each name, with what it counts and its share; of several series ({series: {name: number}}), side by side."""
    several = counts if any(isinstance(one, Mapping) for one in counts.values()) else {"": counts}
    names = list(dict.fromkeys(name for one in several.values() for name in one))
    alone, many = len(several) == 1, len(names) > 30
    traces, most = [], 0.01 if "%" in spec else 1.0
    for i, (series, one) in enumerate(several.items()):
        values = [float(one.get(name, 0)) for name in names]
        total, most = sum(values), max([most, *values])
        text = [f"{value:,.0f} · {value / total:.1%}" if total else "0" for value in values]
        meant = alone and all(name in MEANING for name in names)
        colour: Any = [MEANING[name] for name in names] if meant else SERIES[i % len(SERIES)]
        traces.append(
            go.Bar(
                x=values, y=[figure_text(name, 40) for name in names], orientation="h", name=figure_text(series),
                marker={"color": colour}, text=text if alone and not many and "%" not in spec else None,
                textposition="outside", cliponaxis=False,
                hovertemplate=f"%{{y}}: %{{x:{spec}}}<extra>{figure_text(series)}</extra>",
            )
        )  # fmt: skip
    row = (14 if many else 26) + 12 * (len(several) - 1)
    return figure(
        traces, title=title, subtitle=subtitle, height=90 + row * max(len(names), 1), legend=not alone, bargap=0.3,
        xaxis={"title": {"text": figure_text(axis)}, "range": [0, 1.22 * most], "tickformat": spec},
        yaxis=_NAMES | {"tickfont": {"size": 10 if many else 12}}, barmode="group",
    )  # fmt: skip


def stack(parts: Mapping[str, Mapping[Any, float]], *, title: str, unit: str) -> go.Figure:
    """A 100 % bar for each attribute, cut into its values: the dataset at a glance."""
    traces, order = [], list(MEANING)
    for row, counts in parts.items():
        values = sorted(map(str, counts), key=lambda value: order.index(value) if value in order else len(order))
        number = {str(value): float(n) for value, n in counts.items()}
        total, start = sum(number.values()) or 1.0, 0.0
        for i, value in enumerate(values):
            share, colour = number[value] / total, MEANING.get(value, SERIES[i % len(SERIES)])
            traces.append(
                go.Bar(
                    y=[figure_text(row)], x=[share], base=[start], orientation="h", textposition="inside", textangle=0,
                    marker={"color": colour, "line": {"width": 0}}, insidetextanchor="middle",
                    text=[f"{figure_text(value)} {share:.0%}" if share >= 0.09 else ""],
                    textfont={"color": on(colour)},
                    hovertemplate=f"{figure_text(value)}: {share:.1%} ({number[value]:,.0f})<extra></extra>",
                )
            )  # fmt: skip
            start += share
    most = max((sum(counts.values()) for counts in parts.values()), default=0)
    return figure(
        traces, title=f"{title} (n = {most:,.0f})", height=80 + 38 * max(len(parts), 1), barmode="overlay", bargap=0.25, yaxis=_NAMES,
        xaxis={"tickformat": ".0%", "range": [0, 1], "showgrid": False, "title": {"text": f"share of {figure_text(unit)}"}},
    )  # fmt: skip


def panels(rows: Sequence[Mapping[str, Any]], *, title: str, subtitle: str = "", columns: int = 3) -> go.Figure:
    """Small multiples: each row has ``name`` and ``values``, spans (start, length) of ``marks`` (red) and ``holes`` (grey)."""
    traces, shapes, names, high = [], [], [], max(1, -(-len(rows) // columns))
    for i, row in enumerate(rows, 1):
        x, y, values = f"x{i if i > 1 else ''}", f"y{i if i > 1 else ''}", row["values"]
        traces.append({"y": values, "mode": "lines", "line": {"color": BLUE, "width": 1}, "xaxis": x, "yaxis": y})
        for start, length in row.get("marks", ()):
            mark = {"x0": start, "y": values[start : start + length], "marker": {"color": RED, "size": 4}}
            traces.append(mark | {"mode": "lines+markers", "xaxis": x, "yaxis": y})
        for start, length in row.get("holes", ()):
            span = {"x0": start - 0.5, "x1": start + length - 0.5, "y0": 0, "y1": 1, "fillcolor": GREY, "line_width": 0}
            shapes.append({"type": "rect", "xref": x, "yref": f"{y} domain", "layer": "below", **span})
        place = {"xref": f"{x} domain", "yref": f"{y} domain", "x": 0, "y": 1, "yanchor": "bottom", "showarrow": False}
        names.append({"text": figure_text(row["name"], 36), "font": {"size": 11}, **place})
    domain = {"y": [0, 1 - 0.15 / high]}
    grid = {"rows": high, "columns": columns, "pattern": "independent", "ygap": 0.4, "domain": domain}
    height = 100 + 120 * high
    return figure(traces, title=title, subtitle=subtitle, height=height, grid=grid, shapes=shapes, annotations=names)


def _error(values: Sequence[Any]) -> dict[str, Any] | None:
    bounds = [ends(value) for value in values]
    up = [high - value if value is not None and high is not None else 0 for value, _, high in bounds]
    down = [value - low if value is not None and low is not None else 0 for value, low, _ in bounds]
    if not any(up + down):
        return None
    return {"type": "data", "symmetric": False, "thickness": 1.5, "width": 3, "color": MUTED, "array": up,
            "arrayminus": down}  # fmt: skip
