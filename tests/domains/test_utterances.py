"""Utterances: planned as people type them, asked for in lists, read whatever form the list has."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from genesis_lab.dataset import dataset_names, export_dataset
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Provenance
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.domains.conversations.openings import alike, greets, read_seeds
from genesis_lab.domains.conversations.taxonomy import load_taxonomy
from genesis_lab.errors import InvalidInput, ParseFailure
from genesis_lab.generation import config_for, generate

PROVENANCE = Provenance(provider="test", model="test", prompt_version="1")
INTENTS = ("card_arrival", "lost_or_stolen_card", "top_up_failed")


def utterances(**options) -> Conversations:
    return Conversations(ConversationsConfig(records="utterances", intents=INTENTS, **options))


def of_one_key(domain: Conversations, total: int, key: str):
    return [spec for spec in domain.specs(total, 1) if domain.list_key(spec) == key]


def saying(spec, start: str = "my card") -> str:
    """A message of as many words as planned."""
    filler = ["has", "not", "come", "and", "i", "want", "to", "know", "where", "it", "is", "now", "please"]
    words = [*start.split(), *(filler[i % len(filler)] for i in range(60))]
    return " ".join(words[: spec.attributes["words"]])


def test_a_plan_is_as_long_and_short_as_peoples_messages_in_every_intent():
    domain = utterances(total=600)
    specs = domain.specs(600, 3)
    words = np.array([spec.attributes["words"] for spec in specs])
    assert list(np.quantile(words, [0.25, 0.5, 0.75])) == pytest.approx([7, 10, 13], abs=1)
    by_key = defaultdict(list)
    for spec in specs:
        by_key[domain.list_key(spec)].append(spec.attributes["words"])
    assert set(map(len, by_key.values())) == {100} and len(by_key) == 6
    assert all(abs(np.median(n) - 10) <= 1 and max(n) > 20 and min(n) < 5 for n in by_key.values())


@pytest.mark.parametrize("total", [10, 77, 1000])
def test_every_kind_is_met_exactly_and_is_a_small_share(total):
    specs = utterances(total=total).specs(total, 1)
    for kind, share in {"question": 0.66, "lower_case": 0.05, "slip": 0.06, "greeting": 0.03}.items():
        assert abs(sum(spec.attributes[kind] for spec in specs) - share * total) < 1
    assert Counter(spec.attributes["sentiment"] for spec in specs)["neutral"] >= 0.8 * total
    assert "turns" not in specs[0].attributes and "complexity" not in specs[0].attributes


def test_the_manner_is_that_of_ones_own_messages(tmp_path):
    file = tmp_path / "mine.csv"
    pd.DataFrame({"text": ["where card", "is it lost then"] * 60}).to_csv(file, index=False)
    specs = utterances(total=100, like=str(file)).specs(100, 1)
    assert {spec.attributes["words"] for spec in specs} == {2, 4}
    assert all(spec.attributes["lower_case"] for spec in specs)


def test_the_prompt_of_a_list_shows_the_range_the_neighbours_and_each_line():
    domain = utterances(total=120, english_share=1.0)
    specs = of_one_key(domain, 120, "en/card_arrival")[:20]
    prompt = domain.list_prompt(specs, [{"turns": [{"speaker": "customer", "text": "Where is it?"}]}])
    task = prompt.messages[-1][1]
    assert task.count("words, ") == 20 and "Write 20 messages" in task and "- Where is it?" in task
    assert "lost_or_stolen_card" in task and "card_arrival" not in prompt.system
    assert "Real customers" not in task and "mixed up" not in task
    assert prompt.schema["properties"]["messages"]["minItems"] == 20


def test_spanish_lists_are_asked_for_in_spanish():
    domain = utterances(total=120, english_share=0.0)
    prompt = domain.list_prompt(of_one_key(domain, 120, "es/card_arrival")[:5], [])
    assert "Escribe 5 mensajes" in prompt.messages[-1][1] and "Todo en español" in prompt.system


@pytest.mark.parametrize(
    "form",
    [
        lambda texts: json.dumps({"messages": texts}),
        lambda texts: "Here you are:\n```json\n" + json.dumps({"messages": texts}) + "\n```",
        lambda texts: json.dumps({"messages": [{"text": text} for text in texts]}),
        lambda texts: json.dumps({"messages": [f"{i}. {text}" for i, text in enumerate(texts, 1)]}),
        lambda texts: "\n".join(f'{i}. "{text}"' for i, text in enumerate(texts, 1)),
        lambda texts: "Sure!\n" + "\n".join(f"- {text}" for text in texts),
    ],
    ids=["as asked", "fenced", "objects", "numbered", "lines", "bullets"],
)
def test_a_list_is_read_in_any_form(form):
    domain = utterances(total=60, english_share=1.0)
    specs = of_one_key(domain, 60, "en/card_arrival")[:4]
    texts = [saying(spec, f"card{i}") for i, spec in enumerate(specs)]
    found = domain.parse_list(form(texts), specs)
    assert [answer["turns"][0]["text"].lower() for answer in found] == texts


def test_each_line_stands_or_falls_on_its_own():
    domain = utterances(total=240, english_share=1.0)
    specs = [s for s in of_one_key(domain, 240, "en/card_arrival") if 8 <= s.attributes["words"] <= 12][:6]
    good = saying(specs[0])
    spanish = "mi tarjeta no ha llegado todavía y quiero saber dónde está"
    sent = [good, "", "word " * 40, spanish, "my <b>card</b> has not come and i want it", "card"]
    found = domain.parse_list(json.dumps({"messages": sent}), specs)
    assert found[0]["turns"][0] == {"speaker": "customer", "text": good}
    assert [reason if isinstance(reason, str) else "" for reason in found[1:]] == [
        "the message is missing",
        f"it has 40 words, about {specs[2].attributes['words']} were asked for",
        "it must be in 'en', it reads as 'es'",
        "a turn holds HTML tags: write plain text",
        f"it has 1 words, about {specs[5].attributes['words']} were asked for",
    ]


def test_what_is_missing_is_named_and_what_is_sent_beyond_the_list_fills_gaps():
    domain = utterances(total=240, english_share=1.0)
    specs = [s for s in of_one_key(domain, 240, "en/card_arrival") if s.attributes["words"] == 10][:3]
    few = domain.parse_list(json.dumps({"messages": [saying(specs[0])]}), specs)
    assert isinstance(few[0], dict) and few[1:] == ["the message is missing"] * 2
    more = domain.parse_list(
        json.dumps({"messages": [saying(specs[0]), "no", *(saying(s, "a b") for s in specs)]}), specs
    )
    assert all(isinstance(answer, dict) for answer in more)
    with pytest.raises(ParseFailure):
        domain.parse_list("I can't help with that.", specs)


def test_lower_case_is_what_was_planned():
    domain = utterances(total=400, english_share=1.0)
    spec = next(s for s in domain.specs(400, 1) if s.attributes["lower_case"])
    (answer,) = domain.parse_list(json.dumps({"messages": [saying(spec).upper()]}), [spec])
    assert answer["turns"][0]["text"] == saying(spec).lower()


def test_an_utterance_is_a_conversation_of_one_turn_without_an_ending():
    domain = utterances(total=60)
    for spec in domain.specs(60, 2):
        record = domain.render(domain.parse(domain.offline_text(spec, 0), spec), spec, PROVENANCE)
        assert record.turn_count == 1 and record.turns[0].speaker == "customer"
        assert record.resolution_status is record.complexity is record.emotion_arc is record.resolution_time is None
    assert domain.first_stage("x") is None


def test_the_grammars_utterances_greet_as_rarely_as_planned():
    domain = utterances(total=600)
    texts = [domain.parse(domain.offline_text(s, 0), s)["turns"][0]["text"] for s in domain.specs(600, 2)]
    assert sum(map(greets, texts)) <= 24 and len(set(texts)) > 560


SEEDS = pd.DataFrame(
    {
        "text": ["Where has my new card got to?", "¿Dónde está mi tarjeta nueva?", "I lost my card on the bus"],
        "label": ["card_arrival", "card_arrival", "lost_or_stolen_card"],
    }
)


@pytest.fixture
def seeds(tmp_path):
    file = tmp_path / "seeds.csv"
    SEEDS.to_csv(file, index=False)
    return file


def test_seeds_are_shown_in_their_language_and_never_copied(seeds):
    domain = utterances(total=240, english_share=1.0, seeds=str(seeds))
    specs = [s for s in of_one_key(domain, 240, "en/card_arrival") if s.attributes["words"] == 7][:2]
    task = domain.list_prompt(specs, []).messages[-1][1]
    assert "- Where has my new card got to?" in task and "tarjeta" not in task and "bus" not in task
    sent = ["where has my new card gott to", "the card i ordered never came here"]
    copied, own = domain.parse_list(json.dumps({"messages": sent}), specs)
    assert copied == "it copies a seed" and isinstance(own, dict)


def test_an_edited_file_of_seeds_is_other_knowledge(seeds):
    domain = utterances(seeds=str(seeds))
    before = domain.knowledge()["seeds"]
    SEEDS[:2].to_csv(seeds, index=False)
    assert utterances(seeds=str(seeds)).knowledge()["seeds"] != before


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("x y z", "card_arival")], "message 1: intent: not in taxonomy banking77, got 'card_arival'"),
        ([("where is my card", "")], "message 1: it has no label"),
        ([("", "card_arrival")], "holds no messages"),
        (
            [("Où est donc ma nouvelle carte bancaire, elle n'est pas arrivée", "card_arrival")],
            "reads as English or Spanish",
        ),
    ],
)
def test_seeds_that_teach_nothing_are_refused_by_name(tmp_path, rows, sentence):
    file = tmp_path / "seeds.csv"
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(file, index=False)
    with pytest.raises(InvalidInput, match=sentence):
        read_seeds(str(file), load_taxonomy())


def test_ten_thousand_seeds_with_doubles_show_twenty(tmp_path):
    file = tmp_path / "seeds.jsonl"
    rows = [{"text": f"where is card number {i % 3000}", "label": "card_arrival"} for i in range(10_000)]
    file.write_text("\n".join(map(json.dumps, rows)))
    found = read_seeds(str(file), load_taxonomy())
    assert len(found.rows) == 3000 and len(found.shown("card_arrival", "en", 1)) == 20
    assert found.shown("card_arrival", "en", 1) == found.shown("card_arrival", "en", 1)
    assert found.shown("top_up_failed", "en", 1) == []


def test_a_missing_file_of_seeds_is_named():
    with pytest.raises(InvalidInput, match=r"no file and no dataset 'nowhere\.csv'"):
        utterances(seeds="nowhere.csv").knowledge()


def test_alike_is_the_same_but_for_a_few_letters():
    assert alike("Where is my card?", "where is my crd") and not alike("Where is my card?", "Where is my money?")


def test_a_contrast_is_asked_for_with_what_was_mixed_up():
    of = {"intent": "card_arrival", "language": "en"}
    mixed = {"against": "lost_or_stolen_card", "mixed": {"card gone": "lost_or_stolen_card"}}
    cells = [{"n": 6} | of | mixed, {"n": 4} | of]
    domain = utterances(cells=cells)
    keys = Counter(domain.list_key(spec) for spec in domain.specs(10, 1))
    assert keys == {"en/card_arrival/lost_or_stolen_card": 6, "en/card_arrival": 4}
    specs = of_one_key(domain, 10, "en/card_arrival/lost_or_stolen_card")
    task = domain.list_prompt(specs, []).messages[-1][1]
    assert "mixed up with lost_or_stolen_card" in task and "- card gone → lost_or_stolen_card" in task
    assert "mixed up" not in domain.list_prompt(of_one_key(domain, 10, "en/card_arrival"), []).messages[-1][1]


def test_an_intent_without_neighbours_is_asked_for_all_the_same():
    domain = Conversations(ConversationsConfig(records="utterances", intents=("card_arrival",), english_share=1.0))
    specs = domain.specs(20, 1)
    assert "Write 20 messages" in domain.list_prompt(specs, []).messages[-1][1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"openings": "x"}, "openings are continued to conversations"),
        ({"cells": [{"n": 3, "complexity": "simple"}]}, "cells ask for complexity, which utterances do not have"),
        ({"list_size": 0}, "greater than or equal to 1"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        ConversationsConfig(records="utterances", **options)


def test_cells_against_an_unknown_intent_are_named():
    with pytest.raises(InvalidInput, match="card_arrival from 'nothing', which is not among"):
        utterances(cells=[{"n": 3, "intent": "card_arrival", "against": "nothing"}]).specs(3, 1)


def test_a_conversation_goes_on_from_an_opening_that_was_written_before():
    domain = Conversations(ConversationsConfig(total=12, intents=("card_arrival",), english_share=1.0))
    stage = domain.first_stage("chats")
    assert stage["dataset"] == "chats_openings" and stage["records"] == "utterances"
    assert stage["cells"] == [{"n": 12, "intent": "card_arrival", "language": "en"}]
    said = [f"Where is card number {i}?" for i in range(12)]
    domain.feed(
        [
            {"intent": "card_arrival", "language": "en", "turns": [{"speaker": "customer", "text": text}]}
            for text in said
        ],
        "conversations",
    )
    specs = domain.specs(12, 42)
    assert sorted(domain.opening(spec) for spec in specs) == sorted(said)
    spec = specs[0]
    assert domain.opening(spec) in domain.prompt(spec).messages[-1][1]
    rest = [
        {"speaker": ("agent", "customer")[i % 2], "text": f"It left on day {i} of this month."}
        for i in range(spec.attributes["turns"] - 1)
    ]
    answer = domain.parse(json.dumps({"turns": rest}), spec)
    assert answer["turns"][0]["text"] == domain.opening(spec) and len(answer["turns"]) == spec.attributes["turns"]
    other = [{"speaker": "customer", "text": "Something else entirely"}, *rest]
    with pytest.raises(ParseFailure, match="must go on from the customer's first message"):
        domain.parse(json.dumps({"turns": other}), spec)


def test_the_grammar_beside_a_model_goes_on_from_the_openings_too():
    domain = Conversations(ConversationsConfig(total=12, intents=("card_arrival",), english_share=1.0))
    said = [f"Where is card number {i}?" for i in range(12)]
    domain.feed(
        [
            {"intent": "card_arrival", "language": "en", "turns": [{"speaker": "customer", "text": text}]}
            for text in said
        ],
        "conversations",
    )
    answers = [domain.parse(domain.offline_text(spec, 0), spec) for spec in domain.specs(12, 42)]
    assert sorted(answer["turns"][0]["text"] for answer in answers) == sorted(said)


def test_openings_of_another_domain_or_too_few_are_named():
    domain = Conversations(ConversationsConfig(total=12, intents=("card_arrival",), english_share=1.0, openings="mine"))
    assert domain.first_stage("chats") is None and domain.needs == "mine"
    with pytest.raises(InvalidInput, match="Openings are continued from records of conversations"):
        domain.feed([], "vision")
    domain.feed(
        [{"intent": "card_arrival", "language": "en", "turns": [{"speaker": "customer", "text": "Hm?"}]}],
        "conversations",
    )
    with pytest.raises(InvalidInput, match="There are 1 openings of card_arrival"):
        [domain.prompt(spec) for spec in domain.specs(12, 1)]


def test_utterances_are_called_so_wherever_they_are_counted(own_output_root) -> None:
    config = config_for()(dataset="first", total=20, records="utterances", intents=("card_arrival",))
    data = generate(config)
    said = {config.domain.facets.unit, data.unit, *(held.split()[1] for held in dataset_names().values())}
    assert said == {"utterances"} and get_domain().facets.unit == "conversations"
    (line,) = export_dataset(data, own_output_root / "first.csv", format="csv")
    assert line.startswith("20 utterances in ")
