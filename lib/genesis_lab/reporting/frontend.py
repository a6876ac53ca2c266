"""Who is looking: a person before a notebook, a terminal, or nobody."""

from __future__ import annotations

import sys
from typing import Any, Literal

Viewer = Literal["notebook", "terminal", "nobody"]


def viewer() -> Viewer:
    """Where output goes to.

    ``"notebook"``: the cell that runs was sent by a front end (JupyterLab, Notebook 7, VS Code, Colab). Such a front
    end offers to answer ``input()``, so its execute request carries ``allow_stdin``; papermill, nbclient and nbval
    refuse it, which makes their kernels headless (``"nobody"``). Outside a kernel: ``"terminal"`` if standard error is
    one, else ``"nobody"``.
    """
    kernel = _kernel()
    if kernel is None:
        return "terminal" if sys.stderr is not None and sys.stderr.isatty() else "nobody"
    request = kernel.get_parent("shell") or {}
    return "notebook" if request.get("content", {}).get("allow_stdin") else "nobody"


def in_kernel() -> bool:
    """Whether this is a notebook's kernel, with or without a person."""
    return _kernel() is not None


def display(*objects: Any, **options: Any) -> Any:
    """IPython's `display`, imported where it is used."""
    from IPython.display import display as show

    return show(*objects, **options)  # type: ignore[no-untyped-call]  # IPython has no types here


def in_colab() -> bool:
    return "google.colab" in sys.modules


def _kernel() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None)
