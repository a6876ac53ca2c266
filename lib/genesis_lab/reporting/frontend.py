"""Who is looking: a person before a notebook, a terminal, or nobody."""

from __future__ import annotations

import sys
from typing import Any, Literal

from genesis_lab.errors import Interrupted


def viewer() -> Literal["notebook", "terminal", "nobody"]:
    """Where output goes to.

    A front end before which a person sits offers to answer ``input()``, so its execute request carries ``allow_stdin``;
    papermill, nbclient and nbval refuse it. Outside a kernel: ``"terminal"`` if standard error is one.
    """
    if not in_kernel():
        return "terminal" if sys.stderr is not None and sys.stderr.isatty() else "nobody"
    request = _shell().kernel.get_parent("shell") or {}
    return "notebook" if request.get("content", {}).get("allow_stdin") else "nobody"


def in_kernel() -> bool:
    """Whether this is a notebook's kernel, with or without a person."""
    return getattr(_shell(), "kernel", None) is not None


def display(*objects: Any, **options: Any) -> Any:
    """IPython's `display`, imported where it is used."""
    from IPython.display import display as show

    return show(*objects, **options)  # type: ignore[no-untyped-call]  # IPython has no types here


def answer_interrupts() -> None:
    """From now on an interrupted cell of this notebook says what became of its work, instead of a traceback."""

    def said(shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
        stopped = Interrupted(" ".join(map(str, error.args)) or "Stopped. Nothing was saved.").with_traceback(trace)
        shell.showtraceback((Interrupted, stopped, trace))

    if viewer() == "notebook":
        _shell().set_custom_exc((KeyboardInterrupt,), said)


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()
