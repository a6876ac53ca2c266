"""Teacher data in one call: N examples of a role, from a configuration to a dataset folder with its splits."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

from pydantic import BaseModel, Field

from genesis_lab.dataset import Dataset, open_filled
from genesis_lab.domains.base import Domain
from genesis_lab.domains.roles import RoleConfig
from genesis_lab.files import dataset_path, recovered, shown
from genesis_lab.generation.estimate import Estimate, in_all
from genesis_lab.generation.lane import Progress
from genesis_lab.generation.options import GenerationOptions, chosen_domain, estimate_with, generate_with
from genesis_lab.generation.plan import Plan, make_plan


class RoleChoice(BaseModel):
    """The first question of a form."""

    role: Literal["requirements", "vision"] = Field(
        "requirements", description="requirements (business analyst) or vision (product owner)"
    )


class TeacherConfig(GenerationOptions, RoleConfig, RoleChoice):
    """Which role, how many examples, by whom, and how good they must be."""

    dataset: str = Field("teacher", min_length=1, description="name of the dataset, or a folder")

    @cached_property
    def domain(self) -> Domain:
        return chosen_domain(self.role, **self.model_dump(include=set(RoleConfig.model_fields)))

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.domain, self.total, self.seed)

    def estimates(self) -> dict[str, Estimate]:
        """Requests, tokens, cost and time of each teacher, before anything runs."""
        return estimate_with(self, self.domain, self.plan)

    def estimate(self) -> Estimate:
        """Requests, tokens, cost and time, before anything runs."""
        return in_all(self.estimates().values())


def generate_teacher(config: TeacherConfig, *, on_progress: Callable[[Progress], None] | None = None) -> Dataset:
    """Generate, resume, or just open what the same configuration already made. See `engine.generate` for the errors."""
    chosen: dict[str, Any] = {"domain": config.role} | config.model_dump(
        mode="json", include=set(RoleConfig.model_fields)
    )
    return generate_with(config, config.domain, config.plan, chosen, on_progress=on_progress)


def open_or_generate(name: str, **options: Any) -> Dataset:
    """The dataset of this name; where the default one is missing it is generated offline with these options."""
    config = TeacherConfig(**{"dataset": name} | options)
    if name != TeacherConfig().dataset or recovered(dataset_path(name)).exists():
        return open_filled(name)
    print(f"{shown(dataset_path(name))} does not exist yet: generating {config.total} {config.role} examples offline.")
    return generate_teacher(config)
