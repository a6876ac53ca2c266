from __future__ import annotations

import json
from collections import Counter

import pytest

from genesis_lab import generation
from genesis_lab.bias import check_bias
from genesis_lab.dataset import import_dataset, open_dataset
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.errors import Fatal, GenesisError, InvalidInput
from genesis_lab.generation import config_for, open_or_generate
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.teachers import Teacher
from genesis_lab.parameters import from_parameters
from genesis_lab.providers.offline import OfflineProvider
from genesis_lab.reporting.html import dialogue
from genesis_lab.reporting.views import view
from genesis_lab.validation.examples import teaching_report
from genesis_lab.validation.quality import validate
from providers.openai_server import running
from scripted import ScriptedProvider


@pytest.mark.parametrize("role", ["requirements", "vision"])
def test_offline_examples_come_in_splits_that_share_no_concept_group(role) -> None:
    config = config_for(role)(total=60)
    data = generation.generate(config)
    assert data.counts == {"train": 42, "validation": 9, "test": 9} and data.domain == role
    groups = [set(data.frame(split, ["group"])["group"]) for split in data.counts]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 60
    assert recorded_domain(data.manifest).config == config.domain.config
    assert generation.generate(config).content_hash == data.content_hash
    assert Counter(data.frame()["language"]) == {"en": 30, "es": 30}
    assert check_bias(data)["severity"] == "none"


def test_a_longer_run_fills_the_splits_as_nearly_as_whole_groups_allow() -> None:
    data = generation.generate(config_for("requirements")(total=400, test_share=0.3))
    assert all(abs(n - wanted) <= 2 for n, wanted in zip(data.counts.values(), (220, 60, 120), strict=True))
    assert data.frame("test", ["group"])["group"].nunique() >= 60


def test_a_product_owner_answers_the_requirements_of_a_dataset() -> None:
    source = generation.generate(config_for("requirements")(dataset="analyst", total=60, english_share=0.8))
    config = config_for("vision")(dataset="owner", requirements="analyst", total=60)
    data, columns = generation.generate(config), "SELECT concept, split, {} AS said FROM data ORDER BY concept"
    assert data.sql(columns.format("requirements")).equals(source.sql(columns.format("answer")))
    report = teaching_report(data)
    assert report["scores"]["mean"] == 1.0 and not report["audit"]["kinds"] and check_bias(data)["severity"] == "none"
    assert generation.generate(config).content_hash == data.content_hash
    part = config_for("vision")(dataset="owner", requirements="analyst", total=20).plan
    assert [s.seed for s in part.specs] == [s.seed for s in config.plan.specs[:20]]


def test_requirements_of_other_people_need_a_model_as_teacher(tmp_path) -> None:
    answer = generation.generate(config_for("requirements")(dataset="ours", total=10)).frame()["answer"][0]
    rows = [{"prompt": f"A kiosk of kind {i} for sailors", "response": answer} for i in range(10)]
    (tmp_path / "theirs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_dataset(tmp_path / "theirs.jsonl", "theirs", domain="requirements")
    config = config_for("vision")(dataset="owner", requirements="theirs", total=10)
    assert "kiosk of kind" in str(config.domain.prompt(config.plan.specs[0]).messages[-1][1])
    with pytest.raises(GenesisError, match="choose a model as provider to answer theirs"):
        generation.generate(config)
    role = get_domain("vision", total=10, english_share=1.0)
    visions = iter([role.offline_text(spec, 0) for spec in role.specs(10, 1)])
    with running() as server:
        paid = config_for("vision")(
            **config.model_dump(exclude={"provider", "min_score"}) | {"model": "m", "base_urls": (server.url,)},
            provider="openai",
            min_score=0.0,
        )
        planned = paid.estimate()
        assert planned.prompt_tokens > 1000 and planned.completion_tokens > 1000 and planned.cost_usd is None
        answer = server.answer

        def usable(body):
            reply = answer(body)
            reply.body["choices"][0]["message"]["content"] = next(visions)
            return reply

        server.answer = usable
        assert generation.generate(paid).total == 10


def answering(role, total: int, first):
    """A model whose first answer to each spec is `first` of the right one, and that recovers when asked again."""
    specs = {spec.seed: spec for spec in make_plan(role, total, 7).specs}

    def script(request, rng):
        good = role.offline_text(specs[request.seed], 0)
        return good if "can't be used" in request.messages[-1][1] else first(good)

    return script


def test_a_vision_without_its_review_is_asked_for_the_review_and_its_score_is_kept(tmp_path) -> None:
    role = get_domain("vision", total=10)
    model = ScriptedProvider(answering(role, 10, lambda good: good.split("```yaml REVIEW")[0]))
    data = generate(make_plan(role, 10, 7), role, model, tmp_path / "visions", config={"domain": "vision"})
    assert data.total == 10 and set(data.frame()["provenance"].map(lambda p: p["attempts"])) == {2}
    asked = [r.messages[-1][1] for r in model.requests if "can't be used" in r.messages[-1][1]]
    assert len(asked) == 10 and all("the REVIEW block is missing" in text for text in asked)
    assert sum(data.manifest["rejected_scores"].values()) == 10
    report = teaching_report(data)
    accepted = {row["min_score"]: row["accepted"] for row in report["thresholds"]}
    assert (accepted[0.5], accepted[1.0], report["thresholds"][0]["answers"]) == (10, 10, 20)


def test_scores_of_rejected_answers_survive_an_interruption(tmp_path) -> None:
    role = get_domain("requirements", total=10, min_score=0.96)
    plan = make_plan(role, 10, 7)
    model = ScriptedProvider(answering(role, 10, lambda good: good.replace("priority: High", "priority: Urgent", 1)))
    calls = iter(range(100))

    def stops_at_the_ninth(request, rng):
        return Fatal("no more") if next(calls) == 8 else model._script(request, rng)

    with pytest.raises(GenesisError):
        generate(plan, role, ScriptedProvider(stops_at_the_ninth), tmp_path / "data")
    data = generate(plan, role, model, tmp_path / "data")
    assert data.manifest["rejected_scores"] == {"0.95": 10}
    report = teaching_report(data)
    assert [(r["accepted"], r["answers"]) for r in report["thresholds"] if r["min_score"] in (0.95, 1.0)] == [
        (20, 20),
        (10, 20),
    ]


def test_several_teachers_write_one_dataset_and_each_record_says_whose_it_is(tmp_path) -> None:
    role = get_domain("requirements", total=12)
    models = [ScriptedProvider(answering(role, 12, str)) for _ in range(2)]
    models[0].model, models[1].model = "first", "second"
    data = generate(make_plan(role, 12, 7), role, [Teacher(m, m.model) for m in models], tmp_path / "data")
    assert teaching_report(data)["teachers"] == {"scripted (first)": 6, "scripted (second)": 6}


def test_the_pictures_and_tables_say_what_the_report_says(tmp_path) -> None:
    data = generation.generate(config_for("requirements")(total=20))
    report = teaching_report(data)
    assert "20 of 20 answers" in view("teaching", "thresholds", report).layout.title.text
    assert "Mean score 1.00" in view("teaching", "parts", report).layout.title.text
    assert "no issue" in repr(view("teaching", "audit", report)) and "train" in repr(view("teaching", "splits", report))
    example = get_domain("requirements").example(data.frame().iloc[0].to_dict())
    shown = dialogue([(example.question, "<script>")])
    assert "&lt;script&gt;" in shown.html and example.question in repr(shown)


def test_an_empty_or_foreign_set_is_reported_too(tmp_path) -> None:
    source = tmp_path / "theirs.jsonl"
    source.write_text('{"prompt": "A map of wells for farmers in Mali.", "response": "title: Map"}\n')
    data, _ = import_dataset(source, "theirs", domain="requirements")
    report = teaching_report(data)
    assert report["records"] == 1 and report["min_score"] is None and report["scores"]["valid"] == 0
    assert "missing field" in repr(view("teaching", "audit", report))
    assert "of 1 answers" in view("teaching", "thresholds", report).layout.title.text
    assert "Mean score" in view("teaching", "parts", report).layout.title.text
    assert check_bias(data)["not_measured"]["industry"] == "no target"


def test_what_reads_conversations_says_so_of_teacher_data() -> None:
    data = generation.generate(config_for("requirements")(total=10))
    with pytest.raises(InvalidInput, match="use genesis audit teacher"):
        validate(data)
    with pytest.raises(InvalidInput, match="holds examples of requirements, this step reads conversations"):
        open_or_generate("teacher")
    assert open_or_generate("teacher", others=True).total == 10


def test_the_default_set_is_made_where_it_is_missing_and_others_are_not(capsys) -> None:
    data = open_or_generate("teacher", "vision", total=12)
    assert data.total == 12 and "generating 12 examples offline" in capsys.readouterr().out
    assert open_or_generate("teacher", "requirements").content_hash == open_dataset("teacher").content_hash
    with pytest.raises(InvalidInput, match="There is no dataset"):
        open_or_generate("another", "requirements")


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"min_score": 80}, "min_score must be at most 1, got 80"),
        ({"industries": ["mining"]}, "industries: unknown industry 'mining'"),
    ],
)
def test_impossible_parameters_are_one_sentence(parameters, sentence) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        from_parameters(config_for("requirements"), parameters)


def test_a_domain_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(
        InvalidInput, match="Unknown domain 'poet': there are conversations, timeseries, requirements, vision"
    ):
        config_for("poet")


def test_the_estimate_of_an_offline_run_is_free() -> None:
    assert config_for("requirements")(total=20).estimate().cost_usd == 0
    assert OfflineProvider().name == config_for("requirements")().provider
