"""People's scores: a sheet for each reviewer of a stratified sample, how far they agree, and the labels that the judge takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset
from genesis_lab.dataset.sources import read_rows
from genesis_lab.dataset.spreadsheet import safe_cell
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import check_free, resolve, shown, write_atomically
from genesis_lab.validation.judge import Rubric, drawn, reading_of, score_of, weighted_kappa

SAMPLE = 50
Row = dict[str, Any]


def write_sheets(
    dataset: Dataset, folder: str | Path, reviewers: Sequence[str], rubric: Rubric, *, n: int = SAMPLE, seed: int = 0
) -> list[Path]:
    """A CSV for each reviewer, ``<dataset>_<reviewer>.csv``: the same `n` records in proportion to label and language, a column a criterion."""
    facets = get_domain(dataset.domain).facets
    if facets.texts is None or facets.label is None:
        raise InvalidInput(f"The rubric is for conversations, {dataset.name} is a dataset of {dataset.domain}.")
    rows, cases = drawn(dataset, n, seed, set())
    names = [criterion.name for criterion in rubric.criteria]
    lines = [["record_id", "language", "label", "text", *names]]
    for case in (cases[row] for row in rows):
        said = "\n".join(f"{who}: {text}" for who, text in case["said"])
        lines.append([case["id"], case["language"], case["label"], said, *("" for _ in names)])
    paths = [resolve(folder) / f"{dataset.name}_{reviewer}.csv" for reviewer in dict.fromkeys(reviewers)]
    for path in paths:
        check_free(path, replace=False, ours=Path.is_file)
    for path in paths:
        write_atomically(path, "\ufeff" + _csv(lines))
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
    """How far each two reviewers agree on each criterion: share of ``same`` scores, weighted ``kappa`` and what it says."""
    given = {(row["criterion"], row["rater"], row["record_id"]): row["score"] for row in scores}
    raters, rows = sorted({row["rater"] for row in scores}), list[Row]()
    for name, (a, b) in product(dict.fromkeys(row["criterion"] for row in scores), combinations(raters, 2)):
        ids = [one for what, who, one in given if (what, who) == (name, a) and (name, b, one) in given]
        ours, theirs = (np.array([given[name, who, one] for one in ids]) for who in (a, b))
        found = weighted_kappa(ours, theirs) if ids else None
        row = {"criterion": name, "reviewers": f"{a}, {b}", "n": len(ids), "kappa": found and found.to_dict()}
        row["same"] = float((ours == theirs).mean()) if ids else None
        rows.append(row | {"reading": reading_of(found, len(ids), 0.0) if ids else "no record was scored by both"})
    return rows


def write_labels(scores: Sequence[Row], path: str | Path, *, replace: bool = False) -> Path:
    """The CSV that the judge is held against (parameter human_labels of the notebook that validates)."""
    check_free(target := resolve(path), replace=replace, ours=Path.is_file)
    columns = ("record_id", "criterion", "score", "rater")
    write_atomically(target, _csv([columns, *([row[name] for name in columns] for row in scores)]))
    return target


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows([safe_cell(str(cell)) for cell in row] for row in rows)
    return text.getvalue()
