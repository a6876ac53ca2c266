"""A file of Rasa's training data or domain: what Rasa reads in it and where more can stand; how an example is written.

What Rasa does with a file was checked against the source and the reader of Rasa 3.6.21.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from genesis_lab.errors import InvalidInput

Row = dict[str, Any]
LATEST = (3, 1)
KINDS = ("intent", "synonym", "regex", "lookup")
STRIPPED = "\n\r "
_MARKUP = re.compile(
    r"\[(?P<text>[^\]]+?)\]"
    r"(?:\((?P<entity>[^:)]+?)(?::(?P<value>[^)]+))?\)|\{(?P<one>[^}]+?)\}|\[(?P<many>.*?)\])"
)  # Rasa's annotation of entities: [text](entity:value), [text]{"entity": …} and [text][{…}, {…}]
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")
ODD = re.compile(CONTROL.pattern + r"|\\[uU]")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\u2028": "\\L", "\u2029": "\\P"}
_BREAKS = str.maketrans({"\u2028": "\ufdd0", "\u2029": "\ufdd1"})  # breaks to YAML 1.1, none to Rasa's 1.2
_UNBROKEN = str.maketrans({"\ufdd0": "\u2028", "\ufdd1": "\u2029"})


@dataclass(eq=False)
class Block:
    """A list, mapping or text of lines that can be added to, in lines from 0; `last` is its last member's.

    `form` is "lines" of a | text, "list" (a dash each), "keys", "flow" (up to the bracket in `column`), or "closed".
    """

    form: str
    start: int
    end: int
    first: int = -1
    last: int = -1
    indent: str = ""
    column: int = -1


@dataclass
class Source:
    """One file: its text, what Rasa reads in it, and what is wrong with it.

    A row has ``kind`` (of `KINDS`, ``intents``, ``entities``, or ``response``), ``name``, ``text`` (of a response:
    JSON), its ``line``, the ``lines`` that hold nothing else, from 0, and the ``block`` it is in; an example also
    ``intent`` and ``entities``.
    """

    name: str
    text: str
    rows: list[Row] = field(default_factory=list)
    problems: list[Row] = field(default_factory=list)
    blocks: dict[str, Block] = field(default_factory=dict)  # nlu, intents, entities, responses
    language: str = ""
    top: int = 0  # the line of its last key: another can stand before it

    @property
    def examples(self) -> list[Row]:
        """Of intents."""
        return [row for row in self.rows if row["kind"] == "intent"]

    def add(self, kind: str, name: str, text: str, line: int, own: tuple[int, int] | None, block: Block) -> Row:
        """One row more."""
        row = {"kind": kind, "name": name, "text": text, "line": line + 1, "lines": own, "block": block, "run": None}
        self.rows.append(row | {"file": self.name})
        return self.rows[-1]

    def error(self, line: int, problem: str, level: str = "error") -> None:
        """Name what Rasa refuses in a line."""
        self.problems.append({"file": self.name, "line": line + 1, "level": level, "problem": problem})

    def warning(self, line: int, problem: str) -> None:
        """Name what Rasa passes over in a line, or reads as something else."""
        self.error(line, problem, "warning")


def read_source(name: str, text: str) -> Source:
    """What Rasa reads in the text of a file; what it refuses is a problem, of the level error, else a warning."""
    source = Source(name, text)
    try:
        _read_into(source)
    except RecursionError:
        source.error(0, "is nested too deeply, or in itself")
    return source


def _read_into(source: Source) -> None:
    import yaml

    plain = source.text.replace("\r\n", "\n").replace("\r", "\n")
    try:
        decoded = unescaped(plain).translate(_BREAKS)
        root = yaml.compose(decoded, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeError) as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        return source.error(mark.line if mark else 0, f"is not YAML: {said}")
    if root is not None and root.id != "mapping":
        return source.error(0, "must hold a mapping with nlu, responses, stories or rules")
    keys = _keys(source, root) if root else {}
    if not _version_read(source, keys.get("version")):
        return None
    source.language = str(keys["language"].value) if "language" in keys else ""
    source.top = root.value[-1][0].start_mark.line if keys else 0
    lines = decoded.split("\n")
    for kind, node in ((kind, keys[kind]) for kind in ("intents", "entities", "responses", "nlu") if kind in keys):
        block = source.blocks[kind] = _block(node, lines)
        if kind == "responses" and node.id == "mapping":
            for key, value in node.value:
                _read_list(source, "response", key, value, _block(value, lines, key.start_mark.line), lines)
        elif kind == "nlu" and node.id != "sequence" and node.value:
            source.error(block.start, "nlu must be a list")
        elif kind == "nlu" and node.value:
            for item in node.value:
                _read_item(source, item, lines)
        elif kind != "responses":
            _read_list(source, kind, None, node, block, lines)
    return None


def _block(node: Any, lines: list[str], start: int | None = None) -> Block:
    """Where a list or mapping can be added to; `start`: the line that goes with it where all of it goes."""
    at, end = node.start_mark.line, _last_line(node, lines)
    block = Block("closed", at if start is None else start, end, at, end)
    if node.id == "scalar":
        block.form = "closed" if node.value else "list"
    elif node.flow_style:
        block.form, block.column = "flow", node.end_mark.column - 1
    else:
        last = node.value[-1][0] if node.id == "mapping" else node.value[-1]
        block.form, block.indent = "keys" if node.id == "mapping" else "list", " " * node.start_mark.column
        block.first = last.start_mark.line
    return block


def _read_list(source: Source, kind: str, name: Any, node: Any, block: Block, lines: list[str]) -> None:
    """The names in a list of the domain, or the forms of a response, as JSON."""
    for one in node.value if node.id == "sequence" else ():
        own = (one.start_mark.line, _last_line(one, lines)) if block.form == "list" else None
        text = json.dumps(_value(one), ensure_ascii=False) if name else ""
        called = name or (one.value[0][0] if one.id == "mapping" and one.value else one)
        source.add(kind, str(called.value), text, one.start_mark.line, own, block)


def _value(node: Any) -> Any:
    """What a node holds, its numbers and truths as JSON has them."""
    if node.id == "mapping":
        return {str(key.value): _value(value) for key, value in node.value}
    if node.id == "sequence":
        return [_value(one) for one in node.value]
    with suppress(ValueError):
        return node.value if _is_text(node) else json.loads(node.value.lower())
    return node.value


def _read_item(source: Source, item: Any, lines: list[str]) -> None:
    """One item of the ``nlu`` list: its examples, and where it can be added to."""
    start = at = item.start_mark.line
    while start and not lines[start].lstrip().startswith(("-", "{", "[")) and not item.flow_style:
        start -= 1
    block = Block("closed", start, _last_line(item, lines))
    if item.id != "mapping":
        return source.error(at, "holds an item that is no mapping: Rasa refuses the file")
    keys = _keys(source, item)
    kind = next((kind for kind in KINDS if kind in keys), None)
    if kind is None:
        what, refused = f"holds an item with none of {', '.join(KINDS)}: Rasa", set(keys) - {"examples", "metadata"}
        return source.error(at, f"{what} refuses the file") if refused else source.warning(at, f"{what} passes over it")
    named, examples = keys[kind], keys.get("examples")
    if unknown := [key for key in keys if key not in {kind, "examples", *["metadata"] * (kind == "intent")}]:
        return source.error(at, f"gives {kind} {named.value!r} the field {unknown[0]!r}, which Rasa refuses")
    if named.id != "scalar" or not _is_text(named):
        return source.error(at, f"names a {kind} that is no text: put {str(named.value)[:40]} in quotes")
    name = named.value.translate(_UNBROKEN)
    if not name:
        return source.warning(at, f"names a {kind} with an empty text: Rasa passes over it")
    run = None
    if "metadata" in keys and keys["metadata"].id == "mapping":
        about = {key: one.value for key, one in _keys(source, keys["metadata"]).items()}
        run = str(about.get("run", "")) if about.get("source") == "genesis" else None
    if kind == "intent" and name.count("/") > 1:
        source.error(at, f"intent {name!r} has more than one /: Rasa takes one, as in faq/ask_price")
    for line, own, written in _written_examples(source, kind, name, examples, at, lines, block):
        if kind == "regex" and (fault := regex_fault(written)):
            source.error(line, f"regex {name}: {fault}: Rasa can't train with it")
        try:
            text, entities = read_markup(written) if kind == "intent" else (written, [])
        except InvalidInput as error:
            source.error(line, f"intent {name}: {error}")
            continue
        if not text and kind == "intent":
            source.warning(line, f"intent {name} has an empty example")
        row = source.add(kind, name, text, line, own, block)
        row |= {"intent": name, "entities": entities, "run": run} if kind == "intent" else {}


def _written_examples(
    source: Source, kind: str, name: str, examples: Any, at: int, lines: list[str], block: Block
) -> Iterator[tuple[int, tuple[int, int] | None, str]]:
    """Line, own lines and markup of each example, as Rasa splits them; `block` learns where the next can stand."""
    if examples is None or (examples.id == "scalar" and not examples.value):
        return source.warning(at, f"{kind} {name} has no examples")
    if examples.id == "sequence" and kind == "intent":
        for one in examples.value:
            text = _keys(source, one).get("text") if one.id == "mapping" else None
            text = text if text is not None and text.id == "scalar" else None
            if text is None or not _is_text(text):
                what = f"that is no text: put {text.value[:40]} in quotes" if text else "without text:"
                source.error(one.start_mark.line, f"intent {name} has an example {what}; Rasa refuses the file")
                continue
            _expanded(source, text, name)
            own = None if examples.flow_style else (one.start_mark.line, _last_line(one, lines))
            yield text.start_mark.line, own, text.value.translate(_UNBROKEN).strip(STRIPPED)
        if examples.value and not examples.flow_style:
            block.form, block.indent = "list", " " * examples.start_mark.column
            block.first, block.last = examples.value[-1].start_mark.line, _last_line(examples.value[-1], lines)
        return None
    if examples.id != "scalar" or not _is_text(examples):
        return source.error(at, f"{kind} {name}: examples must be a text that begins with |, Rasa refuses this")
    _expanded(source, examples, name)
    literal, folded = examples.style == "|", examples.style == ">"
    if folded and examples.value.count("\n") < sum(line.lstrip().startswith("-") for line in lines[at : block.end + 1]):
        source.warning(at, f"{kind} {name}: > folds its lines into one example, write | instead")
    first = examples.start_mark.line + literal
    for number, held in enumerate(examples.value.split("\n")):
        where = first + number if literal else first
        for line in held.translate(_UNBROKEN).splitlines():
            if line.startswith("-"):
                if literal:
                    block.form, block.first, block.last = "lines", where, where
                    block.indent = lines[where][: len(lines[where]) - len(held)]
                if re.match(r"-\d", line):
                    source.warning(where, f"{kind} {name}: {line[:60]!r} loses its minus: put '- ' before it")
                yield where, (where, where) if literal else None, line[1:].strip(STRIPPED)
            elif line.strip():
                source.warning(where, f"{kind} {name}: Rasa passes over {line.strip()[:60]!r}, which begins with no -")


def _last_line(node: Any, lines: list[str]) -> int:
    """The last line that belongs to a node; its own end mark may stand behind comments."""
    if node.id == "scalar":
        end = int(node.end_mark.line)
        if node.style in ("|", ">"):
            end = end if node.end_mark.column else end - 1
            while end > node.start_mark.line and (end >= len(lines) or not lines[end].strip()):
                end -= 1
        return end
    if node.flow_style or not node.value:
        return int(node.end_mark.line)
    key, last = node.value[-1] if node.id == "mapping" else (node, node.value[-1])
    line = int(key.end_mark.line if key is not node else node.start_mark.line)
    if last.start_mark.line < line:  # an alias: its marks are those of its anchor
        return line
    return max(line, _last_line(last, lines))


def _keys(source: Source, mapping: Any) -> dict[str, Any]:
    """The nodes of a mapping by key."""
    found: dict[str, Any] = {}
    for key, value in mapping.value:
        if (name := str(key.value)) in found:
            source.error(key.start_mark.line, f"gives {name!r} twice")
        found[name] = value
    return found


def _is_text(node: Any) -> bool:
    """Whether YAML 1.2, which Rasa reads, takes a scalar for a text: ``yes`` and ``1:30``, not ``true`` or ``12``."""
    kind = node.tag.rpartition(":")[2]
    if kind == "bool":
        return node.value.lower() not in ("true", "false")
    return kind not in ("null", "timestamp") and (kind not in ("int", "float") or ":" in node.value)


def _expanded(source: Source, node: Any, name: str) -> None:
    """Name a text that Rasa takes for an environment variable, which its schema then refuses."""
    if not node.style and re.search(r"\$\{.*\}", node.value):
        source.error(node.start_mark.line, f"{name}: Rasa refuses ${{…}} outside quotes: put the text in quotes")


def _version_read(source: Source, node: Any) -> bool:
    """Whether Rasa reads a file of this version."""
    if node is None or not node.value:
        return True
    line = node.start_mark.line
    if node.id != "scalar" or not _is_text(node):
        source.error(line, f'version must be a text: write version: "{node.value}"')
    elif not re.fullmatch(r"\d+(\.\d+)*", given := node.value.strip("\"'")):
        source.warning(line, f'version {given!r} is none: Rasa reads the file as "3.1"')
    elif (parts := tuple(map(int, given.split(".")))) > LATEST:
        source.error(line, f'version "{given}" is later than "3.1": Rasa skips the whole file')
        return False
    elif parts < LATEST:
        source.warning(line, f'version "{given}" is read as "3.1", with a warning')
    return True


def regex_fault(pattern: str) -> str:
    """Why Python, and so Rasa, can't read a regular expression; nothing where it can."""
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"{pattern[:60]!r} is no regular expression ({error})"
    return ""


def unescaped(text: str) -> str:
    """A pure ASCII file as Rasa decodes it: ``\\u00e1`` is á there."""
    if not text.isascii():
        return text
    return text.encode().decode("raw_unicode_escape").encode("utf-16", "surrogatepass").decode("utf-16")


def read_markup(written: str) -> tuple[str, list[Row]]:
    """The text and the entities of an annotated example; a `value` only where it is another than the text."""
    text, entities, at = "", [], 0
    for match in _MARKUP.finditer(written):
        text += written[at : match.start()]
        said, start, at = match["text"], len(text), match.end()
        text += said
        if match["entity"]:
            found = [{"entity": match["entity"], "value": match["value"] or said}]
        else:
            held = [match["one"]] if match["one"] else re.findall(r"\{([^}]+?)\}", match["many"])
            found = [entity_of("{" + one + "}") for one in held]
        entities += [{"start": start, "end": len(text), **kept(one, said)} for one in found]
    return text + written[at:], entities


def entity_of(held: str) -> Row:
    """The mapping behind an annotated text; InvalidInput where Rasa refuses it."""
    try:
        found = json.loads(held)
    except json.JSONDecodeError:
        raise InvalidInput(f"the annotation {held[:60]} is not JSON: Rasa refuses the file") from None
    wrong = [key for key in ("entity", "role", "group") if not isinstance(found.get(key, ""), str)]
    value = found.get("value", "")
    if wrong or "entity" not in found or isinstance(value, bool) or not isinstance(value, str | int | float):
        raise InvalidInput(f"the annotation {held[:60]} needs an entity and texts: Rasa refuses the file")
    return dict(found)


def kept(entity: Mapping[str, Any], said: str) -> Row:
    """What of an entity is written down: a value only where it is another than the text, no empty role or group."""
    kept = {key: entity[key] for key in ("entity", "role", "group") if entity.get(key)}
    value = entity.get("value")
    return kept if value is None or value == said else {**kept, "value": value}


def quoted(text: str) -> str:
    """`text` in YAML's double quotes on one line, what can't be seen as escapes."""

    def escaped(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _ESCAPES.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return '"' + re.sub(f'[\\\\"]|{CONTROL.pattern}', escaped, text) + '"'


def markup(text: str, entities: Sequence[Mapping[str, Any]]) -> str:
    """`text` with its entities written in, as Rasa annotates them; InvalidInput with the reason where that can't be."""
    spans: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for entity in sorted(entities, key=lambda e: (e["start"], e["end"])):
        spans.setdefault((entity["start"], entity["end"]), []).append(entity)
    written, at = "", 0
    for (start, end), here in spans.items():
        said = text[start:end]
        if start < at:
            raise InvalidInput("its entities overlap")
        if "[" in said or "]" in said:
            raise InvalidInput(f"the text of an entity holds brackets: {said}")
        names = [kept(entity, said) for entity in here]
        short = len(here) == 1 and set(names[0]) == {"entity"} and not re.search(r"[:)]", names[0]["entity"])
        held = ", ".join(json.dumps(name, ensure_ascii=False) for name in names)
        held = f"({names[0]['entity']})" if short else held if len(here) == 1 else f"[{held}]"
        written, at = written + text[at:start] + f"[{said}]{held}", end
    written += text[at:]
    if re.search("[\ud800-\udfff]", written):
        raise InvalidInput("it holds half a surrogate pair, which is no character")
    if not text.strip(STRIPPED):
        raise InvalidInput("it is empty")
    if written != written.strip(STRIPPED):
        raise InvalidInput("it begins or ends with a blank, which Rasa strips")
    with suppress(InvalidInput):
        read, found = read_markup(written)
        if read == text and spans_of({"text": text, "entities": found}) == spans_of(
            {"text": text, "entities": entities}
        ):
            return written
    raise InvalidInput("it looks like Rasa's markup of entities, for which there is no escape")


def spans_of(row: Row) -> list[str]:
    """The entities of an example to be compared, in no order."""
    spans = ((one["start"], one["end"], one) for one in row.get("entities", ()))
    written = ((start, end, kept(one, row["text"][start:end])) for start, end, one in spans)
    return sorted(json.dumps(each, sort_keys=True) for each in written)


def check_row(row: Row) -> None:
    """Refuse what training data and domain can't hold, of any kind; notes the ``markup`` of an example."""
    kind, name, text = row["kind"], row["name"], row["text"]
    if kind == "intent":
        row["markup"] = markup(text, row["entities"])
    elif not name or name != name.strip() or CONTROL.search(name + text):
        raise InvalidInput("it must have a name and hold no signs that can't be seen")
    elif kind == "response" and not (name.startswith("utter_") and text.startswith("{")):
        raise InvalidInput("a response needs a name that begins with utter_ and a list of text: and so on")
    elif kind in KINDS and (not text or text != text.strip(STRIPPED)):
        raise InvalidInput("it is empty, or begins or ends with a blank, which Rasa strips")
    elif kind == "regex" and (fault := regex_fault(text)):
        raise InvalidInput(fault)


def check_example(example: Row) -> None:
    """Refuse an example that no training data can hold."""
    intent, text, entities = example.get("intent"), example.get("text"), example["entities"]
    if not isinstance(text, str) or not isinstance(intent, str) or not intent.strip():
        raise InvalidInput("an example needs a text and the name of an intent")
    if intent != intent.strip() or intent.count("/") > 1 or ODD.search(intent):
        raise InvalidInput("the name of its intent must be one line with at most one /")
    for one in entities if isinstance(entities, list) else [None]:
        if not isinstance(one, Mapping) or not all(type(one.get(edge)) is int for edge in ("start", "end")):
            raise InvalidInput("each entity needs start, end and entity")
        if not 0 <= one["start"] < one["end"] <= len(text):
            raise InvalidInput(f"an entity from {one['start']} to {one['end']} lies outside the text")
        try:
            entity_of(json.dumps({key: value for key, value in one.items() if value is not None}))
        except (InvalidInput, TypeError, ValueError):
            raise InvalidInput("each entity needs a name, and role, group and value as texts") from None
        if not one["entity"]:
            raise InvalidInput("an entity has no name")
