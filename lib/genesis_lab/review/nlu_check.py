"""What is wrong with a bot's training data, and the taxonomy for the generator that its intents and examples make."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from genesis_lab.errors import InvalidInput
from genesis_lab.files import shown
from genesis_lab.review.nlu import Row, Source, read_data, words_of


def check(folder: Path, domain: Path | None = None) -> pd.DataFrame:
    """Every problem of a data folder: file, line, level (error: Rasa refuses or loses data; warning; note), problem.

    `domain` is the bot's domain file or folder; without it the one in `folder` or beside it is looked for.
    """
    sources = read_data(folder)
    problems = [problem for source in sources for problem in source.problems]
    examples = [row for source in sources for row in source.examples]
    terms = [row for source in sources for row in source.terms]
    bot = _domain(sources, folder, domain)
    problems += [*_twice(examples), *_synonyms(examples, terms), *_responses(examples, bot), *_unknown(examples, bot)]
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
    bare = [name for name in dict.fromkeys(_named(_domain(sources, bot, None))) if name not in used]
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


def _twice(examples: Sequence[Row]) -> list[Row]:
    """Texts that stand under several intents, and those that an intent has twice."""
    firsts: dict[str, Row] = {}
    found = []
    for row in filter(itemgetter("text"), examples):
        if (first := firsts.setdefault(row["text"], row)) is not row:
            what, level = f"{row['text'][:60]!r} stands in {first['file']}:{first['line']} too", "warning"
            if row["intent"] != first["intent"]:
                what, level = f"{what}, as {first['intent']}, here as {row['intent']}", "error"
            found.append(_problem(row, level, what))
    return found


def _synonyms(examples: Sequence[Row], terms: Sequence[Row]) -> list[Row]:
    """Texts that are synonyms of two values; those of a value of their own in an example count too."""
    given = [(row, row["text"], row["name"]) for row in terms if row["kind"] == "synonym"]
    for row in examples:
        given += [(row, row["text"][e["start"] : e["end"]], str(e["value"])) for e in row["entities"] if "value" in e]
    first: dict[str, tuple[str, Row]] = {}
    found = []
    for row, text, value in given:
        other, where = first.setdefault(text, (value, row))
        if other != value:
            what = f"{text!r} is a synonym of {value!r} here and of {other!r} in {where['file']}:{where['line']}"
            found.append(_problem(row, "error", what))
    return found


def _responses(examples: Sequence[Row], domain: Sequence[Source]) -> list[Row]:
    """Retrieval intents without a response in the domain or the training data."""
    retrieval = {f"utter_{row['intent']}": row for row in reversed(examples) if "/" in row["intent"]}
    known = {name for one in domain if isinstance(held := one.keys.get("responses"), dict) for name in held}
    level, why = "error", "retrieval intent {0[intent]} has no response {1} in the domain"
    if not any({"intents", "responses"} & set(one.keys) for one in domain):
        level, why = "note", "whether {1} exists was not checked: there is no domain here"
        known = set()
    return [_problem(row, level, why.format(row, name)) for name, row in retrieval.items() if name not in known]


def _unknown(examples: Sequence[Row], domain: Sequence[Source]) -> list[Row]:
    """Intents with examples that the domain does not name; none where there is no domain."""
    named = {name.split("/")[0] for name in _named(domain)}
    first = {row["intent"].split("/")[0]: row for row in reversed(examples)}
    unknown = first.keys() - named if named else ()
    return [_problem(first[name], "warning", f"intent {name} is not in the domain") for name in unknown]


def _named(domain: Sequence[Source]) -> list[str]:
    """The intents that the domain names."""
    return [name for one in domain if isinstance(held := one.keys.get("intents"), list) for name in held]


def _domain(sources: Sequence[Source], folder: Path, domain: Path | None) -> list[Source]:
    """The files that hold the bot's domain, with those of the training data, which may hold responses."""
    if domain is not None:
        return [*sources, *read_data(domain)]
    base = folder if folder.is_dir() else folder.parent
    beside = [place / name for place in (base, base.parent) for name in ("domain.yml", "domain.yaml", "domain")]
    return [*sources, *(one for path in beside if path.exists() for one in read_data(path))]


def _language(sources: Sequence[Source]) -> str:
    """The first one that a config.yml says, else Spanish where its letters and signs occur in the examples."""
    told = [str(one.keys["language"])[:2] for one in sources if "language" in one.keys]
    if told[:1] in (["en"], ["es"]):
        return told[0]
    text = "".join(row["text"] for one in sources for row in one.examples).casefold()
    return "es" if any(letter in text for letter in "áéíóúñ¿¡") else "en"
