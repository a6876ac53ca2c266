"""What was paid for is kept, what failed can be made good, what is replaced stays till the new is there; order is no matter."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.domains.base import Spec
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import Fatal, GenesisError, Incomplete, InvalidInput, Rejected
from genesis_lab.generation.engine import generate
from genesis_lab.generation.journal import discard
from genesis_lab.generation.plan import Plan, make_plan
from genesis_lab.providers.base import Completion, Request
from genesis_lab.providers.cache import CompletionCache
from scripted import ScriptedProvider

TOTAL = 12
Answer = Callable[[Request, Spec], Any]


def domain_of(**options: Any) -> Conversations:
    return Conversations(ConversationsConfig(total=TOTAL, intents=("request_refund",), **options))


DOMAIN = domain_of()
PLAN = make_plan(DOMAIN, TOTAL, 7)


def again(request: Request) -> int:
    """How often the model was told that its answer can't be used."""
    return sum("can't be used" in text for _, text in request.messages)


def candidate(request: Request) -> tuple[Spec, int]:
    return next((s, n) for n in range(200) for s in PLAN.specs if s.seed + n == request.seed)


def good(request: Request) -> str:
    spec, n = candidate(request)
    return DOMAIN.offline_text(spec, 3 * n + again(request))


def teacher(answer: Callable[[Request], Any] = good, wide: int = 1, price: float = 0.01) -> ScriptedProvider:
    return ScriptedProvider(lambda r, _: answer(r), price_usd=price, concurrency=wide)


def run(target: Path, provider: Any, domain: Conversations = DOMAIN, plan: Plan = PLAN, **options: Any) -> Dataset:
    return generate(plan, domain, provider, target, **options)


@pytest.fixture
def cache(tmp_path: Path) -> CompletionCache:
    return CompletionCache(tmp_path / "cache" / "c.sqlite")


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "cache")


# Replacing


def test_a_live_run_of_another_process_is_not_removed(tmp_path: Path) -> None:
    with pytest.raises(Fatal):
        run(tmp_path / "d", ScriptedProvider([good_first(), Fatal("gone")]))
    before = (tmp_path / "d.run" / "journal.jsonl").read_bytes()
    other = domain_of(tone="formal")
    with FileLock(tmp_path / "d.run.lock"), pytest.raises(InvalidInput, match="Another process"):
        run(tmp_path / "d", teacher(), other, replace_existing=True)
    with FileLock(tmp_path / "d.run.lock"), pytest.raises(InvalidInput, match="Another process"):
        discard(tmp_path / "d")
    assert (tmp_path / "d.run" / "journal.jsonl").read_bytes() == before


def good_first() -> str:
    return DOMAIN.offline_text(PLAN.specs[0], 0)


@pytest.mark.parametrize("answer", [Fatal("access denied"), "no JSON"])
def test_an_old_dataset_stays_when_its_replacement_fails(tmp_path: Path, answer: Any) -> None:
    old = run(tmp_path / "d", teacher())
    other = domain_of(tone="formal")
    with pytest.raises(GenesisError):
        run(tmp_path / "d", ScriptedProvider([good_first(), answer]), other, replace_existing=True)
    assert open_dataset(tmp_path / "d").content_hash == old.content_hash
    new = run(tmp_path / "d", teacher(), other, replace_existing=True)
    assert new.manifest["generation"]["options"]["tone"] == "formal" and new.total == TOTAL
    assert files(tmp_path) == ["d"]


def test_an_old_dataset_is_not_replaced_by_half_of_a_new_one(tmp_path: Path) -> None:
    old = run(tmp_path / "d", teacher())
    half = teacher(lambda r: good(r) if candidate(r)[0].index < 6 else "no JSON")
    with pytest.raises(Incomplete, match=r"6 of 12 .* was not replaced"):
        run(tmp_path / "d", half, domain_of(tone="formal"), replace_existing=True)
    assert open_dataset(tmp_path / "d").content_hash == old.content_hash
    rest = teacher()
    assert run(tmp_path / "d", rest, domain_of(tone="formal"), replace_existing=True).total == TOTAL
    assert len(rest.requests) == 6


@pytest.mark.parametrize("manifest", ["{}", '{"format": 1}', '{"manifest_version": 3, "name": "an extension"}', "["])
def test_a_folder_of_somebody_else_is_refused_before_anything_is_asked(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "manifest.json").write_text(manifest)
    for replaced in (False, True):
        asked = teacher()
        with pytest.raises(InvalidInput, match="other things"):
            run(tmp_path / "d", asked, replace_existing=replaced)
        assert not asked.requests
    assert (tmp_path / "d" / "manifest.json").read_text() == manifest and files(tmp_path) == ["d"]


@pytest.mark.parametrize("place", ["d", "d.run"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_in_the_way_is_refused_before_anything_is_asked_and_stays(
    tmp_path: Path, place: str, kind: str
) -> None:
    there = tmp_path / place if kind == "file" else tmp_path / place / "photo.jpg"
    there.parent.mkdir(exist_ok=True)
    there.write_text("mine")
    asked = teacher()
    with pytest.raises(InvalidInput, match="choose another name"):
        run(tmp_path / "d", asked, replace_existing=True)
    assert not asked.requests and there.read_text() == "mine" and files(tmp_path) == [place]


def test_a_dataset_that_is_damaged_is_made_anew_on_request(tmp_path: Path) -> None:
    made = run(tmp_path / "d", teacher())
    made.parts()[0].unlink()
    with pytest.raises(InvalidInput, match="damaged"):
        run(tmp_path / "d", teacher())
    assert run(tmp_path / "d", teacher(), replace_existing=True).content_hash == made.content_hash


# What failed


@pytest.mark.parametrize("answer", ["", "no JSON", Fatal("wrong key"), Rejected("max_tokens is too large")])
def test_a_run_without_a_record_leaves_nothing_behind(tmp_path: Path, answer: Any, cache: CompletionCache) -> None:
    with pytest.raises(GenesisError):
        run(tmp_path / "d", ScriptedProvider([answer]), cache=cache)
    assert files(tmp_path) == []
    assert run(tmp_path / "d", teacher(), domain_of(tone="formal"), cache=cache).total == TOTAL


def test_a_folder_that_a_kill_left_before_the_first_record_is_in_nobodys_way(tmp_path: Path) -> None:
    (tmp_path / "d.run").mkdir()
    assert run(tmp_path / "d", teacher()).total == TOTAL
    (tmp_path / "e.run").mkdir()
    (tmp_path / "e.run" / "journal.jsonl").write_text('{"kind":"header","total":99}\n')
    assert run(tmp_path / "e", teacher()).total == TOTAL
    assert files(tmp_path) == ["d", "e"]


@pytest.mark.parametrize(
    "bad", ["", "no JSON", Completion('{"turns": [{"speaker": "cus', "script", stop_reason="max_tokens")]
)
@pytest.mark.parametrize("cached", [False, True])
def test_the_same_command_makes_what_is_missing_and_pays_for_nothing_twice(
    tmp_path: Path, cache: CompletionCache, bad: Any, cached: bool
) -> None:
    whole = run(tmp_path / "whole", teacher())
    kept = cache if cached else None
    for _ in range(2):
        with pytest.raises(Incomplete, match="2 of 12 records are missing"):
            run(tmp_path / "d", teacher(lambda r: bad if candidate(r)[0].index in (3, 8) else good(r)), cache=kept)
    assert open_dataset(tmp_path / "d").manifest["missing"] == 2
    rest = teacher(lambda r: DOMAIN.offline_text(candidate(r)[0], 0))
    made = run(tmp_path / "d", rest, cache=kept)
    assert len(rest.requests) == 2 and made.manifest["complete"]
    assert made.frame()["conversation_id"].tolist() == whole.frame()["conversation_id"].tolist()
    assert files(tmp_path) == ["d", "whole"]
    if cached:
        elsewhere = ScriptedProvider([Fatal("must not be asked")])
        assert run(tmp_path / "other", elsewhere, cache=cache).content_hash == made.content_hash


def test_an_answer_of_no_use_is_asked_for_again_by_the_next_run(tmp_path: Path, cache: CompletionCache) -> None:
    with pytest.raises(Incomplete):
        run(tmp_path / "d", teacher(lambda r: "" if candidate(r)[0].index == 3 else good(r)), cache=cache)
    other = teacher()
    assert run(tmp_path / "other", other, cache=cache).total == TOTAL
    assert [candidate(r)[0].index for r in other.requests] == [3]


@pytest.mark.parametrize("stop", [2, 5, 9, 14])
def test_no_request_is_sent_twice_wherever_a_run_was_stopped(tmp_path: Path, stop: int) -> None:
    def answer(request: Request) -> str:
        return good(request) if again(request) >= candidate(request)[0].index % 3 else "no JSON"

    def interrupted(request: Request) -> str:
        if len(first.requests) == stop:
            raise KeyboardInterrupt
        return answer(request)

    whole = run(tmp_path / "whole", teacher(answer))
    first, second = teacher(interrupted), teacher(answer)
    with pytest.raises(GenesisError, match="Interrupted"):
        run(tmp_path / "d", first)
    made = run(tmp_path / "d", second)
    keys = [request.key for request in (*first.requests[:-1], *second.requests)]
    assert len(keys) == len(set(keys)) == whole.manifest["attempts"] == made.manifest["attempts"]
    assert made.content_hash == whole.content_hash


def test_every_attempt_is_counted_also_those_that_were_rejected(tmp_path: Path) -> None:
    half = teacher(lambda r: good(r) if candidate(r)[0].index < 10 else Rejected("a content filter"))
    with pytest.raises(Incomplete):
        run(tmp_path / "d", half)
    assert open_dataset(tmp_path / "d").manifest["attempts"] == len(half.requests)


def test_a_cache_that_can_not_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_text("my notes, not a database" * 100)
    with pytest.raises(GenesisError, match="cache of answers"):
        CompletionCache(tmp_path / "c.sqlite")
    with pytest.raises(GenesisError, match="can't be written"):
        CompletionCache(tmp_path / "c.sqlite" / "below")
    assert (tmp_path / "c.sqlite").read_text().startswith("my notes")


# Throwing away


def test_an_unfinished_run_can_be_thrown_away(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no unfinished run of d"):
        discard(tmp_path / "d")
    with pytest.raises(Fatal):
        run(tmp_path / "d", ScriptedProvider([good_first(), Fatal("gone")]))
    other = domain_of(tone="formal")
    with pytest.raises(InvalidInput, match="genesis dataset discard d"):
        run(tmp_path / "d", teacher(), other)
    discard(tmp_path / "d")
    assert files(tmp_path) == []
    assert run(tmp_path / "d", teacher(), other).total == TOTAL


def test_throwing_away_a_run_leaves_the_dataset_and_other_peoples_folders(tmp_path: Path) -> None:
    made = run(tmp_path / "d", teacher())
    (tmp_path / "d.run").mkdir()
    (tmp_path / "d.run" / "thesis.md").write_text("mine")
    with pytest.raises(InvalidInput, match="no unfinished run"):
        discard(tmp_path / "d")
    assert (tmp_path / "d.run" / "thesis.md").read_text() == "mine"
    assert open_dataset(tmp_path / "d").content_hash == made.content_hash


# Splits


def with_splits(names: list[Any]) -> Plan:
    specs = [replace(s, attributes={**s.attributes, "split": names[s.index % len(names)]}) for s in PLAN.specs]
    return replace(PLAN, specs=specs)


def test_splits_may_have_any_name(tmp_path: Path) -> None:
    data = run(tmp_path / "d", teacher(), plan=with_splits(["dev", "test", "train"]))
    assert data.counts == {"train": 4, "test": 4, "dev": 4}
    assert run(tmp_path / "e", teacher(), plan=with_splits(["", "dev"])).counts == {"train": 6, "dev": 6}


@pytest.mark.parametrize("name", ["my split", "a/b", float("nan"), 3])
def test_a_split_that_can_have_no_name_is_refused_before_anything_is_asked(tmp_path: Path, name: Any) -> None:
    asked = teacher()
    with pytest.raises(InvalidInput, match="split must be named"):
        run(tmp_path / "d", asked, plan=with_splits(["train", name]))
    assert not asked.requests and files(tmp_path) == []


# Order


class InTurns:
    """Answers come in a given order of their records, however many are asked for at once."""

    name, model, free, concurrency = "scripted", "script", False, TOTAL

    def __init__(self, answer: Callable[[Request], Any], order: list[int]) -> None:
        self._inner, self._order, self._came = teacher(answer), order, threading.Condition()
        self._waiting: set[int] = set(range(TOTAL))

    def complete(self, request: Request) -> Completion:
        index = candidate(request)[0].index
        with self._came:
            first = not again(request) and candidate(request)[1] == 0
            if first:
                self._came.wait_for(lambda: next(i for i in self._order if i in self._waiting) == index, timeout=20)
                self._waiting.discard(index)
                self._came.notify_all()
        return self._inner.complete(request)

    def cost_usd(self, usage: Any) -> float:
        return 0.0

    def close(self) -> None: ...


def alike(request: Request) -> str:
    """All open with the same words, until they are told to word it differently; every third does so only later."""
    turns = json.loads(good(request))["turns"]
    spec, n = candidate(request)
    if again(request) < (2 if spec.index % 3 == 0 else 1) and n == 0:
        turns[0]["text"] = {"en": "Where is my money, please?", "es": "¿Dónde está mi dinero, por favor?"}[
            spec.attributes["language"]
        ]
    return json.dumps({"turns": turns})


@pytest.mark.parametrize("seed", range(3))
def test_the_order_in_which_answers_come_is_no_matter(tmp_path: Path, seed: int, cache: CompletionCache) -> None:
    serial = run(tmp_path / "serial", teacher(alike))
    order = (
        [list(range(TOTAL))[::-1], list(range(TOTAL))][seed]
        if seed < 2
        else list(map(int, np.random.default_rng(seed).permutation(TOTAL)))
    )
    shuffled = run(tmp_path / "shuffled", InTurns(alike, order), cache=cache)
    assert shuffled.content_hash == serial.content_hash and shuffled.manifest["complete"]
    cached = ScriptedProvider([Fatal("must not be asked")], concurrency=3)
    assert run(tmp_path / "cached", cached, cache=cache).content_hash == serial.content_hash


@pytest.mark.parametrize("stop", range(2, 26, 3))
def test_a_run_that_was_stopped_while_records_gave_way_to_others_goes_on_to_the_same(tmp_path: Path, stop: int) -> None:
    serial = run(tmp_path / "serial", teacher(alike))
    sent = []

    def interrupted(request: Request) -> str:
        sent.append(request)
        if len(sent) == stop:
            raise KeyboardInterrupt
        return alike(request)

    backwards = list(range(TOTAL))[::-1]
    with suppress(GenesisError):
        run(tmp_path / "d", InTurns(interrupted, backwards))
    assert run(tmp_path / "d", teacher(alike, TOTAL)).content_hash == serial.content_hash


def test_who_gets_the_last_candidates_is_no_matter_of_who_was_quick(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        spec, n = candidate(request)
        return good(request) if spec.index % 2 == 0 or n >= 2 else "no JSON"

    for name, order in (("a", list(range(TOTAL))), ("b", list(range(TOTAL))[::-1])):
        with pytest.raises(Incomplete, match="4 of 12 records are missing"):
            run(tmp_path / name, InTurns(answer, order), candidate_budget=0)
    assert open_dataset(tmp_path / "a").content_hash == open_dataset(tmp_path / "b").content_hash


def test_an_import_that_took_the_name_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def answer(request: Request) -> str:
        if not (tmp_path / "d").exists():
            with DatasetWriter(tmp_path / "d", "conversations") as writer:
                writer.write([])
        return good(request)

    with pytest.raises(InvalidInput, match="exists already"):
        run(tmp_path / "d", teacher(answer))
    assert open_dataset(tmp_path / "d").total == 0
    rest = teacher()
    assert run(tmp_path / "d", rest, replace_existing=True).total == TOTAL and not rest.requests
