"""Measurements as plain sentences: what is so, how sure, which records to add. Every row is one of a bias report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genesis_lab.bias.people import KINDS
from genesis_lab.stats import Interval

Row = dict[str, Any]
_LISTED = 3


def listed(values: Sequence[str], most: int = 4) -> str:
    """The first few values, and how many more there are."""
    return ", ".join(values[:most]) + f" and {len(values) - most:,} more" * (len(values) > most)


def more(addition: Row) -> str:
    """The records to add, in words."""
    return f"{addition['records']:,} more {'/'.join(addition['values'].values())}"


def of_fit(fit: Row, additions: Sequence[Row]) -> Row:
    """An attribute against its target."""
    n, target, unplanned = fit["n"], fit["target"], fit["unplanned"]
    over = {value: fit["observed"].get(value, 0) - share * n for value, share in target.items()}
    worst = max(target, key=lambda value: abs(over[value]))
    low, high = fit["intervals"][worst]
    told = "is as planned" if fit["total_variation"] < 0.001 else "is close to its plan"
    told = told if fit["severity"] == "none" else "is not as planned"
    said = (
        f"{fit['attribute'].replace('_', ' ').capitalize()} {told}: "
        f"{worst} is {fit['observed'][worst] / n:.1%} [{low:.1%}–{high:.1%}] of {n:,} records, planned are "
        f"{target[worst]:.1%} ({over[worst]:+,.0f} records; total variation {fit['total_variation']:.3f}, "
        f"w {_interval(fit['w'])}, {_chance(fit['p_holm'])}, {fit['test']})."
    )
    todo = _generate(additions)
    if unplanned:
        names = sorted(unplanned, key=lambda value: (-unplanned[value], value))
        shown = listed([f"{value} ({unplanned[value]:,})" for value in names])
        said += f" Values that were not planned: {shown}."
        wrong = f"Correct or drop the {sum(unplanned.values()):,} records with values that were not planned: {shown}."
        todo = f"{wrong} {todo}".strip()
    if fit["missing"]:
        said += f" {fit['missing']:,} records have none."
    measure = "Cohen's w" if fit["w"]["estimate"] >= fit["effect"] else "twice the share of unplanned values"
    return _finding(fit, "target", fit["attribute"], fit["effect"], measure, fit["w"], said, todo, additions)


def of_coverage(found: Row, names: str, n: int, additions: Sequence[Row]) -> Row:
    """Every planned cell of pairs of attributes, and the records that fill the empty ones."""
    planned, empty = found["planned"], len(found["missing"])
    said = f"{planned - empty:,} of {planned:,} planned {names} cells have a record ({_interval(found['covered'])})"
    if empty:
        said += f"; none for {listed(['/'.join(cell[::-1]) for cell in found['missing']])}"
    if found["thin"]:
        said += f"; {len(found['thin']):,} have less than half of their share"
    if n < planned:
        said += f"; {n:,} records are too few for {planned:,} cells"
    row, measure = found | {"n": n}, "share of cells with a record"
    todo = _generate(additions)
    return _finding(
        row, "coverage", "coverage", found["effect"], measure, found["covered"], f"{said}.", todo, additions
    )


def of_association(found: Row, low: float, additions: Sequence[Row]) -> Row:
    """Two attributes that should not go together."""
    a, b = found["attributes"]
    said = _together(found, a.replace("_", " "), b.replace("_", " "), low)
    return _finding(
        found, "association", f"{a} × {b}", found["w"], "Cramér's V", found["v"], said, _generate(additions), additions
    )


def of_appearance(found: Row, low: float, unit: str) -> list[Row]:
    """Who or where is mentioned, and what goes with it."""
    what, where = KINDS[found["kind"]], f"in {found['language'] or 'records without a language'}"
    name, results = f"{found['kind']} ({found['language'] or 'no language'})", []
    if parity := found["parity"]:
        female, male = (found["groups"].get(gender, 0) for gender in ("female", "male"))
        said = (
            f"Of {found['n']:,} {unit} {where} with {what} of one gender, {female:,} have female and {male:,} male "
            f"ones (female share {_interval(parity)}, {_chance(found['p_holm'])}, exact binomial)."
        )
        todo = (
            f"Bring in {abs(female - male):,} more {unit} {where} with {'female' if female < male else 'male'} "
            f"{what.removeprefix('gender of ')}: the plan has no option for it, so put them into the examples, the "
            "prompt or the taxonomy's texts."
        )
        effect = abs(2 * parity["estimate"] - 1)
        results.append(_finding(found, "appearance", name, effect, "female share", parity, said, todo))
    for one in found["differences"]:
        short = [cell for cell in one["cells"] if cell["observed"] < cell["expected"]][:_LISTED]
        lacking = ", ".join(f"{round(c['expected'] - c['observed']):,} more {'/'.join(c['values'])}" for c in short)
        todo = (
            f"Bring in {lacking} {where}: the plan has no option for {what}, so change the examples, prompt or texts."
        )
        outcome = one["attributes"][1]
        said = _together(one, f"{what} {where}", outcome.replace("_", " "), low)
        results.append(_finding(one, "appearance", f"{name} × {outcome}", one["w"], "Cramér's V", one["v"], said, todo))
    return results


def _finding(
    row: Row,
    subject: str,
    name: str,
    effect: float,
    measure: str,
    interval: Row,
    said: str,
    todo: str,
    additions: Sequence[Row] = (),
) -> Row:
    """One thing that was checked, in a sentence, and what to do about it; `effect` is on the scale of Cohen's w."""
    return {
        "subject": subject,
        "name": name,
        "severity": row["severity"],
        "effect": effect,
        "measure": measure,
        "interval": interval,
        "n": row["n"],
        "sentence": said,
        "additions": [*additions],
        "recommendation": "" if row["severity"] == "none" and subject == "appearance" else todo,
    }


def _generate(additions: Sequence[Row]) -> str:
    """What to do about missing records; empty where there are none."""
    rest = f" and {len(additions) - _LISTED} further groups" * (len(additions) > _LISTED)
    return f"Generate {'; '.join(map(more, additions[:_LISTED]))}{rest}." if additions else ""


def _together(found: Row, a: str, b: str, low: float) -> str:
    strength = f"Cramér's V {_interval(found['v'])}, {_chance(found['p_holm'])}, {found['test']}, n = {found['n']:,}"
    both, cell = f"{a[0].upper()}{a[1:]} and {b}", found["cells"][0]
    if found["severity"] == "none":
        how = "hardly go together, if at all" if found["w"] < low else "go together no more than chance may make them"
        return f"{both} {how} ({strength})."
    return (
        f"{both} go together: {'/'.join(cell['values'])} occurs {cell['observed']:,} times, "
        f"{cell['expected']:,.0f} would be expected if they had nothing to do with each other ({strength})."
    )


def _interval(row: Row) -> str:
    return str(Interval(**row))


def _chance(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
