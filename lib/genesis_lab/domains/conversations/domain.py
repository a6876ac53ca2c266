"""Domain ``conversations``: options, plan, and how an answer becomes a record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from genesis_lab.domains.base import Answer, Check, Domain, Facets, Prompt, Provenance, Spec, Target
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.checks import checks
from genesis_lab.domains.conversations.foreign import ChatReader, turns_as_text
from genesis_lab.domains.conversations.grammar import Grammar
from genesis_lab.domains.conversations.opening import opening_sql, role_of
from genesis_lab.domains.conversations.prompt import build_prompt, schema
from genesis_lab.domains.conversations.taxonomy import BANKING77, Taxonomy, load_taxonomy
from genesis_lab.domains.language import detect
from genesis_lab.domains.quotas import largest_remainder, spread
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.texts import normal, same_words, unaccented
from genesis_lab.yamls import file_digests

Shares = dict[str, Annotated[float, Field(ge=0, le=1)]]
Tone = Literal["neobank", "formal", "casual"]

_TURNS: TypeAdapter[list[r.Turn]] = TypeAdapter(r.Turns)
_LABELS = (
    "intent", "sentiment", "complexity", "language", "emotion_arc", "resolution_time", "resolution_status",
)  # fmt: skip
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


class Cell(BaseModel):
    """So many records of these attributes; those that are not given are spread as planned."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: int = Field(ge=1)
    intent: str | None = None
    category: str | None = None
    language: r.Language | None = None
    sentiment: r.Sentiment | None = None
    complexity: r.Complexity | None = None
    resolution_status: r.Resolution | None = None
    resolution_time: r.ResolutionTime | None = None


class ConversationsConfig(BaseModel):
    """What a user can choose about a set of conversations."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    total: int = Field(770, ge=1, le=1_000_000, description="conversations to generate, 10 or more (of cells: theirs)")
    english_share: float = Field(0.5, ge=0, le=1, description="share in English; the rest is in Spanish")
    categories: tuple[str, ...] = Field((), description="categories to cover (none chosen: all)")
    intents: tuple[str, ...] = Field((), description="single intents to cover, besides the categories (none: all)")
    sentiment_shares: Shares = Field(
        {"positive": 0.3, "neutral": 0.5, "negative": 0.2}, description="share of each customer sentiment"
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
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same plan")
    cells: tuple[Cell, ...] = Field(
        (),
        description="exactly these instead: n of each, by intent, language …, as a bias check's follow-up lists them",
    )

    @model_validator(mode="before")
    @classmethod
    def _one_normal_form(cls, given: Any) -> Any:
        given = normal(given)
        cells = given.get("cells") if isinstance(given, dict) else None
        try:
            return given | {"total": sum(Cell.model_validate(cell).n for cell in cells)} if cells else given
        except (TypeError, ValidationError):
            return given  # the field says what is wrong

    @field_validator("sentiment_shares", "complexity_shares", "resolution_shares")
    @classmethod
    def _adds_up(cls, shares: dict[str, float], info: Any) -> dict[str, float]:
        allowed = {"sentiment": r.SENTIMENTS, "complexity": tuple(r.TURN_RANGES), "resolution": r.RESOLUTIONS}[
            info.field_name.removesuffix("_shares")
        ]
        unknown = [value for value in shares if value not in allowed]
        if unknown:
            raise ValueError(f"unknown value {unknown[0]!r}, expected {', '.join(allowed)}")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, got {sum(shares.values()):g}")
        return {value: shares.get(value, 0.0) for value in allowed}

    @model_validator(mode="after")
    def _fits(self) -> ConversationsConfig:
        if not self.cells and self.total < 10:
            raise ValueError(f"total: Input should be greater than or equal to 10, got {self.total}")
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns ({self.min_turns}) must not exceed max_turns ({self.max_turns})")
        wanted = [name for name, share in self.complexity_shares.items() if share]
        for complexity in [*wanted, *(cell.complexity for cell in self.cells if cell.complexity)]:
            low, high = r.TURN_RANGES[complexity]
            if not self.turn_choices(complexity):
                raise ValueError(
                    f"{complexity} conversations have {low}–{high} turns, which min_turns={self.min_turns} and "
                    f"max_turns={self.max_turns} rule out: set complexity_shares[{complexity!r}] to 0, ask for no such "
                    "cell, or widen the range"
                )
        return self

    def turn_choices(self, complexity: str) -> range:
        """How many turns a conversation of this complexity may have."""
        low, high = r.TURN_RANGES[complexity]
        return range(max(low, self.min_turns), min(high, self.max_turns) + 1)


class Conversations(Domain):
    """The `Domain` of customer-service conversations."""

    name = "conversations"
    facets = Facets(
        unit="conversations",
        id="conversation_id",
        label="intent",
        group=None,
        text=opening_sql(),
        texts="list_transform(turns, lambda turn: turn.text)",
        language="language",
        attributes=(
            "intent", "category", "language", "sentiment", "complexity", "resolution_status", "resolution_time",
        ),
        derived={"category": "intent"},
        covered=(("intent", "language"),),
        outcomes=("sentiment", "resolution_status"),
        preview="chat",
        worth="intents",
        task_categories=("text-classification",),
    )  # fmt: skip
    record_type = r.Conversation
    config_type = ConversationsConfig

    config: ConversationsConfig

    def checks(self) -> list[Check]:
        """What may be wrong with a conversation."""
        return checks(self.taxonomy)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        return load_taxonomy(self.config.taxonomy).select(
            categories=self.config.categories, intents=self.config.intents
        )

    def knowledge(self) -> dict[str, str]:
        """Digests of the taxonomy, the prompts and the offline grammar's words."""
        return {"taxonomy": self.taxonomy.digest()} | file_digests(
            *Path(__file__).parent.glob("*.yaml"), *Path(__file__).parents[1].glob("function_words.yaml")
        )

    def reader(self, field_map: Mapping[str, str], taxonomy: Taxonomy | str | Path | None = None) -> ChatReader:
        """Chats by role, labelled sentences, dialogues as text; None for `taxonomy`: Banking77, but others are welcome."""
        return ChatReader(tuple(self.record_type.model_fields), field_map, taxonomy)

    def cells(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The turns as lines of text."""
        turns = record["turns"]
        readable = turns is not None and all(isinstance(turn, dict) for turn in turns)
        return dict(record) | ({"turns": turns_as_text(turns)} if readable else {})

    def targets(self) -> Sequence[Target]:
        """Shares of language, intent, category, sentiment, complexity, resolution_status and resolution_time."""
        if not self.config.cells:
            return self._shares()
        planned = [spec.attributes for spec in self.specs(self.config.total, self.config.seed)]
        counts = {target.name: Counter(str(one.get(target.name)) for one in planned) for target in self._shares()}
        counts["category"] = Counter(self.taxonomy.category_of[one["intent"]] for one in planned)
        return tuple(Target(name, {v: n / len(planned) for v, n in c.items()}) for name, c in counts.items())

    def _shares(self) -> Sequence[Target]:
        c, intents = self.config, self.taxonomy.names
        return (
            Target("intent", dict.fromkeys(intents, 1 / len(intents))),
            Target("category", {k: len(v) / len(intents) for k, v in self.taxonomy.categories.items()}),
            Target("language", {"en": c.english_share, "es": 1 - c.english_share}),
            Target("sentiment", c.sentiment_shares),
            Target("complexity", c.complexity_shares),
            Target("resolution_status", c.resolution_shares),
            Target("resolution_time", {"quick": 0.4, "standard": 0.4, "extended": 0.2}),
        )

    def _given(self, total: int, values: Mapping[str, list[str]]) -> dict[str, np.ndarray]:
        """What the cells say of each record: attribute to a place in `values`, -1 where they leave it open."""
        given = {name: np.full(total, -1) for name in values}
        start = 0
        for cell in self.config.cells:
            for name, value in cell.model_dump(include=set(values), exclude_none=True).items():
                if value not in values[name]:
                    raise InvalidInput(f"cells ask for {name} {value!r}, which is not among those planned.")
                given[name][start : start + cell.n] = values[name].index(value)
            start += cell.n
        return given

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        """`total` specs whose counts meet every target by largest remainder, spread evenly over each other.

        Where there are cells, exactly those, and what they leave open so.
        """
        rng = np.random.default_rng(seed)
        shares = {target.name: target.shares for target in self._shares()}
        given = self._given(total, {name: list(values) for name, values in shares.items()})
        fixed = [places + 1 for places in given.values() if (places >= 0).any()]
        intents, categories = self.taxonomy.names, list(self.taxonomy.categories)
        category_of = np.array([categories.index(self.taxonomy.category_of[intent]) for intent in intents])
        codes = {"intent": given["intent"].copy()}
        for category in np.unique(given["category"]):
            among = np.flatnonzero(category_of == category) if category >= 0 else np.arange(len(intents))
            rows = np.flatnonzero((codes["intent"] < 0) & (given["category"] == category))
            even = largest_remainder({str(intent): 1.0 for intent in among}, len(rows))
            if fixed:
                codes["intent"][rows] = among[spread(even, [g[rows] for g in fixed], rng)]
            else:
                codes["intent"][rows] = np.repeat(among, list(even.values()))
        codes["category"] = category_of[codes["intent"]]
        for i in np.flatnonzero((given["category"] >= 0) & (given["category"] != codes["category"])):
            intent, category = intents[codes["intent"][i]], categories[given["category"][i]]
            raise InvalidInput(f"cells ask for intent {intent} in category {category}, where it does not belong.")
        for name, strata in (
            ("language", ("intent",)),
            ("sentiment", ("intent", "language")),
            ("complexity", ("language", "sentiment", "intent")),
            ("resolution_status", ("category", "language", "sentiment", "intent")),
            ("resolution_time", ("complexity", "language", "resolution_status")),
        ):
            codes[name], rows = given[name], np.flatnonzero(given[name] < 0)
            over = [*(codes[stratum][rows] for stratum in strata), *(places[rows] for places in fixed)]
            codes[name][rows] = spread(largest_remainder(shares[name], len(rows)), over, rng)
        labels = {name: np.array(list(shares[name]))[codes[name]] for name in shares if name != "category"}
        pairs = {
            (sentiment, resolution): [arc for arc in r.ARC_FITS if r.arc_fits(arc, sentiment, resolution)]
            for sentiment in r.SENTIMENTS
            for resolution in r.RESOLUTIONS
        }
        arcs = _dealt(list(zip(labels["sentiment"], labels["resolution_status"], strict=True)), pairs, rng)
        choices = {complexity: self.config.turn_choices(complexity) for complexity in r.TURN_RANGES}
        turns = _dealt(labels["complexity"], choices, rng)
        seeds = rng.integers(2**31, size=total)
        ordinals: Counter[tuple[str, str]] = Counter()
        specs: list[Spec] = []
        for index in rng.permutation(total):
            attributes: dict[str, Any] = {name: str(labels[name][index]) for name in labels}
            attributes |= {"emotion_arc": arcs[index], "turns": turns[index]}
            cell = (attributes["intent"], attributes["language"])
            specs.append(Spec(len(specs), ordinals[cell], int(seeds[index]), attributes))
            ordinals[cell] += 1
        return specs

    def prompt(self, spec: Spec) -> Prompt:
        return build_prompt(spec, self.taxonomy, tone=self.config.tone, few_shot=self.config.few_shot)

    def offline_text(self, spec: Spec, attempt: int) -> str:
        return self._grammar.write(spec, attempt)

    def answer_characters(self, spec: Spec) -> int:
        return len(self.offline_text(spec, 0))

    @cached_property
    def _grammar(self) -> Grammar:
        return Grammar(self.taxonomy, tone=self.config.tone, seed=self.config.seed)

    def fingerprint(self, answer: Answer, spec: Spec) -> str:
        """The customer's opening words, without case, accents and punctuation."""
        return f"{spec.attributes['language']}/{spec.attributes['intent']}/{same_words(answer['turns'][0]['text'])}"

    def parse(self, text: str, spec: Spec) -> Answer:
        """The turns in a model's answer: JSON with ``turns``.

        Raises
        ------
        ParseFailure : no JSON, wrong turns, wrong language …, with every reason found.
        """
        sent = read_json(text, schema(spec.attributes["turns"]))["turns"]
        turns = [{"speaker": role_of(t["speaker"]) or t["speaker"], "text": t["text"]} for t in sent]
        complexity = spec.attributes["complexity"]
        if len(turns) not in (fitting := self.config.turn_choices(complexity)):
            span = f"{fitting[0]} to {fitting[-1]} turns"
            raise ParseFailure(f"a {complexity} conversation has {span}, got {len(turns)}")
        try:
            said = _TURNS.validate_python(turns)
        except ValidationError as error:
            raise ParseFailure(*(_reason(e) for e in error.errors()[:5])) from None
        reasons = _content_problems(said, spec.attributes["language"])
        if reasons:
            raise ParseFailure(*reasons)
        return {"turns": [{"speaker": turn.speaker, "text": turn.text} for turn in said]}

    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> r.Conversation:
        """The conversation of these turns; its labels are the spec's."""
        a, turns = spec.attributes, answer["turns"]
        return r.Conversation(
            conversation_id=r.conversation_id(a["intent"], a["language"], turns, spec.seed),
            category=self.taxonomy.category_of[a["intent"]],
            turn_count=len(turns),
            turns=turns,
            provenance=provenance,
            **{name: a[name] for name in _LABELS},
        )


def _dealt(values: Any, choices: Mapping[Any, Sequence[Any]], rng: np.random.Generator) -> list[Any]:
    """For each of `values` one of its choices, all of them equally often."""
    places: dict[Any, list[int]] = {value: [] for value in choices}
    for place, value in enumerate(values):
        places[value].append(place)
    dealt: list[Any] = [None] * len(values)
    for value, members in places.items():
        for i, member in enumerate(rng.permutation(members)):
            dealt[int(member)] = choices[value][i % len(choices[value])]
    return dealt


def _reason(error: Any) -> str:
    where = ".".join(str(part + 1) if isinstance(part, int) else part for part in error["loc"])
    message = error["msg"].removeprefix("Value error, ")
    return f"turns.{where}: {message}" if where else message


def _content_problems(turns: list[r.Turn], language: str) -> list[str]:
    problems = []
    for speaker in ("customer", "agent"):
        words = " ".join(t.text for t in turns if t.speaker == speaker)
        found = detect(words)
        if found not in (None, language) or (found is None and len(words) > 80):
            problems.append(f"the {speaker}'s text must be in {language!r}, it reads as {found or 'another language'}")
    if len({unaccented(t.text) for t in turns}) < len(turns):
        problems.append("the same text is said twice")
    if any("<" in t.text and _TAG.search(t.text) for t in turns):
        problems.append("a turn holds HTML tags: write plain text")
    return problems
