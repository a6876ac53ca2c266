"""HTML that is safe to show: tables, key figures, chats, texts side by side, curves. What data says is escaped."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from genesis_lab.files import shown
from genesis_lab.reporting.style import BADGES, EDGE, OURS, PLOTS, THEIRS
from genesis_lab.reporting.wording import term

if TYPE_CHECKING:
    import pandas as pd

Row: TypeAlias = Mapping[str, Any]

# Control characters, lone surrogates, and marks that turn the direction of the text around them.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FIGURE = re.compile(r"[+-]?\d[\d,.]*%?( \[.+\])?")
"""A number that is written out: with its interval, in percent, to a fixed digit."""
_AS_TEXT = {
    "<li>": "- ",
    "(</div>)?</t[dh]>|</header>|<br>": "  ",
    "</(tr|li|p|div|caption)>": "\n",
    "<[^>]*>": "",
    " *\n+": "\n",
}
"""What of our own HTML becomes what where there is only text."""
_OURS = ("", "gate")
"""Headings of columns that hold our own words: outcomes of checks, and terms."""
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
    """A piece of HTML. Jinja inserts it unescaped.

    JupyterLab takes style sheets out of outputs that it did not make itself, and GitHub every style: so what is said
    can be read without any, the little style is in the elements, and colours are the theme's.
    """

    html: str

    def __html__(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """What is said where there is no HTML: a line for each row, paragraph or card."""
        text = self.html
        for pattern, to in _AS_TEXT.items():
            text = re.sub(pattern, to, text)
        return html.unescape(text).strip()

    @property
    def page(self) -> str:
        """The HTML as a notebook shows it."""
        return f'<style>{PLOTS}</style><div class="gl">{self.html}</div>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/html": self.page, "text/plain": self.text}


@dataclass(frozen=True, repr=False)
class NotMeasured:
    """What could not be measured, and why."""

    why: str

    def __repr__(self) -> str:
        return f"not measured: {self.why}"


def ends(value: Any) -> tuple[float | None, float | None, float | None]:
    """Estimate and bounds of an interval (a mapping or an object that has ``low``, ``high``); of a number, itself."""
    if isinstance(value, Mapping):
        return value.get("estimate"), value.get("low"), value.get("high")
    if hasattr(value, "estimate"):
        return value.estimate, value.low, value.high
    return value, None, None


def interval_text(value: Any, spec: str = ",.2f") -> str:
    """``0.81 [0.78–0.84]``; without bounds the value alone, without a value a dash; "to" between bounds with signs."""
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
    if isinstance(value, Html):
        return value.text
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(k)} {cell_text(v)}" for k, v in value.items()) or "–"
    if isinstance(value, set | frozenset):
        value = sorted(map(plain, value))
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "–"
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
    heads = [head for head in heads if any(row.get(head) != "" for row in rows)]
    columns = {head: [row.get(head) for row in rows] for head in heads}
    numeric = {head: all(map(_is_numeric, c)) and any(cell_text(v) != "–" for v in c) for head, c in columns.items()}
    many = len(heads) > 2  # on a phone its rows become cards, see `report.css`

    def cell(head: str, value: Any, tag: str = "td") -> str:
        text = cell_text(value, (formats or {}).get(head, "") if tag == "td" else "")
        ours = tag == "th" or head in _OURS
        shown = value.html if isinstance(value, Html) else _marked(text) if ours else escape(text)
        if isinstance(value, NotMeasured):
            shown = f'<i style="opacity:.8">{shown}</i>'
        named = f' data-h="{escape(term(head)[0])}"' if many and tag == "td" and head.strip() else ""
        if numeric[head] and not isinstance(value, NotMeasured):
            return f'<{tag}{named} align="right">{shown}</{tag}>'
        wide = ' style="min-width:16em"' if len(text) > _LONG else ""
        # An `align` of its own, because notebooks set the cells of all tables to the right
        return f'<{tag}{named}{wide}><div align="left">{shown}</div></{tag}>'

    body = ["".join(cell(head, row.get(head)) for head in heads) for row in rows[:limit]]
    if len(rows) > limit:
        body.append(f'<td colspan="{len(heads)}"><div align="left"><i>and {len(rows) - limit:,} more</i></div></td>')
    above = f'<caption align="top"><div align="left"><b>{escape(caption)}</b></div></caption>' if caption else ""
    top, lines = "".join(cell(head, head, "th") for head in heads), "".join(f"<tr>{line}</tr>" for line in body)
    head = f"<thead><tr>{top}</tr></thead>" if any(map(str.strip, heads)) else ""
    return Html(f"{'<table class=many>' if many else '<table>'}{above}{head}<tbody>{lines}</tbody></table>")


def _marked(text: str) -> str:
    """A cell's text: the outcome of a check as a badge, a term of ours in words, with its meaning under the mouse."""
    if text in BADGES:
        return f'<b style="{BADGES[text]}">{text}</b>'
    return hint(*term(text))


def hint(words: str, meaning: str) -> str:
    """Words that say what they mean, if that is known, when the mouse is over them."""
    return f'<abbr title="{escape(meaning)}">{escape(words)}</abbr>' if meaning else escape(words)


def written(files: Mapping[str | Path, str]) -> Html:
    """The table "what this run wrote": each path, relative to the project, with what it holds."""
    rows = [{"file": shown(Path(path)), "what it is": what} for path, what in files.items()]
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
        below = f'<div style="opacity:.8;font-size:12px">{escape(note)}</div>' if note else ""
        above = f'<div style="font-size:12px">{hint(*term(label))}</div>'
        figure = cell_text(value)
        shown = _marked(figure) if figure in BADGES else f'<b style="font-size:22px">{escape(figure)}</b>'
        style = f"{EDGE};flex-grow:1;min-width:120px;max-width:280px"
        cards.append(f'<div class="card" style="{style}">{above}<div>{shown}</div>{below}</div>')
    return Html(f'<div class="cards" style="display:flex;flex-wrap:wrap;gap:10px">{"".join(cards)}</div>')


def bullets(lines: Sequence[str], *, ordered: bool = False) -> Html:
    """A list of sentences; what follows an arrow is a command, or (``#part``) a place on the same page."""

    def item(line: str) -> str:
        said, _, how = line.partition(" → ")
        place, command = how.startswith("#"), f"<br><code>{escape(how)}</code>" * bool(how)
        below = f'<br><a href="{escape(how)}">the records themselves</a>' if place else command
        return f"<li>{escape(said)}{below}</li>"

    tag = "ol" if ordered else "ul"
    return Html(f"<{tag}>{''.join(map(item, lines))}</{tag}>")


def chat(records: Iterable[Row], facets: Any = None, *, limit: int = 4) -> Html:
    """The first `limit` conversations as cards, the customer on the left, the agent on the right; utterances as rows.

    Parameters
    ----------
    records : mappings with a list of turns (each with ``speaker`` and ``text``); of foreign data any part may be
        missing. Of records of one turn there are five times as many.
    facets : the domain's: `label` is the heading, the other `attributes` stand beside it.
    """
    label = getattr(facets, "label", None) or ""
    beside = [name for name in getattr(facets, "attributes", ()) if name != label]
    cards, lines = list[str](), list[Row]()
    for record in records:
        if len(cards) == limit or len(lines) == 5 * limit:
            break
        named = cell_text(record.get(label) or "a conversation").replace("_", " ")
        values = [cell_text(record.get(name)).replace("_", " ") for name in beside]
        about = "".join(f" · {escape(value)}" for value in values if value not in ("", "–"))
        language = plain(record.get("language") or "")
        said = [(str(turn.get("speaker") or "?"), escape(turn.get("text") or "")) for turn in _turns(record)]
        if len(said) == 1:
            text = f'<span lang="{escape(language)}" dir="auto" translate="no">{said[0][1]}</span>'
            lines.append({"is about": named, "utterance": Html(text)})
            continue
        bubbles = "".join(_bubble(who, text, language) for who, text in said) or "<p>no turns</p>"
        tag = f'<section class="chat" lang="{escape(language)}" translate="no"'
        style = f"{EDGE};margin:8px 0;max-width:640px"
        cards.append(f'{tag} style="{style}"><header><b>{escape(named)}</b>{about}</header>{bubbles}</section>')
    return Html("".join(cards) + (table(lines).html if lines else ""))


def _bubble(who: str, text: str, language: str) -> str:
    name = _SPEAKERS.get(language, {}).get(who, who.capitalize())
    return f'<p dir="auto" style="{OURS if who == "agent" else THEIRS}"><small>{escape(name)}:</small><br>{text}</p>'


def side_by_side(rows: Iterable[Sequence[str]], heads: Sequence[str], *, above: str = "", limit: int = 900) -> Html:
    """Texts in columns, spaces and line breaks as they are, each cut to `limit` characters."""
    cut = [[text if len(text) <= limit else f"{text[:limit]} …" for text in row] for row in rows]
    named = [f'<div align="left"><b>{escape(name)}</b></div>' for name in heads]
    pre = '<pre style="white-space:pre-wrap;text-align:left" translate="no">'
    # Each text below its own name where columns are put one below the other, as on a phone
    cells = [[f"<td>{n}{pre}{escape(text)}</pre></td>" for n, text in zip(named, row, strict=False)] for row in cut]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    return Html(f'{f"<p>{escape(above)}</p>" if above else ""}<table class="texts" width="100%">{body}</table>')


def dialogue(examples: Iterable[tuple[str, str]]) -> Html:
    """Questions and the answers of a teacher, side by side, whole."""
    return side_by_side(examples, ("the student is asked", "the teacher answers"), limit=1_000_000)


def is_curve(values: Any) -> bool:
    """Whether these are numbers, some of which may be missing."""
    values = values.tolist() if hasattr(values, "tolist") else values
    return isinstance(values, list) and len(values) > 1 and all(isinstance(one, int | float | None) for one in values)


def curve(values: Sequence[float | None]) -> Html:
    """A line of the numbers; a gap where there is none."""
    places = {i: float(value) for i, value in enumerate(values) if value is not None and math.isfinite(value)}
    low, high = min(places.values(), default=0.0), max(places.values(), default=0.0)
    step, height = 600 / (len(values) - 1), 115 / ((high - low) or 1.0)
    pens = {i: "L" if i - 1 in places else "M" for i in places}
    path = "".join(f"{pens[i]}{i * step:.1f} {125 - height * (value - low):.1f}" for i, value in places.items())
    about = f"{len(values):,} values from {cell_text(low)} to {cell_text(high)}"
    head = f'<svg viewBox="0 0 600 130" style="max-width:600px;width:100%" role="img" aria-label="{about}">'
    return Html(f'{head}<path d="{path}" fill="none" stroke="currentColor" stroke-width="1.5"/></svg><p>{about}</p>')


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
