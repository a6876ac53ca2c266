"""Races of prompts whose true scores are known: how often the task's own is replaced, rightly or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from genesis_lab.domains.base import Example
from genesis_lab.finetuning.prompts import proven_best, race_prompts
from genesis_lab.stats import Interval, Paired, mean_interval, paired

Kind = Literal["all or nothing", "graded", "skewed"]
KINDS: tuple[Kind, ...] = ("all or nothing", "graded", "skewed")
"""Right or wrong; a score that varies by degrees; mostly perfect with a long tail downwards."""


@dataclass(frozen=True)
class Scores:
    """What a race needs of `Answers`, without the time that tables take."""

    values: np.ndarray

    @property
    def score(self) -> Interval:
        return mean_interval(self.values)

    def against(self, other: Scores) -> Paired:
        return paired(self.values, other.values, flips=1_999)


def replacements(
    kind: Kind, items: int, *, candidates: int, repeats: int, rng: np.random.Generator, effect: float = 0.0
) -> int:
    """In how many of `repeats` races a prompt replaces the task's own; one of them is better by `effect`."""
    examples = [Example(str(i), str(i), "en", "", "", "") for i in range(items)]
    return sum(_chosen(kind, examples, candidates, rng, effect) is not None for _ in range(repeats))


def _chosen(
    kind: Kind, examples: Sequence[Example], candidates: int, rng: np.random.Generator, effect: float
) -> str | None:
    ability = rng.uniform(0.2, 0.8, len(examples)) - effect / 2  # of the questions, the same for every prompt

    prompts: dict[str, Any] = {}
    for number in range(candidates):
        scores = _scores(kind, ability + (effect if number == 1 else 0.0), rng)
        prompts["default" if number == 0 else str(number)] = lambda items, scores=scores: Scores(scores[: len(items)])
    return proven_best(race_prompts(prompts, examples)[1])


def _scores(kind: Kind, ability: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "all or nothing":
        return rng.binomial(1, ability.clip(0, 1)).astype(float)
    if kind == "graded":
        return (ability + rng.normal(0, 0.2, len(ability))).clip(0, 1)
    return (1.3 - rng.exponential(0.25, len(ability)) + (ability - 0.8)).clip(0, 1)
