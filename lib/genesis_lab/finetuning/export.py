"""A student leaves the house: merged, as GGUF, for Ollama, to the hub; and its score is measured again on the way out."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, get_args

from genesis_lab.dataset.writing import escaped
from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import findable, placed, resolve, shown, write_atomically
from genesis_lab.finetuning import gguf
from genesis_lab.finetuning.ask import Answers, OnAsking, Sampling
from genesis_lab.finetuning.checkpoints import INFO, base_name
from genesis_lab.finetuning.exam import Arm, asked
from genesis_lab.hub import push_folder
from genesis_lab.providers import parse_spec
from genesis_lab.providers.identity import weights_digest
from genesis_lab.providers.local_models import (
    BUNDLED,
    BUNDLED_HUB,
    LoadedModel,
    adapter_base,
    load_model,
    share_weights,
)
from genesis_lab.stats import CANT_TELL, Interval
from genesis_lab.yamls import dump_yaml

What = Literal["adapter", "merged", "gguf"]
MARGIN = 0.03
"""How much of the task score an export may cost."""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def export_student(
    student: str | Path, target: str | Path, formats: Sequence[gguf.Quantisation] = ("q8_0", "q4_k_m"), *,
    role: Role | None = None, examples: Sequence[Example] = (), max_tokens: int = 1024, margin: float = MARGIN,
    evaluation: Mapping[str, Any] | None = None, llama_cpp: str | Path | None = None,
    on_step: Callable[[str], None] = lambda step: None, on_progress: OnAsking | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Merge, convert, quantise, measure and describe a student: what ``export.json`` holds. A stopped run goes on.

    Each form answers the test items of `role` once at temperature 0 (`gate`); score and validity may fall by `margin`.
    `target`'s name is the student's in Ollama; `evaluation` are figures for the model card."""
    source, folder = resolve(student), resolve(target)
    _check(source, folder, formats)
    name, merged, missing = folder.name, folder / "merged", dict[str, str]()
    on_step("merge")
    loaded = _merge(source, merged)
    size = sum(file.stat().st_size for file in merged.rglob("*"))
    files = [{"form": "merged", "path": shown(merged), "bytes": size}]
    specs = {"student": f"local:{source}", "merged": f"local:{findable(merged)}"}
    paths = {kind: folder / f"{name}-{kind}.gguf" for kind in formats}
    _write_gguf(merged, paths, llama_cpp, on_step)
    for kind, path in paths.items():
        files.append({"form": kind, "path": shown(path), "bytes": path.stat().st_size})
        specs[kind] = f"local:{findable(path)}"
    form, parity = gguf.ollama_template(loaded.tokenizer), None
    if paths:
        on_step("tokenizer")
        try:
            own = [text for e in examples for text in (e.system, e.question, e.answer) if text]
            parity = gguf.tokenizer_parity(loaded.tokenizer, path, own)
        except MissingDependency as error:
            missing["parity"] = str(error)
        if len(systems := {example.system for example in examples}) > 1:
            missing["system"] = "the examples have several instructions: the Modelfile has none"
        stop = list(dict.fromkeys(loaded.tokenizer.convert_ids_to_tokens(list(loaded.eos_ids))))
        told = gguf.modelfile(
            path.name, template=form, stop=stop, system=systems.pop() if len(systems) == 1 else "",
            context_tokens=min(loaded.context_tokens, 8192),
        )  # fmt: skip
        write_atomically(folder / "Modelfile", told)
        if reason := gguf.ollama_create(name, folder / "Modelfile"):
            missing["ollama"] = reason
        else:
            specs["ollama"] = f"ollama:{name}"
    else:
        missing["parity"] = "no GGUF file was asked for"
    gates: list[dict[str, Any]] = []
    if role is None or not examples:
        missing["gate"] = "no role and test items were given"
    else:
        on_step("scores")
        forms = [Arm(form, f"score of {form}", spec) for form, spec in specs.items()]
        how = Sampling(1, 0.0, max_tokens, batch=8)
        answers, _ = asked(forms, examples, role, _opened, folder / "answers", how, on_progress, missing)
        unpacked = "transformers, weights unpacked from the GGUF file"
        by = {form: unpacked if spec.endswith(".gguf") else spec.partition(":")[0] for form, spec in specs.items()}
        gates = [gate(form, by[form], a, answers["student"], margin=margin) for form, a in answers.items()]
    report: dict[str, Any] = {
        "student": shown(source), "base": _base_of(str(source)), "folder": shown(folder), "files": files, "gates": gates,
        "margin": margin, "parity": parity, "template": form is not None, "ollama": name if "ollama" in specs else None,
        "specs": {form: spec for form, spec in specs.items() if form != "student"}, "not_measured": missing,
    }  # fmt: skip
    report["passed"] = passed(report)
    head = (
        "# The student as a model for other notebooks and params files: copy one line into `models` of\n"
        "# the benchmark of models, or into `teachers` of a generation.\n"
    )
    write_atomically(folder / "export.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "model.yaml", head + dump_yaml({"name": name, "models": report["specs"]}))
    places: dict[What, Path] = {"gguf": folder, "merged": merged}
    if adapter_base(str(source)):
        places["adapter"] = _copied(source, folder / "adapter", loaded.tokenizer.get_chat_template())
    for what, place in places.items():
        write_atomically(place / "README.md", model_card(report, source, evaluation, what=what))
    return report


def passed(report: Mapping[str, Any]) -> bool | None:
    """Whether every form keeps up and the tokenizer came through; None where that can't be told or was not measured."""
    gates, parity = report["gates"], report["parity"]
    if (parity and parity["differing_count"]) or any(each["passed"] is False for each in gates):
        return False
    measured = gates and not any(name.startswith("score of ") for name in report["not_measured"])
    return True if measured and all(each["passed"] for each in gates) else None


def gate(form: str, asked_by: str, answers: Answers, student: Answers, *, margin: float = MARGIN) -> dict[str, Any]:
    """What the answers of one form show against the `student`'s own to the same items; for the student itself, nothing.
    It ``passed`` where score and validity keep up within the margin beyond doubt; None where so few items can't tell."""
    row: dict[str, Any] = {
        "form": form, "asked_by": asked_by, "score": answers.score.to_dict(), "valid": answers.validity.estimate,
        "unanswered": answers.unanswered, "difference": None, "valid_difference": None, "passed": True, "said": "",
    }  # fmt: skip
    if answers is student:
        return row
    score, valid = (answers.against(student, column, margin=margin) for column in ("total", "valid"))
    row |= {"difference": score.difference.to_dict(), "valid_difference": valid.difference.to_dict()}
    found = {"score": score, "validity": valid}
    if lost := [name for name, each in found.items() if each.keeps_up is False]:
        return row | {"passed": False, "said": f"fails: {' and '.join(lost)} lower by more than {margin:g}"}
    if needed := [each.needed(to_keep_up=True) for each in found.values() if each.keeps_up is None]:
        enough = 10 * math.ceil(max(needed) * answers.frame["example"].nunique() / score.difference.n / 10)
        return row | {"passed": None, "said": f"{CANT_TELL}: needs about {enough:,} items"}
    return row | {"said": "passes"}


def said(report: Mapping[str, Any]) -> str:
    """An export in lines for a terminal."""
    lines = [f"{f['path']}  {f['bytes'] / 1e6:,.1f} MB" for f in report["files"]]
    for row in report["gates"]:
        kept = f", {row['difference']['estimate']:+.3f}: {row['said']}" if row["difference"] else ""
        lines.append(f"  score of {row['form']}: {Interval(**row['score'])}, valid {row['valid']:.0%}{kept}")
    if parity := report["parity"]:
        lines.append(f"  tokenizer: {parity['differing_count']} of {parity['n']:,} texts differ ({parity['by']})")
    return "\n".join([*lines, *(f"  {what} not measured: {why}" for what, why in report["not_measured"].items())])


def push_student(report_folder: str | Path, repository: str, what: What = "merged", *, private: bool = True) -> str:
    """Push an export to the hub, with its model card: the LoRA adapter, the merged safetensors, or the GGUF files with
    their Modelfile. Returns the address."""
    folder = resolve(report_folder)
    if what not in get_args(What):
        raise InvalidInput(f"what must be one of {', '.join(get_args(What))}, got {what!r}.")
    if not (folder / "export.json").is_file():
        raise InvalidInput(f"{shown(folder)} is no finished export of a student: run the export to its end first.")
    place = folder if what == "gguf" else folder / what
    if not place.is_dir():
        raise InvalidInput(f"The student in {shown(folder)} was no LoRA adapter: push merged or gguf instead.")
    allow = ["*.gguf", "Modelfile", "README.md"] if what == "gguf" else ["*"]
    message = f"Student {folder.name}, exported with Genesis Lab"
    return push_folder(place, repository, "model", allow=allow, message=message, private=private)


def model_card(
    report: Mapping[str, Any], student: Path, evaluation: Mapping[str, Any] | None = None, *, what: What = "merged"
) -> str:
    """The README of the student: where it comes from, what it scored in each form, and how it was taught. `what` lies
    beside it and is pushed with it, which decides by which library the hub says to load it."""
    from huggingface_hub import ModelCard, ModelCardData

    base, info = report["base"], student / INFO
    known = base == BUNDLED or (_HUB_ID.fullmatch(base) and not resolve(base).exists())
    header = ModelCardData(
        library_name={"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[what],
        pipeline_tag="text-generation",
        tags=["genesis-lab", "lora"],
        base_model=(BUNDLED_HUB if base == BUNDLED else base) if known else None,
    )
    return str(ModelCard.from_template(
        header, str(Path(__file__).with_name("card.md.j2")), e=escaped, name=Path(report["folder"]).name,
        of=f"{BUNDLED_HUB}, its weights rounded to four bits (Q4_1)," if base == BUNDLED else escaped(base),
        trained=json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}, evaluation=evaluation or {},
        gates=[row | {"score": Interval(**row["score"])} for row in report["gates"]], not_measured=report["not_measured"],
    ))  # fmt: skip


def _check(source: Path, folder: Path, formats: Sequence[str]) -> None:
    known = get_args(gguf.Quantisation)
    if not set(formats) <= {*known} or len(set(formats)) < len(formats):
        raise InvalidInput(f"formats must be different ones of {', '.join(known)}, got {list(formats)}.")
    if not any((source / file).is_file() for file in ("adapter_config.json", "config.json")):
        raise InvalidInput(f"{shown(source)} is no student: give the folder of a LoRA adapter or of a whole model.")
    if not any(source.glob("*.safetensors")):
        raise InvalidInput(f"{shown(source)} holds no weights: its training was not finished.")
    mark, digest = folder / ".student", weights_digest(str(source))
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise InvalidInput(f"{shown(folder)} is a folder with other things in it: choose another name.")
    if mark.is_file() and mark.read_text(encoding="ascii") != digest:
        raise InvalidInput(f"{shown(folder)} holds the export of another student: choose another name or delete it.")
    if "q4_k_m" in formats and find_spec("llama_cpp") is None:
        raise MissingDependency("llama-cpp-python", "Format q4_k_m", "pip install llama-cpp-python")
    write_atomically(mark, digest)


def _merge(source: Path, merged: Path) -> LoadedModel:
    """The student with its adapter merged into the base, saved as safetensors in the base's own number format."""
    import torch
    from transformers import AutoConfig

    if merged.is_dir():
        return load_model(str(merged), device="cpu")
    loaded = load_model(str(source), device="cpu", dtype="float32")
    kept = AutoConfig.from_pretrained(loaded.model.config.name_or_path).dtype or torch.float32
    with placed(merged) as temporary:
        loaded.model.to(kept).save_pretrained(temporary)
        loaded.tokenizer.save_pretrained(temporary)
        share_weights(temporary)
    return loaded


def _base_of(source: str) -> str:
    """The model that a student was taught from, through all adapters: as the hub has it where that is known."""
    while base := adapter_base(source):
        source = base
    config = resolve(source) / "config.json"
    if source == BUNDLED or not config.is_file():
        return source
    told = json.loads(config.read_text(encoding="utf-8")).get("_name_or_path") or ""
    return told if _HUB_ID.fullmatch(told) else shown(resolve(source))


def _copied(adapter: Path, target: Path, template: str) -> Path:
    """The adapter as it is pushed: its weights and facts and the chat template it was taught by, without checkpoints."""
    target.mkdir(exist_ok=True)
    for pattern in ("adapter_*", "tokenizer*", "special_tokens*", INFO):
        for file in adapter.glob(pattern):
            shutil.copy2(file, target)
    write_atomically(target / "chat_template.jinja", template)
    told = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
    base = adapter_base(str(adapter)) or ""
    # The bundled one has a name that only this project knows; a folder is named by the way from here to it.
    told["base_model_name_or_path"] = BUNDLED_HUB if base == BUNDLED else base_name(base, target)
    write_atomically(target / "adapter_config.json", json.dumps(told, indent=2) + "\n")
    return target


def _write_gguf(
    merged: Path, paths: Mapping[gguf.Quantisation, Path], llama_cpp: str | Path | None, on_step: Callable[[str], None]
) -> None:
    """Write the files that are not there yet."""
    for kind, path in paths.items():
        if path.is_file():
            continue
        on_step(kind)
        sources = gguf.llama_cpp_sources(llama_cpp)
        if kind != "q4_k_m":
            gguf.convert(merged, path, sources=sources, outtype=kind)
            continue
        with tempfile.TemporaryDirectory(dir=merged.parent) as scratch:
            whole = Path(scratch) / "whole.gguf"
            gguf.convert(merged, whole, sources=sources, outtype="auto")
            gguf.quantise(whole, path)


def _opened(spec: str) -> Any:
    """A form to be asked; `Unavailable` where transformers does not read a GGUF file back."""
    provider: Any = parse_spec(spec).open()
    if spec.endswith(".gguf"):
        try:
            provider.load()
        except InvalidInput as error:
            raise Unavailable(str(error)) from None
    return SimpleNamespace(provider=provider, call=provider.complete, close=provider.close)
