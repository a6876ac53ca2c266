"""The next token of every row of a batch: held to a grammar, sampled with the row's own seed, cut at its own limit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from genesis_lab.errors import MissingDependency, Rejected


@dataclass
class Row:
    """How one row of a batch is sampled.

    Parameters
    ----------
    temperature : 0 takes the likeliest token.
    top_p : mass of the likeliest tokens to choose among.
    max_tokens : after so many, the row is ended.
    rng : the row's own generator, so that its text does not depend on its neighbours.
    matcher : llguidance's `LLMatcher` of the row's grammar, or None.
    """

    temperature: float
    top_p: float
    max_tokens: int
    rng: np.random.Generator
    matcher: Any = None
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class RowSampler:
    """A logits processor for ``generate(do_sample=False)``: it leaves one token per row, the one it chose.

    Sampling happens here and not in ``generate`` because that draws a whole batch from one generator.
    """

    def __init__(self, rows: Sequence[Row], eos_ids: Sequence[int]) -> None:
        self._rows, self._eos = rows, list(eos_ids)

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        scores = scores.float()
        if any(row.matcher for row in self._rows):
            allowed = torch.from_numpy(self._allowed(scores.shape[1])).to(scores.device)
            scores = scores.masked_fill(~allowed, float("-inf"))
        chosen = self._choose(scores).tolist()
        for i, row in enumerate(self._rows):
            if row.ended or len(row.tokens) >= row.max_tokens:
                chosen[i] = self._eos[0]  # the row is over; its tokens are already complete
            elif chosen[i] in self._eos:
                row.ended = True
            else:
                row.tokens.append(chosen[i])
                if row.matcher:
                    row.matcher.consume_token(chosen[i])
        result = torch.full_like(scores, float("-inf"))
        return result.scatter(1, torch.tensor(chosen, device=scores.device)[:, None], 0.0)

    def _allowed(self, vocabulary: int) -> np.ndarray:
        """Which tokens each row's grammar allows next, shape ``(rows, vocabulary)``."""
        from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

        bits = allocate_token_bitmask(len(self._rows), vocabulary)
        for i, row in enumerate(self._rows):
            if row.matcher and not row.ended and not row.matcher.is_error():
                fill_next_token_bitmask(row.matcher, bits, i)
        return np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :vocabulary].astype(bool)

    def _choose(self, scores: Any) -> Any:
        """One token per row by inverse transform sampling, with one uniform number of the row's generator."""
        import torch

        likeliest = scores.argmax(-1)
        if not any(row.temperature for row in self._rows):
            return likeliest

        def column(values: list[float]) -> Any:
            return torch.tensor(values, dtype=torch.float32, device=scores.device)[:, None]

        heat = column([max(row.temperature, 1e-4) for row in self._rows])
        probabilities = torch.softmax((scores - scores.amax(-1, keepdim=True)) / heat, -1)
        if any(row.top_p < 1 for row in self._rows):
            ranked, order = probabilities.sort(-1, descending=True)
            outside = ranked.cumsum(-1) - ranked >= column([row.top_p for row in self._rows])
            probabilities = torch.zeros_like(ranked).scatter(1, order, ranked.masked_fill(outside, 0.0))
        mass = probabilities.cumsum(-1)
        drawn = column([min(row.rng.random(), 1 - 1e-6) for row in self._rows])
        sampled = torch.searchsorted(mass, drawn * mass[:, -1:], right=True)[:, 0].clamp(max=scores.shape[1] - 1)
        cold = torch.tensor([row.temperature == 0 for row in self._rows], device=scores.device)
        return torch.where(cold, likeliest, sampled)


def grammar_tokenizer(tokenizer: Any, vocabulary: int, eos_ids: Sequence[int]) -> Any:
    """llguidance's view of a tokenizer; takes about a second, so keep it.

    Raises
    ------
    MissingDependency : llguidance is not installed.
    """
    if find_spec("llguidance") is None:
        raise MissingDependency("llguidance", "Holding a local model to a JSON schema", "pip install llguidance")
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=vocabulary, eos_token=list(eos_ids))


def matcher(tokenizer: Any, form: Mapping[str, Any] | str) -> Any:
    """A matcher at the start of an answer of the given form.

    Parameters
    ----------
    form : a JSON schema (the answer is on one line, written as ``json.dumps`` would), or a Lark grammar.

    Raises
    ------
    Rejected : the form says something that no grammar can be made of.
    """
    from llguidance import LLMatcher

    if isinstance(form, str):
        grammar = LLMatcher.grammar_from_lark(form)
    else:
        grammar = _schema_grammar(json.dumps(form, sort_keys=False))
    found = LLMatcher(tokenizer, grammar, log_level=0)
    if found.is_error():
        raise Rejected(f"The answer's form can't be made into a grammar: {found.get_error()[:200]}")
    return found


@lru_cache(maxsize=64)
def _schema_grammar(schema: str) -> str:
    from llguidance import LLMatcher

    style = {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
        "json_allowed_escapes": 'nt"\\',
    }
    return LLMatcher.grammar_from_json_schema(schema, overrides=style)  # type: ignore[arg-type]  # a plain dict
