"""The one visual style (``style.yaml``): quiet, readable on light and on dark, distinguishable by the colour-blind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genesis_lab.yamls import shipped

TEMPLATES = Path(__file__).with_name("templates")


def asset(name: str) -> str:
    """The text of one of our templates: a style sheet, a script."""
    return (TEMPLATES / name).read_text(encoding="utf-8").strip()


_LOOK = shipped(TEMPLATES / "style.yaml")
INK, MUTED, LINE, SHADE, PAPER = map(str, _LOOK["text and paper"].values())
SERIES: tuple[str, ...] = tuple(_LOOK["series"].values())
"""Colours of series, in the order in which they are used."""
BLUE, GREY = (str(_LOOK["series"][name]) for name in ("blue", "grey"))
RED = next(colour for colour, words in _LOOK["status"].items() if "FAIL" in words)
MEANING: dict[str, str] = _LOOK["meaning"]
"""Values that keep their colour, and this order, in every chart."""
TEMPLATE: dict[str, Any] = {"layout": _LOOK["charts"] | {"colorway": list(SERIES)}}
"""What every figure shares; stands in for plotly's own template, which weighs seven kilobytes a figure."""
CSS, PLOTS = asset("notebook.css"), asset("plots.css")
"""How a page of its own or a widget looks, in the colours of JupyterLab's theme where there is one; and the text of
charts in them, as soon as a notebook's style sheets are trusted: until then it is `MUTED`."""


def on(colour: str) -> str:
    """The colour of text on this one."""
    return PAPER if colour in _LOOK["wants white text"] else INK


BADGES = {
    word: f"background-color:{colour};color:{on(colour)};padding:1px 9px;border-radius:9px"
    for colour, words in _LOOK["status"].items()
    for word in words
}
"""How the outcome of a check looks. A style of elements holds no variables: JupyterLab takes those out."""
EDGE: str = _LOOK["edge"]
THEIRS, OURS = (_LOOK["bubbles"][who] + ";" + _LOOK["bubbles"]["all"] for who in ("customer", "agent"))
