"""The HTML file of the record browser as a person uses it: in Chromium, by keyboard and mouse."""

from __future__ import annotations

import json
from pathlib import Path

from chromium import opened
from genesis_lab.reporting.browser import browser_of
from genesis_lab.reporting.views import view
from records import conversation, write

COUNT, ROWS = "document.querySelector('.glb-count').textContent", "document.querySelectorAll('.glb-row').length"
VIEW, ID = "document.querySelector('.glb-view').textContent", "document.querySelector('.glb-id')?.textContent"


def test_records_are_found_opened_and_decided_on(tmp_path: Path) -> None:
    nasty = conversation(12)
    nasty["turns"][0]["text"] = "<img src=x onerror=\"document.title='taken'\"> </script>"
    data = write(tmp_path / "data", [*(conversation(i) for i in range(12)), nasty])
    page = browser_of(data).write(tmp_path / "page.html")
    with opened(page, tmp_path / "profile") as tab:
        tab.until(f"document.querySelector('.glb') && {COUNT}", "13 of 13 conversations")
        tab.press("jj")
        tab.until(ID, "conv_00000002 · 3 of 13")
        tab.press("k")
        tab.until(ID, "conv_00000001 · 2 of 13")
        tab.press("d")
        tab.until("document.querySelector('.glb-mark')?.textContent", "drop")
        tab.until(ID, "conv_00000002 · 3 of 13")  # after a decision comes the next
        tab.press("/TARJETA 3")
        tab.until(COUNT, "1 of 13 conversations")
        tab.until(f"{VIEW}.includes('¿Dónde está mi tarjeta número 3?')", True)
        tab.js("document.querySelector('.glb-clear').click()")
        tab.until(COUNT, "13 of 13 conversations")
        tab.js("document.querySelector('[data-glb=\"f0card_arrival\"], .glb-values input[type=checkbox]').click()")
        tab.until(f"{ROWS} < 13", True)
        tab.js("document.querySelector('.glb-clear').click()")
        tab.until(ROWS, 13)
        tab.js("[...document.querySelectorAll('.glb-row')].at(-1).click()")
        tab.until(f"{VIEW}.includes('onerror')", True)
        assert tab.js("document.title") != "taken" and tab.js("document.querySelectorAll('.glb-view img').length") == 0
        assert tab.js("JSON.parse(Object.values(localStorage)[0]).map(({record, action}) => record + action)") == [
            "conv_00000001drop"
        ]


def test_a_click_on_a_chart_opens_what_it_counted_in_the_next_browser_that_can(tmp_path: Path) -> None:
    fit = {"attribute": "language", "severity": "high", "n": 12, "target": {"en": 0.9, "es": 0.1}, "intervals": {}}
    (chart,) = view("bias", "targets", {"fits": [fit | {"observed": {"en": 6, "es": 6}}]})
    data = write(tmp_path / "data", [conversation(i) for i in range(12)])
    records = data.frame()["language"].value_counts().to_dict()
    page = browser_of(data).write(tmp_path / "page.html")
    clicked = """(meta) => {
        document.querySelectorAll("body > .glb").forEach((one) => one.remove());
        const [before, chart] = [document.createElement("div"), document.createElement("div")];
        Object.assign(before, { className: "glb", opens: () => true });
        Object.assign(chart, { className: "js-plotly-plot", layout: { meta } });
        chart.on = (_, heard) => { chart.heard = heard; };
        document.body.prepend(before, chart);
        chart.dispatchEvent(new Event("pointerover", { bubbles: true }));
        chart.heard({ points: [{ y: "es", data: { name: "" } }] });
    }"""
    with opened(page, tmp_path / "profile") as tab:
        tab.until(f"document.querySelector('.glb') && {COUNT}", "12 of 12 conversations")
        tab.js(f"({clicked})({json.dumps({'where': {'no such filter': ['{y}']}})})")
        tab.js(f"({clicked})({json.dumps(chart.layout.meta)})")
        tab.until(COUNT, f"{records['es']} of 12 conversations")
        tab.js(f"({clicked})({json.dumps({'where': {'no such filter': ['{y}']}})})")
        assert tab.js(COUNT) == f"{records['es']} of 12 conversations", "what it can't filter by changes nothing"
