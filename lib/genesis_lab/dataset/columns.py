"""Tables as people keep them: safe cells for a spreadsheet, what parts the columns, where the header is, rows by it."""

from __future__ import annotations

import csv
import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"-(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{0,5}[1-9])?")
_SAMPLE = 50  # rows by which a table is judged
Line = list[str] | csv.Error
"""The cells of a row, or why there are none."""


def safe_cell(text: str) -> str:
    """`text` with an apostrophe before what a spreadsheet would run as a formula (OWASP, CSV injection), no number."""
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plain_cell(cell: str) -> str:
    """What `safe_cell` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def parted(lines: Iterator[str]) -> Iterator[Line]:
    """Cells of the rows of a CSV file, whatever parts them; a first line ``sep=;`` says it."""
    csv.field_size_limit(2**31 - 1)
    ahead = list(itertools.islice(lines, _SAMPLE))
    if told := re.fullmatch(r"\"?sep=(.)\"?\s*", ahead[0] if ahead else "", re.IGNORECASE):
        mark, ahead = told[1], ahead[1:]
    else:
        fits = {mark: _fit(ahead, mark) for mark in "\t|;,"}
        best = max(fits, key=lambda mark: fits[mark])
        mark = best if fits[best][0] >= 0.5 else "\x1f"  # one column
    reader = csv.reader(itertools.chain(ahead, lines), delimiter=mark)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def _fit(lines: Sequence[str], mark: str) -> tuple[float, int]:
    """How evenly a character parts these lines, and into how many cells."""
    try:
        widths = [len(row) for row in csv.reader(lines, delimiter=mark) if row]
    except csv.Error:
        return 0.0, 0
    usual, times = next(iter(Counter(width for width in widths if width > 1).most_common(1)), (0, 0))
    return (times / len(widths) + 0.5 * (widths[0] == usual) if usual else 0.0), usual


def keyed(
    rows: Iterable[Line], knows: Callable[[str], bool | None]
) -> Iterator[tuple[int, dict[str, Any] | None, str | None]]:
    """Number, values by column, and what is wrong with it, of each row of a table.

    `knows` says whether a column may be called so: where it can, lines above the header are passed over, and a table
    without one gets ``column 1`` and so on. None from it: the first row is the header.
    """
    given = iter(rows)
    ahead = list(itertools.islice(given, _SAMPLE))
    start, header = _header([row for row in ahead if isinstance(row, list)], knows)
    width = len(header)
    for number, row in enumerate(itertools.chain(ahead[start:], given), 1):
        if isinstance(row, csv.Error):
            yield number, None, f"the row is no CSV: {row}"
            continue
        cells = row[:width] if len(row) > width and not any(map(str.strip, row[width:])) else row
        if cells and any(cells) and len(cells) != width:
            yield number, None, f"the row has {len(cells)} cells, the header {width}"
        elif any(cells):
            yield number, {n: plain_cell(c) or None for n, c in zip(header, cells, strict=True) if n}, None


def _header(rows: Sequence[list[str]], knows: Callable[[str], bool | None]) -> tuple[int, list[str]]:
    """Where the rows below the header begin, and the names of the columns."""
    first = [name.strip() for name in rows[0]] if rows else []
    if knows("") is None:
        return 1, first
    widths = [sum(map(bool, map(str.strip, row))) for row in rows]
    usual = Counter(w for w in widths if w).most_common(1)[0][0] if any(widths) else 0
    told = [i for i, row in enumerate(rows[:10]) if widths[i] >= min(2, usual) and _names(row, knows)]
    start = told[0] if told else next((i for i, width in enumerate(widths) if width >= usual), 0)
    names = [name.strip().removeprefix("\ufeff") for name in rows[start]] if rows else []
    if not told and not _heads(names, rows[start + 1 :]):
        return start, [f"column {i}" for i in range(1, len(names) + 1)]
    while names and not names[-1]:
        names.pop()
    return start + 1, [name or f"column {i}" for i, name in enumerate(names, 1)]


def _names(row: Sequence[str], knows: Callable[[str], bool | None]) -> bool:
    """Whether a row is of names, one of which is known."""
    said = [cell.strip() for cell in row if cell.strip()]
    short = all(len(cell) <= 60 and not cell.isdigit() for cell in said)
    return short and len(set(said)) == len(said) and any(map(knows, said))


def _heads(names: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether a row whose names nobody knows is a header still: short, and unlike what stands below it."""
    short = all(len(name.split()) <= 3 and not re.fullmatch(r"[\d.,]*", name) for name in names if name)
    again = any(name and name == cell.strip() for row in rows for name, cell in zip(names, row, strict=False))
    return short and not again and len(set(names)) == len(names)
