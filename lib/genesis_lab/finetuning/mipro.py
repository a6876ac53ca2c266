"""A prompt by dspy's MIPROv2 light (Opsahl-Ong et al. 2024, arXiv:2406.11695), asked by our providers and cache."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import GenesisError, MissingDependency, Rejected
from genesis_lab.finetuning.ask import Demonstration, PromptProgram, spent_on
from genesis_lab.providers.asking import Call, ask_all
from genesis_lab.providers.base import Completion, Request, request_key
from genesis_lab.providers.cache import CompletionCache

_ROOM, _PROPOSAL = 64, 1024
"""Tokens: the least for an answer in dspy's own form, and for a proposed instruction."""
_NEEDED = 'pip install "genesis-lab[dspy]" (the race needs nothing more)'


def optimised(
    asked_of: tuple[str, Call],
    proposer: tuple[str, Call] | None,
    train: Sequence[Example],
    validation: Sequence[Example],
    *,
    config: Any,
    role: Role,
    width: int,
    folder: Path,
    notes: list[str],
) -> tuple[PromptProgram | None, list[dict[str, Any]], int]:
    """What MIPROv2 finds for a model, given by name and call; None where the calls did not suffice.

    Besides, what each answer of the model took (`spent_on`), and how many the `proposer` gave. The instructions come
    from that, else from the model itself; what is asked past ``config.calls`` comes back
    empty, so that a trial it cuts short loses. `folder` keeps the answers.
    """
    try:
        import dspy
        import optuna  # noqa: F401  # MIPROv2 imports it only after it has paid for demonstrations
    except ImportError:
        raise MissingDependency("dspy", "Optimizer miprov2", _NEEDED) from None
    if not hasattr(dspy, "BaseLM") or not hasattr(dspy, "MIPROv2"):
        raise MissingDependency("dspy below 3.5", "Optimizer miprov2", 'pip install "dspy<3.5"')
    cache, lock, failed = CompletionCache(folder / "answers.sqlite"), threading.Lock(), list[GenesisError]()
    asked: dict[str, dict[str, Any]] = {}

    def answered(who: str, ask: Call, request: Request) -> Completion:
        nothing = Completion("", who)
        with lock:
            if failed or (request.key not in asked and len(asked) >= config.calls):
                return nothing
            asked.setdefault(request.key, {"who": who} | spent_on(request, nothing))
        try:
            found = ask_all(ask, [request], cache).answers[0]
        except GenesisError as error:  # dspy would swallow it and ask on
            failed.append(error)
            return nothing
        if isinstance(found, Rejected):
            return nothing
        asked[request.key] |= spent_on(request, found)
        return found

    class Ours(dspy.BaseLM):  # type: ignore[misc]  # dspy comes without types
        def __init__(self, who: str, ask: Call, least: int) -> None:
            self.ask, self.room = ask, max(least, config.max_tokens)
            super().__init__(who, max_tokens=self.room, temperature=0.0, cache=False)

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
            message = SimpleNamespace(content=answered(self.model, self.ask, request).text, tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop")
            return SimpleNamespace(choices=[choice], usage={}, model=self.model)

    def examples(of: Sequence[Example]) -> list[Any]:
        return [dspy.Example(question=each.question, answer=each.answer).with_inputs("question") for each in of]

    by_question = {each.question: each for each in (*train, *validation)}

    def metric(gold: Any, guess: Any, trace: Any = None) -> float:
        return role.score(str(getattr(guess, "answer", "")).strip(), by_question[gold.question]).total

    task, writer = Ours(*asked_of, _ROOM), Ours(*(proposer or asked_of), _PROPOSAL)
    loud, best, most = logging.root.manager.disable, None, config.demonstrations
    logging.disable(logging.WARNING)
    try:
        with dspy.context(lm=task, max_errors=10**9, disable_history=True):
            search = dspy.MIPROv2(
                metric=metric,
                auto="light",
                prompt_model=writer,
                task_model=task,
                num_threads=width,
                max_bootstrapped_demos=most,
                max_labeled_demos=most,
                max_errors=10**9,
                seed=config.seed,
            )
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
    rows = [row for row in asked.values() if row["who"] == asked_of[0]]
    return program, rows, len(asked) - len(rows)
