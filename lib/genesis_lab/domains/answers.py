"""Answers in YAML: reading them safely out of whatever a model sent, and what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from genesis_lab.domains.form import Fault
from genesis_lab.domains.language import detect, function_words
from genesis_lab.domains.reading import spoken
from genesis_lab.texts import normal, unaccented
from genesis_lab.yamls import parse_yaml

LONGEST = 20_000
"""Characters of an answer that are looked at."""
_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\n`]*)\n(.*?)"
    r"(?:^[ \t]*\1(?![ \t]*(?:ya?ml|json|vision|review)\b)|(?=^[ \t]*\1)|\Z)",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_OWN_KEY = re.compile(r"[a-z_][\w-]*\s*:(\s|$)")
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True, slots=True)
class Block:
    """One YAML block of an answer. `data` is None where it can't be read, and then `faults` says why."""

    label: str
    text: str
    data: Any
    faults: tuple[Fault, ...] = ()


def blocks(text: str, labels: Sequence[str] = (), fields: Sequence[str] = ()) -> tuple[list[Block], list[Fault]]:
    """The YAML in an answer, and what is wrong with what stands around it.

    Parameters
    ----------
    labels : the fenced blocks that are due, for example ``("VISION", "REVIEW")``; none: one bare YAML document.
    fields : what the YAML may begin with and must not end before; prose before and after it is told by them.
    """
    text = spoken(text[:LONGEST].replace("\r\n", "\n"))
    fenced = list(_FENCE.finditer(text))
    faults: list[Fault] = []
    if not fenced:
        return [_block("", text.strip("\n").rstrip(), fields, faults, closed=True)], faults
    if outside := _FENCE.sub("", text).strip():
        faults.append(_prose(outside))
    if not labels:
        faults.append(Fault("fenced", "", "the YAML stands in a code fence"))
    parts = []
    for match in fenced:
        words = match[2].split()
        label = next((word.upper() for word in words if word.upper() in labels), "")
        closed = match[0].rstrip().endswith(match[1]) and match[0].count("\n") > 0
        parts.append(_block(label, match[3], fields, faults, closed=closed))
    return parts, faults


def chosen(found: Sequence[Block], fields: Sequence[str]) -> Block:
    """The block with most of `fields`, the last of several; the first where none has any."""

    def held(block: Block) -> int:
        return sum(name in block.data for name in fields) if isinstance(block.data, Mapping) else -1

    best = max(map(held, found))
    return next(block for block in (reversed(found) if best > 0 else found) if held(block) == best)


def _prose(text: str) -> Fault:
    return Fault("extra_prose", "", f"text outside the YAML: {text.strip()[:60]!r}")


def _block(label: str, text: str, fields: Sequence[str], around: list[Fault], *, closed: bool) -> Block:
    """One block; prose round it is added to the faults `around`."""
    faults = []
    if text.lstrip().startswith("{"):
        faults.append(Fault("json_answer", label, "JSON where YAML is due"))
    if not closed:
        faults.append(Fault("truncated", label, "the block is cut off: its closing fence is missing"))
    begin, *ends = _bounds(text, fields)
    if begin:
        around.append(_prose(text[:begin]))
    reason = ""
    for end in ends:
        try:
            data = load(text[begin:end])
        except ValueError as error:
            reason = str(error)
            continue
        if end == len(text) or isinstance(data, Mapping):
            if text[end:].strip():
                around.append(_prose(text[end:]))
            return Block(label, text[begin:end], data, tuple(faults))
    return Block(label, text, None, (*faults, Fault("broken_yaml", label, reason)))


def _bounds(text: str, fields: Sequence[str]) -> list[int]:
    """Where the YAML with `fields` begins in a text, and where it may end, the nearest end first."""
    top = re.compile(rf"^([ \t]*)[\"']?(?:{'|'.join(fields)})[\"']?[ \t]*:(?=\s|$)", re.MULTILINE)
    tops = list(top.finditer(text)) if fields and not text.lstrip().startswith("{") else []
    if not tops:
        return [0, len(text)]
    first, indent = tops[0].start(), len(tops[0][1])
    prose_before = any(line.strip() and not re.match(r"---\s*$|[#%]", line) for line in text[:first].splitlines())
    place = text.find("\n", max(match.start() for match in tops if len(match[1]) <= indent)) + 1 or len(text)
    ends, blank = [], False
    for line in text[place:].splitlines(keepends=True):
        said = line.lstrip(" \t")
        goes_on = len(line) - len(said) > indent or re.match(r"-\s|#|$", said)
        if not goes_on and (blank or not _OWN_KEY.match(said)):
            ends.append(place)
        blank, place = not line.strip(), place + len(line)
    return [first if prose_before else 0, *ends, len(text)]


def load(text: str) -> Any:
    """What a YAML text says; ``ValueError`` with the reason if it is none. Unquoted dates come as dates."""
    from yaml import YAMLError

    try:
        return normal(parse_yaml(text))
    except (YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"the YAML is broken or cut off: {' '.join(str(error).split())[:160]}") from None


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


@lru_cache(maxsize=1)
def _stop_words() -> frozenset[str]:
    return frozenset(unaccented(word) for words in function_words() for word in words)
