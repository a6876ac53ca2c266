"""Is a student better than its base, or was it luck? Paired differences on held-out concepts, and a verdict in fixed words.

The unit is the group of near-duplicate concepts: runs of a question are averaged, then the questions of a group, and
what is left is independent. Counting runs or questions as independent makes false discoveries (``benchmarks/evaluation.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput
from genesis_lab.finetuning.answers import Answers, Asking
from genesis_lab.finetuning.benchmark import Candidate, Card, Connect, Sampling, examine
from genesis_lab.finetuning.prompts import PromptProgram
from genesis_lab.providers import parse_spec
from genesis_lab.stats import (
    Interval,
    cohen_d_z,
    detectable_difference,
    holm,
    mean_interval,
    paired_power,
    percentile_interval,
    sign_flip_p,
)

if TYPE_CHECKING:
    import pandas as pd

ALPHA = 0.05
FEWEST = 50
"""Concepts below which nothing is called significant."""
FEWEST_GROUPS = 10
"""Groups of near-duplicate concepts below which nothing is called significant: an interval needs some to rest on."""
SPREAD = 0.37
"""Standard deviation of a concept's difference that is assumed before anything is known (scores lie in [0, 1])."""
POWER = 0.8
BASELINE, OPTIMISED, FINE_TUNED, BOTH = "baseline", "optimised prompt", "fine-tuned", "fine-tuned, optimised prompt"
CONSTRAINED = " (constrained)"


@dataclass(frozen=True, slots=True)
class Pair:
    """One candidate against another on the same questions.

    Parameters
    ----------
    difference : mean score of `a` − `b`, with Student's 95 % interval over the groups.
    bootstrap : the same by the percentile cluster bootstrap, which is a little too narrow; for comparison.
    p : sign-flip permutation test; `p_holm` corrected over the pairs, `wilcoxon_p` alongside.
    d_z : Cohen's d of the paired differences.
    wins, ties, losses : groups in which `a` scores more, the same, less.
    detectable : the true difference that so many groups with such a spread find with 80 % power.
    """

    a: str
    b: str
    difference: Interval
    bootstrap: Interval
    p: float
    p_holm: float
    wilcoxon_p: float | None
    d_z: float | None
    wins: int
    ties: int
    losses: int
    detectable: float | None
    verdict: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The report of an evaluation.

    Parameters
    ----------
    test_hash : of the held-out questions and what scoring knows of them: the same hash, the same examination.
    concepts, groups : different questions, and groups of near-duplicates among them.
    teacher : the score of the teacher's own answers.
    limits : what made this a smoke run; empty for a real one.
    worst : the questions that the last candidate answers worst, with every candidate's answer.
    """

    dataset: str
    test_hash: str
    examples: int
    concepts: int
    groups: int
    sampling: Sampling
    margin: float
    teacher: Interval
    cards: tuple[Card, ...]
    pairs: tuple[Pair, ...]
    worst: tuple[dict[str, Any], ...]
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def headline(self) -> Pair:
        """The pair that the verdict is about: the student against its base, else the first one."""
        return next((pair for pair in self.pairs if (pair.a, pair.b) == (FINE_TUNED, BASELINE)), self.pairs[0])

    @property
    def verdict(self) -> str:
        """What can be said of the headline pair, in one sentence."""
        pair = self.headline
        d = pair.difference
        said = (
            f"{pair.a} against {pair.b}: {pair.verdict} ({100 * d.estimate:+.0f} points "
            f"[{100 * d.low:+.0f} to {100 * d.high:+.0f}], {self.concepts} concepts in {self.groups} groups)."
        )
        return f"Smoke run, no result: {said}" if self.limits else said.capitalize()

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields, with the verdict."""
        return asdict(self) | {"verdict": self.verdict, "headline": [self.headline.a, self.headline.b]}


def arms(
    base: str, *, student: str = "", program: PromptProgram | None = None, constrained: bool = True
) -> list[Candidate]:
    """The candidates of an evaluation: base and student, as taught and with an optimised prompt, free and constrained.

    Parameters
    ----------
    base, student : provider specs; constrained twins exist for models of provider ``local`` only.

    Raises
    ------
    InvalidInput : `student` names no model: there is no finished student of that name.
    """
    if student:
        try:
            parse_spec(student)
        except InvalidInput:
            raise InvalidInput(
                f"There is no finished student {student!r} in outputs/models: teach it with notebook 52, or name a model "
                "as local:…, ollama:…, openai:…"
            ) from None
    found = [Candidate(BASELINE, base)]
    found += [Candidate(OPTIMISED, base, program)] if program else []
    found += [Candidate(FINE_TUNED, student)] if student else []
    found += [Candidate(BOTH, student, program)] if student and program else []
    twins = [each for each in found if constrained and each.program is None and each.model.startswith("local")]
    return found + [Candidate(each.name + CONSTRAINED, each.model, constrained=True) for each in twins]


def pairs_of(candidates: Sequence[Candidate]) -> list[tuple[str, str]]:
    """What is held against what: each against the baseline, the students against every other way, constrained ones too."""
    names = [candidate.name for candidate in candidates]
    against = [(name, names[0]) for name in names[1:]]
    more = [(FINE_TUNED, OPTIMISED), (BOTH, FINE_TUNED), (FINE_TUNED, BASELINE + CONSTRAINED)]
    more.append((FINE_TUNED + CONSTRAINED, BASELINE + CONSTRAINED))
    return against + [pair for pair in more if set(pair) <= set(names)]


def evaluate(
    candidates: Sequence[Candidate],
    examples: Sequence[Example],
    *,
    role: Role,
    connect: Connect,
    folder: Path,
    dataset: str,
    taught: Sequence[Example] = (),
    sampling: Sampling = Sampling(),
    margin: float = 0.05,
    limits: Mapping[str, Any] | None = None,
    worst: int = 5,
    on_progress: Callable[[Asking], None] | None = None,
) -> Evaluation:
    """Ask every candidate, compare them in pairs, and say what that shows. The first candidate is the baseline.

    Parameters
    ----------
    taught : what the student learned and was chosen on; none of its groups may be examined.
    margin : the smallest difference in score that matters.

    Raises
    ------
    InvalidInput : fewer than two candidates, a concept that was taught is examined, or see `examine`.
    """
    if len(candidates) < 2:
        raise InvalidInput(f"A comparison needs at least two candidates, got {len(candidates)}.")
    if leaked := {example.group for example in taught} & {example.group for example in examples}:
        raise InvalidInput(
            f"{len(leaked)} groups of concepts are both taught and examined, for example {min(leaked)!r}: "
            "an examination needs concepts that the student never saw."
        )
    found = examine(
        candidates, examples, role=role, connect=connect, folder=folder, sampling=sampling, on_progress=on_progress
    )
    answers = {name: answer for name, (answer, _) in found.items()}
    concepts = len({example.question for example in examples})
    scores = {name: answer.by_group(answer.frame["total"]) for name, answer in answers.items()}
    teacher = _by_group(examples, [role.score(example.answer, example).total for example in examples])
    return Evaluation(
        dataset=dataset,
        test_hash=fingerprint(examples),
        examples=len(examples),
        concepts=concepts,
        groups=len(teacher),
        sampling=sampling,
        margin=margin,
        teacher=mean_interval(teacher),
        cards=tuple(card for _, card in found.values()),
        pairs=compare(scores, pairs_of(candidates), concepts=concepts, margin=margin, rng=np.random.default_rng(0)),
        worst=_worst(answers, examples, next((n for n in (FINE_TUNED,) if n in answers), candidates[-1].name), worst),
        limits=dict(limits or {}),
    )


def compare(
    scores: Mapping[str, ArrayLike],
    pairs: Sequence[tuple[str, str]],
    *,
    concepts: int,
    rng: np.random.Generator,
    margin: float = 0.05,
    flips: int = 10_000,
    resamples: int = 2_000,
) -> tuple[Pair, ...]:
    """Hold candidates against each other.

    Parameters
    ----------
    scores : each candidate's mean score per group, groups in the same order.
    concepts : different questions behind the groups.
    flips, resamples : draws of the permutation test and of the bootstrap.
    """
    differences = {(a, b): np.asarray(scores[a], float) - np.asarray(scores[b], float) for a, b in pairs}
    pvalues = [sign_flip_p(d, rng=rng, n=flips) for d in differences.values()]
    found = []
    for ((a, b), d), p, p_holm in zip(differences.items(), pvalues, holm(pvalues), strict=True):
        interval, spread, n = _within_scale(mean_interval(d)), float(d.std(ddof=1)) if len(d) > 1 else 0.0, len(d)
        draws = d[rng.integers(n, size=(resamples, n))].mean(axis=1)
        found.append(
            Pair(
                a=a,
                b=b,
                difference=interval,
                bootstrap=percentile_interval(float(d.mean()), draws, n),
                p=p,
                p_holm=p_holm,
                wilcoxon_p=_wilcoxon(d),
                d_z=cohen_d_z(d),
                wins=int((d > _TIE).sum()),
                ties=int((np.abs(d) <= _TIE).sum()),
                losses=int((d < -_TIE).sum()),
                detectable=detectable_difference(spread, n, POWER),
                verdict=verdict(interval, p_holm, spread, concepts=concepts, margin=margin),
            )
        )
    return tuple(found)


_TIE = 1e-9


def verdict(difference: Interval, p: float, spread: float, *, concepts: int, margin: float = 0.05) -> str:
    """The words for a difference, the first that apply:

    ======================================  ==================================================================
    fewer than 50 concepts or 10 groups     inconclusive: needs about N items
    interval above 0, p < 0.05, ≥ margin    better
    interval above 0, p < 0.05, < margin    better but small
    interval below 0, p < 0.05              worse
    interval within ± margin                equivalent
    else                                    inconclusive: needs about N items
    ======================================  ==================================================================

    N items would, at this spread and with 80 % power, tell the difference from 0 or show that it is within the margin.
    """
    if concepts >= FEWEST and difference.n >= FEWEST_GROUPS:
        if p < ALPHA and difference.low > 0:
            return "better" if difference.estimate >= margin else "better but small"
        if p < ALPHA and difference.high < 0:
            return "worse"
        if -margin < difference.low and difference.high < margin:
            return "equivalent"
    size = abs(difference.estimate)
    resolution = max(size, margin - size)
    groups = 0 if not spread else ((_Z_LEVEL + _Z_POWER) * spread / resolution) ** 2
    per_group = concepts / difference.n
    needed = max(groups * per_group, FEWEST, FEWEST_GROUPS * per_group, concepts + 1)
    return f"inconclusive: needs about {10 * math.ceil(needed / 10):,} items"


_Z_LEVEL, _Z_POWER = 1.959964, 0.841621
"""Normal quantiles of a two-sided 5 % test and of 80 % power."""


def power_table(
    groups: int, *, spread: float = SPREAD, differences: Sequence[float] = (0.02, 0.05, 0.1, 0.2)
) -> pd.DataFrame:
    """What an examination can find, before it is held: the chance to find a true difference, by number of groups.

    ``detectable`` is the difference that is found with 80 % power. The examination's own row is marked in ``this one``.
    """
    import pandas as pd

    sizes = sorted({30, 50, 100, 200, 400, 600, 1000, groups})
    rows = [
        {"groups": n, "this one": n == groups, "detectable": detectable_difference(spread, n, POWER)}
        | {f"{100 * d:g} points": paired_power(d, spread, n) for d in differences}
        for n in sizes
    ]
    return pd.DataFrame(rows)


def fingerprint(examples: Sequence[Example]) -> str:
    """A digest of all that an examination consists of."""
    content = [[e.id, e.group, e.language, e.system, e.question, e.answer, dict(e.facts)] for e in examples]
    text = json.dumps(sorted(content, key=lambda e: str(e[0])), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _within_scale(difference: Interval) -> Interval:
    """Scores lie in [0, 1], so no difference exceeds 1."""
    return replace(difference, low=max(difference.low, -1.0), high=min(difference.high, 1.0))


def _by_group(examples: Sequence[Example], values: Sequence[float]) -> list[float]:
    groups: dict[str, list[float]] = {}
    for example, value in zip(examples, values, strict=True):
        groups.setdefault(example.group, []).append(value)
    return [sum(of) / len(of) for of in groups.values()]


def _wilcoxon(differences: np.ndarray) -> float | None:
    """Wilcoxon's signed-rank test by its normal approximation; None where every difference is 0."""
    from scipy.stats import wilcoxon

    changed = differences[np.abs(differences) > _TIE]
    return float(wilcoxon(changed, method="asymptotic").pvalue) if len(changed) else None


def _worst(
    answers: Mapping[str, Answers], examples: Sequence[Example], judged: str, most: int
) -> tuple[dict[str, Any], ...]:
    """The questions that candidate `judged` answers worst, with what everyone said in the first run."""
    means = answers[judged].frame.groupby("example", sort=False)["total"].mean()
    first = {name: answer.frame[answer.frame["run"] == 0].set_index("example") for name, answer in answers.items()}
    by_id = {example.id: example for example in examples}
    return tuple(
        {
            "example": id,
            "question": by_id[id].question,
            "score": float(means[id]),
            "teacher": by_id[id].answer,
            "answers": {
                name: {
                    "text": frame.loc[id, "text"][:_LONGEST],
                    "score": float(frame.loc[id, "total"]),
                    "problems": list(frame.loc[id, "problems"])[:3],
                }
                for name, frame in first.items()
            },
        }
        for id in means.sort_values(kind="stable").index[:most]
    )


_LONGEST = 2_000
