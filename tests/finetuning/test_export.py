"""Exports of a tiny random Llama with the tokenizer of the bundled model, through the real llama.cpp where it is."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml

from finetuning.ollama_formats import parse_modelfile
from genesis_lab.domains.base import Example, Score
from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Unavailable
from genesis_lab.finetuning.ask import Answers
from genesis_lab.finetuning.export import _copied, export_student, gate, model_card, passed, push_student
from genesis_lab.finetuning.gguf import CONVERTER, llama_cpp_sources, tokenizer_parity
from genesis_lab.providers.local_models import bundled_gguf, load_model
from genesis_lab.settings import get_settings
from hub_server import running_hub

torch = pytest.importorskip("torch")


class Length:
    """A role whose score is how much was said: any model can take it."""

    name = "length"

    def score(self, text: str, example: Example) -> Score:
        return Score(min(1.0, len(text) / 100), bool(text), {})

    def answer_grammar(self) -> None:
        return None


EXPORT = {"base": "b", "folder": "outputs/students/s", "gates": [], "parity": None, "not_measured": {}}
"""As much of an export's record as a card is made of."""
EXAMPLES = [Example(f"e{i}", f"g{i}", "en", "Be brief.", f"Question {i}?", "a: 1\nb: ñ") for i in range(4)]


def told(n: int, valid: int, score: float = 1.0) -> Answers:
    """Answers to `n` items of which the last ones are not valid and score a little less."""
    rows = [
        {"example": f"e{i}", "group": f"g{i}", "total": score - 0.1 * (i >= valid), "valid": i < valid}
        for i in range(n)
    ]
    return Answers(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("n", "valid", "score", "keeps_up", "said"),
    [
        (24, 21, 1.0, None, "can't be told: needs about 100 items"),
        (24, 24, 1.0, None, "can't be told: needs about 70 items"),
        (300, 262, 1.0, False, "fails: validity lower by more than 0.03"),
        (300, 300, 0.9, False, "fails: score lower by more than 0.03"),
        (300, 300, 0.99, True, "passes"),
    ],
)
def test_a_form_passes_only_where_score_and_validity_keep_up_beyond_doubt(n, valid, score, keeps_up, said):
    found = gate("q8_0", "llama.cpp", told(n, valid, score), told(n, n), margin=0.03)
    assert (found["passed"], found["said"]) == (keeps_up, said)
    student = told(n, n)
    report = EXPORT | {"gates": [gate("student", "local", student, student), found]}
    assert passed(report) is keeps_up
    assert said in model_card(report, Path("nowhere"), None).replace("\\_", "_")


@pytest.fixture(scope="module")
def student(tmp_path_factory, smollm2_folder) -> Path:
    """A LoRA adapter with weights that matter, its base beside it."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("students")
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=512, bos_token_id=1, eos_token_id=2, **sizes
    )
    base = folder / "base"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)
    model = LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    (folder / "adapter" / "training_info.json").write_text('{"seed": 42, "limits": {"max_steps": 3}}')
    return folder / "adapter"


@pytest.fixture(scope="module")
def converter() -> Path:
    """llama.cpp's converter: a checkout, or the one that an export on this machine has fetched."""
    from genesis_lab.settings import project_root

    fetched = sorted((project_root() / "outputs" / "cache" / "llama.cpp").glob("*/convert_hf_to_gguf.py"))
    given = get_settings().llama_cpp_dir
    if not (given or fetched) or find_spec("sentencepiece") is None:
        pytest.skip("llama.cpp's converter is not on this machine")
    return given or fetched[-1].parent


def test_the_merged_model_says_what_base_and_adapter_say(student, tmp_path):
    from safetensors.torch import load_file

    report = export_student(student, tmp_path / "out", (), role=Length(), examples=EXAMPLES, max_tokens=8)
    assert report["base"] == "base"
    trained, merged = report["gates"]
    assert report["passed"] is None and "can't be told: needs about 70 items" in merged["said"]  # four agree
    assert (trained["form"], merged["form"]) == ("student", "merged") and merged["difference"]["estimate"] == 0.0
    name = "model.layers.0.self_attn.q_proj.weight"
    before, after = (
        load_file(p / "model.safetensors")[name] for p in (student.parent / "base", tmp_path / "out/merged")
    )
    assert after.dtype == before.dtype == torch.bfloat16 and not torch.equal(before, after)
    assert report["not_measured"] == {"parity": "no GGUF file was asked for"}
    card = (tmp_path / "out/merged/README.md").read_text()
    assert "A smoke run" in card and "max\\_steps" in card and "| merged | local |" in card


def test_every_form_says_how_it_is_loaded_and_what_it_was_taught_from(student, tmp_path, monkeypatch):
    config = student.parent / "base" / "config.json"
    before = config.read_text()
    config.write_text(json.dumps(json.loads(before) | {"_name_or_path": "someone/base"}))
    try:
        export_student(student, tmp_path / "out", ())
    finally:
        config.write_text(before)
    for place, library in {"merged": "transformers", "adapter": "peft", ".": "gguf"}.items():
        header = yaml.safe_load((tmp_path / "out" / place / "README.md").read_text().split("---")[1])
        assert (header["library_name"], header["base_model"]) == (library, "someone/base")
    with running_hub(monkeypatch) as hub:
        push_student(tmp_path / "out", "me/mine", "merged")
    assert b"library_name: transformers" in hub.files["README.md"] and b"peft" not in hub.files["README.md"]
    assert str(tmp_path) not in "".join(f.read_text() for f in (tmp_path / "out").rglob("*.md"))
    assert load_model(str(tmp_path / "out" / "adapter"), device="cpu").eos_ids  # finds its base from here too


@pytest.mark.parametrize("place", ["elsewhere", "outputs/students/s"])
def test_model_yaml_names_what_can_be_found_wherever_the_export_is(student, tmp_path, monkeypatch, place):
    export_student(student, tmp_path / place, ())
    monkeypatch.chdir("/")
    listed = yaml.safe_load((tmp_path / place / "model.yaml").read_text())["models"]
    assert load_model(listed["merged"].removeprefix("local:"), device="cpu").eos_ids
    if place.startswith("outputs"):  # moves with the project
        assert listed["merged"] == "local:outputs/students/s/merged"


OPTIONS = {"role": Length(), "examples": EXAMPLES, "max_tokens": 8, "margin": 1.0}


@pytest.fixture(scope="module")
def exported(student, converter, tmp_path_factory) -> tuple[Path, dict, list]:
    folder, asked = tmp_path_factory.mktemp("exports") / "s", []
    return folder, export_student(student, folder, llama_cpp=converter, on_progress=asked.append, **OPTIONS), asked


def test_every_form_is_written_measured_and_described(exported):
    folder, report, _ = exported
    assert [file["form"] for file in report["files"]] == ["merged", "q8_0", "q4_k_m"]
    assert [row["form"] for row in report["gates"]] == ["student", "merged", "q8_0", "q4_k_m"]
    assert report["parity"]["n"] >= 20 and report["parity"]["differing"] == [] and report["passed"] is not False
    found = dict(parse_modelfile((folder / "Modelfile").read_text()))
    assert (
        found["FROM"] == "./s-q4_k_m.gguf"
        and found["SYSTEM"] == "Be brief."
        and found["PARAMETER stop"] == "<|im_end|>"
    )
    assert set(yaml.safe_load((folder / "model.yaml").read_text())["models"]) == {"merged", "q8_0", "q4_k_m"}
    assert json.loads((folder / "export.json").read_text())["parity"]["differing_count"] == 0


def test_a_run_that_was_stopped_goes_on_where_it_was(student, exported):
    stopped, report, asked = exported
    for name in ("export.json", "README.md", "Modelfile"):
        (stopped / name).unlink()
    steps, again = [], []
    finished = export_student(student, stopped, on_step=steps.append, on_progress=again.append, **OPTIONS)
    assert [row["score"] for row in finished["gates"]] == [row["score"] for row in report["gates"]]
    assert "q8_0" not in steps and len(asked) == 4 * len(EXAMPLES) and not again


@pytest.mark.slow
def test_without_llama_cpp_the_gguf_file_is_read_back_by_transformers(student, converter, tmp_path, monkeypatch):
    import genesis_lab.finetuning.export as export
    import genesis_lab.finetuning.gguf as gguf

    for module in (export, gguf):
        monkeypatch.setattr(module, "find_spec", lambda name: None if name == "llama_cpp" else find_spec(name))
    report = export_student(student, tmp_path / "s", ["q8_0"], llama_cpp=converter, **OPTIONS)
    assert report["gates"][-1]["asked_by"].startswith("transformers")
    assert report["passed"] is None and "pip install llama-cpp-python" in report["not_measured"]["parity"]
    with pytest.raises(MissingDependency, match="pip install llama-cpp-python"):
        export_student(student, tmp_path / "s", ["q4_k_m"])


@pytest.mark.slow
def test_the_tokenizer_read_back_from_a_gguf_file_is_the_models_own(smollm2):
    pytest.importorskip("llama_cpp")
    tokenizer = load_model(smollm2, device="cpu").tokenizer
    found = tokenizer_parity(tokenizer, bundled_gguf(), ["¿Qué?", "¿Qué?"])
    assert (found["n"], found["differing"]) == (21, [])


@pytest.mark.slow
def test_a_tokenizer_that_llama_cpp_does_not_know_is_said_in_one_sentence(student, converter, tmp_path):
    from transformers import AutoTokenizer

    other = shutil.copytree(student.parent / "base", tmp_path / "other")
    tokenizer = AutoTokenizer.from_pretrained(other)
    from tokenizers import Regex, pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("z"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.save_pretrained(other)
    with pytest.raises(InvalidInput, match=r"can.t convert"):
        export_student(other, tmp_path / "out", ["q8_0"], llama_cpp=converter)
    assert not list((tmp_path / "out").glob("*.gguf"))


def test_bad_input_is_one_sentence(tmp_path):
    with pytest.raises(InvalidInput, match="is no student"):
        export_student(tmp_path / "none", tmp_path / "out")
    half = tmp_path / "half"
    half.mkdir()
    (half / "adapter_config.json").write_text("{}")
    with pytest.raises(InvalidInput, match="holds no weights"):
        export_student(half, tmp_path / "out")
    (half / "adapter_model.safetensors").write_bytes(b"1")
    with pytest.raises(InvalidInput, match="formats must be different ones of f16, q8_0, q4_k_m"):
        export_student(half, tmp_path / "out", ["q9"])
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(InvalidInput, match="other things in it"):
        export_student(half, tmp_path / "mine")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".student").write_text("another")
    with pytest.raises(InvalidInput, match="another student"):
        export_student(half, tmp_path / "out")
    with pytest.raises(InvalidInput, match="no finished export"):
        push_student(tmp_path / "out", "me/mine")
    with pytest.raises(InvalidInput, match="what must be one of"):
        push_student(tmp_path / "out", "me/mine", "everything")
    with pytest.raises(InvalidInput, match="give the folder of a llama"):
        llama_cpp_sources(tmp_path)


def test_a_converter_of_another_content_than_the_pinned_one_is_refused_before_any_of_it_runs(tmp_path, monkeypatch):
    name = CONVERTER.replace("llama-cpp-python==", "llama_cpp_python-")
    ran = tmp_path / "ran"
    source = tmp_path / name
    (source / "vendor" / "llama.cpp").mkdir(parents=True)
    (source / "vendor" / "llama.cpp" / "convert_hf_to_gguf.py").write_text("")
    (source / "PKG-INFO").write_text(f"Metadata-Version: 2.1\nName: llama-cpp-python\nVersion: {name.split('-')[1]}\n")
    (source / "setup.py").write_text(f"open({str(ran)!r}, 'w')")
    shutil.make_archive(str(tmp_path / "index" / name), "gztar", tmp_path, name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(GenesisError, match=r"llama-cpp-python==[\d.]+ .*SHA-256.*GENESIS_LLAMA_CPP_DIR"):
        llama_cpp_sources()
    assert not ran.exists() and not list((tmp_path / "outputs").rglob("convert_hf_to_gguf.py"))


def test_where_the_converter_can_not_be_fetched_the_way_out_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with pytest.raises(Unavailable, match="set GENESIS_LLAMA_CPP_DIR to a checkout"):
        llama_cpp_sources()


def finished(tmp_path) -> Path:
    report = EXPORT | {"base": "org/base", "not_measured": {"gate": "[x](y)"}}
    (tmp_path / "merged").mkdir()
    (tmp_path / "adapter").mkdir()
    for name in ("export.json", "s.gguf", "Modelfile", "merged/model.safetensors", "adapter/adapter_model.safetensors"):
        (tmp_path / name).touch()
    for what, place in {"gguf": ".", "merged": "merged", "adapter": "adapter"}.items():
        card = model_card(report, tmp_path / "adapter", {"verdict": "better", "rows": [1]}, what=what)
        (tmp_path / place / "README.md").write_text(card)
    return tmp_path


def test_an_adapter_of_the_model_that_comes_along_names_it_as_the_hub_does(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "smollm2", "r": 8}')
    target = _copied(tmp_path, tmp_path / "adapter", "{{ messages }}")
    told = json.loads((target / "adapter_config.json").read_text())
    assert told == {"base_model_name_or_path": "HuggingFaceTB/SmolLM2-135M-Instruct", "r": 8}
    card = model_card(EXPORT | {"base": "smollm2"}, tmp_path)
    assert yaml.safe_load(card.split("---")[1])["base_model"] == told["base_model_name_or_path"] and "Q4_1" in card


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("adapter", {"README.md", "adapter_model.safetensors"}),
        ("merged", {"README.md", "model.safetensors"}),
        ("gguf", {"README.md", "s.gguf", "Modelfile"}),
    ],
)
def test_a_push_carries_the_card_with_the_scores(tmp_path, monkeypatch, what, files):
    with running_hub(monkeypatch) as hub:
        assert push_student(finished(tmp_path), "me/mine", what).endswith("/me/mine")
        assert set(hub.files) == files and "private" in str(hub.created[0]) and "dataset" not in str(hub.created[0])
    card = hub.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "org/base"
    assert "| verdict | better |" in card and "gate: \\[x\\](y)" in card


def test_a_refused_push_names_the_token(tmp_path, monkeypatch):
    with running_hub(monkeypatch) as hub:
        hub.refuse = True
        with pytest.raises(GenesisError, match="GENESIS_HF_TOKEN"):
            push_student(finished(tmp_path), "me/mine")


def test_the_command_says_what_is_wrong_in_one_line(tmp_path, capsys):
    from genesis_lab.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["export-student", str(tmp_path / "nobody"), str(tmp_path / "out")])
    assert ended.value.code == 1 and "genesis: nobody is no student" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
