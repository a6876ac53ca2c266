"""HTML that is safe to show: everything that comes from data goes through `escape`."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any

from genesis_lab.reporting.style import CSS

# Control characters, lone surrogates, and marks that turn the direction of the text around them.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(value: object) -> str:
    """`value` as text without control characters (each becomes ``\N{REPLACEMENT CHARACTER}``)."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def escape(value: object) -> str:
    """`value` as text that HTML shows as it is."""
    return html.escape(plain(value))


def figure_text(value: object, limit: int = 60) -> str:
    """`value` for plotly, which reads a little HTML (links too) in labels; cut to `limit` characters."""
    text = plain(value).replace("\n", " ")
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return html.escape(text, quote=False)


@dataclass(frozen=True)
class Html:
    """A piece of HTML with what to say where there is no HTML. Jinja inserts it unescaped."""

    html: str
    text: str = ""

    def __html__(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    @property
    def page(self) -> str:
        """The HTML with its style, to stand by itself."""
        return f'<style>{CSS.strip()}</style><div class="gl">{self.html}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.page, "text/plain": self.text}
