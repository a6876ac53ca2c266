"""Our prompt search, and dspy's MIPROv2 light beside it, on the same questions, model and terms.

    python benchmarks/prompt_search.py                              # the bundled model on this processor
    python benchmarks/prompt_search.py --optimizers race miprov2    # needs pip install "genesis-lab[dspy]"

Two tasks: ``intents`` (name the intent of a message, one of four) and
``requirements`` (the role; the offline teacher's concepts and demonstrations, in English).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import bench

INTENTS = ("card_arrival", "exchange_rate", "top_up_failed", "passcode_forgotten")


def questions(task: str, total: int, seed: int) -> Any:
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


def searched(arguments: argparse.Namespace, optimizer: str) -> dict[str, Any]:
    """The measured part: one search."""
    from genesis_lab.finetuning.exam import as_examined
    from genesis_lab.finetuning.prompts import SearchConfig, search_prompt
    from genesis_lab.providers import parse_spec
    from genesis_lab.stats import Interval

    task, examples = questions(arguments.task, arguments.total, arguments.seed)
    shown = 2 if arguments.task == "requirements" else 4  # a demonstration of the role has 450 tokens
    config = SearchConfig(
        prompt=optimizer, optimizer=optimizer, calls=arguments.calls, instructions=4, demonstrations=shown,
        demonstration_sets=3, candidates=arguments.candidates, first_rung=8, validation_items=arguments.validation,
        test_items=arguments.test, grammar=arguments.grammar, max_tokens=arguments.max_tokens, seed=arguments.seed,
    )  # fmt: skip
    provider = as_examined(parse_spec(arguments.model).open(), arguments.batch)
    report = search_prompt(
        provider.complete, examples, config, role=task, model=arguments.model, concurrency=arguments.batch
    )
    return {
        "chosen": report["chosen"],
        "made of": next(c["origin"] for c in report["candidates"] if c["name"] == report["chosen"]),
        "validation, last round less default": "; ".join(
            f"{name} {Interval(**found['difference'])}, {found['verdict']}"
            for name, found in report["compared"].items()
        ),
        "test": "; ".join(f"{name} {Interval(**value)}" for name, value in report["test"].items()),
        "calls": report["calls"],
        "prompt tokens": report["prompt_tokens"],
        "notes": " ".join(report["notes"]),
    }


def main() -> None:
    parser = bench.parser(__doc__)
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
    parser.add_argument("--optimizers", nargs="+", default=["race"], choices=("race", "miprov2"))
    parser.add_argument("--calls", type=int, default=400, help="most questions that MIPROv2 may ask")
    arguments = parser.parse_args()
    arguments.max_tokens = arguments.max_tokens or {"intents": 16, "requirements": 320}[arguments.task]

    from genesis_lab.files import isolated_root, use_output_root

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        use_output_root(isolated_root(Path(folder) / "outputs"))
        os.environ.setdefault("DSPY_CACHEDIR", str(Path(folder) / "dspy"))
        for optimizer in arguments.optimizers:
            found = bench.measured(searched, arguments, optimizer)
            rows.append(
                {"search": optimizer}
                | found["result"]
                | {"seconds": found["seconds"], "CPU seconds": found["cpu_s"], "peak MiB": found["peak_mib"]}
            )
    bench.store(f"prompt_search_{arguments.task}", f"Prompt search: {arguments.task}, {arguments.model}", rows)


if __name__ == "__main__":
    main()
