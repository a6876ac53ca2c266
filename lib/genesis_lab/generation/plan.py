"""The plan: exactly which records to generate, before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genesis_lab.domains.base import Domain, Spec


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


def make_plan(domain: Domain, total: int, seed: int) -> Plan:
    """The plan of `total` records: same domain options, total and seed, same plan."""
    specs = domain.specs(total, seed)
    digest = hashlib.sha256(f"{domain.name}/{domain.version}/{seed}".encode())
    for spec in specs:
        digest.update(json.dumps([spec.seed, spec.attributes], sort_keys=True).encode())
    return Plan(domain.name, seed, specs, digest.hexdigest()[:16])
