"""Models side by side on the same questions by the same metric, and which of them is good enough by a rule set beforehand."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, MissingDependency, Rejected, Unavailable
from genesis_lab.files import resolve, shown, write_atomically
from genesis_lab.finetuning.answers import Answers, Asking, Call, ask
from genesis_lab.finetuning.prompts import PromptProgram
from genesis_lab.providers import parse_spec
from genesis_lab.providers.base import Completion, Provider, Request
from genesis_lab.providers.identity import identity
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import peak_memory_bytes
from genesis_lab.stats import Interval, Paired, above, holm


class Connected(Protocol):
    """A model that is ready to be asked, for example a `generation.teachers.Teacher`."""

    @property
    def provider(self) -> Provider: ...
    @property
    def call(self) -> Call: ...
    def close(self) -> None: ...


Connect = Callable[[str], Connected]
"""From a provider spec such as ``ollama:llama3.1:8b`` to the model, for example `generation.teachers.connect`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to get answers.

    Parameters
    ----------
    name : what tables call it.
    model : provider spec.
    program : instruction and demonstrations to ask with; None asks as the examples are taught.
    constrained : its answers are held to the role's grammar, token by token.
    """

    name: str
    model: str
    program: PromptProgram | None = None
    constrained: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How every candidate is asked, the same for all.

    Parameters
    ----------
    runs : answers per question, each with its own seed.
    temperature : None leaves each model's own.
    max_tokens : an answer is cut off there, and scored as it is.
    batch : questions that a model on this machine answers at once, or that are in flight to a server.
    """

    runs: int = 3
    temperature: float | None = 0.7
    max_tokens: int = 512
    batch: int = 16
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Card:
    """What a candidate achieved. Intervals are over the examples' groups.

    Parameters
    ----------
    yardstick : it only repeats the teacher's own answers: what a perfect student would score, not a model to choose.
    parts : mean of each part of the score, and of what is reported beside it.
    run_sd : spread of one question's scores from run to run; None with one run.
    seconds_per_answer : asking divided by answers, many in flight at once; `latency_s` is what one of them waits.
    cut_off : share of answers that reached `max_tokens`; `unanswered` questions were refused and count nowhere else.
    memory_bytes : the model's weights, on a GPU the most that was used; None where it runs elsewhere.
    cost_usd : per 1,000 answers; None where the price is not known.
    """

    name: str
    model: str
    prompt: str
    constrained: bool
    yardstick: bool
    answers: int
    score: Interval
    validity: Interval
    parts: dict[str, float]
    run_sd: float | None
    tokens: float | None
    tokens_per_s: float | None
    seconds_per_answer: float | None
    latency_s: float | None
    load_s: float | None
    cut_off: float
    unanswered: int
    memory_bytes: int | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Every candidate's card, and the one that the rule picks. What could not be asked is in `not_measured`, with why.

    Parameters
    ----------
    compared : the model with the highest score less each other one on the same questions, p-values adjusted for all pairs of
        models (Holm).
    """

    examples: int
    groups: int
    sampling: Sampling
    threshold: float
    cards: tuple[Card, ...]
    not_measured: dict[str, str]
    compared: dict[str, Paired]

    @property
    def best(self) -> Card | None:
        """The model with the highest score; yardsticks don't count."""
        return next(iter(_ranked(self.cards)), None)

    @property
    def as_good(self) -> list[Card]:
        """The models that can't be told from the best."""
        return [
            card for card in self.cards if (d := self.compared.get(card.name)) and not d.verdict.startswith("better")
        ]

    @property
    def picked(self) -> Card | None:
        """Of the best and those as good: whose score is above the threshold beyond doubt, and of them the quickest.

        One whose speed is not known is picked where it is the only one.
        """
        enough = [c for c in (self.best, *self.as_good) if c and above(c.score, self.threshold)]
        return min(enough, key=lambda card: card.seconds_per_answer or math.inf, default=None)

    @property
    def verdict(self) -> str:
        """What the rule says, in one sentence."""
        best, asked = self.best, f"{self.threshold:.2f} was asked for"
        if best is None:
            return "No model could be asked."
        others = ", ".join(card.name for card in self.as_good)
        ranked = f"; the best, {best.name}, can't be told from {others}" if others else ""
        if picked := self.picked:
            speed = "" if picked.seconds_per_answer else ", speed not known"
            word = "and quickest" if others and picked.seconds_per_answer else "and best"
            return f"Good enough {word}: {picked.name} (score {picked.score}{speed}; {asked}){ranked}."
        if any(above(card.score, self.threshold) is None for card in (best, *self.as_good)):
            return f"Whether any is good enough can't be told: {best.name} scores {best.score}, {asked}{ranked}: ask more questions."
        return f"None is good enough: the best, {best.name}, scores {best.score}, and {asked}: optimise its prompt, or teach it."

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields, with the verdict."""
        picked, best = self.picked, self.best
        return asdict(self) | {
            "verdict": self.verdict,
            "picked": picked.name if picked else None,
            "best": best.name if best else None,
            "as_good": [card.name for card in self.as_good],
        }


def _ranked(cards: Iterable[Card]) -> list[Card]:
    return sorted((c for c in cards if not c.yardstick), key=lambda c: -c.score.estimate)


def benchmark(
    candidates: Sequence[Candidate],
    examples: Sequence[Example],
    *,
    role: Role,
    connect: Connect,
    folder: Path,
    threshold: float = 0.8,
    sampling: Sampling = Sampling(),
    on_progress: Callable[[Asking], None] | None = None,
) -> Benchmark:
    """Ask every candidate every question. One that can't be asked (not installed, not reachable) does not stop the rest.

    Parameters
    ----------
    threshold : the score from which a model is good enough; to be chosen before looking.

    Raises
    ------
    InvalidInput, ProviderError : see `examine`.
    """
    cards: dict[str, Card] = {}
    answers: dict[str, Answers] = {}
    not_measured: dict[str, str] = {}
    for i, candidate in enumerate(candidates):
        shifted = shift(on_progress, i, len(candidates))
        try:
            found = examine(
                [candidate], examples, role=role, connect=connect, folder=folder, sampling=sampling, on_progress=shifted
            )
        except (MissingDependency, Unavailable, Rejected) as error:
            not_measured[candidate.name] = str(error)
        else:
            (answers[candidate.name], cards[candidate.name]) = found[candidate.name]
    groups = len({example.group for example in examples})
    ranked = [card.name for card in _ranked(cards.values())]
    pairs = {(a, b): answers[a].against(answers[b]) for a, b in combinations(ranked, 2)}
    adjusted = holm([found.p for found in pairs.values()])  # which one is best was seen first: all pairs were tried
    compared = {b: d.corrected(p) for ((a, b), d), p in zip(pairs.items(), adjusted, strict=True) if a == ranked[0]}
    return Benchmark(len(examples), groups, sampling, threshold, tuple(cards.values()), not_measured, compared)


def examine(
    candidates: Sequence[Candidate],
    examples: Sequence[Example],
    *,
    role: Role,
    connect: Connect,
    folder: Path,
    sampling: Sampling = Sampling(),
    on_progress: Callable[[Asking], None] | None = None,
) -> dict[str, tuple[Answers, Card]]:
    """Every candidate's answers and card, by name. Each model is loaded once, and not at all when its answers are there.

    Parameters
    ----------
    folder : where answers are kept, a file per model; a stopped run goes on, also in another notebook.

    Raises
    ------
    InvalidInput : two candidates share a name, a constrained one runs where nothing enforces a grammar, or a model
        can't be used as it is.
    ProviderError : a model refuses every question.
    """
    names = [candidate.name for candidate in candidates]
    if not names or len(set(names)) < len(names):
        raise InvalidInput(f"Candidates need names of their own, got {', '.join(names) or 'none'}.")
    for candidate in candidates:
        if candidate.constrained and parse_spec(candidate.model).provider != "local":
            raise InvalidInput(
                f"{candidate.name}: only models of provider local are held to a grammar, got {candidate.model!r}."
            )
    found: dict[str, tuple[Answers, Card]] = {}
    for spec in dict.fromkeys(candidate.model for candidate in candidates):
        model = identity(spec)
        file = folder / re.sub(r"[^A-Za-z0-9.]+", "-", model)
        with closing(_Lazily(spec, connect, sampling.batch, file.with_name(f"{file.name}.json"))) as connected:
            for candidate in (each for each in candidates if each.model == spec):
                answers = ask(
                    connected.call,
                    examples,
                    role=role,
                    model=model,
                    program=candidate.program,
                    grammar=candidate.constrained,
                    runs=sampling.runs,
                    temperature=sampling.temperature,
                    max_tokens=sampling.max_tokens,
                    concurrency=2 * sampling.batch,  # so that the next batch is waiting when one is done
                    seed=sampling.seed,
                    path=file.with_name(f"{file.name}.jsonl"),
                    before=connected.load,
                    on_progress=shift(on_progress, len(found), len(candidates)),
                )
                found[candidate.name] = answers, _card(candidate, answers, connected.facts())
    return {name: found[name] for name in names}


def readable(spec: str) -> str:
    """How tables name a provider spec: a folder or file without the way to the project."""
    named = parse_spec(spec)
    return f"{named.provider}:{shown(resolve(named.model))}" if named.model and resolve(named.model).exists() else spec


def shift(on_progress: Callable[[Asking], None] | None, place: int, of: int) -> Callable[[Asking], None] | None:
    """Report the asking of one candidate as a part of all of them."""
    if on_progress is None:
        return None

    def shifted(asking: Asking) -> None:
        left = asking.total * of - asking.total * place - asking.done
        eta_s = left / asking.rate if asking.rate else None
        on_progress(replace(asking, done=asking.total * place + asking.done, total=asking.total * of, eta_s=eta_s))

    return shifted


def as_examined(provider: Provider, batch: int) -> Provider:
    """`provider` as every examination asks it: `batch` questions at once, and the model's own words, no penalty on them."""
    if isinstance(provider, LocalProvider):
        provider.batch_size = batch
        provider.repetition_penalty = None
    return provider


class _Lazily:
    """A model that is loaded when there is something to ask it; `file` keeps what that took for when there is not."""

    def __init__(self, spec: str, connect: Connect, batch: int, file: Path) -> None:
        self._spec, self._connect, self._batch, self._file = spec, connect, batch, file
        self._connected: Connected | None = None

    def load(self) -> None:
        if self._connected:
            return
        started = time.perf_counter()
        self._connected = self._connect(self._spec)
        provider = as_examined(self._connected.provider, self._batch)
        facts: dict[str, Any] = {"load_s": None, "memory_bytes": None}
        if isinstance(provider, LocalProvider):
            loaded = provider.load()
            weights = sum(p.numel() * p.element_size() for p in loaded.model.parameters())
            peak = peak_memory_bytes(loaded.device) if loaded.device == "cuda" else None
            facts = {"load_s": time.perf_counter() - started, "memory_bytes": peak or weights}
        write_atomically(self._file, json.dumps(facts) + "\n")

    def call(self, request: Request) -> Completion:
        assert self._connected is not None  # `ask` loads first
        return self._connected.call(request)

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.exists() else {}
        return found

    def close(self) -> None:
        if self._connected:
            self._connected.close()


def _card(candidate: Candidate, answers: Answers, facts: Mapping[str, Any]) -> Card:
    frame = answers.frame
    within = frame.groupby("example")["total"].var(ddof=1).mean()  # NaN with one run
    cost = answers.cost_usd
    busy_s = answers.busy_s
    yardstick = parse_spec(candidate.model).provider == "offline"
    return Card(
        name=candidate.name,
        model=readable(candidate.model),
        prompt="optimised" if candidate.program else "as taught",
        constrained=candidate.constrained,
        yardstick=yardstick,
        answers=len(frame),
        score=answers.score,
        validity=answers.validity,
        parts=answers.parts(),
        run_sd=None if math.isnan(within) else math.sqrt(within),
        tokens=None if frame["completion_tokens"].isna().all() else float(frame["completion_tokens"].mean()),
        tokens_per_s=answers.tokens_per_s,
        seconds_per_answer=busy_s / len(frame) if busy_s else None,
        latency_s=None if yardstick else float(frame["latency_s"].median()),
        cut_off=float(frame["stop_reason"].eq("max_tokens").mean()),
        unanswered=answers.unanswered,
        load_s=facts.get("load_s"),
        memory_bytes=facts.get("memory_bytes"),
        cost_usd=None if cost is None else 1000 * cost / len(frame),
    )
