from __future__ import annotations

import errno
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from genesis_lab.dataset import Dataset
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import Fatal, GenesisError, InvalidInput, Rejected
from genesis_lab.generation import journal as journal_module
from genesis_lab.generation.engine import generate
from genesis_lab.generation.journal import Journal
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.asking import Asking
from genesis_lab.providers.base import Request
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.providers.offline import OfflineProvider
from scripted import ScriptedProvider

SCENARIO = Path(__file__).with_name("scenario.py")
TOTAL = "1500"


def small_domain(total: int = 12, **options) -> Conversations:
    return Conversations(ConversationsConfig(total=total, categories=("refunds",), **options))


def run(target: Path, provider, total: int = 12, domain: Conversations | None = None, **options) -> Dataset:
    domain = domain or small_domain(total)
    return generate(make_plan(domain, total, 7), domain, provider, target, **options)


def good_answer(request: Request, domain: Conversations, specs) -> str:
    """What a faultless model would send for the spec whose seed the request carries."""
    spec = next(s for s in specs if s.seed == request.seed)
    return domain.offline_text(spec, 0)


def asked_again(request: Request) -> bool:
    return "can't be used" in request.messages[-1][1]


def faulty(faults, domain: Conversations, total: int, share: float = 0.5):
    """A model that answers wrongly with `share` probability, always recovering when asked again."""
    specs = make_plan(domain, total, 7).specs

    def script(request: Request, rng: np.random.Generator):
        if not asked_again(request) and rng.random() < share:
            return faults[int(rng.integers(len(faults)))]
        return good_answer(request, domain, specs)

    return script


def test_offline_run_gives_exactly_the_plan(tmp_path):
    dataset = run(tmp_path / "d", OfflineProvider(), total=60)
    frame = dataset.frame()
    assert len(frame) == 60 and frame["conversation_id"].is_unique
    assert dataset.manifest["complete"] and dataset.manifest["missing"] == 0
    for name in ("language", "sentiment", "resolution_status"):
        assert frame[name].value_counts().to_dict() == {k: v for k, v in dataset.manifest["plan"][name].items() if v}


def test_same_settings_give_the_same_bytes_and_a_finished_run_is_not_repeated(tmp_path):
    first, second = run(tmp_path / "a", OfflineProvider()), run(tmp_path / "b", OfflineProvider())
    assert first.content_hash == second.content_hash
    assert [p.read_bytes() for p in first.parts()] == [p.read_bytes() for p in second.parts()]
    provider = ScriptedProvider([Fatal("must not be asked")])
    provider.name, provider.model, provider.free = "offline", "grammar", True
    assert run(tmp_path / "a", provider).content_hash == first.content_hash
    assert provider.requests == []


def test_changed_settings_on_a_finished_dataset_are_named_and_refused(tmp_path):
    run(tmp_path / "d", OfflineProvider())
    with pytest.raises(InvalidInput, match="total was 12, now 14"):
        run(tmp_path / "d", OfflineProvider(), total=14)
    assert run(tmp_path / "d", OfflineProvider(), total=14, replace_existing=True).total == 14


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What the scenario writes undisturbed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "whole"
    subprocess.run([sys.executable, SCENARIO, folder, TOTAL], check=True)
    return folder


@pytest.mark.parametrize("seed", range(3))
def test_kill_at_any_moment_then_the_same_command_equals_an_uninterrupted_run(tmp_path, seed, whole):
    killed = tmp_path / "killed"
    rng = random.Random(seed)
    for _ in range(2):
        process = subprocess.Popen([sys.executable, SCENARIO, killed, TOTAL])
        journal = tmp_path / "killed.run" / "journal.jsonl"
        while process.poll() is None and not journal.exists():
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
    if journal.exists():
        with journal.open("ab") as file:
            file.write(b'{"kind":"attempt","index":3,"outc')
    subprocess.run([sys.executable, SCENARIO, killed, TOTAL], check=True)
    files = sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(killed) for p in killed.rglob("*") if p.is_file())
    for name in files:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert not (tmp_path / "killed.run").exists()


FAULTS = [
    "Sure! Here is a lovely conversation about refunds.",
    '{"turns": [{"speaker": "customer", "text": "Where is my ref',
    '{"turns": []}',
    '{"conversation": "none"}',
    "[]",
    json.dumps({"turns": [{"speaker": "robot", "text": "Hello, how are you?"}, {"speaker": "user", "text": "Fine"}]}),
    json.dumps({"turns": [{"speaker": "bot", "text": f"Hello, this is {name}!"} for name in ("A", "B", "C")]}),
    json.dumps({"turns": [{"speaker": "customer", "text": "hello " * 3}] * 10_000}),
    json.dumps({"turns": [{"speaker": "customer", "text": "<script>alert(1)</script> refund"}, {"speaker": "agent", "text": "OK, done."}]}),
    json.dumps({"turns": [{"speaker": "customer", "text": "nul \x00 inside"}, {"speaker": "agent", "text": "OK."}]}),
    json.dumps({"turns": [{"speaker": "customer", "text": "Où est mon remboursement, je ne comprends pas pourquoi il n'est toujours pas arrivé"}, {"speaker": "agent", "text": "Je vais vérifier cela tout de suite pour vous, merci de patienter un instant."}]}),
    json.dumps({"turns": [{"speaker": "customer", "text": "x" * 2000}, {"speaker": "agent", "text": "OK."}]}),
    json.dumps({"turns": "many"}),
    json.dumps({"turns": [1, 2, 3]}),
    "",
]  # fmt: skip


def test_every_kind_of_bad_answer_is_asked_for_again_and_the_plan_is_met(tmp_path):
    domain = small_domain(60)
    provider = ScriptedProvider(faulty(FAULTS, domain, 60), concurrency=4)
    dataset = run(tmp_path / "d", provider, 60, domain)
    assert dataset.total == 60 and dataset.manifest["complete"]
    assert dataset.manifest["drop_reasons"]
    assert any(asked_again(request) for request in provider.requests)


@pytest.mark.parametrize("fault", FAULTS)
def test_each_bad_answer_is_refused_with_a_reason(fault):
    from genesis_lab.errors import ParseFailure

    domain = small_domain()
    spec = next(s for s in domain.specs(12, 7) if s.attributes["complexity"] == "simple")
    with pytest.raises(ParseFailure) as failure:
        domain.parse(fault, spec)
    assert failure.value.reasons and min(map(len, failure.value.reasons)) > 10


def test_a_good_answer_in_a_fence_with_prose_formulas_and_emoji_is_taken(tmp_path):
    domain = small_domain(10)
    specs = make_plan(domain, 10, 7).specs

    def script(request, rng):
        turns = json.loads(good_answer(request, domain, specs))["turns"]
        turns[0]["text"] = f'=HYPERLINK("x") 🙂 {turns[0]["text"]}'
        return "Here you are:\n```json\n" + json.dumps({"turns": turns}) + "\n```\nEnjoy!"

    dataset = run(tmp_path / "d", ScriptedProvider(script), 10, domain)
    assert dataset.frame()["turns"].iloc[0][0]["text"].startswith('=HYPERLINK("x") 🙂')


def test_an_unteachable_model_ends_with_an_account_not_a_loop(tmp_path):
    provider = ScriptedProvider(["no JSON today"])
    with pytest.raises(GenesisError, match=r"first 20 requests .* 20 of them because: the answer holds no JSON object"):
        run(tmp_path / "d", provider)
    assert not (tmp_path / "d").exists() and len(provider.requests) == 20
    assert run(tmp_path / "d", OfflineProvider()).total == 12


def test_a_rejected_request_is_not_repeated_as_it_is(tmp_path):
    domain = small_domain()
    specs = make_plan(domain, 12, 7).specs
    seen = []

    def script(request, rng):
        if request.seed == specs[3].seed:
            seen.append(request.key)
            return Rejected("blocked by a content filter")
        return (
            good_answer(request, domain, specs)
            if any(s.seed == request.seed for s in specs)
            else domain.offline_text(specs[3], 1)
        )

    dataset = run(tmp_path / "d", ScriptedProvider(script), domain=domain)
    assert dataset.total == 12 and len(seen) == 1


def test_a_fatal_error_stops_the_run_and_what_was_paid_for_is_kept(tmp_path):
    domain = small_domain()
    specs = make_plan(domain, 12, 7).specs
    cache = CompletionCache(tmp_path / "cache.sqlite")
    calls = []

    def script(request, rng):
        calls.append(request.key)
        return Fatal("access denied") if len(calls) == 8 else good_answer(request, domain, specs)

    with pytest.raises(Fatal, match="access denied"):
        run(tmp_path / "d", ScriptedProvider(script, price_usd=0.01), domain=domain, cache=cache)
    assert not (tmp_path / "d").exists()
    again = ScriptedProvider(lambda r, _: good_answer(r, domain, specs), price_usd=0.01)
    dataset = run(tmp_path / "d", again, domain=domain, cache=cache)
    assert len(again.requests) == 5
    assert dataset.manifest["cost_usd"] == pytest.approx(0.12)
    elsewhere = ScriptedProvider([Fatal("must not be asked")])
    assert run(tmp_path / "other", elsewhere, domain=domain, cache=cache).content_hash == dataset.content_hash


def test_interrupting_keeps_what_is_accepted_and_says_how_to_go_on(tmp_path):
    domain = small_domain(40)

    def stop(progress: Asking):
        raise KeyboardInterrupt

    with pytest.raises(GenesisError, match="run the same again"):
        run(tmp_path / "d", OfflineProvider(), 40, domain, on_progress=stop)
    assert run(tmp_path / "d", OfflineProvider(), 40, domain).total == 40


def test_a_changed_plan_on_resume_is_named(tmp_path):
    domain = small_domain(40)
    with pytest.raises(GenesisError):
        run(
            tmp_path / "d",
            OfflineProvider(),
            40,
            domain,
            on_progress=lambda p: (_ for _ in ()).throw(KeyboardInterrupt),
        )
    with pytest.raises(InvalidInput, match="total was 40, now 50"):
        run(tmp_path / "d", OfflineProvider(), 50)


def test_a_full_disk_is_one_sentence_and_the_journal_stays_good(tmp_path, monkeypatch):
    real, left = Journal.append, [20]

    def full(self, entry):
        left[0] -= 1
        if left[0] < 0:
            raise journal_module.write_error(OSError(errno.ENOSPC, "No space left on device"), self.path)
        return real(self, entry)

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(GenesisError, match="disk is full"):
        run(tmp_path / "d", OfflineProvider(), 40)
    monkeypatch.undo()
    assert run(tmp_path / "d", OfflineProvider(), 40).total == 40


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_read_only_outputs_are_one_sentence(tmp_path, monkeypatch, code):
    def refused(*_, **__):
        raise OSError(code, "refused")

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(GenesisError, match="GENESIS_OUTPUT_ROOT"):
        run(tmp_path / "somewhere" / "d", OfflineProvider())


def test_outputs_below_a_file_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(GenesisError, match="can't be written"):
        run(tmp_path / "file" / "d", OfflineProvider())


def test_a_second_process_on_the_same_dataset_is_refused(tmp_path):
    from filelock import FileLock

    with FileLock(str(tmp_path / "d.run.lock")), pytest.raises(InvalidInput, match="Another process"):
        run(tmp_path / "d", OfflineProvider())


def test_no_two_records_open_alike(tmp_path):
    openings = run(tmp_path / "d", OfflineProvider(), 600).frame()["turns"].map(lambda turns: turns[0]["text"])
    assert openings.str.casefold().is_unique


def test_a_concurrent_run_overlaps_its_calls(tmp_path):
    domain = small_domain(32)
    specs = make_plan(domain, 32, 7).specs
    import threading

    gate = threading.Barrier(8, timeout=20)

    def script(request, rng):
        gate.wait()
        return good_answer(request, domain, specs)

    assert run(tmp_path / "d", ScriptedProvider(script, concurrency=8), 32, domain).total == 32
