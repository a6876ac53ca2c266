import pytest

from finetuning.ollama_formats import parse_modelfile, render_go
from genesis_lab.errors import InvalidInput
from genesis_lab.finetuning.gguf import modelfile, ollama_create, ollama_template

TEMPLATES = {
    "chatml": "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "smollm2": "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are SmolLM.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "llama3": "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
    " + m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
    "gemma": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
    # Drops the system text, and asks for an answer after every question.
    "phi3": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + "
    "'<|end|>\n<|assistant|>\n' }}{% elif m['role'] == 'assistant' %}{{ m['content'] + '<|end|>\n' }}{% endif %}"
    "{% endfor %}",
    # Ends with the end of text where it does not ask for an answer.
    "phi3.5": "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}",
    "mistral": "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] %}"
    "{% set rest = messages[1:] %}{% else %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}{% if loop.last and s is defined %}"
    "{{ '[INST] ' + s + '\n\n' + m['content'] + '[/INST]' }}{% else %}{{ '[INST] ' + m['content'] + '[/INST]' }}"
    "{% endif %}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}",
}
USER, ANSWER, AGAIN = (
    {"role": r, "content": c} for r, c in (("user", "¿Qué?"), ("assistant", "a: 1"), ("user", "y\nz"))
)
SYSTEM = {"role": "system", "content": "Be brief."}
CHATS = [[USER], [SYSTEM, USER], [USER, ANSWER, AGAIN], [SYSTEM, USER, ANSWER, AGAIN]]


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "<unk>": 3}, unk_token="<unk>"))
    inner.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("family", TEMPLATES)
def test_ollama_asks_in_the_very_words_of_the_models_own_template(tokenizer, family):
    tokenizer.chat_template = TEMPLATES[family]
    template = ollama_template(tokenizer)
    for chat in CHATS:
        if family in ("gemma", "phi3") and chat[0] is SYSTEM:
            folded = {"role": "user", "content": f"{SYSTEM['content']}\n\n{USER['content']}"}
            wanted = tokenizer.apply_chat_template([folded, *chat[2:]], tokenize=False, add_generation_prompt=True)
        else:
            wanted = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert render_go(template, chat) == wanted.removeprefix("<s>")


def test_a_template_of_another_shape_is_left_to_ollama(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ loop.index }}. {{ m['content'] }}\n{% endfor %}"
    assert ollama_template(tokenizer) is None
    assert parse_modelfile(modelfile("a.gguf", template=None, stop=[]))[0] == ("FROM", "./a.gguf")


def test_the_modelfile_parses_as_documented_and_sets_what_the_evaluation_used(tokenizer):
    tokenizer.chat_template = TEMPLATES["smollm2"]
    template = ollama_template(tokenizer)
    system = 'Eres analista: "YAML", sin más.\n# no comment\nPARAMETER no'
    found = parse_modelfile(
        modelfile("s-q8_0.gguf", template=template, stop=["<|im_end|>"], system=system, context_tokens=2048)
    )
    assert found == [
        ("FROM", "./s-q8_0.gguf"),
        ("TEMPLATE", template),
        ("SYSTEM", system),
        ("PARAMETER stop", "<|im_end|>"),
        ("PARAMETER temperature", "0"),
        ("PARAMETER repeat_penalty", "1"),
        ("PARAMETER num_ctx", "2048"),
    ]


def test_what_a_modelfile_can_not_hold_is_refused():
    with pytest.raises(InvalidInput, match="three double quotes"):
        modelfile("a.gguf", template=None, stop=[], system='say """this"""')


@pytest.mark.parametrize(
    "text", ["", "FORM ./x", "FROM ./x\nPARAMETER heat 1", 'FROM ./x\nSYSTEM """open', "FROM ./x\nFROM ./y"]
)
def test_the_documented_grammar_is_strict(text):
    with pytest.raises(ValueError):
        parse_modelfile(text)


def test_where_ollama_is_not_the_command_to_run_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ollama create student -f Modelfile" in ollama_create("student", tmp_path / "Modelfile")


def test_ollama_is_called_in_the_folder_of_the_modelfile(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\n/bin/cat "$4" > created\n[ "$2" = good ] || { echo "Error: bad name" >&2; exit 1; }\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    (tmp_path / "Modelfile").write_text("FROM ./x.gguf\n")
    assert ollama_create("good", tmp_path / "Modelfile") is None
    assert (tmp_path / "created").read_text() == "FROM ./x.gguf\n"
    assert ollama_create("bad", tmp_path / "Modelfile") == "ollama create failed: Error: bad name"
