"""Provider ``local``: a model in this process, several requests at a time, held to the schema by a grammar."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np

from genesis_lab.errors import Fatal, InvalidInput, MissingDependency, ProviderError, Rejected
from genesis_lab.providers.base import Completion, Provider, Request, StopReason, Usage
from genesis_lab.providers.chat_templates import chat_text, keeps_turns
from genesis_lab.providers.local_models import BUNDLED, Device, Dtype, LoadedModel, load_model, model_name
from genesis_lab.providers.schemas import bounded

BUNDLED_PENALTY = 1.15
_GATHER_S = 0.05
"""How long a batch waits for more requests; next to nothing beside the seconds it then runs."""


@dataclass
class _Row:
    """A request on its way through the model; `tokens` are those of its answer."""

    request: Request
    prompt: list[int]
    temperature: float
    matcher: Any
    rng: np.random.Generator
    tokens: list[int] = field(default_factory=list)
    ended: bool = False

    @property
    def stop_reason(self) -> StopReason:
        if self.matcher and self.matcher.is_error():
            return "malformed"
        return "end" if self.ended else "max_tokens"


class LocalProvider(Provider):
    """A causal language model by transformers (see `local_models.load_model`), loaded with the first request.

    Up to `batch_size` requests that arrive at the same time are answered as one batch (halved where a GPU's memory does
    not hold it), each by its own seed. Schemas are always enforced, with limits so that an answer ends within
    `max_tokens`. The bundled model says one sentence over and over without a penalty.
    """

    name = "local"

    def __init__(
        self,
        model: str = BUNDLED,
        *,
        batch_size: int = 8,
        device: Device = "auto",
        dtype: Dtype = "auto",
        repetition_penalty: float | None = None,
        loaded: LoadedModel | None = None,
    ) -> None:
        self.model = model_name(model)
        self.batch_size = batch_size
        self.concurrency = batch_size
        self.source, self._device, self._dtype = model, device, dtype
        self.repetition_penalty = repetition_penalty or (BUNDLED_PENALTY if model == BUNDLED and not loaded else None)
        self._loaded = loaded
        self._grammar_tokenizer: Any = None
        self._busy, self._waiting = threading.RLock(), deque[tuple[Request, Future[Completion]]]()

    def load(self) -> LoadedModel:
        """The model, loaded now if it was not; raises what `local_models.load_model` raises."""
        with self._busy:
            if self._loaded is None:
                self._loaded = load_model(self.source, device=self._device, dtype=self._dtype)
            return self._loaded

    def complete(self, request: Request) -> Completion:
        """Answer one request: whoever has the model answers those that other threads are asking for meanwhile, too."""
        mine: Future[Completion] = Future()
        self._waiting.append((request, mine))
        while not mine.done():
            if not self._busy.acquire(timeout=_GATHER_S):  # whoever has the model may answer this one
                continue
            try:
                taken = self._next_batch() if not mine.done() else []
                try:
                    answers: Sequence[Completion | BaseException] = (
                        self.complete_many([asked for asked, _ in taken]) if taken else []
                    )
                except BaseException as error:
                    answers = [error] * len(taken)
                for (_, asked), answer in zip(taken, answers, strict=True):
                    if isinstance(answer, BaseException):
                        asked.set_exception(answer)
                    else:
                        asked.set_result(answer)
            finally:
                self._busy.release()
        return mine.result()

    def _next_batch(self) -> list[tuple[Request, Future[Completion]]]:
        time.sleep(_GATHER_S if len(self._waiting) < self.batch_size else 0)
        taken: list[tuple[Request, Future[Completion]]] = []
        with suppress(IndexError):
            while len(taken) < self.batch_size:
                taken.append(self._waiting.popleft())
        return taken

    def complete_many(self, requests: Sequence[Request]) -> list[Completion | ProviderError]:
        """Answer requests in batches, in their order; one that can't be answered becomes its error."""
        with self._busy:
            loaded = self.load()
            answers = [self._row(loaded, request) for request in requests]
            rows = [i for i, row in enumerate(answers) if isinstance(row, _Row)]
            todo = sorted(rows, key=lambda i: len(answers[i].prompt))  # like lengths together: less padding
            while todo:
                batch, todo = todo[: self.batch_size], todo[self.batch_size :]
                for i, answer in zip(batch, self._run(loaded, [answers[i] for i in batch]), strict=True):
                    answers[i] = answer
            return answers

    def cost_usd(self, usage: Usage) -> float:
        """Nobody charges for tokens here; what the machine costs is not counted."""
        return 0.0

    def close(self) -> None:
        """Give the model's memory back; what it is at comes to an end, what waits does not begin."""
        self._loaded = self._grammar_tokenizer = None
        while self._waiting:
            self._waiting.popleft()[1].set_exception(Fatal(f"{self.model} was closed."))

    def _row(self, loaded: LoadedModel, request: Request) -> Any:
        """The request, ready for the model; or its error where it can't be answered."""
        prompt, room = chat_tokens(loaded.tokenizer, request), loaded.context_tokens - request.max_tokens
        if len(prompt) > room:
            return Rejected(
                f"The prompt has {len(prompt):,} tokens, but {loaded.name} has room for {max(room, 0):,} beside an "
                f"answer of {request.max_tokens:,}: use fewer examples or a smaller max_tokens.",
                model=self.model,
            )
        matcher = None
        if request.schema is not None or request.grammar is not None:
            matcher = self._matcher(loaded, request)
            if matcher.is_error():
                reason = matcher.get_error()[:200]
                return Rejected(f"The answer's form can't be made into a grammar: {reason}", model=self.model)
        default = loaded.model.generation_config.temperature
        heat = next(value for value in (request.temperature, default, 1.0) if value is not None)
        return _Row(request, prompt, heat, matcher, np.random.default_rng(request.seed))

    def _matcher(self, loaded: LoadedModel, request: Request) -> Any:
        """llguidance's matcher at the start of an answer in the request's form: a JSON schema or a Lark grammar."""
        if find_spec("llguidance") is None:
            raise MissingDependency("llguidance", "Holding a local model to a JSON schema", "pip install llguidance")
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        if self._grammar_tokenizer is None:  # takes about a second
            vocabulary = loaded.model.get_output_embeddings().weight.shape[0]
            self._grammar_tokenizer = from_tokenizer(
                loaded.tokenizer, n_vocab=vocabulary, eos_token=list(loaded.eos_ids)
            )
        if request.grammar:
            grammar = LLMatcher.grammar_from_lark(request.grammar)
        else:
            grammar = _schema_grammar(json.dumps(bounded(request.schema or {}, request.max_tokens)))
        return LLMatcher(self._grammar_tokenizer, grammar, log_level=0)

    def _run(self, loaded: LoadedModel, rows: Sequence[_Row]) -> list[Completion | Rejected]:
        """The answers of a batch, which is halved where the memory does not suffice for it."""
        import torch
        from transformers import GenerationConfig

        started = time.perf_counter()
        padded = loaded.tokenizer.pad({"input_ids": [row.prompt for row in rows]}, return_tensors="pt")
        config = GenerationConfig(
            do_sample=False,
            repetition_penalty=self.repetition_penalty,
            max_new_tokens=max(row.request.max_tokens for row in rows),
            eos_token_id=list(loaded.eos_ids),
            pad_token_id=loaded.tokenizer.pad_token_id,
        )
        try:
            with torch.inference_mode():
                loaded.model.generate(
                    **padded.to(loaded.device), generation_config=config, logits_processor=[_Sampler(loaded, rows)]
                )
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(rows) == 1:
                said = f"{loaded.name} runs out of GPU memory with a prompt of {len(rows[0].prompt):,} tokens"
                advice = "use fewer examples, a smaller max_tokens or a smaller model"
                return [Rejected(f"{said}: {advice}.", model=self.model)]
            self.batch_size = half = len(rows) // 2
            fresh = [self._row(loaded, row.request) for row in rows]
            return [*self._run(loaded, fresh[:half]), *self._run(loaded, fresh[half:])]
        latency_s, now = time.perf_counter() - started, datetime.now(UTC)
        return [
            Completion(
                text=loaded.tokenizer.decode(row.tokens, skip_special_tokens=True),
                model=self.model,
                usage=Usage(prompt_tokens=len(row.prompt), completion_tokens=len(row.tokens)),
                stop_reason=row.stop_reason,
                latency_s=latency_s,
                cost_usd=0.0,
                created_at=now,
            )
            for row in rows
        ]


def chat_tokens(tokenizer: Any, request: Request) -> list[int]:
    """The request through the model's own chat template, as token ids. `InvalidInput` where that leaves out a part."""
    chat = [{"role": role, "content": text} for role, text in request.messages]
    if len(chat) > 1 and not keeps_turns(tokenizer):
        raise InvalidInput(
            "The model's chat template leaves out earlier questions or answers: ask it without demonstrations."
        )
    system = [{"role": "system", "content": request.system}] if request.system else []
    ids: list[int] = tokenizer(chat_text(tokenizer, [*system, *chat]), add_special_tokens=False)["input_ids"]
    return ids


class _Sampler:
    """A logits processor for ``generate(do_sample=False)``: it leaves one token per row, held to the row's grammar.

    It draws with the row's own generator, because ``generate`` draws a whole batch from one: then an answer would
    depend on who else was asking, and no examination could be repeated.
    """

    def __init__(self, loaded: LoadedModel, rows: Sequence[_Row]) -> None:
        from transformers import TopPLogitsWarper

        self._rows, self._eos = rows, loaded.eos_ids
        top_p = loaded.model.generation_config.top_p
        self._likely = TopPLogitsWarper(top_p) if top_p and top_p < 1 else None

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        def column(values: list[float]) -> Any:
            return torch.tensor(values, dtype=torch.float32, device=scores.device)[:, None]

        scores = scores.float()
        if any(row.matcher for row in self._rows):
            from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

            bits = allocate_token_bitmask(len(self._rows), scores.shape[1])
            for i, row in enumerate(self._rows):
                if row.matcher and not row.ended and not row.matcher.is_error():
                    fill_next_token_bitmask(row.matcher, bits, i)
            allowed = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, : scores.shape[1]].astype(bool)
            scores = scores.masked_fill(~torch.from_numpy(allowed).to(scores.device), float("-inf"))
        heat = column([row.temperature for row in self._rows])
        warm = scores / heat.where(heat > 0, 1.0)
        mass = torch.softmax(self._likely(input_ids, warm) if self._likely else warm, -1).cumsum(-1)
        drawn = column([min(row.rng.random(), 1 - 1e-6) for row in self._rows]) * mass[:, -1:]
        sampled = torch.searchsorted(mass, drawn, right=True).clamp(max=scores.shape[1] - 1)
        chosen = torch.where(heat > 0, sampled, scores.argmax(-1, keepdim=True))[:, 0].tolist()
        for i, row in enumerate(self._rows):
            if row.ended or len(row.tokens) >= row.request.max_tokens:
                chosen[i] = self._eos[0]  # the row is over; its tokens are already complete
            elif chosen[i] in self._eos:
                row.ended = True
            else:
                row.tokens.append(chosen[i])
                if row.matcher:
                    row.matcher.consume_token(chosen[i])
        result = torch.full_like(scores, float("-inf"))
        return result.scatter(1, torch.tensor(chosen, device=scores.device)[:, None], 0.0)


@lru_cache(maxsize=64)
def _schema_grammar(schema: str) -> str:
    """The grammar of answers to a schema, on one line and written as ``json.dumps`` would."""
    from llguidance import LLMatcher

    style: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
    return LLMatcher.grammar_from_json_schema(schema, overrides=style | {"json_allowed_escapes": 'nt"\\'})
