"""Counts against a plan, against independence, and who is mentioned: rows of effects, intervals, adjusted p-values.

Effects are put on one scale, Cohen's w (Cohen 1988, section 7.2), so that one set of thresholds grades them all.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.bias import people
from genesis_lab.bias.sentences import Row
from genesis_lab.domains.base import Facets
from genesis_lab.errors import InvalidInput
from genesis_lab.stats import LEVEL, Interval, holm, proportion_interval, total_variation
from genesis_lab.texts import normal

SEVERITIES = ("none", "low", "medium", "high")
FEWEST_MENTIONS = 100
"""Fewer records than this say nothing about who appears."""
MOST_VALUES = 500
"""More distinct values than this are no categories."""
RECORDS = "records"
"""Column of a frame of counts."""
ENOUGH = 5
"""Smallest expected count for which chi-square is trusted (Cochran 1954)."""
OUTCOMES = 100_000
"""Most outcomes that the exact multinomial test lists."""
DRAWS = 4_999
"""Random tables of a Monte Carlo test."""

_SHOWN = 10
"""Most cells and words of a row."""
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Thresholds:
    """From which effect, on the scale of Cohen's w, a finding is low, medium and high; the defaults are Cohen's small,
    medium and large (1988, section 7.2.3). `alpha` is the adjusted p-value from which a difference may be chance.
    """

    low: float = 0.1
    medium: float = 0.3
    high: float = 0.5
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.medium <= self.high or not 0 < self.alpha < 1:
            raise InvalidInput(
                f"Thresholds must rise from above 0, and alpha lie between 0 and 1, got low {self.low:g}, "
                f"medium {self.medium:g}, high {self.high:g}, alpha {self.alpha:g}."
            )

    def severity(self, effect: float, p: float = 0.0) -> str:
        """How severe an effect is; none when its adjusted `p` says that it may be chance."""
        return SEVERITIES[sum(effect >= least for least in (self.low, self.medium, self.high)) * (p < self.alpha)]


@dataclass(frozen=True)
class Known:
    """What measuring needs: records by combination of attributes (`joint`), targets, `gaps`: what isn't measured."""

    facets: Facets
    joint: pd.DataFrame
    targets: Mapping[str, Mapping[str, float]]
    thresholds: Thresholds
    seed: int
    gaps: dict[str, str]

    def rng(self, *place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *place])


def frame(counts: Counter[Any], columns: Sequence[str]) -> pd.DataFrame:
    """Counts as a frame, values normal (nothing left: none), sorted: nothing depends on the order they came in."""
    tidy = cache(lambda value: (normal(value) or "").strip() or None)
    tidied = Counter[tuple[str | None, ...]]()
    for values, n in counts.items():
        tidied[tuple(map(tidy, values))] += n
    rows = [(*values, n) for values, n in tidied.items()]
    found = pd.DataFrame(rows, columns=[*columns, RECORDS]).astype(dict.fromkeys(columns, object) | {RECORDS: int})
    return found.sort_values([*columns], ignore_index=True, na_position="last")


def fits(known: Known) -> list[Row]:
    """Each attribute against its target.

    ``w`` is Cohen's, corrected for chance, over the planned values; ``total_variation`` the share of records to change;
    ``effect`` w or twice the share of unplanned values (total variation is at most w / 2).
    """
    found = []
    for place, attribute in enumerate(known.facets.attributes):
        counts = known.joint.groupby(attribute)[RECORDS].sum()
        n, target = int(counts.sum()), known.targets.get(attribute)
        if not target or not n:
            known.gaps[attribute] = f"no record has a value in {attribute}" if target else "no target"
            continue
        unplanned = {str(value): int(count) for value, count in counts.items() if not target.get(str(value))}
        observed = {value: int(counts.get(value, 0)) for value in target} | unplanned
        planned = [value for value, share in target.items() if share]
        seen = np.array([observed[value] for value in planned], dtype=np.int64)
        wanted = np.array([target[value] for value in planned], dtype=float)
        wanted /= wanted.sum()
        p, test = (0.0, "exact: values that can't occur do") if unplanned else fit_p(seen, wanted, known.rng(place))
        w = cohens_w(seen, wanted)
        effect = max(w.estimate, 2 * sum(unplanned.values()) / n)
        row: Row = {
            "attribute": attribute,
            "n": n,
            "missing": int(known.joint[RECORDS].sum()) - n,
            "target": dict(target),
            "observed": observed,
            "intervals": {value: list(proportion_interval(count, n)) for value, count in observed.items()},
            "unplanned": unplanned,
            "w": w.to_dict(),
            "effect": effect,
            "total_variation": total_variation(list(observed.values()), [target.get(v, 0.0) for v in observed]),
            "test": test,
            "p": p,
        }
        found.append(row | {"graded": max(effect, known.thresholds.low) if unplanned else effect})
    return _adjusted(found, known.thresholds)


def coverage(known: Known) -> Row | None:
    """Every planned cell of the pairs that should be filled: ``missing`` have no record (``empty``: the same by pair),
    ``thin`` less than half of their share.
    """
    empty: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    thin: list[tuple[str | int, ...]] = []
    planned, facets = 0, known.facets
    if not facets.covered:
        known.gaps["coverage"] = f"{facets.unit} have no attributes of which every pair of values should occur"
    for a, b in facets.covered:
        counts = known.joint.groupby([a, b])[RECORDS].sum()
        unknown = [name for name in (a, b) if name not in known.targets]
        if unknown or counts.empty:
            why = f"no target for {' and '.join(unknown)}" if unknown else f"no record has an {a} and a {b}"
            known.gaps["coverage"] = why
            continue
        shares = {(x, y): s * t for x, s in known.targets[a].items() for y, t in known.targets[b].items() if s and t}
        seen = {cell: int(counts.get(cell, 0)) for cell in shares}
        planned += len(shares)
        if lacking := [cell for cell, n in seen.items() if not n]:
            empty[a, b] = [*lacking]
        thin += [(*cell, n) for cell, n in seen.items() if 0 < n < shares[cell] * int(counts.sum()) / 2]
    if not planned:
        return None
    missing = [cell for cells in empty.values() for cell in cells]
    full = planned - len(missing)
    # Cohen's w of records spread evenly over all but a share s of the cells: √(s / (1 − s)); half a cell: it is finite
    effect = float(np.sqrt(len(missing) / max(full, 0.5)))
    severity = known.thresholds.severity(max(effect, known.thresholds.low)) if missing else "none"
    covered = Interval(full / planned, *proportion_interval(full, planned), planned).to_dict()
    found = {"planned": planned, "covered": covered, "missing": missing, "thin": thin, "severity": severity}
    return found | {"effect": effect, "empty": empty}


def associations(known: Known) -> list[Row]:
    """Every pair of attributes but those of which one follows from the other: bias-corrected Cramér's ``v``, the same
    as Cohen's ``w``, and the ``cells`` furthest from what independence would give.
    """
    found, derived = [], known.facets.derived
    for place, (a, b) in enumerate(combinations(known.facets.attributes, 2)):
        if derived.get(a) != b and derived.get(b) != a:
            row = _association(known, known.joint, a, b, None, known.rng(100 + place), f"{a} × {b}")
            found += [row] if row else []
    return _adjusted(found, known.thresholds)


def appearances(known: Known, groups: Counter[Any], words: Counter[Any]) -> list[Row]:
    """By kind and language, whom or what ``n`` records mention (one group alone; those with more are ``several``), the
    most frequent words, the female share (``parity``), and whether outcomes differ.
    """
    facets, joint = known.facets, known.joint
    if not facets.texts:
        known.gaps["appearance"] = f"{facets.unit} have no texts in which people appear"
        return []
    of_group = frame(groups, ["kind", "group", "language", *facets.outcomes])
    of_word = frame(words, ["kind", "language", "group", "word"])
    by = joint[facets.language] if facets.language in joint else pd.Series([None] * len(joint), dtype=object)
    spoken = joint.groupby(by, dropna=False)[RECORDS].sum()
    found = []
    for spoken_in, total in spoken.items():
        language = None if pd.isna(spoken_in) else str(spoken_in)
        for place, kind in enumerate(people.KINDS):
            here, said = (
                some[(some["kind"] == kind) & (some["language"].fillna("") == (language or ""))]
                for some in (of_group, of_word)
            )
            if here.empty:
                known.gaps[f"{kind} in {language or 'records without a language'}"] = "none is mentioned"
                continue
            row: Row = {"kind": kind, "language": language, "records": int(total)}
            found.append(row | _appearance(known, kind, language, here, said, known.rng(200 + place)))
    with_p = [row for row in found if row["p"] is not None]
    for row, p in zip(with_p, holm([row["p"] for row in with_p]), strict=True):
        row |= {"p_holm": p, "severity": known.thresholds.severity(abs(2 * row["parity"]["estimate"] - 1), p)}
    _adjusted([row for one in found for row in one["differences"]], known.thresholds)
    return found


def _appearance(
    known: Known, kind: str, language: str | None, here: pd.DataFrame, said: pd.DataFrame, rng: np.random.Generator
) -> Row:
    name, facets = f"{kind} in {language or 'records without a language'}", known.facets
    groups = {str(group): int(n) for group, n in here.groupby("group")[RECORDS].sum().items()}
    single = here[here["group"] != people.SEVERAL].rename(columns={"group": kind})
    n, parity, p = int(single[RECORDS].sum()), None, None
    differences: list[Row] = []
    if n < FEWEST_MENTIONS:
        known.gaps[name] = f"only {n} {facets.unit} mention one group alone, {FEWEST_MENTIONS} are needed"
    else:
        if {*single[kind]} <= {"female", "male"}:
            from scipy.stats import binomtest

            female = groups.get("female", 0)
            parity = Interval(female / n, *proportion_interval(female, n), n).to_dict()
            p = float(binomtest(female, n).pvalue)
        rows = [_association(known, single, kind, o, language, rng, f"{name} × {o}") for o in facets.outcomes]
        differences = [row for row in rows if row]
    top = said.sort_values(["group", RECORDS, "word"], ascending=[True, False, True], kind="stable")
    words = {
        str(group): dict(zip(some["word"][:_SHOWN], map(int, some[RECORDS]), strict=False))
        for group, some in top.groupby("group")
    }
    found = {"n": n, "groups": groups, "words": words, "parity": parity, "p": p, "p_holm": p, "severity": "none"}
    return found | {"differences": differences}


def _association(
    known: Known, counts: pd.DataFrame, a: str, b: str, within: str | None, rng: np.random.Generator, name: str
) -> Row | None:
    """The row of two attributes, of the records that have both; none, named in the gaps, where it can't be measured."""
    sums = counts.groupby([a, b])[RECORDS].sum()
    for one in (a, b):
        some = sums.index.unique(one)
        if len(some) < 2:
            known.gaps[name] = f"only one {one}: {some[0]}" if len(some) else f"no record has both {a} and {b}"
            return None
        if len(some) > MOST_VALUES:
            known.gaps[name] = f"more than {MOST_VALUES} different values"
            return None
    wide = sums.unstack(fill_value=0)
    table = wide.to_numpy(dtype=np.int64)
    v, w = association(table)
    p, test = independence_p(table, rng)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    furthest = np.argsort(-np.abs(table - expected), axis=None, kind="stable")[:_SHOWN]
    cells = []
    for i, j in zip(*np.unravel_index(furthest, table.shape), strict=True):
        values = str(wide.index[i]), str(wide.columns[j])
        cells.append({"values": values, "observed": int(table[i, j]), "expected": float(expected[i, j])})
    row = {"attributes": (a, b), "within": within, "n": int(table.sum()), "v": v.to_dict(), "w": w, "cells": cells}
    return row | {"test": test, "p": p, "graded": w}


def _adjusted(rows: list[Row], thresholds: Thresholds) -> list[Row]:
    """The rows with their p-values adjusted for being so many, and how severe each is."""
    for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
        effect = row.pop("graded")
        row |= {"p_holm": p, "severity": thresholds.severity(effect, p)}
    return rows


# how sure and how strong


def fit_p(observed: Counts, target: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, str]:
    """P-value that `observed` (k,) was drawn with the shares `target` (k,), all positive; and the test's name.

    Exact for few outcomes, chi-square where it can be trusted, else Monte Carlo (Phipson and Smyth 2010).
    """
    from scipy.stats import binomtest, chi2, multinomial

    n, k = int(observed.sum()), len(observed)
    if k < 2 or not n:
        return 1.0, "exact: only one value is possible"
    if k == 2:
        return float(binomtest(int(observed[0]), n, float(target[0])).pvalue), "exact binomial"
    if math.comb(n + k - 1, k - 1) <= OUTCOMES:
        bars = np.array(list(combinations(range(n + k - 1), k - 1)), dtype=np.int64)  # n stars between k - 1 bars
        edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), n + k - 1)])
        log_p = multinomial.logpmf(np.diff(edges, axis=1) - 1, n, target)
        own = multinomial.logpmf(observed, n, target)
        return min(1.0, float(np.exp(log_p[log_p <= own + 1e-9]).sum())), "exact multinomial"
    statistic = _chi_square(observed, n * target)
    if n * target.min() >= ENOUGH:
        return float(chi2.sf(statistic, k - 1)), "chi-square"
    off = _chi_square(rng.multinomial(n, target, size=DRAWS), n * target)
    return float((1 + np.sum(off >= statistic - 1e-9)) / (1 + DRAWS)), "Monte Carlo multinomial"


def independence_p(table: Counts, rng: np.random.Generator) -> tuple[float, str]:
    """P-value that rows and columns of `table` (r, c), without empty ones, are independent; and the test's name.

    Chi-square where it can be trusted, else Fisher's exact test for 2 × 2, or Monte Carlo (Patefield 1981).
    """
    from scipy.stats import MonteCarloMethod, chi2_contingency, fisher_exact
    from scipy.stats.contingency import expected_freq

    if expected_freq(table).min() >= ENOUGH:
        return float(chi2_contingency(table, correction=False).pvalue), "chi-square"
    if table.shape == (2, 2):
        return float(fisher_exact(table).pvalue), "Fisher's exact"
    method = MonteCarloMethod(n_resamples=DRAWS, batch=max(1, 5_000_000 // table.size), rng=rng)
    found = chi2_contingency(table, correction=False, method=method)
    return float(found.pvalue), "Monte Carlo with these margins"


def cohens_w(observed: Counts, target: NDArray[np.float64]) -> Interval:
    """Cohen's w of counts against shares, less what chance alone adds, with its 95 % interval.

    √(max(0, χ² − df) / n): the correction Bergsma (2013) makes to Cramér's V. Interval: `_noncentrality`.
    """
    n, df = int(observed.sum()), len(observed) - 1
    if not df or not n:
        return Interval(0.0, 0.0, 0.0, n)
    statistic = float(_chi_square(observed, n * target))
    low, high = (math.sqrt(value / n) for value in _noncentrality(statistic, df))
    return Interval(math.sqrt(max(0.0, statistic - df) / n), low, high, n)


def association(table: Counts) -> tuple[Interval, float]:
    """Bias-corrected Cramér's V (Bergsma 2013, section 3) of `table` (no empty rows or columns, at least 2 × 2).

    And the Cohen's w it stands for: V · √(min(r, c) − 1) (Cohen 1988, section 7.2.3).
    """
    from scipy.stats import chi2_contingency

    n, rank = int(table.sum()), min(table.shape) - 1
    found = chi2_contingency(table, correction=False)
    low, high = (min(1.0, math.sqrt(value / (n * rank))) for value in _noncentrality(found.statistic, found.dof))
    phi2 = max(0.0, found.statistic / n - found.dof / (n - 1))
    smaller = min(levels - (levels - 1) ** 2 / (n - 1) for levels in table.shape) - 1
    v = min(1.0, math.sqrt(phi2 / smaller)) if smaller > 0 else 0.0
    return Interval(v, min(low, v), max(high, v), n), v * math.sqrt(rank)


def _chi_square(observed: Counts, expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's statistic of counts (…, k)."""
    return np.asarray(((observed - expected) ** 2 / expected).sum(axis=-1))


def _noncentrality(statistic: float, df: int) -> tuple[float, float]:
    """Noncentrality parameters for which `statistic` is at the upper and the lower end of its likely range.

    Smithson (2003), "Confidence intervals", chapter 4. Both are 0 for data evener than chance would make them.
    """
    from scipy.optimize import brentq
    from scipy.stats import ncx2

    def solve(tail: float) -> float:
        def excess(value: float) -> float:
            return float(ncx2.cdf(statistic, df, value)) - tail

        top = statistic + 10 * math.sqrt(statistic + 1) + 10
        return float(brentq(excess, 1e-9, top)) if excess(1e-9) > 0 > excess(top) else 0.0

    return solve((1 + LEVEL) / 2), solve((1 - LEVEL) / 2)
