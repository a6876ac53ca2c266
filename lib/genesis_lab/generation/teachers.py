"""Teachers: the models that write a dataset, each with its quota, and how a plan is divided among them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from genesis_lab.domains.quotas import largest_remainder
from genesis_lab.generation.limiter import Limits, shared_ledger
from genesis_lab.generation.plan import Plan
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.providers import ModelSpec, parse_spec
from genesis_lab.providers.addresses import on_this_machine
from genesis_lab.providers.base import Completion, Provider, Request
from genesis_lab.providers.identity import identity
from genesis_lab.providers.models import model_info
from genesis_lab.settings import get_settings


@dataclass(frozen=True, eq=False)
class Teacher:
    """One model that answers requests, by a `name` that is unique in a run, and its `share` of the plan.

    Shares are normalised. The `scheduler` waits, retries and gives up, None where there is nothing to wait for;
    `in_batch`: in jobs of Bedrock.
    """

    provider: Provider
    name: str = ""
    share: float = 1.0
    scheduler: Scheduler | None = None
    in_batch: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or f"{self.provider.name}:{self.provider.model}")

    @cached_property
    def identity(self) -> str:
        """What the model is, for the keys of its answers."""
        return identity(self.provider)

    def call(self, request: Request) -> Completion:
        """The answer, however long the quota makes it wait; raises what `Scheduler.complete` raises."""
        return self.scheduler.complete(request) if self.scheduler else self.provider.complete(request)

    def stop(self) -> None:
        """Let what is in flight finish; what waits raises."""
        if self.scheduler:
            self.scheduler.stop()

    def close(self) -> None:
        self.stop()
        self.provider.close()


def connect(
    spec: str | ModelSpec, *, share: float = 1.0, tokens_per_minute: int = 0, requests_per_minute: int = 0
) -> Teacher:
    """The teacher that a line such as ``bedrock:amazon.nova-lite-v1:0@eu-west-1`` names; nothing is called yet.

    A quota of 0 is not known; teachers on the same one share its ledger, models on this machine have none. Raises
    `InvalidInput` where the line names no model that can be used as it is, `MissingDependency` without a package.
    """
    named = parse_spec(spec) if isinstance(spec, str) else spec
    provider = named.open()
    if provider.free:
        return Teacher(provider, named.label, share)
    settings, limits = get_settings(), Limits(math.inf, requests_per_minute or math.inf)
    if named.provider == "local" or any(map(on_this_machine, named.base_urls)):
        limits = Limits(math.inf)
    elif tokens_per_minute or not named.base_urls:  # a server of one's own has no quota unless one is given
        burndown = model_info(provider.model).burndown or 1.0
        limits = Limits(tokens_per_minute or None, requests_per_minute or math.inf, burndown)
    place = (settings.aws_profile, named.region or settings.aws_region, *named.base_urls)
    ledger = shared_ledger((provider.name, provider.model, *place), limits)
    return Teacher(provider, named.label, share, Scheduler(provider, ledger), named.provider == "bedrock_batch")


def parts(teachers: Sequence[Teacher], total: int) -> dict[str, int]:
    """How many of `total` records each teacher writes, by largest remainder; their order is no matter."""
    return largest_remainder({t.name: t.share for t in sorted(teachers, key=lambda t: t.name)}, total)


def divide(plan: Plan, teachers: Sequence[Teacher]) -> list[str]:
    """The name of the teacher of each spec: exactly its part, and of every value and pair of values its fair share.

    Each spec goes to the teacher whose records lack most of what it has (Pocock and Simon's minimisation). That depends
    on nothing but plan and shares, so a run goes on as it began.
    """
    left = parts(teachers, len(plan.specs))
    if len(left) == 1:
        return [*left] * len(plan.specs)
    share = {name: n / len(plan.specs) for name, n in left.items()}
    lacking: dict[str, defaultdict[object, float]] = {name: defaultdict(float) for name in left}
    chosen = []
    for spec in plan.specs:
        values = [(name, str(value)) for name, value in spec.attributes.items()]
        having = [*values, *combinations(values, 2)]
        lack = {name: sum(map(lacking[name].__getitem__, having)) for name, n in left.items() if n}
        to = max(lack, key=lambda name: (lack[name], left[name]))
        for name, sums in lacking.items():
            more = share[name] - (name == to)
            for each in having:
                sums[each] += more
        left[to] -= 1
        chosen.append(to)
    return chosen
