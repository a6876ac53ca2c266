"""Strings that look like somebody's personal data: counted and named by record, never repeated."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genesis_lab.validation.aggregate import Check
from genesis_lab.validation.view import View

KINDS = {"card": "a card number", "iban": "an IBAN", "email": "an e-mail address", "phone": "a telephone number"}

_WORTH_A_LOOK = r"@|\d(?:[ .()/-]*\d){6}"
_CARD = re.compile(r"(?<![\w+])\d(?:[ -]?\d){12,18}(?!\w)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]{4}){2,7}(?:[ ]?[A-Z0-9]{1,3})?\b", re.IGNORECASE)
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}", re.IGNORECASE)
_DIGITS = re.compile(r"(?<![\w.,])\+?\(?\d(?:[ ().-]{0,2}\d)*(?![\w%]|[.,]\d)")
_PHONE_DIGITS = range(9, 16)
"""E.164 allows 15; below 9 it is rather a date or an amount."""


def checks(view: View) -> dict[str, Check]:
    """Turns with a card number (valid by Luhn), an IBAN (by ISO 7064), an e-mail address or a telephone number."""
    looked = np.flatnonzero(pc.match_substring_regex(view.text, _WORTH_A_LOOK).fill_null(False))
    found: dict[str, list[int]] = {kind: [] for kind in KINDS}
    for turn, text in zip(looked, view.text.take(pa.array(looked)).to_pylist(), strict=True):
        for kind in kinds_in(text):
            found[kind].append(int(turn))
    return {kind: _check(view, np.array(turns, dtype=np.int64), KINDS[kind]) for kind, turns in found.items()}


def kinds_in(text: str) -> set[str]:
    """Which kinds of personal data `text` seems to hold. Digits of a card or IBAN are not taken for a telephone's."""
    kinds = set()
    text, cards = _without(_CARD, text, lambda s: luhn(s))
    text, ibans = _without(_IBAN, text, lambda s: iban(s))
    if cards:
        kinds.add("card")
    if ibans:
        kinds.add("iban")
    if _EMAIL.search(text):
        kinds.add("email")
    runs = _DIGITS.findall(_EMAIL.sub(" ", text))
    if any(sum(map(str.isdecimal, run)) in _PHONE_DIGITS for run in runs):
        kinds.add("phone")
    return kinds


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


def _check(view: View, turns: np.ndarray, what: str) -> Check:
    return Check.of(
        len(view.turn_row), view.turn_row[turns], lambda k: f"turn {view.position[turns[k]] + 1} holds {what}"
    )
