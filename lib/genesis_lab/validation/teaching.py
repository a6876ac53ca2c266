"""How good a set of teacher examples is: the score of each, what a higher bar would leave, and who is in which split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from genesis_lab.validation.audit import audit, role_of

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

THRESHOLDS = tuple(round(float(t), 2) for t in np.linspace(0.5, 1, 11))
"""Minimum scores that are compared."""


def example_scores(dataset: Dataset) -> pd.DataFrame:
    """One row per record: split, language, group, teacher, ``score``, ``valid`` and the named parts of the score.

    Raises
    ------
    InvalidInput : the dataset is not one of a role.
    """
    role = role_of(dataset)
    rows: list[dict[str, Any]] = []
    for split in dataset.counts:
        for batch in dataset.batches(split=split):
            for record in batch.to_pylist():
                example = role.example(record)
                score = role.score(example.answer, example)
                made = record.get("provenance") or {}
                teacher = f"{made.get('provider') or 'unknown'} ({made.get('model') or '?'})"
                row = {"split": split, "language": example.language, "group": example.group, "teacher": teacher}
                rows.append(row | {"score": score.total, "valid": score.valid} | dict(score.parts))
    return pd.DataFrame(rows)


def teaching_report(dataset: Dataset) -> dict[str, Any]:
    """What a user asks of teacher data before a student is taught with it; JSON-safe.

    Returns
    -------
    ``scores`` (mean score, share valid, mean of each part), ``thresholds`` (answers that each minimum score would have
    accepted, those the run turned away included), ``splits``, ``teachers`` and the ``audit``.
    """
    scores = example_scores(dataset)
    away = {float(score): int(n) for score, n in dataset.manifest.get("rejected_scores", {}).items()}
    every = np.array([*scores.get("score", []), *np.repeat(list(away), list(away.values()))])
    parts = [name for name in scores.columns if name not in ("split", "language", "group", "teacher", "score", "valid")]
    return {
        "domain": dataset.domain,
        "records": len(scores),
        "min_score": (dataset.manifest.get("config") or {}).get("min_score"),
        "scores": {"mean": _mean(scores, "score"), "valid": _mean(scores, "valid")}
        | {"parts": {name: _mean(scores, name) for name in parts}},
        "thresholds": [
            {"min_score": t, "accepted": int((every >= t - 1e-9).sum()), "answers": len(every)} for t in THRESHOLDS
        ],
        "splits": [_split(name, rows) for name, rows in scores.groupby("split", sort=False)] if len(scores) else [],
        "teachers": scores["teacher"].value_counts().to_dict() if len(scores) else {},
        "audit": audit(dataset).to_dict(),
    }


def _mean(scores: pd.DataFrame, name: str) -> float | None:
    return round(float(scores[name].mean()), 4) if len(scores) else None


def _split(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    found = {"split": name, "examples": len(rows), "concept groups": int(rows["group"].nunique())}
    return found | {language: int(n) for language, n in sorted(rows["language"].value_counts().items())}
