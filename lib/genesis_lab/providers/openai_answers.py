"""What an OpenAI-compatible server's answer means, whatever its shape: a completion, or a typed error with its words."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from genesis_lab.errors import Fatal, ProviderError, QuotaExhausted, Rejected, Throttled, Transient
from genesis_lab.providers.base import NO_ROOM, Completion, StopReason, Usage, retry_after_s

UNSUPPORTED = re.compile(
    r"(un|not |n't )(be )?support|only the default|deprecated|unknown|unrecogni|unexpected|extra|unavailable|"
    r"not (be )?(permitted|allowed|available|implemented|recogni)|forbidden",
    re.I,
)
"""Words of a server that does not take something at all."""
_STOP_REASONS: dict[str, StopReason] = {
    "stop": "end", "eos": "end", "eos_token": "end", "end_turn": "end", "tool_calls": "end", "function_call": "end",
    "stop_sequence": "stop_sequence", "length": "max_tokens", "max_tokens": "max_tokens", "model_length": "max_tokens",
    "content_filter": "filtered", "safety": "filtered", "sensitive": "filtered", "refusal": "filtered",
}  # fmt: skip
_THOUGHTS = ("reasoning_content", "reasoning", "thinking", "reasoning_details")
_PROMPT = ("prompt_tokens", "input_tokens", "promptTokens", "inputTokens", "promptTokenCount", "prompt_eval_count",
           "prompt_n")  # fmt: skip
_COMPLETION = ("completion_tokens", "output_tokens", "completionTokens", "outputTokens", "candidatesTokenCount",
               "generated_tokens", "eval_count", "predicted_n")  # fmt: skip
_TOTAL = ("total_tokens", "totalTokens", "totalTokenCount")
_READ = ("cached_tokens", "prompt_cache_hit_tokens", "cache_read_input_tokens", "cache_read_tokens",
         "cacheReadInputTokens", "cachedContentTokenCount", "cache_n")  # fmt: skip
_WRITTEN = ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens", "cacheWriteInputTokens")
_STATUS_OF = (
    (r"rate.?limit|resource.?exhausted|too.?many|throttl|insufficient.?quota", 429),
    (r"authenti|api.?key|permission", 401),
    (r"not.?found|unexpected endpoint", 404),
    (r"invalid|bad.?request|context.?length|context.?size", 400),
)
"""What the code or type of an error says where it has no status."""


class Refused(Rejected):
    """The server does not take the request as it is; in a simpler shape it may. `whole` is all that it said."""

    def __init__(self, message: str, *, whole: str, param: str = "", **details: Any) -> None:
        super().__init__(message, **details)
        self.whole, self.param = whole, param


def read_answer(data: Any, model: str, place: str, headers: Mapping[str, str]) -> Completion:
    """The completion in the body of an answer with status 200.

    Parameters
    ----------
    model : the model asked.
    place : the server's address, for messages.

    Raises
    ------
    ProviderError : the body holds an error, no answer, or something else altogether.
    """
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, Mapping):
        raise _not_compatible(place, model)
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    reason = str(choice.get("finish_reason") or "").casefold()
    failed = data.get("error") or choice.get("error") or (data if data.get("object") == "error" else None)
    if not failed and not choices and (data.get("detail") or data.get("message")):
        failed = data
    if failed:
        raise typed(failed, model, place, headers)
    if "choices" not in data:
        raise _not_compatible(place, model)
    message = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    if not isinstance(message, Mapping):
        message = {"content": message}
    text, thoughts = _text(message.get("content"))
    if not choice or reason in ("error", "abort", "cancelled"):
        said = (text.strip() or json.dumps(data, ensure_ascii=False))[:1000]
        raise Transient(f"{place} sent no answer (finish_reason {reason or 'missing'}): {said}", model=model)
    stop = _STOP_REASONS.get(reason, "other")
    if not text.strip():
        text = _arguments(message) or text
    if not text.strip() and message.get("refusal"):
        text = str(message["refusal"])
    if not text.strip() and stop != "max_tokens":  # servers that take the answer for a thought
        text = thoughts or next(filter(None, (_thought(message.get(name)) for name in _THOUGHTS)), text)
    unbegun = not text.strip() or re.match(r"\s*(<think|\[THINK\])(?!.*(</think|\[/THINK\]))", text, re.S | re.I)
    counts = next(filter(None, (data.get(name) for name in ("usage", "usageMetadata", "timings"))), None)
    usage = read_usage(counts)
    if usage and text.strip() and not usage.completion_tokens:
        usage = None  # it does not count
    return Completion(
        text=text,
        model=model,
        usage=usage,
        stop_reason="filtered" if message.get("refusal") else stop,
        created_at=datetime.now(UTC),
        note=NO_ROOM if unbegun and stop == "max_tokens" else None,
    )


def read_usage(told: Any) -> Usage | None:
    """The tokens of a call by any of the names in use, or None where a server does not say.

    Cached tokens are part of the prompt's or counted apart; which of the two, the total or their number tells. Thoughts
    that only the total counts are part of the answer's.
    """
    if not isinstance(told, Mapping):
        return None
    prompt, completion, total = _count(told, _PROMPT), _count(told, _COMPLETION), _count(told, _TOTAL)
    if total is not None and (prompt is None) != (completion is None):
        prompt = max(0, total - (completion or 0)) if prompt is None else prompt
        completion = max(0, total - prompt) if completion is None else completion
    if prompt is None or completion is None:
        return None
    inside = [told, told.get("prompt_tokens_details"), told.get("input_tokens_details")]
    read, written = (next((n for d in inside if (n := _count(d, names))), 0) for names in (_READ, _WRITTEN))
    thoughts = max(
        _count(told.get(f"{name}_tokens_details"), ("reasoning_tokens",)) or 0 for name in ("completion", "output")
    )
    beyond = (total or 0) - prompt - completion
    cached = read + written
    apart = cached > prompt or (cached and beyond in (cached, cached + thoughts))
    if apart or (not {"cache_n", "cache_read_input_tokens"}.isdisjoint(told) and "prompt_tokens" not in told):
        beyond -= cached
    else:
        prompt -= cached
    if prompt + cached <= 0:
        return None  # nobody asks nothing: it does not count
    if thoughts > completion and beyond <= 0:
        beyond = thoughts
    return Usage(prompt, completion + max(0, beyond), read, written)


def typed(failed: Any, model: str, place: str, headers: Mapping[str, str], status: int | None = None) -> ProviderError:
    """The typed error for what a server says is wrong.

    Parameters
    ----------
    failed : the error it sent: an object, a list of them or text.
    status : the HTTP status; None looks for one in the error itself.
    """
    if isinstance(failed, list) and len(failed) == 1:
        failed = failed[0]
    if isinstance(failed, Mapping) and isinstance(failed.get("error"), Mapping | str):
        failed = failed["error"]
    fields = failed if isinstance(failed, Mapping) else {}
    text, whole = (
        _words(failed) or f"{place} sent an error without a word.",
        json.dumps(failed, ensure_ascii=False, default=str),
    )
    code = str(fields.get("code") or fields.get("status") or fields.get("type") or "") or None
    status = status or _status(fields, text)
    details: dict[str, Any] = {"code": code, "status": status, "model": model}
    if status == 429:
        if code == "insufficient_quota" or re.search(r"per.?day|daily|\b[RT]PD\b", whole, re.I):
            return QuotaExhausted(text, **details)
        tokens = re.search(r"tokens?.?per|\bTPM\b", whole, re.I) or headers.get("x-ratelimit-remaining-tokens") == "0"
        wait = retry_after_s(headers, whole)
        return Throttled(text, scope="tokens" if tokens else "unknown", retry_after_s=wait, **details)
    named = re.search(r"response_format|json_schema|json_object|\b(temperature|seed)\b", whole)
    if status in (400, 422, 501) or (
        status >= 500 and named and re.search(f"must be|{UNSUPPORTED.pattern}", whole, re.I)
    ):
        return Refused(text, whole=whole, param=str(fields.get("param") or ""), **details)
    if status in (408, 409, 425) or status >= 500:
        return Transient(text, retry_after_s=retry_after_s(headers, text), **details)
    if status in (401, 403):
        return Fatal(f"The server refuses the key, or access to {model}: {text}", **details)
    if status == 404:
        hint = "" if re.search(r"/v\d", place) else " (the address usually ends in /v1)"
        return Fatal(f"There is no {model} at {place}{hint}: {text}", **details)
    return Rejected(text, **details)


def _not_compatible(place: str, model: str) -> Fatal:
    return Fatal(
        f"{place} answers, but not as an OpenAI-compatible server: the address usually ends in /v1.", model=model
    )


def _text(content: Any) -> tuple[str, str]:
    """The text in a message's content, and the thoughts in it: a text, parts of one, or the answer as it is meant to be."""
    if content is None or isinstance(content, str):
        return content or "", ""
    texts, thoughts = [], []
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping) and ("thinking" in part or "reason" in str(part.get("type"))):
            thoughts.append(_thought(part))
        elif isinstance(part, Mapping) and isinstance(part.get("text"), str | Mapping):
            said = part["text"]
            texts.append(said if isinstance(said, str) else str(said.get("value") or ""))
        elif not (isinstance(part, Mapping) and "type" in part):
            return json.dumps(content, ensure_ascii=False), ""  # the object itself, not its text
        elif isinstance(part.get("json"), Mapping | list):
            texts.append(json.dumps(part["json"], ensure_ascii=False))
    return "".join(texts), "".join(thoughts)


def _thought(value: Any) -> str:
    """The text of a thought: as a text, an object or a list."""
    if isinstance(value, list):
        return "".join(map(_thought, value))
    if isinstance(value, Mapping):
        return next((said for name in ("text", "thinking", "content") if (said := _thought(value.get(name)))), "")
    return value if isinstance(value, str) else ""


def _arguments(message: Mapping[str, Any]) -> str:
    """What a model that took the schema for a tool called it with."""
    calls = message.get("tool_calls")
    first = calls[0] if isinstance(calls, list) and calls else {"function": message.get("function_call")}
    function = first.get("function") if isinstance(first, Mapping) else None
    given = function.get("arguments") if isinstance(function, Mapping) else None
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) if given else ""


def _count(counts: Any, names: Sequence[str]) -> int | None:
    """The first number under these names; None for what is missing or no count."""
    for name in names:
        value = counts.get(name) if isinstance(counts, Mapping) else None
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return None


def _words(failed: Any) -> str:
    """A server's own words on one line, whatever it wraps them in."""
    if isinstance(failed, list):
        return "; ".join(map(_words, failed))
    if not isinstance(failed, Mapping):
        return " ".join(str(failed).split())
    said = next((_words(failed[name]) for name in ("message", "msg", "detail", "error") if failed.get(name)), "")
    where = failed.get("loc")
    if isinstance(where, list) and said:
        said = f"{'.'.join(map(str, where))}: {said}"
    raw = failed["metadata"].get("raw") if isinstance(failed.get("metadata"), Mapping) else None
    return (f"{said}: {_words(raw)}" if raw else said) or json.dumps(failed, ensure_ascii=False, default=str)


def _status(fields: Mapping[str, Any], text: str) -> int:
    """The status that an error names or means; one that says nothing is the server's own fault."""
    kinds = [str(fields.get(name) or "") for name in ("code", "status", "status_code", "type")]
    number = next((int(kind) for kind in kinds if re.fullmatch(r"[45]\d\d", kind)), None)
    meant = (status for words, status in _STATUS_OF if re.search(words, " ".join(kinds), re.I))
    told = re.search(
        f"({_STATUS_OF[0][0]})|(unexpected endpoint)", text, re.I
    )  # the second LM Studio's, with status 200
    return number or next(meant, (429 if told[1] else 404) if told else 500)
