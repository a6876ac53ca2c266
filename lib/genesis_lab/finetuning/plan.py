"""What a run will take, said before it starts: parameters, tokens, time and memory, measured on the longest row."""

from __future__ import annotations

import time
from dataclasses import dataclass

from genesis_lab.finetuning.loss import row_loss
from genesis_lab.finetuning.packing import Row
from genesis_lab.finetuning.student import Prepared, attending, memory_errors
from genesis_lab.providers.local_models import peak_memory_bytes


@dataclass(frozen=True)
class TrainingPlan:
    """An estimate. `seconds` is for the steps alone; examinations between epochs come on top.

    Parameters
    ----------
    tokens, answered : of all examples as often as they are seen, prompts included; and those of them that teach.
    computed : tokens that go through the model for them: padding added, shared beginnings counted once.
    peak_memory_bytes : most memory used until now, the measured steps included; None where the system does not say.
    """

    examples: int
    too_long: int
    steps: int
    trainable_parameters: int
    parameters: int
    tokens: int
    answered: int
    computed: int
    tokens_per_s: float
    seconds: float
    peak_memory_bytes: int | None
    smoke: bool

    def __str__(self) -> str:
        hours = self.seconds / 3600
        time_ = f"{hours:.1f} hours" if hours >= 2 else f"{self.seconds / 60:.1f} minutes"
        kind = "A smoke run, whose student is no result" if self.smoke else "A full run"
        return (
            f"{kind}: {self.steps:,} steps over {self.tokens:,} tokens will take about {time_} on this machine "
            f"({self.tokens_per_s:,.0f} tokens/s, measured)"
        )


def plan_training(prepared: Prepared) -> TrainingPlan:
    """Pack every step, run the longest row forward and backward, and reckon; no weight changes."""
    packed = [prepared.rows(prepared.batch(step)) for step in range(1, prepared.total_steps + 1)]
    every = sorted((row for step in packed for row in step), key=lambda row: len(row.ids))
    _timed(prepared, every[0])  # warms up
    rate = len(every[-1].ids) / _timed(prepared, every[-1])
    tokens, computed = sum(row.tokens for row in every), sum(len(row.ids) for row in every)
    return TrainingPlan(
        examples=len(prepared.train),
        too_long=len(prepared.too_long),
        steps=prepared.total_steps,
        trainable_parameters=sum(p.numel() for p in prepared.trainable),
        parameters=sum(p.numel() for p in prepared.model.parameters()),
        tokens=tokens,
        answered=sum(len(row.labels) for row in every),
        computed=computed,
        tokens_per_s=rate * tokens / computed,
        seconds=computed / rate,
        peak_memory_bytes=peak_memory_bytes(prepared.loaded.device),
        smoke=bool(prepared.config.limits),
    )


def _timed(prepared: Prepared, row: Row) -> float:
    """Seconds of a row forward and backward; the gradients are thrown away."""
    import torch

    random = torch.get_rng_state()
    prepared.model.train()
    started = time.perf_counter()
    with attending(prepared, prepared.attention), memory_errors(prepared):
        row_loss(prepared, row).backward()
    if prepared.loaded.device == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    for parameter in prepared.trainable:
        parameter.grad = None
    torch.set_rng_state(random)
    return seconds
