"""One way to show long work: in place in a notebook, one line in a terminal, one per stage where nobody watches."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from shutil import get_terminal_size
from typing import Any

from genesis_lab.reporting.frontend import LEAVES, display, in_kernel, viewer
from genesis_lab.reporting.html import Html, escape

_REDRAW_S = 0.2


class progress:
    """Shows the progress of one stage: done of total, rate, time left, cost so far.

    ``with progress(plan.total, "Generating", unit="conversations") as bar: generate(…, on_progress=bar)``; call
    `advance` after each piece, or `at`, or the bar with where the engine stands. A `total` of None is not known.
    An interrupt is answered by what was `saved`.
    """

    def __init__(self, total: int | None, label: str, *, unit: str = "", saved: str = "Nothing was saved.") -> None:
        self.label, self.unit, self.total, self.saved = label, unit, total, saved
        self.done, self.rejected, self.rate = 0, 0, 0.0
        self.eta_s: float | None = None
        self.cost_usd: float | None = None
        self.details: tuple[str, ...] = ()
        self._viewer = viewer()
        self._started = self._drawn = 0.0
        self._handle: Any = None
        self._ended = threading.Event()

    def __enter__(self) -> progress:
        self._started = time.monotonic()
        self._draw(force=True)
        LEAVES.append(self.saved)
        if self._viewer == "notebook":
            threading.Thread(target=self._tick, daemon=True).start()
        return self

    def _tick(self) -> None:
        """Redraw once a second, so that one sees it live while a long call runs."""
        while not self._ended.wait(1.0):
            self._draw(force=True)

    def advance(self, n: int = 1) -> None:
        """`n` more pieces are done."""
        self.done += n
        elapsed = time.monotonic() - self._started
        self.rate = self.done / elapsed if elapsed else 0.0
        self.eta_s = (self.total - self.done) / self.rate if self.total and self.rate else None
        self._draw()

    def at(self, done: int, total: int | None = None) -> None:
        """`done` pieces are done, of `total` where that is only known now."""
        self.total = total or self.total
        self.advance(done - self.done)

    def __call__(self, standing: Any) -> None:
        """Show where the engine stands; its `details` are lines below the bar."""
        for name in ("done", "total", "rejected", "rate", "eta_s", "cost_usd"):
            setattr(self, name, getattr(standing, name))
        self.details = tuple(getattr(standing, "details", ()))
        self._draw()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, *_: object) -> None:
        self._ended.set()
        LEAVES.pop()
        if isinstance(error, KeyboardInterrupt) and not error.args:
            error.args = (f"Stopped. {self.saved}",)
        if self._viewer == "nobody":
            # In a kernel this is part of the committed output, so it says nothing that differs between runs.
            end = ["stopped"] if kind else [] if self.done or self.total is not None else ["done"]
            print(self.line(*end, timing=False), file=sys.stdout if in_kernel() else sys.stderr)
            return
        self.details = ()
        self._draw("stopped" if kind else f"took {duration(time.monotonic() - self._started)}", force=True)
        if self._viewer == "terminal":
            print(file=sys.stderr)

    def line(self, *end: str, timing: bool = True) -> str:
        """``Generating: 700 of 1,540 conversations · 45 % · 5,021/s · 0:12 left · $0.12``."""
        of = f" of {self.total:,}" if self.total is not None else ""
        counted = self.done > 0 or self.total is not None
        parts = [f"{self.label}: {self.done:,}{of} {self.unit}".rstrip() if counted else self.label]
        if timing and self.total:
            parts.append(f"{self.done / self.total:.0%}")
        if timing and self.rate:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:.2g}/s")
        elif timing and not end and self._started and (for_s := time.monotonic() - self._started) >= 1:
            parts.append(f"for {duration(for_s)}")
        if timing and self.eta_s is not None and self.total is not None and self.done < self.total:
            parts.append(f"{duration(self.eta_s)} left")
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        if self.cost_usd:
            parts.append(f"${self.cost_usd:,.2f}")
        return " · ".join([*parts, *end])

    def _draw(self, *end: str, force: bool = False) -> None:
        now = time.monotonic()
        if self._viewer == "nobody" or (not force and now - self._drawn < _REDRAW_S):
            return
        self._drawn, lines = now, (self.line(*end), *self.details)
        if self._viewer == "terminal":
            whole = "  |  ".join(lines)[: get_terminal_size().columns - 1]
            print(f"\r{whole}\033[K", end="", file=sys.stderr, flush=True)
            return
        share = self.done / self.total if self.total else float(bool(end))
        bar = f'<progress value="{share:.3f}" style="display:block;width:420px"></progress>'
        first, *below = map(escape, lines)
        page = Html(f'<div role="status">{first}{bar}{"<br>".join(below)}</div>')
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)


def in_background(work: Callable[..., Any], label: str, *, unit: str = "") -> Future[Any]:
    """What `work(on_progress, stop)` comes to: beside the notebook, with a button to stop it, where a person sits."""
    stop, bar = threading.Event(), progress(None, label, unit=unit)

    def run() -> Any:
        with bar:
            return work(on_progress=bar.at, stop=stop)

    if viewer() != "notebook":
        (done := Future[Any]()).set_result(run())
        return done
    import ipywidgets as w

    bar._draw(force=True)  # in this cell: a thread has none
    display(button := w.Button(description="Cancel"))
    button.on_click(lambda _: stop.set())
    (done := ThreadPoolExecutor(1).submit(run)).add_done_callback(lambda _: setattr(button, "disabled", True))
    return done


def duration(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``."""
    minutes, s = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"
