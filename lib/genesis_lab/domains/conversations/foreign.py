"""Conversations as others keep them: chat messages by role, labelled sentences, dialogues as text."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.domains.conversations.opening import role_of
from genesis_lab.domains.conversations.taxonomy import BANKING77, Taxonomy, load_taxonomy
from genesis_lab.domains.foreign import Reader, lookup
from genesis_lab.texts import same_words

TURNS = ("turns", "messages", "dialogue", "dialog", "conversation", "conversations")
TEXT = ("text", "utterance", "sentence", "query", "question", "message")
LABEL = ("label", "labels", "intent_name")
TURN_SPEAKER = ("speaker", "role", "from", "sender")
TURN_TEXT = ("text", "content", "value", "message", "utterance", "parts")


_INDENT = "    "
_SPEAKER = re.compile(r"\w[\w .'’-]*")
_LINE = re.compile(rf"({_SPEAKER.pattern}):(?: (.*)|(.*))")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def turns_as_text(turns: Sequence[Mapping[str, Any]]) -> str:
    """One ``speaker: text`` per turn, further lines of a text indented; JSON where that could not be read back."""
    lines = []
    for turn in turns:
        speaker, text = turn["speaker"], turn["text"]
        if speaker is None or text is None or not _SPEAKER.fullmatch(speaker) or _CONTROL.search(text):
            return json.dumps(list(turns), ensure_ascii=False)
        lines.append(f"{speaker}: " + text.replace("\n", "\n" + _INDENT))
    return "\n".join(lines) if lines else "[]"


def text_as_turns(cell: str) -> list[Any]:
    """The turns in a cell that `turns_as_text` wrote, or anyone else in the same form.

    Raises
    ------
    ValueError : a line has no speaker.
    """
    if cell.lstrip().startswith("["):
        found = json.loads(cell)
        return found if isinstance(found, list) else [found]
    turns: list[dict[str, str]] = []
    for number, line in enumerate(cell.split("\n"), 1):
        line = line.removesuffix("\r")
        begun = _LINE.fullmatch(line)
        if turns and line.startswith(_INDENT):
            turns[-1]["text"] += "\n" + line.removeprefix(_INDENT)
        elif begun:
            turns.append({"speaker": begun[1], "text": begun[2] or begun[3] or ""})
        else:
            raise ValueError(f'line {number} of the turns is not "speaker: text"')
    return turns


class ChatReader(Reader):
    """Finds turns and labels in foreign records, and derives what follows from them."""

    extra_fields = ("turns.speaker", "turns.text", "text")
    essential = ("turns",)

    def __init__(
        self, fields: Sequence[str], field_map: Mapping[str, str], taxonomy: Taxonomy | str | Path | None
    ) -> None:
        super().__init__(fields, {}, field_map)
        self._strict = taxonomy is not None
        self.taxonomy = taxonomy if isinstance(taxonomy, Taxonomy) else load_taxonomy(taxonomy or BANKING77)
        self._spelling = {same_words(name): name for name in self.taxonomy.names}
        self.about = {"taxonomy": self.taxonomy.name}
        self._done: Counter[str] = Counter()

    def read(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values of our fields; the turns as speaker and text, the label as the intent."""
        raw, reasons = self._labelled(raw), list[str]()
        record = {name: self.value(raw, name) for name in self.fields if name != "turns"}
        return record | {"turns": self._turns(raw, reasons)}, reasons

    def _turns(self, raw: Mapping[str, Any], reasons: list[str]) -> list[Any] | None:
        """The turns in a record: its messages, or its text as the only one."""
        value = self._first(raw, "turns", TURNS)
        if isinstance(value, str) and value.strip():
            try:
                value = text_as_turns(value)
            except (ValueError, RecursionError) as error:
                reasons.append(f"turns: {error}, left empty, got {value[:60]!r}")
                return None
        if value is not None and value != "":
            if isinstance(value, Mapping):
                columns = [value.get(name) for name in value]
                if columns and all(isinstance(column, list) for column in columns):
                    value = [dict(zip(value, row, strict=False)) for row in zip(*columns, strict=False)]
            return [self._turn(item) for item in value] if isinstance(value, list | tuple) else value
        text = self._first(raw, "text", TEXT)
        if text is None:
            return None
        self._done["sentences became conversations of one turn"] += 1
        return [{"speaker": "customer", "text": self._text(text)}]

    def _labelled(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record with its label as its intent; Banking77's own files call it ``category``."""
        if "intent" in self.field_map or raw.get("intent") is not None:
            return raw
        label = self._first(raw, "intent", LABEL)
        if label is not None:
            return {**raw, "intent": label}
        category = raw.get("category")
        if "category" not in self.field_map and isinstance(category, str) and category in self.taxonomy.category_of:
            self._done["intents found in column 'category'"] += 1
            return {**raw, "intent": category, "category": None}
        return raw

    def derive(self, record: dict[str, Any]) -> list[str]:
        """Fill in what follows from the rest of the record; returns what contradicts it or the taxonomy."""
        reasons = []
        turns, intent = record["turns"], record["intent"]
        if turns is not None:
            if record["turn_count"] is None:
                record["turn_count"] = len(turns)
            elif record["turn_count"] != len(turns):
                reasons.append(f"turn_count: declared {record['turn_count']}, but there are {len(turns)} turns")
        if intent is not None:
            category = self.taxonomy.category_of.get(intent)
            if category is None:
                meant = self._spelling.get(same_words(intent))
                if meant or self._strict:
                    hint = f" (it has {meant!r})" if meant else ""
                    reasons.append(f"intent: not in taxonomy {self.taxonomy.name}, got {intent[:60]!r}{hint}")
            elif record["category"] is None:
                record["category"] = category
                self._done["categories derived from the intent"] += 1
        return reasons

    def notes(self) -> Iterator[str]:
        for what, times in self._done.items():
            yield f"{times:,} {what}"

    def _turn(self, item: Any) -> Any:
        if isinstance(item, str):
            return {"speaker": None, "text": item}
        if not isinstance(item, Mapping):
            return item
        speaker = self._part(item, "turns.speaker", TURN_SPEAKER)
        role = role_of(speaker)
        if role and role != speaker:
            self._done[f"turns of {speaker!r} read as {role!r}"] += 1
            speaker = role
        return {"speaker": speaker, "text": self._text(self._part(item, "turns.text", TURN_TEXT))}

    def _text(self, content: Any) -> Any:
        """The text in a content of parts (``[{"type": "text", "text": …}, {"type": "image_url", …}]``); else as it is."""
        parts = [content] if isinstance(content, Mapping) else content
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str | Mapping) for part in parts):
            return content
        texts = [text for part in parts if (text := _part_text(part))]
        if not texts and not all(isinstance(part, Mapping) and "type" in part for part in parts):
            return content
        if left_out := len(parts) - len(texts):
            self._done["parts of turns without text left out"] += left_out
        return "\n".join(texts) or None

    def _part(self, item: Mapping[str, Any], name: str, usual: tuple[str, ...]) -> Any:
        if name in self.field_map:
            return lookup(item, self.field_map[name])
        return next((item[key] for key in usual if item.get(key) is not None), None)

    def _first(self, raw: Mapping[str, Any], name: str, usual: tuple[str, ...]) -> Any:
        """The value at the mapped path, else under the first of the usual names that has one."""
        if name in self.field_map:
            return lookup(raw, self.field_map[name])
        for key in usual:
            value = raw.get(key)
            if value is not None:
                self.used.add(key)
                return value
        return None


def _part_text(part: Any) -> str:
    """The text of a part of a message; none of an image, a thought or the call of a tool."""
    if isinstance(part, Mapping):
        if "type" in part and part["type"] not in ("text", "input_text", "output_text"):
            return ""
        inner = next((part[key] for key in ("text", "value", "parts", "content") if part.get(key) is not None), "")
        return "\n".join(filter(None, map(_part_text, inner))) if isinstance(inner, list | tuple) else _part_text(inner)
    return part if isinstance(part, str) else ""
