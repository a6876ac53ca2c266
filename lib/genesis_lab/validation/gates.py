"""The verdict on a dataset: named gates, each with what was measured, its threshold, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.domains.base import Check, Facets
from genesis_lab.stats import Interval, above
from genesis_lab.validation.checks import Counted, Part
from genesis_lab.validation.reference import STAND_IN
from genesis_lab.validation.variety import FEWEST, KINDS, LEARNABLE
from genesis_lab.yamls import shipped

_LATER = ("worth", "classifier")
"""Gates that other reports than that of quality decide."""

_MAY_LACK = ("contamination", "unique ids", "language", "label fidelity", "like real records")
"""Gates on what a dataset need not have: other people's are often just short texts and labels."""

Gate = dict[str, Any]
"""One condition of the verdict, see `decide`."""


def rules() -> dict[str, dict[str, Any]]:
    """What each gate measures, its thresholds with their reasons, and what to do (``gates.yaml``)."""
    return dict(shipped(Path(__file__).with_name("gates.yaml")))


def decide(
    name: str,
    value: Interval | str,
    says: str = "",
    *,
    fails_below: float | None = None,
    outcome: str = "",
    title: str = "",
) -> Gate:
    """The gate `name` of `rules`, decided: failed or passed only where the whole interval (95 %) is on one side.

    `value` says why where nothing was measured; `fails_below` and `outcome` stand instead of what the rule would have.
    """
    rule = rules()[name]
    low, high = rule["at_least"], rule.get("at_most")
    gate = {name: rule[name] for name in ("measures", "why", "todo")} | {"name": title or name}
    gate["threshold"] = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
    if isinstance(value, str):
        return gate | {"value": None, "low": None, "high": None, "n": 0, "outcome": "not measured", "says": value}
    fails = rule.get("fails_below", low) if fails_below is None else fails_below
    over = False if high is None else above(value, high)
    if not outcome and (over or above(value, fails) is False):
        outcome = "fail"
    elif not outcome:
        outcome = "pass" if over is False and above(value, low - 1e-9) else "warn"
    if outcome == "warn" and value.low < value.high:
        says = f"can't be told: {says}"
    ends = {"value": value.estimate, "low": value.low, "high": value.high, "n": value.n}
    return gate | ends | {"outcome": outcome, "says": says}


def form_gates(
    total: Counted,
    checks: Sequence[Check],
    facets: Facets,
    parts: Mapping[str, Part],
    targets: Mapping[str, Mapping[str, float]],
    openings: Mapping[str, Any] | str,
) -> list[Gate]:
    """The gates that need no training on real data: see ``gates.yaml``."""
    if not total.n:
        return [decide(name, "the dataset has no records") for name in rules() if name not in _LATER]
    ids = parts["unique_ids"]
    ends = ids["reason"] or Interval(ids["value"], ids["value"], ids["value"], ids["n"])
    found = [
        decide("unique ids", ends, f"{ids['failed'] or 0:,} of {ids['n']:,} records have no id of their own"),
        _structure(total, checks, facets, parts),
    ]
    unlearnt = None if len(total.labels) * LEARNABLE <= total.labels.total() else 0.0  # too few to blame the labels
    if facets.label:
        found += [_enough(total, targets.get(facets.label, {})), _fidelity(parts["label_fidelity"], unlearnt)]
    for name in dict.fromkeys(check.name for check in checks if check.gate == "language"):
        found.append(_share("language", parts[name], "read as another language than declared"))
    if facets.text:
        found.append(_share("near-duplicates", parts["near_duplicates"], "nearly repeat an earlier opening"))
        found.append(_share("contamination", parts["contamination"], "are nearly a sentence of the reference"))
        if not isinstance(openings, str) or facets.preview == "chat":
            found += [_length(openings), _manner(openings)]
    if facets.label and facets.text:
        least = parts["separation"]["detail"].get("least_apart")
        says = f"read more like the label's nearest neighbour; least apart: {least}"
        found.append(_share("separation from neighbours", parts["separation"], says, unlearnt))
    return found


def like_real(part: Part) -> Gate:
    """By how far records are from real ones, with two standard deviations of what halves of the real ones differ by."""
    name, row = "like real records", part["detail"]
    if part["value"] is None:
        return decide(name, part["reason"])
    near, doubt = 1 - row["estimate"], 2 * row["sd"]
    says = f"{row['what']} is {row['estimate']:.2f}, between halves of the reference {row['floor']:.2f}"
    return decide(name, Interval(near, near - doubt, near + doubt, row["n"]), says)


def worth_gates(card: Mapping[str, Any] | None) -> list[Gate]:
    """One gate for each student of a scorecard, against its own floor."""
    students = [s for s in (card or {"students": ()})["students"] if s["above_floor"]]
    rule = (card or {}).get("gate", "worth")
    if not students:
        why = card["not_measured"].get("scorecard", "no student could be trained") if card else "no scorecard"
        return [decide(rule, why)]
    if card and (card.get("reference") or {}).get("kind") == "stand-in":
        return [decide("worth", f"there is only a {STAND_IN}")]
    gates = []
    for s in students:
        outcome, says = {None: "warn", True: "pass", False: "fail"}[s["beats_floor"]], s.get("says")
        if not says:
            says = (
                f"{s['accuracy']['estimate']:.2f} of real openings, the label names alone {s['floor']['estimate']:.2f}"
            )
        gates.append(decide(rule, Interval(**s["above_floor"]), says, outcome=outcome, title=f"worth ({s['student']})"))
    return gates


def verdict_on(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The one verdict on a dataset, JSON-safe: ``verdict`` in a word or two, ``sentence`` and the ``gates`` of all that
    is known of it, its reports ``quality``, ``scorecard`` and ``training``.
    """
    found = [*reports.get("quality", {}).get("gates", ()), *worth_gates(reports.get("scorecard"))]
    if training := reports.get("training"):
        exam = training["reference"] or training["evaluation"]
        says = f"{training['chosen']} gets {exam['accuracy']['estimate']:.0%} right"
        found.append(decide("classifier", Interval(**exam["accuracy"]), says))
    return {"verdict": verdict(found), "sentence": sentence(found), "gates": found}


def verdict(gates: Sequence[Gate]) -> str | None:
    """``FAIL``, ``WARN``, ``PASS``, ``PASS on form; worth not measured``; None: nothing of the form was measured."""
    worth = [gate for gate in gates if gate["name"].startswith("worth")]
    form = [gate for gate in gates if gate not in worth and gate["name"] not in _LATER]
    if all(gate["outcome"] == "not measured" for gate in form):
        return None
    if any(gate["outcome"] == "fail" for gate in gates):
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
    """Whether the gate leaves the verdict open; real data, ids and languages may be what nobody has."""
    missing = gate["outcome"] == "not measured" and not gate["name"].startswith(("worth", *_MAY_LACK))
    return gate["outcome"] == "warn" or missing


def _share(name: str, part: Part, what: str, fails_below: float | None = None) -> Gate:
    if part["interval"] is None:
        return decide(name, part["reason"])
    says = f"{part['failed']:,} of {part['n']:,} {part['unit']} {what}"
    low, high = part["interval"]
    return decide(name, Interval(part["value"], low, high, part["n"]), says, fails_below=fails_below)


def _structure(total: Counted, checks: Sequence[Check], facets: Facets, parts: Mapping[str, Part]) -> Gate:
    """The worst of the fields and of the checks of form."""
    n, fields = total.n, parts["fields"]["detail"]
    missing = {name: gone for name, gone in fields["missing"].items() if name not in (facets.id, *fields["not_there"])}
    shares = [(1 - gone / n, n, f"{gone:,} of {n:,} records have no {name}") for name, gone in missing.items()]
    for name in dict.fromkeys(check.name for check in checks if check.gate == "schema and structure"):
        if (part := parts[name])["value"] is not None:
            failed = f"{part['failed']:,} of {part['n']:,} {part['unit']}"
            shares.append((part["value"], part["n"], f"{failed} fail the check of {name.replace('_', ' ')}"))
    value, of, says = min(shares, default=(1.0, n, ""))
    return decide("schema and structure", Interval(value, value, value, of), says)


def _enough(total: Counted, planned: Mapping[str, float]) -> Gate:
    name, n = "enough examples per label", total.n
    counts = {label: 0 for label, share in planned.items() if share > 0} | dict(total.labels)
    if not counts:
        return decide(name, "no record has a label")
    label = min(counts, key=lambda label: (counts[label], label))
    least = counts[label]
    says = f"the scarcest label, {label}, has {least:,} example{'s' * (least != 1)}"
    if n < FEWEST:
        return decide(name, Interval(least, 0, max(least, LEARNABLE), n), f"{n} records are too few to tell; {says}")
    return decide(name, Interval(least, least, least, n), says)


def _fidelity(part: Part, unlearnt: float | None) -> Gate:
    """A classifier's own errors are in its list of labels: the more it errs, the less the list says."""
    name, rule, detail = "label fidelity", rules()["label fidelity"], part["detail"]
    if part["value"] is None:
        return decide(name, part["reason"])
    low, high = part["interval"] or (part["value"], part["value"])
    value, right = Interval(part["value"], low, high, part["n"]), detail["out_of_fold_accuracy"]
    if "finding" in detail:
        return decide(name, value, detail["finding"], fails_below=unlearnt)
    if right < rule["reads_at_least"]:
        return decide(name, f"a classifier gets {right:.0%} of the labels right, too few to blame single ones")
    says = f"{part['failed']:,} of {part['n']:,} read like another label, to a classifier that gets {right:.0%} right"
    if right >= rule["reads_well"]:
        return decide(name, value, says, fails_below=unlearnt)
    return decide(name, value, says, outcome="pass" if above(value, rule["else_at_least"]) else "warn")


def _length(found: Mapping[str, Any] | str) -> Gate:
    name = "openings like people's"
    if isinstance(found, str):
        return decide(name, found)
    (row,) = (row for row in found["rows"] if row["name"] == "words, median")
    median, people = row["measured"]["estimate"], row["expected"]
    ratio = Interval(**{end: value / people for end, value in row["measured"].items()}, n=found["n"])
    longer, shorter = f"{ratio.estimate:.1f} times as long as", f"{ratio.estimate:.2f} of the length of"
    times = longer if ratio.estimate >= 1 else shorter
    return decide(name, ratio, f"openings are {times} {found['against']}: {median:g} words against {people:g}")


def _manner(found: Mapping[str, Any] | str) -> Gate:
    """By the kind of openings whose share is furthest from people's."""
    name = "manner of openings"
    if isinstance(found, str):
        return decide(name, found)
    kinds = [row for row in found["rows"] if row["name"] in KINDS.values()]
    worst = max(kinds, key=lambda row: abs(row["measured"]["estimate"] - row["expected"]))
    share, low, high = (worst["measured"][end] - worst["expected"] for end in ("estimate", "low", "high"))
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    close = Interval(1 - abs(share), 1 - max(abs(low), abs(high)), 1 - nearest, found["n"])
    ours, theirs = worst["measured"]["estimate"], worst["expected"]
    said = f"{ours:.0%} of openings are {worst['name']}, of {found['against']} {theirs:.0%}"
    return decide(name, close, said)
