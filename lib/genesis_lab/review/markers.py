"""Points of interest in conversations, in the syntax of Rasa's markers: what a conversation must show to count as resolved.

A condition holds at an event, or does not; an operator joins conditions at the same event, but for `seq` (in this order, with
anything in between), `at_least_once` (from then on) and `never` (nowhere in the conversation). A conversation meets a marker
that holds at any of its events.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

from genesis_lab.errors import InvalidInput
from genesis_lab.files import resolve
from genesis_lab.review.events import FALLBACK
from genesis_lab.yamls import read_yaml

SHIPPED = Path(__file__).with_name("markers.yaml")
OPERATORS = {"and": 0, "or": 0, "seq": 0, "not": 1, "at_least_once": 1, "never": 1}
"""Operator to the number of conditions that it takes; 0 for any."""
CONDITIONS = {"intent": "intent", "action": "action", "slot_was_set": "slot",
              "not_intent": "intent", "not_action": "action", "slot_was_not_set": "slot"}  # fmt: skip
_TOKENS = """
CREATE OR REPLACE TEMP TABLE tokens AS SELECT flatten(list(token ORDER BY position)) AS told, session FROM (
  SELECT session, -1 AS position, told AS token FROM openings
  UNION ALL SELECT session, position, list_prepend(
    CASE WHEN fallback THEN $fallback ELSE coalesce('intent ' || intent, '') END,
    list_transform(from_json(events, '[{"action": "VARCHAR", "slot": "VARCHAR", "value": "JSON"}]'), lambda e: coalesce(
      'action ' || e.action, CASE WHEN e.value::VARCHAR <> 'null' THEN 'slot ' ELSE 'unset ' END || e.slot, '')))
  FROM messages SEMI JOIN active USING (session)) GROUP BY session"""


class Marker(NamedTuple):
    """An operator with the markers that it joins, or a condition with the name that it looks for."""

    tag: str
    of: tuple[Marker, ...]
    name: str = ""


def read_markers(path: str | Path = SHIPPED) -> dict[str, Marker]:
    """The markers of a YAML file (default: the one of this package) by name; `InvalidInput` says what is wrong and where."""
    path = resolve(path) if path else SHIPPED
    given = read_yaml(path)
    if not isinstance(given, Mapping) or not given:
        raise InvalidInput(f"{path.name} holds no markers: expected a mapping of names to conditions.")
    return {str(name): _marker(of, f"{path.name}: {name}") for name, of in given.items()}


def _marker(given: Any, where: str) -> Marker:
    told = {key: of for key, of in given.items() if key != "description"} if isinstance(given, Mapping) else {}
    if len(told) != 1:
        raise InvalidInput(f"{where} holds {given!r}: expected one of {', '.join((*OPERATORS, *CONDITIONS))}.")
    [(tag, of)] = told.items()
    if tag in CONDITIONS and isinstance(of, str) and of:
        return Marker(tag, (), of)
    if tag in CONDITIONS:
        raise InvalidInput(f"{where}: {tag} takes a name, got {of!r}.")
    if tag not in OPERATORS:
        raise InvalidInput(f"{where}: there is no {tag!r}, only {', '.join((*OPERATORS, *CONDITIONS))}.")
    if not isinstance(of, list) or not of or len(of) != (OPERATORS[tag] or len(of)):
        raise InvalidInput(f"{where}: {tag} takes a list of {'one condition' if OPERATORS[tag] else 'conditions'}.")
    return Marker(tag, tuple(_marker(one, f"{where}, {tag}") for one in of))


def meets(marker: Marker, told: Sequence[str]) -> bool:
    """Whether a conversation meets a marker: its events in order, as ``intent x``, ``action x``, ``slot x``, ``unset x``."""
    return any(_holds(marker, told))


def _holds(marker: Marker, told: Sequence[str]) -> list[bool]:
    """At which events a marker holds."""
    below = [_holds(one, told) for one in marker.of]
    match marker.tag:
        case "and":
            return [all(now) for now in zip(*below, strict=True)]
        case "or":
            return [any(now) for now in zip(*below, strict=True)]
        case "not":
            return [not now for now in below[0]]
        case "at_least_once":
            return list(accumulate(below[0], or_))
        case "never":
            return [not any(below[0])] * len(told)
        case "seq":
            place, found = 0, []
            for now in zip(*below, strict=True):
                place += now[place]
                found.append(place == len(below))
                place %= len(below)
            return found
    if (kind := CONDITIONS[marker.tag]) == "slot":
        held, found = False, []
        for one in told:
            held = one == f"slot {marker.name}" or (held and one != f"unset {marker.name}")
            found.append(held == (marker.tag == "slot_was_set"))
        return found
    wanted = f"{kind} {marker.name}"
    begins = f"{wanted}/" if kind == "intent" and "/" not in marker.name else "\n"  # a retrieval intent's full name
    return [(one == wanted or one.startswith(begins)) != marker.tag.startswith("not_") for one in told]


def marked(database: Any, markers: Mapping[str, Marker], openings: Iterable[tuple[str, Any]]) -> None:
    """Make the DuckDB table ``outcomes``: of each session of table ``active`` whether it meets each marker.

    `openings` : session and the events before its first message, of sessions where there are any. Sessions that tell the
    same are looked at once; names that no marker looks for are one to it.
    """
    import pyarrow as pa

    names = {name for one in markers.values() for name in _wanted(one)}
    before = [(key, [_token(e) for e in events or ()]) for key, events in openings]
    kinds = {"session": pa.string(), "told": pa.list_(pa.string())}
    table = pa.table({"session": [key for key, _ in before], "told": [told for _, told in before]}, pa.schema(kinds))
    database.register("openings", table)
    database.execute(_TOKENS, {"fallback": f"intent {FALLBACK}"})
    short = "list_transform(told, lambda one: CASE WHEN one IN $names OR split_part(one, '/', 1) IN $names THEN one ELSE '' END)"
    found = database.execute(
        f"SELECT {short}, list(session) FROM tokens GROUP BY 1", {"names": sorted(names)}
    ).fetchall()
    columns: dict[str, list[Any]] = {"session": [session for _, sessions in found for session in sessions]}
    for name, marker in markers.items():
        columns[name] = [hit for told, sessions in found for hit in [meets(marker, told)] * len(sessions)]
    database.register("outcomes", pa.table(columns))


def _wanted(marker: Marker) -> set[str]:
    kind = CONDITIONS.get(marker.tag, "")
    own = {f"{kind} {marker.name}", *([f"unset {marker.name}"] if kind == "slot" else ())} if kind else set()
    return own.union(*map(_wanted, marker.of))


def _token(event: Mapping[str, Any]) -> str:
    if "slot" in event:
        return f"{'unset' if event.get('value') is None else 'slot'} {event['slot']}"
    return f"action {event['action']}" if "action" in event else ""
