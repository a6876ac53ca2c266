"""Provider bedrock, through unmodified boto3, against the emulator."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bedrock_emulator import wire
from bedrock_emulator.server import BedrockEmulator, Faults, Quota
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import Fatal, InvalidInput, QuotaExhausted, Rejected, Throttled, Transient, Unreachable
from genesis_lab.generation.engine import Sampling, generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.base import Request, Usage
from genesis_lab.providers.bedrock import BedrockProvider, Target, converse_body
from genesis_lab.providers.bedrock_batch import record_line
from genesis_lab.providers.models import ModelInfo, base_model_id, default_model, model_info
from genesis_lab.settings import Settings

RECORDED = Path(__file__).with_name("bedrock_requests.json")
MICRO = "amazon.nova-micro-v1:0"
HAIKU = "anthropic.claude-haiku-4-5-20251001-v1:0"
SCHEMA = {
    "type": "object",
    "properties": {"turns": {"type": "array", "items": {"type": "object", "properties": {"text": {"type": "string", "maxLength": 9}}}}},
    "required": ["turns"],
}  # fmt: skip
ASK = Request(key="k1", system="You write chats.", messages=(("user", "Write one."),), schema=SCHEMA, max_tokens=500)


@pytest.fixture(autouse=True)
def fake_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "emulated"), ("SECRET_ACCESS_KEY", "emulated"), ("CONFIG_FILE", "/nowhere")):
        monkeypatch.setenv(f"AWS_{name}", value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def emulator() -> Iterator[BedrockEmulator]:
    with BedrockEmulator(answers="fixed") as server:
        yield server


@pytest.fixture(scope="module")
def faulty() -> Iterator[BedrockEmulator]:
    """An emulator whose faults a test sets."""
    with BedrockEmulator(answers="fixed") as server:
        yield server


@pytest.fixture(scope="module")
def unlucky(faulty: BedrockEmulator) -> BedrockProvider:
    """A provider that has found its model already."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "emulated")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "emulated")
        provider = connect(faulty)
        provider.complete(ASK)
    return provider


def connect(
    server: BedrockEmulator, model: str | None = MICRO, region: str = "us-east-1", **settings: object
) -> BedrockProvider:
    given = {"aws_region": region, "bedrock_endpoint_url": server.url} | settings
    return BedrockProvider(model, settings=Settings(_env_file=None, **given))  # type: ignore[arg-type]


def with_faults(**options: object) -> BedrockEmulator:
    return BedrockEmulator(answers="fixed", **options)  # type: ignore[arg-type]


# --- answers ------------------------------------------------------------------------------------------------------


def test_an_answer_has_text_usage_cost_and_time(emulator: BedrockEmulator) -> None:
    completion = connect(emulator).complete(ASK)
    assert json.loads(completion.text)["turns"]
    assert completion.stop_reason == "end" and completion.model == MICRO and completion.created_at is not None
    usage = completion.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0
    assert completion.cost_usd == pytest.approx((usage.prompt_tokens * 0.035 + usage.completion_tokens * 0.14) / 1e6)


def test_the_default_model_answers_in_one_call(emulator: BedrockEmulator) -> None:
    provider = connect(emulator, None)
    before = emulator.stats().requests
    completion = provider.complete(ASK)
    assert json.loads(completion.text)["turns"] and completion.model == f"us.{default_model()}"
    assert emulator.stats().requests == before + 1


def test_an_answer_cut_at_max_tokens_is_an_outcome_not_an_error(emulator: BedrockEmulator) -> None:
    completion = connect(emulator, "emulated.plain-v1:0").complete(
        Request(key="cut", messages=ASK.messages, max_tokens=5)
    )
    assert completion.stop_reason == "max_tokens" and completion.usage.completion_tokens == 5


def test_a_stable_prefix_is_written_to_the_cache_once_and_read_from_then_on(emulator: BedrockEmulator) -> None:
    provider = connect(emulator, HAIKU)
    examples = (("user", "x" * 12_000), ("assistant", "y" * 12_000))
    requests = [Request(f"c{i}", "s", (*examples, ("user", f"now {i}")), stable_messages=2) for i in range(2)]
    first, second = (provider.complete(request) for request in requests)
    assert first.usage.cache_write_tokens > 6000 and first.usage.cache_read_tokens == 0
    assert second.usage.cache_read_tokens == first.usage.cache_write_tokens
    assert second.usage.prompt_tokens < 10
    assert second.cost_usd is not None and first.cost_usd is not None and second.cost_usd < first.cost_usd / 3


# --- structured output and other habits of models --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "mode", "calls"),
    [
        (HAIKU, "json_schema", 1),  # takes a schema
        ("emulated.old-v1:0", "json_schema", 1),  # unknown to us: the schema is tried first
        (MICRO, "tool", 1),  # known to want a forced tool
        ("emulated.newest-v1:0", "prompt", 4),  # refuses sampling, schema and forced tool, one after the other
        ("emulated.plain-v1:0", "prompt", 3),
    ],
)
def test_what_a_model_refuses_is_stepped_down_and_remembered(
    emulator: BedrockEmulator, model: str, mode: str, calls: int
) -> None:
    provider = connect(emulator, model)
    request = Request("step", "s", ASK.messages, SCHEMA, temperature=0.7, max_tokens=500)
    before = emulator.stats().requests
    assert json.loads(provider.complete(request).text)["turns"]
    assert emulator.stats().requests - before == calls
    provider.complete(request)
    forms = (*provider.info.structured_output, "prompt")
    assert next(form for form in forms if form not in provider.refusals.left_out()) == mode
    provider.complete(request)
    assert emulator.stats().requests - before == 2 * calls + 1, "what was refused twice is not sent any more"


def test_a_refusal_for_another_reason_is_not_mistaken_for_one_of_form(emulator: BedrockEmulator) -> None:
    with pytest.raises(Rejected, match="blank"):
        connect(emulator).complete(Request("blank", "s", (("user", " "),), SCHEMA))


def test_a_model_that_fell_silent_on_schema_keeps_the_schema_in_the_prompt(emulator: BedrockEmulator) -> None:
    provider = connect(emulator, "emulated.plain-v1:0")
    for _ in range(2):
        assert provider.complete(ASK).not_sent == ("json_schema",)
    assert '"turns"' in converse_body(ASK, provider.info, provider.refusals.left_out())["system"][0]["text"]


# --- which id answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "region", "called"),
    [
        (MICRO, "us-east-1", MICRO),
        ("amazon.nova-lite-v1:0", "us-east-1", "amazon.nova-lite-v1:0"),
        (HAIKU, "us-west-2", f"us.{HAIKU}"),
        (f"us.{HAIKU}", "us-east-1", f"us.{HAIKU}"),
    ],
)
def test_a_bare_id_is_called_directly_or_through_the_nearest_profile(
    emulator: BedrockEmulator, model: str, region: str, called: str
) -> None:
    assert connect(emulator, model, region).target().call_id == called


def test_global_profiles_are_used_only_by_permission(emulator: BedrockEmulator) -> None:
    for model in ("emulated.global-only-v1:0", f"global.{HAIKU}"):
        with pytest.raises(Fatal, match="GENESIS_BEDROCK_ALLOW_GLOBAL"):
            connect(emulator, model).target()
    allowed = connect(emulator, "emulated.global-only-v1:0", bedrock_allow_global=True)
    assert allowed.complete(ASK).model == "global.emulated.global-only-v1:0"


def test_an_application_profile_goes_by_its_own_name_and_its_price_is_not_known(emulator: BedrockEmulator) -> None:
    arn = "arn:aws:bedrock:us-east-1:000000000000:application-inference-profile/emulatedprof"
    completion = connect(emulator, arn).complete(ASK)
    assert completion.model == "emulatedprof" and completion.cost_usd is None  # no account number in the dataset


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("anthropic.claude-3-5-sonnet-20241022-v2:0", "no longer answers"),
        ("amazon.nova-nano-v9:0", "amazon.nova-micro-v1:0"),
        ("emulated.denied-v1:0", "request access"),
        ("us.nobody.nothing-v1:0", "does not accept"),
    ],
)
def test_a_model_that_can_not_answer_stops_the_run_with_a_reason(
    emulator: BedrockEmulator, model: str, says: str
) -> None:
    with pytest.raises(Fatal, match=says):
        connect(emulator, model).complete(ASK)


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"throttled": 1}, Throttled),
        ({"timeout": 1}, Transient),
        ({"model_error": 1}, Transient),
        ({"internal": 1}, Transient),
        ({"unavailable": 1}, Transient),
        ({"not_ready": 1}, Transient),
        ({"reset": 1}, Transient),
        ({"reset_after": 1}, Transient),
        ({"truncated": 1}, Transient),
        ({"garbled": 1}, Transient),
        ({"daily_quota_after": 0}, QuotaExhausted),
    ],
)
def test_each_fault_becomes_one_typed_error_and_one_call(
    faulty: BedrockEmulator, unlucky: BedrockProvider, faults: dict[str, float], error: type[Exception]
) -> None:
    before = faulty.stats().requests
    faulty.service.faults = Faults(**faults)  # type: ignore[arg-type, union-attr]
    with pytest.raises(error):
        unlucky.complete(ASK)
    assert faulty.stats().requests == before + 1


def test_an_answer_that_takes_too_long_is_transient() -> None:
    with with_faults(latency_s=5.0) as server:
        settings = Settings(_env_file=None, aws_region="us-east-1", bedrock_endpoint_url=server.url)  # type: ignore[call-arg]
        with pytest.raises(Transient, match="ReadTimeout"):
            BedrockProvider(MICRO, settings=settings, read_timeout_s=0.2).complete(ASK)


def test_a_refusal_says_which_quota_and_how_long_to_wait() -> None:
    with with_faults(quota=Quota(tokens_per_minute=100), faults=Faults(retry_after_s=1.5)) as server:
        provider = connect(server)
        provider.complete(ASK)  # larger than the bucket: let in while it is full
        with pytest.raises(Throttled) as caught:
            provider.complete(ASK)
    assert (caught.value.scope, caught.value.retry_after_s, caught.value.status) == ("tokens", 1.5, 429)
    with with_faults(quota=Quota(requests_per_minute=1)) as server:
        provider = connect(server)
        provider.complete(ASK)
        with pytest.raises(Throttled) as caught:
            provider.complete(ASK)
    assert (caught.value.scope, caught.value.retry_after_s) == ("requests", None)


@pytest.mark.parametrize(
    ("deny", "says"),
    [
        ("key", "does not know this access key"),
        ("secret", "does not belong"),
        ("swapped", "swapped"),
        ("expired", "sign in again"),
        ("access", "may not call"),
    ],
)
def test_bad_credentials_are_said_in_a_sentence(
    faulty: BedrockEmulator, unlucky: BedrockProvider, deny: str, says: str
) -> None:
    faulty.service.faults = Faults(deny=deny)  # type: ignore[arg-type, union-attr]
    with pytest.raises(Fatal, match=says):
        unlucky.account.identity()
    with pytest.raises(Fatal, match=says):
        unlucky.complete(ASK)


def test_missing_credentials_and_region_are_said_in_a_sentence(
    emulator: BedrockEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="GENESIS_AWS_REGION"):
        BedrockProvider(MICRO, settings=Settings(_env_file=None)).complete(ASK)  # type: ignore[call-arg]
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(Fatal, match="No usable AWS credentials"):
        connect(emulator).complete(ASK)


def test_nobody_listening_is_said_so(emulator: BedrockEmulator) -> None:
    with pytest.raises(Unreachable, match="Could not connect"):
        connect(emulator, bedrock_endpoint_url="http://127.0.0.1:9").complete(ASK)


# --- prices -----------------------------------------------------------------------------------------------------------


def test_what_has_no_known_price_has_no_cost(emulator: BedrockEmulator) -> None:
    assert connect(emulator, "emulated.old-v1:0").complete(ASK).cost_usd is None
    assert model_info(HAIKU).cost_usd(Usage(), batch=True) == 0.0
    assert model_info(default_model()).cost_usd(Usage(1, 1), batch=True) is None


def test_keeping_data_in_a_geography_costs_the_premium() -> None:
    usage = Usage(1_000_000, 1_000_000)
    info = model_info(f"us.{HAIKU}")
    assert info.cost_usd(usage) == pytest.approx(6.0)
    assert info.cost_usd(usage, regional=True) == pytest.approx(6.6)
    assert info.cost_usd(usage, batch=True) == pytest.approx(3.0)


def test_every_entry_says_where_it_is_from_and_its_prices_make_sense() -> None:
    from genesis_lab.providers.models import _known

    default, models = _known()
    assert models[default].lifecycle == "active"
    for info in models.values():
        assert info.source and info.checked, info.model_id
        prices = (info.cache_read or 0, info.input or math.inf, info.output or math.inf)
        assert list(prices) == sorted(prices), info.model_id


@pytest.mark.parametrize(
    "name",
    [
        HAIKU,
        f"us.{HAIKU}",
        f"us-gov.{HAIKU}",
        f"arn:aws:bedrock:us-east-1::foundation-model/{HAIKU}",
        f"arn:aws:bedrock:us-east-1:000000000000:inference-profile/global.{HAIKU}",
    ],
)
def test_a_model_is_known_by_any_of_its_names(name: str) -> None:
    assert base_model_id(name) == HAIKU
    assert base_model_id("zai.glm-4.7") == "zai.glm-4.7"


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_records_are_generated_through_bedrock_some_answers_malformed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    domain = Conversations(ConversationsConfig(total=24, categories=("refunds",)))
    plan = make_plan(domain, 24, 3)
    with BedrockEmulator(malformed=0.2) as server:
        dataset = generate(plan, domain, connect(server), tmp_path / "d", sampling=Sampling(temperature=0.9))
        stats = server.stats()
    assert dataset.total == 24 and dataset.manifest["complete"]
    assert stats.answered == dataset.manifest["attempts"] > 24
    assert dataset.manifest["usage"]["completion_tokens"] == stats.completion_tokens
    assert dataset.manifest["cost_usd"] > 0


def request_shapes() -> dict[str, Any]:
    """A Converse body for every way of asking."""
    messages = (("user", "an example"), ("assistant", "its answer"), ("user", "the task"))
    request = Request("0123abcd", "system", messages, SCHEMA, "turns", 1000, 0.7, seed=1, stable_messages=2)
    cached = ModelInfo(model_id="x", max_output_tokens=400, cache_min_tokens=1)
    thinking = ModelInfo(model_id="x", extra={"thinking": {"type": "disabled"}}, sampling=False)
    return {
        "schema, cached examples": converse_body(request, cached),
        "forced tool, no sampling, extra fields": converse_body(request, thinking, {"json_schema"}),
        "schema in the prompt, cached system": converse_body(
            replace(request, stable_messages=0), cached, {"json_schema", "tool"}
        ),
        "record of a batch job": json.loads(record_line(BedrockProvider(HAIKU), 1, request))["modelInput"],
        "no schema, no system": converse_body(
            Request("", messages=(("user", "hi"),)), ModelInfo(model_id="x", max_output_tokens=400)
        ),
    }


def test_every_request_shape_is_the_recorded_one_and_what_the_service_model_takes() -> None:
    """After a wanted change: ``python -m providers.test_bedrock`` in tests/ records the shapes anew."""
    converse = next(o for o in wire.operations() if o.name == "Converse")
    for name, body in request_shapes().items():
        assert wire.problem(converse, body) is None, name
    assert request_shapes() == json.loads(RECORDED.read_text(encoding="utf-8"))


if __name__ == "__main__":
    RECORDED.write_text(json.dumps(request_shapes(), indent=1) + "\n", encoding="utf-8")


def known() -> BedrockProvider:
    """A provider that need not ask which id to call."""
    provider = BedrockProvider(MICRO, settings=Settings(aws_region="us-east-1"))
    provider._target = Target(MICRO, MICRO)
    return provider


THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Let me see"}}}


@pytest.mark.parametrize(
    ("content", "stop", "text"),
    [
        ([THOUGHT, {"text": "hello"}], "end_turn", "hello"),
        ([{"text": "hel"}, {"text": "lo"}], "end_turn", "hello"),
        ([{"text": None}, {"text": "hello"}], "end_turn", "hello"),
        ([THOUGHT, {"toolUse": {"name": "answer", "input": {"a": "ñ"}}}], "tool_use", '{"a": "ñ"}'),
        ([{"toolUse": {"name": "answer", "input": '{"a": 1}'}}], "tool_use", '{"a": 1}'),
        ([THOUGHT], "end_turn", "Let me see"),
        ([THOUGHT], "max_tokens", ""),
        ([], "end_turn", ""),
        (None, "end_turn", ""),
    ],
)
def test_the_answer_is_found_in_whatever_block_it_stands(content, stop, text):
    usage = {"inputTokens": 9, "outputTokens": 5}
    response = {"output": {"message": {"content": content}}, "stopReason": stop, "usage": usage}
    answer = known().read(response, datetime.now(UTC))
    assert answer.text == text and answer.usage == Usage(9, 5)
    assert ("raise max_tokens" in str(answer.note)) == (stop == "max_tokens")


@pytest.mark.parametrize("usage", [None, {}, {"inputTokens": 0, "outputTokens": 0}, {"outputTokens": 5}])
def test_what_was_not_counted_has_no_price(usage):
    response = {"output": {"message": {"content": [{"text": "hello"}]}}, "stopReason": "end_turn", "usage": usage}
    answer = known().read(response, datetime.now(UTC))
    assert answer.usage is None and answer.cost_usd is None


def test_a_bedrock_key_is_not_sent_in_the_clear():
    settings = Settings(
        aws_region="us-east-1", bedrock_endpoint_url="http://elsewhere.example", AWS_BEARER_TOKEN_BEDROCK="a-fake-key"
    )
    with pytest.raises(InvalidInput, match="must be https") as error:
        BedrockProvider(MICRO, settings=settings).complete(ASK)
    assert "a-fake-key" not in str(error.value)
