"""The form of a role's answer, declared once: its JSON schema, its grammar, what is wrong with an answer, what can be mended."""

from __future__ import annotations

import dataclasses
import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genesis_lab.texts import same_words, unaccented

_LETTERS = "A-Za-zÁÉÍÓÚÜÑáéíóúüñãç"
_PLACEHOLDER = re.compile(
    r"\b(?:TODO|TBD|FIXME|XXX+)\b|(?i:\blorem ipsum\b|\bpor (?:definir|determinar)\b|<[a-z_ ]+>"
    r"|\[[a-z_ ]*(?:insert|here|aquí)[a-z_ ]*\]|^\s*(?:\.{3}|…|n/a|none|string|text|texto)\s*$)"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with an answer or a record: a stable kind, where it is, and one sentence."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True)
class Field:
    """A value of an answer. As it stands here: whatever it is, the role itself says what is wrong with it.

    `pattern` : what a student that is held to the grammar may write.
    """

    pattern: str = ""
    missing = "missing_field"
    """Kind of the fault that it isn't there."""

    def schema(self) -> dict[str, Any]:
        """As JSON schema."""
        return {"type": "string"}

    def grammar(self, indent: str = "") -> str:
        """As a Lark expression for llguidance: the value as it stands after ``name:`` in block YAML, and its line's end."""
        return f'" " {self.value()} "\\n"'

    def value(self) -> str:
        return f"/{self.pattern}/"

    def faults(self, value: Any, path: str) -> list[Fault]:
        """What is wrong with a value that is there."""
        return []

    def mended(self, value: Any) -> Any:
        """The value with everything repaired that needs no judgement."""
        return str(value) if isinstance(value, dt.date | int | float) and not isinstance(value, bool) else value

    def arranged(self, value: Any) -> Any:
        """The value with its fields in order."""
        return value

    def texts(self, value: Any) -> Iterator[str]:
        """What people read of it."""
        if isinstance(value, str) and not (self.pattern and re.fullmatch(self.pattern, value)):
            yield value


@dataclass(frozen=True)
class Text(Field):
    """A text of so many characters; `usual`: as long as a student that is held to the grammar may write it."""

    shortest: int = 1
    longest: int = 2_000
    usual: tuple[int, int] = (2, 300)

    def value(self) -> str:
        low, high = self.usual
        return rf"/[{_LETTERS}][{_LETTERS}0-9 ,.()%\/'-]{{{low - 2},{high - 2}}}[{_LETTERS}0-9.]/"

    def faults(self, value: Any, path: str) -> list[Fault]:
        if isinstance(value, dt.date):
            said = f"{path} is an unquoted date, which YAML reads as a date: put it in quotes"
            return [Fault("date_object", path, said)]
        if not isinstance(value, str):
            return [Fault("not_text", path, f"{path} must be a text, got {type(value).__name__}")]
        if _PLACEHOLDER.search(value):
            return [Fault("placeholder", path, f"{path} is a placeholder: {value.strip()[:40]!r}")]
        if self.shortest <= len(value.strip()) <= self.longest:
            return []
        said = f"{path} must have {self.shortest} to {self.longest} characters, has {len(value.strip())}"
        return [Fault("length", path, said)]


@dataclass(frozen=True)
class Date(Text):
    """A day as the text ``2025-03-14``."""

    def value(self) -> str:
        return r'"\"" /20[0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])/ "\""'

    def faults(self, value: Any, path: str) -> list[Fault]:
        faults = super().faults(value, path)
        try:
            dt.date.fromisoformat(unaccented(str(value)).strip())
        except ValueError:
            if isinstance(value, str):
                said = f"{path} must be a date like 2025-03-14, got {value[:20]!r}"
                faults.append(Fault("bad_date", path, said))
        return faults


@dataclass(frozen=True)
class OneOf(Field):
    """One of few words; `kind`: the fault that it is none of them."""

    words: tuple[str, ...] = ()
    kind: str = ""
    missing: str = "missing_field"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}

    def value(self) -> str:
        return "(" + " | ".join(f'"{word}"' for word in self.words) + ")"

    def faults(self, value: Any, path: str) -> list[Fault]:
        if value in self.words:
            return []
        return [Fault(self.kind, path, f"{path} must be {', '.join(self.words)}, got {str(value)[:30]!r}")]

    def mended(self, value: Any) -> Any:
        return next((word for word in self.words if same_words(word) == same_words(str(value))), value)

    def texts(self, value: Any) -> Iterator[str]:
        return iter(())


@dataclass(frozen=True)
class Object(Field):
    """Named fields, all of them due, in this order."""

    fields: Mapping[str, Field] = dataclasses.field(default_factory=dict)

    def _present(self, value: Any) -> Iterator[tuple[str, Field, Any]]:
        for name, field in self.fields.items():
            if isinstance(value, Mapping) and value.get(name) is not None:
                yield name, field, value[name]

    def schema(self) -> dict[str, Any]:
        properties = {name: field.schema() for name, field in self.fields.items()}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    def grammar(self, indent: str = "") -> str:
        return f'"\\n" {self.body(indent + "  ")}'

    def body(self, indent: str = "", first: str | None = None, number: str = "") -> str:
        """Its lines; `first` stands before the first one instead of `indent`, `number` is its id."""
        lines = []
        for i, (name, field) in enumerate(self.fields.items()):
            lead = first if first is not None and not i else indent
            value = f'" {number}\\n"' if number and not i else field.grammar(indent)
            lines.append(f'"{lead}{name}:" {value}')
        return " ".join(lines)

    def faults(self, value: Any, path: str = "") -> list[Fault]:
        fields, at = self.fields, f"{path}." if path else ""
        if not isinstance(value, Mapping):
            said = f"{path or 'the answer'} must be an object with {', '.join(fields)}"
            return [Fault("no_object", path, said)]
        faults = [
            Fault(field.missing, at + name, f"{at}{name} is missing")
            for name, field in fields.items()
            if value.get(name) is None
        ]
        faults += [Fault("unknown_field", f"{at}{k}", f"{at}{k} is no known field") for k in value if k not in fields]
        return faults + [f for name, field, each in self._present(value) for f in field.faults(each, at + name)]

    def mended(self, value: Any) -> Any:
        whole = {name: field.mended(each) for name, field, each in self._present(value)}
        return whole if isinstance(value, Mapping) else value

    def arranged(self, value: Any) -> Any:
        whole = {name: field.arranged(each) for name, field, each in self._present(value)}
        return whole if isinstance(value, Mapping) else value

    def texts(self, value: Any) -> Iterator[str]:
        for _, field, each in self._present(value):
            yield from field.texts(each)


@dataclass(frozen=True)
class ListOf(Field):
    """So many of the same, no two of which say the same.

    Parameters
    ----------
    of : each of them; an object is told apart by its ``description``.
    fewest, most : how many; most 0: as many as one likes, of which a grammar allows `usual`.
    prefix : objects are numbered in their field ``id``: ``FR001``, ``FR002`` …
    """

    of: Field = Field()
    fewest: int = 0
    most: int = 0
    usual: int = 0
    prefix: str = ""

    def schema(self) -> dict[str, Any]:
        bounds = {"minItems": self.fewest, "maxItems": self.most}
        return {"type": "array", "items": self.of.schema()} | {name: n for name, n in bounds.items() if n}

    def grammar(self, indent: str = "") -> str:
        most = self.most or self.usual
        items = [self._item(indent, i) for i in range(1, most + 1)]
        if len(set(items)) == 1:
            lines = f'"\\n" ({items[0]}){{{max(self.fewest, 1)},{most}}}'
        else:  # one inside the other, so that no number is skipped
            more = ""
            for item in reversed(items[self.fewest :]):
                more = f" ({item}{more})?"
            lines = f'"\\n" {" ".join(items[: self.fewest])}{more}'
        return lines if self.fewest else f'(" []\\n" | {lines})'

    def _item(self, indent: str, i: int) -> str:
        if isinstance(self.of, Object):
            return self.of.body(f"{indent}  ", f"{indent}- ", f"{self.prefix}{i:03d}" if self.prefix else "")
        return f'"{indent}-" {self.of.grammar()}'

    def faults(self, value: Any, path: str) -> list[Fault]:
        if not isinstance(value, list):
            return [Fault("not_text", path, f"{path} must be a list")]
        if not value and self.fewest:
            return [Fault("empty_list", path, f"{path} is empty")]
        faults = [fault for i, one in enumerate(value, 1) for fault in self._missing_or(one, f"{path}.{i}")]
        if len(value) < self.fewest:
            said = f"{path} must have at least {self.fewest} entries, has {len(value)}"
            faults.append(Fault("too_few", path, said))
        said_at: dict[str, int] = {}
        for i, one in enumerate(value if self.fewest else [], 1):
            where = f"{path}.{i}.description" if isinstance(one, Mapping) else f"{path}.{i}"
            if (words := _words(one)) is not None and said_at.setdefault(words, i) != i:
                faults.append(Fault("repeated_text", where, f"{where} repeats that of another entry"))
        return faults + (self._numbering(value, path) if self.prefix else [])

    def _missing_or(self, one: Any, path: str) -> list[Fault]:
        if one is None and self.fewest:
            return [Fault("missing_field", path, f"{path} is missing")]
        return self.of.faults(one, path)

    def _numbering(self, items: Sequence[Any], path: str) -> list[Fault]:
        faults, ids, form = [], [], rf"{self.prefix}\d{{3}}"
        for i, item in enumerate(items, 1):
            number, at = item.get("id") if isinstance(item, Mapping) else None, f"{path}.{i}.id"
            if number is not None and not (isinstance(number, str) and re.fullmatch(form, number)):
                said = f"{at} must be like {self.prefix}001, got {str(number)[:20]!r}"
                faults.append(Fault("bad_id", at, said))
            elif number in ids:
                faults.append(Fault("duplicate_id", at, f"{at} repeats {number}"))
            ids += [number] if isinstance(number, str) else []
        right = [f"{self.prefix}{i + 1:03d}" for i in range(len(items))]
        if all(re.fullmatch(form, n) for n in ids) and len(set(ids)) == len(items) and ids != right:
            said = f"{path}: ids must count up from {right[0]} without gaps, got {', '.join(ids[:6])}"
            faults.append(Fault("id_order", path, said))
        return faults

    def mended(self, value: Any) -> Any:
        if not isinstance(value, list) or (self.prefix and not all(isinstance(one, Mapping) for one in value)):
            return value
        firsts = {_words(one) or i: one for i, one in reversed(list(enumerate(value)))}
        kept = list(reversed(firsts.values())) if len(firsts) >= max(self.fewest, 1) else value
        if self.prefix:
            kept = [{**one, "id": f"{self.prefix}{i:03d}"} for i, one in enumerate(kept, 1)]
        return [self.of.mended(one) for one in kept]

    def arranged(self, value: Any) -> Any:
        return [self.of.arranged(one) for one in value] if isinstance(value, list) else value

    def texts(self, value: Any) -> Iterator[str]:
        for one in value if isinstance(value, list) else ():
            yield from self.of.texts(one)


def _words(one: Any) -> str | None:
    """What an entry says."""
    text = one.get("description") if isinstance(one, Mapping) else one
    return same_words(text) if isinstance(text, str) else None
