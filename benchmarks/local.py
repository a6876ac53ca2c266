"""Provider ``local`` on this machine: tokens per second in batches against one by one, and validity with and without
the grammar.

    python benchmarks/local.py
    python benchmarks/local.py --model Qwen/Qwen3-4B --records 32 --batch 16

Every record is a conversation of the domain's own prompt. *Fits* is the share of answers that fit the JSON schema,
*accepted* the share that the domain takes as a record. Seconds are wall clock, with processor seconds beside them,
which other work on the machine hardly changes. Constraint makes form, not sense: judge sense by the scorecard.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

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
    loaded = provider.load()
    print(f"{loaded.name} on {loaded.device} in {loaded.dtype}: loaded in {loaded.load_s:.1f} s", flush=True)
    provider.complete_many([replace(held[0], max_tokens=8)])  # warms up
    alone = _measured("one by one", lambda: [provider.complete_many([r])[0] for r in single], domain, specs)
    batched = _measured(f"batches of {arguments.batch}", lambda: provider.complete_many(held), domain, specs)
    _measured("the same without the grammar", lambda: provider.complete_many(free), domain, specs)
    peak = peak_memory_bytes(loaded.device)
    shown = f"{peak / 2**30:.2f} GiB" if peak is not None else "not measured: this system does not say"
    print(
        f"  batched ÷ one by one: {batched[0] / alone[0]:.2f} by the clock, {batched[1] / alone[1]:.2f} by processor "
        f"seconds; most memory: {shown}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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


def _measured(what: str, run: Any, domain: Conversations, specs: Sequence[Spec]) -> tuple[float, float]:
    """Print one line; tokens per second of wall clock and of processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    answers: Sequence[Completion] = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    tokens = sum(answer.usage.completion_tokens for answer in answers)
    pairs = list(zip(answers, specs, strict=False))
    fits = sum(_fits(domain, answer, spec) for answer, spec in pairs)
    accepted = sum(_accepted(domain, answer, spec) for answer, spec in pairs)
    print(
        f"  {what}: {tokens:,} tokens in {wall:.1f} s ({cpu:.1f} CPU), {tokens / wall:.1f} tokens/s, "
        f"{tokens / cpu:.1f} per CPU second; fits {_share(fits, len(pairs))}, accepted {_share(accepted, len(pairs))}",
        flush=True,
    )
    return tokens / wall, tokens / cpu


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
