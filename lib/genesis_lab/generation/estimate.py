"""What a plan will take, before anything runs: requests, tokens, cost and time, for each teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from genesis_lab.domains.base import Domain, Spec
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.state import Task
from genesis_lab.generation.teachers import Teacher, divide
from genesis_lab.providers.base import Usage, total_cost
from genesis_lab.providers.schemas import stated

T = TypeVar("T")
CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English and Spanish prose."""
SAMPLE = 25
"""Requests whose prompts are written for an estimate."""


@dataclass(frozen=True)
class Estimate:
    """What a plan, or one teacher's part of it, will take (`in_batch`: in batch jobs); None can't be known beforehand.

    `cost_usd` is None as soon as one price is unknown; `known_usd` is what the others cost.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    time_s: float | None
    in_batch: bool = False
    known_usd: float = 0.0

    @property
    def cost(self) -> str:
        """``0.27 USD``, ``unknown`` or ``0.27 USD + unknown``."""
        usd = self.known_usd if self.cost_usd is None else self.cost_usd
        told = "under 0.01 USD" if 0 < usd < 0.01 else f"{usd:,.2f} USD"
        return told if self.cost_usd is not None else f"{told} + unknown" if usd else "unknown"

    @property
    def time(self) -> str:
        """``about 12 min``, ``within 24 hours, usually less`` or ``unknown``."""
        if self.in_batch:
            return "within 24 hours, usually less"
        if self.time_s is None:
            return "unknown"
        minutes = round(self.time_s / 60)
        return (
            f"about {minutes / 60:.1f} h" if minutes > 90 else f"about {minutes} min" if minutes else "under a minute"
        )


def estimate(
    plan: Plan,
    domain: Domain,
    teachers: Sequence[Teacher],
    kept: Callable[[Teacher, Task], bool] = lambda teacher, task: False,
) -> dict[str, Estimate]:
    """Expected tokens, cost and time of each teacher's part, from the prompts and the usual answers of a few requests.

    Answers that must be asked for again come on top; those that are `kept` in the cache cost nothing. The time is that
    of the quota, where one is given; of offline text, a little is made and timed; else it is not known.
    """
    whose = divide(plan, teachers)

    def part(teacher: Teacher) -> Estimate:
        specs = [spec for spec, name in zip(plan.specs, whose, strict=True) if name == teacher.name]
        if teacher.provider.free:
            return Estimate(len(specs), 0, 0, 0.0, _offline_s(domain, specs))
        tasks = _tasks(domain, specs)
        asked = _some(tasks)
        prompts = [domain.prompt(t.specs[0]) if t.key is None else domain.list_prompt(t.specs, ()) for t, _ in asked]
        said = [len(p.system) + sum(len(text) for _, text in p.messages) + len(stated(p.schema)) for p in prompts]
        answers = [sum(map(domain.answer_characters, task.specs)) for task, _ in asked]
        record = sum(answers) / max(sum(len(task.specs) for task, _ in asked), 1)
        shown = record * sum(before for _, before in tasks)  # the records that lists show, which are not to be repeated
        first = _some([task for task, before in tasks if not before])
        left = 1 - sum(kept(teacher, task) for task in first) / max(len(first), 1)
        each = left * len(tasks) / max(len(asked), 1) / CHARACTERS_PER_TOKEN
        usage = Usage(round(each * sum(said) + left * shown / CHARACTERS_PER_TOKEN), round(each * sum(answers)))
        n, wanted = round(left * len(tasks)), list[tuple[float, float | None]]()
        if teacher.scheduler and not teacher.in_batch:
            limits = teacher.scheduler.ledger.limits
            tokens = usage.prompt_tokens + usage.completion_tokens * limits.burndown
            wanted = [(tokens, limits.tokens_per_minute), (n, limits.requests_per_minute)]
        time_s = max((60 * (amount / quota) for amount, quota in wanted if quota and quota < math.inf), default=None)
        cost_usd = teacher.provider.cost_usd(usage)
        return Estimate(n, usage.prompt_tokens, usage.completion_tokens, cost_usd, time_s, teacher.in_batch)

    return {teacher.name: part(teacher) for teacher in teachers}


def _tasks(domain: Domain, specs: Sequence[Spec]) -> list[tuple[Task, int]]:
    """What is asked for if every answer is used, each with how many records it shows."""
    if (size := domain.list_size) == 1:
        return [(Task((spec,)), 0) for spec in specs]
    keys: dict[str, list[Spec]] = {}
    for spec in specs:
        keys.setdefault(domain.list_key(spec), []).append(spec)
    return [
        (Task(tuple(some[start : start + size]), key=key), start)
        for key, some in keys.items()
        for start in range(0, len(some), size)
    ]


def _some(items: Sequence[T]) -> list[T]:
    """At most `SAMPLE` of them, evenly spread."""
    n = min(SAMPLE, len(items))
    return [items[i * len(items) // n] for i in range(n)]


def _offline_s(domain: Domain, specs: Sequence[Spec]) -> float | None:
    """Seconds that offline text of `specs` takes to be made, checked and written; None where there is none."""
    chosen, seconds = _some(specs), 0.0
    for _ in range(2):  # the first time reads grammar and words
        started = time.perf_counter()
        if None in [domain.offline_text(spec, 0) for spec in chosen]:
            return None
        seconds = time.perf_counter() - started
    return 3 * seconds * len(specs) / max(len(chosen), 1)


def in_all(estimates: Iterable[Estimate], *, in_turn: bool = False) -> Estimate:
    """The estimate of all teachers together, who work at the same time, or of stages `in_turn`."""
    each = list(estimates)
    times = [e.time_s for e in each if e.time_s is not None]
    return Estimate(
        sum(e.requests for e in each),
        sum(e.prompt_tokens for e in each),
        sum(e.completion_tokens for e in each),
        total_cost(e.cost_usd for e in each),
        (sum if in_turn else max)(times) if len(times) == len(each) else None,
        any(e.in_batch for e in each),
        sum(e.known_usd if e.cost_usd is None else e.cost_usd for e in each),
    )
