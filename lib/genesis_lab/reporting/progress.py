"""One way to show long work: in place in a notebook, one line in a terminal, one per stage where nobody watches."""

from __future__ import annotations

import sys
import time
from shutil import get_terminal_size
from typing import Any

from genesis_lab.reporting.frontend import display, in_kernel, viewer
from genesis_lab.reporting.html import Html, escape
from genesis_lab.reporting.style import BLUE, LINE, MUTED

_REDRAW_S = 0.2


class Bar:
    """Progress of one stage: a context manager. Call `advance` after each piece, or call the bar with what the engine reports."""

    def __init__(self, total: int | None, label: str, unit: str) -> None:
        self.label, self.unit, self.total = label, unit, total
        self.done, self.rejected = 0, 0
        self.rate, self.eta_s, self.cost_usd = 0.0, None, None  # type: float, float | None, float | None
        self.details: tuple[str, ...] = ()
        self._viewer = viewer()
        self._started = self._drawn = 0.0
        self._handle: Any = None

    def __enter__(self) -> Bar:
        self._started = time.monotonic()
        self._draw(force=True)
        return self

    def advance(self, n: int = 1, *, cost_usd: float = 0.0) -> None:
        """`n` more pieces are done, for `cost_usd` dollars."""
        self.done += n
        if cost_usd:
            self.cost_usd = (self.cost_usd or 0.0) + cost_usd
        elapsed = time.monotonic() - self._started
        self.rate = self.done / elapsed if elapsed else 0.0
        self.eta_s = (self.total - self.done) / self.rate if self.total and self.rate else None
        self._draw()

    def at(self, done: int, total: int | None = None) -> None:
        """`done` pieces are done, of `total` where that is only known now."""
        self.total = total or self.total
        self.advance(done - self.done)

    def __call__(self, standing: Any) -> None:
        """Show where the generation engine stands, whose ``on_progress`` the bar is; its `details` are lines below the bar."""
        self.done, self.total, self.rejected = standing.done, standing.total, standing.rejected
        self.rate, self.eta_s, self.cost_usd = standing.rate, standing.eta_s, standing.cost_usd
        self.details = tuple(getattr(standing, "details", ()))
        self._draw()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None
        if self._viewer == "nobody":
            # In a kernel this is part of the committed output, so it says nothing that differs between runs.
            print(self.line(stopped=stopped, timing=False), file=sys.stdout if in_kernel() else sys.stderr)
            return
        self._draw(force=True, stopped=stopped, final=True)
        if self._viewer == "terminal":
            print(file=sys.stderr)

    def line(self, *, stopped: bool = False, timing: bool = True) -> str:
        """``Generating: 700 of 1,540 conversations · 45 % · 5,021/s · 0:12 left · $0.12``."""
        of = f" of {self.total:,}" if self.total is not None else ""
        counted = self.done > 0 or self.total is not None
        parts = [f"{self.label}: {self.done:,}{of} {self.unit}".rstrip() if counted else self.label]
        if timing and self.total:
            parts.append(f"{self.done / self.total:.0%}")
        if timing and self.rate:
            parts.append(f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:.2g}/s")
        if timing and self.eta_s is not None and self.total is not None and self.done < self.total:
            parts.append(f"{duration(self.eta_s)} left")
        if self.rejected:
            parts.append(f"{self.rejected:,} rejected")
        if self.cost_usd:
            parts.append(f"${self.cost_usd:,.2f}")
        if stopped:
            parts.append("stopped")
        elif not timing and not counted:
            parts.append("done")
        return " · ".join(parts)

    def _draw(self, *, force: bool = False, stopped: bool = False, final: bool = False) -> None:
        now = time.monotonic()
        if self._viewer == "nobody" or (not force and now - self._drawn < _REDRAW_S):
            return
        self._drawn = now
        line = self.line(stopped=stopped)
        if final and not stopped:
            line += f" · took {duration(now - self._started)}"
        details = () if final else self.details
        if self._viewer == "terminal":
            whole = "  |  ".join((line, *details))
            print(f"\r{whole[: get_terminal_size().columns - 1]}\033[K", end="", file=sys.stderr, flush=True)
            return
        share = self.done / self.total if self.total else 1.0 if final else 0.0
        bar = f'<div style="height:6px;border-radius:3px;background:{LINE};max-width:420px;margin:4px 0">'
        bar += f'<div style="height:6px;border-radius:3px;background:{BLUE};width:{share:.1%}"></div></div>'
        below = "".join(f'<div style="color:{MUTED};font-size:12px">{escape(each)}</div>' for each in details)
        page = Html(f'<div role="status">{escape(line)}{bar}{below}</div>', "\n".join((line, *details)))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)


def progress(total: int | None, label: str, *, unit: str = "") -> Bar:
    """Show the progress of `total` pieces (None: unknown) of work: done of total, rate, time left, cost so far.

    Parameters
    ----------
    label : what is being done, for example ``"Embedding"``.
    unit : what is counted, for example ``"texts"``::

        with progress(plan.total, "Generating", unit="conversations") as bar:
            generate(…, on_progress=bar)
    """
    return Bar(total, label, unit)


def duration(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:05:00``."""
    minutes, s = divmod(round(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{s:02}" if hours else f"{minutes}:{s:02}"
