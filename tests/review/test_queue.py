"""The queue: what is settled stays out, likely errors come first, and what others do counts."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from genesis_lab.review import store as st
from genesis_lab.review import tables
from genesis_lab.review.ingest import ingest
from genesis_lab.review.labelling import decide
from genesis_lab.review.models import Predictor
from genesis_lab.review.queue import queue
from genesis_lab.settings import get_settings
from trackers import FIXTURE, annotate

REFERENCE = Path(os.environ.get("GENESIS_REFERENCE_DIR") or "none")
BOT = Path(__file__).resolve().parents[2] / "params" / "samples" / "bot" / "nlu.yml"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="GENESIS_REFERENCE_DIR is not set")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GENESIS_REVIEW_NAME", "ana")
    get_settings.cache_clear()
    return st.open_store(tmp_path / "review.sqlite")


def fill(store, rows, source="bot"):
    """Messages from (text, predicted intent, ranking or None)."""
    with store.begin() as connection:
        connection.execute(sa.insert(tables.sources).values(name=source, kind="chats", address="x", state={}))
        for number, (text, intent, ranking) in enumerate(rows):
            connection.execute(
                sa.insert(tables.messages).values(
                    key=f"m{number}",
                    source=source,
                    sender=f"s{number}",
                    session=f"s{number}",
                    position=0,
                    timestamp=float(number),
                    raw=json.dumps({"text": text}),
                    text=text,
                    lossy=False,
                    typed=True,
                    undone=False,
                    intent=intent,
                    confidence=ranking[0]["confidence"] if ranking else 0.9,
                    fallback=intent is None,
                    ranking=ranking,
                    entities=[],
                    actions=[],
                    events=[],
                    ingest=1,
                )
            )


def ranked(**chances):
    return [{"name": name, "confidence": p} for name, p in sorted(chances.items(), key=lambda one: -one[1])]


def asked(store, data=BOT, **options):
    return {item.text: item for item in queue(store, data, **options).items}


def test_a_text_in_the_training_data_as_predicted_is_settled_and_one_predicted_otherwise_comes_first(store, tmp_path):
    ingest(store, str(FIXTURE))
    found = queue(store, BOT)
    told = {row["what"]: row["messages"] for row in found.counts}
    texts = [item.text for item in found.items]
    assert told["in the training data as predicted"] + told["to look at"] == 18
    assert "hola" not in texts and "hola 😀" not in texts and "asdf" in texts
    moved = tmp_path / "nlu.yml"
    moved.write_text(
        BOT.read_text().replace("    - adiós\n", "", 1).replace("    - gracias\n", "    - gracias\n    - adiós\n", 1)
    )
    first = queue(store, moved).items[0]
    assert (first.text, first.reason) == ("adiós", "labelled agradecer, predicted despedir")


def test_the_same_text_is_asked_once_whatever_its_case_and_signs(store):
    fill(store, [("¿Me cobraron de más?", "a", None), ("me cobraron de mas", "a", None), ("otra cosa", "a", None)])
    assert {text: item.times for text, item in asked(store, None).items()} == {"me cobraron de mas": 2, "otra cosa": 1}


def test_fallbacks_come_before_small_margins_and_near_duplicates_stand_behind_one(store):
    fill(
        store,
        [
            ("quiero abrir una cuenta de ahorros nueva por favor", "abrir", ranked(abrir=0.98, cerrar=0.01)),
            ("quiero abrir una cuenta de ahorros nueva por favorcito", "abrir", ranked(abrir=0.97, cerrar=0.01)),
            ("no sé qué decir", "abrir", ranked(abrir=0.5, cerrar=0.4)),
            ("xyz", None, None),
        ],
    )
    items = queue(store, share_random=0.0).items
    assert [item.text for item in items][:2] == ["xyz", "no sé qué decir"]
    assert len(items) == 3 and [len(item.like) for item in items] == [0, 0, 1]


def test_a_newer_model_predicts_what_is_pending_anew(store):
    fill(store, [("hola", "despedir", ranked(despedir=0.9, saludar=0.1)), ("zzz", "despedir", None)])
    assert asked(store)["hola"].reason == "labelled saludar, predicted despedir"

    newer = Predictor(
        "newer", lambda rows, told: [{"intent": "saludar", "confidence": 0.9, "fallback": None} for _ in rows]
    )
    assert [(i.text, i.intent) for i in queue(store, BOT, predict=newer).items] == [("zzz", "saludar")]


def test_what_is_labelled_leaves_the_queue_and_a_rejected_label_comes_back_with_the_reason(store):
    fill(store, [("zzz", "saludar", None), ("yyy", "saludar", None)])
    row = annotate(store, "m0", "despedir")
    assert set(asked(store)) == {"yyy"}
    decide(store.by("luis"), row["id"], 1, "rejected", "it is nonsense")
    items = queue(store, BOT).items
    assert (items[0].text, items[0].reason) == ("zzz", "rejected: despedir by ana, it is nonsense")
    again = annotate(store, "m0", "saludar")
    assert set(asked(store)) == {"yyy"}
    decide(store.by("luis"), again["id"], 1, "approved")
    assert set(asked(store)) == {"yyy"}
    annotate(store, "m1", "saludar")
    annotate(store, "m1", None)
    assert set(asked(store)) == {"yyy"}, "what was taken back is asked again"


def test_a_share_of_texts_is_asked_of_several_people_and_their_labels_stay_hidden(store):
    fill(store, [(chr(97 + n) * 8, "saludar", None) for n in range(26)])
    for n in range(26):
        annotate(store, f"m{n}", "despedir", author="luis")
    assert asked(store, overlap=0.0) == {} and len(asked(store, overlap=1.0)) == 26
    some = asked(store, overlap=0.3)
    assert 0 < len(some) < 26 and some == asked(store, overlap=0.3)
    assert all("luis" not in item.reason and "despedir" not in item.reason for item in some.values())


def test_a_random_share_is_spread_over_the_queue(store):
    fill(
        store,
        [
            (chr(97 + n // 10) * 4 + chr(97 + n % 10) * 4, "saludar", ranked(saludar=0.5 + n / 200, despedir=0.1))
            for n in range(100)
        ],
    )
    reasons = [item.reason for item in queue(store, share_random=0.05).items]
    places = [i for i, reason in enumerate(reasons) if reason == "random share"]
    assert len(places) == 5 and places[0] < 30 and places[-1] > 60


@needs_reference
def test_of_a_real_bots_messages_few_are_left_to_look_at(store):
    ingest(store, str(REFERENCE / "rasa" / "rasa_tracker.sqlite"))
    found = queue(store, REFERENCE / "rasa" / "nlu.yml")
    assert sum(row["messages"] for row in found.counts) == 459
    assert sum(1 + len(item.like) for item in found.items) <= 25


@needs_reference
@pytest.mark.parametrize("seed", [0, 1])
def test_most_planted_label_errors_are_early_in_the_queue(store, tmp_path, seed):
    import numpy as np

    from genesis_lab.training.classifiers import build, fitted

    learned, typed = (pd.read_csv(REFERENCE / "banking77" / f"{name}.csv") for name in ("train_pool", "dev"))
    names = sorted(set(learned["category"]))
    lines = [
        f"- intent: {n}\n  examples: |\n" + "".join(f"    - {' '.join(t.split())}\n" for t in g["text"])
        for n, g in learned.groupby("category")
    ]
    (tmp_path / "nlu.yml").write_text('version: "3.1"\nnlu:\n' + "".join(lines).replace("[", "(").replace("]", ")"))
    rng = np.random.default_rng(seed)
    wrong = set(rng.choice(len(typed), round(0.05 * len(typed)), replace=False).tolist())
    bot = fitted(build("tfidf+logistic_regression", {}, 0), learned["text"].tolist(), learned["category"].to_numpy())
    rows = []
    for number, (text, right, chances) in enumerate(
        zip(typed["text"], typed["category"], bot.predict_proba(typed["text"]), strict=True)
    ):
        said = str(rng.choice([name for name in names if name != right])) if number in wrong else right
        first, second = sorted(map(float, chances), reverse=True)[:2]  # as sure of an error as of anything
        rows.append((text, said, [{"name": said, "confidence": first}, {"name": "other", "confidence": second}]))
    fill(store, rows)
    order = [item for item in queue(store, tmp_path / "nlu.yml").items if item.reason != "random share"]
    planted = {rows[number][0] for number in wrong}
    early = {one.text for item in order[: round(0.15 * len(order))] for one in (item, *item.like)}
    print(f"{len(planted & early)} of {len(planted)} planted errors in {round(0.15 * len(order))} of {len(order)}")
    assert len(planted & early) / len(planted & {one.text for item in order for one in (item, *item.like)}) >= 0.8
    assert Counter(item.message for item in order).most_common(1)[0][1] == 1


def test_on_postgresql_labels_that_the_database_hides_still_take_their_texts_out(new_database):
    psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed")
    where = new_database()
    st.init_db(f"postgresql://postgres@{where}")
    owner = st.open_store(f"postgresql://postgres@{where}")
    with psycopg.connect(f"postgresql://postgres@{where}", autocommit=True) as server:
        for person in ("queue_ana", "queue_eva"):
            server.execute(f"CREATE ROLE {person} LOGIN")
            st.grant(owner, person, "qa_analyst")
    fill(owner, [("zzz", "saludar", None), ("yyy", "saludar", None)])
    ana, eva = (st.open_store(f"postgresql://queue_{who}@{where}") for who in ("ana", "eva"))
    annotate(eva, "m0", "despedir")
    assert st.records(ana, sa.select(tables.labels)) == []
    assert set(asked(ana, overlap=0.0)) == {"yyy"} and set(asked(ana, overlap=1.0)) == {"yyy", "zzz"}
    annotate(eva, "m0", None)
    assert set(asked(ana, overlap=0.0)) == {"yyy", "zzz"}
