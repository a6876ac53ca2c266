"""A student leaves the house: merged, as GGUF, for Ollama, to the hub; and its score is measured on the way out."""

from __future__ import annotations

import json
import math
import re
import shutil
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
_HEAD = """\
# The student as a model for other notebooks and params files: copy one line into `models` of
# the benchmark of models, or into `teachers` of a generation.
"""
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def export_student(
    student: str | Path,
    target: str | Path,
    formats: Sequence[gguf.Quantisation] = ("q8_0", "q4_k_m"),
    *,
    role: Role | None = None,
    examples: Sequence[Example] = (),
    max_tokens: int = 1024,
    margin: float = MARGIN,
    evaluation: Mapping[str, Any] | None = None,
    llama_cpp: str | Path | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    on_progress: OnAsking | None = None,
) -> dict[str, Any]:
    """Merge, convert, quantise, measure and describe a student: what ``export.json`` holds. A stopped run goes on.

    Each form answers the test items of `role` once at temperature 0 (`gate`); score and validity may fall by `margin`.
    `target`'s name is the student's in Ollama; `evaluation` are figures for the model card.
    """
    source, folder = resolve(student), resolve(target)
    _check(source, folder, formats)
    merged, missing = folder / "merged", dict[str, str]()
    on_step("merge")
    loaded = _merge(source, merged)
    paths = {kind: folder / f"{folder.name}-{kind}.gguf" for kind in formats}
    for kind, path in paths.items():
        if not path.is_file():
            on_step(kind)
            gguf.write(merged, path, kind, sources=gguf.llama_cpp_sources(llama_cpp))
    forms = {"merged": merged} | {str(kind): path for kind, path in paths.items()}
    specs = {"student": f"local:{source}"} | {form: f"local:{findable(path)}" for form, path in forms.items()}
    parity = None
    if paths:
        on_step("tokenizer")
        last = paths[formats[-1]]
        try:
            own = [text for e in examples for text in (e.system, e.question, e.answer) if text]
            parity = gguf.tokenizer_parity(loaded.tokenizer, last, own)
        except MissingDependency as error:
            missing["parity"] = str(error)
        specs |= _for_ollama(loaded, last, {example.system for example in examples}, missing)
    else:
        missing["parity"] = "no GGUF file was asked for"
    gates: list[dict[str, Any]] = []
    if role is None or not examples:
        missing["gate"] = "no role and test items were given"
    else:
        on_step("scores")
        arms = [Arm(form, f"score of {form}", spec) for form, spec in specs.items()]
        how: dict[str, Any] = {"connect": _opened, "folder": folder / "answers", "on_progress": on_progress}
        how["sampling"] = Sampling(1, 0.0, max_tokens, batch=8)
        answers, _ = asked(arms, examples, role=role, missing=missing, **how)
        unpacked = dict.fromkeys(paths, "transformers, weights unpacked from the GGUF file")
        runs = {form: spec.partition(":")[0] for form, spec in specs.items()} | unpacked
        gates = [gate(form, runs[form], a, answers["student"], margin=margin) for form, a in answers.items()]
    report: dict[str, Any] = {
        "student": shown(source),
        "base": _base_of(str(source)),
        "folder": shown(folder),
        "files": [{"form": form, "path": shown(path), "bytes": _size(path)} for form, path in forms.items()],
        "gates": gates,
        "margin": margin,
        "parity": parity,
        "specs": {form: spec for form, spec in specs.items() if form != "student"},
        "not_measured": missing,
    }
    report["passed"] = passed(report)
    write_atomically(folder / "export.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "model.yaml", _HEAD + dump_yaml({"name": folder.name, "models": report["specs"]}))
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

    It ``passed`` where score and validity keep up within the margin beyond doubt; None: so few items can't tell.
    """
    row: dict[str, Any] = {"form": form, "asked_by": asked_by, "score": answers.score.to_dict()}
    row |= {"valid": answers.validity.estimate, "difference": None}
    if answers is student:
        return row | {"passed": True, "said": ""}
    score, valid = (answers.against(student, column, margin=margin) for column in ("total", "valid"))
    row["difference"] = score.difference.to_dict()
    found = {"score": score, "validity": valid}
    if lost := [name for name, each in found.items() if each.keeps_up is False]:
        return row | {"passed": False, "said": f"fails: {' and '.join(lost)} lower by more than {margin:g}"}
    if needed := [each.needed(to_keep_up=True) for each in found.values() if each.keeps_up is None]:
        enough = 10 * math.ceil(max(needed) * answers.frame["example"].nunique() / score.difference.n / 10)
        return row | {"passed": None, "said": f"{CANT_TELL}: needs about {enough:,} items"}
    return row | {"passed": True, "said": "passes"}


def said(report: Mapping[str, Any]) -> str:
    """An export in lines for a terminal."""
    lines = [f"{f['path']}  {f['bytes'] / 1e6:,.1f} MB" for f in report["files"]]
    for row in report["gates"]:
        kept = f", {row['difference']['estimate']:+.3f}: {row['said']}" if row["difference"] else ""
        lines.append(f"  score of {row['form']}: {Interval(**row['score'])}, valid {row['valid']:.0%}{kept}")
    if parity := report["parity"]:
        lines.append(f"  tokenizer: {parity['differing_count']} of {parity['n']:,} texts differ ({parity['by']})")
    return "\n".join([*lines, *(f"  {what} not measured: {why}" for what, why in report["not_measured"].items())])


def push_student(report_folder: str | Path, repository: str, what: What = "merged") -> str:
    """Push an export to a private repository of the hub, with its model card; returns the address.

    That is the LoRA adapter, the merged safetensors, or the GGUF files with their Modelfile.
    """
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
    return push_folder(place, repository, "model", allow=allow, message=message)


def model_card(
    report: Mapping[str, Any], student: Path, evaluation: Mapping[str, Any] | None = None, *, what: What = "merged"
) -> str:
    """The README of the student: where it comes from, what it scored in each form, and how it was taught.

    `what` lies beside it and is pushed with it, which decides by which library the hub says to load it.
    """
    from huggingface_hub import ModelCard, ModelCardData

    base, info = report["base"], student / INFO
    known = base == BUNDLED or (_HUB_ID.fullmatch(base) and not resolve(base).exists())
    header = ModelCardData(
        library_name={"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[what],
        pipeline_tag="text-generation",
        tags=["genesis-lab", "lora"],
        base_model=(BUNDLED_HUB if base == BUNDLED else base) if known else None,
    )
    card = ModelCard.from_template(
        header,
        str(Path(__file__).with_name("card.md.j2")),
        e=escaped,
        name=Path(report["folder"]).name,
        of=f"{BUNDLED_HUB}, its weights rounded to four bits (Q4_1)," if base == BUNDLED else escaped(base),
        trained=json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {},
        evaluation=evaluation or {},
        gates=[row | {"score": Interval(**row["score"])} for row in report["gates"]],
        not_measured=report["not_measured"],
    )
    return str(card)


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
    """The adapter as it is pushed: weights, facts and the chat template it was taught by, without checkpoints."""
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


def _for_ollama(loaded: LoadedModel, file: Path, systems: set[str], missing: dict[str, str]) -> dict[str, str]:
    """Write the Modelfile of a GGUF file and make the model known to Ollama; its spec where that worked."""
    if len(systems) > 1:
        missing["system"] = "the examples have several instructions: the Modelfile has none"
    told = gguf.modelfile(
        file.name,
        template=gguf.ollama_template(loaded.tokenizer),
        stop=list(dict.fromkeys(loaded.tokenizer.convert_ids_to_tokens(list(loaded.eos_ids)))),
        system=systems.pop() if len(systems) == 1 else "",
        context_tokens=min(loaded.context_tokens, 8192),
    )
    name, modelfile = file.parent.name, file.parent / "Modelfile"
    write_atomically(modelfile, told)
    if reason := gguf.ollama_create(name, modelfile):
        missing["ollama"] = reason
        return {}
    return {"ollama": f"ollama:{name}"}


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


def _opened(spec: str) -> Any:
    """A form to be asked; `Unavailable` where transformers does not read a GGUF file back."""
    provider: Any = parse_spec(spec).open()
    if spec.endswith(".gguf"):
        try:
            provider.load()
        except InvalidInput as error:
            raise Unavailable(str(error)) from None
    return SimpleNamespace(provider=provider, call=provider.complete, close=provider.close)
