"""What the emulated models say: the offline grammar's conversations, read back from the prompt; some of them broken."""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal

Answers = Literal["grammar", "fixed"] | Callable[[str, str], str]
"""Where texts come from; a function gets the system prompt and the last user message."""

_INTENT = re.compile(r"(?:Intent|Intención): ([^:\s]+)")
_TURNS = re.compile(r"(?:Exactly|Exactamente) (\d+) tur")
_MESSAGES = re.compile(r"(?:Write|Escribe) (\d+) (?:messages|mensajes)")
FIXED = json.dumps(
    {"turns": [{"speaker": "customer", "text": "Where is my card?"}, {"speaker": "agent", "text": "On its way."}]}
)


def answer(answers: Answers, system: str, task: str, request_id: str = "") -> str:
    """The text for a prompt: the same prompt of the same request always gets the same text."""
    if callable(answers):
        return answers(system, task)
    intent, turns, messages = _INTENT.search(task), _TURNS.search(task), _MESSAGES.search(task)
    seed = zlib.crc32(f"{task}{request_id}".encode())
    if answers != "fixed" and intent and messages:
        return _openings(int(messages[1]), task, seed)
    if answers == "fixed" or not intent or not turns:
        return FIXED
    text = _conversation(intent[1], int(turns[1]), task, seed)
    return (
        json.dumps({"turns": json.loads(text)["turns"][1:]})
        if "first message" in task or "primer mensaje" in task
        else text
    )


def broken(text: str, seed: int) -> str:
    """The text as a model spoils it: cut off, wrapped in talk, a wrong key, one turn too few, not JSON at all."""
    kind = seed % 5
    if kind == 0:
        return text[: len(text) // 2]
    if kind == 1:
        return text.replace('"speaker"', '"role"')
    if kind == 2:
        return "I'm sorry, I can't help with that."
    if kind == 3:
        return "[]"
    return text.replace('"customer"', '"robot"', 1)


def _openings(n: int, task: str, seed: int) -> str:
    """A list of as many messages as asked for, each of as many words."""
    words = [int(n) for n in re.findall(r"^\d+\. (\d+) (?:words|palabras)", task, re.MULTILINE)]
    filler = ("my", "card", "is", "not", "here", "and", "i", "want", "to", "know", "why") if "Intent: " in task else (
        "mi", "tarjeta", "no", "está", "aquí", "y", "yo", "quiero", "saber", "por", "qué")  # fmt: skip
    said = [
        " ".join([*(filler[j % len(filler)] for j in range(count - 1)), f"{seed}{i}"]) for i, count in enumerate(words)
    ]
    return json.dumps({"messages": said[:n]}, ensure_ascii=False)


def _conversation(intent: str, turns: int, task: str, seed: int) -> str:
    from genesis_lab.domains.base import Spec

    words, grammar = _vocabulary()
    language = "en" if "Intent: " in task else "es"

    def named(what: str, default: str) -> str:
        return next((name for name, text in words[language][what].items() if text in task), default)

    attributes = {
        "intent": intent,
        "language": language,
        "turns": turns,
        "sentiment": named("sentiment", "neutral"),
        "emotion_arc": named("arc", "stable_neutral"),
        "complexity": named("complexity", "simple"),
        "resolution_status": named("resolution", "resolved"),
        "resolution_time": named("time", "quick"),
    }
    said = grammar.turns(Spec(index=seed, ordinal=seed, seed=seed, attributes=attributes))
    return json.dumps({"turns": said}, ensure_ascii=False)


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[dict[str, Any], Any]:
    from genesis_lab.domains.conversations import prompt
    from genesis_lab.domains.conversations.domain import Conversations
    from genesis_lab.domains.conversations.grammar import Grammar
    from genesis_lab.yamls import shipped

    return shipped(prompt.SCAFFOLD), Grammar(Conversations().taxonomy)


def is_broken(share: float, seed: int, turn: int) -> bool:
    return share > 0 and random.Random(f"{seed}/{turn}").random() < share
