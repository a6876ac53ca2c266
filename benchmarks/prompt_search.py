"""Figure 4 of the students: our prompt search, and dspy's MIPROv2 light beside it, on the same questions and model.

``python benchmarks/prompt_search.py`` runs the bundled model on this processor; ``--dspy`` adds MIPROv2 (needs
``pip install dspy``), which is ended after ``--limit`` seconds. Nothing is kept but what is printed.

Two tasks: ``intents`` (name the intent of a message, one of four) and ``requirements`` (the role; the offline teacher's
concepts and demonstrations, in English).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INTENTS = ("card_arrival", "exchange_rate", "top_up_failed", "passcode_forgotten")


def questions(task: str, total: int, seed: int):
    """The task and its questions by split: made offline, the same for both."""
    from genesis_lab.generation import config_for, generate

    if task == "requirements":
        from genesis_lab.finetuning.tasks import role_of

        shares = {"english_share": 1.0, "validation_share": 0.3, "test_share": 0.4}
        data = generate(config_for(task)(dataset="requirements", total=total, seed=seed, **shares))
        return role_of(data, seed=seed)
    from genesis_lab.finetuning.tasks import task_of

    data = generate(config_for()(dataset="routing", total=total, intents=INTENTS, seed=seed))
    return task_of(data, seed=seed)


def ours(arguments: argparse.Namespace) -> dict[str, object]:
    from genesis_lab.finetuning.benchmark import as_examined
    from genesis_lab.finetuning.prompt_search import SearchConfig, search_prompt
    from genesis_lab.providers import parse_spec

    task, examples = questions(arguments.task, arguments.total, arguments.seed)
    shown = 2 if arguments.task == "requirements" else 4  # a demonstration of the role has 450 tokens
    config = SearchConfig(
        instructions=4, demonstrations=shown, demonstration_sets=3, candidates=arguments.candidates, first_rung=8,
        validation_items=arguments.validation, test_items=arguments.test, grammar=arguments.grammar,
        max_tokens=arguments.max_tokens, seed=arguments.seed,
    )  # fmt: skip
    provider = as_examined(parse_spec(arguments.model).open(), arguments.batch)
    started, used = time.perf_counter(), time.process_time()
    report = search_prompt(
        provider.complete, examples, config, role=task, model=arguments.model, concurrency=arguments.batch
    )
    return {
        "chosen": report.chosen,
        "made of": next(c.origin for c in report.candidates if c.name == report.chosen),
        "validation, last round less default": {
            name: f"{found.difference}, {found.verdict}" for name, found in report.compared.items()
        },
        "test": {name: str(value) for name, value in report.test.items()},
        "calls": report.calls,
        "prompt tokens": report.prompt_tokens,
        "seconds": round(time.perf_counter() - started, 1),
        "processor seconds": round(time.process_time() - used, 1),
    }


def theirs(arguments: argparse.Namespace, log: Path) -> None:
    """MIPROv2 light with the local model as task and prompt model; what happens goes to `log`, line by line."""
    from types import SimpleNamespace

    import dspy

    from genesis_lab.finetuning.answers import ask
    from genesis_lab.finetuning.benchmark import as_examined
    from genesis_lab.finetuning.prompts import from_dspy
    from genesis_lab.providers import parse_spec
    from genesis_lab.providers.base import Request, request_key

    task, examples = questions(arguments.task, arguments.total, arguments.seed)
    provider = as_examined(parse_spec(arguments.model).open(), arguments.batch)
    logging.disable(logging.WARNING)

    def note(**facts: object) -> None:
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")

    class Local(dspy.BaseLM):
        def forward(self, prompt=None, messages=None, **options):
            told = list(messages or [{"role": "user", "content": prompt}])
            options = self.kwargs | options
            request = Request(
                key=request_key(told, options.get("rollout_id")),
                system="\n".join(m["content"] for m in told if m["role"] == "system"),
                messages=tuple((m["role"], m["content"]) for m in told if m["role"] != "system"),
                max_tokens=options.get("max_tokens") or 64,
                temperature=options.get("temperature") or 0.0,
            )
            answer = provider.complete(request)
            used = {"prompt_tokens": answer.usage.prompt_tokens, "completion_tokens": answer.usage.completion_tokens}
            note(call=used)
            message = SimpleNamespace(content=answer.text, tool_calls=None)
            choice = SimpleNamespace(message=message, finish_reason="stop")
            return SimpleNamespace(
                choices=[choice], usage=used | {"total_tokens": sum(used.values())}, model=self.model
            )

    class Route(dspy.Signature):
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    Route.__doc__ = examples["train"][0].system

    def rows(split: str, most: int):
        return [
            dspy.Example(question=e.question, answer=e.answer).with_inputs("question") for e in examples[split][:most]
        ]

    by_question = {e.question: e for split in examples.values() for e in split}

    def metric(gold, guess, trace=None) -> float:
        score = task.score(str(getattr(guess, "answer", "")).strip(), by_question[gold.question]).total
        note(scored=score)
        return score

    lm = Local("local", max_tokens=max(64, arguments.max_tokens), temperature=0.0, cache=False)
    dspy.configure(lm=lm)
    program = dspy.Predict(Route)
    try:
        optimiser = dspy.MIPROv2(
            metric=metric, auto="light", prompt_model=lm, task_model=lm, num_threads=8, seed=arguments.seed
        )
        best = optimiser.compile(program, trainset=rows("train", 40), valset=rows("validation", arguments.validation))
    except Exception as error:
        note(failed=f"{type(error).__name__}: {str(error)[:300]}")
        return
    note(finished=True)
    with tempfile.TemporaryDirectory() as folder:
        best.save(Path(folder) / "best.json")
        taken = from_dspy(Path(folder) / "best.json")
    scores = {}
    for name, prompt in (("default", None), ("dspy's", taken)):
        answers = ask(
            provider.complete, examples["test"][: arguments.test], role=task, model=arguments.model, runs=1,
            temperature=0.0, max_tokens=arguments.max_tokens, grammar=arguments.grammar, program=prompt,
        )  # fmt: skip
        scores[name] = float(answers.frame["total"].mean())
    note(rescored_by_us=scores, instruction=taken.instruction, demonstrations=len(taken.demonstrations))


def watched(arguments: argparse.Namespace) -> dict[str, object]:
    """MIPROv2 in a process of its own, ended at the limit; what it did until then."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        command = [sys.executable, __file__, *sys.argv[1:], "--log", str(log)]
        started = time.perf_counter()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.limit)
            ended = f"exit code {done.returncode}" + (
                f": {done.stderr.strip().splitlines()[-1]}" if done.returncode else ""
            )
        except subprocess.TimeoutExpired:
            ended = f"ended after {arguments.limit} s, before it had finished"
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []
    calls = [line["call"] for line in lines if "call" in line]
    scores = [line["scored"] for line in lines if "scored" in line]
    return {
        "seconds": round(time.perf_counter() - started, 1),
        "calls": len(calls),
        "prompt tokens": sum(call["prompt_tokens"] for call in calls),
        "answers that its adapter could read": len(scores),
        "their mean score": sum(scores) / len(scores) if scores else None,
        "ended": ended,
    } | {key: value for line in lines for key, value in line.items() if key not in ("call", "scored")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("intents", "requirements"), default="intents")
    parser.add_argument("--model", default="local:smollm2")
    parser.add_argument("--total", type=int, default=280, help="records to make; some are for demonstrations")
    parser.add_argument("--candidates", type=int, default=8, help="prompts in our race")
    parser.add_argument("--max-tokens", type=int, help="longest answer (default: 16 for intents, 320 for requirements)")
    parser.add_argument("--batch", type=int, default=8, help="questions at once")
    parser.add_argument("--validation", type=int, default=64)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument(
        "--free", dest="grammar", action="store_false", help="do not hold answers to the intents' names"
    )
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--dspy", action="store_true")
    parser.add_argument("--only-dspy", action="store_true")
    parser.add_argument("--limit", type=int, default=900, help="seconds for dspy")
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.max_tokens = arguments.max_tokens or {"intents": 16, "requirements": 320}[arguments.task]

    from genesis_lab.files import isolated_root, use_output_root

    with tempfile.TemporaryDirectory() as folder:
        use_output_root(isolated_root(Path(folder) / "outputs"))
        os.environ.setdefault("DSPY_CACHEDIR", str(Path(folder) / "dspy"))
        if arguments.log:
            theirs(arguments, arguments.log)
            return
        if not arguments.only_dspy:
            print(json.dumps({"genesis": ours(arguments)}, indent=1, ensure_ascii=False), flush=True)
        if arguments.dspy or arguments.only_dspy:
            print(json.dumps({"MIPROv2 light": watched(arguments)}, indent=1, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
