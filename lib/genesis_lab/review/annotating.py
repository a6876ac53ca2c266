"""One person's way through the queue: a key is one call of `Annotating.act`, which answers with what to show next."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review.events import snapped, trained
from genesis_lab.review.labelling import annotate_all
from genesis_lab.review.nlu import Row
from genesis_lab.review.nlu_merge import check_example
from genesis_lab.review.queue import Item, Queue
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import messages

NOTES = {"ignore": "ignored", "out_of_scope": "out of scope", "flag": "flagged"}
"""What is said of a message without giving it an intent; a lead sees it among the labels."""
_NOTHING: Row = {"intent": None, "note": None, "entities": None}


class Annotating:
    """Where a person stands in a queue, and what they did there, so that it can be undone. `clock` gives seconds."""

    def __init__(self, store: Store, queue: Queue, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.store, self.items, self.intents, self.entities = store, list(queue.items), queue.intents, queue.entities
        self.said: dict[str, Row] = {}
        """Message to the label that was given to it here."""
        self._clock, self._done, self._undone = clock, list[tuple[int, list[Row], list[Row]]](), list[Any]()
        self._go(0)

    def act(self, does: str, value: Any = None, every: bool = False) -> dict[str, Any]:
        """Carry out what a key stands for; what to show then.

        `does` : show, next, previous, undo, redo, label (`value`: the intent), one of `NOTES` (`value`: why, or nothing),
            mark (``entity``, ``start``, ``end`` in UTF-16 units, as a browser counts) or unmark (the entity's number).
        `every` : the near-duplicates too.
        """
        if does in (moves := {"show": 0, "next": 1, "previous": -1}):
            self._go(self.at + moves[does])
        elif does in ("undo", "redo"):
            done, undone = (self._done, self._undone)[:: 1 if does == "undo" else -1]
            if not done:
                raise InvalidInput(f"There is nothing to {does}.")
            undone.append(step := done.pop())
            self._save(step[1] if does == "undo" else step[2], step[0] + (does == "redo"))
        elif (item := self.item) is None:
            raise InvalidInput("Nothing is left to look at.")
        elif does == "mark":
            self._mark(item, value)
        elif does == "unmark":
            del self.spans[value]
        elif does == "label" or does in NOTES:
            intent = str(value).strip() if does == "label" else does if does in self.intents else None
            self._label(item, intent, None if intent else ": ".join(filter(None, (NOTES.get(does), value))), every)
        else:
            raise InvalidInput(f"Nothing is done under the name {does!r} here.")
        return self.shown()

    def shown(self) -> dict[str, Any]:
        """All that the front end shows, as plain data: also the messages from three before the one asked to the next."""
        labelled = sum(bool(said["intent"] or said["note"]) for said in self.said.values())
        told: Row = {"at": self.at, "total": len(self.items), "done": labelled, "intents": self.intents, "entities": self.entities}  # fmt: skip
        if (item := self.item) is None:
            return told
        said = self.said.get(item.message, _NOTHING)
        ranking = item.ranking or [{"name": item.intent}] * (item.intent is not None)
        ranking = ranking + [{"name": name} for name in self.intents if name not in {one["name"] for one in ranking}]
        here = sa.select(messages).where(messages.c.key == item.message).subquery()
        at = messages.c.position - here.c.position
        near = sa.and_(at.between(-3, 1), messages.c.session == here.c.session)
        context = records(self.store, sa.select(messages).where(near).order_by(messages.c.position))
        return told | {
            "text": item.text, "spans": self.spans, "reason": item.reason, "times": item.times, "message": item.message,
            "said": said["intent"] or said["note"], "ranking": ranking[:9],
            "like": [(one.text, one.times) for one in item.like],
            "context": [{name: row[name] for name in ("key", "text", "events")} for row in context],
        }  # fmt: skip

    def _go(self, at: int) -> None:
        self.at, self._since = min(max(at, 0), len(self.items)), self._clock()
        self.item = item = self.items[self.at] if self.at < len(self.items) else None
        said = self.said.get(item.message, _NOTHING)["entities"] if item else []
        self.spans = trained(item.entities if item and said is None else said)

    def _label(self, item: Item, intent: str | None, note: str | None, every: bool) -> None:
        rows, at, seconds = list[Row](), self.at, self._clock() - self._since
        for one in [item, *item.like] if every else [item]:
            spans = self.spans if one is item else trained(one.entities)
            rows.append({"message": one.message, "intent": intent, "note": note, "entities": spans if intent else None})
            if intent is not None:
                check_example({"intent": intent, "text": one.text, "entities": spans})
        before = [self.said.get(row["message"], _NOTHING | {"message": row["message"]}) for row in rows]
        if item.like and not every:  # they are asked by themselves then
            self.items[at : at + 1] = [replace(item, like=()), *item.like]
        self._save([rows[0] | {"seconds": seconds}, *rows[1:]], at + 1)
        self.intents = sorted({*self.intents, *filter(None, [intent])})
        self._done.append((at, before, rows))
        self._undone.clear()

    def _save(self, rows: list[Row], at: int) -> None:
        annotate_all(self.store, rows)
        self.said |= {row["message"]: row for row in rows}
        self._go(at)

    def _mark(self, item: Item, value: Mapping[str, Any]) -> None:
        """Mark an entity: what the browser counts becomes code points, from the border of a word to that of another."""
        units = item.text.encode("utf-16-le", "surrogatepass")
        start, end = (len(units[: 2 * value[edge]].decode("utf-16-le", "replace")) for edge in ("start", "end"))
        picked = item.text[start:end]  # a double click takes the blank behind a word as well
        start, end = start + len(picked) - len(picked.lstrip()), end - len(picked) + len(picked.rstrip())
        raw = records(self.store, sa.select(messages.c.raw).where(messages.c.key == item.message))[0]["raw"]
        tokens = (json.loads(raw).get("parse_data") or {}).get("text_tokens") or []
        start, end = snapped(start, end, [*tokens, *(word.span() for word in re.finditer(r"\S+", item.text))])
        one: Row = {"start": start, "end": end, "entity": str(value["entity"]).strip(), "text": item.text[start:end]}
        check_example({"intent": "any", "text": item.text, "entities": [one]})
        self.spans = [other for other in self.spans if other["end"] <= start or other["start"] >= end] + [one]
        self.entities = sorted({*self.entities, one["entity"]})
