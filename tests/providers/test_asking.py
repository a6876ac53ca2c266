"""Asking many requests: cached, counted, stoppable."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from genesis_lab.errors import Fatal, Rejected
from genesis_lab.providers.asking import Asking, ask_all
from genesis_lab.providers.base import Completion, Request, Usage
from genesis_lab.providers.cache import CompletionCache


class Model:
    """Answers with the request's system text; counts what it is asked."""

    def __init__(self, **said: Completion | Exception) -> None:
        self.asked: list[str] = []
        self._said = said

    def __call__(self, request: Request) -> Completion:
        self.asked.append(request.key)
        said = self._said.get(request.key, Completion(request.system, "m", Usage(2, 3), cost_usd=0.5))
        if isinstance(said, Exception):
            raise said
        return said


def requests(*keys: str) -> list[Request]:
    return [Request(key=key, system=f"answer {key}") for key in keys]


def test_answers_come_in_the_order_of_the_requests_counted_and_priced() -> None:
    seen: list[Asking] = []
    found = ask_all(Model(), requests(*"abcdefgh"), on_progress=seen.append, width=3)
    assert [answer.text for answer in found.completions] == [f"answer {key}" for key in "abcdefgh"]
    assert found.asked == 8 and found.usage == Usage(16, 24) and found.cost_usd == 4.0
    assert [(at.done, at.total) for at in seen] == [(n, 8) for n in range(1, 9)]
    assert seen[-1].eta_s == 0 and seen[-1].cost_usd == 4.0 and not seen[-1].rejected


def test_what_is_known_is_not_asked_again_and_counts_still(tmp_path: Path) -> None:
    cache, model, loaded = CompletionCache(tmp_path / "c"), Model(), []
    ask_all(model, requests("a", "b"), cache)
    seen: list[Asking] = []
    found = ask_all(model, requests("a", "b", "c"), cache, seen.append, before=lambda: loaded.append(1))
    assert model.asked.count("a") == 1 and found.asked == 1 and found.cost_usd == 1.5
    assert [(at.done, at.total, at.cost_usd) for at in seen] == [(3, 3, 0.5)] and loaded == [1]
    assert ask_all(model, requests("c"), cache, before=lambda: loaded.append(2)).asked == 0 and loaded == [1]


def test_the_same_question_is_asked_once_and_one_without_a_key_is_never_kept(tmp_path: Path) -> None:
    cache, model, seen = CompletionCache(tmp_path / "c"), Model(), []
    found = ask_all(model, requests("a", "b", "a"), cache, seen.append, width=1)
    assert model.asked == ["a", "b"] and len(found.answers) == 3 and [at.done for at in seen] == [2, 3]
    assert ask_all(model, requests("", ""), cache).asked == ask_all(model, requests("", ""), cache).asked == 2


def test_a_refused_request_is_an_answer_and_asked_again_next_time(tmp_path: Path) -> None:
    cache, seen = CompletionCache(tmp_path / "c"), []
    found = ask_all(Model(b=Rejected("no")), requests("a", "b"), cache, seen.append)
    assert str(found.answers[1]) == "no" and len(found.completions) == 1 and seen[-1].rejected == 1
    assert ask_all(Model(), requests("a", "b"), cache).asked == 1


def test_an_answer_of_no_use_is_given_back_but_not_kept(tmp_path: Path) -> None:
    cache, model = CompletionCache(tmp_path / "c"), Model()
    for _ in range(2):
        found = ask_all(model, requests("a", "b"), cache, usable=lambda answer: answer.text != "answer a")
        assert len(found.completions) == 2
    assert sorted(model.asked) == ["a", "a", "b"]


def test_what_was_not_counted_or_has_no_price_is_not_known_in_all() -> None:
    blank = replace(Completion("x", "m"), usage=None)
    found = ask_all(Model(b=blank), requests("a", "b"))
    assert found.usage is None and found.cost_usd is None


def test_a_model_that_cannot_be_asked_stops_it_and_what_came_is_kept(tmp_path: Path) -> None:
    cache = CompletionCache(tmp_path / "c")
    with pytest.raises(Fatal, match="no access"):
        ask_all(Model(c=Fatal("no access")), requests(*"abcdef"), cache, width=1)
    model = Model()
    ask_all(model, requests(*"abcdef"), cache)
    assert sorted(model.asked) == list("cdef")


def test_ctrl_c_ends_the_wait_whatever_the_model_does(tmp_path: Path) -> None:
    cache, held, over = CompletionCache(tmp_path / "c"), threading.Event(), []

    def call(request: Request) -> Completion:
        if request.key == "b":
            os.kill(os.getpid(), signal.SIGINT)
            over.append(held.wait(60))
        return Completion("x", "m")

    with pytest.raises(KeyboardInterrupt):
        ask_all(call, requests("a", "b", "c"), cache, width=1)
    assert not over and "a" in cache and "c" not in cache
    held.set()
