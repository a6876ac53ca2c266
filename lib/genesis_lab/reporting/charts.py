"""The five charts: dots, lines, bars, stack, panels. They draw plain data; what a title says is the caller's.

A value is a number or an interval (see `html.ends`), and shares and scores are in [0, 1]. All text is shown as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from genesis_lab.reporting.figures import figure, figure_text
from genesis_lab.reporting.html import ends, interval_text
from genesis_lab.reporting.style import BLUE, GREY, LINE, MEANING, MUTED, RED, SERIES, SHADE, on

if TYPE_CHECKING:
    import plotly.graph_objects as go

_NAMES = {"type": "category", "autorange": "reversed", "dtick": 1, "showgrid": False}
_NAMES |= {"ticks": "", "ticksuffix": " ", "linecolor": LINE}
_UNIT = (-0.02, 1.02)


def dots(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str,
    axis: str,
    subtitle: str = "",
    span: tuple[float, float] | None = _UNIT,
    band: float = 0.0,
    spec: str = ",.2f",
) -> go.Figure:
    """A dot with its interval in each row: scores, parts, shares against their targets, differences.

    Parameters
    ----------
    rows : one or more, each with ``name`` and ``value``; where known ``target`` (a tick) and ``of``: on what all were
        measured. A value of None is not drawn but named below the title.
    span : of the axis; None: as far as the intervals reach, to both sides of zero alike.
    band : half the width of a grey band around zero, in which a difference would not matter.
    """
    names = list(dict.fromkeys(figure_text(row["name"]) for row in rows))
    measured = [row for row in rows if ends(row["value"])[0] is not None]
    values = [row["value"] for row in measured]
    traces: list[dict[str, Any]] = [
        {
            "name": figure_text(rows[0].get("of") or "observed"),
            "x": [ends(value)[0] for value in values],
            "y": [figure_text(row["name"]) for row in measured],
            "error_x": _error(values),
            "mode": "markers",
            "orientation": "h",
            "marker": {"size": 10, "color": [BLUE] * len(values), "symbol": 0},
            "customdata": [interval_text(value, spec) for value in values],
            "hovertemplate": "%{y}: %{customdata}<extra></extra>",
        }
    ]
    aims = {figure_text(row["name"]): row["target"] for row in rows if row.get("target") is not None}
    if aims:
        tick = {"symbol": "line-ns", "size": 16, "line": {"color": MUTED, "width": 2.5}}
        traces.append({"x": [*aims.values()], "y": [*aims], "mode": "markers", "name": "target", "marker": tick})
    missing = dict.fromkeys(str(row["name"]) for row in rows if row not in measured)
    reach = 1.08 * max([band, *(abs(end) for value in values for end in ends(value) if end is not None)])
    below = "; ".join(filter(None, [subtitle, f"not measured: {', '.join(missing)}" if missing else ""]))
    height = 100 + max(len(names), 2) * (24 if len(names) <= 20 else 18)
    layout: dict[str, Any] = {"scattermode": "overlay" if aims else "group"}
    shown_as = ".0%" if "%" in spec else ""
    layout["xaxis"] = _titled(axis, 90) | {"range": list(span or (-reach, reach)), "tickformat": shown_as}
    layout["yaxis"] = _NAMES | {"categoryorder": "array", "categoryarray": names}
    fig = figure(traces, title=title, subtitle=below, height=height, legend=bool(aims), **layout)
    if span is None:
        fig.add_vrect(-band, band, fillcolor=SHADE, line_width=0, layer="below")
        fig.add_vline(0, line={"color": BLUE, "width": 1})
    return fig


def lines(
    curves: Mapping[str, Sequence[tuple[float, Any]]],
    *,
    title: str,
    x: str,
    y: str,
    subtitle: str = "",
    log: bool = False,
    ticks: bool = False,
    unit: bool = False,
    marks: Mapping[str, tuple[Any, Any]] | None = None,
    levels: Mapping[str, float] | None = None,
) -> go.Figure:
    """A line for each curve, with a band where its values are intervals.

    Parameters
    ----------
    curves : name to points, each an x and a value.
    ticks, unit : name every x on the axis; y is a score, from 0 to 1.
    marks : label to an x and a y, numbers or intervals: a diamond in the colour of the curve at its place, in no legend
        where it goes by a curve's name.
    levels : label to a y: dotted lines across.
    """
    traces, marks = list[dict[str, Any]](), marks or {}
    for (name, given), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        points = sorted(given, key=itemgetter(0))
        xs, bounds = [at for at, _ in points], [ends(value) for _, value in points]
        if bounds and all(low is not None for _, low, _ in bounds):
            edge = [high for *_, high in bounds] + [low for _, low, _ in bounds][::-1]
            fill = {"fill": "toself", "fillcolor": colour, "opacity": 0.15, "line": {"width": 0}, "hoverinfo": "skip"}
            traces.append({"x": xs + xs[::-1], "y": edge, "mode": "lines", "showlegend": False, **fill})
        line = {"line": {"color": colour, "width": 2}, "marker": {"size": 7, "color": colour}, "mode": "lines+markers"}
        hover = f"%{{x:,}}: %{{customdata}}<extra>{figure_text(name)}</extra>"
        says = {"customdata": [interval_text(value, ",.3f") for _, value in points], "hovertemplate": hover}
        traces.append({"x": xs, "y": [one[0] for one in bounds], "name": figure_text(name), **line, **says})
    for (label, (at_x, at_y)), colour in zip(marks.items(), _colours(len(marks)), strict=True):
        look = {"symbol": "diamond", "size": 13, "color": colour, "line": {"color": MUTED, "width": 1.5}}
        place = {"x": [ends(at_x)[0]], "y": [ends(at_y)[0]], "error_x": _error([at_x]), "error_y": _error([at_y])}
        known = {"name": figure_text(label), "showlegend": label not in curves}
        traces.append({"mode": "markers", "marker": look, **place, **known})
    every = sorted({at for points in curves.values() for at, _ in points})
    wide = log and len(every) > 2 and every[0] > 0 and every[-1] / every[0] >= 8
    named = {"tickvals": every, "ticktext": [f"{value:,g}" for value in every]} if ticks else {}
    below = _titled(f"{x}{' (log scale)' if wide else ''}") | {"type": "log" if wide else "linear"} | named
    beside = _titled(y) | {"tickformat": ".2f"} | ({"range": [-0.03, 1.03]} if unit else {})
    about: dict[str, Any] = {"title": title, "subtitle": subtitle, "legend": len(curves) + len(marks) > 1}
    fig = figure(traces, **about, height=360, xaxis=below, yaxis=beside)
    for label, level in (levels or {}).items():
        note = {"annotation_text": figure_text(label), "annotation_font": {"size": 11, "color": MUTED}}
        fig.add_hline(level, line={"color": MUTED, "dash": "dot", "width": 1.2}, **note)
    return fig


def bars(counts: Mapping[str, Any], *, title: str, axis: str, subtitle: str = "", spec: str = ",") -> go.Figure:
    """A bar for each name, with its number and share; of several series ({series: {name: number}}), side by side."""
    several = counts if any(isinstance(one, Mapping) for one in counts.values()) else {"": counts}
    names = list(dict.fromkeys(name for one in several.values() for name in one))
    alone, many = len(several) == 1, len(names) > 30
    traces, most = [], 0.01 if "%" in spec else 1.0
    for (series, one), colour in zip(several.items(), _colours(len(several)), strict=True):
        values = [float(one.get(name, 0)) for name in names]
        total, most = sum(values), max([most, *values])
        bar = {"type": "bar", "orientation": "h", "name": figure_text(series), "cliponaxis": False}
        bar |= {"x": values, "y": [figure_text(name, 40) for name in names], "textposition": "outside"}
        bar |= {"hovertemplate": f"%{{y}}: %{{x:{spec}}}<extra>{figure_text(series)}</extra>"}
        if alone and not many and "%" not in spec:
            bar["text"] = [f"{value:,.0f} · {value / total:.1%}" if total else "0" for value in values]
        meant = alone and all(name in MEANING for name in names)
        traces.append(bar | {"marker": {"color": [MEANING[name] for name in names] if meant else colour}})
    height = 90 + max(len(names), 1) * ((14 if many else 26) + 12 * (len(several) - 1))
    layout: dict[str, Any] = {"barmode": "group", "bargap": 0.3, "legend": not alone}
    layout["xaxis"] = _titled(axis) | {"range": [0, 1.22 * most], "tickformat": spec}
    layout["yaxis"] = _NAMES | {"tickfont": {"size": 10 if many else 12}}
    return figure(traces, title=title, subtitle=subtitle, height=height, **layout)


def stack(parts: Mapping[str, Mapping[Any, float]], *, title: str, unit: str) -> go.Figure:
    """A 100 % bar for each attribute, cut into its values: the dataset at a glance."""
    traces, order = [], list(MEANING)
    look = {"type": "bar", "orientation": "h", "textposition": "inside", "textangle": 0, "insidetextanchor": "middle"}
    for row, counts in parts.items():
        number = {str(value): float(n) for value, n in counts.items()}
        values = sorted(number, key=lambda value: order.index(value) if value in order else len(order))
        total, start = sum(number.values()) or 1.0, 0.0
        for value, other in zip(values, _colours(len(values)), strict=True):
            share, colour = number[value] / total, MEANING.get(value, other)
            text = f"{figure_text(value)} {share:.0%}" if share >= 0.09 else ""
            says = {
                "text": [text],
                "textfont": {"color": on(colour)},
                "marker": {"color": colour, "line": {"width": 0}},
            }
            says["hovertemplate"] = f"{figure_text(value)}: {share:.1%} ({number[value]:,.0f})<extra></extra>"
            traces.append({"y": [figure_text(row)], "x": [share], "base": [start], **look, **says})
            start += share
    most = max((sum(counts.values()) for counts in parts.values()), default=0)
    title, height = f"{title} (n = {most:,.0f})", 80 + 38 * max(len(parts), 1)
    below = _titled(f"share of {unit}") | {"tickformat": ".0%", "range": [0, 1], "showgrid": False}
    return figure(traces, title=title, height=height, barmode="overlay", bargap=0.25, xaxis=below, yaxis=_NAMES)


def panels(rows: Sequence[Mapping[str, Any]], *, title: str, subtitle: str = "") -> go.Figure:
    """Three small charts a line: each row has ``name``, ``values``, and spans of ``marks`` (red) and ``holes`` (grey).

    A span is a start and a length.
    """
    traces, shapes, names, high = [], [], [], max(1, -(-len(rows) // 3))
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
    grid = {"rows": high, "columns": 3, "pattern": "independent", "ygap": 0.4, "domain": domain}
    height = 100 + 120 * high
    return figure(traces, title=title, subtitle=subtitle, height=height, grid=grid, shapes=shapes, annotations=names)


def _titled(text: str, limit: int = 60) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": figure_text(text, limit)}}


def _colours(n: int) -> list[str]:
    """A colour for each of `n` series."""
    return [SERIES[i % len(SERIES)] for i in range(n)]


def _error(values: Sequence[Any]) -> dict[str, Any] | None:
    """Error bars of values that are intervals; None where none is."""
    bounds = [ends(value) for value in values]
    up = [high - value if value is not None and high is not None else 0 for value, _, high in bounds]
    down = [value - low if value is not None and low is not None else 0 for value, low, _ in bounds]
    if not any(up + down):
        return None
    look = {"type": "data", "symmetric": False, "thickness": 1.5, "width": 3, "color": MUTED}
    return look | {"array": up, "arrayminus": down}
