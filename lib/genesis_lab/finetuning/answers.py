"""Ask a model every held-out question, several times each, and score what it answers. What was asked is not asked again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, Rejected
from genesis_lab.files import write_error
from genesis_lab.finetuning.prompts import PromptProgram
from genesis_lab.providers.asking import in_threads
from genesis_lab.providers.base import Completion, Request, request_key
from genesis_lab.stats import Interval, Paired, mean_interval, paired, proportion_interval

if TYPE_CHECKING:
    import pandas as pd

Call = Callable[[Request], Completion]
"""Asks a model, however long its quota makes that wait: a provider's `complete`, or a teacher's `call`."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Where the asking stands; what a progress bar takes."""

    done: int
    total: int
    rejected: int
    rate: float
    eta_s: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Answers:
    """Every answer of one model, scored.

    Parameters
    ----------
    frame : one row per example and run: ``example``, ``group``, ``language``, ``run``, ``text``, ``total`` and
        ``valid`` and ``parts`` and ``problems`` (the score), ``prompt_tokens``, ``completion_tokens``, ``latency_s``,
        ``cost_usd``, ``stop_reason``. A question that the provider refused has no row.
    tokens_per_s : tokens written per second, all questions in flight together; None where the model counts none.
    unanswered : questions (times runs) that the provider refused.
    """

    frame: pd.DataFrame
    tokens_per_s: float | None
    unanswered: int = 0

    @property
    def score(self) -> Interval:
        """Mean score with Student's interval over the groups."""
        return mean_interval(self.by_group(self.frame["total"]))

    @property
    def busy_s(self) -> float | None:
        """Seconds that these answers took to write."""
        return int(self.frame["completion_tokens"].sum()) / self.tokens_per_s if self.tokens_per_s else None

    @property
    def cost_usd(self) -> float | None:
        """What the answers cost; None where a price is not known."""
        costs = self.frame["cost_usd"]
        return None if costs.isna().any() else float(costs.sum())

    @property
    def validity(self) -> Interval:
        """Share of valid answers with Wilson's interval; see `by_group` for what counts as one."""
        shares = self.by_group(self.frame["valid"].astype(float))
        low, high = proportion_interval(round(float(shares.sum())), len(shares))
        estimate = float(shares.mean())
        return Interval(estimate, min(low, estimate), max(high, estimate), len(shares))

    def parts(self) -> dict[str, float]:
        """Mean of each named part of the score."""
        import pandas as pd

        named = pd.DataFrame(self.frame["parts"].tolist(), index=self.frame.index)
        return {str(name): float(self.by_group(named[name]).mean()) for name in named}

    def against(self, other: Answers, column: str = "total", *, margin: float = 0.05) -> Paired:
        """These answers against another's to the same questions, group by group; what one of them left open is left out."""
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
    runs: int = 3,
    temperature: float | None = 0.7,
    max_tokens: int = 1024,
    grammar: bool = False,
    program: PromptProgram | None = None,
    concurrency: int = 8,
    path: Path | None = None,
    seed: int = 0,
    before: Callable[[], object] | None = None,
    on_progress: Callable[[Asking], None] | None = None,
) -> Answers:
    """Ask every example `runs` times, each with its own seed, and score the answers.

    Parameters
    ----------
    model : who answers, as precisely as it is known (see `providers.identity`); answers of another are never mixed in.
    temperature : None leaves the model's own; at 0 a model on this machine says the same in every run.
    max_tokens : an answer that is longer is cut off there, and scored as it is.
    grammar : hold the answers to the role's grammar; the provider must be one that enforces it.
    program : instruction and demonstrations to ask with; None asks as the examples are taught.
    concurrency : questions in flight; for a model on this machine at least its batch size.
    path : JSONL file that keeps the answers: a run that was stopped goes on, and one that ended is only read. An
        answer given to another prompt, model or sampling stays in the file and is not used.
    before : called once if there is anything to ask, outside what is timed; for example to load the model.

    Raises
    ------
    InvalidInput : there are no examples, or two with the same id, or the role has no grammar.
    ProviderError : no question can be answered; a single one that can't is left out and asked again next time.
    """
    import pandas as pd

    form = role.answer_grammar() if grammar else None
    if grammar and form is None:
        raise InvalidInput(f"Answers of role {role.name} can't be held to a form: it has no grammar.")
    if not examples or len({example.id for example in examples}) < len(examples):
        raise InvalidInput(
            f"Asking needs examples with ids of their own, got {len(examples)} with some missing or double."
        )
    program = program or PromptProgram()
    wanted = {
        (example.id, run): _request(example, run, program, model, temperature, max_tokens, form, seed)
        for run in range(runs)
        for example in examples
    }
    settings = request_key(model, role.name, temperature, max_tokens, form, program.to_dict())
    kept, written, busy_s = _read(path, settings)
    missing = [request for request in wanted.values() if request.key not in kept]
    if missing:
        if before:
            before()
        found, spent_s = _ask_all(call, missing, concurrency, path, len(wanted), settings, on_progress)
        kept, busy_s = kept | found, busy_s + spent_s
        written += _tokens(found)
    rows, refused = [], []
    for example in examples:
        for run in range(runs):
            answer = kept[wanted[example.id, run].key]
            if error := answer.get("error"):
                refused.append(error)
                continue
            score = role.score(answer["text"], example)
            problems = (answer["note"], *score.problems) if "note" in answer else score.problems
            rows.append(
                {"example": example.id, "group": example.group, "language": example.language, "run": run}
                | {name: answer[name] for name in _COLUMNS}
                | {"total": score.total, "valid": score.valid, "parts": dict(score.parts), "problems": problems}
            )
    if not rows:
        raise Rejected(f"{model} answered none of {len(refused):,} questions: {refused[0]}", model=model)
    return Answers(pd.DataFrame(rows), written / busy_s if written and busy_s else None, len(refused))


_COLUMNS = ("text", "prompt_tokens", "completion_tokens", "latency_s", "cost_usd", "stop_reason")


def _request(
    example: Example,
    run: int,
    program: PromptProgram,
    model: str,
    temperature: float | None,
    max_tokens: int,
    grammar: str | None,
    seed: int,
) -> Request:
    system, messages = program.system(example), program.messages(example)
    key = request_key(model, system, messages, temperature, max_tokens, grammar, seed, run, example.id)
    return Request(
        key=key,
        system=system,
        messages=messages,
        stable_messages=len(messages) - 1,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=int(request_key(seed, run, example.id)[:8], 16) >> 1,  # the same for every model: draws are paired too
        offline_text=example.answer,
        grammar=grammar,
    )


def _ask_all(
    call: Call,
    requests: Sequence[Request],
    concurrency: int,
    path: Path | None,
    total: int,
    settings: str,
    on_progress: Callable[[Asking], None] | None,
) -> tuple[dict[str, dict[str, Any]], float]:
    """Answers by key, and the seconds they took; each is in the file before the next is waited for."""
    found: dict[str, dict[str, Any]] = {}
    started = time.monotonic()
    before, rejected, cost = total - len(requests), 0, 0.0

    def answer(request: Request) -> dict[str, Any]:
        try:
            completion = call(request)
        except Rejected as error:
            return dict.fromkeys(_COLUMNS) | {"text": "", "completion_tokens": 0, "error": str(error)}
        used = asdict(completion.usage) if completion.usage else dict.fromkeys(_COLUMNS)
        facts = used | asdict(completion)
        return {name: facts[name] for name in (*_COLUMNS, *(["note"] if completion.note else []))}

    try:
        for number, entry in in_threads(answer, requests, concurrency):
            found[requests[number].key] = entry
            rejected += "error" in entry
            cost += entry["cost_usd"] or 0.0
            if "error" not in entry:
                _append(path, {"key": requests[number].key, **entry})
            if on_progress:
                spent_s = time.monotonic() - started
                rate = len(found) / spent_s if spent_s else 0.0
                left = (len(requests) - len(found)) / rate if rate else None
                on_progress(Asking(before + len(found), total, rejected, rate, left, cost or None))
    finally:
        spent_s = time.monotonic() - started
        if found:
            _append(path, {"settings": settings, "busy_s": spent_s, "tokens": _tokens(found)})
    return found, spent_s


def _tokens(answers: Mapping[str, Mapping[str, Any]]) -> int:
    return sum(answer["completion_tokens"] or 0 for answer in answers.values())


def _read(path: Path | None, settings: str) -> tuple[dict[str, dict[str, Any]], int, float]:
    """What a file keeps: the answers by key; the tokens written with these `settings`, and the seconds that took."""
    answers: dict[str, dict[str, Any]] = {}
    tokens, busy_s = 0, 0.0
    for line in path.read_text(encoding="utf-8").splitlines() if path and path.exists() else ():
        try:
            entry = json.loads(line)
        except ValueError:  # cut off when a run was killed; its question is asked again
            continue
        if "key" in entry:
            answers[entry["key"]] = entry
        elif entry["settings"] == settings:
            tokens, busy_s = tokens + entry["tokens"], busy_s + entry["busy_s"]
    return answers, tokens, busy_s


def _append(path: Path | None, entry: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="ascii") as file:
            file.write(f"\n{json.dumps(entry)}\n")  # on a line of its own, whatever a run that was killed left
    except OSError as error:
        raise write_error(error, path) from None
