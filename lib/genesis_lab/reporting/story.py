"""What the reports on a dataset come to: the cards on top of its page, what to do next, and the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from genesis_lab.reporting import charts
from genesis_lab.reporting.html import NotMeasured, bullets, chat, dialogue, side_by_side
from genesis_lab.reporting.page import Page, Part, Section
from genesis_lab.reporting.reading import Report, at, best, measured_on, named, points, shown_as, stand_in
from genesis_lab.reporting.views import appendix, headline, kinds, shares, views
from genesis_lab.stats import proportion_interval
from genesis_lab.yamls import shipped

Reports = Mapping[str, Report]
"""Kind (``quality``, ``scorecard``, ``bias``, ``verdict`` …) to the report as a dict; the manifest is one of them."""

RISING = 0.01
"""Accuracy gained by the last step of a learning curve below which more data is not worth its price."""
UNDERSTOOD = 0.5
"""Recall on real messages that a label must be proven to miss before its openings are called weak."""
MIXED_UP = 0.1
"""Share of a label's real messages that must be proven to be taken for another before the pair is named."""
FEW = 0.05
"""Share of answers that may miss the schema without a word about it."""
ENOUGH = 50
"""Groups of concepts held out for the test from which an examination can come to a verdict."""
ORDER = (
    "verdict", "evaluation", "student", "export", "benchmark", "scorecard", "rounds", "training", "teaching", "quality", "judge",
    "bias", "manifest",
)  # fmt: skip
"""The kinds of reports in the order of the page, of its cards and of what to do next."""
FIRST_STEPS = 3
"""Steps on the first page; the others stand at the end."""
_MOST_STEPS = 7
_WORDS = ("FAIL", "WARN", "PASS")
"""Verdicts, the weakest first."""


def key_figures(reports: Reports, shown: Collection[str] = ()) -> dict[str, object]:
    """The cards of the reports that there are, and of those of `shown`, which say why they are empty."""
    found: dict[str, object] = {}
    for kind in (kind for kind in ORDER if kind in reports or kind in shown):
        report = reports.get(kind)
        kind = shown_as(kind, report)
        about = kinds()[kind]
        missing = dict.fromkeys(about.get("cards", ()), NotMeasured(about["missing"]))
        found |= CARDS[kind](report) if report and missing else missing
    return found


def next_steps(reports: Reports) -> list[str]:
    """What the reports recommend, the most useful first; what to type, or where to look, stands behind an arrow."""
    there = ((shown_as(kind, reports.get(kind)), reports.get(kind)) for kind in ORDER)
    told = (STEPS[kind](report, reports) for kind, report in there if kind in STEPS and report)
    return [*_measure(reports), *(step for steps in told for step in steps)][:_MOST_STEPS]


def overall(reports: Reports) -> tuple[str, str]:
    """The one verdict of a page and its sentence: at most as good as the weakest of its parts that was measured."""
    verdict, exam, export = (reports.get(kind) or {} for kind in ("verdict", "evaluation", "export"))
    severity, audit = at(reports, "bias.severity") or "none", sum((at(reports, "teaching.audit.kinds") or {}).values())
    found = [(str(verdict["verdict"]), verdict["sentence"].partition(": ")[2])] if verdict.get("verdict") else []
    if severity != "none":
        found.append(("FAIL" if severity == "high" else "WARN", f"imbalance is {severity}"))
    if exam and not exam["limits"]:
        won = str(headline(exam)["verdict"])
        word = "PASS" if won.startswith("better") else "WARN" if won.startswith("can't") else "FAIL"
        found.append((word, f"the gain of the student: {exam['verdict']}"))
    if export.get("passed") is False:
        found.append(("FAIL", "what was exported differs from what was taught"))
    if audit:
        found.append(("WARN", f"the audit found {audit:,} issues"))
    if not found:
        return "", exam.get("verdict") or ""
    word = min(found, key=lambda part: _WORDS.index(part[0].split()[0]))[0]
    because = "; ".join(said.rstrip(".") for one, said in found if one == word and said)
    return word, f"The verdict is {word}{because and f': {because}'}."


def dataset_page(
    name: str, reports: Reports, *, unit: str, needed: Collection[str] = (), samples: Iterable[Any] = (),
    counts: Mapping[str, Mapping[str, int]] | None = None, facets: Any = None, sentences: Part | None = None,
    title: str = "", date: str = "", language: str = "en", provenance: Mapping[str, object] | None = None,
) -> Page:  # fmt: skip
    """The page: the verdict, key figures, the curve and what to do next; then what stands behind it; then the records.

    Parameters
    ----------
    reports : kind to report, with the dataset's ``manifest``.
    unit : what its records are called.
    needed : reports that the page rests on: of one that is missing it says so.
    samples : records to show, as the preview of `facets` wants them.
    counts : attribute to records of each value.
    sentences : what a trained classifier makes of a few sentences (`views.predictions`).
    date, language : when it was made, and in which language it is written (`wording.languages`).
    provenance : further lines of the footer: versions, command.
    """
    manifest, (status, summary) = reports.get("manifest") or {}, overall(reports)
    records = [part for kind in ORDER if reports.get(kind) for part in appendix(kind, reports[kind])]
    steps = next_steps({**reports, "name": {"name": name, "records": bool(records)}})
    sections: list[Section] = []
    for kind in (kind for kind in ORDER if kind in needed or reports.get(kind)):
        extra = [sentences] if kind == "training" and sentences and reports.get(kind) else []
        sections += views(kind, reports.get(kind), extra=extra)
    lead = next((part for one in sections for part in one.parts if hasattr(part, "to_plotly_json")), None)
    for section in sections:
        section.parts[:] = [part for part in section.parts if part is not lead]
    first, more = steps[:FIRST_STEPS], steps[FIRST_STEPS:]
    todo = bullets(first, ordered=True) if steps else f"Nothing stands out: the {unit} can be used as they are."
    sections.insert(0, Section("What to do next", [todo]))
    sections.append(Section("What it holds", _content(counts or {}, samples, facets, unit)))
    if more:
        sections.append(Section("Further steps", [bullets(more)]))
    if records:
        sections.append(Section("Appendix: the records", records, "records"))
    held = _of_verdict(reports["verdict"])["verdict"] if reports.get("verdict") else None
    card = {"verdict": (status, held[1])} if isinstance(held, tuple) else {}
    many = {"": sum(manifest.get("counts", {}).values())} | {n: len(v) for n, v in [*(counts or {}).items()][:3] if v}
    return Page(
        title=title or f"Dataset report: {name}",
        subtitle=" · ".join(f"{n:,} {_plural(of, n) or unit}" for of, n in many.items()),
        date=date,
        summary=summary,
        status=status,
        figures=key_figures(reports, needed) | card,
        lead=lead,
        sections=sections,
        provenance=_made_by(manifest) | dict(provenance or {}),
        language=language,
    )


def _plural(name: str, n: int) -> str:
    word = name.replace("_", " ")
    if n == 1 or not word or word.endswith("s"):
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def _content(counts: Mapping[str, Mapping[str, int]], samples: Iterable[Any], facets: Any, unit: str) -> list[Part]:
    few = {name: values for name, values in counts.items() if 0 < len(values) <= 6}
    parts: list[Part] = [charts.stack(few, title="What the dataset is made of", unit=unit)] if few else []
    for name, values in counts.items():
        if 6 < len(values) <= 30:
            parts.append(shares(dict(sorted(values.items(), key=lambda item: -item[1])), name, unit=unit))
    if not (shown := list(samples)):
        return parts
    preview = getattr(facets, "preview", "dialogue")
    if preview in ("chat", "series"):
        return [*parts, "Picked at random:", *([chat(shown, facets, limit=3)] if preview == "chat" else shown)]
    heads = (getattr(facets, "label", None) or "record", "text")
    return [*parts, "Picked at random:", side_by_side(shown, heads) if preview == "text" else dialogue(shown)]


def _made_by(manifest: Report) -> dict[str, object]:
    """The footer: which records these are, who wrote them."""
    made, which = manifest.get("generation"), {"content hash": manifest.get("content_hash", "unknown")}
    if not made:
        return which | {"written by": "unknown: the dataset was not generated here"}
    by = f"provider {made.get('provider')}, model {made.get('model')}"
    return which | {"written by": by, "plan": f"{made.get('plan_hash')}, seed {made.get('seed')}"}


# what is on the cards


def _of_verdict(verdict: Report) -> dict[str, object]:
    held = sum(gate["outcome"] == "pass" for gate in verdict["gates"])
    if not verdict["verdict"]:
        return {"verdict": NotMeasured("no quality report")}
    return {"verdict": (verdict["verdict"], f"{held} of {len(verdict['gates'])} gates hold")}


def _of_scorecard(card: Report) -> dict[str, object]:
    if not (learner := best(card)):
        none = NotMeasured(str(card["not_measured"].get("scorecard", "no learner was trained")))
        return {"worth": none, "accuracy on real data": none}
    a, kind, doubt = learner["accuracy"], measured_on(card), stand_in(card)
    reach = f"[{a['low']:.0%}–{a['high']:.0%}] of {a['n']:,} {kind} messages"
    worth, accuracy = _worth(learner, kind), (f"{a['estimate']:.0%}", reach)
    if doubt:
        noted = (worth[0], f"{worth[1]}; {doubt}") if isinstance(worth, tuple) else worth
        return {"stand-in worth": noted, "accuracy on a stand-in": (accuracy[0], f"{reach}; {doubt}")}
    return {"worth": worth, "accuracy on real data": accuracy}


def _worth(learner: Report, kind: str) -> object:
    if learner["beats_floor"] is False:
        return "nothing", f"the label names alone reach {learner['floor']['estimate']:.0%}"
    if not (worth := learner["equivalence"]):
        return NotMeasured(f"no {kind} training data")

    def text(k: float | None, below: bool) -> str:
        beyond = f"under {worth['smallest_k']:g}" if below else f"over {worth['largest_k']:g}"
        return beyond if k is None else f"{k:.1f}"

    reach = f"[{text(worth['low'], worth['low_below'])}–{text(worth['high'], worth['high_below'])}]"
    doubt = "" if learner["beats_floor"] else "; whether that is more than the label names alone reach can't be told"
    return text(worth["k"], worth["below"]), f"{kind} labelled examples per label {reach}{doubt}"


def _of_forecasts(card: Report) -> dict[str, object]:
    if not (learner := best(card)):
        none = NotMeasured(str(card["not_measured"]["scorecard"]))
        return {"worth": none, "MASE on real series": none}
    m, rule = learner["mase"], f"{card['best_baseline']} {learner['floor']['estimate']:.2f}"
    error = (f"{m['estimate']:.2f}", f"[{m['low']:.2f}–{m['high']:.2f}] of {m['n']:,} real series; {rule}")
    says = card["worth"][learner["student"]].removeprefix("worth ")
    few, _, reach = says.removesuffix(" real series").partition(" [")
    told: object = ("nothing", f"the {rule} needs no training")
    if learner["beats_floor"] is not False:
        told = (few, "real series" + (f" [{reach}" if reach else ""))
    return {"worth": told, "MASE on real series": error}


def _of_evaluation(report: Report) -> dict[str, object]:
    if report["limits"]:
        return {"gain": NotMeasured("only a smoke run")}
    pair = headline(report)
    gain, _, reach = points(pair["difference"]).partition(" ")
    return {"gain": (f"{gain} points", f"{reach} {pair['a']} against {pair['b']}: {pair['verdict']}")}


def _of_teaching(teaching: Report) -> dict[str, object]:
    scores, audit, teachers = teaching["scores"], teaching["audit"], teaching["teachers"]
    score = None if scores["mean"] is None else (f"{scores['mean']:.2f}", f"of 1; {scores['valid']:.0%} meet the schema")  # fmt: skip
    return {
        "mean score": score or NotMeasured("no examples"),
        "concept groups": (sum(row["concept groups"] for row in teaching["splits"]), "of like products, kept together"),
        "teachers": (len(teachers), ", ".join(f"{who} {n:,}" for who, n in teachers.items())),
        "audit": (sum(audit["kinds"].values()), f"issues, in {audit['records_with_issues']:,} examples"),
    }


def _of_bias(bias: Report) -> dict[str, object]:
    found, checks = sum(f["severity"] != "none" for f in bias["findings"]), len(bias["findings"])
    told = (bias["severity"], f"{found or 'none'} of {checks} checks found something")
    return {"imbalance": told if checks else NotMeasured("nothing to hold against a plan")}


def _of_manifest(manifest: Report) -> dict[str, object]:
    total, attempts, usd = sum(manifest["counts"].values()), manifest.get("attempts"), manifest.get("cost_usd")
    rate = (f"{total / attempts:.0%}", f"of {attempts:,} answers") if attempts else NotMeasured("not generated here")
    cost = NotMeasured("no price is known") if usd is None else (f"${usd:,.2f}", "to generate")
    return {"accepted": rate, "cost": cost}


# what to do next


def _how(key: str, reports: Reports, **more: object) -> str:
    """What to type for a step (``steps.yaml``), behind an arrow; nothing where it would lead nowhere."""
    about = {"name": "NAME", **reports.get("name", {}), **more}
    command = str(shipped(Path(__file__).with_name("templates") / "steps.yaml")[key])
    return "" if command == "#records" and not about.get("records") else f" → {command.format(**about)}"


def _measure(reports: Reports) -> Iterator[str]:
    card = reports.get("scorecard")
    if ("quality" in reports or card) and (not best(card) or stand_in(card or {})):
        yield f"Measure its worth on real messages: until then nobody knows what the data is worth.{_how('worth', reports)}"


def _mend(verdict: Report, reports: Reports) -> Iterator[str]:
    for outcome in ("fail", "warn"):
        for gate in (gate for gate in verdict["gates"] if gate["outcome"] == outcome):
            yield f"{gate['todo'].capitalize()}: {gate['says']}.{_how('records', reports)}"


def _teach_better(card: Report, reports: Reports) -> Iterator[str]:
    if not (learner := best(card)):
        return
    curve, kind = learner["learning_curve"], measured_on(card)
    if step := curve[-1].get("gain") if len(curve) > 1 else None:
        grown = f"from {curve[-2]['records']:,} to {curve[-1]['records']:,} records accuracy on {kind} messages changed by {points(step)} points"
        if step["low"] > 0:
            yield f"Generate more: {grown}, so the next ones are likely to pay as well.{_how('more', reports, total=4 * curve[-1]['records'])}"
        elif step["high"] < RISING:
            yield f"Write new ways of asking rather than more records: {grown}."
        else:
            yield f"Whether more records would pay can't be told: {grown}."
    labels = learner.get("labels") or learner.get("intents") or ()
    weak = [named(row)[0] for row in sorted(labels, key=lambda row: row["recall"]) if row["high"] < UNDERSTOOD]
    if weak:
        more = f" and {len(weak) - 4} more" if len(weak) > 4 else ""
        yield f"Write better openings for {', '.join(weak[:4])}{more}: {kind} messages about them are understood least.{_how('tell apart', reports)}"
    proven = (pair for pair in learner["confusions"] if proportion_interval(pair["count"], pair["n"])[0] > MIXED_UP)
    if pair := next(proven, None):
        one, other = named(pair)[:2]
        yield f"Tell {one} and {other} apart: {pair['count']} of {pair['n']} {kind} messages of the first are taken for the second.{_how('tell apart', reports)}"


def _forecast_better(card: Report, _: Reports) -> Iterator[str]:
    if not (learner := best(card)):
        return
    if learner["beats_floor"] is False:
        yield f"Don't train on it: {learner['says']}. genesis tune draws such series nearer to your own."
        return
    last, gain = learner["learning_curve"][-1], learner["learning_curve"][-1]["gain"]
    if gain and gain["low"] > 0:
        yield f"Generate more: the last half of the {last['records']:,} series lowered MASE by {gain['estimate']:.3f}."
    added = learner["gains"][0]
    if added["difference"]["low"] > 0:
        yield f"Use it beside what you have: with {added['k']} real series it lowers MASE from {added['real_only']:.2f} to {added['with_synthetic']:.2f}."


def _use(report: Report, reports: Reports) -> Iterator[str]:
    if report["limits"]:
        yield f"Examine a student without {', '.join(report['limits'])}: a smoke run shows nothing.{_how('examine', reports)}"
        return
    pair = headline(report)
    said = f"{pair['a']} against {pair['b']}: {pair['verdict']}"
    if pair["verdict"].startswith("can't be told"):
        yield f"Hold out more concepts before deciding ({said})."
    elif not pair["verdict"].startswith("better"):
        yield f"Don't use it yet ({said}). Teach on more examples or for longer, or take a larger base."
    else:
        if reports.get("student") and not reports.get("export"):
            yield f"Use the student ({said}): write it for Ollama.{_how('export', reports, student=reports['student']['student'])}"
        of = next(c for c in report["cards"] if c["name"] == pair["a"])
        if of["validity"]["high"] < 1 - FEW:
            broken = 1 - of["validity"]["estimate"]
            yield f"Hold its answers to the role's grammar: {broken:.0%} do not meet the schema, {of['cut_off']:.0%} reach the length limit."


def _exported(export: Report, _: Reports) -> Iterator[str]:
    gates = export.get("gates") or ()
    if export.get("passed") is False:
        failed = ", ".join(gate["form"] for gate in gates if gate["passed"] is False)
        yield f"Don't use what was exported as {failed or 'GGUF'}: it differs from what was taught."
    elif open_ := [f"{gate['form']} {gate['said']}" for gate in gates if gate["passed"] is None]:
        yield f"Export again with more items before relying on what was exported ({'; '.join(open_)})."


def _teach(teaching: Report, reports: Reports) -> Iterator[str]:
    audit = teaching["audit"]
    if not reports.get("evaluation"):
        taught = not (reports.get("student") or {}).get("smoke", True)
        what, how = ("Examine the student", "examine") if taught else ("Teach a student and examine it", "teach")
        yield f"{what}: until then nobody knows what the data is worth.{_how(how, reports)}"
    held = sum(row["concept groups"] for row in teaching["splits"] if row["split"] == "test")
    if held < ENOUGH:
        yield f"Hold out more: with {held} groups of concepts in the split test, and under {ENOUGH}, verdicts are weak or impossible."
    if audit["kinds"]:
        n = f"{sum(audit['kinds'].values()):,} issues {audit['mechanical']:,} are repaired at once, {audit['for_a_person']:,}"
        yield f"Repair the examples: of {n} need a person.{_how('audit', reports)}"
    if all(who.startswith("offline") for who in teaching["teachers"]):
        yield "Let a language model write as well (teachers): the grammar teaches form, but repeats its sentence patterns."


def _balance(bias: Report, reports: Reports) -> Iterator[str]:
    how = _how("balance", reports) if bias.get("additions") else ""
    for finding in bias["findings"]:
        if finding["severity"] != "none" and finding["recommendation"]:
            yield f"Balance {finding['name']} ({finding['severity']}): {finding['recommendation']}{how}"


def _private(quality: Report, _: Reports) -> Iterator[str]:
    if n := sum(part["failed"] or 0 for part in (quality.get("personal_data") or {}).values()):
        yield f"Decide on {n:,} turns that look like personal data before anyone trains on them."


def _go_on(manifest: Report, reports: Reports) -> Iterator[str]:
    if missing := manifest.get("missing"):
        yield f"Go on generating: {missing:,} planned records are missing.{_how('go on', reports)}"


CARDS: Mapping[str, Callable[[Report], dict[str, object]]] = {
    "verdict": _of_verdict, "evaluation": _of_evaluation, "scorecard": _of_scorecard, "teaching": _of_teaching,
    "bias": _of_bias, "manifest": _of_manifest, "forecasts": _of_forecasts,
}  # fmt: skip
STEPS: Mapping[str, Callable[[Report, Reports], Iterable[str]]] = {
    "verdict": _mend, "evaluation": _use, "export": _exported, "scorecard": _teach_better, "teaching": _teach,
    "quality": _private, "bias": _balance, "manifest": _go_on, "forecasts": _forecast_better,
}  # fmt: skip
