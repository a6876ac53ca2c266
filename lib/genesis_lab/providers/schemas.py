"""What a JSON schema becomes on its way to a model: stated in words, without bounds, or so that an answer ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

CHARACTERS_PER_TOKEN = 2.0
"""Cautious: what a small model's tokenizer makes of Spanish at its worst."""
_TEXT_SHARE = 0.75
"""Share of an answer's tokens that may be text; the rest is braces and keys."""
_ITEMS = 12
"""Most items of an array that names no limit."""
_BOUNDS = re.compile(r"(exclusiveM|m)(in|ax)\w+|pattern|format|uniqueItems|prefixItems|multipleOf|default")
"""Keywords that services with strict structured output refuse, or that make their grammars too large."""


def stated(schema: Mapping[str, Any]) -> str:
    """The schema's shape as an instruction, for a model that can't be held to it."""
    shape = json.dumps(without_bounds(schema), ensure_ascii=False)
    return "Answer with one JSON object and nothing else, no code fence. It must fit this JSON schema:\n" + shape


def without_bounds(schema: Mapping[str, Any]) -> Any:
    """The schema's bare shape: lengths, counts and patterns are left to the checks that follow."""
    return _mapped(schema, lambda node: {k: v for k, v in node.items() if not _BOUNDS.fullmatch(k)})


def closed(schema: Mapping[str, Any]) -> Any:
    """The schema's bare shape with every object closed, as strict structured output wants it."""
    shut = {"additionalProperties": False}
    return _mapped(without_bounds(schema), lambda node: node | shut if node.get("type") == "object" else node)


def bounded(schema: Mapping[str, Any], max_tokens: int) -> Any:
    """The schema with a limit on every array and free string, so that an answer fits into `max_tokens`.

    A limit that the schema has is kept where it is the lower one. The strings share the room evenly.

    >>> bounded({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}, 40)["properties"]
    {'a': {'type': 'string', 'maxLength': 30}, 'b': {'type': 'string', 'maxLength': 30}}
    """
    longest = max(1, int(max_tokens * CHARACTERS_PER_TOKEN * _TEXT_SHARE / max(1, _free_strings(schema))))

    def limit(node: dict[str, Any]) -> dict[str, Any]:
        if _is_free_string(node):
            return node | {"maxLength": max(min(node.get("maxLength", longest), longest), node.get("minLength", 0))}
        return node | {"maxItems": _most_items(node)} if node.get("type") == "array" else node

    return _mapped(schema, limit)


def _is_free_string(node: Mapping[str, Any]) -> bool:
    return node.get("type") == "string" and not {"enum", "const", "pattern", "format"} & node.keys()


def _most_items(node: Mapping[str, Any]) -> int:
    least = max(node.get("minItems", 0), len(node.get("prefixItems", ())))
    return int(node.get("maxItems", max(least, _ITEMS)))


def _free_strings(node: Mapping[str, Any]) -> int:
    """Most free strings that an answer can hold."""
    if _is_free_string(node):
        return 1
    total = 0
    for keyword, value in node.items():
        times = max(0, _most_items(node) - len(node.get("prefixItems", ()))) if keyword == "items" else 1
        below = value.values() if keyword in _NAMED else value if isinstance(value, list) else [value]
        total += times * sum(_free_strings(child) for child in below if isinstance(child, Mapping))
    return total


_NAMED = ("properties", "$defs")
"""Where schemas stand under names of their own."""


def _mapped(node: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """A copy of the schema in which `change` has been applied to every schema below and to itself."""
    if isinstance(node, list):
        return [_mapped(each, change) for each in node]
    if not isinstance(node, Mapping):
        return node
    copy = {keyword: _mapped(value, change) for keyword, value in node.items() if keyword not in _NAMED}
    for keyword in node.keys() & set(_NAMED):
        copy[keyword] = {name: _mapped(child, change) for name, child in node[keyword].items()}
    return change({keyword: copy[keyword] for keyword in node})
