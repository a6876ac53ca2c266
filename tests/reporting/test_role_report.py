"""The page about teacher examples: true to its reports, with and without a student, and never proud of a smoke run."""

from typing import Any

import pytest

from genesis_lab.bias import check_bias
from genesis_lab.domains.base import Example
from genesis_lab.finetuning.ask import Sampling
from genesis_lab.finetuning.exam import Arm, benchmark, hold
from genesis_lab.generation import config_for, generate
from genesis_lab.reporting.html import dialogue
from genesis_lab.reporting.page import page_html
from genesis_lab.reporting.story import dataset_page, key_figures
from genesis_lab.reporting.story import next_steps as steps_of
from genesis_lab.validation.examples import teaching_report
from scripted import ScriptedProvider
from share_role import Share


class Asked:
    """A connected model that always says the same."""

    def __init__(self, spec: str) -> None:
        self.provider: Any = ScriptedProvider(["a b c d" if spec == "openai:good" else "<b>z</b>"])
        self.call = self.provider.complete

    def close(self) -> None:
        pass


def examples(n: int) -> list[Example]:
    return [Example(f"e{i}", f"g{i // 2}", "en", "Say.", f"Question {i}", "a b c d") for i in range(n)]


@pytest.fixture
def taught(tmp_path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Manifest and reports of a small set by the offline teacher."""
    data = generate(config_for("requirements")(dataset="analyst", total=20))
    return data.manifest, {"teaching": teaching_report(data), "bias": check_bias(data)}


def examined(folder: Any, *, n: int = 60, student: str = "openai:good", **options: Any) -> dict[str, Any]:
    candidates = [Arm("base", "baseline", "openai:poor"), Arm("student", "fine-tuned", student)]
    return hold(
        candidates,
        examples(n),
        role=Share(),
        connect=Asked,
        folder=folder,
        dataset="analyst",
        sampling=Sampling(runs=1),
        **options,
    )


def lessons(**changes: Any) -> dict[str, Any]:
    """A ``training_info.json``, as `finetuning.lora` writes it."""
    answers = [{"id": "e0", "text": "<i>title</i>: x", "score": 0.25}]
    epoch = {"step": 0, "epoch": 0, "validation_loss": 2.0, "score": 0.1, "valid": 0.0, "answers": answers}
    return {
        "student": "outputs/models/analyst",
        "smoke": False,
        "limits": {},
        "dataset": "analyst",
        "seed": 42,
        "made_with": {"base": "smollm2", "base_hash": "b" * 64, "data_hash": "d" * 64},
        "examples": {"train": 14, "validation": 3},
        "too_long": [],
        "trainable_parameters": 9,
        "parameters": 99,
        "steps": [{"step": 1, "loss": 1.9}, {"step": 2, "loss": 1.1}],
        "stopped_early": False,
        "best_epoch": 1,
        "epochs": [epoch, epoch | {"step": 2, "epoch": 1, "validation_loss": 1.0, "score": 0.9}],
        "tokens_seen": 99,
        "tokens_per_s": 9.0,
        "training_seconds": 11.0,
        "peak_memory_bytes": None,
        "device": "cpu",
        "dtype": "bfloat16",
        "attention": "sdpa",
        "versions": {"torch": "2"},
    } | changes


def exported(*, passed: bool = True) -> dict[str, Any]:
    same = {"estimate": 0.0, "low": 0.0, "high": 0.0, "n": 30}
    lost = {"estimate": 0.0 if passed else -0.2, "low": -0.3, "high": 0.1, "n": 30}
    row = {"score": {"estimate": 0.9, "low": 0.8, "high": 1.0, "n": 30}, "valid": 0.9, "said": "", "passed": True}
    gates = [
        row | {"form": "student", "asked_by": "local", "difference": None},
        row | {"form": "merged", "asked_by": "local", "difference": same},
        row | {"form": "q8_0", "asked_by": "transformers", "difference": lost, "passed": passed},
    ]
    files = [
        {"form": "merged", "path": "outputs/x/merged", "bytes": 270_000_000},
        {"form": "q8_0", "path": "outputs/x/x.gguf", "bytes": 145_000_000},
    ]
    return {
        "student": "outputs/models/analyst",
        "base": "smollm2",
        "folder": "outputs/x",
        "files": files,
        "gates": gates,
        "margin": 0.03,
        "parity": None,
        "template": True,
        "ollama": None,
        "specs": {},
        "not_measured": {},
        "passed": passed,
    }


def drawn(manifest: dict[str, Any], reports: dict[str, Any], name: str = "analyst", **options: Any) -> Any:
    kinds = ("teaching", "bias", "evaluation")
    return dataset_page(name, reports | {"manifest": manifest}, unit="examples", needed=kinds, **options)


def next_steps(manifest: dict[str, Any], reports: dict[str, Any], name: str = "analyst") -> list[str]:
    return steps_of(reports | {"manifest": manifest, "name": {"name": name}})


def test_without_a_student_the_page_says_what_is_kept_and_that_its_worth_is_unknown(taught) -> None:
    manifest, reports = taught
    page = drawn(manifest, reports, samples=[dialogue([("<b>What?</b>", "title: This")])])
    assert page.subtitle.startswith("20 examples") and "14 train, 3 validation, 3 test" in page_html(page)
    assert "not measured: no student was examined" in str(page.figures["gain"])
    assert page.figures["accepted"] == ("100%", "of 20 answers") and page.figures["audit"][0] == "0"
    assert "20 of 20 answers reach the full score" in page.lead.layout.title.text
    html = page_html(page)
    assert "&lt;b&gt;What?" in html and "<b>What?" not in html and "As planned, as far as can be told" in html
    steps = next_steps(manifest, reports)
    assert steps[0].startswith("Teach a student") and "Hold out more: with 3 groups" in steps[1]
    later = next_steps(manifest, reports | {"student": lessons()})
    assert later[0].startswith("Examine the student")


def test_a_real_gain_comes_first_in_figures_and_words(taught, tmp_path) -> None:
    manifest, reports = taught
    reports |= {"evaluation": examined(tmp_path), "student": lessons()}
    page = drawn(manifest, reports)
    assert page.figures["gain"] == ("+100.0 points", "[+82.9 to +100.0] fine-tuned against baseline: better")
    assert "better (+100 points" in page.summary
    assert "better (+100 points" in page.lead.layout.title.text
    assert "genesis export-student outputs/models/analyst FOLDER --dataset analyst" in page.sections[0].parts[0].text
    html = page_html(page)
    assert "How the student learned" in html and "&lt;i&gt;title&lt;/i&gt;: x" in html and "<b>z" not in html
    assert "A smoke run" not in html


def test_a_smoke_run_is_no_result_anywhere(taught, tmp_path) -> None:
    manifest, reports = taught
    reports |= {"evaluation": examined(tmp_path, n=6, limits={"test_limit": 6})}
    reports |= {"student": lessons(smoke=True, limits={"train_limit": 8})}
    assert "only a smoke run" in str(key_figures(reports)["gain"])
    page = drawn(manifest, reports)
    assert "Smoke run, no result" in page.summary
    assert "without test_limit" in next_steps(manifest, reports)[0]
    said = [section.parts[0] for section in page.sections if "student" in section.title]
    assert said == [
        "A smoke run (test_limit 6): nothing in this section is a result.",
        "A smoke run (train_limit 8): nothing in this section is a result.",
    ]


@pytest.mark.parametrize(
    ("n", "student", "advice"),
    [(48, "openai:good", "Hold out more concepts before deciding"), (120, "openai:bad", "Don't use it yet")],
)
def test_a_student_that_is_not_proven_better_is_not_recommended(taught, tmp_path, n, student, advice) -> None:
    manifest, reports = taught
    reports |= {"evaluation": examined(tmp_path, n=n, student=student), "student": lessons()}
    steps = next_steps(manifest, reports)
    assert advice in steps[0] and not [step for step in steps if "export-student" in step]


def test_the_page_shows_what_an_export_costs_and_warns_of_one_that_lost_too_much(taught, tmp_path) -> None:
    manifest, reports = taught
    reports |= {"evaluation": examined(tmp_path), "student": lessons(), "export": exported()}
    section = next(s for s in drawn(manifest, reports).sections if "export" in s.title)
    assert "q8_0" in section.parts[1].text and "145" in section.parts[1].text
    assert "export" not in " ".join(next_steps(manifest, reports))
    reports["export"] = exported(passed=False)
    assert "Don't use what was exported as q8_0" in " ".join(next_steps(manifest, reports)[:2])


def test_a_benchmark_has_its_section(taught, tmp_path) -> None:
    manifest, reports = taught
    candidates = [Arm("good", "good", "openai:good"), Arm("poor", "poor", "openai:poor")]
    found = benchmark(candidates, examples(6), role=Share(), connect=Asked, folder=tmp_path, sampling=Sampling(runs=1))
    reports["benchmark"] = found | {"limits": {"limit": 6}}
    section = next(s for s in drawn(manifest, reports).sections if "Which model" in s.title)
    assert (
        "A smoke run (limit 6)" in section.parts[0]
        and "good" in found["verdict"]
        and section.parts[1].html.startswith("<table")
    )


def test_foreign_examples_have_a_page_too_and_their_faults_are_the_next_step(tmp_path) -> None:
    from genesis_lab.dataset import import_dataset

    source = tmp_path / "theirs.jsonl"
    source.write_text('{"prompt": "A map of wells for farmers in Mali.", "response": "title: Map"}\n')
    data, _ = import_dataset(source, "theirs", domain="requirements")
    reports = {"teaching": teaching_report(data)}
    page = drawn(data.manifest, reports, name="theirs")
    assert "not measured: not generated here" in str(page.figures["accepted"])
    assert [step for step in next_steps(data.manifest, reports, "theirs") if "genesis audit theirs --fix" in step]
    assert "not measured: no bias report" in page_html(page)
