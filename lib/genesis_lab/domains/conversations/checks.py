"""What may be wrong with a conversation, as data in ``checks.yaml``: labels that do not fit, personal data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from genesis_lab.domains.base import Check
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.language import detect
from genesis_lab.yamls import shipped

_LONG = 80
"""Characters from which a turn in neither language counts as being in another one."""
_LAST = 6
"""Turns at the end of a conversation in which an agent says how it ended."""
_ENUMS: dict[str, tuple[str, ...]] = {
    "sentiment": r.SENTIMENTS,
    "complexity": tuple(r.TURN_RANGES),
    "language": get_args(r.Language),
    "emotion_arc": tuple(r.ARCS),
    "resolution_time": get_args(r.ResolutionTime),
    "resolution_status": r.RESOLUTIONS,
    "speaker": get_args(r.Speaker),
}
_CARD = re.compile(r"(?<![\w+])\d(?:[ -]?\d){12,18}(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b", re.IGNORECASE)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ().-]{0,2}\d)*(?![\w%]|[.,]\d)")
_PHONE_DIGITS = range(9, 16)
"""E.164 allows 15; below 9 it is rather a date or an amount."""


def checks(taxonomy: Taxonomy) -> list[Check]:
    """Every check of one conversation; those that need the taxonomy are `planned`."""
    low, high = (" ".join(f"WHEN '{name}' THEN {ends[i]}" for name, ends in r.TURN_RANGES.items()) for i in (0, 1))
    fits = (
        f"(emotion_arc = '{arc}' AND sentiment IN ({_list(told['sentiments'])})"
        f" AND resolution_status IN ({_list(told['resolutions'])}))"
        for arc, told in r.ARCS.items()
    )
    pairs = (f"{_quoted(name)}: {_quoted(category)}" for name, category in taxonomy.category_of.items())
    words = {name: _list(values) for name, values in _ENUMS.items()} | {
        "category": f"MAP {{{', '.join(pairs)}}}[intent]",
        "turns": "coalesce(len(turns), 0) > 0",
        "role": r.role_sql("turn.speaker"),
        "runs": "|".join(f"[{who}]{{{r.MAX_RUN + 1}}}" for who in "ca?"),
        "low": f"CASE complexity {low} END",
        "high": f"CASE complexity {high} END",
        "max_text": r.MAX_TEXT,
        "fits": " OR ".join(fits),
        "last": _LAST,
        "cues": _quoted("|".join(f"(?:{cue})" for cues in _cues().values() for cue in cues)),
    }
    spelt = {"intent": taxonomy.names, "category": tuple(taxonomy.categories)} | _ENUMS
    says = {"turn_order": _disorder, "language": _other_language, "resolution": _another_ending}
    found = []
    for name, check in shipped(Path(__file__).with_name("checks.yaml")).items():
        said = {"score": "consistency", "over": "records", "says": says.get(name), **check}
        if what := said.pop("what", ""):
            said["says"] = partial(_personal, name, what)
        for column in spelt if name == "spelling" else [""]:
            one = dict(said)
            if column:
                values, over = spelt[column], "turns" if column == "speaker" else "records"
                words |= {"column": column, "values": _list(values)}
                one |= {"over": over, "planned": column not in _ENUMS, "says": partial(_misspelt, column, values)}
            filled = {key: each.format(**words) if isinstance(each, str) else each for key, each in one.items()}
            found.append(Check(name, **({"unit": filled["over"]} | filled)))
    return found


def _disorder(table: Any) -> list[str]:
    spoken: list[list[str]] = [
        [r.role_of(turn and turn["speaker"]) or "unknown speaker" for turn in turns]
        for turns in _values(table, "turns")
    ]
    return ["; ".join(r.turn_problems(speakers)) for speakers in spoken]


def _another_ending(table: Any) -> list[str | None]:
    patterns = {ending: re.compile("|".join(f"(?:{cue})" for cue in cues), re.I) for ending, cues in _cues().items()}
    found: list[str | None] = []
    for turns, declared in zip(_values(table, "turns"), _values(table, "resolution_status"), strict=True):
        late = [turn["text"] or "" for turn in turns[-_LAST:] if r.role_of(turn["speaker"]) == "agent"]
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


def _personal(kind: str, what: str, turns: Any) -> list[str]:
    places = zip(_values(turns, "text"), _values(turns, "position"), strict=True)
    return [f"turn {place} holds {what}" if kind in kinds_in(text) else "" for text, place in places]


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
