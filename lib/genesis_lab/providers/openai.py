"""Provider ``openai``: any server that speaks OpenAI's chat completions (Ollama, vLLM, llama.cpp, LM Studio, Gemini, OpenAI)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import httpx
from pydantic import SecretStr

from genesis_lab.errors import Fatal, ProviderError, Transient, Unreachable
from genesis_lab.providers.addresses import OPENAI_URL, may_get_key, on_this_machine, server_address
from genesis_lab.providers.base import Completion, Provider, Request, known
from genesis_lab.providers.openai_answers import read_answer, typed
from genesis_lab.providers.refusals import Refusals
from genesis_lab.providers.schemas import stated, without_bounds

CONNECT_S = 10.0
"""How long a server may take to accept a connection."""
_FORMS = ("bounds of the schema", "json_schema", "json_object")
_CHARACTERS_PER_TOKEN, _SHORT = 6, 500
"""More than any text of ours has; and the characters of a prompt from which on a count says something."""


class OpenAIProvider(Provider):
    """Answers by ``chat.completions`` of one or several servers of the same model in turn.

    What a server charges is not known. The key comes from the settings and goes to https addresses and this machine only,
    where `key_host` is set to that host only. 8 requests are in flight per server, each for `timeout_s` at most.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str] = (OPENAI_URL,),
        *,
        api_key: SecretStr | None = None,
        key_host: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        self.model = model
        self.base_urls = tuple(map(server_address, base_urls))
        self.concurrency = 8 * len(base_urls)
        self._secret = api_key.get_secret_value() if api_key else ""
        key = {"Authorization": f"Bearer {self._secret}"} if self._secret else {}
        self._clients = [
            httpx.Client(
                base_url=url,
                headers=key if may_get_key(url, key_host) else {},
                timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
                limits=httpx.Limits(max_connections=None),
                trust_env=not on_this_machine(url),  # no proxy between here and here
            )
            for url in self.base_urls
        ]
        self._turn = itertools.cycle(self._clients)
        self._refusals = Refusals(known("openai")["refusals"])

    def complete(self, request: Request) -> Completion:
        """One answer. What the server refuses by name is left out, see `Refusals`."""
        options = [name for name in ("temperature", "seed") if getattr(request, name) is not None]
        forms = _FORMS if request.schema is not None else ()
        answer = self._refusals.ask(partial(self._send, request), [*options, "max_tokens"], forms)
        return replace(answer, not_sent=tuple(name for name in answer.not_sent if name != "max_tokens"))

    def list_models(self) -> list[str]:
        """The models that the first server offers; raises the same errors as `complete`."""
        client = self._clients[0]
        told = self._call(client, "GET", "models")
        try:
            return sorted(str(model["id"]) for model in told.json()["data"])
        except (ValueError, KeyError, TypeError):
            raise Fatal(f"{client.base_url} answers, but not as an OpenAI-compatible server.") from None

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _send(self, request: Request, without: frozenset[str]) -> Completion:
        client, started, body = next(self._turn), time.perf_counter(), self._body(request, without)
        response, place = self._call(client, "POST", "chat/completions", json=body), str(client.base_url)
        try:
            answer = read_answer(response.text, self.model, place, response.headers)
        except ProviderError as error:
            raise self._without_key(error) from None
        n, note = sum(len(" ".join(message["content"].split())) for message in body["messages"]), answer.note
        if not note and (use := answer.usage) and n > max(_SHORT, use.all_prompt_tokens * _CHARACTERS_PER_TOKEN):
            note = (
                f"The server counted {use.all_prompt_tokens:,} tokens for a prompt of {n:,} characters: it seems to cut "
                "prompts, so give it a longer context (Ollama: OLLAMA_CONTEXT_LENGTH, llama.cpp: -c)."
            )
        return replace(answer, latency_s=time.perf_counter() - started, note=note)

    def _body(self, request: Request, without: frozenset[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.model, "messages": []}
        body["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = request.max_tokens
        for name in {"temperature", "seed"} - without:
            if (value := getattr(request, name)) is not None:
                body[name] = value
        system, schema = request.system, request.schema
        if schema is not None:
            form = next((name for name in _FORMS if name not in without), None)
            if form in ("json_object", None):
                system = f"{system}\n\n{stated(schema)}".strip()
            if form == "json_object":
                body["response_format"] = {"type": "json_object"}
            elif form is not None:
                shape = without_bounds(schema) if form == "json_schema" else schema
                named = {"name": request.schema_name, "schema": shape, "strict": True}
                body["response_format"] = {"type": "json_schema", "json_schema": named}
        said = [("system", system)] * bool(system) + list(request.messages)
        body["messages"] = [{"role": role, "content": text} for role, text in said]
        return body

    def _call(self, client: httpx.Client, method: str, path: str, **sent: Any) -> httpx.Response:
        place = str(client.base_url)
        try:
            response = client.request(method, path, **sent)
        except httpx.RequestError as error:
            if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                raise Unreachable(f"{place} can't be reached ({error}): is it running?", model=self.model) from None
            late = isinstance(error, httpx.ReadTimeout)
            how = f"did not answer within {client.timeout.read:g} s" if late else f"broke off ({error})"
            raise Transient(f"{place} {how}.", model=self.model) from None
        if response.is_error:
            raise self._without_key(typed(response.text, self.model, place, response.headers, response.status_code))
        return response

    def _without_key(self, error: ProviderError) -> ProviderError:
        """The error on one line, without the key, which some servers repeat."""
        said = str(error).replace(self._secret, "***") if self._secret else str(error)
        error.args = (" ".join(said.split())[:4000],)
        return error
