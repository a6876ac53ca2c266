"""Notebook 10's question in one call: N bilingual labelled conversations, from a configuration to a dataset folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from pydantic import Field

from genesis_lab.dataset import Dataset, open_filled
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path, recovered, shown
from genesis_lab.generation.estimate import Estimate, in_all
from genesis_lab.generation.lane import Progress
from genesis_lab.generation.options import GenerationOptions, estimate_with, generate_with
from genesis_lab.generation.plan import Plan, make_plan

SMOKE_TOTAL = 770
"""Conversations of the default run: five per intent and language of Banking77, made in a second or two."""


class GenerationConfig(GenerationOptions, ConversationsConfig):
    """What to generate, by whom, and under which name it is kept."""

    total: int = Field(
        SMOKE_TOTAL, ge=1, le=1_000_000, description="conversations to generate, 10 or more (of cells: theirs)"
    )

    @cached_property
    def domain(self) -> Conversations:
        options = self.model_dump(include=set(ConversationsConfig.model_fields))
        return Conversations(ConversationsConfig(**options))

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.domain, self.total, self.seed)

    def estimates(self) -> dict[str, Estimate]:
        """Requests, tokens, cost and time of each teacher, before anything runs."""
        return estimate_with(self, self.domain, self.plan)

    def estimate(self) -> Estimate:
        """Requests, tokens, cost and time, before anything runs."""
        return in_all(self.estimates().values())


def generate_conversations(
    config: GenerationConfig, *, on_progress: Callable[[Progress], None] | None = None
) -> Dataset:
    """Generate, resume, or just open what the same configuration already made. See `engine.generate` for the errors."""
    chosen = {"domain": "conversations"} | config.domain.config.model_dump(mode="json")
    return generate_with(config, config.domain, config.plan, chosen, on_progress=on_progress)


def open_or_generate(name: str, *, roles: bool = False) -> Dataset:
    """The dataset of this name; where the default one is missing it is generated offline, as notebook 10 does.

    Parameters
    ----------
    roles : whether a dataset of teacher examples will do as well.

    Raises
    ------
    InvalidInput : there is no such dataset, or it holds no records or what the caller can't read.
    """
    default = GenerationConfig()
    if name == default.dataset and not recovered(dataset_path(name)).exists():
        print(f"{shown(dataset_path(name))} does not exist yet: generating {default.total} conversations offline.")
        return generate_conversations(default)
    dataset = open_filled(name)
    if dataset.domain != "conversations" and not roles:
        raise InvalidInput(
            f"{dataset.name} holds examples of {dataset.domain}, this step reads conversations: notebook 12 and genesis "
            f"audit {dataset.name} check teacher examples, notebook 53 says what they are worth, notebook 70 sums it up."
        )
    return dataset
