from __future__ import annotations

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Provenance, Role
from genesis_lab.domains.reading import load
from genesis_lab.domains.requirements import LISTS
from genesis_lab.errors import ParseFailure
from genesis_lab.texts import normal
from genesis_lab.yamls import dump_yaml

PROVENANCE = Provenance(provider="offline", model="grammar", prompt_version="1")
ROLES = ("requirements", "vision")


def made(name: str, seed: int, attempt: int = 0, total: int = 12, **options):
    """A role, and one of its offline records as an example."""
    role: Role = get_domain(name, **options)
    spec = role.specs(total, seed)[seed % total]
    record = role.render(role.parse(role.offline_text(spec, attempt), spec), spec, PROVENANCE)
    return role, spec, role.example(record.model_dump())


@pytest.mark.parametrize("name", ROLES)
@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), attempt=st.integers(0, 8), most=st.integers(2, 6))
def test_whatever_the_offline_teacher_writes_scores_one(name, seed, attempt, most) -> None:
    role, _, example = made(name, seed, attempt, max_items=most)
    score = role.score(example.answer, example)
    assert score.total == 1.0 and score.valid and not score.problems
    assert all(0 <= part <= 1 for part in score.parts.values())
    assert example.answer == role.mended(example.answer), "the plain form is a fixed point"


@pytest.mark.parametrize("name", ROLES)
@settings(max_examples=80, deadline=None)
@given(text=st.text(max_size=300) | st.text("{}[]:-#&*!|>'\"%@`\n abc", max_size=120))
def test_no_text_breaks_the_score_and_junk_scores_near_zero(name, text) -> None:
    role, _, example = made(name, 3)
    score = role.score(text, example)
    assert score.total < 0.15 and not score.valid and score.problems


@pytest.mark.parametrize("name", ROLES)
@pytest.mark.parametrize(
    "text", ["", "I'm sorry, I can't.", "- a\n- b", "title", "[" * 5000, "a: &a [*a]", "null", "42", "```yaml\n```"]
)
def test_junk_scores_near_zero(name, text) -> None:
    role, _, example = made(name, 5)
    score = role.score(text, example)
    assert score.total < 0.1 and not score.valid and score.problems


MANGLED = ["5", "null", "[]", "{}", "- a", "[1, {a: b}]", "2025-01-01", '"x', "{id: 5, description: 7}", "? a", "1: 2"]


@pytest.mark.parametrize("name", ROLES)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(MANGLED), st.booleans()), min_size=1, max_size=4))
def test_a_mangled_answer_is_scored_and_mended_like_any_other(name, changes) -> None:
    role, _, example = made(name, 4)
    lines = example.answer.split("\n")
    for place, junk, as_value in changes:
        line = place % len(lines)
        lines[line] = f"{lines[line].partition(':')[0]}: {junk}" if as_value else junk
    score = role.score("\n".join(lines), example)
    assert 0 <= score.total <= 1 and all(0 <= part <= 1 for part in score.parts.values())
    assert isinstance(role.mended("\n".join(lines)), str)


@pytest.mark.parametrize("name", ROLES)
def test_content_tells_an_answer_to_this_concept_from_an_answer_to_another(name) -> None:
    role = get_domain(name)
    examples = []
    for spec in role.specs(80, 9):
        record = role.render(role.parse(role.offline_text(spec, 0), spec), spec, PROVENANCE)
        examples.append(role.example(record.model_dump()))
    english = [e for e in examples if e.language == "en"]
    own = [role.score(e.answer, e).parts for e in english]
    other = [role.score(english[i - 1].answer, e).parts for i, e in enumerate(english)]
    assert np.mean([p["content"] for p in own]) > 0.7 > 0.2 > np.mean([p["content"] for p in other])
    assert np.mean([p["on_topic"] for p in own]) > 0.85 > 0.3 > np.mean([p["on_topic"] for p in other])


@pytest.mark.parametrize("name", ROLES)
def test_a_text_in_the_other_language_is_named(name) -> None:
    role = get_domain(name, total=20)
    first = {}
    for spec in role.specs(20, 1):
        record = role.render(role.parse(role.offline_text(spec, 0), spec), spec, PROVENANCE)
        first.setdefault(record.language, (spec, role.example(record.model_dump())))
    (spec, english), (_, spanish) = first["en"], first["es"]
    assert "must be in 'en', it reads as 'es'" in " ".join(role.score(spanish.answer, english).problems)
    with pytest.raises(ParseFailure, match="must be in 'en'"):
        role.parse(spanish.answer, spec)


def test_each_part_of_the_requirements_score_costs_what_the_definition_says() -> None:
    role, _, example = made("requirements", 11)
    data = load(example.answer)

    def total(**changes) -> float:
        return role.score(dump_yaml(data | changes), example).total

    lists = {name: [dict(item) for item in data[name]] for name in LISTS}
    first = "functional_requirements"
    spoilt = {
        "id": [lists[first][0] | {"id": "FR01"}, lists[first][1]],
        "priority": [lists[first][0] | {"priority": "high"}, lists[first][1]],
        "description": [lists[first][0], lists[first][1] | {"description": lists[first][0]["description"]}],
    }
    for items in spoilt.values():
        assert total(**{first: items}) == pytest.approx(1 - 1 / 21)
    assert total(**{first: lists[first][:1]}) == pytest.approx(1 - 1 / 21)
    assert total(**{first: []}) == pytest.approx(1 - 5 / 21)
    assert total(title="Short") == total(description="Short") == pytest.approx(1 - 0.5 / 7)
    without = {name: value for name, value in data.items() if name != "title"}
    assert role.score(dump_yaml(without), example).total == pytest.approx(1 - 1.5 / 7)


def test_the_vision_score_is_the_mean_of_four_parts() -> None:
    role, _, example = made("vision", 12)
    score = role.score(example.answer, example)
    assert [score.parts[n] for n in ("schema", "depth", "alignment", "specificity")] == [1, 1, 1, 1]
    some_id = re.search(r"  aligned:\n  - (\w+)", example.answer)[1]
    worse = {
        "alignment": example.answer.replace(f"  - {some_id}\n", "", 1),
        "schema": re.sub("status: .*", "status: maybe", example.answer),
        "specificity": re.sub("narrative: .*", "narrative: Fine", example.answer),
        "depth": re.sub("product_summary: .*", "product_summary: A product", example.answer),
    }
    for part, text in worse.items():
        found = role.score(text, example)
        assert found.parts[part] < 1 and found.total < 1
        assert all(found.parts[p] == 1 for p in worse if p != part), part


def test_a_requirement_addressed_by_its_words_counts_as_well_as_by_its_id() -> None:
    role, _, example = made("vision", 12)
    some_id, text = next((i, t) for i, t in example.facts["requirements"].items() if i.startswith("FR"))
    said = example.answer.replace(f"  - {some_id}\n", f"  - {json.dumps(text, ensure_ascii=False)}\n", 1)
    assert role.score(said, example).parts["alignment"] == 1
    unknown = example.answer.replace("  - C001\n", "  - C001\n  - C009\n", 1)
    assert role.score(unknown, example).parts["alignment"] < 1


def test_requirements_in_other_peoples_prompts_are_found_in_them() -> None:
    role, _, example = made("vision", 12)
    theirs = role.example({"concept": example.question, "answer": example.answer})
    assert theirs.facts["requirements"].keys() == example.facts["requirements"].keys()
    assert role.score(example.answer, theirs).parts["alignment"] == 1


def test_a_missing_review_is_asked_for_by_name() -> None:
    role, spec, example = made("vision", 2)
    vision = example.answer.split("```yaml REVIEW")[0]
    with pytest.raises(ParseFailure, match="the REVIEW block is missing") as raised:
        role.parse(vision, spec)
    assert 0.2 < raised.value.score < 0.8


@pytest.mark.parametrize("name", ROLES)
def test_a_teacher_may_answer_in_json_or_in_a_fence_and_the_student_learns_the_plain_form(name) -> None:
    role, spec, example = made(name, 4)
    if name == "requirements":
        data = load(example.answer)
        sent = [
            json.dumps(data),
            f"Here you go:\n```json\n{json.dumps(data, indent=2)}\n```",
            f"```yaml\n{example.answer}```",
        ]
    else:
        vision, review = (load(part.split("\n", 1)[1]) for part in example.answer.split("```")[1::2])
        sent = [json.dumps({"vision": vision, "review": review}), "Sure!\n\n" + example.answer]
    for text in sent:
        assert role.parse(text, spec)["answer"] == example.answer


@pytest.mark.parametrize("name", ROLES)
def test_the_worked_example_in_the_prompt_is_itself_a_good_answer(name) -> None:
    role = get_domain(name)
    for language in ("en", "es"):
        worked = role.texts()[language]["worked"]
        example = role.example(
            {"language": language, "answer": "", **{k: v for k, v in worked.items() if k != "answer"}}
        )
        score = role.score(role.mended(json.dumps(worked["answer"])), example)
        assert score.total == 1.0 and score.valid and not score.problems


@pytest.mark.parametrize("name", ROLES)
def test_a_prompt_holds_concept_schema_and_an_example_and_the_student_another(name) -> None:
    role, spec, example = made(name, 4)
    prompt = role.prompt(spec)
    assert role.concept(spec).text in prompt.messages[-1][1] and prompt.stable == 2
    assert json.loads(prompt.messages[1][1]).keys() == prompt.schema["properties"].keys()
    assert role.concept(spec).text in example.question and example.system in {
        t["student"] for t in role.texts().values()
    }


def test_min_score_decides_what_is_accepted() -> None:
    strict, spec, example = made("requirements", 6, min_score=0.99)
    spoilt = example.answer.replace("priority: High", "priority: Urgent", 1)
    with pytest.raises(ParseFailure, match=r"score 0.95 is below 0.99.*Urgent") as raised:
        strict.parse(spoilt, spec)
    assert raised.value.score == pytest.approx(1 - 1 / 21)
    assert get_domain("requirements", min_score=0.9).parse(spoilt, spec)["answer"] == spoilt


def test_what_needs_no_judgement_is_repaired_before_an_answer_is_scored() -> None:
    role, spec, example = made("requirements", 6, min_score=1.0)
    sent = example.answer.replace("FR001", "FR01", 1).replace("priority: High", "priority: high")
    assert role.parse(sent, spec)["answer"] == example.answer


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_any_text_survives_being_written(text) -> None:
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        written = dump_yaml({"a": text})
        assert load(written) == {"a": normal(text)} and written.count("\n") == len(written.splitlines()) == 1


@pytest.mark.parametrize("name", ROLES)
def test_the_grammar_is_one_that_llguidance_takes_and_every_offline_answer_is_in_it(name) -> None:
    llguidance = pytest.importorskip("llguidance")
    role = get_domain(name, max_items=4)
    grammar = llguidance.LLMatcher.grammar_from_lark(role.answer_grammar())
    assert not llguidance.LLMatcher.validate_grammar(grammar)
    tokenizer = llguidance.LLTokenizer("byte")
    for spec in role.specs(40, 8):
        record = role.render(role.parse(role.offline_text(spec, 0), spec), spec, PROVENANCE)
        matcher = llguidance.LLMatcher(tokenizer, grammar)
        tokens = list(record.answer.encode())
        assert matcher.validate_tokens(tokens) == len(tokens), record.answer
        assert matcher.consume_tokens(tokens) and matcher.is_accepting()


def test_the_grammar_ends_a_list_at_the_most_items() -> None:
    llguidance = pytest.importorskip("llguidance")
    tokenizer = llguidance.LLTokenizer("byte")
    longer = made("requirements", 3, max_items=6)[2].answer
    assert "C005" in longer
    for most, fits in ((2, False), (6, True)):
        form = llguidance.LLMatcher.grammar_from_lark(get_domain("requirements", max_items=most).answer_grammar())
        matcher = llguidance.LLMatcher(tokenizer, form)
        assert matcher.consume_tokens(list(longer.encode())) == fits


def test_a_manifest_brings_the_role_back_with_its_options() -> None:
    role = recorded_domain({"config": {"domain": "vision", "max_items": 3, "min_score": 0.5, "seed": 1}})
    assert (role.name, role.config.max_items, role.config.min_score) == ("vision", 3, 0.5)


def test_an_empty_block_lacks_every_field() -> None:
    role, _, example = made("vision", 12)
    review = example.answer[example.answer.index("```yaml REVIEW") :]
    score = role.score("```yaml VISION\n{}\n```\n" + review, example)
    assert not score.valid and score.parts["schema"] == pytest.approx(5 / 13)
    assert "the VISION block is missing" in score.problems
