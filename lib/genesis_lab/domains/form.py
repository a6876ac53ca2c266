"""The form of a role's answer, a JSON schema in YAML: what is wrong with an answer, and what of it can be mended."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from genesis_lab.texts import same_words

Form = Mapping[str, Any]
_PLACEHOLDER = re.compile(
    r"\b(?:TODO|TBD|FIXME|XXX+)\b|(?i:\blorem ipsum\b|\bpor (?:definir|determinar)\b|<[a-z_ ]+>"
    r"|\[[a-z_ ]*(?:insert|here|aquí)[a-z_ ]*\]|^\s*(?:\.{3}|…|n/a|none|string|text|texto)\s*$)"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with an answer: a stable kind, where it is, and one sentence."""

    kind: str
    path: str
    message: str


def faults(form: Form, value: Any, path: str = "") -> list[Fault]:
    """What is wrong with a value that is there, and with everything in it."""
    of = {"object": _of_object, "array": _of_list, "string": _of_text}.get(form.get("type", ""))
    return of(form, value, path) if of else []


def _of_object(form: Form, value: Any, path: str) -> list[Fault]:
    fields, at = form["properties"], f"{path}." if path else ""
    if not isinstance(value, Mapping):
        return [Fault("no_object", path, f"{path or 'the answer'} must be an object with {', '.join(fields)}")]
    found = []
    for name, part in fields.items():
        if value.get(name) is not None:
            found += faults(part, value[name], at + name)
        else:
            kind = f"missing_{name}" if "enum" in part else "missing_field"
            found.append(Fault(kind, at + name, f"{at}{name} is missing"))
    unknown = [f"{at}{name}" for name in value if name not in fields]
    return found + [Fault("unknown_field", name, f"{name} is no known field") for name in unknown]


def _of_list(form: Form, value: Any, path: str) -> list[Fault]:
    fewest = form.get("minItems", 0)
    if not isinstance(value, list):
        return [Fault("not_text", path, f"{path} must be a list, got {str(value)[:40]!r}")]
    if not value and fewest:
        return [Fault("empty_list", path, f"{path} is empty")]
    found: list[Fault] = []
    first: dict[str, int] = {}
    for i, one in enumerate(value, 1):
        where = f"{path}.{i}"
        found += faults(form["items"], one, where)
        if fewest and (words := _words(one)) and first.setdefault(words, i) != i:
            where += ".description" if isinstance(one, Mapping) else ""
            found.append(Fault("repeated_text", where, f"{where} repeats that of another entry"))
    if len(value) < fewest:
        found.append(Fault("too_few", path, f"{path} must have at least {fewest} entries, has {len(value)}"))
    ids = [one.get("id") for one in value if isinstance(one, Mapping)]
    due = _numbers(form, len(value))
    if due and ids != due and not any(fault.path.endswith(".id") for fault in found):
        twice = next((number for i, number in enumerate(ids) if number in ids[:i]), None)
        said = f"{path}: {twice} is there twice" if twice else f"{path}: ids must count up from {due[0]} without gaps"
        found.append(Fault("duplicate_id" if twice else "id_order", f"{path}.id", said))
    return found


def _of_text(form: Form, value: Any, path: str) -> list[Fault]:
    kind, said = "", ""
    name, low, high = path.rpartition(".")[2], form.get("minLength", 1), form.get("maxLength", 2_000)
    if "enum" in form:
        if value not in form["enum"]:
            kind, said = f"bad_{name}", f"must be {', '.join(form['enum'])}, got {str(value)[:30]!r}"
    elif isinstance(value, dt.date):
        kind, said = "date_object", "is an unquoted date, which YAML reads as a date: put it in quotes"
    elif not isinstance(value, str):
        kind, said = "not_text", f"must be a text, got {type(value).__name__}"
    elif _PLACEHOLDER.search(value):
        kind, said = "placeholder", f"is a placeholder: {value.strip()[:40]!r}"
    elif "pattern" in form and not re.fullmatch(form["pattern"], value.strip()):
        kind, said = f"bad_{form.get('format', name)}", f"must be like {form['pattern']}, got {value[:20]!r}"
    elif not low <= len(value.strip()) <= high:
        kind, said = "length", f"must have {low} to {high} characters, has {len(value.strip())}"
    return [Fault(kind, path, f"{path} {said}")] if kind else []


def mended(form: Form, value: Any) -> Any:
    """A value with everything repaired that needs no judgement: order of fields, numbering, repetitions, spelling."""
    if form["type"] == "object" and isinstance(value, Mapping):
        fields = form["properties"].items()
        return {name: mended(part, value[name]) for name, part in fields if value.get(name) is not None}
    if form["type"] == "array" and isinstance(value, list):
        firsts = {_words(one) or i: one for i, one in reversed([*enumerate(value)])}
        kept = [*reversed(firsts.values())] if len(firsts) >= form.get("minItems", 1) else value
        if (numbers := _numbers(form, len(kept))) and all(isinstance(one, Mapping) for one in kept):
            kept = [{**one, "id": number} for one, number in zip(kept, numbers, strict=True)]
        return [mended(form["items"], one) for one in kept]
    if "enum" in form:
        return next((word for word in form["enum"] if same_words(word) == same_words(str(value))), value)
    return str(value) if isinstance(value, dt.date | int | float) and not isinstance(value, bool) else value


def texts(form: Form, value: Any) -> Iterator[str]:
    """What people read of a value."""
    if isinstance(value, Mapping):
        for name, part in form.get("properties", {}).items():
            yield from texts(part, value.get(name))
    elif isinstance(value, list):
        for one in value:
            yield from texts(form.get("items", {}), one)
    elif isinstance(value, str) and not {"enum", "pattern"} & form.keys():
        yield value


def _numbers(form: Form, n: int) -> list[str]:
    """The ids of a list's entries, if they have one: ``FR001``, ``FR002`` …"""
    prefix = form["items"].get("properties", {}).get("id", {}).get("pattern", "").partition("\\")[0]
    return [f"{prefix}{i:03d}" for i in range(1, n + 1)] if prefix else []


def _words(one: Any) -> str | None:
    """What an entry says."""
    text = one.get("description") if isinstance(one, Mapping) else one
    return same_words(text) if isinstance(text, str) else None
