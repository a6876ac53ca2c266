"""HTML that is safe to show: tables, key figures, chats, texts side by side. What comes from data goes through `escape`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import BaseModel

from genesis_lab.files import shown
from genesis_lab.reporting.style import CSS

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = Mapping[str, Any]

# Control characters, lone surrogates, and marks that turn the direction of the text around them.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FIGURE = re.compile(r"[+-]?\d[\d,.]*%?( \[.+\])?")
"""A number that is written out: with its interval, in percent, to a fixed digit."""
_AS_TEXT = (("<li>", "- "), ("</t[dh]>|</span>|</b>|</i>", "  "), ("</(tr|li|p|div|caption|header)>", "\n"), ("<[^>]*>", ""), (" *\n+", "\n"))  # fmt: skip
"""What of our own HTML becomes what where there is only text."""
_LONG = 60
"""Characters from which a text needs a wide column."""
_SPEAKERS = {"es": {"customer": "Cliente", "agent": "Agente"}}


def plain(value: object) -> str:
    """`value` as text without control characters (each becomes ``\N{REPLACEMENT CHARACTER}``)."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def escape(value: object) -> str:
    """`value` as text that HTML shows as it is."""
    return html.escape(plain(value))


@dataclass(frozen=True, repr=False)
class Html:
    """A piece of HTML. Jinja inserts it unescaped."""

    html: str

    def __html__(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """What is said where there is no HTML: a line for each row, paragraph or card."""
        text = self.html
        for pattern, to in _AS_TEXT:
            text = re.sub(pattern, to, text)
        return html.unescape(text).strip()

    @property
    def page(self) -> str:
        """The HTML with its style, to stand by itself."""
        return f'<style>{CSS.strip()}</style><div class="gl">{self.html}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.page, "text/plain": self.text}


@dataclass(frozen=True, repr=False)
class NotMeasured:
    """What could not be measured, and why."""

    why: str

    def __repr__(self) -> str:
        return f"not measured: {self.why}"


def ends(value: Any) -> tuple[float | None, float | None, float | None]:
    """Estimate and bounds of an interval (a mapping with ``estimate``, ``low``, ``high``, or an object); of a number, itself."""
    if isinstance(value, Mapping):
        return value.get("estimate"), value.get("low"), value.get("high")
    if hasattr(value, "estimate"):
        return value.estimate, value.low, value.high
    return value, None, None


def interval_text(value: Any, spec: str = ",.2f") -> str:
    """``0.81 [0.78–0.84]``; without bounds the value alone, a dash without a value. A sign in `spec` also parts the bounds by "to"."""
    estimate, low, high = ends(value)
    if estimate is None or math.isnan(estimate):
        return "–"
    text, to = format(estimate, spec), " to " if spec.startswith("+") else "–"
    return text if low is None or high is None else f"{text} [{low:{spec}}{to}{high:{spec}}]"


def cell_text(value: object, spec: str = "") -> str:
    """A value as a table shows it; None and NaN are a dash.

    `spec` is a format such as ``.1%``, used for numbers and intervals. Without one, integers get thousands separators
    and floats three significant digits (all digits before the point).
    """
    if value is None or str(value) in ("nan", "<NA>", "NaT"):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_interval(value):
        return interval_text(value, spec or ",.2f")
    if isinstance(value, Integral):
        return format(value, spec or ",")
    if isinstance(value, Real):
        return format(float(value), spec or (",.0f" if abs(float(value)) >= 1000 else ".3g"))
    if isinstance(value, Path):
        return shown(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(k)} {cell_text(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple | set | frozenset):
        items = list(map(plain, value))
        return ", ".join(sorted(items) if isinstance(value, set | frozenset) else items) or "–"
    return plain(value)


def table(
    rows: pd.DataFrame | Sequence[Row], *, caption: str = "", formats: Mapping[str, str] | None = None, limit: int = 50
) -> Html:
    """A table of rows, escaped; numbers to the right, `NotMeasured` cells in grey.

    Parameters
    ----------
    rows : mappings of heading to value, or a DataFrame (its index is shown where it has a name).
    formats : heading to format, for example ``{"share": ".1%"}``.
    limit : rows shown; a last line says how many more there are.
    """
    if not isinstance(rows, Sequence):
        rows = (rows.reset_index() if any(rows.index.names) else rows).rename(columns=str).to_dict("records")
    heads = list(dict.fromkeys(head for row in rows for head in row))
    texts = [[cell_text(row.get(head), (formats or {}).get(head, "")) for head in heads] for row in rows]
    numeric = {
        head: all(_is_numeric(row.get(head)) for row in rows) and any(line[i] != "–" for line in texts)
        for i, head in enumerate(heads)
    }

    def cell(tag: str, head: str, text: str, value: Any = None) -> str:
        kinds = {"n": numeric[head], "no": isinstance(value, NotMeasured), "w": len(text) > _LONG}
        named = " ".join(kind for kind, so in kinds.items() if so)
        start = f'<{tag} class="{named}">' if named else f"<{tag}>"
        return f"{start}{escape(text)}</{tag}>"

    body = [
        "".join(cell("td", head, text, row.get(head)) for head, text in zip(heads, line, strict=True))
        for row, line in islice(zip(rows, texts, strict=True), limit)
    ]
    if len(rows) > limit:
        body.append(f'<td class="no" colspan="{len(heads)}">and {len(rows) - limit:,} more</td>')
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    top, lines = "".join(cell("th", head, head) for head in heads), "".join(f"<tr>{line}</tr>" for line in body)
    head = f"<thead><tr>{top}</tr></thead>" if any(map(str.strip, heads)) else ""
    return Html(f"<table>{above}{head}<tbody>{lines}</tbody></table>")


def config_table(config: BaseModel, *, caption: str = "") -> Html:
    """What a config says: each field with its value and its meaning."""
    fields = type(config).model_fields.items()
    rows = [{"parameter": name, "value": getattr(config, name), "meaning": f.description or ""} for name, f in fields]
    return table(rows, caption=caption)


def written(files: Mapping[str | Path, str]) -> Html:
    """The table "what this run wrote": each path, relative to the project, with what it holds."""
    rows = [{"file": shown(Path(p)) if Path(p).is_absolute() else str(p), "what it is": w} for p, w in files.items()]
    return table(rows, caption="What this run wrote")


def facts(given: Mapping[str, object], *, caption: str = "") -> Html:
    """Names and values, one a line."""
    return table([{"": name, " ": value} for name, value in given.items()], caption=caption)


def key_figures(figures: Mapping[str, object]) -> Html:
    """Cards, one per figure. A value may be a pair: the figure and a note below it."""
    cards = []
    for label, given in figures.items():
        value, note = given if isinstance(given, tuple) else (given, "")
        if isinstance(value, NotMeasured):
            value, note = "–", str(value)
        below = f"<span>{escape(note)}</span>" if note else ""
        cards.append(f'<div class="card"><span>{escape(label)}</span><b>{escape(cell_text(value))}</b>{below}</div>')
    across = len(cards) if len(cards) <= 5 else -(-len(cards) // 2) if len(cards) <= 10 else 5
    return Html(f'<div class="cards" style="grid-template-columns:repeat({max(across, 1)},1fr)">{"".join(cards)}</div>')


def bullets(lines: Sequence[str]) -> Html:
    """A list of sentences."""
    return Html(f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>")


def chat(records: Iterable[Row], facets: Any = None, *, limit: int = 4) -> Html:
    """The first `limit` conversations as cards, the customer on the left and the agent on the right; utterances as lines.

    Parameters
    ----------
    records : mappings with a list of turns (each with ``speaker`` and ``text``); missing parts are left out: foreign data
        may lack any of them. Of records of one turn there are five times as many.
    facets : the domain's: `label` is the heading, the other `attributes` stand beside it.
    """
    cards, lines = list[str](), list[str]()
    for record in records:
        if len(cards) == limit or len(lines) == 5 * limit:
            break
        head = escape(record.get(getattr(facets, "label", None) or "") or "a conversation").replace("_", " ")
        names = [name for name in getattr(facets, "attributes", ()) if name != facets.label]
        values = [cell_text(record.get(name)).replace("_", " ") for name in names]
        about = "".join(f" · {escape(value)}" for value in values if value not in ("", "–"))
        language = plain(record.get("language") or "")
        said = [(str(turn.get("speaker") or "?"), escape(turn.get("text") or "")) for turn in _turns(record)]
        if len(said) == 1:
            lines.append(f'<div class="line" lang="{escape(language)}"><span title="{head}{about}">{head}</span><p dir="auto">{said[0][1]}</p></div>')  # fmt: skip
            continue
        spoken = _SPEAKERS.get(language, {})
        bubbles = "".join(
            f'<p dir="auto" class="{"agent" if who == "agent" else "customer"}"><i>{escape(spoken.get(who, who.capitalize()))}</i>{text}</p>'
            for who, text in said
        )
        header = f"<header><b>{head}</b>{about}</header>"
        cards.append(
            f'<section class="chat" lang="{escape(language)}">{header}{bubbles or "<p>no turns</p>"}</section>'
        )
    listed = f'<section class="chat lines">{"".join(lines)}</section>' if lines else ""
    return Html("".join(cards) + listed)


def side_by_side(rows: Iterable[Sequence[str]], heads: Sequence[str], *, above: str = "", limit: int = 900) -> Html:
    """Texts in columns, spaces and line breaks as they are, each cut to `limit` characters."""
    cut = [[text if len(text) <= limit else f"{text[:limit]} …" for text in row] for row in rows]
    cells = "".join(f"<tr>{''.join(f'<td><pre>{escape(text)}</pre></td>' for text in row)}</tr>" for row in cut)
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    return Html(f'{f"<p>{escape(above)}</p>" if above else ""}<table class="texts"><tr>{head}</tr>{cells}</table>')


def dialogue(examples: Iterable[tuple[str, str]]) -> Html:
    """Questions and the answers of a teacher, side by side, whole."""
    return side_by_side(examples, ("the student is asked", "the teacher answers"), limit=1_000_000)


def _turns(record: Row) -> list[Row]:
    """The one list of mappings that a conversation has."""
    lists = (list(value) for value in record.values() if hasattr(value, "__len__") and not isinstance(value, str))
    return next((items for items in lists if items and isinstance(items[0], Mapping)), [])


def _is_interval(value: object) -> bool:
    return value is not None and ((isinstance(value, Mapping) and "low" in value) or hasattr(value, "estimate"))


def _is_numeric(value: object) -> bool:
    if isinstance(value, str):
        return _FIGURE.fullmatch(value) is not None
    number = isinstance(value, Real) and not isinstance(value, bool)
    return number or _is_interval(value) or isinstance(value, NotMeasured) or cell_text(value) == "–"
