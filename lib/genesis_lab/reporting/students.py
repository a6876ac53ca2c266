"""The part of a report about students: which base, how it learned, whether the gain is real, what an export keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from genesis_lab.reporting import evaluation, lessons
from genesis_lab.reporting.markup import Html
from genesis_lab.reporting.pages import Section
from genesis_lab.reporting.tables import NotMeasured, interval_text, table

Report = Mapping[str, Any]

FEW = 0.05
"""Share of answers that may miss the schema without a word about it."""


def student_sections(reports: Mapping[str, Report]) -> list[Section]:
    """A section for each report there is; what a dataset is worth to a student is asked in any case.

    Parameters
    ----------
    reports : of the kinds ``evaluation``, ``student`` (its ``training_info.json``), ``export`` (its ``export.json``)
        and ``benchmark``.
    """
    found = [Section("Is the student's gain real", _gain(reports.get("evaluation")))]
    if student := reports.get("student"):
        found.append(_section("How the student learned", _lessons, student))
    if export := reports.get("export"):
        found.append(_section("What is left of it after export", _export, export))
    if benchmark := reports.get("benchmark"):
        found.append(Section("Which model is good enough", _benchmark(benchmark)))
    return found


def _section(title: str, draw: Callable[[Report], list[Any]], record: Report) -> Section:
    """A section about a record that anyone may have written: one that is not whole is not drawn."""
    try:
        return Section(title, draw(record))
    except (KeyError, TypeError, AttributeError):
        return Section(title, [NotMeasured("the record that is kept of it is not whole")])


def headline(report: Report) -> Report:
    """The pair that the verdict of an evaluation is about."""
    pair: Report = next(p for p in report["pairs"] if [p["a"], p["b"]] == list(report["headline"]))
    return pair


def card(report: Report | None) -> object:
    """The card about an evaluation: how much is gained."""
    if report is None:
        return NotMeasured("no student was examined")
    if report["limits"]:
        return NotMeasured("only a smoke run")
    pair = headline(report)
    d = pair["difference"]
    ends = f"[{100 * d['low']:+.0f} to {100 * d['high']:+.0f}]"
    return f"{100 * d['estimate']:+.0f} points", f"{ends} {pair['a']} against {pair['b']}: {pair['verdict']}"


def sentence(report: Report | None) -> str:
    """An evaluation for a reader in a hurry."""
    if report is None:
        return "What a student gains from it was not measured."
    if report["limits"]:
        return "A student was examined in a smoke run only, which shows nothing."
    pair, score = headline(report), {c["name"]: f"{c['score']['estimate']:.2f}" for c in report["cards"]}
    return (
        f"Asked about {report['concepts']:,} concepts that no model was taught, {pair['a']} scores {score[pair['a']]} and "
        f"{pair['b']} {score[pair['b']]}; the teacher's own answers score {report['teacher']['estimate']:.2f}. "
        f"The verdict: {pair['verdict']}."
    )


def next_steps(name: str, reports: Mapping[str, Report]) -> list[str]:
    """What to do about students of the dataset `name`, the most useful first."""
    report, export = reports.get("evaluation"), reports.get("export")
    if report is None:
        there = not reports.get("student", {}).get("smoke", True)
        what = "Examine the student (notebook 53)" if there else "Teach a student (notebook 52) and examine it (53)"
        steps = [f"{what}: until then nobody knows what the data is worth."]
    elif report["limits"]:
        steps = [f"Examine a student without {', '.join(report['limits'])} (notebook 53): a smoke run shows nothing."]
    else:
        steps = _after(report, name, reports)
    if export and export.get("passed") is False:
        failed = [gate["form"] for gate in export["gates"] if gate["passed"] is False]
        steps.append(f"Don't use what was exported as {', '.join(failed) or 'GGUF'}: it differs from what was taught.")
    elif export and (open_ := [gate for gate in export.get("gates", ()) if gate["passed"] is None]):
        told = "; ".join(f"{gate['form']} {gate['said']}" for gate in open_)
        steps.append(f"Export again with more items before relying on what was exported ({told}).")
    return steps


def gates(report: Report) -> Html:
    """Each form of an exported student: its size and what it still scores."""
    measured = {gate["form"]: gate for gate in report["gates"]}
    files = {file["form"]: file for file in report["files"]}
    why = NotMeasured(report["not_measured"].get("gate", "it was not asked"))
    rows = []
    for form in dict.fromkeys([*measured, *files]):
        gate, file = measured.get(form), files.get(form)
        row: dict[str, object] = {"form": form, "MB": f"{file['bytes'] / 1e6:,.0f}" if file else None}
        if gate is None:
            rows.append(row | {"score": why})
            continue
        change = gate["difference"]
        row |= {"run by": gate["asked_by"], "score": _interval(gate["score"]), "valid": f"{gate['valid']:.0%}"}
        if change:
            row |= {"change": f"{change['estimate']:+.2f}", "verdict": gate["said"]}
        rows.append(row)
    return table(rows, caption=f"After export (score and validity may fall by {report['margin']:g})")


def _after(report: Report, name: str, reports: Mapping[str, Report]) -> list[str]:
    """What an examination without limits asks for."""
    pair = headline(report)
    said = f"{pair['a']} against {pair['b']}: {pair['verdict']}"
    if pair["verdict"].startswith("can't be told"):
        return [f"Hold out more concepts before deciding ({said})."]
    if not pair["verdict"].startswith("better"):
        return [f"Don't use it yet ({said}). Teach on more examples or for longer, or take a larger base."]
    steps = []
    if "student" in reports and "export" not in reports:
        command = f"genesis export-student {reports['student']['student']} FOLDER --dataset {name}"
        steps.append(f"Use the student ({said}). {command} writes it for Ollama.")
    of = next(c for c in report["cards"] if c["name"] == pair["a"])
    broken = 1 - of["validity"]["estimate"]
    if of["validity"]["high"] < 1 - FEW:
        steps.append(
            f"Hold its answers to the role's grammar: {broken:.0%} do not meet the schema, {of['cut_off']:.0%} reach the "
            "length limit."
        )
    return steps


def _gain(report: Report | None) -> list[Any]:
    if report is None:
        return [NotMeasured("no student was examined on the split test")]
    return [
        *_smoke(report["limits"]),
        f"All candidates answered the same questions about {report['concepts']:,} concepts that none of them was taught. "
        f"{_who(report)} Each dot is the score of one minus the score of another, in points of 100. Right of the grey band a gain matters, "
        "within it it would not; an interval that crosses zero shows nothing.",
        evaluation.forest(report),
        evaluation.verdicts(report),
        "p says how often luck alone would show such a difference, corrected for the number of pairs. Win, tie and loss "
        "count groups of like concepts.",
        evaluation.cards(report, models=False),
        "Score is between 0 and 1. Valid is the share of answers that meet the schema, cut off the share that reached "
        "the length limit. Run SD is how much one question's score moves from run to run.",
        evaluation.parts(report),
        "Good form is not yet sense: content is the share of the concept's own words that an answer takes up, on topic "
        "the share of its items with at least one of them. Both stand beside the score.",
        evaluation.costs(report),
        "The question that was answered worst, with everyone's answer:",
        evaluation.worst(report, limit=1),
    ]


def _lessons(info: Report) -> list[Any]:
    return [
        *_smoke(info["limits"]),
        "Loss is how surprised the student is by the teacher's words; on validation it is measured on concepts that it "
        "does not learn from. The score is the task's own, of answers to such concepts.",
        lessons.score_curve(info),
        lessons.loss_curve(info),
        "One of these questions, answered before training and after it, with the scores:",
        lessons.before_and_after(info, limit=1),
        lessons.facts(info),
    ]


def _export(report: Report) -> list[Any]:
    rows: list[Any] = [
        f"The student was merged with its base and written to {report['folder']}. Each form answered the same questions "
        "once; change is its mean score minus that of the student as it was trained.",
        gates(report),
    ]
    if parity := report["parity"]:
        rows.append(f"{parity['differing_count']:,} of {parity['n']:,} texts become other tokens than in training.")
    return rows


def _benchmark(report: Report) -> list[Any]:
    return [
        *_smoke(report.get("limits") or {}),
        report["verdict"],
        evaluation.scores(report),
        evaluation.cards(report, models=False),
    ]


def _who(report: Report) -> str:
    named = [f"{c['name']} is {c['model']}" for c in report["cards"]]
    return f"Of these, {', '.join(named)}."


def _smoke(limits: Mapping[str, Any]) -> list[str]:
    """What stands above all figures of a smoke run."""
    given = ", ".join(f"{name} {value}" for name, value in limits.items())
    return [f"A smoke run ({given}): nothing in this section is a result."] if limits else []


def _interval(value: Report) -> str:
    return interval_text(value["estimate"], max(value["low"], 0.0), min(value["high"], 1.0))
