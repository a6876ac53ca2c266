"""Examples into Rasa's training data by inserting lines, each read back first; a diff before, a backup and a version after."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import unified_diff
from functools import partial
from pathlib import Path
from typing import Any

from genesis_lab.dataset.sources import read_records, read_rows
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import output_root, placed, shown
from genesis_lab.review import nlu
from genesis_lab.review.nlu import Row, Source, kept, read_data, read_markup, read_source, text_of

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\u2028": "\\L", "\u2029": "\\P"}
_RESERVED = ("true", "false", "null", "nan", "inf")


def read_examples(path: Path) -> list[Row]:
    """Examples of training data, or of a table or JSON lines with intent and text (or message), entities as JSON, and what
    else is there; or of an export of Label Studio or doccano, as conversations are imported.

    `entities` is None where a row does not say.
    """
    if path.suffix in (".yml", ".yaml"):
        examples, rows = [one for source in nlu.sound(path) for one in source.examples], []
    else:
        examples, rows = [], list(read_rows(path))
    ours = [row.problem or not isinstance(row.value, Mapping) or "intent" in row.value for row in rows]
    if path.suffix in (".json", ".jsonl") and not any(ours):
        domain: Any = get_domain("conversations")
        read = read_records(path, domain, {})
        first = [next((e[0]["text"] for e in one.values() if isinstance(e, list) and e), None) for one in read]
        said = [{"intent": one[domain.facets.label], "text": text} for one, text in zip(read, first, strict=True)]
        rows = [replace(rows[0], number=n, value={k: v for k, v in one.items() if v}) for n, one in enumerate(said, 1)]
    for row in rows:
        held: Row = dict(row.value) if isinstance(row.value, Mapping) else {}
        held = {"text": ""} | held if held.get("message") else held
        if lacking := [column for column in ("intent", "text") if column not in held]:
            why = row.problem or f"it lacks {lacking[0]}"
            raise InvalidInput(f"{shown(path)} must have the columns intent and text: {why} (row {row.number}).")
        try:
            spans = held.get("entities") or None
            spans = json.loads(spans) if isinstance(spans, str) else spans
        except ValueError:
            what = "entities must be a JSON list of start, end and entity"
            raise InvalidInput(f"{shown(path)}, row {row.number}: {what}.") from None
        told = {"intent": held["intent"] or "", "text": held["text"] or "", "entities": spans}
        examples.append({**held, **told, "line": row.number})
    if not examples:
        raise InvalidInput(f"{shown(path)} holds no case or label: give rows with text and intent.")
    return examples


@dataclass
class Merge:
    """What a merge would do: for each file its text before and after; what is refused, and what was there before."""

    folder: Path
    files: dict[str, tuple[str, str]]
    added: list[Row]
    refused: list[Row]
    known: list[Row]

    def diff(self) -> str:
        """A unified diff of every file."""
        return "".join(
            line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
            for name, (old, new) in self.files.items()
            for line in unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}")
        )

    def refusals(self) -> list[str]:
        """A line for each example that was refused, with the reason."""
        return [f"refused: {str(r['intent'])[:60]}: {str(r['text'])[:80]!r}: {r['reason']}" for r in self.refused]


def plan_merge(
    folder: Path, examples: Iterable[Row], *, run: str | None = None, new_intents: str | None = None
) -> Merge:
    """Where `examples` (intent, text, entities) go, each as one line; nothing is written.

    An intent's examples go into the file where it lives; a new one's into `new_intents`, else beside its retrieval
    intent, else into the file with the most examples. With `run` they are synthetic and go into their own file.
    """
    base = folder if folder.is_dir() else folder.parent
    sources = {source.name: source for source in read_data(folder)}
    for name in (new_intents, nlu.SYNTHETIC):
        if name is None:
            continue
        if Path(name).is_absolute() or ".." in Path(name).parts or not name.endswith((".yml", ".yaml")):
            raise InvalidInput(f"New intents go into a .yml file of the data folder, got {name!r}.")
        if name not in sources and (base / name).exists():  # of a folder only one file was given
            sources[name] = read_source(name, text_of(base / name))
    by_text: dict[str, list[Row]] = {}
    for source in sources.values():
        for row in source.examples:
            by_text.setdefault(row["text"], []).append(row)
    merge = Merge(base, {}, [], [], [])
    planned: dict[str, list[Row]] = {}
    for example in examples:
        example = {**example, "entities": example.get("entities") or []}
        try:
            check_example(example)
            example["markup"] = markup(example["text"], example["entities"])
            spans = _spans(example)
            if there := by_text.get(example["text"]):
                if any(row["intent"] == example["intent"] and _spans(row) == spans for row in there):
                    merge.known.append(example)
                    continue
                where = f"{there[0]['file']}:{there[0]['line']}"
                other = there[0]["intent"] != example["intent"]
                how = f"as {there[0]['intent']}" if other else "with other entities"
                raise InvalidInput(f"it stands in {where} {how}")
            name = _home(sources, example["intent"], run, new_intents)
        except InvalidInput as error:
            merge.refused.append({**example, "reason": str(error)})
            continue
        by_text[example["text"]] = [{**example, "file": name, "line": "new"}]
        planned.setdefault(name, []).append(example)
    for name, rows in planned.items():
        old = sources[name].text if name in sources else ""
        new, refused = _faithful(read_source(name, old), rows, run)
        merge.refused += [{**row, "reason": f"{name} would not read back as it is"} for row in refused]
        merge.added += [{**row, "file": name} for row in rows if row not in refused]
        if new != old:
            merge.files[name] = (old, new)
    return merge


def _home(sources: Mapping[str, Source], intent: str, run: str | None, new_intents: str | None) -> str:
    """The file that an example of `intent` goes into."""
    faulty = {name for name, one in sources.items() for p in one.problems if p["level"] in ("error", "note")}
    usable = {name: one for name, one in sources.items() if name not in faulty}
    real = {name: one for name, one in usable.items() if one.indent is not None and Path(name).name != nlu.SYNTHETIC}
    main = max(real, key=lambda name: len(real[name].examples), default="nlu.yml")
    lives = Counter(name for name, one in real.items() for block in one.blocks if block.name == intent)
    above, nested, _ = intent.partition("/")
    kin = Counter(name for name, one in real.items() for block in one.blocks if block.name.startswith(f"{above}/"))
    if run is not None:
        name = (Path(main).parent / nlu.SYNTHETIC).as_posix()
    elif lives:
        return lives.most_common(1)[0][0]
    else:
        name = new_intents or (kin.most_common(1)[0][0] if nested and kin else main)
    if name in sources and (name not in usable or (usable[name].text.strip() and usable[name].indent is None)):
        raise InvalidInput(f"it would go into {name}, which can't be added to: see what is wrong with it")
    return name


def _faithful(source: Source, rows: list[Row], run: str | None) -> tuple[str, list[Row]]:
    """The text with as many of `rows` in it as read back exactly, everything else unchanged; and those that don't."""
    new = _inserted(source, rows, run)
    wanted = Counter(map(_key, source.examples)) + Counter(_key({**row, "run": run}) for row in rows)
    old, now = ([(t["kind"], t["name"], t["text"]) for t in one.terms] for one in (source, new))
    if wanted == Counter(map(_key, new.examples)) and old == now and len(new.problems) == len(source.problems):
        return new.text, []
    if len(rows) == 1:
        return source.text, rows
    half = len(rows) // 2
    text, refused = _faithful(source, rows[:half], run)
    text, more = _faithful(read_source(source.name, text), rows[half:], run)
    return text, refused + more


def _inserted(source: Source, rows: list[Row], run: str | None) -> Source:
    """`source` with each of `rows` as one line more; an intent that has no item there yet is given one."""
    if not source.text.strip():
        source = read_source(source.name, f'{source.text}version: "3.1"\nnlu:\n')
    escapes = source.text.isascii() and nlu.unescaped(source.text) != source.text
    pending = sorted(rows, key=_odd)  # a new intent's item is a | text, if any of its examples can stand in one
    while pending:
        lines, later, opened = _lines(source.text), [], set()
        newline = "\r\n" if lines[0].endswith("\r\n") else "\n"
        added: dict[int, list[str]] = {}
        for row in pending:
            if row["intent"] in opened:
                later.append(row)
                continue
            text, first, last, opens = _placement(source, row, run)
            if opens:
                opened.add(row["intent"])
            if escapes:  # such a file is read with \u escapes as long as it is pure ASCII: it has to stay so
                text = "".join(
                    c if c.isascii() else f"\\u{ord(c):04x}" if c < "\U00010000" else f"\\U{ord(c):08x}" for c in text
                )
            whole = lines[last].endswith(("\n", "\r"))  # a file without a last newline keeps that too
            added.setdefault(last + 1 if whole else first, []).append(text.replace("\n", newline) + newline)
        parts = [part for at, line in enumerate([*lines, ""]) for part in [*added.get(at, []), line]]
        source, pending = read_source(source.name, "".join(parts)), later
    return source


def _placement(source: Source, row: Row, run: str | None) -> tuple[str, int, int, bool]:
    """What to insert for an example, the lines it goes before and after, and whether that is a new item to go on in."""
    written, name = row["markup"], quoted(row["intent"])
    blocks = [block for block in source.blocks if block.name == row["intent"] and block.run == run]
    for form in ("list",) if _odd(row) else ("lines", "list"):
        for block in reversed(blocks):
            if block.form == form:
                item = f"- {written}" if form == "lines" else f"- text: {quoted(written)}"
                return block.indent + item, block.first, block.last, False
    dash = f"{source.indent or ''}- "
    origin = [f"metadata: {{source: genesis, run: {quoted(run)}}}"] if run is not None else []
    flow = f"{dash}{{{', '.join([f'intent: {name}', *origin, f'examples: [{{text: {quoted(written)}}}]'])}}}"
    if blocks:  # its items can't be gone on in: a sibling of one line
        return flow, blocks[-1].start, blocks[-1].end, False
    if not _odd(row):
        usual = re.fullmatch(r"[A-Za-z_][\w/-]{2,}", row["intent"], re.A) and row["intent"].lower() not in _RESERVED
        said = [f"{dash}intent: {row['intent'] if usual else name}", *origin, "examples: |", f"  - {written}"]
        flow = ("\n" + " " * len(dash)).join(said)
    return flow, source.blocks[-1].start if source.blocks else source.start, source.end, True


def _odd(row: Row) -> bool:
    """Whether an example can't stand in a line of a | text."""
    return bool(nlu.ODD.search(row["markup"])) or row["markup"].startswith(("-", "#"))


def quoted(text: str) -> str:
    """`text` in YAML's double quotes on one line, what can't be seen as escapes."""

    def escaped(match: re.Match[str]) -> str:
        code = ord(match[0])
        return _ESCAPES.get(match[0]) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")

    return '"' + re.sub('[\\\\"\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]', escaped, text) + '"'


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
    if not text.strip(nlu.STRIPPED):
        raise InvalidInput("it is empty")
    if written != written.strip(nlu.STRIPPED):
        raise InvalidInput("it begins or ends with a blank, which Rasa strips")
    with suppress(InvalidInput):
        read, found = read_markup(written)
        if read == text and _spans({"text": text, "entities": found}) == _spans({"text": text, "entities": entities}):
            return written
    raise InvalidInput("it looks like Rasa's markup of entities, for which there is no escape")


def _key(row: Row) -> tuple[Any, ...]:
    return row["intent"], row["text"], row["run"], tuple(_spans(row))


def _spans(row: Row) -> list[str]:
    """The entities of an example to be compared, in no order."""
    spans = ((one["start"], one["end"], one) for one in row["entities"])
    written = ((start, end, kept(one, row["text"][start:end])) for start, end, one in spans)
    return sorted(json.dumps(each, sort_keys=True) for each in written)


def check_example(example: Row) -> None:
    """Refuse an example that no training data can hold."""
    intent, text, entities = example.get("intent"), example.get("text"), example["entities"]
    if not isinstance(text, str) or not isinstance(intent, str) or not intent.strip():
        raise InvalidInput("an example needs a text and the name of an intent")
    if (
        intent != intent.strip()
        or intent.count("/") > 1
        or nlu.ODD.search(intent)
        or re.search("[\ud800-\udfff]", intent)
    ):
        raise InvalidInput("the name of its intent must be one line with at most one /")
    for one in entities if isinstance(entities, list) else [None]:
        if not isinstance(one, Mapping) or not all(type(one.get(edge)) is int for edge in ("start", "end")):
            raise InvalidInput("each entity needs start, end and entity")
        if not 0 <= one["start"] < one["end"] <= len(text):
            raise InvalidInput(f"an entity from {one['start']} to {one['end']} lies outside the text")
        try:
            nlu.entity_of(json.dumps({key: value for key, value in one.items() if value is not None}))
        except (InvalidInput, TypeError, ValueError):
            raise InvalidInput("each entity needs a name, and role, group and value as texts") from None
        if not one["entity"]:
            raise InvalidInput("an entity has no name")


def _lines(text: str) -> list[str]:
    """Lines as YAML has them, each with its end."""
    return list(io.StringIO(text, newline=""))


def write(merge: Merge, author: str) -> list[Row]:
    """Write what was planned: all files or none. Returns the new versions.

    What was there before is kept under ``outputs/nlu``, with a line per version: who, when, which content before and after.
    """
    history = _history(merge.folder)
    history.mkdir(parents=True, exist_ok=True)
    for name, (old, _) in merge.files.items():
        path = merge.folder / name
        if (text_of(path) if path.exists() else "") != old:
            raise InvalidInput(f"{name} was changed since the merge was planned: plan it again.")
        (history / f"{_hash(old)}.backup").write_bytes(old.encode())
    made: list[Row] = []
    with ExitStack() as back:  # all files are put back where one can't be written
        for name, (old, new) in merge.files.items():
            path, added = merge.folder / name, sum(row["file"] == name for row in merge.added)
            back_again = partial(_put, path, old) if path.exists() else path.unlink
            _put(path, new)
            back.callback(back_again)
            made.append({
                "file": name, "author": author, "when": datetime.now(UTC).isoformat(timespec="seconds"),
                "before": _hash(old), "after": _hash(new), "added": added,
            })  # fmt: skip
        back.pop_all()
    with (history / "versions.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(version, ensure_ascii=False) + "\n" for version in made)
    return made


def on_branch(folder: Path, branch: str) -> None:
    """Be on a branch of the bot's git repository, made where it is not there; `InvalidInput` where the folder is not committed."""
    if changed := _git(folder, "status", "--porcelain", "--", "."):
        raise InvalidInput(f"{shown(folder)} has changes that are not committed: {changed.splitlines()[0].strip()}.")
    there = branch in _git(folder, "branch", "--format=%(refname:short)").splitlines()
    _git(folder, "switch", "--quiet", *([] if there else ["--create"]), branch)


def commit(merge: Merge, message: str) -> str:
    """Commit the files of a merge that was written, and nothing else; the commit's short hash."""
    _git(merge.folder, "add", "--", *merge.files)
    _git(merge.folder, "commit", "--quiet", "--message", message, "--", *merge.files)
    return _git(merge.folder, "rev-parse", "--short", "HEAD")


def _git(folder: Path, *arguments: str) -> str:
    where = folder if folder.is_dir() else folder.parent
    try:
        done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingDependency("git", "branches", "https://git-scm.com/downloads") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise InvalidInput(f"git {arguments[0]} in {shown(where)} failed: {said[0].rstrip('.')}.")
    return done.stdout.strip()


def versions(folder: Path) -> list[Row]:
    """The versions that were written of a data folder, the first one first."""
    path = _history(folder if folder.is_dir() else folder.parent) / "versions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def _history(folder: Path) -> Path:
    return output_root() / "nlu" / f"{folder.name}-{_hash(str(folder.resolve()))}"


def _put(path: Path, text: str) -> None:
    target = path.resolve()  # through a link, not over it
    with placed(target, replace=True) as temporary:
        temporary.write_bytes(text.encode())
        if target.exists():
            shutil.copymode(target, temporary)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
