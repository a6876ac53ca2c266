"""What a judge says, as figures and tables, and as a section of the report page."""

from __future__ import annotations

from pathlib import Path

import pytest

from genesis_lab.reporting.html import NotMeasured
from genesis_lab.reporting.story import dataset_page
from genesis_lab.reporting.views import view
from genesis_lab.validation.judge import judge
from records import conversation, write
from scripted import ScriptedProvider

ANSWERS = ['{"reason": "<b>stiff</b>", "label_fit": 2, "natural": 3, "coherent": 4, "outcome_fit": 5}', "no idea"]


@pytest.fixture
def report(tmp_path: Path) -> dict:
    dataset = write(tmp_path / "made", [conversation(i) for i in range(8)])
    labels = {("conv_00000000", "natural", ""): 3}
    scripted = ScriptedProvider(ANSWERS[:1] * 7 + ANSWERS[1:])
    return judge(dataset, scripted.complete, name="it", sample=8, human_labels=labels, concurrency=1)


def test_scores_means_trust_and_worst_records_are_shown_escaped(report: dict) -> None:
    means, trust, worst = (str(view("judge", name, report)) for name in ("means", "trust", "worst"))
    assert (
        "7 of 8 records: 3.50 [2.61–4.03] of 5 on average" in means
        and "2.00 [1.65–3.06]" in means
        and "not measured" in means
    )
    assert "1 the answer could not be read" in trust and "people (n = 1)" in means and "lenient" in trust
    assert "stiff" in worst and "&lt;b&gt;stiff" in view("judge", "worst", report).html


def test_nobody_asked_is_not_measured() -> None:
    for name in ("means", "trust", "worst"):
        assert view("judge", name, None) == NotMeasured("no judge chosen")


def test_the_report_page_has_the_section_only_with_a_judge(report: dict) -> None:
    manifest = {"counts": {"train": 8}, "content_hash": "x"}
    titles = [s.title for s in dataset_page("d", {"manifest": manifest, "judge": report}, unit="records").sections]
    assert "What a judge says" in titles
    assert "What a judge says" not in [s.title for s in dataset_page("d", {"manifest": manifest}, unit="x").sections]
