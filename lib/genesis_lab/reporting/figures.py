"""Figures as notebooks and reports hold them: small, the same bytes every time, a picture where Chrome is found."""

from __future__ import annotations

import asyncio
import atexit
import base64
import html
import logging
import math
import re
import sys
import textwrap
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.reporting import style
from genesis_lab.reporting.frontend import display, viewer
from genesis_lab.reporting.html import Html, NotMeasured, plain

if TYPE_CHECKING:
    import plotly.graph_objects as go

MAX_BYTES = 30_000
"""What one figure's JSON may weigh in a notebook."""
CONFIG = {"displayModeBar": False, "responsive": True}
_START_S, _DRAW_S = 60.0, 30.0


def figure(
    traces: list[Any], *, title: str, subtitle: str = "", height: int = 320, legend: bool = False, **layout: Any
) -> go.Figure:
    """A figure in house style. `title` says what is seen (wrapped where long); `height` in pixels, title included.

    `title` and `subtitle` are plain text, other text in `traces` and `layout` is plotly's: see `figure_text`.
    """
    import plotly.graph_objects as go

    lines = [figure_text(line, 300) for line in textwrap.wrap(plain(title), 84)]
    below = [figure_text(line, 300) for line in textwrap.wrap(plain(subtitle), 100)]
    heading: dict[str, Any] = {"text": "<br>".join(lines)}
    if len(lines) > 1:
        heading["pad"] = {"l": 10, "t": 21}  # plotly sets a title of several lines 11 pixels higher than one of one
    if below:
        heading["subtitle"] = {"text": "<br>".join(below)}
    top = 22 + 19 * max(len(lines), 1) + 16 * len(below) + (26 if legend else 4)
    shape = {"height": height, "margin": {"l": 12, "r": 24, "b": 44, "t": top}, "showlegend": legend}
    return go.Figure(traces, {"template": style.TEMPLATE, "title": heading, **shape, **layout})


def figure_text(value: object, limit: int = 60) -> str:
    """`value` for plotly, which reads a little HTML (links too) in labels; cut to `limit` characters."""
    text = plain(value).replace("\n", " ")
    return html.escape(text if len(text) <= limit else text[: limit - 1] + "…", quote=False)


def show(fig: Any, *, picture: bool | None = None, name: str = "", again: bool = False) -> None:
    """Display a figure in a notebook: plotly, a PNG, its title as text; a list one by one; what is no figure as it is.

    Parameters
    ----------
    picture : add the PNG, which GitHub and plain viewers show; None: when nobody is watching and a Chrome starts.
    name, again : what this figure is known by; with `again` it takes the place of the one that is known by that name.
    """
    if isinstance(fig, list):
        for each in fig:
            show(each, picture=picture)
    elif isinstance(fig, Html):
        display(fig)
    elif isinstance(fig, NotMeasured | str):
        print(fig)
    elif "google.colab" in sys.modules:
        fig.show(renderer="colab")  # Colab knows nothing of plotly's mimetype
    else:
        drawn = {**lean(fig), "config": CONFIG}
        data: dict[str, Any] = {"application/vnd.plotly.v1+json": drawn, "text/plain": summary(fig)}
        if picture or (picture is None and not again and viewer() == "nobody" and _can_draw()):
            data["image/png"] = base64.b64encode(image(fig)).decode()
        between = [{"text/plain": ""}] if again else []  # JupyterLab's plotly does not change a graph that it has
        for each in [*between, data]:
            display(each, raw=True, **({"display_id": name, "update": again} if name else {}))


def lean(fig: go.Figure) -> dict[str, Any]:
    """The figure as plain JSON: lists for arrays, sorted keys, null for NaN, five significant digits."""
    given: dict[str, Any] = _plain(fig.to_plotly_json())
    return given | {"data": [{**trace, "uid": f"trace{i}"} for i, trace in enumerate(given["data"])]}


def summary(fig: go.Figure) -> str:
    """One line for where no figure can be shown."""
    return f"[chart] {html.unescape((fig.layout.title.text or '').replace('<br>', ' '))}"


def image(fig: Any, kind: Literal["png", "svg"] = "png", *, width: int = 760) -> bytes:
    """The figure (or what `lean` makes of it) on white, `width` CSS pixels wide; the same bytes from the same Chrome.

    Raises
    ------
    MissingDependency : no Chrome or Chromium on this machine.
    Unavailable : it does not start or does not answer.
    """
    chrome = find_chrome()
    if chrome is None:
        how = "install chromium, or run kaleido_get_chrome, or set BROWSER_PATH to an existing one"
        raise MissingDependency("Chrome or Chromium", "A picture of a figure", how)
    given = fig if isinstance(fig, dict) else lean(fig)
    size = {"format": kind, "width": width, "height": given["layout"].get("height") or 400, "scale": 1}
    given = {**given, "layout": {**given["layout"], "paper_bgcolor": style.PAPER}}
    try:
        loop, kaleido = _renderer(chrome)
        drawn: bytes = asyncio.run_coroutine_threadsafe(kaleido.calc_fig(given, size), loop).result(_DRAW_S)
    except Exception as error:
        _renderer.cache_clear()
        said = f"{chrome.name} did not draw a figure ({type(error).__name__})"
        raise Unavailable(f"{said}: try again, or install another Chrome.") from error
    if kind == "png":
        return _fewer_colours(drawn)
    found = re.search(rb'id="defs-([0-9a-f]{6})"', drawn)  # plotly.js marks its ids with six random hex digits
    return drawn.replace(found[1], b"figure") if found else drawn


@lru_cache
def find_chrome() -> Path | None:
    """The Chrome, Chromium or Edge that draws pictures: ``BROWSER_PATH``, kaleido's own, or an installed one."""
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    return Path(found) if found and Path(found).is_file() else None


@lru_cache(1)
def _can_draw() -> bool:
    """Whether a Chrome is found and starts; asked once, so that a broken one costs a run no more than that."""
    try:
        return bool(image(figure([], title="")))
    except (MissingDependency, Unavailable):
        return False


@lru_cache(1)
def _renderer(chrome: Path) -> tuple[asyncio.AbstractEventLoop, Any]:
    """A Chrome that stays open, on its own thread (kaleido's server waits for ever where Chrome can't start)."""
    from kaleido import Kaleido

    # It logs the browser's good-bye as an error; what matters comes as an exception.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="kaleido", daemon=True).start()

    async def start() -> Any:
        # No MathJax (it would come from a CDN); kaleido runs Chrome without sandbox, as root in a container needs.
        kaleido = Kaleido(path=str(chrome), mathjax=False, timeout=_DRAW_S)
        await kaleido.open()
        return kaleido

    kaleido = asyncio.run_coroutine_threadsafe(start(), loop).result(_START_S)
    atexit.register(lambda: asyncio.run_coroutine_threadsafe(kaleido.close(), loop).result(_START_S))
    return loop, kaleido


def _fewer_colours(png: bytes) -> bytes:
    """A quarter of the size; nothing is lost that a chart has."""
    from PIL import Image

    small = BytesIO()
    with Image.open(BytesIO(png)) as picture:
        flat = picture.convert("RGB").quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        flat.save(small, "png", optimize=True)
    return small.getvalue()


def _plain(value: Any) -> Any:
    if isinstance(value, dict) and "bdata" in value:  # plotly's base64 for a NumPy array
        import numpy as np

        shape = [int(n) for n in str(value.get("shape", -1)).split(",")]
        value = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).reshape(shape)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return int(value) if value.is_integer() else float(f"{value:.5g}")
    return value if value is None or isinstance(value, str | int) else str(value)
