"""What a plan will take, before anything runs: requests, tokens, cost and time, for each teacher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from genesis_lab.domains.base import Domain, Spec
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.teachers import Teacher, parts
from genesis_lab.providers.base import Usage, total_cost
from genesis_lab.providers.schemas import stated

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English and Spanish prose."""
SAMPLE = 25
"""Specs whose prompts are written for an estimate."""


@dataclass(frozen=True)
class Estimate:
    """What a plan, or one teacher's part of it, will take. A figure that can't be known beforehand is None.

    `cost_usd` is None as soon as one price is unknown; `known_usd` is what the others cost.
    `in_batch` : in batch jobs, which are done within 24 hours, usually in less.
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
    kept: Callable[[Teacher, Spec], bool] = lambda teacher, spec: False,
) -> dict[str, Estimate]:
    """Expected tokens, cost and time of each teacher's part, from the prompts and the usual answers of a few specs.

    Answers that must be asked for again come on top. The time is that of the quota, where one is given; of offline
    text, a little of it is made and timed; else it is not known.

    Parameters
    ----------
    kept : whether the answer of a spec is in the cache, and so will cost nothing; asked of the same few.
    """
    total = len(plan.specs)
    chosen = [plan.specs[i * total // min(SAMPLE, total)] for i in range(min(SAMPLE, total))]
    counts, free = parts(teachers, total), [teacher.provider.capabilities.free for teacher in teachers]
    offline_s: float | None = 0.0
    prompts = answers = 0.0
    for _ in range(2 if any(free) else 0):  # the first time reads grammar and words
        started = time.perf_counter()
        texts = [domain.offline_text(spec, 0) for spec in chosen]
        offline_s = None if None in texts else 3 * (time.perf_counter() - started) / len(chosen)
    if not all(free):
        asked = map(domain.prompt, chosen)
        said = [len(p.system) + sum(len(text) for _, text in p.messages) + len(stated(p.schema)) for p in asked]
        prompts = sum(said) / len(chosen) / CHARACTERS_PER_TOKEN
        answers = sum(map(domain.answer_characters, chosen)) / len(chosen) / CHARACTERS_PER_TOKEN

    def part(teacher: Teacher) -> Estimate:
        n = counts[teacher.name]
        if teacher.provider.capabilities.free:
            return Estimate(n, 0, 0, 0.0, None if offline_s is None else n * offline_s)
        n = round(n * (1 - sum(kept(teacher, spec) for spec in chosen) / len(chosen)))
        usage = Usage(round(n * prompts), round(n * answers))
        cost_usd, time_s = teacher.provider.cost_usd(usage), _quota_s(teacher, n, usage)
        return Estimate(n, usage.prompt_tokens, usage.completion_tokens, cost_usd, time_s, teacher.in_batch)

    return {teacher.name: part(teacher) for teacher in teachers}


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


def _quota_s(teacher: Teacher, requests: int, usage: Usage) -> float | None:
    """The time that a teacher's quota takes for `requests` with `usage`; None where no quota is given."""
    if teacher.scheduler is None or teacher.in_batch:
        return None
    limits = teacher.scheduler.ledger.limits
    tokens = usage.prompt_tokens + usage.completion_tokens * limits.burndown
    wanted = ((tokens, limits.tokens_per_minute), (requests, limits.requests_per_minute))
    minutes = [amount / quota for amount, quota in wanted if quota and quota < math.inf]
    return 60 * max(minutes) if minutes else None
