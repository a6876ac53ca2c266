"""Who speaks, however spelt, and how a conversation opens: the one definition that every room uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from genesis_lab.domains.conversations.record import Speaker
from genesis_lab.domains.conversations.taxonomy import read_yaml
from genesis_lab.texts import normal, same_words


def role_of(speaker: Any) -> Speaker | None:
    """``customer`` or ``agent`` for a speaker in any spelling (``USER``, ``[Cliente]:``, ``agent_2``); else None.

    Examples
    --------
    >>> role_of("USER"), role_of("Agente 2"), role_of("Bob")
    ('customer', 'agent', None)
    """
    return _roles().get(same_words(speaker).rstrip(" 0123456789")) if isinstance(speaker, str) else None


def opening(turns: Iterable[Mapping[str, Any] | None] | None) -> str | None:
    """The customer's first words.

    Where nobody is known as the customer, the first words of somebody who isn't known as the agent; None where there
    are none: what an agent says never stands for what a customer wants.
    """
    first: str | None = None
    for turn in turns if turns is not None else ():
        text = turn.get("text") if isinstance(turn, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            continue
        role = role_of(turn["speaker"]) if turn and "speaker" in turn else None
        if role == "customer":
            return str(normal(text.strip()))
        if role is None and first is None:
            first = str(normal(text.strip()))
    return first


@lru_cache(maxsize=1)
def _roles() -> dict[str, Speaker]:
    found = read_yaml(Path(__file__).with_name("speakers.yaml"))
    return {name: role for role in ("customer", "agent") for name in found[role]}
