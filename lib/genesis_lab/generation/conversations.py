"""Notebook 10's question in one call: N bilingual labelled conversations, from a configuration to a dataset folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property

from pydantic import Field

from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.cache import CompletionCache
from genesis_lab.generation.engine import Progress, Sampling, generate
from genesis_lab.generation.limiter import Ledger, Limits, shared_ledger
from genesis_lab.generation.plan import Estimate, Plan, estimate, make_plan
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.paths import dataset_path, output_root, shown
from genesis_lab.providers import ProviderName, get_provider
from genesis_lab.providers.base import Provider
from genesis_lab.providers.models import model_info
from genesis_lab.settings import get_settings

SMOKE_TOTAL = 770
"""Conversations of the default run: five per intent and language of Banking77, made in a second or two."""


class GenerationConfig(ConversationsConfig):
    """What to generate, by whom, and under which name it is kept."""

    dataset: str = Field("conversations", min_length=1, description="name of the dataset, or a folder")
    total: int = Field(SMOKE_TOTAL, ge=10, le=1_000_000, description="conversations to generate")
    provider: ProviderName = Field(
        "offline",
        description="who writes: offline (a grammar: no model, free), bedrock, openai (any such server), local",
    )
    model: str = Field("", description="which model; empty: the provider's default")
    base_urls: tuple[str, ...] = Field(
        (), description="addresses of OpenAI-compatible servers, e.g. Ollama's or vLLM's"
    )
    tokens_per_minute: int = Field(0, ge=0, description="quota of the account; 0: not known, it is learned")
    requests_per_minute: int = Field(0, ge=0, description="quota of the account in requests; 0: none known")
    temperature: float | None = Field(None, ge=0, le=2, description="sampling temperature; none: the model's own")
    max_tokens: int = Field(2048, ge=64, le=32_768, description="longest answer, tokens")
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
        return get_provider(self.provider, model=self.model, base_urls=self.base_urls)

    def estimate(self) -> Estimate:
        """Requests, tokens, cost and time, before anything runs."""
        return estimate(self.plan, self.domain, self.teacher)


def generate_conversations(
    config: GenerationConfig, *, on_progress: Callable[[Progress], None] | None = None
) -> Dataset:
    """Generate, resume, or just open what the same configuration already made. See `engine.generate` for the errors."""
    teacher = config.teacher
    scheduler, cache = None, None
    if not teacher.capabilities.free:
        scheduler = Scheduler(teacher, _ledger(config))
        cache = CompletionCache(output_root() / "cache" / "completions.sqlite")
    try:
        return generate(
            config.plan,
            config.domain,
            teacher,
            dataset_path(config.dataset),
            sampling=Sampling(temperature=config.temperature, max_tokens=config.max_tokens),
            call=scheduler.complete if scheduler else None,
            stop=scheduler.stop if scheduler else None,
            cache=cache,
            config={"domain": "conversations"} | config.domain.config.model_dump(mode="json"),
            replace_existing=config.replace,
            on_progress=on_progress,
        )
    finally:
        if cache:
            cache.close()


def _ledger(config: GenerationConfig) -> Ledger:
    """The ledger of the quota that the configuration draws on; runs side by side on the same one share it."""
    settings = get_settings()
    here = config.provider in ("local", "llamacpp") or (config.base_urls and not config.tokens_per_minute)
    limits = Limits(
        tokens_per_minute=math.inf if here else config.tokens_per_minute or None,
        requests_per_minute=config.requests_per_minute or math.inf,
        burndown=model_info(config.teacher.model).burndown or 1.0,
    )
    place = (settings.aws_profile, settings.aws_region) if config.provider == "bedrock" else config.base_urls
    return shared_ledger((config.provider, place, config.teacher.model), limits)


def open_or_generate(name: str) -> Dataset:
    """The dataset of this name; where the default one is missing it is generated offline, as notebook 10 does."""
    default = GenerationConfig()
    if name == default.dataset and not dataset_path(name).exists():
        print(f"{shown(dataset_path(name))} does not exist yet: generating {default.total} conversations offline.")
        return generate_conversations(default)
    return open_dataset(name)
