"""Charts are small, the same every time, and safe to open."""

import json
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest

from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.reporting import charts, figures
from genesis_lab.reporting.html import NotMeasured
from genesis_lab.reporting.views import shares

NAMES = [f"a_label_with_a_rather_long_name_{i}" for i in range(77)]


def within(value: float) -> dict[str, float]:
    return {"estimate": value, "low": value - 0.1, "high": value + 0.1, "n": 50}


SERIES = {"name": "a <b>", "values": [1.0, 2.0, None, 9.0, 2.0], "marks": [(3, 1)], "holes": [(2, 1)]}
CURVE = [(k, within(score)) for k, score in ((1, 0.5), (5, 0.7), (20, 0.8))]
needs_chrome = pytest.mark.skipif(figures.find_chrome() is None, reason="no Chrome on this machine")


def all_charts() -> dict[str, go.Figure]:
    rows = [{"name": name, "value": within(0.4)} for name in NAMES]
    aims = [{"name": v, "value": within(s), "target": s} for v, s in (("positive", 0.3), ("neutral", 0.7))]
    differences = [{"name": "a − b", "value": {"estimate": 5.0, "low": -1.0, "high": 11.0}}]
    return {
        "many dots": charts.dots(rows, title="Recall", axis="recall"),
        "targets": charts.dots(aims, title="As planned", axis="share", spec=".1%"),
        "differences": charts.dots(differences, title="Can't be told", axis="points", span=None, band=3),
        "lines": charts.lines(
            {"s": CURVE},
            title="Worth 9.4",
            x="k",
            y="accuracy",
            log=True,
            marks={"here": (within(9.4), within(0.75))},
            levels={"names alone": 0.6},
        ),
        "bars": charts.bars(dict.fromkeys(NAMES, 20), title="77 labels", axis="conversations"),
        "bars side by side": charts.bars({"x": {"en": 0.5}, "y": {"en": 0.4}}, title="Share", axis="share", spec=".0%"),
        "stack": charts.stack({"language": {"en": 5, "es": 5}}, title="Made of", unit="records"),
        "panels": charts.panels([SERIES] * 4, title="Series", subtitle="a week"),
    }


@pytest.mark.parametrize("name", list(all_charts()))
def test_a_chart_is_small_plain_json_and_the_same_twice(name: str) -> None:
    first, again = (json.dumps(figures.lean(all_charts()[name])) for _ in range(2))
    assert first == again
    assert len(first) < figures.MAX_BYTES
    assert "bdata" not in first
    assert figures.summary(all_charts()[name]).startswith("[chart] ")


def test_panels_mark_what_is_labelled_and_shade_holes_each_in_its_own_axes() -> None:
    fig = charts.panels([SERIES, SERIES], title="Two")
    assert (
        [trace.xaxis for trace in fig.data] == ["x", "x", "x2", "x2"]
        and list(fig.data[1].y) == [9.0]
        and fig.data[1].x0 == 3
    )
    assert [(shape.xref, shape.x0, shape.x1) for shape in fig.layout.shapes] == [("x", 1.5, 2.5), ("x2", 1.5, 2.5)]
    assert fig.layout.annotations[0].text == "a &lt;b&gt;"


def test_what_was_not_measured_is_named_and_not_drawn_as_zero() -> None:
    rows = [{"name": "completeness", "value": 1.0}, {"name": "judge", "value": None}]
    fig = charts.dots(rows, title="Quality", axis="score")
    assert "not measured: judge" in fig.layout.title.subtitle.text
    assert [list(trace.x) for trace in fig.data] == [[1.0]]


def test_labels_and_titles_from_data_are_not_read_as_markup() -> None:
    evil = '<a href="https://evil.example">click</a>'
    interval = within(0.5)
    drawn = [
        charts.bars({evil: 3, "b": 1}, title=evil, axis=evil, subtitle=evil),
        charts.dots([{"name": evil, "value": interval, "of": evil}], title=evil, axis=evil),
        charts.lines({evil: CURVE}, title=evil, x=evil, y=evil, levels={evil: 0.5}, marks={evil: (1, interval)}),
        charts.stack({evil: {evil: 1}}, title=evil, unit=evil),
    ]
    assert not [fig for fig in drawn if "<a href" in json.dumps(figures.lean(fig))]


@pytest.mark.parametrize("empty", [{}, {"en": 0}])
def test_an_empty_dataset_still_has_a_chart(empty: dict[str, int]) -> None:
    drawn = [shares(empty, "language", unit="records"), charts.stack({"language": empty}, title="t", unit="records")]
    assert not any(value for fig in drawn for trace in fig.data for value in trace.x or ())
    assert figures.summary(drawn[0]) == "[chart] Language: no data (n = 0)"


def test_numpy_arrays_and_nan_become_plain_lists() -> None:
    fig = figures.figure([go.Scatter(x=np.arange(3), y=np.array([0.123456789, np.nan, 1.0]))], title="t")
    trace = figures.lean(fig)["data"][0]
    assert trace["x"] == [0, 1, 2] and trace["y"] == [0.12346, None, 1]


@needs_chrome
def test_a_picture_is_the_same_bytes_twice() -> None:
    fig = all_charts()["lines"]
    assert figures.image(fig, "svg") == figures.image(fig, "svg")
    png = figures.image(fig)
    assert png == figures.image(fig) and png.startswith(b"\x89PNG") and len(png) < figures.MAX_BYTES


def test_without_chrome_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "find_chrome", lambda: None)
    with pytest.raises(MissingDependency, match="needs Chrome or Chromium, which is not installed: install chromium"):
        figures.image(all_charts()["targets"])


def test_a_chrome_that_does_not_start_is_named_and_a_notebook_goes_on_without_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = []
    monkeypatch.setattr(figures, "find_chrome", lambda: Path("/bin/false"))
    monkeypatch.setattr(figures, "display", lambda data, **_: shown.append(data))
    figures._can_draw.cache_clear()
    with pytest.raises(Unavailable, match="false did not draw a figure"):
        figures.image(all_charts()["targets"])
    figures.show(all_charts()["targets"])
    figures._can_draw.cache_clear()
    assert "image/png" not in shown[0]
    assert shown[0]["text/plain"] == "[chart] As planned"


def test_what_stands_in_for_a_chart_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    figures.show(NotMeasured("no reference"))
    assert capsys.readouterr().out == "not measured: no reference\n"


def test_a_figure_shown_again_takes_the_place_of_the_one_of_its_name(monkeypatch):
    """JupyterLab's plotly keeps a graph that it has, so something else takes its place in between."""
    said = []
    monkeypatch.setattr(figures, "display", lambda data, **options: said.append((sorted(data), options)))
    fig = charts.panels([{"name": "load", "values": [1.0, 2.0]}], title="One")
    figures.show(fig, picture=False, name="drafts")
    figures.show(fig, name="drafts", again=True)
    plotly, place = ["application/vnd.plotly.v1+json", "text/plain"], {"raw": True, "display_id": "drafts"}
    again = place | {"update": True}
    assert said == [(plotly, place | {"update": False}), (["text/plain"], again), (plotly, again)]
