"""From what people approved to examples in the bot's training data: divided, compared, planned, approved."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

import trackers
from genesis_lab.dataset import open_dataset
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for, generate
from genesis_lab.pipeline import load_pipeline
from genesis_lab.review.ingest import ingest
from genesis_lab.review.labelling import decide
from genesis_lab.review.loop import (
    POLICY,
    add_synthetic,
    approve,
    divided,
    gaps,
    real_messages,
    take_labels,
    write_approved,
    write_plan,
)
from genesis_lab.review.nlu import copied, read_data
from genesis_lab.review.queue import Item
from genesis_lab.review.store import Store, open_store, records
from genesis_lab.review.tables import messages
from genesis_lab.validation.quality import validate
from genesis_lab.validation.reference import for_worth
from trackers import annotate, user

NLU = """version: "3.1"
nlu:
- intent: saludar
  examples: |
    - hola
    - buenas tardes
- intent: transferir
  examples: |
    - pasar [Q20](monto) a [Luis](persona)
    - envía [Q75](monto)
- regex: monto
  examples: |
    - (?i)q\\d+
"""


@pytest.fixture
def bot(tmp_path: Path) -> Path:
    folder = tmp_path / "bot"
    folder.mkdir()
    (folder / "nlu.yml").write_text(NLU)
    (folder / "models.tar.gz").write_bytes(b"large")
    return folder


SAID = {
    "hola": ("saludar", "saludar"), "¡Hola!": ("saludar", "saludar"), "hola amigo": ("saludar", "saludar"),
    "qué tal": ("transferir", "saludar"), "manda Q9 a Luis": ("transferir", "transferir"),
    "bloquear tarjeta": ("saludar", "bloquear"), "páseme Q5": ("saludar", "transferir"), "nadie sabe": ("saludar", None),
}  # fmt: skip
"""Text to what the bot took it for and what people approved."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path / "review.sqlite")
    events = [("a", user(text, said, 0.4 if text == "nadie sabe" else 0.9)) for text, (said, _) in SAID.items()]
    trackers.tracker(tmp_path / "tracker.db", [*events, ("b", user("hola amigo"))]).close()
    ingest(made, str(tmp_path / "tracker.db"))
    for text, (_, intent) in SAID.items():
        if intent:
            label(made, text, intent)
    return made


def test_labels_of_a_file_are_taken_once_and_recorded_as_a_policys(store: Store, bot: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("text,intent\nnadie sabe,fuera\nhola,transferir\nnever said,fuera\n")
    assert [take_labels(store, tmp_path / "labels.csv") for _ in range(2)] == [1, 0]
    real = real_messages(store).set_index("text")
    assert real.loc["nadie sabe", "intent"] == "fuera" and real.loc["hola", "intent"] == "saludar"
    assert records(store, "SELECT decided_by FROM annotations ORDER BY id DESC")[0]["decided_by"].startswith("policy")


def label(store: Store, text: str, intent: str) -> None:
    key = records(store, sa.select(messages.c.key).where(messages.c.text == text))[0]["key"]
    row = annotate(store, key, intent, author="ana")
    decide(store.by("luis"), row["id"], row["version"], "approved")


def test_each_text_is_there_once_with_how_often_it_was_said(store: Store) -> None:
    real = real_messages(store).set_index("text")
    assert real.loc["hola amigo", "messages"] == 2 and len(real) == len(SAID)
    assert real.loc["qué tal", ["said", "intent"]].tolist() == ["transferir", "saludar"]


def test_a_text_that_two_people_label_differently_is_left_out_and_counted(store: Store, bot: Path) -> None:
    label(store, "qué tal", "transferir")
    rows, notes = divided(real_messages(store), bot)
    assert "qué tal" not in set(rows["text"]) and "1 with two intents were left out" in notes[0]


def test_a_pending_label_is_no_label(store: Store, bot: Path) -> None:
    key = records(store, sa.select(messages.c.key).where(messages.c.text == "nadie sabe"))[0]["key"]
    annotate(store, key, "saludar", author="ana")
    assert "nadie sabe" not in set(divided(real_messages(store), bot)[0]["text"])


def test_what_the_training_data_say_in_other_letters_is_never_held_out(store: Store, bot: Path) -> None:
    rows = divided(real_messages(store), bot, hold=0.6)[0].set_index("text")
    assert rows.loc["¡Hola!", "known"] and not rows.loc[["hola", "¡Hola!", "bloquear tarjeta"], "held"].any()
    assert rows["held"].any() and not (rows["held"] & rows["known"]).any()


def test_a_sign_without_words_that_the_training_data_teach_is_never_held_out(tmp_path: Path, bot: Path) -> None:
    made = open_store(tmp_path / "signs.sqlite")
    said = {"👍": "afirmar", "👎": "negar", "no": "negar", "nunca": "negar", "si": "afirmar", "claro": "afirmar"}
    trackers.tracker(tmp_path / "signs.db", [("a", user(text, intent, 0.9)) for text, intent in said.items()]).close()
    ingest(made, str(tmp_path / "signs.db"))
    for text, intent in said.items():
        label(made, text, intent)
    with (bot / "nlu.yml").open("a") as file:
        file.write("- intent: afirmar\n  examples: |\n    - 👍\n    - 🙂\n")
    rows = divided(real_messages(made), bot, hold=0.5)[0].set_index("text")
    assert rows.loc["👍", "known"] and not rows.loc["👍", "held"] and not rows.loc["👎", "known"]
    report = gaps(bot, rows.reset_index(), examples=2)
    assert {row["intent"]: row["examples"] for row in report["intents"]}["afirmar"] == 2


def test_by_time_what_is_said_again_later_stays_with_its_first_time(store: Store, bot: Path) -> None:
    first = real_messages(store).set_index("text")["first"]
    since = datetime.fromtimestamp(first["manda Q9 a Luis"], UTC)
    rows, notes = divided(real_messages(store), bot, since=since)
    assert set(rows["text"][rows["held"]]) == {"manda Q9 a Luis", "páseme Q5"} and "first said from" in notes[2]


def test_a_store_without_approved_labels_says_what_to_do(tmp_path: Path, bot: Path) -> None:
    trackers.tracker(tmp_path / "t.db", [("a", user("hola"))]).close()
    ingest(empty := open_store(tmp_path / "empty.sqlite"), str(tmp_path / "t.db"))
    with pytest.raises(InvalidInput, match="annotate and approve"):
        divided(real_messages(empty), bot)


def test_approved_messages_are_a_dataset_and_a_reference_for_the_other_notebooks(store: Store, bot: Path) -> None:
    rows = divided(real_messages(store), bot)[0]
    made = write_approved(rows, "real", bot, language="es")
    items, pool = for_worth("real")
    assert made.counts == {"train": (~rows["held"]).sum(), "test": rows["held"].sum()}
    assert (
        items
        and pool
        and set(items.texts) == set(rows["text"][rows["held"]])
        and not set(items.texts) & set(pool.texts)
    )
    assert items.language == "es" and "envía Q75" in pool.texts
    assert write_approved(rows, "real", bot, language="es").content_hash == made.content_hash


def test_a_dataset_of_that_name_that_was_generated_is_left_alone(store: Store, bot: Path) -> None:
    generate(config_for()(dataset="mine", total=10, records="utterances"))
    with pytest.raises(InvalidInput, match="not made of approved messages"):
        write_approved(divided(real_messages(store), bot)[0], "mine", bot, language="es")


def found(store: Store, bot: Path) -> tuple[dict[str, object], pd.DataFrame]:
    rows = divided(real_messages(store), bot)[0].assign(held=False)
    items = [
        Item(
            message="k",
            times=1,
            reason="fallback",
            text="nadie sabe",
            intent=None,
            confidence=0.4,
            ranking=None,
            entities=None,
        )
    ]
    return gaps(bot, rows, examples=5, pending=items), rows


def test_gaps_name_what_is_mixed_up_what_has_few_examples_and_what_nobody_covers(store: Store, bot: Path) -> None:
    report, _ = found(store, bot)
    findings = {(row["finding"], row["intent"]): row for row in report["findings"]}
    assert findings["confused", "saludar"]["real"] == ["qué tal"]
    assert findings["few", "bloquear"]["n"] == 5 and "understood none" in findings["few", "bloquear"]["why"]
    assert findings["not covered", None]["real"] == ["nadie sabe"] and findings["not covered", None]["n"] is None
    missed = {row["intent"]: row["missed"] for row in report["intents"]}
    assert missed["saludar"]["n"] == 4 and missed["saludar"]["estimate"] == 0.25 and missed["saludar"]["low"] > 0


def test_what_a_regression_test_got_wrong_is_asked_for_as_well(store: Store, bot: Path) -> None:
    rows = divided(real_messages(store), bot)[0].assign(held=False)
    report = gaps(bot, rows, failing=[{"text": "qué onda", "intent": "saludar", "understood": "transferir"}])
    assert any("qué onda" in row["real"] for row in report["findings"] if row["finding"] == "confused")


def test_the_plan_is_a_params_file_that_runs_as_it_is(store: Store, bot: Path, tmp_path: Path) -> None:
    report, rows = found(store, bot)
    rows = rows[rows["intent"] != "bloquear"]
    plan = write_plan(report, bot, rows, tmp_path / "plan.yaml", dataset="gaps", language="es")
    assert {cell["intent"] for cell in plan["cells"]} == {"saludar", "transferir"}  # the taxonomy has no other yet
    stage = load_pipeline(tmp_path / "plan.yaml").stages[0]
    made = generate(config_for()(**stage.parameters))
    assert (
        made.total == sum(cell["n"] for cell in plan["cells"]) and made.manifest["generation"]["provider"] == "offline"
    )


def test_a_policy_approves_what_passed_the_checks_and_is_named_as_one(store: Store, bot: Path, tmp_path: Path) -> None:
    report, rows = found(store, bot)
    write_plan(report, bot, rows[rows["intent"] != "bloquear"], tmp_path / "plan.yaml", dataset="gaps", language="es")
    made = generate(config_for()(**load_pipeline(tmp_path / "plan.yaml").stages[0].parameters))
    held = made.frame()["turns"][0][0]["text"].upper()
    quality = validate(made)
    told = approve(made, quality, [held])
    assert told["kept"] < made.total and told["dropped"]["says what a message held out says"] == 1
    assert told["quality"] == quality["verdict"]
    lines = (open_dataset("gaps").path / "curation.jsonl").read_text().splitlines()
    assert len(lines) == made.total and all(POLICY in line for line in lines)

    before = (bot / "nlu.yml").read_bytes()
    copy = copied(bot, tmp_path / "copy")
    merge = add_synthetic(copy, made)
    assert (bot / "nlu.yml").read_bytes() == before == (copy / "nlu.yml").read_bytes() and not (
        copy / "models.tar.gz"
    ).exists()
    added = [row for source in read_data(copy) for row in source.examples if row["run"] == "gaps"]
    assert len(added) == len(merge.added) > 0 and (copy / "genesis_synthetic.yml").exists()
    assert held.casefold() not in {row["text"].casefold() for row in added}


def test_a_copy_replaces_no_folder_that_is_none(bot: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "nlu.yml").write_text(NLU)
    with pytest.raises(InvalidInput):
        copied(bot, tmp_path / "theirs")
    assert (tmp_path / "theirs" / "nlu.yml").read_text() == NLU


def test_synthetic_examples_carry_the_entities_that_the_bots_own_have(store: Store, bot: Path, tmp_path: Path) -> None:
    report, rows = found(store, bot)
    write_plan(report, bot, rows[rows["intent"] != "bloquear"], tmp_path / "plan.yaml", dataset="gaps", language="es")
    made = generate(config_for()(**load_pipeline(tmp_path / "plan.yaml").stages[0].parameters))
    approve(made, validate(made), [])
    add_synthetic(copy := copied(bot, tmp_path / "copy"), made)
    added = [
        row for source in read_data(copy) for row in source.examples if row["run"] and row["intent"] == "transferir"
    ]
    assert added and {one["entity"] for row in added for one in row["entities"]} == {"monto", "persona"}
    for row in added:
        assert {"monto"} <= {one["entity"] for one in row["entities"]}, row["text"]
    (copy / "nlu.yml").write_text(NLU.replace("d+", "d+("))
    with pytest.raises(InvalidInput, match=r"regex monto: .* is no regular expression"):
        add_synthetic(copy, made)
