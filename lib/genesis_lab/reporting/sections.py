"""From a report, as its ``to_dict`` gives it, to the figures and tables that show it: in the notebooks and on the report page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting import charts
from genesis_lab.reporting.charts import Mark
from genesis_lab.reporting.markup import Html
from genesis_lab.reporting.tables import NotMeasured, interval_text, table

Drawn: TypeAlias = go.Figure | Html | NotMeasured
Report = Mapping[str, Any]

OUTCOMES = {"fail": "FAIL", "warn": "WARN", "not measured": "–", "pass": "PASS"}
"""What a gate came to, as it is shown; worst first."""

SCORES = ("completeness", "consistency", "realism", "diversity")


def gates(verdict: Report) -> Drawn:
    """The gates of a verdict (`validation.gates.verdict_on`), worst first: what was measured, the threshold, what to do."""
    rows = [
        {
            "": OUTCOMES[gate["outcome"]],
            "gate": gate["name"],
            "measured": NotMeasured(gate["says"]) if gate["value"] is None else _measured(gate),
            "threshold": gate["threshold"],
            "what is so": "" if gate["outcome"] in ("pass", "not measured") else gate["says"],
            "what to do": gate["todo"] if gate["outcome"] in ("fail", "warn") else "",
        }
        for gate in sorted(verdict["gates"], key=lambda gate: list(OUTCOMES).index(gate["outcome"]))
    ]
    return table(rows, caption=f"Gates ({verdict['verdict']})") if rows else NotMeasured("no quality report")


def quality_radar(report: Report) -> go.Figure:
    """The four scores of a quality report."""
    return charts.quality_radar({name: report[name]["value"] for name in SCORES})


def quality_parts(report: Report) -> Html:
    """Every measurement behind the scores: value, interval, on how many."""
    rows = [
        {"score": name, "part": part["name"], "value": _part_value(part), "n": part["n"], "of": part["unit"]}
        for name in SCORES
        for part in report[name]["parts"]
    ]
    return table(rows, caption="What the scores are made of (0 worst, 1 best)")


def quality_offences(report: Report, *, limit: int = 15) -> Html | str:
    """The records that something is wrong with, by part."""
    rows = [
        {
            "part": part["name"],
            "record": offence["record_id"] or f"row {offence['row'] + 1}",
            "what is wrong": offence["reason"],
        }
        for name in SCORES
        for part in report[name]["parts"]
        for offence in part["offences"][:5]
    ]
    return table(rows, caption="Records to look at", limit=limit) if rows else "No single record stands out."


def k_shot_curve(card: Report) -> Drawn:
    """What real labelled examples would give, and where the dataset stands among them."""
    curves = {s["title"]: _points(s["k_shots"], "k") for s in card["students"] if s["k_shots"]}
    if not curves:
        return NotMeasured(_why(card, "k_shots"))
    marks = {}
    for s in card["students"]:
        worth = {} if s["beats_floor"] is False else s["equivalence"] or {}
        a = s["accuracy"]
        marks[s["title"]] = Mark(
            a["estimate"], a["low"], a["high"], worth.get("k"), worth.get("low"), worth.get("high")
        )
    return charts.k_shot_curve(curves, marks, floors={s["title"]: s["floor"]["estimate"] for s in card["students"]})


def learning_curve(card: Report) -> Drawn:
    """Accuracy on real data as the dataset grows: would more of it still pay?"""
    curves = {s["title"]: _points(s["learning_curve"], "records", "n") for s in card["students"] if s["learning_curve"]}
    return charts.learning_curve(curves, unit="synthetic records") if curves else NotMeasured(_why(card, "scorecard"))


def worth_table(card: Report) -> Drawn:
    """Each student's accuracy, macro-F1 and what the dataset is worth to it."""
    rows = [
        {
            "student": s["title"],
            "accuracy": _estimate(s["accuracy"]),
            "macro-F1": _estimate(s["macro_f1"]),
            "label names alone": _estimate(s["floor"]),
            "more than these": {True: "yes", False: "no", None: "can't be told"}[s["beats_floor"]],
            "the dataset is": card["worth"].get(s["student"], NotMeasured(_why(card, "equivalence"))),
        }
        for s in card["students"]
    ]
    return (
        table(rows, caption="Trained on this dataset only, tested on real utterances")
        if rows
        else NotMeasured(_why(card, "scorecard"))
    )


def gain_table(card: Report) -> Drawn:
    """What the dataset adds to k real examples per intent."""
    rows = [
        {
            "student": s["title"],
            "real examples per intent": round(gain["k"], 1),
            "real only": f"{gain['real_only']:.2f}",
            "with this dataset": f"{gain['with_synthetic']:.2f}",
            "difference": _estimate(gain["difference"], signed=True),
        }
        for s in card["students"]
        for gain in s["gains"]
    ]
    return table(rows, caption="Added to real examples") if rows else NotMeasured(_why(card, "gains"))


def worst_intents(card: Report, *, limit: int = 12) -> Drawn:
    """The intents whose real utterances the best student recognises least."""
    if not card["students"]:
        return NotMeasured(_why(card, "scorecard"))
    best = max(card["students"], key=lambda s: s["accuracy"]["estimate"])
    return charts.score_list(
        pd.DataFrame(best["intents"]), label="intent", value="recall", axis="recall on real utterances", limit=limit,
        title=f"Intents that {best['title']} finds hardest",
    )  # fmt: skip


def confusion_table(card: Report, *, limit: int = 12) -> Drawn:
    """The pairs of intents that the best student mixes up most."""
    if not card["students"]:
        return NotMeasured(_why(card, "scorecard"))
    best = max(card["students"], key=lambda s: s["accuracy"]["estimate"])
    rows = [
        {"intent": c["intent"], "taken for": c["taken_for"], "times": c["count"], "of": c["n"]}
        for c in best["confusions"]
    ]
    return table(rows[:limit], caption=f"What {best['title']} mixes up most") if rows else "Nothing is mixed up."  # type: ignore[return-value]


def candidates(report: Report) -> go.Figure:
    """The classifiers that were compared, on the records kept for comparing."""
    rows = [
        {
            "candidate": c["candidate"],
            "score": c["score"],
            **({"low": c["interval"]["low"], "high": c["interval"]["high"]} if c["interval"] else {}),
        }
        for c in report["candidates"]
    ]
    first = report["candidates"][0]
    metric, where = str(report["config"]["metric"]).replace("f1_macro", "macro-F1"), first["measured_on"]
    n = f", n = {first['interval']['n']:,}" if first["interval"] else ""
    return charts.score_list(
        pd.DataFrame(rows), label="candidate", value="score", axis=f"{metric} ({where}{n})",
        title=f"Chosen: {first['candidate']} ({metric} {first['score']:.2f})",
    )  # fmt: skip


def training_results(report: Report) -> Html:
    """How good a classifier is: on held-out records, by language, and on real ones."""
    held_out, real = report["evaluation"], report["reference"]
    languages = held_out["per_language"] if len(held_out["per_language"]) > 1 else {}
    rows = [_result("held out", held_out)]
    rows += [{"tested on": f"held out, {name}", "n": a["n"], "accuracy": _estimate(a)} for name, a in languages.items()]
    if real:
        rows.append(_result(f"real: {real['name']}", real))
    else:
        rows.append({"tested on": "real", "accuracy": NotMeasured(report["not_measured"]["reference"])})
    return table(rows, caption=f"What {report['chosen']} gets right", formats={"ECE": ".2f"})


def training_curve(report: Report) -> go.Figure:
    """Held-out accuracy of a classifier as the records it learns from grow in number."""
    return charts.learning_curve({report["chosen"]: _points(report["learning_curve"], "records", "n")}, unit="messages")


def confused_pairs(evaluation: Report, *, limit: int = 10) -> Html | str:
    """The pairs of intents that a classifier mixes up most."""
    of = {r["intent"]: r["recall"]["n"] for r in evaluation["per_intent"]}
    rows = [
        {"intent": c["intent"], "taken for": c["predicted"], "times": c["count"], "of": of[c["intent"]]}
        for c in evaluation["confusions"]
    ]
    return table(rows[:limit], caption="Mixed up most often") if rows else "Nothing is mixed up."


def predictions(found: Sequence[Any], texts: Sequence[str]) -> Html:
    """What a model makes of sentences (`training.models.Prediction`), with its second choice."""
    rows = [
        {
            "sentence": text,
            "intent": p.intent,
            "sure": f"{p.probability:.0%}",
            "else": f"{p.alternatives[0][0]} ({p.alternatives[0][1]:.0%})" if p.alternatives else "–",
        }
        for text, p in zip(texts, found, strict=True)
    ]
    return table(rows, caption="What the model understands")


def confusion_heatmap(evaluation: Report, *, limit: int = 20) -> go.Figure:
    """Who is taken for whom, for the intents with the most errors."""
    intents = {r["intent"]: r["recall"] for r in evaluation["per_intent"]}
    names = sorted({*intents, *(c["predicted"] for c in evaluation["confusions"])})
    matrix = pd.DataFrame(0, index=names, columns=names)
    for name, recall in intents.items():
        matrix.loc[name, name] = round(recall["estimate"] * recall["n"])
    for confusion in evaluation["confusions"]:
        matrix.loc[confusion["intent"], confusion["predicted"]] = confusion["count"]
    return charts.confusion_heatmap(matrix, limit=limit)


def calibration(evaluation: Report) -> go.Figure:
    """How often the classifier is right when it says how sure it is."""
    bins = [
        {"confidence": b["confidence"], "accuracy": b["accuracy"]["estimate"], "n": b["accuracy"]["n"]}
        for b in evaluation["reliability"]
    ]
    return charts.calibration(pd.DataFrame(bins))


def hardest_intents(evaluation: Report, *, limit: int = 12) -> go.Figure:
    """The intents of a classifier's test set with the lowest recall."""
    rows = [{"intent": r["intent"], **_ends(r["recall"], "recall")} for r in evaluation["per_intent"]]
    return charts.score_list(pd.DataFrame(rows), label="intent", value="recall", axis="recall", limit=limit)


def bias_findings(report: Report, *, limit: int = 15) -> Html | str:
    """What a bias check found, worst first, and which records would mend it."""
    rows = [
        {"severity": f["severity"], "what": f["sentence"], "what to do": f["recommendation"] or "nothing"}
        for f in report["findings"]
        if f["severity"] != "none"
    ]
    none = sum(f["severity"] == "none" for f in report["findings"])
    if not rows:
        return f"All {none} checks are within what chance allows."
    return table(rows, caption=f"Findings, worst first ({none} more checks found nothing)", limit=limit)


def bias_target(report: Report, attribute: str) -> Drawn:
    """Observed shares of an attribute against its target."""
    for fit in report["fits"]:
        if fit["attribute"] == attribute:
            shares = {value: count / fit["n"] for value, count in fit["observed"].items()}
            return charts.target_vs_observed(fit["target"], shares, attribute, intervals=fit["intervals"])
    return NotMeasured(str(report["not_measured"].get(attribute, "no target")))


def bias_fits(report: Report) -> Drawn:
    """Every attribute held against its target: how far off, and whether that can be chance."""
    rows = [
        {
            "attribute": fit["attribute"],
            "effect size w": _estimate(fit["w"]),
            "records to change": f"{fit['total_variation']:.1%}",
            "test": fit["test"],
            "p (Holm)": f"{fit['p_holm']:.2g}",
            "severity": fit["severity"],
        }
        for fit in report["fits"]
    ]
    return table(rows, caption="Observed against planned") if rows else NotMeasured("the dataset has no targets")


def bias_coverage(report: Report) -> Drawn:
    """How many of the planned combinations of intent and language have records."""
    covered = report["coverage"]
    if covered is None:
        return NotMeasured(str(report["not_measured"].get("coverage", "the dataset has no targets")))
    row = {
        "intents × languages planned": covered["planned"],
        "covered": f"{covered['covered']['estimate']:.1%}",
        "missing": len(covered["missing"]),
        "thin": len(covered["thin"]),
    }
    return table([row], caption="Coverage")


def bias_associations(report: Report) -> Drawn:
    """How strongly attributes that should be independent go together (bias-corrected Cramér's V)."""
    pairs = [(*a["attributes"], a["v"]["estimate"]) for a in report["associations"] if a["within"] is None]
    if not pairs:
        return NotMeasured("there are no two attributes to compare")
    names = list(dict.fromkeys(name for pair in pairs for name in pair[:2]))
    matrix = pd.DataFrame(index=names, columns=names, dtype=float)
    for a, b, v in pairs:
        matrix.loc[a, b] = matrix.loc[b, a] = v
    return charts.association_heatmap(matrix)


def bias_targets(report: Report, *, most: int = 20) -> list[Drawn]:
    """Observed shares against targets, a figure for each attribute of at most so many values."""
    return [bias_target(report, fit["attribute"]) for fit in report["fits"] if len(fit["target"]) <= most]


def bias_appearances(report: Report) -> Drawn:
    """Who and what the conversations mention, by language."""
    if "appearance" in report["not_measured"]:
        return NotMeasured(str(report["not_measured"]["appearance"]))
    rows = [
        {
            "mentioned": a["kind"],
            "language": a["language"] or "all",
            "in conversations": f"{a['n']:,} of {a['records']:,}",
            "groups": ", ".join(f"{group} {count:,}" for group, count in a["groups"].items()) or "–",
            "most often": ", ".join(w for words in a["words"].values() for w in list(words)[:3]) or "–",
            "severity": a["severity"],
        }
        for a in report["appearances"]
    ]
    return table(rows, caption="Who appears")


def _measured(gate: Report) -> str:
    counted = gate["low"] == gate["high"]
    low, high = (None, None) if counted else (gate["low"], gate["high"])
    return interval_text(gate["value"], low, high, digits=0 if counted and gate["value"] >= 2 else 2)


def _points(rows: Any, x: str, name: str | None = None) -> pd.DataFrame:
    return pd.DataFrame([{name or x: row[x], **_ends(row["accuracy"], "score")} for row in rows])


def _part_value(part: Report) -> object:
    return NotMeasured(part["reason"]) if part["value"] is None else _interval(part["value"], part["interval"])


def _result(name: str, evaluation: Report) -> dict[str, Any]:
    a, f1 = evaluation["accuracy"], evaluation["macro_f1"]
    return {
        "tested on": name,
        "n": a["n"],
        "accuracy": _estimate(a),
        "macro-F1": _estimate(f1),
        "ECE": evaluation["ece"],
    }


def _ends(value: Report, name: str) -> dict[str, float]:
    return {name: value["estimate"], "low": value["low"], "high": value["high"]}


def _estimate(value: Report, *, signed: bool = False) -> str:
    text = interval_text(value["estimate"], value["low"], value["high"])
    return f"+{text}" if signed and value["estimate"] > 0 else text


def _interval(value: float, interval: Any) -> str:
    return interval_text(value, *(interval or (None, None)))


def _why(card: Report, key: str) -> str:
    missing = card["not_measured"]
    return str(missing.get(key) or missing.get("scorecard") or "there is nothing to measure")
