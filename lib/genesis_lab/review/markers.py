"""Points of interest in conversations, in the syntax of Rasa's markers: what a conversation must show to count as resolved.

A condition holds at an event or does not. `and`, `or` and `not` join what holds at the same event; `seq` holds where the last
one follows the others in their order, `at_least_once` from the first one on, and `never` everywhere or nowhere. A conversation
meets a marker that holds at any of its events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput
from genesis_lab.files import resolve
from genesis_lab.yamls import read_yaml

Marker = Mapping[str, Any]
SHIPPED = Path(__file__).with_name("markers.yaml")
KINDS = {"intent": "intent", "action": "action", "slot_was_set": "slot",
         "not_intent": "intent", "not_action": "action", "slot_was_not_set": "slot"}  # fmt: skip
"""Condition to the kind of event that it looks at."""
OF_ONE, OF_MANY = ("not", "at_least_once", "never"), ("and", "or", "seq")


def read_markers(path: str | Path = "") -> dict[str, Marker]:
    """The markers of a YAML file (default: the one of this package) by name; `InvalidInput` says which is none."""
    path = resolve(path) if path else SHIPPED
    given = read_yaml(path)
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(f"{path.name} holds no markers: expected a mapping of names to conditions.")
    return {str(name): _marker(of, f"{path.name}: {name}") for name, of in given.items()}


def _marker(given: Any, where: str) -> Marker:
    told = {tag: of for tag, of in given.items() if tag != "description"} if isinstance(given, Mapping) else {}
    tag, of = next(iter(told.items()), ("", None))
    if len(told) == 1 and tag in KINDS and isinstance(of, str):
        return told
    if len(told) != 1 or not isinstance(of, list) or not ((of and tag in OF_MANY) or (len(of) == 1 and tag in OF_ONE)):
        conditions, one, many = (", ".join(names) for names in (KINDS, OF_ONE, OF_MANY))
        due = f"expected {conditions} with a name, {one} with a list of one, or {many} with a list"
        raise InvalidInput(f"{where} holds {given!r}: {due}.")
    return {tag: [_marker(one, where) for one in of]}


def holds(marker: Marker, told: Sequence[str]) -> list[bool]:
    """At which events of a conversation a marker holds; they are told as ``intent x``, ``action x``, ``slot x``, ``unset x``."""
    [(tag, of)] = marker.items()
    if tag not in KINDS:
        return _joined(tag, [holds(one, told) for one in of])
    if KINDS[tag] == "slot":
        changes = [True if one == f"slot {of}" else False if one == f"unset {of}" else None for one in told]
        held = accumulate(changes, lambda was, now: bool(was) if now is None else now, initial=False)
        return [now == (tag == "slot_was_set") for now in held][1:]
    full = f"{KINDS[tag]} {of}"
    full_names = f"{full}/" if KINDS[tag] == "intent" else "\n"  # of a retrieval intent
    return [(one == full or one.startswith(full_names)) != tag.startswith("not_") for one in told]


def _joined(tag: str, below: list[list[bool]]) -> list[bool]:
    if tag in OF_ONE:
        [one] = below
        anywhere = accumulate(one, or_) if tag == "at_least_once" else [any(one)] * len(one) if tag == "never" else one
        return [now == (tag == "at_least_once") for now in anywhere]
    if tag != "seq":
        return [(all if tag == "and" else any)(now) for now in zip(*below, strict=True)]
    place, found = 0, []
    for now in zip(*below, strict=True):
        place += now[place]
        found.append(place == len(below))
        place %= len(below)
    return found


def told_by(markers: Iterable[Marker]) -> set[str]:
    """What makes a difference to these markers; all else is one to them."""
    found = set[str]()
    for tag, of in (item for marker in markers for item in marker.items()):
        found |= {f"{KINDS[tag]} {of}", *([f"unset {of}"] if "slot" in tag else ())} if tag in KINDS else told_by(of)
    return found
