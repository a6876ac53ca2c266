"""What is what in other people's data: columns by their names, else by what stands in them, and shapes of files."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from genesis_lab.domains.conversations.record import role_of
from genesis_lab.domains.foreign import flat, walk
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import same_words
from genesis_lab.yamls import shipped

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
LIST = "records in a list"
"""What a document of no known shape is."""
_LONG = 200  # characters beyond which nothing is a label
_TELLING = 12  # first so many names of a meaning that count inside a longer name: ``final_intent``
_READ = {"text", "turns", "column 1"}  # of these a record has one
_NOTHING: tuple[Any, ...] = (None, "", [])
_CALLED = {
    "text": "utterance",
    "intent": "label",
    "conversation_id": "conversation",
    "turns": "dialogue",
    "reply": "answer to it",
}
"""What a sentence calls what a column was taken for."""


@cache
def names() -> dict[str, dict[str, int]]:
    """Meaning to the names that columns of it have, each with its rank."""
    said = shipped(Path(__file__).with_name("columns.yaml"))
    words = {meaning: [same_words(str(name)) for name in each] for meaning, each in said.items()}
    return {meaning: {name: each.index(name) for name in each} for meaning, each in words.items()}


def rank(name: str, meaning: str) -> int | None:
    """How telling a column's name is for a meaning, 0 most; None: not at all."""
    known, words = names()[meaning], same_words(_CAMEL.sub(" ", name))
    if words in known:
        return known[words]
    within = [i for n, i in known.items() if i < _TELLING and len(n) > 2 and f" {n} " in f" {words} "]
    return 100 + min(within) if within and meaning in ("text", "intent") and not words.endswith(" id") else None


def assigned(rows: Sequence[Mapping[str, Any]], given: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Our fields to the columns they were found in, beyond those `given`, and a sentence for each.

    `InvalidInput` with the option to give where several columns may be the text and none is called so.
    """
    columns: dict[str, list[Any]] = {}
    for row in rows:
        for path, value in flat(row):
            if path != "file" and value not in _NOTHING:
                columns.setdefault(path, []).append(value)
    taken, found, said = set(given.values()), dict(given), list[str]()

    def take(meaning: str, path: str | None, how: str) -> None:
        if path is not None:
            found[meaning] = path
            taken.add(path)
            if path != meaning or meaning in _CALLED:
                said.append(f"`{path}` is the {_CALLED.get(meaning, meaning)} ({how})")

    for meaning in [name for name in names() if name not in ("said", "splits")]:
        alone = "conversation_id" not in found
        of_turns = "turns" in found and meaning in ("text", "speaker", "order", "reply")
        needs = {"order": "conversation_id", "context": "reply"}.get(meaning)
        if meaning in found or of_turns or (needs and needs not in found):
            continue
        fits = [
            (ranked, path.count("."), path)
            for path, values in columns.items()
            if path not in taken and (ranked := _ranked(path, meaning)) is not None and _can_be(meaning, values)
            if meaning != "speaker" or not alone or any(map(role_of, values))
        ]
        take(meaning, min(fits)[2] if fits else None, "by its name")
    rest = {path: values for path, values in columns.items() if path not in taken and all(map(_plain, values))}
    if not {"text", "turns"} & found.keys() and rest:
        take("text", _longest(rest), "the longest text")
        rest.pop(found.get("text", ""), None)
    if "intent" not in found and "text" in found and rest:
        labels = [path for path, values in rest.items() if _few(values, alone=len(rest) == 1)]
        labels = [path for path in labels if not all(map(_number, rest[path]))] or labels
        if len(labels) == 1:
            take("intent", labels[0], "few distinct values")
        elif labels:
            said.append(f"no label was taken: {_listed(labels)} may be it, say which with --field intent='{labels[0]}'")
    if label := found.get("intent"):
        codes = columns.get(label, [])
        if codes and label not in given.values() and all(re.fullmatch(r"-?\d+(\.0*)?", str(each)) for each in codes):
            named = [path for path in columns if path not in taken and _names_of(rows, label, path)]
            take("intent", named[0] if named else None, f"the names beside the codes in `{label}`")
    return {meaning: path for meaning, path in found.items() if meaning not in given}, said


def _ranked(path: str, meaning: str) -> int | None:
    name = path.removesuffix(".0").rpartition(".")[2]
    found = 0 if path == meaning else rank(name, meaning)
    return 1_000 if found is None and meaning == "turns" and rank(name, "text") is not None else found


def _can_be(meaning: str, values: Sequence[Any]) -> bool:
    if meaning == "turns":
        return any(isinstance(each, list | Mapping) or _transcript(each) for each in values[:20])
    if not all(map(_plain, values)) or meaning in ("conversation_id", "order", "language", "split", "speaker"):
        return all(map(_plain, values)) and (meaning != "split" or all(splits_of(each) for each in values))
    if meaning == "intent":
        return mean(len(str(each)) for each in values) <= _LONG / 3
    return not all(_number(each) for each in values)


def _transcript(value: Any) -> bool:
    if not isinstance(value, str) or value.lstrip()[:1] == "[":
        return isinstance(value, str)
    lines = [re.match(r"\w[\w .'’-]{0,30}: ", line) for line in value.splitlines() if line.strip()]
    begun = re.findall(r"(?:^|\s)([^\W\d_]+)(?: \d+)?: ", value)
    return sum(role_of(name) is not None for name in begun) > 1 or (len(lines) > 1 and all(lines))


def splits_of(value: Any) -> str | None:
    """``train``, ``test`` or ``validation`` in what a part of a data set is called; else None."""
    words = same_words(str(value))
    if words not in names()["splits"]:
        return None
    return next((split for split in ("train", "test") if split in words), "validation")


def _plain(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _number(value: Any) -> bool:
    return re.fullmatch(r"[-+]?[\d.,:/ -]+", str(value)) is not None


def _longest(columns: Mapping[str, Sequence[Any]]) -> str | None:
    """The column of the longest texts."""
    texts = {path: map(str, values) for path, values in columns.items() if not all(map(_number, values))}
    lengths = {path: mean(map(len, values)) for path, values in texts.items() if not path.endswith("id")}
    ranked = sorted(lengths, key=lambda path: -lengths[path])
    if not ranked:
        return None
    best = ranked[0]
    wordy = [path for path in ranked if lengths[path] > 0.6 * lengths[best] and _wordy(columns[path])]
    if len(wordy) > 1 and best in wordy:
        raise InvalidInput(f"{_listed(wordy)} may all be what the customer says: say which with --field text='{best}'.")
    return best if len(columns) == 1 or _wordy(columns[best]) or lengths[best] > 10 else None


def _wordy(values: Sequence[Any]) -> bool:
    return mean(len(str(each).split()) for each in values) >= 3 and len(set(map(str, values))) * 2 > len(values)


def _few(values: Sequence[Any], *, alone: bool) -> bool:
    """Whether there are few distinct short values, as labels are; `alone`: there is nothing else that it could be."""
    distinct = len(set(map(str, values)))
    short = mean(len(str(each)) for each in values) <= 40
    dates = all(re.search(r"\d[-/:]\d", str(each)) for each in values)
    return short and not dates and (distinct * 2 <= len(values) or (alone and not all(map(_number, values))))


def _names_of(rows: Sequence[Mapping[str, Any]], codes: str, path: str) -> bool:
    """Whether a column has one name for each code of another one."""
    held = [dict(flat(row)) for row in rows]
    pairs = {(each.get(codes), each.get(path)) for each in held if each.get(codes) is not None}
    texts = {name for _, name in pairs}
    one_each = len(pairs) == len(texts) == len({code for code, _ in pairs}) < len(rows)
    return one_each and all(isinstance(name, str) and not _number(name) for name in texts)


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths)


# Shapes


def shapes() -> Any:
    """What is known of the shapes of files."""
    return shipped(Path(__file__).with_name("shapes.yaml"))


def unfolded(document: Any, place: str) -> tuple[str, list[dict[str, Any]]] | None:
    """Name of the known shape of a document and the records in it, else the longest list of them; None: it is none."""
    around = ({"file": intent_in(place)},)
    if isinstance(document, str):
        told = ((shape["name"], _lines(document, shape)) for shape in shapes()["texts"])
        return next(((name, found) for name, found in told if found), None)
    for shape in (*shapes()["records"], *shapes()["documents"]):
        path = shape.get("rows", ".").split("/")
        if path[0][0] == "{" and not _keys_fit(shape, document):
            continue
        walked = walk([document] if path[0] == "*" else document, path, around)
        read = [record for item, above in walked if (record := fitted_to(shape, item, above))]
        if found := [record for record in read if shape.get("splits") or _READ & record.keys()]:
            return shape["name"], found
    if not isinstance(document, Mapping) or any(_says(key) for key in document):
        return None
    lists = [found for found, _ in walk(document, ["**"]) if isinstance(found, list) and found]
    fit = [found for found in lists if isinstance(found[0], Mapping) and any(_says(key) for key in found[0])]
    return (LIST, max(fit, key=len)) if fit else None


def _says(key: Any) -> bool:
    return rank(str(key), "turns") is not None or rank(str(key), "text") is not None


def intent_in(place: str) -> str:
    """The label that the name of a file says."""
    return re.sub(r"_usersays_\w+$", "", Path(place).stem)


def _keys_fit(shape: Mapping[str, Any], document: Any) -> bool:
    """Whether the keys of a document can be what a shape says they are, and not the fields of a record."""
    if not isinstance(document, Mapping) or not document:
        return False
    if "split" in shape:
        return all(splits_of(key) and isinstance(each, list) for key, each in document.items())
    fields = any(same_words(str(key)) in names()[meaning] for key in document for meaning in ("turns", "text", "said"))
    kind = Mapping if "conversation_id" in shape else list
    return not fields and all(isinstance(each, kind) and each for each in document.values())


def fitted_to(shape: Mapping[str, Any], item: Any, around: tuple[Mapping[str, Any], ...] = ()) -> dict[str, Any] | None:
    """The record that a shape makes of something; None where it does not fit."""
    held = item.keys() if isinstance(item, Mapping) else ()
    a_pair = isinstance(item, list) and len(item) == 2 and all(map(_plain, item))
    is_it = {"strings": isinstance(item, str), "pairs": a_pair, "splits": isinstance(item, Mapping)}
    has = all(any(key in held for key in keys.split("|")) for keys in shape.get("has", ()))
    if not has or not all(is_it.get(key, True) for key in shape) or set(held) & set(shape.get("without", ())):
        return None
    record = dict(item) if "splits" in shape else {}
    for name, paths in shape.items():
        for path in () if name in _ABOUT else [paths] if isinstance(paths, str) else paths:
            parts = [walk(item, part.split("/"), around) for part in path.split("+")]
            first, *more = ([v for v, _ in found if v not in _NOTHING] for found in parts)
            values = first
            if more:
                values = ["_".join(str(each[0]) for each in (first, *more))] if all((first, *more)) else []
            if name == "alternate":
                inner = values[0] if values and isinstance(values[0], list) else values
                record["turns"] = [*record.get("turns", []), *inner]
            elif name == "turns" and values:
                record[name] = values[0]
            elif values and all(map(_plain, values)):
                record[name] = "".join(map(str, values)) if path.endswith("*/text") else values[0]
            if name in record and name != "alternate":
                break
    if "strip" in shape and "text" in record:
        record["text"] = re.sub(shape["strip"], r"\1", record["text"])
    if "speakers" in shape and "speaker" in record:
        record["speaker"] = shape["speakers"].get(str(record["speaker"]).lower(), record["speaker"])
    return record if record and all(name in record for name in shape.get("due", ())) else None


_ABOUT = {"name", "rows", "has", "without", "pairs", "strings", "splits", "strip", "speakers", "due"}


def _lines(document: str, shape: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records in the lines of a text."""
    found, under = list[dict[str, Any]](), dict[str, Any]()
    for line in document.splitlines():
        if "under" in shape and (head := re.fullmatch(shape["under"], line)):
            under = head.groupdict()
        elif told := re.fullmatch(shape["line"], line):
            record = {**under, **told.groupdict()}
            if "turns_by" in shape:
                record["turns"] = [each for each in re.split(shape["turns_by"], line) if each.strip()]
            if "strip" in shape:
                record["text"] = re.sub(shape["strip"], r"\1", record["text"])
            if under or "under" not in shape:
                found.append(record)
    return found


def threads(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Of each post that answers another: the first one of its thread, and how far it is from it."""
    above = {str(row["post"]).removesuffix(".0"): str(row.get("answers", "")).removesuffix(".0") for row in rows}
    for row in rows:
        place, depth = str(row["post"]).removesuffix(".0"), 0
        while above.get(place) in above and depth < len(above):
            place, depth = above[place], depth + 1
        yield place, depth
