"""Ask a model every held-out question, several times each, and score the answers. What was asked is not asked again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, Rejected
from genesis_lab.files import resolve, shown, write_atomically
from genesis_lab.providers.asking import Asking, Call, ask_all
from genesis_lab.providers.base import Completion, Message, Request, request_key
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.stats import Interval, Paired, mean_interval, paired, proportion_interval

OnAsking = Callable[[Asking], object]


@checked(frozen=True)
class Demonstration:
    """A solved question; shown to examples of its language, or to all when that is empty."""

    question: str
    answer: str
    language: str = ""


@checked(frozen=True)
class PromptProgram:
    """How to ask one task: an instruction, translated where a language has its own, and demonstrations that come first.

    An empty instruction keeps the example's own.
    """

    instruction: str = ""
    demonstrations: tuple[Demonstration, ...] = ()
    translations: Mapping[str, str] = field(default_factory=dict)

    def system(self, example: Example) -> str:
        """The system text for `example`."""
        return self.translations.get(example.language) or self.instruction or example.system

    def messages(self, example: Example) -> tuple[Message, ...]:
        """The demonstrations, then `example`'s question; the question itself is never among its demonstrations."""
        solved: list[Message] = []
        for each in self.demonstrations:
            if each.language in ("", example.language) and each.question != example.question:
                solved += [("user", each.question), ("assistant", each.answer)]
        return (*solved, ("user", example.question))

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {"kind": "prompt_program", **TypeAdapter(PromptProgram).dump_python(self, mode="json")}

    def save(self, path: Path) -> None:
        """Write the program as JSON."""
        write_atomically(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")


def load_program(path: str | Path) -> PromptProgram:
    """Read what `PromptProgram.save` wrote, or ``prompt.json`` of a search's folder; `InvalidInput` if it is none."""
    file = resolve(path)
    file = file / "prompt.json" if file.is_dir() else file
    if not file.is_file():
        raise InvalidInput(f"There is no prompt {shown(file)}: write one by optimising a prompt.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.pop("kind") != "prompt_program" or "demonstrations" not in found:
            raise ValueError
        return TypeAdapter(PromptProgram).validate_python(found)
    except (ValueError, TypeError, AttributeError, LookupError, ValidationError):
        raise InvalidInput(
            f"{shown(file)} is no prompt: it must be a JSON file that PromptProgram.save wrote."
        ) from None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How questions are asked, the same for all who answer.

    `runs` times each, every run with its own seed; at the model's own temperature where it is None; answers are cut off
    (and scored as they are) at `max_tokens`; a local model answers `batch` at once.
    """

    runs: int = 3
    temperature: float | None = 0.7
    max_tokens: int = 512
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """Every answer of one model, scored: a row per example and run, none for the `unanswered`, which were refused."""

    frame: pd.DataFrame
    unanswered: int = 0

    @property
    def score(self) -> Interval:
        """Mean score with Student's interval over the groups."""
        return mean_interval(self.by_group(self.frame["total"]))

    @property
    def validity(self) -> Interval:
        """Share of valid answers with Wilson's interval; each group counts once."""
        shares = self.by_group(self.frame["valid"].astype(float))
        low, high = proportion_interval(round(float(shares.sum())), len(shares))
        estimate = float(shares.mean())
        return Interval(estimate, min(low, estimate), max(high, estimate), len(shares))

    def total(self, column: str) -> float | None:
        """The sum over all answers, for example of ``cost_usd``; None where one is not known."""
        found = float(self.frame[column].astype(float).sum(skipna=False))
        return None if math.isnan(found) else found

    @property
    def busy_s(self) -> float | None:
        """Seconds in which any of the answers was being written, in all sessions; None where that was not timed."""
        timed = self.frame.dropna(subset=["ended_s"]).astype({"ended_s": float, "latency_s": float})
        if timed.empty:
            return None
        starts = (timed["ended_s"] - timed["latency_s"]).to_numpy()
        order, ends = np.argsort(starts), timed["ended_s"].to_numpy()
        idle = (starts[order][1:] - np.maximum.accumulate(ends[order])[:-1]).clip(0).sum()
        return float(ends.max() - starts.min() - idle)

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens written in a second, with many questions in flight; None where either was not counted."""
        written, busy_s = self.total("completion_tokens"), self.busy_s
        return written / busy_s if written and busy_s else None

    def parts(self) -> dict[str, float]:
        """Mean of each named part of the score."""
        named = pd.DataFrame(self.frame["parts"].tolist(), index=self.frame.index)
        return {str(name): float(self.by_group(named[name]).mean()) for name in named}

    def against(self, other: Answers, column: str = "total", *, margin: float = 0.05) -> Paired:
        """These answers against another's to the same questions, group by group; what either left open is left out."""
        mine, theirs = (each.frame.groupby("example", sort=False)[column].mean() for each in (self, other))
        both = [example for example in mine.index if example in theirs.index]
        group = self.frame.groupby("example")["group"].first()
        return paired(mine[both], theirs[both], group[both].tolist(), margin=margin)

    def by_group(self, values: pd.Series[float]) -> pd.Series[float]:
        """Mean of `values` (one per row) for each group: runs are averaged, then the group's examples."""
        means = values.groupby([self.frame["group"], self.frame["example"]], sort=False).mean()
        return means.groupby(level=0, sort=False).mean()


def ask(
    call: Call,
    examples: Sequence[Example],
    *,
    role: Role,
    model: str,
    sampling: Sampling = Sampling(),
    constrained: bool = False,
    program: PromptProgram | None = None,
    folder: Path | None = None,
    before: Callable[[], object] | None = None,
    on_progress: OnAsking | None = None,
) -> Answers:
    """Ask every example, and score the answers; a question that is refused is left out, and asked again next time.

    `folder` keeps the answers by all that shaped them, `model` (see `providers.identity`) included: a run that was
    stopped goes on. `constrained` holds them to the role's grammar; `before` is called, untimed, if there is anything
    to ask.
    """
    form = role.answer_grammar() if constrained else None
    if constrained and form is None:
        raise InvalidInput(f"Answers of role {role.name} can't be held to a form: it has no grammar.")
    if not examples or len({example.id for example in examples}) < len(examples):
        raise InvalidInput(
            f"Asking needs examples with ids of their own, got {len(examples)} with some missing or double."
        )
    program = program or PromptProgram()
    wanted = [(example, run) for run in range(sampling.runs) for example in examples]
    requests = [_request(example, run, program, model, sampling, form) for example, run in wanted]
    with closing(CompletionCache(folder / "answers.sqlite")) if folder else nullcontext() as cache:
        width = 2 * sampling.batch if sampling.batch > 1 else 1
        answers = ask_all(call, requests, cache, on_progress, width=width, before=before).answers
    rows, refused = [], []
    for (example, run), request, answer in zip(wanted, requests, answers, strict=True):
        if isinstance(answer, Rejected):
            refused.append(answer)
            continue
        score = role.score(answer.text, example)
        problems = (*([answer.note] if answer.note else ()), *score.problems)
        row = spent_on(request, answer) | {"example": example.id, "group": example.group, "run": run}
        row |= {"text": answer.text, "total": score.total, "valid": score.valid}
        rows.append(row | {"parts": dict(score.parts), "problems": problems})
    if not rows:
        raise Rejected(f"{model} answered none of {len(refused):,} questions: {refused[0]}", model=model)
    return Answers(pd.DataFrame(rows), len(refused))


def spent_on(request: Request, answer: Completion) -> dict[str, Any]:
    """What an answer took, as `Answers` hold it."""
    usage, ended = answer.usage, answer.created_at
    return {
        "key": request.key,
        "prompt_tokens": usage and usage.prompt_tokens,
        "completion_tokens": usage and usage.completion_tokens,
        "latency_s": answer.latency_s,
        "ended_s": ended and ended.timestamp(),
        "cost_usd": answer.cost_usd,
        "stop_reason": answer.stop_reason,
    }


def shifted(on_progress: OnAsking | None, before: int, total: int) -> OnAsking | None:
    """Report one asking as part of `total` questions, of which so many were asked before."""

    def tell(this: Asking) -> None:
        if on_progress:
            done = before + this.done
            on_progress(replace(this, done=done, total=total, eta_s=(total - done) / this.rate if this.rate else None))

    return tell


def _request(
    example: Example, run: int, program: PromptProgram, model: str, sampling: Sampling, grammar: str | None
) -> Request:
    system, messages = program.system(example), program.messages(example)
    temperature, max_tokens, seed = sampling.temperature, sampling.max_tokens, sampling.seed
    return Request(
        key=request_key(model, system, messages, temperature, max_tokens, grammar, seed, run, example.id),
        system=system,
        messages=messages,
        stable_messages=len(messages) - 1,
        max_tokens=max_tokens,
        temperature=temperature,
        offline_text=example.answer,
        grammar=grammar,
        seed=int(request_key(seed, run, example.id)[:8], 16) >> 1,  # the same for every model: draws are paired too
    )
