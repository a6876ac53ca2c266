"""Two candidates' scores with a known true difference: runs cluster in questions, questions in groups of like ones."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import numpy as np

from genesis_lab.finetuning.exam import FEWEST, compare
from genesis_lab.stats import mean_interval, paired, percentile_interval

Kind = Literal["graded", "all or nothing", "nearly perfect", "lopsided"]
KINDS: tuple[Kind, ...] = ("graded", "all or nothing", "nearly perfect", "lopsided")
"""Scores that vary by degrees; answers that are valid or worth little; few failures; far better on few concepts and a
little worse on the rest."""
LARGEST_GROUP = 4


def simulated(
    kind: Kind, groups: int, rng: np.random.Generator, *, effect: float = 0.0, runs: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of a and b, shape (questions, runs), and each question's group. The true mean difference is `effect`."""
    group = np.repeat(np.arange(groups), rng.integers(1, LARGEST_GROUP + 1, size=groups))
    shape = (len(group), runs)

    def one() -> np.ndarray:
        if kind == "graded":
            question = rng.normal(0, 0.1, groups)[group] + rng.normal(0, 0.1, len(group))
            return 0.6 + question[:, None] + rng.normal(0, 0.15, shape)
        if kind == "all or nothing":
            odds = np.log(base / (1 - base)) + rng.normal(0, 1, groups)
            return 0.2 + 0.75 * rng.binomial(1, (1 / (1 + np.exp(-odds)))[group][:, None], shape)
        if kind == "nearly perfect":
            able = rng.beta(0.3 * 0.97, 0.3 * 0.03, groups)
            return 0.1 + 0.9 * rng.binomial(1, able[group][:, None], shape)
        gains = rng.exponential(0.1, groups) - 0.1
        return 0.5 + gains[group][:, None] + rng.normal(0, 0.1, shape)

    base = rng.beta(2, 2, groups)
    a = one()
    b = np.full(shape, 0.5) + rng.normal(0, 0.1, shape) if kind == "lopsided" else one()
    return a + effect, b, group


def group_means(scores: np.ndarray, group: np.ndarray) -> np.ndarray:
    """As the evaluation does it: runs averaged, then the group's questions."""
    return np.bincount(group, weights=scores.mean(axis=1)) / np.bincount(group)


def verdicts(
    kind: Kind, groups: int, repeats: int, rng: np.random.Generator, *, effect: float = 0.0, draws: int = 1_999
) -> tuple[Counter[str], dict[str, float]]:
    """How often the protocol says what, and how often each interval or test alone would call the difference real.

    ``runs pooled`` takes every run of every question for independent, ``questions pooled`` every question;
    ``three runs`` is Wilcoxon's test over the runs' means. That under 50 concepts nothing counts is left aside.
    """
    from scipy.stats import wilcoxon

    words: Counter[str] = Counter()
    real: Counter[str] = Counter()
    for _ in range(repeats):
        a, b, group = simulated(kind, groups, rng, effect=effect)
        sides = group_means(a, group), group_means(b, group)
        found = paired(*sides, flips=draws, seed=int(rng.integers(2**31)))
        (pair,) = compare({("a", "b"): found}, concepts=max(len(group), FEWEST))
        difference = sides[0] - sides[1]
        resampled = difference[rng.integers(groups, size=(draws, groups))].mean(axis=1)
        bootstrap = percentile_interval(float(difference.mean()), resampled, groups)
        words[pair["verdict"].split(":")[0]] += 1
        real["protocol"] += pair["verdict"] in ("better", "better but small", "worse")
        real["interval"] += not pair["difference"]["low"] <= 0 <= pair["difference"]["high"]
        real["above 0"] += pair["difference"]["low"] > 0
        real["percentile bootstrap"] += not bootstrap.low <= 0 <= bootstrap.high
        real["sign flip"] += pair["p"] < 0.05
        real["questions pooled"] += _off_zero((a - b).mean(axis=1))
        real["runs pooled"] += _off_zero((a - b).ravel())
        means = a.mean(axis=0) - b.mean(axis=0)
        real["three runs"] += wilcoxon(means, method="exact").pvalue < 0.05
    return words, {name: count / repeats for name, count in real.items()}


def _off_zero(differences: np.ndarray) -> bool:
    interval = mean_interval(differences, scale=(-1.0, 1.0))
    return not interval.low <= 0 <= interval.high
