"""A bot's training data and domain edited line by line: each edit is read back, shown, and written as a version.

An edit is written whole or not at all, with a backup and a line that says who changed what; it can be put back, or be
one commit on a branch of the bot's git repository.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import unified_diff
from functools import cache, partial
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import output_root, placed, shown
from genesis_lab.review import nlu_file
from genesis_lab.review.nlu import base_of, place_of, read_bot, text_of
from genesis_lab.review.nlu_file import Block, Row, Source, check_example, check_row, quoted, read_source, spans_of

SYNTHETIC = "genesis_synthetic.yml"
"""Where examples go that nobody said."""
_RESERVED = ("true", "false", "null", "nan", "inf")
_LISTED = ("intents", "entities")
_DOMAIN = {*_LISTED, "responses"}
Edit = tuple[str, int, int, str]
"""A file, its lines from one number (from 0) up to another, and what is to stand there."""


@dataclass
class Merge:
    """What would change: each file's text before and after; what comes, goes, is refused, and what was there before."""

    folder: Path
    files: dict[str, tuple[str, str]]
    added: list[Row] = field(default_factory=list)
    removed: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)
    known: list[Row] = field(default_factory=list)

    def diff(self) -> str:
        """A unified diff of every file."""
        return "".join(
            line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
            for name, (old, new) in self.files.items()
            for line in unified_diff(_lines(old), _lines(new), f"a/{name}", f"b/{name}")
        )

    def refusals(self) -> list[str]:
        """A line for each row that was refused, with the reason."""
        return [f"refused: {str(r['name'])[:60]}: {str(r['text'])[:80]!r}: {r['reason']}" for r in self.refused]


def plan_merge(
    folder: Path,
    rows: Iterable[Row],
    *,
    run: str | None = None,
    new_intents: str | None = None,
    move: bool = False,
    remove: bool = False,
) -> Merge:
    """Where `rows` (of `read_examples`) go, each as one line, in training data and domain; nothing is written.

    An intent's examples go into the file where it lives; a new one's into `new_intents`, else beside its retrieval
    intent, else into the file with the most examples. With `run` they are synthetic and go into their own file. Intents
    and entities that the domain lacks are listed there. `move`: an example that stands elsewhere, or with other
    entities, is taken out there instead of refused. `remove`: `rows` are taken out.
    """
    base = base_of(folder)
    sources = {source.name: source for source in read_bot(folder)}
    for name in filter(None, (new_intents, SYNTHETIC)):
        if Path(name).is_absolute() or ".." in Path(name).parts or not name.endswith((".yml", ".yaml")):
            raise InvalidInput(f"New intents go into a .yml file of the data folder, got {name!r}.")
        if name not in sources and (base / name).exists():  # of a folder only one file was given
            sources[name] = read_source(name, text_of(base / name))
    there: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for one in (one for source in sources.values() for one in source.rows):
        there[place_of(one)].append(one)
    domain = any({"intents", "responses"} & one.blocks.keys() for one in sources.values())
    merge, planned = Merge(base, {}), list[Row]()
    home = cache(partial(_home, sources, run, new_intents))
    rows = [row | ({"kind": "intent", "name": row["intent"]} if "intent" in row else {}) for row in rows]
    for row in sorted(rows, key=lambda row: row["kind"] != "response"):  # a retrieval intent needs its response
        row |= {"entities": row.get("entities") or [], "run": run if row["kind"] == "intent" else None}
        row |= {"file": "", "out": []}
        try:
            if row["kind"] == "intent":
                check_example(row)
            if not remove:
                check_row(row)
                answers = f"utter_{row['name']}" if row["kind"] == "intent" and "/" in row["name"] and domain else ""
                if answers and not any(key[::2] == ("response", answers) and held for key, held in there.items()):
                    raise InvalidInput(f"a retrieval intent needs a response {answers}: give it as well")
            others = there[place_of(row)]
            same = [one for one in others if _key(one)[:4] == _key(row)[:4]]
            if remove:
                row["out"] = same or [one for one in others if one["name"] == row["name"]]
                if not row["out"]:
                    raise InvalidInput("it is not there")
            elif same:
                merge.known.append(row)
                continue
            elif others and (not move or row["kind"] != "intent" or others[0]["line"] == "new"):
                how = f"as {others[0]['name']}" if others[0]["name"] != row["name"] else "with other entities"
                raise InvalidInput(f"it stands in {others[0]['file']}:{others[0]['line']} {how}")
            else:
                row |= {"out": others, "file": home(row["kind"], row["name"])}
        except InvalidInput as error:
            merge.refused.append(row | {"reason": str(error)})
            continue
        there[place_of(row)] = [] if remove else [row | {"line": "new"}]
        planned.append(row)
    after, refused = _faithful(sources, planned)
    why = "can't be changed in this alone, or would not read back as it is"
    merge.refused += [row | {"reason": f"{row['file'] or row['out'][0]['file']} {why}"} for row in refused]
    done = [row for row in planned if row not in refused]
    merge.added, merge.removed = [row for row in done if row["file"]], [one for row in done for one in row["out"]]
    texts = {name: (sources[name].text if name in sources else "", one.text) for name, one in after.items()}
    merge.files = {name: pair for name, pair in texts.items() if pair[0] != pair[1]}
    return merge


def _home(sources: Mapping[str, Source], run: str | None, new_intents: str | None, kind: str, called: str) -> str:
    """The file that a row goes into: where its name is, else names alike, else its kind; of several the fullest."""
    faulty = {name for name, one in sources.items() for p in one.problems if p["level"] in ("error", "note")}
    real = {name: one for name, one in sources.items() if name not in faulty and Path(name).name != SYNTHETIC}
    taught = {name: len(one.examples) for name, one in real.items() if "nlu" in one.blocks}
    main = max(taught, key=lambda name: taught[name], default="nlu.yml")
    rows = [row for one in real.values() for row in one.rows if row["kind"] == kind]
    same = [row["file"] for row in rows if row["name"] == called]
    alike = [row["file"] for row in rows if row["name"].startswith(called.partition("/")[0] + "/")]
    others = [row["file"] for row in rows] if kind != "intent" else []
    domain = [name for name, one in real.items() if one.blocks.keys() & _DOMAIN] if kind not in nlu_file.KINDS else []
    name = next((Counter(files).most_common(1)[0][0] for files in (same, alike, others, domain) if files), main)
    if run is not None and kind not in _LISTED:
        name = (Path(main).parent / SYNTHETIC).as_posix()
    elif kind == "intent" and new_intents and not same:
        name = new_intents
    if name in faulty:
        raise InvalidInput(f"it would go into {name}, which can't be added to: see what is wrong with it")
    return name


def _faithful(sources: Mapping[str, Source], rows: list[Row]) -> tuple[dict[str, Source], list[Row]]:
    """The files with as many of `rows` done as read back exactly, everything else unchanged; and those that don't."""
    gone, come = [one for row in rows for one in row["out"]], [row for row in rows if row["file"]]
    come += _unlisted(sources, come)
    grown = _edited(sources, _insertions(sources, come))
    after = grown | _edited({**sources, **grown}, _removals({**sources, **grown}, gone))
    before = [sources[name] for name in after if name in sources]
    wanted, read = (Counter(_key(row) for one in some for row in one.rows) for some in (before, after.values()))
    wanted.update(map(_key, come))
    wanted.subtract(map(_key, gone))
    old, new = (Counter(p["problem"] for one in some for p in one.problems) for some in (before, after.values()))
    if wanted == read and not new - old:
        return after, []
    if len(rows) == 1:
        return {}, rows
    half = len(rows) // 2
    first, refused = _faithful(sources, rows[:half])
    second, more = _faithful({**sources, **first}, rows[half:])
    return first | second, refused + more


def _unlisted(sources: Mapping[str, Source], come: Sequence[Row]) -> list[Row]:
    """Rows for the intents and entities of `come` that the domain does not list; none where there is no domain."""
    if not any("intents" in one.blocks for one in sources.values()):
        return []
    listed = {(row["kind"], row["name"]) for rows in (come, *(one.rows for one in sources.values())) for row in rows}
    named = [("intents", row["intent"].partition("/")[0]) for row in come if row["kind"] == "intent"]
    named += [("entities", one["entity"]) for row in come for one in row["entities"]]
    rows = [{"kind": kind, "name": name, "text": "", "run": None} for kind, name in dict.fromkeys(named)]
    return [
        row | {"file": _home(sources, None, None, row["kind"], row["name"])}
        for row in rows
        if (row["kind"], row["name"]) not in listed
    ]


def _edited(sources: Mapping[str, Source], edits: Iterable[Edit]) -> dict[str, Source]:
    """The files that `edits` change, read again."""
    changed, edits = {}, sorted(edits, key=lambda edit: edit[:3])
    for name in dict.fromkeys(edit[0] for edit in edits):
        old = sources[name].text if name in sources else ""
        lines, escapes = _lines(old), old.isascii() and nlu_file.unescaped(old) != old
        newline = "\r\n" if lines and lines[0].endswith("\r\n") else "\n"
        for _, start, end, text in (edit for edit in edits[::-1] if edit[0] == name):
            if escapes:  # such a file is read with \u escapes as long as it is pure ASCII: it has to stay so
                text = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
            lines[start:end] = [text.replace("\n", newline)] if text else []
        changed[name] = read_source(name, "".join(lines))
    return changed


def _removals(sources: Mapping[str, Source], gone: Sequence[Row]) -> Iterator[Edit]:
    """Each row's lines taken out; all of an item or response with nothing else in it."""
    for name in {row["file"] for row in gone}:
        left, kept_in = Counter(_key(row) for row in gone if row["file"] == name), Counter[Block]()
        taken = []
        for row in sources[name].rows:
            taken += [row] if left[_key(row)] > 0 else []
            kept_in[row["block"]] += left[_key(row)] <= 0 or row["kind"] in _LISTED
            left[_key(row)] -= 1
        spans = {(b.start, b.end) for b in {row["block"] for row in taken} if not kept_in[b]}
        spans |= {row["lines"] for row in taken if row["lines"] and kept_in[row["block"]]}
        yield from ((name, first, last + 1, "") for first, last in spans)


def _insertions(sources: Mapping[str, Source], come: Sequence[Row]) -> Iterator[Edit]:
    """Each row into what there is of its name, else into something new of that name."""
    groups: dict[tuple[str, str, str, str | None], list[Row]] = defaultdict(list)
    for row in come:
        groups[row["file"], row["kind"], "" if row["kind"] in _LISTED else row["name"], row["run"]].append(row)
    for (file, *called), rows in groups.items():
        source = sources.get(file) or read_source(file, "")
        above = called[0] if called[0] in _LISTED else "responses" if called[0] == "response" else "nlu"
        parent = source.blocks.get(above) or Block("new", source.top, source.top)
        own = [one["block"] for one in source.rows[::-1] if [one["kind"], one["name"], one["run"]] == called]
        own = [parent] if called[0] in _LISTED else list(dict.fromkeys(own))
        members: dict[Block, list[str]] = defaultdict(list)
        left = []
        for row in rows:
            ways = _written(row)
            fit = next((one for form in ways for one in own if one.form == form), None)
            if fit:
                members[fit].append(ways[fit.form])
            else:
                left.append(row)
        if left:
            members[parent] += _new(left, short=bool(own) or parent.form == "flow")
        for block, texts in members.items():
            yield _into(source, above if block is parent else "", block, texts)


def _written(row: Row) -> dict[str, str]:
    """A row as a member of lists and texts, by the forms of those that it can be one of, the best first."""
    if row["kind"] in ("response", *_LISTED):
        text = row["text"] or _plain(row["name"])
        return {"list": text, "flow": text}
    if row["kind"] != "intent":
        return {"lines": row["text"]}
    odd = nlu_file.ODD.search(row["markup"]) or row["markup"].startswith(("-", "#"))
    return ({} if odd else {"lines": row["markup"]}) | {"list": f"text: {quoted(row['markup'])}"}


def _new(rows: Sequence[Row], short: bool) -> list[str]:
    """Rows of one name as new members of ``nlu``, ``responses`` or a list of names; `short`: of one line each."""
    kind, name, run = (rows[0][key] for key in ("kind", "name", "run"))
    if kind in _LISTED:
        return [_plain(row["name"]) for row in rows]
    if kind == "response":
        return [f"{_plain(name)}: [{', '.join(row['text'] for row in rows)}]"]
    about = [f"metadata: {{source: genesis, run: {quoted(run)}}}"] if run is not None else []
    plain = [] if short else [row for row in rows if "lines" in _written(row)]
    lines = [f"{kind}: {_plain(name)}", *about, "examples: |", *(f"  - {_written(row)['lines']}" for row in plain)]
    made = ["\n".join(lines)] if plain else []
    for row in (row for row in rows if row not in plain):
        said = f"[{{text: {quoted(row['markup'])}}}]" if kind == "intent" else quoted(f"- {row['text']}")
        made.append(f"{{{', '.join([f'{kind}: {quoted(name)}', *about, f'examples: {said}'])}}}")
    return made


def _into(source: Source, kind: str, block: Block, members: Sequence[str]) -> Edit:
    """The edit that adds `members` to a list, text or mapping; a new one gets its key, of that `kind`."""
    lines, dash = _lines(source.text), "" if kind == "responses" else "- "
    if block.form == "flow":
        head, tail = lines[block.last][: block.column].rstrip(), lines[block.last][block.column :]
        glue = "" if head.endswith(("[", "{")) else " " if head.endswith(",") else ", "
        return source.name, block.last, block.last + 1, f"{head}{glue}{', '.join(members)}{tail}"
    indent = block.indent or " " * (2 - len(dash))
    text = "".join(indent + dash + member.replace("\n", f"\n{indent}{' ' * len(dash)}") + "\n" for member in members)
    if block.form == "new":
        begins = "" if source.text.strip() else 'version: "3.1"\n'
        return source.name, block.start, block.start, f"{begins}{kind}:\n{text}"
    at = block.last + 1 if lines[block.last].endswith(("\n", "\r")) else block.first  # no last newline: it stays so
    return source.name, at, at, text


def _plain(name: str) -> str:
    """A name as YAML, in quotes where it could be taken for something else."""
    usual = re.fullmatch(r"[A-Za-z_][\w/-]{2,}", name, re.A) and name.lower() not in _RESERVED
    return name if usual else quoted(name)


def _key(row: Row) -> tuple[Any, ...]:
    return row["kind"], row["name"], row["text"], tuple(spans_of(row)), row["run"]


def _lines(text: str) -> list[str]:
    """Lines as YAML has them, each with its end."""
    return list(io.StringIO(text, newline=""))


# Versions: written whole or not at all, with a backup each, put back, committed


def write(merge: Merge, author: str) -> list[Row]:
    """Write what was planned: all files or none. Returns the new versions.

    What was there before and what is there now is kept under ``outputs/nlu``, with a line per version: who, when, what.
    """
    history = _history(merge.folder)
    history.mkdir(parents=True, exist_ok=True)
    made: list[Row] = []
    for name, texts in merge.files.items():
        path = merge.folder / name
        if (text_of(path) if path.exists() else "") != texts[0]:
            raise InvalidInput(f"{name} was changed since the merge was planned: plan it again.")
        for text in texts:
            (history / f"{_hash(text)}.backup").write_bytes(text.encode())
        added, removed = (sum(row["file"] == name for row in rows) for rows in (merge.added, merge.removed))
        when = datetime.now(UTC).isoformat(timespec="seconds")
        version = {"file": name, "author": author, "when": when, "before": _hash(texts[0]), "after": _hash(texts[1])}
        made.append(version | {"added": added, "removed": removed})
    with ExitStack() as back:  # all files are put back where one can't be written
        for name, texts in merge.files.items():
            _put(merge.folder / name, texts[1])
            back.callback(_put, merge.folder / name, texts[0])
        back.pop_all()
    with (history / "versions.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(version, ensure_ascii=False) + "\n" for version in made)
    return made


def versions(folder: Path) -> list[Row]:
    """The versions that were written of a data folder, the first one first."""
    path = _history(base_of(folder)) / "versions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def restored(folder: Path, file: str, version: str) -> Merge:
    """What puts `file` back to a content, by the beginning of a hash in `versions`; nothing is written.

    `InvalidInput` where the file is not as the last version left it: a person changed it since.
    """
    base, known = base_of(folder), [one for one in versions(folder) if one["file"] == file]
    found = {one[side] for one in known for side in ("before", "after") if version and one[side].startswith(version)}
    if len(found) != 1:
        raise InvalidInput(f"{file} had {len(found)} contents {version!r}: genesis review nlu versions lists them.")
    now = text_of(base / file) if (base / file).exists() else ""
    if _hash(now) != known[-1]["after"]:
        told = "was changed by hand since {author} wrote it ({when}), which would be lost".format(**known[-1])
        raise InvalidInput(f"{file} {told}: undo that, or keep a copy, first.")
    return Merge(base, {file: (now, text_of(_history(base) / f"{found.pop()}.backup"))})


def on_branch(folder: Path, branch: str) -> None:
    """Be on a branch of the bot's git repository, new or not; `InvalidInput` where the folder is not committed."""
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
    where = base_of(folder)
    try:
        done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingDependency("git", "branches", "https://git-scm.com/downloads") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise InvalidInput(f"git {arguments[0]} in {shown(where)} failed: {said[0].rstrip('.')}.")
    return done.stdout.strip()


def _history(folder: Path) -> Path:
    return output_root() / "nlu" / f"{folder.name}-{_hash(str(folder.resolve()))}"


def _put(path: Path, text: str) -> None:
    if not text:  # as before there was one
        return path.unlink(missing_ok=True)
    target = path.resolve()  # through a link, not over it
    with placed(target, replace=True) as temporary:
        temporary.write_bytes(text.encode())
        if target.exists():
            shutil.copymode(target, temporary)
    return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
