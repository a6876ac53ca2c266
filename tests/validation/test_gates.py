"""The verdict: a good dataset passes every gate, a spoilt one fails at the gate that its fault belongs to."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genesis_lab.domains.base import Provenance
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.validation import gates
from genesis_lab.validation.checks import count
from genesis_lab.validation.quality import finish

Records = list[dict[str, Any]]
PROVENANCE = Provenance(provider="offline", model="grammar", prompt_version="1")


def made(total: int, **options: Any) -> tuple[Conversations, Records]:
    """Offline conversations, two thirds as varied as the demonstration's: 15 per label and language."""
    domain = Conversations(ConversationsConfig(total=total, **options))
    specs = domain.specs(total, domain.config.seed)
    answers = [domain.render(domain.parse(domain.offline_text(spec, 0), spec), spec, PROVENANCE) for spec in specs]
    return domain, [answer.model_dump(mode="json") for answer in answers]


DOMAIN, GOOD = made(400, categories=("refunds", "transfers"))


def report(records: Records, domain: Conversations = DOMAIN, **options: Any) -> dict[str, Any]:
    targets = {target.name: target.shares for target in domain.targets()}
    return finish(count(pa.Table.from_pylist(records), domain), domain, targets=targets, **options)


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    return {gate["name"]: gate["outcome"] for gate in found["gates"]}


def test_a_good_dataset_passes_on_form_and_says_that_its_worth_is_not_measured() -> None:
    found = report(GOOD)
    assert found["verdict"] == "PASS on form; worth not measured"
    assert outcomes(found).pop("contamination") == "not measured"
    assert set(outcomes(found).values()) == {"pass", "not measured"}
    json.dumps(found, allow_nan=False)


def repeated_ids(records: Records) -> None:
    for i, record in enumerate(records):
        record["conversation_id"] = f"conv_{i % 31}"


def wrong_turn_counts(records: Records) -> None:
    for record in records[:160]:
        record["turn_count"] += 1


def random_words(records: Records) -> None:
    rng, words = np.random.default_rng(0), sorted({w for r in records for t in r["turns"] for w in t["text"].split()})
    for record in records:
        for turn in record["turns"]:
            turn["text"] = " ".join(rng.choice(words, len(turn["text"].split())))


def shuffled_turns(records: Records) -> None:
    rng = np.random.default_rng(0)
    for record in records:
        record["turns"] = [record["turns"][i] for i in rng.permutation(len(record["turns"]))]


def random_labels(records: Records) -> None:
    rng = np.random.default_rng(0)
    for record, i in zip(records, rng.permutation(len(records)), strict=True):
        record["intent"], record["category"] = GOOD[i]["intent"], GOOD[i]["category"]


def other_language(records: Records) -> None:
    for record in records[::3]:
        record["language"] = "es" if record["language"] == "en" else "en"


def one_opening(records: Records) -> None:
    for record in records[::4]:
        record["turns"][0]["text"] = "I would like some help with my account today, please, if you can."


def long_stories(records: Records) -> None:
    story = "So, let me tell you from the very beginning what happened to me last week, because it is a long story: "
    for record in records:
        record["turns"][0]["text"] = story + record["turns"][0]["text"]


def one_scarce_label(records: Records) -> None:
    records[:] = [r for r in records if r["intent"] != "cancel_transfer"]


@pytest.mark.parametrize(
    ("spoil", "gate", "says"),
    [
        (repeated_ids, "unique ids", "369 of 400 records have no id of their own"),
        (wrong_turn_counts, "schema and structure", "160 of 400 records fail the check of turn count"),
        (random_words, "label fidelity", "no better than guessing"),
        (random_words, "separation from neighbours", "least apart"),
        (shuffled_turns, "schema and structure", "fail the check of turn order"),
        (random_labels, "label fidelity", "no better than guessing"),
        (random_labels, "separation from neighbours", "nearest neighbour"),
        (other_language, "language", "read as another language than declared"),
        (one_opening, "near-duplicates", "99 of 400 records nearly repeat an earlier opening"),
        (long_stories, "openings like people's", "times as long as people's in short chats"),
        (one_scarce_label, "enough examples per label", "the scarcest label, cancel_transfer, has 0 examples"),
    ],
)
def test_a_spoilt_dataset_fails_for_the_reason_it_was_spoilt(
    spoil: Callable[[Records], None], gate: str, says: str
) -> None:
    records = copy.deepcopy(GOOD)
    spoil(records)
    found = report(records)
    (failed,) = [one for one in found["gates"] if one["name"] == gate]
    assert found["verdict"] == "FAIL" and failed["outcome"] == "fail"
    assert says in failed["says"] and failed["todo"]
    assert f"{gate} ({failed['says']})" in gates.sentence(found["gates"])


def test_a_hundred_conversations_as_seen_in_the_wild_fail_at_three_gates() -> None:
    domain, all_intents = made(154)
    records = list({record["intent"]: record for record in all_intents}.values())
    records = [*records, *(r for r in all_intents if r not in records)][:100]
    for i, record in enumerate(records):
        record["conversation_id"] = f"conv_{i % 31}"
        record["turn_count"] += i < 40
    found = report(records, domain)
    assert found["verdict"] == "FAIL" and found["overall"] > 80
    failed = {name for name, outcome in outcomes(found).items() if outcome == "fail"}
    assert failed == {"unique ids", "schema and structure", "enough examples per label"}


def test_of_ten_records_nothing_can_be_told() -> None:
    found = report(GOOD[:10])
    assert found["verdict"] == "WARN" and "fail" not in outcomes(found).values()
    assert "can't be told: 10 records are too few" in gates.sentence(found["gates"])


def test_a_tenth_of_the_labels_at_random_is_no_pass() -> None:
    rng, records = np.random.default_rng(0), copy.deepcopy(GOOD)
    for i in rng.choice(400, 60, replace=False):
        other = GOOD[rng.integers(400)]
        records[i]["intent"], records[i]["category"] = other["intent"], other["category"]
    found = report(records)
    assert found["verdict"] in ("WARN", "FAIL") and outcomes(found)["label fidelity"] != "pass"


def test_right_labels_on_short_messages_are_not_blamed_on_a_classifier_that_can_not_learn_them() -> None:
    domain, messages = made(770, records="utterances")
    found = report(messages, domain)
    assert outcomes(found)["label fidelity"] == "not measured" and "fail" not in outcomes(found).values()
    (fidelity,) = (gate for gate in found["gates"] if gate["name"] == "label fidelity")
    assert "too few to blame single ones" in fidelity["says"]


def test_what_an_import_does_not_have_is_no_fault_but_a_hole_in_it_is() -> None:
    plain = [record | dict.fromkeys(("sentiment", "emotion_arc", "resolution_status")) for record in GOOD]
    assert report(plain)["verdict"] == "PASS on form; worth not measured"
    assert outcomes(report([*plain[:300], *GOOD[300:]]))["schema and structure"] == "fail"


def test_what_a_language_model_wrote_as_stories_is_three_times_as_long_as_people_write(real_banking77: Path) -> None:
    recorded = real_banking77.parent / "teacher_recordings" / "conversations_prompt_1.jsonl"
    options: dict[str, Any] = {"complexity_shares": {"simple": 1.0}, "max_turns": 3}
    domain = Conversations(ConversationsConfig(total=770, english_share=1.0, **options))
    rows = [json.loads(line) for line in recorded.read_text(encoding="utf-8").splitlines()]
    specs = domain.specs(770, 42)
    records = [
        domain.render(domain.parse(r["answer"], s), s, PROVENANCE).model_dump(mode="json")
        for r, s in zip(rows, specs, strict=True)
    ]
    found = report(records, domain)
    failed = [gate for gate in found["gates"] if gate["outcome"] == "fail"]
    assert [gate["name"] for gate in failed] == ["openings like people's"]
    assert "3.0 times as long as people's in short chats (documented default): 30 words against 10" in failed[0]["says"]


def card(difference: float, half: float, beats: bool | None) -> dict[str, Any]:
    def interval(value: float) -> dict[str, float]:
        return {"estimate": value, "low": value - half, "high": value + half, "n": 500}

    student = {
        "student": "tfidf", "title": "TF-IDF", "accuracy": interval(0.5), "floor": interval(0.5 - difference),
        "above_floor": interval(difference), "beats_floor": beats,
    }  # fmt: skip
    return {"students": [student], "not_measured": {}}


@pytest.mark.parametrize(
    ("scorecard", "verdict"),
    [
        (card(0.2, 0.05, True), "PASS"),
        (card(0.02, 0.05, None), "WARN"),
        (card(0.0, 0.01, False), "FAIL"),
        (card(-0.2, 0.05, False), "FAIL"),
        ({"students": [], "not_measured": {"scorecard": "no reference"}}, "PASS on form; worth not measured"),
        (None, "PASS on form; worth not measured"),
        (card(0.2, 0.05, True) | {"reference": {"kind": "stand-in"}}, "PASS on form; worth not measured"),
    ],
)
def test_worth_is_the_last_gate(scorecard: dict[str, Any] | None, verdict: str) -> None:
    form = report(GOOD)["gates"]
    assert gates.verdict([*form, *gates.worth_gates(scorecard)]) == verdict


def test_a_classifier_that_is_mostly_wrong_takes_the_pass_away() -> None:
    accuracy = {"estimate": 0.08, "low": 0.04, "high": 0.14, "n": 62}
    training = {"chosen": "tfidf", "reference": None, "evaluation": {"accuracy": accuracy}}
    reports = {"quality": report(GOOD), "training": training, "scorecard": card(0.2, 0.05, True)}
    found = gates.verdict_on(reports)["gates"]
    assert gates.verdict(found) == "FAIL" and "tfidf gets 8% right" in gates.sentence(found)


def test_every_threshold_has_its_reason() -> None:
    assert all(rule["why"] and rule["todo"] and "at_least" in rule for rule in gates.rules().values())
