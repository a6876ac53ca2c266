"""Tables and key figures in house style."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from pydantic import BaseModel

from genesis_lab.files import shown
from genesis_lab.reporting.markup import Html, escape, plain

if TYPE_CHECKING:
    import pandas as pd


_FIGURE = re.compile(r"[+-]?\d[\d,.]*(%| \[.+\]|)")
"""A number that is written out: with its interval, in percent, to a fixed digit."""


@runtime_checkable
class HasInterval(Protocol):
    """An estimate with its interval, for example `genesis_lab.stats.Interval`."""

    @property
    def estimate(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


@dataclass(frozen=True, repr=False)
class NotMeasured:
    """A cell whose value could not be measured, and why."""

    why: str

    def __repr__(self) -> str:
        return f"not measured: {self.why}"


def interval_text(value: float | None, low: float | None = None, high: float | None = None, digits: int = 2) -> str:
    """``0.81 [0.78–0.84]``; without bounds the value alone, a dash without a value."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{value:,.{digits}f}"
    return text if low is None or high is None else f"{text} [{low:,.{digits}f}–{high:,.{digits}f}]"


def cell_text(value: object, spec: str = "") -> str:
    """A value as a table shows it.

    `spec` is a format such as ``.1%``, used for numbers. Without one, integers get thousands separators and floats
    three significant digits (all digits before the point). None and NaN are a dash; `HasInterval` shows its interval.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, HasInterval):
        return interval_text(value.estimate, value.low, value.high)
    if isinstance(value, Real):
        number = value if isinstance(value, Integral) else float(value)
        if spec:
            return format(number, spec)
        if isinstance(number, Integral):
            return f"{int(number):,}"
        return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.3g}"
    if isinstance(value, Path):
        return shown(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{plain(k)} {cell_text(v)}" for k, v in value.items()) or "–"
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(map(plain, value)) if isinstance(value, set | frozenset) else [plain(v) for v in value]
        return ", ".join(items) or "–"
    return plain(value)


def table(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    caption: str = "",
    formats: Mapping[str, str] | None = None,
    limit: int = 50,
) -> Html:
    """A table of rows, escaped; numbers to the right, `NotMeasured` cells in grey.

    Parameters
    ----------
    rows : a DataFrame (its index is shown where it has a name) or mappings with the same keys.
    formats : column name to format, for example ``{"share": ".1%"}``.
    limit : rows shown; a last line says how many more there are.
    """
    columns, records = _columns_and_records(rows)
    formats = formats or {}
    cells = [
        [(value, cell_text(value, formats.get(c, ""))) for c, value in zip(columns, r, strict=True)] for r in records
    ]
    numeric = [
        bool(cells) and all(_is_numeric(row[i][0]) for row in cells) and any(row[i][1] != "–" for row in cells)
        for i in range(len(columns))
    ]
    hidden = len(cells) - limit
    kinds = [' class="n"' if n else "" for n in numeric]
    parts = ["<table>", f"<caption>{escape(caption)}</caption>" if caption else "", "<thead><tr>"]
    parts += [f"<th{kind}>{escape(c)}</th>" for c, kind in zip(columns, kinds, strict=True)]
    parts.append("</tr></thead><tbody>")
    for row in cells[:limit]:
        parts.append("<tr>")
        for (value, text), number in zip(row, numeric, strict=True):
            names = [name for name, given in (("n", number), ("no", isinstance(value, NotMeasured))) if given]
            parts.append(f'<td class="{" ".join(names)}">{escape(text)}</td>' if names else f"<td>{escape(text)}</td>")
        parts.append("</tr>")
    if hidden > 0:
        parts.append(f'<tr><td class="no" colspan="{len(columns)}">and {hidden:,} more</td></tr>')
    parts.append("</tbody></table>")
    return Html("".join(parts), _as_text(caption, columns, [[t for _, t in row] for row in cells[:limit]], hidden))


def config_table(config: BaseModel, *, caption: str = "") -> Html:
    """What a config says: each field with its value and its meaning."""
    rows = [
        {"parameter": name, "value": getattr(config, name), "meaning": field.description or ""}
        for name, field in type(config).model_fields.items()
    ]
    return table(rows, caption=caption)


def written(files: Mapping[str | Path, str] | Iterable[tuple[str | Path, str]]) -> Html:
    """The table "what this run wrote": each path, relative to the project, with what it holds."""
    pairs = files.items() if isinstance(files, Mapping) else files
    rows = [
        {"file": shown(Path(path)) if Path(path).is_absolute() else str(path), "what it is": w} for path, w in pairs
    ]
    return table(rows, caption="What this run wrote")


def key_figures(figures: Mapping[str, object]) -> Html:
    """Cards, one per figure. A value may be a pair: the figure and a note below it."""
    cards, lines = [], []
    for label, given in figures.items():
        value, note = given if isinstance(given, tuple) else (given, "")
        if isinstance(value, NotMeasured):
            value, note = "–", str(value)
        text = cell_text(value)
        cards.append(
            f'<div class="card"><span>{escape(label)}</span><b>{escape(text)}</b>'
            + (f"<span>{escape(note)}</span>" if note else "")
            + "</div>"
        )
        lines.append(f"{plain(label)}: {text}" + (f" ({plain(note)})" if note else ""))
    across = len(cards) if len(cards) <= 5 else -(-len(cards) // 2) if len(cards) <= 10 else 5
    columns = f"grid-template-columns:repeat({max(across, 1)},1fr)"
    return Html(f'<div class="cards" style="{columns}">{"".join(cards)}</div>', "\n".join(lines))


def _columns_and_records(rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    if isinstance(rows, Sequence):
        columns = list(dict.fromkeys(key for row in rows for key in row))
        return columns, [[row.get(c) for c in columns] for row in rows]
    named = [n for n in rows.index.names if n is not None]
    frame = rows.reset_index() if named else rows
    return [str(c) for c in frame.columns], [list(r) for r in frame.itertuples(index=False, name=None)]


def _is_numeric(value: object) -> bool:
    number = isinstance(value, Real | HasInterval) and not isinstance(value, bool)
    number = number or (isinstance(value, str) and _FIGURE.fullmatch(value) is not None)
    return number or value is None or isinstance(value, NotMeasured) or str(value) == "<NA>"


def _as_text(caption: str, columns: list[str], cells: list[list[str]], hidden: int) -> str:
    grid = [columns, *[[" ".join(text.split())[:60] for text in row] for row in cells]]
    widths = [max(len(row[i]) for row in grid) for i in range(len(columns))]
    lines = ["  ".join(text.ljust(w) for text, w in zip(row, widths, strict=True)).rstrip() for row in grid]
    more = [f"and {hidden:,} more"] if hidden > 0 else []
    return "\n".join([*([caption] if caption else []), *lines, *more])
