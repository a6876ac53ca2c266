"""Notebook 10's question in one call: N bilingual labelled conversations, from a configuration to a dataset folder."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Literal

from pydantic import Field

from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.engine import Progress, generate
from genesis_lab.generation.plan import Estimate, Plan, estimate, make_plan
from genesis_lab.paths import dataset_path, shown
from genesis_lab.providers import get_provider
from genesis_lab.providers.base import Provider

SMOKE_TOTAL = 770
"""Conversations of the default run: five per intent and language of Banking77, made in a second or two."""


class GenerationConfig(ConversationsConfig):
    """What to generate, by whom, and under which name it is kept."""

    dataset: str = Field("conversations", min_length=1, description="name of the dataset, or a folder")
    total: int = Field(SMOKE_TOTAL, ge=10, le=1_000_000, description="conversations to generate")
    provider: Literal["offline"] = Field("offline", description="who writes: offline (a grammar, no model, free)")
    replace: bool = Field(False, description="replace a dataset of this name that was made with other settings")

    @cached_property
    def domain(self) -> Conversations:
        options = self.model_dump(include=set(ConversationsConfig.model_fields))
        return Conversations(ConversationsConfig(**options))

    @cached_property
    def plan(self) -> Plan:
        return make_plan(self.domain, self.total, self.seed)

    @cached_property
    def teacher(self) -> Provider:
        return get_provider(self.provider)

    def estimate(self) -> Estimate:
        """Requests, tokens, cost and time, before anything runs."""
        return estimate(self.plan, self.domain, self.teacher)


def generate_conversations(
    config: GenerationConfig, *, on_progress: Callable[[Progress], None] | None = None
) -> Dataset:
    """Generate, resume, or just open what the same configuration already made. See `engine.generate` for the errors."""
    return generate(
        config.plan,
        config.domain,
        config.teacher,
        dataset_path(config.dataset),
        config={"domain": "conversations"} | config.domain.config.model_dump(mode="json"),
        replace_existing=config.replace,
        on_progress=on_progress,
    )


def open_or_generate(name: str) -> Dataset:
    """The dataset of this name; where the default one is missing it is generated offline, as notebook 10 does."""
    default = GenerationConfig()
    if name == default.dataset and not dataset_path(name).exists():
        print(f"{shown(dataset_path(name))} does not exist yet: generating {default.total} conversations offline.")
        return generate_conversations(default)
    return open_dataset(name)
