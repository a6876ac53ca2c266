"""What the quality report says of a good dataset, of broken ones, and of the same one cut in other ways."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from genesis_lab.dataset import DatasetWriter, open_dataset
from genesis_lab.domains.base import Provenance
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.validation import variety
from genesis_lab.validation.checks import count, merge
from genesis_lab.validation.quality import finish, validate
from genesis_lab.validation.text import first_words, hashed, normalised
from genesis_lab.validation.variety import distinct_bigrams, pattern_concentration, self_similarity
from genesis_lab.yamls import shipped

Report = dict[str, Any]
DOMAIN = Conversations(ConversationsConfig(total=400, categories=("refunds", "transfers")))
TARGETS = {target.name: target.shares for target in DOMAIN.targets()}


@dataclass(frozen=True)
class Real:
    """A reference as `realism` needs it."""

    texts: list[str]
    labels: list[str]
    name: str = "test"
    language: str = "en"


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """400 offline conversations about refunds and transfers."""
    return _conversations(400, seed=42)


@pytest.fixture(scope="module")
def good(records: list[dict[str, Any]]) -> Report:
    return _report(records)


def test_a_good_dataset_scores_high_and_the_mean_is_of_what_was_measured(good: Report) -> None:
    assert good["overall"] is not None and good["overall"] >= 90
    assert good["completeness"]["value"] == 1.0
    assert good["realism"]["value"] is None and good["not_measured"]["realism"] == "no reference was given"
    measured = [s["value"] for s in _scores(good) if s["value"] is not None]
    assert good["overall"] == pytest.approx(100 * np.mean(measured))


def test_numbers_do_not_depend_on_how_the_data_is_cut(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records)
    for i in range(0, 400, 7):
        broken[i]["sentiment"] = "Positive"
        broken[i]["conversation_id"] = broken[0]["conversation_id"]
    reference = Real([r["turns"][0]["text"] for r in records[:60]], [r["intent"] for r in records[:60]])
    whole = _report(broken, reference=reference)
    for pieces in (3, 17):
        assert _report(broken, reference=reference, pieces=pieces) == whole


def test_a_dataset_folder_gives_the_same_report_in_a_process_pool(
    records: list[dict[str, Any]], good: Report, tmp_path: Path
) -> None:
    config = {"domain": "conversations"} | DOMAIN.config.model_dump(mode="json")
    with DatasetWriter(tmp_path / "data", "conversations", {"config": config}) as writer:
        writer.write(records)
    dataset = open_dataset(tmp_path / "data")
    report = validate(dataset, partitions=2, executor="processes")
    assert report == good


def _first_speaker(record: dict[str, Any]) -> None:
    record["turns"][0]["speaker"] = "agent"


def _spanish_turn(record: dict[str, Any]) -> None:
    record["language"] = "en"
    record["turns"][-1]["text"] = "No quiero esperar más, quiero que me devuelvan el dinero de la compra hoy mismo."


def _set(name: str, value: Any) -> Any:
    return lambda record: record.update({name: value})


@pytest.mark.parametrize(
    ("fault", "score", "part", "says"),
    [
        (_set("intent", "refund_not_showing_up"), "consistency", "spelling", "did you mean 'Refund_not_showing_up'"),
        (_set("emotion_arc", "Frustrated -> happy"), "consistency", "spelling", "emotion_arc 'Frustrated -> happy'"),
        (_set("sentiment", None), "completeness", "fields", "sentiment is missing"),
        (_set("turns", []), "completeness", "fields", "turns is missing"),
        (_set("conversation_id", None), "completeness", "unique_ids", "there is no id"),
        (_set("turn_count", 99), "consistency", "turn_count", "turn_count is 99, there are"),
        (_set("category", "top_up"), "consistency", "category", "category is top_up"),
        (_set("complexity", "complex"), "consistency", "complexity", "complex means 8 to 12 turns"),
        (_first_speaker, "consistency", "turn_order", "the first speaker must be the customer"),
        (_spanish_turn, "consistency", "language", "reads as es, declared en"),
    ],
)
def test_what_is_wrong_is_named_with_the_record(
    records: list[dict[str, Any]], fault: Any, score: str, part: str, says: str
) -> None:
    broken = copy.deepcopy(records[:40])
    place = next(i for i, r in enumerate(broken) if r["complexity"] == "simple" and len(r["turns"]) > 2)
    fault(broken[place])
    found = _part(_report(broken), score, part)
    (offence,) = [o for o in found["offences"] if o["row"] == place]
    assert says in offence["reason"]
    assert offence["record_id"] == broken[place]["conversation_id"]


def test_arc_and_resolution_that_contradict_the_other_labels_are_named(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records[:5])
    broken[0] |= {"emotion_arc": "stable_positive", "sentiment": "negative"}
    broken[1] |= {"resolution_status": "resolved", "language": "en"}
    broken[1]["turns"][-1] = {"speaker": "agent", "text": "I'm transferring you to our disputes team now."}
    report = _report(broken)
    assert "does not go with negative" in _part(report, "consistency", "emotion_arc")["offences"][0]["reason"]
    assert _part(report, "consistency", "resolution")["offences"][0]["reason"].endswith(
        "the last turns read as escalated"
    )


def test_repeated_ids_count_as_seen_in_the_wild(records: list[dict[str, Any]]) -> None:
    broken = [r | {"conversation_id": f"conv_{i % 31}"} for i, r in enumerate(copy.deepcopy(records[:100]))]
    part = _part(_report(broken), "completeness", "unique_ids")
    assert part["value"] == pytest.approx(0.31) and part["failed"] == 69
    assert part["offences"][0]["record_id"] == "conv_0" and part["offences"][0]["reason"] == "the id of row 0 again"


def test_repeated_openings_are_found_exactly_and_nearly(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records[:20])
    text = "I returned the shoes to the shop two weeks ago and the money is still not on my account."
    for i, said in enumerate((text, text.upper().replace(".", "!!"), text.replace("two", "three"))):
        broken[i]["turns"][0]["text"] = said
        broken[i]["intent"] = "request_refund"
    report = _report(broken)
    assert [(o["row"], o["reason"]) for o in _part(report, "diversity", "unique_openings")["offences"]] == [
        (1, "opens like row 0")
    ]
    assert {o["row"] for o in _part(report, "diversity", "near_duplicates")["offences"]} == {1, 2}


def test_swapped_labels_are_listed_with_the_intent_they_read_like(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records)
    swapped = list(range(0, 400, 40))
    for i in swapped:
        broken[i]["intent"] = "cancel_transfer" if broken[i]["intent"] != "cancel_transfer" else "request_refund"
    part = _part(_report(broken), "consistency", "label_fidelity")
    found = {o["row"] for o in part["offences"]}
    assert len(found & set(swapped)) >= 6 and len(found - set(swapped)) <= 4
    assert part["offences"][0]["reason"].startswith("labelled ")


def test_labels_as_good_as_random_get_no_credit(records: list[dict[str, Any]]) -> None:
    rng = np.random.default_rng(0)
    intents = rng.permutation([r["intent"] for r in records]).tolist()
    broken = [r | {"intent": intent} for r, intent in zip(records, intents, strict=True)]
    part = _part(_report(broken), "consistency", "label_fidelity")
    assert part["value"] == 0.0 and "no better than guessing" in part["detail"]["finding"]


@pytest.mark.parametrize("column", [*Conversations.record_type.model_fields])
@pytest.mark.parametrize("kind", ["null", "absent", "wrong type"])
def test_any_column_may_be_broken(records: list[dict[str, Any]], column: str, kind: str) -> None:
    table = pa.Table.from_pylist(records[:30])
    place = table.column_names.index(column)
    if kind == "absent":
        table = table.drop_columns([column])
    elif kind == "null":
        table = table.set_column(place, column, pa.nulls(30, table[column].type))
    else:
        table = table.set_column(place, column, pa.array([[i, 2.5] for i in range(30)]))
    report = finish(count(table, DOMAIN), DOMAIN, targets=TARGETS)
    json.dumps(report, allow_nan=False)
    if column != "provenance" or kind != "wrong type":
        assert _part(report, "completeness", "fields")["detail"]["missing"][column] == 30
    if kind == "wrong type" and column != "provenance":
        assert "expected" in report["unreadable_columns"][column]


def test_no_record_is_not_a_zero(records: list[dict[str, Any]]) -> None:
    report = finish(count(pa.Table.from_pylist(records[:1]).slice(0, 0), DOMAIN), DOMAIN)
    assert report["records"] == 0 and report["overall"] is None and report["verdict"] is None
    assert all(score["value"] is None and score["reason"] for score in _scores(report))


def test_one_record_and_one_class_say_what_can_not_be_measured(records: list[dict[str, Any]]) -> None:
    one = _report(records[:1])
    assert one["records"] == 1 and one["completeness"]["value"] == 1.0
    assert _part(one, "diversity", "self_similarity")["value"] is None
    single = [r for r in records if r["intent"] == "cancel_transfer"]
    assert "two intents" in _report(single)["not_measured"]["consistency.label_fidelity"]


def test_realism_is_high_for_the_same_source_and_low_for_another(records: list[dict[str, Any]]) -> None:
    english = [r for r in _conversations(400, seed=7) if r["language"] == "en"]
    labels = [r["intent"] for r in english]
    same = _report(records, reference=Real([r["turns"][0]["text"] for r in english], labels))["realism"]
    strange = [f"lorem ipsum {i} dolor sit amet {i % 7} consectetur" for i in range(len(english))]
    other = _report(records, reference=Real(strange, labels))["realism"]
    assert same["value"] is not None and other["value"] is not None
    assert same["value"] > 0.85 and other["value"] < 0.5
    assert _of(other, "two_sample")["value"] == pytest.approx(0, abs=0.02)


def test_copies_of_the_reference_are_named_without_their_text(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records[:50])
    secret = "Why has the company in Lisbon not yet sent my refund for the blue bicycle?"
    broken[7]["turns"][0]["text"] = secret
    broken[9]["turns"][0]["text"] = secret.replace("yet ", "")
    filler = [f"Sentence number {i} about something else entirely, {i * i}." for i in range(30)]
    reference = Real([*filler, secret], ["request_refund"] * 31)
    report = _report(broken, reference=reference)
    assert [(o["row"], o["reason"]) for o in report["contamination"]["offences"]] == [
        (7, "is sentence 30 of the reference"),
        (9, "is nearly sentence 30 of the reference"),
    ]
    assert "Lisbon" not in json.dumps(report)


def test_personal_data_is_counted_but_not_repeated(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records[:10])
    broken[3]["turns"][0]["text"] = "My card 4111 1111 1111 1111 is lost, write to jane.doe@example.org please."
    report = _report(broken)
    assert {k: p["failed"] for k, p in report["personal_data"].items()} == {
        "card": 1,
        "iban": 0,
        "email": 1,
        "phone": 0,
    }
    assert report["personal_data"]["card"]["offences"][0]["reason"] == "turn 1 holds a card number"
    assert "4111" not in json.dumps(report)


def test_openings_that_mean_the_same_count_when_there_is_an_embedder(records: list[dict[str, Any]]) -> None:
    def embed(texts: Any) -> np.ndarray:
        return np.array([[1.0, 0.0] if "refund" in t.lower() else [np.cos(i), np.sin(i)] for i, t in enumerate(texts)])

    total = count(pa.Table.from_pylist(records), DOMAIN)
    part = _part(finish(total, DOMAIN, embed=embed), "diversity", "semantic_duplicates")
    assert (
        part["value"] is not None
        and part["failed"]
        and part["offences"][0]["reason"].startswith("says the same as row")
    )


def test_spanish_is_not_measured_against_english_people(records: list[dict[str, Any]]) -> None:
    spanish = [copy.deepcopy(record) for record in records if record["language"] == "es"]
    english = [copy.deepcopy(record) for record in records if record["language"] == "en"]
    alone, both, other = (_report(some)["diversity"] for some in (spanish, [*english, *spanish], english))
    for name in ("distinct_2", "self_similarity", "opening_patterns"):
        assert _of(alone, name)["value"] is None and _of(alone, name)["reason"] == "no human level for Spanish"
        assert _of(both, name)["value"] == _of(other, name)["value"] is not None
        assert "no human level for Spanish" in _of(both, name)["meaning"]
        assert "Spanish" not in _of(other, name)["meaning"]
    assert alone["value"] is not None and alone["value"] == np.mean(
        [p["value"] for p in alone["parts"] if p["value"] is not None]
    )


def test_texts_without_a_word_in_common_are_no_proof_of_wrong_labels(records: list[dict[str, Any]]) -> None:
    broken = copy.deepcopy(records[:60])
    for i, record in enumerate(broken):
        record["intent"] = ("request_refund", "card_arrival")[i % 2]
        for turn in record["turns"]:
            turn["text"] = f"word{i}"
    part = _part(_report(broken), "consistency", "label_fidelity")
    assert part["value"] is None and part["reason"] and "nothing to learn from" in part["reason"]


def test_levels_of_real_people_are_what_they_were_measured_to_be(real_banking77: Path) -> None:
    import pandas as pd

    pool = pd.read_csv(real_banking77 / "train_pool.csv")
    words = normalised(pool["text"])
    cells = pd.Series(words.to_pylist()).groupby(pool["category"]).agg(list).to_dict()
    measured = {
        "distinct_2": distinct_bigrams(cells).mean(),
        "self_similarity": self_similarity(cells)[0],
        "opening_patterns": pattern_concentration(hashed(pa.array(pool["category"])), first_words(words)),
    }
    levels = shipped(Path(variety.__file__).with_name("human_levels.yaml"))["en"]
    assert measured == pytest.approx(levels, abs=1e-3)


def _conversations(total: int, seed: int) -> list[dict[str, Any]]:
    domain = Conversations(DOMAIN.config.model_copy(update={"total": total, "seed": seed}))
    provenance = Provenance(provider="offline", model="grammar", prompt_version="1")
    specs = domain.specs(total, seed)
    return [
        domain.render(domain.parse(domain.offline_text(spec, 0), spec), spec, provenance).model_dump(mode="json")
        for spec in specs
    ]


def _scores(report: Report) -> list[Report]:
    return [report[name] for name in ("completeness", "consistency", "realism", "diversity")]


def _of(score: Report, name: str) -> Report:
    (found,) = [part for part in score["parts"] if part["name"] == name]
    return found


def _part(report: Report, score: str, name: str) -> Report:
    return _of(report[score], name)


def _report(records: list[dict[str, Any]], *, reference: Real | None = None, pieces: int = 1) -> Report:
    table = pa.Table.from_pylist(records)
    step = -(-len(records) // pieces)
    blocks = [table.slice(start, step) for start in range(0, len(records), step)]
    total = reduce(merge, (count(block, DOMAIN) for block in blocks))
    return finish(total, DOMAIN, targets=TARGETS, reference=reference)
