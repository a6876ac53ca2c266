"""One page about teacher examples and the students they taught: for people who won't open a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genesis_lab.reporting import charts, sections, students
from genesis_lab.reporting import teaching as shown
from genesis_lab.reporting.dataset_report import (
    LANGUAGES,
    Reports,
    Rows,
    balanced,
    bullets,
    cost,
    imbalance,
    made_by,
)
from genesis_lab.reporting.markup import plain
from genesis_lab.reporting.pages import Report, Section
from genesis_lab.reporting.tables import NotMeasured, table

ENOUGH = 50
"""Groups of concepts held out for the test from which an examination can come to a verdict."""
_TASKS = {
    "requirements": "how a business analyst turns a product concept into requirements",
    "vision": "how a product owner turns requirements into a vision and reviews it",
}


def role_report(
    name: str,
    manifest: Mapping[str, Any],
    reports: Reports,
    *,
    samples: Sequence[tuple[str, str]] = (),
    title: str = "",
    provenance: Mapping[str, object] | None = None,
) -> Report:
    """The page: key figures, a summary in plain words, what to do next, then what stands behind it.

    Parameters
    ----------
    manifest : the dataset's.
    reports : kind to ``to_dict``: ``teaching``, and where there are some ``bias`` and those of `students.student_sections`.
    samples : questions with the teacher's answers, to show.
    provenance : further lines of the footer: versions, command, date.
    """
    teaching = reports["teaching"]
    steps = next_steps(name, manifest, reports)
    return Report(
        title=title or f"Teacher examples: {name}",
        subtitle=f"{teaching['records']:,} examples of the role {teaching['domain']} · {' and '.join(_languages(teaching))}",
        summary=summary(name, manifest, reports),
        figures=key_figures(manifest, reports),
        sections=(
            Section("What to do next", [bullets(steps) if steps else "Nothing stands out: the data can be used as it is."]),
            *students.student_sections(reports),
            Section("What was asked and kept", _kept(teaching, manifest)),
            Section("Audit", ["Every fault with its place, within an example and between examples.", shown.audit_issues(teaching["audit"])]),
            Section("Balance", _balance(reports.get("bias"))),
            Section("What it holds", _content(teaching, samples)),
        ),
        provenance=made_by(manifest) | dict(provenance or {}),
    )  # fmt: skip


def key_figures(manifest: Mapping[str, Any], reports: Reports) -> dict[str, object]:
    """The cards: size, origin, what was kept and how good it is, what a student gained from it."""
    teaching = reports["teaching"]
    records, scores, issues = teaching["records"], teaching["scores"], sum(teaching["audit"]["kinds"].values())
    attempts = manifest.get("attempts")
    return {
        "examples": (records, ", ".join(f"{n:,} {split}" for split, n in manifest["counts"].items())),
        "concept groups": (sum(_groups(teaching).values()), "of like products, kept together"),
        "languages": (
            len(_languages(teaching)),
            ", ".join(f"{name} {n:,}" for name, n in _languages(teaching).items()),
        ),
        "teachers": (len(teaching["teachers"]), ", ".join(f"{who} {n:,}" for who, n in teaching["teachers"].items())),
        "gain": students.card(reports.get("evaluation")),
        "accepted": (f"{records / attempts:.0%}", f"of {attempts:,} answers")
        if attempts
        else NotMeasured("not generated here"),
        "mean score": NotMeasured("no examples")
        if scores["mean"] is None
        else (f"{scores['mean']:.2f}", f"of 1; {scores['valid']:.0%} meet the schema"),
        "audit": (issues, f"issues, in {teaching['audit']['records_with_issues']:,} examples"),
        "imbalance": imbalance(reports.get("bias")),
        "cost": cost(manifest),
    }


def summary(name: str, manifest: Mapping[str, Any], reports: Reports) -> str:
    """What a reader in a hurry takes away, in whole sentences."""
    teaching = reports["teaching"]
    scores, audit = teaching["scores"], teaching["audit"]
    task = _TASKS.get(teaching["domain"], f"the role {teaching['domain']}")
    says = [f"The dataset {name} holds {teaching['records']:,} examples of {task}, written by {_writers(teaching)}."]
    if attempts := manifest.get("attempts"):
        says.append(f"{teaching['records']:,} of {attempts:,} answers were good enough to keep.")
    if scores["mean"] is not None:
        says.append(f"They score {scores['mean']:.2f} of 1 on average, and {scores['valid']:.0%} meet the schema.")
    found = f"{sum(audit['kinds'].values()):,} issues in {audit['records_with_issues']:,} examples"
    says += [f"The audit finds {found if audit['kinds'] else 'no issue'}.", *balanced(reports.get("bias"))]
    says.append(students.sentence(reports.get("evaluation")))
    return " ".join(says)


def next_steps(name: str, manifest: Mapping[str, Any], reports: Reports) -> list[str]:
    """What the reports recommend, the most useful first."""
    teaching = reports["teaching"]
    steps = students.next_steps(name, reports)
    if (held := _groups(teaching).get("test", 0)) < ENOUGH:
        steps.append(
            f"Hold out more: with {held} groups of concepts in the split test, and under {ENOUGH}, verdicts are weak or impossible."
        )
    if audit := teaching["audit"]["kinds"]:
        mechanical, people = (f"{teaching['audit'][who]:,}" for who in ("mechanical", "for_a_person"))
        steps.append(
            f"Run genesis audit {name} --fix NEW: of {sum(audit.values()):,} issues it repairs {mechanical}; {people} need a person."
        )
    if missing := manifest.get("missing"):
        steps.append(
            f"Go on generating: {missing:,} planned examples are missing (notebook 12 with the same parameters)."
        )
    if _from_grammar(teaching):
        steps.append(
            "Let a language model write as well (notebook 12, teachers): the grammar teaches form, but repeats its sentence patterns."
        )
    for finding in (reports.get("bias") or {"findings": ()})["findings"]:
        if finding["severity"] != "none" and finding["recommendation"]:
            steps.append(f"Balance {finding['name']} ({finding['severity']}): {finding['recommendation']}")
    return steps


def _kept(teaching: Mapping[str, Any], manifest: Mapping[str, Any]) -> Rows:
    rows: Rows = (
        "Every answer of a teacher is scored by the rules of the role, from 0 to 1; one below min_score is asked for again "
        "or left out. The curve says how many answers each bar would have kept, those that were turned away included.",
        shown.threshold_curve(teaching),
    )
    if dropped := manifest.get("drop_reasons"):
        rows = (*rows, table([{"left out because": plain(why), "times": n} for why, n in dropped.items()]))
    return (
        *rows,
        "The score counts form: fields, lengths, ids, priorities, of a vision also how it deals with the requirements. Content "
        "(the share of the concept's own words that the answer takes up) and on topic (the share of items with at least one "
        "of them) stand beside it.",
        shown.score_parts(teaching),
    )


def _balance(report: Mapping[str, Any] | None) -> Rows:
    if report is None:
        return (NotMeasured("no bias report"),)
    return (
        "Every attribute of the concepts is held against its plan. The effect size w is 0 where they agree and small up to "
        "0.1; p says how often luck alone would show such a difference, corrected for the number of checks.",
        sections.bias_findings(report, limit=6),
        sections.bias_fits(report),
    )


def _content(teaching: Mapping[str, Any], samples: Sequence[tuple[str, str]]) -> Rows:
    splits = {row["split"]: row["examples"] for row in teaching["splits"]}
    mix = {"language": _languages(teaching), "split": splits}
    rows: Rows = (
        "A student learns from train, is chosen on validation and examined on test. Like products form a group that belongs "
        "in one split only, so that nobody is examined on what was taught; the audit names those that do not.",
        charts.composition(mix, unit="examples"),
        shown.splits(teaching),
    )
    return (*rows, "Examples picked at random:", shown.dialogue(samples)) if samples else rows


def _groups(teaching: Mapping[str, Any]) -> dict[str, int]:
    return {row["split"]: row["concept groups"] for row in teaching["splits"]}


def _languages(teaching: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: n
        for code, name in LANGUAGES.items()
        if (n := sum(row.get(code, 0) for row in teaching["splits"]))
    }  # fmt: skip


def _from_grammar(teaching: Mapping[str, Any]) -> bool:
    return all(who.startswith("offline") for who in teaching["teachers"])


def _writers(teaching: Mapping[str, Any]) -> str:
    return "a grammar, without a language model" if _from_grammar(teaching) else " and ".join(teaching["teachers"])
