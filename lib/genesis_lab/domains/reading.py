"""The answer in what a model sent: thoughts, prose and wrappings round it are undone, its own words are never touched."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.domains.form import faults
from genesis_lab.errors import ParseFailure
from genesis_lab.texts import normal, same_words

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
_STARTS = 2_000
"""Places where JSON may begin that are tried; prose full of brackets can't take longer than that."""
_MENDED = 200
"""Trailing commas that are overlooked in one object."""
_CLOSES = re.compile(r",\s*[}\]]")
_DEEP = 5
"""How often JSON may stand in JSON as a text, or an object in another one."""
_DECODER = json.JSONDecoder(strict=False)  # raw line breaks and tabs in texts are read as what they are
_SHAPES = ("object", "array")


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
    ends = list(_CLOSING.finditer(text))
    opened = ends[:1] if _OPENING.match(text.lstrip()) else []
    ends = opened + [end for end in ends[len(opened) :] if _at_an_edge(text, end)]
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
            return None if any(item is None for item in items) else items
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
    if not all(name in value for name in required):  # ``Label Fit`` is label_fit
        spelt = {same_words(name): name for name in fields}
        value = {spelt.get(same_words(name), name): each for name, each in value.items()}
    if not all(name in value for name in required):
        return None
    found = {name: _fitted(each, fields.get(name) or {}, depth + 1) for name, each in value.items()}
    due = [name for name in required if fields.get(name, {}).get("type") in _SHAPES]
    unfit = [name for name, each in found.items() if each is None and (name in due or value[name] is not None)]
    return None if unfit else found


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
