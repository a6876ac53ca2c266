"""How a student learned: from ``training_info.json`` to figures and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from genesis_lab.reporting.evaluation import side_by_side
from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import Html
from genesis_lab.reporting.progress import duration
from genesis_lab.reporting.style import BLUE, GREEN, GREY, RED
from genesis_lab.reporting.tables import NotMeasured, table

Info = Mapping[str, Any]


def loss_curve(info: Info) -> go.Figure:
    """Loss of every step, and on validation after every epoch (and before the first)."""
    steps, epochs = info["steps"], info["epochs"]
    before, after = epochs[0]["validation_loss"], epochs[info["best_epoch"]]["validation_loss"]
    traces = [
        go.Scatter(
            x=[step["step"] for step in steps], y=[step["loss"] for step in steps], mode="lines", name="training",
            line={"color": GREY, "width": 2}, hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
        ),
        go.Scatter(
            x=[epoch["step"] for epoch in epochs], y=[epoch["validation_loss"] for epoch in epochs],
            mode="lines+markers", name="validation", line={"color": BLUE, "width": 2}, marker={"size": 8},
            hovertemplate="after step %{x}: %{y:.3f}<extra></extra>",
        ),
    ]  # fmt: skip
    return figure(
        traces, title=f"Loss on validation: {before:.2f} before training, {after:.2f} after",
        subtitle="per response token; unseen concepts" + _smoke(info), legend=True,
        xaxis={"title": {"text": "step"}, "rangemode": "tozero", "dtick": 1 if len(steps) < 12 else None}, yaxis={"title": {"text": "loss"}, "rangemode": "tozero"},
    )  # fmt: skip


def score_curve(info: Info) -> go.Figure | NotMeasured:
    """The task's own score, and the share of answers in the right form, after every epoch."""
    epochs = info["epochs"]
    if epochs[0]["score"] is None:
        return NotMeasured("no validation example was answered: set examine above 0")
    n = len(epochs[0]["answers"])
    traces = [
        go.Scatter(
            x=[epoch["epoch"] for epoch in epochs], y=[epoch[what] for epoch in epochs], mode="lines+markers", name=name,
            line={"color": colour, "width": 2}, marker={"size": 8}, hovertemplate="epoch %{x}: %{y:.2f}<extra></extra>",
        )
        for what, name, colour in (("score", "score of the task", BLUE), ("valid", "share in the right form", GREEN))
    ]  # fmt: skip
    best = info["best_epoch"]
    traces.append(
        go.Scatter(
            x=[best], y=[epochs[best]["score"]], mode="markers", name="kept", hoverinfo="skip",
            marker={"symbol": "circle-open", "size": 16, "color": RED, "line": {"width": 2}},
        )
    )  # fmt: skip
    return figure(
        traces, title=f"Score on {n} unseen concepts: {epochs[0]['score']:.2f} before, {epochs[best]['score']:.2f} after",
        subtitle="free answers, nothing holds them to the form" + _smoke(info), legend=True,
        xaxis={"title": {"text": "epoch"}, "dtick": 1 if len(epochs) < 12 else None},
        yaxis={"range": [-0.03, 1.05], "tickformat": ".1f"},
    )  # fmt: skip


def facts(info: Info) -> Html:
    """What is recorded of the run."""
    made, examples = info["made_with"], info["examples"]
    rate, peak = info["tokens_per_s"], info["peak_memory_bytes"]
    adapters = ", ".join(f"{n} {name}" for name, n in info.get("adapted", {}).items())
    rows = {
        "kind of run": "smoke run: " + ", ".join(f"{k} {v}" for k, v in info["limits"].items())
        if info["smoke"]
        else "full run",
        "base": f"{made['base']}, weights {made['base_hash'][:12]}",
        "data": f"{info['dataset']}, content {made['data_hash'][:12]}",
        "examples": f"{examples['train']:,} to learn, {examples['validation']:,} to check on, "
        f"{len(info['too_long']):,} too long and left out",
        "trained": f"{info['trainable_parameters']:,} of {info['parameters']:,} parameters"
        + (f", adapters on {adapters}" if adapters else ""),
        "steps": f"{len(info['steps']):,}" + (", stopped early" if info["stopped_early"] else ""),
        "kept": f"the student after epoch {info['best_epoch']}",
        "tokens": f"{info['tokens_seen']:,} seen"
        + (f", {rate:,.0f} per second; {duration(info['training_seconds'])} in steps" if rate else ""),
        "memory": f"{peak / 2**30:.1f} GiB at most" if peak else NotMeasured("this system does not say"),
        "computed": f"on {info['device']} in {info['dtype']}, attention {info['attention']}",
        "seed": str(info["seed"]),
        "versions": ", ".join(f"{name} {number}" for name, number in info["versions"].items()),
    }
    if notes := info.get("notes"):
        rows["template"] = " ".join(notes)
    return table([{"what": what, "is": value} for what, value in rows.items()], caption="The run")


def before_and_after(info: Info, *, limit: int = 2) -> Html | NotMeasured:
    """The same unseen questions answered by the base and by the student, side by side."""
    first, kept = (info["epochs"][at]["answers"][:limit] for at in (0, info["best_epoch"]))
    if not first or not kept:
        return NotMeasured("no validation example was answered: examine was 0")
    found = [
        side_by_side("", {who: (of["text"], f"{of['score']:.2f}") for who, of in (("the base", a), ("the student", b))})
        for a, b in zip(first, kept, strict=True)
    ]
    return Html("".join(each.html for each in found), "\n".join(each.text.strip() for each in found))


def _smoke(info: Info) -> str:
    return "; a smoke run, not a result" if info["smoke"] else ""
