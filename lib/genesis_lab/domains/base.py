"""What a task family is to the rest of the workbench: the `Domain` contract and the plain data it deals in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import AwareDatetime, BaseModel, ConfigDict

from genesis_lab.domains.foreign import Reader
from genesis_lab.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Arrow:
    """In a field's annotation: its column type, where Python's does not say it (``Annotated[int, Arrow("int32")]``)."""

    type: str


class Provenance(BaseModel):
    """Where a record comes from; every record has one."""

    model_config = ConfigDict(extra="forbid")

    provider: str
    model: str
    prompt_version: str
    spec_index: int | None = None
    spec_seed: int | None = None
    request_key: str | None = None
    attempts: Annotated[int, Arrow("int32")] = 1
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    generated_at: AwareDatetime | None = None
    """When the answer came; None for a deterministic provider, whose records are the same whenever they are made."""


@dataclass(frozen=True, slots=True)
class Spec:
    """The attributes of one record to be."""

    index: int  # its place in the plan
    ordinal: int  # its place among the specs of the same cell, so that an offline grammar repeats no pattern too soon
    seed: int
    attributes: Mapping[str, Any]


Answer = dict[str, Any]
"""What the journal keeps of a model's answer: plain JSON, from which a domain makes the record."""
Message = tuple[Literal["user", "assistant"], str]
"""One message of a chat: who speaks, and the text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What to ask a model for one record."""

    system: str
    messages: tuple[Message, ...]
    schema: Mapping[str, Any]  # the JSON schema of the answer
    schema_name: str
    stable: int = 0  # so many first messages are the same for many specs, so that a provider's prompt cache pays


@dataclass(frozen=True, slots=True)
class Target:
    """One attribute of a plan and the share each of its values should have; also the bias check's target."""

    name: str
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Facets:
    """What a record is, as data: what the rooms that work for every domain ask instead of its name.

    `text`, `texts` and the like are SQL over a record's columns, or None where it has nothing of the kind.
    """

    unit: str  # what records are called, in the plural
    id: str  # the column that names a record
    label: str | None  # the column that a classifier learns
    group: str | None  # the column of what must not straddle splits; None: each record stands for itself
    text: str | None  # SQL of a record's one text (a conversation's opening)
    attributes: Sequence[str]  # columns that are planned and counted
    preview: Literal["chat", "dialogue", "series", "text"]  # how it is shown; dialogue: a `Role`'s example
    texts: str | None = None  # SQL of the list of all its texts, in which people and places are looked for
    language: str | None = None  # the column of its language
    derived: Mapping[str, str] = field(default_factory=dict)  # columns that follow from another
    covered: Sequence[Sequence[str]] = ()  # pairs of columns whose every cell should be filled
    outcomes: Sequence[str] = ()  # columns that are compared between groups of people
    worth: str | None = None  # which learner says what a dataset is worth in real data; None: not measured
    task_categories: Sequence[str] = ()  # as the Hugging Face hub names them
    aliases: Mapping[str, str] = field(default_factory=dict)  # what other people's data calls our fields
    lacking: Mapping[str, str] = field(default_factory=dict)  # columns that may be empty, and where, in SQL
    dataset: str = ""  # the dataset that is made where none is named; empty: the domain's name


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that may be wrong with a record, as data.

    SQL sees every field of the record as text, trimmed, and NULL where it is blank, missing or can't be read; lists
    keep their elements. `over` a list it sees the fields of one element besides, and its place ``position`` from 1.
    """

    name: str  # checks of one name make one part of `score` together
    score: str  # the score that the part belongs to; ``personal_data`` is counted, not scored
    unit: str  # what is looked at, in the plural
    over: str  # ``records``, or the column of a list
    applies: str  # SQL condition: which are looked at
    fails: str  # SQL condition: which of these are wrong
    says: str | Callable[[Any], Sequence[str | None]]
    """What is wrong, in SQL; or a function from the table of what fails to one sentence each.

    Empty where nothing is wrong after all, None where that can't be told.
    """
    meaning: str = ""  # what the share of what is right says
    empty: str = ""  # why there was nothing to look at
    gate: str = ""  # the condition of the verdict that it counts for
    planned: bool = False  # whether it needs the values that were planned (a taxonomy)


class Domain(ABC):
    """A task family. Knows nothing of providers, engines or datasets."""

    name: ClassVar[str]
    facets: Facets
    record_type: ClassVar[type[BaseModel]]
    """The schema of a record."""
    config_type: ClassVar[type[BaseModel]]
    """What a user may choose; every field has a default."""
    version: ClassVar[str] = "1"
    """Version of schema and checks; part of a dataset's config hash."""
    prompt_version: ClassVar[str] = "1"
    """Version of the prompt; part of the request key."""
    offline_version: ClassVar[str] = "1"
    """Version of the offline text, which its records name in place of the prompt's."""

    def __init__(self, config: Any = None) -> None:
        self.config: Any = config or self.config_type()

    def knowledge(self) -> Mapping[str, str]:
        """Digests of what shapes records besides the options (prompts, word lists), by the file's or option's name."""
        return {}

    @property
    def needs(self) -> str:
        """The dataset (name or folder) whose records it answers, which `feed` takes before a plan is made; or empty."""
        return ""

    def feed(self, records: Iterable[Mapping[str, Any]], domain: str) -> None:
        """Take the records of the dataset that it needs; `InvalidInput` where it can't answer those of `domain`."""
        raise NotImplementedError(f"{self.name} needs no records")

    @abstractmethod
    def targets(self) -> Sequence[Target]:
        """The plan's attributes with their target shares."""

    @abstractmethod
    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        """Exactly `total` specs that meet every target by largest remainder."""

    @abstractmethod
    def prompt(self, spec: Spec) -> Prompt:
        """The messages that ask for `spec`'s record."""

    def offline_text(self, spec: Spec, attempt: int) -> str | None:
        """What the offline provider answers: the same kind of text a model would send; None where there is none."""
        return None

    @abstractmethod
    def answer_characters(self, spec: Spec) -> int:
        """About how long a model's answer is."""

    @abstractmethod
    def parse(self, text: str, spec: Spec) -> Answer:
        """The answer in what a model sent, checked; raises `ParseFailure` with every reason it can't be used."""

    @property
    def list_size(self) -> int:
        """How many records one request may ask a model for; 1: each is asked for on its own, by `prompt`."""
        return 1

    def list_key(self, spec: Spec) -> str:
        """Specs of one key may be asked for together, and no two of their records may be alike."""
        return ""

    def list_prompt(self, specs: Sequence[Spec], known: Sequence[Answer]) -> Prompt:
        """The messages that ask for the records of `specs`, in this order, other than the `known` ones of their key."""
        raise NotImplementedError(f"{self.name} asks for one record at a time")

    def parse_list(self, text: str, specs: Sequence[Spec]) -> list[Answer | str]:
        """For each spec its answer, or why it has none that can be used; `ParseFailure` where `text` is no list."""
        raise NotImplementedError(f"{self.name} asks for one record at a time")

    def first_stage(self, dataset: str) -> dict[str, Any] | None:
        """Options of the dataset that a model writes first and whose records `dataset` continues; None: none."""
        return None

    @abstractmethod
    def fingerprint(self, answer: Answer, spec: Spec) -> str:
        """What no two records of a dataset may share, for example a conversation's opening words."""

    @abstractmethod
    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> BaseModel:
        """The record of an answer that `parse` accepted: the same whenever and wherever it is made."""

    def render_all(self, answered: Iterable[tuple[Answer, Spec, Provenance]]) -> Iterator[dict[str, Any]]:
        """Their records in this order, each as `render` makes it, as plain data."""
        return (self.render(*one).model_dump() for one in answered)

    @property
    def manner(self) -> Mapping[str, Any] | None:
        """How people write its texts; None: not documented.

        ``words`` to share, the shares of ``question``, ``lower_case`` and ``greeting``, and ``whose`` texts they are.
        """
        return None

    def checks(self) -> Sequence[Check]:
        """What is looked at in a dataset's records."""
        return ()

    def reader(self, field_map: Mapping[str, str], taxonomy: Any = None) -> Reader:
        """Who finds a record's fields in others' data; `field_map`: ours to theirs, `taxonomy`: the labels due."""
        return Reader(tuple(self.record_type.model_fields), self.facets.aliases, field_map)

    def cells(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record as the cells of a flat table."""
        return dict(record)

    def table(self, records: Iterable[Mapping[str, Any]], form: str) -> tuple[list[str], Iterable[list[Any]]]:
        """Header and rows of records laid out over a table, ``long`` or ``wide``."""
        raise InvalidInput(f"Records of {self.name} have no {form} table: export them as csv.")

    def realism(self, records: Iterable[Any], real: Iterable[Any], seed: int) -> dict[str, Any] | None:
        """How far records without texts are from real ones: ``rows`` of what, estimate, floor, sd, n, means, why."""
        return None

    def lessons(self, records: Iterable[Mapping[str, Any]], length: int, fewest: int) -> Any:
        """What the learner that `facets.worth` names takes of records: each cut to `length`, none under `fewest`."""
        raise NotImplementedError(f"{self.name} has no learner of its own")


@dataclass(frozen=True, slots=True)
class Example:
    """What a student is taught or asked: a prompt that is the same in training, examination and every later use."""

    id: str  # the record's
    group: str  # what must never be both taught and examined (its concept)
    language: str  # of question and answer
    system: str
    question: str
    answer: str  # the teacher's text, the one to learn
    facts: Mapping[str, Any] = field(default_factory=dict)  # what scoring needs to know besides


@dataclass(frozen=True, slots=True)
class Score:
    """How good one answer is."""

    total: float  # in [0, 1]; what comparisons go by
    valid: bool  # whether the answer meets the role's schema
    parts: Mapping[str, float]  # what the total is made of, each in [0, 1], and what is reported beside it
    problems: tuple[str, ...] = ()  # every fault found, one sentence each


class Role(Protocol):
    """What teaches a small model one task, and examines it. The domains of roles are this too."""

    name: str

    def example(self, record: Mapping[str, Any]) -> Example:
        """The question and answer that a record (as read from a dataset) teaches."""

    def score(self, text: str, example: Example) -> Score:
        """How good `text` is as an answer to `example`; never raises, whatever the text."""

    def answer_grammar(self) -> str | None:
        """The form of an answer as a Lark grammar for llguidance, None where there is none."""
