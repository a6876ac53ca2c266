from __future__ import annotations

import json
from collections import Counter
from itertools import product
from typing import get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Provenance
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.domains.quotas import largest_remainder
from genesis_lab.errors import InvalidInput
from genesis_lab.yamls import read_yaml

PROVENANCE = Provenance(provider="test", model="test", prompt_version="1")


def shares(*values: str):
    return (
        st.lists(st.integers(0, 9), min_size=len(values), max_size=len(values))
        .filter(any)
        .map(lambda w: {v: n / sum(w) for v, n in zip(values, w, strict=True)})
    )


@settings(max_examples=30, deadline=None)
@given(
    total=st.integers(10, 700),
    english=st.integers(0, 10).map(lambda n: n / 10),
    sentiment=shares(*get_args(r.Sentiment)),
    complexity=shares(*get_args(r.Complexity)),
    resolution=shares(*get_args(r.Resolution)),
    seed=st.integers(0, 1_000),
)
def test_a_plan_of_any_size_meets_every_quota_exactly(total, english, sentiment, complexity, resolution, seed):
    domain = Conversations(
        ConversationsConfig(
            total=total,
            english_share=english,
            sentiment_shares=sentiment,
            complexity_shares=complexity,
            resolution_shares=resolution,
            seed=seed,
        )
    )
    specs = domain.specs(total, seed)
    assert [s.index for s in specs] == list(range(total))
    for target in domain.targets():
        if target.name != "category":
            observed = Counter(s.attributes[target.name] for s in specs)
            assert observed == {v: n for v, n in largest_remainder(target.shares, total).items() if n}, target.name
    for spec in specs:
        a = spec.attributes
        assert r.arc_fits(a["emotion_arc"], a["sentiment"], a["resolution_status"])
        low, high = r.TURN_RANGES[a["complexity"]]
        assert low <= a["turns"] <= high


def test_ten_thousand_conversations_fill_every_cell_alike():
    domain = Conversations(ConversationsConfig(total=10_010))
    cells = Counter((s.attributes["intent"], s.attributes["language"]) for s in domain.specs(10_010, 42))
    assert len(cells) == 154 and set(cells.values()) == {65}


@pytest.mark.parametrize("total", [308, 770, 1_540, 10_010])
def test_attributes_of_a_plan_have_nothing_to_do_with_each_other(total):
    import pandas as pd

    from genesis_lab.bias.measures import association

    domain = Conversations(ConversationsConfig(total=total))
    frame = pd.DataFrame([dict(s.attributes) for s in domain.specs(total, 42)])
    frame["category"] = frame["intent"].map(domain.taxonomy.category_of)
    names = ["language", "sentiment", "complexity", "resolution_status", "resolution_time", "category"]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            v = association(pd.crosstab(frame[a], frame[b]).to_numpy())[0].estimate
            assert v < 0.08 + 10 / total, (a, b, v)


def test_same_seed_same_plan_other_seed_other_plan():
    domain = Conversations()
    assert domain.specs(154, 1) == domain.specs(154, 1)
    assert domain.specs(154, 1) != domain.specs(154, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sentiment_shares": {"positive": 0.5, "neutral": 0.6, "negative": 0.1}}, "must add up to 1, got 1.2"),
        ({"sentiment_shares": {"happy": 1.0}}, "unknown value 'happy', expected positive, neutral, negative"),
        ({"total": 9}, "must be at least 10"),
        ({"total": "many"}, "valid integer"),
        ({"english_share": 1.5}, "less than or equal to 1"),
        ({"min_turns": 6, "max_turns": 4}, r"min_turns \(6\) must not exceed max_turns \(4\)"),
        ({"max_turns": 6}, "complex conversations have 8–12 turns"),
        ({"intentz": []}, "Extra inputs are not permitted"),
    ],
)
def test_impossible_options_are_refused_by_name(options, message):
    with pytest.raises(ValidationError, match=message):
        ConversationsConfig(**options)


def test_unknown_intents_and_categories_are_refused_with_the_valid_ones():
    with pytest.raises(InvalidInput, match=r"no intent 'card_arival': did you mean card_arrival"):
        Conversations(ConversationsConfig(intents=("card_arival",))).targets()
    with pytest.raises(InvalidInput, match=r"no category 'loans': there are .*top_up"):
        Conversations(ConversationsConfig(categories=("loans",))).targets()


def test_every_offline_conversation_is_valid_whatever_the_shape():
    domain = Conversations(ConversationsConfig(total=1_540))
    shapes = set()
    for spec in domain.specs(1_540, 3):
        answered = (domain.parse(domain.offline_text(spec, 0), spec), spec, PROVENANCE)
        conversation = domain.render(*answered)
        assert list(domain.render_all([answered])) == [conversation.model_dump()]
        assert conversation.turn_count == spec.attributes["turns"]
        assert "[" not in conversation.turns[0].text and "{" not in "".join(t.text for t in conversation.turns)
        shapes.add((conversation.language, conversation.turn_count, conversation.resolution_status))
    assert shapes == set(product(("en", "es"), range(2, 13), get_args(r.Resolution)))


def test_a_cell_goes_through_its_patterns_before_repeating_one():
    domain = Conversations(ConversationsConfig(total=200, intents=("card_arrival",), english_share=1.0))
    patterns = len(domain.taxonomy.intent("card_arrival").examples["en"])
    openings = {json.loads(domain.offline_text(s, 0))["turns"][0]["text"].casefold() for s in domain.specs(200, 1)}
    assert patterns >= 60 and len(openings) >= 198


@pytest.mark.parametrize("language", ["en", "es"])
def test_prompt_speaks_the_records_language_and_holds_the_spec(language):
    domain = Conversations(ConversationsConfig(total=154, few_shot=2))
    spec = next(s for s in domain.specs(154, 1) if s.attributes["language"] == language)
    prompt = domain.prompt(spec)
    assert ("Go on with this chat" if language == "en" else "Continúa este chat") in prompt.messages[-1][1]
    assert (
        spec.attributes["intent"] in prompt.messages[-1][1] and str(spec.attributes["turns"]) in prompt.messages[-1][1]
    )
    assert len(prompt.messages) == 5 and prompt.stable == 4
    assert spec.attributes["intent"] not in prompt.system


def test_few_shot_examples_are_themselves_valid_conversations():
    from genesis_lab.domains.conversations.prompt import FEW_SHOT

    for example in read_yaml(FEW_SHOT):
        speakers = [speaker for speaker, _ in example["turns"]]
        assert r.turn_problems(speakers) == []
        low, high = r.TURN_RANGES[example["complexity"]]
        assert low <= len(speakers) <= high


def test_cells_are_made_exactly_and_what_they_leave_open_is_spread():
    cells = [
        {"n": 1, "intent": "card_arrival", "language": "es"},
        {"n": 300, "category": "top_up", "sentiment": "negative", "resolution_time": "quick"},
    ]
    config = ConversationsConfig(cells=cells)
    domain = Conversations(config)
    frame = pd.DataFrame([dict(spec.attributes) for spec in domain.specs(config.total, 3)])
    assert config.total == len(frame) == 301
    one, many = frame[frame["intent"] == "card_arrival"], frame[frame["intent"] != "card_arrival"]
    assert list(one["language"]) == ["es"] and set(many["sentiment"]) == {"negative"}
    assert {domain.taxonomy.category_of[intent] for intent in many["intent"]} == {"top_up"}
    assert many["intent"].value_counts().max() - many["intent"].value_counts().min() <= 1
    assert list(many["language"].value_counts()) == [150, 150]
    counts = pd.crosstab(many["complexity"], many["language"])
    assert (abs(counts["en"] - counts["es"]) <= 2).all()
    targets = {target.name: target.shares for target in domain.targets()}
    assert targets["sentiment"]["negative"] == pytest.approx(300 / 301, abs=0.01)
    assert targets["resolution_time"]["quick"] > 0.99
    assert sum(targets["category"].values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([{"n": 0, "language": "es"}], "cells.1.n must be at least 1"),
        ([{"n": 1, "language": "fr"}], "cells.1.language must be 'en' or 'es'"),
        ([{"n": 1, "mood": "good"}], "cells.1.mood is not known here"),
        ([{"language": "es"}], "cells.1.n must be given"),
    ],
)
def test_cells_that_make_no_sense_are_named(cells, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        get_domain("conversations", cells=cells)


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ({"intent": "nonsense"}, "cells ask for intent 'nonsense', which is not among those planned"),
        ({"intent": "card_arrival", "category": "top_up"}, "card_arrival in category top_up, where it does not belong"),
    ],
)
def test_cells_of_another_taxonomy_are_named(cell, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        Conversations(ConversationsConfig(cells=[{"n": 2} | cell])).specs(2, 1)
