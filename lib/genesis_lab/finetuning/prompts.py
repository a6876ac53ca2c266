"""How far does prompting alone go? Instructions and demonstrations race by successive halving (Jamieson and Talwalkar
2016), or dspy's MIPROv2 finds the one candidate. The task's own prompt stays unless another is proven better on all
validation questions, corrected for all that were tried; test is asked once, after that. ``benchmarks/prompt_race.py``."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from genesis_lab.domains.base import Example, Role
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected
from genesis_lab.files import named, shown, write_atomically
from genesis_lab.finetuning.ask import Answers, Demonstration, OnAsking, PromptProgram, Sampling, ask, shifted
from genesis_lab.finetuning.mipro import optimised
from genesis_lab.finetuning.tasks import TEXTS
from genesis_lab.providers.asking import Asking, Call, ask_all
from genesis_lab.providers.base import Request, request_key, total_cost
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.stats import Paired
from genesis_lab.texts import fence
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
    call: Call, examples: Mapping[str, Sequence[Example]], config: SearchConfig, *, role: Role, model: str,
    proposer: Call | None = None, proposed_by: str = "", concurrency: int = 8, folder: Path | None = None,
    on_progress: OnAsking | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Search, or go on with a search that was stopped, or read one that is finished: what ``search.json`` holds.

    ``train`` gives demonstrations, ``validation`` chooses, ``test`` is asked once (``looks`` counts how often). `proposer`
    asks the teacher `proposed_by` for instructions; None takes those in ``prompts.yaml`` (MIPROv2: the model's own)."""
    folder = folder or named("prompts", config.prompt)
    train, validation, test = (list(examples.get(split, ())) for split in ("train", "validation", "test"))
    validation, test = (
        [found[i] for i in np.random.default_rng(config.seed).permutation(len(found))[:most]]
        for found, most in ((validation, config.validation_items), (test, config.test_items))
    )
    _check({"train": train, "validation": validation, "test": test}, config)
    settings = request_key(  # own_answers was an option once: searches from then are still read
        "3", model, role.name, config.model_dump(exclude={"prompt", "replace"}) | {"own_answers": 0},
        [(e.id, e.system, e.question, e.answer) for e in (*train, *validation, *test)],
        proposed_by or proposer is not None,
    )  # fmt: skip
    finished, looks = _finished(folder, settings, config)
    if finished:
        return finished

    kept, total, notes = folder / f"answers-{settings[:8]}", planned_calls(config), list[str]()
    sampling = Sampling(1, 0.0, config.max_tokens, max(1, concurrency // 2), config.seed)
    asked: dict[Any, Mapping[str, Any]] = {}
    busy: dict[str, float] = {}

    def answers_to(program: PromptProgram, items: Sequence[Example]) -> Answers:
        keys = {item.id: (item.id, program.system(item), program.messages(item)) for item in items}
        found = ask(
            call, items, role=role, model=model, sampling=sampling, constrained=config.grammar, program=program,
            folder=kept, on_progress=shifted(on_progress, len(asked.keys() - keys.values()), total),
        )  # fmt: skip
        asked.update((keys[row["example"]], row) for row in found.frame.to_dict("records"))
        busy[request_key(program.to_dict())] = found.busy_s
        return found

    default = Candidate("default", PromptProgram(), "the task's own prompt")
    mipro: dict[str, Any] = {"rows": [], "proposer_calls": 0, "busy_s": 0.0}
    race, first_rung = [default], config.first_rung
    if config.optimizer == "miprov2":
        mipro = optimised(
            call, proposer, train, validation, config=config, role=role, model=model, proposed_by=proposed_by,
            concurrency=concurrency, folder=kept, notes=notes,
        )  # fmt: skip
        first_rung = len(validation)
        if program := mipro["program"]:
            origin = f"instruction: dspy's MIPROv2; {len(program.demonstrations)} demonstrations"
            race.append(Candidate("miprov2", program, origin))
    else:
        good = [e for e in train if role.score(e.answer, e).total >= config.min_score]
        notes.append(f"{len(good)} of {len(train)} training answers score {config.min_score:g} or more.")
        told = _instructions(proposer, train, config, kept, notes)
        mipro["proposer_calls"] = int(proposer is not None and config.instructions > 1)
        race += _candidates(told, [Demonstration(e.question, e.answer, e.language) for e in good], config)
    prompts = {each.name: partial(answers_to, each.program) for each in race}
    rungs, compared = race_prompts(prompts, validation, first_rung=first_rung, notes=notes)
    chosen = next(each for each in race if each.name == (proven_best(compared) or "default"))
    looked = {each.name: answers_to(each.program, test) for each in (default, chosen)}
    if on_progress:  # nothing more is asked, though a longer race was planned for
        on_progress(Asking(len(asked), len(asked)))
    result = {name: answers.score.to_dict() for name, answers in looked.items()}
    if chosen is not default:
        result["difference"] = looked[chosen.name].against(looked["default"]).difference.to_dict()
    rows = [*asked.values(), *mipro["rows"]]
    spent = {
        name: total_cost(None if row[name] != row[name] else row[name] for row in rows)
        for name in ("cost_usd", "prompt_tokens", "completion_tokens")
    }
    spent |= {name: int(tokens) for name, tokens in spent.items() if tokens is not None and name != "cost_usd"}
    report = {
        "model": model, "task": role.name, "config": config.model_dump(),
        "candidates": [each._asdict() | {"program": each.program.to_dict()} for each in race],
        "rungs": rungs, "winner": rungs[-1]["kept"][0], "chosen": chosen.name,
        "compared": {name: asdict(each) | {"verdict": each.verdict} for name, each in compared.items()},
        "test": result, "calls": len(rows), "proposer_calls": mipro["proposer_calls"], **spent,
        "busy_s": sum(busy.values()) + mipro["busy_s"], "looks": looks + 1, "settings": settings,
        "notes": notes, "folder": shown(folder),
    }  # fmt: skip
    write_atomically(folder / SEARCH, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    replace(chosen.program, trace=SEARCH).save(folder / PROMPT)
    return report


def race_prompts(
    prompts: Mapping[str, Callable[[Sequence[Example]], Answers]], items: Sequence[Example], *, first_rung: int = 8,
    notes: list[str] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Paired]]:  # fmt: skip
    """The rounds, and each finalist less ``default``, the first of `prompts`, with p times the number that were tried.

    A round has so many ``items``, the ``scores`` and ``differences`` of all still in the race, and who was ``kept``: the
    first of the last round has won. A prompt with which the model refuses every question is out, as `notes` say."""
    names, n = list(prompts), first_rung
    default, alive, rungs = names[0], names, list[dict[str, Any]]()
    while True:
        n = min(n, len(items))
        answers: dict[str, Answers] = {}
        for name in dict.fromkeys([default, *alive]):
            try:
                answers[name] = prompts[name](items[:n])
            except Rejected as error:
                if name == default:
                    raise
                if notes is not None:
                    notes.append(f"Prompt {name} is out of the race: {error}")
        scores = {name: each.score for name, each in answers.items()}
        ranked = sorted(scores, key=lambda name: -scores[name].estimate)  # stable: at a tie, the earlier one
        last = n == len(items)
        kept = ranked[: 1 if last else math.ceil(len(alive) / 2)]
        compared = {name: each.against(answers[default]) for name, each in answers.items() if name != default}
        differences = {name: each.difference.to_dict() for name, each in compared.items()}
        told = {name: score.to_dict() for name, score in scores.items()}
        rungs.append({"items": n, "scores": told, "differences": differences, "kept": kept})
        if last:
            tried = len(names) - 1
            return rungs, {name: each.corrected(min(1.0, each.p * tried)) for name, each in compared.items()}
        alive, n = kept, len(items) if len(kept) == 1 else n * 2


def proven_best(compared: Mapping[str, Paired]) -> str | None:
    """The best prompt of those proven better than the task's own; None where none is."""
    proven = [name for name, found in compared.items() if found.verdict.startswith("better")]
    return max(proven, key=lambda name: compared[name].difference.estimate, default=None)


def planned_calls(config: SearchConfig, candidates: int | None = None) -> int:
    """Most questions that a search puts to the model, before anything runs."""
    if config.optimizer == "miprov2":
        return config.calls + 2 * (config.validation_items + config.test_items)
    asked, alive, n, before = 0, candidates or config.candidates, config.first_rung, 0
    while True:
        n = min(n, config.validation_items)
        asked += (alive + (before > 0)) * (n - before)
        if n == config.validation_items:
            return asked + 2 * config.test_items
        alive, before = math.ceil(alive / 2), n
        n = config.validation_items if alive == 1 else n * 2


def _check(splits: Mapping[str, list[Example]], config: SearchConfig) -> None:
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


def _finished(folder: Path, settings: str, config: SearchConfig) -> tuple[dict[str, Any] | None, int]:
    """The search that is in `folder`, where it is this one; and how often the test questions were looked at before."""
    if not (folder / SEARCH).is_file():
        return None, 0
    found = json.loads((folder / SEARCH).read_text(encoding="utf-8"))
    if config.replace:
        return None, int(found["looks"])
    if found["settings"] != settings:
        raise InvalidInput(f"{shown(folder)} holds another search: choose another name for the prompt, or set replace.")
    return found, found["looks"]


def _candidates(
    found: Sequence[tuple[Mapping[str, str], str]], pool: Sequence[Demonstration], config: SearchConfig
) -> list[Candidate]:
    """Pairs of an instruction and a set of demonstrations, each of both in turn; the first of both is the task's own."""
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
        times: Counter[str] = Counter()
        ranked = []
        for each in (pool[i] for i in rng.permutation(len(pool)) if pool[i].language == language):
            ranked.append((times[each.answer], each))
            times[each.answer] += 1
        drawn += [each for _, each in sorted(ranked, key=lambda pair: pair[0])[:n]]
    return tuple(drawn)


def _instructions(
    proposer: Call | None, train: Sequence[Example], config: SearchConfig, kept: Path, notes: list[str]
) -> list[tuple[Mapping[str, str], str]]:
    """Instructions by language with where they come from: the task's own (empty) first, then what a teacher proposes, once,
    then templates."""
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
        key=request_key("proposer", told, question, seed), system=told["system"], messages=(("user", question),),
        schema=told["schema"], schema_name="instructions", max_tokens=4096, temperature=0.7, seed=seed,
    )  # fmt: skip


def _usable(text: str, languages: Iterable[str]) -> list[dict[str, str]]:
    """The instructions in a teacher's answer; one language alone will do."""
    listed = {"instructions": {"type": "array", "items": {"type": "object"}}}
    given = read_json(text, {"type": "object", "properties": listed, "required": ["instructions"]})["instructions"]
    own = [{each: str(one[each]).strip() for each in languages if one.get(each)} for one in given]
    if not (usable := [each for each in own if any(each.values())]):
        raise ParseFailure("it proposed none in the languages of the questions")
    return usable
