"""How far does prompting alone go?

Instructions and demonstrations race by successive halving (Jamieson and Talwalkar 2016), or dspy's MIPROv2 finds the
one candidate. The task's own prompt stays unless another is proven better on all validation questions, corrected for
all that were tried; test is asked once, after that. ``benchmarks/prompt_race.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from genesis_lab.domains.base import Example, Role
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected
from genesis_lab.files import named, shown, write_atomically
from genesis_lab.finetuning.ask import Answers, Demonstration, OnAsking, PromptProgram, Sampling, ask, shifted
from genesis_lab.finetuning.mipro import optimised
from genesis_lab.finetuning.tasks import TEXTS
from genesis_lab.providers.asking import Asking, Call, ask_all
from genesis_lab.providers.base import Request, request_key
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.stats import Paired
from genesis_lab.texts import fence
from genesis_lab.training.examples import balanced_order
from genesis_lab.yamls import read_yaml

SEARCH, PROMPT = "search.json", "prompt.json"


class SearchConfig(BaseModel):
    """How a prompt is searched for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field("prompt", description="name of the prompt: its folder under outputs/prompts")
    optimizer: Literal["race", "miprov2"] = Field(
        "race", description="race of candidates, or dspy's MIPROv2 light (pip install dspy) on the same questions"
    )
    calls: int = Field(400, ge=20, le=1_000_000, description="miprov2: most questions to the model while it optimises")
    instructions: int = Field(4, ge=1, le=50, description="instructions to try, the task's own among them")
    demonstrations: int = Field(4, ge=0, le=64, description="most solved examples shown before a question")
    demonstration_sets: int = Field(3, ge=0, le=50, description="different sets of solved examples to try")
    min_score: float = Field(0.8, ge=0, le=1, description="an answer must score so much to be shown as solved")
    candidates: int = Field(12, ge=2, le=500, description="most prompts in the race; pairs of the two above")
    first_rung: int = Field(8, ge=2, le=10_000, description="questions of the first round; doubled every round")
    validation_items: int = Field(64, ge=4, le=100_000, description="validation questions of the last round")
    test_items: int = Field(100, ge=4, le=100_000, description="test questions, asked once at the end")
    grammar: bool = Field(False, description="hold answers to the task's form; the provider must be able to")
    max_tokens: int = Field(512, ge=1, le=16_384, description="longest answer, tokens")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same candidates and questions")
    replace: bool = Field(False, description="search anew in place of that search: this is another look at test")


class Candidate(NamedTuple):
    """A prompt in the race; `origin` says where instruction and demonstrations come from."""

    name: str
    program: PromptProgram
    origin: str


def search_prompt(
    call: Call,
    examples: Mapping[str, Sequence[Example]],
    config: SearchConfig,
    *,
    role: Role,
    model: str,
    proposer: Call | None = None,
    proposed_by: str = "",
    concurrency: int = 8,
    folder: Path | None = None,
    on_progress: OnAsking | None = None,
) -> dict[str, Any]:
    """Search, or go on with a search that was stopped, or read one that is finished: what ``search.json`` holds.

    ``train`` gives demonstrations, ``validation`` chooses, ``test`` is asked once (``looks`` counts how often).
    `proposer` asks the teacher `proposed_by` for instructions; None takes those in ``prompts.yaml`` (MIPROv2: the
    model's own).
    """
    folder = folder or named("prompts", config.prompt)
    train, validation, test = splits = _questions(examples, config)
    asks = [(e.id, e.system, e.question, e.answer) for split in splits for e in split]
    shaping = config.model_dump(exclude={"prompt", "replace"})
    settings = request_key("4", model, role.name, shaping, asks, proposed_by or proposer is not None)
    before = json.loads((folder / SEARCH).read_text(encoding="utf-8")) if (folder / SEARCH).is_file() else {"looks": 0}
    if "settings" in before and not config.replace:
        if before["settings"] != settings:
            advice = "choose another name for the prompt, or set replace"
            raise InvalidInput(f"{shown(folder)} holds another search: {advice}.")
        return dict(before)
    kept, total, notes = folder / f"answers-{settings[:8]}", planned_calls(config), list[str]()
    sampling = Sampling(1, 0.0, config.max_tokens, max(1, concurrency // 2), config.seed)
    given: dict[tuple[str, str], Answers] = {}
    """By prompt and split, as far as they have been asked."""

    put = partial(ask, call, role=role, model=model, sampling=sampling, constrained=config.grammar, folder=kept)

    def answers_to(prompt: Candidate, split: str, items: Sequence[Example]) -> Answers:
        place = prompt.name, split
        done = sum(len(each.frame) for other, each in given.items() if other != place)
        given[place] = put(items, program=prompt.program, on_progress=shifted(on_progress, done, total))
        return given[place]

    default = Candidate("default", PromptProgram(), "the task's own prompt")
    first_rung, others = config.first_rung, list[dict[str, Any]]()
    if config.optimizer == "miprov2":
        writer = (proposed_by or "proposer", proposer) if proposer else None
        program, others, proposed = optimised(
            (model, call),
            writer,
            train,
            validation,
            config=config,
            role=role,
            width=concurrency,
            folder=kept,
            notes=notes,
        )
        first_rung = len(validation)
        origin = f"instruction: dspy's MIPROv2; {len(program.demonstrations) if program else 0} demonstrations"
        race = [default, *([Candidate("miprov2", program, origin)] if program else [])]
    else:
        good = [e for e in train if role.score(e.answer, e).total >= config.min_score]
        notes.append(f"{len(good)} of {len(train)} training answers score {config.min_score:g} or more.")
        told = _instructions(proposer, train, config, kept, notes)
        proposed = int(proposer is not None and config.instructions > 1)
        solved = [Demonstration(e.question, e.answer, e.language) for e in good]
        race = [default, *_candidates(told, solved, config)]
    prompts = {each.name: partial(answers_to, each, "validation") for each in race}
    rungs, compared = race_prompts(prompts, validation, first_rung=first_rung, notes=notes)
    chosen = next(each for each in race if each.name == (proven_best(compared) or "default"))
    looked = {each.name: answers_to(each, "test", test) for each in (default, chosen)}
    result = {name: answers.score.to_dict() for name, answers in looked.items()}
    if chosen is not default:
        result["difference"] = looked[chosen.name].against(looked["default"]).difference.to_dict()
    frames = [each.frame for each in given.values()]
    asked = Answers(pd.concat([*frames, pd.DataFrame(others)]).drop_duplicates("key"))
    calls, tokens = len(asked.frame), asked.total("prompt_tokens")
    if on_progress:  # nothing more is asked, though a longer race was planned for
        on_progress(Asking(calls, calls))
    report = {
        "model": model,
        "task": role.name,
        "config": config.model_dump(),
        "candidates": [each._asdict() | {"program": each.program.to_dict()} for each in race],
        "rungs": rungs,
        "winner": rungs[-1]["kept"][0],
        "chosen": chosen.name,
        "compared": {name: asdict(each) | {"verdict": each.verdict} for name, each in compared.items()},
        "test": result,
        "calls": calls,
        "proposer_calls": proposed,
        "cost_usd": asked.total("cost_usd"),
        "prompt_tokens": None if tokens is None else int(tokens),
        "busy_s": asked.busy_s or 0.0,
        "looks": before["looks"] + 1,
        "settings": settings,
        "notes": notes,
    }
    write_atomically(folder / SEARCH, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    chosen.program.save(folder / PROMPT)
    return report


def race_prompts(
    prompts: Mapping[str, Callable[[Sequence[Example]], Answers]],
    items: Sequence[Example],
    *,
    first_rung: int = 8,
    notes: list[str] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Paired]]:
    """The rounds, and each finalist less ``default``, the first of `prompts`, with p times the number that were tried.

    A round has so many ``items``, the ``scores`` and ``differences`` of all still in the race, and who was ``kept``:
    the first of the last round has won. A prompt with which the model refuses every question is out, as `notes` say.
    """
    default, *others = alive = list(prompts)
    rungs, compared = list[dict[str, Any]](), dict[str, Paired]()
    for n, most in _rounds(len(prompts), first_rung, len(items)):
        alive, answers = alive[:most], dict[str, Answers]()
        for name in dict.fromkeys([default, *alive]):
            try:
                answers[name] = prompts[name](items[:n])
            except Rejected as error:
                if name == default:
                    raise
                if notes is not None:
                    notes.append(f"Prompt {name} is out of the race: {error}")
        scores = {name: each.score for name, each in answers.items()}
        alive = sorted(scores, key=lambda name: -scores[name].estimate)  # stable: at a tie, the earlier one
        compared = {name: each.against(answers[default]) for name, each in answers.items() if name != default}
        differences = {name: each.difference.to_dict() for name, each in compared.items()}
        told = {name: score.to_dict() for name, score in scores.items()}
        kept = alive[: 1 if n == len(items) else math.ceil(most / 2)]
        rungs.append({"items": n, "scores": told, "differences": differences, "kept": kept})
    return rungs, {name: each.corrected(min(1.0, each.p * len(others))) for name, each in compared.items()}


def _rounds(prompts: int, first_rung: int, items: int) -> Iterator[tuple[int, int]]:
    """Questions of each round, and prompts in it: the better half is asked twice as many, the last one all."""
    n = min(first_rung, items)
    while n < items:
        yield n, prompts
        prompts = math.ceil(prompts / 2)
        n = items if prompts == 1 else min(2 * n, items)
    yield items, prompts


def proven_best(compared: Mapping[str, Paired]) -> str | None:
    """The best prompt of those proven better than the task's own; None where none is."""
    proven = [name for name, found in compared.items() if found.verdict.startswith("better")]
    return max(proven, key=lambda name: compared[name].difference.estimate, default=None)


def planned_calls(config: SearchConfig, candidates: int | None = None) -> int:
    """Most questions that a search puts to the model, before anything runs."""
    if config.optimizer == "miprov2":
        return config.calls + 2 * (config.validation_items + config.test_items)
    asked, before = 2 * config.test_items, 0
    for n, alive in _rounds(candidates or config.candidates, config.first_rung, config.validation_items):
        asked += (alive + (before > 0)) * (n - before)
        before = n
    return asked


def _questions(examples: Mapping[str, Sequence[Example]], config: SearchConfig) -> list[list[Example]]:
    """Those of train, validation and test that are used, drawn at random; `InvalidInput` where they can't be."""
    splits = {name: list(examples.get(name, ())) for name in ("train", "validation", "test")}
    for name, most in (("validation", config.validation_items), ("test", config.test_items)):
        order = np.random.default_rng(config.seed).permutation(len(splits[name]))
        splits[name] = [splits[name][i] for i in order[:most]]
    for name, split in splits.items():
        if len(split) < (least := 1 if name == "train" else 4):
            raise InvalidInput(f"Split {name} has {len(split)} examples, a prompt search needs at least {least}.")
    for a, b in combinations(splits, 2):
        if both := {example.group for example in splits[a]} & {example.group for example in splits[b]}:
            raise InvalidInput(
                f"{len(both)} groups stand in both {a} and {b} ({min(both)}, …): split the dataset by group first."
            )
    if config.first_rung > (most := len(splits["validation"])):
        raise InvalidInput(f"first_rung must be at most the {most} validation questions, got {config.first_rung}.")
    return list(splits.values())


def _candidates(
    found: Sequence[tuple[Mapping[str, str], str]], pool: Sequence[Demonstration], config: SearchConfig
) -> list[Candidate]:
    """Pairs of an instruction and a set of demonstrations, each of both in turn; the first are the task's own."""
    sets = config.demonstration_sets if pool and config.demonstrations else 0
    rngs = (np.random.default_rng([config.seed, i]) for i in range(sets))
    drawn = [(), *(_draw(pool, config.demonstrations, rng) for rng in rngs)]
    pairs = sorted(((i, j) for i in range(len(found)) for j in range(len(drawn))), key=lambda pair: (sum(pair), pair))
    race: list[Candidate] = []
    for i, j in pairs[1:]:
        program = PromptProgram(translations=found[i][0], demonstrations=drawn[j])
        if len(race) + 1 < config.candidates and program not in [PromptProgram(), *(each.program for each in race)]:
            origin = f"instruction: {found[i][1]}; {len(drawn[j]) or 'no'} demonstrations"
            race.append(Candidate(f"i{i}d{j}", program, origin))
    return race


def _draw(pool: Sequence[Demonstration], n: int, rng: np.random.Generator) -> tuple[Demonstration, ...]:
    """`n` demonstrations of each language, with as many different answers as there are."""
    drawn: list[Demonstration] = []
    for language in dict.fromkeys(each.language for each in pool):
        own = [each for each in pool if each.language == language]
        drawn += [own[i] for i in balanced_order([each.answer for each in own], rng)[:n]]
    return tuple(drawn)


def _instructions(
    proposer: Call | None, train: Sequence[Example], config: SearchConfig, kept: Path, notes: list[str]
) -> list[tuple[Mapping[str, str], str]]:
    """Instructions by language and where they come from: the task's own (empty), then a teacher's, then templates."""
    systems: dict[str, str] = {}
    for example in train:
        if systems.setdefault(example.language, example.system) != example.system:
            raise InvalidInput("The task's own instruction differs between questions: there is nothing to search for.")
    told, n = read_yaml(TEXTS), config.instructions
    found: list[tuple[Mapping[str, str], str]] = [({}, "the task's own")]
    if proposer and n > 1:
        request = _request(told["proposer"], next(iter(systems.values())), train, n - 1, config.seed)
        try:
            with closing(CompletionCache(kept / "answers.sqlite")) as cache:
                answer = ask_all(proposer, [request], cache).answers[0]
            if isinstance(answer, Rejected):
                raise answer
            usable = _usable(answer.text, systems)[: n - 1]
            found += [(each, "proposed by the teacher") for each in usable]
        except (Rejected, ParseFailure) as error:
            why = str(error).rstrip(".")
            notes.append(f"The teacher proposed no usable instruction ({why}): templates were taken.")
    for i, template in enumerate(told["templates"], start=1):
        own = {}
        for language, system in systems.items():
            if language in template:
                first = re.split(r"(?<=[.!?])\s", system.strip(), maxsplit=1)[0]
                own[language] = template[language].replace("{system}", system).replace("{first}", first)
        found.append((own, f"template {i}"))
    return found[:n]


def _request(told: Mapping[str, Any], system: str, train: Sequence[Example], n: int, seed: int) -> Request:
    """What asks a teacher for `n` instructions, with three solved questions that can't end their own tags."""
    solved = sorted(train, key=lambda example: len(example.answer))[:3]
    material = "".join(f"{e.question}{e.answer}" for e in solved)
    tag, reply = (fence(material, f"</{name}")[2:] for name in ("question", "answer"))
    examples = "\n".join(f"<{tag}>\n{e.question}\n</{tag}>\n<{reply}>\n{e.answer}\n</{reply}>" for e in solved)
    question = told["question"].format(system=system, examples=examples, n=n)
    return Request(
        key=request_key("proposer", told, question, seed),
        system=told["system"],
        messages=(("user", question),),
        schema=told["schema"],
        schema_name="instructions",
        max_tokens=4096,
        temperature=0.7,
        seed=seed,
    )


def _usable(text: str, languages: Iterable[str]) -> list[dict[str, str]]:
    """The instructions in a teacher's answer; one language alone will do."""
    listed = {"instructions": {"type": "array", "items": {"type": "object"}}}
    given = read_json(text, {"type": "object", "properties": listed, "required": ["instructions"]})["instructions"]
    own = [{each: str(one[each]).strip() for each in languages if one.get(each)} for one in given]
    if not (usable := [each for each in own if any(each.values())]):
        raise ParseFailure("it proposed none in the languages of the questions")
    return usable
