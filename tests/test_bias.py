from __future__ import annotations

import json
import re

import numpy as np
import pyarrow as pa
import pytest
import yaml

from genesis_lab.bias import Thresholds, check_bias, follow_up_plan, write_follow_up
from genesis_lab.bias.check import tally
from genesis_lab.bias.measures import association, cohens_w, fit_p, independence_p
from genesis_lab.domains.base import Facets, Provenance
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for, generate
from genesis_lab.parameters import from_parameters
from genesis_lab.pipeline import load_pipeline
from records import conversation, write

HALVES = {"en": 0.5, "es": 0.5}
SENTIMENTS = {"positive": 0.3, "neutral": 0.5, "negative": 0.2}


def records(counts, **fixed):
    """Conversations by (language, sentiment) to number."""
    pairs = [pair for pair, n in counts.items() for _ in range(n)]
    return [
        conversation(i, language=language, sentiment=sentiment, intent="top_up_failed", category="top_up", **fixed)
        for i, (language, sentiment) in enumerate(pairs)
    ]


def finding(report, name):
    return next(f for f in report["findings"] if f["name"] == name)


def planned(config):
    """Records of exactly this plan, with next to no text."""
    domain = Conversations(config)
    return [
        conversation(i, category=domain.taxonomy.category_of[spec.attributes["intent"]])
        | {k: v for k, v in spec.attributes.items() if k != "turns"}
        for i, spec in enumerate(domain.specs(config.total, config.seed))
    ]


@pytest.fixture(scope="module")
def offline_records():
    domain = Conversations(ConversationsConfig(total=154))
    provenance = Provenance(provider="offline", model="grammar", prompt_version="1")
    specs = domain.specs(154, 1)
    return [domain.render(domain.parse(domain.offline_text(s, 0), s), s, provenance).model_dump() for s in specs[:120]]


def test_a_dataset_as_planned_has_no_finding(tmp_path):
    config = ConversationsConfig(total=1540)
    report = check_bias(write(tmp_path / "d", planned(config), config=config.model_dump(mode="json")))
    assert report["severity"] == "none" and report["records"] == 1540
    assert [fit["attribute"] for fit in report["fits"]] == [
        "intent", "category", "language", "sentiment", "complexity", "resolution_status", "resolution_time",
    ]  # fmt: skip
    assert all(fit["total_variation"] < 0.001 and fit["p_holm"] == 1 for fit in report["fits"])
    assert report["coverage"]["planned"] == 154 and not report["coverage"]["missing"]
    assert "as planned" in finding(report, "sentiment")["sentence"]
    with pytest.raises(InvalidInput, match="asks for no records"):
        write_follow_up(report, tmp_path / "more.yaml", stage=10)
    assert follow_up_plan(report) is None


def test_a_share_far_from_its_target_is_found_with_the_records_to_add(tmp_path):
    data = write(tmp_path / "d", records({("en", "neutral"): 160, ("es", "neutral"): 40}))
    report = check_bias(data, targets={"language": HALVES})
    found = finding(report, "language")
    assert found["severity"] == "high" and found["n"] == 200
    assert found["interval"]["low"] < 0.6 < found["interval"]["high"]
    assert "en is 80.0%" in found["sentence"] and "planned are 50.0%" in found["sentence"]
    assert "120 more es" in found["recommendation"]
    assert report["fits"][0]["observed"] == {"en": 160, "es": 40} and "+60 records" in found["sentence"]


def test_after_the_follow_up_plan_the_targets_are_met(tmp_path):
    config = ConversationsConfig(total=300, categories=("top_up",))
    biased = planned(config.model_copy(update={"english_share": 0.7}))
    biased = [r for i, r in enumerate(biased) if r["sentiment"] != "negative" or i % 2]
    manifest = {"config": config.model_dump(mode="json")}
    before = check_bias(write(tmp_path / "a", biased, **manifest))
    assert {f["name"] for f in before["findings"] if f["severity"] != "none"} >= {"language", "sentiment"}
    more = planned(ConversationsConfig(**follow_up_plan(before)))
    after = check_bias(write(tmp_path / "b", biased + more, **manifest))
    assert after["severity"] == "none"
    assert all(fit["total_variation"] < 0.01 for fit in after["fits"] if fit["attribute"] != "intent")


def test_an_association_names_the_cell_and_its_follow_up_ends_it(tmp_path):
    counts = {("en", "positive"): 150, ("en", "negative"): 50, ("es", "positive"): 50, ("es", "negative"): 150}
    biased = records(counts)
    report = check_bias(write(tmp_path / "a", biased))
    found = finding(report, "language × sentiment")
    assert found["severity"] == "medium" and 0.4 < found["effect"] < 0.5
    assert re.search("occurs (150|50) times, 100 would be expected", found["sentence"])
    assert "100 more es/positive" in found["recommendation"] and "100 more en/negative" in found["recommendation"]
    plan = follow_up_plan(report)
    assert plan["total"] == 200 and plan["cells"] == [
        {"n": 100, "language": "en", "sentiment": "negative"},
        {"n": 100, "language": "es", "sentiment": "positive"},
    ]
    after = check_bias(write(tmp_path / "b", biased + planned(ConversationsConfig(**plan))))
    assert finding(after, "language × sentiment")["effect"] < 0.01


def test_every_empty_cell_of_intent_and_language_is_named(tmp_path):
    config = ConversationsConfig(total=400, categories=("top_up", "refunds"))
    kept = [r for r in planned(config) if (r["intent"], r["language"]) != ("request_refund", "es")]
    report = check_bias(write(tmp_path / "d", kept, config=config.model_dump(mode="json")))
    assert report["coverage"]["missing"] == [("request_refund", "es")]
    found = finding(report, "coverage")
    assert found["severity"] != "none" and "29 of 30" in found["sentence"]
    assert follow_up_plan(report)["cells"] == [{"n": 13, "intent": "request_refund", "language": "es"}]


@pytest.mark.parametrize("total", [154, 308, 1_540])
def test_one_missing_record_is_one_record_asked_for(tmp_path, total):
    config = ConversationsConfig(total=total)
    complete = planned(config)
    wanted = next(r for r in complete if r["language"] == "es")
    cell = [r for r in complete if (r["intent"], r["language"]) == (wanted["intent"], "es")]
    kept = [r for r in complete if r not in cell]
    report = check_bias(write(tmp_path / "a", kept, config=config.model_dump(mode="json")))
    assert follow_up_plan(report)["cells"] == [{"n": len(cell), "intent": wanted["intent"], "language": "es"}]
    mended = kept + planned(ConversationsConfig(**follow_up_plan(report)))
    assert len(mended) == total
    after = check_bias(write(tmp_path / "b", mended, config=config.model_dump(mode="json")))
    assert not after["coverage"]["missing"] and not after["additions"]


def test_every_empty_cell_is_asked_for_however_small_its_share(tmp_path):
    config = ConversationsConfig(total=40)
    report = check_bias(write(tmp_path / "d", planned(config), config=config.model_dump(mode="json")))
    cells = follow_up_plan(report)["cells"]
    assert {(cell["intent"], cell["language"]) for cell in cells} == set(report["coverage"]["missing"])
    assert sum(cell["n"] for cell in cells) == len(report["coverage"]["missing"]) == 114


def test_every_planned_attribute_is_held_against_its_target(tmp_path):
    config = ConversationsConfig(total=1_540)
    for target in Conversations(config).targets():
        shares = {value: share for value, share in target.shares.items() if share}
        if target.name in ("intent", "category"):
            continue
        most = max(shares, key=shares.get)
        skewed = [r for i, r in enumerate(planned(config)) if r[target.name] == most or i % 3]
        data = write(tmp_path / target.name, skewed, config=config.model_dump(mode="json"))
        before = check_bias(data)
        assert finding(before, target.name)["severity"] != "none", target.name
        mended = skewed + planned(ConversationsConfig(**follow_up_plan(before)))
        after = check_bias(write(tmp_path / f"{target.name}2", mended, config=config.model_dump(mode="json")))
        assert finding(after, target.name)["severity"] == "none" and not after["additions"], target.name
        assert len(mended) < 1_540 * 1.02, "no more than were taken away, or a few for rounding"


def test_targets_gaps_and_associations_are_mended_at_once(tmp_path):
    config = ConversationsConfig(total=1_540)
    manifest = {"config": config.model_dump(mode="json")}

    def stays(i, r):
        gone = (r["intent"], r["language"]) == ("card_arrival", "es")
        rare = r["resolution_time"] == "extended" and i % 2
        tied = r["language"] == "es" and r["sentiment"] == "positive" and i % 4
        return not (gone or rare or tied)

    broken = [r for i, r in enumerate(planned(config)) if stays(i, r)]
    before = check_bias(write(tmp_path / "a", broken, **manifest))
    assert {"coverage", "resolution_time", "language × sentiment"} <= {
        f["name"] for f in before["findings"] if f["severity"] != "none"
    }
    mended = broken + planned(ConversationsConfig(**follow_up_plan(before)))
    after = check_bias(write(tmp_path / "b", mended, **manifest))
    assert after["severity"] == "none" and not after["coverage"]["missing"]


def test_what_can_not_be_generated_is_named_and_the_rest_is_asked_for(tmp_path):
    some = records({("en", "neutral"): 80, ("es", "neutral"): 40, ("fr", "neutral"): 10})
    report = check_bias(write(tmp_path / "d", some), targets={"language": {"en": 0.5, "es": 0.25, "fr": 0.25}})
    assert report["additions"] == [{"records": 30, "values": {"language": "fr"}}]
    with pytest.raises(InvalidInput, match="30 more fr can't be generated here"):
        write_follow_up(report, tmp_path / "more.yaml", stage=10)
    assert not (tmp_path / "more.yaml").exists()
    report = check_bias(write(tmp_path / "d2", some), targets={"language": {"en": 0.4, "es": 0.4, "fr": 0.2}})
    content = yaml.safe_load(write_follow_up(report, tmp_path / "more.yaml", stage=10).read_text(encoding="utf-8"))
    assert content["cells"] == [{"n": 40, "language": "es"}] and "30 more fr" in content["description"]


def test_targets_that_are_not_the_plans_hold_for_the_new_records_too(tmp_path):
    some = records({("en", "positive"): 90, ("es", "positive"): 30})
    targets = {"language": HALVES, "sentiment": {"positive": 1.0}}
    plan = follow_up_plan(check_bias(write(tmp_path / "d", some), targets=targets))
    assert plan["cells"] == [{"n": 60, "language": "es", "sentiment": "positive"}]


def test_of_teacher_examples_every_planned_attribute_is_checked_too(tmp_path):
    data = generate(config_for("requirements")(total=60, dataset=str(tmp_path / "roles")))
    report = check_bias(data)
    assert {fit["attribute"] for fit in report["fits"]} == {"language", "industry", "emphasis"}
    assert "appearance" in report["not_measured"] and follow_up_plan(report) is None
    report = check_bias(data, targets={"language": {"en": 0.9, "es": 0.1}})
    assert "more en" in finding(report, "language")["recommendation"] and report["additions"]
    with pytest.raises(InvalidInput, match="more en can't be generated here"):
        write_follow_up(report, tmp_path / "more.yaml", stage=12)


def test_values_that_were_not_planned_are_named(tmp_path):
    wrong = records({("en", "neutral"): 50, ("es", "neutral"): 49, ("ES", "neutral"): 1})
    report = check_bias(write(tmp_path / "d", wrong), targets={"language": HALVES})
    found = finding(report, "language")
    assert (
        found["severity"] == "low"
        and "ES (1)" in found["sentence"]
        and "Correct or drop the 1 record" in found["recommendation"]
    )


def test_without_a_plan_nothing_is_held_against_a_target(tmp_path):
    report = check_bias(write(tmp_path / "d", records({("en", "positive"): 30, ("es", "negative"): 30})))
    assert not report["fits"] and report["coverage"] is None
    assert report["not_measured"]["sentiment"] == "no target"
    assert report["not_measured"]["coverage"] == "no target for intent and language"
    assert report["not_measured"]["intent × language"] == "only one intent: top_up_failed"


@pytest.mark.parametrize("n", [0, 1])
def test_of_no_record_or_one_nothing_is_measured(tmp_path, n):
    data = write(tmp_path / "d", [conversation(0)] * n)
    report = check_bias(data, targets={"language": {"en": 1.0}, "sentiment": {"neutral": 1.0}})
    assert report["records"] == n and report["severity"] is None and not report["findings"] and not report["fits"]
    assert {"severity", "language", "sentiment", "coverage"} <= report["not_measured"].keys()
    json.dumps(report, allow_nan=False)


def test_null_columns_and_free_text_labels_are_survived(tmp_path):
    some = [
        conversation(i, sentiment=None, intent=f"note {i}", language="fr", turns=None, category=None)
        for i in range(600)
    ]
    data = write(tmp_path / "d", some)
    report = check_bias(data, targets=Conversations().targets())
    assert report["not_measured"]["sentiment"] == "no record has a value in sentiment"
    assert report["not_measured"]["intent × complexity"] == "more than 500 different values"
    assert report["not_measured"]["place in fr"] == "none is mentioned"
    assert finding(report, "language")["severity"] == "high"
    assert report["coverage"]["covered"]["estimate"] == 0
    json.dumps(report, allow_nan=False)
    plan = follow_up_plan(report)
    cells = {(cell["intent"], cell["language"]) for cell in plan["cells"]}
    assert len(cells) == 154 and plan["total"] >= 1_400, "every cell, and the complexities that all 600 lack"


def says(i, text, **changes):
    turns = [{"speaker": "customer", "text": text}]
    return conversation(i, turns=turns, turn_count=1, **changes)


def test_names_words_and_places_are_found_by_language(tmp_path):
    texts = [
        ("en", "I'm Sarah and my sister's card was stolen in New York"),
        ("en", "he says JOHN paid. he paid twice."),
        ("es", "Soy Jose\u0301, mi hermana está en París y yo en Cádiz"),
        ("es", "he pagado mañana por la semana; ¿usa la tarjeta mi son?"),
        (None, "she went to Berlin"),
    ]
    report = check_bias(write(tmp_path / "d", [says(i, t, language=lang) for i, (lang, t) in enumerate(texts)]))
    seen = {(a["kind"], a["language"]): a for a in report["appearances"]}
    assert seen["name_gender", "en"]["words"] == {"female": {"sarah": 1}, "male": {"john": 1}}
    assert seen["gendered_word", "en"]["words"] == {"female": {"sister": 1}, "male": {"he": 1}}
    assert seen["place", "en"]["groups"] == {"north_america": 1}
    assert seen["name_origin", "es"]["words"] == {"spanish": {"josé": 1}}
    assert seen["gendered_word", "es"]["words"] == {"female": {"hermana": 1}}
    assert seen["place", "es"]["groups"] == {"several": 1}
    assert seen["place", None]["groups"] == {"rest_of_europe": 1} and ("gendered_word", None) not in seen
    assert report["not_measured"]["name_gender in es"].startswith("only 1 conversations")


def test_a_gender_that_always_complains_is_found(tmp_path):
    some = [says(i, "this is Emma" if i % 2 else "this is Peter", language="en",
                 sentiment="negative" if i % 2 else "positive") for i in range(80)]  # fmt: skip
    some += [says(80 + i, "this is Peter", language="en", sentiment="positive") for i in range(80)]
    report = check_bias(write(tmp_path / "d", some))
    parity, difference = finding(report, "name_gender (en)"), finding(report, "name_gender (en) × sentiment")
    assert parity["severity"] == "high" and "40 have female and 120 male" in parity["sentence"]
    assert "80 more conversations in en with female given names" in parity["recommendation"]
    assert difference["severity"] == "high" and "female/negative" in difference["sentence"]
    assert not any(f["additions"] for f in report["findings"] if f["subject"] == "appearance")


@pytest.mark.parametrize("partitions", [3, 17])
def test_the_numbers_do_not_depend_on_the_cut(tmp_path, offline_records, partitions):
    data = write(tmp_path / "d", offline_records)
    targets = Conversations().targets()
    whole = check_bias(data, targets=targets, partitions=1)
    assert check_bias(data, targets=targets, partitions=partitions, executor="inline") == whole


def test_the_follow_up_is_written_as_a_params_file(tmp_path):
    counts = {("en", "positive"): 150, ("en", "negative"): 50, ("es", "positive"): 50, ("es", "negative"): 150}
    report = check_bias(write(tmp_path / "d", records(counts)))
    path = write_follow_up(report, tmp_path / "params" / "more.yaml", stage=10, dataset="more")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert content["dataset"] == "more" and content["stages"] == [10]
    assert content["cells"] == follow_up_plan(report)["cells"]
    stage = load_pipeline(path).stages[0]
    data = generate(from_parameters(config_for(), stage.parameters))
    assert data.name == "more" and data.total == 200
    found = data.frame(columns=["language", "sentiment"]).value_counts().to_dict()
    assert found == {("en", "negative"): 100, ("es", "positive"): 100}
    assert all(fit["severity"] == "none" for fit in check_bias(data)["fits"]), "it is held against its cells"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"targets": {"mood": {"good": 1.0}}}, "There can be no target for 'mood'"),
        ({"targets": {"language": {"en": 0.5}}}, "target shares of language must add up to 1, got 0.5"),
        ({"targets": {"language": {"en": "half"}}}, "must map each value to its share in 0–1"),
    ],
)
def test_options_that_make_no_sense_are_one_sentence(tmp_path, options, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        check_bias(write(tmp_path / "d", [conversation(0)]), **options)


def test_thresholds_must_rise():
    with pytest.raises(InvalidInput, match="Thresholds must rise from above 0"):
        Thresholds(low=0.4)


def test_small_counts_are_tested_exactly():
    rng = np.random.default_rng(0)
    assert fit_p(np.array([4, 0, 0]), np.array([0.25, 0.25, 0.5]), rng) == (
        pytest.approx(0.25**4 * 2), "exact multinomial",
    )  # fmt: skip
    assert fit_p(np.array([0, 10]), np.array([0.5, 0.5]), rng) == (pytest.approx(2 / 1024), "exact binomial")
    p, test = fit_p(np.array([30, *[2] * 76]), np.full(77, 1 / 77), rng)
    assert test == "Monte Carlo multinomial" and p < 0.01
    assert independence_p(np.array([[3, 0], [0, 3]]), rng) == (pytest.approx(0.1), "Fisher's exact")
    p, test = independence_p(np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4]]), rng)
    assert test.startswith("Monte Carlo") and p < 0.01


def test_intervals_of_effects_hold_the_truth_nineteen_times_in_twenty():
    rng = np.random.default_rng(1)
    target, drawn_from = np.array([0.3, 0.5, 0.2]), np.array([0.2, 0.5, 0.3])
    truth = np.sqrt(((drawn_from - target) ** 2 / target).sum())
    found = [cohens_w(rng.multinomial(400, drawn_from), target) for _ in range(200)]
    assert np.mean([one.low <= truth <= one.high for one in found]) > 0.9
    assert np.mean([one.estimate for one in found]) == pytest.approx(truth, abs=0.02)


def test_independent_attributes_have_no_effect_on_average():
    rng = np.random.default_rng(2)
    tables = [rng.multinomial(300, np.full(12, 1 / 12)).reshape(4, 3) for _ in range(100)]
    assert np.mean([association(table)[1] for table in tables]) < 0.07
    assert association(np.full((2, 2), 25))[0].estimate == 0
    v, w = association(np.diag([20, 20, 20]))
    assert v.estimate == pytest.approx(1, abs=0.01) and w == pytest.approx(np.sqrt(2), abs=0.02)


def test_an_attribute_may_be_true_or_false_and_have_any_name():
    facets = Facets("toys", "toy_id", None, None, None, attributes=("order", "size"), preview="series")
    counted = tally(pa.table({"order": [True, None, True, False], "other": [1, 2, 3, 4]}), facets=facets)
    assert counted[0] == {("True", None): 2, ("False", None): 1, (None, None): 1} and not counted[1]
