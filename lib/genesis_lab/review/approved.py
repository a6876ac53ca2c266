"""What people have approved: real messages with their intents, some held out, as data for the other notebooks."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import sqlalchemy as sa

from genesis_lab.dataset import Dataset, assign_splits
from genesis_lab.dataset.columns import safe_cell
from genesis_lab.dataset.importing import import_dataset
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path, output_root, write_atomically
from genesis_lab.review.label_files import read_examples
from genesis_lab.review.labelling import annotate_all, decide
from genesis_lab.review.nlu import examples_in, words_of
from genesis_lab.review.store import Store
from genesis_lab.review.tables import labels, messages
from genesis_lab.yamls import dump_yaml


def real_messages(store: Store) -> pd.DataFrame:
    """Every distinct text that was typed, the first one first; what can't be displayed as it is stays out.

    ``key`` of the newest that says it, ``messages`` (how often), ``first`` (seconds since 1970), what the bot took it
    for (``said``, the real prediction, with its mean ``confidence`` and ``fallback``); ``intents`` is how many were
    approved, or given in interactive learning: with one it is the ``intent``, with its ``entities``.
    """
    m, given = messages.c, labels.c
    approved = (given.message == m.key) & (given.status == "approved") & (given.intent != "")
    query = (
        sa.select(m.key, m.text, m.intent.label("said"), m.confidence, m.fallback, m.timestamp, m.gold, m.gold_entities)
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
        confidence=("confidence", "mean"),
        fallback=("fallback", "any"),
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
