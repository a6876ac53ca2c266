"""What a user may choose about conversations and utterances."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.taxonomy import BANKING77
from genesis_lab.domains.quotas import checked_shares, with_total

Shares = dict[str, Annotated[float, Field(ge=0, le=1)]]
Tone = Literal["neobank", "formal", "casual"]
Records = Literal["conversations", "utterances"]


class Cell(BaseModel):
    """So many records of these attributes; those that are not given are spread as planned.

    `against` is the intent that theirs is mixed up with, `mixed` the messages that were, each to its intent: the
    records are to lie on their side of that line.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1)
    intent: str | None = None
    category: str | None = None
    language: r.Language | None = None
    sentiment: r.Sentiment | None = None
    complexity: r.Complexity | None = None
    resolution_status: r.Resolution | None = None
    resolution_time: r.ResolutionTime | None = None
    against: str | None = None
    mixed: dict[str, str] = {}


class ConversationsConfig(BaseModel):
    """What a user can choose about a set of conversations or utterances."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    total: int = Field(770, ge=1, le=1_000_000, description="records to generate, 10 or more (of cells: theirs)")
    records: Records = Field(
        "conversations", description="conversations, or utterances: only what a customer writes first, with its intent"
    )
    english_share: float = Field(0.5, ge=0, le=1, description="share in English; the rest is in Spanish")
    categories: tuple[str, ...] = Field((), description="categories to cover (none chosen: all)")
    intents: tuple[str, ...] = Field((), description="single intents to cover, besides the categories (none: all)")
    sentiment_shares: Shares = Field(
        {"positive": 0.3, "neutral": 0.5, "negative": 0.2}, description="share of each sentiment over a conversation"
    )
    complexity_shares: Shares = Field(
        {"simple": 0.3, "medium": 0.5, "complex": 0.2}, description="share of each complexity (2–4, 4–8, 8–12 turns)"
    )
    resolution_shares: Shares = Field(
        {"resolved": 0.7, "escalated": 0.15, "pending": 0.15}, description="share of each way a conversation ends"
    )
    min_turns: int = Field(2, ge=2, le=12, description="fewest turns in a conversation")
    max_turns: int = Field(12, ge=2, le=12, description="most turns in a conversation")
    tone: Tone = Field("neobank", description="how the agent writes")
    few_shot: int = Field(2, ge=0, le=4, description="worked examples in the prompt (not used by provider offline)")
    taxonomy: str = Field(BANKING77, description="banking77, or the path of a YAML file with your own intents")
    list_size: int = Field(20, ge=1, le=100, description="utterances that a model is asked for at once")
    seeds: str = Field(
        "",
        description="a few real messages per intent (CSV or JSONL with text and label, or a dataset): they are shown "
        "to the model, so they leave this machine, and are never copied",
    )
    like: str = Field(
        "", description="real messages (as seeds, labels not needed) whose length and manner utterances take"
    )
    openings: str = Field("", description="a dataset whose openings are continued; none: a model first writes them")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same plan")
    cells: tuple[Cell, ...] = Field(
        (),
        description="exactly these instead: n of each, by intent, language …, as a bias check's follow-up lists them",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_normal_form(cls, given: Any) -> Any:
        return with_total(given, Cell)

    @field_validator("sentiment_shares", "complexity_shares", "resolution_shares")
    @classmethod
    def _adds_up(cls, shares: dict[str, float], info: Any) -> dict[str, float]:
        allowed = {"sentiment": r.SENTIMENTS, "complexity": tuple(r.TURN_RANGES), "resolution": r.RESOLUTIONS}
        return checked_shares(shares, allowed[info.field_name.removesuffix("_shares")])

    @model_validator(mode="after")
    def _fits(self) -> ConversationsConfig:
        if not self.cells and self.total < 10:
            raise ValueError(f"total must be at least 10, got {self.total}")
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns ({self.min_turns}) must not exceed max_turns ({self.max_turns})")
        if self.openings and self.records == "utterances":
            raise ValueError("openings are continued to conversations: leave them out or set records to conversations")
        endings = ("complexity", "resolution_status", "resolution_time")
        for cell in self.cells if self.records == "utterances" else ():
            if told := next((name for name in endings if getattr(cell, name)), None):
                raise ValueError(f"cells ask for {told}, which utterances do not have: set records to conversations")
        wanted = [name for name, share in self.complexity_shares.items() if share]
        for complexity in [*wanted, *(cell.complexity for cell in self.cells if cell.complexity)]:
            low, high = r.TURN_RANGES[complexity]
            if not self.turn_choices(complexity):
                ruled_out = f"which min_turns={self.min_turns} and max_turns={self.max_turns} rule out"
                how = f"set complexity_shares[{complexity!r}] to 0, ask for no such cell, or widen the range"
                raise ValueError(f"{complexity} conversations have {low}–{high} turns, {ruled_out}: {how}")
        return self

    def turn_choices(self, complexity: str | None) -> range:
        """How many turns a conversation of this complexity may have; an utterance, which has none, is one turn."""
        if complexity is None:
            return range(1, 2)
        low, high = r.TURN_RANGES[complexity]
        return range(max(low, self.min_turns), min(high, self.max_turns) + 1)
