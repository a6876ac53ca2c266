"""How far a judge and people agree."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.dataset.sources import read_rows
from genesis_lab.errors import InvalidInput
from genesis_lab.files import resolve, shown
from genesis_lab.stats import Interval, percentile_interval
from genesis_lab.validation.rubric import SCALE, Rubric, as_number

Labels = Mapping[tuple[str, str, str], int]
"""`(record id, criterion, rater)` to score."""

ENOUGH = 30
"""Labels below which an agreement says little, however high."""
_DRAWS = 500

_BANDS = ((0.0, "no"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"), (2.0, "near-perfect"))
"""Landis and Koch 1977, table 2."""


@dataclass(frozen=True)
class Agreement:
    """Judge against one person on one criterion.

    Parameters
    ----------
    rater : empty where the labels name none.
    kappa : Cohen's, with quadratic weights (Cohen 1968); None where it is not defined: one of both always gave one score.
    same : share of equal scores.
    """

    name: str
    rater: str
    n: int
    kappa: Interval | None
    same: float
    bias: float
    reading: str


def read_labels(path: str | Path, rubric: Rubric) -> dict[tuple[str, str, str], int]:
    """Scores that people gave: a CSV with ``record_id``, ``criterion``, ``score``, and ``rater`` where there are several.

    Rows without a score are left out.

    Raises
    ------
    InvalidInput : no such file, columns are missing, an unknown criterion, a score that is none of 1 to 5, or a second
        score by the same rater.
    """
    source = resolve(path)
    if not source.is_file():
        raise InvalidInput(f"There is no file of human labels {shown(source)}.")
    names = {criterion.name for criterion in rubric.criteria}
    given: dict[tuple[str, str, str], int] = {}
    rows = list(read_rows(source))
    if not rows:
        raise InvalidInput(f"{shown(source)} holds no rows: it must have the columns record_id, criterion and score.")
    for row in rows:
        said, at = row.value or {}, f"Line {row.number + 1} of {shown(source)}"
        if row.problem:
            raise InvalidInput(f"{at} can't be read: {row.problem}.")
        if not {"record_id", "criterion", "score"} <= said.keys():
            raise InvalidInput(f"{shown(source)} must have the columns record_id, criterion and score.")
        if not (said["score"] or "").strip():
            continue
        score = as_number(said["score"])
        if said["criterion"] not in names or score not in SCALE:
            raise InvalidInput(
                f"{at} must give one of {', '.join(sorted(names))} a whole score from 1 to 5, got "
                f"{said['criterion'] or ''!r} and {said['score']!r}."
            )
        key = str(said["record_id"] or ""), str(said["criterion"]), (said.get("rater") or "").strip()
        if key in given:
            raise InvalidInput(
                f"{at} scores {key[1]} of {key[0]} a second time: say in a column rater who gave which score."
            )
        given[key] = int(score)
    return given


def agreements(
    rubric: Rubric, labels: Labels, scored: Mapping[str, Mapping[str, int]], rng: np.random.Generator
) -> Iterator[Agreement]:
    """The agreement of the judge with each rater on every criterion that they scored.

    Parameters
    ----------
    scored : record id to what the judge gave.
    """
    for criterion, rater in itertools.product(rubric.criteria, sorted({rater for _, _, rater in labels})):
        pairs = [
            (scored[record_id][name], score)
            for (record_id, name, who), score in labels.items()
            if (name, who) == (criterion.name, rater) and record_id in scored
        ]
        if not pairs:
            continue
        model, human = np.array(pairs).T
        kappa = _kappa(model, human, rng)
        yield Agreement(
            name=criterion.name,
            rater=rater,
            n=len(pairs),
            kappa=kappa,
            same=float((model == human).mean()),
            bias=float((model - human).mean()),
            reading=_reading(kappa, len(pairs), float((model - human).mean())),
        )


def _kappa(model: NDArray[np.int64], human: NDArray[np.int64], rng: np.random.Generator) -> Interval | None:
    """Percentile bootstrap of the table of both's scores, with one more label given by chance (Efron and Tibshirani 1993):
    a few that all agree do not prove that the next will.
    """
    from sklearn.metrics import cohen_kappa_score

    given = np.zeros((len(SCALE), len(SCALE)))
    np.add.at(given, (model - SCALE[0], human - SCALE[0]), 1)
    rows, columns = (axis.ravel() for axis in np.meshgrid(SCALE, SCALE, indexing="ij"))

    def kappa(counts: NDArray[Any]) -> float:
        with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
            warnings.simplefilter("ignore")  # where it is not defined it is left out
            found = cohen_kappa_score(rows, columns, labels=SCALE, weights="quadratic", sample_weight=counts.ravel())
        return float(found)

    estimate, n = kappa(given), len(model)
    if not np.isfinite(estimate):
        return None
    likely = given + np.outer(given.sum(axis=1), given.sum(axis=0)) / n**2
    drawn = [kappa(rng.multinomial(n, (likely / likely.sum()).ravel())) for _ in range(_DRAWS)]
    return percentile_interval(estimate, [each for each in drawn if np.isfinite(each)], n)


def _reading(kappa: Interval | None, n: int, bias: float) -> str:
    if kappa is None:
        return "not defined: both always gave the same score"
    word = next(word for bound, word in _BANDS if kappa.estimate <= bound)
    said = f"{word} agreement" if kappa.low > 0 else "no agreement that could not be chance"
    if n < ENOUGH:
        said += f", but {n} labels are too few to be sure"
    if abs(bias) >= 0.5:
        said += f"; the judge gives {abs(bias):.1f} {'more' if bias > 0 else 'less'} than people"
    return said
