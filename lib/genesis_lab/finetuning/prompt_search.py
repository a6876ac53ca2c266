"""How far does prompting alone go? Instructions and demonstrations raced on the same questions, chosen on validation only.

Candidates race by successive halving (Jamieson and Talwalkar 2016): all answer a few questions, the better half answers
twice as many, and so on. The task's own prompt runs along to the end and is kept unless another is proven better on all
validation questions, by a test that is corrected for all that were tried: the same questions chose who came so far, so
each of them had its chance. Test questions are asked once, after that. How often a prompt is replaced where none is
better, and how often a better one is found: ``benchmarks/prompt_race.py``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, Rejected
from genesis_lab.files import named, shown, write_atomically
from genesis_lab.finetuning.answers import Answers, Asking, Call, ask
from genesis_lab.finetuning.prompt_candidates import Candidate, candidates, instructions
from genesis_lab.finetuning.prompts import Demonstration, PromptProgram
from genesis_lab.providers.base import request_key
from genesis_lab.stats import Interval, Paired

SEARCH, PROMPT = "search.json", "prompt.json"


class SearchConfig(BaseModel):
    """How a prompt is searched for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field("prompt", description="name of the prompt: its folder under outputs/prompts")
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
class Rung:
    """One round: how every candidate still in the race did on the same `items` questions, and who goes on."""

    items: int
    scores: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    """To the task's own prompt, on the questions that both answered."""
    kept: tuple[str, ...]


@dataclass(frozen=True)
class SearchReport:
    """A search from beginning to end.

    Parameters
    ----------
    winner : the best of the race.
    chosen : the best of the last round among those proven better than ``default``, or ``default`` where none is.
    compared : each prompt of the last round less ``default`` over all validation questions; p-values times the number of
        prompts that were tried (Bonferroni).
    test : the scores of ``default`` and of the chosen prompt on the test questions, and their difference.
    calls : questions put to the model; `proposer_calls` those to the teacher that proposed instructions.
    busy_s : seconds that asking took; `cost_usd` is None where a price is not known.
    looks : how often these test questions have been asked under this name.
    """

    model: str
    task: str
    config: SearchConfig
    candidates: tuple[Candidate, ...]
    rungs: tuple[Rung, ...]
    winner: str
    chosen: str
    compared: Mapping[str, Paired]
    test: Mapping[str, Interval]
    calls: int
    proposer_calls: int
    prompt_tokens: int | None
    completion_tokens: int | None
    busy_s: float
    cost_usd: float | None
    looks: int
    settings: str
    notes: tuple[str, ...] = ()
    folder: str = ""

    @property
    def program(self) -> PromptProgram:
        """The prompt to use from now on."""
        return next(each.program for each in self.candidates if each.name == self.chosen)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields: the whole trace."""
        told = asdict(self) | {"config": self.config.model_dump()}
        told["candidates"] = [
            {"name": each.name, "origin": each.origin, "program": each.program.to_dict()} for each in self.candidates
        ]
        return told


def search_prompt(
    call: Call,
    examples: Mapping[str, Sequence[Example]],
    config: SearchConfig,
    *,
    role: Role,
    model: str,
    proposer: Call | None = None,
    proposed_by: str = "",
    more: Sequence[Candidate] = (),
    concurrency: int = 8,
    folder: Path | None = None,
    on_progress: Callable[[Asking], None] | None = None,
) -> SearchReport:
    """Search, or go on with a search that was stopped, or read one that is finished.

    Parameters
    ----------
    call : asks the model whose prompt it is; `model` names it as precisely as is known (`providers.identity`).
    examples : by split; ``train`` gives demonstrations, ``validation`` chooses, ``test`` is asked once.
    proposer : asks a teacher for instructions; None takes those in ``prompts.yaml``.
    proposed_by : what that teacher is, like `model`.
    more : further candidates, for example a program that dspy found.
    folder : where everything is kept; None is the one that ``config.prompt`` names, see `files.named`.

    Raises
    ------
    InvalidInput : a split is missing or too small, the task has no grammar, or the folder holds another search.
    ProviderError : the model can't be asked.
    """
    folder = folder or named("prompts", config.prompt)
    validation = _items(examples, "validation", config.validation_items, config.seed)
    test = _items(examples, "test", config.test_items, config.seed)
    train = list(examples.get("train", ()))
    _check(train, validation, test, config)
    settings = request_key(
        "2", model, role.name, config.model_dump(exclude={"prompt", "replace"}), [each.program.to_dict() for each in more],
        [(e.id, e.system, e.question, e.answer) for e in (*train, *validation, *test)],
        proposed_by or proposer is not None,
    )  # fmt: skip
    finished, looks = _finished(folder, settings, config)
    if finished:
        return finished

    asking = _Asking(call, role, model, config, concurrency, folder / f"answers-{settings[:8]}.jsonl", on_progress)
    notes: list[str] = []
    proposals = folder / f"proposals-{settings[:8]}.json"
    found, proposer_calls = instructions(
        proposer, train, config.instructions, kept=proposals, notes=notes, seed=config.seed
    )
    asking.total = planned_calls(config, config.candidates)
    pool = _demonstrations(asking, role, train, config, notes)
    race = candidates(
        found, pool, more, most=config.candidates, sets=config.demonstration_sets, shown=config.demonstrations,
        seed=config.seed,
    )  # fmt: skip
    rungs, compared = race_prompts(
        {each.name: partial(asking.ask, each.program) for each in race}, validation,
        first_rung=config.first_rung, notes=notes,
    )  # fmt: skip
    by_name, winner = {each.name: each for each in race}, rungs[-1].kept[0]
    default, chosen = race[0], by_name[proven_best(compared) or "default"]
    looked = {each.name: asking.ask(each.program, test) for each in (default, chosen)}
    asking.finished()
    result = {name: answers.score for name, answers in looked.items()}
    if chosen is not default:
        result["difference"] = looked[chosen.name].against(looked["default"]).difference
    report = SearchReport(
        model=model, task=role.name, config=config, candidates=tuple(race), rungs=tuple(rungs),
        winner=winner, chosen=chosen.name, compared=compared, test=result, proposer_calls=proposer_calls,
        looks=looks + 1, settings=settings, notes=tuple(notes), folder=shown(folder), **asking.spent(),
    )  # fmt: skip
    write_atomically(folder / SEARCH, json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n")
    kept = report.program
    PromptProgram(kept.instruction, kept.demonstrations, kept.translations, SEARCH).save(folder / PROMPT)
    return report


def load_search(prompt: str | Path) -> dict[str, Any]:
    """The trace of a finished search as it is in its file, by name or folder."""
    folder = named("prompts", prompt)
    file = folder / SEARCH
    if not file.is_file():
        raise InvalidInput(f"There is no finished search in {shown(folder)}: run notebook 51 to its end.")
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


class _Asking:
    """Asks the model for one candidate after another, and keeps count."""

    def __init__(
        self, call: Call, role: Role, model: str, config: SearchConfig, concurrency: int, file: Path,
        on_progress: Callable[[Asking], None] | None,
    ) -> None:  # fmt: skip
        self.call, self.role, self.model, self.config, self.file = call, role, model, config, file
        self.concurrency, self.on_progress = concurrency, on_progress
        self.done = self.total = 0
        self.asked: set[tuple[int, str]] = set()
        self.standing: Asking | None = None

    def ask(self, program: PromptProgram, items: Sequence[Example]) -> Answers:
        known = sum((id(program), item.id) in self.asked for item in items)

        def tell(standing: Asking) -> None:
            if self.on_progress:
                done = self.done + standing.done - known
                left = self.total - done
                eta_s = left / standing.rate if standing.rate else None
                self.standing = replace(standing, done=done, total=self.total, eta_s=eta_s)
                self.on_progress(self.standing)

        answers = ask(
            self.call, items, role=self.role, model=self.model, runs=1, temperature=0.0, program=program,
            max_tokens=self.config.max_tokens, grammar=self.config.grammar, concurrency=self.concurrency,
            path=self.file, seed=self.config.seed, on_progress=tell,
        )  # fmt: skip
        self.done += len(items) - known
        self.asked |= {(id(program), item.id) for item in items}
        return answers

    def finished(self) -> None:
        """Nothing more is asked, though a longer race was planned for."""
        if self.on_progress and self.standing:
            self.on_progress(replace(self.standing, total=self.standing.done, eta_s=None))

    def spent(self) -> dict[str, Any]:
        """Calls, tokens, seconds and cost of the whole search, over all its sessions."""
        entries = [
            json.loads(line) for line in self.file.read_text(encoding="utf-8").splitlines() if line.endswith("}")
        ]
        asked = list({entry["key"]: entry for entry in entries if "key" in entry}.values())
        each = {name: [entry[name] for entry in asked] for name in ("prompt_tokens", "completion_tokens", "cost_usd")}
        return {
            "calls": len(asked),
            "busy_s": sum(entry.get("busy_s", 0.0) for entry in entries),
            **{name: None if None in values else sum(values) for name, values in each.items()},
        }


def race_prompts(
    prompts: Mapping[str, Callable[[Sequence[Example]], Answers]],
    items: Sequence[Example],
    *,
    first_rung: int = 8,
    notes: list[str] | None = None,
) -> tuple[list[Rung], dict[str, Paired]]:
    """The rounds, and each finalist less ``default``; the first of the last `kept` has won.

    Parameters
    ----------
    prompts : by name, what asks with it; the first is ``default``, the task's own.
    items : the questions, asked in this order.
    notes : gets a sentence about a prompt with which the model refuses every question: it is out.
    """
    names, n = list(prompts), first_rung
    default, alive, rungs = names[0], names, list[Rung]()
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
        rungs.append(
            Rung(
                items=n,
                scores=scores,
                differences={name: each.difference for name, each in compared.items()},
                kept=tuple(kept),
            )
        )
        if last:
            tried = len(names) - 1
            return rungs, {name: each.corrected(min(1.0, each.p * tried)) for name, each in compared.items()}
        alive, n = kept, len(items) if len(kept) == 1 else n * 2


def proven_best(compared: Mapping[str, Paired]) -> str | None:
    """The prompt that is best of those proven better than the task's own; None where none is."""
    proven = [name for name, found in compared.items() if found.verdict.startswith("better")]
    return max(proven, key=lambda name: compared[name].difference.estimate, default=None)


def planned_calls(config: SearchConfig, candidates: int) -> int:
    """Most questions that a search puts to the model, before anything runs."""
    asked, alive, n, before = config.own_answers, candidates, config.first_rung, 0
    while True:
        n = min(n, config.validation_items)
        asked += (alive + (before > 0)) * (n - before)
        if n == config.validation_items:
            return asked + 2 * config.test_items
        alive, before = math.ceil(alive / 2), n
        n = config.validation_items if alive == 1 else n * 2


def _items(examples: Mapping[str, Sequence[Example]], split: str, most: int, seed: int) -> list[Example]:
    found = list(examples.get(split, ()))
    order = np.random.default_rng(seed).permutation(len(found))[:most]
    return [found[i] for i in order]


def _check(train: list[Example], validation: list[Example], test: list[Example], config: SearchConfig) -> None:
    for name, found, least in (("train", train, 1), ("validation", validation, 4), ("test", test, 4)):
        if len(found) < least:
            raise InvalidInput(f"Split {name} has {len(found)} examples, a prompt search needs at least {least}.")
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        groups = {
            name: {e.group for e in found}
            for name, found in (("train", train), ("validation", validation), ("test", test))
        }
        if both := groups[a] & groups[b]:
            raise InvalidInput(
                f"{len(both)} groups stand in both {a} and {b} ({min(both)}, …): split the dataset by group first."
            )
    if config.first_rung > len(validation):
        raise InvalidInput(
            f"first_rung must be at most the {len(validation)} validation questions, got {config.first_rung}."
        )


def _finished(folder: Path, settings: str, config: SearchConfig) -> tuple[SearchReport | None, int]:
    """The search that is in `folder`, where it is this one; and how often the test questions were looked at before."""
    if not (folder / SEARCH).is_file():
        return None, 0
    found = load_search(folder)
    if found["settings"] == settings and not config.replace:
        return TypeAdapter(SearchReport).validate_python(found), found["looks"]
    if not config.replace:
        raise InvalidInput(f"{shown(folder)} holds another search: choose another name for the prompt, or set replace.")
    return None, int(found["looks"])


def _demonstrations(
    asking: _Asking, role: Role, train: Sequence[Example], config: SearchConfig, notes: list[str]
) -> list[Demonstration]:
    """Solved questions that score at least `min_score`: the teacher's, and the model's own where they are asked for."""
    if not config.demonstrations:
        return []
    good = [e for e in train if role.score(e.answer, e).total >= config.min_score]
    pool = [Demonstration(e.question, e.answer, e.language) for e in good]
    notes.append(f"{len(good)} of {len(train)} training answers score {config.min_score:g} or more.")
    tried = list(train)[: config.own_answers]
    if tried:
        told = asking.ask(PromptProgram(), tried).frame.set_index("example")
        own = [
            Demonstration(e.question, told.loc[e.id, "text"], e.language)
            for e in tried
            if e.id in told.index and told.loc[e.id, "total"] >= config.min_score
        ]
        notes.append(f"{len(own)} of {len(tried)} of the model's own answers score as much.")
        pool += [each for each in own if each not in pool]
    return pool
