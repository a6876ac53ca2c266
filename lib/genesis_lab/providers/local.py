"""Provider ``local``: a model in this process, several requests at a time, held to the schema by a grammar."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from genesis_lab.errors import Fatal, InvalidInput, ProviderError, Rejected
from genesis_lab.providers.base import Capabilities, Completion, Provider, Request, StopReason, Usage
from genesis_lab.providers.chat_templates import chat_text, keeps_turns
from genesis_lab.providers.local_models import BUNDLED, Device, Dtype, LoadedModel, load_model, model_name
from genesis_lab.providers.sampling import Row, RowSampler, grammar_tokenizer, matcher
from genesis_lab.providers.schemas import bounded

BUNDLED_PENALTY = 1.15
_GATHER_S = 0.05
"""How long a batch waits for more requests; next to nothing beside the seconds it then runs."""


@dataclass
class _Asked:
    """A request on its way through the model."""

    request: Request
    tokens: list[int]
    row: Row


class LocalProvider(Provider):
    """A causal language model by transformers. The model is loaded with the first request.

    Requests that arrive at the same time from several threads are answered as one batch; a request's text depends on
    its own seed, not on its neighbours (up to rounding). Schemas are always enforced, with limits on strings and
    arrays so that an answer ends within `max_tokens`.

    Parameters
    ----------
    model : ``smollm2`` (the bundled one), a folder, or a hub id; see `local_models.load_model`.
    batch_size : most requests at once; halved by itself where a GPU's memory does not hold them.
    device, dtype : see `local_models.load_model`.
    repetition_penalty : above 1 makes words that were said before less likely; None is the model's own, and 1.15 for
        the bundled one, which else says one sentence over and over.
    loaded : the model itself where it is in memory already, for example a student that is being taught.
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
        self.capabilities = Capabilities(concurrency=batch_size)
        self.source, self._device, self._dtype = model, device, dtype
        self.repetition_penalty = repetition_penalty or (BUNDLED_PENALTY if model == BUNDLED and not loaded else None)
        self._loaded = loaded
        self._grammar_tokenizer: Any = None
        self._busy = threading.RLock()
        self._turn, self._leading = threading.Condition(), False
        self._waiting: deque[tuple[Request, Future[Completion]]] = deque()

    def load(self) -> LoadedModel:
        """The model, loaded now if it was not; raises what `local_models.load_model` raises."""
        with self._busy:
            if self._loaded is None:
                self._loaded = load_model(self.source, device=self._device, dtype=self._dtype)
            return self._loaded

    def complete(self, request: Request) -> Completion:
        """Answer one request, together with those that other threads are asking for."""
        future: Future[Completion] = Future()
        self._waiting.append((request, future))
        with self._turn:  # one thread answers for all that wait; the others sleep until theirs is done or none is at it
            self._turn.wait_for(lambda: future.done() or not self._leading)
            if future.done():
                return future.result()
            self._leading = True
        try:
            while not future.done():
                self._gather()
                taken = [self._waiting.popleft() for _ in range(min(self.batch_size, len(self._waiting)))]
                self._fulfil(taken)
        finally:
            with self._turn:
                self._leading = False
                self._turn.notify_all()
        return future.result()

    def complete_many(self, requests: Sequence[Request]) -> list[Completion | ProviderError]:
        """Answer requests in batches, in their order; one that can't be answered becomes its error."""
        with self._busy:
            loaded = self.load()
            answers: list[Completion | ProviderError | None] = [None] * len(requests)
            asked: list[tuple[int, _Asked]] = []
            for i, request in enumerate(requests):
                try:
                    asked.append((i, self._ask(loaded, request)))
                except ProviderError as error:
                    answers[i] = error
            todo = deque(sorted(asked, key=lambda pair: len(pair[1].tokens)))  # like lengths together: less padding
            while todo:
                batch = [todo.popleft() for _ in range(min(self.batch_size, len(todo)))]
                if not self._run(loaded, [each for _, each in batch], answers, [i for i, _ in batch]):
                    todo.extendleft(reversed([(i, self._ask(loaded, each.request)) for i, each in batch]))
        return [answer for answer in answers if answer is not None]

    def cost_usd(self, usage: Usage) -> float:
        """Nobody charges for tokens here; what the machine costs is not counted."""
        return 0.0

    def close(self) -> None:
        """Give the model's memory back; what it is at comes to an end, what waits does not begin."""
        self._loaded = self._grammar_tokenizer = None
        while self._waiting:
            self._waiting.popleft()[1].set_exception(Fatal(f"{self.model} was closed."))

    def _gather(self) -> None:
        deadline = time.monotonic() + _GATHER_S
        while len(self._waiting) < self.batch_size and time.monotonic() < deadline:
            time.sleep(_GATHER_S / 10)

    def _fulfil(self, taken: Sequence[tuple[Request, Future[Completion]]]) -> None:
        try:
            answers = self.complete_many([request for request, _ in taken])
        except BaseException as error:
            for _, future in taken:
                future.set_exception(error)
            return
        for (_, future), answer in zip(taken, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _ask(self, loaded: LoadedModel, request: Request) -> _Asked:
        tokens = chat_tokens(loaded.tokenizer, request)
        room = loaded.context_tokens - request.max_tokens
        if len(tokens) > room:
            raise Rejected(
                f"The prompt has {len(tokens):,} tokens, but {loaded.name} has room for {max(room, 0):,} beside an "
                f"answer of {request.max_tokens:,}: use fewer examples or a smaller max_tokens.",
                model=self.model,
            )
        default = loaded.model.generation_config
        row = Row(
            temperature=_first(request.temperature, default.temperature, 1.0),
            top_p=_first(default.top_p, 1.0),
            max_tokens=request.max_tokens,
            rng=np.random.default_rng(request.seed),
        )
        if request.schema is not None or request.grammar is not None:
            if self._grammar_tokenizer is None:
                vocabulary = loaded.model.get_output_embeddings().weight.shape[0]
                self._grammar_tokenizer = grammar_tokenizer(loaded.tokenizer, vocabulary, loaded.eos_ids)
            wanted = request.grammar or bounded(request.schema or {}, request.max_tokens)
            row.matcher = matcher(self._grammar_tokenizer, wanted)
        return _Asked(request, tokens, row)

    def _run(
        self,
        loaded: LoadedModel,
        batch: Sequence[_Asked],
        answers: list[Completion | ProviderError | None],
        places: Sequence[int],
    ) -> bool:
        """Generate a batch into `answers`; False when the memory did not suffice and a smaller batch must be tried."""
        import torch

        started = time.perf_counter()
        try:
            _generate(loaded, batch, self.repetition_penalty)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            if len(batch) > 1:
                self.batch_size = len(batch) // 2
                return False
            error = Rejected(
                f"{loaded.name} runs out of GPU memory with a prompt of {len(batch[0].tokens):,} tokens: use fewer "
                "examples, a smaller max_tokens or a smaller model.",
                model=self.model,
            )
            answers[places[0]] = error
            return True
        latency_s, now = time.perf_counter() - started, datetime.now(UTC)
        for place, asked in zip(places, batch, strict=True):
            row = asked.row
            answers[place] = Completion(
                text=loaded.tokenizer.decode(row.tokens, skip_special_tokens=True),
                model=self.model,
                usage=Usage(prompt_tokens=len(asked.tokens), completion_tokens=len(row.tokens)),
                stop_reason=_stop_reason(row),
                latency_s=latency_s,
                cost_usd=0.0,
                created_at=now,
            )
        return True


def chat_tokens(tokenizer: Any, request: Request) -> list[int]:
    """The request through the model's own chat template (see `chat_templates`), as token ids.

    Raises
    ------
    InvalidInput : the template leaves out something of it.
    """
    chat = [{"role": role, "content": text} for role, text in request.messages]
    if len(chat) > 1 and not keeps_turns(tokenizer):
        raise InvalidInput(
            "The model's chat template leaves out earlier questions or answers: ask it without demonstrations."
        )
    system = [{"role": "system", "content": request.system}] if request.system else []
    ids: list[int] = tokenizer(chat_text(tokenizer, [*system, *chat]), add_special_tokens=False)["input_ids"]
    return ids


def _generate(loaded: LoadedModel, batch: Sequence[_Asked], repetition_penalty: float | None) -> None:
    """Fill the rows of `batch`."""
    import torch
    from transformers import GenerationConfig

    sampler = RowSampler([asked.row for asked in batch], loaded.eos_ids)
    padded = loaded.tokenizer.pad({"input_ids": [asked.tokens for asked in batch]}, return_tensors="pt")
    config = GenerationConfig(
        do_sample=False,
        repetition_penalty=repetition_penalty,
        max_new_tokens=max(asked.row.max_tokens for asked in batch),
        eos_token_id=list(loaded.eos_ids),
        pad_token_id=loaded.tokenizer.pad_token_id,
    )
    with torch.inference_mode():
        loaded.model.generate(**padded.to(loaded.device), generation_config=config, logits_processor=[sampler])


def _stop_reason(row: Row) -> StopReason:
    if row.matcher and row.matcher.is_error():
        return "malformed"
    return "end" if row.ended else "max_tokens"


def _first(*values: float | None) -> float:
    return next(value for value in values if value is not None)
