"""Models held against each other: the reports of a benchmark and of an evaluation as figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import pandas as pd
import plotly.graph_objects as go

from genesis_lab.reporting import charts
from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import Html, escape, figure_text, plain
from genesis_lab.reporting.style import BLUE, GREEN, GREY, LINE, MUTED, RED
from genesis_lab.reporting.tables import NotMeasured, interval_text, table

Report: TypeAlias = Mapping[str, Any]


def scores(report: Report) -> go.Figure:
    """Each candidate's mean score with its interval; the teacher's own answers where the report has them."""
    rows = [{"candidate": c["name"], **_ends(c["score"])} for c in report["cards"]]
    if teacher := report.get("teacher"):
        rows.append({"candidate": "the teacher's answers", **_ends(teacher)})
    n = report["cards"][0]["score"]["n"]
    return charts.score_list(
        pd.DataFrame(rows), label="candidate", axis=f"role score (95 % interval over {n} groups of concepts)",
        title=figure_text(report["verdict"], 300),
    )  # fmt: skip


def forest(report: Report) -> go.Figure:
    """The paired differences with their intervals, against nothing (0) and against what matters (± margin)."""
    pairs, margin = report["pairs"], 100 * report["margin"]
    colours = {"better": GREEN, "better but small": GREEN, "worse": RED, "equivalent": BLUE}
    names = [f"{figure_text(p['a'])} − {figure_text(p['b'])}" for p in pairs]
    ends = [{name: 100 * value for name, value in _ends(p["difference"]).items()} for p in pairs]
    dots = go.Scatter(
        y=names,
        x=[e["score"] for e in ends],
        mode="markers",
        marker={"size": 10, "color": [colours.get(p["verdict"], MUTED) for p in pairs]},
        error_x={
            "type": "data", "symmetric": False, "thickness": 2, "width": 5, "color": GREY,
            "array": [e["high"] - e["score"] for e in ends], "arrayminus": [e["score"] - e["low"] for e in ends],
        },
        customdata=[f"{_points(p['difference'])}: {figure_text(p['verdict'])}" for p in pairs],
        hovertemplate="%{y}: %{customdata}<extra></extra>",
    )  # fmt: skip
    reach = max([margin, *(abs(e[side]) for e in ends for side in ("low", "high"))]) * 1.08
    band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": -margin, "x1": margin, "layer": "below"}
    zero = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": 0, "x1": 0, "line": {"color": MUTED}}
    return figure(
        [dots], title=figure_text(report["verdict"], 300), height=130 + 30 * len(pairs),
        subtitle=f"difference in points with 95 % interval; within the grey band (± {margin:g}) it would not matter",
        shapes=[band | {"fillcolor": LINE, "opacity": 0.5, "line": {"width": 0}}, zero],
        xaxis={"range": [-reach, reach], "title": {"text": "points of role score"}, "ticksuffix": " "},
        yaxis={"type": "category", "autorange": "reversed", "ticksuffix": " ", "dtick": 1},
    )  # fmt: skip


def verdicts(report: Report) -> Html:
    """Every pair: how large, how sure, and the verdict."""
    rows = [
        {
            "compared": f"{p['a']} − {p['b']}",
            "points": _points(p["difference"]),
            "p (Holm)": f"{p['p_holm']:.2g}",
            "win/tie/loss": f"{p['wins']}/{p['ties']}/{p['losses']}",
            "verdict": p["verdict"],
        }
        for p in report["pairs"]
    ]
    what = f"{report['concepts']} concepts in {report['groups']} groups, {report['sampling']['runs']} runs averaged"
    return table(rows, caption=f"Paired differences ({what})")


def cards(report: Report, *, models: bool = True) -> Html:
    """Each candidate: its model, score, validity, spread from run to run, answers that came to nothing."""
    gap = report.get("teacher", {}).get("estimate")
    rows = [
        {
            "candidate": c["name"],
            **({"model": c["model"]} if models else {}),
            "score": _interval(c["score"]),
            "valid": _interval(c["validity"]),
            **({} if gap is None else {"to the teacher": f"{c['score']['estimate'] - gap:+.2f}"}),
            "run SD": NotMeasured("one run") if c["run_sd"] is None else f"{c['run_sd']:.2f}",
            "cut off": f"{c['cut_off']:.0%}",
            "no answer": c["unanswered"],
        }
        for c in report["cards"]
    ]
    return table(rows, caption="What each achieved")


def costs(report: Report) -> Html:
    """Each candidate: speed, memory, price."""
    elsewhere = NotMeasured("runs elsewhere")
    rows = [
        {
            "candidate": c["name"],
            "tokens/s": f"{c['tokens_per_s']:,.0f}" if c["tokens_per_s"] else NotMeasured("it counts none"),
            "tokens an answer": NotMeasured("not counted") if c["tokens"] is None else f"{c['tokens']:,.0f}",
            "s an answer": None if c["seconds_per_answer"] is None else f"{c['seconds_per_answer']:.2f}",
            "latency s": None if c["latency_s"] is None else f"{c['latency_s']:.1f}",
            "load s": elsewhere if c["load_s"] is None else f"{c['load_s']:.1f}",
            "memory MiB": elsewhere if c["memory_bytes"] is None else f"{c['memory_bytes'] / 2**20:,.0f}",
            "$ per 1,000": NotMeasured("price unknown") if c["cost_usd"] is None else f"{c['cost_usd']:,.2f}",
        }
        for c in report["cards"]
        if not c["yardstick"]
    ]
    return table(rows, caption="What an answer takes (many in flight at once; latency is what one of them waits)")


def parts(report: Report) -> Html:
    """The parts of the score, and what is reported beside it, of every candidate."""
    names = dict.fromkeys(name for c in report["cards"] for name in c["parts"])
    rows = [
        {"part": name.replace("_", " "), **{c["name"]: _share(c["parts"].get(name)) for c in report["cards"]}}
        for name in names
    ]
    return table(rows, caption="Mean of each part (1 is best)")


def worst(report: Report, *, limit: int = 2) -> Html:
    """The questions that were answered worst, everyone's answer side by side."""
    shown = []
    for item in report["worst"][:limit]:
        answers = {
            name: (a["text"], f"{a['score']:.2f}. {'; '.join(a['problems'])}") for name, a in item["answers"].items()
        }
        shown.append(side_by_side(item["question"], {"the teacher": (item["teacher"], "")} | answers))
    return Html("".join(each.html for each in shown), "\n".join(each.text for each in shown))


def side_by_side(question: str, answers: Mapping[str, tuple[str, str]]) -> Html:
    """One question: who answered, with the text as it is and a note above it."""
    style = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0;font:11px/1.4 ui-monospace,Menlo,Consolas,monospace"
    heads = "".join(f"<th>{escape(name)}</th>" for name in answers)
    said = "".join(
        f'<td style="overflow-wrap:anywhere;vertical-align:top">{escape(note)}<pre style="{style}">{escape(_short(text))}</pre></td>'
        for text, note in answers.values()
    )
    return Html(
        f'<p>{escape(question)}</p><table style="table-layout:fixed;width:100%"><tr>{heads}</tr><tr>{said}</tr></table>',
        "\n".join([plain(question), *(f"- {name}: {note}" for name, (_, note) in answers.items())]),
    )


def _short(text: str, characters: int = 900) -> str:
    return text if len(text) <= characters else f"{text[:characters]} …"


def quality_and_speed(report: Report) -> go.Figure:
    """Score against time per answer, with the threshold that was set beforehand."""
    timed = [c for c in report["cards"] if c["seconds_per_answer"]]
    dots = go.Scatter(
        x=[c["seconds_per_answer"] for c in timed],
        y=[c["score"]["estimate"] for c in timed],
        mode="markers+text",
        text=[figure_text(c["name"]) for c in timed],
        textposition="middle right",
        marker={"size": 11, "color": [GREEN if c["name"] == report["picked"] else BLUE for c in timed]},
        hovertemplate="%{text}: %{y:.2f} at %{x:.2f} s<extra></extra>",
    )
    bar = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": report["threshold"], "y1": report["threshold"]}
    most = max((c["seconds_per_answer"] for c in timed), default=1.0)
    return figure(
        [dots], title=figure_text(report["verdict"], 300), shapes=[bar | {"line": {"color": MUTED, "dash": "dot"}}],
        subtitle=f"dotted: {report['threshold']:.2f}, what was asked for",
        xaxis={"title": {"text": "seconds an answer"}, "range": [0, 1.45 * most]},
        yaxis={"title": {"text": "role score"}, "range": [-0.03, 1.03]},
    )  # fmt: skip


def _share(value: float | None) -> object:
    return NotMeasured("no answer has it") if value is None else f"{value:.2f}"


def _ends(value: Report) -> dict[str, float]:
    return {"score": value["estimate"], "low": value["low"], "high": value["high"]}


def _interval(value: Report) -> str:
    return interval_text(value["estimate"], max(value["low"], 0.0), min(value["high"], 1.0))


def _points(value: Report) -> str:
    return f"{100 * value['estimate']:+.1f} [{100 * value['low']:+.1f} to {100 * value['high']:+.1f}]"
