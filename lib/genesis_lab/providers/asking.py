"""Ask a model many questions: what it has answered before is not asked again, and Ctrl-C ends the wait at once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from typing import Any, TypeVar

from genesis_lab.errors import Rejected
from genesis_lab.providers.base import Completion, Request, Usage, total_cost
from genesis_lab.providers.cache import CompletionCache

T = TypeVar("T")
R = TypeVar("R")
Call = Callable[[Request], Completion]
"""Asks a model, however long its quota makes that wait: a provider's `complete`, or a teacher's `call`."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Where the asking stands; what a progress bar takes. Rate, time and cost are those of what is asked now, None if
    unknown; `details` are lines below the bar."""

    done: int
    total: int
    rejected: int = 0
    rate: float = 0.0
    eta_s: float | None = None
    cost_usd: float | None = None
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of many requests: for each its completion or why the provider refuses it; how many were `asked` now,
    and how long these took, all in flight together. Tokens and cost are None where one is not known."""

    answers: list[Completion | Rejected]
    asked: int
    busy_s: float

    @property
    def completions(self) -> list[Completion]:
        return [answer for answer in self.answers if isinstance(answer, Completion)]

    @property
    def usage(self) -> Usage | None:
        counts = [answer.usage for answer in self.completions]
        return None if None in counts else sum((usage for usage in counts if usage), Usage())

    @property
    def cost_usd(self) -> float | None:
        return total_cost(answer.cost_usd for answer in self.completions)


def ask_all(
    call: Call,
    requests: Sequence[Request],
    cache: CompletionCache | None = None,
    on_progress: Callable[[Asking], object] | None = None,
    *,
    width: int = 4,
    usable: Callable[[Completion], bool] = lambda answer: True,
    before: Callable[[], object] | None = None,
) -> Asked:
    """The answer to each request, `width` in flight at once; requests with the same key are asked once.

    The `cache`, which the caller closes, keeps every `usable` answer as it comes, so that a run that was stopped pays
    for nothing twice. `before` is called before anything is asked (to load a model), not if all is known. A request
    that is `Rejected` is an answer of its own; any other `ProviderError` is raised.
    """
    keys = [request.key or str(number) for number, request in enumerate(requests)]
    wanted, times, answers = dict(zip(keys, requests, strict=True)), Counter(keys), dict[str, Completion | Rejected]()
    for key, request in wanted.items():
        if cache and request.key and (kept := cache.get(key)) and usable(kept):
            answers[key] = kept
    names = [key for key in wanted if key not in answers]
    done, rejected, cost = sum(times[key] for key in answers), 0, 0.0
    if names and before:
        before()
    started = time.monotonic()

    def answer(key: str) -> Completion | Rejected:
        request = wanted[key]
        try:
            completion = replace(call(request), request_key=request.key or None)
        except Rejected as error:
            return error
        if cache and request.key and usable(completion):
            cache.put(key, completion)
        return completion

    for number, (place, found) in enumerate(in_threads(answer, names, width), start=1):
        answers[names[place]] = found
        done += times[names[place]]
        rejected += isinstance(found, Rejected)
        cost += (found.cost_usd or 0.0) if isinstance(found, Completion) else 0.0
        if on_progress:
            rate = number / max(time.monotonic() - started, 1e-9)
            on_progress(Asking(done, len(keys), rejected, rate, (len(names) - number) / rate, cost or None))
    return Asked([answers[key] for key in keys], len(names), time.monotonic() - started)


def in_threads(call: Callable[[T], R], items: Sequence[T], width: int) -> Iterator[tuple[int, R]]:
    """The number of each item and what `call` makes of it, as they are done, `width` at a time.

    Whoever leaves early, by Ctrl-C for example, leaves the calls that are under way behind; no other is begun. An error
    of a call ends it too, and is raised here.
    """
    done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
    left, over = iter(enumerate(items)), threading.Event()
    turn = threading.Lock()

    def work() -> None:
        while not over.is_set():
            with turn:
                numbered = next(left, None)
            if numbered is None:
                return
            try:
                done.put((numbered[0], call(numbered[1]), None))
            except BaseException as error:
                over.set()
                done.put((numbered[0], None, error))

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
