"""What is shown of a report: by the one list in ``views.yaml``, for notebook cells, the HTML page and the PDF alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.reporting import charts, drawings
from genesis_lab.reporting.figures import figure, figure_text
from genesis_lab.reporting.html import Html, NotMeasured, cell_text, facts, key_figures, table
from genesis_lab.reporting.page import Part, Section
from genesis_lab.reporting.progress import duration
from genesis_lab.reporting.reading import Report, at, points, shown_as, spoken, stand_in, why
from genesis_lab.reporting.style import MUTED
from genesis_lab.yamls import shipped

_PATH = re.compile(r"{([\w. -]+):?([^}]*)}")


def kinds() -> dict[str, Any]:
    """Kind of report to what is said where there is none (``missing``) and to its ``views``: ``views.yaml``."""
    return dict(shipped(Path(__file__).with_name("views.yaml")))


def view(kind: str, name: str, report: Report | None) -> Any:
    """What is shown under this name of a report of this kind; why not, where there is none or it is not whole."""
    kind = shown_as(kind, report)
    how = kinds()[kind]["views"].get(name)
    if how is None:
        return []
    draw: Callable[[Report], Any] | None = getattr(drawings, how["draw"]) if "draw" in how else None
    if not report:
        return NotMeasured(kinds()[kind]["missing"])
    try:
        found = draw(report) if draw else report
        if isinstance(found, list) and how.keys() & {"caption", "dots"}:
            return _of_rows(found, how, report)
        return _of_report(found, how) if isinstance(found, Mapping) else found
    except KeyError as error:  # the report was written by hand, or by another version
        return NotMeasured(f"the record that is kept of it is not whole (it lacks {error})")


def _of_report(report: Report, how: Report) -> Any:
    if "rows" in how:
        rows = at(report, how["rows"])
        if rows is None and "why" not in how:
            raise KeyError(how["rows"])
        if isinstance(rows, Mapping):
            rows = [{"name": name, "value": value} for name, value in rows.items()]
        return _of_rows(rows or [], how, report)
    if "text" in how:
        return _filled(how["text"], report)
    if "facts" in how:
        told = {heading: _cell(of, report) for heading, of in how["facts"].items()}
        told = {heading: value for heading, value in told.items() if value is not None}
        return facts(told, caption=how["caption"]) if "caption" in how else key_figures(told)
    given = how["lines"]["curves"].items()
    curves = {name: [(row[x], row[y]) for row in report[rows]] for name, (rows, x, y) in given}
    return charts.lines(curves, **_options(how["lines"], report))


def _of_rows(found: Sequence[Report], how: Report, report: Report) -> Any:
    rows = [row for row in found if not row.get(how.get("unless", ""))]
    if not rows:
        return how["empty"] if "empty" in how else why(report, how.get("why", ""), how.get("missing", ""))
    about = {**report, "first": rows[0], "number": len(rows)}
    if "dots" in how:
        name, value = how["dots"]["name"], how["dots"]["value"]
        drawn = [{**row, "name": _filled(name, row), "value": at(row, value)} for row in rows]
        fig = charts.dots(drawn, **_options(how["dots"], about))
    elif "plot" in how:
        fig = _plotted(rows, how["plot"], about)
    if how.keys() & {"dots", "plot"}:
        return fig.update_layout(meta=how.get("opens"))  # what a click opens, see `browser.js`
    columns = how.get("columns") or {key: key for row in rows for key in row}
    cells = [{heading: _cell(of, row) for heading, of in columns.items()} for row in rows]
    return table(cells, caption=str(_filled(how["caption"], about)), limit=how.get("limit", 50))


def _plotted(rows: Sequence[Report], how: Report, about: Report) -> Any:
    """A chart of plotly's as `plot` says: a trace for each value of `of`, its x, y and z from the rows."""
    traces: dict[str, Any] = {}
    for row in rows:
        name = figure_text(_filled(how.get("of", ""), row), 100)
        trace = traces.setdefault(name, {**how["trace"], "name": name, **{axis: [] for axis in "xyz" if axis in how}})
        for axis in trace.keys() & {*"xyz"}:
            trace[axis].append(figure_text(of, 100) if isinstance(of := _filled(how[axis], row), str) else of)
    height = 110 + how["row"] * len(rows) if "row" in how else how.get("height", 320)
    fig = figure([*traces.values()], **_options(how["layout"], about), height=height, legend=len(traces) > 1)
    for row in at(about, how["marks"]["rows"]) if "marks" in how else ():
        place = {"x": _filled(how["marks"]["x"], row), "y": 1, "yref": "paper", "yanchor": "bottom", "xanchor": "left"}
        ends = {"x0": place["x"], "x1": place["x"], "y0": 0, "y1": 1, "yref": "paper"}
        fig.add_shape(type="line", **ends, line={"dash": "dot", "color": MUTED})
        fig.add_annotation(place, text=figure_text(_filled(how["marks"]["text"], row), 12), showarrow=False)
    return fig


def _options(given: Report, about: Report) -> dict[str, Any]:
    """What a chart of ``views.yaml`` says besides its data."""
    own = ("curves", "name", "value")
    return {key: _filled(of, about) if isinstance(of, str) else of for key, of in given.items() if key not in own}


def _filled(template: str, row: Report) -> Any:
    """`template` with what ``{dotted.path:format}`` stands for in the row; of a path alone the value itself."""
    if alone := _PATH.fullmatch(template):
        return at(row, alone[1])

    def text(found: re.Match[str]) -> str:
        return cell_text(_shown(at(row, found[1]), found[2]))

    return _PATH.sub(text, template)


def _cell(of: str, row: Report) -> Any:
    """The value of a column of ``views.yaml``."""
    if "{" in of:
        return _filled(of, row)
    path, spec, none = (of + "||").split("|")[:3]
    value = at(row, path)
    if value is None:
        return NotMeasured(none) if none else None
    return _shown(value, spec)


def _shown(value: Any, spec: str) -> Any:
    if not spec or value is None or isinstance(value, NotMeasured):
        return value
    return HOW[spec](value) if spec in HOW else cell_text(value, spec)


def appendix(kind: str, report: Report) -> list[Part]:
    """The records that a report names, for the end of the page."""
    shown = kinds()[shown_as(kind, report)]["views"]
    drawn = [view(kind, name, report) for name, how in shown.items() if how.get("page") == "appendix"]
    return [part for part in drawn if isinstance(part, Html)]


def views(kind: str, report: Report | None, *, extra: Sequence[Part] = ()) -> list[Section]:
    """The sections of the page about a report of this kind; `extra` parts come at the end of the last one."""
    sections: list[Section] = []
    for name, how in kinds()[shown_as(kind, report)]["views"].items():
        if "title" in how:
            title = how["title"] + (" (stand-in)" if stand_in(report or {}) else "")
            sections.append(Section(title, caveats(report or {})))
        drawn = view(kind, name, report) if how.get("page", True) is True else []
        parts = drawn if isinstance(drawn, list) else [drawn]
        whole = [part for part in parts if not isinstance(part, NotMeasured)]
        sections[-1].parts.extend([how["says"], *parts] if "says" in how and whole else parts)
        if not report:
            break
    sections[-1].parts.extend(extra)
    return sections


def caveats(report: Report) -> list[Part]:
    """What stands above all figures of a smoke run, of a stand-in's, or of an embedder's of another language."""
    said: list[Part] = []
    if given := ", ".join(f"{name} {value}" for name, value in (report.get("limits") or {}).items()):
        said.append(f"A smoke run ({given}): nothing in this section is a result.")
    if found := stand_in(report):
        said.append(f"{found.capitalize()}: it keeps the order of datasets, and flatters them.")
    return said + ([note] if (note := report.get("embedder_note")) else [])


def headline(report: Report) -> Report:
    """The pair that the verdict of an evaluation is about."""
    pairs: dict[tuple[str, str], Report] = {(pair["a"], pair["b"]): pair for pair in report["pairs"]}
    return pairs[tuple(report["headline"])]


def predictions(found: Sequence[Any], texts: Sequence[str]) -> Html:
    """What a model makes of sentences (`training.models.Prediction`), with its second choice."""
    rows = []
    for text, one in zip(texts, found, strict=True):
        other = ", ".join(f"{other} ({sure:.0%})" for other, sure in one.alternatives[:1]) or "–"
        rows.append({"sentence": text, "understood as": one.intent, "sure": f"{one.probability:.0%}", "else": other})
    return table(rows, caption="What the model understands")


def shares(counts: Mapping[str, float], name: str, *, unit: str) -> Part:
    """How often each value of an attribute occurs; one sentence where all occur alike."""
    total, name = sum(counts.values()), spoken(name).capitalize()
    if len(counts) > 3 and len(set(counts.values())) == 1:
        return f"{name}: {len(counts):,} of them, {total // len(counts):,} {unit} each (n = {total:,})."
    said = ", ".join(f"{value} {n / total:.1%}" for value, n in counts.items()) if total else "no data"
    if total and len(counts) > 3:
        said = f"{min(counts.values()) / total:.1%} to {max(counts.values()) / total:.1%} each"
    return charts.bars(counts, title=f"{name}: {said} (n = {total:,})", axis=unit)


def compared(counts: Mapping[str, Mapping[str, float]], difference: Report, *, unit: str) -> Part:
    """An attribute's values in two datasets side by side, with what the comparison says of it."""
    told = "they differ" if difference["differs"] else "no difference proven"
    told = "not tested" if difference["p_holm"] is None else f"{told}, p = {difference['p_holm']:.2g}"
    moved, n = f"{difference['total_variation']:.1%} of {unit}", [f"{sum(one.values()):,}" for one in counts.values()]
    title = f"{difference['attribute'].capitalize()}: {moved} would have to change ({told}); n = {' and '.join(n)}"
    rows = {name: {value: n / (sum(one.values()) or 1) for value, n in one.items()} for name, one in counts.items()}
    return charts.bars(rows, title=title, axis=f"share of {unit}", spec=".0%")


def _bounded(value: Report) -> dict[str, Any]:
    """The interval of a score, which can't leave 0 to 1."""
    return {"estimate": value["estimate"], "low": max(value["low"], 0.0), "high": min(value["high"], 1.0)}


HOW: dict[str, Callable[[Any], Any]] = {
    "points": points,
    "bounded": _bounded,
    "count": len,
    "words": spoken,
    "duration": duration,
    "sentences": "; ".join,
    "MiB": lambda n: f"{n / 2**20:,.0f}",
    "MB": lambda n: f"{n / 1e6:,.0f}",
    "GiB": lambda n: f"{n / 2**30:.1f} GiB",
    "smoke": lambda limits: f"smoke run: {cell_text(limits)}" if limits else "full run",
    "hash": lambda text: text[:12],
    "counted": lambda counts: ", ".join(f"{n:,} {name}" for name, n in counts.items()) or "none",
    "some": lambda texts: "; ".join(text if len(text) <= 24 else f"{text[:24]}…" for text in texts[:2]),
    "firsts": lambda words: [word for group in words.values() for word in list(group)[:3]],
}
"""Formats of ``views.yaml`` besides Python's own."""
