"""Several records by one request: exact N out of lists that are short, long, double or no lists; nothing paid twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.domains import DOMAINS
from genesis_lab.errors import Fatal, GenesisError, Incomplete, ParseFailure, Rejected
from genesis_lab.generation.engine import generate
from genesis_lab.generation.estimate import estimate
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.teachers import Teacher
from genesis_lab.providers.base import Completion, Request, Usage
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.providers.offline import OfflineProvider
from scripted import ScriptedProvider
from toy_domain import SCHEMA, Prompt, Reviews

TOTAL = 40


class Slogans(Reviews):
    """Reviews of which five of a product are asked for at once, one a line."""

    list_size = 5

    def list_key(self, spec):
        return spec.attributes["product"]

    def list_prompt(self, specs, known):
        asked = {"product": self.list_key(specs[0]), "n": len(specs), "known": [answer["said"] for answer in known]}
        return Prompt("Write reviews, one a line.", (("user", json.dumps(asked)),), SCHEMA, "reviews")

    def parse_list(self, text, specs):
        lines = text.splitlines()
        if not lines or not lines[0].startswith("- "):
            raise ParseFailure("the answer holds no list")
        said = [{"said": line[2:]} if len(line) < 80 else f"line {n} is too long" for n, line in enumerate(lines)]
        return [*said, *["the list ends before this one"] * len(specs)][: len(specs)]


DOMAIN = Slogans()
PLAN = make_plan(DOMAIN, TOTAL, 7)


def asked(request: Request) -> dict[str, Any]:
    return json.loads(request.messages[0][1])


def again(request: Request) -> bool:
    return "can't be used" in request.messages[-1][1]


def lines(request: Request) -> list[str]:
    """What a model without a fault writes: new lines for a product of which it sees `known`."""
    a = asked(request)
    new = (said for i in count() if (said := f"My {a['product']} says {i}") not in a["known"])
    return [f"- {said}" for said in islice(new, a["n"])]


def good(request: Request) -> str:
    return "\n".join(lines(request))


def model(answer: Callable[[Request], Any] = good, wide: int = 4, name: str = "script") -> ScriptedProvider:
    provider = ScriptedProvider(lambda r, _: answer(r), price_usd=0.1, concurrency=wide)
    provider.model = name
    return provider


def run(target: Path, provider: Any, **options: Any) -> Dataset:
    return generate(PLAN, DOMAIN, provider, target, **options)


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DOMAINS, "reviews", "toy_domain:Reviews")


@pytest.fixture
def cache(tmp_path: Path) -> CompletionCache:
    return CompletionCache(tmp_path / "cache" / "c.sqlite")


def test_each_record_has_its_attributes_and_its_part_of_one_request(tmp_path: Path) -> None:
    provider = model(lambda r: Completion(good(r), "m", Usage(101, 33), cost_usd=0.7))
    data = run(tmp_path / "d", provider)
    assert data.total == TOTAL and data.manifest["complete"] and len(provider.requests) == TOTAL / 5
    frame = data.frame()
    assert frame["said"].is_unique and all(a in b for a, b in zip(frame["product"], frame["said"], strict=True))
    assert frame["stars"].value_counts().to_dict() == {"good": 20, "fair": 12, "poor": 8}
    tokens = [[p["prompt_tokens"], p["completion_tokens"]] for p in frame["provenance"]]
    assert np.sum(tokens, 0).tolist() == [101 * 8, 33 * 8] == list(data.manifest["usage"].values())[:2]
    assert data.manifest["cost_usd"] == pytest.approx(0.7 * 8) and data.manifest["attempts"] == 8
    assert Counter(p["request_key"] for p in frame["provenance"]).most_common()[0][1] == 5


def test_a_list_shows_what_is_there_already_of_its_key(tmp_path: Path) -> None:
    provider = model()
    run(tmp_path / "d", provider)
    for product in ("kettle", "lamp"):
        shown = [asked(r)["known"] for r in provider.requests if asked(r)["product"] == product]
        assert [len(known) for known in shown] == [0, 5, 10, 15]
        assert shown[-1] == [f"My {product} says {i}" for i in range(15)]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (lambda r: lines(r)[:3], "the list ends before this one"),
        (lambda r: lines(r) * 2, None),
        (lambda r: [lines(r)[0]] * 5, "it says the same as an earlier record: word it differently"),
        (lambda r: [*lines(r)[:2], "- " + "x" * 90, *lines(r)[3:]], "line # is too long"),
    ],
    ids=["fewer", "more", "the same", "too long"],
)
def test_lines_that_are_missing_or_of_no_use_are_asked_for_with_the_next_list(tmp_path: Path, wrong, reason) -> None:
    provider = model(lambda r: "\n".join(wrong(r)))
    data = run(tmp_path / "d", provider)
    assert data.total == TOTAL and data.frame()["said"].is_unique and data.manifest["complete"]
    assert list(data.manifest["drop_reasons"]) == ([reason] if reason else [])
    accepted = TOTAL + sum(data.manifest["drop_reasons"].values())
    assert accepted == sum(asked(r)["n"] for r in provider.requests)


@pytest.mark.parametrize("bad", ["", "Sure, here they are!", Rejected("a content filter")])
def test_what_is_no_list_is_asked_for_again_and_told_why(tmp_path: Path, cache: CompletionCache, bad: Any) -> None:
    turns = Counter[str]()

    def answer(request: Request) -> Any:
        place = f"{asked(request)['product']} {len(asked(request)['known'])}"
        turns[place] += 1
        return bad if turns[place] < 2 else good(request)

    provider = model(answer)
    data = run(tmp_path / "d", provider, cache=cache)
    assert data.total == TOTAL and len(provider.requests) == 2 * 8 == data.manifest["attempts"]
    assert sum(map(again, provider.requests)) == (0 if isinstance(bad, Rejected) else 8)
    assert len({r.key for r in provider.requests}) == 16
    elsewhere = ScriptedProvider([Fatal("must not be asked")])
    assert run(tmp_path / "other", elsewhere, cache=cache).content_hash == data.content_hash


def messy(request: Request) -> Any:
    """Short, double and no lists, by what is asked."""
    seen = len(asked(request)["known"])
    if seen % 3 == 1 and not again(request):
        return "no list"
    return "\n".join([*lines(request)[:3], lines(request)[0]])


@pytest.mark.parametrize("stop", range(1, 15, 2))
def test_no_request_is_paid_twice_wherever_a_run_was_stopped(tmp_path: Path, stop: int) -> None:
    whole = run(tmp_path / "whole", model(messy, 1))
    sent: list[str] = []

    def interrupted(request: Request) -> Any:
        if len(sent) == stop:
            raise KeyboardInterrupt
        sent.append(request.key)
        return messy(request)

    with pytest.raises(GenesisError, match="Interrupted"):
        run(tmp_path / "d", model(interrupted, 1))
    rest = model(messy)
    data = run(tmp_path / "d", rest)
    keys = [*sent, *(r.key for r in rest.requests)]
    assert data.content_hash == whole.content_hash
    assert len(keys) == len(set(keys)) == whole.manifest["attempts"] == data.manifest["attempts"]


def test_the_order_in_which_lists_come_is_no_matter(tmp_path: Path, cache: CompletionCache) -> None:
    hashes = {run(tmp_path / str(wide), model(messy, wide), cache=None).content_hash for wide in (1, 2, 7)}
    cached = run(tmp_path / "c", model(messy), cache=cache)
    again = ScriptedProvider([Fatal("must not be asked")], concurrency=3)
    assert run(tmp_path / "again", again, cache=cache).content_hash == cached.content_hash
    assert hashes == {cached.content_hash}


SCENARIO = """
import os, signal, sys
from pathlib import Path
from generation.test_lists import CompletionCache, Path, asked, messy, model, run
from genesis_lab.domains import DOMAINS
from genesis_lab.generation.journal import Journal
DOMAINS["reviews"] = "toy_domain:Reviews"
folder, after, cut = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
cache, sent = CompletionCache(folder / "c.sqlite"), (folder / "sent").open("a", buffering=1)
append, count = Journal.append, iter(range(10**6))
def dying(self, line):
    if next(count) == after:
        if cut:
            self._file.write(b'{"kind":"attempt","specs":[{"index":3,"finge')
        os.kill(os.getpid(), signal.SIGKILL)
    return append(self, line)
Journal.append = dying
keep = cache.put
def put(key, completion):
    keep(key, completion)
    print(key, file=sent)  # what was on its way to be kept when the process died can't be known
cache.put = put
run(folder / "d", model(messy, 3), cache=cache)
"""


@pytest.mark.parametrize(("after", "cut"), [(1, 0), (7, 1)])
def test_kill_9_costs_no_second_answer(tmp_path: Path, after: int, cut: int) -> None:
    env = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    whole = run(tmp_path / "whole", model(messy))
    for death in (after, 3, 10**6):
        ended = subprocess.run([sys.executable, "-c", SCENARIO, tmp_path, str(death), str(cut)], env=env, check=False)
        assert ended.returncode == (0 if death == 10**6 else -signal.SIGKILL)
    keys = (tmp_path / "sent").read_text().split()
    assert open_dataset(tmp_path / "d").content_hash == whole.content_hash
    assert max(Counter(keys).values()) == 1


def test_a_teacher_that_repeats_itself_ends_with_an_account(tmp_path: Path) -> None:
    parrot = model(lambda r: "\n".join(f"- A {asked(r)['product']} is a thing {i}" for i in range(5)))
    with pytest.raises(Incomplete, match=r"30 of 40 records are missing in .* says the same as an earlier record"):
        run(tmp_path / "d", parrot)
    data = open_dataset(tmp_path / "d")
    assert data.total == 10 and data.manifest["missing"] == 30 and not data.manifest["complete"]
    assert len(parrot.requests) <= 3 * (TOTAL * 1.5 + 20) / 5
    rest = model(lambda r: good(r) + "!")
    assert run(tmp_path / "d", rest).total == TOTAL


def test_several_teachers_see_each_others_records_and_one_that_dies_leaves_the_others_their_part(
    tmp_path: Path,
) -> None:
    def two(dies: int = 10**6) -> list[Teacher]:
        sent: list[Request] = []

        def mortal(request: Request) -> Any:
            sent.append(request)
            return Fatal("access denied") if len(sent) > dies else good(request)

        return [Teacher(model(name="a"), "a", 3), Teacher(model(mortal, name="b"), "b", 1)]

    with pytest.raises(GenesisError, match="Teacher b stopped with 5 of its 10 records missing: access denied"):
        run(tmp_path / "d", two(dies=1))
    a, b = two()
    data = run(tmp_path / "d", [a, b])
    assert Counter(p["model"] for p in data.frame()["provenance"]) == {"a": 30, "b": 10}
    assert not a.provider.requests and len(b.provider.requests) <= 2
    assert data.frame()["said"].is_unique
    told = {one["teacher"]: one for one in data.manifest["teachers"]}
    assert (told["a"]["accepted"], told["b"]["accepted"]) == (30, 10)


def test_what_costs_nothing_is_not_asked_for_in_lists_and_its_records_are_shown(tmp_path: Path) -> None:
    paid = model()
    who = [Teacher(OfflineProvider(), "offline", 1), Teacher(paid, "m", 1)]
    data = run(tmp_path / "d", who)
    assert data.total == TOTAL and Counter(p["provider"] for p in data.frame()["provenance"]) == {
        "offline": 20,
        "scripted": 20,
    }
    assert all(any("as my number" in said for said in asked(r)["known"]) for r in paid.requests)


def test_the_estimate_counts_lists(tmp_path: Path, cache: CompletionCache) -> None:
    who = [Teacher(model(), "m")]
    part = estimate(PLAN, DOMAIN, who)["m"]
    assert part.requests == 8 and part.completion_tokens == TOTAL * 60 / 4
    alone = estimate(PLAN, Reviews(), who)["m"]
    assert alone.requests == TOTAL and part.prompt_tokens > alone.prompt_tokens / 5
    assert estimate(PLAN, DOMAIN, who, lambda teacher, task: True)["m"].requests == 0
