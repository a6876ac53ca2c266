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
FIXED = json.dumps(
    {"turns": [{"speaker": "customer", "text": "Where is my card?"}, {"speaker": "agent", "text": "On its way."}]}
)


def answer(answers: Answers, system: str, task: str, request_id: str = "") -> str:
    """The text for a prompt: the same prompt of the same request always gets the same text."""
    if callable(answers):
        return answers(system, task)
    if answers == "fixed" or not (intent := _INTENT.search(task)) or not (turns := _TURNS.search(task)):
        return FIXED
    return _conversation(intent[1], int(turns[1]), task, zlib.crc32(f"{task}{request_id}".encode()))


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
    return str(grammar.write(Spec(index=seed, ordinal=seed, seed=seed, attributes=attributes), 0))


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[dict[str, Any], Any]:
    from genesis_lab.domains.conversations import prompt
    from genesis_lab.domains.conversations.domain import Conversations
    from genesis_lab.domains.conversations.grammar import Grammar
    from genesis_lab.yamls import shipped

    return shipped(prompt.SCAFFOLD), Grammar(Conversations().taxonomy)


def is_broken(share: float, seed: int, turn: int) -> bool:
    return share > 0 and random.Random(f"{seed}/{turn}").random() < share
