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

    def made(moves: Moves, draw: int) -> Values:
        return sample(chosen, moves, start, frequency, reference.shape[1], draw)

    def score(moved: Values, draw: int) -> float:
        values = made(_moves(names, moved), draw)
        far = mean_ks(features(values, day), real) + _PENALTY * float((moved**2).mean())
        return far + (_ERROR * error(values) if error else 0.0)

    known = next(iter(known_moves(_KNOWN, kinds()).values()))
    began = time.monotonic()
    begin = min((np.zeros(3 * len(names)), _place(known, names)), key=lambda x: score(x, 0))
    step = 0.2 if begin.any() else 0.5  # near a good start smaller steps
    moves = _moves(names, _searched(score, begin, step, seconds, generations))
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


def _searched(
    score: Callable[[Values, int], float], mean: Values, step: float, seconds: float, generations: int
) -> Values:
    """A point of less `score`, by an evolution strategy that adapts its step (Hansen & Ostermeier 2001)."""
    n, rng, path, began = len(mean), np.random.default_rng(0), np.zeros(len(mean)), time.monotonic()
    weights = np.log(_POPULATION / 2 + 0.5) - np.log(np.arange(1, _POPULATION // 2 + 1))
    weights /= weights.sum()
    mass = 1 / (weights**2).sum()
    rate = (mass + 2) / (n + mass + 5)
    for _ in range(generations):
        if time.monotonic() - began > seconds:
            break
        tried, draw = rng.standard_normal((_POPULATION, n)), int(rng.integers(2**31))
        losses = [score(mean + step * away, draw) for away in tried]
        move = weights @ tried[np.argsort(losses)[: len(weights)]]
        mean = mean + step * move
        path = (1 - rate) * path + np.sqrt(rate * (2 - rate) * mass) * move
        step *= float(np.exp(rate / (1 + rate) * (np.linalg.norm(path) / np.sqrt(n) - 1)))
    return mean
