"""Provider ``openai``: any server that speaks OpenAI's chat completions (Ollama, vLLM, llama.cpp, LM Studio, Gemini, OpenAI)."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from pydantic import SecretStr

from genesis_lab.errors import Fatal, InvalidInput, MissingDependency, ProviderError, Rejected, Transient, Unreachable
from genesis_lab.providers.addresses import may_get_key, on_this_machine, server_address
from genesis_lab.providers.base import Capabilities, Completion, Provider, Request, Usage
from genesis_lab.providers.openai_answers import UNSUPPORTED, Refused, read_answer, typed
from genesis_lab.providers.schemas import stated, without_bounds

OPENAI_URL = "https://api.openai.com/v1"
CONNECT_S = 10.0
"""How long a server may take to accept a connection."""

_NO_KEY = "no-key-needed"
"""Sent where there is no key: the package insists on one, and must not take it from the environment by itself."""
_FORMS = ("bounds of the schema", "json_schema", "json_object")
"""What structured output is asked for with, dropped in this order where a server refuses it; what is left is the prompt."""
_OPTIONS = ("temperature", "seed")
_CHARACTERS_PER_TOKEN = 8
"""More than any text of ours has."""
_SHORT, _ALIKE = 500, 6
"""Characters of a prompt, and prompts in a row, from which on a count says something."""
_REFUSES_FORM = re.compile(r"response_format|json_schema|json_object|structured|guided|grammar|schema", re.I)
_ACCEPTED = re.compile(
    r"(?<!not )(?<!n't )(?<!not a )\b(supported|accepted|allowed|valid|permitted|known|expected|available)\b"
    r"[^.:;(\[]{0,40}(?:[:(\[]| are | is | one of )[^.;\n]*",
    re.I,
)
_LIST = re.compile(r"(?:\b\w+\b\W{0,2}(?:,|\band\b|\bor\b)\W{0,2}){2,}\b\w+", re.I)
"""Where a refusal lists what is accepted, model and messages among them, it names nothing that it refuses."""
_RANGE = re.compile(
    r"[<>]=?|maximum|minimum|between|range|(less|greater|smaller|larger|more) than|at (most|least)", re.I
)
_CONSISTENT = 3
"""Requests in a row without a thing before it is left out of all, where it has worked or is not named outright."""


class OpenAIProvider(Provider):
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
        self.base_urls = tuple(map(server_address, base_urls))
        self.capabilities = Capabilities(concurrency=concurrency or 8 * len(base_urls))
        self._secret = api_key.get_secret_value() if api_key else _NO_KEY
        self._timeout_s = timeout_s
        self._clients = [self._client(url, key_host) for url in self.base_urls]
        self._turn = itertools.count()
        self._down: set[Any] = set()
        self._without: frozenset[str] = frozenset()
        self._worked: set[str] = set()
        self._refusals: Counter[str] = Counter()
        self._trial, self._cured, self._failures = frozenset[str](), frozenset[str](), 0
        self._prompts: deque[tuple[int, int]] = deque(maxlen=8)
        self._lock = threading.Lock()

    def complete(self, request: Request) -> Completion:
        """One answer. What the server refuses is left out, of this request at once, of all when that is consistent."""
        trial, refused, first = self._trial, dict[str, bool](), None
        while True:
            client, started = self._next_client(), time.perf_counter()
            without = self._without | trial | refused.keys()
            sent, body = _sent(request, without), self._body(request, without)
            try:
                answer = self._create(client, body)
            except Refused as refusal:
                first = first or refusal
                name, outright = _refused(refusal, sent)
                if name is None:
                    kind = Transient if (first.status or 0) >= 500 else Rejected
                    raise kind(str(first), code=first.code, status=first.status, model=self.model) from None
                refused[name] = outright
                continue
            except Transient as error:
                if error.status in (500, 502):
                    self._suspect(request, trial)
                raise
            self._learn(sent, refused, trial)
            return replace(
                answer,
                latency_s=time.perf_counter() - started,
                not_sent=tuple(name for name in _wanted(request) if name in without),
                note=answer.note or self._cut(body, answer.usage),
            )

    def _learn(self, sent: list[str], refused: dict[str, bool], trial: frozenset[str]) -> None:
        """An answer came with `sent`, without what was `refused`: outright, or by words that may be about this one only."""
        with self._lock:
            self._worked.update(sent)
            for name in sent:
                self._refusals.pop(name, None)
            for name, outright in refused.items():
                self._refusals[name] += 1
                if self._refusals[name] >= (1 if outright and name not in self._worked else _CONSISTENT):
                    self._without |= {name}
            if trial == self._trial:
                self._trial, self._cured, self._failures = frozenset(), trial, 0

    def _suspect(self, request: Request, trial: frozenset[str]) -> None:
        """The server failed without a word, perhaps over something it does not know: the next requests try less.

        What it answers without, but fails with again, stays out.
        """
        with self._lock:
            if trial != self._trial:
                return
            if self._cured:
                self._without, self._cured = self._without | self._cured, frozenset()
                return
            self._failures += 1
            if self._failures < 2:
                return
            left = [name for name in _wanted(request) if name not in self._without]
            forms = [name for name in left if name in _FORMS]
            doubtful = range(0 if forms and forms[0] in self._worked else len(forms))
            less = [frozenset(forms[: n + 1]) for n in doubtful]
            less += [frozenset({name}) for name in left if name in _OPTIONS and name not in self._worked]
            place = less.index(trial) + 1 if trial in less else 0
            self._trial = less[place] if place < len(less) else frozenset()

    def _cut(self, body: Mapping[str, Any], usage: Usage | None) -> str | None:
        """A sentence where the server counts fewer tokens than the prompt has, or as many for every prompt."""
        if usage is None:
            return None
        tokens = usage.prompt_tokens + usage.cache_read_tokens + usage.cache_write_tokens
        characters = sum(len(" ".join(message["content"].split())) for message in body["messages"])
        with self._lock:
            self._prompts.append((characters, tokens))
            same = [length for length, counted in self._prompts if counted == tokens]
            always = len(same) == len(self._prompts) >= _ALIKE
        grew, longer = max(same) - min(same), max(same) / max(1, min(same))
        long = characters > _SHORT and characters > tokens * _CHARACTERS_PER_TOKEN
        if not long and not (grew > _SHORT and longer > 1.6) and not (always and longer > 1.05):
            return None
        return (
            f"The server counted {tokens:,} tokens for a prompt of {characters:,} characters"
            + ("" if long else f", and as many for one of {min(same):,}")
            + ": it seems to cut prompts, so give it a longer context (Ollama: OLLAMA_CONTEXT_LENGTH, llama.cpp: -c)."
        )

    def list_models(self) -> dict[str, list[str]]:
        """The models that each server offers, by base URL; raises the same errors as `complete`."""
        return {
            str(client.base_url): sorted(model.id for model in self._call(client, client.models.list))
            for client in self._clients
        }

    def cost_usd(self, usage: Usage) -> float | None:
        """Not known: a server has its own prices, whatever models of the same name cost elsewhere."""
        return None

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
        """Servers take turns; one that can't be reached is passed over while another can."""
        up = [client for client in self._clients if client not in self._down] or self._clients
        return up[next(self._turn) % len(up)]

    def _body(self, request: Request, without: Container[str]) -> dict[str, Any]:
        system = request.system
        body = {name: getattr(request, name) for name in _wanted(request) if name in _OPTIONS and name not in without}
        body["max_completion_tokens" if "max_tokens" in without else "max_tokens"] = request.max_tokens
        if request.schema is not None:
            form = next((name for name in _FORMS if name not in without), None)
            if form in ("json_object", None):
                system = f"{system}\n\n{stated(request.schema)}".strip()
            if form == "json_object":
                body["response_format"] = {"type": "json_object"}
            elif form is not None:
                schema = without_bounds(request.schema) if form == "json_schema" else dict(request.schema)
                named = {"name": request.schema_name, "schema": schema, "strict": True}
                body["response_format"] = {"type": "json_schema", "json_schema": named}
        messages = [{"role": "system", "content": system}] if system else []
        messages += [{"role": role, "content": text} for role, text in request.messages]
        return {"model": self.model, "messages": messages, **body}

    def _create(self, client: Any, body: dict[str, Any]) -> Completion:
        raw = self._call(client, lambda: client.chat.completions.with_raw_response.create(**body))
        place, text = str(client.base_url), raw.text
        try:
            data = json.loads(text)
        except ValueError:
            if text.lstrip().startswith(("data:", "event:")):
                raise Fatal(
                    f"{place} streams its answers unasked: turn streaming off there.", model=self.model
                ) from None
            if text.strip() and text.lstrip()[0] not in "{[":
                data = None
            else:
                raise Transient(f"{place} sent a broken answer: {text[:200]!r}", model=self.model) from None
        try:
            return read_answer(data, self.model, place, raw.headers)
        except ProviderError as error:
            error.args = (self._clean(str(error)),)
            raise

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
            self._down = {client} if len(self._down) + 1 >= len(self._clients) else self._down | {client}
            raise (Unreachable if nobody else Transient)(
                f"{client.base_url} can't be reached ({reason}): is it running?", model=self.model
            ) from None
        except openai.APIStatusError as error:
            said, place = error.body or error.response.text or error.message, str(client.base_url)
            failed = typed(said, self.model, place, error.response.headers, error.status_code)
            failed.args = (self._clean(str(failed)),)
            raise failed from None
        except (openai.APIError, ValueError) as error:  # ValueError: a body that is not the JSON it says it is
            raise Transient(
                f"{client.base_url} sent a broken answer: {self._clean(str(error))}", model=self.model
            ) from None

    def _clean(self, text: str) -> str:
        """A server's words on one line, without the key, which some repeat."""
        return " ".join(text.replace(self._secret, "***").split())[:4000]


def _wanted(request: Request) -> list[str]:
    """What of a request a server may not know: the forms of structured output, strictest first, and sampling options."""
    forms = list(_FORMS) if request.schema is not None else []
    return forms + [name for name in _OPTIONS if getattr(request, name) is not None]


def _sent(request: Request, without: Container[str]) -> list[str]:
    """What of it is sent `without` some: of the forms one, with bounds or not."""
    wanted = [name for name in _wanted(request) if name not in without]
    strict = "json_schema" in wanted
    limit = [] if "max_tokens" in without else ["max_tokens"]
    return [name for name in wanted if name not in _FORMS or (name == "json_object") != strict] + limit


def _refused(refusal: Refused, sent: Sequence[str]) -> tuple[str | None, bool]:
    """Which of `sent` a server refuses, if any, and whether it says so outright."""
    said = _LIST.sub(lambda m: " " if re.search(r"\b(model|messages)\b", m[0]) else m[0], refusal.whole[:4000])
    said = _ACCEPTED.sub(" ", said)
    unsupported = UNSUPPORTED.search(said)
    if "max_tokens" in sent and "max_completion_tokens" in said and (unsupported or "instead" in said):
        return "max_tokens", True
    # A value out of range is for the user to mend: it is no reason to send none.
    for name in () if _RANGE.search(said) else set(_OPTIONS).intersection(sent):
        if name == refusal.param or (unsupported and re.search(rf"\b{name}\b", said)):
            return name, True
    form = next((name for name in sent if name in _FORMS), None)
    if form and (refusal.param.startswith("response_format") or _REFUSES_FORM.search(said)):
        field = re.search(r"response_format|json_schema|json_object", said)
        sample = re.search(r"generated|to generate|(?<!structured.)\boutput|sample", said, re.I)
        return form, bool(field and not sample and (unsupported or re.search(r"invalid|must be", said, re.I)))
    return None, False
