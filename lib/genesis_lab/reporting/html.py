"""HTML that is safe to show: tables, key figures, chats, texts side by side. What comes from data goes through `escape`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
Columns: TypeAlias = Mapping[str, str | Callable[[Row], Any]]
"""Heading to where its value is: a dotted path into the row (``accuracy.n``), or a function of the row."""

# Control characters, lone surrogates, and marks that turn the direction of the text around them.
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_FIGURE = re.compile(r"[+-]?\d[\d,.]*%?( \[.+\])?")
"""A number that is written out: with its interval, in percent, to a fixed digit."""
_SPEAKERS = {"es": {"customer": "Cliente", "agent": "Agente"}}


def plain(value: object) -> str:
    """`value` as text without control characters (each becomes ``\N{REPLACEMENT CHARACTER}``)."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", str(value))


def escape(value: object) -> str:
    """`value` as text that HTML shows as it is."""
    return html.escape(plain(value))


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
    """A value as a table shows it.

    `spec` is a format such as ``.1%``, used for numbers and intervals. Without one, integers get thousands separators
    and floats three significant digits (all digits before the point). None and NaN are a dash.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_interval(value):
        return interval_text(value, spec or ",.2f")
    if isinstance(value, Real):
        if spec or isinstance(value, Integral):
            return format(value if isinstance(value, Integral) else float(value), spec or ",")
        return f"{float(value):,.0f}" if abs(float(value)) >= 1000 else f"{float(value):.3g}"
    if isinstance(value, Path):
        return shown(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(k)} {cell_text(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple | set | frozenset):
        items = list(map(plain, value))
        return ", ".join(sorted(items) if isinstance(value, set | frozenset) else items) or "–"
    return plain(value)


def table(
    rows: pd.DataFrame | Sequence[Row],
    columns: Columns | None = None,
    *,
    caption: str = "",
    formats: Mapping[str, str] | None = None,
    limit: int = 50,
) -> Html:
    """A table of rows, escaped; numbers to the right, `NotMeasured` cells in grey.

    Parameters
    ----------
    rows : a DataFrame (its index is shown where it has a name) or mappings.
    columns : heading to value; without it every key is a column.
    formats : heading to format, for example ``{"share": ".1%"}``.
    limit : rows shown; a last line says how many more there are.
    """
    heads, records = _grid(rows, columns)
    formats = formats or {}
    texts = [[cell_text(value, formats.get(c, "")) for c, value in zip(heads, r, strict=True)] for r in records]
    numeric = [all(_is_numeric(r[i]) for r in records) and any(r[i] != "–" for r in texts) for i in range(len(heads))]
    hidden, kinds = len(texts) - limit, [' class="n"' if n else "" for n in numeric]
    parts = ["<table>", f"<caption>{escape(caption)}</caption>" if caption else "", "<thead><tr>"]
    parts += [f"<th{kind}>{escape(c)}</th>" for c, kind in zip(heads, kinds, strict=True)]
    parts.append("</tr></thead><tbody>")
    for record, row in islice(zip(records, texts, strict=True), limit):
        cells = zip(record, row, numeric, strict=True)
        names = [((("n",) if n else ()) + (("no",) if isinstance(v, NotMeasured) else ()), t) for v, t, n in cells]
        tds = [f'<td class="{" ".join(of)}">{escape(t)}</td>' if of else f"<td>{escape(t)}</td>" for of, t in names]
        parts.append(f"<tr>{''.join(tds)}</tr>")
    more = [f"and {hidden:,} more"] if hidden > 0 else []
    parts += [f'<tr><td class="no" colspan="{len(heads)}">{text}</td></tr>' for text in more]
    grid = [heads, *[[" ".join(text.split())[:60] for text in row] for row in texts[:limit]]]
    widths = [max(len(row[i]) for row in grid) for i in range(len(heads))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in grid]
    return Html("".join([*parts, "</tbody></table>"]), "\n".join([*([caption] if caption else []), *lines, *more]))


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
    cards, lines = [], []
    for label, given in figures.items():
        value, note = given if isinstance(given, tuple) else (given, "")
        if isinstance(value, NotMeasured):
            value, note = "–", str(value)
        text, below = cell_text(value), f"<span>{escape(note)}</span>" if note else ""
        cards.append(f'<div class="card"><span>{escape(label)}</span><b>{escape(text)}</b>{below}</div>')
        lines.append(f"{plain(label)}: {text}" + (f" ({plain(note)})" if note else ""))
    across = len(cards) if len(cards) <= 5 else -(-len(cards) // 2) if len(cards) <= 10 else 5
    columns = f"grid-template-columns:repeat({max(across, 1)},1fr)"
    return Html(f'<div class="cards" style="{columns}">{"".join(cards)}</div>', "\n".join(lines))


def bullets(lines: Sequence[str]) -> Html:
    """A list of sentences."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return Html(f"<ul>{items}</ul>", "\n".join(f"- {line}" for line in lines))


def chat(records: Iterable[Row], facets: Any = None, *, limit: int = 4) -> Html:
    """The first `limit` conversations, the customer on the left and the agent on the right.

    Parameters
    ----------
    records : mappings with ``turns`` (each with ``speaker`` and ``text``); missing parts are left out: foreign data may
        lack any of them.
    facets : the domain's: `label` is the heading, the other `attributes` stand beside it.
    """
    drawn, texts = [], []
    for record in islice(records, limit):
        head = plain(record.get(getattr(facets, "label", None) or "") or "a conversation")
        names = [name for name in getattr(facets, "attributes", ()) if name != facets.label]
        about = " · ".join(plain(record[name]).replace("_", " ") for name in names if record.get(name))
        language = plain(record.get("language") or "")
        turns = record.get("turns")
        said = [(plain(t.get("speaker") or "?"), plain(t.get("text") or "")) for t in (() if turns is None else turns)]
        bubbles = "".join(
            f'<p dir="auto" class="{"agent" if who == "agent" else "customer"}">'
            f"<i>{escape(_SPEAKERS.get(language, {}).get(who, who.capitalize()))}</i>{escape(text)}</p>"
            for who, text in said
        )
        header = f"<header><b>{escape(head)}</b>{' · ' if about else ''}{escape(about)}</header>"
        drawn.append(
            f'<section class="chat" lang="{escape(language)}">{header}{bubbles or "<p>no turns</p>"}</section>'
        )
        texts.append("\n".join([f"{head} · {about}", *(f"{who}: {text}" for who, text in said)]))
    return Html("".join(drawn), "\n\n".join(texts))


def side_by_side(rows: Iterable[Sequence[str]], heads: Sequence[str], *, above: str = "", limit: int = 900) -> Html:
    """Texts in columns, spaces and line breaks as they are, each cut to `limit` characters."""
    shown_rows = [[text if len(text) <= limit else f"{text[:limit]} …" for text in row] for row in rows]
    cells = "".join(f"<tr>{''.join(f'<td><pre>{escape(t)}</pre></td>' for t in row)}</tr>" for row in shown_rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    said = ["\n".join(f"- {plain(name)}: {plain(t)}" for name, t in zip(heads, r, strict=True)) for r in shown_rows]
    first = f"<p>{escape(above)}</p>" if above else ""
    return Html(
        f'{first}<table class="texts"><tr>{head}</tr>{cells}</table>', "\n\n".join([plain(above), *said]).strip()
    )


def dialogue(examples: Iterable[tuple[str, str]]) -> Html:
    """Questions and the answers of a teacher, side by side, whole."""
    return side_by_side(examples, ("the student is asked", "the teacher answers"), limit=1_000_000)


def at(row: Any, path: str) -> Any:
    """The value at a dotted path; None where a part of it is missing."""
    for name in path.split("."):
        row = row.get(name) if isinstance(row, Mapping) else getattr(row, name, None)
    return row


def _grid(rows: pd.DataFrame | Sequence[Row], columns: Columns | None) -> tuple[list[str], list[list[Any]]]:
    if not isinstance(rows, Sequence):
        named = [n for n in rows.index.names if n is not None]
        frame = rows.reset_index() if named else rows
        return [str(c) for c in frame.columns], [list(r) for r in frame.itertuples(index=False, name=None)]
    if columns is None:
        heads = list(dict.fromkeys(key for row in rows for key in row))
        return heads, [[row.get(c) for c in heads] for row in rows]
    return list(columns), [[of(r) if callable(of) else at(r, of) for of in columns.values()] for r in rows]


def _is_interval(value: object) -> bool:
    return value is not None and ((isinstance(value, Mapping) and "low" in value) or hasattr(value, "estimate"))


def _is_numeric(value: object) -> bool:
    number = (isinstance(value, Real) and not isinstance(value, bool)) or _is_interval(value)
    number = number or (isinstance(value, str) and _FIGURE.fullmatch(value) is not None)
    return number or value is None or isinstance(value, NotMeasured) or str(value) == "<NA>"
