"""What a service refuses of a request by name is left out, and the rest asked again; refused twice it stays out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from genesis_lab.errors import ProviderError, Rejected, Transient
from genesis_lab.providers.base import Completion

STAYS = 2
_RANGE = re.compile(
    r"[<>]=?|maximum|minimum|between|range|(less|greater|smaller|larger|more) than|at (most|least)", re.I
)
"""A value out of range is for the user to mend: it is no reason to send none."""


class Refusals:
    """What one model at one service does not take; safe for threads. `words` of a part are how a refusal names it."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = {name: re.compile(pattern, re.I) for name, pattern in words.items()}
        self._in_a_row: Counter[str] = Counter()

    def left_out(self) -> frozenset[str]:
        """What is not sent any more."""
        return frozenset(name for name, times in self._in_a_row.copy().items() if times >= STAYS)

    def ask(
        self, send: Callable[[frozenset[str]], Completion], options: Sequence[str], forms: Sequence[str] = ()
    ) -> Completion:
        """The answer of `send`, which is told what to leave out of `options` and `forms`.

        The `forms` are ways to hold the answer to a schema, the strictest first: it sends one of them or at last none.
        Where that does not help, the first refusal is raised.
        """
        without, first = self.left_out(), None
        while True:
            form = next((name for name in forms if name not in without), None)
            sent = [name for name in (*options, form) if name and name not in without]
            try:
                answer = send(without)
                break
            except (Rejected, Transient) as error:
                first, named = first or error, self._named(error, sent, options)
                if named is None:
                    raise first from None
                without |= {named}
        not_sent = tuple(name for name in (*forms, *options) if name in without)
        self._in_a_row.update(not_sent)
        for name in sent:
            self._in_a_row[name] = 0
        return replace(answer, not_sent=not_sent)

    def _named(self, error: ProviderError, sent: Sequence[str], options: Sequence[str]) -> str | None:
        """What of `sent` the service refuses: the first that it names."""
        said, found = str(error), {}
        if error.status in (400, 422, 500, 501):
            found = {name: match.start() for name in sent if (match := self._words[name].search(said))}
        if _RANGE.search(said):
            found = {name: at for name, at in found.items() if name not in options}
        return min(found, key=found.__getitem__) if found else None
