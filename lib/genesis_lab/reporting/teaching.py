"""Teacher data in figures and tables, from a report as `validation.teaching.teaching_report` gives it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting import charts
from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import Html, escape, plain
from genesis_lab.reporting.style import BLUE, MUTED
from genesis_lab.reporting.tables import table

Report: TypeAlias = Mapping[str, Any]

BESIDE = ("content", "on_topic")
"""Parts that are reported beside the score."""


def dialogue(examples: Sequence[tuple[str, str]]) -> Html:
    """Questions and answers side by side, spaces and line breaks as they are."""
    style = "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;margin:0;font:12px/1.45 ui-monospace,Menlo,Consolas,monospace"
    rows = "".join(
        f'<tr><td style="width:38%"><pre style="{style}">{escape(question)}</pre></td>'
        f'<td><pre style="{style}">{escape(answer)}</pre></td></tr>'
        for question, answer in examples
    )
    text = "\n\n".join(f"{plain(question)}\n->\n{plain(answer)}" for question, answer in examples)
    return Html(f"<table><tr><th>the student is asked</th><th>the teacher answers</th></tr>{rows}</table>", text)


def threshold_curve(report: Report) -> go.Figure:
    """Share of the answers that each minimum score would have accepted, and the one that was chosen."""
    rows, chosen = report["thresholds"], report["min_score"]
    answers = rows[0]["answers"]
    shares = [row["accepted"] / max(answers, 1) for row in rows]
    line = go.Scatter(
        x=[row["min_score"] for row in rows],
        y=shares,
        mode="lines+markers",
        line={"color": BLUE, "shape": "hv"},
        customdata=[row["accepted"] for row in rows],
        hovertemplate=f"min_score %{{x:.2f}}: %{{customdata:,}} of {answers:,} accepted<extra></extra>",
    )
    best = next((row["accepted"] for row in reversed(rows)), 0)
    title = f"{best:,} of {answers:,} answers reach the full score"
    shapes, notes = [], []
    if chosen is not None:
        shapes = [
            {"type": "line", "x0": chosen, "x1": chosen, "y0": 0, "y1": 1.05, "line": {"color": MUTED, "dash": "dot"}}
        ]
        notes = [
            {
                "x": chosen,
                "y": 0.06,
                "text": f"min_score {chosen:g}",
                "showarrow": False,
                "xanchor": "left",
                "xshift": 5,
            }
        ]
    return figure(
        [line], title=title, height=280, shapes=shapes, annotations=notes,
        xaxis={"title": {"text": "minimum score"}, "range": [0.48, 1.02]},
        yaxis={"title": {"text": "answers accepted"}, "range": [0, 1.08], "tickformat": ".0%"},
    )  # fmt: skip


def score_parts(report: Report) -> go.Figure:
    """The mean of each part of the score, and of what is reported beside it."""
    parts = report["scores"]["parts"]
    names = {name: f"{name} (beside the score)" if name in BESIDE else name for name in parts}
    frame = pd.DataFrame([{"part": names[name].replace("_", " "), "score": mean} for name, mean in parts.items()])
    mean = report["scores"]["mean"]
    title = (
        "Nothing measured"
        if mean is None
        else f"Mean score {mean:.2f}, {report['scores']['valid']:.0%} meet the schema"
    )
    return charts.score_list(frame, label="part", axis="mean over the examples", title=title)


def splits(report: Report) -> Html:
    """Who is in which split."""
    return table(report["splits"], caption="Splits (no concept group is in two of them)")


def audit_issues(audit: Report, *, limit: int = 15) -> Html:
    """What an audit found: each kind with how often, an example, and who can repair it."""
    if not audit["kinds"]:
        said = f"{audit['records']:,} records, no issue."
        return Html(f"<p>{said}</p>", said)
    first: dict[str, Report] = {}
    mechanical: Counter[str] = Counter()
    for issue in audit["issues"]:
        first.setdefault(issue["kind"], issue)
        mechanical[issue["kind"]] += issue["mechanical"]
    rows = [
        {
            "kind": kind.replace("_", " "),
            "issues": n,
            "repaired by": "fix" if mechanical[kind] == n else "a person" if not mechanical[kind] else "fix, in part",
            "for example": f"row {first[kind]['row']}: {first[kind]['message']}" if kind in first else "",
        }
        for kind, n in audit["kinds"].items()
    ]
    return table(
        rows, caption=f"{audit['records_with_issues']:,} of {audit['records']:,} records have issues", limit=limit
    )
