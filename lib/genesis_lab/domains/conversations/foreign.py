"""Conversations as others keep them: chat messages by role, labelled sentences, dialogues as text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genesis_lab.domains.conversations.opening import role_of
from genesis_lab.domains.conversations.taxonomy import BANKING77, Taxonomy, load_taxonomy
from genesis_lab.domains.foreign import Reader, lookup
from genesis_lab.texts import same_words

NAMES = {
    "turns": ("turns", "messages", "dialogue", "dialog", "conversation", "conversations"),
    "text": ("text", "utterance", "sentence", "query", "question", "message"),
    "intent": ("label", "labels", "intent_name"),
    "turns.speaker": ("speaker", "role", "from", "sender"),
    "turns.text": ("text", "content", "value", "message", "utterance", "parts"),
}
"""What others call it, most usual first."""
_INDENT = "    "
_SPEAKER = re.compile(r"\w[\w .'’-]*")
_LINE = re.compile(rf"({_SPEAKER.pattern}):(?: (.*)|(.*))")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


def turns_as_text(turns: Sequence[Mapping[str, Any]]) -> str:
    """One ``speaker: text`` per turn, further lines of a text indented; JSON where that could not be read back."""
    said = [(turn["speaker"], turn["text"]) for turn in turns]
    if not said or any(not s or t is None or not _SPEAKER.fullmatch(s) or _CONTROL.search(t) for s, t in said):
        return json.dumps(list(turns), ensure_ascii=False)
    return "\n".join(f"{speaker}: " + text.replace("\n", "\n" + _INDENT) for speaker, text in said)


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
        if turns and line.startswith(_INDENT):
            turns[-1]["text"] += "\n" + line.removeprefix(_INDENT)
        elif begun := _LINE.fullmatch(line):
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

    def read(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values of our fields; the turns as speaker and text, the label as the intent."""
        raw, reasons = self._labelled(raw), list[str]()
        record = {name: self.value(raw, name) for name in self.fields if name != "turns"}
        return record | {"turns": self._turns(raw, reasons)}, reasons

    def _turns(self, raw: Mapping[str, Any], reasons: list[str]) -> Any:
        """The turns in a record: its messages, or its text as the only one."""
        value = self._first(raw, "turns")
        if isinstance(value, str) and value.strip():
            try:
                value = text_as_turns(value)
            except (ValueError, RecursionError) as error:
                reasons.append(f"turns: {error}, left empty, got {value[:60]!r}")
                return None
        if value is None or value == "":
            text = self._first(raw, "text")
            self.done["sentences became conversations of one turn"] += text is not None
            return None if text is None else [{"speaker": "customer", "text": self._text(text)}]
        if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
            value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
        return [self._turn(item) for item in value] if isinstance(value, list | tuple) else value

    def _labelled(self, raw: Mapping[str, Any]) -> Mapping[str, Any]:
        """The record with its label as its intent; Banking77's own files call it ``category``."""
        if "intent" in self.field_map or raw.get("intent") is not None:
            return raw
        if (label := self._first(raw, "intent")) is not None:
            return {**raw, "intent": label}
        category = raw.get("category")
        if "category" not in self.field_map and isinstance(category, str) and category in self.taxonomy.category_of:
            self.done["intents found in column 'category'"] += 1
            return {**raw, "intent": category, "category": None}
        return raw

    def derive(self, record: dict[str, Any]) -> list[str]:
        """Fill in what follows from the rest of the record; returns what contradicts it or the taxonomy."""
        reasons = []
        turns, intent, count = record["turns"], record["intent"], record["turn_count"]
        if turns is not None:
            record["turn_count"] = len(turns) if count is None else count
            if record["turn_count"] != len(turns):
                reasons.append(f"turn_count: declared {count}, but there are {len(turns)} turns")
        category = self.taxonomy.category_of.get(intent)
        if category is not None and record["category"] is None:
            record["category"] = category
            self.done["categories derived from the intent"] += 1
        elif intent is not None and category is None:
            meant = self._spelling.get(same_words(intent))
            if meant or self._strict:
                hint = f" (it has {meant!r})" if meant else ""
                reasons.append(f"intent: not in taxonomy {self.taxonomy.name}, got {intent[:60]!r}{hint}")
        return reasons

    def _turn(self, item: Any) -> Any:
        if isinstance(item, str):
            return {"speaker": None, "text": item}
        if not isinstance(item, Mapping):
            return item
        speaker = self._first(item, "turns.speaker")
        role = role_of(speaker)
        if role and role != speaker:
            self.done[f"turns of {speaker!r} read as {role!r}"] += 1
        return {"speaker": role or speaker, "text": self._text(self._first(item, "turns.text"))}

    def _text(self, content: Any) -> Any:
        """The text in a content of parts (``[{"type": "text", "text": …}, {"type": "image_url", …}]``); else as it is."""
        parts = [content] if isinstance(content, Mapping) else content
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str | Mapping) for part in parts):
            return content
        texts = [text for part in parts if (text := _part_text(part))]
        if not texts and not all(isinstance(part, Mapping) and "type" in part for part in parts):
            return content
        if left_out := len(parts) - len(texts):
            self.done["parts of turns without text left out"] += left_out
        return "\n".join(texts) or None

    def _first(self, raw: Mapping[str, Any], name: str) -> Any:
        """The value at the mapped path, else under the first of the usual names that has one."""
        if name in self.field_map:
            return lookup(raw, self.field_map[name])
        key = next((key for key in NAMES[name] if raw.get(key) is not None), None)
        if key and "." not in name:
            self.used.add(key)
        return raw[key] if key else None


def _part_text(part: Any) -> str:
    """The text of a part of a message; none of an image, a thought or the call of a tool."""
    if isinstance(part, list | tuple):
        return "\n".join(filter(None, map(_part_text, part)))
    if not isinstance(part, Mapping):
        return part if isinstance(part, str) else ""
    if part.get("type", "text") not in ("text", "input_text", "output_text"):
        return ""
    return _part_text(next((part[key] for key in ("text", "value", "parts", "content") if part.get(key)), ""))
