"""Answers in YAML: reading them safely out of whatever a model sent, and what they say."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from genesis_lab.domains.form import Fault
from genesis_lab.domains.language import function_words
from genesis_lab.domains.reading import spoken
from genesis_lab.texts import normal, unaccented
from genesis_lab.yamls import parse_yaml

LONGEST = 20_000
"""Characters of an answer that are looked at."""
_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)(?:^[ \t]*\1(?![ \t]*(?:ya?ml|json|vision|review)\b)|(?=^[ \t]*\1)|(?P<cut>\Z))",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_OWN_KEY = re.compile(r"[a-z_][\w-]*\s*:(\s|$)")
_WORD = re.compile(r"[^\W\d_]{4,}")


def read_yaml(text: str, fields: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """The fields that the YAML in an answer has, of all its blocks together, and what is wrong with how it says them.

    Parameters
    ----------
    fields : what YAML may begin with and must not end before; prose round it is told by them.
    """
    text = spoken(text[:LONGEST].replace("\r\n", "\n"))
    fenced = list(_FENCE.finditer(text))
    outside = _FENCE.sub("", text) if fenced else ""
    data: dict[str, Any] = {}
    faults = []
    for body in [match[2] for match in fenced] or [text.strip("\n").rstrip()]:
        found, prose, reason = _document(body, fields)
        outside += prose
        data |= found
        if reason:
            faults.append(Fault("broken_yaml", "", reason))
        if body.lstrip().startswith("{"):
            faults.append(Fault("json_answer", "", "JSON where YAML is due"))
    if fenced and fenced[-1]["cut"] is not None:
        faults.append(Fault("truncated", "", "the answer is cut off: its closing fence is missing"))
    if outside := outside.strip("-# \t\n"):
        faults.append(Fault("extra_prose", "", f"text outside the YAML: {outside[:60]!r}"))
    return data, faults


def _document(text: str, fields: Sequence[str]) -> tuple[dict[str, Any], str, str]:
    """The fields of one YAML document, the prose round it, and why it can't be read."""
    begin, end = _bounds(text, fields)
    reason = "the YAML holds no fields"
    for stop in (end, len(text)):
        try:
            data = load(text[begin:stop])
        except ValueError as error:
            reason = str(error)
        else:
            if isinstance(data, Mapping):
                return dict(data), text[:begin] + text[stop:], ""
    return {}, "", reason


def _bounds(text: str, fields: Sequence[str]) -> tuple[int, int]:
    """Where the first of `fields` begins, and where the lines end that go on with the last one."""
    top = re.compile(rf"^([ \t]*)[\"']?(?:{'|'.join(fields)})[\"']?[ \t]*:(?=\s|$)", re.MULTILINE)
    tops = list(top.finditer(text))
    if not tops or text.lstrip().startswith("{"):
        return 0, len(text)
    indent = len(tops[0][1])
    end = text.find("\n", max(match.start() for match in tops if len(match[1]) <= indent)) + 1 or len(text)
    blank = False
    for line in text[end:].splitlines(keepends=True):
        said = line.lstrip(" \t")
        goes_on = len(line) - len(said) > indent or re.match(r"-\s|#|$", said)
        if not goes_on and (blank or not _OWN_KEY.match(said)):
            break
        blank, end = not line.strip(), end + len(line)
    return tops[0].start(), end


def load(text: str) -> Any:
    """What a YAML text says; ``ValueError`` with the reason if it is none. Unquoted dates come as dates."""
    from yaml import YAMLError

    try:
        return normal(parse_yaml(text))
    except (YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"the YAML is broken or cut off: {' '.join(str(error).split())[:160]}") from None


def terms(text: str, ignored: frozenset[str] = frozenset()) -> frozenset[str]:
    """The content words of a text, by their first six letters without accents, so that inflections meet."""
    words = set(map(unaccented, _WORD.findall(text)))
    return frozenset(word[:6] for word in words - _stop_words() - ignored)


def coverage(wanted: frozenset[str], text: str) -> float:
    """Share of the terms `wanted` that occur in `text`; 0 where there are none."""
    return len(wanted & terms(text)) / len(wanted) if wanted else 0.0


@cache
def _stop_words() -> frozenset[str]:
    return frozenset(unaccented(word) for words in function_words() for word in words)
