"""How far a judge and people agree."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genesis_lab.errors import InvalidInput
from genesis_lab.paths import resolve, shown
from genesis_lab.stats import Interval, percentile_interval, weighted_kappa
from genesis_lab.validation.rubric import Rubric, as_number

ENOUGH = 30
"""Labels below which an agreement says little, however high."""

_BANDS = ((0.0, "no"), (0.2, "slight"), (0.4, "fair"), (0.6, "moderate"), (0.8, "substantial"), (2.0, "near-perfect"))
"""Landis and Koch 1977, table 2."""


@dataclass(frozen=True)
class Agreement:
    """Judge against people on one criterion. `kappa` has quadratic weights; `same` is the share of equal scores."""

    name: str
    n: int
    kappa: Interval | None
    same: float
    bias: float
    reading: str


def read_labels(path: str | Path, rubric: Rubric) -> dict[tuple[str, str], float]:
    """Scores that people gave: a CSV with the columns ``record_id``, ``criterion`` and ``score``.

    Several scores of one record and criterion become their mean; rows without a score are left out.

    Raises
    ------
    InvalidInput : no such file, columns are missing, an unknown criterion, or a score outside 1 to 5.
    """
    source = resolve(path)
    if not source.is_file():
        raise InvalidInput(f"There is no file of human labels {shown(source)}.")
    names = {criterion.name for criterion in rubric.criteria}
    given: dict[tuple[str, str], list[float]] = {}
    with source.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if not {"record_id", "criterion", "score"} <= set(rows.fieldnames or ()):
            raise InvalidInput(f"{shown(source)} must have the columns record_id, criterion and score.")
        for number, row in enumerate(rows, start=2):
            if not (row["score"] or "").strip():
                continue
            score = as_number(row["score"])
            if row["criterion"] not in names or score is None or not 1 <= score <= 5:
                raise InvalidInput(
                    f"Line {number} of {shown(source)} must give one of {', '.join(sorted(names))} a score from 1 to 5, "
                    f"got {row['criterion']!r} and {row['score']!r}."
                )
            given.setdefault((row["record_id"], row["criterion"]), []).append(score)
    return {key: float(np.mean(scores)) for key, scores in given.items()}


def agreements(
    rubric: Rubric,
    labels: Mapping[tuple[str, str], float],
    scored: Mapping[str, Mapping[str, int]],
    rng: np.random.Generator,
) -> Iterator[Agreement]:
    """The agreement on every criterion that people have scored.

    Parameters
    ----------
    labels : `(record id, criterion)` to score, see `read_labels`.
    scored : record id to what the judge gave.
    """
    for criterion in rubric.criteria:
        pairs = [
            (scored[record_id][name], score)
            for (record_id, name), score in labels.items()
            if name == criterion.name and record_id in scored
        ]
        if not pairs:
            continue
        model, human = np.array(pairs, dtype=float).T
        estimate, kappa = weighted_kappa(model, human), None
        if estimate is not None:
            drawn = rng.integers(len(pairs), size=(2000, len(pairs)))
            replicates = [k for i in drawn if (k := weighted_kappa(model[i], human[i])) is not None]
            kappa = percentile_interval(estimate, replicates, len(pairs))
        yield Agreement(
            name=criterion.name,
            n=len(pairs),
            kappa=kappa,
            same=float((model == human).mean()),
            bias=float((model - human).mean()),
            reading=_reading(kappa, len(pairs), float((model - human).mean())),
        )


def _reading(kappa: Interval | None, n: int, bias: float) -> str:
    if kappa is None:
        return "not defined: everybody always gave the same score"
    word = next(word for bound, word in _BANDS if kappa.estimate <= bound)
    said = f"{word} agreement" if kappa.low > 0 else "no agreement that could not be chance"
    if n < ENOUGH:
        said += f", but {n} labels are too few to be sure"
    if abs(bias) >= 0.5:
        said += f"; the judge gives {abs(bias):.1f} {'more' if bias > 0 else 'less'} than people"
    return said
