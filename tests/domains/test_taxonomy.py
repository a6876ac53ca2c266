from __future__ import annotations

import json
import re
import unicodedata
from itertools import product

import pytest
import yaml

from genesis_lab.domains import get_domain
from genesis_lab.domains.conversations.taxonomy import load_taxonomy
from genesis_lab.errors import InvalidInput

GOOD = """
name: bakery
title: {en: a bakery, es: una panadería}
intents:
  - name: order_cake
    category: orders
    description: {en: wants a cake, es: quiere una tarta}
    examples: {en: [I would like a cake], es: [Quiero una tarta]}
"""


def written(tmp_path, text):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_banking77_has_its_77_intents_in_11_categories():
    taxonomy = load_taxonomy()
    sizes = {category: len(names) for category, names in taxonomy.categories.items()}
    assert sizes == {
        "card_management": 18,
        "top_up": 12,
        "transfers": 10,
        "card_payments": 7,
        "cash_atm": 7,
        "exchange_currency": 5,
        "account_management": 5,
        "account_security": 4,
        "verification_identity": 4,
        "refunds": 3,
        "payment_methods": 2,
    }
    assert {"Refund_not_showing_up", "reverted_card_payment?"} <= set(taxonomy.names)
    assert taxonomy.category_of["extra_charge_on_statement"] == "refunds"
    assert taxonomy.category_of["disposable_card_limits"] == "account_management"
    assert taxonomy.category_of["transfer_into_account"] == "transfers"


def test_every_intent_has_enough_to_say_in_both_languages():
    taxonomy = load_taxonomy()
    for name in taxonomy.names:
        script = taxonomy.intent(name)
        for language in ("en", "es"):
            assert len(set(script.examples[language])) >= 15, (name, language)
            assert len(script.exchanges[language]) >= 4
            for status in ("resolved", "pending", "escalated"):
                assert getattr(script, status)[language], (name, language, status)


def test_spelling_of_the_intents_is_the_references(real_banking77):
    counts = json.loads((real_banking77 / "intent_counts.json").read_text(encoding="utf-8"))
    assert set(load_taxonomy().names) == set(counts)


def test_no_wording_of_the_grammar_is_a_sentence_of_the_reference(real_banking77):
    import pandas as pd

    real = {plain(text) for file in real_banking77.glob("*.csv") for text in pd.read_csv(file)["text"]}
    taxonomy = load_taxonomy()
    copied = [
        (name, line)
        for name in taxonomy.names
        for line in taxonomy.intent(name).examples["en"]
        if real & {plain(wording) for wording in wordings(line)}
    ]
    assert copied == []


def plain(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold().replace("'", "")).strip()


def wordings(pattern: str) -> list[str]:
    """Every choice of a pattern's alternatives."""
    parts = re.split(r"\[([^\[\]]*\|[^\[\]]*)\]", pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return ["".join(chosen) for chosen in product(*choices)]


def test_a_users_taxonomy_replaces_banking77(tmp_path):
    taxonomy = load_taxonomy(written(tmp_path, GOOD))
    assert taxonomy.names == ("order_cake",) and taxonomy.intent("order_cake").examples["es"] == ("Quiero una tarta",)


def test_selection_forgets_what_was_left_out():
    cut = load_taxonomy().select(categories=("refunds",), intents=("card_arrival",))
    assert cut.names == ("card_arrival", "Refund_not_showing_up", "request_refund", "extra_charge_on_statement")
    assert set(cut.categories) == {"card_management", "refunds"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("es: [Quiero una tarta]", "es: []"), "order_cake.*no examples in 'es'"),
        (("    category: orders\n", ""), "intent order_cake.category must be given"),
        (("name: bakery", "name: [bakery"), "not valid YAML.*line"),
        (("intents:", "intentz:"), "intents"),
        (("title: {en: a bakery, es: una panadería}\n", ""), "title must be given"),
    ],
)
def test_a_faulty_taxonomy_is_one_sentence(tmp_path, change, message):
    with pytest.raises(InvalidInput, match=message) as error:
        load_taxonomy(written(tmp_path, GOOD.replace(*change)))
    assert "\n" not in str(error.value)


def test_a_missing_taxonomy_is_one_sentence(tmp_path):
    with pytest.raises(InvalidInput, match=r"There is no file other\.yaml"):
        load_taxonomy(tmp_path / "other.yaml")


def test_labels_that_read_alike_are_refused_and_forms_of_unicode_are_one(tmp_path):
    texts = {"en": ["one"], "es": ["uno"]}
    intents = [
        {"name": name, "category": "c", "description": {"en": "d", "es": "d"}, "examples": texts}
        for name in ("devolución", "Other")
    ]
    whole = {"name": "t", "title": {"en": "a shop", "es": "una tienda"}, "intents": intents}
    path = tmp_path / "t.yaml"
    path.write_text(unicodedata.normalize("NFD", yaml.safe_dump(whole, allow_unicode=True)), encoding="utf-8")
    apart = unicodedata.normalize("NFD", "devolución")
    domain = get_domain("conversations", taxonomy=str(path), intents=[apart])
    assert domain.taxonomy.names == ("devolución",)
    for twin in (apart, "Devolucion ", "DEVOLUCIÓN"):
        intents[1]["name"] = twin
        path.write_text(yaml.safe_dump(whole, allow_unicode=True), encoding="utf-8")
        with pytest.raises(InvalidInput, match="read alike"):
            load_taxonomy(path)
