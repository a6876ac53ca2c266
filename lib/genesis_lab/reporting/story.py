"""What the reports on a dataset come to: the cards on top of its page, what to do next, and the page."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from genesis_lab.reporting import charts
from genesis_lab.reporting.html import NotMeasured, bullets
from genesis_lab.reporting.page import Page, Part, Section, template
from genesis_lab.reporting.reading import Report, at, best, measured_on, points, shown_as, stand_in
from genesis_lab.reporting.style import TEMPLATES
from genesis_lab.reporting.views import appendix, headline, kinds, shares, views
from genesis_lab.stats import proportion_interval
from genesis_lab.yamls import shipped

Reports = Mapping[str, Report]
"""Kind (``quality``, ``scorecard``, ``bias``, ``verdict`` …) to the report as a dict; the manifest is one of them."""

ORDER = ["verdict", "evaluation", "student", "export", "benchmark", "scorecard", "rounds", "training", "teaching"]
ORDER += ["quality", "judge", "bias", "manifest"]
"""The kinds of reports in the order of the page, of its cards and of what to do next."""
FIRST_STEPS = 3
"""Steps on the first page; the others stand at the end."""
_MOST_STEPS = 7
_WORDS = ("FAIL", "WARN", "PASS")
"""Verdicts, the weakest first."""


def key_figures(reports: Reports, shown: Collection[str] = ()) -> dict[str, object]:
    """The cards (``cards.txt.j2``) of the reports that there are; those of `shown` that are missing say so."""
    found: dict[str, object] = {}
    told = _told("cards.txt.j2")
    for kind in (kind for kind in ORDER if kind in reports or kind in shown):
        report = reports.get(kind)
        kind = shown_as(kind, report)
        about = kinds()[kind]
        if not report:
            found |= dict.fromkeys(about.get("cards", ()), NotMeasured(about["missing"]))
        for line in told(kind, report) if report and "cards" in about else ():
            heading, value, note = (part.strip() for part in line.split("|", 2))
            found[heading] = (value, note) if value else NotMeasured(note)
    return found


def next_steps(reports: Reports) -> list[str]:
    """What the reports recommend (``steps.txt.j2``), the most useful first; behind an arrow stands what to type."""
    about = {"name": "NAME", **reports.get("name", {})}

    def how(key: str, **more: object) -> str:
        command = str(shipped(TEMPLATES / "steps.yaml")[key])
        return "" if command == "#records" and not about.get("records") else f" → {command.format(**about, **more)}"

    told, steps = _told("steps.txt.j2", how=how), list[str]()
    for kind in (kind for kind in ORDER if reports.get(kind)):
        steps += told(shown_as(kind, reports[kind]), reports[kind], reports)
    return [*told("measure", reports), *steps][:_MOST_STEPS]


def _told(name: str, **given: Any) -> Callable[..., list[str]]:
    """What a template says of a kind of report, a line each; nothing where it has no such macro."""
    reading = (best, headline, measured_on, points, proportion_interval, stand_in)
    said = template(name).make_module({each.__name__: each for each in reading} | given)

    def lines(kind: str, *reports: Any) -> list[str]:
        text = getattr(said, kind, lambda *_: "")(*reports)
        return [line.strip() for line in text.split("\n") if line.strip()]

    return lines


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
    name: str,
    reports: Reports,
    *,
    unit: str,
    needed: Collection[str] = (),
    samples: Sequence[Part] = (),
    counts: Mapping[str, Mapping[str, int]] = {},
    sentences: Part | None = None,
    **about: Any,
) -> Page:
    """The page: the verdict, key figures, the curve and what to do next; then what stands behind it; then the records.

    Parameters
    ----------
    reports : kind to report, with the dataset's ``manifest``.
    unit : what its records are called.
    needed : reports that the page rests on: of one that is missing it says so.
    samples : a few records, as people read them.
    counts : attribute to records of each value.
    sentences : what a trained classifier makes of a few sentences (`views.predictions`).
    about : the page's title, date, language, and further lines of its footer (`provenance`).
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
    sections.append(Section("What it holds", _content(counts, samples, unit)))
    if more:
        sections.append(Section("Further steps", [bullets(more)]))
    if records:
        sections.append(Section("Appendix: the records", records, "records"))
    cards = key_figures(reports, needed)
    if isinstance(held := cards.get("verdict"), tuple):
        cards["verdict"] = (status, held[1])
    many = {unit: sum(manifest.get("counts", {}).values())}
    many |= {_plural(of, len(values)): len(values) for of, values in [*counts.items()][:3] if values}
    return Page(
        title=about.pop("title", "") or f"Dataset report: {name}",
        subtitle=" · ".join(f"{n:,} {of}" for of, n in many.items()),
        summary=summary,
        status=status,
        figures=cards,
        lead=lead,
        sections=sections,
        provenance=_made_by(manifest) | about.pop("provenance", {}),
        **about,
    )


def _plural(name: str, n: int) -> str:
    word = name.replace("_", " ")
    if n == 1 or word.endswith("s"):
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def _content(counts: Mapping[str, Mapping[str, int]], samples: Sequence[Part], unit: str) -> list[Part]:
    few = {name: values for name, values in counts.items() if 0 < len(values) <= 6}
    parts: list[Part] = [charts.stack(few, title="What the dataset is made of", unit=unit)] if few else []
    for name, values in counts.items():
        if 6 < len(values) <= 30:
            parts.append(shares(dict(sorted(values.items(), key=lambda item: -item[1])), name, unit=unit))
    return [*parts, *(["Picked at random:", *samples] if samples else [])]


def _made_by(manifest: Report) -> dict[str, object]:
    """The footer: which records these are, who wrote them."""
    made, which = manifest.get("generation"), {"content hash": manifest.get("content_hash", "unknown")}
    if not made:
        return which | {"written by": "unknown: the dataset was not generated here"}
    by = f"provider {made.get('provider')}, model {made.get('model')}"
    return which | {"written by": by, "plan": f"{made.get('plan_hash')}, seed {made.get('seed')}"}
