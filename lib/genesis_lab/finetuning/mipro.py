"""A prompt by dspy's MIPROv2 light (Opsahl-Ong et al. 2024, arXiv:2406.11695), asked through our own providers and cache."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import GenesisError, MissingDependency, Rejected
from genesis_lab.finetuning.ask import Demonstration, PromptProgram
from genesis_lab.providers.asking import Call
from genesis_lab.providers.base import Completion, Request, request_key
from genesis_lab.providers.cache import CompletionCache

_ROOM, _PROPOSAL = 64, 1024
"""Tokens: the least for an answer in dspy's own form, and for a proposed instruction."""


def optimised(
    call: Call,
    proposer: Call | None,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    role: Role,
    model: str,
    proposed_by: str,
    calls: int,
    demonstrations: int,
    max_tokens: int,
    concurrency: int,
    seed: int,
    folder: Path,
    notes: list[str],
) -> dict[str, Any]:
    """The best program that MIPROv2 finds with at most `calls` questions to the model and its proposer.

    What is asked past that comes back empty, so that a trial it cuts short loses to those before it; a note says so.

    Parameters
    ----------
    proposer : writes the instructions; None: the model itself.
    folder : keeps the answers: a search that was stopped asks nothing twice.

    Returns
    -------
    ``program``, None where the calls did not suffice for one; ``rows`` with tokens and cost of each answer of the model, ``proposer_calls`` and ``busy_s``.

    Raises
    ------
    MissingDependency : dspy or optuna, which MIPROv2 runs on, is not installed.
    GenesisError : the model can't be asked, or dspy gave up.
    """
    try:
        import dspy
        import optuna  # noqa: F401  # MIPROv2 imports it only after it has paid for demonstrations
    except ImportError:
        raise MissingDependency(
            "dspy", "Optimizer miprov2", 'pip install "genesis-lab[dspy]" (the race needs nothing more)'
        ) from None
    if not hasattr(dspy, "BaseLM") or not hasattr(dspy, "MIPROv2"):
        raise MissingDependency(
            "dspy below 3.5", "Optimizer miprov2", 'pip install "dspy<3.5" (the race needs nothing more)'
        )
    cache, lock, failed = CompletionCache(folder / "answers.sqlite"), threading.Lock(), list[GenesisError]()
    asked: dict[str, dict[str, Any]] = {}

    def answered(ask: Call, who: str, request: Request) -> Completion:
        with lock:
            if failed or (request.key not in asked and len(asked) >= calls):
                return Completion("", who)
            asked.setdefault(request.key, dict.fromkeys(("prompt_tokens", "completion_tokens", "cost_usd")))
        try:
            if (found := cache.get(request.key)) is None:
                found = ask(request)
                cache.put(request.key, found)
        except Rejected:
            found = Completion("", who)
        except GenesisError as error:  # dspy would swallow it and ask on
            failed.append(error)
            return Completion("", who)
        asked[request.key] |= asdict(found.usage) if found.usage else {}
        asked[request.key] |= {"cost_usd": found.cost_usd, "who": who}
        return found

    class Ours(dspy.BaseLM):  # type: ignore[misc]  # dspy comes without types
        def __init__(self, ask: Call, who: str, room: int) -> None:
            super().__init__(who, max_tokens=room, temperature=0.0, cache=False)
            self.ask, self.room = ask, room

        def forward(self, prompt: str | None = None, messages: Any = None, **options: Any) -> Any:
            told = list(messages or [{"role": "user", "content": prompt}])
            temperature = options.get("temperature", self.kwargs.get("temperature")) or 0.0
            request = Request(
                key=request_key(self.model, told, options.get("rollout_id"), temperature, self.room, seed),
                system="\n".join(m["content"] for m in told if m["role"] == "system"),
                messages=tuple((m["role"], m["content"]) for m in told if m["role"] != "system"),
                max_tokens=self.room,
                temperature=min(temperature, 1.0),
            )
            found = answered(self.ask, self.model, request)
            message = SimpleNamespace(content=found.text, tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop")
            return SimpleNamespace(choices=[choice], usage={}, model=self.model)

    def example(of: Example) -> Any:
        return dspy.Example(question=of.question, answer=of.answer).with_inputs("question")

    by_question = {each.question: each for each in (*train, *validation)}

    def metric(gold: Any, guess: Any, trace: Any = None) -> float:
        return role.score(str(getattr(guess, "answer", "")).strip(), by_question[gold.question]).total

    task = Ours(call, model, max(_ROOM, max_tokens))
    writer = Ours(proposer or call, (proposed_by or "proposer") if proposer else model, max(_PROPOSAL, max_tokens))
    signature = dspy.Signature("question -> answer", train[0].system)
    started, loud = time.monotonic(), logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with dspy.context(lm=task, max_errors=10**9, disable_history=True):
            search = dspy.MIPROv2(
                metric=metric, auto="light", prompt_model=writer, task_model=task, num_threads=concurrency,
                max_bootstrapped_demos=demonstrations, max_labeled_demos=demonstrations, max_errors=10**9, seed=seed,
            )  # fmt: skip
            best = search.compile(
                dspy.Predict(signature), trainset=[*map(example, train)], valset=[*map(example, validation)]
            )
    except Exception as error:  # dspy raises what it likes
        best = None
        if failed or len(asked) < calls:
            gave_up = GenesisError(f"dspy's MIPROv2 gave up: {' '.join(str(error).split())[:300]}")
            raise (failed or [gave_up])[0] from error
    finally:
        logging.disable(loud)
        cache.close()
    if failed:
        raise failed[0]
    if len(asked) >= calls:
        left = "its best program until then runs along" if best else "before it had a program"
        notes.append(f"MIPROv2 was cut short after {calls:,} calls: {left}.")
    program = None
    if best:
        solved = [each for each in best.demos if each.get("question") in by_question and each.get("answer")]
        shown = [Demonstration(e["question"], str(e["answer"]), by_question[e["question"]].language) for e in solved]
        program = PromptProgram(str(best.signature.instructions), tuple(shown))
    rows = [row for row in asked.values() if row.get("who") == model]
    return {
        "program": program,
        "rows": rows,
        "proposer_calls": len(asked) - len(rows),
        "busy_s": time.monotonic() - started,
    }
