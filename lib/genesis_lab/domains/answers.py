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
_GOES_ON = re.compile(r"\s|#|-\s|[\"']?[a-z_][\w-]*[\"']?\s*:(\s|$)")
"""How a line begins that goes on with YAML; one of prose does not."""
_WORD = re.compile(r"[^\W\d_]{4,}")


def read_yaml(text: str, fields: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """The fields that the YAML in an answer has, of all its blocks together, and what is wrong with how it says them.

    Parameters
    ----------
    fields : what YAML may begin with and must not end before; prose round it is told by them.
    """
    text = spoken(text[:LONGEST].replace("\r\n", "\n"))
    fenced = list(_FENCE.finditer(text))
    prose = _FENCE.sub("", text) if fenced else ""
    data: dict[str, Any] = {}
    faults = []
    for body in [match[2] for match in fenced] or [text]:
        before, said, after = _parted(body, fields)
        prose += before + after
        try:
            found = load(said)
            data |= found if isinstance(found, Mapping) else {}
        except ValueError as error:
            faults.append(Fault("broken_yaml", "", str(error)))
        if said.lstrip().startswith("{"):
            faults.append(Fault("json_answer", "", "JSON where YAML is due"))
    if fenced and fenced[-1]["cut"] is not None:
        faults.append(Fault("truncated", "", "the answer is cut off: its closing fence is missing"))
    if prose := prose.strip("-# \t\n"):
        faults.append(Fault("extra_prose", "", f"text outside the YAML: {prose[:60]!r}"))
    return data, faults


def _parted(text: str, fields: Sequence[str]) -> tuple[str, str, str]:
    """What stands before the first of `fields`, the YAML, and what follows the lines that go on with the last one."""
    lines = text.splitlines(keepends=True)
    top = re.compile(rf"\s*[\"']?(?:{'|'.join(fields)})[\"']?\s*:(\s|$)")
    tops = [i for i, line in enumerate(lines) if top.match(line)]
    if not tops or text.lstrip().startswith("{"):
        return "", text, ""
    begin, last = tops[0], tops[-1]
    end = next((i for i in range(last + 1, len(lines)) if not _GOES_ON.match(lines[i])), len(lines))
    return "".join(lines[:begin]), "".join(lines[begin:end]), "".join(lines[end:])


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
