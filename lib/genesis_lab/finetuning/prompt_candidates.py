"""Which prompts race: instructions (a teacher's or templates) times sets of demonstrations."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.base import Example
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected
from genesis_lab.files import write_atomically
from genesis_lab.finetuning.answers import Call
from genesis_lab.finetuning.prompts import Demonstration, PromptProgram
from genesis_lab.providers.base import Request, request_key
from genesis_lab.texts import fence
from genesis_lab.yamls import read_yaml

Instruction = tuple[Mapping[str, str], str]
"""An instruction by language, and where it comes from; empty is the task's own."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt in the race; `origin` says where instruction and demonstrations come from."""

    name: str
    program: PromptProgram
    origin: str


def instructions(
    proposer: Call | None, train: Sequence[Example], n: int, *, kept: Path, notes: list[str], seed: int
) -> tuple[list[Instruction], int]:
    """`n` instructions, the task's own first, and the calls to the proposer.

    Parameters
    ----------
    proposer : asks a teacher, once; its proposals stay in the file `kept`. None takes the templates in ``prompts.yaml``.
    notes : gets a sentence about what did not work.
    """
    systems: dict[str, str] = {}
    for example in train:
        if systems.setdefault(example.language, example.system) != example.system:
            raise InvalidInput("The task's own instruction differs between questions: there is nothing to search for.")
    found: list[Instruction] = [({}, "the task's own")]
    calls = 0
    if proposer and n > 1:
        calls = 1
        if not kept.is_file():
            write_atomically(
                kept, json.dumps(_proposed(proposer, systems, train, n - 1, notes, seed), ensure_ascii=False)
            )
        found += [(each, "proposed by the teacher") for each in json.loads(kept.read_text(encoding="utf-8"))]
    for i, template in enumerate(texts()["templates"]):
        own = {
            language: template[language].replace("{system}", system).replace("{first}", _first_sentence(system))
            for language, system in systems.items()
            if language in template
        }
        found.append((own, f"template {i + 1}"))
    return found[:n], calls


def candidates(
    found: Sequence[Instruction],
    pool: Sequence[Demonstration],
    more: Sequence[Candidate],
    *,
    most: int,
    sets: int,
    shown: int,
    seed: int,
) -> list[Candidate]:
    """At most `most` prompts: the task's own, `more`, then pairs of instruction and demonstrations, each of both in turn.

    Parameters
    ----------
    sets : how many sets of demonstrations to draw from `pool`; every second one has half the size.
    shown : demonstrations of each language in a set.
    """
    drawn: list[tuple[Demonstration, ...]] = [()]
    for i in range(sets if pool else 0):
        size = shown if i % 2 == 0 else max(1, shown // 2)
        drawn.append(_draw(pool, size, np.random.default_rng([seed, i])))
    pairs = sorted(((i, j) for i in range(len(found)) for j in range(len(drawn))), key=lambda pair: (sum(pair), pair))
    race = [Candidate("default", PromptProgram(), "the task's own prompt"), *more]
    for i, j in pairs[1:]:
        own, origin = found[i]
        program = PromptProgram(translations=own, demonstrations=drawn[j])
        if len(race) < most and program not in [each.program for each in race]:
            solved = f"{len(drawn[j])} demonstrations" if j else "no demonstrations"
            race.append(Candidate(f"i{i}d{j}", program, f"instruction: {origin}; {solved}"))
    return race


def _draw(pool: Sequence[Demonstration], n: int, rng: np.random.Generator) -> tuple[Demonstration, ...]:
    """`n` demonstrations of each language, with as many different answers as there are."""
    drawn: list[Demonstration] = []
    for language in dict.fromkeys(each.language for each in pool):
        own = [pool[i] for i in rng.permutation(len(pool)) if pool[i].language == language]
        times: Counter[str] = Counter()
        ranked = []
        for each in own:
            ranked.append((times[each.answer], each))
            times[each.answer] += 1
        ranked.sort(key=lambda pair: pair[0])
        drawn += [each for _, each in ranked[:n]]
    return tuple(drawn)


def _proposed(
    proposer: Call, systems: Mapping[str, str], train: Sequence[Example], n: int, notes: list[str], seed: int
) -> list[Mapping[str, str]]:
    """What the teacher proposes, by language; nothing, with a note, where its answer can't be used."""
    told = texts()["proposer"]
    solved = sorted(train, key=lambda example: len(example.answer))[:3]
    material = "".join(f"{e.question}{e.answer}" for e in solved)
    ask, reply = (fence(material, f"</{tag}")[2:] for tag in ("question", "answer"))
    examples = "\n".join(f"<{ask}>\n{e.question}\n</{ask}>\n<{reply}>\n{e.answer}\n</{reply}>" for e in solved)
    question = told["question"].format(system=next(iter(systems.values())), examples=examples, n=n)
    text = {"type": "string"}
    both = {"type": "object", "properties": {"en": text, "es": text}, "required": ["en", "es"]}
    several = {"instructions": {"type": "array", "items": both | {"additionalProperties": False}}}
    listed = {"type": "object", "properties": several, "required": list(several), "additionalProperties": False}
    request = Request(
        key=request_key("proposer", told, question, seed),
        system=told["system"],
        messages=(("user", question),),
        schema=listed,
        schema_name="instructions",
        max_tokens=4096,
        temperature=0.7,
        seed=seed,
    )
    try:
        some = {"instructions": {"type": "array", "items": {"type": "object"}}}  # one language alone will do
        given = read_json(proposer(request).text, listed | {"properties": some})["instructions"]
        own: list[Mapping[str, str]] = [
            {language: str(each[language]).strip() for language in systems if each.get(language)} for each in given
        ]
        usable = [each for each in own if any(each.values())]
        if not usable:
            raise ValueError("it proposed none in the languages of the questions")
    except (Rejected, ParseFailure, ValueError) as error:
        notes.append(f"The teacher proposed no usable instruction ({str(error).rstrip('.')}): templates were taken.")
        return []
    return list(usable[:n])


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


def texts() -> Mapping[str, Any]:
    """The texts in ``prompts.yaml``."""
    found: Mapping[str, Any] = read_yaml(Path(__file__).parent / "prompts.yaml")
    return found
