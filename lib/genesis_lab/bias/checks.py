"""From merged counts to measurements: targets, coverage, associations, who appears. Every p-value is Holm-adjusted per section."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genesis_lab.bias.appearance import KINDS, SEVERAL
from genesis_lab.bias.counts import ATTRIBUTES, OUTCOMES, RECORDS
from genesis_lab.bias.report import Appearance, Association, Cell, Coverage, Fit, Thresholds
from genesis_lab.bias.significance import association, cohens_w, expected_counts, fit_p, independence_p
from genesis_lab.stats import Interval, holm, proportion_interval, total_variation

MOST_VALUES = 500
"""More distinct values than this are no categories."""
FEWEST_MENTIONS = 100
"""Fewer conversations than this say nothing about who appears."""

_CELLS = 10
_WORDS = 10


def fits(
    joint: pd.DataFrame,
    targets: Mapping[str, Mapping[str, float]],
    thresholds: Thresholds,
    seed: int,
    gaps: dict[str, str],
    attributes: Sequence[str] = ATTRIBUTES,
) -> tuple[Fit, ...]:
    """Each attribute against its target; attributes that can't be measured are named in `gaps`."""
    found = []
    for place, attribute in enumerate(attributes):
        counts = joint.groupby(attribute)[RECORDS].sum()
        n = int(counts.sum())
        if attribute not in targets:
            gaps[attribute] = "no target"
        elif not n:
            gaps[attribute] = f"no record has a value in {attribute}"
        else:
            missing = int(joint[RECORDS].sum()) - n
            found.append(_fit(attribute, counts, missing, targets[attribute], np.random.default_rng([seed, place])))
    adjusted = holm([fit.p for fit in found])
    return tuple(
        replace(fit, p_holm=p, severity=_fit_severity(fit, p, thresholds))
        for fit, p in zip(found, adjusted, strict=True)
    )


def fit_effect(fit: Fit) -> float:
    """Cohen's w over the planned values, or twice the share of unplanned ones (as total variation is at most w / 2)."""
    return max(fit.w.estimate, 2 * sum(fit.unplanned.values()) / fit.n)


def coverage(
    joint: pd.DataFrame, targets: Mapping[str, Mapping[str, float]], thresholds: Thresholds, gaps: dict[str, str]
) -> Coverage | None:
    """Every planned intent in every planned language; None, named in `gaps`, without both targets or any record."""
    wanted = [name for name in ("intent", "language") if name not in targets]
    if wanted:
        gaps["coverage"] = f"no target for {' and '.join(wanted)}"
        return None
    counts = joint.groupby(["intent", "language"])[RECORDS].sum()
    if counts.empty:
        gaps["coverage"] = "no record has an intent and a language"
        return None
    cells = {
        (intent, language): share * part
        for intent, share in targets["intent"].items()
        for language, part in targets["language"].items()
        if share and part
    }
    n = int(counts.sum())
    seen = {cell: int(counts.get(cell, 0)) for cell in cells}
    missing = tuple(cell for cell, count in seen.items() if not count)
    thin = tuple((*cell, count) for cell, count in seen.items() if 0 < count < cells[cell] * n / 2)
    covered = len(cells) - len(missing)
    effect = coverage_effect(len(missing), len(cells))
    severity = thresholds.severity(max(effect, thresholds.low)) if missing else "none"
    return Coverage(
        len(cells),
        Interval(covered / len(cells), *proportion_interval(covered, len(cells)), len(cells)),
        missing,
        thin,
        severity,
    )


def coverage_effect(missing: int, planned: int) -> float:
    """Cohen's w of records spread evenly over all but the missing cells: √(s / (1 − s)) for a missing share s.

    With every cell missing, half a cell counts as covered, to keep it finite.
    """
    return float(np.sqrt(missing / max(planned - missing, 0.5)))


def associations(
    joint: pd.DataFrame,
    allowed: Collection[frozenset[str]],
    thresholds: Thresholds,
    seed: int,
    gaps: dict[str, str],
    attributes: Sequence[str] = ATTRIBUTES,
    derived: Mapping[str, str] = {},
) -> tuple[Association, ...]:
    """Every pair of attributes but those of which one follows from the other."""
    found = []
    for place, (a, b) in enumerate(combinations(attributes, 2)):
        if derived.get(a) == b or derived.get(b) == a:
            continue
        table = contingency(joint, a, b)
        reason = _unmeasurable(table, a, b)
        if reason:
            gaps[f"{a} × {b}"] = reason
        else:
            rng = np.random.default_rng([seed, 100 + place])
            found.append(replace(_association(table, a, b, None, rng), allowed=frozenset((a, b)) in allowed))
    return _adjusted(found, thresholds)


def contingency(joint: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """Records by value of `a` (rows) and `b` (columns), of those that have both."""
    counts = joint.groupby([a, b])[RECORDS].sum()
    if any(counts.index.get_level_values(name).nunique() > MOST_VALUES for name in (a, b)):
        return pd.DataFrame(index=range(MOST_VALUES + 1))
    return counts.unstack(fill_value=0)


def appearances(
    groups: pd.DataFrame,
    words: pd.DataFrame,
    records: Mapping[Any, int],
    thresholds: Thresholds,
    seed: int,
    gaps: dict[str, str],
) -> tuple[Appearance, ...]:
    """Who and where, by kind and language.

    Parameters
    ----------
    groups, words : `Tally.groups` and `Tally.words` as frames.
    records : language (None: not given) to its number of records.
    """
    found = []
    for language, total in records.items():
        for place, kind in enumerate(KINDS):
            here = groups[(groups["kind"] == kind) & _same(groups["language"], language)]
            said = words[(words["kind"] == kind) & _same(words["language"], language)]
            name = f"{kind} in {language or 'records without a language'}"
            if not len(here):
                gaps[name] = "none is mentioned"
                continue
            rng = np.random.default_rng([seed, 200 + place])
            found.append(_appearance(kind, language, total, here, said, rng, name, gaps))
    parities = [i for i, one in enumerate(found) if one.p is not None]
    for i, p in zip(parities, holm([found[i].p or 0.0 for i in parities]), strict=True):
        effect = abs(2 * found[i].parity.estimate - 1)  # type: ignore[union-attr]  # p is only there with parity
        found[i] = replace(found[i], p_holm=p, severity=thresholds.severity(effect, p))
    differences = iter(_adjusted([d for one in found for d in one.differences], thresholds))
    return tuple(replace(one, differences=tuple(next(differences) for _ in one.differences)) for one in found)


def _fit(attribute: str, counts: pd.Series, missing: int, target: Mapping[str, float], rng: np.random.Generator) -> Fit:
    observed = {value: int(counts.get(value, 0)) for value in target}
    unplanned = {str(v): int(c) for v, c in counts.items() if not target.get(str(v))}
    observed |= unplanned
    n = int(counts.sum())
    planned = [value for value, share in target.items() if share]
    seen = np.array([observed[value] for value in planned], dtype=np.int64)
    wanted = np.array([target[value] for value in planned], dtype=float)
    wanted = wanted / wanted.sum()
    p, test = (0.0, "exact: values that can't occur do") if unplanned else fit_p(seen, wanted, rng)
    return Fit(
        attribute=attribute, n=n, missing=missing, target=dict(target), observed=observed,
        intervals={value: proportion_interval(count, n) for value, count in observed.items()},
        unplanned=unplanned, w=cohens_w(seen, wanted),
        total_variation=total_variation(list(observed.values()), [target.get(value, 0.0) for value in observed]),
        test=test, p=p, p_holm=p, severity="none",
    )  # fmt: skip


def _fit_severity(fit: Fit, p: float, thresholds: Thresholds) -> Any:
    effect = fit_effect(fit)
    return thresholds.severity(max(effect, thresholds.low) if fit.unplanned else effect, p)


def _unmeasurable(table: pd.DataFrame, a: str, b: str) -> str | None:
    if len(table) > MOST_VALUES:
        return f"more than {MOST_VALUES} different values"
    if not table.size:
        return f"no record has both {a} and {b}"
    for name, values in ((a, table.index), (b, table.columns)):
        if len(values) < 2:
            return f"only one {name}: {values[0]}"
    return None


def _association(table: pd.DataFrame, a: str, b: str, within: str | None, rng: np.random.Generator) -> Association:
    counts: NDArray[np.int64] = table.to_numpy(dtype=np.int64)
    v, w = association(counts)
    p, test = independence_p(counts, rng)
    expected = expected_counts(counts)
    furthest = np.argsort(-np.abs(counts - expected), axis=None, kind="stable")[:_CELLS]
    cells = tuple(
        Cell((str(table.index[i]), str(table.columns[j])), int(counts[i, j]), float(expected[i, j]))
        for i, j in zip(*np.unravel_index(furthest, counts.shape), strict=True)
    )
    return Association((a, b), within, int(counts.sum()), v, w, test, p, p, "none", cells)


def _adjusted(found: list[Association], thresholds: Thresholds) -> tuple[Association, ...]:
    adjusted = holm([one.p for one in found])
    return tuple(
        replace(one, p_holm=p, severity="none" if one.allowed else thresholds.severity(one.w, p))
        for one, p in zip(found, adjusted, strict=True)
    )


def _same(column: pd.Series, value: Any) -> pd.Series:
    return column.isna() if value is None else column == value


def _appearance(
    kind: str, language: Any, total: int, here: pd.DataFrame, said: pd.DataFrame, rng: np.random.Generator, name: str, gaps: dict[str, str]
) -> Appearance:  # fmt: skip
    groups = {str(group): int(n) for group, n in here.groupby("group")[RECORDS].sum().items()}
    single = here[here["group"] != SEVERAL]
    n = int(single[RECORDS].sum())
    parity, p = None, None
    differences = []
    if n < FEWEST_MENTIONS:
        gaps[name] = f"only {n} conversations mention one group alone, {FEWEST_MENTIONS} are needed"
    else:
        if {str(g) for g in single["group"]} <= {"female", "male"}:
            from scipy.stats import binomtest

            female = groups.get("female", 0)
            parity, p = Interval(female / n, *proportion_interval(female, n), n), float(binomtest(female, n).pvalue)
        for outcome in OUTCOMES:
            table = contingency(single, "group", outcome)
            if reason := _unmeasurable(table, f"group of {kind}", outcome):
                gaps[f"{name} × {outcome}"] = reason
            else:
                differences.append(_association(table, kind, outcome, language, rng))
    top = said.sort_values(["group", RECORDS, "word"], ascending=[True, False, True], kind="stable")
    return Appearance(
        kind=kind, language=language, records=total, n=n, groups=groups,
        words={
            str(group): dict(zip(some["word"].head(_WORDS), some[RECORDS].head(_WORDS).tolist(), strict=True))
            for group, some in top.groupby("group")
        },
        parity=parity, p=p, p_holm=p, severity="none", differences=tuple(differences),
    )  # fmt: skip
