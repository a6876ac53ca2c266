"""Provider ``local`` on this machine: tokens per second in batches against one by one, and validity with and without
the grammar.

    python benchmarks/local.py
    python benchmarks/local.py --records 2 --single 1 --batch 2 --max-tokens 30 --dry
    python benchmarks/local.py --model Qwen/Qwen3-4B --records 32 --batch 16

Every record is a conversation of the domain's own prompt. *Fits* is the share of answers that fit the JSON schema,
*accepted* the share that the domain takes as a record. Seconds are wall clock, with processor seconds beside them,
which other work on the machine hardly changes. Constraint makes form, not sense: judge sense by the scorecard.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import bench
from genesis_lab.domains.base import Spec
from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.errors import ParseFailure
from genesis_lab.providers.base import Completion, Request
from genesis_lab.providers.local import LocalProvider
from genesis_lab.providers.local_models import BUNDLED, peak_memory_bytes
from genesis_lab.stats import proportion_interval


def main() -> None:
    arguments = _arguments()
    config = ConversationsConfig(
        english_share=arguments.english,
        few_shot=arguments.few_shot,
        max_turns=6,
        complexity_shares={"simple": 0.5, "medium": 0.5},
        seed=arguments.seed,
    )
    domain = Conversations(config)
    specs = domain.specs(max(10, arguments.records), arguments.seed)[: arguments.records]
    held = [_request(domain, spec, arguments.max_tokens) for spec in specs]
    free = [replace(request, schema=None) for request in held]
    single = held[: arguments.single]
    provider = LocalProvider(
        arguments.model,
        batch_size=arguments.batch,
        dtype=arguments.dtype,
        repetition_penalty=arguments.repetition_penalty,
    )
    started = perf_counter()
    loaded = provider.load()
    load_s = perf_counter() - started
    provider.complete_many([replace(held[0], max_tokens=8)])  # warms up
    ways = {
        "one by one": (single, 1),
        f"batches of {arguments.batch}": (held, len(held)),
        "the same without the grammar": (free, len(free)),
    }
    answers: dict[str, list[Any]] = {}

    def run(way: str) -> None:
        requests, at_once = ways[way]
        parts = [requests[i : i + at_once] for i in range(0, len(requests), at_once)]
        answers[way] = [answer for part in parts for answer in provider.complete_many(part)]

    timed = bench.side_by_side({way: partial(run, way) for way in ways}, repeats=arguments.repeats)
    rows = [{"way": way} | _found(answers[way], taken, domain, specs) for way, taken in timed.items()]
    peak = peak_memory_bytes(loaded.device)
    shown = f"{peak / 2**30:.2f} GiB" if peak is not None else "not measured, as this system does not say"
    note = f"{loaded.name} on {loaded.device} in {loaded.dtype}, loaded in {load_s:.1f} s; most memory: {shown}."
    bench.store("local", "Provider local: batches and the grammar", rows, note=note)


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    parser.add_argument("--model", default=BUNDLED, help="smollm2, a folder, or a hub id")
    parser.add_argument("--records", type=int, default=16)
    parser.add_argument("--single", type=int, default=4, help="records for the measurement one by one")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--few-shot", type=int, default=0)
    parser.add_argument("--english", type=float, default=1.0, help="share in English; the rest is in Spanish")
    parser.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16", "float16"])
    parser.add_argument("--repetition-penalty", type=float, help="default: 1.15 for smollm2, else the model's own")
    parser.add_argument("--threads", type=int, help="processor threads (default: torch's)")
    parser.add_argument("--repeats", type=int, default=1, help="of each way, in turns; the median counts")
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    if arguments.threads:
        import torch

        torch.set_num_threads(arguments.threads)
    return arguments


def _request(domain: Conversations, spec: Spec, max_tokens: int) -> Request:
    prompt = domain.prompt(spec)
    return Request(
        key="", system=prompt.system, messages=prompt.messages, schema=prompt.schema, max_tokens=max_tokens,
        temperature=0.7, seed=spec.seed,
    )  # fmt: skip


def _found(
    answers: Sequence[Completion], taken: dict[str, float], domain: Conversations, specs: Sequence[Spec]
) -> dict[str, Any]:
    """Tokens per second of wall clock and of processor time, and the shares that fit and are accepted."""
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    pairs = list(zip(answers, specs, strict=False))
    return {
        "tokens": tokens,
        "seconds": taken["seconds"],
        "tokens a second": tokens / taken["seconds"],
        "tokens a CPU second": tokens / taken["cpu_s"],
        "fits": _share(sum(_fits(domain, answer, spec) for answer, spec in pairs), len(pairs)),
        "accepted": _share(sum(_accepted(domain, answer, spec) for answer, spec in pairs), len(pairs)),
    }


def _fits(domain: Conversations, answer: Completion, spec: Spec) -> bool:
    import jsonschema

    try:
        jsonschema.validate(json.loads(answer.text), _request(domain, spec, 1).schema)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def _accepted(domain: Conversations, answer: Completion, spec: Spec) -> bool:
    try:
        domain.parse(answer.text, spec)
    except ParseFailure:
        return False
    return True


def _share(successes: int, n: int) -> str:
    low, high = proportion_interval(successes, n)
    return f"{successes}/{n} [{low:.2f}–{high:.2f}]"


if __name__ == "__main__":
    main()
