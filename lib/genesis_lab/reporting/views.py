"""What is shown of a report: by the one list in ``views.yaml``, for notebook cells, the HTML page and the PDF alike.

A report is the dict that whoever measured it wrote. What one lacks is shown as not measured, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from genesis_lab.reporting import charts
from genesis_lab.reporting.html import (
    Html,
    NotMeasured,
    at,
    bullets,
    cell_text,
    ends,
    facts,
    interval_text,
    side_by_side,
    table,
)
from genesis_lab.reporting.page import Part, Section
from genesis_lab.reporting.progress import duration
from genesis_lab.reporting.style import BLUE, GREEN, GREY, INK, LINE, MUTED, RED
from genesis_lab.yamls import shipped

Report = Mapping[str, Any]

OUTCOMES = {"fail": "FAIL", "warn": "WARN", "not measured": "–", "pass": "PASS"}
"""What a gate came to, as it is shown; worst first."""


def kinds() -> dict[str, Any]:
    """Kind of report to what is said where there is none (``missing``) and to its ``views``: ``views.yaml``."""
    return dict(shipped(Path(__file__).with_name("views.yaml")))


def view(kind: str, name: str, report: Report | None) -> Any:
    """What is shown under this name of a report of this kind; why not, where there is none or it is not whole."""
    if not report:
        return NotMeasured(kinds()[kind]["missing"])
    how, draw = kinds()[kind]["views"][name], DRAW[kind].get(name)
    try:
        if "facts" in how:
            told = {heading: _cell(of, report) for heading, of in how["facts"].items()}
            return facts(
                {heading: value for heading, value in told.items() if value is not None}, caption=how["caption"]
            )
        drawn = draw(report) if draw else [row for row in at(report, how["rows"]) if not row.get(how.get("unless"))]
        if "columns" not in how or isinstance(drawn, NotMeasured):
            return drawn
        if not drawn:
            return _why(report, how["why"]) if "why" in how else how["empty"]
        columns = {heading: partial(_cell, of) for heading, of in how["columns"].items()}
        return table(drawn, columns, caption=how["caption"].format_map(report), limit=how.get("limit", 50))
    except (KeyError, TypeError, IndexError, AttributeError, StopIteration) as error:
        # A record that anyone may have written, or one of another version
        return NotMeasured(f"the record that is kept of it is not whole ({type(error).__name__}: {error})")


def views(kind: str, report: Report | None, *, extra: Sequence[Part] = ()) -> list[Section]:
    """The sections of the page about a report of this kind; `extra` parts come at the end of the last one."""
    sections: list[Section] = []
    for name, how in kinds()[kind]["views"].items():
        if "title" in how:
            sections.append(Section(how["title"], smoke(report) if report else []))
        drawn = view(kind, name, report) if how.get("page", True) else []
        parts = drawn if isinstance(drawn, list) else [drawn]
        whole = [part for part in parts if not isinstance(part, NotMeasured)]
        sections[-1].parts.extend([how["says"], *parts] if "says" in how and whole else parts)
        if not report:
            break
    sections[-1].parts.extend(extra)
    return sections


def _cell(of: str, row: Report) -> Any:
    """The value of a column of ``views.yaml``."""
    if "{" in of:
        return of.format_map(row)
    path, spec, why = (of + "||").split("|")[:3]
    value = at(row, path)
    if value is None:
        return NotMeasured(why) if why else None
    if not spec or isinstance(value, NotMeasured):
        return value
    return HOW[spec](value) if spec in HOW else cell_text(value, spec)


def smoke(report: Report) -> list[Part]:
    """What stands above all figures of a smoke run."""
    given = ", ".join(f"{name} {value}" for name, value in (report.get("limits") or {}).items())
    return [f"A smoke run ({given}): nothing in this section is a result."] if given else []


def predictions(found: Sequence[Any], texts: Sequence[str]) -> Html:
    """What a model makes of sentences (`training.models.Prediction`), with its second choice."""
    rows = [
        {"sentence": text, "understood as": p.intent, "sure": f"{p.probability:.0%}",
         "else": f"{p.alternatives[0][0]} ({p.alternatives[0][1]:.0%})" if p.alternatives else "–"}
        for text, p in zip(texts, found, strict=True)
    ]  # fmt: skip
    return table(rows, caption="What the model understands")


def shares(counts: Mapping[str, float], name: str, *, unit: str) -> Part:
    """How often each value of an attribute occurs."""
    total, of = sum(counts.values()), [*counts.values()]
    said = (
        f"{min(of) / total:.1%} to {max(of) / total:.1%} each"
        if total and len(of) > 3
        else ", ".join(f"{value} {n / total:.1%}" for value, n in counts.items() if total)
    )
    title = f"{name.replace('_', ' ').capitalize()}: {said or 'no data'} (n = {total:,})"
    return charts.bars(counts, title=title, axis=unit)


def compared(counts: Mapping[str, Mapping[str, float]], difference: Report, *, unit: str) -> Part:
    """An attribute's values in two datasets side by side, with what the comparison says of it."""
    p = difference["p_holm"]
    told = (
        "not tested"
        if p is None
        else f"{'they differ' if difference['differs'] else 'no difference proven'}, p = {p:.2g}"
    )
    title = f"{difference['attribute'].capitalize()}: {difference['total_variation']:.1%} of {unit} would have to change ({told})"
    whole = {name: sum(one.values()) or 1 for name, one in counts.items()}
    rows = {name: {value: n / whole[name] for value, n in one.items()} for name, one in counts.items()}
    return charts.bars(rows, title=title, axis=f"share of {unit}", spec=".0%")


def headline(report: Report) -> Report:
    """The pair that the verdict of an evaluation is about."""
    pair: Report = next(p for p in report["pairs"] if [p["a"], p["b"]] == list(report["headline"]))
    return pair


def best(card: Report | None) -> Report | None:
    """The learner of a scorecard that does best on real data."""
    return max((card or {}).get("students") or (), key=lambda s: s["accuracy"]["estimate"], default=None)


def named(row: Report) -> list[str]:
    """The texts of a row in their order: the label; of a confusion the true one and the one it is taken for."""
    return [value for value in row.values() if isinstance(value, str)]


def points(value: Report) -> str:
    """A difference in points of 100."""
    return interval_text({end: 100 * value[end] for end in ("estimate", "low", "high")}, "+.1f")


# verdict and quality


def _gates(verdict: Report) -> Part:
    rows = sorted(verdict["gates"], key=lambda gate: list(OUTCOMES).index(gate["outcome"]))
    columns: dict[str, Any] = {
        "": lambda g: OUTCOMES[g["outcome"]],
        "gate": "name",
        "measured": _measured,
        "threshold": "threshold",
        "what is so": lambda g: "" if g["outcome"] in ("pass", "not measured") else g["says"],
        "what to do": lambda g: g["todo"] if g["outcome"] in ("fail", "warn") else "",
    }
    return table(rows, columns, caption=f"Gates ({verdict['verdict']})") if rows else NotMeasured("no quality report")


def _measured(gate: Report) -> object:
    if gate["value"] is None:
        return NotMeasured(gate["says"])
    if gate["low"] == gate["high"]:
        return interval_text(gate["value"], ",.0f" if gate["value"] >= 2 else ",.2f")
    return {"estimate": gate["value"], "low": gate["low"], "high": gate["high"]}


def _scores(report: Report) -> dict[str, Report]:
    return {name: one for name, one in report.items() if isinstance(one, Mapping) and "parts" in one}


def _parts(report: Report) -> Any:
    parts = [part | {"score": name} for name, score in _scores(report).items() for part in score["parts"]]
    ends_of = [dict(zip(("low", "high"), part.get("interval") or (None, None), strict=True)) for part in parts]
    return [
        part | {"measured": NotMeasured(part.get("reason") or "?") if part["value"] is None else {"estimate": part["value"]} | e}
        for part, e in zip(parts, ends_of, strict=True)
    ]  # fmt: skip


def _quality(report: Report) -> Part:
    found = {name: score["value"] for name, score in _scores(report).items()}
    said = ", ".join(f"{name} {value:.2f}" for name, value in found.items() if value is not None)
    rows = [{"name": name, "value": value} for name, value in found.items()]
    return charts.dots(
        rows, title=f"{said or 'Nothing was measured'} (n = {report['records']:,})", axis="score, 1 is best"
    )


def _offences(report: Report) -> Any:
    found = [
        offence | {"part": part["name"]} for part in _parts(report) for offence in (part.get("offences") or ())[:5]
    ]
    return [o | {"record": o["record_id"] or f"row {o['row'] + 1}"} for o in found]


def _private(report: Report) -> Any:
    rows = [{"kind": kind, "n": part["failed"], "of": part["n"]} for kind, part in report["personal_data"].items()]
    if copies := report.get("contamination"):
        n = NotMeasured(copies["reason"]) if copies["value"] is None else copies["failed"]
        rows.append({"kind": "near-copies of the reference", "n": n, "of": copies["n"]})
    return rows


# worth, and classifiers


def _why(report: Report, key: str, other: str = "there is nothing to measure") -> NotMeasured:
    missing = report.get("not_measured") or {}
    return NotMeasured(str(missing.get(key) or missing.get("scorecard") or other))


def _equivalent(worth: Report | None) -> Report | None:
    return worth and {"estimate": worth["k"], "low": worth["low"], "high": worth["high"]}


def _real_examples(card: Report) -> Part:
    of = {s["title"]: s for s in card["students"] if s.get("k_shots")}
    if not of:
        return _why(card, "k_shots")
    curves = {title: [(shot["k"], shot["accuracy"]) for shot in s["k_shots"]] for title, s in of.items()}
    last = max(x for curve in curves.values() for x, _ in curve)
    worth = {title: None if s["beats_floor"] is False else _equivalent(s["equivalence"]) for title, s in of.items()}
    marks: dict[str, tuple[Any, Any]] = {
        f"this dataset, {title}": (worth[title] if at(worth[title], "estimate") else last, s["accuracy"])
        for title, s in of.items()
    }
    title = max(of, key=lambda t: of[t]["accuracy"]["estimate"])
    said = f"{title}: accuracy {interval_text(of[title]['accuracy'])}"
    if of[title]["beats_floor"] is False:
        said += ", no more than the label names alone"
    elif at(worth[title], "estimate") is not None:
        said = f"Worth {interval_text(worth[title], ',.1f')} real labelled examples per label ({title})"
    n = of[title]["accuracy"].get("n")
    return charts.lines(
        curves, title=said, x="real labelled examples per label", y="accuracy on real data", log=True, ticks=True,
        marks=marks, levels={f"label names alone {floor:.2f}": floor for s in of.values() if (floor := at(s, "floor.estimate")) is not None},
        subtitle=f"accuracy on {n:,} real utterances with 95 % interval; diamonds: this dataset" if n else "",
    )  # fmt: skip


def _worth(card: Report) -> Any:
    told, none = {True: "yes", False: "no", None: "can't be told"}, _why(card, "equivalence")
    return [
        s | {"more": told[s["beats_floor"]], "says": card["worth"].get(s["student"], none)} for s in card["students"]
    ]


def _gains(card: Report) -> Any:
    return [gain | {"title": s["title"]} for s in card["students"] for gain in s["gains"]]


def _growth(curves: Mapping[str, Sequence[Report]], unit: str) -> Part:
    name, rows = max(curves.items(), key=lambda item: float(item[1][-1]["accuracy"]["estimate"]))
    end = f"{rows[-1]['records']:,} {unit}"
    title = f"{name}: accuracy {interval_text(rows[-1]['accuracy'])} with {end}"
    if gain := rows[-1].get("gain"):
        how = "rises" if gain["low"] > 0 else "falls" if gain["high"] < 0 else "can't be told from the step before"
        title = f"From {rows[-2]['records']:,} to {end} the accuracy of {name} {how}: {points(gain)} points"
    found = {title: [(row["records"], row["accuracy"]) for row in one] for title, one in curves.items()}
    n = rows[-1]["accuracy"].get("n")
    below = f"tested on {n:,}, 95 % interval" if n else ""
    return charts.lines(found, title=title, x=unit, y="accuracy", log=True, ticks=True, subtitle=below)


def _learning(card: Report) -> Part:
    curves = {s["title"]: s["learning_curve"] for s in card["students"] if s["learning_curve"]}
    return _growth(curves, "synthetic records") if curves else _why(card, "scorecard")


def _exam(report: Report) -> Report:
    found: Report = report.get("reference") or report["evaluation"]
    return found


def _labels(report: Report, who: str) -> Part:
    """Recall by label, lowest first, from rows of labels with their recall."""
    rows = report.get("per_label") or report.get("per_intent") or report.get("labels") or report.get("intents") or ()
    found = [(named(row)[0], row["recall"] if isinstance(row["recall"], Mapping) else row | {"estimate": row["recall"]}) for row in rows]  # fmt: skip
    found.sort(key=lambda item: (item[1]["estimate"], item[0]))
    if not found:
        return NotMeasured("nothing was recognised")
    name, recall = found[0]
    title = f"{who}: recall by label, lowest first: {name} {interval_text(recall)} of {recall['n']:,}"
    below = f"the lowest {min(12, len(found))} of {len(found)} labels, 95 % interval"
    shown = [{"name": name, "value": recall} for name, recall in found[:12]]
    return charts.dots(shown, title=title, axis="recall", subtitle=below)


def _mixed_up(report: Report, who: str) -> Part:
    labels = report.get("per_label") or report.get("per_intent") or ()
    of = {named(row)[0]: at(row, "recall.n") for row in labels}
    rows = [dict(zip(("label", "taken for"), named(c)[:2], strict=True)) | {"times": c["count"], "of": c.get("n") or of.get(named(c)[0])} for c in report["confusions"]]  # fmt: skip
    return table(rows[:10], caption=f"What {who} mixes up most") if rows else "Nothing is mixed up."


def _of_best(draw: Callable[[Report, str], Part]) -> Callable[[Report], Part]:
    def drawn(card: Report) -> Part:
        found = best(card)
        return _why(card, "scorecard") if found is None else draw(found, str(found["title"]))

    return drawn


def _candidates(report: Report) -> Part:
    if not report["candidates"]:
        return "One candidate: there was nothing to choose."
    first, metric = report["candidates"][0], str(report["config"]["metric"]).replace("f1_macro", "macro-F1")
    rows = [{"name": c["candidate"], "value": c["interval"] or c["score"]} for c in report["candidates"]]
    title = f"Chosen: {first['candidate']} ({metric} {interval_text(first['interval'] or first['score'])})"
    n = f", n = {first['interval']['n']:,}" if first["interval"] else ""
    return charts.dots(rows, title=title, axis=f"{metric} ({first['measured_on']}{n})")


def _chosen(report: Report) -> Part:
    many = f", chosen from {len(report['candidates'])} candidates," if report["candidates"] else ""
    return f"{report['chosen']}{many} learned from {report['n_train']:,} messages."


def _results(report: Report) -> Any:
    held_out, real = report["evaluation"], report["reference"]
    by_language = held_out["per_language"] if len(held_out["per_language"]) > 1 else {}
    rows = [{"name": f"held out, {name}", "accuracy": accuracy} for name, accuracy in by_language.items()]
    why = NotMeasured((report.get("not_measured") or {}).get("reference", "no reference"))
    on_real = real | {"name": f"real: {real['name']}"} if real else {"name": "real", "accuracy": why}
    return [held_out | {"name": "held out"}, *rows, on_real]


def _heat(report: Report) -> Part:
    exam = _exam(report)
    pairs = {tuple(named(c)[:2]): c["count"] for c in exam["confusions"]}
    recalls = {named(row)[0]: row["recall"] for row in exam.get("per_label") or exam["per_intent"]}
    if not pairs:
        return "No label is taken for another."
    kept = set(list(dict.fromkeys(name for pair in sorted(pairs, key=lambda p: -pairs[p]) for name in pair))[:20])
    cells = {(name, name): r["estimate"] for name, r in sorted(recalls.items()) if name in kept}
    cells |= {(a, b): n / recalls[a]["n"] for (a, b), n in pairs.items() if {a, b} <= kept}
    (a, b), n = max(pairs.items(), key=lambda item: item[1])
    below = (
        f"the {len(kept)} of {len(recalls)} labels in the most frequent confusions" if len(kept) < len(recalls) else ""
    )
    title = f"Most often: {a} taken for {b} ({n} of {recalls[a]['n']})"
    return charts.heat(cells, title=title, subtitle=below, measure="share of the true label", x="predicted", y="true")


def _calibration(report: Report) -> Part:
    exam = _exam(report)
    bins = [b for b in exam["reliability"] if b["accuracy"]["n"]]
    n = sum(b["accuracy"]["n"] for b in bins) or 1
    says, low, high = sum(b["confidence"] * b["accuracy"]["n"] for b in bins) / n, *ends(exam["accuracy"])[1:]
    how = "surer than it is right" if says > high else "less sure than it is right" if says < low else "as sure as it is right, as far as can be told"  # fmt: skip
    curves: dict[str, Any] = {"classifier": [(b["confidence"], b["accuracy"]) for b in bins], "as sure as right": [(0, 0), (1, 1)]}  # fmt: skip
    return charts.lines(
        curves, title=f"The classifier is {how}: says {says:.0%}, is right in {interval_text(exam['accuracy'], '.0%')} of {n:,}",
        x="confidence", y="accuracy", looks={"as sure as right": {"mode": "lines", "line": {"color": LINE, "dash": "dash"}}},
        xaxis={"range": [-0.02, 1.02], "tickformat": ".0%"}, yaxis={"range": [-0.02, 1.02], "tickformat": ".0%"},
    )  # fmt: skip


def _training_growth(report: Report) -> Part:
    curve = report["learning_curve"]
    return _growth({report["chosen"]: curve}, "messages") if curve else NotMeasured("learning_curve is empty")


# judge


def _judged(report: Report) -> Part:
    if not report["criteria"]:
        return NotMeasured(str(report["not_measured"].get("criteria", "nothing was judged")))
    counts = {
        c["name"].replace("_", " "): {f"score {s}": n for s, n in c["counts"].items()} for c in report["criteria"]
    }
    title = f"{report['model']} gives {interval_text(report['overall'])} of 5 on average (n = {report['judged']:,})"
    return charts.stack(counts, title=title, unit="records judged")


def _kappa(agreement: Report) -> str:
    said = interval_text(agreement["kappa"]) if agreement["kappa"] else str(agreement["reading"])
    return f"{agreement['rater']}: {said}" if agreement["rater"] else said


def _means(report: Report) -> Any:
    none = NotMeasured(report["not_measured"].get("agreement", "no human labels for it"))
    told = {
        c["name"]: "; ".join(_kappa(a) for a in report["agreement"] if a["name"] == c["name"])
        for c in report["criteria"]
    }
    return [c | {"kappa": told[c["name"]] or none} for c in report["criteria"]]


def _trust(report: Report) -> Part:
    unread = ", ".join(f"{why}: {n:,}" for why, n in report["not_judged"].items())
    control = report["control"]
    rows: dict[str, object] = {
        "answers that count": f"{report['judged']:,} of {report['sample']:,}; {unread or 'all were read'}",
        "control": control["reading"] if control else NotMeasured(report["not_measured"]["control"]),
    }
    rows |= {f"{a['rater'] or 'people'}, {a['name'].replace('_', ' ')} (n = {a['n']:,})": a["reading"] for a in report["agreement"]}  # fmt: skip
    rows |= {f"caveat {i}": caveat for i, caveat in enumerate(report["caveats"], 1)}
    return facts(rows, caption="How far to trust it")


# balance


def _findings(report: Report) -> Part:
    rows = [f for f in report["findings"] if f["severity"] != "none"]
    none = len(report["findings"]) - len(rows)
    columns: dict[str, Any] = {
        "severity": "severity",
        "what": "sentence",
        "what to do": lambda f: f["recommendation"] or "nothing",
    }
    if not rows:
        return (
            f"All {none} checks are within what chance allows."
            if none
            else NotMeasured("nothing to hold against a plan")
        )
    return table(rows, columns, caption=f"Findings, worst first ({none} more checks found nothing)", limit=15)


def _targets(report: Report) -> list[Part]:
    drawn: list[Part] = []
    for fit in (fit for fit in report["fits"] if len(fit["target"]) <= 20):
        rows = [
            {"name": value, "target": fit["target"].get(value), "value": dict(zip(("low", "high"), fit["intervals"].get(value, (None, None)), strict=True)) | {"estimate": fit["observed"].get(value, 0) / (fit["n"] or 1)}}
            for value in dict.fromkeys([*fit["target"], *fit["observed"]])
        ]  # fmt: skip
        reach = max(end for row in rows for end in (*ends(row["value"]), row["target"]) if end is not None)
        said = "no deviation proven" if fit["severity"] == "none" else f"{fit['severity']} deviation"
        title = f"{fit['attribute'].replace('_', ' ').capitalize()}: {said} from its target (n = {fit['n']:,})"
        drawn.append(charts.dots(rows, title=title, axis="share of records", span=(-0.01, 1.1 * reach), spec=".1%"))
    return drawn


def _coverage(report: Report) -> Any:
    return [report["coverage"]] if report["coverage"] else _why(report, "coverage", "the dataset has no targets")


def _associations(report: Report) -> Part:
    pairs = {tuple(a["attributes"]): a["v"] for a in report["associations"] if a["within"] is None}
    if not pairs:
        return NotMeasured("there are no two attributes to compare")
    cells = {key: v["estimate"] for (a, b), v in pairs.items() for key in ((a, b), (b, a))}
    (a, b), v = max(pairs.items(), key=lambda item: item[1]["estimate"])
    title = f"Of {len(pairs)} pairs, {a} and {b} go together most: Cramér's V {interval_text(v)} (n = {v['n']:,})"
    return charts.heat(cells, title=title, measure="Cramér's V")


def _appearances(report: Report) -> Any:
    missing = _why(report, "appearance") if "appearance" in report["not_measured"] else None
    return missing or [a | {"language": a["language"] or "all"} for a in report["appearances"]]


def _teachers(manifest: Report) -> Part:
    each = [{k: v for k, v in one.items() if k != "usage"} for one in manifest.get("teachers") or ()]
    return table(each, caption="What each teacher did") if each else "One teacher wrote it all."


# examples of a teacher


def _thresholds(report: Report) -> Part:
    rows, chosen = report["thresholds"], report["min_score"]
    n, most = rows[0]["answers"], rows[-1]["accepted"]
    curve = {"accepted": [(row["min_score"], row["accepted"] / max(n, 1)) for row in rows]}
    mark = [] if chosen is None else [
        {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": chosen, "x1": chosen, "line": {"color": MUTED, "dash": "dot"}}
    ]  # fmt: skip
    return charts.lines(
        curve, title=f"{most:,} of {n:,} answers reach the full score", x="minimum score", y="share of answers accepted",
        subtitle="" if chosen is None else f"dotted: the minimum that was asked for, {chosen:g}", shapes=mark,
        looks={"accepted": {"line": {"color": BLUE, "shape": "hv"}}}, yaxis={"range": [0, 1.08], "tickformat": ".0%"},
    )  # fmt: skip


def _score_parts(report: Report) -> Part:
    scores = report["scores"]
    rows = [{"name": name.replace("_", " "), "value": mean} for name, mean in scores["parts"].items()]
    title = "Nothing measured" if scores["mean"] is None else (
        f"Mean score {scores['mean']:.2f}, {scores['valid']:.0%} meet the schema (n = {report['records']:,})"
    )  # fmt: skip
    return charts.dots(rows, title=title, axis="mean over the examples")


def _audit(report: Report) -> Part:
    audit = report["audit"]
    if not audit["kinds"]:
        return bullets([f"{audit['records']:,} records, no issue."])
    mended = Counter(issue["kind"] for issue in audit["issues"] if issue["mechanical"])
    first = {issue["kind"]: issue for issue in reversed(audit["issues"])}
    rows = [
        {"kind": kind.replace("_", " "), "issues": n,
         "repaired by": "fix" if mended[kind] == n else "fix, in part" if mended[kind] else "a person",
         "for example": f"row {first[kind]['row']}: {first[kind]['message']}" if kind in first else ""}
        for kind, n in audit["kinds"].items()
    ]  # fmt: skip
    caption = f"{audit['records_with_issues']:,} of {audit['records']:,} records have issues"
    return table(rows, caption=caption, limit=15)


# students


def _in_bounds(value: Report) -> dict[str, Any]:
    """The interval of a score, which can't leave 0 to 1."""
    return {"estimate": value["estimate"], "low": max(value["low"], 0.0), "high": min(value["high"], 1.0)}


def _arms(report: Report) -> Part:
    rows = [{"name": c["name"], "value": c["score"]} for c in report["cards"]]
    rows += [{"name": "the teacher's answers", "value": t, "colour": GREY} for t in [report.get("teacher")] if t]
    axis = f"role score (95 % interval over {report['cards'][0]['score']['n']} groups of concepts)"
    return charts.dots(rows, title=report["verdict"], axis=axis)


def _forest(report: Report) -> Part:
    colours = {"better": GREEN, "better but small": GREEN, "worse": RED, "equivalent": BLUE}
    rows = [
        {"name": f"{p['a']} − {p['b']}", "value": {end: 100 * p["difference"][end] for end in ("estimate", "low", "high")},
         "colour": colours.get(p["verdict"], MUTED), "note": f"{points(p['difference'])}: {p['verdict']}"}
        for p in report["pairs"]
    ]  # fmt: skip
    margin = 100 * report["margin"]
    below = f"difference in points with 95 % interval; within the grey band (± {margin:g}) it would not matter"
    return charts.dots(rows, title=report["verdict"], axis="points", subtitle=below, span=None, band=margin)


def _arm_parts(report: Report) -> Part:
    none, cards = NotMeasured("no answer has it"), report["cards"]
    names = dict.fromkeys(name for c in cards for name in c["parts"])
    rows = [{"part": n.replace("_", " "), **{c["name"]: none if c["parts"].get(n) is None else c["parts"][n] for c in cards}} for n in names]  # fmt: skip
    formats = {c["name"]: ".2f" for c in cards}
    return table(rows, caption="Mean of each part, and of what is measured beside it (1 is best)", formats=formats)


def _worst_answers(report: Report) -> list[Part]:
    shown: list[Part] = []
    for item in report["worst"][:1]:
        answers = {
            f"{name}: {a['score']:.2f}. {'; '.join(a['problems'])}": a["text"] for name, a in item["answers"].items()
        }
        answers = {"the teacher": item["teacher"]} | answers
        shown.append(side_by_side([list(answers.values())], list(answers), above=item["question"]))
    return shown


def _speed(report: Report) -> Part:
    timed = [c for c in report["cards"] if c["seconds_per_answer"]]
    if not timed:
        return NotMeasured("no answer was timed")
    colour = {c["name"]: GREEN if c["name"] == report["picked"] else BLUE for c in timed}
    looks = {name: {"mode": "markers", "marker": {"size": 11, "color": c}} for name, c in colour.items()}
    return charts.lines(
        {c["name"]: [(c["seconds_per_answer"], c["score"])] for c in timed}, title=report["verdict"], looks=looks,
        x="seconds an answer", y="role score", levels={f"asked for: {report['threshold']:.2f}": report["threshold"]},
        xaxis={"rangemode": "tozero"}, yaxis={"range": [-0.03, 1.03]},
    )  # fmt: skip


def _losses(info: Report) -> Part:
    steps, epochs = info["steps"], info["epochs"]
    before, after = epochs[0]["validation_loss"], epochs[info["best_epoch"]]["validation_loss"]
    curves = {"training": [(s["step"], s["loss"]) for s in steps]}
    curves["validation"] = [(epoch["step"], epoch["validation_loss"]) for epoch in epochs]
    return charts.lines(
        curves, title=f"Loss on validation: {before:.2f} before training, {after:.2f} after", x="step", y="loss",
        subtitle="per response token; unseen concepts" + _not_a_result(info), xaxis={"rangemode": "tozero"},
        yaxis={"rangemode": "tozero"}, looks={"training": {"mode": "lines", "line": {"color": GREY, "width": 2}}},
    )  # fmt: skip


def _epochs(info: Report) -> Part:
    epochs, kept = info["epochs"], info["best_epoch"]
    if epochs[0]["score"] is None:
        return NotMeasured("no validation example was answered: set examine above 0")
    keys = {"score of the task": "score", "share in the right form": "valid"}
    curves = {name: [(epoch["epoch"], epoch[key]) for epoch in epochs] for name, key in keys.items()}
    n, before, after = len(epochs[0]["answers"]), epochs[0]["score"], epochs[kept]["score"]
    return charts.lines(
        curves | {"kept": [(kept, after)]}, title=f"Score on {n} unseen concepts: {before:.2f} before, {after:.2f} after",
        subtitle="free answers, nothing holds them to the form" + _not_a_result(info), x="epoch", y="score", ticks=True,
        looks={"kept": {"mode": "markers", "marker": {"symbol": "circle-open", "size": 16, "color": RED}}},
        yaxis={"range": [-0.03, 1.05]},
    )  # fmt: skip


def _not_a_result(info: Report) -> str:
    return "; a smoke run, not a result" if info["smoke"] else ""


def _before_and_after(info: Report) -> list[Part]:
    first, kept = (info["epochs"][epoch]["answers"][:2] for epoch in (0, info["best_epoch"]))
    shown: list[Part] = [
        side_by_side([[a["text"], b["text"]]], [f"the base: {a['score']:.2f}", f"the student: {b['score']:.2f}"])
        for a, b in zip(first, kept, strict=False)
    ]
    return shown or [NotMeasured("no validation example was answered: examine was 0")]


def _export(report: Report) -> Any:
    measured, files = ({each["form"]: each for each in report[of]} for of in ("gates", "files"))
    why = {"score": NotMeasured(report["not_measured"].get("gate", "it was not asked"))}
    forms = dict.fromkeys([*measured, *files])
    return [{"form": form, "bytes": at(files.get(form), "bytes"), **measured.get(form, why)} for form in forms]


def _tokens(report: Report) -> Part:
    if not (parity := report.get("parity")):
        return NotMeasured("tokens were not compared")
    return f"{parity['differing_count']:,} of {parity['n']:,} texts become other tokens than in training."


# prompts


def _race(report: Report) -> Part:
    rungs, winner = report["rungs"], report["winner"]
    names = list(dict.fromkeys(name for rung in rungs for name in rung["scores"]))
    names.sort(key=lambda name: (name == winner, name == "default"))  # what matters is drawn last, on top
    curves: dict[str, Any] = {}
    looks: dict[str, Any] = {}
    for name in names:
        run = [(i, rung["scores"][name]) for i, rung in enumerate(rungs) if name in rung["scores"]]
        ours = name in (winner, "default")
        curves[name] = run if ours else [(i, ends(score)[0]) for i, score in run]
        colour = BLUE if name == winner else INK if ours else GREY
        looks[name] = {
            "line": {"color": colour, "width": 2.5 if ours else 1},
            "marker": {"color": colour},
            "showlegend": ours,
        }
    found = (report.get("compared") or {}).get(winner)
    said = "the task's own prompt is first" if winner == "default" else f"{winner} is first"
    if found:
        said += f"; against the task's own prompt: {points(found['difference'])} points, {found['verdict']}"
    ticks = {"tickvals": list(range(len(rungs))), "ticktext": [f"{rung['items']:,}" for rung in rungs]}
    return charts.lines(
        curves, title=f"{len(names)} prompts race, {said}", x="validation questions, the same for all", y="score",
        looks=looks, xaxis=ticks, yaxis={"range": [-0.03, 1.03]}, subtitle="grey: other prompts; bands: 95 % interval",
    )  # fmt: skip


def _on_test(report: Report) -> Part:
    labels = {report["chosen"]: "chosen prompt", "default": "task's own prompt", "difference": "gain"}
    rows = [
        {"": labels[name], "score on test": value, "questions": value["n"]} for name, value in report["test"].items()
    ]
    return table(rows, caption=f"Test, look number {report['looks']}")


# two datasets


def _pair_scores(report: Report) -> Part:
    found = {n.removesuffix(".value"): pair for n, pair in report["quality"].items() if n.endswith(".value")}
    rows = [{"name": n, "of": report[f"name_{side}"], "value": pair[i]} for n, pair in found.items() for i, side in enumerate("ab")]  # fmt: skip
    said = "; ".join(f"{n} {' and '.join('–' if v is None else f'{v:.2f}' for v in pair)}" for n, pair in found.items())
    return charts.dots(rows, title=said or "Nothing was measured", axis="score, 1 is best")


def _pair_sizes(report: Report) -> Part:
    kept = report["sizes"] | {n: pair for n, pair in report["quality"].items() if n == "overall"}
    return table([{"": n, report["name_a"]: a, report["name_b"]: b} for n, (a, b) in kept.items()], caption="Sizes")


def _pair_worth(report: Report) -> Any:
    a, b = report["name_a"], report["name_b"]
    return [
        w | {"verdict": w["verdict"].replace("a is", f"{a} is").replace("b is", f"{b} is")} for w in report["worth"]
    ]


def _prompts(report: Report) -> Any:
    last = {name: rung for rung in report["rungs"] for name in rung["scores"]}
    rows = [
        c | {"items": rung["items"], "score": rung["scores"][c["name"]], "difference": rung["differences"].get(c["name"])}
        for c in report["candidates"] if (rung := last.get(c["name"]))
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["items"])


HOW: dict[str, Callable[[Any], Any]] = {
    "points": points, "bounded": _in_bounds, "count": len, "words": lambda text: text.replace("_", " "),
    "MiB": lambda n: f"{n / 2**20:,.0f}", "MB": lambda n: f"{n / 1e6:,.0f}",
    "GiB": lambda n: f"{n / 2**30:.1f} GiB", "duration": duration, "half": lambda text: text[:16],
    "smoke": lambda limits: f"smoke run: {', '.join(f'{k} {v}' for k, v in limits.items())}" if limits else "full run",
    "counted": lambda counts: ", ".join(f"{n:,} {name}" for name, n in counts.items()) or "none",
    "firsts": lambda words: [word for group in words.values() for word in list(group)[:3]],
}  # fmt: skip
"""Formats of ``views.yaml`` besides Python's own."""

DRAW: dict[str, dict[str, Callable[[Report], Any]]] = {
    "verdict": {"gates": _gates},
    "scorecard": {
        "real examples": _real_examples, "worth": _worth, "growth": _learning, "gains": _gains,
        "hardest": _of_best(_labels), "mixed up": _of_best(_mixed_up),
    },
    "training": {
        "chosen": _chosen, "results": _results, "candidates": _candidates, "heat": _heat, "calibration": _calibration,
        "hardest": lambda r: _labels(_exam(r), r["chosen"]), "mixed up": lambda r: _mixed_up(_exam(r), r["chosen"]),
        "growth": _training_growth,
    },
    "quality": {"scores": _quality, "parts": _parts, "offences": _offences, "personal data": _private},
    "judge": {"scores": _judged, "means": _means, "trust": _trust},
    "bias": {
        "findings": _findings, "targets": _targets, "coverage": _coverage, "associations": _associations,
        "appearances": _appearances,
    },
    "evaluation": {"forest": _forest, "scores": _arms, "parts": _arm_parts, "worst": _worst_answers},
    "student": {"score": _epochs, "loss": _losses, "before and after": _before_and_after},
    "export": {"gates": _export, "tokens": _tokens},
    "benchmark": {"scores": _arms, "parts": _arm_parts, "speed": _speed},
    "teaching": {"thresholds": _thresholds, "parts": _score_parts, "audit": _audit,
                 "splits": lambda r: table(r["splits"], caption="Splits (like products stay together in one of them)")},
    "manifest": {"teachers": _teachers},
    "search": {"race": _race, "prompts": _prompts, "test": _on_test},
    "comparison": {"scores": _pair_scores, "sizes": _pair_sizes, "worth": _pair_worth},
}  # fmt: skip
"""What draws the views that are more than a table of the report's own rows; a list of rows becomes the table of ``views.yaml``."""
