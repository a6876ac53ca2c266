"""The report: one page that loads nothing, and a PDF with the same content."""

import builtins
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.reporting import charts, figures
from genesis_lab.reporting import page as pages
from genesis_lab.reporting.html import NotMeasured

SCRIPT = "</script><script>alert(1)</script>"
needs_chrome = pytest.mark.skipif(figures.find_chrome() is None, reason="no Chrome on this machine")


@pytest.fixture
def report() -> pages.Page:
    chart = charts.bars({SCRIPT: 3, "es": 4}, title=f"Language: {SCRIPT}, es", axis="conversations")
    dots = charts.dots([{"name": "a", "value": 0.9}], title="Together", axis="V")
    return pages.Page(
        title="Our conversations",
        summary=f"Good enough {SCRIPT}",
        status="PASS",
        figures={"Records": 1540, "Judge": NotMeasured("no provider"), "Accuracy": ("0.86", "[0.83–0.89]")},
        sections=[pages.Section("What it holds", ["A paragraph.", chart, dots, dots, NotMeasured("no reference")])],
        provenance={"dataset": "outputs/datasets/demo", "provider": "offline"},
    )


def without_plotly(html: str) -> str:
    return re.sub(r'<script type="text/plain" id="plotly">.*?</script>', "", html, count=1, flags=re.S)


def test_the_page_loads_nothing_and_runs_nothing_of_the_data(report: pages.Page) -> None:
    html = pages.page_html(report)
    assert html.count("data-chart") >= 3
    own = without_plotly(html)
    assert len(own) < 60_000
    assert "alert(1)</script>" not in own
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:)?//""", own)


def test_the_page_says_what_was_not_measured(report: pages.Page) -> None:
    html = pages.page_html(report)
    assert "not measured: no provider" in html and "not measured: no reference" in html and "[0.83–0.89]" in html


def test_the_same_report_is_the_same_page(report: pages.Page) -> None:
    assert pages.page_html(report) == pages.page_html(report)


@needs_chrome
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext on this machine")
def test_the_pdf_has_pages_text_and_charts(report: pages.Page, tmp_path: Path) -> None:
    path = pages.write_page(report, tmp_path / "report.pdf")
    text = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True).stdout
    assert "Our conversations" in text and "A paragraph." in text and "not measured: no provider" in text
    assert "Language:" in text  # a chart's own title
    numbered = re.findall(r"^(\d+) ?/ ?(\d+)$", text, re.MULTILINE)
    assert numbered == [(str(page), str(len(numbered))) for page in range(1, len(numbered) + 1)] and numbered
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext on this machine")
def test_what_follows_a_first_page_that_is_too_long_stands_below_its_end(tmp_path: Path) -> None:
    steps = pages.Section("What to do next", [f"Step {i}. Write more of these." for i in range(60)])
    told = pages.Page(title="Ours", sections=[steps, pages.Section("The verdict", ["It holds."])])
    path = pages.write_page(told, tmp_path / "report.pdf")
    text = subprocess.run(["pdftotext", path, "-"], capture_output=True, text=True, check=True).stdout
    last, end = text.split("\f")[-2:]
    assert "Step 59" in last and "It holds." in last and not end


def test_without_pango_one_sentence_says_what_to_install(
    report: pages.Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def no_pango(name: str, *args: Any, **options: Any) -> Any:
        if name == "weasyprint":
            raise OSError("cannot load library 'libpango-1.0-0'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", no_pango)
    with pytest.raises(
        MissingDependency, match="A PDF report needs Pango, which is not installed: apt install libpango"
    ):
        pages.write_page(report, tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_without_chrome_no_half_pdf_is_left(
    report: pages.Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "find_chrome", lambda: None)
    with pytest.raises(MissingDependency, match="needs Chrome or Chromium"):
        pages.write_page(report, tmp_path / "report.pdf")
    assert not list(tmp_path.iterdir())


def test_a_report_is_html_or_pdf(report: pages.Page, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a \.html or a \.pdf file, got 'report\.docx'"):
        pages.write_page(report, tmp_path / "report.docx")
