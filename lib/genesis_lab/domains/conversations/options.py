"""What a user may choose about conversations and utterances, and the exact plan of them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genesis_lab.domains.base import Spec, Target
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.taxonomy import BANKING77, Taxonomy
from genesis_lab.domains.quotas import asked_for, checked_shares, largest_remainder, spread, with_total
from genesis_lab.errors import InvalidInput
from genesis_lab.yamls import shipped

Shares = dict[str, Annotated[float, Field(ge=0, le=1)]]
Tone = Literal["neobank", "formal", "casual"]
Records = Literal["conversations", "utterances"]
KINDS = ("question", "lower_case", "slip", "greeting")
"""What is true or not of how an utterance is typed."""


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


def planned_shares(config: ConversationsConfig, taxonomy: Taxonomy, manner: Mapping[str, Any]) -> list[Target]:
    """The share of each value of each attribute: what a record keeps first, then how an utterance is typed."""
    intents, utterances = taxonomy.names, config.records == "utterances"
    targets = [
        Target("intent", dict.fromkeys(intents, 1 / len(intents))),
        Target("category", {k: len(v) / len(intents) for k, v in taxonomy.categories.items()}),
        Target("language", {"en": config.english_share, "es": 1 - config.english_share}),
        Target("sentiment", manner["sentiment"] if utterances else config.sentiment_shares),
    ]
    if utterances:
        kinds = (Target(name, {"yes": manner[name], "no": 1 - manner[name]}) for name in KINDS)
        return [*targets, Target("words", manner["words"]), *kinds]
    ends = {"complexity": config.complexity_shares, "resolution_status": config.resolution_shares}
    ends["resolution_time"] = _plan()["resolution_time"]
    return targets + [Target(name, share) for name, share in ends.items()]


def _plan() -> Any:
    return shipped(Path(__file__).with_name("plan.yaml"))


def make_specs(
    config: ConversationsConfig, taxonomy: Taxonomy, targets: Sequence[Target], total: int, seed: int
) -> list[Spec]:
    """`total` specs whose counts meet every target by largest remainder, spread evenly over each other.

    Where there are cells, exactly those, and what they leave open so.
    """
    rng = np.random.default_rng(seed)
    shares = {target.name: target.shares for target in targets}
    given = asked_for(config.cells, total, shares)
    for cell in config.cells:
        if cell.against is not None and cell.against not in shares["intent"]:
            told = f"cells tell {cell.intent} from {cell.against!r}"
            raise InvalidInput(f"{told}, which is not among the intents planned.")
    fixed = [places + 1 for places in given.values() if (places >= 0).any()]
    intents, categories = taxonomy.names, list(taxonomy.categories)
    category_of = np.array([categories.index(taxonomy.category_of[intent]) for intent in intents])
    codes = {"intent": given["intent"].copy()}
    for category in np.unique(given["category"]):
        among = np.flatnonzero(category_of == category) if category >= 0 else np.arange(len(intents))
        rows = np.flatnonzero((codes["intent"] < 0) & (given["category"] == category))
        even = largest_remainder({str(intent): 1.0 for intent in among}, len(rows))
        ordered = np.repeat(np.arange(len(among)), list(even.values()))
        codes["intent"][rows] = among[spread(even, [g[rows] for g in fixed], rng) if fixed else ordered]
    codes["category"] = category_of[codes["intent"]]
    for i in np.flatnonzero((given["category"] >= 0) & (given["category"] != codes["category"])):
        intent, category = intents[codes["intent"][i]], categories[given["category"][i]]
        raise InvalidInput(f"cells ask for intent {intent} in category {category}, where it does not belong.")
    for name, over_these in _plan()[config.records].items():
        codes[name], rows = given[name], np.flatnonzero(given[name] < 0)
        over = [*(codes[stratum][rows] for stratum in over_these), *(places[rows] for places in fixed)]
        counts = largest_remainder(shares[name], len(rows))
        codes[name][rows] = _in_order(counts, over, rng) if name == "words" else spread(counts, over, rng)
    values = {name: list(map(str, share)) for name, share in shares.items() if name != "category"}
    labels = {name: [among[code] for code in codes[name].tolist()] for name, among in values.items()}
    further = _typed(labels, config) if config.records == "utterances" else _told(labels, config, rng)
    seeds = rng.integers(2**31, size=total).tolist()
    ordinals: Counter[tuple[str, str]] = Counter()
    specs: list[Spec] = []
    columns = [*labels.items(), *further.items()]
    for index in rng.permutation(total).tolist():
        own: dict[str, Any] = {name: of_each[index] for name, of_each in columns}
        ordinal = ordinals[own["intent"], own["language"]]
        specs.append(Spec(len(specs), ordinal, seeds[index], own))
        ordinals[own["intent"], own["language"]] += 1
    return specs


def _in_order(counts: Mapping[str, int], strata: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """As `spread`, for values that have an order: each stratum gets short and long ones alike.

    Along the strata the values, from the lowest to the highest, are gone through in steps of the golden section.
    """
    value = np.repeat(np.arange(len(counts)), list(counts.values()))
    step = next((n for n in range(round(len(value) * 0.618), len(value)) if math.gcd(n, len(value)) == 1), 1)
    order = np.lexsort([rng.random(len(value)), *reversed(strata)])
    result = np.empty_like(value)
    result[order] = value[np.arange(len(value)) * step % max(1, len(value))]
    return result


def _told(labels: Mapping[str, Any], config: ConversationsConfig, rng: np.random.Generator) -> dict[str, list[Any]]:
    """Arc and number of turns of each conversation, which depend on its other attributes."""
    pairs = {
        (sentiment, resolution): [arc for arc in r.ARCS if r.arc_fits(arc, sentiment, resolution)]
        for sentiment in r.SENTIMENTS
        for resolution in r.RESOLUTIONS
    }
    arcs = _dealt(list(zip(labels["sentiment"], labels["resolution_status"], strict=True)), pairs, rng)
    choices = {complexity: config.turn_choices(complexity) for complexity in r.TURN_RANGES}
    return {"emotion_arc": arcs, "turns": _dealt(labels["complexity"], choices, rng)}


def _typed(labels: Mapping[str, Any], config: ConversationsConfig) -> dict[str, list[Any]]:
    """How each utterance is typed as numbers and truth values, and which intent it is told apart from."""
    further: dict[str, list[Any]] = {"words": [int(n) for n in labels["words"]]}
    further |= {name: [value == "yes" for value in labels[name]] for name in KINDS}
    if any(cell.against for cell in config.cells):
        further["against"] = [cell.against or "" for cell in config.cells for _ in range(cell.n)]
    return further


def _dealt(values: Any, choices: Mapping[Any, Sequence[Any]], rng: np.random.Generator) -> list[Any]:
    """For each of `values` one of its choices, all of them equally often."""
    dealt: list[Any] = [None] * len(values)
    places = defaultdict[Any, list[int]](list)
    for place, value in enumerate(values):
        places[value].append(place)
    for value, among in choices.items():
        for i, place in enumerate(rng.permutation(places[value]).tolist()):
            dealt[int(place)] = among[i % len(among)]
    return dealt
