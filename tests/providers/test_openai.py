"""Provider ``openai`` against a real HTTP server: what it sends, what it makes of every answer and fault."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr

from genesis_lab.errors import Fatal, ProviderError, QuotaExhausted, Rejected, Throttled, Transient, Unreachable
from genesis_lab.providers.base import Request, Usage
from genesis_lab.providers.openai import OpenAIProvider
from providers.openai_server import Reply, Server, refusal, running

SCHEMA = {
    "type": "object",
    "properties": {"turns": {"type": "array", "minItems": 2, "items": {"type": "string", "maxLength": 9}}},
    "required": ["turns"],
    "additionalProperties": False,
}
REQUEST = Request(
    key="k", system="Be brief.", messages=(("user", "Hi"),), schema=SCHEMA, max_tokens=50, temperature=0.5, seed=3
)


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def provider(server: Server) -> Iterator[OpenAIProvider]:
    provider = OpenAIProvider("tiny", [server.url])
    yield provider
    provider.close()


def test_an_answer_comes_with_text_usage_and_an_unknown_price(server: Server, provider: OpenAIProvider) -> None:
    answer = provider.complete(REQUEST)

    assert (answer.text, answer.model, answer.stop_reason) == ('{"ok": true}', "tiny", "end")
    assert answer.usage == Usage(prompt_tokens=40, completion_tokens=7, cache_read_tokens=60)
    assert answer.cost_usd is None
    sent = server.requests[0]
    assert sent["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert (sent["max_tokens"], sent["temperature"], sent["seed"]) == (50, 0.5, 3)
    assert sent["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": SCHEMA}


def test_structured_output_steps_down_to_the_prompt_and_remembers(server: Server, provider: OpenAIProvider) -> None:
    server.supports = ()
    provider.complete(REQUEST)
    forms = [request.get("response_format", {}).get("type") for request in server.requests]
    assert forms == ["json_schema", "json_schema", "json_object", None]
    assert '"turns"' in server.requests[-1]["messages"][0]["content"]

    provider.complete(REQUEST)
    provider.complete(REQUEST)
    assert len(server.requests) == 9, "what was refused twice in a row is not asked for again"


def test_a_server_that_refuses_bounds_gets_the_bare_schema(server: Server, provider: OpenAIProvider) -> None:
    server.replies.append(refusal(400, "Invalid schema for response_format: 'maxLength' is not permitted"))
    provider.complete(REQUEST)
    turns = server.requests[-1]["response_format"]["json_schema"]["schema"]["properties"]["turns"]
    assert turns == {"type": "array", "items": {"type": "string"}}


def test_threads_that_are_refused_together_step_down_once(server: Server, provider: OpenAIProvider) -> None:
    server.supports = ("json_object",)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(provider.complete, [REQUEST] * 8))
    assert len(answers) == 8
    assert server.requests[-1]["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("message", "gone", "kept"),
    [
        (
            "'temperature' does not support 0.5 with this model. Only the default (1) value is supported.",
            "temperature",
            "seed",
        ),
        (
            "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens",
            "temperature",
        ),
    ],
)
def test_sampling_that_a_model_refuses_is_left_out(
    server: Server, provider: OpenAIProvider, message: str, gone: str, kept: str
) -> None:
    server.replies.append(refusal(400, f"Unsupported value: {message}"))
    provider.complete(REQUEST)
    assert gone not in server.requests[1]
    assert kept in server.requests[1]


def test_a_request_that_can_never_work_is_rejected_at_once(server: Server, provider: OpenAIProvider) -> None:
    server.replies.append(
        refusal(400, "This model's maximum context length is 10 tokens.", code="context_length_exceeded")
    )
    with pytest.raises(Rejected, match="maximum context length"):
        provider.complete(REQUEST)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("reply", "error", "wait_s"),
    [
        (refusal(429, "slow down", headers={"Retry-After": "7"}), Throttled, 7.0),
        (refusal(429, "slow down", headers={"retry-after-ms": "1500", "Retry-After": "2"}), Throttled, 1.5),
        (refusal(429, "Rate limit reached on tokens per min. Please try again in 250ms."), Throttled, 0.25),
        (refusal(429, "slow down"), Throttled, None),
        (refusal(429, "You exceeded your current quota", code="insufficient_quota"), QuotaExhausted, None),
        (refusal(429, "Quota exceeded: GenerateRequestsPerDayPerProject"), QuotaExhausted, None),
        (refusal(500, "oops"), Transient, None),
        (refusal(503, "loading", headers={"Retry-After": "3"}), Transient, 3.0),
        (refusal(401, "bad key"), Fatal, None),
        (refusal(403, "no"), Fatal, None),
        (refusal(404, "model 'tiny' not found, try pulling it first"), Fatal, None),
        (Reply(cut=True, body={"choices": [1, 2, 3]}), Transient, None),
        (Reply(body=b'{"choices": [{"mess'), Transient, None),
        (Reply(body=b"<html>", headers={"Content-Type": "text/html"}), Fatal, None),
    ],
)  # fmt: skip
def test_every_fault_says_whether_a_retry_can_help(
    server: Server, provider: OpenAIProvider, reply: Reply, error: type[ProviderError], wait_s: float | None
) -> None:
    server.replies.append(reply)
    with pytest.raises(ProviderError) as caught:
        provider.complete(REQUEST)
    assert type(caught.value) is error
    assert caught.value.retry_after_s == wait_s
    assert len(server.requests) == 1, "a provider never retries by itself"


def test_retry_after_may_be_a_date(server: Server, provider: OpenAIProvider) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    server.replies.append(refusal(429, "slow down", headers={"Retry-After": soon}))
    with pytest.raises(Throttled) as caught:
        provider.complete(REQUEST)
    assert 30 < (caught.value.retry_after_s or 0) <= 60


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_tokens"), ("content_filter", "filtered"), ("odd", "other")]
)
def test_an_answer_that_stopped_early_is_an_outcome(
    server: Server, provider: OpenAIProvider, finish: str, reason: str
) -> None:
    server.finish_reason = finish
    assert provider.complete(REQUEST).stop_reason == reason


def test_servers_take_turns() -> None:
    with running() as first, running() as second, running() as gone:
        provider = OpenAIProvider("tiny", [first.url, gone.url, second.url])
        assert provider.concurrency == 24
        for _ in range(3):
            provider.complete(REQUEST)
        assert [len(s.requests) for s in (first, gone, second)] == [1, 1, 1]
    with running() as alive:
        provider = OpenAIProvider("tiny", [gone.url, alive.url])
        with pytest.raises(Unreachable, match="can't be reached"):
            provider.complete(REQUEST)
        provider.complete(REQUEST)
        assert len(alive.requests) == 1


def test_the_key_is_sent_but_never_shown(server: Server) -> None:
    provider = OpenAIProvider("tiny", [server.url], api_key=SecretStr("sk-very-secret"))
    server.replies.append(refusal(401, "Incorrect API key provided: sk-very-secret"))
    with pytest.raises(Fatal) as caught:
        provider.complete(REQUEST)
    assert server.keys == ["Bearer sk-very-secret"]
    assert "very-secret" not in str(caught.value)


def test_a_key_in_the_environment_does_not_leak_to_a_local_server(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    OpenAIProvider("tiny", [server.url]).complete(REQUEST)
    assert server.keys == [""]


def test_a_key_is_not_sent_in_the_clear_nor_past_the_host_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both servers are this machine; by the first name they are not known to be."""
    found = socket.getaddrinfo

    def resolved(host: Any, *rest: Any, **more: Any) -> Any:
        return found(b"127.0.0.1" if host in (b"elsewhere.example", "elsewhere.example") else host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    key = SecretStr("sk-very-secret")
    with running() as server:
        over_http = server.url.replace("127.0.0.1", "elsewhere.example")
        OpenAIProvider("tiny", [over_http], api_key=key).complete(REQUEST)
        OpenAIProvider("tiny", [server.url], api_key=key, key_host="openrouter.ai").complete(REQUEST)
        assert [sent for sent in server.keys if "secret" in sent] == []
        OpenAIProvider("tiny", [server.url, over_http], api_key=key, key_host="127.0.0.1").complete(REQUEST)
        assert server.keys[-1] == "Bearer sk-very-secret"


def test_neither_proxy_nor_organisation_of_the_environment_reach_a_server_on_this_machine(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-openai")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-of-openai")
    with running() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url.removesuffix("/v1"))
        OpenAIProvider("tiny", [server.url], api_key=SecretStr("sk-very-secret")).complete(REQUEST)
        assert proxy.headers == []
    assert len(server.requests) == 1 and "of-openai" not in str(server.headers)


def test_the_models_of_a_server_are_listed(server: Server, provider: OpenAIProvider) -> None:
    assert provider.list_models() == ["a", "b"]


def test_without_a_schema_nothing_is_demanded(server: Server, provider: OpenAIProvider) -> None:
    provider.complete(replace(REQUEST, schema=None))
    assert "response_format" not in server.requests[0]
