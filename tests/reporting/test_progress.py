"""Progress: one line per stage where nobody watches, and everything one wants to know where somebody does."""

import queue
import signal
from types import SimpleNamespace

import pytest

from genesis_lab.reporting import progress as module
from genesis_lab.reporting.progress import progress


def test_nobody_watching_means_one_line_per_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(3, "Embedding", unit="texts") as bar:
        for _ in range(3):
            bar.advance()
    assert capsys.readouterr().err == "Embedding: 3 of 3 texts\n"


def test_a_stage_that_breaks_says_how_far_it_came(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), progress(5, "Scoring") as bar:
        bar.advance(2)
        raise RuntimeError
    assert capsys.readouterr().err == "Scoring: 2 of 5 · stopped\n"


def test_a_stage_that_counts_nothing_says_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(None, "Scoring"):
        pass
    assert capsys.readouterr().err == "Scoring · done\n"


def test_the_engine_s_reports_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    standing = SimpleNamespace(done=700, total=1540, rejected=3, rate=5021.3, eta_s=12.4, cost_usd=0.125)
    with progress(1540, "Generating", unit="conversations") as bar:
        bar(standing)
        assert bar.line() == ("Generating: 700 of 1,540 conversations · 45% · 5,021/s · 0:12 left · 3 rejected · $0.12")


def test_a_terminal_gets_one_line_that_is_written_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "viewer", lambda: "terminal")
    with progress(100, "Embedding") as bar:
        for _ in range(100):
            bar.advance()
    written = capsys.readouterr().err
    assert written.count("\n") == 1 and "100 of 100" in written and "took 0:00" in written


def test_details_are_shown_while_it_runs_and_not_where_nobody_watches(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = SimpleNamespace(done=1, total=2, rejected=0, rate=1.0, eta_s=1.0, cost_usd=None, details=("97% of a quota",))
    with progress(2, "Generating") as bar:
        bar(told)
    assert "quota" not in capsys.readouterr().err
    monkeypatch.setattr(module, "viewer", lambda: "terminal")
    monkeypatch.setattr(module, "_REDRAW_S", 0.0)
    with progress(2, "Generating") as bar:
        bar(told)
    seen = capsys.readouterr().err
    assert "97% of a quota" in seen and "quota" not in seen.splitlines()[-1].split("\r")[-1]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> "queue.Queue[str]":
    """What a person before a notebook sees of a progress bar, as it comes."""
    pages: queue.Queue[str] = queue.Queue()

    def shown(page: object, **_: object) -> SimpleNamespace:
        pages.put(str(page))
        return SimpleNamespace(update=shown)

    monkeypatch.setattr(module, "viewer", lambda: "notebook")
    monkeypatch.setattr(module, "display", shown)
    return pages


def test_an_interrupt_says_what_was_saved(seen: "queue.Queue[str]") -> None:
    for saved, said in [({}, "Stopped. Nothing was saved."), ({"saved": "3 are kept."}, "Stopped. 3 are kept.")]:
        with pytest.raises(KeyboardInterrupt) as caught, progress(None, "Teaching", **saved):
            signal.raise_signal(signal.SIGINT)
        assert str(caught.value) == said


def test_it_is_seen_to_live_while_a_long_call_runs(seen: "queue.Queue[str]") -> None:
    with progress(None, "Teaching"):
        while "for 0:0" not in seen.get(timeout=10):
            pass
    pages = [seen.get() for _ in range(seen.qsize())]
    assert "took 0:0" in pages[-1], "the last word is the stage's own"


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750, "12:30"), (11100, "3:05:00")])
def test_durations(seconds: float, text: str) -> None:
    assert module.duration(seconds) == text
