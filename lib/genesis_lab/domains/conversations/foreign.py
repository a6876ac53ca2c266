"""Conversations as others keep them: chat messages by role, labelled sentences, dialogues as text or over rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from genesis_lab.domains.conversations import columns
from genesis_lab.domains.conversations.record import role_of
from genesis_lab.domains.conversations.taxonomy import BANKING77, Taxonomy, load_taxonomy
from genesis_lab.domains.foreign import Reader, lookup, objects_only
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import same_words

_LOOKED_AT = 2_000  # rows by which columns are told
_MEANINGS = {"turns.speaker": "speaker", "turns.text": "said"}
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


def text_as_turns(cell: str, *, inline: bool = False) -> list[Any]:
    """The turns in a cell that `turns_as_text` wrote, or anyone else in the same form; `inline`: or all in one line.

    `ValueError` where a line has no speaker.
    """
    if cell.lstrip().startswith("["):
        return list(json.loads(cell))
    turns: list[dict[str, str]] = []
    lines = cell.split("\n")
    if inline and len(lines) == 1 and (names := _roles_in(cell)):  # Customer: hi Agent: hello
        lines = re.split(rf"\s+(?=(?:{'|'.join(names)}): )", cell)
    for number, line in enumerate(lines, 1):
        line = line.removesuffix("\r")
        begun = _LINE.fullmatch(line)
        if turns and (line.startswith(_INDENT) or (line.strip() and not begun)):
            turns[-1]["text"] += "\n" + line.removeprefix(_INDENT)
        elif begun:
            turns.append({"speaker": begun[1], "text": begun[2] or begun[3] or ""})
        elif line.strip():
            raise ValueError(f'line {number} of the turns is not "speaker: text"')
    return turns


def _roles_in(text: str) -> list[str]:
    """Who speaks in a text of one line, as it is written there."""
    return [name for name in dict.fromkeys(re.findall(r"(?:^|\s)([A-Za-zÀ-ÿ]+): ", text)) if role_of(name)]


class ChatReader(Reader):
    """Finds turns and labels in foreign records, and derives what follows from them."""

    extra_fields = ("turns.speaker", "turns.text", "customer", "speaker", "order", "split", "reply", "context", "text")
    essential = ("turns",)

    def __init__(self, fields: Sequence[str], field_map: Mapping[str, str], taxonomy: Any) -> None:
        super().__init__(fields, {}, field_map)
        self._strict = taxonomy is not None
        self.taxonomy = taxonomy if isinstance(taxonomy, Taxonomy) else load_taxonomy(taxonomy or BANKING77)
        self._spelling = {same_words(name): name for name in self.taxonomy.names}
        self.about = {"taxonomy": self.taxonomy.name}
        self.roles: dict[str, str] = {}  # names of speakers that are told here, with their role
        self.asides: set[str] = set()  # names of those whose turns are no part of what is said
        self.label_names: dict[str, str] = {}  # of labels that are codes
        self.told: set[str] = set()  # files of a known shape

    def knows(self, name: str) -> bool:
        """Whether anyone calls a field so."""
        meanings = ("turns", "text", "intent", "conversation_id", "speaker", "language", "split", "reply", "order")
        known = name in self.fields or name in self.field_map.values()
        return known or any(columns.rank(name, meaning) is not None for meaning in meanings)

    def welcome(self, name: str, value: Any) -> bool:
        """Languages that nothing here speaks are kept."""
        return name == "language" and re.fullmatch("[a-z]{2,3}", str(value)) is not None

    # Rows of a source as rows of whole records

    def gathered(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Documents unfolded, columns told, rows of one conversation put together, splits one after the other."""
        rows = self._records(rows)
        ahead = list(islice(rows, _LOOKED_AT))
        if self.told and ahead[0].place:  # among files of a known shape others say something about them
            self.said.append("files that hold no records were left out")
            ahead, rows = [], (row for row in [*ahead, *rows] if row.place in self.told)
            ahead = list(islice(rows, _LOOKED_AT))
        values = [row.value for row in ahead if row.value]
        if not values or {"turns", "turn_count", "intent"} <= values[0].keys():  # our own
            return chain(ahead, rows)
        places = {row.place for row in ahead if row.value and row.place}
        given = {ours: theirs for ours, theirs in self.field_map.items() if ours != "customer"}
        found, said = columns.assigned(values, given)
        files = {columns.intent_in(place) for place in places}
        if not {"intent"} & {*given, *found} and len(files) > 1 and not all(map(columns.splits_of, files)):
            found["intent"] = "file"
            said.append("the names of the files are the labels")
        self.field_map = told = {**self.field_map, **found}
        self.said += said
        self._name_labels(values)
        self.used |= {path.split(".")[0] for path in found.values()} | {"file", "answers", "post"}
        rows = map(self._in_its_split, chain(ahead, rows))
        ids = [str(lookup(value, told.get("conversation_id", ""))) for value in values]
        if "post" in values[0]:
            rows = self._put_together(self._in_threads(rows))
        elif "turns" not in told and "text" in told and len(set(ids)) < len(ids) and ids[0] != "None":
            rows = self._put_together(rows)
        elif "turns" not in told and any(role_of(lookup(value, told.get("speaker", ""))) for value in values):
            lacking = f"`{told['speaker']}` says who speaks, but not which conversation a row belongs to"
            raise InvalidInput(f"{lacking}: say so with --field conversation_id=COLUMN.")
        if "split" in told or places:
            rows = iter(sorted(rows, key=lambda row: str(row.split)))
        ahead = list(islice(rows, _LOOKED_AT))
        done = self.done.copy()
        self._tell_speakers(self._turns(row.value, []) for row in ahead if row.value)
        self.done = done
        return chain(ahead, rows)

    def _name_labels(self, values: Sequence[Any]) -> None:
        """Where labels are codes, their names, from a file beside the data."""
        file, names = self.beside
        codes = {str(lookup(value, self.field_map.get("intent", ""))).removesuffix(".0") for value in values}
        codes -= {"None", ""}
        if names and codes and all(map(str.isdecimal, codes)):
            low, high = min(map(int, codes)), max(map(int, codes))
            known = (low == 0 and high < len(names)) or (low, high) == (1, len(names))
            self.label_names = {str(code): name for code, name in enumerate(names, low)} if known else {}
            self.said.append(f"labels are codes, {'' if known else 'not '}of the {len(names):,} names in {file}")

    def _in_threads(self, rows: Iterator[Any]) -> list[Any]:
        """Posts that answer each other, each with its thread and its place in it."""
        self.field_map = {**self.field_map, "conversation_id": "conversation_id", "order": "order"}
        kept = [row for row in rows if row.value]
        places = zip(kept, columns.threads([row.value for row in kept]), strict=True)
        return [replace(row, value={**row.value, "conversation_id": root, "order": n}) for row, (root, n) in places]

    def _records(self, rows: Iterator[Any]) -> Iterator[Any]:
        """Each record that the rows hold, however deep; the known shapes are said."""
        plain: set[tuple[str, ...]] = set()  # keys of records that are of no known shape
        first: Any = None
        for row in rows:
            value = row.value
            records, first = [value], value if first is None else first
            keys = tuple(value) if isinstance(value, Mapping) else None
            lone = isinstance(value, str) and not isinstance(first, str)
            if value is not None and not lone and keys not in plain:
                if told := columns.unfolded(value, row.place):
                    name, records = told
                    self.done[f"records read as {name}"] += len(records)
                    self.told |= {row.place} if name != columns.LIST else set()
                elif isinstance(value, str):
                    records = [{"turns" if len(_spoken(each)) > 1 else "text": each} for each in _blocks(value)]
                elif keys is not None:
                    plain.add(keys)
            for number, record in enumerate(records, row.number):
                if row.place and isinstance(record, Mapping):
                    record = {"file": columns.intent_in(row.place), **record}
                yield objects_only(replace(row, value=record, number=number))

    def _in_its_split(self, row: Any) -> Any:
        said = lookup(row.value, self.field_map.get("split", "")) if row.value else None
        split = columns.splits_of(said or (columns.intent_in(row.place) if row.place else ""))
        return replace(row, split=split or (re.sub(r"\W+", "_", str(said)) if said else row.split))

    def _put_together(self, rows: Iterable[Any]) -> Iterator[Any]:
        """One row for each conversation, with its rows as turns in their order."""
        told, parts = self.field_map, dict[Any, list[Any]]()
        for row in rows:
            if row.value is None:
                yield row
            else:
                parts.setdefault((row.split, str(lookup(row.value, told["conversation_id"]))), []).append(row)
        self.field_map = {ours: theirs for ours, theirs in told.items() if ours not in ("text", "reply", "context")}
        self.field_map["turns"] = "turns"
        self.done["rows put together to conversations"] += sum(map(len, parts.values()))
        for (_, name), group in parts.items():
            if "order" in told:
                group.sort(key=lambda row: _sortable(lookup(row.value, told["order"])))
            said = ((lookup(row.value, told.get("speaker", "")), lookup(row.value, told["text"])) for row in group)
            turns = [{"speaker": speaker, "text": text} for speaker, text in said]
            first = {key: each for row in reversed(group) for key, each in row.value.items() if each is not None}
            yield replace(group[0], value={**first, told["conversation_id"]: name, "turns": turns})

    def _tell_speakers(self, dialogues: Iterable[Any]) -> None:
        """Who of two is the customer: by `customer` in the field map, or because the other one is known."""
        turns = [each for said in dialogues if isinstance(said, list) for each in said if isinstance(each, Mapping)]
        counts = Counter(str(turn["speaker"]) for turn in turns if turn.get("speaker"))
        asides = {name for name in counts if same_words(name) in columns.shapes()["asides"]}
        if len(counts) - len(asides) > 1:  # else the system is who answers
            self.asides = asides
            counts = Counter({name: n for name, n in counts.items() if name not in asides})
        roles = {name: role_of(name) for name in counts}
        customer, known = self.field_map.get("customer"), {role for role in roles.values() if role}
        if customer:
            self.roles = {name: "customer" if name == customer else "agent" for name in {*counts, customer}}
        elif len(known) == 1 and len(roles) > 1:
            other = "agent" if "customer" in known else "customer"
            self.roles = {name: other for name, role in roles.items() if not role}
        elif counts and not known:
            named = " and ".join(repr(name) for name, _ in counts.most_common(4))
            how = f"--field customer='{next(iter(counts))}', or --field customer=first for whoever begins"
            raise InvalidInput(f"Who of the speakers {named} is the customer can't be told: say so with {how}.")

    # A record

    def read(self, raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The values of our fields; the turns as speaker and text, the label as the intent."""
        reasons = list[str]()
        record = {name: self.value(raw, name) for name in self.fields if name != "turns"}
        for name in ("intent", "conversation_id"):
            if isinstance(value := record[name], int | float) and not isinstance(value, bool):
                record[name] = f"{value:.12g}"
        record["intent"] = self.label_names.get(str(record["intent"]).removesuffix(".0"), record["intent"])
        path = self.field_map.get("intent", "")
        if path.endswith(".0") and len(lookup(raw, path[:-2]) or "") > 1:
            self.done["records with several labels, of which the first was taken"] += 1
        if isinstance(language := record["language"], str):
            record["language"] = _code(language)
            self.done[f"languages {language!r} read as {record['language']!r}"] += language != record["language"]
            what = f"records in {record['language']!r}, kept: checks and models of a language know en and es"
            self.done[what] += record["language"] not in ("en", "es")
        return record | {"turns": self._turns(raw, reasons)}, reasons

    def _turns(self, raw: Mapping[str, Any], reasons: list[str]) -> Any:
        """The turns in a record: its messages, or its text, and the answer to it if there is one."""
        value = self.value(raw, "turns")
        if isinstance(value, str) and value.strip():
            try:
                value = text_as_turns(value, inline=raw.get("turn_count") is None)
            except (ValueError, RecursionError) as error:
                reasons.append(f"turns: {error}, left empty, got {value[:60]!r}")
                return None
        if value is None or value == "":
            said = {name: self._text(self.value(raw, name)) for name in ("text", "context", "reply")}
            if said["text"] is None:
                return None
            text = "\n".join(filter(None, (said["text"], said["context"]))) if said["context"] else said["text"]
            self.done["sentences became conversations of one turn"] += not said["reply"]
            both = (("customer", text), ("agent", said["reply"]))
            return [{"speaker": speaker, "text": each} for speaker, each in both if speaker == "customer" or each]
        if isinstance(value, Mapping) and value and all(isinstance(column, list) for column in value.values()):
            value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
        if not isinstance(value, list | tuple):
            return value
        turns = [self._turn(item) for item in value]
        aside = [turn for turn in turns if isinstance(turn, Mapping) and turn["speaker"] in self.asides]
        if aside and len(aside) < len(turns):
            self.done["turns of neither customer nor agent left out"] += len(aside)
            turns = [turn for turn in turns if turn not in aside]
        nobody = all(isinstance(turn, Mapping) and turn["speaker"] is None for turn in turns)
        if nobody and len(turns) > 1 and not raw.get("provenance"):
            self.done["dialogues without speakers: the customer begins, and they take turns"] += 1
            turns = [{**turn, "speaker": ("customer", "agent")[i % 2]} for i, turn in enumerate(turns)]
        if self.field_map.get("customer") == "first" and turns and isinstance(turns[0], Mapping):
            turns = [{**t, "speaker": "customer" if t["speaker"] == turns[0]["speaker"] else "agent"} for t in turns]
        return turns

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
        if isinstance(item, list | tuple) and len(item) == 2 and all(isinstance(part, str) for part in item):
            item = dict(zip(("speaker", "text"), item, strict=True))
        if not isinstance(item, Mapping):
            return item
        speaker = self._of_turn(item, "turns.speaker")
        role = self.roles.get(str(speaker)) or role_of(speaker)
        if role and role != speaker:
            self.done[f"turns of {speaker!r} read as {role!r}"] += 1
        return {"speaker": role or speaker, "text": self._text(self._of_turn(item, "turns.text"))}

    def _text(self, content: Any) -> Any:
        """The text in a content of parts (``[{"type": "text", "text": …}, {"type": "image_url"}]``), else as it is."""
        parts = [content] if isinstance(content, Mapping) else content
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str | Mapping) for part in parts):
            return content
        texts = [text for part in parts if (text := _part_text(part))]
        if not texts and not all(isinstance(part, Mapping) and "type" in part for part in parts):
            return content
        if left_out := len(parts) - len(texts):
            self.done["parts of turns without text left out"] += left_out
        return "\n".join(texts) or None

    def _of_turn(self, item: Mapping[str, Any], name: str) -> Any:
        """The value at the mapped path, else under the first of the usual names that has one."""
        if name in self.field_map:
            return lookup(item, self.field_map[name])
        return next((item[key] for key in _by_rank(tuple(item), _MEANINGS[name]) if item[key] is not None), None)


@lru_cache(1_000)
def _by_rank(keys: tuple[str, ...], meaning: str) -> list[str]:
    ranks = {key: rank for key in keys if (rank := columns.rank(key, meaning)) is not None}
    return sorted(ranks, key=lambda key: ranks[key])


def _code(language: str) -> str:
    """``es`` of ``es-MX``, ``Spanish`` or ``ES``."""
    first = same_words(language).partition(" ")[0]
    named: dict[str, str] = columns.shapes()["languages"]
    return named.get(first, first if re.fullmatch("[a-z]{2,3}", first) else language)


def _sortable(value: Any) -> tuple[int, float, str]:
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)


def _spoken(block: str) -> list[str]:
    return [line for line in block.splitlines() if (begun := _LINE.match(line)) and len(begun[1].split()) <= 4]


def _blocks(text: str) -> list[str]:
    """The transcripts of a plain text, blank lines between them; else its lines."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text) if block.strip()]
    if blocks and all(len(_spoken(block)) for block in blocks):
        return [text] if all(len(_spoken(block)) == 1 for block in blocks) and len(blocks) > 1 else blocks
    return [line.strip() for line in text.splitlines() if line.strip()]


def _part_text(part: Any) -> str:
    """The text of a part of a message; none of an image, a thought or the call of a tool."""
    if isinstance(part, list | tuple):
        return "\n".join(filter(None, map(_part_text, part)))
    if not isinstance(part, Mapping):
        return part if isinstance(part, str) else ""
    if part.get("type", "text") not in ("text", "input_text", "output_text"):
        return ""
    return _part_text(next((part[key] for key in ("text", "value", "parts", "content") if part.get(key)), ""))
