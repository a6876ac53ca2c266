"""What is shown of a report: by the one list in ``views.yaml``, for notebook cells, the HTML page and the PDF alike.

A report is the dict that whoever measured it wrote. What one lacks is shown as not measured, and why.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.reporting import charts
from genesis_lab.reporting.html import Html, NotMeasured, cell_text, ends, facts, interval_text, side_by_side, table
from genesis_lab.reporting.page import Part, Section
from genesis_lab.reporting.progress import duration
from genesis_lab.yamls import shipped

Report = Mapping[str, Any]
Rows = list[dict[str, Any]]

_PATH = re.compile(r"{([\w. -]+):?([^}]*)}")
OUTCOMES = {"fail": "FAIL", "warn": "WARN", "not measured": "–", "pass": "PASS"}
"""What a gate came to, as it is shown; worst first."""


def kinds() -> dict[str, Any]:
    """Kind of report to what is said where there is none (``missing``) and to its ``views``: ``views.yaml``."""
    return dict(shipped(Path(__file__).with_name("views.yaml")))


def view(kind: str, name: str, report: Report | None) -> Any:
    """What is shown under this name of a report of this kind; why not, where there is none or it is not whole."""
    how, draw = kinds()[kind]["views"][name], DRAW.get(f"{kind}.{name}")
    if not report:
        return NotMeasured(kinds()[kind]["missing"])
    try:
        found = draw(report) if draw else report
        if isinstance(found, list) and how.keys() & {"caption", "dots"}:
            return _of_rows(found, how, report)
        return _of_report(found, how) if isinstance(found, Mapping) else found
    except KeyError as error:  # the report was written by hand, or by another version
        return NotMeasured(f"the record that is kept of it is not whole (it lacks {error})")


def _of_report(report: Report, how: Report) -> Any:
    if "rows" in how:
        rows = at(report, how["rows"])
        if rows is None and "why" in how:
            return _why(report, how["why"])
        if rows is None:
            raise KeyError(how["rows"])
        named_values = (
            [{"name": name, "value": value} for name, value in rows.items()] if isinstance(rows, Mapping) else rows
        )
        return _of_rows(named_values, how, report)
    if "text" in how:
        return _filled(how["text"], report)
    if "facts" in how:
        told = {heading: _cell(of, report) for heading, of in how["facts"].items()}
        return facts({heading: value for heading, value in told.items() if value is not None}, caption=how["caption"])
    given = how["lines"]["curves"].items()
    curves = {name: [(row[x], row[y]) for row in report[rows]] for name, (rows, x, y) in given}
    return charts.lines(curves, **_options(how["lines"], report))


def _of_rows(found: Sequence[Report], how: Report, report: Report) -> Any:
    rows = [row for row in found if not row.get(how.get("unless", ""))]
    if not rows and "why" in how:
        return _why(report, how["why"])
    if not rows:
        empty = str(how["empty"])
        return NotMeasured(empty.removeprefix("not measured: ")) if empty.startswith("not measured: ") else empty
    about = {**report, "first": rows[0], "number": len(rows)}
    if "dots" in how:
        name, value = how["dots"]["name"], how["dots"]["value"]
        drawn = [{**row, "name": _filled(name, row), "value": at(row, value)} for row in rows]
        return charts.dots(drawn, **_options(how["dots"], about))
    columns = how.get("columns") or {key: key for row in rows for key in row}
    cells = [{heading: _cell(of, row) for heading, of in columns.items()} for row in rows]
    return table(cells, caption=str(_filled(how["caption"], about)), limit=how.get("limit", 50))


def _options(given: Report, about: Report) -> dict[str, Any]:
    """What a chart of ``views.yaml`` says besides its data."""
    own = ("curves", "name", "value")
    return {key: _filled(of, about) if isinstance(of, str) else of for key, of in given.items() if key not in own}


def _filled(template: str, row: Report) -> Any:
    """`template` with what ``{dotted.path:format}`` stands for in the row; the value itself where it is nothing but a path."""
    if alone := _PATH.fullmatch(template):
        return at(row, alone[1])

    def text(found: re.Match[str]) -> str:
        return cell_text(_shown(at(row, found[1]), found[2]))

    return _PATH.sub(text, template)


def _cell(of: str, row: Report) -> Any:
    """The value of a column of ``views.yaml``."""
    if "{" in of:
        return _filled(of, row)
    path, spec, why = (of + "||").split("|")[:3]
    value = at(row, path)
    if value is None:
        return NotMeasured(why) if why else None
    return _shown(value, spec)


def _shown(value: Any, spec: str) -> Any:
    if not spec or value is None or isinstance(value, NotMeasured):
        return value
    return HOW[spec](value) if spec in HOW else cell_text(value, spec)


def views(kind: str, report: Report | None, *, extra: Sequence[Part] = ()) -> list[Section]:
    """The sections of the page about a report of this kind; `extra` parts come at the end of the last one."""
    sections: list[Section] = []
    for name, how in kinds()[kind]["views"].items():
        if "title" in how:
            title = how["title"] + (" (stand-in)" if stand_in(report or {}) else "")
            sections.append(Section(title, caveats(report or {})))
        drawn = view(kind, name, report) if how.get("page", True) else []
        parts = drawn if isinstance(drawn, list) else [drawn]
        whole = [part for part in parts if not isinstance(part, NotMeasured)]
        sections[-1].parts.extend([how["says"], *parts] if "says" in how and whole else parts)
        if not report:
            break
    sections[-1].parts.extend(extra)
    return sections


def caveats(report: Report) -> list[Part]:
    """What stands above all figures of a smoke run, and of what was measured on a stand-in."""
    said: list[Part] = []
    if given := ", ".join(f"{name} {value}" for name, value in (report.get("limits") or {}).items()):
        said.append(f"A smoke run ({given}): nothing in this section is a result.")
    if found := stand_in(report):
        said.append(
            f"{found.capitalize()}: it keeps the order of datasets and flatters them; real data says what they are worth."
        )
    return said


def stand_in(report: Report) -> str:
    """What is said with every figure that was measured on texts that are no customer's; empty where they are."""
    made_up = at(report, "reference.kind") == "stand-in"
    return "stand-in: written by a language model, not by customers" if made_up else ""


def measured_on(report: Report) -> str:
    """``real`` or ``stand-in``: whose texts a scorecard was measured on."""
    return "stand-in" if stand_in(report) else "real"


def predictions(found: Sequence[Any], texts: Sequence[str]) -> Html:
    """What a model makes of sentences (`training.models.Prediction`), with its second choice."""
    rows = [
        {"sentence": text, "understood as": p.intent, "sure": f"{p.probability:.0%}",
         "else": ", ".join(f"{other} ({sure:.0%})" for other, sure in p.alternatives[:1]) or "–"}
        for text, p in zip(texts, found, strict=True)
    ]  # fmt: skip
    return table(rows, caption="What the model understands")


def shares(counts: Mapping[str, float], name: str, *, unit: str) -> Part:
    """How often each value of an attribute occurs."""
    total = sum(counts.values())
    of = {value: f"{n / total:.1%}" for value, n in sorted(counts.items(), key=lambda item: item[1]) if total}
    rates = list(of.values())
    said = ", ".join(f"{value} {of[value]}" for value in counts if total)
    if len(of) > 3:
        said = f"{rates[0]} to {rates[-1]} each"
    title = f"{name.replace('_', ' ').capitalize()}: {said or 'no data'} (n = {total:,})"
    return charts.bars(counts, title=title, axis=unit)


def compared(counts: Mapping[str, Mapping[str, float]], difference: Report, *, unit: str) -> Part:
    """An attribute's values in two datasets side by side, with what the comparison says of it."""
    told = "they differ" if difference["differs"] else "no difference proven"
    told = "not tested" if difference["p_holm"] is None else f"{told}, p = {difference['p_holm']:.2g}"
    title = f"{difference['attribute'].capitalize()}: {difference['total_variation']:.1%} of {unit} would have to change ({told})"
    rows = {name: {value: n / (sum(one.values()) or 1) for value, n in one.items()} for name, one in counts.items()}
    return charts.bars(rows, title=title, axis=f"share of {unit}", spec=".0%")


def headline(report: Report) -> Report:
    """The pair that the verdict of an evaluation is about."""
    pairs: dict[tuple[str, str], Report] = {(pair["a"], pair["b"]): pair for pair in report["pairs"]}
    return pairs[tuple(report["headline"])]


def best(card: Report | None) -> Report | None:
    """The learner of a scorecard that does best on real data."""
    return max((card or {}).get("students") or (), key=_accuracy, default=None)


def named(row: Report) -> list[str]:
    """The texts of a row in their order: the label; of a confusion the true one and the one it is taken for."""
    return [value for value in row.values() if isinstance(value, str)]


def points(value: Report) -> str:
    """A difference in points of 100."""
    return interval_text(_hundred(value), "+.1f")


def at(row: Any, path: str) -> Any:
    """The value at a dotted path; None where a part of it is missing."""
    for name in path.split("."):
        if isinstance(row, list):
            row = row[int(name)]
        else:
            row = row.get(name) if isinstance(row, Mapping) else None
    return row


def _why(report: Report, key: str, other: str = "there is nothing to measure") -> NotMeasured:
    missing = report.get("not_measured") or {}
    return NotMeasured(str(missing.get(key) or missing.get("scorecard") or other))


def _accuracy(row: Report) -> float:
    return float(row["accuracy"]["estimate"])


def _hundred(value: Report) -> dict[str, float]:
    return {end: 100 * value[end] for end in ("estimate", "low", "high")}


def _spoken(name: str) -> str:
    return name.replace("_", " ")


# verdict and quality


def _gates(verdict: Report) -> Rows:
    told = {"fail": "{says}: {todo}", "warn": "{says}: {todo}", "not measured": "not measured: {says}", "pass": ""}
    rows = []
    for gate in sorted(verdict["gates"], key=lambda gate: list(OUTCOMES).index(gate["outcome"])):
        value, low, high = gate["value"], gate["low"], gate["high"]
        measured: Any = {"estimate": value, "low": low, "high": high}
        if low == high:
            measured = value and interval_text(value, ",.0f" if value >= 2 else ",.2f")
        outcome = gate["outcome"]
        rows.append(gate | {"shown": OUTCOMES[outcome], "measured": measured, "told": _filled(told[outcome], gate)})
    return rows


def _scores(report: Report) -> dict[str, Report]:
    return {name: one for name, one in report.items() if isinstance(one, Mapping) and "parts" in one}


def _quality(report: Report) -> Rows:
    return [{"name": name, "value": score["value"]} for name, score in _scores(report).items()]


def _parts(report: Report) -> Rows:
    rows = []
    for name, score in _scores(report).items():
        for part in score["parts"]:
            low, high = part.get("interval") or (None, None)
            value = {"estimate": part["value"], "low": low, "high": high}
            missing = NotMeasured(part.get("reason") or "?")
            rows.append(part | {"score": name, "measured": missing if part["value"] is None else value})
    return rows


def _offences(report: Report) -> Rows:
    return [
        offence | {"part": part["name"], "record": offence["record_id"] or f"row {offence['row'] + 1}"}
        for part in _parts(report)
        for offence in (part.get("offences") or ())[:5]
    ]


def _private(report: Report) -> Rows:
    rows = [{"kind": kind, "n": part["failed"], "of": part["n"]} for kind, part in report["personal_data"].items()]
    if copies := report.get("contamination"):
        n = NotMeasured(copies["reason"]) if copies["value"] is None else copies["failed"]
        rows.append({"kind": "near-copies of the reference", "n": n, "of": copies["n"]})
    return rows


def _lengths(report: Report) -> Any:
    """How long openings are, beside people's; nothing where there are none."""
    if not (shares_of := at(report, "openings.lengths")):
        return []
    title = f"Words of an opening beside {report['openings']['against']}"
    return charts.bars(shares_of, title=title, axis="share of openings", spec=".0%")


# worth, and classifiers


def _real_examples(card: Report) -> Part:
    of = {s["title"]: s for s in card["students"] if s.get("k_shots")}
    if not of:
        return _why(card, "k_shots")
    curves = {title: [(shot["k"], shot["accuracy"]) for shot in s["k_shots"]] for title, s in of.items()}
    worth = {
        title: {"estimate": s["equivalence"]["k"], "low": s["equivalence"]["low"], "high": s["equivalence"]["high"]}
        for title, s in of.items()
        if s["beats_floor"] is not False and at(s, "equivalence.k") is not None
    }
    last = max(k for curve in curves.values() for k, _ in curve)
    first = max(of, key=lambda title: _accuracy(of[title]))
    kind, doubt = measured_on(card), stand_in(card)
    said = f"{first}: accuracy {interval_text(of[first]['accuracy'])}"
    if of[first]["beats_floor"] is False:
        said += ", no more than the label names alone"
    elif first in worth:
        said = f"Worth {interval_text(worth[first], ',.1f')} {kind} labelled examples per label ({first})"
    if doubt:
        said = f"Stand-in {said[0].lower()}{said[1:]}; {doubt}"
    floors = {
        f"label names alone {s['floor']['estimate']:.2f}": s["floor"]["estimate"] for s in of.values() if s["floor"]
    }
    return charts.lines(
        curves, title=said, x=f"{kind} labelled examples per label", y=f"accuracy on {kind} data", log=True, ticks=True,
        levels=floors, marks={f"this dataset, {title}": (worth.get(title, last), s["accuracy"]) for title, s in of.items()},
        subtitle=f"accuracy on {of[first]['accuracy']['n']:,} {kind} utterances with 95 % interval; diamonds: this dataset",
    )  # fmt: skip


def _worth(card: Report) -> Rows:
    told, none = {True: "yes", False: "no", None: "can't be told"}, _why(card, "equivalence")
    return [
        s | {"on": measured_on(card), "more": told[s["beats_floor"]], "says": card["worth"].get(s["student"], none)}
        for s in card["students"]
    ]


def _gains(card: Report) -> Rows:
    return [gain | {"title": s["title"], "on": measured_on(card)} for s in card["students"] for gain in s["gains"]]


def _growth(report: Report) -> Part:
    """The learning curve of a classifier, or of every learner of a scorecard."""
    given = {s["title"]: s["learning_curve"] for s in report.get("students", ())} or {
        report.get("chosen"): report.get("learning_curve")
    }
    curves = {str(who): curve for who, curve in given.items() if curve}
    if not curves:
        return _why(report, "scorecard", "learning_curve is empty")
    name, rows = max(curves.items(), key=lambda item: _accuracy(item[1][-1]))
    accuracy, gain = rows[-1]["accuracy"], rows[-1].get("gain")
    title = f"{name}: accuracy {interval_text(accuracy)} with {rows[-1]['records']:,} records"
    if gain:
        how = "rises" if gain["low"] > 0 else "falls" if gain["high"] < 0 else "can't be told from the step before"
        step = f"From {rows[-2]['records']:,} to {rows[-1]['records']:,} records"
        title = f"{step} the accuracy of {name} {how}: {points(gain)} points"
    found = {who: [(row["records"], row["accuracy"]) for row in curve] for who, curve in curves.items()}
    below = f"tested on {accuracy['n']:,}, 95 % interval"
    return charts.lines(found, title=title, x="records learned from", y="accuracy", log=True, ticks=True, subtitle=below)  # fmt: skip


def _exam(report: Report) -> tuple[Report, str]:
    """Where a classifier, or the best learner of a scorecard, was examined, on real data if it was; and who that is."""
    if "students" in report:
        found = best(report) or {"title": "", "confusions": ()}
        return found, found["title"]
    return report.get("reference") or report["evaluation"], report["chosen"]


def _hardest(report: Report) -> Rows:
    """Recall by label, lowest first."""
    exam, who = _exam(report)
    labels: list[Any] = next((exam[k] for k in ("per_label", "per_intent", "labels", "intents") if exam.get(k)), [])
    rows: Rows = []
    for row in labels:
        recall = row["recall"] if isinstance(row["recall"], Mapping) else row | {"estimate": row["recall"]}
        rows.append({"who": who, "name": named(row)[0], "value": recall})
    return sorted(rows, key=lambda row: (row["value"]["estimate"], row["name"]))[:12]


def _mixed_up(report: Report) -> Any:
    exam, who = _exam(report)
    if not who:
        return _why(report, "scorecard")
    return [{"who": who, "true": named(pair)[0], "predicted": named(pair)[1], **pair} for pair in exam["confusions"]]


def _candidates(report: Report) -> Rows:
    return [c | {"value": c["interval"] or c["score"]} for c in report["candidates"]]


def _results(report: Report) -> Rows:
    held_out, real = report["evaluation"], report["reference"]
    languages = held_out["per_language"] if len(held_out["per_language"]) > 1 else {}
    rows = [{"name": f"held out, {name}", "accuracy": accuracy} for name, accuracy in languages.items()]
    why = NotMeasured((report.get("not_measured") or {}).get("reference", "no reference"))
    on_real = real | {"name": f"real: {real['name']}"} if real else {"name": "real", "accuracy": why}
    return [held_out | {"name": "held out"}, *rows, on_real]


def _calibration(report: Report) -> Part:
    exam = report.get("reference") or report["evaluation"]
    bins = [b for b in exam["reliability"] if b["accuracy"]["n"]]
    n = sum(b["accuracy"]["n"] for b in bins) or 1
    says, (_, low, high) = sum(b["confidence"] * b["accuracy"]["n"] for b in bins) / n, ends(exam["accuracy"])
    how = "as sure as it is right, as far as can be told"
    if not low <= says <= high:
        how = "surer than it is right" if says > high else "less sure than it is right"
    title = f"The classifier is {how}: says {says:.0%}, is right in {interval_text(exam['accuracy'], '.0%')} of {n:,}"
    right: list[tuple[float, Any]] = [(0, 0), (1, 1)]
    curves = {"classifier": [(b["confidence"], b["accuracy"]) for b in bins], "as sure as right": right}
    return charts.lines(curves, title=title, x="confidence", y="accuracy", unit=True)


def _rounds(report: Report) -> Part:
    rows = report["rounds"]
    first, last = rows[0], rows[-1]
    title = f"From {first['records']:,} to {last['records']:,} records accuracy on held-out seeds went from {interval_text(first['accuracy'])} to {interval_text(last['accuracy'])}"
    costs = [row["cost_usd"] for row in rows]
    below = "" if None in costs else f"cost ${sum(costs):,.2f}; "
    curve = {"accuracy": [(row["records"], row["accuracy"]) for row in rows]}
    below += f"n = {last['accuracy']['n']:,}, 95 % interval"
    return charts.lines(curve, title=title, x="records", y="accuracy on held-out seeds", ticks=True, subtitle=below)


# judge


def _means(report: Report) -> Rows:
    told: dict[str, Any] = {}
    for a in report["agreement"]:
        kappa = f"{interval_text(a['kappa'])}, {a['reading']}" if a["kappa"] else a["reading"]
        told.setdefault(a["name"], []).append(f"{a['rater'] or 'people'} (n = {a['n']:,}): {kappa}")
    none = NotMeasured(report["not_measured"].get("agreement", "no human labels for it"))
    return [c | {"kappa": "; ".join(told[c["name"]]) if c["name"] in told else none} for c in report["criteria"]]


# balance


def _findings(report: Report) -> Any:
    none = sum(finding["severity"] == "none" for finding in report["findings"])
    if not report["findings"]:
        return NotMeasured("nothing to hold against a plan")
    if none == len(report["findings"]):
        return f"All {none} checks are within what chance allows."
    return [f | {"todo": f["recommendation"] or "nothing"} for f in report["findings"] if f["severity"] != "none"]


def _targets(report: Report) -> list[Part]:
    drawn: list[Part] = []
    for fit in (fit for fit in report["fits"] if len(fit["target"]) <= 20):
        rows = []
        for value in dict.fromkeys([*fit["target"], *fit["observed"]]):
            low, high = fit["intervals"].get(value, (None, None))
            share = {"estimate": fit["observed"].get(value, 0) / (fit["n"] or 1), "low": low, "high": high}
            rows.append({"name": value, "target": fit["target"].get(value), "value": share})
        reach = max(end for row in rows for end in (*ends(row["value"]), row["target"]) if end is not None)
        said = "no deviation proven" if fit["severity"] == "none" else f"{fit['severity']} deviation"
        title = f"{_spoken(fit['attribute']).capitalize()}: {said} from its target (n = {fit['n']:,})"
        drawn.append(charts.dots(rows, title=title, axis="share of records", span=(-0.01, 1.1 * reach), spec=".1%"))
    return drawn


def _coverage(report: Report) -> Any:
    return [report["coverage"]] if report["coverage"] else _why(report, "coverage", "the dataset has no targets")


def _associations(report: Report) -> Rows:
    pairs = sorted((a for a in report["associations"] if a["within"] is None), key=lambda a: -a["v"]["estimate"])
    return [{"name": " and ".join(map(_spoken, a["attributes"])), "value": a["v"]} for a in pairs[:15]]


def _appearances(report: Report) -> Any:
    missing = _why(report, "appearance") if "appearance" in report["not_measured"] else None
    return missing or [a | {"language": a["language"] or "all"} for a in report["appearances"]]


def _teachers(manifest: Report) -> Part:
    each = [{k: v for k, v in one.items() if k != "usage"} for one in manifest.get("teachers") or ()]
    return table(each, caption="What each teacher did") if each else "One teacher wrote it all."


# examples of a teacher


def _audit(report: Report) -> Rows:
    issues = report["audit"]["issues"]
    mended = Counter(issue["kind"] for issue in issues if issue["mechanical"])
    first = {issue["kind"]: f"row {issue['row']}: {issue['message']}" for issue in reversed(issues)}
    kinds = report["audit"]["kinds"].items()
    return [{"kind": kind, "n": n, "mended": mended[kind], "first": first.get(kind)} for kind, n in kinds]


# students


def _arm_parts(report: Report) -> Part:
    none, cards = NotMeasured("no answer has it"), report["cards"]
    names = dict.fromkeys(name for card in cards for name in card["parts"])
    rows = [
        {"part": _spoken(name)} | {card["name"]: none if (mean := card["parts"].get(name)) is None else mean for card in cards}
        for name in names
    ]  # fmt: skip
    formats = {card["name"]: ".2f" for card in cards}
    return table(rows, caption="Mean of each part, and of what is measured beside it (1 is best)", formats=formats)


def _worst_answers(report: Report) -> list[Part]:
    shown: list[Part] = []
    for item in report["worst"][:1]:
        answers = {"the teacher": item["teacher"]}
        for name, answer in item["answers"].items():
            answers[f"{name}: {answer['score']:.2f}. {'; '.join(answer['problems'])}"] = answer["text"]
        shown.append(side_by_side([list(answers.values())], list(answers), above=item["question"]))
    return shown


def _lessons(info: Report) -> Any:
    """With the epoch before training and the one that was kept."""
    doubt = "; a smoke run, not a result" if info["smoke"] else ""
    return {**info, "kept": info["epochs"][info["best_epoch"]], "doubt": doubt}


def _scored(info: Report) -> Any:
    found = _lessons(info)
    return found if found["kept"]["answers"] else NotMeasured("no validation example was answered: set examine above 0")


def _before_and_after(info: Report) -> list[Part]:
    first, kept = (info["epochs"][epoch]["answers"][:2] for epoch in (0, info["best_epoch"]))
    shown: list[Part] = [
        side_by_side([[a["text"], b["text"]]], [f"the base: {a['score']:.2f}", f"the student: {b['score']:.2f}"])
        for a, b in zip(first, kept, strict=False)
    ]
    return shown or [NotMeasured("no validation example was answered: examine was 0")]


def _export(report: Report) -> Rows:
    measured, files = ({each["form"]: each for each in report[of]} for of in ("gates", "files"))
    why = {"score": NotMeasured(report["not_measured"].get("gate", "it was not asked"))}
    return [
        {"form": form, "bytes": files.get(form, {}).get("bytes"), **measured.get(form, why)}
        for form in dict.fromkeys([*measured, *files])
    ]


# prompts, and two datasets


def _prompts(report: Report) -> Rows:
    last = {name: rung for rung in report["rungs"] for name in rung["scores"]}
    rows = [
        c | {"items": rung["items"], "score": rung["scores"][c["name"]], "difference": rung["differences"].get(c["name"])}
        for c in report["candidates"] if (rung := last.get(c["name"]))
    ]  # fmt: skip
    return sorted(rows, key=lambda row: -row["items"])


def _on_test(report: Report) -> Rows:
    labels = {report["chosen"]: "chosen prompt", "default": "task's own prompt", "difference": "gain"}
    return [{"who": labels[name], "score": value} for name, value in report["test"].items()]


def _pair_sizes(report: Report) -> Part:
    rows = [{"": name.removesuffix(".value"), report["name_a"]: a, report["name_b"]: b} for name, (a, b) in (report["sizes"] | report["quality"]).items()]  # fmt: skip
    return table(rows, caption="Sizes and scores")


def _pair_worth(report: Report) -> Rows:
    a, b = report["name_a"], report["name_b"]
    return [
        w | {"verdict": w["verdict"].replace("a is", f"{a} is").replace("b is", f"{b} is")} for w in report["worth"]
    ]


def _bounded(value: Report) -> dict[str, Any]:
    """The interval of a score, which can't leave 0 to 1."""
    return {"estimate": value["estimate"], "low": max(value["low"], 0.0), "high": min(value["high"], 1.0)}


HOW: dict[str, Callable[[Any], Any]] = {
    "points": points, "bounded": _bounded, "count": len, "words": _spoken, "duration": duration,
    "MiB": lambda n: f"{n / 2**20:,.0f}", "MB": lambda n: f"{n / 1e6:,.0f}", "GiB": lambda n: f"{n / 2**30:.1f} GiB",
    "sentences": "; ".join, "hash": lambda text: text[:12],
    "smoke": lambda limits: f"smoke run: {cell_text(limits)}" if limits else "full run",
    "counted": lambda counts: ", ".join(f"{n:,} {name}" for name, n in counts.items()) or "none",
    "firsts": lambda words: [word for group in words.values() for word in list(group)[:3]],
}  # fmt: skip
"""Formats of ``views.yaml`` besides Python's own."""

DRAW: dict[str, Callable[[Report], Any]] = {
    "verdict.gates": _gates,
    "scorecard.real examples": _real_examples, "scorecard.worth": _worth, "scorecard.gains": _gains,
    "scorecard.growth": _growth, "scorecard.hardest": _hardest, "scorecard.mixed up": _mixed_up,
    "training.candidates": _candidates, "training.results": _results, "training.calibration": _calibration,
    "training.growth": _growth, "training.hardest": _hardest, "training.mixed up": _mixed_up,
    "quality.scores": _quality, "quality.parts": _parts, "quality.offences": _offences, "quality.personal data": _private, "quality.lengths": _lengths,
    "rounds.growth": _rounds, "judge.means": _means,
    "bias.findings": _findings, "bias.targets": _targets, "bias.coverage": _coverage,
    "bias.associations": _associations, "bias.appearances": _appearances,
    "evaluation.parts": _arm_parts, "evaluation.worst": _worst_answers, "benchmark.parts": _arm_parts,
    "student.score": _scored, "student.loss": _lessons, "student.before and after": _before_and_after,
    "export.gates": _export, "teaching.audit": _audit, "manifest.teachers": _teachers,
    "search.prompts": _prompts, "search.test": _on_test,
    "comparison.sizes": _pair_sizes, "comparison.worth": _pair_worth,
}  # fmt: skip
"""What draws the views that are more than a table of the report's own rows; a list of rows becomes the table of ``views.yaml``."""
