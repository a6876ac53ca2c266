"""Label equivalence: how many real labelled examples per intent give the same accuracy?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Equivalence:
    """The number of real examples per intent that teach as much as the synthetic set.

    `k`, `low` and `high` are None where they lie outside the k that were tried: above `largest_k`, or, when
    `below` / `low_below` / `high_below`, under `smallest_k`.
    """

    k: float | None
    low: float | None
    high: float | None
    smallest_k: float
    largest_k: float
    below: bool
    low_below: bool
    high_below: bool

    def __str__(self) -> str:
        def shown(k: float | None, below: bool) -> str:
            if k is not None:
                return f"{k:.1f}"
            return f"fewer than {self.smallest_k:g}" if below else f"more than {self.largest_k:g}"

        interval = f"[{shown(self.low, self.low_below)}–{shown(self.high, self.high_below)}]"
        return f"worth {shown(self.k, self.below)} {interval} real labelled examples per intent"


def label_equivalence(
    synthetic: NDArray[np.bool_],
    real: Mapping[float, NDArray[np.bool_]],
    weights: NDArray[np.float32],
    rng: np.random.Generator,
) -> Equivalence:
    """Where the accuracy of the synthetic set meets the k-shot curve, interpolated linearly on log k.

    The interval is a percentile bootstrap over test items, the same for both sides, and over the draws of each k.

    Parameters
    ----------
    synthetic : whether each test item is answered correctly after training on the synthetic set; shape (items,).
    real : for each k, the same after training on real examples; shape (draws, items).
    weights : how often each replicate holds each item; shape (replicates, items).
    """
    ks = np.array(sorted(real))
    curve, replicates = [], []
    for k in ks:
        rows = real[k].astype(np.float32)
        per_draw = weights @ rows.T
        chosen = rng.integers(len(rows), size=per_draw.shape)
        replicates.append(np.take_along_axis(per_draw, chosen, axis=1).mean(axis=1) / rows.shape[1])
        curve.append(rows.mean())
    accuracy = float(synthetic.mean())
    k = _inverse(accuracy, np.array(curve), ks)
    bootstrap = [
        _inverse(float(a), c, ks)
        for a, c in zip(weights @ synthetic.astype(np.float32) / len(synthetic), np.array(replicates).T, strict=True)
    ]
    low, high = np.quantile(bootstrap, [0.025, 0.975], method="inverted_cdf")
    return Equivalence(
        k=_finite(k),
        low=_finite(low),
        high=_finite(high),
        smallest_k=float(ks[0]),
        largest_k=float(ks[-1]),
        below=bool(k == 0),
        low_below=bool(low == 0),
        high_below=bool(high == 0),
    )


def _inverse(accuracy: float, curve: NDArray[np.floating], ks: NDArray[np.floating]) -> float:
    """The k at which the curve reaches `accuracy`: 0 when its first point is above, infinity when it never does.

    A dip in the curve is noise (more real data does not teach less), so its running maximum is used.
    """
    rising = np.maximum.accumulate(curve)
    if accuracy < rising[0]:
        return 0.0
    if accuracy > rising[-1]:
        return float("inf")
    after = int(np.searchsorted(rising, accuracy))
    if rising[after] == accuracy or after == 0:
        return float(ks[after])
    share = (accuracy - rising[after - 1]) / (rising[after] - rising[after - 1])
    return float(np.exp(np.log(ks[after - 1]) + share * np.log(ks[after] / ks[after - 1])))


def _finite(k: float) -> float | None:
    return float(k) if 0 < k < np.inf else None
