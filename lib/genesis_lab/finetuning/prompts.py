"""How far does prompting alone go?

Instructions and demonstrations race by successive halving (Jamieson and Talwalkar 2016), or dspy's MIPROv2 finds the
one candidate. The task's own prompt stays unless another is proven better on all validation questions, corrected for
all that were tried; test is asked once, after that. ``benchmarks/prompt_race.py``.
"""

from __future__ import annotations

import json
import logging
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from genesis_lab.domains.base import Example, Role
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, ParseFailure, Rejected
from genesis_lab.files import named, shown, write_atomically
from genesis_lab.finetuning.ask import Answers, Demonstration, OnAsking, PromptProgram, Sampling, ask, shifted, spent_on
from genesis_lab.finetuning.tasks import TEXTS
from genesis_lab.providers.asking import Asking, Call, ask_all
from genesis_lab.providers.base import Completion, Request, request_key
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.stats import Paired
from genesis_lab.texts import fence
from genesis_lab.training.examples import balanced_order
from genesis_lab.yamls import read_yaml

SEARCH, PROMPT = "search.json", "prompt.json"
_ROOM, _PROPOSAL = 64, 1024
"""Tokens: the least for an answer in dspy's own form, and for a proposed instruction."""
_NEEDED = 'pip install "genesis-lab[dspy]" (the race needs nothing more)'


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
        program, others, proposed = _optimised(
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


def _optimised(
    asked_of: tuple[str, Call],
    proposer: tuple[str, Call] | None,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    config: SearchConfig,
    role: Role,
    width: int,
    folder: Path,
    notes: list[str],
) -> tuple[PromptProgram | None, list[dict[str, Any]], int]:
    """What dspy's MIPROv2 light (Opsahl-Ong et al. 2024, arXiv:2406.11695) finds for a model, given by name and call.

    None where the calls did not suffice. Besides, what each answer of the model took (`spent_on`), and how many the
    `proposer` gave, from whom the instructions come, else from the model itself. What is asked past ``config.calls``
    comes back empty, so that a trial it cuts short loses. `folder` keeps the answers.
    """
    try:
        import dspy
        import optuna  # noqa: F401  # MIPROv2 imports it only after it has paid for demonstrations
    except ImportError:
        raise MissingDependency("dspy", "Optimizer miprov2", _NEEDED) from None
    if not hasattr(dspy, "BaseLM") or not hasattr(dspy, "MIPROv2"):
        raise MissingDependency("dspy below 3.5", "Optimizer miprov2", 'pip install "dspy<3.5"')
    cache, lock, failed = CompletionCache(folder / "answers.sqlite"), threading.Lock(), list[GenesisError]()
    asked: dict[str, dict[str, Any]] = {}

    def answered(who: str, call: Call, request: Request) -> Completion:
        nothing = Completion("", who)
        with lock:
            if failed or (request.key not in asked and len(asked) >= config.calls):
                return nothing
            asked.setdefault(request.key, {"who": who} | spent_on(request, nothing))
        try:
            found = ask_all(call, [request], cache).answers[0]
        except GenesisError as error:  # dspy would swallow it and ask on
            failed.append(error)
            return nothing
        if isinstance(found, Rejected):
            return nothing
        asked[request.key] |= spent_on(request, found)
        return found

    class Ours(dspy.BaseLM):  # type: ignore[misc]  # dspy comes without types
        def __init__(self, who: str, call: Call, least: int) -> None:
            self.call, self.room = call, max(least, config.max_tokens)
            super().__init__(who, max_tokens=self.room, temperature=0.0, cache=False)

        def forward(self, prompt: str | None = None, messages: Any = None, **options: Any) -> Any:
            told = list(messages or [{"role": "user", "content": prompt}])
            temperature = options.get("temperature", self.kwargs.get("temperature")) or 0.0
            request = Request(
                key=request_key(self.model, told, options.get("rollout_id"), temperature, self.room, config.seed),
                system="\n".join(m["content"] for m in told if m["role"] == "system"),
                messages=tuple((m["role"], m["content"]) for m in told if m["role"] != "system"),
                max_tokens=self.room,
                temperature=min(temperature, 1.0),
            )
            message = SimpleNamespace(content=answered(self.model, self.call, request).text, tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop")
            return SimpleNamespace(choices=[choice], usage={}, model=self.model)

    def shown(of: Sequence[Example]) -> list[Any]:
        return [dspy.Example(question=each.question, answer=each.answer).with_inputs("question") for each in of]

    by_question = {each.question: each for each in (*train, *validation)}

    def metric(gold: Any, guess: Any, trace: Any = None) -> float:
        return role.score(str(getattr(guess, "answer", "")).strip(), by_question[gold.question]).total

    task, writer = Ours(*asked_of, _ROOM), Ours(*(proposer or asked_of), _PROPOSAL)
    loud, best, most = logging.root.manager.disable, None, config.demonstrations
    logging.disable(logging.WARNING)
    try:
        with dspy.context(lm=task, max_errors=10**9, disable_history=True):
            limits = {"max_bootstrapped_demos": most, "max_labeled_demos": most, "max_errors": 10**9}
            models = {"prompt_model": writer, "task_model": task, "num_threads": width}
            search = dspy.MIPROv2(metric=metric, auto="light", seed=config.seed, **models, **limits)
            student = dspy.Predict(dspy.Signature("question -> answer", train[0].system))
            best = search.compile(student, trainset=shown(train), valset=shown(validation))
    except Exception as error:  # dspy raises what it likes
        if not failed and len(asked) < config.calls:
            failed.append(GenesisError(f"dspy's MIPROv2 gave up: {' '.join(str(error).split())[:300]}"))
    finally:
        logging.disable(loud)
        cache.close()
    if failed:
        raise failed[0]
    if len(asked) >= config.calls:
        left = "its best program until then runs along" if best else "before it had a program"
        notes.append(f"MIPROv2 was cut short after {config.calls:,} calls: {left}.")
    program = None
    if best:
        solved = [each for each in best.demos if each.get("question") in by_question and each.get("answer")]
        told = [Demonstration(e["question"], str(e["answer"]), by_question[e["question"]].language) for e in solved]
        program = PromptProgram(str(best.signature.instructions), tuple(told))
    rows = [row for row in asked.values() if row["who"] == asked_of[0]]
    return program, rows, len(asked) - len(rows)
