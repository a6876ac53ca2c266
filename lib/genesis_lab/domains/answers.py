"""Answers in YAML: reading them safely out of whatever a model sent, and writing them in one plain form."""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from genesis_lab.domains.conversations.taxonomy import parse_yaml
from genesis_lab.domains.language import detect, function_words

LONGEST = 20_000
"""Characters of an answer that are looked at."""
_PLAIN = re.compile(r"[^\W\d_][\w ,.()%/'€$+-]*[\w.)%]")
_RESERVED = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_KEY = re.compile(r"^[a-z_]+:(\s|$)", re.MULTILINE)
_PLACEHOLDER = re.compile(
    r"\b(?:TODO|TBD|FIXME|XXX+)\b|(?i:\blorem ipsum\b|\bpor (?:definir|determinar)\b|<[a-z_ ]+>"
    r"|\[[a-z_ ]*(?:insert|here|aquí)[a-z_ ]*\]|^\s*(?:\.{3}|…|n/a|none|string|text|texto)\s*$)"
)
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with an answer or a record: a stable kind, where it is, and one sentence."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Block:
    """One YAML block of an answer. `data` is None where it can't be read, and then `faults` says why."""

    label: str
    text: str
    data: Any
    faults: tuple[Fault, ...] = ()


def blocks(text: str, labels: Sequence[str] = ()) -> tuple[list[Block], list[Fault]]:
    """The YAML in an answer, and what is wrong with what stands around it.

    Parameters
    ----------
    labels : the fenced blocks that are due, for example ``("VISION", "REVIEW")``; none: one bare YAML document.
    """
    text = text[:LONGEST].replace("\r\n", "\n")
    fenced = list(_FENCE.finditer(text))
    faults = []
    if fenced and (outside := _FENCE.sub("", text).strip()):
        faults.append(Fault("extra_prose", "", f"text outside the YAML: {outside[:60]!r}"))
    if not fenced:
        bare = text.strip()
        found = _KEY.search(bare)
        if not labels and found and bare[: found.start()].strip() and not bare.startswith(("{", "---")):
            faults.append(Fault("extra_prose", "", f"text outside the YAML: {bare[: found.start()].strip()[:60]!r}"))
            bare = bare[found.start() :]
        return [_block("", bare, closed=True)], faults
    if not labels and fenced:
        faults.append(Fault("fenced", "", "the YAML stands in a code fence"))
    parts = []
    for match in fenced:
        words = match[2].split()
        label = next((word.upper() for word in words if word.upper() in labels), "")
        closed = match[0].rstrip().endswith(match[1]) and match[0].count("\n") > 0
        parts.append(_block(label, match[3], closed=closed))
    return parts, faults


def _block(label: str, text: str, *, closed: bool) -> Block:
    faults = []
    if text.lstrip().startswith("{"):
        faults.append(Fault("json_answer", label, "JSON where YAML is due"))
    if not closed:
        faults.append(Fault("truncated", label, "the block is cut off: its closing fence is missing"))
    try:
        data = load(text)
    except ValueError as error:
        return Block(label, text, None, (*faults, Fault("broken_yaml", label, str(error))))
    return Block(label, text, data, tuple(faults))


def load(text: str) -> Any:
    """What a YAML text says; ``ValueError`` with the reason if it is none. Unquoted dates come as dates."""
    from yaml import YAMLError

    try:
        return parse_yaml(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"the YAML is broken or cut off: {' '.join(str(error).split())[:160]}") from None


def written(data: Mapping[str, Any], indent: str = "") -> str:
    """`data` (texts, lists and objects of them) as block YAML, always in the same form.

    Examples
    --------
    >>> print(written({"title": "Booking app", "ids": [], "items": [{"id": "FR001", "priority": "High"}]}))
    title: Booking app
    ids: []
    items:
    - id: FR001
      priority: High
    <BLANKLINE>
    """
    lines = []
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            lines.append(f"{indent}{key}:\n{written(value, indent + '  ')}")
        elif isinstance(value, list) and value:
            lines.append(f"{indent}{key}:\n")
            for item in value:
                nested = isinstance(item, Mapping) and item
                inner = written(item, indent + "  ") if nested else f"{indent}  {_leaf(item)}\n"
                lines.append(f"{indent}- {inner[len(indent) + 2 :]}")
        else:
            lines.append(f"{indent}{key}: {_leaf(value)}\n")
    return "".join(lines)


def _leaf(value: Any) -> str:
    return scalar(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def as_text(value: Any) -> Any:
    """A date or a number as the text it was written as; anything else as it is."""
    return str(value) if isinstance(value, dt.date | int | float) and not isinstance(value, bool) else value


def scalar(text: str) -> str:
    """A text as a YAML scalar that every reader takes for a text: plain where that is safe, else in double quotes."""
    safe = _PLAIN.fullmatch(text) and text.lower() not in _RESERVED and " -" not in text
    return text if safe else json.dumps(text, ensure_ascii=False)


def text_faults(path: str, value: Any, *, shortest: int = 1, longest: int = 2_000) -> list[Fault]:
    """What is wrong with a value that must be a text."""
    if isinstance(value, dt.date):
        return [Fault("date_object", path, f"{path} is an unquoted date, which YAML reads as a date: put it in quotes")]
    if value is None:
        return [Fault("missing_field", path, f"{path} is missing")]
    if not isinstance(value, str):
        return [Fault("not_text", path, f"{path} must be a text, got {type(value).__name__}")]
    if _PLACEHOLDER.search(value):
        return [Fault("placeholder", path, f"{path} is a placeholder: {value.strip()[:40]!r}")]
    if not shortest <= len(value.strip()) <= longest:
        return [Fault("length", path, f"{path} must have {shortest} to {longest} characters, has {len(value.strip())}")]
    return []


def field_faults(data: Any, fields: Sequence[str], where: str = "") -> list[Fault]:
    """Fields of an object that are missing, or there and unknown."""
    name = where or "the answer"
    if not isinstance(data, Mapping):
        return [Fault("no_object", where, f"{name} must be an object with {', '.join(fields)}")]
    at = f"{where}." if where else ""
    missing = [Fault("missing_field", at + f, f"{at}{f} is missing") for f in fields if data.get(f) is None]
    known = set(fields)
    return missing + [Fault("unknown_field", f"{at}{k}", f"{at}{k} is no known field") for k in data if k not in known]


def language_faults(texts: Sequence[str], language: str | None, path: str = "") -> list[Fault]:
    """Whether the texts together read as the language they must be in."""
    found = detect(" ".join(texts)[:2_000])
    if language is None or found in (None, language):
        return []
    return [Fault("wrong_language", path, f"the text must be in {language!r}, it reads as {found!r}")]


def terms(text: str, ignored: frozenset[str] = frozenset()) -> frozenset[str]:
    """The content words of a text, by their first six letters without accents, so that inflections meet."""
    return frozenset(
        word[:6]
        for word in map(unaccented, _WORD.findall(text))
        if len(word) > 3 and word not in _stop_words() | ignored
    )


def coverage(wanted: frozenset[str], text: str) -> float:
    """Share of the terms `wanted` that occur in `text`; 0 where there are none."""
    return len(wanted & terms(text)) / len(wanted) if wanted else 0.0


def unaccented(text: str) -> str:
    """Lower case without accents."""
    return "".join(c for c in unicodedata.normalize("NFKD", text.lower()) if not unicodedata.combining(c))


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    return frozenset(unaccented(word) for words in function_words() for word in words)
