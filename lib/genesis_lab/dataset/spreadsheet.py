"""Cells of a CSV file: safe in a spreadsheet, read back as they were."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_QUOTED_FORMULA = re.compile(r"'+[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"-(?:0|[1-9][0-9]{0,8})(?:\.[0-9]{0,5}[1-9])?")
_INDENT = "    "
_SPEAKER = re.compile(r"\w[\w .'’-]*")
_LINE = re.compile(rf"({_SPEAKER.pattern}):(?: (.*)|(.*))")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def safe_cell(text: str) -> str:
    """`text` with an apostrophe before anything that a spreadsheet would run as a formula (OWASP, CSV injection).

    A negative number is none: a spreadsheet keeps it as it is.
    """
    return "'" + text if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def plain_cell(cell: str) -> str:
    """What `safe_cell` was given."""
    return cell[1:] if _QUOTED_FORMULA.match(cell) else cell


def turns_as_text(turns: Sequence[Mapping[str, Any]]) -> str:
    """One ``speaker: text`` per turn, further lines of a text indented; JSON where that could not be read back."""
    lines = []
    for turn in turns:
        speaker, text = turn["speaker"], turn["text"]
        if speaker is None or text is None or not _SPEAKER.fullmatch(speaker) or _CONTROL.search(text):
            return json.dumps(list(turns), ensure_ascii=False)
        lines.append(f"{speaker}: " + text.replace("\n", "\n" + _INDENT))
    return "\n".join(lines) if lines else "[]"


def text_as_turns(cell: str) -> list[Any]:
    """The turns in a cell that `turns_as_text` wrote, or anyone else in the same form.

    Raises
    ------
    ValueError : a line has no speaker.
    """
    if cell.lstrip().startswith("["):
        found = json.loads(cell)
        return found if isinstance(found, list) else [found]
    turns: list[dict[str, str]] = []
    for number, line in enumerate(cell.split("\n"), 1):
        line = line.removesuffix("\r")
        begun = _LINE.fullmatch(line)
        if turns and line.startswith(_INDENT):
            turns[-1]["text"] += "\n" + line.removeprefix(_INDENT)
        elif begun:
            turns.append({"speaker": begun[1], "text": begun[2] or begun[3] or ""})
        else:
            raise ValueError(f'line {number} of the turns is not "speaker: text"')
    return turns
