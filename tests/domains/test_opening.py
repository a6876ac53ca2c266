"""A conversation's opening is one thing in every room, whoever's data it is."""

from __future__ import annotations

import unicodedata

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.domains.conversations.domain import Conversations
from genesis_lab.domains.conversations.record import role_of
from genesis_lab.texts import fence, normal, same_words, unaccented
from genesis_lab.training.examples import labelled, read_examples, same_wording
from genesis_lab.validation.checks import flattened
from genesis_lab.validation.text import normalised
from records import conversation, write


def opening(turns) -> str | None:
    """The definition once more, record by record."""
    first = None
    for turn in turns if turns is not None else ():
        if not isinstance(turn, dict):
            continue
        text, role = turn.get("text"), role_of(turn.get("speaker"))
        said = str(normal(text.strip())) if isinstance(text, str) else ""
        if role == "customer":
            return said or None
        if role is None and first is None:
            first = said or None
    return first


def by_sql(table: pa.Table, column: str = Conversations.facets.text or "") -> list[str | None]:
    with duckdb.connect() as connection:
        flattened(connection, table, Conversations())
        return [value for (value,) in connection.sql(f"SELECT {column} FROM records ORDER BY row").fetchall()]


@pytest.mark.parametrize(
    ("speakers", "first"),
    [
        (("agent", "customer"), 1),
        (("AGENT", "CUSTOMER"), 1),
        (("Assistant", "USER"), 1),
        (("bot", "human"), 1),
        (("Agente:", "Cliente"), 1),
        (("agent_1", "customer_1"), 1),
        (("[Asesora]", "[Clienta]"), 1),
        (("Agent", "Bob"), 1),
        (("Ana", "Bob"), 0),
        ((None, None), 0),
        (("agent", "agent"), None),
        (("Ana", "client"), 1),
    ],
)
def test_every_room_takes_the_customers_first_words_for_the_opening(tmp_path, speakers, first) -> None:
    said = ["Good morning, how can I help?", "Where is my card?"]
    turns = [{"speaker": who, "text": text} for who, text in zip(speakers, said, strict=True)]
    expected = said[first] if first is not None else None
    data = write(tmp_path / "d", [conversation(i, turns=turns, language="en") for i in range(3)])
    assert opening(turns) == expected
    assert by_sql(data.frame().pipe(pa.Table.from_pandas)) == [expected] * 3
    assert labelled(data)["text"].tolist() == [expected] * 3
    assert read_examples(data)[0].texts.tolist() == [expected] * 3 * (expected is not None)


def test_a_role_is_known_in_any_spelling_and_a_name_is_none() -> None:
    assert {role_of(name) for name in ("USER", "Usuario", "CLIENTE", "<human>", "Customer 12", "End-User:")} == {
        "customer"
    }
    assert {role_of(name) for name in ("GPT", "**Agent**", "Atención al cliente", "support_agent")} == {"agent"}
    assert {role_of(name) for name in ("Bob", "", None, 7, "system", "Agent: Bob")} == {None}


FORMS = (
    "¿Dónde está mi café?",
    unicodedata.normalize("NFD", "¿Dónde está mi café?"),
    "DONDE  ESTA mi\u00a0cafe",
    "dónde está mi ca\u00adfé",
)


def test_texts_that_read_alike_are_one_in_every_room() -> None:
    assert len({same_words(form) for form in FORMS}) == 1
    assert len(set(normalised(FORMS).to_pylist())) == 1
    assert len(set(same_wording(FORMS).tolist())) == 1


def test_one_label_in_two_unicode_forms_is_one_intent(tmp_path) -> None:
    label = "devolución"
    records = [conversation(i, intent=unicodedata.normalize("NFC" if i % 2 else "NFD", label)) for i in range(8)]
    data = write(tmp_path / "d", records)
    assert set(read_examples(data)[0].labels.tolist()) == {label}
    assert set(by_sql(pa.Table.from_pandas(data.frame()), "intent")) == {label}
    assert set(labelled(data)["label"]) == {label}


@given(st.text())
def test_comparing_forms_are_fixed_points_and_know_no_unicode_form(text: str) -> None:
    for form in (unaccented, same_words):
        assert form(form(text)) == form(text)
        assert (
            len({form(unicodedata.normalize(kind, text)) for kind in ("NFC", "NFD", "NFKC", "NFKD")} | {form(text)})
            == 1
        )
    assert normal([text, {text: text}]) == [unicodedata.normalize("NFC", text), normal({text: text})]


@given(st.text("-`x\n"))
def test_material_never_holds_its_own_fence(material: str) -> None:
    assert fence(material) not in material and set(fence(material)) == {"-"} and len(fence(material)) >= 3
    assert np.all([fence(material, "```") not in material])


SPEAKERS = st.sampled_from(["customer", "AGENT", "user", "Bob", "", None])
TURNS = st.lists(st.fixed_dictionaries({"speaker": SPEAKERS, "text": st.sampled_from(["a", " b ", "", " ", None])}))


@settings(deadline=None, max_examples=30)
@given(st.lists(TURNS | st.none(), max_size=6))
def test_a_block_of_records_opens_as_each_record_does(conversations) -> None:
    kind = pa.list_(pa.struct({"speaker": pa.string(), "text": pa.string()}))
    table = pa.table({"turns": pa.array(conversations, kind)})
    assert by_sql(table) == [opening(turns) for turns in conversations]
