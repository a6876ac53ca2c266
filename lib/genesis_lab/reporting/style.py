"""The one visual style: quiet, and distinguishable by colour-blind readers.

Colours are Paul Tol's "bright" scheme (SRON/EPS/TN/09-002, 2021, https://personal.sron.nl/~pault/); text and
greys are ours.
"""

from __future__ import annotations

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

CSS = f"""
.gl{{font:14px/1.45 {FONT};color:{INK};background:{PAPER};max-width:860px}}
.gl.gl table{{border-collapse:collapse;margin:6px 0;width:auto;font-size:13px;color:{INK};background:{PAPER}}}
.gl.gl caption{{caption-side:top;text-align:left;font-weight:600;padding:4px 8px 4px 0;color:{INK}}}
.gl.gl tr{{background:{PAPER}!important}}
.gl.gl th,.gl.gl td{{padding:5px 14px 5px 8px;border:0;border-bottom:1px solid {LINE};text-align:left;
vertical-align:top}}
.gl.gl th{{color:{MUTED};font-weight:600;background:{PAPER}}}
.gl.gl td.n,.gl.gl th.n{{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}}
.gl.gl td.no{{color:{MUTED};font-style:italic;white-space:normal}}
.gl.gl table.texts{{table-layout:fixed;width:100%}}
.gl .texts pre{{white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:12px/1.45 ui-monospace,Menlo,Consolas,monospace}}
.gl code{{background:{SURFACE};padding:1px 4px;border-radius:3px}}
.gl .cards{{display:grid;gap:10px;margin:8px 0}}
.gl .card{{border:1px solid {LINE};border-radius:8px;padding:10px 14px}}
.gl .card b{{display:block;font-size:22px;line-height:1.2;font-variant-numeric:tabular-nums}}
.gl .card span{{color:{MUTED};font-size:12px;display:block}}
.gl .chat{{border:1px solid {LINE};border-radius:10px;padding:10px 14px;margin:8px 0;max-width:640px;
break-inside:avoid}}
.gl .chat header{{font-size:12px;color:{MUTED};margin-bottom:6px}} .gl .chat header b{{color:{INK}}}
.gl .chat p{{margin:5px 0;padding:7px 11px;border-radius:12px;width:fit-content;max-width:78%;overflow-wrap:anywhere;
white-space:pre-wrap;color:{INK};background:#eef1f4;border-bottom-left-radius:3px}}
.gl .chat p.agent{{margin-left:auto;background:#dbe8f5;border-radius:12px 12px 3px 12px}}
.gl .chat p i{{display:block;font-style:normal;font-size:11px;color:#4b5661}}
@media (max-width:560px){{.gl .cards{{grid-template-columns:1fr 1fr!important}}}}
"""
