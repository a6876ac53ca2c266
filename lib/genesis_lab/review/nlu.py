"""A bot's training data as they lie in a folder: its files, their examples, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from os.path import relpath
from pathlib import Path

from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed, shown
from genesis_lab.review.nlu_file import Row, Source, read_source
from genesis_lab.texts import same_words

OLD = "is training data in JSON or Markdown, which is not read here: rasa data convert nlu makes YAML of it"
Found = tuple[Row, str, str]
"""A row, and the level and text of a problem that it has."""
_OLD = re.compile(rb'"rasa_nlu_data"|^## (intent|synonym|regex|lookup):', re.M)


def examples_in(folder: Path | None) -> list[Row]:
    """All examples of a data folder or file; none of none."""
    return [row for source in (read_data(folder) if folder else ()) for row in source.examples]


def words_of(text: str) -> str:
    """What a text says, whatever its case, accents and signs; of nothing but signs (👍) those."""
    return same_words(text) or text.strip()


def read_data(folder: Path, base: Path | None = None) -> list[Source]:
    """The YAML files of a data folder, or the one file, named as from `base`.

    Test data (``test_*`` and ``tests/``) and old training data (JSON, Markdown) are named as problems and left out;
    hidden files are left out, as by Rasa.
    """
    if not folder.exists():
        raise InvalidInput(f"There is no {shown(folder)}: give the data folder of a bot, or one of its YAML files.")
    base = base or base_of(folder)
    if folder.is_file():
        if _is_old(folder):
            raise InvalidInput(f"{shown(folder)} {OLD}.")
        return [read_source(relpath(folder, base), text_of(folder))]
    sources = []
    for path in (path for path in sorted(folder.rglob("*")) if path.is_file()):
        inside, source = path.relative_to(folder).parts, Source(relpath(path, base), "")
        if any(part.startswith(".") for part in inside):
            continue
        if _is_old(path):
            source.error(0, OLD, "note")
        elif path.suffix not in (".yml", ".yaml"):
            continue
        elif inside[-1].startswith("test_") or "tests" in inside[:-1]:
            told = "is test data by its name: not read here, but Rasa trains on it if it lies in its data"
            source.error(0, told, "note")
        else:
            try:
                source = read_source(source.name, text_of(path))
            except InvalidInput as error:
                source.error(0, str(error).rstrip("."))
        sources.append(source)
    if not sources:
        raise InvalidInput(f"{shown(folder)} holds no .yml or .yaml file: give the data folder of a bot.")
    return sources


def _is_old(path: Path) -> bool:
    return path.suffix in (".json", ".md") and bool(_OLD.search(path.read_bytes()))


def read_bot(folder: Path) -> list[Source]:
    """`read_data`, and the bot's domain: the file or folder in `folder`, else the one beside it."""
    base = base_of(folder)
    homes = ([place / name for name in ("domain.yml", "domain.yaml", "domain")] for place in (base, base.parent))
    found = next((there for home in homes if (there := [path for path in home if path.exists()])), [])
    named = {one.name: one for path in found for one in read_data(path, base)}
    return list((named | {one.name: one for one in read_data(folder)}).values())


def base_of(folder: Path) -> Path:
    """The folder that the names of files are from: a data folder, or where the one file lies."""
    return folder if folder.is_dir() else folder.parent


def copied(data: Path, target: Path) -> Path:
    """A copy of what Rasa trains on in a data folder, or of the one file, in the folder `target`, which is replaced."""
    sources, ours = sound(data), target / ".copied"
    with placed(target, replace=True, ours=lambda _: ours.exists()) as folder:
        folder.mkdir()
        (folder / ours.name).write_text("a copy made by Genesis Lab: what is changed here is lost\n")
        for source in sources:
            (folder / source.name).parent.mkdir(parents=True, exist_ok=True)
            (folder / source.name).write_bytes(source.text.encode())
    return target


def sound(folder: Path) -> list[Source]:
    """`read_data` without test data; `InvalidInput` where Rasa would refuse a file."""
    sources = read_data(folder)
    for one in (one for source in sources for one in source.problems if one["level"] == "error"):
        raise InvalidInput(f"{one['file']}, line {one['line']}: {one['problem']} (see genesis review nlu check).")
    return [one for one in sources if one.text]


def text_of(path: Path) -> str:
    """A file as it is, no newline translated."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{shown(path)} is not UTF-8: Rasa can't read it either.") from None
    except OSError as error:
        raise InvalidInput(f"{shown(path)} can't be read: {error.strerror}.") from None


def check(folder: Path) -> list[Row]:
    """Every problem of a data folder: file, line, level (error: Rasa refuses or loses data; warning; note), problem."""
    sources = read_bot(folder)
    problems = [problem for source in sources for problem in source.problems]
    rows = [row for source in sources for row in source.rows]
    found = [*_twice(rows), *_unanswered(rows, {key for source in sources for key in source.blocks})]
    problems += [
        {"file": row["file"], "line": row["line"], "level": level, "problem": told} for row, level, told in found
    ]
    return sorted(problems, key=lambda row: (row["file"], row["line"]))


def _twice(rows: Sequence[Row]) -> Iterator[Found]:
    """Texts of several intents, synonyms of several values (an entity's own value makes one), what is there twice."""
    firsts: dict[tuple[str, ...], Row] = {}
    for row in rows:
        values = [one for one in row.get("entities", ()) if "value" in one]
        told = [{"text": row["text"][one["start"] : one["end"]], "name": str(one["value"])} for one in values]
        for one in [row, *({**row, "kind": "synonym"} | synonym for synonym in told)]:
            if not one["text"] or (first := firsts.setdefault(place_of(one), one)) is one:
                continue
            what = f"{one['text'][:60]!r} stands in {first['file']}:{first['line']} too"
            if one["name"] != first["name"]:
                names = [f"synonym of {n!r}" if one["kind"] == "synonym" else n for n in (first["name"], one["name"])]
                yield row, "error", f"{what}, as {names[0]}, here as {names[1]}"
            elif one is row:
                yield row, "warning", what


def _unanswered(rows: Sequence[Row], keys: set[str]) -> Iterator[Found]:
    """Intents that the domain does not name, retrieval intents without a response in it or the training data."""
    known = {(row["kind"], row["name"]) for row in rows}
    for name, row in {row["intent"]: row for row in reversed(rows) if row["kind"] == "intent"}.items():
        if "/" in name and ("response", f"utter_{name}") not in known:
            if keys & {"intents", "responses"}:
                yield row, "error", f"retrieval intent {name} has no response utter_{name} in the domain"
            else:
                yield row, "note", f"whether utter_{name} exists was not checked: there is no domain here"
        if "intents" in keys and (above := ("intents", name.split("/")[0])) not in known:
            yield row, "warning", f"intent {above[1]} is not in the domain"
            known.add(above)


def place_of(row: Row) -> tuple[str, ...]:
    """What only one row can be: a text of any intent, or of any synonym; else a text of that name."""
    return (row["kind"], row["text"], "" if row["kind"] in ("intent", "synonym") else row["name"])
