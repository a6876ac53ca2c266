"""Recipes of series by real models: the bundled one held to the schema, and a strong one's answers replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from genesis_lab.bias import check_bias, write_follow_up
from genesis_lab.domains.timeseries.domain import Timeseries, TimeseriesConfig
from genesis_lab.generation import config_for
from genesis_lab.generation import generate as written
from genesis_lab.generation.engine import Sampling, generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.teachers import connect
from genesis_lab.parameters import from_parameters
from genesis_lab.pipeline import load_pipeline
from scripted import ScriptedProvider

RECORDED = Path(__file__).parents[2] / "benchmarks" / "recordings" / "recipes.jsonl"


@pytest.mark.slow
def test_the_bundled_model_held_to_the_schema_writes_recipes_that_are_rendered(tmp_path, smollm2):
    domain = Timeseries(TimeseriesConfig(total=1, series_types=("solar_generation",), english_share=1.0, length=48))
    teacher = connect(f"local:{smollm2}")
    sampling = Sampling(temperature=0.7, max_tokens=300)
    data = generate(make_plan(domain, 1, 7), domain, [teacher], tmp_path / "d", sampling=sampling)
    teacher.close()
    frame = data.frame()
    assert data.total == 1 and frame["target"].map(len).tolist() == [48]
    assert "SmolLM2" in frame["provenance"].iloc[0]["model"] and {"clouds", "loss"} <= set(
        json.loads(frame["recipe"].iloc[0])
    )


def test_recipes_of_a_strong_model_over_all_kinds_are_accepted_at_the_first_attempt():
    plain = {"quality_shares": {"clean": 1}, "anomaly_shares": {"0": 1}}
    trend = {"none": 0.8, "upward": 0.1, "downward": 0.1}
    domain = Timeseries(
        TimeseriesConfig(total=64, seed=13, length=500, start="2012-01-01T01:00:00", trend_shares=trend, **plain)
    )
    specs = domain.specs(64, 13)
    recorded = [json.loads(line) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    assert {spec.attributes["series_type"] for spec in specs} == set(domain.kinds) and len(domain.kinds) == 16
    for one in recorded:
        spec = specs[one["number"]]
        assert (one["series_type"], one["language"]) == (spec.attributes["series_type"], spec.attributes["language"])
        assert domain.parse(json.dumps(one["answer"]), spec)["level"] == one["answer"]["level"]


def test_a_recipe_with_a_missing_field_is_asked_for_again_and_then_dropped_with_the_reason(tmp_path):
    domain = Timeseries(TimeseriesConfig(total=2, series_types=("solar_generation",), english_share=1.0, length=48))
    plan = make_plan(domain, 2, 5)
    good = [json.loads(domain.offline_text(spec, 0)) for spec in plan.specs]
    asked = []

    def answer(request, rng):
        asked.append(request)
        recipe = dict(good[len(asked) % 2])
        if len(asked) <= 3:  # the first record's first candidate never becomes one
            del recipe["clouds"]
        return json.dumps(recipe | {"loss": 0.1 + len(asked) / 1000})

    teacher = ScriptedProvider(answer, concurrency=1)
    data = generate(plan, domain, teacher, tmp_path / "d")
    assert data.total == 2 and any("clouds" in text for _, text in asked[1].messages), "told what was wrong"
    assert any("clouds" in reason for reason in data.manifest["drop_reasons"])


def test_what_a_bias_check_of_series_misses_is_generated_by_its_follow_up(own_output_root):
    few = config_for("timeseries")(
        dataset="few", total=60, length=48, english_share=1.0, series_types=["solar_generation"]
    )
    data = written(few)
    report = check_bias(data, targets={"language": {"en": 0.5, "es": 0.5}})
    path = write_follow_up(report, own_output_root / "follow_up.yaml", stage=11, dataset="more")
    (stage,) = load_pipeline(path).stages
    more = written(from_parameters(config_for("timeseries"), stage.parameters))
    assert more.total == 60 and set(more.frame()["language"]) == {"es"}
