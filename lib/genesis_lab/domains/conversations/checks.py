"""What may be wrong with a conversation, as data: completeness, labels that fit each other and the words, personal data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, get_args

from genesis_lab.domains.base import Check
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.opening import role_of, role_sql
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.language import NAMES, detect
from genesis_lab.yamls import read_yaml

_LONG = 80
"""Characters from which a turn in neither language counts as being in another one."""
_FEWEST_WORDS = 5
"""Words from which a turn's language is judged: "It's in Mexico." is English, but no detector can know."""
_LAST = 6
"""Turns at the end of a conversation in which an agent says how it ended."""
_TURNS = "coalesce(len(turns), 0) > 0"
_FORM = "schema and structure"

_ENUMS: dict[str, tuple[str, ...]] = {
    "sentiment": get_args(r.Sentiment),
    "complexity": get_args(r.Complexity),
    "language": get_args(r.Language),
    "emotion_arc": get_args(r.EmotionArc),
    "resolution_time": get_args(r.ResolutionTime),
    "resolution_status": get_args(r.Resolution),
}

PERSONAL = {
    "card": ("a card number", r"\d(?:[ -]?\d){12}"),
    "iban": ("an IBAN", r"[A-Za-z]{2}\d{2}[ 0-9A-Za-z]{9}"),
    "email": ("an e-mail address", "@"),
    "phone": ("a telephone number", r"\d(?:[ .()-]*\d){8}"),
}
"""Kind to what it is, and a pattern of what is worth a closer look."""
_CARD = re.compile(r"(?<![\w+])\d(?:[ -]?\d){12,18}(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b", re.IGNORECASE)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ().-]{0,2}\d)*(?![\w%]|[.,]\d)")
_PHONE_DIGITS = range(9, 16)
"""E.164 allows 15; below 9 it is rather a date or an amount."""


def checks(taxonomy: Taxonomy) -> list[Check]:
    """Every check of one conversation; those that need the taxonomy are `planned`."""
    return [
        Check(
            "turns", "completeness", "turns", "turns", "true", "speaker IS NULL OR text IS NULL",
            "'turn ' || position || ' has no ' || CASE WHEN text IS NULL THEN 'text' ELSE 'speaker' END",
            "share of turns with a speaker and text", "no record has turns", _FORM,
        ),
        *_spelling(taxonomy),
        *_labels(taxonomy),
        *_turns(),
        Check(
            "language", "consistency", "turns", "turns",
            f"language IN ({_list(NAMES)}) AND regexp_matches(text, '{_words(_FEWEST_WORDS)}')", "true", other_language,
            "share of turns in the declared language, of those long enough to tell (lingua)",
            "no turn is long enough to tell, or no language is declared", "language",
        ),
        *(
            Check(
                kind, "personal_data", "turns", "turns", "true", f"regexp_matches(text, '{look}')",
                partial(_personal, kind), f"turns that hold {what}; counted, not scored",
            )
            for kind, (what, look) in PERSONAL.items()
        ),
    ]  # fmt: skip


def _spelling(taxonomy: Taxonomy) -> list[Check]:
    planned = {"intent": taxonomy.names, "category": tuple(taxonomy.categories)}
    speaker = {"speaker": get_args(r.Speaker)}
    return [
        Check(
            "spelling", "consistency", "values", "turns" if name in speaker else "records", f"{name} IS NOT NULL",
            f"{name} NOT IN ({_list(values)})", partial(_misspelt, name, values),
            "share of label values (and speakers) spelt as the schema and the taxonomy spell them",
            "no label has a value", _FORM, name in planned,
        )
        for name, values in {**planned, **_ENUMS, **speaker}.items()
    ]  # fmt: skip


def _labels(taxonomy: Taxonomy) -> list[Check]:
    pairs = ", ".join(f"{_quoted(name)}: {_quoted(category)}" for name, category in taxonomy.category_of.items())
    category = f"MAP {{{pairs}}}[intent]"
    count = "coalesce(try_cast(turn_count AS DOUBLE), -1) <> len(turns)"
    low, high = (
        "CASE complexity " + " ".join(f"WHEN '{name}' THEN {ends[i]}" for name, ends in r.TURN_RANGES.items()) + " END"
        for i in (0, 1)
    )
    fits = " OR ".join(
        f"(emotion_arc = '{arc}' AND sentiment IN ({_list(sentiments)}) AND resolution_status IN ({_list(resolutions)}))"
        for arc, (sentiments, resolutions) in r.ARC_FITS.items()
    )
    known = " AND ".join(
        f"{name} IN ({_list(_ENUMS[name])})" for name in ("emotion_arc", "sentiment", "resolution_status")
    )
    return [
        Check(
            "category", "consistency", "records", "records", f"category IS NOT NULL AND {category} IS NOT NULL",
            f"category <> {category}", f"'category is ' || category || ', ' || intent || ' is in ' || {category}",
            "share whose category is the one the taxonomy gives their intent",
            "no record has a category and an intent of the taxonomy", _FORM, True,
        ),
        Check(
            "turn_count", "consistency", "records", "records", f"turn_count IS NOT NULL AND {_TURNS}", count,
            "'turn_count is ' || turn_count || ', there are ' || len(turns) || ' turns'",
            "share whose turn_count is the number of their turns", "no record has a turn_count and turns", _FORM,
        ),
        Check(
            "complexity", "consistency", "records", "records", f"{low} IS NOT NULL AND {_TURNS}",
            f"len(turns) NOT BETWEEN {low} AND {high}",
            f"complexity || ' means ' || {low} || ' to ' || {high} || ' turns, there are ' || len(turns)",
            "share whose number of turns is in their complexity's range",
            "no record has a complexity of the schema and turns", _FORM,
        ),
        Check(
            "emotion_arc", "consistency", "records", "records", known, f"NOT ({fits})",
            "'arc ' || emotion_arc || ' does not go with ' || sentiment || ' and ' || resolution_status",
            "share whose emotion arc can go with their sentiment and resolution",
            "no record has an arc, a sentiment and a resolution of the schema", _FORM,
        ),
        _resolution(),
    ]  # fmt: skip


def _turns() -> list[Check]:
    # One letter a turn: who speaks
    letters = (
        f"array_to_string(list_transform(turns, lambda turn: left(coalesce({role_sql('turn.speaker')}, '?'), 1)), '')"
    )
    runs = "|".join(re.escape(who) * (r.MAX_RUN + 1) for who in "ca?")
    run = f"regexp_extract({letters}, '{runs}')"
    return [
        Check(
            "turn_order", "consistency", "records", "records", _TURNS,
            f"regexp_matches({letters}, '^[^c]|{runs}')",
            f"concat_ws('; ', CASE WHEN {letters} NOT LIKE 'c%' THEN 'the first speaker must be the customer' END, "
            f"CASE WHEN {run} <> '' THEN 'the ' || CASE left({run}, 1) WHEN 'c' THEN 'customer' WHEN 'a' THEN 'agent' ELSE "
            f"'unknown speaker' END || ' speaks more than {r.MAX_RUN} times in a row at turn ' || "
            f"(instr({letters}, {run}) + {r.MAX_RUN}) END)",
            f"share opened by the customer, with nobody speaking over {r.MAX_RUN} times in a row",
            "no record has turns", _FORM,
        ),
        Check(
            "turn_length", "consistency", "turns", "turns", "true", f"length(text) > {r.MAX_TEXT}",
            f"'turn ' || position || ' has ' || format('{{:,}}', length(text)) || ' characters, over {r.MAX_TEXT:,}'",
            f"share of turns of at most {r.MAX_TEXT:,} characters", "no record has turns", _FORM,
        ),
    ]  # fmt: skip


def _resolution() -> Check:
    said = f"array_to_string(list_transform(turns[-{_LAST}:], lambda turn: turn.text), E'\\n')"
    cues = _quoted("|".join(f"(?:{cue})" for cues in _cues().values() for cue in cues))
    return Check(
        "resolution", "consistency", "records", "records",
        f"resolution_status IN ({_list(_ENUMS['resolution_status'])}) AND regexp_matches({said}, {cues}, 'i')", "true",
        _another_ending, "share whose last agent turns do not speak of another ending, of those that tell",
        "no last turn says how the conversation ended",
    )  # fmt: skip


def _another_ending(table: Any) -> list[str | None]:
    found: list[str | None] = []
    for turns, declared in zip(table["turns"].to_pylist(), table["resolution_status"].to_pylist(), strict=True):
        late = [turn["text"] or "" for turn in turns[-_LAST:] if role_of(turn["speaker"]) == "agent"]
        told = [ending for ending, cue in _patterns().items() if any(map(cue.search, late))]
        other = f"declared {declared}, the last turns read as {told[0]}" if told and told[0] != declared else ""
        found.append(other if len(told) == 1 else None)
    return found


def other_language(turns: Any) -> list[str | None]:
    """For each turn whether it is in another language than declared; None where that can't be told."""
    texts = turns["text"].to_pylist()
    reads = {text: detect(text) or (None if len(text) <= _LONG else "another language") for text in set(texts)}
    rows = zip(texts, turns["language"].to_pylist(), turns["position"].to_pylist(), strict=True)
    return [
        None if reads[text] is None
        else "" if reads[text] == declared
        else f"turn {place} reads as {reads[text]}, declared {declared}"
        for text, declared, place in rows
    ]  # fmt: skip


def _misspelt(name: str, values: Sequence[str], table: Any) -> list[str]:
    found = table[name].to_pylist()
    said = {value: f"{name} {value[:60]!r} is no value of the schema{_meant(value, values)}" for value in set(found)}
    return [said[value] for value in found]


def _meant(spelling: str, values: Sequence[str]) -> str:
    plain = {value.casefold(): value for value in values}
    tidy = "_".join(spelling.casefold().replace("-", " ").split())
    close = [tidy] if tidy in plain else difflib.get_close_matches(tidy, plain, n=1, cutoff=0.8)
    return f", did you mean {plain[close[0]]!r}?" if close else ""


def _personal(kind: str, turns: Any) -> list[str]:
    places = zip(turns["text"].to_pylist(), turns["position"].to_pylist(), strict=True)
    return [f"turn {place} holds {PERSONAL[kind][0]}" if kind in kinds_in(text) else "" for text, place in places]


def kinds_in(text: str) -> set[str]:
    """Which kinds of personal data `text` seems to hold. Digits of a card or IBAN are not taken for a telephone's."""
    text, cards = _without(_CARD, text, luhn)
    text, ibans = _without(_IBAN, text, iban)
    runs = _DIGITS.findall(_EMAIL.sub(" ", text))
    phone = any(sum(map(str.isdecimal, run)) in _PHONE_DIGITS for run in runs)
    found = {"card": cards, "iban": ibans, "email": _EMAIL.search(text), "phone": phone}
    return {kind for kind, here in found.items() if here}


def luhn(number: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1, annex B); a row of one digit only is no card."""
    digits = [int(c) for c in number if c.isdecimal()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def iban(number: str) -> bool:
    """Whether the check digits are right (ISO 13616, ISO 7064 MOD 97-10)."""
    plain = number.replace(" ", "").upper()
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _without(pattern: re.Pattern[str], text: str, valid: Callable[[str], bool]) -> tuple[str, int]:
    hits = [match.group() for match in pattern.finditer(text) if valid(match.group())]
    for hit in hits:
        text = text.replace(hit, " ")
    return text, len(hits)


def _words(n: int) -> str:
    """A pattern of `n` words or more."""
    return r"\S+" + r"\s+\S+" * (n - 1)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(values: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(map(_quoted, values))


@lru_cache(maxsize=1)
def _cues() -> dict[str, list[str]]:
    """Ending to the patterns of what is said then."""
    return dict(read_yaml(Path(__file__).with_name("resolution_cues.yaml")))


@lru_cache(maxsize=1)
def _patterns() -> dict[str, re.Pattern[str]]:
    return {
        ending: re.compile("|".join(f"(?:{cue})" for cue in cues), re.IGNORECASE) for ending, cues in _cues().items()
    }
