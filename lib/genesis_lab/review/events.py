"""What a bot's events mean: messages, sessions, what was typed, the real prediction, by the source of Rasa 3.6."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

FALLBACK, LISTEN = "nlu_fallback", "action_listen"
UNTRAINED = ("Duckling", "Spacy", "RegexMessageHandler", "RegexEntityExtractor")
"""Extractors that no example teaches, by the beginning of their names: what they find is no training data by itself."""
_UNSEEN = re.compile("[\0\ud800-\udfff]")


Row = tuple[int, str | None, float | None, str | bytes | None]
"""A row of a source: its id, type, the source's own time stamp (seconds, UTC), and the event as JSON."""


class Event(NamedTuple):
    """An event of a row: `digest` is the SHA-1 of its data, `at` its own time stamp, else the row's."""

    row: Row
    digest: str
    what: dict[str, Any]
    name: str
    at: float | None


@dataclass
class Conversation:
    """All that one sender's rows say; `kinds` has an entry for each row, in their order."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    errors: list[tuple[int | None, str, str]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    equal_times: bool = False
    """Most time stamps of the source are equal, as MySQL's 4-byte FLOAT leaves them."""


def conversation(source: str, sender: str, rows: Sequence[Row], *, gap_s: float, numbered: bool = True) -> Conversation:
    """The messages and sessions of one sender, whose rows come in the source's order.

    `gap_s` : seconds of silence before a message that begin a session where the tracker itself never does; 0 for none.
    `numbered` : whether the rows' ids are the source's own, and so a part of what identifies them.
    """
    found, events, seen = Conversation(), list[tuple[int, Event]](), set[str]()
    for row in rows:
        data = row[3].decode("utf-8", "surrogateescape") if isinstance(row[3], bytes) else str(row[3] or "")
        digest = hashlib.sha1(data.encode("utf-8", "surrogatepass")).hexdigest()
        if digest in seen and data:
            found.kinds.append("duplicate row")
            continue
        seen.add(digest)
        what, reason = parsed(data)
        at = _number(what.get("timestamp"))
        name = (_name(what.get("event")) or _name(row[1]) or "unknown")[:40]
        event = Event(row, digest, what, name, _number(row[2]) if at is None else at)
        if reason:
            found.errors.append((row[0] if numbered else None, reason, key_of(source, sender, event, numbered)))
        else:
            events.append((len(found.kinds), event))
        found.kinds.append("broken row" if reason else event.name)
    stamps = [row[2] for row in rows if row[2] is not None]
    found.equal_times = len(stamps) > 4 and 2 * len(set(stamps)) <= len(stamps)
    _follow(source, sender, events, gap_s, numbered, found)
    return found


def key_of(source: str, sender: str, event: Event, numbered: bool) -> str:
    """What identifies a row for ever: source, id and content; without ids sender, time, kind and content."""
    own = str(event.row[0]) if numbered else f"{sender}\0{event.what.get('timestamp')}\0{event.what.get('event')}"
    return hashlib.sha1(f"{source}\0{own}\0{event.digest}".encode("utf-8", "surrogatepass")).hexdigest()


def parsed(data: str) -> tuple[dict[str, Any], str | None]:
    """An event as JSON, and why it is none. Python's reader takes the NaN and lone surrogates that Rasa writes."""
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        return {}, f"the data is no JSON: {str(error)[:120]}" if data else "there is no data"
    return (event, None) if isinstance(event, dict) else ({}, f"the data is {type(event).__name__}, expected an object")


def _follow(
    source: str, sender: str, events: Sequence[tuple[int, Event]], gap_s: float, numbered: bool, found: Conversation
) -> None:
    """Go through a sender's events as Rasa's tracker does, and note in `found` what they say."""
    applied: list[tuple[str, dict[str, Any]]] = []  # what `rewind` and `undo` may take back
    originals: dict[Any, dict[str, Any]] = {}
    message: dict[str, Any] | None = None
    for (place, one), begins in zip(events, _begins([one for _, one in events], gap_s), strict=True):
        _, _, event, name, at = one
        if begins:
            message = None
            key = key_of(source, sender, one, numbered)
            found.sessions.append(_session(source, sender, key, len(found.sessions) + 1, at))
        session = found.sessions[-1]
        if at is not None and (session["ended_at"] is None or at > session["ended_at"]):
            session["ended_at"] = at
        if name == "user":
            parse = _mapping(event.get("parse_data"))
            same = (event.get("timestamp"), event.get("message_id") or event.get("text"))
            sure = _mapping(parse.get("intent")).get("confidence") == 1.0 and not parse.get("intent_ranking")
            if sure and same in originals and event.get("timestamp") is not None:
                found.kinds[place] = "user: a person's correction of the message before"
                said = {"gold": prediction(parse)["intent"], "gold_entities": entities(parse, event.get("text"))}
                message = originals[same]
                message |= said | {"undone": False}
            else:
                what, message = _message(one, parse, session, numbered)
                found.kinds[place] = f"user: {what}" if parse else f"user: {what}, without parse_data"
                found.messages.append(message)
                originals[same] = message
                session["messages"] += 1
                session["typed"] += message["typed"]
                session["model"] = message["model"] or session["model"]
                session["channel"] = message["channel"] or session["channel"]
            applied.append((name, message))
            continue
        if name in ("restart", "session_started"):
            applied.clear()
        elif name in ("rewind", "undo"):
            for until in ("user", "action") if name == "rewind" else ("action",):
                taken = None
                while applied and taken != until:  # what Rasa's tracker forgets stays here, marked
                    taken, back = applied.pop()
                    back["undone"] = True
        shown = _shown(name, event)
        applied.append((name, shown or {}))
        if shown is not None:
            (message["events"] if message else session["opening"]).append(shown)
            if message and name == "action":
                message["actions"].append(shown["action"])


def _begins(events: Sequence[Event], gap_s: float) -> list[bool]:
    """Which events begin a session.

    That is a `session_started_metadata` slot directly followed by `action_session_start`, else that action, else a
    `session_started` that no such action announced, else the first event. ``/session_start`` belongs to the session
    before.
    """
    begins, announced, opened = [], False, False
    starts = [one.name == "action" and one.what.get("name") == "action_session_start" for one in events]
    for (_, _, event, name, _), start, next_starts in zip(events, starts, [*starts[1:], False], strict=False):
        begin = event.get("turn") == 0  # of a chat of another system
        slot = name == "slot" and event.get("name") == "session_started_metadata"
        if slot:
            begin = next_starts
        elif start:
            begin, announced = not opened, True
        elif name == "session_started":
            begin, announced = not announced, False
        elif name == "user":
            announced = False
        opened = begin and slot
        begins.append(begin)
    if gap_s and sum(begins) <= 1:  # the tracker never expires
        for number, ((*_, before), (*_, name, at)) in enumerate(pairwise(events), 1):
            silent = name == "user" and at is not None and before is not None and at - before > gap_s
            begins[number] = begins[number] or silent
    return [True, *begins[1:]] if begins else []


def _session(source: str, sender: str, key: str, number: int, at: float | None) -> dict[str, Any]:
    """A session that begins with the row of that key."""
    return {
        "key": hashlib.sha1(f"session\0{key}".encode()).hexdigest(),
        "source": source,
        "sender": sender,
        "number": number,
        "started_at": at,
        "ended_at": at,
        "messages": 0,
        "typed": 0,
        "model": None,
        "channel": None,
        "opening": [],
    }


def _message(
    one: Event, parse: Mapping[str, Any], session: Mapping[str, Any], numbered: bool
) -> tuple[str, dict[str, Any]]:
    """What kind of message an event is, and its row."""
    (number, _, _, data), _, event, _, at = one
    metadata, text = _mapping(event.get("metadata")), event.get("text")
    text = text if text is None or isinstance(text, str) else json.dumps(text)
    what = kind(text, parse, metadata)
    shown, lossy = displayed(text)
    plain = isinstance(data, str) and data.isascii() and "\0" not in data
    return what, {
        "key": key_of(session["source"], session["sender"], one, numbered),
        "source": session["source"],
        "sender": session["sender"],
        "session": session["key"],
        "position": session["messages"],
        "timestamp": at,
        "raw": data if plain else json.dumps(event),
        "text": shown,
        "lossy": lossy,
        "typed": what == "typed",
        "undone": False,
        **prediction(parse),
        "entities": entities(parse, text),
        "gold": None,
        "gold_entities": None,
        "model": _name(metadata.get("model_id")),
        "assistant": _name(metadata.get("assistant_id")),
        "channel": _name(event.get("input_channel")),
        "actions": [],
        "events": [],
        "event_id": number if numbered else None,
    }


def kind(text: str | None, parse: Mapping[str, Any], metadata: Mapping[str, Any]) -> str:
    """``typed``, or why a message is not: ``payload`` of a button, ``external`` trigger, ``without text``.

    A payload begins with ``/`` and was never tokenized and ranked; a ``/x`` that the domain does not know was, so it is
    typed text. A confidence of 1.0 says nothing.
    """
    if not text or not text.strip():
        return "without text"
    if text.startswith("EXTERNAL:") and metadata.get("is_external"):
        return "external"
    ranking = parse.get("intent_ranking")
    alone = len(ranking) == 1 if isinstance(ranking, list) else bool(_mapping(parse.get("intent")).get("name"))
    return "payload" if text.startswith("/") and alone and not parse.get("text_tokens") else "typed"


def prediction(parse: Mapping[str, Any]) -> dict[str, Any]:
    """``intent``, ``confidence``, ``fallback`` and ``ranking`` as the model really predicted, by full names.

    Where the fallback stepped in, its confidence is a threshold: the prediction is the next in the ranking, which does
    not hold the fallback here. None where there is none.
    """
    intent, ranked = _mapping(parse.get("intent")), parse.get("intent_ranking")
    full = _full_names(parse, intent)
    ranking: list[dict[str, Any]] = [
        {"name": full.get(known, known), "confidence": _number(one.get("confidence"))}
        for one in (ranked if isinstance(ranked, list) else ())
        if isinstance(one, dict) and (known := _name(one.get("name"))) and known != FALLBACK
    ]
    said = _name(intent.get("name"))
    name, confidence = None, None
    if said == FALLBACK and ranking:
        name, confidence = ranking[0]["name"], ranking[0]["confidence"]
    elif said is not None and said != FALLBACK:
        name, confidence = full.get(said, said), _number(intent.get("confidence"))
    held = ranking if isinstance(ranked, list) else None
    return {"intent": name, "confidence": confidence, "fallback": said == FALLBACK, "ranking": held}


def _full_names(parse: Mapping[str, Any], intent: Mapping[str, Any]) -> dict[str, str]:
    """Retrieval intent to its full name (``faq`` to ``faq/ask_price``), which only the selectors know."""
    full: dict[str, str] = {}
    for selector in _mapping(parse.get("response_selector")).values():
        selector = _mapping(selector)
        ranked = selector.get("ranking")
        said = [_mapping(selector.get("response")), *(map(_mapping, ranked) if isinstance(ranked, list) else ())]
        for one in (*said, selector):
            name = one.get("intent_response_key") or one.get("full_retrieval_intent")
            if isinstance(name, str) and "/" in name:
                full.setdefault(name.partition("/")[0], displayed(name)[0] or name)
    for holder in (intent, parse):
        if isinstance(name := holder.get("full_retrieval_intent_name"), str) and "/" in name:
            full[name.partition("/")[0]] = displayed(name)[0] or name
    return full


def entities(parse: Mapping[str, Any], text: str | None) -> list[dict[str, Any]]:
    """Entities with ``start`` and ``end`` in code points, at the borders of tokens, and the ``text`` that stands there.

    ``value`` is kept only where it differs from the text: it would become a synonym. ``confirm``: found by an extractor
    that no example teaches, so it is training data only if a person says so.
    """
    if not parse.get("entities"):
        return []
    pairs = (one for one in parse.get("text_tokens") or () if isinstance(one, list) and len(one) == 2)
    tokens = [pair for pair in pairs if all(type(n) is int for n in pair)]
    found = []
    for one in parse["entities"]:
        if not isinstance(one, dict) or not (name := _name(one.get("entity"))):
            continue
        start, end, value = one.get("start"), one.get("end"), one.get("value")
        entity: dict[str, Any] = {"entity": name}
        if text and type(start) is int and type(end) is int and 0 <= start < end <= len(text):
            start, end = snapped(start, end, tokens)
            entity |= {"start": start, "end": end, "text": displayed(text[start:end])[0]}
        if value is not None and value != entity.get("text"):
            entity["value"] = displayed(value)[0] if isinstance(value, str) else value
        entity |= {key: one[key] for key in ("role", "group", "extractor") if isinstance(one.get(key), str)}
        if entity.get("extractor", "").startswith(UNTRAINED):
            entity["confirm"] = True
        found.append(entity)
    return found


def trained(entities: Sequence[Mapping[str, Any]] | None, without: tuple[str, ...] = UNTRAINED) -> list[dict[str, Any]]:
    """Entities as they are kept: with a place, without a synonym's value, and not from an extractor `without`."""
    kept = ("start", "end", "entity", "role", "group", "text")
    found = [e for e in entities or () if "start" in e and not str(e.get("extractor")).startswith(without)]
    return [{name: one[name] for name in kept if name in one} for one in found]


def snapped(start: int, end: int, tokens: Sequence[Sequence[int]]) -> tuple[int, int]:
    """A span from the beginning of the token that it begins in to the end of that in which it ends."""
    return next((a for a, b in tokens if a <= start < b), start), next((b for a, b in tokens if a < end <= b), end)


def _shown(name: str, event: Mapping[str, Any]) -> dict[str, Any] | None:
    """An event as it is kept with its message; None for what says nothing to people or markers."""
    if name in ("user_featurization", "session_started"):
        return None
    if name == "action":
        action = _name(event.get("name")) or _name(event.get("action_text")) or "unknown"
        how = {"policy": _name(event.get("policy")), "confidence": _number(event.get("confidence"))}
        return {"action": action} | (how if action != LISTEN else {})
    if name == "bot":
        shown: dict[str, Any] = {"bot": displayed(event["text"])[0] if isinstance(event.get("text"), str) else None}
        data = _mapping(event.get("data"))
        if buttons := [_mapping(b).get("title") for b in data.get("buttons") or () if isinstance(b, dict)]:
            shown["buttons"] = buttons
        if others := sorted(what for what, value in data.items() if value and what != "buttons"):
            shown["sent"] = others
        return shown
    if name == "slot":
        return {"slot": _name(event.get("name")), "value": event.get("value")}
    return {"event": name, **({"name": event["name"]} if isinstance(event.get("name"), str) else {})}


@lru_cache(10_000)
def _known_name(name: str) -> str:
    return displayed(name)[0] or name


def displayed(text: str | None) -> tuple[str | None, bool]:
    """A text that can be shown and kept anywhere, and whether that changed it: NUL is ␀, a lone surrogate U+FFFD."""
    if text is None or not _UNSEEN.search(text):
        return text, False
    return _UNSEEN.sub(lambda one: "\u2400" if one[0] == "\0" else "\ufffd", text), True


def as_json(value: Any) -> str:
    """A value as JSON that any reader takes: ASCII, no NaN, and what can't be displayed replaced as in `displayed`."""
    try:
        text = _encode(value)
    except ValueError:  # NaN and infinities, which are no numbers
        value = json.loads(json.dumps(value), parse_constant=lambda name: None)
        text = _encode(value)
    return text if "\\ud" not in text and "\\u0000" not in text else _encode(_clean(value))


_encode = json.JSONEncoder(check_circular=False, allow_nan=False).encode


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return displayed(value)[0]
    if isinstance(value, dict):
        return {_clean(key): _clean(each) for key, each in value.items()}
    return [_clean(each) for each in value] if isinstance(value, list) else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _name(value: Any) -> str | None:
    return _known_name(value) if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    plain = type(value) is float or (isinstance(value, int | float) and not isinstance(value, bool))
    return float(value) if plain and math.isfinite(value) else None
