"""Measurements as plain sentences: what is so, how sure, and which records to add."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from genesis_lab.bias import checks
from genesis_lab.bias.appearance import KINDS
from genesis_lab.bias.counts import RECORDS
from genesis_lab.bias.report import Addition, Appearance, Association, Coverage, Finding, Fit, Thresholds, listed

_LISTED = 3

Adding = Callable[[tuple[str, ...]], tuple[Addition, ...]]
"""Table to the records that would bring it, and it alone, to its plan."""


def of_fit(fit: Fit, adding: Adding) -> Finding:
    """An attribute against its target."""
    worst = max(fit.target, key=lambda value: abs(fit.differences[value]))
    low, high = fit.intervals[worst]
    sentence = (
        f"{_title(fit.attribute)} {_verdict(fit)}: {worst} is {fit.shares[worst]:.1%} [{low:.1%}–{high:.1%}] of {fit.n:,} "
        f"records, planned are {fit.target[worst]:.1%} ({fit.differences[worst]:+,.0f} records; total variation "
        f"{fit.total_variation:.3f}, w {fit.w}, {_chance(fit.p_holm)}, {fit.test})."
    )
    advice = []
    if fit.unplanned:
        names = sorted(fit.unplanned, key=lambda value: (-fit.unplanned[value], value))
        shown = listed([f"{value} ({fit.unplanned[value]:,})" for value in names])
        sentence += f" Values that were not planned: {shown}."
        advice.append(
            f"Correct or drop the {sum(fit.unplanned.values()):,} records with values that were not planned: {shown}."
        )
    if fit.missing:
        sentence += f" {fit.missing:,} records have none."
    wanted: tuple[Addition, ...] = ()
    if fit.severity != "none":
        wanted = adding((fit.attribute,))
        advice += _generate(wanted)
    measure = "Cohen's w" if fit.w.estimate >= checks.fit_effect(fit) else "twice the share of unplanned values"
    return Finding(
        "target",
        fit.attribute,
        fit.severity,
        checks.fit_effect(fit),
        measure,
        fit.w,
        fit.n,
        sentence,
        " ".join(advice),
        wanted,
    )


def of_coverage(found: Coverage, joint: pd.DataFrame, wanted: tuple[Addition, ...]) -> Finding:
    """Every planned intent in every planned language, and the records that fill the empty cells."""
    planned, n = found.planned, int(joint[RECORDS].sum())
    empty = len(found.missing)
    sentence = f"{planned - empty:,} of {planned:,} planned intent × language cells have a record ({found.covered})"
    if empty:
        sentence += f"; none for {listed([f'{language}/{intent}' for intent, language in found.missing])}"
    if found.thin:
        sentence += f"; {len(found.thin):,} have less than half of their share"
    if n < planned:
        sentence += f"; {n:,} records are too few for {planned:,} cells"
    effect = checks.coverage_effect(empty, planned)
    return Finding(
        "coverage", "coverage", found.severity, effect, "share of cells with a record", found.covered,
        n, sentence + ".", " ".join(_generate(wanted)), wanted,
    )  # fmt: skip


def of_association(found: Association, thresholds: Thresholds, adding: Adding) -> Finding:
    """Two attributes that should not go together."""
    a, b = found.attributes
    wanted = adding((a, b)) if found.severity != "none" else ()
    return Finding(
        "association", f"{a} × {b}", found.severity, found.w, "Cramér's V", found.v, found.n,
        _going_together(found, _words(a), _words(b), thresholds), " ".join(_generate(wanted)), wanted,
    )  # fmt: skip


def of_appearance(found: Appearance, thresholds: Thresholds) -> list[Finding]:
    """Who or where is mentioned, and what goes with it."""
    what, where = KINDS[found.kind], f"in {found.language or 'records without a language'}"
    name = f"{found.kind} ({found.language or 'no language'})"
    results = []
    if found.parity is not None:
        female, male = found.groups.get("female", 0), found.groups.get("male", 0)
        sentence = (
            f"Of {found.n:,} conversations {where} with {what} of one gender, {female:,} have female and {male:,} male ones "
            f"(female share {found.parity}, {_chance(found.p_holm or 0.0)}, exact binomial)."
        )
        advice = ""
        if found.severity != "none":
            fewer = "female" if female < male else "male"
            advice = (
                f"Bring in {abs(female - male):,} more conversations {where} with {fewer} {what.removeprefix('gender of ')}: the plan "
                "has no option for it, so put them into the examples, the prompt or the taxonomy's texts."
            )
        results.append(
            Finding(
                "appearance",
                name,
                found.severity,
                abs(2 * found.parity.estimate - 1),
                "female share",
                found.parity,
                found.n,
                sentence,
                advice,
            )
        )
    for one in found.differences:
        outcome = one.attributes[1]
        advice = ""
        if one.severity != "none":
            short = [c for c in one.cells if c.observed < c.expected][:_LISTED]
            cells = ", ".join(f"{round(c.expected - c.observed):,} more {c.values[0]}/{c.values[1]}" for c in short)
            advice = (
                f"Bring in {cells} {where}: the plan has no option for {what}, so change the examples, prompt or texts."
            )
        results.append(
            Finding(
                "appearance",
                f"{name} × {outcome}",
                one.severity,
                one.w,
                "Cramér's V",
                one.v,
                one.n,
                _going_together(one, f"{what} {where}", _words(outcome), thresholds),
                advice,
            )
        )
    return results


def _going_together(found: Association, a: str, b: str, thresholds: Thresholds) -> str:
    strength = f"Cramér's V {found.v}, {_chance(found.p_holm)}, {found.test}, n = {found.n:,}"
    title = a[0].upper() + a[1:]
    if found.allowed:
        return f"{title} and {b} may go together ({strength})."
    if found.severity == "none" and found.w < thresholds.low:
        return f"{title} and {b} hardly go together, if at all ({strength})."
    if found.severity == "none":
        return f"{title} and {b} go together no more than chance may make them ({strength})."
    cell = found.cells[0]
    return (
        f"{title} and {b} go together: {cell.values[0]}/{cell.values[1]} occurs {cell.observed:,} times, "
        f"{cell.expected:,.0f} would be expected if they had nothing to do with each other ({strength})."
    )


def _verdict(fit: Fit) -> str:
    if fit.severity != "none":
        return "is not as planned"
    return "is as planned" if fit.total_variation < 0.001 else "is close to its plan"


def _generate(wanted: Sequence[Addition]) -> list[str]:
    if not wanted:
        return []
    rest = f" and {len(wanted) - _LISTED} further groups" * (len(wanted) > _LISTED)
    return [f"Generate {'; '.join(map(str, wanted[:_LISTED]))}{rest}."]


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _words(attribute: str) -> str:
    return attribute.replace("_", " ")


def _title(attribute: str) -> str:
    return _words(attribute).capitalize()
