"""What the roles that answer in YAML have in common: options, plan, records, and how an answer is accepted."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from genesis_lab.domains import concepts
from genesis_lab.domains.base import Answer, Domain, Example, Facets, Prompt, Provenance, Score, Spec, Target
from genesis_lab.domains.concepts import Concept
from genesis_lab.domains.language import detect
from genesis_lab.domains.reading import Fault, Form, coverage, faults, mended, read_json, read_yaml, terms, texts
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.texts import indented, same_words
from genesis_lab.yamls import dump_yaml, file_digests, shipped

SCHEMA = {"no_object", "broken_yaml", "json_answer", "missing_block", "missing_field", "unknown_field", "date_object"}
SCHEMA |= {"not_text", "empty_list", "bad_id", "missing_priority", "bad_priority", "missing_status", "bad_status"}
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

    @field_validator("industries")
    @classmethod
    def _known(cls, chosen: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in chosen if name not in concepts.industries()]
        if unknown:
            raise ValueError(f"unknown industry {unknown[0]!r}, expected {', '.join(concepts.industries())}")
        return tuple(dict.fromkeys(chosen))

    @model_validator(mode="after")
    def _some_to_learn_from(self) -> RoleConfig:
        if (left := self.shares["train"]) < 0.1 - 1e-9:
            raise ValueError(f"validation_share and test_share leave {left:.0%} to learn from, at least 10% are needed")
        return self

    @property
    def shares(self) -> dict[str, float]:
        """Split to its share of the examples."""
        held = {"validation": self.validation_share, "test": self.test_share}
        return {"train": 1 - sum(held.values())} | held


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
    """The `Role` whose answers are YAML: form, prompts and words are files, each role adds how it reads and scores."""

    facets = Facets(**shipped(HERE / "roles.yaml"))
    record_type: ClassVar[type[BaseModel]] = RoleRecord
    config_type = RoleConfig
    config: RoleConfig

    @property
    def form(self) -> Form:
        """The form of an answer as JSON schema, which a teacher is held to."""
        return shipped(HERE / self.name / "form.yaml")  # type: ignore[no-any-return]

    def answer_grammar(self) -> str:
        """The form of a student's answer: block YAML with its fields in order and texts of bounded length."""
        return (HERE / self.name / "answer.lark").read_text(encoding="utf-8")

    def texts(self) -> Any:
        """The role's prompts per language."""
        return shipped(HERE / self.name / "prompt.yaml")

    def knowledge(self) -> dict[str, str]:
        return file_digests(*HERE.glob("*.yaml"), *(HERE / self.name).iterdir())

    @property
    def needs(self) -> str:
        return self.config.requirements

    def feed(self, records: Iterable[Mapping[str, Any]], domain: str) -> None:
        got = f"role {self.name} and a dataset of {domain}"
        raise InvalidInput(f"requirements: role vision answers examples of requirements, got {got}.")

    def targets(self) -> Sequence[Target]:
        """Shares of language, industry and emphasis."""
        shares = concepts.shares(self.config.english_share, self.config.industries)
        return [Target(name, share) for name, share in shares.items()]

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        """`total` specs with distinct concepts; ``split`` says where each belongs, group by group."""
        shares = concepts.shares(self.config.english_share, self.config.industries)
        return concepts.plan(total, seed, shares, self.config.shares)

    def concept(self, spec: Spec) -> Concept:
        """The concept that `spec` asks about."""
        a = spec.attributes
        return concepts.concept(a["group"], a["region"], a["emphasis"], a["language"], spec.seed)

    def draft(self, spec: Spec) -> dict[str, Any]:
        """The record of `spec` as far as it is known without an answer."""
        names = ("language", "group", "industry", "region", "emphasis")
        return {"concept": self.concept(spec).text} | {name: spec.attributes[name] for name in names}

    def prompt(self, spec: Spec) -> Prompt:
        """What a teacher is asked: the role, a worked example, then the concept; it answers in JSON."""
        words, most = self.texts()[spec.attributes["language"]], self.config.max_items
        span = words["span"]["fixed" if most == FEWEST else "free"].format(most=most)
        worked = json.dumps(words["worked"]["answer"], ensure_ascii=False)
        asked = words["task"].format(question=self.question(self.draft(spec), words), span=span)
        return Prompt(
            system=words["teacher"].format(span=span),
            messages=(("user", self.question(words["worked"], words)), ("assistant", worked), ("user", asked)),
            schema=self.form,
            schema_name=self.name,
            stable=2,
        )

    def question(self, record: Mapping[str, Any], words: Mapping[str, Any]) -> str:
        """What teacher and student are asked about a record."""
        return str(words["question"]).format(concept=indented(record.get("concept") or ""))

    def answer_characters(self, spec: Spec) -> int:
        """That of the worked example, longer where lists are."""
        worked = json.dumps(self.texts()[spec.attributes["language"]]["worked"]["answer"], ensure_ascii=False)
        return len(worked) * (FEWEST + self.config.max_items) // (2 * FEWEST)

    def parse(self, text: str, spec: Spec) -> Answer:
        """The answer in its one plain form; `ParseFailure` with every fault where it scores too low."""
        answer = self.mended(text)
        score, found = self.judged(answer, self.example(self.draft(spec)))
        rejected = [fault.message for fault in found if fault.kind in ("wrong_language", "broken_yaml")]
        if score.total < self.config.min_score:
            rejected = [f"score {score.total:.2f} is below {self.config.min_score:g}", *(rejected or score.problems)]
        if rejected:
            raise ParseFailure(*rejected, score=score.total)
        return {"answer": answer}

    def fingerprint(self, answer: Answer, spec: Spec) -> str:
        return same_words(answer["answer"])

    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> BaseModel:
        draft, said = self.draft(spec), answer["answer"]
        digest = hashlib.sha256(f"{self.name}\x1f{draft['concept']}\x1f{said}".encode("utf-8", "surrogatepass"))
        number = f"{self.name[:3]}_{digest.hexdigest()[:16]}"
        return self.record_type(record_id=number, **draft, answer=said, provenance=provenance)

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

    def facts(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """What scoring an answer needs to know besides."""
        return {"concept": str(record.get("concept") or "")}

    def read(self, text: str) -> tuple[dict[str, Any], list[Fault]]:
        """What a text says, and what is wrong with how it says it."""
        try:
            return read_json(text, self.form), [Fault("json_answer", "", "JSON where YAML is due")]
        except ParseFailure:
            return self.read_yaml(text)

    def read_yaml(self, text: str) -> tuple[dict[str, Any], list[Fault]]:
        """The same of an answer that is no JSON: one bare YAML document."""
        data, found = read_yaml(text, tuple(self.form["properties"]))
        fenced = [Fault("fenced", "", "the YAML stands in a code fence")] if "```" in text else []
        return data, found + fenced

    def written(self, data: Mapping[str, Any]) -> str:
        """An answer in its one plain form."""
        return dump_yaml(data)

    def mended(self, text: str) -> str:
        """The answer in its one plain form, all repaired that needs no judgement; as it is, if it says nothing."""
        data, _ = self.read(text)
        return self.written(mended(self.form, data)) if data else text.strip()

    def judged(self, text: str, example: Example) -> tuple[Score, list[Fault]]:
        """How good an answer is, and everything that is wrong with it, with its place."""
        data, found = self.read(text)
        found = [*found, *self.wrong(data, example)]
        if (reads := detect(" ".join(texts(self.form, data))[:2_000])) not in (None, example.language):
            said = f"the text must be in {example.language!r}, it reads as {reads!r}"
            found.append(Fault("wrong_language", "", said))
        total, parts = self.parts(data, found, example)
        wanted, entries = concepts.concept_terms(example.facts["concept"]), self.entries(data)
        speak = [bool(wanted & terms(one)) for one in entries]
        parts["content"] = coverage(wanted, " ".join(entries))
        parts["on_topic"] = float(np.mean(speak)) if speak else 0.0
        valid = bool(data) and not any(fault.kind in SCHEMA for fault in found)
        return Score(min(1.0, round(total, 12)), valid, parts, tuple(fault.message for fault in found)), found

    def wrong(self, data: Mapping[str, Any], example: Example) -> list[Fault]:
        """What is wrong with what an answer says."""
        return faults(self.form, data)

    def faults(self, text: str, example: Example) -> list[Fault]:
        """Everything that is wrong with an answer, with its place."""
        return self.judged(text, example)[1]

    def score(self, text: str, example: Example) -> Score:
        """How good an answer is; ``content`` and ``on_topic`` stand beside the total, not in it."""
        return self.judged(text, example)[0]

    @abstractmethod
    def parts(
        self, data: Mapping[str, Any], found: Sequence[Fault], example: Example
    ) -> tuple[float, dict[str, float]]:
        """The total of an answer and what it is made of, each in [0, 1]."""

    @abstractmethod
    def entries(self, data: Mapping[str, Any]) -> list[str]:
        """The entries of an answer that should each speak of the concept."""
