"""Which records to add: the fewest that bring counts back to their target, or two attributes apart."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd

from genesis_lab.bias.checks import contingency
from genesis_lab.bias.counts import RECORDS
from genesis_lab.bias.report import Addition, Coverage, Fit
from genesis_lab.bias.significance import expected_counts

MOST_RECORDS = 1_000_000
"""Most records of one addition."""

STEERED = ("language", "sentiment", "complexity", "resolution_status")
"""Attributes whose shares the options of domain ``conversations`` set."""

_TOPICS = ("intent", "category")
_MOST_CATEGORIES = 3
_BULK = 0.8
"""Share of what is missing that a few categories must hold for the recommendation to name them."""


def towards_target(fit: Fit) -> tuple[Addition, ...]:
    """Records that bring an attribute to its target; of intents and categories, those that fill up the sparse ones."""
    if fit.attribute in _TOPICS:
        return _filled({value: -gap for value, gap in fit.differences.items()}, fit.attribute)
    n = sum(fit.observed[value] for value, share in fit.target.items() if share)
    records = _rounded_up(max(fit.observed[value] / share for value, share in fit.target.items() if share) - n)
    return (Addition(records, {fit.attribute: _shares_of_new(fit.observed, fit.target, records)}),) if records else ()


def towards_targets(joint: pd.DataFrame, fits: Sequence[Fit], off: Collection[str]) -> tuple[Addition, ...]:
    """The fewest records that bring all of `STEERED` to their targets at once, if `off` names any of them.

    One addition; or one per language where language and something else are off, as they would be tied together else.
    """
    targets = {fit.attribute: fit.target for fit in fits if fit.attribute in STEERED}
    wrong = [name for name in targets if name in off]
    if not wrong:
        return ()
    parts: list[tuple[dict[str, dict[str, float]], float, pd.DataFrame]] = [({}, 1.0, joint)]
    if "language" in wrong and len(wrong) > 1:
        wrong.remove("language")
        languages = targets.pop("language")
        parts = [({"language": {v: 1.0}}, s, joint[joint["language"] == v]) for v, s in languages.items() if s]
    seen = [{name: _counts(part, name, target) for name, target in targets.items()} for _, _, part in parts]
    shares = [share for _, share, _ in parts]
    sizes = [max(sum(counts[name].values()) for name in wrong) for counts in seen]
    needed = [size / share for size, share in zip(sizes, shares, strict=True)]
    needed += [
        n / targets[name][value] / share
        for counts, share in zip(seen, shares, strict=True)
        for name in wrong
        for value, n in counts[name].items()
    ]
    additions = []
    for (where, share, _), counts, size in zip(parts, seen, sizes, strict=True):
        if records := _rounded_up(max(needed) * share - size):
            rest = {name: _shares_of_new(counts[name], target, records) for name, target in targets.items()}
            additions.append(Addition(records, {**where, **rest}))
    return tuple(additions)


def into_missing_cells(found: Coverage, n: int, targets: Mapping[str, Mapping[str, float]]) -> tuple[Addition, ...]:
    """For each language, as many records of the intents it lacks as the plan gives them, one at least."""
    additions = []
    for language in dict.fromkeys(language for _, language in found.missing):
        intents = [intent for intent, where in found.missing if where == language]
        share = targets["language"][language]
        records = sum(max(1, round(targets["intent"][intent] * share * n)) for intent in intents)
        additions.append(
            Addition(records, {"language": {language: 1.0}, "intent": dict.fromkeys(intents, 1 / len(intents))})
        )
    return tuple(additions)


def towards_independence(joint: pd.DataFrame, a: str, b: str) -> tuple[Addition, ...]:
    """Records that fill the cells of `a` × `b` up to what independence would give, one addition per value of one of them."""
    table = contingency(joint, a, b)
    if a in _TOPICS or (b != "language" and a != "language" and table.shape[1] < table.shape[0]):
        table, a, b = table.T, b, a
    lacking = pd.DataFrame(expected_counts(table.to_numpy()) - table.to_numpy(), table.index, table.columns)
    additions = []
    for value, row in lacking.iterrows():
        for addition in _filled(row.to_dict(), b):
            where = {} if b in _TOPICS else _where(joint, a, str(value), b, addition)
            additions.append(Addition(addition.records, {a: {str(value): 1.0}, **addition.shares, **where}))
    return tuple(sorted(additions, key=lambda addition: -addition.records))


def _counts(joint: pd.DataFrame, name: str, target: Mapping[str, float]) -> dict[str, int]:
    """Records of each planned value."""
    counts = joint.groupby(name)[RECORDS].sum()
    return {value: int(counts.get(value, 0)) for value, share in target.items() if share}


def _rounded_up(records: float) -> int:
    return min(MOST_RECORDS, math.ceil(records - 1e-6))


def _shares_of_new(observed: Mapping[str, int], target: Mapping[str, float], records: int) -> dict[str, float]:
    """Shares of each value in `records` new ones that bring old and new together as near to the target as they can."""
    n = sum(observed.get(value, 0) for value, share in target.items() if share)
    lacking = {v: max(0.0, t * (n + records) - observed.get(v, 0)) for v, t in target.items() if t}
    whole = sum(lacking.values())
    return {v: lack / whole for v, lack in lacking.items() if lack > 1e-9 * whole} if whole else dict(target)


def _filled(lacking: Mapping[str, float], attribute: str) -> tuple[Addition, ...]:
    """One addition for the values that lack at least half as much as the one that lacks most."""
    most = max(lacking.values(), default=0.0)
    wanted = {str(value): lack for value, lack in lacking.items() if lack >= max(0.5, most / 2)}
    whole = sum(wanted.values())
    if not wanted:
        return ()
    even = attribute in _TOPICS
    shares = {value: 1 / len(wanted) if even else lack / whole for value, lack in wanted.items()}
    return (Addition(_rounded_up(whole), {attribute: shares}),)


def _where(joint: pd.DataFrame, a: str, value: str, b: str, addition: Addition) -> dict[str, dict[str, float]]:
    """The few categories in which the records of this addition are missing, if it is only a few."""
    known = joint.dropna(subset=[a, b, "category"])
    total = known.groupby("category")[RECORDS].sum()
    if not len(total):
        return {}
    inside = known[(known[a] == value) & known[b].isin(list(addition.shares[b]))]
    here = inside.groupby("category")[RECORDS].sum().reindex(total.index, fill_value=0)
    lacking = total * (float(here.sum()) + addition.records) / float(total.sum()) - here
    lacking = lacking[lacking > 0].sort_values(ascending=False, kind="stable")
    few = int(np.searchsorted(np.cumsum(lacking), _BULK * float(lacking.sum()))) + 1
    if few > _MOST_CATEGORIES or few >= len(total) / 2:
        return {}
    return {"category": dict.fromkeys(map(str, lacking.index[:few]), 1 / few)}
