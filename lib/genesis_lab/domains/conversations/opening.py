"""Who speaks, however spelt, and how a conversation opens: the one definition that every room uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, get_args

from genesis_lab.domains.conversations.record import Speaker
from genesis_lab.texts import normal, same_words
from genesis_lab.yamls import read_yaml


def role_of(speaker: Any) -> Speaker | None:
    """``customer`` or ``agent`` for a speaker in any spelling (``USER``, ``[Cliente]:``, ``agent_2``); else None.

    Examples
    --------
    >>> role_of("USER"), role_of("Agente 2"), role_of("Bob")
    ('customer', 'agent', None)
    """
    return _roles().get(same_words(speaker).rstrip(" 0123456789")) if isinstance(speaker, str) else None


def opening(turns: Iterable[Mapping[str, Any] | None] | None) -> str | None:
    """What the customer says first; None where that turn is blank.

    Where nobody is known as the customer, the first words of somebody who isn't known as the agent, and None where
    there are none: what an agent says never stands for what a customer wants.
    """
    first: str | None = None
    for turn in turns if turns is not None else ():
        if not isinstance(turn, Mapping):
            continue
        text, role = turn.get("text"), role_of(turn.get("speaker"))
        said = str(normal(text.strip())) if isinstance(text, str) else ""
        if role == "customer":
            return said or None
        if role is None and first is None:
            first = said or None
    return first


def opening_sql() -> str:
    """`opening` as SQL over the column ``turns``."""
    found = read_yaml(Path(__file__).with_name("speakers.yaml"))
    customer, agent = (", ".join(f"'{name}'" for name in found[role]) for role in ("customer", "agent"))
    role = r"trim(regexp_replace(lower(strip_accents(turn.speaker)), '[^a-z]+', ' ', 'g'))"
    first = f"list_filter(turns, lambda turn: {role} IN ({customer}))"
    other = f"list_filter(turns, lambda turn: coalesce({role} NOT IN ({agent}), true) AND trim(turn.text) <> '')"
    return f"nullif(trim(CASE WHEN len({first}) > 0 THEN {first}[1].text ELSE {other}[1].text END), '')"


@cache
def _roles() -> dict[str, Speaker]:
    found = read_yaml(Path(__file__).with_name("speakers.yaml"))
    return {name: role for role in get_args(Speaker) for name in found[role]}
