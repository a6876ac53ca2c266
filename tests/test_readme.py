"""The front page says what is: the commands, and figures that stand in the stored results of the benchmarks."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

import bench
from genesis_lab.settings import get_settings
from readme import help_text, refreshed

ROOT = Path(__file__).resolve().parent.parent


def test_the_readme_says_what_is() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert refreshed(readme) == readme, "run: make readme"


def test_the_readme_is_a_front_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8")) <= 14_000


def test_what_stands_between_the_markers_is_replaced_whole() -> None:
    text = refreshed("before\n<!-- genesis --help -->\nold\n<!-- / -->\nafter")
    assert text == f"before\n<!-- genesis --help -->\n```text\n{help_text()}\n```\n<!-- / -->\nafter"


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    return tmp_path


def test_a_stored_result_names_command_machine_and_date_and_is_quoted(results: Path) -> None:
    bench.store("speed", "How fast", [{"n": 1_000, "seconds": 0.1234}], facts={"per_s": "8,100"})
    found = json.loads((results / "speed.json").read_text())
    assert found["command"].startswith("python ") and found["date"] and "cores" in found["machine"]
    assert refreshed("<!-- bench speed.per_s -->9,999<!-- / -->") == "<!-- bench speed.per_s -->8,100<!-- / -->"
    assert "| 1,000 | 0.123 |" in refreshed("<!-- bench speed --><!-- / -->") and "| 1,000 | 0.123 |" in bench.page()


def test_a_dry_run_keeps_nothing(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["speed.py", "--dry"])
    bench.store("speed", "How fast", [{"n": 1_000}])
    assert "| 1,000 |" in capsys.readouterr().out and not list(results.iterdir())


def test_a_figure_that_was_never_measured_can_not_be_quoted(results: Path) -> None:
    with pytest.raises(KeyError, match="speed"):
        refreshed("<!-- bench speed.per_s -->9,999<!-- / -->")


def test_the_page_of_measurements_is_made_from_the_stored_results() -> None:
    assert (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8") == bench.page(), (
        "run: python benchmarks/bench.py"
    )


def fill(n: int) -> int:
    return sum(bytearray(n))


def test_memory_is_counted_in_a_process_of_its_own() -> None:
    small, large = bench.measured(fill, 1), bench.measured(fill, 300 * 2**20)
    assert large["result"] == 0 and large["peak_mib"] - small["peak_mib"] > 200


def test_memory_does_not_begin_with_what_the_process_that_measures_had_used() -> None:
    taken = bytearray(300 * 2**20)
    assert bench.measured(fill, 1)["peak_mib"] < len(taken) / 2**20


def test_arms_meet_the_same_machine_in_turns() -> None:
    order: list[str] = []
    found = bench.side_by_side({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=2)
    assert order == ["a", "b", "a", "b"] and found["a"]["times"] == 1.0


def test_the_python_of_the_readme_runs_and_prints_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(tmp_path))
    get_settings.cache_clear()
    (tmp_path / "first.py").write_text(code.replace("total=3_080", "total=308"), encoding="utf-8")
    runpy.run_path(str(tmp_path / "first.py"))
    get_settings.cache_clear()
    assert capsys.readouterr().out.split()[0] == re.search(r"# (\w+) 0\.\d\d\n", code)[1]
