"""What a judge says of a dataset (``JudgeReport.to_dict``), as figures and tables; None where nobody was asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from genesis_lab.reporting import charts
from genesis_lab.reporting.sections import Drawn, Report
from genesis_lab.reporting.tables import NotMeasured, interval_text, table


def scores(report: Report | None) -> Drawn:
    """How often a judge gave each score from 1 to 5, by criterion."""
    if not report or not report["criteria"]:
        return NotMeasured(_unjudged(report))
    counts = {
        c["name"].replace("_", " "): {f"score {score}": n for score, n in c["counts"].items()}
        for c in report["criteria"]
    }
    mean = _interval(report["overall"])
    return charts.composition(counts, title=f"{report['model']} gives {mean} of 5 on average")


def means(report: Report | None) -> Drawn:
    """A judge's mean on each criterion, and how far people agree with it."""
    if not report or not report["criteria"]:
        return NotMeasured(_unjudged(report))
    rows = [
        {
            "criterion": c["name"].replace("_", " "),
            "question": c["question"],
            "mean, 1 to 5": _interval(c["mean"]),
            "n": c["mean"]["n"],
            "kappa with people": "; ".join(_kappa(a) for a in report["agreement"] if a["name"] == c["name"])
            or NotMeasured(report["not_measured"].get("agreement", "no human labels for it")),
        }
        for c in report["criteria"]
    ]
    return table(rows, caption=f"What {report['model']} gives {report['judged']:,} of {report['sample']:,} records")


def trust(report: Report | None) -> Drawn:
    """What speaks for and against a judge: unread answers, controls, agreement, caveats."""
    if not report:
        return NotMeasured(_unjudged(report))
    unread = ", ".join(f"{why}: {n:,}" for why, n in report["not_judged"].items())
    control = report["control"]
    rows: list[dict[str, object]] = [
        {"check": "answers that count", "what it says": f"{report['judged']:,} of {report['sample']:,}; {unread or 'all were read'}"},
        {"check": "control", "what it says": control["reading"] if control else NotMeasured(report["not_measured"]["control"])},
    ]  # fmt: skip
    rows += [
        {"check": f"{_rater(a)}, {a['name'].replace('_', ' ')} (n = {a['n']:,})", "what it says": a["reading"]}
        for a in report["agreement"]
    ]
    rows += [{"check": "caveat", "what it says": caveat} for caveat in report["caveats"]]
    return table(rows, caption="How far to trust it")


def worst(report: Report | None) -> Drawn:
    """The records that a judge gave least, with its reasons."""
    if not report:
        return NotMeasured(_unjudged(report))
    rows = [
        {
            "record": r["record_id"],
            "intent": r["intent"],
            "scores": " ".join(str(score) for score in r["scores"].values()),
            "why": r["reason"],
        }
        for r in report["worst"]
    ]
    return table(rows, caption="Records it gave least") if rows else "Every record has the full score."  # type: ignore[return-value]


def _unjudged(report: Report | None) -> str:
    return str(report["not_measured"].get("criteria", "nothing was judged")) if report else "no judge chosen"


def _rater(agreement: Report) -> str:
    return str(agreement["rater"] or "people")


def _kappa(agreement: Report) -> str:
    said = _interval(agreement["kappa"]) if agreement["kappa"] else str(agreement["reading"])
    return f"{agreement['rater']}: {said}" if agreement["rater"] else said


def _interval(value: Mapping[str, Any]) -> str:
    return interval_text(value["estimate"], value["low"], value["high"])
