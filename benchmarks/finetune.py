"""Tokens per second of fine-tuning against TRL's SFTTrainer: its defaults, and tuned.

    pip install trl
    python benchmarks/finetune.py
    python benchmarks/finetune.py --arms ours --examples 4 --batch 2 --row-tokens 1024 --dry
    python benchmarks/finetune.py --shape qwen3-1.7b --examples 2000 --batch 64 --row-tokens 16384 --compile   # a GPU

Every arm runs in a process of its own on the same examples (the offline teacher's requirements as token ids) in the same
order, with the same adapters (rank 8 on q, k, v and o), rate and schedule. Counted are real tokens, prompts included and
padding left out, over the seconds of all steps but the first, which warms up; processor seconds, which other work on
the machine hardly changes, stand beside them.

Arms: `ours`; `trl`, SFTTrainer with its defaults; `trl-tuned`, the same without gradient checkpointing and its base in
bfloat16; `trl-packed`, that with packing, which is what pays on a GPU. All learn the response only. TRL's packed rows hold
whole examples up to --row-tokens, and as many rows go into a step as hold about --batch examples. With --shape the weights
are random: for speed alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import bench

ARMS = ("ours", "trl", "trl-tuned", "trl-packed")
SHAPES = {  # of the published configs: https://huggingface.co/Qwen/Qwen3-0.6B (-1.7B, -8B), config.json
    "qwen3-0.6b": {"hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-1.7b": {"hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16},
    "qwen3-8b": {"hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36, "num_attention_heads": 32},
}
_QWEN3 = {"vocab_size": 151936, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960}


def main() -> None:
    arguments = _arguments()
    rows, found = [], {}
    for arm in arguments.arms:
        learn = _ours if arm == "ours" else _trl
        found[arm] = facts = bench.measured(learn, argparse.Namespace(**vars(arguments), arm=arm))["result"]
        row = {"arm": arm} | {name: facts[name] for name in ("tokens", "seconds", "tokens a second")}
        row |= {name: facts[name] for name in ("tokens a CPU second", "peak GiB", "what")}
        if arm != "ours" and "ours" in found:
            for what in ("second", "CPU second"):
                row[f"ours, times, by {what}s"] = found["ours"][f"tokens a {what}"] / facts[f"tokens a {what}"]
        rows.append(row)
    losses = (f"{arm} " + " ".join(f"{loss:.3f}" for loss in facts["losses"]) for arm, facts in found.items())
    note = f"{arguments.shape or arguments.base}. Loss of each step, per response token: {'; '.join(losses)}."
    bench.store("finetune", "Fine-tuning against TRL's SFTTrainer", rows, note=note)


def _arguments() -> argparse.Namespace:
    parser = bench.parser(__doc__)
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--base", default="smollm2", help="smollm2, a folder, or a hub id")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape instead of a base")
    parser.add_argument("--examples", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8, help="examples per step")
    parser.add_argument("--row-tokens", type=int, default=2048)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument(
        "--compile", action="store_true", help="ours with compiled blocks; tuned TRL with torch_compile"
    )
    parser.add_argument("--threads", type=int, default=0, help="processor threads (default: torch's)")
    parser.add_argument("--seed", type=int, default=42)
    return parser.parse_args()


def _settings(a: argparse.Namespace) -> Any:
    from genesis_lab.finetuning.config import FinetuneConfig

    return FinetuneConfig(
        base=a.base, epochs=1, batch_size=a.batch, learning_rate=a.rate, max_length=a.row_tokens,
        row_tokens=a.row_tokens, compile=a.compile, examine=0, seed=a.seed,
    )  # fmt: skip


def _prepared(a: argparse.Namespace) -> Any:
    """The student with fresh adapters, and the offline teacher's examples."""
    import torch

    from genesis_lab.domains import get_domain
    from genesis_lab.domains.base import Provenance
    from genesis_lab.finetuning.lora import Prepared, with_adapters
    from genesis_lab.finetuning.packing import isolate
    from genesis_lab.finetuning.tasks import encode
    from genesis_lab.providers.local_models import load_model

    if a.threads:
        torch.set_num_threads(a.threads)
    config, role = _settings(a), get_domain("requirements")
    specs, about = role.specs(max(10, a.examples), a.seed), Provenance(provider="", model="", prompt_version="")
    records = [
        role.render(role.parse(role.offline_text(spec, 0), spec), spec, about).model_dump()
        for spec in specs[: a.examples]
    ]
    loaded = load_model(config.base)
    if a.shape:
        loaded = _random(loaded, SHAPES[a.shape])
    examples, _ = encode(loaded.tokenizer, loaded.eos_ids, map(role.example, records), a.row_tokens)
    ours = a.arm == "ours"
    return Prepared(
        config=config, folder=Path(), dataset=None, role=role, loaded=loaded,
        attention=isolate(loaded.model, loaded.device, a.row_tokens) if ours else "",
        model=with_adapters(loaded.model, config) if ours else loaded.model, train=examples, validation=[], examined=[],
        too_long=[], made_with={},
    )  # fmt: skip


def _random(loaded: Any, shape: dict[str, int]) -> Any:
    from dataclasses import replace

    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tied = shape["hidden_size"] < 4096
    with torch.device(loaded.device):
        torch.set_default_dtype(getattr(torch, loaded.dtype))
        model = Qwen3ForCausalLM(Qwen3Config(**_QWEN3, **shape, tie_word_embeddings=tied))
        torch.set_default_dtype(torch.float32)
    return replace(loaded, model=model.eval())


def _ours(a: argparse.Namespace) -> dict[str, Any]:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    from genesis_lab.finetuning.lora import take_step

    prepared = _prepared(a)
    optimizer = torch.optim.AdamW(prepared.trainable, prepared.config.learning_rate, weight_decay=0.0, fused=True)
    scaler = torch.amp.GradScaler(prepared.loaded.device, enabled=False)
    schedule = get_cosine_schedule_with_warmup(optimizer, 1, prepared.total_steps)
    clock, losses, tokens = _Clock(prepared.loaded.device), [], []
    for step in range(1, prepared.total_steps + 1):
        facts = take_step(prepared, step, optimizer, scaler)
        schedule.step()
        clock.tick()
        losses.append(facts["loss"])
        tokens.append(facts["tokens"])
    return clock.facts(sum(tokens[1:]), losses, f"{prepared.loaded.dtype}, {prepared.attention}", prepared)


def _trl(a: argparse.Namespace) -> dict[str, Any]:
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from genesis_lab.finetuning.lora import target_layers

    tuned, packed, prepared = a.arm != "trl", a.arm == "trl-packed", _prepared(a)
    if not tuned:
        prepared.loaded.model.float()  # SFTTrainer loads a base in float32 and calculates in bfloat16 by autocast
    ordered = [example for step in range(1, prepared.total_steps + 1) for example in prepared.batch(step)]
    data = Dataset.from_list([
        {"input_ids": [*e.prompt, *e.answer], "completion_mask": [0] * len(e.prompt) + [1] * len(e.answer)}
        for e in ordered
    ])  # fmt: skip
    mean = sum(map(len, ordered)) / len(ordered)
    size = max(1, round(a.batch * mean / a.row_tokens)) if packed else a.batch
    given: dict[str, Any] = {"packing": packed, "gradient_checkpointing": False, "bf16": False} if tuned else {}
    if tuned and prepared.loaded.device == "cuda":
        from importlib.util import find_spec

        given["use_liger_kernel"] = find_spec("liger_kernel") is not None
        given["torch_compile"] = a.compile
    clock, losses = _Clock(prepared.loaded.device), []

    class Watch(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.tick()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **__: Any) -> None:
            if "loss" in logs:
                losses.append(logs["loss"])

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder, num_train_epochs=1, per_device_train_batch_size=size, learning_rate=a.rate, warmup_steps=1,
            lr_scheduler_type="cosine", completion_only_loss=True, max_length=a.row_tokens,
            train_sampling_strategy="sequential", seed=a.seed,
            logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
            use_cpu=prepared.loaded.device == "cpu", **given,
        )  # fmt: skip
        layers = target_layers(prepared.loaded.model, attention_only=True)
        lora = LoraConfig(r=8, lora_alpha=32, target_modules=layers, task_type="CAUSAL_LM")
        trainer = SFTTrainer(
            prepared.loaded.model, args=config, train_dataset=data, processing_class=prepared.loaded.tokenizer,
            peft_config=lora, callbacks=[Watch()],
        )  # fmt: skip
        trainer.remove_callback(next(c for c in trainer.callback_handler.callbacks if "Print" in type(c).__name__))
        trainer.train()
    per_step = [sum(map(len, trainer.train_dataset[i : i + size]["input_ids"])) for i in range(0, len(trainer.train_dataset), size)]  # fmt: skip
    shown = trainer.args
    what = (
        f"base {next(prepared.loaded.model.parameters()).dtype}, bf16 autocast {shown.bf16}, gradient checkpointing "
        f"{shown.gradient_checkpointing}, packing {shown.packing}, {prepared.loaded.model.config._attn_implementation}"
    ).replace("torch.", "")
    return clock.facts(sum(per_step[1:]), losses, what, prepared)


class _Clock:
    """Wall and processor seconds from the first tick to the last."""

    def __init__(self, device: str) -> None:
        self._device, self._ticks = device, []  # type: str, list[tuple[float, float]]

    def tick(self) -> None:
        if self._device == "cuda":
            import torch

            torch.cuda.synchronize()
        self._ticks.append((time.perf_counter(), time.process_time()))

    def facts(self, tokens: int, losses: list[float], what: str, prepared: Any) -> dict[str, Any]:
        from genesis_lab.providers.local_models import peak_memory_bytes

        wall, cpu = (end - start for start, end in zip(self._ticks[0], self._ticks[-1], strict=True))
        peak = (peak_memory_bytes(prepared.loaded.device) or 0) / 2**30
        rates = {"tokens a second": tokens / wall, "tokens a CPU second": tokens / cpu}
        return {"tokens": tokens, "seconds": wall, **rates, "losses": losses, "peak GiB": peak, "what": what}


if __name__ == "__main__":
    main()
