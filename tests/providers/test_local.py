"""Provider ``local``: a tiny random Llama made on the spot, and once the bundled SmolLM2 for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from genesis_lab.domains.base import Provenance
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import InvalidInput, Rejected, Unavailable
from genesis_lab.providers.base import Request
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import load_model
from genesis_lab.providers.schemas import bounded, without_bounds

TURN = {
    "type": "object",
    "properties": {"speaker": {"enum": ["customer", "agent"]}, "text": {"type": "string", "minLength": 1}},
    "required": ["speaker", "text"],
    "additionalProperties": False,
}
SCHEMA = {
    "type": "object",
    "properties": {"turns": {"type": "array", "minItems": 2, "maxItems": 2, "items": TURN}},
    "required": ["turns"],
    "additionalProperties": False,
}
REQUEST = Request(key="k", system="Be brief.", messages=(("user", "Hello"),), max_tokens=12, temperature=1.0, seed=1)
TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of random weights with a tokenizer of 300 tokens and room for 512."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    raw.train_from_iterator(['{"turns": [{"speaker": "customer", "text": "my card"}, {"speaker": "agent"'] * 9, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=320, max_position_embeddings=512, bos_token_id=0, eos_token_id=1, **sizes)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def provider(tiny: Path) -> LocalProvider:
    return LocalProvider(str(tiny), batch_size=3, dtype="float32")


def test_a_batch_says_what_each_request_would_say_alone(provider: LocalProvider) -> None:
    texts = ("Hi", "A much longer question about a card that never arrived", "Why?", "Where is it?")
    requests = [replace(REQUEST, messages=(("user", text),), seed=i) for i, text in enumerate(texts)]
    together = [answer.text for answer in provider.complete_many(requests)]
    assert together == [provider.complete(request).text for request in requests]
    assert len(set(together)) == len(texts)


def test_the_seed_decides(provider: LocalProvider) -> None:
    same, again, other = provider.complete_many([REQUEST, REQUEST, replace(REQUEST, seed=2)])
    assert same.text == again.text != other.text


def test_temperature_zero_needs_no_seed(provider: LocalProvider) -> None:
    cold = replace(REQUEST, temperature=0.0)
    one, two = provider.complete_many([cold, replace(cold, seed=99)])
    assert one.text == two.text


def test_threads_that_ask_at_once_share_batches(provider: LocalProvider) -> None:
    requests = [replace(REQUEST, seed=seed) for seed in range(7)]
    with ThreadPoolExecutor(7) as pool:
        answers = list(pool.map(provider.complete, requests))
    assert [a.text for a in answers] == [a.text for a in provider.complete_many(requests)]


def test_batches_stay_full_while_more_requests_wait_than_fit(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provider, sizes = LocalProvider(str(tiny), batch_size=4), []
    complete_many = provider.complete_many
    monkeypatch.setattr(
        provider, "complete_many", lambda requests: sizes.append(len(requests)) or complete_many(requests)
    )
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(provider.complete, [replace(REQUEST, seed=seed) for seed in range(40)]))
    assert len(answers) == sum(sizes) == 40 and len(sizes) <= 20  # ten if all are full


def test_even_a_random_model_is_held_to_the_schema(provider: LocalProvider) -> None:
    requests = [replace(REQUEST, schema=SCHEMA, max_tokens=300, seed=seed) for seed in range(6)]
    answers = list(provider.complete_many(requests))
    assert len(answers) == 6
    for answer in answers:
        assert answer.stop_reason == "end"
        jsonschema.validate(json.loads(answer.text), SCHEMA)


def test_rows_of_one_batch_may_differ_in_schema_and_length(provider: LocalProvider) -> None:
    free, short, held = provider.complete_many(
        [REQUEST, replace(REQUEST, max_tokens=3), replace(REQUEST, schema=SCHEMA, max_tokens=300)]
    )
    assert free.usage.completion_tokens <= 12
    assert (short.usage.completion_tokens, short.stop_reason) == (3, "max_tokens")
    assert len(json.loads(held.text)["turns"]) == 2


def test_usage_and_cost_are_counted(provider: LocalProvider) -> None:
    answer = provider.complete(REQUEST)
    assert answer.usage.prompt_tokens > 10
    assert answer.cost_usd == 0.0
    assert "/" not in answer.model, "no path of this machine"


def test_a_prompt_that_is_too_long_is_rejected_and_the_others_answered(provider: LocalProvider) -> None:
    long, fine = provider.complete_many([replace(REQUEST, messages=(("user", "x" * 900),)), REQUEST])
    assert isinstance(long, Rejected)
    assert "smaller max_tokens" in str(long)
    assert fine.text


def test_a_batch_that_does_not_fit_is_halved(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import LlamaForCausalLM

    provider, generate = LocalProvider(str(tiny), batch_size=4, dtype="float32"), LlamaForCausalLM.generate

    def small_memory(self: Any, input_ids: Any, **options: Any) -> Any:
        if len(input_ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(self, input_ids, **options)

    requests = [replace(REQUEST, seed=seed) for seed in range(5)]
    expected = [answer.text for answer in provider.complete_many(requests)]
    monkeypatch.setattr(LlamaForCausalLM, "generate", small_memory)
    assert [answer.text for answer in provider.complete_many(requests)] == expected
    assert provider.batch_size == 2


def test_a_schema_that_makes_no_grammar_is_rejected(provider: LocalProvider) -> None:
    with pytest.raises(Rejected, match="grammar"):
        provider.complete(replace(REQUEST, schema={"type": "no such type"}))


def test_models_that_can_not_be_asked_are_named_in_one_sentence(tiny: Path, tmp_path: Path) -> None:
    import shutil

    from transformers import BertConfig, BertModel

    base = shutil.copytree(tiny, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    with pytest.raises(InvalidInput, match="no chat template"):
        load_model(str(base))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=50, **sizes)).save_pretrained(tmp_path / "bert")
    with pytest.raises(InvalidInput, match="no causal language model but BertModel"):
        load_model(str(tmp_path / "bert"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match="can't be loaded"):
        load_model(str(tmp_path / "empty"))
    with pytest.raises(InvalidInput, match="There is no model"):
        load_model("no_such_folder")
    (tmp_path / "junk.gguf").write_bytes(b"GGUF and then nothing of the kind" * 9)
    with pytest.raises(InvalidInput, match=r"junk\.gguf can't be read by transformers"):
        load_model(str(tmp_path / "junk.gguf"))
    torn = shutil.copytree(tiny, tmp_path / "torn")
    (torn / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(InvalidInput, match="can't be loaded as a language model"):
        load_model(str(torn))
    with pytest.raises(Unavailable, match="hub can't be reached"):
        load_model("nobody/nothing")


def test_bounds_make_room_for_every_string_and_never_widen_one() -> None:
    turns = bounded(SCHEMA, 200)["properties"]["turns"]
    assert turns["items"]["properties"]["text"] == {"type": "string", "minLength": 1, "maxLength": 150}
    assert bounded({"type": "string", "maxLength": 5}, 200)["maxLength"] == 5
    assert "maxItems" in bounded({"type": "array", "items": {"type": "string"}}, 200)
    assert bounded(SCHEMA, 200) != SCHEMA != without_bounds(SCHEMA)


@pytest.mark.slow
def test_the_bundled_model_writes_a_conversation_that_fits(smollm2: str) -> None:
    domain = Conversations(ConversationsConfig(english_share=1.0, few_shot=0))
    spec = next(s for s in domain.specs(10, 5) if s.attributes["turns"] == 2)
    prompt = domain.prompt(spec)
    turns = [deepcopy(TURN) for _ in range(2)]
    for turn, speaker in zip(turns, ("customer", "agent"), strict=True):
        turn["properties"]["speaker"] = {"const": speaker}
    schema = deepcopy(SCHEMA)
    schema["properties"]["turns"]["prefixItems"] = turns
    request = Request(
        key="", system=prompt.system, messages=prompt.messages, schema=schema, max_tokens=80, temperature=0.7, seed=4
    )
    provider = LocalProvider(smollm2)
    answer = provider.complete(request)
    provider.close()

    assert answer.stop_reason == "end"
    jsonschema.validate(json.loads(answer.text), schema)
    record = domain.render(
        domain.parse(answer.text, spec),
        spec,
        Provenance(provider="local", model=provider.model, prompt_version=domain.prompt_version),
    )
    assert [turn.speaker for turn in record.turns] == ["customer", "agent"]
