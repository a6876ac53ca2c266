"""Views that are more than a report's own rows: figures, texts, or other rows for ``views.yaml`` to make a table of.

There a view names, under `draw`, the function of this module that makes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from genesis_lab.reporting import charts
from genesis_lab.reporting.html import Html, NotMeasured, ends, hint, interval_text, side_by_side, table
from genesis_lab.reporting.page import Part
from genesis_lab.reporting.reading import Report, Rows, at, best, measured_on, named, points, spoken, stand_in, why
from genesis_lab.reporting.wording import term

OUTCOMES = {"fail": "FAIL", "warn": "WARN", "not measured": "–", "pass": "PASS"}
"""What a gate came to, as it is shown; worst first."""
RANKED = 5
"""Messages of a label from which its recall is ranked among others."""


# verdict and quality


def gates(verdict: Report) -> Rows:
    rows = []
    for gate in sorted(verdict["gates"], key=lambda gate: list(OUTCOMES).index(gate["outcome"])):
        value, low, high, outcome = (gate[key] for key in ("value", "low", "high", "outcome"))
        measured: Any = {"estimate": value, "low": low, "high": high}
        if low == high:
            measured = value and interval_text(value, ",.0f" if value >= 2 else ",.2f")
        quiet = {"pass": "", "not measured": f"not measured: {gate['says']}"}
        told = quiet.get(outcome, f"{gate['says']}: {gate['todo']}")
        rows.append(gate | {"shown": OUTCOMES[outcome], "measured": measured, "told": told})
    return rows


def _scores(report: Report) -> dict[str, Report]:
    return {name: one for name, one in report.items() if isinstance(one, Mapping) and "parts" in one}


def quality(report: Report) -> Rows:
    return [{"name": name, "value": score["value"]} for name, score in _scores(report).items()]


def parts(report: Report) -> Rows:
    rows = []
    for name, score in _scores(report).items():
        for part in score["parts"]:
            low, high = part.get("interval") or (None, None)
            value = {"estimate": part["value"], "low": low, "high": high}
            missing = NotMeasured(part.get("reason") or "?")
            words, meaning = term(part["name"])
            shown = Html(hint(words, meaning or part.get("meaning") or ""))
            rows.append(part | {"score": name, "measured": missing if part["value"] is None else value, "named": shown})
    return rows


def offences(report: Report) -> Rows:
    return [
        offence | {"part": part["named"], "record": offence["record_id"] or f"row {offence['row'] + 1}"}
        for part in parts(report)
        for offence in (part.get("offences") or ())[:5]
    ]


def private(report: Report) -> Any:
    rows = [{"kind": kind, "n": part["failed"], "of": part["n"]} for kind, part in report["personal_data"].items()]
    if copies := report.get("contamination"):
        n = NotMeasured(copies["reason"]) if copies["value"] is None else copies["failed"]
        rows.append({"kind": "near-copies of the reference", "n": n, "of": copies["n"]})
    if any(row["n"] != 0 for row in rows):
        return rows
    of = max((row["of"] for row in rows), default=0)
    return f"No personal data and no copies: {', '.join(row['kind'] for row in rows)} (n = {of:,})."


def realism(report: Report) -> Rows:
    """The figures behind realism where no text tells it, beside what halves of the reference differ by."""
    return [part["detail"] for part in report["realism"]["parts"] if part["detail"].get("floor") is not None]


def lengths(report: Report) -> Any:
    """How long openings are, beside people's; nothing where there are none."""
    if not (shares_of := at(report, "openings.lengths")):
        return []
    about = report["openings"]
    title = f"Words of an opening beside {about['against']}: KS distance {about['distance']:.2f} (n = {about['n']:,})"
    return charts.bars(shares_of, title=title, axis="share of openings", spec=".0%")


# worth, and classifiers


def _beside_real(card: Report, measure: str, mark: str) -> tuple[dict[str, Any], ...]:
    """Of each learner the curve over real examples, how many the dataset is worth where it is known, and its mark."""
    curves, worth, marks = {}, {}, {}
    for learner in (one for one in card["students"] if one.get("k_shots")):
        title, found = learner["title"], learner["equivalence"]
        curves[title] = [(shot["k"], shot[measure]) for shot in learner["k_shots"]]
        if learner["beats_floor"] is not False and at(found, "k") is not None:
            worth[title] = {"estimate": found["k"], "low": found["low"], "high": found["high"]}
        marks[mark.format(title)] = (worth.get(title), learner[measure])
    last = max((k for curve in curves.values() for k, _ in curve), default=0)
    return curves, worth, {label: (last if x is None else x, y) for label, (x, y) in marks.items()}


def real_examples(card: Report) -> Part:
    curves, worth, marks = _beside_real(card, "accuracy", "{}")
    if not curves or not (first := best(card)):
        return why(card, "k_shots")
    kind, doubt = measured_on(card), stand_in(card)
    said = f"{first['title']}: accuracy {interval_text(first['accuracy'])}"
    if first["beats_floor"] is False:
        said += ", no more than the label names alone"
    elif found := worth.get(first["title"]):
        said = f"Worth {interval_text(found, ',.1f')} {kind} labelled examples per label ({first['title']})"
    floors = [learner["floor"]["estimate"] for learner in card["students"] if learner["floor"]]
    levels, n = {f"label names alone {floor:.2f}": floor for floor in floors}, f"{first['accuracy']['n']:,}"
    says: dict[str, Any] = {"title": f"{doubt.capitalize()}. {said}" if doubt else said}
    says |= {"x": f"{kind} labelled examples per label", "y": f"accuracy on {kind} data"}
    says["subtitle"] = f"accuracy on {n} {kind} utterances with 95 % interval; diamonds: this dataset"
    return charts.lines(curves, **says, log=True, ticks=True, levels=levels, marks=marks)


def worth(card: Report) -> Rows:
    told, none, rows = {True: "yes", False: "no", None: "can't be told"}, why(card, "equivalence"), []
    for learner in card["students"]:
        says = card["worth"].get(learner["student"], none)
        rows.append(learner | {"on": measured_on(card), "more": told[learner["beats_floor"]], "says": says})
    return rows


def gains(card: Report) -> Rows:
    on = measured_on(card)
    return [gain | {"title": learner["title"], "on": on} for learner in card["students"] for gain in learner["gains"]]


def growth(report: Report) -> Part:
    """The learning curve of a classifier, or of every learner of a scorecard."""
    learners = report.get("students") or [{"title": report.get("chosen"), **report}]
    curves = {str(one["title"]): one["learning_curve"] for one in learners if one.get("learning_curve")}
    if not curves:
        return why(report, "scorecard", "learning_curve is empty")
    name, rows = max(curves.items(), key=lambda item: float(item[1][-1]["accuracy"]["estimate"]))
    accuracy, gain = rows[-1]["accuracy"], rows[-1].get("gain")
    title = f"{name}: accuracy {interval_text(accuracy)} with {rows[-1]['records']:,} records"
    if gain:
        how = "rises" if gain["low"] > 0 else "falls" if gain["high"] < 0 else "can't be told from the step before"
        step = f"From {rows[-2]['records']:,} to {rows[-1]['records']:,} records"
        title = f"{step} the accuracy of {name} {how}: {points(gain)} points"
    says: dict[str, Any] = {"title": title, "subtitle": f"tested on {accuracy['n']:,}, 95 % interval"}
    says |= {"x": "records learned from", "y": "accuracy"}
    return charts.lines(_grown(curves, "accuracy"), **says, log=True, ticks=True)


def _grown(curves: Mapping[str, Rows], measure: str) -> dict[str, list[tuple[float, Any]]]:
    return {name: [(row["records"], row[measure]) for row in rows] for name, rows in curves.items()}


def real_series(card: Report) -> Part:
    curves, _, marks = _beside_real(card, "mase", "this dataset, {}")
    if not curves or not (first := best(card)):
        return why(card, "k_shots")
    levels = {f"{name} {value['estimate']:.2f}": value["estimate"] for name, value in card["baselines"].items()}
    worth, n = card["worth"][first["student"]].capitalize(), f"{first['mase']['n']:,}"
    says: dict[str, Any] = {"title": f"{worth}: MASE {interval_text(first['mase'])} ({first['title']})"}
    says |= {"x": "real series", "y": "MASE, 24 hours ahead"}
    says["subtitle"] = f"error on {n} real series with 95 % interval, lower is better; diamonds: this dataset"
    return charts.lines(curves, **says, log=True, ticks=True, levels=levels, marks=marks)


def series_growth(card: Report) -> Part:
    if not (first := best(card)):
        return why(card, "scorecard")
    curves = _grown({learner["title"]: learner["learning_curve"] for learner in card["students"]}, "mase")
    last = first["learning_curve"][-1]
    title = f"{first['title'].capitalize()}: MASE {interval_text(last['mase'])} with {last['records']:,} made series"
    return charts.lines(curves, title=title, x="synthetic series", y="MASE, 24 hours ahead", log=True, ticks=True)


def _exam(report: Report) -> tuple[Report, str]:
    """Where a classifier, or the best learner of a scorecard, was examined, on real data if it was; and who that is."""
    if "students" in report:
        found = best(report) or {"title": "", "confusions": ()}
        return found, found["title"]
    return report.get("reference") or report["evaluation"], "the classifier"


def hardest(report: Report) -> Any:
    """Recall by label, lowest first, of labels of which there are enough messages to rank them."""
    exam, who = _exam(report)
    labels: list[Any] = next((exam[k] for k in ("per_label", "per_intent", "labels", "intents") if exam.get(k)), [])
    rows: Rows = []
    for row in labels:
        recall = row["recall"] if isinstance(row["recall"], Mapping) else row | {"estimate": row["recall"]}
        rows.append({"who": who, "of": exam.get("name", ""), "name": named(row)[0], "value": recall})
    if rows and not (rows := [row for row in rows if (row["value"].get("n") or RANKED) >= RANKED]):
        return NotMeasured(f"no label has {RANKED} messages to be tested on, too few to say which is understood least")
    return sorted(rows, key=lambda row: (row["value"]["estimate"], row["name"]))[:12]


def mixed_up(report: Report) -> Any:
    exam, who = _exam(report)
    if not who:
        return why(report, "scorecard")
    return [{"who": who, "true": named(pair)[0], "predicted": named(pair)[1], **pair} for pair in exam["confusions"]]


def candidates(report: Report) -> Rows:
    return [c | {"value": c["interval"] or c["score"]} for c in report["candidates"]]


def results(report: Report) -> Rows:
    held_out, real = report["evaluation"], report["reference"]
    languages = held_out["per_language"] if len(held_out["per_language"]) > 1 else {}
    rows = [{"name": f"held out, {name}", "accuracy": accuracy} for name, accuracy in languages.items()]
    on_real = {"name": "real", "accuracy": why(report, "reference", "no reference")}
    if real:
        on_real = real | {"name": f"{real.get('kind', 'real')}: {real['name']}"}
    return [held_out | {"name": "held out"}, *rows, on_real]


def calibration(report: Report) -> Part:
    exam = report.get("reference") or report["evaluation"]
    bins = [b for b in exam["reliability"] if b["accuracy"]["n"]]
    n, (_, low, high) = sum(b["accuracy"]["n"] for b in bins) or 1, ends(exam["accuracy"])
    says = sum(b["confidence"] * b["accuracy"]["n"] for b in bins) / n
    how = "as sure as it is right, as far as can be told"
    if not low <= says <= high:
        how = "surer than it is right" if says > high else "less sure than it is right"
    title = f"The classifier is {how}: says {says:.0%}, is right in {interval_text(exam['accuracy'], '.0%')} of {n:,}"
    right: list[tuple[float, Any]] = [(0, 0), (1, 1)]
    curves = {"classifier": [(round(b["confidence"], 2), b["accuracy"]) for b in bins], "as sure as right": right}
    return charts.lines(curves, title=title, x="confidence", y="accuracy", unit=True)


# judge


def means(report: Report) -> Rows:
    told: dict[str, Any] = {}
    for a in report["agreement"]:
        kappa = f"{interval_text(a['kappa'])}, {a['reading']}" if a["kappa"] else a["reading"]
        told.setdefault(a["name"], []).append(f"{a['rater'] or 'people'} (n = {a['n']:,}): {kappa}")
    none = NotMeasured(report["not_measured"].get("agreement", "no human labels for it"))
    return [c | {"kappa": "; ".join(told[c["name"]]) if c["name"] in told else none} for c in report["criteria"]]


# balance


def findings(report: Report) -> Any:
    none = sum(finding["severity"] == "none" for finding in report["findings"])
    if not report["findings"]:
        return NotMeasured("nothing to hold against a plan")
    if none == len(report["findings"]):
        return f"All {none} checks are within what chance allows."
    return [f | {"todo": f["recommendation"] or "nothing"} for f in report["findings"] if f["severity"] != "none"]


def targets(report: Report) -> list[Part]:
    """A chart of each attribute that is not as planned; one sentence on the others."""
    well = [fit for fit in report["fits"] if fit["severity"] == "none"]
    drawn: list[Part] = []
    if well:
        names = ", ".join(spoken(fit["attribute"]) for fit in well)
        drawn.append(f"As planned, as far as can be told: {names} (n = {max(fit['n'] for fit in well):,}).")
    for fit in (fit for fit in report["fits"] if fit not in well and len(fit["target"]) <= 20):
        rows = []
        for value in dict.fromkeys([*fit["target"], *fit["observed"]]):
            low, high = fit["intervals"].get(value, (None, None))
            share = {"estimate": fit["observed"].get(value, 0) / (fit["n"] or 1), "low": low, "high": high}
            rows.append({"name": value, "target": fit["target"].get(value), "value": share})
        reach = max(end for row in rows for end in (*ends(row["value"]), row["target"]) if end is not None)
        name, n = spoken(fit["attribute"]).capitalize(), f"{fit['n']:,}"
        title = f"{name}: {fit['severity']} deviation from its target (n = {n})"
        fig = charts.dots(rows, title=title, axis="share of records", span=(-0.01, 1.1 * reach), spec=".1%")
        drawn.append(fig.update_layout(meta={"where": {fit["attribute"]: ["{y}"]}}))
    return drawn


def coverage(report: Report) -> Any:
    return [report["coverage"]] if report["coverage"] else why(report, "coverage", "the dataset has no targets")


def associations(report: Report) -> Any:
    """The pairs that go together most; one sentence where none does."""
    pairs = sorted((a for a in report["associations"] if a["within"] is None), key=lambda a: -a["v"]["estimate"])
    rows = [{"name": " and ".join(map(spoken, a["attributes"])), "value": a["v"]} for a in pairs[:15]]
    if not pairs or any(pair.get("severity") != "none" for pair in pairs):
        return rows
    most = f"{rows[0]['name']}, Cramér's V {interval_text(pairs[0]['v'])} (n = {pairs[0]['n']:,})"
    return f"None of {len(pairs)} pairs of attributes goes together more than chance may make it; most: {most}."


def appearances(report: Report) -> Any:
    missing = why(report, "appearance") if "appearance" in report["not_measured"] else None
    return missing or [a | {"language": a["language"] or "all"} for a in report["appearances"]]


def teachers(manifest: Report) -> Rows:
    return [{k: v for k, v in one.items() if k != "usage"} for one in manifest.get("teachers") or ()]


# examples of a teacher


def audit(report: Report) -> Rows:
    issues = report["audit"]["issues"]
    mended = Counter(issue["kind"] for issue in issues if issue["mechanical"])
    first = {issue["kind"]: f"row {issue['row']}: {issue['message']}" for issue in reversed(issues)}
    kinds = report["audit"]["kinds"].items()
    return [{"kind": kind, "n": n, "mended": mended[kind], "first": first.get(kind)} for kind, n in kinds]


# students


def arm_parts(report: Report) -> Part:
    none, cards = NotMeasured("no answer has it"), {card["name"]: card["parts"] for card in report["cards"]}
    rows: Rows = []
    for name in dict.fromkeys(name for parts in cards.values() for name in parts):
        means = {who: parts.get(name) for who, parts in cards.items()}
        rows.append({"part": spoken(name), **{who: none if mean is None else mean for who, mean in means.items()}})
    formats = dict.fromkeys(cards, ".2f")
    return table(rows, caption="Mean of each part, and of what is measured beside it (1 is best)", formats=formats)


def worst_answers(report: Report) -> list[Part]:
    if not report["worst"]:
        return []
    item = report["worst"][0]
    answers = {"the teacher": item["teacher"]}
    for name, answer in item["answers"].items():
        answers[f"{name}: {answer['score']:.2f}. {'; '.join(answer['problems'])}"] = answer["text"]
    return [side_by_side([list(answers.values())], list(answers), above=item["question"])]


def lessons(info: Report) -> Any:
    """With the epoch before training and the one that was kept."""
    doubt = "; a smoke run, not a result" if info["smoke"] else ""
    return {**info, "kept": info["epochs"][info["best_epoch"]], "doubt": doubt}


def scored(info: Report) -> Any:
    found = lessons(info)
    return found if found["kept"]["answers"] else NotMeasured("no validation example was answered: set examine above 0")


def before_and_after(info: Report) -> list[Part]:
    first, kept = (info["epochs"][epoch]["answers"][:2] for epoch in (0, info["best_epoch"]))
    shown: list[Part] = [
        side_by_side([[a["text"], b["text"]]], [f"the base: {a['score']:.2f}", f"the student: {b['score']:.2f}"])
        for a, b in zip(first, kept, strict=False)
    ]
    return shown or [NotMeasured("no validation example was answered: examine was 0")]


def export(report: Report) -> Rows:
    measured, sizes = (
        {one["form"]: one for one in report["gates"]},
        {one["form"]: one["bytes"] for one in report["files"]},
    )
    none = {"score": NotMeasured(report["not_measured"].get("gate", "it was not asked"))}
    forms = dict.fromkeys([*measured, *sizes])
    return [{"form": form, "bytes": sizes.get(form), **measured.get(form, none)} for form in forms]


# prompts, and two datasets


def prompts(report: Report) -> Rows:
    """Each prompt as it stood when it was asked last, those that went furthest first."""
    last = {}
    for rung in report["rungs"]:
        for name, score in rung["scores"].items():
            last[name] = {"items": rung["items"], "score": score, "difference": rung["differences"].get(name)}
    rows = [one | last[one["name"]] for one in report["candidates"] if one["name"] in last]
    return sorted(rows, key=lambda row: -row["items"])


def on_test(report: Report) -> Rows:
    labels = {report["chosen"]: "chosen prompt", "default": "task's own prompt", "difference": "gain"}
    return [{"who": labels[name], "score": value} for name, value in report["test"].items()]


def pair_sizes(report: Report) -> Part:
    one, other, sizes = report["name_a"], report["name_b"], report["sizes"] | report["quality"]
    rows = [{"": name.removesuffix(".value"), one: a, other: b} for name, (a, b) in sizes.items()]
    return table(rows, caption="Sizes and scores")


def pair_worth(report: Report) -> Rows:
    def named(verdict: str) -> str:
        return verdict.replace("a is", f"{report['name_a']} is").replace("b is", f"{report['name_b']} is")

    return [one | {"verdict": named(one["verdict"])} for one in report["worth"]]
