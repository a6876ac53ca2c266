"""Closing the loop: what people have approved, where a bot's training data fall short of it, and how that is mended.

Approved messages, some of them held out, become data for the other notebooks; what is missing is planned, generated,
approved by a policy and added.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from genesis_lab.dataset import Dataset, assign_splits
from genesis_lab.dataset.columns import safe_cell
from genesis_lab.dataset.curation import keep_decisions, standing
from genesis_lab.dataset.folder import labelled
from genesis_lab.dataset.importing import import_dataset
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path, findable, output_root, shown, write_atomically
from genesis_lab.review.labelling import annotate_all, decide, read_examples
from genesis_lab.review.nlu import examples_in, read_bot, read_data, sound, words_of
from genesis_lab.review.nlu_file import Row, Source
from genesis_lab.review.nlu_merge import Merge, plan_merge, write
from genesis_lab.review.numbers import rate
from genesis_lab.review.queue import Item
from genesis_lab.review.store import Store
from genesis_lab.review.tables import labels, messages
from genesis_lab.yamls import dump_yaml, shipped

POLICY = "policy: passed the checks"
"""Who approves examples where nobody is asked."""
_BEGINS, _ENDS = re.compile(r"(?<!\w)"), re.compile(r"(?!\w)")


def real_messages(store: Store) -> pd.DataFrame:
    """Every distinct text that was typed, the first one first; what can't be displayed as it is stays out.

    ``key`` of the newest that says it, ``messages`` (how often), ``first`` (seconds since 1970), what the bot took it
    for (``said``, the real prediction); ``intents`` is how many were approved, or given in interactive learning: with
    one it is the ``intent``, with its ``entities``.
    """
    m, given = messages.c, labels.c
    approved = (given.message == m.key) & (given.status == "approved") & (given.intent != "")
    query = (
        sa.select(m.key, m.text, m.intent.label("said"), m.timestamp, m.gold, m.gold_entities)
        .add_columns(given.intent, given.entities)
        .select_from(messages.outerjoin(labels, approved))
        .where(m.typed, ~m.lossy, m.text != "")
        .order_by(m.timestamp, m.key)
    )
    with store.begin() as connection:
        rows = pd.read_sql(query, connection)
    rows["entities"] = rows["entities"].where(rows["intent"].notna(), rows["gold_entities"])
    rows["intent"] = rows["intent"].fillna(rows["gold"])
    found = rows.groupby("text", sort=False).agg(
        key=("key", "last"),
        messages=("said", "size"),
        first=("timestamp", "first"),
        said=("said", "first"),
        intents=("intent", "nunique"),
        intent=("intent", "first"),
        entities=("entities", "first"),
    )
    found["intent"] = found["intent"].where(found["intents"] == 1)
    return found.reset_index()


def take_labels(store: Store, path: Path) -> int:
    """Labels of a file (`read_examples`), of texts that have none, taken and recorded as approved; how many there were.

    In a team's store two people are needed for that: `InvalidInput` says how.
    """
    if store.enforced:
        how = "save them with genesis review annotate, and another person approves them"
        raise InvalidInput(f"In {store.address} a label takes two people: {how} (genesis review decide, notebook 61).")
    keys = {row.text: row.key for row in real_messages(store).itertuples() if not row.intents}
    said = [{**one, "message": keys[one["text"]]} for one in read_examples(path) if one["text"] in keys]
    for row in annotate_all(store.by("labels file"), said):
        decide(store.by("policy: labels given as approved"), row["id"], row["version"], "approved")
    return len(said)


def divided(
    real: pd.DataFrame, data: Path, *, hold: float = 0.5, since: datetime | None = None, seed: int = 0
) -> tuple[pd.DataFrame, list[str]]:
    """The messages of `real` with an intent, ``known`` and ``held``; and what is to be said of how they were divided.

    A ``known`` one says the words of an example of the bot's training `data`: to be tested on it would prove nothing.
    Of the others those first said `since` then are held out, else the share `hold`, intent by intent. Texts that say
    the same words are never on both sides; an intent that neither the data nor a second wording teaches is not held
    out.
    """
    examples = examples_in(data)
    taught, words = {row["intent"] for row in examples}, {words_of(row["text"]) for row in examples}
    rows = real[real["intents"] == 1].reset_index(drop=True)
    if rows.empty:
        raise InvalidInput("No real message has an approved intent: annotate and approve some (notebook 61).")
    group = rows["text"].map(words_of)
    rows["known"], rows["held"] = group.isin(words), False
    alone = (group.groupby(rows["intent"]).transform("nunique") < 2) & ~rows["intent"].isin(taught)
    free = ~rows["known"] & ~alone
    if since is not None:
        rows["held"] = free & (rows["first"].groupby(group).transform("min") >= since.timestamp())
    else:
        labels_, rng = rows["intent"][free].tolist(), np.random.default_rng(seed)
        shares = {"taught": 1 - hold, "held": hold}
        rows.loc[free, "held"] = assign_splits(group[free].tolist(), shares, labels=labels_, rng=rng) == 1
    how = f"first said from {since:%Y-%m-%d %H:%M} on" if since else f"{hold:.0%} of those left, intent by intent"
    return rows, [
        f"{len(rows):,} distinct texts have an approved intent (said {rows['messages'].sum():,} times); "
        f"{(real['intents'] > 1).sum():,} with two intents were left out.",
        f"{rows['known'].sum():,} stand in the training data: nothing is tested on them.",
        f"{rows['held'].sum():,} are held out: {how}. "
        f"{(alone & ~rows['known']).sum():,} are not, as nothing else teaches their intent.",
    ]


def write_approved(rows: pd.DataFrame, name: str, data: Path, *, language: str) -> Dataset:
    """`divided` messages as the dataset `name` (utterances, splits train and test) and as a reference of the same name.

    Each text is there once. Of the reference, for notebooks 20 and 40, those held out are ``test.csv``; ``train.csv``
    is all that the bot could learn from: its own examples and the other messages.
    """
    folder = output_root() / "reference" / name
    if dataset_path(name).exists() and not (folder / "approved.csv").is_file():
        raise InvalidInput(f"Dataset {name!r} is not made of approved messages: choose another name.")
    own = [row for row in examples_in(data) if row["run"] is None and row["text"]]
    known = pd.concat([pd.DataFrame(own, columns=["text", "intent"]), rows[~rows["held"]]])[["text", "intent"]]
    split = np.where(rows["held"], "test", "train")
    tables = {"approved": rows[["text", "intent"]].assign(language=language, split=split)}
    tables |= {"test": tables["approved"][rows["held"]], "train": known.drop_duplicates()}
    for file, table in tables.items():
        text = table.rename(columns={"intent": "label"}).map(safe_cell).to_csv(index=False)
        write_atomically(folder / f"{file}.csv", text)
    write_atomically(folder / "reference.yaml", dump_yaml({"language": language, "kind": "real"}))
    return import_dataset(folder / "approved.csv", name, language=language, replace=True)[0]


def gaps(
    data: Path, taught: pd.DataFrame, *, examples: int = 0, failing: Iterable[Row] = (), pending: Iterable[Item] = ()
) -> dict[str, Any]:
    """Intents with few, confused or failing examples, and what people say that no example covers.

    Parameters
    ----------
    data : the bot's training data, with the approved messages in them.
    taught : the real messages with an intent that are not held out (`divided`).
    examples : that an intent should have at least (0: ``gaps.yaml``).
    failing : what a regression test got wrong: the rows ``wrong`` of its report. pending : the items of `queue.queue`.

    Returns
    -------
    ``intents`` with examples and the share of real texts missed; ``findings``: what is wrong with an intent, why, the
    real messages that show it, and how many examples to write (None: first a person has to say what it is); ``cells``
    for the plan.
    """
    limits = dict(shipped(Path(__file__).with_name("gaps.yaml")))
    wanted, side = examples or int(limits["examples"]), int(limits["a_side"])
    own = {(row["intent"], words_of(row["text"])) for row in examples_in(data)}
    seen: list[Row] = [*taught.to_dict("records"), *({**row, "said": row["understood"]} for row in failing)]
    of, deployed = Counter(intent for intent, _ in own), {row["said"] for row in seen}
    mixed: dict[tuple[str, str], dict[str, str]] = {}
    intents, findings, cells, asked = list[Row](), list[Row](), list[Row](), Counter[str]()
    for row in seen:
        if row["said"] != row["intent"] and row["said"] in of and row["intent"] in deployed:
            mixed.setdefault((row["intent"], row["said"]), {})[row["text"]] = row["intent"]
    for (intent, said), texts in sorted(mixed.items(), key=lambda one: (-len(one[1]), one[0])):
        some = dict(list(texts.items())[: limits["shown"]])
        cells += [{"n": side, "intent": intent, "against": said, "mixed": some}]
        cells += [{"n": side, "intent": said, "against": intent, "mixed": some}]
        asked.update({intent: side, said: side})
        why = f"taken for {said}, in real texts: {len(texts)}; {side} of each are to tell them apart"
        findings.append({"finding": "confused", "intent": intent, "n": 2 * side, "why": why, "real": list(some)})
    for intent in sorted({*of, *(row["intent"] for row in seen)}):
        mine = [row for row in seen if row["intent"] == intent]
        missed, n, lacking = sum(row["said"] != intent for row in mine), len(mine), wanted - of[intent] - asked[intent]
        intents.append({"intent": intent, "examples": of[intent], "texts": n, "missed": rate(missed, n)})
        if of[intent] < wanted:
            why = f"examples: {of[intent]} of {wanted}"
            why += "" if intent in deployed or not mine else "; the bot understood none of its messages"
            real = [row["text"] for row in mine][: limits["shown"]]
            findings.append({"finding": "few", "intent": intent, "n": max(lacking, 0), "why": why, "real": real})
        cells += [{"n": lacking, "intent": intent}] if lacking > 0 else []
    for item in pending:
        if item.reason == "fallback" or not item.ranking or item.ranking[0]["confidence"] < limits["confidence"]:
            alike = [item, *item.like]
            why = f"messages: {sum(one.times for one in alike):,}, of which the bot was not sure"
            why += ": a person has to say what they are"
            real = [one.text for one in alike]
            findings.append({"finding": "not covered", "intent": None, "n": None, "why": why, "real": real})
    return {"examples": wanted, "intents": intents, "findings": findings, "cells": cells}


def write_plan(
    report: Row, data: Path, taught: pd.DataFrame, path: Path, *, language: str | None = None, **options: Any
) -> dict[str, Any]:
    """Write what `gaps` asks for as a params file, which ``genesis run`` and papermill run as it is; its parameters.

    Beside it stand the taxonomy, of the intents and examples of `data`, and the `taught` messages as seeds.
    """
    speaks = language or _language(read_data(data))
    taxonomy = taxonomy_from(data, speaks)
    files = {name: path.with_name(f"{path.stem}_{name}") for name in ("taxonomy.yaml", "seeds.jsonl")}
    write_atomically(files["taxonomy.yaml"], dump_yaml(taxonomy))
    known = {one["name"] for one in taxonomy["intents"]}
    seeds = taught[taught["intent"].isin(known)].rename(columns={"intent": "label"}).assign(language=speaks)
    rows = seeds[["text", "label", "language"]].to_json(orient="records", lines=True, force_ascii=False)
    write_atomically(files["seeds.jsonl"], rows)
    cells = [cell | {"language": speaks} for cell in report["cells"] if cell["intent"] in known]
    plan: Row = {"records": "utterances", "taxonomy": findable(files["taxonomy.yaml"])}
    plan |= {name: findable(files["seeds.jsonl"]) for name in ("seeds", "like")} | options | {"cells": cells}
    about = f"{sum(cell['n'] for cell in cells):,} examples that the gap report asks for"
    write_atomically(path, dump_yaml({"name": path.stem, "description": about, "stages": [10], **plan}))
    return plan


def approve(dataset: Dataset, quality: Row, held: Iterable[str]) -> dict[str, Any]:
    """Decide on every record: kept unless a check of the quality report names it or it says what is `held` out.

    The decisions stand with the dataset as a person's would, by the name of the policy. Returns it, how many are
    ``kept``, how many are ``dropped`` for which reason, and the report's verdict of all (``quality``).
    """
    why, tested = dict[int, str](), set(map(words_of, held))
    unsure = {gate["name"] for gate in quality["gates"] if gate["outcome"] == "not measured"}  # blames no single record
    for part in (part for score in ("completeness", "consistency", "diversity") for part in quality[score]["parts"]):
        if (name := part["name"].replace("_", " ")) not in unsure:
            why |= {one["row"]: f"{name}: {one['reason']}" for one in part.get("offences") or ()}
    for row, text in enumerate(labelled(dataset)["text"]):
        if words_of(text) in tested:
            why[row] = "says what a message held out says"
    said = {"value": None, "by": POLICY, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    actions = (("drop", why[row]) if row in why else ("keep", "") for row in range(dataset.total))
    decisions = [{"row": row, "action": action, "why": told, **said} for row, (action, told) in enumerate(actions)]
    keep_decisions(dataset, decisions)
    reasons = Counter(reason.partition(":")[0] for reason in why.values())
    counts = {"kept": dataset.total - len(why), "quality": quality["verdict"]}
    return {"policy": POLICY, **counts, "dropped": dict(reasons.most_common())}


def add_synthetic(data: Path, dataset: Dataset) -> Merge:
    """Add the records that were decided to be kept to ``genesis_synthetic.yml`` of the data folder, entities marked.

    A word or number is an entity where an example of the same intent has that very text as one, or the bot's regex of
    that entity's name finds it: an example without its entities would teach that there are none.
    """
    kept = sorted(row for row, one in standing(dataset).items() if one["verdict"] == "keep")
    if not kept:
        raise InvalidInput(f"No record of {dataset.name} was approved: there is nothing to add to {shown(data)}.")
    known, regexes = dict[str, dict[str, Row]](), dict[str, str]()
    for source in sound(data):
        for example in source.examples:
            of = known.setdefault(example["intent"], {})
            of |= {example["text"][one["start"] : one["end"]]: one for one in example["entities"]}
        regexes |= {row["name"]: row["text"] for row in source.rows if row["kind"] == "regex"}
    examples = [
        {"intent": row.label, "text": row.text, "entities": _marked(row.text, known.get(row.label, {}), regexes)}
        for row in labelled(dataset).iloc[kept].itertuples()
    ]
    merge = plan_merge(data, examples, run=dataset.name)
    write(merge, POLICY)
    return merge


def _marked(text: str, known: dict[str, Row], regexes: dict[str, str]) -> list[Row]:
    """The entities in a text, the longest first where they overlap."""
    names = {one["entity"] for one in known.values()}
    patterns = [(re.escape(said), one) for said, one in known.items()]
    patterns += [(regex, {"entity": name}) for name, regex in regexes.items() if name in names]
    found = [
        ({k: v for k, v in one.items() if k not in ("start", "end")}, *match.span())
        for pattern, one in patterns
        for match in re.finditer(pattern, text, re.IGNORECASE)
        if match[0] and _BEGINS.match(text, match.start()) and _ENDS.match(text, match.end())
    ]
    marked: list[Row] = []
    for one, start, end in sorted(found, key=lambda each: each[1] - each[2]):
        if all(end <= other["start"] or start >= other["end"] for other in marked):
            marked.append({**one, "start": start, "end": end})
    return sorted(marked, key=lambda one: one["start"])


def taxonomy_from(bot: Path, language: str | None = None) -> dict[str, Any]:
    """A taxonomy of a bot's own intents and real examples, as ``load_taxonomy`` reads it; synthetic examples stay out.

    The form wants both languages. A bot speaks one (`language`, else what its config.yml says): its examples stand in
    for the other too, and ``source`` says so.
    """
    sources = read_bot(bot)
    if language not in (None, "en", "es"):
        raise InvalidInput(f"The language of a taxonomy must be en or es, got {language!r}.")
    language = language or _language(sources)
    examples: dict[str, dict[str, None]] = defaultdict(dict)
    category: dict[str, str] = {}
    left = 0
    for row in (row for source in sources for row in source.examples if row["run"] is None):
        above, nested, _ = (intent := row["intent"]).partition("/")
        category.setdefault(intent, above if nested else Path(row["file"]).stem)
        if any(sign in row["text"] for sign in "[]{}|") or not row["text"].strip():  # signs of the generator's patterns
            left += 1
        else:
            examples[intent][row["text"]] = None
    if not examples:
        raise InvalidInput(f"{shown(bot)} holds no examples of intents: give the folder of a bot or its training data.")
    alike: dict[str, str] = {}
    for name in examples:
        if (other := alike.setdefault(words_of(name), name)) != name:
            raise InvalidInput(f"Intents {other!r} and {name!r} read alike: names must differ in words in a taxonomy.")
    used = {name.split("/")[0] for name in examples}
    named = dict.fromkeys(one["name"] for source in sources for one in source.rows if one["kind"] == "intents")
    bare = [name for name in named if name not in used]
    other = "English" if language == "es" else "Spanish"
    about = "The bot's own intents and examples. "
    about += f"It has no {other} examples: its own stand in for them, so generate with language {language} alone. "
    about += f"{left:,} examples with brackets, braces or | were left out. " if left else ""
    about += f"Intents of the domain without examples were left out: {', '.join(bare)}." if bare else ""
    entries = []
    for name, texts in ((name, list(texts)) for name, texts in examples.items()):
        some = "; ".join(texts[:3])
        told = {
            "en": f"Says what the bot knows as {name}, for instance: {some}",
            "es": f"Dice lo que el bot conoce como {name}, por ejemplo: {some}",
        }
        both = {"en": texts, "es": texts}
        entries.append({"name": name, "category": category[name], "description": told, "examples": both})
    return {
        "name": bot.resolve().name.removesuffix(".yml"),
        "title": {"en": "a company with a chatbot", "es": "una empresa con un chatbot"},
        "source": about.strip(),
        "intents": entries,
    }


def _language(sources: Sequence[Source]) -> str:
    """The first one that a config.yml says, else Spanish where its letters and signs occur in the examples."""
    told = [one.language[:2] for one in sources if one.language]
    if told[:1] in (["en"], ["es"]):
        return told[0]
    text = "".join(row["text"] for one in sources for row in one.examples).casefold()
    return "es" if any(letter in text for letter in "áéíóúñ¿¡") else "en"
