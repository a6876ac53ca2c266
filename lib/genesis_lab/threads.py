"""Calls in threads that nobody has to wait for: Ctrl-C ends the wait at once, whatever a server does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(call: Callable[[T], R], items: Sequence[T], width: int) -> Iterator[tuple[int, R]]:
    """The number of each item and what `call` makes of it, as they are done, `width` at a time.

    Whoever leaves early, by Ctrl-C for example, leaves the calls that are under way behind; no other is begun. An error
    of a call ends it too, and is raised here.
    """
    done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
    left, turn, over = iter(enumerate(items)), threading.Lock(), threading.Event()

    def work() -> None:
        while not over.is_set():
            with turn:
                number, item = next(left, (-1, None))
            if number < 0:
                return
            try:
                done.put((number, call(item), None))  # type: ignore[arg-type]  # None stands for no item
            except BaseException as error:
                over.set()
                done.put((number, None, error))

    try:
        for _ in range(min(width, len(items))):
            threading.Thread(target=work, name="genesis", daemon=True).start()
        for _ in items:
            number, result, error = done.get()
            if error is not None:
                raise error
            yield number, result
    finally:
        over.set()
