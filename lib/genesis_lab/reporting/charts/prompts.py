"""A race of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from genesis_lab.reporting.figures import figure
from genesis_lab.reporting.markup import figure_text
from genesis_lab.reporting.style import BLUE, GREY, INK
from genesis_lab.reporting.tables import interval_text


def prompt_race(rungs: Sequence[Mapping[str, Any]], winner: str, *, title: str | None = None) -> go.Figure:
    """Score of every prompt in each round, as far as it came; the winner and the task's own prompt with intervals.

    Parameters
    ----------
    rungs : rounds in order, each with ``items`` and ``scores`` (name to ``estimate``, ``low``, ``high``).
    winner : its line is blue; ``default`` is the task's own prompt, in black.
    """
    names = list(dict.fromkeys(name for rung in rungs for name in rung["scores"]))
    names.sort(key=lambda name: (name == winner, name == "default"))  # what matters is drawn last, on top
    traces = []
    for name in names:
        run = [(i, rung["items"], rung["scores"][name]) for i, rung in enumerate(rungs) if name in rung["scores"]]
        colour = BLUE if name == winner else INK if name == "default" else GREY
        values = [score["estimate"] for _, _, score in run]
        intervals = name in (winner, "default")
        traces.append(
            go.Scatter(
                x=[i for i, _, _ in run],
                y=values,
                mode="lines+markers",
                name=figure_text(name) if intervals else "other prompts",
                legendgroup=name if intervals else "others",
                showlegend=intervals or name == next(n for n in names if n not in (winner, "default")),
                line={"color": colour, "width": 2.5 if intervals else 1, "dash": "dot" if name == "default" else "solid"},
                marker={"color": colour, "size": 8 if intervals else 6},
                error_y={
                    "type": "data", "symmetric": False, "thickness": 1.5, "width": 0,
                    "array": [score["high"] - score["estimate"] for _, _, score in run],
                    "arrayminus": [score["estimate"] - score["low"] for _, _, score in run],
                } if intervals else None,
                customdata=[f"{n} questions: {interval_text(s['estimate'], s['low'], s['high'])}" for _, n, s in run],
                hovertemplate="%{customdata}<extra>" + figure_text(name) + "</extra>",
            )
        )  # fmt: skip
    if title is None:
        last = rungs[-1]["scores"]
        gap = last[winner]["estimate"] - last["default"]["estimate"]
        ahead = (
            "the task's own prompt is not beaten"
            if winner == "default"
            else f"{figure_text(winner)} ends {gap:+.2f} ahead"
        )
        title = f"{len(names)} prompts race, {ahead}"
    return figure(
        traces, title=title, height=380, legend=True,
        xaxis={"tickvals": list(range(len(rungs))), "ticktext": [f"{rung['items']:,}" for rung in rungs],
               "title": {"text": "validation questions, the same for all"}, "range": [-0.15, len(rungs) - 0.85]},
        yaxis={"title": {"text": "score"}, "range": [-0.03, 1.03], "tickformat": ".1f"},
    )  # fmt: skip
