"""Provider ``openai``: any server that speaks OpenAI's chat completions (Ollama, vLLM, llama.cpp, LM Studio, Gemini, OpenAI)."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any

from pydantic import SecretStr

from genesis_lab.errors import Fatal, InvalidInput, MissingDependency, Rejected, Transient, Unreachable
from genesis_lab.providers.addresses import may_get_key, on_this_machine, server_address
from genesis_lab.providers.base import Capabilities, Completion, Request, StopReason, Usage
from genesis_lab.providers.models import model_info
from genesis_lab.providers.openai_errors import Refused, typed
from genesis_lab.providers.schemas import stated, without_bounds

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_S = 10.0
"""How long a server may take to accept a connection."""
REST_S = 30.0
"""How long a server that could not be reached is passed over while others answer."""

_NO_KEY = "no-key-needed"
"""Sent where there is no key: the package insists on one, and must not take it from the environment by itself."""
_FORMS = ("schema", "schema without bounds", "json object", "prompt")
"""Ways to ask for structured output, strictest first; the next is taken when a server refuses one."""
_REFUSES_FORM = re.compile(r"response_format|json_schema|json_object|structured|guided|grammar|schema", re.I)
_UNSUPPORTED = re.compile(
    r"unsupported|not support|only the default|deprecated|unknown|unrecognized|extra|not permitted", re.I
)
_STOP_REASONS: dict[str, StopReason] = {"stop": "end", "length": "max_tokens", "content_filter": "filtered"}


@dataclass(frozen=True)
class _Shape:
    """What this server is known to accept; learnt from its refusals and kept."""

    form: int = 0
    limit: str = "max_tokens"
    left_out: frozenset[str] = frozenset()


class OpenAIProvider:
    """Answers by ``chat.completions`` of one or several servers in turn.

    Parameters
    ----------
    model : the model's name on the server (``llama3.1:8b``, ``gpt-5-mini`` …).
    base_urls : addresses, usually ending in ``/v1``; several servers of the same model share the load round-robin.
    api_key : from the settings, never from a parameter file; local servers need none. It is sent to https addresses and
        to this machine only.
    key_host : the only host that gets the key; None: every address of `base_urls` that may.
    concurrency : requests in flight; default 8 per server.
    timeout_s : seconds an answer may take.

    A price is only known for models in ``models.yaml``.

    Raises
    ------
    MissingDependency : the package openai is not installed.
    InvalidInput : no base URL, or one that can't be used, see `addresses.server_address`.
    """

    name = "openai"

    def __init__(
        self,
        model: str,
        base_urls: Sequence[str] = (OPENAI_URL,),
        *,
        api_key: SecretStr | None = None,
        key_host: str | None = None,
        concurrency: int | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        if find_spec("openai") is None:
            raise MissingDependency("openai", "An OpenAI-compatible server", "pip install openai")
        if not base_urls:
            raise InvalidInput("base_urls must name at least one server, such as http://localhost:11434/v1.")
        self.model = model
        self.base_urls = tuple(base_urls)
        self.capabilities = Capabilities(
            structured_output="json_schema", prompt_caching=True, concurrency=concurrency or 8 * len(base_urls)
        )
        self._secret = api_key.get_secret_value() if api_key else _NO_KEY
        self._timeout_s = timeout_s
        self._clients = [self._client(server_address(url), key_host) for url in base_urls]
        self._turn = itertools.count()
        self._resting: dict[Any, float] = {}
        self._shape = _Shape()
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Completion:
        """One answer. What a server refuses to support is left out, at once and from then on."""
        while True:
            shape, client = self._shape, self._next_client()
            started = time.perf_counter()
            try:
                answer = self._create(client, self._body(request, shape))
            except Refused as refusal:
                simpler = _simpler(shape, request, str(refusal))
                if simpler is None:
                    raise Rejected(str(refusal), status=refusal.status, model=self.model) from None
                with self._lock:
                    if self._shape == shape:  # another thread may have learnt the same in the meantime
                        self._shape = simpler
                continue
            return self._completion(answer, time.perf_counter() - started)

    def list_models(self) -> dict[str, list[str]]:
        """The models that each server offers, by base URL; raises the same errors as `complete`."""
        return {
            str(client.base_url): sorted(model.id for model in self._call(client, client.models.list))
            for client in self._clients
        }

    def cost_usd(self, usage: Usage) -> float | None:
        return model_info(self.model).cost_usd(usage)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def _client(self, url: str, key_host: str | None) -> Any:
        from openai import DefaultHttpxClient, OpenAI, Timeout

        client = OpenAI(
            base_url=url,
            api_key=self._secret if may_get_key(url, key_host) else _NO_KEY,
            max_retries=0,
            timeout=Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s)),
            http_client=DefaultHttpxClient(trust_env=not on_this_machine(url)),  # no proxy between here and here
        )
        client.organization = client.project = None  # which the package takes from the environment for every server
        return client

    def _next_client(self) -> Any:
        """The next server in turn that is not resting; the next one anyway when all are."""
        with self._lock:
            first = next(self._turn)
        in_turn = [self._clients[(first + i) % len(self._clients)] for i in range(len(self._clients))]
        now = time.monotonic()
        return next((client for client in in_turn if self._resting.get(client, 0.0) <= now), in_turn[0])

    def _body(self, request: Request, shape: _Shape) -> dict[str, Any]:
        form = _FORMS[shape.form]
        system = request.system
        options: dict[str, Any] = {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed}
        body = {k: v for k, v in options.items() if v is not None and k not in shape.left_out}
        body[shape.limit] = request.max_tokens
        if request.schema is not None:
            if form in ("json object", "prompt"):
                system = f"{system}\n\n{stated(request.schema)}".strip()
            if form == "json object":
                body["response_format"] = {"type": "json_object"}
            elif form != "prompt":
                schema = dict(request.schema) if form == "schema" else without_bounds(request.schema)
                named = {"name": request.schema_name, "schema": schema, "strict": True}
                body["response_format"] = {"type": "json_schema", "json_schema": named}
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": role, "content": text} for role, text in request.messages]
        return {"model": self.model, "messages": messages, **body}

    def _create(self, client: Any, body: dict[str, Any]) -> Any:
        answer = self._call(client, lambda: client.chat.completions.create(**body))
        if not hasattr(answer, "choices"):  # the package hands on whatever a server answers with status 200
            raise Fatal(
                f"{client.base_url} answers, but not as an OpenAI-compatible server: the address usually ends in /v1.",
                model=self.model,
            )
        return answer

    def _call(self, client: Any, ask: Callable[[], Any]) -> Any:
        import openai

        try:
            return ask()
        except openai.APIConnectionError as error:
            reason = error.__cause__ or error
            nobody = type(reason).__name__ in ("ConnectError", "ConnectTimeout")  # of httpx
            if isinstance(error, openai.APITimeoutError) and not nobody:
                raise Transient(
                    f"{client.base_url} did not answer within {self._timeout_s:g} s.", model=self.model
                ) from None
            self._resting[client] = time.monotonic() + REST_S
            raise (Unreachable if nobody else Transient)(
                f"{client.base_url} can't be reached ({reason}): is it running?", model=self.model
            ) from None
        except openai.APIStatusError as error:
            text = self._clean(f"{error.message} {error.param or ''}")
            raise typed(error, text, self.model) from None
        except (openai.APIError, ValueError) as error:  # ValueError: a body that is not the JSON it says it is
            raise Transient(
                f"{client.base_url} sent a broken answer: {self._clean(str(error))}", model=self.model
            ) from None

    def _completion(self, answer: Any, latency_s: float) -> Completion:
        choice = answer.choices[0] if answer.choices else None
        message = choice.message if choice else None
        refusal = getattr(message, "refusal", None)
        usage, used = Usage(), answer.usage
        if used is not None:
            cached = getattr(used.prompt_tokens_details, "cached_tokens", None) or 0
            usage = Usage((used.prompt_tokens or 0) - cached, used.completion_tokens or 0, cache_read_tokens=cached)
        reason = _STOP_REASONS.get(choice.finish_reason or "", "other") if choice else "filtered"
        return Completion(
            text=(message.content or refusal or "") if message else "",
            model=self.model,
            usage=usage,
            stop_reason="filtered" if refusal else reason,
            latency_s=latency_s,
            cost_usd=self.cost_usd(usage) if used is not None else None,
            created_at=datetime.now(UTC),
        )

    def _clean(self, text: str) -> str:
        """A server's words on one line, without the key, which some repeat."""
        return " ".join(text.replace(self._secret, "***").split())[:500]


def _simpler(shape: _Shape, request: Request, text: str) -> _Shape | None:
    """The shape to try after a refusal, or None when the refusal is not about one."""
    if "max_completion_tokens" in text and shape.limit == "max_tokens":
        return replace(shape, limit="max_completion_tokens")
    for option in ("temperature", "top_p", "seed"):
        sent = getattr(request, option) is not None and option not in shape.left_out
        if sent and option in text and _UNSUPPORTED.search(text):
            return replace(shape, left_out=shape.left_out | {option})
    if request.schema is not None and shape.form < len(_FORMS) - 1 and _REFUSES_FORM.search(text):
        return replace(shape, form=shape.form + 1)
    return None
