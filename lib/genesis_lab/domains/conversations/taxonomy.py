"""Taxonomies: the intents of a field, and what is said about each. Banking77's ships; any YAML of the form will do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genesis_lab.errors import InvalidInput, instead, sentence
from genesis_lab.files import resolve
from genesis_lab.texts import same_words
from genesis_lab.yamls import read_yaml

LANGUAGES: tuple[Literal["en", "es"], ...] = ("en", "es")
BANKING77 = "banking77"

Text = Annotated[str, Field(min_length=1)]
Bilingual = Annotated[dict[Literal["en", "es"], Text], Field(min_length=2)]
Lines = dict[Literal["en", "es"], tuple[Text, ...]]
Pairs = dict[Literal["en", "es"], tuple[tuple[Text, Text], ...]]


class Intent(BaseModel):
    """An intent, and what is said about it. Patterns: ``[a|b]`` picks one, ``{slot}`` is filled from ``slots.yaml``."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    category: Text
    description: Bilingual
    examples: Lines = {}  # how customers open
    exchanges: Pairs = {}  # agent's clarifying question, customer's answer
    follow_ups: Pairs = {}  # customer's further question, agent's answer
    resolved: Lines = {}
    pending: Lines = {}
    escalated: Lines = {}


class Taxonomy(BaseModel):
    """The intents of a field, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Text
    title: Bilingual  # what the company does, as the prompt says it: "a neobank"
    source: str = ""
    intents: Annotated[tuple[Intent, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Taxonomy:
        seen: dict[str, str] = {}
        for intent in self.intents:
            words = same_words(intent.name) or intent.name
            if words in seen:
                raise ValueError(f"intents {seen[words]!r} and {intent.name!r} read alike: give one another name")
            seen[words] = intent.name
            if lacking := [language for language in LANGUAGES if not intent.examples.get(language)]:
                raise ValueError(f"intent {intent.name!r} has no examples in {lacking[0]!r}")
        return self

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(intent.name for intent in self.intents)

    @cached_property
    def category_of(self) -> dict[str, str]:
        """Intent name to category."""
        return {intent.name: intent.category for intent in self.intents}

    @cached_property
    def categories(self) -> dict[str, tuple[str, ...]]:
        """Category to its intents, both in order of appearance."""
        found = dict.fromkeys(self.category_of.values())
        return {one: tuple(name for name, category in self.category_of.items() if category == one) for one in found}

    def intent(self, name: str) -> Intent:
        """The intent of that name."""
        return self.intents[self.names.index(name)]

    def digest(self) -> str:
        """What changes whenever something in it does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]

    def select(self, *, categories: tuple[str, ...] = (), intents: tuple[str, ...] = ()) -> Taxonomy:
        """The taxonomy cut to these categories and these intents (both empty: all of it)."""
        for kind, given, known in (("category", categories, self.categories), ("intent", intents, self.names)):
            if unknown := [value for value in given if value not in known]:
                raise InvalidInput(f"Taxonomy {self.name!r} has no {kind} {unknown[0]!r}: {instead(unknown[0], known)}")
        if not categories and not intents:
            return self
        kept = tuple(i for i in self.intents if i.category in categories or i.name in intents)
        return Taxonomy(**{name: getattr(self, name) for name in Taxonomy.model_fields} | {"intents": kept})


def load_taxonomy(source: str | Path = BANKING77) -> Taxonomy:
    """The shipped taxonomy of that name (``banking77``), or the one in a YAML file (relative to the project).

    Raises
    ------
    InvalidInput : the file is missing, is no YAML, or lacks something; the message names the intent and field.
    """
    if str(source) == BANKING77:
        return _banking77()
    data = read_yaml(path := resolve(source))
    if not isinstance(data, Mapping):
        raise InvalidInput(f"{path.name} must hold a mapping with name, title and intents, got {type(data).__name__}.")
    try:
        return Taxonomy.model_validate(data)
    except ValidationError as error:
        raise InvalidInput(f"{path.name}: {_first_problem(error, data)}") from None


@cache
def _banking77() -> Taxonomy:
    """The shipped one; what is said about its intents is in one file per category."""
    files = {file.stem: read_yaml(file) for file in (Path(__file__).parent / BANKING77).glob("*.yaml")}
    data = files.pop("taxonomy")
    said = {name: one for category in files.values() for name, one in category.items()}
    return Taxonomy(**data | {"intents": [said[one["name"]] | one for one in data["intents"]]})


def _first_problem(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first fault in one sentence, its intent by name."""
    match error.errors()[0]["loc"]:
        case ("intents", int(number), *_) if isinstance(data["intents"][number], Mapping):
            name = data["intents"][number].get("name", number + 1)
            return sentence(error).replace(f"intents.{number + 1}", f"intent {name}", 1)
    return sentence(error)
