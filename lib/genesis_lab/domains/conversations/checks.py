"""What may be wrong with a conversation, as data: completeness, labels that fit each other and the words, personal data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from genesis_lab.domains.base import Check
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.opening import role_of, role_sql
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.language import NAMES, detect
from genesis_lab.yamls import shipped

_LONG = 80
"""Characters from which a turn in neither language counts as being in another one."""
_FIVE_WORDS = r"(\S+\s+){4}\S"
"""From there on a turn's language is judged: "It's in Mexico." is English, but no detector can know."""
_LAST = 6
"""Turns at the end of a conversation in which an agent says how it ended."""
_TURNS = "coalesce(len(turns), 0) > 0"
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
    planned = {"intent": taxonomy.names, "category": tuple(taxonomy.categories)}
    pairs = ", ".join(f"{_quoted(name)}: {_quoted(category)}" for name, category in taxonomy.category_of.items())
    category = f"MAP {{{pairs}}}[intent]"
    spelt = [
        _check(
            "spelling", "turns" if name == "speaker" else "records", f"{name} IS NOT NULL",
            f"{name} NOT IN ({_list(values)})", partial(_misspelt, name, values), "values", name in planned,
        )
        for name, values in {**planned, **_ENUMS, "speaker": get_args(r.Speaker)}.items()
    ]  # fmt: skip
    placed = _check(
        "category", "records", f"category IS NOT NULL AND {category} IS NOT NULL", f"category <> {category}",
        f"'category is ' || category || ', ' || intent || ' is in ' || {category}", planned=True,
    )  # fmt: skip
    personal = [
        _check(
            kind, "turns", "true", f"regexp_matches(text, '{look}')", partial(_personal, kind), score="personal_data"
        )
        for kind, (_, look) in PERSONAL.items()
    ]
    return [*spelt, *_of_turns(), placed, *_of_labels(), *personal]


def _check(
    name: str, over: str, applies: str, fails: str, says: Any, unit: str = "", planned: bool = False, score: str = ""
) -> Check:
    said = shipped(Path(__file__).with_name("checks.yaml"))[name]
    return Check(name, score or "consistency", unit or over, over, applies, fails, says, planned=planned, **said)


def _of_turns() -> list[Check]:
    letters = (  # one letter a turn: who speaks
        f"array_to_string(list_transform(turns, lambda turn: left(coalesce({role_sql('turn.speaker')}, '?'), 1)), '')"
    )
    runs = "|".join(f"[{who}]{{{r.MAX_RUN + 1}}}" for who in "ca?")
    long = f"language IN ({_list(NAMES)}) AND regexp_matches(text, '{_FIVE_WORDS}')"
    return [
        _check(
            "turns", "turns", "true", "speaker IS NULL OR text IS NULL",
            "'turn ' || position || ' has no ' || CASE WHEN text IS NULL THEN 'text' ELSE 'speaker' END",
            score="completeness",
        ),
        _check("turn_order", "records", _TURNS, f"regexp_matches({letters}, '^[^c]|{runs}')", _disorder),
        _check(
            "turn_length", "turns", "true", f"length(text) > {r.MAX_TEXT}",
            f"'turn ' || position || ' has ' || format('{{:,}}', length(text)) || ' characters, over {r.MAX_TEXT:,}'",
        ),
        _check("language", "turns", long, "true", _other_language),
    ]  # fmt: skip


def _of_labels() -> list[Check]:
    low, high = (
        "CASE complexity " + " ".join(f"WHEN '{name}' THEN {ends[i]}" for name, ends in r.TURN_RANGES.items()) + " END"
        for i in (0, 1)
    )
    known = " AND ".join(
        f"{name} IN ({_list(_ENUMS[name])})" for name in ("emotion_arc", "sentiment", "resolution_status")
    )
    fits = " OR ".join(
        f"(emotion_arc = '{arc}' AND sentiment IN ({_list(moods)}) AND resolution_status IN ({_list(endings)}))"
        for arc, (moods, endings) in r.ARC_FITS.items()
    )
    said = f"array_to_string(list_transform(turns[-{_LAST}:], lambda turn: turn.text), E'\\n')"
    cues = _quoted("|".join(f"(?:{cue})" for cues in _cues().values() for cue in cues))
    told = f"resolution_status IN ({_list(_ENUMS['resolution_status'])}) AND regexp_matches({said}, {cues}, 'i')"
    return [
        _check(
            "turn_count", "records", f"turn_count IS NOT NULL AND {_TURNS}",
            "coalesce(try_cast(turn_count AS DOUBLE), -1) <> len(turns)",
            "'turn_count is ' || turn_count || ', there are ' || len(turns) || ' turns'",
        ),
        _check(
            "complexity", "records", f"{low} IS NOT NULL AND {_TURNS}", f"len(turns) NOT BETWEEN {low} AND {high}",
            f"complexity || ' means ' || {low} || ' to ' || {high} || ' turns, there are ' || len(turns)",
        ),
        _check(
            "emotion_arc", "records", known, f"NOT ({fits})",
            "'arc ' || emotion_arc || ' does not go with ' || sentiment || ' and ' || resolution_status",
        ),
        _check("resolution", "records", told, "true", _another_ending),
    ]  # fmt: skip


def _disorder(table: Any) -> list[str]:
    spoken: list[list[str]] = [
        [role_of(turn and turn["speaker"]) or "unknown speaker" for turn in turns] for turns in _values(table, "turns")
    ]
    return ["; ".join(r.turn_problems(speakers)) for speakers in spoken]


def _another_ending(table: Any) -> list[str | None]:
    patterns = {ending: re.compile("|".join(f"(?:{cue})" for cue in cues), re.I) for ending, cues in _cues().items()}
    found: list[str | None] = []
    for turns, declared in zip(_values(table, "turns"), _values(table, "resolution_status"), strict=True):
        late = [turn["text"] or "" for turn in turns[-_LAST:] if role_of(turn["speaker"]) == "agent"]
        told = [ending for ending, cue in patterns.items() if any(map(cue.search, late))]
        other = f"declared {declared}, the last turns read as {told[0]}" if told and told[0] != declared else ""
        found.append(other if len(told) == 1 else None)
    return found


def _other_language(turns: Any) -> list[str | None]:
    """For each turn whether it is in another language than declared; None where that can't be told."""
    texts, found = _values(turns, "text"), list[str | None]()
    reads = {text: detect(text) or (None if len(text) <= _LONG else "another language") for text in set(texts)}
    for text, declared, place in zip(texts, _values(turns, "language"), _values(turns, "position"), strict=True):
        read = reads[text]
        found.append(read and ("" if read == declared else f"turn {place} reads as {read}, declared {declared}"))
    return found


def _misspelt(name: str, values: Sequence[str], table: Any) -> list[str]:
    found = _values(table, name)
    said = {value: f"{name} {value[:60]!r} is no value of the schema{_meant(value, values)}" for value in set(found)}
    return [said[value] for value in found]


def _meant(spelling: str, values: Sequence[str]) -> str:
    plain = {value.casefold(): value for value in values}
    close = difflib.get_close_matches("_".join(spelling.casefold().replace("-", " ").split()), plain, n=1, cutoff=0.8)
    return f", did you mean {plain[close[0]]!r}?" if close else ""


def _personal(kind: str, turns: Any) -> list[str]:
    places = zip(_values(turns, "text"), _values(turns, "position"), strict=True)
    return [f"turn {place} holds {PERSONAL[kind][0]}" if kind in kinds_in(text) else "" for text, place in places]


def kinds_in(text: str) -> set[str]:
    """Which kinds of personal data `text` seems to hold. Digits of a card or IBAN are not taken for a telephone's."""
    found = set()
    for kind, pattern, valid in (("card", _CARD, _luhn), ("iban", _IBAN, _mod97)):
        for hit in filter(valid, pattern.findall(text)):
            text = text.replace(hit, " ")
            found.add(kind)
    runs = [sum(map(str.isdecimal, run)) for run in _DIGITS.findall(_EMAIL.sub(" ", text))]
    also = {"email": _EMAIL.search(text), "phone": any(digits in _PHONE_DIGITS for digits in runs)}
    return found | {kind for kind, here in also.items() if here}


def _luhn(number: str) -> bool:
    """Whether the check digit is right (ISO/IEC 7812-1, annex B); a row of one digit only is no card."""
    digits = [int(c) for c in number if c.isdecimal()]
    doubled = [sum(divmod(2 * d, 10)) for d in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


def _mod97(number: str) -> bool:
    """Whether an IBAN's check digits are right (ISO 13616, ISO 7064 MOD 97-10)."""
    plain = number.replace(" ", "").upper()
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def _cues() -> dict[str, list[str]]:
    """Ending to the patterns of what is said then."""
    return shipped(Path(__file__).with_name("resolution_cues.yaml"))  # type: ignore[no-any-return]


def _values(table: Any, column: str) -> Any:
    return table[column].to_pylist()


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _list(values: Iterable[str]) -> str:
    return ", ".join(map(_quoted, values))
