"""Domain ``conversations``: how a plan becomes prompts, and an answer a record."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from genesis_lab.domains.base import Answer, Check, Domain, Facets, Prompt, Provenance, Spec, Target
from genesis_lab.domains.conversations import openings as o
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.checks import checks
from genesis_lab.domains.conversations.foreign import ChatReader, turns_as_text
from genesis_lab.domains.conversations.grammar import Grammar
from genesis_lab.domains.conversations.options import ConversationsConfig, make_specs, planned_shares
from genesis_lab.domains.conversations.prompt import chat_prompt, closest, list_prompt, list_schema, schema
from genesis_lab.domains.conversations.taxonomy import LANGUAGES, Taxonomy, load_taxonomy
from genesis_lab.domains.language import detect
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.texts import same_words, unaccented
from genesis_lab.yamls import file_digests, shipped

_TURNS: TypeAdapter[list[r.Turn]] = TypeAdapter(r.Turns)
_JSON = json.JSONEncoder(ensure_ascii=False)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_LABELS = tuple(name for name in r.Conversation.model_fields if name not in ("turns", "provenance"))
_ENOUGH_SEEDS = 100
"""Seeds from which their own manner is taken; fewer say too little about lengths."""
_ARC_OF = {"positive": "stable_positive", "neutral": "stable_neutral", "negative": "stable_frustrated"}
_DRAWS = 6
_CHARACTERS = 6
"""Of a word, with the blank and what JSON adds."""


class Conversations(Domain):
    """The `Domain` of customer-service conversations, and of utterances that open them."""

    name = "conversations"
    facets = Facets(**shipped(Path(__file__).with_name("facets.yaml")), text=r.opening_sql())
    record_type = r.Conversation
    config_type = ConversationsConfig
    prompt_version = "2"

    config: ConversationsConfig

    def __init__(self, config: ConversationsConfig | None = None) -> None:
        super().__init__(config)
        self.facets = replace(self.facets, unit=self.config.records)
        self._opened: dict[tuple[str, str], list[str]] = {}

    def checks(self) -> list[Check]:
        """What may be wrong with a conversation."""
        return checks(self.taxonomy)

    @cached_property
    def taxonomy(self) -> Taxonomy:
        chosen = load_taxonomy(self.config.taxonomy)
        return chosen.select(categories=self.config.categories, intents=self.config.intents)

    def knowledge(self) -> dict[str, str]:
        """Digests of the taxonomy, the real messages, the prompts and the offline grammar's words."""
        real = {"seeds": self.config.seeds, "like": self.config.like}
        told = {"taxonomy": self.taxonomy.digest()}
        told |= {name: o.file_digest(source) for name, source in real.items() if source}
        here = Path(__file__).parent
        return told | file_digests(*here.glob("*.yaml"), here.parent / "function_words.yaml")

    def reader(self, field_map: Mapping[str, str], taxonomy: Taxonomy | str | Path | None = None) -> ChatReader:
        """Chats by role, labelled sentences, dialogues as text; `taxonomy` None: Banking77, but others are welcome."""
        return ChatReader(tuple(self.record_type.model_fields), field_map, taxonomy)

    def cells(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """The turns as lines of text."""
        turns = record["turns"]
        readable = turns is not None and all(isinstance(turn, dict) for turn in turns)
        return dict(record) | ({"turns": turns_as_text(turns)} if readable else {})

    @cached_property
    def seeds(self) -> o.Seeds | None:
        """The real messages that show manner and borderlines."""
        return o.read_seeds(self.config.seeds, load_taxonomy(self.config.taxonomy)) if self.config.seeds else None

    @cached_property
    def manner(self) -> dict[str, Any]:
        """How openings are written: as the messages of `like`, else the seeds if they are many, else short chats'."""
        if self.config.like:
            return o.manner_of(o.read_seeds(self.config.like, self.taxonomy, labelled=False).rows["text"])
        enough = self.seeds is not None and len(self.seeds.rows) >= _ENOUGH_SEEDS
        return o.manner_of(self.seeds.rows["text"]) if self.seeds and enough else o.default_manner()

    @cached_property
    def _shares(self) -> list[Target]:
        return planned_shares(self.config, self.taxonomy, self.manner)

    def targets(self) -> Sequence[Target]:
        """Shares of intent, category, language and sentiment; of conversations, complexity and ending besides."""
        kept = [target for target in self._shares if target.name in self.facets.attributes]
        if not self.config.cells:
            return kept
        planned = [spec.attributes for spec in self.specs(self.config.total, self.config.seed)]
        counts = {target.name: Counter(str(one.get(target.name)) for one in planned) for target in kept}
        counts["category"] = Counter(self.taxonomy.category_of[one["intent"]] for one in planned)
        return tuple(Target(name, {v: n / len(planned) for v, n in c.items()}) for name, c in counts.items())

    def specs(self, total: int, seed: int) -> Sequence[Spec]:
        """`total` specs whose counts meet every target by largest remainder, spread evenly over each other."""
        return make_specs(self.config, self.taxonomy, self._shares, total, seed)

    # Openings, which a model is asked for in lists

    @property
    def list_size(self) -> int:
        return self.config.list_size if self.config.records == "utterances" else 1

    def list_key(self, spec: Spec) -> str:
        """Intent, language and what it is told apart from."""
        a = spec.attributes
        return "/".join(filter(None, (a["language"], a["intent"], a.get("against"))))

    def list_prompt(self, specs: Sequence[Spec], known: Sequence[Answer]) -> Prompt:
        a = specs[0].attributes
        intent, against = a["intent"], a.get("against")
        cells = [cell for cell in self.config.cells if against and (cell.intent, cell.against) == (intent, against)]
        texts = {name: self._shown(of, a["language"]) for name, of in (("seeds", intent), ("across", against)) if of}
        texts["contrast"] = [f"{text} → {meant}" for cell in cells for text, meant in cell.mixed.items()]
        texts["known"] = [answer["turns"][0]["text"] for answer in known]
        return list_prompt(specs, self.taxonomy, self._closest[a["language"]][intent], texts)

    def parse_list(self, text: str, specs: Sequence[Spec]) -> list[Answer | str]:
        """The messages of a list in the order of `specs`; further ones stand in for those that won't do."""
        sent = o.messages_in(text, list_schema(len(specs)))
        spare = iter(sent[len(specs) :])
        found: list[Answer | str] = []
        for place, spec in enumerate(specs):
            answer = self._opening(sent[place] if place < len(sent) else "", spec)
            if isinstance(answer, str):
                others = (self._opening(further, spec) for further in spare)
                answer = next((other for other in others if not isinstance(other, str)), answer)
            found.append(answer)
        return found

    def _opening(self, text: str, spec: Spec) -> Answer | str:
        """A message as an utterance, or why it can't be one."""
        a = spec.attributes
        if reason := o.fault(text, spec):
            return reason
        if self.seeds is not None and self.seeds.copied(text, a["intent"]):
            return "it copies a seed"
        try:
            said = _TURNS.validate_python([{"speaker": "customer", "text": text.lower() if a["lower_case"] else text}])
        except ValidationError as error:
            return _reason(error.errors()[0])
        if _TAG.search(text):
            return "a turn holds HTML tags: write plain text"
        return {"turns": [turn.model_dump() for turn in said]}

    def _shown(self, intent: str, language: str) -> Sequence[str]:
        return self.seeds.shown(intent, language, self.config.seed) if self.seeds else ()

    @cached_property
    def _closest(self) -> dict[str, dict[str, list[str]]]:
        return {language: closest(self.taxonomy, language) for language in LANGUAGES}

    # Conversations, each begun by an opening

    def first_stage(self, dataset: str) -> dict[str, Any] | None:
        """One utterance for the opening of each conversation, unless there is a dataset of openings."""
        if self.config.records == "utterances" or self.config.openings:
            return None
        planned = (spec.attributes for spec in self.specs(self.config.total, self.config.seed))
        wanted = Counter((a["intent"], a["language"]) for a in planned)
        passed_on = self.config.model_dump(include={"taxonomy", "list_size", "seeds", "like", "seed"})
        cells = [{"n": n, "intent": intent, "language": language} for (intent, language), n in sorted(wanted.items())]
        return passed_on | {"dataset": f"{dataset}_openings", "records": "utterances", "cells": cells}

    @property
    def needs(self) -> str:
        """The dataset whose openings are continued."""
        return self.config.openings

    def feed(self, records: Iterable[Mapping[str, Any]], domain: str) -> None:
        """Take the openings that are to be continued."""
        if domain != self.name:
            raise InvalidInput(f"Openings are continued from records of {self.name}, got some of {domain}.")
        found = defaultdict(list)
        for record in records:
            said = (t["text"] for t in record["turns"] if r.role_of(t["speaker"]) == "customer")
            if text := next(said, None):
                found[record["intent"], record["language"]].append(text)
        self._opened = dict(found)

    def opening(self, spec: Spec) -> str:
        """What the conversation of `spec` opens with; where no openings were given, what the grammar would say."""
        a = spec.attributes
        opened = self._opened.get((a["intent"], a["language"]), [])
        if spec.ordinal < len(opened):
            return opened[spec.ordinal]
        if self._opened:
            held = f"There are {len(opened)} openings of {a['intent']} in {a['language']!r} to be continued"
            raise InvalidInput(f"{held}, one more is needed.")
        return self._grammar.opening(spec)

    def prompt(self, spec: Spec) -> Prompt:
        if self.config.records == "utterances":
            return self.list_prompt([spec], [])
        return chat_prompt(spec, self.opening(spec), self.taxonomy, self.config.tone, self.config.few_shot)

    def offline_text(self, spec: Spec, attempt: int) -> str:
        if self.config.records == "conversations":
            turns = self._grammar.turns(spec, attempt)
            if self._opened:
                turns[0]["text"] = self.opening(spec)  # beside a model, it too goes on from what was written before
            return _JSON.encode({"turns": turns})
        a = {"turns": 2, "resolution_status": "pending", "emotion_arc": _ARC_OF[spec.attributes["sentiment"]]}
        whole = replace(spec, attributes={**spec.attributes, **a})
        for further in range(_DRAWS):  # until it greets as planned
            turn = self._grammar.turns(whole, attempt + 97 * further)[0]
            if o.greets(turn["text"]) == spec.attributes["greeting"]:
                break
        return _JSON.encode({"turns": [turn]})

    def answer_characters(self, spec: Spec) -> int:
        if "words" in spec.attributes:
            return _CHARACTERS * int(spec.attributes["words"])
        return len(self.offline_text(spec, 0))

    @cached_property
    def _grammar(self) -> Grammar:
        return Grammar(self.taxonomy, tone=self.config.tone, seed=self.config.seed)

    def fingerprint(self, answer: Answer, spec: Spec) -> str:
        """The customer's opening words, without case, accents and punctuation."""
        return f"{spec.attributes['language']}/{spec.attributes['intent']}/{same_words(answer['turns'][0]['text'])}"

    def parse(self, text: str, spec: Spec) -> Answer:
        """The turns in a model's answer: JSON with ``turns``, which may leave out the opening that it was given.

        Raises
        ------
        ParseFailure : no JSON, wrong turns, wrong language …, with every reason found.
        """
        utterance = self.config.records == "utterances"
        if utterance and '"turns"' not in text:
            answer = self.parse_list(text, [spec])[0]
            if isinstance(answer, str):
                raise ParseFailure(answer)
            return answer
        sent = read_json(text, schema(spec.attributes.get("turns", 1)))["turns"]
        turns = [{"speaker": r.role_of(t["speaker"]) or t["speaker"], "text": t["text"]} for t in sent]
        if turns and turns[0]["speaker"] == "agent" and not utterance:  # it goes on from the opening in the prompt
            turns.insert(0, {"speaker": "customer", "text": self.opening(spec)})
        elif self._opened and (not turns or same_words(str(turns[0]["text"])) != same_words(self.opening(spec))):
            raise ParseFailure("the chat must go on from the customer's first message, with a turn of the agent")
        complexity = spec.attributes.get("complexity")
        if len(turns) not in (fitting := self.config.turn_choices(complexity)):
            span = f"a {complexity} conversation has {fitting[0]} to {fitting[-1]} turns"
            raise ParseFailure(f"{span if complexity else 'an utterance is one turn'}, got {len(turns)}")
        try:
            said = _TURNS.validate_python(turns)
        except ValidationError as error:
            raise ParseFailure(*(_reason(e) for e in error.errors()[:5])) from None
        if reasons := _content_problems(said, spec.attributes["language"]):
            raise ParseFailure(*reasons)
        lower = spec.attributes.get("lower_case", False)
        return {"turns": [{"speaker": t.speaker, "text": t.text.lower() if lower else t.text} for t in said]}

    def render(self, answer: Answer, spec: Spec, provenance: Provenance) -> r.Conversation:
        """The conversation of these turns; its labels are the spec's."""
        return r.Conversation(**self._row(answer, spec), provenance=provenance)

    def render_all(self, answered: Iterable[tuple[Answer, Spec, Provenance]]) -> Iterator[dict[str, Any]]:
        """As they are rendered, but not checked again: `parse` did, and it takes as long as all else."""
        return (self._row(answer, spec) | {"provenance": by.model_dump()} for answer, spec, by in answered)

    def _row(self, answer: Answer, spec: Spec) -> dict[str, Any]:
        a, turns = spec.attributes, answer["turns"]
        row = {name: a.get(name) for name in _LABELS}
        row["conversation_id"] = r.conversation_id(a["intent"], a["language"], turns, spec.seed)
        return row | {"category": self.taxonomy.category_of[a["intent"]], "turn_count": len(turns), "turns": turns}


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
