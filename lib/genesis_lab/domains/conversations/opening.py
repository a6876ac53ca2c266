"""Who speaks, however spelt, and how a conversation opens: the one definition that every room uses."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from genesis_lab.domains.conversations.record import Speaker
from genesis_lab.texts import normal_sql, same_words
from genesis_lab.yamls import shipped


def role_of(speaker: Any) -> Speaker | None:
    """``customer`` or ``agent`` for a speaker in any spelling (``USER``, ``[Cliente]:``, ``agent_2``); else None.

    Examples
    --------
    >>> role_of("USER"), role_of("Agente 2"), role_of("Bob")
    ('customer', 'agent', None)
    """
    if speaker in ("customer", "agent"):
        return speaker  # type: ignore[no-any-return]
    return _roles().get(same_words(speaker).rstrip(" 0123456789")) if isinstance(speaker, str) else None


def opening_sql() -> str:
    """What the customer says first, as SQL over the column ``turns``; NULL where that turn is blank.

    Where nobody is known as the customer, the first words of somebody who isn't known as the agent, and NULL where
    there are none: what an agent says never stands for what a customer wants.
    """
    role, text = role_sql("turn.speaker"), normal_sql("turn.text")
    own = f"list_filter(turns, lambda turn: {role} = 'customer')"
    other = f"list_filter(turns, lambda turn: turn IS NOT NULL AND {role} IS NULL AND {text} IS NOT NULL)"
    found = f"list_transform(CASE WHEN len({own}) > 0 THEN {own} ELSE {other} END, lambda turn: {text})[1]"
    return f"CASE WHEN turns[1].speaker = 'customer' THEN {normal_sql('turns[1].text')} ELSE {found} END"


def role_sql(speaker: str) -> str:
    """`role_of` as SQL."""
    plain = rf"regexp_replace(lower(strip_accents({speaker})), '[^\p{{L}}\p{{N}}]+', ' ', 'g')"
    pairs = ", ".join(f"'{name}': '{role}'" for name, role in _roles().items())
    known = f"MAP {{{pairs}}}[regexp_replace(trim({plain}), '[ 0-9]+$', '')]"
    return f"CASE WHEN {speaker} IN ('customer', 'agent') THEN {speaker} ELSE {known} END"


@cache
def _roles() -> dict[str, Speaker]:
    """Spelling to role."""
    speakers = shipped(Path(__file__).with_name("speakers.yaml"))
    return {name: role for role, names in speakers.items() for name in names}
