"""The plan: exactly which records to generate, and what that will take, before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genesis_lab.domains.base import Domain, Spec
from genesis_lab.providers.base import Provider, Usage
from genesis_lab.providers.schemas import stated

CHARACTERS_PER_TOKEN = 4.0
"""Rule of thumb for English and Spanish prose, used only for estimates before a run."""


@dataclass(frozen=True)
class Plan:
    """The exact specs of a dataset, seeded and independent of the provider."""

    domain: str
    seed: int
    specs: Sequence[Spec]
    hash: str

    def counts(self) -> dict[str, dict[Any, int]]:
        """Attribute to value to number of specs."""
        names = self.specs[0].attributes if self.specs else ()
        return {name: dict(sorted(Counter(s.attributes[name] for s in self.specs).items())) for name in names}


@dataclass(frozen=True)
class Estimate:
    """What a plan will take. A figure that can't be known beforehand is None."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    time_s: float | None


def make_plan(domain: Domain, total: int, seed: int) -> Plan:
    """The plan of `total` records: same domain options, total and seed, same plan."""
    specs = domain.specs(total, seed)
    digest = hashlib.sha256(f"{domain.name}/{domain.version}/{seed}".encode())
    for spec in specs:
        digest.update(json.dumps([spec.seed, spec.attributes], sort_keys=True).encode())
    return Plan(domain.name, seed, specs, digest.hexdigest()[:16])


def estimate(
    plan: Plan, domain: Domain, provider: Provider, *, seconds_per_request: float | None = None, sample: int = 25
) -> Estimate:
    """Expected tokens, cost and time, from the prompts and offline texts of `sample` evenly chosen specs.

    Parameters
    ----------
    seconds_per_request : measured seconds from one request to the next; without it only free providers get a time
        (a few of their records are made and timed).
    """
    import time

    total = len(plan.specs)
    chosen = [plan.specs[i * total // min(sample, total)] for i in range(min(sample, total))]
    answers = sum(len(domain.offline_text(spec, 0)) for spec in chosen)
    started = time.perf_counter()  # only now is the grammar read
    for spec in chosen:
        domain.offline_text(spec, 0)
    each_s = (time.perf_counter() - started) / len(chosen)
    if provider.capabilities.free:
        return Estimate(total, 0, 0, 0.0, total * each_s * 3)
    prompts = 0
    for spec in chosen:
        prompt = domain.prompt(spec)
        prompts += len(prompt.system) + sum(len(text) for _, text in prompt.messages) + len(stated(prompt.schema))
    scale = total / len(chosen) / CHARACTERS_PER_TOKEN
    usage = Usage(prompt_tokens=round(prompts * scale), completion_tokens=round(answers * scale))
    time_s = None
    if seconds_per_request is not None:
        time_s = total * seconds_per_request
    return Estimate(total, usage.prompt_tokens, usage.completion_tokens, provider.cost_usd(usage), time_s)
