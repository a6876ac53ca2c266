"""Who is looking (a person before a notebook, a terminal, nobody), widgets that answer a person, and interrupts."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from types import FrameType
from typing import Any, Literal

from genesis_lab.errors import GenesisError, Interrupted
from genesis_lab.reporting.style import CSS, asset


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


def answering(name: str, about: Mapping[str, Any], does: Mapping[str, Callable[..., Any]]) -> Any:
    """The widget ``templates/<name>.js``, which knows `about` and calls what is named in `does`."""
    return _widget_type(name)(about, does)


@cache
def _widget_type(name: str) -> Any:
    import anywidget
    import traitlets

    files = dict.fromkeys(("browser", name))

    class Answering(anywidget.AnyWidget):  # type: ignore[misc]  # anywidget and traitlets have no types here
        """A front end; every message of it is answered under its number."""

        _esm = "\n".join(asset(f"{one}.js") for one in files) + f"\nexport default {name};\n"
        _css = CSS + "".join(asset(f"{one}.css") for one in files)
        about = traitlets.Dict().tag(sync=True)

        def __init__(self, about: Mapping[str, Any], does: Mapping[str, Callable[..., Any]]) -> None:
            super().__init__(about=about)
            self.does = does
            self.on_msg(self._answer)  # type: ignore[no-untyped-call]

        def _answer(self, _: Any, message: Mapping[str, Any], __: Any) -> None:
            try:
                said: dict[str, Any] = {"answer": self.does[message["does"]](**message.get("with", {}))}
            except Exception as error:  # whatever it is: the person in front of it must be told
                said = {"error": str(error) if isinstance(error, GenesisError) else f"{type(error).__name__}: {error}"}
            self.send(json.loads(json.dumps({"number": message.get("number"), **said}, default=str)))

    Answering.__name__ = f"{name.title()}Widget"  # by which the front end keeps styles apart
    return Answering


LEAVES: list[str] = []
"""What an interrupt leaves of the work that is under way, a sentence each, the innermost last."""
_KNOCK_S, _PATIENCE_S = 0.1, 0.3


def answer_interrupts() -> None:
    """From now on an interrupted cell of this notebook says at once what became of its work, instead of a traceback."""
    if viewer() == "notebook":
        _Interrupts(_shell())


class _Interrupts:
    """Python hears a signal between two steps of its own, and a step may be a library's call of many seconds: a thread
    hears it at once and says what there is to say. Imports are let end: what is half imported can't be had again."""

    def __init__(self, shell: Any) -> None:
        self._shell, self._knocking, self._echoes = shell, threading.Lock(), 0
        ear, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._begin(None)
        threading.Thread(target=self._listen, args=(ear,), daemon=True).start()
        shell.events.register("pre_run_cell", self._begin)
        shell.events.register("post_run_cell", self._end)
        shell.set_custom_exc((Exception, KeyboardInterrupt), self._raised)
        sys.unraisablehook = self._lost

    def _begin(self, _: object) -> None:
        self._heard, self._said, self._due = 0.0, False, False
        signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        if (before := signal.signal(signal.SIGINT, self._interrupted)) != self._interrupted:
            self._before = before

    def _end(self, result: Any) -> None:
        with self._knocking:  # nothing that is still under way may reach the next cell
            signal.signal(signal.SIGINT, self._before)
            signal.set_wakeup_fd(-1)
            self._due = False
        if self._heard and result is not None and result.success:
            self._say()
            result.error_in_exec = Interrupted("Stopped.")  # so that no cell below is run

    def _interrupted(self, _: int, frame: FrameType | None) -> None:
        """In an import, or between two statements of a cell, it is not the time yet."""
        in_cell = importing = False
        while frame:
            importing |= frame.f_code.co_filename.startswith("<frozen importlib")
            in_cell |= frame.f_globals is self._shell.user_global_ns
            frame = frame.f_back
        self._due = importing or not in_cell
        if not self._due:
            raise KeyboardInterrupt

    def _lost(self, fault: Any) -> None:
        """What is raised in a library's call of Python, which can't pass it on, is raised once more."""
        if fault.exc_type is KeyboardInterrupt:
            self._due = True
        else:
            sys.__unraisablehook__(fault)

    def _listen(self, ear: socket.socket) -> None:
        while True:
            ear.settimeout(_KNOCK_S if self._heard else None)
            with suppress(TimeoutError):
                heard = ear.recv(64).count(signal.SIGINT)
                if heard > self._echoes:
                    self._heard = self._heard or time.monotonic()
                self._echoes = max(self._echoes - heard, 0)
                continue
            with self._knocking:
                if self._due:
                    self._echoes += 1
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if self._heard and time.monotonic() - self._heard > _PATIENCE_S:
                self._say()

    def _raised(self, shell: Any, kind: Any, error: Any, trace: Any, tb_offset: Any = None) -> None:
        if isinstance(error, GenesisError) or not (self._heard or kind is KeyboardInterrupt):
            shell.showtraceback((kind, error, trace), running_compiled_code=True)
            return
        said = self._say(" ".join(map(str, error.args)) if kind is KeyboardInterrupt else "")
        error._render_traceback_ = lambda: [said]  # IPython's history would take seconds to render it whole

    def _say(self, said: str = "") -> str:
        said = said or f"Stopped. {LEAVES[-1] if LEAVES else 'Nothing was saved.'}"
        if not self._said:
            self._said = True
            self._shell._showtraceback(Interrupted, said, [f"Interrupted: {said}"])
        return said


def _shell() -> Any:
    if "IPython" not in sys.modules:
        return None
    from IPython import get_ipython

    return get_ipython()
