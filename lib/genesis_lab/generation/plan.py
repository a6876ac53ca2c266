"""The plan: exactly which records to generate, before anything runs."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from genesis_lab.dataset.folder import is_split_name
from genesis_lab.domains.base import Domain, Spec
from genesis_lab.errors import InvalidInput

_JSON = json.JSONEncoder(sort_keys=True)
SPLITS = ("train", "validation", "test")
"""Splits as they are ordered; a plan may have others."""


@dataclass(frozen=True)
class Plan:
    """The exact specs of a dataset, seeded and independent of the provider."""

    domain: str
    seed: int
    specs: Sequence[Spec]
    hash: str

    def splits(self) -> list[str]:
        """The splits of its specs, `SPLITS` first. Raises `InvalidInput` for one that can't have that name."""
        found = dict.fromkeys(map(split_of, self.specs))
        for split in found:
            if not isinstance(split, str) or not is_split_name(split):
                raise InvalidInput(f"A split must be named by letters, digits and _, got {split!r}.")
        return sorted(found, key=lambda split: SPLITS.index(split) if split in SPLITS else len(SPLITS))

    def counts(self) -> dict[str, dict[Any, int]]:
        """Attribute to value to number of specs."""
        names = self.specs[0].attributes if self.specs else ()
        counted = {name: Counter(spec.attributes[name] for spec in self.specs) for name in names}
        return {name: dict(sorted(n.items(), key=lambda v: (str(type(v[0])), v[0]))) for name, n in counted.items()}


def split_of(spec: Spec) -> str:
    """The split that a spec's record goes to: train, unless it says another."""
    return spec.attributes.get("split") or SPLITS[0]


def make_plan(domain: Domain, total: int, seed: int) -> Plan:
    """The plan of `total` records: same domain options, total and seed, same plan."""
    specs = domain.specs(total, seed)
    digest = hashlib.sha256(f"{domain.name}/{domain.version}/{seed}".encode())
    for spec in specs:
        digest.update(_JSON.encode([spec.seed, spec.attributes]).encode())
    return Plan(domain.name, seed, specs, digest.hexdigest()[:16])
