"""Causal language models of random weights, small enough to be made in every test run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)
FORGETFUL = {
    "drops the system text": "{% for m in messages %}{% if m['role'] != 'system' %}"
    "<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}",
    "refuses a system text": "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    + TEMPLATE,
    "drops it in a longer chat": "{% if messages|length > 3 and messages[0]['role'] == 'system' %}"
    "{% set messages = messages[1:] %}{% endif %}" + TEMPLATE,
}
"""Chat templates that leave something out, as some on the hub do."""
DATED = "{% if messages[0]['role'] == 'user' %}Today is {{ strftime_now('%A, %d %b %Y') }}.\n{% endif %}" + TEMPLATE
_SIZES: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SIZES,
    "phi3": {**_SIZES, "pad_token_id": 1},  # one layer for q, k and v, one for gate and up
    "gemma2": {**_SIZES, "head_dim": 8, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},  # c_attn and two c_proj, of another class than nn.Linear
    "gpt_neox": {**_SIZES, "num_key_value_heads": None},  # query_key_value and dense
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},  # no sdpa, and no attention of transformers' own
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4},  # Wqkv
}
"""Model types of transformers with small sizes; what they call their layers differs."""


def tiny_llama(
    folder: Path, texts: Sequence[str] = (), *, seed: int = 0, context: int = 2048, template: str | None = TEMPLATE
) -> Path:
    """A Llama with shared key heads and a byte-level tokenizer that knows the words of `texts`, saved in `folder`."""
    return tiny_model(folder, "llama", texts, seed=seed, context=context, template=template)


def tiny_model(
    folder: Path, family: str, texts: Sequence[str] = (), *, seed: int = 0, context: int = 2048,
    template: str | None = TEMPLATE,
) -> Path:  # fmt: skip
    """A model of one of the `FAMILIES` and a byte-level tokenizer that knows the words of `texts`, saved in `folder`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    limit = {"mpt": "max_seq_len", "gpt2": "n_positions"}.get(family, "max_position_embeddings")
    config = AutoConfig.for_model(
        family, vocab_size=1024, bos_token_id=0, eos_token_id=1, **{limit: context}, **FAMILIES[family]
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer(texts, template).save_pretrained(folder)
    return folder


def tiny_tokenizer(texts: Sequence[str] = (), template: str | None = TEMPLATE, **options: Any) -> Any:
    """A byte-level tokenizer that knows the words of `texts`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    raw.train_from_iterator(texts, trainer)
    named = {"bos_token": "<s>", "eos_token": "</s>"} | options
    return PreTrainedTokenizerFast(tokenizer_object=raw, chat_template=template, **named)


def tiny_embedder(folder: Path, texts: Sequence[str]) -> Path:
    """A sentence-transformers model of random weights that knows the words of `texts`, saved in `folder`."""
    import torch
    from sentence_transformers import SentenceTransformer, models
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=1024, **sizes)).save_pretrained(folder / "bert")
    tiny_tokenizer(texts, pad_token="</s>").save_pretrained(folder / "bert")
    words = models.Transformer(str(folder / "bert"))
    SentenceTransformer(modules=[words, models.Pooling(32)], device="cpu").save(str(folder / "embedder"))
    return folder / "embedder"
