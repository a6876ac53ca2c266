"""How far generated series are from real ones: feature by feature, and whether trees can tell them apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.timeseries.features import features, ks, matrix, mean_ks, nearest

Values = NDArray[np.float64]
CORE = ("acf_1", "acf_24", "daily_strength", "weekly_strength", "diff_sd", "skew", "kurtosis", "spectral_entropy")
_WORST = 5
_DRAWS = 3
_FEWEST = 20
"""Series on either side below which trees tell nothing."""


def realism(values: Values, reference: Values, day: int = 24, seed: int = 0) -> dict[str, Any]:
    """Rows ``what, estimate, floor, sd, n, means`` (JSON-safe): the mean KS distance over 49 features and the AUC of trees
    that tell generated from real by 49 and by 8 of them, each beside what halves of the reference have against each other;
    the features furthest apart; and how near the closest real series are. What cannot be measured is None with ``why``.

    Parameters
    ----------
    values, reference : series of one frequency and length, shape (n, length), without nulls; constant ones are left out.
    day : points of a day.
    """
    kept = [each[np.ptp(each, axis=1) > 1e-14 * np.abs(each).max(axis=1)] for each in (values, reference)]
    length = min(each.shape[1] for each in kept)
    made, real = (features(each[:, :length], day) for each in kept)
    n = [len(each) for each in kept]
    rng = np.random.default_rng(seed)
    few = f"{_FEWEST} series on either side are needed, there are {n[0]} and {n[1]}" if min(n) < _FEWEST else None
    halves = [np.array_split(rng.permutation(n[1]), 2) for _ in range(0 if few else _DRAWS)]

    def row(what: str, measure: Any, means: str) -> dict[str, Any]:
        if few:
            return {"what": what, "estimate": None, "floor": None, "sd": None, "n": n[0], "means": means, "why": few}
        apart = [measure(_of(real, one), _of(real, other)) for one, other in halves]
        found = {"estimate": measure(made, real), "floor": np.mean(apart), "sd": np.std(apart)}
        rounded = {name: round(float(value), 3) for name, value in found.items()}
        return {"what": what, **rounded, "n": n[0], "means": means, "why": None}

    by_feature = sorted(((round(ks(made[name], real[name]), 3), name) for name in real), reverse=True)
    near = [float(np.median(nearest(one, real))) for one in (made, real)] if min(n) > 1 else [None, None]
    return {
        "rows": [
            row("mean KS over 49 features", mean_ks, "0: each feature is distributed alike, 1: none overlaps"),
            row("AUC, 49 features", lambda a, b: _auc(a, b, tuple(real), rng), "0.5: trees cannot tell them apart"),
            row("AUC, 8 features", lambda a, b: _auc(a, b, CORE, rng), "0.5: trees cannot tell them apart"),
        ],
        "furthest": [{"feature": name, "ks": apart} for apart, name in by_feature[:_WORST]],
        "nearest": {name: None if d is None else round(d, 3) for name, d in zip(("generated to real", "real to real"), near, strict=True)},
        "series": {"generated": n[0], "real": n[1]},
    }  # fmt: skip


def _of(found: dict[str, Values], rows: NDArray[np.int_]) -> dict[str, Values]:
    return {name: value[rows] for name, value in found.items()}


def _auc(one: dict[str, Values], other: dict[str, Values], names: tuple[str, ...], rng: np.random.Generator) -> float:
    """Out of fold (5), both sides as many: of the larger some are drawn, three times."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    sides = [matrix({name: each[name] for name in names}) for each in (one, other)]
    fewest = min(len(side) for side in sides)
    found = []
    for draw in range(_DRAWS if len(sides[0]) != len(sides[1]) else 1):
        x = np.concatenate([side[rng.permutation(len(side))[:fewest]] for side in sides])
        y = np.repeat([1, 0], fewest)
        folds = StratifiedKFold(5, shuffle=True, random_state=draw)
        trees = ExtraTreesClassifier(60, min_samples_leaf=2, random_state=draw)
        found.append(roc_auc_score(y, cross_val_predict(trees, x, y, cv=folds, method="predict_proba")[:, 1]))
    return float(np.mean(found))
