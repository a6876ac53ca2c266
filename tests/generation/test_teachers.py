"""Several teachers in one run: exact shares, provenance, one that dies, resuming; and the lines that name them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bedrock_emulator.server import BedrockEmulator, Faults, Quota
from genesis_lab import generation
from genesis_lab.dataset import Dataset, open_dataset
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.domains.quotas import largest_remainder
from genesis_lab.errors import Fatal, GenesisError, InvalidInput, QuotaExhausted
from genesis_lab.generation import config_for
from genesis_lab.generation.engine import generate
from genesis_lab.generation.estimate import Estimate
from genesis_lab.generation.limiter import Ledger, Limits
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.scheduler import Scheduler
from genesis_lab.generation.teachers import Teacher, connect, divide
from genesis_lab.health import check_teachers
from genesis_lab.parameters import from_parameters
from genesis_lab.providers import FORMS, ModelSpec, parse_spec
from genesis_lab.providers.asking import Asking
from genesis_lab.providers.openai import OpenAIProvider
from genesis_lab.settings import get_settings
from scripted import ScriptedProvider

MICRO = "amazon.nova-micro-v1:0"
TOTAL = 40
DOMAIN = Conversations(ConversationsConfig(total=TOTAL, categories=("refunds",)))
PLAN = make_plan(DOMAIN, TOTAL, 7)
WHOLE = make_plan(Conversations(ConversationsConfig(total=770)), 770, 3)


def teacher(
    name: str, share: float = 1.0, *, dies_after: int | None = None, error: GenesisError | None = None
) -> Teacher:
    """A model without a fault, until it dies."""
    specs = {spec.seed: spec for spec in PLAN.specs}

    def script(request, _):
        if dies_after is not None and len(provider.requests) > dies_after:
            return error or Fatal("access denied")
        again = next(n for n in range(9) if request.seed - n in specs)
        return DOMAIN.offline_text(specs[request.seed - again], 0)

    provider = ScriptedProvider(script, concurrency=3, price_usd=0.01)
    provider.model = name
    return Teacher(provider, name, share, Scheduler(provider, Ledger(Limits(6_000_000))))


def run(target: Path, *teachers: Teacher, **options) -> Dataset:
    return generate(PLAN, DOMAIN, teachers, target, **options)


def writers(dataset: Dataset) -> Counter[str]:
    return Counter(p["model"] for p in dataset.frame()["provenance"])


# --- lines that name them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("offline", ModelSpec("offline")),
        ("bedrock", ModelSpec("bedrock")),
        (f"bedrock:{MICRO}", ModelSpec("bedrock", MICRO)),
        (f" bedrock:{MICRO}@eu-west-1", ModelSpec("bedrock", MICRO, region="eu-west-1")),
        (f"bedrock:us.{MICRO}@us-gov-east-1", ModelSpec("bedrock", f"us.{MICRO}", region="us-gov-east-1")),
        ("openai:gpt-5-mini", ModelSpec("openai", "gpt-5-mini")),
        ("openai:Qwen/Qwen3-4B@http://a:8000/v1,http://b:8000/v1",
         ModelSpec("openai", "Qwen/Qwen3-4B", ("http://a:8000/v1", "http://b:8000/v1"))),
        ("ollama:llama3.1:8b", ModelSpec("openai", "llama3.1:8b", ("http://localhost:11434/v1",))),
        ("local:smollm2", ModelSpec("local", "smollm2")),
        ("local:HuggingFaceTB/SmolLM2-360M-Instruct", ModelSpec("local", "HuggingFaceTB/SmolLM2-360M-Instruct")),
        ("openai:@cf/meta/llama-3.1-8b", ModelSpec("openai", "@cf/meta/llama-3.1-8b")),
        ("openai:m @ http://[::1]:8000/v1, http://b/v1", ModelSpec("openai", "m", ("http://[::1]:8000/v1", "http://b/v1"))),
        ("openai:@cf/meta/llama@https://a.example/v1", ModelSpec("openai", "@cf/meta/llama", ("https://a.example/v1",))),
        ("openai:claude-3-5-sonnet@20240620", ModelSpec("openai", "claude-3-5-sonnet@20240620")),
        ("ollama:m@http://localhost:11434/v1", ModelSpec("openai", "m", ("http://localhost:11434/v1",))),
        ("local:/models/x@v2", ModelSpec("local", "/models/x@v2")),
        ("local:/models/x@us-east-1", ModelSpec("local", "/models/x@us-east-1")),
        ("local:models/x.gguf", ModelSpec("local", "models/x.gguf")),
    ],
)  # fmt: skip
def test_a_line_names_a_provider_and_its_model(line, named):
    assert parse_spec(line) == named


@pytest.mark.parametrize(
    "line",
    [
        "",
        "gpt-5",
        "azure:gpt-5",
        "bedrock:x@http://a/v1",
        "bedrock:x@v2",
        "openai:m@somewhere",
        "openai:m@localhost:8000/v1",
        "openai:m@127.0.0.1:8000",
        "llamacpp:x.gguf",
    ],
)
def test_a_line_that_names_no_model_is_told_the_forms(line):
    with pytest.raises(InvalidInput) as error:
        parse_spec(line)
    assert all(form in str(error.value) for form in FORMS)
    with pytest.raises(InvalidInput, match="names no model"):
        from_parameters(config_for(), {"teachers": [line]})


SECRET = "hunter2-or-so"


@pytest.mark.parametrize(
    "address",
    [
        f"http://me:{SECRET}@localhost:8000/v1", f"me:{SECRET}@host:8000/v1", f"https://{SECRET}@a.example/v1",
        f"https://me:{SECRET}@x@a.example/v1", f"https://me:{SECRET}/x@a.example/v1", f"https://a.example/v1?key={SECRET}",
    ],
)  # fmt: skip
def test_an_address_with_a_password_is_refused_and_never_repeated(address):
    tries = (
        lambda: parse_spec(f"openai:m@{address}"),
        lambda: parse_spec(f"azure:m@{address}"),
        lambda: ModelSpec("openai", "m", (address,)),
        lambda: OpenAIProvider("m", [address]),
        lambda: from_parameters(config_for(), {"provider": "openai", "model": "m", "base_urls": [address]}),
        lambda: from_parameters(config_for(), {"teachers": [f"ollama:m@{address}", "offline"]}),
        lambda: check_teachers(f"openai:m@{address}"),
    )
    for attempt in tries:
        with pytest.raises(InvalidInput) as error:
            attempt()
        assert SECRET not in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("address", ["ftp://a/v1", "http://", "http://h:80x/v1", "http://a b/v1", ""])
def test_an_address_that_is_none_is_named(address):
    with pytest.raises(InvalidInput, match="http://localhost:11434/v1"):
        OpenAIProvider("m", [address])


def test_labels_hold_neither_addresses_nor_account_numbers():
    arn = "arn:aws:bedrock:us-east-1:000000000000:inference-profile/us.x"
    assert parse_spec(f"bedrock:{arn}@us-east-1").label == "bedrock:us.x@us-east-1"
    assert parse_spec("openai:m@http://somewhere:8000/v1").label == "openai:m"


@pytest.mark.parametrize(
    ("teachers", "sentence"),
    [
        (["openai:m@http://a/v1", "openai:m@http://b/v1"], "openai:m is named twice"),
        (["local", "local:smollm2"], "local:smollm2 is named twice"),
        ({"offline": -0.5}, r"teachers.offline must be at least 0, got -0\.5"),
        ({"offline": 0}, "teachers: at least one must have a share"),
        (7, "teachers must be a mapping of names to values, got 7"),
    ],
)
def test_shares_that_make_no_sense_are_one_sentence(teachers, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        from_parameters(config_for(), {"teachers": teachers})


@pytest.mark.parametrize(
    "teachers", [["offline", "local"], ("offline", "local", "local"), {"offline": 3, "local": 3.0, "openai:m": 0}]
)
def test_teachers_without_shares_get_equal_ones(teachers):
    assert from_parameters(config_for(), {"teachers": teachers}).teachers == {"offline": 0.5, "local": 0.5}


def test_teachers_on_one_quota_share_its_ledger_and_others_do_not(monkeypatch):
    monkeypatch.setenv("GENESIS_AWS_REGION", "us-east-1")
    get_settings.cache_clear()
    here, same, there = (connect(f"bedrock:{MICRO}{at}") for at in ("", "@us-east-1", "@eu-west-1"))
    assert here.scheduler.ledger is same.scheduler.ledger is not there.scheduler.ledger
    assert connect("ollama:x", tokens_per_minute=5).scheduler.ledger.limits.tokens_per_minute == float("inf")
    assert connect("openai:x", tokens_per_minute=5).scheduler.ledger.limits.tokens_per_minute == 5
    assert connect("offline").scheduler is None


# --- shares -----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.dictionaries(st.sampled_from("abcdef"), st.floats(0.01, 1), min_size=1, max_size=5))
def test_a_plan_is_divided_exactly_and_evenly_whatever_the_order(shares):
    who = [Teacher(ScriptedProvider([""]), name, share) for name, share in shares.items()]
    chosen = divide(WHOLE, who)
    assert chosen == divide(WHOLE, who[::-1])
    counts = largest_remainder(dict(sorted(shares.items())), len(WHOLE.specs))
    assert Counter(chosen) == Counter(counts)
    for attribute, values in WHOLE.counts().items():
        found = Counter((name, spec.attributes[attribute]) for name, spec in zip(chosen, WHOLE.specs, strict=True))
        for value, n in values.items():
            assert all(abs(found[name, value] - n * count / 770) <= 6 for name, count in counts.items())


def test_every_teacher_writes_of_every_intent_and_of_most_in_both_languages():
    chosen = divide(WHOLE, [teacher("a"), teacher("b")])
    cells = Counter(
        (t, s.attributes["intent"], s.attributes["language"]) for t, s in zip(chosen, WHOLE.specs, strict=True)
    )
    assert len({cell[:2] for cell in cells}) == 2 * 77 and len(cells) >= 0.98 * 4 * 77


def test_records_say_who_wrote_them_and_the_manifest_has_an_account_of_each(tmp_path):
    seen: list[Asking] = []
    data = run(tmp_path / "d", teacher("a", 3), teacher("b", 1), on_progress=seen.append)
    assert writers(data) == {"a": 30, "b": 10}
    m = data.manifest
    assert m["generation"]["teachers"] == {"a": 0.75, "b": 0.25} and m["generation"]["model"] == "a, b"
    told = {t["teacher"]: t for t in m["teachers"]}
    assert told["a"]["accepted"] == 30 and told["b"]["cost_usd"] == pytest.approx(0.10)
    assert m["cost_usd"] == pytest.approx(sum(t["cost_usd"] for t in m["teachers"]))
    assert m["usage"]["completion_tokens"] == sum(t["usage"]["completion_tokens"] for t in m["teachers"])
    last = seen[-1]
    assert (last.done, last.total, last.eta_s) == (40, 40, 0.0) and last.cost_usd == pytest.approx(0.40)
    assert "a: 30 of 30" in last.details[0] and "of 6,000,000 tokens used in the last minute" in last.details[0]


def test_a_price_that_one_teacher_does_not_know_makes_the_whole_unknown(tmp_path):
    free, unpriced = teacher("a"), teacher("b")
    unpriced.provider._price_usd = None
    data = run(tmp_path / "d", free, unpriced)
    assert data.manifest["cost_usd"] is None and data.manifest["teachers"][0]["cost_usd"] == pytest.approx(0.20)


# --- one dies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Fatal("access denied"), QuotaExhausted("Too many tokens per day.")])
def test_when_one_teacher_dies_the_others_finish_and_the_same_run_goes_on(tmp_path, error):
    with pytest.raises(GenesisError) as stopped:
        run(tmp_path / "d", teacher("a"), teacher("b", dies_after=5, error=error))
    said = str(stopped.value)
    assert "Teacher b stopped with 15 of its 20 records missing: " + str(error).rstrip(".") + "." in said
    assert "others have done their part" in said and "run the same again" in said
    a, b = teacher("a"), teacher("b")
    data = run(tmp_path / "d", a, b)
    assert writers(data) == {"a": 20, "b": 20} and data.manifest["complete"]
    assert a.provider.requests == [] and len(b.provider.requests) == 15
    assert data.manifest["cost_usd"] == pytest.approx(0.40)


def test_when_all_die_each_is_named(tmp_path):
    with pytest.raises(GenesisError, match=r"Teacher a stopped.*Teacher b stopped.*Everything so far is saved"):
        run(tmp_path / "d", teacher("a", dies_after=3), teacher("b", dies_after=0))


def test_an_interrupted_run_of_two_goes_on_to_the_same_records(tmp_path):
    whole = run(tmp_path / "whole", teacher("a"), teacher("b"))

    def interrupt(progress):
        if progress.done >= 8:
            raise KeyboardInterrupt

    with pytest.raises(GenesisError, match="run the same again"):
        run(tmp_path / "cut", teacher("a"), teacher("b"), on_progress=interrupt)
    a, b = teacher("a"), teacher("b")
    data = run(tmp_path / "cut", b, a)
    assert data.content_hash == whole.content_hash
    assert len(a.provider.requests) + len(b.provider.requests) < TOTAL


@pytest.mark.parametrize(
    ("again", "sentence"),
    [
        ((teacher("a", 2), teacher("b")), r"teachers was .*'a': 0.5.*, now .*'a': 0.666667"),
        ((teacher("a"), teacher("c")), "model was 'a, b', now 'a, c'"),
        ((teacher("a"),), r"model was 'a, b', now 'a'.*teachers was .*, now None"),
    ],
)
def test_changed_teachers_are_named(tmp_path, again, sentence):
    run(tmp_path / "done", teacher("a"), teacher("b"))
    with pytest.raises(InvalidInput, match=sentence):
        run(tmp_path / "done", *again)
    with pytest.raises(GenesisError):
        run(tmp_path / "half", teacher("a"), teacher("b", dies_after=0))
    with pytest.raises(InvalidInput, match=sentence):
        run(tmp_path / "half", *again)


def test_an_unteachable_teacher_does_not_use_up_the_tries_of_the_others(tmp_path):
    bad = teacher("bad")
    bad = replace(bad, provider=(deaf := ScriptedProvider(["no JSON"], concurrency=2)), scheduler=None)
    deaf.model = "bad"
    with pytest.raises(GenesisError, match="Teacher bad stopped with 20 of its 20 records missing"):
        run(tmp_path / "d", teacher("good"), bad)
    assert len(deaf.requests) <= 20 + 2
    assert writers(run(tmp_path / "d", (good := teacher("good")), teacher("bad"))) == {"good": 20, "bad": 20}
    assert good.provider.requests == []


@pytest.mark.parametrize(
    ("cost", "seconds", "batch", "told"),
    [
        (None, None, False, ("unknown", "unknown")),
        (0.0, 3.0, False, ("0.00 USD", "under a minute")),
        (0.004, 600.0, False, ("under 0.01 USD", "about 10 min")),
        (1234.5, 9000.0, False, ("1,234.50 USD", "about 2.5 h")),
        (1.0, None, True, ("1.00 USD", "within 24 hours, usually less")),
    ],
)
def test_what_is_not_known_is_said_to_be_unknown(cost, seconds, batch, told):
    estimate = Estimate(1, 1, 1, cost, seconds, batch)
    assert (estimate.cost, estimate.time) == told


# --- two regions of one model -----------------------------------------------------------------------------------------


@pytest.fixture
def bedrock(monkeypatch):
    quota = Quota(tokens_per_minute=3_000_000)
    with BedrockEmulator(quota=quota, faults=Faults(unavailable=0.03), malformed=0.1) as server:
        for name, value in (
            ("AWS_ACCESS_KEY_ID", "emulated"),
            ("AWS_SECRET_ACCESS_KEY", "emulated"),
            ("GENESIS_AWS_REGION", "us-east-1"),
            ("GENESIS_BEDROCK_ENDPOINT_URL", server.url),
        ):
            monkeypatch.setenv(name, value)
        get_settings.cache_clear()
        yield server


def test_two_regions_of_a_model_are_two_quotas_of_one_run(bedrock):
    east, west = f"bedrock:{MICRO}", f"bedrock:{MICRO}@us-west-2"
    config = config_for()(
        teachers={east: 2, west: 1}, categories=("refunds",), total=60, seed=7, tokens_per_minute=3_000_000, dataset="two"
    )  # fmt: skip
    parts = config.estimates()
    assert [parts[name].requests for name in (east, west)] == [40, 20]
    tokens = parts[east].prompt_tokens + parts[east].completion_tokens
    assert config.estimate().time_s == parts[east].time_s == pytest.approx(60 * tokens / 3_000_000)
    data = generation.generate(config)
    assert data.total == 60 and data.manifest["complete"]
    assert [(t["teacher"], t["accepted"]) for t in data.manifest["teachers"]] == [(east, 40), (west, 20)]
    arrived = bedrock.stats().regions
    assert arrived["us-east-1"] > arrived["us-west-2"] >= 20
    openings = open_dataset("two_openings").manifest
    both = [*data.manifest["teachers"], *openings["teachers"]]
    assert sum(t["attempts"] for t in both) == bedrock.stats().answered
