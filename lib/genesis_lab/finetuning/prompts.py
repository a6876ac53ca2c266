"""How far does prompting alone go? Instructions and demonstrations raced on the same questions, chosen on validation only.

Candidates race by successive halving (Jamieson and Talwalkar 2016): all answer a few questions, the better half answers
twice as many, and so on; or dspy's MIPROv2 (Opsahl-Ong et al. 2024) finds the one candidate. The task's own prompt runs
along to the end and is kept unless another is proven better on all validation questions, by a test that is corrected
for all that were tried: the same questions chose who came so far, so each of them had its chance. Test questions are
asked once, after that. How often a prompt is replaced where none is better, and how often a better one is found:
``benchmarks/prompt_race.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from genesis_lab.domains.base import Example, Role
from genesis_lab.domains.reading import read_json
from genesis_lab.errors import InvalidInput, ParseFailure, Rejected
from genesis_lab.files import named, shown, write_atomically
from genesis_lab.finetuning.ask import Answers, Demonstration, OnAsking, PromptProgram, Sampling, ask
from genesis_lab.finetuning.mipro import optimised
from genesis_lab.providers.asking import Asking, Call
from genesis_lab.providers.base import Request, request_key, total_cost
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
    own_answers: int = Field(
        0, ge=0, le=1000, description="training questions the model itself answers for more of them"
    )
    min_score: float = Field(0.8, ge=0, le=1, description="an answer must score so much to be shown as solved")
    candidates: int = Field(12, ge=2, le=500, description="most prompts in the race; pairs of the two above")
    first_rung: int = Field(
        8, ge=2, le=10_000, description="validation questions of the first round; doubled every round"
    )
    validation_items: int = Field(64, ge=4, le=100_000, description="validation questions of the last round")
    test_items: int = Field(100, ge=4, le=100_000, description="test questions, asked once at the end")
    grammar: bool = Field(
        False, description="hold answers to the task's form; the provider must be able to (local can)"
    )
    max_tokens: int = Field(512, ge=1, le=16_384, description="longest answer, tokens")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="same seed, same candidates and questions")
    replace: bool = Field(
        False, description="search anew in place of a search of that name; this is another look at test"
    )


@dataclass(frozen=True, slots=True)
class Candidate:
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
    """Search, or go on with a search that was stopped, or read one that is finished.

    Parameters
    ----------
    call : asks the model whose prompt it is; `model` names it as precisely as is known (`providers.identity`).
    examples : by split; ``train`` gives demonstrations, ``validation`` chooses, ``test`` is asked once.
    proposer : asks a teacher for instructions; None takes those in ``prompts.yaml`` (MIPROv2: asks the model itself).
    proposed_by : what that teacher is, like `model`.
    folder : where everything is kept; None is the one that ``config.prompt`` names, see `files.named`.

    Returns
    -------
    What ``search.json`` holds: ``candidates`` and ``rungs`` of the race; its ``winner``; ``chosen``, the best of the
    last round among those proven better than ``default``, or ``default``; each prompt of the last round ``compared``
    with ``default`` over all validation questions (p times the number of prompts tried, Bonferroni); on ``test`` the
    scores of ``default`` and of the chosen prompt, and their difference; ``calls`` to the model and ``proposer_calls``
    to a teacher, tokens, ``busy_s`` and ``cost_usd`` (None where a price is not known) over all sessions; and
    ``looks``, how often these test questions have been asked under this name.

    Raises
    ------
    InvalidInput : a split is missing or too small, the task has no grammar, or the folder holds another search.
    MissingDependency : dspy is not installed, and it is to optimise.
    ProviderError : the model can't be asked.
    """
    folder = folder or named("prompts", config.prompt)
    train = list(examples.get("train", ()))
    validation, test = (
        [found[i] for i in np.random.default_rng(config.seed).permutation(len(found))[:most]]
        for found, most in (
            (list(examples.get("validation", ())), config.validation_items),
            (list(examples.get("test", ())), config.test_items),
        )
    )
    _check(train, validation, test, config)
    settings = request_key(
        "3", model, role.name, config.model_dump(exclude={"prompt", "replace"}),
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
    standing: list[Asking] = []

    def answers_to(program: PromptProgram, items: Sequence[Example]) -> Answers:
        keys = {item.id: (program.system(item), program.messages(item)) for item in items}
        done = len(asked) - sum((id, told) in asked for id, told in keys.items())

        def tell(this: Asking) -> None:
            left = total - done - this.done
            standing[:] = [
                replace(this, done=done + this.done, total=total, eta_s=left / this.rate if this.rate else None)
            ]
            if on_progress:
                on_progress(standing[0])

        found = ask(
            call, items, role=role, model=model, sampling=sampling, constrained=config.grammar, program=program,
            folder=kept, on_progress=tell,
        )  # fmt: skip
        asked.update(((row["example"], keys[row["example"]]), row) for row in found.frame.to_dict("records"))
        busy[request_key(program.to_dict())] = found.busy_s
        return found

    default = Candidate("default", PromptProgram(), "the task's own prompt")
    mipro, proposer_calls = None, 0
    if config.optimizer == "miprov2":
        mipro = optimised(
            call, proposer, train, validation, role=role, model=model, proposed_by=proposed_by, calls=config.calls,
            demonstrations=config.demonstrations, max_tokens=config.max_tokens, concurrency=concurrency,
            seed=config.seed, folder=kept, notes=notes,
        )  # fmt: skip
        proposer_calls = mipro["proposer_calls"]
        race = [default]
        if program := mipro["program"]:
            solved = f"{len(program.demonstrations)} demonstrations"
            race.append(Candidate("miprov2", program, f"instruction: dspy's MIPROv2; {solved}"))
    else:
        found, proposer_calls = _instructions(proposer, train, config, folder / f"proposals-{settings[:8]}.json", notes)
        race = _candidates(found, _solved(role, train, config, notes, answers_to), config, default)
    rungs, compared = race_prompts(
        {each.name: partial(answers_to, each.program) for each in race}, validation,
        first_rung=len(validation) if mipro else config.first_rung, notes=notes,
    )  # fmt: skip
    by_name = {each.name: each for each in race}
    chosen = by_name[proven_best(compared) or "default"]
    looked = {each.name: answers_to(each.program, test) for each in (default, chosen)}
    if on_progress and standing:  # nothing more is asked, though a longer race was planned for
        on_progress(replace(standing[0], total=standing[0].done, eta_s=None))
    result = {name: answers.score.to_dict() for name, answers in looked.items()}
    if chosen is not default:
        result["difference"] = looked[chosen.name].against(looked["default"]).difference.to_dict()
    rows = [*asked.values(), *(mipro["rows"] if mipro else ())]
    spent = {
        name: total_cost(None if row[name] != row[name] else row[name] for row in rows)
        for name in ("cost_usd", "prompt_tokens", "completion_tokens")
    }
    spent |= {name: int(tokens) for name, tokens in spent.items() if tokens is not None and name != "cost_usd"}
    report = {
        "model": model, "task": role.name, "config": config.model_dump(),
        "candidates": [
            {"name": each.name, "origin": each.origin, "program": each.program.to_dict()} for each in race
        ],
        "rungs": rungs, "winner": rungs[-1]["kept"][0], "chosen": chosen.name,
        "compared": {name: asdict(each) | {"verdict": each.verdict} for name, each in compared.items()},
        "test": result, "calls": len(rows), "proposer_calls": proposer_calls, **spent,
        "busy_s": sum(busy.values()) + (mipro["busy_s"] if mipro else 0.0), "looks": looks + 1, "settings": settings,
        "notes": notes, "folder": shown(folder),
    }  # fmt: skip
    write_atomically(folder / SEARCH, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
    replace(chosen.program, trace=SEARCH).save(folder / PROMPT)
    return report


def race_prompts(
    prompts: Mapping[str, Callable[[Sequence[Example]], Answers]],
    items: Sequence[Example],
    *,
    first_rung: int = 8,
    notes: list[str] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Paired]]:
    """The rounds, and each finalist less ``default``.

    Parameters
    ----------
    prompts : by name, what asks with it; the first is ``default``, the task's own.
    items : the questions, asked in this order.
    notes : gets a sentence about a prompt with which the model refuses every question: it is out.

    Returns
    -------
    A row per round: so many ``items``, the ``scores`` and ``differences`` (to the task's own, on what both answered) of
    all still in the race, and who was ``kept``: the first of the last round has won. And the finalists' comparisons.
    """
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
    """The prompt that is best of those proven better than the task's own; None where none is."""
    proven = [name for name, found in compared.items() if found.verdict.startswith("better")]
    return max(proven, key=lambda name: compared[name].difference.estimate, default=None)


def planned_calls(config: SearchConfig, candidates: int | None = None) -> int:
    """Most questions that a search puts to the model, before anything runs."""
    if config.optimizer == "miprov2":
        return config.calls + 2 * (config.validation_items + config.test_items)
    asked, alive, n, before = config.own_answers, candidates or config.candidates, config.first_rung, 0
    while True:
        n = min(n, config.validation_items)
        asked += (alive + (before > 0)) * (n - before)
        if n == config.validation_items:
            return asked + 2 * config.test_items
        alive, before = math.ceil(alive / 2), n
        n = config.validation_items if alive == 1 else n * 2


def _check(train: list[Example], validation: list[Example], test: list[Example], config: SearchConfig) -> None:
    found = {"train": (train, 1), "validation": (validation, 4), "test": (test, 4)}
    for name, (split, least) in found.items():
        if len(split) < least:
            raise InvalidInput(f"Split {name} has {len(split)} examples, a prompt search needs at least {least}.")
    groups = {name: {example.group for example in split} for name, (split, _) in found.items()}
    for a, b in combinations(groups, 2):
        if both := groups[a] & groups[b]:
            raise InvalidInput(
                f"{len(both)} groups stand in both {a} and {b} ({min(both)}, …): split the dataset by group first."
            )
    if config.first_rung > len(validation):
        raise InvalidInput(
            f"first_rung must be at most the {len(validation)} validation questions, got {config.first_rung}."
        )


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


def _solved(
    role: Role,
    train: Sequence[Example],
    config: SearchConfig,
    notes: list[str],
    answers_to: Callable[[PromptProgram, Sequence[Example]], Answers],
) -> list[Demonstration]:
    """Solved questions that score at least `min_score`: the teacher's, and the model's own where they are asked for."""
    if not config.demonstrations:
        return []
    good = [e for e in train if role.score(e.answer, e).total >= config.min_score]
    pool = [Demonstration(e.question, e.answer, e.language) for e in good]
    notes.append(f"{len(good)} of {len(train)} training answers score {config.min_score:g} or more.")
    if tried := list(train)[: config.own_answers]:
        told = answers_to(PromptProgram(), tried).frame.set_index("example")
        told = told[told["total"] >= config.min_score]
        own = [Demonstration(e.question, told.loc[e.id, "text"], e.language) for e in tried if e.id in told.index]
        notes.append(f"{len(own)} of {len(tried)} of the model's own answers score as much.")
        pool += [each for each in own if each not in pool]
    return pool


def _candidates(
    found: Sequence[tuple[Mapping[str, str], str]],
    pool: Sequence[Demonstration],
    config: SearchConfig,
    default: Candidate,
) -> list[Candidate]:
    """The task's own prompt, then pairs of an instruction and a set of demonstrations, each of both in turn."""
    sets = [
        _draw(pool, config.demonstrations, np.random.default_rng([config.seed, i]))
        for i in range(config.demonstration_sets if pool else 0)
    ]
    drawn = [(), *sets]
    pairs = sorted(((i, j) for i in range(len(found)) for j in range(len(drawn))), key=lambda pair: (sum(pair), pair))
    race = [default]
    for i, j in pairs[1:]:
        own, origin = found[i]
        program = PromptProgram(translations=own, demonstrations=drawn[j])
        if len(race) < config.candidates and program not in [each.program for each in race]:
            solved = f"{len(drawn[j])} demonstrations" if j else "no demonstrations"
            race.append(Candidate(f"i{i}d{j}", program, f"instruction: {origin}; {solved}"))
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
) -> tuple[list[tuple[Mapping[str, str], str]], int]:
    """Instructions by language with where they come from, the task's own (empty) first; and the calls to the proposer.

    A teacher proposes once, and its proposals stay in the file `kept`; what is missing are templates.
    """
    systems: dict[str, str] = {}
    for example in train:
        if systems.setdefault(example.language, example.system) != example.system:
            raise InvalidInput("The task's own instruction differs between questions: there is nothing to search for.")
    told, n = read_yaml(Path(__file__).parent / "prompts.yaml"), config.instructions
    found: list[tuple[Mapping[str, str], str]] = [({}, "the task's own")]
    calls = int(proposer is not None and n > 1)
    if proposer and calls:
        if not kept.is_file():
            proposed = _proposed(proposer, told["proposer"], systems, train, n - 1, notes, config.seed)
            write_atomically(kept, json.dumps(proposed, ensure_ascii=False))
        found += [(each, "proposed by the teacher") for each in json.loads(kept.read_text(encoding="utf-8"))]
    first = {language: re.split(r"(?<=[.!?])\s", system.strip(), maxsplit=1)[0] for language, system in systems.items()}
    for i, template in enumerate(told["templates"]):
        own = {
            language: template[language].replace("{system}", system).replace("{first}", first[language])
            for language, system in systems.items()
            if language in template
        }
        found.append((own, f"template {i + 1}"))
    return found[:n], calls


def _proposed(
    proposer: Call, told: Mapping[str, str], systems: Mapping[str, str], train: Sequence[Example], n: int,
    notes: list[str], seed: int,
) -> list[Mapping[str, str]]:  # fmt: skip
    """What the teacher proposes, by language; nothing, with a note, where its answer can't be used."""
    solved = sorted(train, key=lambda example: len(example.answer))[:3]
    material = "".join(f"{e.question}{e.answer}" for e in solved)
    tag, reply = (fence(material, f"</{name}")[2:] for name in ("question", "answer"))
    examples = "\n".join(f"<{tag}>\n{e.question}\n</{tag}>\n<{reply}>\n{e.answer}\n</{reply}>" for e in solved)
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
        own = [{language: str(each[language]).strip() for language in systems if each.get(language)} for each in given]
        usable = [each for each in own if any(each.values())]
        if not usable:
            raise ValueError("it proposed none in the languages of the questions")
    except (Rejected, ParseFailure, ValueError) as error:
        notes.append(f"The teacher proposed no usable instruction ({str(error).rstrip('.')}): templates were taken.")
        return []
    return list(usable[:n])
