"""The one visual style: quiet, and distinguishable by colour-blind readers.

Colours are Paul Tol's "bright" scheme (SRON/EPS/TN/09-002, 2021, https://personal.sron.nl/~pault/); text and
greys are ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

INK, MUTED, LINE, SURFACE, PAPER = "#1f2933", "#5b6773", "#dfe3e8", "#f6f8fa", "#ffffff"
BLUE, RED, GREEN, YELLOW, CYAN, PURPLE, GREY = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb",
)  # fmt: skip
SERIES = (BLUE, RED, GREEN, YELLOW, PURPLE, CYAN, GREY)
"""Colours of series, in the order in which they are used."""
DARK = {BLUE, RED, GREEN, PURPLE}
"""Those that want white text."""
SEQUENTIAL = ("#f4f7fb", "#c3d5e8", "#86aad0", "#4477aa", "#24456c")
"""From nothing to much."""
FONT = "Inter, 'Segoe UI', Helvetica, Arial, sans-serif"
MEANING = {
    "positive": BLUE, "neutral": GREY, "negative": RED, "simple": "#c3d5e8", "medium": "#86aad0", "complex": BLUE,
    "en": BLUE, "es": YELLOW, "resolved": BLUE, "pending": YELLOW, "escalated": RED,
    "score 1": RED, "score 2": "#f4b3ba", "score 3": GREY, "score 4": "#86aad0", "score 5": BLUE,
}  # fmt: skip
"""Values that keep their colour, and this order, in every chart."""

TEMPLATE: dict[str, Any] = {
    "layout": {
        "font": {"family": FONT, "size": 12, "color": INK},
        "colorway": list(SERIES),
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "title": {"x": 0, "xref": "container", "xanchor": "left", "pad": {"l": 10, "t": 10}, "y": 1,
                  "yref": "container", "yanchor": "top", "font": {"size": 15},
                  "subtitle": {"font": {"size": 12, "color": MUTED}}},
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "title": {"text": ""}},
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": LINE, "font": {"color": INK}},
        **{
            axis: {"automargin": True, "gridcolor": "#eceff2", "linecolor": LINE, "zeroline": False,
                   "title": {"standoff": 8, "font": {"color": MUTED}}, "tickfont": {"color": INK}}
            for axis in ("xaxis", "yaxis")
        },
    }
}  # fmt: skip
"""What every figure shares; stands in for plotly's own template, which weighs seven kilobytes a figure."""

CSS = Path(__file__).with_name("templates").joinpath("notebook.css").read_text(encoding="utf-8")
"""What tables, cards and chats look like, in notebooks and on the page; its colours are those above."""
