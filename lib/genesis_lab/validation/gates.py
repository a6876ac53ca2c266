"""The verdict on a dataset: named gates, each with what was measured, its threshold, and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from genesis_lab.domains.base import Check, Facets
from genesis_lab.stats import Interval, above
from genesis_lab.validation.checks import Counted
from genesis_lab.validation.variety import LEARNABLE, Part, ReferenceTexts
from genesis_lab.yamls import read_yaml

Outcome = Literal["pass", "warn", "fail", "not measured"]

FEWEST = 30
"""Records below which nothing can be told of a dataset, whatever its labels have."""
_LATER = ("worth", "classifier")
"""Gates that other reports than that of quality decide."""

Gate = dict[str, Any]
"""One condition of the verdict, see `decide`."""


class Measured(NamedTuple):
    """What a gate is decided by: a value or the reason why there is none, a sentence, and what differs from the rule."""

    value: Interval | str
    says: str = ""
    fails_below: float | None = None
    outcome: Outcome | None = None


@lru_cache(maxsize=1)
def rules() -> dict[str, dict[str, Any]]:
    """What each gate measures, its thresholds with their reasons, and what to do (``gates.yaml``)."""
    return dict(read_yaml(Path(__file__).with_name("gates.yaml")))


def decide(name: str, found: Measured, *, title: str = "") -> Gate:
    """The gate `name` of `rules`, decided: failed or passed only where the whole interval is on one side.

    Its ``value``, ``low`` and ``high`` (95 %; equal where it was counted) are None if it was not measured.
    """
    rule, value = rules()[name], found.value
    low, high = rule["at_least"], rule.get("at_most")
    threshold = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
    outcome: Outcome = "not measured"
    says = str(value)
    if isinstance(value, Interval):
        fails = rule.get("fails_below", low) if found.fails_below is None else found.fails_below
        over = False if high is None else above(value, high)
        if found.outcome:
            outcome = found.outcome
        elif over or above(value, fails) is False:
            outcome = "fail"
        else:
            outcome = "pass" if over is False and above(value, low - 1e-9) else "warn"
        says = f"can't be told: {found.says}" if outcome == "warn" and value.low < value.high else found.says
    ends = value if isinstance(value, Interval) else None
    return {
        "name": title or name,
        "measures": rule["measures"],
        "value": ends and ends.estimate,
        "low": ends and ends.low,
        "high": ends and ends.high,
        "n": ends.n if ends else 0,
        "threshold": threshold,
        "why": rule["why"],
        "outcome": outcome,
        "says": says,
        "todo": rule["todo"],
    }


def form_gates(
    total: Counted,
    checks: Sequence[Check],
    facets: Facets,
    scores: Mapping[str, Mapping[str, Any]],
    copies: Part,
    separation: Part,
    targets: Mapping[str, Mapping[str, float]],
    reference: ReferenceTexts | None,
) -> list[Gate]:
    """The gates that need no training on real data: see ``gates.yaml``."""
    if not total.n:
        return [decide(name, Measured("the dataset has no records")) for name in rules() if name not in _LATER]
    parts = {part["name"]: part for score in scores.values() for part in score["parts"]}
    found = {
        "unique ids": _counted(parts["unique_ids"], "records have no id of their own"),
        "schema and structure": _structure(total, checks, facets, parts),
    }
    if facets.label:
        found["enough examples per label"] = _enough(total, targets.get(facets.label, {}))
        found["label fidelity"] = _fidelity(total, parts["label_fidelity"])
    for name in dict.fromkeys(check.name for check in checks if check.gate == "language"):
        found["language"] = _share(parts[name], "read as another language than declared")
    if facets.text:
        found["near-duplicates"] = _share(parts["near_duplicates"], "nearly repeat an earlier opening")
        found["contamination"] = _share(copies, "are nearly a sentence of the reference")
        if facets.preview == "chat":
            found["openings like people's"] = _length(total, reference)
    if facets.label and facets.text:
        found["separation from neighbours"] = _apart(total, separation)
    return [decide(name, measured) for name, measured in found.items()]


def worth_gates(card: Mapping[str, Any] | None) -> list[Gate]:
    """One gate for each student of a scorecard (its ``to_dict``), against its own floor."""
    students = [s for s in (card or {"students": ()})["students"] if s["above_floor"]]
    if not students:
        why = card["not_measured"].get("scorecard", "no student could be trained") if card else "no scorecard"
        return [decide("worth", Measured(why))]
    gates = []
    for s in students:
        names, own = s["floor"]["estimate"], s["accuracy"]["estimate"]
        says = f"{own:.2f} of real openings, the label names alone {names:.2f}"
        outcome: Outcome = "warn" if s["beats_floor"] is None else "pass" if s["beats_floor"] else "fail"
        measured = Measured(Interval(**s["above_floor"]), says, outcome=outcome)
        gates.append(decide("worth", measured, title=f"worth ({s['student']})"))
    return gates


def verdict_on(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The one verdict on a dataset, JSON-safe: ``verdict`` in a word or two, ``sentence`` and ``gates``; see `all_gates`."""
    found = all_gates(reports)
    return {"verdict": verdict(found), "sentence": sentence(found), "gates": found}


def all_gates(reports: Mapping[str, Mapping[str, Any]]) -> list[Gate]:
    """The gates of all that is known of a dataset: its reports ``quality``, ``scorecard`` and ``training``, as dicts."""
    form = list(reports.get("quality", {}).get("gates", ()))
    training = reports.get("training")
    if not training:
        return [*form, *worth_gates(reports.get("scorecard"))]
    exam = training["reference"] or training["evaluation"]
    says = f"{training['chosen']} gets {exam['accuracy']['estimate']:.0%} right"
    kept = decide("classifier", Measured(Interval(**exam["accuracy"]), says))
    return [*form, *worth_gates(reports.get("scorecard")), kept]


def verdict(gates: Sequence[Gate]) -> str | None:
    """``FAIL``, ``WARN``, ``PASS``, or ``PASS on form; worth not measured``; None where nothing of the form was measured."""
    worth = [gate for gate in gates if gate["name"].startswith("worth")]
    form = [gate for gate in gates if gate not in worth and gate["name"] not in _LATER]
    if all(gate["outcome"] == "not measured" for gate in form):
        return None
    outcomes = {gate["outcome"] for gate in gates}
    if "fail" in outcomes:
        return "FAIL"
    if any(map(_open, gates)):
        return "WARN"
    return "PASS" if any(gate["outcome"] == "pass" for gate in worth) else "PASS on form; worth not measured"


def sentence(gates: Sequence[Gate]) -> str:
    """The verdict with the gates that decide it."""
    word = verdict(gates)
    if word is None:
        return "No verdict: nothing was measured."
    named = [f"{g['name']} ({g['says']})" for g in gates if (g["outcome"] == "fail" if word == "FAIL" else _open(g))]
    return f"{word}: {'; '.join(named)}." if named else f"{word}."


def _open(gate: Gate) -> bool:
    """Whether the gate leaves the verdict open; what needs real data may be missing."""
    needs_real = gate["name"] == "contamination" or gate["name"].startswith("worth")
    return gate["outcome"] == "warn" or (gate["outcome"] == "not measured" and not needs_real)


def _counted(part: Part, what: str) -> Measured:
    if part["value"] is None:
        return Measured(part["reason"] or "")
    value, n = part["value"], part["n"]
    return Measured(Interval(value, value, value, n), f"{part['failed']:,} of {n:,} {what}")


def _share(part: Part, what: str) -> Measured:
    if part["value"] is None or part["interval"] is None:
        return Measured(part["reason"] or "")
    says = f"{part['failed']:,} of {part['n']:,} {part['unit']} {what}"
    return Measured(Interval(part["value"], part["interval"][0], part["interval"][1], part["n"]), says)


def _structure(total: Counted, checks: Sequence[Check], facets: Facets, parts: Mapping[str, Part]) -> Measured:
    n = total.n

    def needed(name: str) -> bool:
        """What no record has was not there to be had, but for label and text."""
        return name == facets.label or bool(re.search(rf"\b{name}\b", facets.text or ""))

    missing = {k: v for k, v in parts["fields"]["detail"]["missing"].items() if k != facets.id and (v < n or needed(k))}
    shares = [(1 - gone / n, n, f"{gone:,} of {n:,} records have no {name}") for name, gone in missing.items()]
    for name in dict.fromkeys(check.name for check in checks if check.gate == "schema and structure"):
        part = parts[name]
        if part["value"] is not None:
            failed = f"{part['failed']:,} of {part['n']:,} {part['unit']}"
            shares.append((part["value"], part["n"], f"{failed} fail the check of {name.replace('_', ' ')}"))
    value, of, says = min(shares, default=(1.0, n, ""))
    return Measured(Interval(value, value, value, of), says)


def _enough(total: Counted, planned: Mapping[str, float]) -> Measured:
    counts = {name: 0 for name, share in planned.items() if share > 0} | dict(total.labels)
    if not counts:
        return Measured("no record has a label")
    label = min(counts, key=lambda name: (counts[name], name))
    n, least = total.n, counts[label]
    says = f"the scarcest label, {label}, has {least:,} example{'s' * (least != 1)}"
    if n < FEWEST:
        return Measured(Interval(least, 0, max(least, LEARNABLE), n), f"{n} records are too few to tell; {says}")
    return Measured(Interval(least, least, least, n), says)


def _fidelity(total: Counted, part: Part) -> Measured:
    if part["value"] is None:
        return Measured(part["reason"] or "")
    ends = part["interval"] or (part["value"], part["value"])
    right, rule = part["detail"]["out_of_fold_accuracy"], rules()["label fidelity"]
    says = part["detail"].get("finding") or (
        f"{part['failed']:,} of {part['n']:,} read like another label, to a classifier that gets {right:.0%} right"
    )
    # A list by a classifier that errs a lot, or has little to learn from, holds its own errors
    believed = rule["at_least"] if right >= rule["reads_well"] else rule["fails_below"]
    return Measured(Interval(part["value"], ends[0], ends[1], part["n"]), says, believed if _learnable(total) else 0.0)


def _apart(total: Counted, part: Part) -> Measured:
    least = part["detail"].get("least_apart")
    found = _share(part, f"read more like the label's nearest neighbour; least apart: {least}")
    return found if _learnable(total) else found._replace(fails_below=0.0)


def _learnable(total: Counted) -> bool:
    return len(total.labels) * LEARNABLE <= total.labels.total()


def _length(total: Counted, reference: ReferenceTexts | None) -> Measured:
    sample, people = total.sample, float(rules()["openings like people's"]["words"])
    who = "people's in short chats"
    if reference is not None and (sample["language"] == reference.language).any():
        sample = sample[sample["language"] == reference.language]
        people, who = float(np.median([len(text.split()) for text in reference.texts])), f"those of {reference.name}"
    words = sample.sort_values("row")["text"].str.split().str.len().to_numpy(dtype=float)
    if len(words) < FEWEST:
        return Measured(f"{len(words)} openings are too few")
    from scipy.stats import quantile_test

    # The median's interval by order statistics: exact, whatever the distribution (Conover 1999, section 3.2)
    ends, median = quantile_test(words, p=0.5).confidence_interval(), float(np.median(words))
    found = Interval(median / people, float(ends.low) / people, float(ends.high) / people, len(words))
    times = (
        f"{found.estimate:.1f} times as long as {who}"
        if found.estimate >= 1
        else f"{found.estimate:.2f} of the length of {who}"
    )
    return Measured(found, f"openings are {times} ({median:g} words against {people:g})")
