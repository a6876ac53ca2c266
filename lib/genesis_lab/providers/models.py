"""What is known of hosted models: prices, limits and habits, from ``models.yaml``. What is not known stays unknown."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from genesis_lab.providers.base import Usage, total_cost
from genesis_lab.yamls import shipped

GEOGRAPHY = re.compile(r"^(global|us|us-gov|eu|apac|jp|au|ca|sa|me|af|il|in|uk)\.(?=[a-z0-9-]+\.)")
"""Prefix of a system-defined inference profile."""


class ModelInfo(BaseModel):
    """One model. Prices are USD per million tokens on demand; None is unknown, see ``models.yaml`` for each field."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_id: str
    input: float | None = None
    output: float | None = None
    cache_read: float | None = None
    cache_write: float | None = None
    regional_premium: float = 1.0
    priced_to: int | None = None
    batch_share: float | None = None
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    cache_min_tokens: int | None = None
    burndown: float | None = None
    structured_output: tuple[Literal["json_schema", "tool", "prompt"], ...] = ("json_schema", "tool", "prompt")
    sampling: bool = True
    extra: dict[str, Any] = Field(default_factory=dict)
    lifecycle: Literal["active", "legacy", "ended"] | None = None
    ends: date | None = None
    source: str | None = None
    checked: date | None = None

    def cost_usd(self, usage: Usage, *, regional: bool = False, batch: bool = False) -> float | None:
        """The price of `usage`, or None if a price it needs is not known; `regional`: not by a ``global.`` profile."""
        tokens = (usage.prompt_tokens, usage.completion_tokens, usage.cache_read_tokens, usage.cache_write_tokens)
        prices = (self.input, self.output, self.cache_read, self.cache_write)
        parts = [None if price is None else n * price for n, price in zip(tokens, prices, strict=True) if n]
        total, share = total_cost(parts), self.batch_share if batch else 1.0
        if total is None or share is None:
            return None
        return total * share * (self.regional_premium if regional else 1.0) / 1e6


def base_model_id(model: str) -> str:
    """The foundation model's id in an id, inference profile id or ARN: without ARN and geography."""
    return GEOGRAPHY.sub("", model.rsplit("/", 1)[-1])


def model_info(model: str) -> ModelInfo:
    """What is known of a model, given by id, inference profile id or ARN; nothing of one not in ``models.yaml``."""
    model_id = base_model_id(model)
    return _known()[1].get(model_id) or ModelInfo(model_id=model_id)


def known_models() -> tuple[ModelInfo, ...]:
    """Every model of ``models.yaml``, in its order."""
    return tuple(_known()[1].values())


def default_model() -> str:
    """The hosted model used when none is chosen."""
    return _known()[0]


@lru_cache(maxsize=1)
def _known() -> tuple[str, dict[str, ModelInfo]]:
    known = shipped(Path(__file__).with_name("models.yaml"))
    return known["default"], {name: ModelInfo(model_id=name, **fields) for name, fields in known["models"].items()}
