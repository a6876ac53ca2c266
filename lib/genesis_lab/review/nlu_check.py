"""What is wrong with a bot's training data, and the taxonomy for the generator that its intents and examples make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from genesis_lab.errors import InvalidInput
from genesis_lab.files import shown
from genesis_lab.review.nlu import Row, Source, place_of, read_bot, read_data, words_of


def check(folder: Path, domain: Path | None = None) -> pd.DataFrame:
    """Every problem of a data folder: file, line, level (error: Rasa refuses or loses data; warning; note), problem.

    `domain` is the bot's domain file or folder; without it the one in `folder` or beside it is looked for.
    """
    sources = read_data(folder)
    problems = [problem for source in sources for problem in source.problems]
    rows = [row for source in sources for row in source.rows]
    problems += [*_twice(rows), *_unanswered(rows, read_bot(folder, domain))]
    problems.sort(key=lambda row: (row["file"], row["line"]))
    return pd.DataFrame(problems, columns=["file", "line", "level", "problem"])


def taxonomy_from(bot: Path, language: str | None = None, title: str | None = None) -> dict[str, Any]:
    """A taxonomy of a bot's own intents and real examples, as ``load_taxonomy`` reads it; synthetic examples stay out.

    The form wants both languages. A bot speaks one (`language`, else what its config.yml says): its examples stand in for
    the other too, and ``source`` says so.
    """
    sources = read_data(bot)
    if language not in (None, "en", "es"):
        raise InvalidInput(f"The language of a taxonomy must be en or es, got {language!r}.")
    language = language or _language(sources)
    said: dict[str, dict[str, None]] = defaultdict(dict)
    category: dict[str, str] = {}
    left = 0
    for row in (row for source in sources for row in source.examples if row["run"] is None):
        above, nested, _ = (intent := row["intent"]).partition("/")
        category.setdefault(intent, above if nested else Path(row["file"]).stem)
        if any(sign in row["text"] for sign in "[]{}|") or not row["text"].strip():  # signs of the generator's patterns
            left += 1
        else:
            said[intent][row["text"]] = None
    intents = {name: list(texts) for name, texts in said.items()}
    if not intents:
        raise InvalidInput(f"{shown(bot)} holds no examples of intents: give the folder of a bot or its training data.")
    alike: dict[str, str] = {}
    for name in intents:
        if (other := alike.setdefault(words_of(name), name)) != name:
            raise InvalidInput(f"Intents {other!r} and {name!r} read alike: names must differ in words in a taxonomy.")
    other, used = "English" if language == "es" else "Spanish", {name.split("/")[0] for name in intents}
    named = (one["name"] for source in read_bot(bot) for one in source.rows if one["kind"] == "intents")
    bare = [name for name in dict.fromkeys(named) if name not in used]
    notes = f"{left:,} examples with brackets, braces or | were left out. " if left else ""
    notes += f"Intents of the domain without examples were left out: {', '.join(bare)}." if bare else ""
    entries = []
    for name, texts in intents.items():
        told = {"en": f"Says what the bot knows as {name}, for instance: {'; '.join(texts[:3])}",
                "es": f"Dice lo que el bot conoce como {name}, por ejemplo: {'; '.join(texts[:3])}"}  # fmt: skip
        both = {"en": texts, "es": texts}
        entries.append({"name": name, "category": category[name], "description": told, "examples": both})
    lacking = f"It has no {other} examples: its own stand in for them, so generate with language {language} alone."
    return {
        "name": bot.resolve().name.removesuffix(".yml"),
        "title": {"en": title or "a company with a chatbot", "es": title or "una empresa con un chatbot"},
        "source": f"The bot's own intents and examples. {lacking} {notes}".strip(),
        "intents": entries,
    }


def _problem(row: Row, level: str, problem: str) -> Row:
    return {"file": row["file"], "line": row["line"], "level": level, "problem": problem}


def _twice(rows: Sequence[Row]) -> list[Row]:
    """Texts of several intents, synonyms of several values (an entity's own value makes one), and what is there twice."""
    firsts: dict[tuple[str, ...], Row] = {}
    found = []
    for row in rows:
        values = [one for one in row.get("entities", ()) if "value" in one]
        told = [{"text": row["text"][one["start"] : one["end"]], "name": str(one["value"])} for one in values]
        for one in [row, *({**row, "kind": "synonym"} | synonym for synonym in told)]:
            if not one["text"] or (first := firsts.setdefault(place_of(one), one)) is one:
                continue
            what, level = f"{one['text'][:60]!r} stands in {first['file']}:{first['line']} too", "warning"
            if one["name"] != first["name"]:
                names = [f"synonym of {n!r}" if one["kind"] == "synonym" else n for n in (first["name"], one["name"])]
                what, level = f"{what}, as {names[0]}, here as {names[1]}", "error"
            if level == "error" or one is row:
                found.append(_problem(row, level, what))
    return found


def _unanswered(rows: Sequence[Row], bot: Sequence[Source]) -> list[Row]:
    """Intents that the domain does not name, retrieval intents without a response in it or the training data."""
    known = {(row["kind"], row["name"]) for source in bot for row in source.rows}
    keys, found = {key for source in bot for key in source.blocks}, []
    for name, row in {row["intent"]: row for row in reversed(rows) if row["kind"] == "intent"}.items():
        if "/" in name and ("response", f"utter_{name}") not in known:
            level, told = "error", f"retrieval intent {name} has no response utter_{name} in the domain"
            if not keys & {"intents", "responses"}:
                level, told = "note", f"whether utter_{name} exists was not checked: there is no domain here"
            found.append(_problem(row, level, told))
        if "intents" in keys and (above := ("intents", name.split("/")[0])) not in known:
            found.append(_problem(row, "warning", f"intent {above[1]} is not in the domain"))
            known.add(above)
    return found


def _language(sources: Sequence[Source]) -> str:
    """The first one that a config.yml says, else Spanish where its letters and signs occur in the examples."""
    told = [one.language[:2] for one in sources if one.language]
    if told[:1] in (["en"], ["es"]):
        return told[0]
    text = "".join(row["text"] for one in sources for row in one.examples).casefold()
    return "es" if any(letter in text for letter in "áéíóúñ¿¡") else "en"
