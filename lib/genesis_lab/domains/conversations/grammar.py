"""The offline grammar: writes a conversation for a spec, word by word from the taxonomy's scripts. No network, no cost."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.base import Spec
from genesis_lab.domains.conversations.taxonomy import Script, Taxonomy
from genesis_lab.yamls import shipped

_MOVES, _SLOTS = (Path(__file__).with_name(f"{name}.yaml") for name in ("moves", "slots"))
_START_MOOD = {"stable_positive": "positive", "frustrated_to_satisfied": "frustrated",
               "frustrated_to_neutral": "frustrated", "stable_frustrated": "frustrated"}  # fmt: skip
_END_MOOD = {"stable_positive": "satisfied", "frustrated_to_satisfied": "satisfied", "neutral_to_satisfied": "satisfied",
             "neutral_to_frustrated": "frustrated", "stable_frustrated": "frustrated"}  # fmt: skip
_WRAPPED = {"neutral": 0.3, "positive": 0.75, "frustrated": 0.75}
"""Share of openings that get words of greeting or mood around them, by mood."""
_CARELESS = 0.15
"""Share of openings typed without capitals or punctuation, or with a slip of the finger."""
_DRAWS = 160

_PART = re.compile(r"\[([^\[\]]*\|[^\[\]]*)\]|\{(\w+)\}")
_GREETING = re.compile(r"(hi|hiya|hello|hey|good (morning|afternoon|evening|day)|hola|buenas|buenos)\b", re.IGNORECASE)
Pattern = tuple[str | tuple[str, ...], ...]


class _Draw:
    """Uniform numbers of one spec, drawn in one block because single draws from NumPy are slow."""

    def __init__(self, seed: int, attempt: int) -> None:
        self._numbers = iter(np.random.default_rng((seed, attempt)).random(_DRAWS).tolist())

    def chance(self, p: float) -> bool:
        return bool(next(self._numbers) < p)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(next(self._numbers) * len(items))]

    def shuffled(self, items: Sequence[Any], count: int) -> list[Any]:
        """`count` different items in random order."""
        left = list(items)
        return [left.pop(int(next(self._numbers) * len(left))) for _ in range(min(count, len(left)))]


class Grammar:
    """Writes conversations about the intents of one taxonomy.

    Each cell (intent, language) goes through its opening patterns in a random order that depends on `seed`, so that n
    conversations use min(n, patterns) different ones; when they come round again they are worded and wrapped anew.
    """

    def __init__(self, taxonomy: Taxonomy, *, tone: str = "neobank", seed: int = 0) -> None:
        self._taxonomy = taxonomy
        self._tone = tone
        self._seed = seed
        self._orders: dict[tuple[str, str], np.ndarray] = {}

    def write(self, spec: Spec, attempt: int = 0) -> str:
        """The JSON text of one conversation with exactly ``spec.attributes["turns"]`` turns."""
        a = spec.attributes
        draw = _Draw(spec.seed, attempt)
        script, moves = self._taxonomy.script(a["intent"]), shipped(_MOVES)[a["language"]]
        start = _START_MOOD.get(a["emotion_arc"], "neutral")
        end = _END_MOOD.get(a["emotion_arc"], "neutral")
        language, status = a["language"], a["resolution_status"]

        def say(pattern: str) -> str:
            return _expand(pattern, language, draw)

        exchanges, follow_ups, reaction, closing = _shape(a["turns"])
        asked = draw.shuffled(script.exchanges.get(language, ()), exchanges)
        asked += draw.shuffled(moves["exchanges"], exchanges - len(asked))
        further = draw.shuffled(script.follow_ups.get(language, ()), follow_ups)
        further += draw.shuffled(moves["follow_ups"], follow_ups - len(further))
        hello = f"{say(draw.pick(moves['hello'][self._tone]))} {say(draw.pick(moves['empathy'][start]))}"
        turns = [self._opening(spec, script, start, draw, attempt)]
        for question, answer in asked:
            turns += [f"{hello} {say(question)}" if len(turns) == 1 else say(question), say(answer)]
        outcome = say(draw.pick(getattr(script, status).get(language) or moves[status]))
        turns.append(f"{hello} {outcome}" if len(turns) == 1 else outcome)
        for question, answer in further:
            turns += [say(question), say(answer)]
        if reaction:
            turns.append(say(draw.pick(moves["reaction"][end])))
        if closing:
            turns.append(say(draw.pick(moves["closing_frustrated" if end == "frustrated" else "closing"])))
        speakers = ("customer", "agent")
        return json.dumps(
            {"turns": [{"speaker": speakers[i % 2], "text": text} for i, text in enumerate(turns)]}, ensure_ascii=False
        )

    def _opening(self, spec: Spec, script: Script, mood: str, draw: _Draw, attempt: int) -> str:
        intent, language = spec.attributes["intent"], spec.attributes["language"]
        patterns = script.examples[language]
        order = self._order(intent, language, len(patterns))
        round_, place = divmod(spec.ordinal + 7 * attempt, len(patterns))
        text = _expand(patterns[order[place]], language, draw)
        moves = shipped(_MOVES)[language]
        if round_ or draw.chance(_WRAPPED[mood]):
            where = draw.pick(("before", "after", "both") if round_ else ("before", "after"))
            if where != "after":
                text = _led(_expand(draw.pick(moves["before"][mood]), language, draw), text)
            if where != "before":
                text = _stopped(text) + _expand(draw.pick(moves["after"][mood]), language, draw)
        if draw.chance(_CARELESS):
            text = _careless(text, draw)
        return text[0].upper() + text[1:] if draw.chance(0.7) else text

    def _order(self, intent: str, language: str, count: int) -> np.ndarray:
        key = (intent, language)
        if key not in self._orders:
            words = [self._seed, *f"{intent}/{language}".encode()]
            self._orders[key] = np.random.default_rng(words).permutation(count)
        return self._orders[key]


def _shape(turns: int) -> tuple[int, int, bool, bool]:
    """Exchanges before the outcome, follow-ups after it, a reaction and a closing, for `turns` turns in all."""
    reaction = turns % 2 == 1 or turns >= 6
    closing = turns % 2 == 0 and turns >= 6
    pairs = (turns - 2 - reaction - closing) // 2
    follow_ups = min(2, pairs // 2)
    return pairs - follow_ups, follow_ups, reaction, closing


@lru_cache(maxsize=65_536)
def _compile(pattern: str, language: str) -> Pattern:
    parts: list[str | tuple[str, ...]] = []
    at = 0
    for match in _PART.finditer(pattern):
        parts.append(pattern[at : match.start()])
        choices, slot = match.groups()
        # An unknown slot stays as it is written: a user's own text may hold braces.
        parts.append(
            tuple(choices.split("|")) if slot is None else tuple(shipped(_SLOTS)[language].get(slot, [match[0]]))
        )
        at = match.end()
    parts.append(pattern[at:])
    return tuple(part for part in parts if part)


def _expand(pattern: str, language: str, draw: _Draw) -> str:
    text = "".join([part if isinstance(part, str) else draw.pick(part) for part in _compile(pattern, language)])
    # An alternative may hold a slot; a slot that is not known stays as it is written.
    return text if "{" not in text or text == pattern else _expand(text, language, draw)


def _led(lead: str, text: str) -> str:
    """`text` after the words that lead to it; as it is, if it greets already."""
    if _GREETING.match(text):
        return text
    return lead + (text[0].upper() + text[1:] if lead.rstrip()[-1] in ".!?" else _lower_first(text))


def _lower_first(text: str) -> str:
    """`text` ready to follow a greeting: "I", "I'm" and names in capitals stay."""
    first = text.split(" ", 1)[0]
    if first == "I" or first.startswith(("I'", "I’")) or first[1:].lower() != first[1:]:
        return text
    return text[0].lower() + text[1:]


def _stopped(text: str) -> str:
    return text if text[-1] in ".?!…" else text + "."


def _careless(text: str, draw: _Draw) -> str:
    kind = draw.pick(("lower", "lower", "bare", "slip"))
    if kind == "lower":
        return text.lower()
    if kind == "bare":
        return re.sub(r"[.,!?¿¡]", "", text).lower()
    words = text.split(" ")
    long = [i for i, word in enumerate(words) if len(word) > 4 and word.isalpha()]
    if not long:
        return text
    i = draw.pick(long)
    word, at = words[i], draw.pick((1, 2, 3))
    words[i] = draw.pick(
        (
            word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            word[:at] + word[at + 1 :],
            word[:at] + word[at] + word[at:],
        )
    )
    return " ".join(words)
