"""The report: one self-contained HTML page, or a PDF, for people who won't open a notebook."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import placed
from genesis_lab.reporting.figures import CONFIG, image, lean
from genesis_lab.reporting.html import Html, NotMeasured, cell_text, facts, key_figures, plain
from genesis_lab.reporting.reading import named
from genesis_lab.reporting.style import CSS, PLOTS, TEMPLATES, asset
from genesis_lab.reporting.wording import translated_figure, translated_html

if TYPE_CHECKING:
    import plotly.graph_objects as go

Part: TypeAlias = Union[str, Html, NotMeasured, "go.Figure"]
"""A paragraph, a piece of HTML, why something is missing, or a figure."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    parts: list[Part]
    anchor: str = ""


@dataclass(frozen=True)
class Page:
    """What a report says. All text is shown as it is: HTML in it is not interpreted.

    `status` is a verdict that starts with ``PASS``, ``WARN`` or ``FAIL``. `figures` are the cards on top (label to
    value, or to value and note), `lead` the chart below them; `provenance` is the footer. The date is the caller's: the
    same input gives the same bytes. On paper the first section ends the first page.
    """

    title: str
    subtitle: str = ""
    date: str = ""
    summary: str = ""
    status: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)
    lead: go.Figure | None = None
    sections: Sequence[Section] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)
    language: str = "en"


def page_html(page: Page) -> str:
    """The report as one page with interactive charts, which loads nothing: plotly.js is in it, packed (1.8 MB)."""
    from plotly.offline import get_plotlyjs

    # No "<" in what stands inside of a script: that and "," change places, of which base 85 has only the first
    packed = base64.b85encode(zlib.compress(get_plotlyjs().encode(), 9)).decode().replace("<", ",")
    return _render(page, plotly_js=packed)


def write_page(page: Page, path: Path) -> Path:
    """Write the report to `path`, a ``.html`` or ``.pdf`` file (A4, charts drawn); an error leaves nothing behind.

    Raises
    ------
    MissingDependency : for a PDF WeasyPrint or its library Pango is missing, or Chrome, which draws the charts.
    """
    if path.suffix not in (".html", ".pdf"):
        raise InvalidInput(f"A report is a .html or a .pdf file, got {path.name!r}.")
    content = _pdf(page) if path.suffix == ".pdf" else page_html(page).encode("utf-8", "replace")
    with placed(path, replace=True) as temporary:
        temporary.write_bytes(content)
    return path


def _pdf(page: Page) -> bytes:
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise MissingDependency("WeasyPrint", "A PDF report", "pip install weasyprint") from None
    except OSError:
        how = "apt install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0, or brew install pango"
        raise MissingDependency("Pango", "A PDF report", how) from None
    pdf: bytes = HTML(string=_render(page), url_fetcher=URLFetcher(allowed_protocols=["data"])).write_pdf()
    return pdf


def template(name: str) -> Any:
    """A template of ours: in HTML what comes from data is escaped. `shown` and `named` of a value are filters in it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda v: plain(v) if isinstance(v, str) and not hasattr(v, "__html__") else v,
    )
    environment.filters |= {"shown": cell_text, "named": named}
    return environment.get_template(name)


def _render(page: Page, *, plotly_js: str = "") -> str:
    """The page; without plotly's code its charts are drawn."""
    from markupsafe import Markup

    number = count()

    def drawn(part: Part) -> dict[str, Any]:
        return _part(part, f"figure-{next(number)}", bool(plotly_js), page.language)

    rendered = template("report.html.j2").render(
        report=page,
        lead=drawn(page.lead) if page.lead else None,
        sections=[(section, [drawn(part) for part in section.parts]) for section in page.sections],
        # Ours, not data: the stylesheets, plotly's own code, and its settings
        css=Markup(CSS + PLOTS + asset("report.css")),
        plotly_js=Markup(plotly_js),
        js=Markup(asset("report.js").replace("CONFIG", json.dumps(CONFIG))),
        cards=key_figures(page.figures) if page.figures else "",
        provenance=facts(page.provenance) if page.provenance else "",
    )
    return translated_html(rendered, page.language)


def _part(part: Part, name: str, interactive: bool, language: str) -> dict[str, Any]:
    """What the template needs of one part."""
    from markupsafe import Markup

    if isinstance(part, str | NotMeasured):
        return {"kind": "text", "body": str(part)}
    if isinstance(part, Html):
        return {"kind": "html", "body": part}
    # Title and legend become HTML, which wraps on a narrow screen and is text on paper: plotly's do neither
    figure = translated_figure(lean(part), language)
    layout, title = figure["layout"], part.layout.title
    del layout["title"]
    label, below = (unescape((text or "").replace("<br>", " ")) for text in (title.text, title.subtitle.text))
    keys = [key for trace in figure["data"] if (key := _key(trace))] if layout.pop("showlegend", False) else []
    height = layout["height"] + 10 - layout["margin"]["t"]
    layout |= {"showlegend": False, "height": height, "margin": layout["margin"] | {"t": 10}}
    about = {"name": name, "label": label, "below": below, "keys": keys, "height": height}
    if not interactive:
        picture = base64.b64encode(image(figure, "svg", width=700)).decode()
        return about | {"kind": "picture", "body": f"data:image/svg+xml;base64,{picture}"}
    # "<" would end the script where a label holds "</script>"
    body = Markup(json.dumps(figure, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c"))
    return about | {"kind": "chart", "body": body}


def _key(trace: Mapping[str, Any]) -> dict[str, str]:
    """Sign, colour and name of a trace in the legend; nothing where it has no place there."""
    if not {"name", "marker"} <= trace.keys() or trace.get("showlegend") is False:
        return {}
    marker = trace["marker"]
    colour, target = marker.get("color"), marker.get("symbol") == "line-ns"
    colour = colour if isinstance(colour, str) else "inherit"
    return {"sign": "|" if target else "●", "colour": colour, "name": unescape(trace["name"])}
