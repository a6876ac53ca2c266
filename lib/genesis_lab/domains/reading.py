"""The answer in what a model sent: thoughts, prose and wrappings round it are undone, its own words are never touched."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.errors import ParseFailure
from genesis_lab.texts import normal, same_words

_NAMES = r"(?:begin_of_|end_of_)?(?:think|thinking|thoughts?|reasoning|reflection|scratchpad|analysis)"
_CLOSING = re.compile(
    rf"</{_NAMES}\s*>|<\|(?:/|end_of_){_NAMES}\|>|\[/{_NAMES}\]|◁/{_NAMES}▷|<\|channel\|>final\b[^<{{]*<\|message\|>",
    re.IGNORECASE,
)
_OPENING = re.compile(rf"<\|?{_NAMES}\b[^<>]*>|\[{_NAMES}\]|◁{_NAMES}▷", re.IGNORECASE)
_MARK = re.compile(f'(?P<closing>{_CLOSING.pattern})|(?P<opening>{_OPENING.pattern})|[{{\\["]', re.IGNORECASE)
_STARTS = 2_000
"""Places where JSON may begin that are tried; prose full of brackets can't take longer than that."""
_MENDED = 200
"""Trailing commas that are overlooked in one object."""
_CLOSES = re.compile(r",\s*[}\]]")
_DEEP = 5
"""How often JSON may stand in JSON as a text, or an object in another one."""
_DECODER = json.JSONDecoder(strict=False)  # raw line breaks and tabs in texts are read as what they are
_TYPES: dict[str, type] = {"object": dict, "array": list}


def read_json(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The last object in a model's answer that has the form of `schema`, in NFC.

    Undone on the way: thoughts, fences, prose and other objects round it, trailing commas, raw line breaks in texts,
    JSON as a text (all of it, or a field that must be a list or an object), a list of one, a wrapping object.

    Parameters
    ----------
    schema : JSON schema of an object. Its required fields and those that must be lists or objects decide what fits;
        everything else is left for the reader to judge.

    Raises
    ------
    ParseFailure : nothing fits; the reason names what was found instead.
    """
    if not text.strip("\ufeff \t\r\n"):
        raise ParseFailure("the answer is empty")
    found = _look(text, 0)
    fitting = [(end, fit) for _, end, value in found.values if (fit := _fitted(value, schema, 0)) is not None]
    required = list(schema.get("required", ()))
    last = fitting[-1][0] if fitting else 0
    cut = next((start for start in found.cut if start >= last), len(text))
    if fitting and not any(f'"{name}"' in text[cut:] for name in required):
        as_it_is = text.isascii() or unicodedata.is_normalized("NFC", text)  # then only escapes can be otherwise
        return dict(fitting[-1][1] if as_it_is and "\\u" not in text else normal(fitting[-1][1]))
    raise ParseFailure(_reason(text, found, required, schema))


def spoken(text: str) -> str:
    """An answer without the thoughts that stand before it: tags that open it or end a line, with or without a start."""
    text = re.sub("^\ufeff+", "", text, flags=re.MULTILINE)
    begun = _OPENING.match(text.lstrip())
    ends = [end for end in _CLOSING.finditer(text) if begun or _at_an_edge(text, end)]
    if begun:
        ends = [end for i, end in enumerate(ends) if i == 0 or _at_an_edge(text, end)]
    return text[ends[-1].end() :] if ends else text


def _at_an_edge(text: str, mark: re.Match[str]) -> bool:
    before, after = text[: mark.start()].rpartition("\n")[2], text[mark.end() :].partition("\n")[0]
    return not before.strip() or not after.strip()


@dataclass(slots=True)
class _Found:
    """The JSON values of an answer in order, each with where it begins and ends, and what is left of broken ones.

    `cut` are the places where one begins that has no end; `thinking` says that thoughts were begun and not ended.
    """

    values: list[tuple[int, int, Any]] = field(default_factory=list)
    cut: list[int] = field(default_factory=list)
    error: str = ""
    thinking: bool = False


def _look(text: str, depth: int) -> _Found:
    """Every JSON value in `text` that is no part of a thought or of another one."""
    found, place, thought = _Found(), 0, 0
    for _ in range(_STARTS):
        mark = _MARK.search(text, place)
        if not mark:
            break
        if mark["closing"]:  # what came before was thought, whether or not it was opened
            found, place = _Found(), mark.end()
        elif mark["opening"]:
            end = None if found.thinking else _CLOSING.search(text, mark.end())
            found.thinking = not end
            place = thought = end.end() if end else mark.end()
        else:
            place = _take(text, mark.start(), found, depth)
    rest = text[max((end for _, end, _ in found.values), default=0) :]
    if found.thinking and rest.strip("` \r\n"):  # a draft, unless the answer ends with it
        found.values = [value for value in found.values if value[0] < thought]
    return found


def _take(text: str, start: int, found: _Found, depth: int) -> int:
    """Adds the value that begins at `start`, if one does; returns where to look on."""
    quoted = text[start] == '"'
    if quoted and (depth >= _DEEP or not re.match(r'"\s*(?:\\[nrt"\\]|[{\[`])', text[start : start + 40])):
        return start + 1
    value, end = _decoded(text, start, _Found() if quoted else found)
    if not end:
        return start + 1
    inside = _look(value, depth + 1).values if isinstance(value, str) else [(0, 0, value)]
    found.values += [(start, end, each) for _, _, each in inside]
    return end if inside else start + 1


def _decoded(text: str, start: int, found: _Found) -> tuple[Any, int]:
    """The value that begins at `start` and where it ends, 0 if there is none; trailing commas count as blanks."""
    for _ in range(_MENDED):
        try:
            return _DECODER.raw_decode(text, start)
        except RecursionError:
            found.error = "it is nested too deeply"
            break
        except json.JSONDecodeError as error:
            comma = error.pos if text[error.pos : error.pos + 1] == "," else text.rfind(",", start, error.pos)
            if comma >= start and _CLOSES.match(text, comma):
                text = text[:comma] + " " + text[comma + 1 :]
                continue
            found.error = str(error)
            if error.msg.startswith("Unterminated string") or not text[error.pos :].strip("` \r\n"):
                found.cut.append(start)
            break
    return None, 0


def _fitted(value: Any, schema: Mapping[str, Any], depth: int = 1) -> Any:
    """`value` in the form of `schema`, the wrappings undone; None if it has not that form."""
    wanted = _TYPES.get(str(schema.get("type")))
    if wanted is None:
        return value
    if depth > 2 * _DEEP:
        return None
    if isinstance(value, str):
        return _last_fit((each for _, _, each in _look(value, depth).values), schema, depth)
    if wanted is list:
        if not isinstance(value, list) or (not value and schema.get("minItems")):
            return None
        items = [_fitted(item, schema.get("items") or {}, depth + 1) for item in value]
        return None if any(item is None for item in items) else items
    fields, required = schema.get("properties") or {}, list(schema.get("required") or ())
    if isinstance(value, list):
        if len(value) == 1 and (fit := _fitted(value[0], schema, depth + 1)) is not None:
            return fit
        alone = depth == 0 and len(required) == 1 and fields[required[0]].get("type") == "array"
        whole = _fitted(value, fields[required[0]]) if alone else None
        return None if whole is None else {required[0]: whole}
    if not isinstance(value, dict):
        return None
    if not all(name in value for name in required):  # ``Label Fit`` is label_fit
        spelt = {same_words(name): name for name in fields}
        value = {spelt.get(same_words(name), name): each for name, each in value.items()}
    if all(name in value for name in required):
        found = {name: _fitted(each, fields.get(name) or {}, depth + 1) for name, each in value.items()}
        due = [name for name in required if fields.get(name, {}).get("type") in _TYPES]
        if all(found[name] is not None or (value[name] is None and name not in due) for name in value):
            return found
    inside = (each for each in value.values() if isinstance(each, dict | str | list))  # ``{"answer": {…}}``
    return _last_fit(inside, schema, depth) if required else None


def _last_fit(values: Iterable[Any], schema: Mapping[str, Any], depth: int) -> Any:
    return next((fit for each in reversed([*values]) if (fit := _fitted(each, schema, depth + 1)) is not None), None)


def _reason(text: str, found: _Found, required: list[str], schema: Mapping[str, Any]) -> str:
    objects = [each for _, _, each in found.values if isinstance(each, dict)]
    if found.thinking and not objects:
        return "the answer ends in its thoughts"
    if found.cut:
        return f"the JSON is cut off after {' '.join(text.split())[-40:]!r}"
    if objects:
        missing = [name for name in required if name not in objects[-1]]
        if missing:
            return f"the JSON object has no {missing[0]}, it has {', '.join(list(objects[-1])[:8]) or 'no fields'}"
        for name, due in schema.get("properties", {}).items():
            if name in objects[-1] and due.get("type") in _TYPES and _fitted(objects[-1][name], due) is None:
                return _unfit(name, objects[-1][name], due)
    if found.error:
        return f"the JSON is broken: {found.error}"
    return f"the answer holds no JSON object, got {' '.join(text.split())[:60]!r}"


def _unfit(name: str, value: Any, due: Mapping[str, Any]) -> str:
    """What is wrong with a field that must be a list or an object."""
    wanted = "a list" if due["type"] == "array" else "an object"
    if not isinstance(value, _TYPES[due["type"]]):
        return f"{name} must be {wanted}, got {json.dumps(value, ensure_ascii=False)[:60]}"
    if not value:
        return f"{name} is empty"
    items = due.get("items") or {}
    for number, item in enumerate(value if isinstance(value, list) else (), 1):
        if _fitted(item, items) is None:
            fields, got = " and ".join(items.get("required", ())), json.dumps(item, ensure_ascii=False)[:60]
            return f"{name} {number} must be an object with {fields}, got {got}"
    return f"{name} has not the form that is due"
