"""Domain ``conversations``: options, plan, and how an answer becomes a record."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator

from genesis_lab.domains.base import Answer, Domain, Facets, Prompt, Provenance, Spec, Target
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.grammar import Grammar
from genesis_lab.domains.conversations.opening import role_of
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
        return normal(given)

    @model_validator(mode="before")
    @classmethod
    def _total_of_cells(cls, given: Any) -> Any:
        cells = given.get("cells") if isinstance(given, dict) else None
        try:
            return given | {"total": sum(Cell.model_validate(cell).n for cell in cells)} if cells else given
        except (TypeError, ValidationError):
            return given  # the field says what is wrong

    @model_validator(mode="after")
    def _enough(self) -> ConversationsConfig:
        if not self.cells and self.total < 10:
            raise ValueError(f"total: Input should be greater than or equal to 10, got {self.total}")
        return self

    @field_validator("sentiment_shares", "complexity_shares", "resolution_shares")
    @classmethod
    def _adds_up(cls, shares: dict[str, float], info: Any) -> dict[str, float]:
        allowed = get_args(
            {"sentiment_shares": r.Sentiment, "complexity_shares": r.Complexity, "resolution_shares": r.Resolution}[
                info.field_name
            ]
        )
        unknown = [value for value in shares if value not in allowed]
        if unknown:
            raise ValueError(f"unknown value {unknown[0]!r}, expected {', '.join(allowed)}")
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares must add up to 1, got {sum(shares.values()):g}")
        return {value: shares.get(value, 0.0) for value in allowed}

    @model_validator(mode="after")
    def _turns_fit(self) -> ConversationsConfig:
        if self.min_turns > self.max_turns:
            raise ValueError(f"min_turns ({self.min_turns}) must not exceed max_turns ({self.max_turns})")
        for complexity, share in self.complexity_shares.items():
            if share and not _turn_choices(complexity, self.min_turns, self.max_turns):
                low, high = r.TURN_RANGES[complexity]
                raise ValueError(
                    f"{complexity} conversations have {low}–{high} turns, which min_turns={self.min_turns} and "
                    f"max_turns={self.max_turns} rule out: set complexity_shares[{complexity!r}] to 0 or widen the range"
                )
        for cell in self.cells:
            if cell.complexity and not _turn_choices(cell.complexity, self.min_turns, self.max_turns):
                raise ValueError(
                    f"cells ask for {cell.complexity} conversations, which min_turns={self.min_turns} and "
                    f"max_turns={self.max_turns} rule out: widen the range"
                )
        return self


def _turn_choices(complexity: str, min_turns: int, max_turns: int) -> list[int]:
    low, high = r.TURN_RANGES[complexity]
    return list(range(max(low, min_turns), min(high, max_turns) + 1))


class Conversations(Domain):
    """The `Domain` of customer-service conversations."""

    name = "conversations"
    facets = Facets(
        unit="conversations",
        id="conversation_id",
        label="intent",
        group=None,
        text="list_filter(turns, lambda turn: turn.speaker = 'customer')[1].text",
        texts="list_transform(turns, lambda turn: turn.text)",
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

    def targets(self) -> Sequence[Target]:
        """Shares of language, intent, category, sentiment, complexity, resolution_status and resolution_time."""
        if not self.config.cells:
            return self._shares()
        planned = [spec.attributes for spec in self.specs(self.config.total, self.config.seed)]
        counts = {target.name: Counter(str(one.get(target.name)) for one in planned) for target in self._shares()}
        counts["category"] = Counter(self.taxonomy.category_of[one["intent"]] for one in planned)
        return tuple(Target(name, {v: n / len(planned) for v, n in c.items()}) for name, c in counts.items())

    def _shares(self) -> Sequence[Target]:
        c = self.config
        intents = self.taxonomy.names
        categories = {k: len(v) / len(intents) for k, v in self.taxonomy.categories.items()}
        return (
            Target("intent", dict.fromkeys(intents, 1 / len(intents))),
            Target("category", categories),
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
            for name, known in values.items():
                value = getattr(cell, name)
                if value is not None and value not in known:
                    raise InvalidInput(f"cells ask for {name} {value!r}, which is not among those planned.")
                if value is not None:
                    given[name][start : start + cell.n] = known.index(value)
            start += cell.n
        return given

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        """`total` specs whose counts meet every target by largest remainder, spread evenly over each other.

        Where there are cells, exactly those, and what they leave open so.
        """
        rng = np.random.default_rng(seed)
        shares = {target.name: target.shares for target in self._shares()}
        given = self._given(total, {name: list(values) for name, values in shares.items()})
        category_names = list(self.taxonomy.categories)
        category_of = np.array([category_names.index(self.taxonomy.category_of[i]) for i in self.taxonomy.names])
        fixed = [places + 1 for places in given.values() if (places >= 0).any()]
        codes = {"intent": given["intent"].copy()}
        for category in np.unique(given["category"]):
            among = np.flatnonzero(category_of == category) if category >= 0 else np.arange(len(category_of))
            rows = np.flatnonzero((codes["intent"] < 0) & (given["category"] == category))
            even = largest_remainder({str(intent): 1.0 for intent in among}, len(rows))
            laid = (
                spread(even, [g[rows] for g in fixed], rng)
                if fixed
                else np.repeat(np.arange(len(among)), list(even.values()))
            )
            codes["intent"][rows] = among[laid]
        codes["category"] = category_of[codes["intent"]]
        wrong = np.flatnonzero((given["category"] >= 0) & (given["category"] != codes["category"]))
        if len(wrong):
            intent, category = (
                self.taxonomy.names[codes["intent"][wrong[0]]],
                category_names[given["category"][wrong[0]]],
            )
            raise InvalidInput(f"cells ask for intent {intent} in category {category}, where it does not belong.")
        for name, strata in (
            ("language", ("intent",)),
            ("sentiment", ("intent", "language")),
            ("complexity", ("language", "sentiment", "intent")),
            ("resolution_status", ("category", "language", "sentiment", "intent")),
            ("resolution_time", ("complexity", "language", "resolution_status")),
        ):
            codes[name], rows = given[name], np.flatnonzero(given[name] < 0)
            counts = largest_remainder(shares[name], len(rows))
            codes[name][rows] = spread(
                counts, [*(codes[stratum][rows] for stratum in strata), *(places[rows] for places in fixed)], rng
            )
        labels = {name: np.array(list(shares[name]))[codes[name]] for name in shares if name != "category"}
        arcs = self._arcs(labels["sentiment"], labels["resolution_status"], rng)
        turns = self._turns(labels["complexity"], rng)
        seeds = rng.integers(2**31, size=total)
        ordinals: dict[tuple[str, str], int] = {}
        specs: list[Spec] = []
        for index in rng.permutation(total):
            attributes: dict[str, Any] = {name: str(labels[name][index]) for name in labels}
            attributes |= {"emotion_arc": arcs[index], "turns": int(turns[index])}
            cell = (attributes["intent"], attributes["language"])
            ordinal = ordinals[cell] = ordinals.get(cell, -1) + 1
            specs.append(Spec(len(specs), ordinal, int(seeds[index]), attributes))
        return specs

    def _arcs(self, sentiments: np.ndarray, resolutions: np.ndarray, rng: np.random.Generator) -> list[str]:
        arcs = [""] * len(sentiments)
        for sentiment in get_args(r.Sentiment):
            for resolution in get_args(r.Resolution):
                members = rng.permutation(np.flatnonzero((sentiments == sentiment) & (resolutions == resolution)))
                fitting = [arc for arc in r.ARC_FITS if r.arc_fits(arc, sentiment, resolution)]
                for i, member in enumerate(members):
                    arcs[member] = fitting[i % len(fitting)]
        return arcs

    def _turns(self, complexities: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        turns = np.zeros(len(complexities), dtype=int)
        for complexity in get_args(r.Complexity):
            members = rng.permutation(np.flatnonzero(complexities == complexity))
            choices = _turn_choices(complexity, self.config.min_turns, self.config.max_turns)
            if len(members):
                turns[members] = np.resize(choices, len(members))
        return turns

    def prompt(self, spec: Spec) -> Prompt:
        from genesis_lab.domains.conversations.prompt import build_prompt

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
        turns = _answered_turns(text, spec.attributes["turns"])
        complexity = spec.attributes["complexity"]
        low, high = r.TURN_RANGES[complexity]
        low, high = max(low, self.config.min_turns), min(high, self.config.max_turns)
        if not low <= len(turns) <= high:
            raise ParseFailure(f"a {complexity} conversation has {low} to {high} turns, got {len(turns)}")
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
        wanted, turns = spec.attributes, answer["turns"]
        return r.Conversation(
            conversation_id=r.conversation_id(wanted["intent"], wanted["language"], turns, spec.seed),
            intent=wanted["intent"],
            category=self.taxonomy.category_of[wanted["intent"]],
            sentiment=wanted["sentiment"],
            complexity=wanted["complexity"],
            language=wanted["language"],
            turn_count=len(turns),
            emotion_arc=wanted["emotion_arc"],
            resolution_time=wanted["resolution_time"],
            resolution_status=wanted["resolution_status"],
            turns=turns,
            provenance=provenance,
        )


def _answered_turns(text: str, planned: int) -> list[dict[str, Any]]:
    """The ``turns`` of the JSON object in `text`, their speakers by our names."""
    from genesis_lab.domains.conversations.prompt import schema

    turns = read_json(text, schema(planned))["turns"]
    return [{"speaker": role_of(t["speaker"]) or t["speaker"], "text": t["text"]} for t in turns]


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
