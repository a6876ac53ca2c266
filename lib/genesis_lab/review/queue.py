"""What a person must look at, nothing else, the likeliest errors first; and their way through it, a key a message."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from genesis_lab.errors import InvalidInput
from genesis_lab.review.events import snapped, trained
from genesis_lab.review.labelling import annotate_all
from genesis_lab.review.models import Predictor
from genesis_lab.review.nlu import examples_in, words_of
from genesis_lab.review.nlu_file import Row, check_example
from genesis_lab.review.store import Store, records
from genesis_lab.review.tables import activity, labels, messages

_FOLDS, _LEARNED = 3, 5_000  # most known texts that label errors are looked for with
_NEW = 4  # where texts without a known label stand in the order
_SHOWN = ("text", "intent", "confidence", "ranking", "entities")
NOTES = {"ignore": "ignored", "out_of_scope": "out of scope", "flag": "flagged"}
"""What is said of a message without giving it an intent; a lead sees it among the labels."""
_NOTHING: Row = {"intent": None, "note": None, "entities": None}


@dataclass(frozen=True)
class Item:
    """A text to look at: `message` is the newest that says it, of `times`; `like` are its near-duplicates."""

    message: str
    times: int
    reason: str
    text: str
    intent: str | None
    confidence: float | None
    ranking: list[Row] | None
    entities: list[Row] | None
    like: tuple[Item, ...] = ()


@dataclass(frozen=True)
class Queue:
    """The items in order, what became of all typed texts, and the names of intents and entities that the bot knows."""

    items: tuple[Item, ...]
    counts: list[Row]
    intents: list[str]
    entities: list[str]


def queue(
    store: Store,
    data: Path | None = None,
    *,
    share_random: float = 0.05,
    overlap: float = 0.1,
    seed: int = 0,
    predict: Predictor | None = None,
) -> Queue:
    """What whoever sits here must look at.

    A text that is in the training data `data` under the predicted intent is settled, and so is one with an approved
    label; texts are the same if their words are. First come rejected labels, then texts with another known label than
    was predicted, fallbacks, known labels that read like another; then by the doubt of a classifier that learned the
    known labels, and by the margin of the ranking, whichever is more telling.

    Parameters
    ----------
    share_random : share of the rest that is spread over the queue, as no order finds errors that all are sure of.
    overlap : share of texts that several people label; any other is asked of one only. Drawn by `seed`, for all alike.
    predict : a newer model, which predicts what is typed anew.
    """
    examples, known = examples_in(data), defaultdict[str, set[str]](set)
    for row in examples:
        known[words_of(row["text"])].add(row["intent"])
    query = sa.select(*(messages.c[name] for name in ("key", "fallback", "gold", *_SHOWN)))
    query = query.where(messages.c.typed, messages.c.text.is_not(None)).order_by(messages.c.timestamp)
    said, times, says = dict[str, Row](), Counter[str](), dict[str, str]()
    for row in records(store, query):
        says[row["key"]] = words = words_of(row["text"])
        said[words] = row
        times[words] += 1
        known[words] |= {row["gold"]} - {None}
    if predict:
        asked = [row | {"intent": None, "entities": None} for row in said.values()]  # what it means is the question
        for words, new in zip(said, predict.predict(asked, None), strict=True):
            said[words] |= {"ranking": None, **new, "entities": said[words]["entities"]} if new else {}
    settled, rejected = _decided(store, says, overlap, seed)
    doubt, reads = _doubts(known, said, seed)
    place = {words: n for n, words in enumerate(sorted(said, key=lambda words: doubt.get(words, 0.0), reverse=True))}
    ahead = {words: n for n, words in enumerate(sorted(said, key=lambda words: _margin(said[words])))}
    counts, order = defaultdict[str, list[str]](list), list[tuple[int, int, str, str]]()
    for words, row in said.items():
        tier, why = _asked(row, known[words], reads.get(words, ""))
        if words in rejected:
            tier, why = 0, f"rejected: {rejected[words]}"
        state = settled.get(words) or ("to look at" if why else "in the training data as predicted")
        counts[state].append(words)
        if state == "to look at":  # a classifier's doubt tells more than a model's of itself
            order.append((tier, min(place[words], 2 * ahead[words]), words, why))
    order.sort()
    rest = sorted((one for one in order if one[0] == _NEW), key=lambda one: _draw(one[2], seed, "random"))
    drawn = rest[: round(share_random * len(rest) + 0.499)]
    order = [one for one in order if one not in drawn]
    for number, one in enumerate(drawn, 1):
        order.insert(-(-number * len(order) // (len(drawn) + 1)), (*one[:3], "random share"))
    told = [{"what": what, "texts": len(of), "messages": sum(times[w] for w in of)} for what, of in counts.items()]
    named = {row["intent"] for row in (*said.values(), *examples) if row["intent"]}
    spans = {one["entity"] for row in (*said.values(), *examples) for one in row["entities"] or ()}
    items = [Item(said[w]["key"], times[w], why, **{name: said[w][name] for name in _SHOWN}) for *_, w, why in order]
    return Queue(_clustered(items), told, sorted(named), sorted(spans))


def _asked(row: Row, known: set[str], reads: str) -> tuple[int, str]:
    """How early a text is asked, and why; without a reason it need not be."""
    if known:
        told = f"predicted {row['intent']}" if known != {row["intent"]} else f"reads like {reads}" if reads else ""
        return 1 if known != {row["intent"]} else 3, told and f"labelled {' and '.join(sorted(known))}, {told}"
    if row["fallback"] or row["intent"] is None:
        return 2, "fallback"
    return _NEW, f"new, margin {_margin(row):.2f}"


def _draw(words: str, seed: int, what: str) -> float:
    """A number from 0 to 1, the same for everybody."""
    return int(hashlib.sha256(f"{what} {seed} {words}".encode("utf-8", "replace")).hexdigest()[:12], 16) / 16**12


def _margin(row: Row) -> float:
    """How far the predicted intent is ahead of the next, by the model."""
    first, second, *_ = *(one["confidence"] or 0.0 for one in row["ranking"] or [row]), 0.0, 0.0
    return float(first - second)


def _decided(store: Store, says: Mapping[str, str], overlap: float, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Texts that need no look from whoever sits here, with why; those whose label was rejected, with the reason.

    What others are at is known from `activity`, since their pending labels may be hidden.
    """
    who, settled, rejected = store.author, dict[str, str](), dict[str, str]()
    seen = {(row["author"], row["message"]): row for row in records(store, sa.select(labels).order_by(labels.c.id))}
    acts = records(store, sa.select(activity).order_by(activity.c.id))
    for (author, message), action in {(act["author"], act["message"]): act["action"] for act in acts}.items():
        row, words = seen.get((author, message), {"status": "pending"}), says.get(message, "")
        if row["status"] == "approved":
            settled[words] = "approved"
        elif row["status"] == "rejected":
            rejected[words] = f"{row['intent'] or row['note']} by {author}, {row['reason']}"
        elif action != "withdrawn" and (author == who or _draw(words, seed, "overlap") >= overlap):
            settled.setdefault(words, "labelled by you" if author == who else "labelled by another person")
    return settled, rejected


def _doubts(known: dict[str, set[str]], said: dict[str, Row], seed: int) -> tuple[dict[str, float], dict[str, str]]:
    """By a classifier of the known labels: how unlikely each predicted intent is, and which labels read like another.

    Likelihood is self-confidence (Northcutt, Jiang and Chuang 2021). Nothing where there is too little to learn from.
    """
    from genesis_lab.training.classifiers import build, fitted
    from genesis_lab.validation.variety import LEARNABLE

    sure = {words: next(iter(names)) for words, names in known.items() if len(names) == 1}
    enough = {name for name, n in Counter(sure.values()).items() if n >= _FOLDS}
    texts = sorted((w for w in sure if sure[w] in enough), key=lambda w: _draw(w, seed, "learned"))[:_LEARNED]
    names, codes = np.unique([sure[words] for words in texts], return_inverse=True)
    if len(names) < 2:
        return {}, {}
    model, code = build("tfidf_words+logistic_regression", {}, seed), {name: i for i, name in enumerate(names)}
    asked = [words for words, row in said.items() if row["intent"] in code]
    chances = fitted(model, texts, codes).predict_proba(asked or texts)
    doubt = {words: 1 - p[code[said[words]["intent"]]] for words, p in zip(asked, chances, strict=False)}
    if len(texts) < LEARNABLE * len(names):
        return doubt, {}
    from cleanlab.filter import find_label_issues
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    seen = cross_val_predict(model, texts, codes, cv=folds, method="predict_proba")
    doubt |= {words: 1 - p[code_] for words, p, code_ in zip(texts, seen, codes, strict=True)}
    issues = find_label_issues(codes, seen, n_jobs=1).nonzero()[0]
    return doubt, {texts[i]: str(names[seen[i].argmax()]) for i in issues}


def _clustered(items: Sequence[Item]) -> tuple[Item, ...]:
    """The first of each group of near-duplicates, with the others."""
    from genesis_lab.validation.text import near_pairs, normalised, signatures

    texts, like = normalised(item.text for item in items), defaultdict[int, list[Item]](list)
    first, second = near_pairs(signatures(texts), np.array([bool(text.as_py()) for text in texts], dtype=bool))
    for leader, member in zip(first, second, strict=True):
        like[leader].append(items[member])
    return tuple(replace(item, like=tuple(like[i])) for i, item in enumerate(items) if i not in set(second))


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

        `does` : show, next, previous, undo, redo, label (`value`: the intent), one of `NOTES` (`value`: why, or
            nothing), mark (``entity``, ``start``, ``end`` in UTF-16 units, as a browser counts) or unmark (the entity's
            number).
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
        """All that the front end shows, as plain data, with three messages before the one asked and one after it."""
        labelled = sum(bool(said["intent"] or said["note"]) for said in self.said.values())
        told: Row = {"at": self.at, "total": len(self.items), "done": labelled}
        told |= {"intents": self.intents, "entities": self.entities}
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
            "text": item.text,
            "spans": self.spans,
            "reason": item.reason,
            "times": item.times,
            "message": item.message,
            "said": said["intent"] or said["note"],
            "ranking": ranking[:9],
            "like": [(one.text, one.times) for one in item.like],
            "context": [{name: row[name] for name in ("key", "text", "events")} for row in context],
        }

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
