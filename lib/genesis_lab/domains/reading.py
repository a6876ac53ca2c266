"""The answer in what a model sent, JSON or YAML, and what is wrong with it by its form, a JSON schema.

Thoughts, prose and wrappings round it are undone; its own words are never touched, but for what `mended` repairs.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from genesis_lab.domains.language import function_words
from genesis_lab.errors import ParseFailure
from genesis_lab.texts import normal, same_words, unaccented
from genesis_lab.yamls import parse_yaml

Form = Mapping[str, Any]
_PLACEHOLDER = re.compile(
    r"\b(?:TODO|TBD|FIXME|XXX+)\b|(?i:\blorem ipsum\b|\bpor (?:definir|determinar)\b|<[a-z_ ]+>"
    r"|\[[a-z_ ]*(?:insert|here|aquí)[a-z_ ]*\]|^\s*(?:\.{3}|…|n/a|none|string|text|texto)\s*$)"
)
_NAMES = r"(?:begin_of_|end_of_)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis)"
_CLOSING = re.compile(
    rf"</{_NAMES}\s*>|<\|(?:/|end_of_){_NAMES}\|>|\[/{_NAMES}\]|◁/{_NAMES}▷|<\|channel\|>final\b[^<{{]*<\|message\|>",
    re.IGNORECASE,
)
_OPENING = re.compile(rf"<\|?{_NAMES}\b[^<>]*>|\[{_NAMES}\]|◁{_NAMES}▷", re.IGNORECASE)
_MARK = re.compile(
    f"(?P<closing>{_CLOSING.pattern})|(?P<opening>{_OPENING.pattern})"
    r'|[{\[]|(?P<quoted>"(?=\s*(?:\\[nrt"\\]|[{\[`])))',
    re.IGNORECASE,
)
_EDGE = re.compile(rf"^[^\S\n]*(?:{_CLOSING.pattern})|(?:{_CLOSING.pattern})[^\S\n]*$", re.IGNORECASE | re.MULTILINE)
_STARTS = 2_000  # places where JSON may begin that are tried; prose full of brackets can't take longer than that
_MENDED = 200  # trailing commas that are overlooked in one object
_CLOSES = re.compile(r",\s*[}\]]")
_DEEP = 5  # how often JSON may stand in JSON as a text, or an object in another one
_DECODER = json.JSONDecoder(strict=False)  # raw line breaks and tabs in texts are read as what they are
_SHAPES = ("object", "array")
LONGEST = 20_000
"""Characters of an answer that are looked at."""
_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[^\n`]*\n(.*?)"
    r"(?:^[ \t]*\1(?![ \t]*(?:ya?ml|json|vision|review)\b)|(?=^[ \t]*\1)|(?P<cut>\Z))",
    re.MULTILINE | re.DOTALL | re.IGNORECASE,
)
_GOES_ON = re.compile(r"\s|#|-\s|[\"']?[a-z_][\w-]*[\"']?\s*:(\s|$)")
"""How a line begins that goes on with YAML; one of prose does not."""
_WORD = re.compile(r"[^\W\d_]{4,}")


def object_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """JSON schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_json(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The last object in a model's answer that has the form of `schema`, in NFC.

    Undone on the way: thoughts, fences, prose and other objects round it, trailing commas, raw line breaks in texts,
    JSON as a text (all of it, or a field that must be a list or an object), a list of one, a wrapping object. Required
    fields and those that must be lists or objects decide what fits; everything else is left for the reader to judge.

    Raises
    ------
    ParseFailure : nothing fits; the reasons say what was found instead.
    """
    if not text.strip("\ufeff \t\r\n"):
        raise ParseFailure("the answer is empty")
    found, last, answer = _look(text), 0, None
    for _, end, value in found.values:
        if (fit := _fitted(value, schema)) is not None:
            last, answer = end, fit
    cut = next((start for start in found.cut if start >= last), len(text))
    if answer is None or any(f'"{name}"' in text[cut:] for name in schema.get("required", ())):
        raise ParseFailure(*_reasons(text, found, schema))
    as_it_is = text.isascii() or unicodedata.is_normalized("NFC", text)  # then only escapes can be otherwise
    return dict(answer if as_it_is and "\\u" not in text else normal(answer))


def spoken(text: str) -> str:
    """An answer without the thoughts that stand before it: tags that open it or end a line, with or without a start."""
    text = re.sub("^\ufeff+", "", text, flags=re.MULTILINE)
    begun = _CLOSING.search(text) if _OPENING.match(text.lstrip()) else None
    return text[max((mark.end() for mark in (begun, *_EDGE.finditer(text)) if mark), default=0) :]


@dataclass(slots=True)
class _Found:
    """The JSON values of an answer in order, each with where it begins and ends, and what is left of broken ones.

    `cut` are the places where one begins that has no end; `thinking` says that thoughts were begun and not ended.
    """

    values: list[tuple[int, int, Any]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    error: str = ""
    thinking: bool = False


def _look(text: str, depth: int = 0) -> _Found:
    """Every JSON value in `text` that is no part of a thought or of another one."""
    found, place, thought = _Found(), 0, 0
    for _ in range(_STARTS):
        mark = _MARK.search(text, place)
        if not mark:
            break
        place = mark.end()
        if mark["closing"]:  # what came before was thought, whether or not it was opened
            found = _Found()
        elif mark["opening"]:
            end = None if found.thinking else _CLOSING.search(text, place)
            found.thinking = not end
            place = thought = end.end() if end else place
        elif depth < _DEEP or not mark["quoted"]:
            value, end_at = _decoded(text, mark.start(), _Found() if mark["quoted"] else found)
            inside = [each for *_, each in _look(value, depth + 1).values] if isinstance(value, str) else [value]
            if end_at and inside:
                found.values += [(mark.start(), end_at, each) for each in inside]
                place = end_at
    rest = text[max((end for _, end, _ in found.values), default=0) :]
    if found.thinking and rest.strip("` \r\n"):  # a draft, unless the answer ends with it
        found.values = [value for value in found.values if value[0] < thought]
    return found


def _decoded(text: str, start: int, found: _Found) -> tuple[Any, int]:
    """The value that begins at `start` and where it ends, 0 if there is none; trailing commas count as blanks."""
    for _ in range(_MENDED):
        try:
            return _DECODER.raw_decode(text, start)
        except RecursionError:
            found.error = "it is nested too deeply"
            break
        except json.JSONDecodeError as error:
            comma = text.rfind(",", start, error.pos + 1)
            if comma < 0 or not _CLOSES.match(text, comma):
                found.error = str(error)
                if error.msg.startswith("Unterminated string") or not text[error.pos :].strip("` \r\n"):
                    found.cut.append(start)
                break
            text = text[:comma] + " " + text[comma + 1 :]
    return None, 0


def _fitted(value: Any, schema: Mapping[str, Any], depth: int = 0) -> Any:
    """`value` in the form of `schema`, the wrappings undone; None if it has not that form."""
    if schema.get("type") not in _SHAPES:
        return value
    if depth > 2 * _DEEP:
        return None
    inside: list[Any] = []
    if isinstance(value, str):
        inside = [each for *_, each in _look(value, depth).values]
    elif schema["type"] == "array":
        if isinstance(value, list) and len(value) >= min(1, schema.get("minItems", 0)):
            items = [_fitted(item, schema.get("items") or {}, depth + 1) for item in value]
            return None if None in items else items
    elif isinstance(value, list):
        required = schema.get("required", ())
        if depth == 0 and len(required) == 1 and schema["properties"][required[0]].get("type") == "array":
            inside.append({required[0]: value})  # the list alone
        inside += value if len(value) == 1 else ()
    elif isinstance(value, dict):
        if (fit := _fitted_object(value, schema, depth)) is not None:
            return fit
        inside = [each for each in value.values() if isinstance(each, dict | str | list)]  # ``{"answer": {…}}``
    fits = (_fitted(each, schema, depth + 1) for each in reversed(inside))
    return next((fit for fit in fits if fit is not None), None)


def _fitted_object(value: dict[str, Any], schema: Mapping[str, Any], depth: int) -> dict[str, Any] | None:
    fields, required = schema.get("properties") or {}, schema.get("required", ())
    if not value.keys() >= set(required):  # ``Label Fit`` is label_fit
        spelt = {same_words(name): name for name in fields}
        value = {spelt.get(same_words(name), name): each for name, each in value.items()}
        if not value.keys() >= set(required):
            return None
    for name in [name for name, form in fields.items() if form.get("type") in _SHAPES and name in value]:
        fit = _fitted(value[name], fields[name], depth + 1)
        if fit is None and (name in required or value[name] is not None):
            return None
        value = {**value, name: fit}
    return value


def _reasons(text: str, found: _Found, schema: Mapping[str, Any]) -> list[str]:
    """Why no object fits."""
    objects = [each for *_, each in found.values if isinstance(each, dict)]
    if found.thinking and not objects:
        return ["the answer ends in its thoughts"]
    if found.cut:
        return [f"the JSON is cut off after {' '.join(text.split())[-40:]!r}"]
    if objects and (wrong := faults(schema, objects[-1])):
        return [fault.message for fault in wrong[:5]]
    if found.error:
        return [f"the JSON is broken: {found.error}"]
    return [f"the answer holds no JSON object, got {' '.join(text.split())[:60]!r}"]


# Answers in YAML, and what they say


def read_yaml(text: str, fields: Sequence[str]) -> tuple[dict[str, Any], list[Fault]]:
    """The fields that the YAML in an answer has, of all its blocks together, and what is wrong with how it says them.

    Parameters
    ----------
    fields : what YAML may begin with and must not end before; prose round it is told by them.
    """
    text = spoken(text[:LONGEST].replace("\r\n", "\n"))
    fenced = list(_FENCE.finditer(text))
    prose, faults = _FENCE.sub("", text) if fenced else "", list[Fault]()
    data: dict[str, Any] = {}
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


# What is wrong with an answer, and what of it can be mended


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with an answer: a stable kind, where it is, and one sentence."""

    kind: str
    path: str
    message: str


def faults(form: Form, value: Any, path: str = "") -> list[Fault]:
    """What is wrong with a value that is there, and with everything in it."""
    of = {"object": _of_object, "array": _of_list, "string": _of_text}.get(form.get("type", ""))
    return list(of(form, value, path)) if of else []


def _of_object(form: Form, value: Any, path: str) -> Iterator[Fault]:
    fields, at = form["properties"], f"{path}." if path else ""
    if not isinstance(value, Mapping):
        yield Fault("no_object", path, f"{path or 'the answer'} must be an object with {', '.join(fields)}")
        return
    for name, part in fields.items():
        if value.get(name) is not None:
            yield from faults(part, value[name], at + name)
        else:
            kind = f"missing_{name}" if "enum" in part else "missing_field"
            yield Fault(kind, at + name, f"{at}{name} is missing")
    for name in (f"{at}{name}" for name in value if name not in fields):
        yield Fault("unknown_field", name, f"{name} is no known field")


def _of_list(form: Form, value: Any, path: str) -> Iterator[Fault]:
    fewest = form.get("minItems", 0)
    if not isinstance(value, list):
        yield Fault("not_text", path, f"{path} must be a list, got {str(value)[:40]!r}")
        return
    if not value and fewest:
        yield Fault("empty_list", path, f"{path} is empty")
        return
    first: dict[str, int] = {}
    found = list[Fault]()
    for i, one in enumerate(value, 1):
        where = f"{path}.{i}"
        found += faults(form["items"], one, where)
        if fewest and (words := _words(one)) and first.setdefault(words, i) != i:
            where += ".description" if isinstance(one, Mapping) else ""
            found.append(Fault("repeated_text", where, f"{where} repeats that of another entry"))
    yield from found
    if len(value) < fewest:
        yield Fault("too_few", path, f"{path} must have at least {fewest} entries, has {len(value)}")
    ids = [one.get("id") for one in value if isinstance(one, Mapping)]
    due = _numbers(form, len(value))
    if due and ids != due and not any(fault.path.endswith(".id") for fault in found):
        twice = next((number for i, number in enumerate(ids) if number in ids[:i]), None)
        said = f"{path}: {twice} is there twice" if twice else f"{path}: ids must count up from {due[0]} without gaps"
        yield Fault("duplicate_id" if twice else "id_order", f"{path}.id", said)


def _of_text(form: Form, value: Any, path: str) -> Iterator[Fault]:
    name, low, high = path.rpartition(".")[2], form.get("minLength", 1), form.get("maxLength", 2_000)
    if "enum" in form:
        if value not in form["enum"]:
            yield Fault(f"bad_{name}", path, f"{path} must be {', '.join(form['enum'])}, got {str(value)[:30]!r}")
    elif isinstance(value, dt.date):
        said = "is an unquoted date, which YAML reads as a date: put it in quotes"
        yield Fault("date_object", path, f"{path} {said}")
    elif not isinstance(value, str):
        yield Fault("not_text", path, f"{path} must be a text, got {type(value).__name__}")
    elif _PLACEHOLDER.search(value):
        yield Fault("placeholder", path, f"{path} is a placeholder: {value.strip()[:40]!r}")
    elif "pattern" in form and not re.fullmatch(form["pattern"], value.strip()):
        said = f"must be like {form['pattern']}, got {value[:20]!r}"
        yield Fault(f"bad_{form.get('format', name)}", path, f"{path} {said}")
    elif not low <= len(value.strip()) <= high:
        yield Fault("length", path, f"{path} must have {low} to {high} characters, has {len(value.strip())}")


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
