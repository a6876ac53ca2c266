"""Charts are small, the same every time, and safe to open."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.reporting import charts, figures
from genesis_lab.reporting.tables import NotMeasured

INTENTS = [f"an_intent_with_a_rather_long_name_{i}" for i in range(77)]
CURVE = pd.DataFrame({"k": [1, 5, 20], "score": [0.5, 0.7, 0.8], "low": [0.4, 0.6, 0.7], "high": [0.6, 0.8, 0.9]})
SHARES = {"positive": 0.3, "neutral": 0.5, "negative": 0.2}
needs_chrome = pytest.mark.skipif(figures.find_chrome() is None, reason="no Chrome on this machine")


def all_charts() -> dict[str, go.Figure]:
    matrix = pd.DataFrame(np.eye(77) * 30 + 1, INTENTS, INTENTS)
    long = pd.DataFrame(
        {"metric": ["a", "a"], "dataset": ["x", "y"], "value": [0.4, 0.9], "low": 0.3, "high": [0.5, 1]}
    )
    return {
        "intents": charts.intent_distribution(
            pd.DataFrame({"en": 5, "es": 5}, index=INTENTS), dict.fromkeys(INTENTS, "c")
        ),
        "distribution": charts.distribution({"positive": 30, "neutral": 50, "negative": 20}, "sentiment"),
        "composition": charts.composition({"language": {"en": 5, "es": 5}}),
        "target": charts.target_vs_observed(SHARES, SHARES, "sentiment", intervals={"positive": (0.2, 0.4)}),
        "association": charts.association_heatmap(matrix.iloc[:5, :5] / 40),
        "radar": charts.quality_radar({"a": {"p": 0.4, "q": 0.5, "r": None}, "b": {"p": 0.4, "q": 0.9, "r": 1.0}}),
        "scores": charts.score_list(pd.DataFrame({"intent": INTENTS, "score": 0.4}), label="intent"),
        "confusion": charts.confusion_heatmap(matrix),
        "calibration": charts.calibration(pd.DataFrame({"confidence": [0.5], "accuracy": [0.4], "n": [9]})),
        "k-shot": charts.k_shot_curve(
            {"s": CURVE}, {"s": charts.Mark(0.75, 0.7, 0.8, 9.4, 8.1, 10.9)}, floors={"s": 0.6}
        ),
        "learning": charts.learning_curve({"s": CURVE.rename(columns={"k": "n"})}),
        "scores side by side": charts.compare_scores(long),
        "shares side by side": charts.compare_distributions({"x": SHARES, "y": SHARES}, "sentiment"),
    }


@pytest.mark.parametrize("name", list(all_charts()))
def test_a_chart_is_small_plain_json_and_the_same_twice(name: str) -> None:
    first, again = (json.dumps(figures.lean(all_charts()[name])) for _ in range(2))
    assert first == again
    assert len(first) < figures.MAX_BYTES
    assert "bdata" not in first
    assert figures.summary(all_charts()[name]).startswith("[chart] ")


def test_a_title_says_what_is_seen() -> None:
    found = all_charts()
    assert "Worth 9.4 [8.1–10.9] real labelled examples per intent" in figures.summary(found["k-shot"])
    assert figures.summary(found["target"]) == "[chart] Sentiment meets its target"


def test_what_was_not_measured_is_named_and_not_drawn_as_zero() -> None:
    fig = charts.quality_radar({"completeness": 1.0, "judge": None})
    assert "not measured: judge" in fig.layout.title.subtitle.text
    assert not any("judge" in axis for trace in fig.data for axis in trace.theta)


def test_labels_from_data_are_not_read_as_markup() -> None:
    evil = '<a href="https://evil.example">click</a>'
    drawn = json.dumps(figures.lean(charts.distribution({evil: 3, "b": 1}, evil)))
    assert "<a href" not in drawn


@pytest.mark.parametrize("empty", [{}, {"en": 0}])
def test_an_empty_dataset_still_has_a_chart(empty: dict[str, int]) -> None:
    drawn = [charts.distribution(empty, "language"), charts.composition({"language": empty})]
    assert not any(value for fig in drawn for trace in fig.data for value in trace.x or ())
    said = figures.summary(drawn[0])
    assert said == ("[chart] Language: most often en (–)" if empty else "[chart] Language: no data")
    assert (
        figures.summary(charts.intent_distribution(empty)) == f"[chart] {len(empty)} intents with 0 conversations each"
    )


def test_numpy_arrays_and_nan_become_plain_lists() -> None:
    fig = figures.figure([go.Scatter(x=np.arange(3), y=np.array([0.123456789, np.nan, 1.0]))], title="t")
    trace = figures.lean(fig)["data"][0]
    assert trace["x"] == [0, 1, 2] and trace["y"] == [0.12346, None, 1]


@needs_chrome
def test_a_picture_is_the_same_bytes_twice() -> None:
    fig = all_charts()["k-shot"]
    assert figures.image(fig, "svg") == figures.image(fig, "svg")
    png = figures.image(fig)
    assert png == figures.image(fig) and png.startswith(b"\x89PNG") and len(png) < figures.MAX_BYTES


def test_without_chrome_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_chrome", lambda: None)
    with pytest.raises(MissingDependency, match="needs Chrome or Chromium, which is not installed: install chromium"):
        figures.image(all_charts()["target"])


def test_a_chrome_that_does_not_start_is_named_and_a_notebook_goes_on_without_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    monkeypatch.setattr(figures, "find_chrome", lambda: Path("/bin/false"))
    monkeypatch.setattr(figures, "display", lambda data, **_: shown.append(data))
    figures._can_draw.cache_clear()
    with pytest.raises(Unavailable, match="false did not draw a figure"):
        figures.image(all_charts()["target"])
    figures.show(all_charts()["target"])
    figures._can_draw.cache_clear()
    assert "image/png" not in shown[0]
    assert shown[0]["text/plain"] == "[chart] Sentiment meets its target"


def test_what_stands_in_for_a_chart_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show(NotMeasured("no reference"))
    assert capsys.readouterr().out == "not measured: no reference\n"


def test_a_heat_map_of_many_classes_shows_the_pair_that_its_title_names() -> None:
    names = [f"intent_{i:02d}" for i in range(40)]
    matrix = pd.DataFrame(0, index=names, columns=names)
    for i, name in enumerate(names):
        matrix.loc[name, names[(i + 1) % 40]] = matrix.loc[name, names[(i + 2) % 40]] = 1
    matrix.loc["intent_30", "intent_39"] = 3
    heat = charts.confusion_heatmap(matrix, limit=10)
    assert "intent_30 taken for intent_39" in heat.layout.title.text
    assert {"intent_30", "intent_39"} <= set(heat.data[0].x)
