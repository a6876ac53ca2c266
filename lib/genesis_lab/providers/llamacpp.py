"""Provider ``llamacpp`` (optional extra): a GGUF file through llama.cpp, held to the schema by its grammar."""

from __future__ import annotations

import json
import threading
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from genesis_lab.errors import InvalidInput, MissingDependency, Rejected
from genesis_lab.paths import resolve
from genesis_lab.providers.base import Capabilities, Completion, Request, StopReason, Usage
from genesis_lab.providers.local_models import BUNDLED, bundled_gguf
from genesis_lab.providers.schemas import bounded

_STOP_REASONS: dict[str, StopReason] = {"stop": "end", "length": "max_tokens"}


class LlamaCppProvider:
    """Answers one request at a time; the prefix that requests share is kept by llama.cpp.

    Parameters
    ----------
    model : a GGUF file, or ``smollm2`` for the bundled one.
    context_tokens : prompt and answer together.
    threads : processor threads; None lets llama.cpp choose.
    gpu_layers : layers on the GPU; -1 for all (needs a build with GPU support).

    Raises
    ------
    MissingDependency : llama-cpp-python is not installed.
    InvalidInput : there is no such file.
    """

    name = "llamacpp"

    def __init__(
        self, model: str = BUNDLED, *, context_tokens: int = 8192, threads: int | None = None, gpu_layers: int = 0
    ) -> None:
        if find_spec("llama_cpp") is None:
            raise MissingDependency("llama-cpp-python", "Provider llamacpp", "pip install llama-cpp-python")
        self._path: Path = bundled_gguf() if model == BUNDLED else resolve(model)
        if not self._path.is_file():
            raise InvalidInput(f"There is no GGUF file {model!r}: give the path of one, or {BUNDLED}.")
        self.model = self._path.stem
        self.capabilities = Capabilities(structured_output="grammar", prompt_caching=True, token_counting=True)
        self._options = {"n_ctx": context_tokens, "n_threads": threads, "n_gpu_layers": gpu_layers, "verbose": False}
        self._llama: Any = None
        self._busy = threading.Lock()

    def complete(self, request: Request) -> Completion:
        """One answer; raises `Rejected` where prompt and answer exceed the context or the schema makes no grammar."""
        with self._busy:
            llama = self._load()
            started = time.perf_counter()
            options: dict[str, Any] = {"temperature": request.temperature, "top_p": request.top_p, "seed": request.seed}
            try:
                answer = llama.create_chat_completion(
                    messages=_chat(request),
                    max_tokens=request.max_tokens,
                    grammar=_grammar(request),
                    **{k: v for k, v in options.items() if v is not None},
                )
            except ValueError as error:
                raise Rejected(f"llama.cpp can't answer this request: {error}", model=self.model) from None
            used, choice = answer["usage"], answer["choices"][0]
            return Completion(
                text=choice["message"]["content"] or "",
                model=self.model,
                usage=Usage(used["prompt_tokens"], used["completion_tokens"]),
                stop_reason=_STOP_REASONS.get(choice["finish_reason"], "other"),
                latency_s=time.perf_counter() - started,
                cost_usd=0.0,
                created_at=datetime.now(UTC),
            )

    def cost_usd(self, usage: Usage) -> float:
        return 0.0

    def close(self) -> None:
        """Give the model's memory back."""
        with self._busy:
            if self._llama is not None:
                self._llama.close()
                self._llama = None

    def _load(self) -> Any:
        if self._llama is None:
            from llama_cpp import Llama

            try:
                self._llama = Llama(str(self._path), **self._options)
            except ValueError as error:
                raise InvalidInput(f"{self._path.name} can't be loaded by llama.cpp: {error}") from None
        return self._llama


def _chat(request: Request) -> list[dict[str, str]]:
    system = [{"role": "system", "content": request.system}] if request.system else []
    return [*system, *({"role": role, "content": text} for role, text in request.messages)]


def _grammar(request: Request) -> Any:
    if request.schema is None:
        return None
    from llama_cpp import LlamaGrammar

    return LlamaGrammar.from_json_schema(json.dumps(bounded(request.schema, request.max_tokens)), verbose=False)
