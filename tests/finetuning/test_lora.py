"""Teaching a student: a tiny random Llama learns from the offline teacher's requirements."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Provenance
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.finetuning import checkpoints, lora
from genesis_lab.finetuning.config import FinetuneConfig
from genesis_lab.finetuning.lora import Prepared, plan, prepare, train
from genesis_lab.finetuning.tasks import encode, question_of, role_of
from genesis_lab.parameters import from_parameters
from genesis_lab.providers.local import LocalProvider, chat_tokens
from genesis_lab.providers.local_models import load_model
from genesis_lab.reporting.views import view
from tiny_models import FORGETFUL, tiny_llama, tiny_model

SMALL = {
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "max_length": 700,
    "row_tokens": 700,
    "dtype": "float32",
    "examine": 1,
    "answer_tokens": 4,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return taught(tmp_path_factory.mktemp("data") / "teacher", 10)


@pytest.fixture(scope="module")
def words(dataset: Dataset) -> list[str]:
    return [text for split in role_of(dataset)[1].values() for e in split for text in (e.system, e.question, e.answer)]


@pytest.fixture(scope="module")
def base(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("base") / "tiny", words)


def taught(folder: Path, n: int) -> Dataset:
    """A dataset of `n` concepts by the offline teacher."""
    role: Any = get_domain("requirements", max_items=2)
    specs = role.specs(max(n, 1), 1)[:n]
    about = Provenance(provider="offline", model="grammar", prompt_version=role.prompt_version)
    with DatasetWriter(folder, role.name, {}) as writer:
        writer.write(
            [role.render(role.parse(role.offline_text(s, 0), s), s, about).model_dump() for s in specs], "train"
        )
    return open_dataset(folder)


def ready(dataset: Dataset, base: Path, tmp_path: Path, **settings: Any) -> Prepared:
    return prepare(dataset, FinetuneConfig(base=str(base), student=str(tmp_path / "student"), **SMALL | settings))


def taught_here(prepared: Prepared) -> Path:
    train(prepared)
    return prepared.folder


def losses(info: dict[str, Any]) -> list[float]:
    return [step["loss"] for step in info["steps"]]


def test_a_prompt_is_the_same_in_training_and_in_every_later_use(dataset: Dataset, base: Path) -> None:
    loaded = load_model(str(base), dtype="float32")
    examples = role_of(dataset)[1]["train"]
    encoded, _ = encode(loaded.tokenizer, loaded.eos_ids, examples, 700)
    for example, ids in zip(examples, encoded, strict=True):
        assert list(ids.prompt) == chat_tokens(loaded.tokenizer, question_of(example))
        assert loaded.tokenizer.decode(ids.answer[:-1]) == example.answer
        assert ids.answer[-1] == loaded.tokenizer.eos_token_id


def test_validation_shares_no_concept_with_training(dataset: Dataset) -> None:
    examples = role_of(dataset)[1]
    assert not {e.group for e in examples["train"]} & {e.group for e in examples["validation"]}


def test_a_student_learns_and_is_used_by_its_folder(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    prepared = ready(dataset, base, tmp_path, epochs=3)
    planned = plan(prepared)
    info, folder = train(prepared), prepared.folder
    epochs = info["epochs"]
    assert epochs[-1]["validation_loss"] < epochs[0]["validation_loss"]
    assert planned["steps"] == len(info["steps"]) == 9 and planned["tokens"] == info["tokens_seen"]
    assert json.loads((folder / "training_info.json").read_text()) == info
    assert len({file.stat().st_mode for file in folder.iterdir() if file.is_file()}) == 1  # all may read all of it
    assert not info["smoke"] and info["made_with"]["data_hash"] == dataset.content_hash
    assert {file.name for file in folder.iterdir()} == set(checkpoints.STUDENT)

    student = load_model(str(folder), dtype="float32")  # the adapter is merged into its base
    row = prepared.rows(prepared.train[:1])[0]
    lora_logits = prepared.model.eval()(torch.tensor([row.ids])).logits
    torch.testing.assert_close(student.model(torch.tensor([row.ids])).logits, lora_logits, atol=1e-4, rtol=1e-4)
    request = replace(question_of(role_of(dataset)[1]["train"][0]), max_tokens=5)
    assert LocalProvider(str(prepared.folder), dtype="float32").complete(request).usage.completion_tokens <= 5


def test_no_path_of_this_machine_is_kept(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    folder = taught_here(ready(dataset, base, tmp_path, epochs=1))
    files = list(folder.glob("*.json"))
    assert {"adapter_config.json", "training_info.json"} <= {file.name for file in files}
    for file in files:
        assert str(tmp_path.parent) not in file.read_text() and str(base.parent) not in file.read_text()


def test_a_smoke_run_says_so(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    info = train(ready(dataset, base, tmp_path, train_limit=5, val_limit=1, max_steps=1))
    assert info["smoke"] and info["limits"] == {"train_limit": 5, "val_limit": 1, "max_steps": 1}
    assert (len(info["steps"]), info["examples"]) == (1, {"train": 5, "validation": 1})


def test_a_student_that_can_not_be_examined_is_not_chosen_by_a_score_of_0(
    dataset: Dataset, base: Path, tmp_path: Path
) -> None:
    with pytest.raises(GenesisError, match="on which the student is examined, can't be answered: The prompt has"):
        train(ready(dataset, base, tmp_path, answer_tokens=4_000))


def test_long_examples_are_listed_and_left_out_never_cut(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    everything = ready(dataset, base, tmp_path)
    lengths = sorted(len(example) for example in everything.train)
    shorter = ready(dataset, base, tmp_path, max_length=lengths[-2])
    assert {len(example) for example in shorter.too_long} >= {lengths[-1]}
    assert len(shorter.train) < len(everything.train) and set(shorter.train) <= set(everything.train)


def test_the_base_is_frozen_and_only_response_logits_are_computed(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    prepared = ready(dataset, base, tmp_path, targets="all-linear", rank=2)
    seen = []
    prepared.loaded.model.lm_head.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    row = prepared.rows(prepared.train[:2])[0]
    prepared.loss(row).backward()
    assert sum(seen) == len(row.labels) < len(row.ids)
    assert {n for n, p in prepared.model.named_parameters() if p.grad is not None} == {
        n for n, p in prepared.model.named_parameters() if "lora_" in n
    }


def test_the_gradient_does_not_depend_on_how_a_step_is_packed(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    gradients = []
    for settings in ({}, {"row_tokens": 2000}, {"row_tokens": 1000, "gradient_checkpointing": True}):
        info = train(ready(dataset, base, tmp_path / str(len(gradients)), max_steps=2, **settings))
        gradients.append([step["gradient"] for step in info["steps"]])
    assert gradients[1] == pytest.approx(gradients[0], rel=1e-3)
    assert gradients[2] == pytest.approx(gradients[0], rel=1e-3)


def test_a_base_in_float16_learns_with_a_scaled_loss(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    info = train(ready(dataset, base, tmp_path, dtype="float16", epochs=1))
    assert info["dtype"] == "float16" and info["epochs"][1]["validation_loss"] < info["epochs"][0]["validation_loss"]


def test_training_stops_when_the_score_no_longer_rises(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    prepared = ready(dataset, base, tmp_path, epochs=5, learning_rate=1e-9, patience=1)
    info = train(prepared)
    assert info["stopped_early"] and len(info["epochs"]) < 6


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from genesis_lab.dataset import open_dataset
from genesis_lab.finetuning.config import FinetuneConfig
from genesis_lab.finetuning import lora
from genesis_lab.finetuning.lora import prepare, train
lora.SAVE_EVERY = 1
def die(done, total):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
train(prepare(open_dataset(sys.argv[1]), FinetuneConfig.model_validate_json(sys.argv[2])), on_progress=die)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_killed_by_the_system_goes_on_to_the_same_loss_curve(
    dataset: Dataset, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "SAVE_EVERY", 1)
    config = ready(dataset, base, tmp_path, dropout=0.1).config
    code = [sys.executable, "-c", KILLED, str(dataset.path), config.model_dump_json()]
    assert subprocess.run(code, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode == -signal.SIGKILL
    done = []
    resumed = train(prepare(dataset, config), on_progress=lambda step, total: done.append(step))
    assert done[0] in (4, 5)  # the kill came while step 4 was being reported, after its checkpoint
    whole = train(prepare(dataset, config.model_copy(update={"student": str(tmp_path / "whole")})))
    assert losses(resumed) == pytest.approx(losses(whole), rel=1e-6)
    again = train(prepare(dataset, config))
    assert again == resumed  # a finished run is read back


def test_ctrl_c_saves_and_says_how_to_go_on(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    prepared = ready(dataset, base, tmp_path)

    def interrupt(step: int, total: int) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(GenesisError, match="Stopped after step 2 of 6: run it again with the same settings"):
        train(prepared, on_progress=interrupt)
    assert len(losses(train(ready(dataset, base, tmp_path)))) == 6


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_checkpoint(
    dataset: Dataset, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "SAVE_EVERY", 1)
    prepared = ready(dataset, base, tmp_path)

    def spoil(step: int, total: int) -> None:
        if step == 2:
            prepared.trainable[0].data[:] = float("nan")

    with pytest.raises(GenesisError, match=r"no longer a number at step 3 \(epoch 1\); the last checkpoint is kept"):
        train(prepared, on_progress=spoil)
    kept = checkpoints.last_checkpoint(prepared.folder)
    assert kept and kept["step"] == 2 and all(w.isfinite().all() for w in kept["adapter"].values())


def test_memory_that_runs_out_says_what_to_lower_and_by_how_much(
    dataset: Dataset, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    prepared = ready(dataset, base, tmp_path, row_tokens=2000)
    monkeypatch.setattr(Prepared, "loss", full)
    with pytest.raises(
        GenesisError, match=r"lower row_tokens \(down to \d+, the longest example\), or set gradient_checkpointing"
    ):
        train(prepared)


def test_a_full_disk_in_the_middle_of_a_save_keeps_the_checkpoint_before(
    dataset: Dataset, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "SAVE_EVERY", 1)
    real, saved = torch.save, []

    def save(value: Any, path: Path) -> None:
        real(value, path)
        saved.append(value["step"])
        if len(saved) > 1:
            os.truncate(path, 100)
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", save)
    prepared = ready(dataset, base, tmp_path)
    with pytest.raises(GenesisError, match=r"disk is full while writing .*checkpoint\.pt"):
        train(prepared)
    kept = checkpoints.last_checkpoint(prepared.folder)
    assert kept and (kept["step"], saved) == (1, [1, 2])
    assert [path.name for path in prepared.folder.iterdir()] == ["checkpoint.pt"]
    monkeypatch.setattr(torch, "save", real)
    assert len(losses(train(ready(dataset, base, tmp_path)))) == 6


def test_a_checkpoint_that_can_not_be_read_says_what_to_do(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    prepared = ready(dataset, base, tmp_path)
    prepared.folder.mkdir(parents=True)
    (prepared.folder / "checkpoint.pt").write_bytes(b"half")
    with pytest.raises(InvalidInput, match="remove it, or train anew with replace: true"):
        train(prepared)
    assert len(losses(train(ready(dataset, base, tmp_path, replace=True)))) == 6


def test_a_checkpoint_of_another_base_is_refused(
    dataset: Dataset, base: Path, words: list[str], tmp_path: Path
) -> None:
    prepared = ready(dataset, base, tmp_path)
    with pytest.raises(GenesisError, match="Stopped"):
        train(prepared, on_progress=lambda *_: os.kill(os.getpid(), signal.SIGINT))
    other = tiny_llama(tmp_path / "other", words, seed=1)
    with pytest.raises(
        InvalidInput, match=r"checkpoint in .* was made from base .*choose another name .* replace: true"
    ):
        train(ready(dataset, other, tmp_path))
    with pytest.raises(InvalidInput, match=r"made with other settings \(rank\)"):
        train(ready(dataset, base, tmp_path, rank=4))
    assert len(losses(train(ready(dataset, other, tmp_path, replace=True)))) == 6


def test_a_student_that_is_replaced_stays_until_the_new_one_is_whole(
    dataset: Dataset, base: Path, tmp_path: Path
) -> None:
    folder = taught_here(ready(dataset, base, tmp_path, epochs=1))
    before = {name: (folder / name).read_bytes() for name in ("adapter_model.safetensors", "training_info.json")}
    with pytest.raises(GenesisError, match="Stopped"):
        train(
            ready(dataset, base, tmp_path, rank=4, replace=True),
            on_progress=lambda *_: os.kill(os.getpid(), signal.SIGINT),
        )
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    steps: list[int] = []
    replaced = train(
        ready(dataset, base, tmp_path, rank=4, replace=True), on_progress=lambda step, _: steps.append(step)
    )
    assert steps[0] > 1  # it goes on where it was stopped
    assert replaced["made_with"]["settings"]["rank"] == 4
    assert train(ready(dataset, base, tmp_path, rank=4)) == replaced


def test_what_somebody_else_keeps_in_a_students_folder_stays(
    dataset: Dataset, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "SAVE_EVERY", 1)
    folder = ready(dataset, base, tmp_path).folder
    theirs = (
        "checkpoint-500/trainer_state.json",
        "checkpoint-best/notes",
        "finished/list.txt",
        ".cache.tmp/x",
        "notes",
    )
    for name in theirs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    train(ready(dataset, base, tmp_path, epochs=1))
    train(ready(dataset, base, tmp_path, epochs=1, rank=4, replace=True))
    assert all((folder / name).read_text() == "mine" for name in theirs)


def test_an_adapter_of_somebody_else_is_not_written_over(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    prepared = ready(dataset, base, tmp_path, replace=True)
    prepared.folder.mkdir(parents=True, exist_ok=True)
    (prepared.folder / "adapter_model.safetensors").write_bytes(b"theirs")
    with pytest.raises(InvalidInput, match="not trained here"):
        train(prepared)
    assert (prepared.folder / "adapter_model.safetensors").read_bytes() == b"theirs"


@pytest.mark.parametrize("moved", [1, 2])
def test_a_kill_while_a_student_gets_its_place_is_made_good(
    dataset: Dataset, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: int
) -> None:
    train(ready(dataset, base, tmp_path, epochs=1))
    real, done = Path.replace, []

    def killed(path: Path, target: Path) -> Path:
        if path.parent.name == ".finished":
            done.append(path)
            if len(done) > moved:
                raise KeyboardInterrupt
        return real(path, target)

    again = ready(dataset, base, tmp_path, epochs=1, rank=4, replace=True)
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        train(again)
    monkeypatch.setattr(Path, "replace", real)
    steps: list[int] = []
    info = train(ready(dataset, base, tmp_path, epochs=1, rank=4), on_progress=lambda step, _: steps.append(step))
    assert not steps and info["made_with"]["settings"]["rank"] == 4  # all was learned before the kill
    assert {file.name for file in again.folder.iterdir()} == set(checkpoints.STUDENT)


@pytest.mark.parametrize("n, message", [(0, "no records to learn from"), (1, "a single concept")])
def test_too_little_data_is_refused(n: int, message: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=message):
        ready(taught(tmp_path / "few", n), base, tmp_path)


def test_settings_that_fit_no_example_are_refused(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"All 9 examples of split train are longer than max_length \(16 tokens\)"):
        ready(dataset, base, tmp_path, max_length=16)
    with pytest.raises(InvalidInput, match="reads 2,048 tokens: lower it"):
        ready(dataset, base, tmp_path, max_length=4000, row_tokens=4000)
    with pytest.raises(InvalidInput, match=r"learning_rate: must be at most 0\.1, got 2"):
        from_parameters(FinetuneConfig, {"learning_rate": 2.0})
    with pytest.raises(InvalidInput, match=r"row_tokens \(100\) must be at least max_length \(700\)"):
        from_parameters(FinetuneConfig, {**SMALL, "row_tokens": 100})


def test_nf4_without_a_gpu_is_refused_with_the_reason(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(InvalidInput, match="needs a CUDA GPU: on a CPU bitsandbytes spoils the gradients"):
        ready(dataset, base, tmp_path, quantization="nf4")


def test_a_base_that_does_not_write_or_has_no_template_is_refused(
    dataset: Dataset, base: Path, words: list[str], tmp_path: Path
) -> None:
    plain = tiny_llama(tmp_path / "plain", words, template=None)
    with pytest.raises(InvalidInput, match="has no chat template"):
        ready(dataset, plain, tmp_path)
    config = json.loads((base / "config.json").read_text())
    encoder = tiny_llama(tmp_path / "encoder", words)
    (encoder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(InvalidInput, match="no causal language model"):
        ready(dataset, encoder, tmp_path)


def test_an_adapter_whose_base_is_gone_says_so(dataset: Dataset, base: Path, tmp_path: Path) -> None:
    folder = taught_here(ready(dataset, base, tmp_path, epochs=1))
    config = (folder / "adapter_config.json").read_text()
    (folder / "adapter_config.json").write_text(re.sub(r'("base_model_name_or_path": )"[^"]*"', r'\1"nowhere"', config))
    with pytest.raises(InvalidInput, match="no model 'nowhere'"):
        load_model(str(folder))


def test_datasets_that_teach_no_student_are_refused(base: Path, tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "talk", "conversations", {}) as writer:
        writer.write([], "train")
    with pytest.raises(InvalidInput, match="holds conversations, which teach no student"):
        ready(open_dataset(tmp_path / "talk"), base, tmp_path)


LAYERS = {
    "llama": ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
    "phi3": ({"qkv_proj", "o_proj"}, {"gate_up_proj", "down_proj"}),
    "gemma2": ({"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}),
    "gpt2": ({"c_attn", "c_proj"}, {"c_fc"}),
    "gpt_neox": ({"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    "bloom": ({"query_key_value", "dense"}, {"dense_h_to_4h", "dense_4h_to_h"}),
    "mpt": ({"Wqkv", "out_proj"}, {"up_proj", "down_proj"}),
}


@pytest.mark.parametrize("family", LAYERS)
def test_adapters_land_on_attention_and_more_whatever_the_layers_are_called(
    family: str, dataset: Dataset, words: list[str], tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "base", family, words)
    attention, others = LAYERS[family]
    assert ready(dataset, model, tmp_path).facts()["adapted"] == dict.fromkeys(
        attention, 2
    )  # one in each of the two blocks
    everywhere = ready(dataset, model, tmp_path, targets="all-linear").facts()["adapted"]
    assert set(everywhere) == attention | others
    assert everywhere == {name: 4 if (family, name) == ("gpt2", "c_proj") else 2 for name in everywhere}


@pytest.mark.parametrize("family", LAYERS)
def test_a_student_of_any_family_learns_from_each_example_by_itself_and_is_used_by_its_folder(
    family: str, dataset: Dataset, words: list[str], tmp_path: Path
) -> None:
    model = tiny_model(tmp_path / "base", family, words)
    prepared = ready(dataset, model, tmp_path, max_steps=1, row_tokens=1400)
    three = prepared.train[:3]
    with torch.no_grad():
        together = sum(float(prepared.loss(row)) for row in prepared.rows(three))
        apart = sum(float(prepared.loss(row)) for each in three for row in prepared.rows([each]))
        torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-3)
    info = train(prepared)
    assert info["adapted"] == prepared.facts()["adapted"] and info["notes"] == []
    request = replace(question_of(role_of(dataset)[1]["train"][0]), max_tokens=5)
    assert LocalProvider(str(prepared.folder), dtype="float32").complete(request).usage.completion_tokens <= 5


def test_a_base_without_layers_for_adapters_says_what_to_do() -> None:
    from torch import nn

    from genesis_lab.finetuning.lora import target_layers

    class Model(nn.Module):
        def __init__(self, *blocks: nn.Module) -> None:
            super().__init__()
            self.mixer, self.head = nn.Sequential(*blocks), nn.Linear(2, 2)

        def get_output_embeddings(self) -> nn.Module:
            return self.head

    with pytest.raises(InvalidInput, match="in its attention that adapters could be put on: choose all-linear"):
        target_layers(Model(nn.Linear(2, 2)), attention_only=True)
    with pytest.raises(InvalidInput, match="no linear layers that adapters could be put on: choose another base"):
        target_layers(Model(), attention_only=False)


def test_a_template_that_drops_the_instruction_teaches_it_all_the_same_and_the_record_says_so(
    dataset: Dataset, words: list[str], tmp_path: Path
) -> None:
    model = tiny_llama(tmp_path / "base", words, template=FORGETFUL["drops the system text"])
    prepared = ready(dataset, model, tmp_path, max_steps=1)
    instruction = role_of(dataset)[1]["train"][0].system
    assert instruction[:40] in prepared.loaded.tokenizer.decode(prepared.train[0].prompt)
    info = train(prepared)
    assert "head of the first question" in info["notes"][0]
    said = view("student", "run", info).html
    assert "head of the first question" in said and "2 q_proj" in said


@pytest.mark.parametrize("n", [1, 2])
def test_a_dataset_with_one_text_teaches_it_or_says_what_is_missing(n: int, base: Path, tmp_path: Path) -> None:
    role: Any = get_domain("requirements", max_items=2)
    spec = role.specs(1, 1)[0]
    about = Provenance(provider="offline", model="grammar", prompt_version=role.prompt_version)
    record = role.render(role.parse(role.offline_text(spec, 0), spec), spec, about).model_dump()
    with DatasetWriter(tmp_path / "one", role.name, {}) as writer:
        writer.write([record] * n, "train")
        writer.write([record], "validation")
    info = train(ready(open_dataset(tmp_path / "one"), base, tmp_path, max_steps=1, max_length=2000, row_tokens=4000))
    assert info["examples"] == {"train": n, "validation": 1}
