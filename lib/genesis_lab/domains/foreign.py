"""Other people's records: where in them a domain's fields are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


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
        self.about: dict[str, Any] = {}
        """What the manifest of an import says of this reader."""
        self.used = {*aliases.values(), *field_map.values(), *(path.split(".")[0] for path in field_map.values())}
        """Columns that are known."""
        self.done: Counter[str] = Counter()
        """What was done to all records alike, and how often."""

    def gathered(self, rows: Iterator[Any]) -> Iterator[Any]:
        """The rows of a source, each with a whole record; where one is spread over rows, it is put together here."""
        return rows

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
        return (f"{times:,} {what}" for what, times in self.done.items() if times)
