"""What an OpenAI-compatible server's answer means, whatever its shape: a completion, or a typed error with its words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from genesis_lab.errors import Fatal, ProviderError, QuotaExhausted, Rejected, Throttled, Transient
from genesis_lab.providers.base import NO_ROOM, Completion, Usage, known, retry_after_s

_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_READ = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens")
_WRITTEN = ("cache_write_tokens", "cache_creation_input_tokens")


def read_answer(body: str, model: str, place: str, headers: Mapping[str, str]) -> Completion:
    """The completion in the body of an answer with status 200, or the typed error where it holds one, or no answer."""
    data = _json(body)
    if isinstance(data, str) and (not body.strip() or body.lstrip()[0] in "{["):
        raise Transient(f"{place} sent a broken answer: {body[:200]!r}", model=model)
    if isinstance(data, str) and body.lstrip().startswith(("data:", "event:")):
        raise Fatal(f"{place} streams its answers unasked: turn streaming off there.", model=model)
    data = _one(data)
    fields = data if isinstance(data, Mapping) else {}
    choice = _mapping(_one(fields.get("choices"), first=True))
    bare = data if not choice and (fields.get("object") == "error" or fields.get("detail")) else None
    if failed := fields.get("error") or choice.get("error") or bare:
        raise typed(failed, model, place, headers)
    if "choices" not in fields:
        raise Fatal(
            f"{place} answers, but not as an OpenAI-compatible server: the address usually ends in /v1.", model=model
        )
    reason = str(choice.get("finish_reason") or "").casefold()
    message = choice.get("message") or {"content": choice.get("text")}
    message = message if isinstance(message, Mapping) else {"content": message}
    content, text = message.get("content"), _text(message.get("content"))
    if not choice or reason in ("error", "abort", "cancelled"):
        said = (text.strip() or json.dumps(data, ensure_ascii=False))[:1000]
        raise Transient(f"{place} sent no answer (finish_reason {reason or 'missing'}): {said}", model=model)
    stop = known("openai")["stop_reasons"].get(reason, "other")
    if not text.strip():  # a model that took the schema for a tool called it with the answer
        call = _mapping(_one(message.get("tool_calls"), first=True)).get("function") or message.get("function_call")
        given = _mapping(call).get("arguments") or message.get("refusal") or ""
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    if not text.strip() and stop != "max_tokens":  # servers that take the answer for a thought
        thoughts = map(_words, (content, *map(message.get, _THOUGHTS)))
        text = next((said for said in thoughts if said.strip()), text)
    unbegun = not text.strip() or re.match(r"\s*(<think|\[THINK\])(?!.*(</think|\[/THINK\]))", text, re.S | re.I)
    usage = read_usage(fields.get("usage"))
    return Completion(
        text=text,
        model=model,
        usage=usage if usage and (usage.completion_tokens or not text.strip()) else None,  # else it does not count
        stop_reason="filtered" if message.get("refusal") else stop,
        created_at=datetime.now(UTC),
        note=NO_ROOM if unbegun and stop == "max_tokens" else None,
    )


def read_usage(told: Any) -> Usage | None:
    """The tokens of a call by any of the names in use, or None where a server does not say.

    Cached tokens are part of the prompt's or counted apart; which of the two, the total or their number tells. Thoughts
    that only the total counts are part of the answer's.
    """
    told = _mapping(told)
    inside = [told, _mapping(told.get("prompt_tokens_details")), _mapping(told.get("input_tokens_details"))]
    prompt, total = _count([told], "prompt_tokens", "input_tokens"), _count([told], "total_tokens")
    completion = _count([told], "completion_tokens", "output_tokens")
    if completion is None and prompt is not None and total is not None:
        completion = max(0, total - prompt)
    if prompt is None or completion is None:
        return None
    read, written = _count(inside, *_READ) or 0, _count(inside, *_WRITTEN) or 0
    cached, beyond = read + written, (total or 0) - prompt - completion
    if cached > prompt or (cached and beyond == cached) or {"input_tokens", "cache_read_input_tokens"} <= told.keys():
        beyond -= cached
    else:
        prompt -= cached
    thoughts = _count([_mapping(told.get("completion_tokens_details"))], "reasoning_tokens") or 0
    if thoughts > completion and beyond <= 0:
        beyond = thoughts
    return Usage(prompt, completion + max(0, beyond), read, written) if prompt + cached else None


def typed(failed: Any, model: str, place: str, headers: Mapping[str, str], status: int | None = None) -> ProviderError:
    """The typed error for what a server says is wrong, an object or text; without a `status` the error itself tells."""
    failed = _one(_json(failed) if isinstance(failed, str) else failed)
    if isinstance(failed, Mapping) and isinstance(failed.get("error"), Mapping | str):
        failed = failed["error"]
    fields, whole = _mapping(failed), json.dumps(failed, ensure_ascii=False, default=str)
    text = _sentence(failed) or f"{place} sent an error without a word."
    if (param := str(fields.get("param") or "")) and param not in text:
        text = f"{text} ({param})"
    code = str(fields.get("code") or fields.get("status") or fields.get("type") or "") or None
    if not status and re.fullmatch(r"[45]\d\d", code or text):
        status = int(code or text)
    elif not status:  # one whose words say nothing is the server's own fault
        signs = known("openai")["status"].items()
        status = next((number for number, words in signs if re.search(words, code or text, re.I)), 500)
    details: dict[str, Any] = {"code": code, "status": status, "model": model}
    if status == 429 and (code == "insufficient_quota" or re.search(r"per.?day|daily|\b[RT]PD\b", whole, re.I)):
        return QuotaExhausted(text, **details)
    wait_s = retry_after_s(headers, whole)
    if status == 429:
        tokens = re.search(r"tokens?.?per|\bTPM\b", whole, re.I) or headers.get("x-ratelimit-remaining-tokens") == "0"
        return Throttled(text, scope="tokens" if tokens else "unknown", retry_after_s=wait_s, **details)
    if status in (408, 409, 425) or (status >= 500 and status != 501):
        return Transient(text, retry_after_s=wait_s, **details)
    if status in (401, 403):
        return Fatal(f"The server refuses the key, or access to {model}: {text}", **details)
    if status == 404:
        hint = "" if re.search(r"/v\d", place) else " (the address usually ends in /v1)"
        return Fatal(f"There is no {model} at {place}{hint}: {text}", **details)
    return Rejected(text, **details)


def _json(text: str) -> Any:
    """What a JSON text holds; the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _one(value: Any, first: bool = False) -> Any:
    """The only item of a list, or its `first`; anything else as it is."""
    return value[0] if isinstance(value, list) and value and (first or len(value) == 1) else value


def _text(content: Any) -> str:
    """The text of a message's content, without its thoughts: a text, parts of one, or the answer as it is meant to be."""
    if isinstance(content, Mapping) and "type" not in content:
        return json.dumps(content, ensure_ascii=False)
    parts = content if isinstance(content, list) else [content]
    return "".join(_words(part) for part in parts if not re.search("think|reason", str(_mapping(part).get("type"))))


def _words(value: Any) -> str:
    """The text in a part of a message: a text, an object that holds one, or a list of these."""
    if isinstance(value, list):
        return "".join(map(_words, value))
    if isinstance(value, Mapping):
        return next(filter(None, (_words(value.get(name)) for name in ("text", "value", "thinking", "content"))), "")
    return value if isinstance(value, str) else ""


def _count(places: list[Mapping[str, Any]], *names: str) -> int | None:
    """The first number under these names; None for what is missing or no count."""
    for value in (place.get(name) for place in places for name in names):
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return None


def _sentence(failed: Any) -> str:
    """A server's own words, whatever it wraps them in."""
    if isinstance(failed, list):
        return "; ".join(map(_sentence, failed))
    if not isinstance(failed, Mapping):
        return " ".join(str(failed).split())
    said = next((_sentence(failed[name]) for name in ("message", "msg", "detail", "error") if failed.get(name)), "")
    where, raw = failed.get("loc"), _mapping(failed.get("metadata")).get("raw")
    parts = (".".join(map(str, where)) if isinstance(where, list) and said else "", said, _sentence(raw) if raw else "")
    return ": ".join(filter(None, parts)) or json.dumps(failed, ensure_ascii=False, default=str)
