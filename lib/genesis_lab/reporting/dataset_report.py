"""One page about a dataset, made of the reports kept with it: for people who won't open a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from genesis_lab.reporting import charts, judgement, sections
from genesis_lab.reporting.chat import chat
from genesis_lab.reporting.markup import Html, escape
from genesis_lab.reporting.pages import Part, Report, Section
from genesis_lab.reporting.style import MEANING
from genesis_lab.reporting.tables import NotMeasured
from genesis_lab.stats import proportion_interval

Reports = Mapping[str, Mapping[str, Any]]
"""Kind (``quality``, ``scorecard``, ``bias``, ``training``, ``verdict`` …) to the report as a dict."""
Rows = tuple[Part | tuple[Part, ...], ...]

RISING = 0.01
"""Accuracy gained by the last step of a learning curve below which more data is not worth its price."""
UNDERSTOOD = 0.5
"""Recall on real messages that an intent must be proven to miss before its openings are called weak."""
MIXED_UP = 0.1
"""Share of an intent's real messages that must be proven to be taken for another before the pair is named."""
_MOST_STEPS = 7
LANGUAGES = {"en": "English", "es": "Spanish"}


def dataset_report(
    name: str,
    manifest: Mapping[str, Any],
    reports: Reports,
    *,
    counts: Mapping[str, Mapping[str, int]],
    samples: Iterable[Mapping[str, Any]] = (),
    examples: Html | NotMeasured | None = None,
    title: str = "",
    provenance: Mapping[str, object] | None = None,
) -> Report:
    """The page: key figures, a summary in plain words, what to do next, then what stands behind it.

    Parameters
    ----------
    manifest : the dataset's.
    counts : attribute to records of each value: ``language``, ``intent``, ``category``, ``sentiment`` …
    samples : conversations to show.
    examples : what a trained model makes of a few sentences (`sections.predictions`).
    provenance : further lines of the footer: versions, command, date.
    """
    total = sum(manifest["counts"].values())
    languages = " and ".join(LANGUAGES.get(code, code) for code in counts.get("language", {})) or "no language given"
    steps = next_steps(reports)
    verdict = reports.get("verdict", {})
    return Report(
        title=title or f"Dataset report: {name}",
        subtitle=f"{total:,} conversations · {len(counts.get('intent', ())):,} intents · {languages}",
        summary=summary(name, manifest, reports),
        status=verdict.get("verdict") or "",
        figures=key_figures(manifest, reports),
        sections=(
            Section("The verdict", [sections.gates(verdict) if verdict else NotMeasured("no quality report")]),
            Section("What to do next", [bullets(steps) if steps else "Nothing stands out: the dataset can be used as it is."]),
            Section("What it is worth", _worth(reports.get("scorecard"))),
            Section("The classifier trained on it", _classifier(reports.get("training"), examples)),
            Section("Quality", _quality(reports.get("quality"))),
            *_judged(reports.get("judge")),
            Section("Balance", _balance(reports.get("bias"))),
            Section("What it holds", _content(counts, samples)),
        ),
        provenance=made_by(manifest) | dict(provenance or {}),
    )  # fmt: skip


def key_figures(manifest: Mapping[str, Any], reports: Reports) -> dict[str, object]:
    """The cards: verdict, worth, accuracy on real data, balance, cost."""
    card, verdict, bias = (reports.get(kind) for kind in ("scorecard", "verdict", "bias"))
    found: dict[str, object] = {"verdict": NotMeasured("no quality report")}
    if verdict and verdict["verdict"]:
        held = sum(gate["outcome"] == "pass" for gate in verdict["gates"])
        found["verdict"] = (verdict["verdict"], f"{held} of {len(verdict['gates'])} gates hold")
    best = _best(card)
    if best is None:
        why = NotMeasured(str((card or {"not_measured": {}})["not_measured"].get("scorecard", "no scorecard")))
        found |= {"worth": why, "accuracy on real data": why}
    else:
        a, worth = best["accuracy"], best["equivalence"]
        value, interval = _equivalent(worth) if worth else ("", "")
        found["worth"] = (
            ("nothing", f"the label names alone reach {best['floor']['estimate']:.0%}")
            if best["beats_floor"] is False
            else (value, f"real labelled examples per intent {interval}")
            if worth
            else NotMeasured("no real training data")
        )
        found["accuracy on real data"] = (
            f"{a['estimate']:.0%}",
            f"[{a['low']:.0%}–{a['high']:.0%}] of {a['n']:,} real messages",
        )
    return found | {"imbalance": imbalance(bias), "cost": cost(manifest)}


def summary(name: str, manifest: Mapping[str, Any], reports: Reports) -> str:
    """What a reader in a hurry takes away, in whole sentences."""
    says = [f"The verdict is {reports['verdict']['sentence']}"] if "verdict" in reports else []
    says += [f"The dataset {name} holds {sum(manifest['counts'].values()):,} conversations {_writer(manifest)}."]
    best = _best(reports.get("scorecard"))
    if best:
        a = best["accuracy"]
        text = f"A model taught with nothing else understands {a['estimate']:.0%} of real customer messages"
        if best["beats_floor"] is False:
            text += ", no more than the names of the intents alone achieve: it is worth nothing"
        elif best["equivalence"]:
            value, _ = _equivalent(best["equivalence"])
            text += f", as much as {value} real labelled examples per intent would teach it"
            if best["beats_floor"] is None:
                text += "; whether that is more than the names of the intents alone achieve can't be told"
        says.append(text + ".")
    else:
        says.append("What it is worth on real customer messages was not measured.")
    bias, training = reports.get("bias"), reports.get("training")
    says += balanced(bias)
    if training:
        tested = training["reference"] or training["evaluation"]
        kind = "real" if training["reference"] else "held-out"
        a = tested["accuracy"]
        says.append(
            f"The classifier trained on it, {training['chosen']}, gets {a['estimate']:.0%} of {a['n']:,} {kind} messages right."
        )
    return " ".join(says)


def next_steps(reports: Reports) -> list[str]:
    """What the reports recommend, the most useful first."""
    card, quality, bias = (reports.get(kind) for kind in ("scorecard", "quality", "bias"))
    gates = reports.get("verdict", {"gates": ()})["gates"]
    steps = [
        f"{gate['todo'].capitalize()}: {gate['says']}."
        for outcome in ("fail", "warn")
        for gate in gates
        if gate["outcome"] == outcome
    ]
    best = _best(card)
    if best:
        steps += _more_or_better(best["learning_curve"])
        weak = [
            i["intent"]
            for i in sorted(best["intents"], key=lambda i: (i["recall"], i["intent"]))
            if i["high"] < UNDERSTOOD
        ]
        if weak:
            steps.append(
                f"Write better openings for {_listed(weak, 4)}: real messages about them are understood least."
            )
        mixed = (p for p in best["confusions"] if proportion_interval(p["count"], p["n"])[0] > MIXED_UP)
        for pair in islice(mixed, 1):
            steps.append(
                f"Tell {pair['intent']} and {pair['taken_for']} apart: {pair['count']} of {pair['n']} real messages of the "
                "first are taken for the second."
            )
    for finding in (bias or {"findings": ()})["findings"]:
        if finding["severity"] != "none" and finding["recommendation"]:
            steps.append(f"Balance {finding['name']} ({finding['severity']}): {finding['recommendation']}")
    if quality:
        private = sum(part["failed"] or 0 for part in quality["personal_data"].values())
        if private:
            steps.append(f"Decide on {private:,} turns that look like personal data before anyone trains on them.")
    return steps[:_MOST_STEPS]


def _more_or_better(curve: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the last step of a learning curve paid, where its interval tells."""
    step = curve[-1].get("gain") if len(curve) > 1 else None
    if not step:
        return []
    by = f"{100 * step['estimate']:+.1f} points [{100 * step['low']:+.1f} to {100 * step['high']:+.1f}]"
    grown = (
        f"from {curve[-2]['records']:,} to {curve[-1]['records']:,} records accuracy on real messages changed by {by}"
    )
    if step["low"] > 0:
        return [f"Generate more: {grown}, so the next ones are likely to pay as well."]
    if step["high"] < RISING:
        return [f"Write new ways of asking rather than more records: {grown}."]
    return [f"Whether more records would pay can't be told: {grown}."]


def imbalance(bias: Mapping[str, Any] | None) -> object:
    """The card about balance."""
    if bias and bias["findings"]:
        return bias["severity"], _deviations(bias)
    return NotMeasured("nothing to hold against a plan" if bias else "no bias report")


def cost(manifest: Mapping[str, Any]) -> object:
    """The card about money."""
    usd = manifest.get("cost_usd")
    return NotMeasured("no price is known") if usd is None else (f"${usd:,.2f}", "to generate")


def balanced(bias: Mapping[str, Any] | None) -> list[str]:
    """The sentence about balance, where something was held against a plan."""
    if not bias or not bias["findings"]:
        return []
    level = {"none": "It is balanced as planned"}.get(bias["severity"], f"Its worst imbalance is {bias['severity']}")
    return [f"{level} ({_deviations(bias)})."]


def made_by(manifest: Mapping[str, Any]) -> dict[str, object]:
    """The footer: which records these are, who wrote them."""
    made = manifest.get("generation") or {}
    facts: dict[str, object] = {"content hash": manifest["content_hash"]}
    if made:
        facts |= {
            "written by": f"provider {made.get('provider')}, model {made.get('model')}",
            "plan": f"{made.get('plan_hash')}, seed {made.get('seed')}",
        }
    else:
        facts["written by"] = "unknown: the dataset was not generated here"
    return facts


def bullets(lines: Sequence[str]) -> Html:
    """A list of sentences."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return Html(f"<ul>{items}</ul>", "\n".join(f"- {line}" for line in lines))


def _worth(card: Mapping[str, Any] | None) -> Rows:
    if card is None:
        return (NotMeasured("no scorecard"),)
    if not card["students"]:
        return (NotMeasured(card["not_measured"].get("scorecard", "no student could be trained")),)
    return (
        "Standard models are trained on nothing but this dataset and tested on real customer messages. The same models "
        "trained on real labelled examples are the yardstick; the diamonds show where this dataset stands on it.",
        sections.k_shot_curve(card),
        sections.worth_table(card),
        sections.learning_curve(card),
        "What the dataset adds where some real examples are at hand:",
        sections.gain_table({**card, "students": [_best(card)]}),
    )


def _classifier(training: Mapping[str, Any] | None, examples: Html | NotMeasured | None) -> Rows:
    if training is None:
        return (NotMeasured("no classifier was trained"),)
    exam = training["reference"] or training["evaluation"]
    rows: Rows = (
        f"{training['chosen']}, chosen from {len(training['candidates'])} candidates, learned from {training['n_train']:,} messages."
        if training["candidates"]
        else f"{training['chosen']} learned from {training['n_train']:,} messages.",
        sections.training_results(training),
    )
    if examples:
        rows = (*rows, examples)
    return (*rows, sections.hardest_intents(exam), sections.confused_pairs(exam, limit=6))


def _quality(report: Mapping[str, Any] | None) -> Rows:
    if report is None:
        return (NotMeasured("no quality report"),)
    return (
        "Four scores, which decide nothing by themselves: is everything there (completeness), do labels and text agree (consistency), does it read like real "
        "messages (realism), is it varied (diversity).",
        sections.quality_radar(report),
        sections.quality_offences(report, limit=8),
    )


def _judged(report: Mapping[str, Any] | None) -> tuple[Section, ...]:
    """A judge is optional: without one there is no section."""
    if report is None:
        return ()
    said = f"A language model, {report['model']}, has read a sample and scored it from 1 to 5 on each criterion."
    rows = (said, judgement.scores(report), judgement.means(report), judgement.trust(report))
    return (Section("What a judge says", (*rows, judgement.worst(report))),)


def _balance(report: Mapping[str, Any] | None) -> Rows:
    if report is None:
        return (NotMeasured("no bias report"),)
    return (
        "Every attribute is held against its plan, and attributes that have nothing to do with each other are checked "
        "for going together: 0 means independent, 1 means that one tells the other.",
        sections.bias_findings(report, limit=6),
        sections.bias_associations(report),
    )


def _content(counts: Mapping[str, Mapping[str, int]], samples: Iterable[Mapping[str, Any]]) -> Rows:
    order = {value: place for place, value in enumerate(MEANING)}
    mix = {
        name: dict(sorted(values.items(), key=lambda item: order.get(item[0], len(order))))
        for name, values in counts.items()
        if name not in ("intent", "category") and values
    }
    rows: Rows = (charts.composition(mix),) if mix else ()
    if counts.get("category"):
        largest = dict(sorted(counts["category"].items(), key=lambda item: -item[1]))
        rows = (*rows, charts.distribution(largest, "category"))
    shown = list(samples)
    return (*rows, "Conversations picked at random:", chat(shown)) if shown else rows


def _writer(manifest: Mapping[str, Any]) -> str:
    made = manifest.get("generation") or {}
    if not made:
        return "that were not generated here"
    if made.get("provider") == "offline":
        return "written by a grammar, without a language model"
    return f"written by {made.get('model')} ({made.get('provider')})"


def _best(card: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    students: Sequence[Mapping[str, Any]] = (card or {"students": ()})["students"]
    return max(students, key=lambda s: s["accuracy"]["estimate"], default=None)


def _equivalent(worth: Mapping[str, Any]) -> tuple[str, str]:
    """The number of real examples, and its interval."""

    def shown(k: float | None, below: bool) -> str:
        if k is not None:
            return f"{k:.1f}"
        return f"under {worth['smallest_k']:g}" if below else f"over {worth['largest_k']:g}"

    low, high = shown(worth["low"], worth["low_below"]), shown(worth["high"], worth["high_below"])
    return shown(worth["k"], worth["below"]), f"[{low}–{high}]"


def _deviations(bias: Mapping[str, Any]) -> str:
    found = sum(finding["severity"] != "none" for finding in bias["findings"])
    return f"{found or 'none'} of {len(bias['findings'])} checks found something"


def _listed(names: Sequence[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
