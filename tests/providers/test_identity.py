"""Whose an answer is: kept answers are used again for the same model only, and for the same model always."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from genesis_lab.domains.base import Example, Score
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.finetuning.ask import Sampling
from genesis_lab.finetuning.exam import Arm, benchmark
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.generation.state import run_header
from genesis_lab.generation.teachers import Teacher, connect
from genesis_lab.providers.cache import CompletionCache
from genesis_lab.providers.identity import identity
from providers.openai_server import running
from tiny_models import tiny_llama

pytest.importorskip("torch")


class Said:
    """A role that scores whether anything was said."""

    name = "said"

    def score(self, text: str, example: Example) -> Score:
        return Score(float(bool(text)), True, {})

    def answer_grammar(self) -> None:
        return None


@pytest.fixture
def student(tmp_path: Path) -> Path:
    """A LoRA adapter in a folder of its own, its base beside it."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    base = tiny_llama(tmp_path / "base", ["Question Answer"])
    adapted = get_peft_model(
        LlamaForCausalLM.from_pretrained(base), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.peft_config["default"].base_model_name_or_path = "../base"
    adapted.save_pretrained(tmp_path / "student")
    return tmp_path / "student"


def kept(folder: Path) -> int:
    """How many answers are kept there."""
    if not (folder / "answers.sqlite").exists():
        return 0
    with closing(sqlite3.connect(folder / "answers.sqlite")) as base:
        return int(base.execute("SELECT count(*) FROM completions").fetchone()[0])


def questions_asked(model: Path, folder: Path) -> int:
    """How many questions an examination of the model asks it, beyond what it finds answered."""
    loaded: list[Any] = []

    def counting(spec: str) -> Teacher:
        loaded.append(connect(spec))
        return loaded[-1]

    before = kept(folder)
    examples = [Example(f"e{i}", f"g{i}", "en", "Be brief.", f"Question {i}", "Answer") for i in range(3)]
    benchmark(
        [Arm("it", "it", f"local:{model}")], examples, role=Said(), connect=counting, folder=folder,
        sampling=Sampling(runs=1, max_tokens=4),
    )  # fmt: skip
    asked = kept(folder) - before
    assert bool(asked) == bool(loaded)  # a model with nothing to answer is not even loaded
    return asked


def test_a_finished_examination_asks_nothing_again_whatever_reports_are_written_into_the_students_folder(
    student, tmp_path
):
    assert questions_asked(student, tmp_path / "answers") == 3
    for name in ("evaluation.json", "export.json", "training_info.json", "trainer_state.json", "README.md", "run.log"):
        (student / name).write_text('{"verdict": "better"}')
    (student / "checkpoint-000010").mkdir()
    (student / "checkpoint-000010" / "state.json").write_text("{}")
    assert questions_asked(student, tmp_path / "answers") == 0


@pytest.mark.parametrize("changed", ["adapter", "base", "template", "length of the base's answers"])
def test_a_student_that_was_taught_anew_under_its_name_is_asked_again(student, tmp_path, changed):
    before = identity(f"local:{student}")
    if changed == "adapter":
        weights = student / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    elif changed == "base":
        tiny_llama(student.parent / "base", ["Question Answer"], seed=1)
    elif changed == "template":
        (student.parent / "base" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    else:
        config = student.parent / "base" / "generation_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token_id": 5}))
    assert identity(f"local:{student}") != before


def test_weights_are_not_read_again_to_learn_that_nothing_changed(student):
    before = identity(f"local:{student}")
    opened: list[str] = []
    listening = True
    sys.addaudithook(lambda event, about: opened.append(str(about[0])) if listening and event == "open" else None)
    assert identity(f"local:{student}") == before
    listening = False
    assert opened and not [file for file in opened if file.endswith(".safetensors")]


def test_a_gguf_file_goes_by_its_content(tmp_path):
    file = tmp_path / "s.gguf"
    file.write_bytes(b"weights")
    before = identity(f"local:{file}")
    file.write_bytes(b"others!")
    assert identity(f"local:{file}") != before


def test_a_model_of_the_hub_goes_by_its_commit(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "models--someone--tiny"
    for commit in ("a" * 40, "b" * 40):
        (place / "snapshots" / commit).mkdir(parents=True)
        (place / "snapshots" / commit / "config.json").write_text("{}")
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    before = identity("local:someone/tiny")
    (place / "refs" / "main").write_text("b" * 40)
    assert identity("local:someone/tiny") != before
    assert identity("local:nobody/none") == "local:nobody/none"


def test_a_teachers_kept_answers_are_not_those_of_another_server_with_a_model_of_that_name(tmp_path):
    domain = Conversations(ConversationsConfig(categories=("refunds",)))
    plan = make_plan(domain, 1, 7)
    cache = CompletionCache(tmp_path / "cache.sqlite")
    with running() as one, running() as other:
        for server in (one, other):
            server.text = domain.offline_text(plan.specs[0], 0)
        for run, server in enumerate((one, other, one, other)):
            generate(plan, domain, [connect(f"openai:m@{server.url}")], tmp_path / str(run), cache=cache)
        assert len(one.requests) == len(other.requests) == 1
    cache.close()


def test_a_local_teachers_kept_answers_are_not_those_of_other_weights_in_its_folder(tmp_path):
    first = connect(f"local:{tiny_llama(tmp_path / 'm')}").identity
    same = connect(f"local:{shutil.copytree(tmp_path / 'm', tmp_path / 'elsewhere' / 'm')}").identity
    second = connect(f"local:{tiny_llama(tmp_path / 'm', seed=1)}").identity
    assert first == same != second


def test_a_run_does_not_go_on_with_other_weights_of_the_same_name(tmp_path):
    domain = Conversations(ConversationsConfig(categories=("refunds",)))
    headers = []
    for seed in (0, 0, 1):
        teacher = connect(f"local:{tiny_llama(tmp_path / 'm', seed=seed)}")
        headers.append(run_header(make_plan(domain, 1, 7), domain, [teacher], {}))
    assert headers[0] == headers[1] != headers[2]


def test_a_line_and_the_teacher_that_it_connects_are_the_same_model(tmp_path):
    for spec in (
        f"local:{tiny_llama(tmp_path / 'm')}",
        "local:smollm2",
        "openai:m",
        "openai:m@http://localhost:8000/v1",
        "ollama:m",
    ):
        assert identity(spec) == connect(spec).identity
    assert identity("openai:m") != identity("openai:m@http://localhost:8000/v1") != identity("ollama:m")


def test_a_name_holds_no_address_path_or_account(tmp_path):
    folder = tiny_llama(tmp_path / "m")
    arn = "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc"
    names = [identity(spec) for spec in (f"local:{folder}", "openai:m@http://10.0.0.1:8000/v1", f"bedrock:{arn}")]
    assert not [part for part in (str(tmp_path), "10.0.0.1", "123456789012") if part in " ".join(names)]
    assert identity("bedrock:a.b-v1:0@eu-west-1") == identity("bedrock_batch:a.b-v1:0") == "bedrock:a.b-v1:0"
    assert os.fspath(folder) not in names[0] and len(set(names)) == 3
