"""Is a student better than its base, or was it luck? Paired differences on held-out concepts, and a verdict in fixed words.

The unit is the group of near-duplicate concepts: runs of a question are averaged, then the questions of a group, and
what is left is independent. Counting runs or questions as independent makes false discoveries (``benchmarks/evaluation.py``).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput
from genesis_lab.finetuning.answers import Answers, Asking
from genesis_lab.finetuning.benchmark import Candidate, Card, Connect, Sampling, examine
from genesis_lab.finetuning.prompts import PromptProgram
from genesis_lab.providers import parse_spec
from genesis_lab.stats import (
    CANT_TELL,
    POWER,
    Interval,
    Paired,
    detectable_difference,
    holm,
    mean_interval,
    paired_power,
)

if TYPE_CHECKING:
    import pandas as pd

FEWEST = 50
"""Concepts below which nothing is called significant."""
SPREAD = 0.37
"""Standard deviation of a concept's difference that is assumed before anything is known (scores lie in [0, 1])."""
BASELINE, OPTIMISED, FINE_TUNED, BOTH = "baseline", "optimised prompt", "fine-tuned", "fine-tuned, optimised prompt"
CONSTRAINED = " (constrained)"


@dataclass(frozen=True, slots=True)
class Pair:
    """One candidate against another on the same questions.

    Parameters
    ----------
    difference : mean score of `a` − `b` over the groups, with its 95 % interval (`stats.paired`).
    p : sign-flip permutation test; `p_holm` corrected over the pairs.
    wins, ties, losses : groups in which `a` scores more, the same, less.
    detectable : the true difference that so many groups with such a spread find with 80 % power.
    """

    a: str
    b: str
    difference: Interval
    p: float
    p_holm: float
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
    pairs = {(a, b): answers[a].against(answers[b], margin=margin) for a, b in pairs_of(candidates)}
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
        pairs=compare(pairs, concepts=concepts),
        worst=_worst(answers, examples, next((n for n in (FINE_TUNED,) if n in answers), candidates[-1].name), worst),
        limits=dict(limits or {}),
    )


def compare(pairs: Mapping[tuple[str, str], Paired], *, concepts: int) -> tuple[Pair, ...]:
    """What paired comparisons of `a` with `b` show, corrected for their number; `concepts` stand behind the groups."""
    adjusted = holm([found.p for found in pairs.values()])
    return tuple(
        Pair(
            a=a,
            b=b,
            difference=found.difference,
            p=found.p,
            p_holm=p_holm,
            wins=found.wins,
            ties=found.ties,
            losses=found.losses,
            detectable=detectable_difference(found.spread, found.difference.n, POWER),
            verdict=verdict(found.corrected(p_holm), concepts=concepts),
        )
        for ((a, b), found), p_holm in zip(pairs.items(), adjusted, strict=True)
    )


def verdict(found: Paired, *, concepts: int) -> str:
    """The word for a difference (`Paired.verdict`), and where it can't be told, about how many items it would need.

    With fewer than `FEWEST` concepts nothing can be told.
    """
    if concepts >= FEWEST and found.verdict != CANT_TELL:
        return found.verdict
    per_group = concepts / found.difference.n
    needed = max(found.needed() * per_group, FEWEST, concepts + 1)
    return f"{CANT_TELL}: needs about {10 * math.ceil(needed / 10):,} items"


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


def _by_group(examples: Sequence[Example], values: Sequence[float]) -> list[float]:
    groups: dict[str, list[float]] = {}
    for example, value in zip(examples, values, strict=True):
        groups.setdefault(example.group, []).append(value)
    return [sum(of) / len(of) for of in groups.values()]


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
                if id in frame.index
            },
        }
        for id in means.sort_values(kind="stable").index[:most]
    )


_LONGEST = 2_000
