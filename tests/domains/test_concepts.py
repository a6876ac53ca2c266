from __future__ import annotations

from collections import Counter, defaultdict
from itertools import product

import pytest

from genesis_lab.domains import concepts, get_domain
from genesis_lab.domains.language import detect
from genesis_lab.domains.quotas import largest_remainder
from genesis_lab.errors import InvalidInput


@pytest.fixture(scope="module")
def many() -> list[tuple[dict, concepts.Concept]]:
    """100,000 concepts, as a plan of that size draws them."""
    role = get_domain("requirements")
    return [(dict(spec.attributes), role.concept(spec)) for spec in role.specs(100_000, 7)]


def test_a_hundred_thousand_concepts_are_all_distinct(many) -> None:
    assert len({concept.text for _, concept in many}) == 100_000


def test_each_language_alone_has_a_hundred_thousand() -> None:
    k = concepts._knowledge()
    cells = product(concepts._products(), k["regions"], k["emphases"])
    texts = {concepts.concept(*cell, "es").text for cell in cells}
    assert len(texts) == concepts.count() >= 100_000


@pytest.mark.parametrize("language", ["en", "es"])
def test_concepts_are_readable_sentences_of_their_language(many, language) -> None:
    sample = [c for _, c in many if c.language == language][:4000]
    texts = [c.text for c in sample]
    assert set(map(detect, texts)) == {language}
    for text in texts:
        assert text[0].isupper() and text.endswith(".") and "  " not in text and "{" not in text
        assert 40 <= len(text) <= 300
        assert not {" a a ", " de el ", " a el ", " the the "} & {
            f" {a} {b} " for a, b in zip(text.split(), text.split()[1:], strict=False)
        }


def test_concepts_with_the_same_product_share_a_group_and_a_split_in_both_languages(many) -> None:
    splits, texts = defaultdict(set), defaultdict(set)
    for attributes, concept in many:
        assert concept.group == attributes["group"] and concept.group.startswith(attributes["industry"] + "/")
        splits[concept.group].add(attributes["split"])
        texts[concept.words["product"]].add(concept.group)
    assert len(splits) == 240
    assert all(len(found) == 1 for found in splits.values())
    assert all(len(groups) == 1 for groups in texts.values()), "two products never have the same name"


def test_a_plan_meets_its_shares_and_is_the_same_every_time() -> None:
    role = get_domain("vision", total=700, english_share=0.3, industries=["energy", "finance"], test_share=0.2)
    specs = role.specs(700, 3)
    assert specs == get_domain("vision", english_share=0.3, industries=["energy", "finance"], test_share=0.2).specs(
        700, 3
    )
    assert specs != role.specs(700, 4)
    for target in role.targets():
        expected = {k: n for k, n in largest_remainder(target.shares, 700).items() if n}
        assert Counter(s.attributes[target.name] for s in specs) == expected
    splits = Counter(s.attributes["split"] for s in specs)
    assert abs(splits["test"] - 140) <= 22 and abs(splits["validation"] - 105) <= 22, "within one group of 22"


def test_small_plans_hold_out_as_many_concepts_as_records() -> None:
    specs = get_domain("requirements", test_share=0.4).specs(240, 1)
    held = [s for s in specs if s.attributes["split"] == "test"]
    assert len(held) == 96 == len({s.attributes["group"] for s in held})
    assert Counter(s.attributes["language"] for s in held) == {"en": 48, "es": 48}


def test_a_split_without_a_share_stays_empty() -> None:
    specs = get_domain("requirements", validation_share=0, test_share=0).specs(30, 1)
    assert {s.attributes["split"] for s in specs} == {"train"}


def test_more_than_there_are_distinct_concepts_is_refused_in_one_sentence() -> None:
    role = get_domain("requirements", industries=["energy"], english_share=1.0)
    with pytest.raises(InvalidInput, match="1 industries make at most 13,824 distinct concepts"):
        role.specs(14_000, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"industries": ["mining"]}, "unknown industry 'mining', expected healthcare, "),
        ({"validation_share": 0.5, "test_share": 0.45}, "leave 5% to learn from"),
        ({"total": 3}, "must be at least 10"),
    ],
)
def test_impossible_options_are_named(options, message) -> None:
    with pytest.raises(InvalidInput, match=message):
        get_domain("requirements", **options)
