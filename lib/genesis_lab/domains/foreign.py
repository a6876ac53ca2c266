"""Other people's records: where in them a domain's fields are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

Found = tuple[Any, tuple[Mapping[str, Any], ...]]
"""Something in a document, and the objects round it, nearest first."""


def lookup(record: Any, path: str) -> Any:
    """The value at ``a.b.0.c`` of nested objects and lists, or of the column of exactly that name, else None."""
    if isinstance(record, Mapping) and path in record:
        return record[path]
    for step in path.split("."):
        if isinstance(record, Mapping):
            record = record.get(step)
        elif isinstance(record, list | tuple) and step.isdecimal() and int(step) < len(record):
            record = record[int(step)]
        else:
            return None
    return record


def walk(node: Any, path: Sequence[str], around: tuple[Mapping[str, Any], ...] = ()) -> Iterator[Found]:
    """Everything at a path of the form that ``conversations/shapes.yaml`` explains."""
    if not path:
        yield node, around
        return
    step, rest = path[0], path[1:]
    listed: Iterable[Any] = node if isinstance(node, list | tuple) else ()
    inner = node.values() if isinstance(node, Mapping) else listed
    closer = (node, *around) if isinstance(node, Mapping) else around
    if step == ".":
        yield from walk(node, rest, around)
    elif step == "**":
        yield from walk(node, rest, around)
        for each in inner:
            if isinstance(each, Mapping | list):
                yield from walk(each, path, closer)
    elif step == "*":
        lines = [re.sub(r"^[-*+] ", "", line.strip()) for line in node.splitlines()] if isinstance(node, str) else inner
        for each in lines:
            yield from walk(each, rest, closer)
    elif step[0] == "{":
        for key, each in node.items() if isinstance(node, Mapping) else ():
            yield from walk(each, rest, ({step[1:-1]: key}, *around))
    elif step[0] == "^":
        keys = step[1:].split("|")
        held = (each[key] for each in around for key in keys if isinstance(each.get(key), str | int | float))
        yield from ((each, ()) for each in list(held)[:1])
    elif isinstance(node, Mapping):
        for key in (key for key in step.split("|") if key in node):
            yield from walk(node[key], rest, closer)
    elif isinstance(node, list | tuple) and re.fullmatch(r"-?\d+", step) and -len(node) <= int(step) < len(node):
        yield from walk(node[int(step)], rest, around)


def flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The values in nested objects with their paths; of a list of plain values the first one."""
    for key, value in record.items():
        path = f"{before}{key}"
        if isinstance(value, Mapping) and before.count(".") < 3:
            yield from flat(value, f"{path}.")
        elif isinstance(value, list) and value and isinstance(value[0], str):
            yield f"{path}.0", value[0]
            yield path, value
        else:
            yield path, value


def objects_only(row: Any) -> Any:
    """A row of a source as it is, or, where it holds no object, with a problem instead."""
    if row.value is None or isinstance(row.value, Mapping):
        return row
    return replace(row, value=None, problem=f"expected an object with fields, got {str(row.value)[:60]!r}")


class Reader:
    """Finds fields in foreign records: where the field map says, under our name, or under what others call them.

    `aliases` : our field to what others call it; `field_map` : our field to theirs, which takes precedence.
    """

    extra_fields: tuple[str, ...] = ()
    """What a field map may hold besides `fields`."""
    essential: tuple[str, ...] = ()
    """Fields without which nothing was read; a field map calls the last of `extra_fields` what stands for them."""

    def __init__(self, fields: Sequence[str], aliases: Mapping[str, str], field_map: Mapping[str, str]) -> None:
        self.fields, self.aliases, self.field_map = fields, aliases, field_map
        self.about: dict[str, Any] = {}  # what the manifest of an import says of this reader
        self.used = {*aliases.values(), *field_map.values(), *(path.split(".")[0] for path in field_map.values())}
        """Columns that are known."""
        self.beside: tuple[str, list[str]] = ("", [])  # a file beside the data with the names of labels, and those
        self.said: list[str] = []  # what was taken for what
        self.done: Counter[str] = Counter()  # what was done to all records alike, and how often

    def knows(self, name: str) -> bool | None:
        """Whether a field is called so; None: a table's first row is its header whatever stands in it."""
        return None

    def gathered(self, rows: Iterator[Any]) -> Iterator[Any]:
        """The rows of a source, each with a whole record; where one is spread over rows, it is put together here."""
        return map(objects_only, rows)

    def welcome(self, name: str, value: Any) -> bool:
        """Whether a value is kept without a word though our own records have no such."""
        return False

    def read(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values of our fields, as they are, and what is wrong with them."""
        return {name: self.value(raw, name) for name in self.fields}, []

    def value(self, raw: Mapping[str, Any], name: str) -> Any:
        """The value of one field."""
        if name in self.field_map:
            return lookup(raw, self.field_map[name])
        found = None if name in self.field_map.values() else lookup(raw, name)
        return lookup(raw, self.aliases[name]) if found is None and name in self.aliases else found

    def derive(self, record: dict[str, Any]) -> list[str]:
        """Fill in what follows from the rest of a record; returns what contradicts it."""
        return []

    def notes(self) -> Iterator[str]:
        """What was done to all records alike."""
        yield from self.said
        yield from (f"{times:,} {what}" for what, times in self.done.items() if times)
