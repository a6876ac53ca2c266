"""People's scores: a sheet for each reviewer of a stratified sample, how far they agree, labels for the judge."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.dataset import Dataset
from genesis_lab.dataset.columns import safe_cell
from genesis_lab.dataset.sources import read_rows
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import check_free, resolve, shown, write_atomically
from genesis_lab.stats import Interval, percentile_interval, proportion_interval
from genesis_lab.validation.judge import Rubric, drawn, reading_of, score_of, weighted_kappa

SAMPLE = 50
Row = dict[str, Any]


def write_sheets(
    dataset: Dataset, folder: str | Path, reviewers: Sequence[str], rubric: Rubric, *, n: int = SAMPLE, seed: int = 0
) -> list[Path]:
    """A CSV for each reviewer, ``<dataset>_<reviewer>.csv``: the same `n` records in proportion to label and language,
    with a column for each criterion.
    """
    facets = get_domain(dataset.domain).facets
    if facets.texts is None or facets.label is None:
        raise InvalidInput(f"The rubric is for conversations, {dataset.name} is a dataset of {dataset.domain}.")
    rows, cases = drawn(dataset, n, seed, set())
    names = ("id", "language", "label", "said")
    table = pd.DataFrame([[cases[row][name] for name in names] for row in rows], columns=names)
    table["said"] = ["\n".join(f"{who}: {text}" for who, text in said) for said in table["said"]]
    table = table.rename(columns={"id": "record_id", "said": "text"}).assign(
        **{one.name: "" for one in rubric.criteria}
    )
    paths = [resolve(folder) / f"{dataset.name}_{reviewer}.csv" for reviewer in dict.fromkeys(reviewers)]
    for path in paths:
        check_free(path, replace=False, ours=Path.is_file)
    for path in paths:
        _write(table, path)
    return paths


def read_sheets(paths: Sequence[str | Path], rubric: Rubric) -> list[Row]:
    """The scores in sheets that were filled in: ``record_id``, ``criterion``, ``score``, ``rater`` (a sheet's name)."""
    names, found = [criterion.name for criterion in rubric.criteria], list[Row]()
    for path in map(resolve, paths):
        if not path.is_file():
            raise InvalidInput(f"There is no sheet {shown(path)}.")
        for row in read_rows(path):
            said, at = row.value or {}, f"Line {row.number + 1} of {shown(path)}"
            if not said.get("record_id") or not set(names) <= said.keys():
                raise InvalidInput(f"{at} must have a record_id and {', '.join(names)}, as the sheet was written.")
            for name in names:
                if not str(given := said[name] or "").strip():
                    continue
                score = score_of(given)
                if score is None:
                    raise InvalidInput(f"{at} must give {name} a whole score from 1 to 5, got {given!r}.")
                found.append({"record_id": said["record_id"], "criterion": name, "score": score, "rater": path.stem})
    if not found:
        raise InvalidInput("No sheet holds a score yet.")
    return found


def agreement(scores: Sequence[Row]) -> list[Row]:
    """How far each two reviewers agree on each criterion: share of ``same`` scores, weighted ``kappa``, in words."""
    table, rows = pd.DataFrame(scores).drop_duplicates(["criterion", "rater", "record_id"], keep="last"), list[Row]()
    for name, of in table.groupby("criterion", sort=False):
        given = of.pivot(index="record_id", columns="rater", values="score").reindex(columns=table["rater"].unique())
        for a, b in combinations(sorted(given), 2):
            both = given[[a, b]].dropna().to_numpy(dtype=int)
            found = weighted_kappa(*both.T) if len(both) else None
            row = {"criterion": name, "reviewers": f"{a}, {b}", "n": len(both), "kappa": found and found.to_dict()}
            row["same"] = float((both[:, 0] == both[:, 1]).mean()) if len(both) else None
            reading = reading_of(found, len(both), 0.0) if len(both) else "no record was scored by both"
            rows.append(row | {"reading": reading})
    return rows


def named_alike(given: Mapping[str, Mapping[str, str]], seed: int = 0) -> Row:
    """How far people agree on the name of each item; `given` is item to person to name.

    ``coefficient`` is Cohen's kappa (1960) of two people, Krippendorff's alpha (2011, nominal) of more; ``ac1`` (Gwet
    2008) stands beside it, as both collapse where one name prevails. Intervals of alpha and AC1 by bootstrap over
    items. ``same`` is the share of the `n` items with several names that have but one. None where that can't be told,
    see ``reading``.
    """
    both = [said for said in given.values() if len(said) > 1]
    people = sorted({who for said in both for who in said})
    names = sorted({name for said in given.values() for name in said.values()})
    measure = "Cohen's kappa" if len(people) == 2 else "Krippendorff's alpha"
    row: Row = {"people": ", ".join(people), "n": len(both), "measure": measure}
    if not both:
        return row | {"same": None, "coefficient": None, "ac1": None, "reading": "nothing was named by two people"}
    counts = np.array([[list(said.values()).count(name) for name in names] for said in given.values()], dtype=float)
    rng, several = np.random.default_rng(seed), len(names) > 1
    drawn = [counts[rng.integers(0, len(counts), len(counts))] for _ in range(1_000 if several else 0)]

    def interval(of: Callable[[NDArray[np.float64]], float]) -> Interval | None:
        values = [value for c in drawn if c.sum(axis=1).max() > 1 and np.isfinite(value := of(c))]
        return percentile_interval(of(counts), values, len(both), scale=(-1.0, 1.0)) if values else None

    with np.errstate(invalid="ignore", divide="ignore"):
        found, ac1 = interval(_alpha), interval(_ac1)
    if len(people) == 2 and several:
        ours, theirs = (np.array([1 + names.index(said[who]) for said in both]) for who in people)
        found = weighted_kappa(ours, theirs, weights=None)
    alike = sum(len(set(said.values())) == 1 for said in both)
    same = Interval(alike / len(both), *proportion_interval(alike, len(both)), len(both))
    measured = {name: one and one.to_dict() for name, one in (("same", same), ("coefficient", found), ("ac1", ac1))}
    return row | measured | {"reading": reading_of(found, len(both), 0.0) if several else "everything got one name"}


def _alpha(counts: NDArray[np.float64]) -> float:
    """Krippendorff's alpha of nominal data; `counts` (items, names) says how many people gave which name."""
    paired = counts[counts.sum(axis=1) > 1]
    each, n = paired.sum(axis=1), paired.sum()
    apart = ((each**2 - (paired**2).sum(axis=1)) / (each - 1)).sum()
    return float(1 - (n - 1) * apart / (n**2 - (paired.sum(axis=0) ** 2).sum()))


def _ac1(counts: NDArray[np.float64]) -> float:
    """Gwet's AC1 of `counts` (items, names); items that one person named count for how frequent names are."""
    each = counts.sum(axis=1)
    paired, m, share = counts[each > 1], each[each > 1], (counts / each[:, None]).mean(axis=0)
    chance = (share * (1 - share)).sum() / (len(share) - 1)
    return float((((paired * (paired - 1)).sum(axis=1) / (m * (m - 1))).mean() - chance) / (1 - chance))


def write_labels(scores: Sequence[Row], path: str | Path, *, replace: bool = False) -> Path:
    """The CSV that the judge is held against (parameter human_labels of the notebook that validates)."""
    check_free(target := resolve(path), replace=replace, ours=Path.is_file)
    _write(pd.DataFrame(scores, columns=["record_id", "criterion", "score", "rater"]), target)
    return target


def _write(table: pd.DataFrame, path: Path) -> None:
    write_atomically(path, "\ufeff" + table.astype(str).map(safe_cell).to_csv(index=False))
