"""What a model sent, read: whatever stands round an answer is undone, and its own words stay as they are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Example, Provenance
from genesis_lab.domains.reading import read_json, read_yaml
from genesis_lab.errors import ParseFailure
from genesis_lab.finetuning.tasks import IntentTask
from genesis_lab.texts import normal
from genesis_lab.validation.judge import load_rubric, read_scores
from genesis_lab.yamls import dump_yaml

PROVENANCE = Provenance(provider="test", model="test", prompt_version="1")
TURNS = {
    "type": "object",
    "properties": {
        "turns": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "properties": {"speaker": {"type": "string"}, "text": {"type": "string"}},
                "required": ["speaker", "text"],
            },
        }
    },
    "required": ["turns"],
}
ANSWER = {
    "turns": [{"speaker": "customer", "text": "Hi [1], {x}?\nSecond"}, {"speaker": "agent", "text": "</p> ```, }"}]
}
SENT = json.dumps(ANSWER)
DRAFT = json.dumps({"turns": [{"speaker": "customer", "text": "draft"}]})

WRAPPED = {
    "prose with braces before": "{x} " + SENT,
    "prose after": SENT + "\n\nNote: {speaker} is one of [customer, agent]. Hope this helps!",
    "a byte order mark": "\ufeff" + SENT,
    "a fence": f"Sure!\n```json\n{SENT}\n``` That's it.",
    "thoughts with braces": "<think>{</think>" + SENT,
    "thoughts in capitals": '<THINKING>say "{" first</THINKING>' + SENT,
    "thoughts in brackets": f"[THINK]{DRAFT}[/THINK]{SENT}",
    "a lone closing tag after a draft": f"I try {DRAFT} … better\n</think>\n{SENT}",
    "thoughts within thoughts": f"<think>a <think>b</think> {DRAFT}</think>{SENT}",
    "thoughts that never end before the answer does": "<think>so the answer is:\n" + SENT,
    "the channel of a reasoning model": (
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|channel|>final<|message|>{SENT}"
    ),
    "several objects": f"For example {DRAFT}, so: {SENT}",
    "another object after it": SENT + ' {"confidence": 0.9}',
    "a trailing comma": SENT[:-1] + ",}",
    "trailing commas everywhere": SENT.replace('"}', '",\n}').replace("}]", "},\n]"),
    "a raw line break in a text": SENT.replace("\\n", "\n"),
    "JSON in JSON": json.dumps(SENT),
    "JSON in JSON in a fence": f"```\n{json.dumps(SENT)}\n```",
    "a list as a text": json.dumps({"turns": json.dumps(ANSWER["turns"])}),
    "each turn as a text": json.dumps({"turns": [json.dumps(turn) for turn in ANSWER["turns"]]}),
    "a list of one": f"[{SENT}]",
    "the list alone": json.dumps(ANSWER["turns"]),
    "a tool's arguments": json.dumps({"name": "conversation", "arguments": SENT}),
    "names spelt otherwise": SENT.replace('"turns"', '"Turns"').replace('"speaker"', '"SPEAKER"'),
    "the schema, then the answer": json.dumps(TURNS) + "\n" + SENT,
}


@pytest.mark.parametrize("text", WRAPPED.values(), ids=WRAPPED)
def test_an_answer_is_read_whatever_stands_round_it(text: str) -> None:
    assert read_json(text, TURNS) == ANSWER


def fenced(text: str) -> str:
    return f"Here it is:\n\n```json\n{text}\n```\n"


WRAPPINGS = [
    fenced,
    lambda text: "\ufeff" + text,
    lambda text: "Of course, {name}: [see below]\n" + text,
    lambda text: text + '\n\nI used {curly} and [square] brackets, "as asked".',
    lambda text: '<think>First { then "turns": [\n</think>\n' + text,
    lambda text: DRAFT + "\nno, wait </think>" + text,
    lambda text: "[THINK]" + DRAFT + "[/THINK]" + text,
    lambda text: f"An example: {DRAFT}\n" + text,
    lambda text: text + ' {"done": true,}',
]
INNERMOST = [
    json.dumps,
    lambda data: json.dumps(data, ensure_ascii=False, indent=2),
    lambda data: json.dumps(json.dumps(data)),
    lambda data: json.dumps([data]),
    lambda data: json.dumps({"answer": data}),
    lambda data: json.dumps({"turns": json.dumps(data["turns"], ensure_ascii=False)}),
    lambda data: json.dumps(data)[:-1] + ",\n}",
    lambda data: json.dumps(data).replace("\\n", "\n").replace("\\t", "\t"),
]
WORDS = (
    st.text("{}[]\"'`,:;<>/\\ \n\tabñé\u0301-") | st.text(st.characters(exclude_categories=["Cs"])) | st.just("<think>")
)


@settings(max_examples=150, deadline=None)
@given(
    said=st.lists(WORDS, min_size=1, max_size=4),
    inner=st.sampled_from(INNERMOST),
    outer=st.lists(st.sampled_from(WRAPPINGS), max_size=4),
)
def test_any_answer_in_any_stack_of_wrappings_comes_back_equal(said, inner, outer) -> None:
    answer = {"turns": [{"speaker": "customer", "text": text} for text in said]}
    if inner is INNERMOST[-1] and any("\\" in text for text in said):
        inner = INNERMOST[0]
    text = inner(answer)
    for wrap in outer:
        text = wrap(text)
    assert read_json(text, TURNS) == normal(answer)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the answer is empty"),
        ("\n\t ", "the answer is empty"),
        ("I can't help with that.", "holds no JSON object, got \"I can't help"),
        (SENT[:-12], "the JSON is cut off after"),
        (f"Such as {DRAFT}. Now mine: {SENT[:-9]}", "the JSON is cut off after"),
        (f"<think>{DRAFT} or else", "ends in its thoughts"),
        ('{"messages": []}', "turns is missing; messages is no known field"),
        ('{"turns": null}', "turns is missing"),
        ('{"turns": "hello"}', "turns must be a list, got 'hello'"),
        ('{"turns": []}', "turns is empty"),
        ('{"turns": [{"speaker": "agent"}]}', "turns.1.text is missing"),
        ('{"turns": [} ]', "the JSON is broken: Expecting value"),
        ("[" * 5_000, "nested too deeply"),
    ],
)
def test_what_cant_be_read_says_what_was_found(text: str, reason: str) -> None:
    with pytest.raises(ParseFailure) as raised:
        read_json(text, TURNS)
    assert reason in str(raised.value)


@pytest.mark.parametrize("piece", ["{", "[", '["', '{"a":', "<think>", "</think>", '"{', "[1,", '{"turns":"{'])
def test_an_answer_that_is_nothing_but_beginnings_is_refused(piece: str) -> None:
    with pytest.raises(ParseFailure):
        read_json(piece * 20_000, TURNS)


def test_a_conversation_is_read_by_the_same_means_with_speakers_however_spelt() -> None:
    domain = get_domain("conversations", total=20)
    spec = next(s for s in domain.specs(20, 1) if s.attributes["turns"] >= 3)
    plain = domain.offline_text(spec, 0)
    data = json.loads(plain)
    for turn in data["turns"]:
        turn["speaker"] = {"customer": "CLIENTE", "agent": "Assistant:"}[turn["speaker"]]
    sent = f"<think>{{</think>```json\n{json.dumps([data])[:-1]},]\n```\nAnything {{else}}?"
    assert domain.parse(sent, spec)["turns"] == domain.parse(plain, spec)["turns"]


def test_a_judges_scores_are_read_by_the_same_means() -> None:
    rubric = load_rubric()
    scores = {criterion.name: 4 for criterion in rubric.criteria}
    sent = json.dumps(scores | {"reason": "fine"})
    for text in (f"<think>{{'label_fit': 1}}</think>{sent}", f"{{draft}} [{sent}]", json.dumps(sent), sent[:-1] + ",}"):
        assert read_scores(text, rubric) == (scores, "fine")
    with pytest.raises(ParseFailure, match="natural is missing"):
        read_scores('{"label_fit": 3}', rubric)


def test_an_intent_named_after_thoughts_is_the_intent() -> None:
    task = IntentTask(["card_arrival", "top_up"])
    example = Example("1", "g", "en", "", "", "card_arrival")
    assert task.score("<think>top_up? no\n</think>\n\ncard_arrival\n", example).total == 1.0
    assert not task.score("card_arrival, I think", example).valid


def role_answer(name: str):
    role = get_domain(name, total=12)
    spec = role.specs(12, 3)[4]
    return role, spec, role.parse(role.offline_text(spec, 0), spec)["answer"]


ROUND_YAML = [
    "{}\n\nAnything: else?",
    "{}\n\nI hope this helps: tell me more.\n",
    "Here you go: the answer\n\n{}",
    "Note: as asked.\n---\n{}---\nDone!",
    "\ufeff{}",
    "<think>\ntitle: a draft: {{\nproduct_name: x\n</think>\n{}",
    "let me think: title: x\n</think>\n\n{}\nThat is all",
    "```yaml\n{}```",
    "Sure!\n```yaml\n{}``` Hope it helps",
]


@pytest.mark.parametrize("around", ROUND_YAML)
def test_requirements_in_yaml_are_read_whatever_stands_round_them(around: str) -> None:
    role, spec, answer = role_answer("requirements")
    assert role.parse(around.format(answer), spec)["answer"] == answer


def test_a_role_answer_in_json_is_read_whatever_stands_round_it() -> None:
    from genesis_lab.domains.reading import load

    role, spec, answer = role_answer("requirements")
    data = load(answer)
    draft = json.dumps(data | {"title": "A draft title of nothing"})
    for text in (f"<think>{draft}</think>{json.dumps([data])}", f"{{x}} {draft} {json.dumps(data)[:-1]},}} {{y}}"):
        assert role.parse(text, spec)["answer"] == answer


@pytest.mark.parametrize(
    "around", ["<think>```yaml VISION\nproduct_name: draft\n```</think>\n{}", "Sure: see below\n\n{}\nAnything: else?"]
)
def test_a_vision_is_read_whatever_stands_round_it(around: str) -> None:
    role, spec, answer = role_answer("vision")
    assert role.parse(around.format(answer), spec)["answer"] == answer
    bare = "".join(line + "\n" for line in answer.splitlines() if not line.startswith("```"))
    assert role.parse(around.format(bare), spec)["answer"] == answer
    indented = "".join(f"  {line}\n" if not line.startswith("```") else "" for line in answer.splitlines())
    both = "vision:\n" + indented.replace("  status:", "review:\n  status:", 1)
    assert role.parse(both, spec)["answer"] == answer


ROUND = [
    lambda text: text + "\n\nAnything: else?",
    lambda text: text + "\nHope this helps! [Tell me] {more}: thanks",
    lambda text: "Of course: here you go\n\n" + text,
    lambda text: "<think>\ntitle: draft\ndescription: {\n</think>\n" + text,
    lambda text: "title: no, wait\n</think>\n\n" + text,
    lambda text: "\ufeff" + text,
    lambda text: "Note that\n---\n" + text + "---\nDone",
]


@settings(max_examples=150, deadline=None)
@given(
    said=st.lists(WORDS, min_size=2, max_size=2),
    fence=st.sampled_from(["", "```", "```yaml", "~~~"]),
    round_=st.lists(st.sampled_from(ROUND), max_size=3),
)
def test_any_yaml_in_any_stack_of_prose_comes_back_equal(said, fence, round_) -> None:
    items = [{"id": "FR001", "description": said[1], "priority": "High"}, {"id": "FR002", "description": said[0]}]
    answer = {"title": said[0], "description": said[1], "functional_requirements": items}
    text = dump_yaml(answer)
    text = f"{fence}\n{text}{fence[:3]}" if fence else text
    for wrap in round_:
        text = wrap(text)
    assert read_yaml(text, tuple(answer))[0] == normal(answer)
