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
_NEEDED = 'pip install "genesis-lab[dspy]" (the race needs nothing more)'


def optimised(
    call: Call, proposer: Call | None, train: Sequence[Example], validation: Sequence[Example], *, config: Any,
    role: Role, model: str, proposed_by: str, concurrency: int, folder: Path, notes: list[str],
) -> dict[str, Any]:  # fmt: skip
    """The best ``program`` that MIPROv2 finds (None where the calls did not suffice for one), and the ``rows`` with tokens
    and cost of each answer of the model. The instructions come from `proposer`, else from the model itself; what is asked
    past ``config.calls`` comes back empty, so that a trial it cuts short loses. `folder` keeps the answers."""
    try:
        import dspy
        import optuna  # noqa: F401  # MIPROv2 imports it only after it has paid for demonstrations
    except ImportError:
        raise MissingDependency("dspy", "Optimizer miprov2", _NEEDED) from None
    if not hasattr(dspy, "BaseLM") or not hasattr(dspy, "MIPROv2"):
        raise MissingDependency("dspy below 3.5", "Optimizer miprov2", 'pip install "dspy<3.5"')
    cache, lock, failed = CompletionCache(folder / "answers.sqlite"), threading.Lock(), list[GenesisError]()
    asked: dict[str, dict[str, Any]] = {}

    def answered(ask: Call, who: str, request: Request) -> Completion:
        with lock:
            if failed or (request.key not in asked and len(asked) >= config.calls):
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
                key=request_key(self.model, told, options.get("rollout_id"), temperature, self.room, config.seed),
                system="\n".join(m["content"] for m in told if m["role"] == "system"),
                messages=tuple((m["role"], m["content"]) for m in told if m["role"] != "system"),
                max_tokens=self.room,
                temperature=min(temperature, 1.0),
            )
            message = SimpleNamespace(content=answered(self.ask, self.model, request).text, tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop")
            return SimpleNamespace(choices=[choice], usage={}, model=self.model)

    def examples(of: Sequence[Example]) -> list[Any]:
        return [dspy.Example(question=each.question, answer=each.answer).with_inputs("question") for each in of]

    by_question = {each.question: each for each in (*train, *validation)}

    def metric(gold: Any, guess: Any, trace: Any = None) -> float:
        return role.score(str(getattr(guess, "answer", "")).strip(), by_question[gold.question]).total

    task, room = Ours(call, model, max(_ROOM, config.max_tokens)), max(_PROPOSAL, config.max_tokens)
    writer = Ours(proposer or call, (proposed_by or "proposer") if proposer else model, room)
    started, loud, best, most = time.monotonic(), logging.root.manager.disable, None, config.demonstrations
    logging.disable(logging.WARNING)
    try:
        with dspy.context(lm=task, max_errors=10**9, disable_history=True):
            search = dspy.MIPROv2(
                metric=metric, auto="light", prompt_model=writer, task_model=task, num_threads=concurrency,
                max_bootstrapped_demos=most, max_labeled_demos=most, max_errors=10**9, seed=config.seed,
            )  # fmt: skip
            student = dspy.Predict(dspy.Signature("question -> answer", train[0].system))
            best = search.compile(student, trainset=examples(train), valset=examples(validation))
    except Exception as error:  # dspy raises what it likes
        if not failed and len(asked) < config.calls:
            failed.append(GenesisError(f"dspy's MIPROv2 gave up: {' '.join(str(error).split())[:300]}"))
    finally:
        logging.disable(loud)
        cache.close()
    if failed:
        raise failed[0]
    if len(asked) >= config.calls:
        left = "its best program until then runs along" if best else "before it had a program"
        notes.append(f"MIPROv2 was cut short after {config.calls:,} calls: {left}.")
    program = None
    if best:
        solved = [each for each in best.demos if each.get("question") in by_question and each.get("answer")]
        shown = [Demonstration(e["question"], str(e["answer"]), by_question[e["question"]].language) for e in solved]
        program = PromptProgram(str(best.signature.instructions), tuple(shown))
    rows = [row for row in asked.values() if row.get("who") == model]
    took = time.monotonic() - started
    return {"program": program, "rows": rows, "proposer_calls": len(asked) - len(rows), "busy_s": took}
