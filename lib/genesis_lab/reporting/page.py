"""The report: one self-contained HTML page, or a PDF, for people who won't open a notebook."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import placed
from genesis_lab.reporting.figures import CONFIG, image, lean, summary
from genesis_lab.reporting.html import Html, NotMeasured, facts, key_figures, plain
from genesis_lab.reporting.style import CSS

if TYPE_CHECKING:
    import plotly.graph_objects as go

Part: TypeAlias = Union[str, Html, NotMeasured, "go.Figure"]
"""A paragraph, a piece of HTML, why something is missing, or a figure."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it, in order."""

    title: str
    parts: list[Part]


@dataclass(frozen=True)
class Page:
    """What a report says. All text is shown as it is: HTML in it is not interpreted.

    `status` is a verdict that starts with ``PASS``, ``WARN`` or ``FAIL``. `figures` are the cards on top (label to value,
    or to a pair of value and note); `provenance` is the footer: dataset, content hash, provider, versions, command. Dates
    are the caller's, so that the same input gives the same bytes.
    """

    title: str
    subtitle: str = ""
    summary: str = ""
    status: str = ""
    figures: Mapping[str, object] = field(default_factory=dict)
    sections: Sequence[Section] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def first_figure(self) -> go.Figure | str:
        """The chart that comes first, which is the one that people ask for first."""
        parts = (part for section in self.sections for part in section.parts)
        return next((part for part in parts if hasattr(part, "to_plotly_json")), "There is no chart.")


def page_html(page: Page) -> str:
    """The report as one page with interactive charts, which loads nothing from anywhere (plotly.js is in it: 5 MB)."""
    from plotly.offline import get_plotlyjs

    return _render(page, plotly_js=get_plotlyjs())


def write_page(page: Page, path: Path) -> Path:
    """Write the report to `path`, a ``.html`` or ``.pdf`` file (A4, with drawn charts); on an error nothing is left behind.

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


def _render(page: Page, *, plotly_js: str = "") -> str:
    """The page; without plotly's code its charts are drawn."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda v: plain(v) if isinstance(v, str) and not hasattr(v, "__html__") else v,
    )  # fmt: skip
    number = count()
    sections = [
        {"title": section.title, "parts": [_part(part, f"figure-{next(number)}", bool(plotly_js)) for part in section.parts]}
        for section in page.sections
    ]  # fmt: skip
    return environment.get_template("report.html.j2").render(
        report=page,
        sections=sections,
        # Ours, not data: the stylesheet, plotly's own code, and its settings
        css=Markup(CSS + (_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        plotly_js=Markup(plotly_js),
        config=Markup(json.dumps(CONFIG)),
        cards=key_figures(page.figures) if page.figures else "",
        provenance=facts(page.provenance) if page.provenance else "",
    )


def _part(part: Part, name: str, interactive: bool) -> dict[str, Any]:
    """What the template needs of one part."""
    from markupsafe import Markup

    if isinstance(part, str | NotMeasured):
        return {"kind": "text", "body": str(part)}
    if isinstance(part, Html):
        return {"kind": "html", "body": part}
    label = summary(part).removeprefix("[chart] ")
    if not interactive:
        picture = base64.b64encode(image(part, "svg", width=700)).decode()
        return {"kind": "picture", "label": label, "body": f"data:image/svg+xml;base64,{picture}"}
    drawn, top = lean(part), 34 if part.layout.showlegend else 10
    # HTML's own caption, which wraps on a narrow screen, in place of plotly's title, which does not
    layout = drawn["layout"]
    below = unescape(layout.pop("title").get("subtitle", {}).get("text", "")).replace("<br>", " ")
    layout["height"] += top - layout["margin"]["t"]
    layout["margin"]["t"] = top
    # "<" would end the script where a label holds "</script>"
    body = Markup(json.dumps(drawn, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c"))
    return {"kind": "chart", "name": name, "label": label, "below": below, "height": layout["height"], "body": body}
