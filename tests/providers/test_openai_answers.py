"""Answers of OpenAI-compatible servers in the shapes that they are known to send: read, or refused with their words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genesis_lab.errors import Fatal, ProviderError, QuotaExhausted, Rejected, Throttled, Transient
from genesis_lab.generation import config_for, generate
from genesis_lab.providers.base import Completion, Request, Usage
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.providers.openai import OpenAIProvider, read_answer
from providers.openai_server import Reply, Server, answered, refusal, running, said

ASK = Request(key="k", messages=(("user", "Hi"),), max_tokens=50)
TYPED = replace(ASK, schema={"type": "object", "properties": {"ok": {"type": "boolean"}}}, temperature=0.5, seed=3)
OK = '{"ok": true}'


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def provider(server: Server) -> Iterator[OpenAIProvider]:
    provider = OpenAIProvider("tiny", [server.url])
    yield provider
    provider.close()


def text(value: str) -> dict[str, str]:
    return {"type": "text", "text": value}


@pytest.mark.parametrize(
    "message",
    [
        {"content": OK},
        {"content": [text('{"ok": '), text("true}")]},
        {"content": [{"type": "thinking", "thinking": [text("Hm {")]}, text(OK)]},
        {"content": [{"type": "reasoning", "text": "Hm {"}, {"type": "output_text", "text": OK}]},
        {"content": None, "reasoning_content": OK},
        {"content": "", "reasoning": OK},
        {"reasoning_content": OK},
        {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "a", "arguments": OK}}]},
        {"content": "", "tool_calls": [{"function": {"name": "a", "arguments": {"ok": True}}}], "reasoning": "Hm"},
        {"content": OK, "tool_calls": None, "refusal": None, "reasoning_content": None},
        {"content": OK, "tool_calls": [], "reasoning_content": "I think {"},
    ],
)  # fmt: skip
def test_an_answer_is_found_wherever_it_stands(server: Server, provider: OpenAIProvider, message: Any) -> None:
    server.replies.append(said(message))
    answer = provider.complete(ASK)
    assert (answer.text, answer.stop_reason, answer.note) == (OK, "end", None)


@pytest.mark.parametrize("content", [[], [{"type": "image_url", "image_url": {}}], None, ""])
def test_a_message_without_a_word_is_an_empty_text(server: Server, provider: OpenAIProvider, content: Any) -> None:
    server.replies.append(said({"content": content}))
    assert provider.complete(ASK).text == ""


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "reasoning_content": "Let me see"},
        {"content": ""},
        {"content": [{"type": "thinking", "thinking": [text("Let me")]}]},
        {"content": "<think>Let me see"},
    ],
)
def test_thinking_that_used_up_the_answer_is_said(
    server: Server, provider: OpenAIProvider, message: dict[str, Any]
) -> None:
    server.replies.append(said(message, "length"))
    answer = provider.complete(ASK)
    assert answer.stop_reason == "max_tokens" and "raise max_tokens" in str(answer.note)
    server.replies.append(said({"content": "<think>Hm</think>" + OK[:5]}, "length"))
    assert provider.complete(ASK).note is None


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"error": {"message": "Slow down a bit", "code": 429}}, Throttled, "Slow down a bit"),
        ({"error": {"message": "Try again in 7s", "code": "rate_limit_exceeded"}}, Throttled, "Try again"),
        ({"error": {"message": "broke", "code": "insufficient_quota"}}, QuotaExhausted, "broke"),
        ({"error": {"message": "The model is overloaded", "code": 503}, "choices": None}, Transient, "overloaded"),
        ({"error": {"message": "Provider returned error", "code": 502, "metadata": {"raw": "upstream fell over"}}},
         Transient, "upstream fell over"),
        ({"error": "CUDA out of memory"}, Transient, "CUDA out of memory"),
        ({"error": {"message": "bad key", "code": "invalid_api_key"}}, Fatal, "bad key"),
        ({"error": {"message": "No credits left", "code": 402}}, Rejected, "No credits left"),
        ([{"error": {"code": 400, "message": "Prompt too long", "status": "INVALID_ARGUMENT"}}], Rejected, "too long"),
        ({"object": "error", "message": "Prompt too long", "code": 400}, Rejected, "too long"),
        ({"detail": [{"loc": ["body", "messages"], "msg": "not so", "type": "x"}]}, Transient, "not so"),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "error", "error": {"code": 429, "message": "enough"}}]},
         Throttled, "enough"),
        ({"choices": [{"message": {"content": "worker died"}, "finish_reason": "error"}]}, Transient, "worker died"),
        ({"choices": [{"message": {"content": "half"}, "finish_reason": "abort"}]}, Transient, "abort"),
        ({"choices": None, "usage": {"prompt_tokens": 7}, "why": "blocked by policy"}, Transient, "blocked by policy"),
        ({"choices": []}, Transient, "no answer"),
        ({"object": "list", "data": []}, Fatal, "/v1"),
        ("hello", Fatal, "/v1"),
        (b"data: {}\n\ndata: [DONE]\n\n", Fatal, "/v1"),
        (b"", Transient, "broken"),
        ({"error": "Unexpected endpoint or method. (POST /chat/completions)"}, Fatal, "Unexpected endpoint"),
    ],
)  # fmt: skip
def test_status_200_is_no_answer_by_itself(
    server: Server, provider: OpenAIProvider, body: Any, kind: type[ProviderError], words: str
) -> None:
    server.replies.append(Reply(body=body))
    with pytest.raises(ProviderError) as caught:
        provider.complete(ASK)
    assert type(caught.value) is kind and words in str(caught.value)
    assert len(server.requests) == 1


def test_a_wait_in_a_body_of_status_200_is_kept(server: Server, provider: OpenAIProvider) -> None:
    body = {"error": {"message": "Rate limit: try again in 7s", "code": 429}}
    server.replies.append(Reply(body=body, headers={"Retry-After": "9"}))
    server.replies.append(Reply(body=body))
    for wait_s in (9.0, 7.0):
        with pytest.raises(Throttled) as caught:
            provider.complete(ASK)
        assert caught.value.retry_after_s == wait_s


def test_a_server_s_sentence_is_not_cut(server: Server, provider: OpenAIProvider) -> None:
    long = "This can't be, " * 100 + "because the thinking mode must be off."
    for reply in (refusal(413, long), Reply(422, {"detail": long}), Reply(400, [{"error": {"message": long}}])):
        server.replies.append(reply)
        with pytest.raises(Rejected, match=r"must be off\.$"):
            provider.complete(ASK)


def test_an_address_without_v1_is_told_so(server: Server) -> None:
    provider = OpenAIProvider("tiny", [server.url.removesuffix("/v1")])
    with pytest.raises(Fatal, match="usually ends in /v1"):
        provider.complete(ASK)


def test_a_daily_quota_is_known_by_its_details(server: Server, provider: OpenAIProvider) -> None:
    quota = {"error": {"code": 429, "message": "You exceeded your quota", "status": "RESOURCE_EXHAUSTED", "details": [
        {"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}]}}  # fmt: skip
    server.replies.append(Reply(429, [quota]))
    with pytest.raises(QuotaExhausted, match="You exceeded"):
        provider.complete(ASK)
    quota["error"]["details"] = [{"@type": "RetryInfo", "retryDelay": "34s"}]
    server.replies.append(Reply(429, [quota]))
    with pytest.raises(Throttled) as caught:
        provider.complete(ASK)
    assert caught.value.retry_after_s == 34


_KEYS = st.sampled_from(
    ["choices", "message", "content", "text", "type", "error", "code", "usage", "prompt_tokens", "completion_tokens",
     "total_tokens", "prompt_tokens_details", "cached_tokens", "tool_calls", "function", "arguments", "reasoning",
     "finish_reason", "detail", "metadata", "raw", "loc", "object", "status", "thinking", "refusal"]
)  # fmt: skip
_LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "error", "text", "length", "429"])
)
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=6))


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(_JSON | st.fixed_dictionaries({"choices": st.lists(_JSON, min_size=1, max_size=1), "usage": _JSON}))
def test_whatever_a_server_sends_is_an_answer_or_an_error_of_ours(data: Any) -> None:
    try:
        answer = read_answer(json.dumps(data), "tiny", "http://localhost/v1", {})
    except ProviderError as error:
        assert str(error)
        return
    assert isinstance(answer.text, str)
    assert answer.usage is None or min(astuple(answer.usage)) >= 0


# --- counts -----------------------------------------------------------------------------------------------------------


def counted(server: Server, provider: OpenAIProvider, **fields: Any) -> Completion:
    server.replies.append(answered(**fields))
    return provider.complete(ASK)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}}, (40, 7, 60)),
        ({"prompt_tokens": 100, "total_tokens": 107}, (100, 7)),
        ({"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 90}, (21, 69)),
        ({"prompt_tokens": 21, "completion_tokens": 9, "total_tokens": 90, "completion_tokens_details": {"reasoning_tokens": 60}},
         (21, 69)),
        ({"prompt_tokens": 21, "completion_tokens": 70, "total_tokens": 91, "completion_tokens_details": {"reasoning_tokens": 60}},
         (21, 70)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "total_tokens": 3}, (10, 7)),
        ({"prompt_tokens": 10, "completion_tokens": 7, "prompt_tokens_details": None, "completion_tokens_details": []}, (10, 7)),
    ],
)  # fmt: skip
def test_tokens_are_read_and_never_negative(
    server: Server, provider: OpenAIProvider, usage: dict[str, Any], read: tuple[int, ...]
) -> None:
    assert counted(server, provider, usage=usage).usage == Usage(*read)


@pytest.mark.parametrize(
    "usage",
    [
        None, {}, [], "many", {"tokens": 12}, {"prompt_tokens": 10}, {"total_tokens": 12},
        {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"prompt_tokens": 10, "completion_tokens": 0},
        {"prompt_tokens": -5, "completion_tokens": 7}, {"prompt_tokens": None, "completion_tokens": None},
        {"prompt_tokens": "ten", "completion_tokens": True},
    ],
)  # fmt: skip
def test_tokens_that_a_server_does_not_count_are_unknown(server: Server, provider: OpenAIProvider, usage: Any) -> None:
    answer = counted(server, provider, usage=usage)
    assert answer.usage is None and answer.cost_usd is None


def test_a_server_has_its_own_prices(server: Server) -> None:
    provider = OpenAIProvider("amazon.nova-micro-v1:0", [server.url])
    assert provider.complete(ASK).cost_usd is None
    assert provider.cost_usd(Usage(1000, 1000)) is None


def prompt(characters: int) -> Request:
    return replace(ASK, messages=(("user", "word " * (characters // 5)),))


def test_a_prompt_that_was_cut_is_said(server: Server, provider: OpenAIProvider) -> None:
    usage = {"prompt_tokens": 60, "completion_tokens": 7, "total_tokens": 67}
    server.script = lambda body: answered(usage=usage)
    assert "60 tokens for a prompt of 1,899 characters" in str(provider.complete(prompt(1900)).note)
    usage["prompt_tokens"] = 480
    assert provider.complete(prompt(1900)).note is None
    usage["prompt_tokens"] = 2050
    assert "2,050 tokens for a prompt of 13,999" in str(provider.complete(prompt(14000)).note)


def test_prompts_that_are_counted_need_no_word(server: Server, provider: OpenAIProvider) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        return answered(usage={"prompt_tokens": 30 + len(body["messages"][0]["content"]) // 5, "completion_tokens": 7})

    server.script = reply
    for characters in (5, 10, 700, 710, 5000, 700, 9000, 9010, 9020, 10, 9000):
        assert provider.complete(prompt(characters)).note is None


# --- what a server does not take --------------------------------------------------------------------------------------


def asked(body: dict[str, Any]) -> tuple[str, ...]:
    form = body.get("response_format", {}).get("type")
    return tuple(filter(None, (form, *(name for name in ("temperature", "seed") if name in body))))


WHOLE = ("json_schema", "temperature", "seed")


def test_a_refusal_that_leaving_out_does_not_cure_is_said_and_changes_nothing(
    server: Server, provider: OpenAIProvider
) -> None:
    words = "Unknown field 'user'. Accepted fields: model, messages, max_tokens, temperature, seed"
    server.script = lambda body: refusal(400, words)
    for _ in range(3):
        with pytest.raises(Rejected, match="Unknown field 'user'"):
            provider.complete(TYPED)
    server.script = lambda body: None
    assert provider.complete(TYPED).not_sent == () and asked(server.requests[-1]) == WHOLE


@pytest.mark.parametrize(
    ("reply", "gone"),
    [
        (Reply(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "Extra inputs are not permitted"}]}),
         "seed"),
        (Reply(400, {"object": "error", "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'seed')}]", "code": 400}),
         "seed"),
        (Reply(400, [{"error": {"code": 400, "message": "Unknown name \"seed\": Cannot find field."}}]), "seed"),
        (refusal(400, "Unrecognized request argument supplied: seed"), "seed"),
        (refusal(400, "unknown field `seed`, expected one of `model`, `messages`, `temperature`"), "seed"),
        (refusal(400, "Bad value", param="temperature"), "temperature"),
        (refusal(500, "litellm.UnsupportedParamsError: does not support parameters: ['seed']"), "seed"),
        (Reply(body={"error": {"message": "seed is not supported", "code": 400}}), "seed"),
    ],
)  # fmt: skip
def test_a_field_that_is_refused_by_name_is_left_out_and_that_is_recorded(
    server: Server, provider: OpenAIProvider, reply: Reply, gone: str
) -> None:
    server.script = lambda body: reply if gone in body else None
    for requests in (2, 4, 5):
        answer = provider.complete(TYPED)
        assert answer.not_sent == (gone,)
        assert asked(server.requests[-1]) == tuple(name for name in WHOLE if name != gone)
        assert len(server.requests) == requests


@pytest.mark.parametrize(
    "words",
    [
        "This model does not support structured outputs via response_format",
        "'response_format.type' must be 'json_object' or 'text'",
        "This response_format type is unavailable now",
        "response_format is not supported for chat completions",
    ],
)
def test_a_form_that_is_refused_outright_is_not_asked_for_again(
    server: Server, provider: OpenAIProvider, words: str
) -> None:
    server.script = lambda body: refusal(400, words) if "json_schema" in asked(body) else None
    for _ in range(2):
        assert provider.complete(TYPED).not_sent == ("bounds of the schema", "json_schema")
    before = len(server.requests)
    provider.complete(TYPED)
    assert len(server.requests) == before + 1


def test_one_bad_sample_loosens_the_form_for_itself_only(server: Server, provider: OpenAIProvider) -> None:
    for words in ("Failed to generate JSON that matches the schema.", "Invalid output for response_format json_schema"):
        server.replies.append(refusal(400, words, code="json_validate_failed"))
        assert provider.complete(TYPED).not_sent == ("bounds of the schema",)
        assert provider.complete(TYPED).not_sent == ()


def test_a_value_out_of_range_is_said_not_left_out(server: Server, provider: OpenAIProvider) -> None:
    words = "Invalid 'temperature': decimal above maximum value. Expected a value <= 1, but got 1.5 instead."
    server.script = lambda body: refusal(400, words, param="temperature") if "temperature" in body else None
    with pytest.raises(Rejected, match="Expected a value <= 1"):
        provider.complete(TYPED)


@pytest.mark.parametrize("message", ["Failed to parse grammar", "response_format type json_schema is not supported"])
def test_a_form_that_is_refused_every_time_is_not_tried_for_ever(
    server: Server, provider: OpenAIProvider, message: str
) -> None:
    assert provider.complete(TYPED).not_sent == ()  # it has worked: another model answers now
    server.script = lambda body: refusal(400, message) if "json_schema" in asked(body) else None
    for _ in range(2):
        assert provider.complete(TYPED).not_sent == ("bounds of the schema", "json_schema")
    before = len(server.requests)
    provider.complete(TYPED)
    assert len(server.requests) == before + 1 and asked(server.requests[-1]) == ("json_object", "temperature", "seed")


def test_an_unknown_form_on_a_failing_server_names_itself(server: Server, provider: OpenAIProvider) -> None:
    message = 'response_format type must be one of "text" or "json_object", but got: json_schema'
    server.script = lambda body: refusal(500, message) if "json_schema" in asked(body) else None
    assert provider.complete(TYPED).not_sent == ("bounds of the schema", "json_schema")


# --- in a run ---------------------------------------------------------------------------------------------------------


def test_a_run_says_what_was_not_sent_not_counted_and_cut(server: Server, tmp_path: Path) -> None:
    options = {
        "dataset": str(tmp_path / "d"),
        "total": 10,
        "provider": "openai",
        "model": "m",
        "base_urls": (server.url,),
        "records": "utterances",
        "list_size": 1,
    }
    config = config_for()(**options, categories=("refunds",), few_shot=0, temperature=0.5, max_tokens=256)
    written = {}
    for spec in config.domain.specs(10, config.seed):
        written[spec.seed % 2**31] = config.domain.offline_text(spec, 0)

    def reply(body: dict[str, Any]) -> Reply:
        if "temperature" in body:
            return refusal(400, "'temperature' is not supported with this model")
        return said({"content": [text(written[body["seed"]])]}, usage={"prompt_tokens": 20, "completion_tokens": 9})

    server.script = reply
    dataset = generate(config)
    manifest, card = dataset.manifest, (dataset.path / "README.md").read_text()
    assert manifest["complete"] and manifest["cost_usd"] is None
    assert manifest["not_sent"]["temperature"] == 10
    ((note, times),) = manifest["notes"].items()
    assert "seems to cut prompts" in note and times == 10
    assert manifest["usage"]["prompt_tokens"] == 200
    assert "seems to cut prompts" in card and "does not take temperature" in card


def test_a_run_whose_server_counts_nothing_has_no_counts(server: Server, tmp_path: Path) -> None:
    config = config_for()(
        dataset=str(tmp_path / "d"), total=10, provider="openai", model="m", base_urls=(server.url,), categories=("refunds",),
        records="utterances", list_size=1,
    )  # fmt: skip
    written = {spec.seed % 2**31: config.domain.offline_text(spec, 0) for spec in config.domain.specs(10, config.seed)}
    server.script = lambda body: said({"content": written[body["seed"]]}, usage=None)
    dataset = generate(config)
    assert dataset.manifest["usage"] is None and dataset.manifest["answers_without_usage"] == 10
    assert {record["prompt_tokens"] for record in dataset.frame()["provenance"]} == {None}


def test_what_was_said_of_an_answer_is_kept_with_it(tmp_path: Path) -> None:
    cache = CompletionCache(tmp_path / "c.sqlite")
    kept = Completion(OK, "m", None, not_sent=("seed",), note="cut")
    cache.put("k", kept)
    assert cache.get("k") == kept
    cache.close()
