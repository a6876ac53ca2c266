"""The report: one self-contained HTML page, or a PDF, for people who won't open a notebook."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import shown
from genesis_lab.reporting.figures import CONFIG, figure_height, image, lean, summary
from genesis_lab.reporting.markup import Html, plain
from genesis_lab.reporting.style import CSS
from genesis_lab.reporting.tables import NotMeasured, key_figures, table

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

Part: TypeAlias = Union[str, Html, NotMeasured, "go.Figure", "pd.DataFrame"]
"""A paragraph, a piece of HTML, why something is missing, a figure, or a table."""

_PICTURE_WIDTH = 700
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order; a tuple of two figures stands side by side."""

    title: str
    parts: Sequence[Part | tuple[Part, ...]]


@dataclass(frozen=True)
class Report:
    """What a report says. All text is shown as it is: HTML in it is not interpreted.

    `status` is a verdict that starts with ``PASS``, ``WARN`` or ``FAIL``. `figures` are the cards on top (label to value, or to a pair of value and note); `provenance` is the footer:
    dataset, content hash, provider, versions, command. Dates are the caller's, so that the same input gives the same
    bytes.
    """

    title: str
    subtitle: str = ""
    summary: str = ""
    status: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)
    language: str = "en"

    @property
    def first_figure(self) -> go.Figure | str:
        """The chart that comes first, which is the one that people ask for first."""
        rows = [row for section in self.sections for row in section.parts]
        parts = [part for row in rows for part in (row if isinstance(row, tuple) else (row,))]
        return next((part for part in parts if hasattr(part, "to_plotly_json")), "There is no chart.")


def report_html(report: Report) -> str:
    """The report as one page with interactive charts, which loads nothing from anywhere (plotly.js is in it: 5 MB)."""
    return _render(report, interactive=True)


def report_pdf(report: Report) -> bytes:
    """The report as PDF, A4, with drawn charts.

    Raises
    ------
    MissingDependency : WeasyPrint or its library Pango is missing, or Chrome, which draws the charts.
    """
    html, fetcher = _weasyprint()
    page = _render(report, interactive=False)
    pdf: bytes = html(string=page, url_fetcher=fetcher).write_pdf()
    return pdf


def write_report(report: Report, path: Path) -> Path:
    """Write the report to `path`, a ``.html`` or ``.pdf`` file; on an error nothing is left behind."""
    if path.suffix not in (".html", ".pdf"):
        raise InvalidInput(f"A report is a .html or a .pdf file, got {path.name!r}.")
    content = report_pdf(report) if path.suffix == ".pdf" else report_html(report).encode("utf-8", "replace")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise InvalidInput(f"{shown(path)} can't be written ({error.strerror}): choose another folder.") from None
    return path


def _render(report: Report, *, interactive: bool) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.finalize = lambda value: (
        plain(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
    )
    number = 0
    sections = []
    for section in report.sections:
        rows = []
        for given in section.parts:
            row = []
            parts = given if isinstance(given, tuple) else (given,)
            for part in parts:
                number += 1
                row.append(_part(part, f"figure-{number}", interactive=interactive, across=len(parts)))
            rows.append(row)
        sections.append({"title": section.title, "rows": rows})
    plotly_js = ""
    if interactive:
        from plotly.offline import get_plotlyjs

        plotly_js = get_plotlyjs()
    facts = [{"": name, " ": value} for name, value in report.provenance.items()]
    return environment.get_template("report.html.j2").render(
        report=report,
        sections=sections,
        interactive=interactive,
        # Ours, not data: the stylesheet, plotly's own code, and its settings
        css=Markup(CSS + (_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        plotly_js=Markup(plotly_js),
        config=Markup(json.dumps(CONFIG)),
        cards=key_figures(report.figures) if report.figures else "",
        provenance=table(facts) if facts else "",
    )


def _part(part: Part, name: str, *, interactive: bool, across: int) -> dict[str, Any]:
    """What the template needs of one part."""
    from markupsafe import Markup

    if isinstance(part, str):
        return {"kind": "text", "body": part}
    if isinstance(part, NotMeasured):
        return {"kind": "text", "body": str(part)}
    if isinstance(part, Html):
        return {"kind": "html", "body": part}
    if hasattr(part, "itertuples"):
        return {"kind": "html", "body": table(part)}
    label = summary(part).removeprefix("[chart] ")
    if not interactive:
        width = _PICTURE_WIDTH if across == 1 else int(1.2 * _PICTURE_WIDTH / across)
        # WeasyPrint blurs the small bitmap that plotly's SVG holds for a heat map, and loses its colour bar
        heat = any(trace.type == "heatmap" for trace in part.data)
        picture = image(part, "png", width=width, scale=3) if heat else image(part, "svg", width=width)
        body = f"data:image/{'png' if heat else 'svg+xml'};base64,{base64.b64encode(picture).decode()}"
        return {"kind": "picture", "label": label, "body": body}
    # "<" would end the script where a label holds "</script>"
    body = json.dumps(lean(part), ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return {"kind": "chart", "name": name, "label": label, "height": figure_height(part), "body": Markup(body)}


def _weasyprint() -> tuple[Any, Any]:
    """WeasyPrint's HTML class, and a fetcher that reads nothing but ``data:`` URLs."""
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise MissingDependency("WeasyPrint", "A PDF report", "pip install weasyprint") from None
    except OSError:
        raise MissingDependency(
            "Pango",
            "A PDF report",
            "apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or brew install pango",
        ) from None
    return HTML, URLFetcher(allowed_protocols=["data"])
