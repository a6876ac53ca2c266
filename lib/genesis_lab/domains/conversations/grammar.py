"""The offline grammar: writes a conversation for a spec from the taxonomy's scripts. No network, no cost."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import PCG64, Generator

from genesis_lab.domains.base import Spec
from genesis_lab.domains.conversations.record import ARCS
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.yamls import shipped

_MOVES, _SLOTS = (Path(__file__).with_name(f"{name}.yaml") for name in ("moves", "slots"))
_WRAPPED = {"neutral": 0.3, "positive": 0.75, "frustrated": 0.75}
"""Share of openings that get words of greeting or mood around them, by mood."""
_CARELESS = 0.15
"""Share of openings typed without capitals or punctuation, or with a slip of the finger."""
_PART = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]|\{(\w+)\}")
GREETING = re.compile(r"(hi|hiya|hello|hey|good (morning|afternoon|evening|day)|hola|buenas|buenos)\b", re.IGNORECASE)


class _Draw:
    """What is drawn for one spec: numbers in one block, because single draws from NumPy are slow."""

    def __init__(self, spec: Spec, attempt: int) -> None:
        self._language = spec.attributes["language"]
        self._numbers = iter(Generator(PCG64((spec.seed, attempt))).random(160).tolist())

    def chance(self, p: float) -> bool:
        return bool(next(self._numbers) < p)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(next(self._numbers) * len(items))]

    def some(self, own: Sequence[Any], common: Sequence[Any], count: int) -> list[Any]:
        """`count` different items in random order, of `common` only what `own` lacks."""
        taken: list[Any] = []
        for items in (own, common):
            left = list(items)
            for _ in range(min(count - len(taken), len(left))):
                taken.append(left.pop(int(next(self._numbers) * len(left))))
        return taken

    def say(self, pattern: str) -> str:
        """The pattern with a choice for each of its alternatives and slots."""
        parts = _compiled(pattern, self._language)
        text = "".join([part if isinstance(part, str) else self.pick(part) for part in parts])
        # An alternative may hold a slot; a slot that is not known stays as it is written.
        return text if "{" not in text or text == pattern else self.say(text)


class Grammar:
    """Writes conversations about the intents of one taxonomy.

    Each cell (intent, language) goes through its opening patterns in a random order that depends on `seed`, so that n
    conversations use min(n, patterns) different ones; when they come round again they are worded and wrapped anew.
    """

    def __init__(self, taxonomy: Taxonomy, *, tone: str = "neobank", seed: int = 0) -> None:
        self._taxonomy, self._tone, self._seed = taxonomy, tone, seed
        self._orders: dict[tuple[str, str], np.ndarray] = {}

    def turns(self, spec: Spec, attempt: int = 0) -> list[dict[str, str]]:
        """One conversation with exactly ``spec.attributes["turns"]`` turns."""
        a, language, draw = spec.attributes, spec.attributes["language"], _Draw(spec, attempt)
        script, moves, end = self._taxonomy.intent(a["intent"]), _moves(language), ARCS[a["emotion_arc"]]["end"]
        _, _, reaction, closing = _shape(a["turns"])
        opening, hello, asked, further = self._begun(spec, draw, attempt)
        turns = [opening]
        for pair in asked:
            turns += map(draw.say, pair)
        status = a["resolution_status"]
        turns.append(draw.say(draw.pick(getattr(script, status).get(language) or moves[status])))
        for pair in further:
            turns += map(draw.say, pair)
        turns[1] = hello + turns[1]
        if reaction:
            turns.append(draw.say(draw.pick(moves["reaction"][end])))
        if closing:
            turns.append(draw.say(draw.pick(moves["closing_frustrated" if end == "frustrated" else "closing"])))
        return [{"speaker": ("customer", "agent")[i % 2], "text": text} for i, text in enumerate(turns)]

    def opening(self, spec: Spec) -> str:
        """The first of `turns`."""
        return self._begun(spec, _Draw(spec, 0), 0)[0]

    def _begun(self, spec: Spec, draw: _Draw, attempt: int) -> tuple[str, str, list[Any], list[Any]]:
        """What is drawn first: the opening, what the agent answers with, the exchanges to come, and the follow-ups."""
        a, language = spec.attributes, spec.attributes["language"]
        script, moves, mood = self._taxonomy.intent(a["intent"]), _moves(language), ARCS[a["emotion_arc"]]["start"]
        before, after, *_ = _shape(a["turns"])
        asked = draw.some(script.exchanges.get(language, ()), moves["exchanges"], before)
        further = draw.some(script.follow_ups.get(language, ()), moves["follow_ups"], after)
        hello = f"{draw.say(draw.pick(moves['hello'][self._tone]))} {draw.say(draw.pick(moves['empathy'][mood]))} "
        return self._opening(spec, mood, draw, attempt), hello, asked, further

    def _opening(self, spec: Spec, mood: str, draw: _Draw, attempt: int) -> str:
        intent, language = spec.attributes["intent"], spec.attributes["language"]
        patterns, moves = self._taxonomy.intent(intent).examples[language], _moves(language)
        if (intent, language) not in self._orders:
            rng = np.random.default_rng([self._seed, *f"{intent}/{language}".encode()])
            self._orders[intent, language] = rng.permutation(len(patterns))
        again, place = divmod(spec.ordinal + 7 * attempt, len(patterns))
        text = draw.say(patterns[self._orders[intent, language][place]])
        if again or draw.chance(_WRAPPED[mood]):
            where = draw.pick(("before", "after", "both") if again else ("before", "after"))
            if where != "after":
                text = _led(draw.say(draw.pick(moves["before"][mood])), text)
            if where != "before":
                text += "" if text[-1] in ".?!…" else "."
                text += draw.say(draw.pick(moves["after"][mood]))
        if draw.chance(_CARELESS):
            text = _careless(text, draw)
        return text[0].upper() + text[1:] if draw.chance(0.7) else text


def _moves(language: str) -> Any:
    return shipped(_MOVES)[language]


def _shape(turns: int) -> tuple[int, int, bool, bool]:
    """Exchanges before the outcome, follow-ups after it, a reaction and a closing, for `turns` turns in all."""
    reaction = turns % 2 == 1 or turns >= 6
    closing = turns % 2 == 0 and turns >= 6
    pairs = (turns - 2 - reaction - closing) // 2
    follow_ups = min(2, pairs // 2)
    return pairs - follow_ups, follow_ups, reaction, closing


@lru_cache(maxsize=65_536)
def _compiled(pattern: str, language: str) -> tuple[str | tuple[str, ...], ...]:
    """The parts of a pattern: text, or what to choose among. Unknown slots stay: a user's text may hold braces."""
    parts: list[str | tuple[str, ...]] = []
    at = 0
    for match in _PART.finditer(pattern):
        choices = match[1].split("|") if match[2] is None else shipped(_SLOTS)[language].get(match[2], [match[0]])
        parts += [pattern[at : match.start()], tuple(choices)]
        at = match.end()
    return tuple(part for part in (*parts, pattern[at:]) if part)


def _led(lead: str, text: str) -> str:
    """`text` after the words that lead to it; as it is, if it greets already. "I", "I'm" and names in capitals stay."""
    if GREETING.match(text):
        return text
    first = text.split(" ", 1)[0]
    if lead.rstrip()[-1] in ".!?":
        return lead + text[0].upper() + text[1:]
    stays = first == "I" or first.startswith(("I'", "I’")) or first[1:].lower() != first[1:]
    return lead + (text if stays else text[0].lower() + text[1:])


def _careless(text: str, draw: _Draw) -> str:
    """As people type in a hurry."""
    kind = draw.pick(("lower", "lower", "bare", "slip"))
    if kind != "slip":
        return (text if kind == "lower" else re.sub(r"[.,!?¿¡]", "", text)).lower()
    words = text.split(" ")
    if long := [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]:
        i = draw.pick(long)
        word, at = words[i], draw.pick((1, 2, 3))
        before, a, b, after = word[:at], word[at], word[at + 1], word[at + 2 :]
        words[i] = before + draw.pick((b + a, b, a + a + b)) + after
    return " ".join(words)
