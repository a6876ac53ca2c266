"""The record of domain ``conversations``: a labelled customer-service chat, who speaks in it, and how it opens."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, GetPydanticSchema, model_validator
from pydantic_core import core_schema

from genesis_lab.domains.base import Arrow, Provenance
from genesis_lab.texts import normal_sql, same_words
from genesis_lab.yamls import shipped

Sentiment = Literal["positive", "neutral", "negative"]
Complexity = Literal["simple", "medium", "complex"]
Language = Literal["en", "es"]
Resolution = Literal["resolved", "escalated", "pending"]
ResolutionTime = Literal["quick", "standard", "extended"]
EmotionArc = Literal[
    "stable_positive",
    "stable_neutral",
    "frustrated_to_satisfied",
    "frustrated_to_neutral",
    "neutral_to_satisfied",
    "neutral_to_frustrated",
    "stable_frustrated",
]
Speaker = Literal["customer", "agent"]

_READABLE = core_schema.custom_error_schema(
    core_schema.str_schema(pattern=r"^(?:[^\x00-\x08\x0b-\x1f\x7f]|\r\n)*$"),
    "unreadable",
    custom_error_message="holds control characters or broken Unicode",
)
"""Checked by pydantic itself: a function of ours for each text would take longer than all else that is checked."""
MAX_TEXT = 1_000
MAX_RUN = 2
"""Most turns in a row by one speaker."""
TURN_RANGES: dict[str, tuple[int, int]] = {"simple": (2, 4), "medium": (4, 8), "complex": (8, 12)}

SENTIMENTS: tuple[str, ...] = get_args(Sentiment)
RESOLUTIONS: tuple[str, ...] = get_args(Resolution)
ARCS: dict[str, dict[str, Any]] = shipped(Path(__file__).with_name("arcs.yaml"))
"""Emotion arc to its ``start`` and ``end``, and the ``sentiments`` and ``resolutions`` it can go with."""


def arc_fits(arc: str, sentiment: str, resolution: str) -> bool:
    """Whether the arc can go with this sentiment and this resolution."""
    return sentiment in ARCS[arc]["sentiments"] and resolution in ARCS[arc]["resolutions"]


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    speaker: Speaker
    text: Annotated[
        str,
        Field(min_length=1, max_length=MAX_TEXT),
        GetPydanticSchema(lambda text, schema: core_schema.chain_schema([schema(text), _READABLE])),
    ]


def _in_order(turns: list[Turn]) -> list[Turn]:
    if problems := turn_problems([turn.speaker for turn in turns]):
        raise ValueError("; ".join(problems))
    return turns


Turns = Annotated[list[Turn], Field(min_length=1), AfterValidator(_in_order)]
"""What is said, in order: the customer opens, and nobody speaks more than twice in a row."""


class Conversation(BaseModel):
    """A customer-service chat about one intent, or an utterance: only its first turn, without how a chat goes on.

    `turn_count`, `category` and the id are derived, never trusted.
    """

    model_config = ConfigDict(extra="forbid")

    conversation_id: str
    intent: str
    category: str
    sentiment: Sentiment
    complexity: Complexity | None = None
    language: Language
    turn_count: Annotated[int, Arrow("int32")]
    emotion_arc: EmotionArc | None = None
    resolution_time: ResolutionTime | None = None
    resolution_status: Resolution | None = None
    turns: Turns
    provenance: Provenance

    @model_validator(mode="after")
    def _hangs_together(self) -> Conversation:
        if self.turn_count != len(self.turns):
            raise ValueError(f"turn_count is {self.turn_count}, but there are {len(self.turns)} turns")
        return self


def turn_problems(speakers: list[str]) -> list[str]:
    """What is wrong with the order of speakers: the customer opens, and nobody speaks more than twice in a row."""
    problems = ["the first speaker must be the customer"] if speakers and speakers[0] != "customer" else []
    for i, speaker in enumerate(speakers[MAX_RUN:], MAX_RUN):
        if set(speakers[i - MAX_RUN : i]) == {speaker}:
            return [*problems, f"the {speaker} speaks more than {MAX_RUN} times in a row at turn {i + 1}"]
    return problems


def conversation_id(intent: str, language: str, turns: list[dict[str, Any]], salt: int | str = "") -> str:
    """Id derived from content; `salt` (the spec's seed) keeps two records with the same words apart."""
    content = "\x1f".join([intent, language, str(salt), *(f"{t['speaker']}\x1e{t['text']}" for t in turns)])
    return "conv_" + hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


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
