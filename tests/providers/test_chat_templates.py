"""Chat templates that leave something out: what is said reaches the model all the same, or is refused in a sentence."""

from __future__ import annotations

import datetime

import pytest

from genesis_lab.domains.base import Example
from genesis_lab.errors import InvalidInput
from genesis_lab.finetuning.gguf import ollama_template
from genesis_lab.finetuning.tasks import encode
from genesis_lab.providers.base import Request
from genesis_lab.providers.chat_templates import mend
from genesis_lab.providers.local import chat_tokens
from genesis_lab.providers.local_models import load_model
from tiny_models import DATED, FORGETFUL, TEMPLATE, tiny_llama, tiny_tokenizer

pytest.importorskip("torch")
ASKED = Request("", system="Be brief.", messages=(("user", "What?"),))
SHOWN = Request("", system="Be brief.", messages=(("user", "Who?"), ("assistant", "Me."), ("user", "What?")))
EXAMPLE = Example("e", "g", "en", "Be brief.", "What?", "That.")


@pytest.mark.parametrize("template", FORGETFUL)
@pytest.mark.parametrize("request_", [ASKED, SHOWN], ids=["a question", "demonstrations"])
def test_all_that_is_said_reaches_the_model_in_its_order_and_it_is_asked_to_answer(template, request_):
    tokenizer = tiny_tokenizer(template=FORGETFUL[template])
    text = tokenizer.decode(chat_tokens(tokenizer, request_))
    at = [text.index(words) for words in (request_.system, *(words for _, words in request_.messages))]
    assert at == sorted(at) and text.rstrip().endswith("<s>assistant:")
    assert text.count("Be brief.") == 1 and text.count("<s>assistant:") == len(request_.messages) // 2 + 1


@pytest.mark.parametrize("template", FORGETFUL)
def test_teaching_serving_an_export_and_ollama_read_the_same_words(template, tmp_path):
    loaded = load_model(str(tiny_llama(tmp_path / "m", template=FORGETFUL[template])), device="cpu")
    assert len(loaded.notes) == 1
    served = chat_tokens(loaded.tokenizer, ASKED)
    (taught,), _ = encode(loaded.tokenizer, loaded.eos_ids, [EXAMPLE], 700)
    assert list(taught.prompt) == served
    loaded.tokenizer.save_pretrained(tmp_path / "exported")  # for any other server, which knows nothing of us
    from transformers import AutoTokenizer

    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What?"}]
    raw = AutoTokenizer.from_pretrained(tmp_path / "exported")
    text = raw.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert raw(text, add_special_tokens=False)["input_ids"] == served and mend(raw) == ()
    assert ollama_template(tiny_tokenizer(template=FORGETFUL[template])) is None  # no family's: left to Ollama


def test_a_template_that_says_everything_stays_as_it_is(tmp_path):
    loaded = load_model(str(tiny_llama(tmp_path / "m")), device="cpu")
    assert loaded.notes == () and loaded.tokenizer.chat_template == TEMPLATE


def test_a_student_reads_the_same_on_every_day(tmp_path, monkeypatch):
    read = []
    for day in (1, 2):

        class Clock(datetime.datetime):
            @classmethod
            def now(cls, tz=None, day=day):
                return cls(2031, 5, day, tzinfo=tz)

        with monkeypatch.context() as patch:
            from transformers.utils import chat_template_utils

            patch.setattr(chat_template_utils, "datetime", Clock)
            loaded = load_model(str(tiny_llama(tmp_path / "m", template=DATED)), device="cpu")
            asked = chat_tokens(loaded.tokenizer, Request("", messages=(("user", "What?"),)))
            read.append((asked, loaded.notes, loaded.tokenizer.chat_template))
    assert read[0] == read[1]
    text = loaded.tokenizer.decode(read[0][0])
    assert "Today is Friday, 26 Jul 2024." in text and "2031" not in str(read)
    loaded.tokenizer.save_pretrained(tmp_path / "m")  # as an export does: nothing is left to mend
    assert load_model(str(tmp_path / "m"), device="cpu").notes == ()
    assert "today's date" in loaded.notes[0] and "26 July 2024" in loaded.notes[0]


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for m in messages %}<s>{{ m['role'] }}</s>{% endfor %}", "leaves out the user's words"),
        ("<s>{{ raise_exception('never') }}", "can't take this chat: never"),
        ("{{ messages[0]['content'] }}{{ 1 // 0 }}", "can't take this chat: integer division"),
        ("{% for t in tools %}{% endfor %}{{ messages[0]['content'] }}", "can't take this chat: 'NoneType' object"),
    ],
)
def test_a_template_that_can_not_ask_is_refused(template, sentence, tmp_path):
    with pytest.raises(InvalidInput, match=sentence):
        load_model(str(tiny_llama(tmp_path / "m", template=template)), device="cpu")


def test_a_template_without_earlier_turns_is_refused_for_those_only():
    last = "{% for m in messages if m['role'] != 'assistant' %}<s>{{ m['content'] }}</s>{% endfor %}<s>assistant: "
    tokenizer = tiny_tokenizer(template=last)
    assert "What?" in tokenizer.decode(chat_tokens(tokenizer, ASKED))
    with pytest.raises(InvalidInput, match="without demonstrations"):
        chat_tokens(tokenizer, SHOWN)
    with pytest.raises(InvalidInput, match="leaves out the assistant's words"):
        encode(tokenizer, [1], [EXAMPLE], 700)
    assert ollama_template(tokenizer) is None


def test_an_empty_answer_teaches_nothing_and_is_named():
    with pytest.raises(InvalidInput, match="answer of example e is empty"):
        encode(tiny_tokenizer(), [1], [Example("e", "g", "en", "Be brief.", "What?", "")], 700)


@pytest.mark.parametrize("ends", [True, False])
def test_a_model_without_end_or_padding_token(tmp_path, ends):
    import json

    folder = tiny_llama(tmp_path / "m")
    tiny_tokenizer(eos_token=None).save_pretrained(folder)
    if ends:  # only the model's settings say so
        assert load_model(str(folder), device="cpu").tokenizer.pad_token == "</s>"
        return
    for name in ("config.json", "generation_config.json"):
        told = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(told | {"eos_token_id": None}))
    with pytest.raises(InvalidInput, match="names no token that ends an answer: set eos_token"):
        load_model(str(folder), device="cpu")
