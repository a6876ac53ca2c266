"""Priors that learn what a user's own series look like: global moves only, so that no series is copied."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains.timeseries.kinds import ODDITY, Kind, Moves, drawn, families, kinds, known_moves
from genesis_lab.domains.timeseries.realism import SEASON, features, mean_ks, nearest
from genesis_lab.domains.timeseries.render import render
from genesis_lab.domains.timeseries.tables import filled
from genesis_lab.errors import InvalidInput

Values = NDArray[np.float64]
FEWEST = 20
"""Series from which priors may be tuned."""
_SHORTEST = 168
_DRAWN = 160
_POPULATION = 20
_PENALTY = 0.0005
"""What moving far from the priors costs, per squared spread."""
_ERROR = 0.6
"""What an error as large as that of the daily naive forecast costs, beside a mean KS of 1."""
_KNOWN = "electricity_clients"
"""Priors that the search starts from, where they are nearer than those set by hand."""


def tune_priors(
    reference: Values,
    chosen: Mapping[str, Kind],
    *,
    start: str,
    frequency: str = "1h",
    error: Callable[[Values], float] | None = None,
    seconds: float = 110.0,
    generations: int = 1000,
) -> dict[str, Any]:
    """Moves of the priors that bring the features of generated series closest to those of `reference` (mean KS).

    Parameters
    ----------
    reference : real series of shape (n, length), n >= 20, without nulls.
    chosen : kinds to generate, in proportion to their shares.
    start : the first stamp of them, UTC.
    error : how badly what is learnt from given series forecasts the reference, about 1; features do not see all that a
        forecaster learns from.
    seconds, generations : the search ends at whichever comes first.

    Returns
    -------
    ``moves`` of the kinds ``types`` for a file of priors; ``mean_ks`` before and after on fresh series; ``nearest``:
    medians of how far a generated series is from the closest real one, and a real one from the closest other (features,
    in spreads).
    """
    if len(reference) < FEWEST:
        raise InvalidInput(f"Priors are tuned to {FEWEST} series or more, got {len(reference)}.")
    day = SEASON[frequency]
    real = features(reference, day)
    families_of = dict.fromkeys(kind.family for kind in chosen.values())
    names = [f"{family}.{name}" for family in families_of for name in families()[family]] + [ODDITY]
    rng = np.random.default_rng(0)

    def made(moves: Moves, draw: int) -> Values:
        return sample(chosen, moves, start, frequency, reference.shape[1], draw)

    def score(moved: Values, draw: int) -> float:
        values = made(_moves(names, moved), draw)
        far = mean_ks(features(values, day), real) + _PENALTY * float((moved**2).mean())
        return far + (_ERROR * error(values) if error else 0.0)

    known = next(iter(known_moves(_KNOWN, kinds()).values()))
    begins = [np.zeros(3 * len(names)), _place(known, names)]
    began = time.monotonic()
    begin = min(begins, key=lambda x: score(x, 0))
    search = _Search(begin, rng, 0.2 if begin.any() else 0.5)  # near a good start smaller steps
    for _ in range(generations):
        if time.monotonic() - began > seconds:
            break
        tried = search.ask()
        draw = int(rng.integers(2**31))
        search.tell(tried, [score(x, draw) for x in tried])
    moves = _moves(names, search.mean)
    before, after = (features(made(each, -1), day) for each in ({}, moves))
    return {
        "types": list(chosen),
        "moves": {name: [round(number, 4) for number in move] for name, move in moves.items()},
        "mean_ks": {"before": round(mean_ks(before, real), 4), "after": round(mean_ks(after, real), 4)},
        "nearest": {"generated to real": nearest(after, real), "real to real": nearest(real, real)},
        "series": len(reference),
        "seconds": round(time.monotonic() - began, 1),
    }


def comparable(records: Iterable[Mapping[str, Any]]) -> tuple[Values, str, str, str]:
    """Series that priors can be tuned to, of one length; their start, their frequency and, said, what was left out.

    Kept are those of the most common frequency, at least half as long as the middle one, not constant and with at most
    30 % nulls, which are filled linearly; the longer ones are cut to the shortest kept.
    """
    usable, read = [], 0
    for record in records:
        read += 1
        values = np.array(record.get("target") or (), dtype=float)  # None becomes NaN
        if (whole := filled(values)) is not None and np.ptp(whole) > 0:
            usable.append((record.get("frequency") or "1h", str(record.get("start") or "2024-01-01"), whole))
    frequency = Counter(each[0] for each in usable).most_common(1)[0][0] if usable else "1h"
    least = max(_SHORTEST, np.median([len(each[2]) for each in usable]) / 2) if usable else _SHORTEST
    kept = [each for each in usable if each[0] == frequency and len(each[2]) >= least]
    if len(kept) < FEWEST or frequency not in SEASON:
        fit = f"{len(kept)} of the {read} are of frequency {frequency}, have {least:g} values or more"
        also = "do not stand still and lack at most 30 % of their values"
        raise InvalidInput(f"Priors are tuned to {FEWEST} series or more: {fit}, {also}.")
    length = min(len(each[2]) for each in kept)
    said = f"{len(kept)} of {read} series, every {frequency}, the first {length:,} values of each"
    return np.stack([each[2][:length] for each in kept]), min(each[1] for each in kept), frequency, said


def records_of(values: Values, start: str, frequency: str) -> Iterable[dict[str, Any]]:
    """Bare series as records."""
    return ({"target": row, "start": start, "frequency": frequency} for row in values.tolist())


def sample(
    chosen: Mapping[str, Kind], moves: Moves, start: str, frequency: str, length: int, seed: int, n: int = _DRAWN
) -> Values:
    """`n` series by UTC, of the kinds in proportion to their shares, drawn from moved priors."""
    rng, shares = np.random.default_rng([seed % 2**32, 7]), np.array([kind.share for kind in chosen.values()])
    ends = np.round(np.cumsum(shares / shares.sum()) * n).astype(int)
    made = []
    for kind, many in zip(chosen.values(), np.diff(ends, prepend=0).tolist(), strict=True):
        recipe = drawn(kind, rng.standard_normal((many, len(families()[kind.family]) + 2)), moves)
        recipe["level"], seeds = np.full(many, kind.level[1]), rng.integers(2**31, size=many).tolist()
        if many:
            made.append(render(kind, recipe, [(start, "UTC", "", 40.0)] * many, frequency, length, seeds))
    return np.concatenate(made)


def _moves(names: list[str], x: Values) -> Moves:
    shift, widened, along = x.reshape(-1, 3).T
    found = dict(zip(names, np.stack([shift, widened, np.tanh(along)], axis=1).tolist(), strict=True))
    return found | {ODDITY: (abs(found[ODDITY][0]),)}


def _place(moves: Moves, names: list[str]) -> Values:
    x = np.array([(*moves.get(name, ()), 0.0, 0.0, 0.0)[:3] for name in names])
    x[:, 2] = np.arctanh(x[:, 2].clip(-0.99, 0.99))
    return x.ravel()


class _Search:
    """Separable CMA-ES (Ros & Hansen 2008): a normal distribution that moves and, along each axis, widens by ranks."""

    def __init__(self, mean: Values, rng: np.random.Generator, step: float = 0.5) -> None:
        n = len(mean)
        self.mean, self.step, self._rng = mean.copy(), step, rng
        self._variance, self._step_path, self._path = np.ones(n), np.zeros(n), np.zeros(n)
        weights = np.log(_POPULATION / 2 + 0.5) - np.log(np.arange(1, _POPULATION // 2 + 1))
        self._weights = weights / weights.sum()
        self._mass = 1 / (self._weights**2).sum()
        self._rate = (self._mass + 2) / (n + self._mass + 5)
        self._damping = 1 + 2 * max(0.0, np.sqrt((self._mass - 1) / (n + 1)) - 1) + self._rate
        self._along = 4 / (n + 4)
        self._one = (n + 2) / 3 * 2 / ((n + 1.3) ** 2 + self._mass)
        self._many = min(
            1 - self._one, (n + 2) / 3 * 2 * (self._mass - 2 + 1 / self._mass) / ((n + 2) ** 2 + self._mass)
        )

    def ask(self) -> list[Values]:
        """Points to try."""
        return [
            self.mean + self.step * np.sqrt(self._variance) * self._rng.standard_normal(len(self.mean))
            for _ in range(_POPULATION)
        ]

    def tell(self, tried: list[Values], losses: list[float]) -> None:
        """What they cost."""
        n = len(self.mean)
        best = [tried[i] for i in np.argsort(losses)[: len(self._weights)]]
        steps = np.array([(x - self.mean) / self.step for x in best])
        move = self._weights @ steps
        self.mean = self.mean + self.step * move
        keep = np.sqrt(self._rate * (2 - self._rate) * self._mass)
        self._step_path = (1 - self._rate) * self._step_path + keep * move / np.sqrt(self._variance)
        self._path = (1 - self._along) * self._path + np.sqrt(self._along * (2 - self._along) * self._mass) * move
        spread = self._weights @ steps**2
        self._variance = (1 - self._one - self._many) * self._variance + self._one * self._path**2 + self._many * spread
        expected = np.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
        self.step *= float(np.exp(self._rate / self._damping * (np.linalg.norm(self._step_path) / expected - 1)))
