"""The second example taxonomy, an insurer: a user who copies it must get a data set that is valid as a whole."""

from __future__ import annotations

import re
from collections import defaultdict

import pytest

from genesis_lab.domains.base import Provenance
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.domains.conversations.taxonomy import load_taxonomy
from genesis_lab.settings import project_root

FILE = "params/taxonomies/insurance.yaml"
PROVENANCE = Provenance(provider="offline", model="grammar", prompt_version="1")
TOTAL = 280
USTED = re.compile(
    r"\b(ustedes|usted|le (avis|comunic|contest|dej|envi|escrib|lleg|llam|pas|respond|transf|traslad)\w+"
    r"|su (app|caja|caso|cuenta|dinero|póliza|recarga|saldo|solicitud|tarjeta|transferencia)"
    r"|abra|elija|espere|haga clic|introduzca|inténtelo|pulse|toque|vuelva) ?\b",
    re.I,
)
"""Words of a line that addresses the customer as usted; *su* and *le* about somebody else are fine."""


@pytest.fixture(scope="module")
def taxonomy():
    return load_taxonomy(FILE)


@pytest.fixture(scope="module")
def conversations():
    """280 conversations, 10 for each intent and language, as the offline provider writes and the domain reads them."""
    domain = Conversations(ConversationsConfig(total=TOTAL, taxonomy=FILE))
    return [
        domain.render(domain.parse(domain.offline_text(spec, 0), spec), spec, PROVENANCE)
        for spec in domain.specs(TOTAL, 42)
    ]


def test_it_has_at_least_twelve_intents_in_five_categories(taxonomy):
    assert len(taxonomy.names) >= 12 and len(taxonomy.categories) == 5
    assert taxonomy.title == {"en": "an insurance company", "es": "una aseguradora"}


def test_every_intent_says_enough_in_both_languages(taxonomy):
    needs = {"exchanges": 3, "follow_ups": 2, "resolved": 2, "pending": 2, "escalated": 2}
    for intent in taxonomy.intents:
        for language, openings in (("en", 16), ("es", 14)):
            assert len(set(intent.examples[language])) >= openings, (intent.name, language)
            for move, least in needs.items():
                assert len(set(getattr(intent, move)[language])) >= least, (intent.name, language, move)


def test_a_plan_of_280_is_written_offline_without_one_invalid_conversation(conversations):
    assert len(conversations) == TOTAL
    assert {c.language for c in conversations} == {"en", "es"}
    assert {c.resolution_status for c in conversations} == {"resolved", "pending", "escalated"}


def test_no_cell_is_without_variety(conversations):
    cells = defaultdict(list)
    for c in conversations:
        cells[c.intent, c.language].append(c.turns[0].text.casefold())
    assert len(cells) == 28
    for cell, openings in cells.items():
        assert len(openings) == 10 and len(set(openings)) == 10, cell


def test_no_pattern_is_left_open_in_a_text(conversations):
    left = [t.text for c in conversations for t in c.turns if re.search(r"[\[\]{}|]", t.text)]
    assert left == []


def test_nothing_said_belongs_to_a_bank(conversations):
    """The moves that any field shares must not give away that they were first used for one."""
    bank = re.compile(r"\b(top[- ]?up|neobank|neobanco|recarga|PIN|ATM|cajero)\b", re.I)
    assert [t.text for c in conversations for t in c.turns if bank.search(t.text)] == []


@pytest.mark.parametrize("name", ["banking77", FILE])
def test_spanish_agents_say_tu_throughout(name):
    taxonomy = load_taxonomy(name)
    for script in taxonomy.intents:
        said = [question for question, _ in script.exchanges["es"]] + [answer for _, answer in script.follow_ups["es"]]
        said += [*script.resolved["es"], *script.pending["es"], *script.escalated["es"]]
        assert [line for line in said if USTED.search(line)] == []


def test_the_least_that_the_header_names_is_a_taxonomy(tmp_path):
    header = (project_root() / FILE).read_text(encoding="utf-8").split("\nname: insurance")[0]
    lines = [line.removeprefix("#   ") for line in header.splitlines()]
    start = next(i for i, line in enumerate(lines) if line.startswith("name: bakery"))
    end = next(i for i in range(start, len(lines)) if lines[i] == "#")
    path = tmp_path / "bakery.yaml"
    path.write_text("\n".join(lines[start:end]), encoding="utf-8")
    taxonomy = load_taxonomy(path)
    assert taxonomy.names == ("order_cake",) and len(taxonomy.intent("order_cake").examples["es"]) == 3
    domain = Conversations(ConversationsConfig(total=10, taxonomy=str(path)))
    assert len([domain.parse(domain.offline_text(s, 0), s) for s in domain.specs(10, 42)]) == 10
