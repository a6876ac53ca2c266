"""What the roles that answer in YAML have in common: options, plan, records, and how an answer is accepted."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genesis_lab.domains import concepts
from genesis_lab.domains.answers import coverage, language_faults, terms
from genesis_lab.domains.base import Answer, Domain, Example, Facets, Prompt, Provenance, Score, Spec, Target
from genesis_lab.domains.concepts import Concept
from genesis_lab.domains.form import Fault, Object
from genesis_lab.domains.language import detect
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.texts import indented, normal, same_words
from genesis_lab.yamls import dump_yaml, file_digests, shipped

SCHEMA = frozenset(
    (
        "no_object", "broken_yaml", "json_answer", "missing_block", "missing_field", "unknown_field", "date_object",
        "not_text", "empty_list", "bad_id", "missing_priority", "bad_priority", "bad_status",
    )
)  # fmt: skip
"""Kinds of faults with which an answer does not meet its role's schema."""


HERE = Path(__file__).parent
FEWEST = 2
"""Requirements in a list at least."""


class RoleConfig(BaseModel):
    """What a user can choose about the teacher data of a role."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total: int = Field(60, ge=10, le=100_000, description="teacher examples to generate")
    english_share: float = Field(0.5, ge=0, le=1, description="share in English; the rest is in Spanish")
    industries: tuple[str, ...] = Field((), description="industries of the concepts (none chosen: all)")
    max_items: int = Field(FEWEST, ge=FEWEST, le=6, description="most requirements in a list; the fewest is 2")
    min_score: float = Field(0.8, ge=0, le=1, description="answers that score below this are not accepted")
    validation_share: float = Field(0.15, ge=0, lt=1, description="share of examples for choosing (split validation)")
    test_share: float = Field(0.15, ge=0, lt=1, description="share of examples held out to the end (split test)")
    requirements: str = Field(
        "", description="role vision: dataset of requirements to answer; none: a grammar writes them"
    )
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same plan")

    @model_validator(mode="before")
    @classmethod
    def _one_normal_form(cls, given: Any) -> Any:
        return normal(given)

    @field_validator("industries")
    @classmethod
    def _known(cls, chosen: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in chosen if name not in concepts.industries()]
        if unknown:
            raise ValueError(f"unknown industry {unknown[0]!r}, expected {', '.join(concepts.industries())}")
        return tuple(dict.fromkeys(chosen))

    @model_validator(mode="after")
    def _some_to_learn_from(self) -> RoleConfig:
        if self.validation_share + self.test_share > 0.9:
            left = f"{1 - self.validation_share - self.test_share:.0%}"
            raise ValueError(f"validation_share and test_share leave {left} to learn from, at least 10% are needed")
        return self


class RoleRecord(BaseModel):
    """A concept and the teacher's answer to it."""

    model_config = ConfigDict(extra="forbid")

    record_id: str
    concept: str
    language: Literal["en", "es"]
    group: str
    industry: str
    region: str
    emphasis: str
    answer: str
    provenance: Provenance


class YamlRole(Domain):
    """The `Role` whose answers are YAML; each role adds its schema, texts and score."""

    facets = Facets(
        unit="examples",
        id="record_id",
        label=None,
        group="group",
        text=None,
        language="language",
        attributes=("language", "industry", "emphasis"),
        preview="dialogue",
        task_categories=("text-generation",),
        aliases={"concept": "prompt", "answer": "response"},
        dataset="teacher",
    )
    record_type: ClassVar[type[BaseModel]] = RoleRecord
    config_type = RoleConfig
    config: RoleConfig
    form: Object
    """The form of an answer."""

    def knowledge(self) -> dict[str, str]:
        """Digests of the role's prompts and words and of the concepts."""
        return file_digests(*HERE.glob("*.yaml"), *(HERE / self.name).glob("*.yaml"))

    @property
    def needs(self) -> str:
        return self.config.requirements

    def feed(self, records: Iterable[Mapping[str, Any]], domain: str) -> None:
        raise InvalidInput(
            f"requirements: role vision answers examples of requirements, got role {self.name} and a dataset of {domain}."
        )

    def targets(self) -> Sequence[Target]:
        """Shares of language, industry and emphasis."""
        c = self.config
        industries, emphases = c.industries or concepts.industries(), concepts.emphases()
        return (
            Target("language", {"en": c.english_share, "es": 1 - c.english_share}),
            Target("industry", dict.fromkeys(industries, 1 / len(industries))),
            Target("emphasis", dict.fromkeys(emphases, 1 / len(emphases))),
        )

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        """`total` specs with distinct concepts; ``split`` says where each belongs, group by group."""
        c = self.config
        train = 1 - c.validation_share - c.test_share
        splits = {"train": train, "validation": c.validation_share, "test": c.test_share}
        return concepts.plan(total, seed, english_share=c.english_share, chosen=c.industries, splits=splits)

    def concept(self, spec: Spec) -> Concept:
        """The concept that `spec` asks about."""
        a = spec.attributes
        return concepts.concept(a["group"], a["region"], a["emphasis"], a["language"], spec.seed)

    def draft(self, spec: Spec) -> dict[str, Any]:
        """The record of `spec` as far as it is known without an answer."""
        a = spec.attributes
        names = ("language", "group", "industry", "region", "emphasis")
        return {"concept": self.concept(spec).text} | {name: a[name] for name in names}

    def fingerprint(self, answer: Answer, spec: Spec) -> str:
        return same_words(answer["answer"])

    def parse(self, text: str, spec: Spec) -> Answer:
        """The answer in YAML or JSON whose score reaches `min_score`; kept in the one plain form.

        Raises
        ------
        ParseFailure : the answer is unreadable, in the wrong language, or scores too low, with every fault named.
        """
        draft = self.draft(spec)
        example = self.example(draft | {"record_id": "", "answer": ""})
        answer = self.tidied(text)
        faults = self.faults(answer, example)
        score = self.scored(self.read(answer)[0], faults, example)
        rejected = [f.message for f in faults if f.kind in ("wrong_language", "broken_yaml")]
        if score.total < self.config.min_score:
            rejected = [f"score {score.total:.2f} is below {self.config.min_score:g}", *(rejected or score.problems)]
        if rejected:
            raise ParseFailure(*rejected, score=score.total)
        return {"answer": answer}

    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> BaseModel:
        draft, said = self.draft(spec), answer["answer"]
        digest = hashlib.sha256(f"{self.name}\x1f{draft['concept']}\x1f{said}".encode("utf-8", "surrogatepass"))
        return self.record_type(
            record_id=f"{self.name[:3]}_{digest.hexdigest()[:16]}", **draft, answer=said, provenance=provenance
        )

    def example(self, record: Mapping[str, Any]) -> Example:
        """The student's question and the answer to learn; what foreign records lack is told from their text."""
        concept = str(record.get("concept") or "")
        language = record.get("language") or detect(concept) or "en"
        words = self.texts().get(language) or self.texts()["en"]
        return Example(
            id=str(record.get("record_id") or ""),
            group=str(record.get("group") or " ".join(sorted(concepts.concept_terms(concept)))),
            language=language,
            system=words["student"],
            question=self.question(record, words),
            answer=str(record.get("answer") or ""),
            facts=self.facts(record),
        )

    def question(self, record: Mapping[str, Any], words: Mapping[str, Any]) -> str:
        return str(words["question"]).format(concept=indented(record.get("concept") or ""))

    def facts(self, record: Mapping[str, Any]) -> dict[str, Any]:
        return {"concept": record.get("concept") or ""}

    def prompt(self, spec: Spec) -> Prompt:
        """What a teacher is asked: the role, a worked example, then the concept; it answers in JSON."""
        words = self.texts()[spec.attributes["language"]]
        worked = words["worked"]
        most = self.config.max_items
        span = words["span"]["fixed" if most == FEWEST else "free"].format(most=most)
        asked = words["task"].format(question=self.question(self.draft(spec), words), span=span)
        return Prompt(
            system=words["teacher"].format(span=span),
            messages=(
                ("user", self.question(worked, words)),
                ("assistant", json.dumps(worked["answer"], ensure_ascii=False)),
                ("user", asked),
            ),
            schema=self.schema(),
            schema_name=self.name,
            stable=2,
        )

    @abstractmethod
    def offline_text(self, spec: Spec, attempt: int) -> str:
        """What a grammar answers."""

    def answer_characters(self, spec: Spec) -> int:
        return len(self.offline_text(spec, 0))

    def schema(self) -> dict[str, Any]:
        """JSON schema of a teacher's answer."""
        return self.form.schema()

    def texts(self) -> Any:
        """The role's prompts per language."""
        return shipped(HERE / self.name / "prompt.yaml")

    def wording(self) -> Any:
        """What the offline teacher says, per language."""
        return shipped(HERE / self.name / "wording.yaml")

    def written(self, data: Mapping[str, Any]) -> str:
        """An answer in its one plain form."""
        return dump_yaml(data)

    def tidied(self, text: str) -> str:
        """The answer in the one plain form, if it can be read as what it must be; else as it is."""
        data = self.meant(text)
        if any(fault.kind in SCHEMA for fault in self.form.faults(data)):
            return text.strip()
        return self.written(self.form.arranged(data))

    def mended(self, text: str, example: Example) -> str:
        """The answer with everything repaired that needs no judgement: form, numbering, spelling of fixed words."""
        data = self.meant(text)
        return self.written(self.form.mended(data)) if isinstance(data, Mapping) else text

    def faults(self, text: str, example: Example) -> list[Fault]:
        """Everything that is wrong with an answer, with its place."""
        data, faults = self.read(text)
        texts = list(self.form.texts(data))
        return [*faults, *self.wrong(data, example), *language_faults(texts, example.language)]

    def score(self, text: str, example: Example) -> Score:
        return self.scored(self.read(text)[0], self.faults(text, example), example)

    @abstractmethod
    def read(self, text: str) -> tuple[Any, Sequence[Fault]]:
        """What a text says, and what is wrong with how it says it. Kept for the next call: not to be changed."""

    def meant(self, text: str) -> Any:
        """What a teacher's text says, in whatever way."""
        return self.read(text)[0]

    def wrong(self, data: Any, example: Example) -> list[Fault]:
        """What is wrong with what an answer says."""
        return self.form.faults(data)

    @abstractmethod
    def scored(self, data: Any, faults: Sequence[Fault], example: Example) -> Score:
        """How good an answer with these faults is."""

    def told(self, concept: str, said: Sequence[str], entries: Sequence[str]) -> dict[str, float]:
        """How much of the concept occurs in what is said, and the share of entries that speak of it."""
        wanted = concepts.concept_terms(concept)
        speak = [bool(wanted & terms(one)) for one in entries]
        return {"content": coverage(wanted, " ".join(said)), "on_topic": float(np.mean(speak)) if speak else 0.0}


def pen(
    concept: Concept, rng: np.random.Generator
) -> tuple[Callable[..., str], Callable[[Sequence[str], int], list[str]]]:
    """What the offline teacher writes with: a pattern filled with the concept's words, and some patterns of many."""

    def write(pattern: str, **more: Any) -> str:
        return concepts.filled(pattern, concept.words | _draws(rng) | more)

    def some(choices: Sequence[str], n: int) -> list[str]:
        return [choices[i] for i in rng.permutation(len(choices))[:n]]

    return write, some


def _draws(rng: np.random.Generator) -> dict[str, int]:
    """The numbers that offline texts hold."""
    return {
        "short": int(rng.integers(2, 10)),
        "few": int(rng.integers(2, 7)),
        "days": int(rng.choice([7, 10, 14, 21, 30, 45, 60])),
        "size": int(rng.choice([20, 50, 80, 100, 150, 200])),
        "cents": int(rng.integers(5, 61)),
        "percent": int(rng.integers(60, 96)),
        "small": int(rng.integers(5, 21)),
        "crowd": int(rng.choice([300, 500, 800, 1500, 3000, 5000, 12000])),
        "nines": int(rng.choice([5, 8, 9])),
        "months": int(rng.integers(3, 13)),
    }
