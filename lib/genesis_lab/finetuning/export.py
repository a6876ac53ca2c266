"""A student leaves the house: merged, as GGUF, for Ollama, to the hub; and its score is measured again on the way out."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import findable, placed, resolve, shown, write_atomically
from genesis_lab.finetuning.answers import Answers, Asking, ask
from genesis_lab.finetuning.card import model_card
from genesis_lab.finetuning.checkpoints import base_name
from genesis_lab.finetuning.gguf import (
    Parity,
    Quantisation,
    convert,
    llama_cpp_sources,
    parity_texts,
    quantise,
    tokenizer_parity,
    weight_formats,
)
from genesis_lab.finetuning.ollama import chat_form, modelfile, ollama_create, stops
from genesis_lab.hub import push_folder
from genesis_lab.providers import parse_spec
from genesis_lab.providers.identity import identity, weights_digest
from genesis_lab.providers.local_models import (
    BUNDLED,
    BUNDLED_HUB,
    LoadedModel,
    adapter_base,
    load_model,
    quiet,
    share_weights,
)
from genesis_lab.stats import CANT_TELL, Interval

What = Literal["adapter", "merged", "gguf"]
MARGIN = 0.03
"""How much of the task score an export may cost."""


@dataclass(frozen=True, slots=True)
class Exported:
    """One file or folder that was written."""

    form: str
    path: str
    bytes: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """The task score of one form of the student on the test items.

    Parameters
    ----------
    asked_by : the program that ran it.
    valid : share of valid answers; `unanswered` items got none.
    difference, valid_difference : to the student as it was trained, over the same items; None for that one.
    passed : whether score and validity keep up within the margin beyond doubt; None where so few items can't tell.
    said : the result in words; where it can't be told, with how many items it would need.
    """

    form: str
    asked_by: str
    score: Interval
    valid: float
    difference: Interval | None = None
    passed: bool | None = True
    valid_difference: Interval | None = None
    said: str = ""
    unanswered: int = 0


@dataclass(frozen=True)
class ExportReport:
    """What an export wrote, and what the student still knows in each form.

    Parameters
    ----------
    student : as it is shown in reports.
    base : the model it was taught from: the bundled one, a hub id, or a folder as reports show it.
    ollama : the name it has in Ollama; None where it was not created.
    specs : the student's name as a provider, by form: any notebook that takes a model takes one of these.
    not_measured : what was not measured or done, with the reason.
    """

    student: str
    base: str
    folder: str
    files: tuple[Exported, ...]
    gates: tuple[Gate, ...]
    margin: float
    parity: Parity | None
    template: bool
    ollama: str | None
    specs: Mapping[str, str]
    not_measured: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether every form keeps up and the tokenizer came through; None where that can't be told or was not measured."""
        if (self.parity and self.parity.differing) or any(gate.passed is False for gate in self.gates):
            return False
        measured = self.gates and not any(name.startswith("score of ") for name in self.not_measured)
        return True if measured and all(gate.passed for gate in self.gates) else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self) | {"parity": self.parity.to_dict() if self.parity else None, "passed": self.passed}


def export_student(
    student: str | Path,
    target: str | Path,
    formats: Sequence[Quantisation] = ("q8_0", "q4_k_m"),
    *,
    role: Role | None = None,
    examples: Sequence[Example] = (),
    max_tokens: int = 1024,
    margin: float = MARGIN,
    name: str | None = None,
    system: str | None = None,
    evaluation: Mapping[str, Any] | None = None,
    llama_cpp: str | Path | None = None,
    create: bool = True,
    on_step: Callable[[str], None] | None = None,
    on_progress: Callable[[Asking], None] | None = None,
) -> ExportReport:
    """Merge, convert, quantise, measure and describe a student. What a run that was stopped has finished stays.

    Parameters
    ----------
    student : folder of a LoRA adapter, or of a whole model.
    target : folder to write to; one that holds an export of another student is refused.
    formats : GGUF files to write besides the merged safetensors.
    role, examples : the gate, each form answers these test items once at temperature 0; without them it is not measured.
    margin : how far score and validity may fall.
    name : in Ollama; None takes the target's.
    system : the Modelfile's system text; None takes the one that all `examples` share, if they do.
    evaluation : figures for the model card, for example the report of notebook 53.
    llama_cpp : see `gguf.llama_cpp_sources`.
    create : whether to call ``ollama create`` where ollama is installed.

    Raises
    ------
    InvalidInput : no such student or format, the target holds something else, or llama.cpp does not know the model.
    MissingDependency : a package that an export needs is not installed.
    """
    source, folder = resolve(student), resolve(target)
    tell = on_step or (lambda _: None)
    _check(source, folder, formats)
    if "q4_k_m" in formats and find_spec("llama_cpp") is None:
        raise MissingDependency("llama-cpp-python", "Format q4_k_m", "pip install llama-cpp-python")
    name = name or folder.name
    not_measured: dict[str, str] = {}
    tell("merge")
    merged = folder / "merged"
    loaded = _merge(source, merged)
    files = [Exported("merged", shown(merged), sum(file.stat().st_size for file in merged.rglob("*")))]
    specs = {"student": f"local:{source}", "merged": f"local:{findable(merged)}"}
    paths = {kind: folder / f"{name}-{kind}.gguf" for kind in formats}
    _write_gguf(merged, paths, llama_cpp, tell)
    for kind, path in paths.items():
        note = ", ".join(f"{name} {share:.0%}" for name, share in weight_formats(path).items())
        files.append(Exported(kind, shown(path), path.stat().st_size, note))
        specs[kind] = f"local:{findable(path)}"
    form, template, parity, created = chat_form(loaded.tokenizer), loaded.tokenizer.get_chat_template(), None, None
    if formats:
        tell("tokenizer")
        own = [text for e in examples for text in (e.system, e.question, *e.answer.splitlines()) if text]
        try:
            parity = tokenizer_parity(loaded.tokenizer, path, parity_texts(own))
        except InvalidInput as error:
            not_measured["parity"] = str(error)
        shared = {example.system for example in examples}
        if system is None and len(shared) > 1:
            not_measured["system"] = "the examples have several instructions: the Modelfile has none until you give one"
        told = system if system is not None else (shared.pop() if len(shared) == 1 else "")
        stop, context = stops(loaded.tokenizer, loaded.eos_ids), min(loaded.context_tokens, 8192)
        write_atomically(
            folder / "Modelfile", modelfile(path.name, form=form, stop=stop, system=told, context_tokens=context)
        )
        reason = ollama_create(name, folder / "Modelfile") if create else "not asked for"
        if reason:
            not_measured["ollama"] = reason
        else:
            created, specs["ollama"] = name, f"ollama:{name}"
    else:
        not_measured["parity"] = "no GGUF file was asked for"
    del loaded

    gates: list[Gate] = []
    if role is None or not examples:
        not_measured["gate"] = "no role and test items were given"
    else:
        gates, unread = _gate(specs, folder, role, examples, max_tokens, margin, tell, on_progress)
        not_measured |= unread
    report = ExportReport(
        student=shown(source),
        base=_base_of(str(source)),
        folder=shown(folder),
        files=tuple(files),
        gates=tuple(gates),
        margin=margin,
        parity=parity,
        template=form is not None,
        ollama=created,
        specs={form: spec for form, spec in specs.items() if form != "student"},
        not_measured=not_measured,
    )
    write_atomically(folder / "export.json", json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder / "model.yaml", _model_yaml(report))
    places: dict[What, Path] = {"gguf": folder, "merged": merged}
    if adapter_base(str(source)):
        places["adapter"] = _copied(source, folder / "adapter", template)
    for what, place in places.items():
        write_atomically(place / "README.md", model_card(report, source, evaluation, what=what))
    return report


def gate_of(form: str, asked_by: str, answers: Answers, student: Answers | None, *, margin: float = MARGIN) -> Gate:
    """What the answers of one form show against the `student`'s own to the same items; None is the student itself."""
    gate = Gate(form, asked_by, answers.score, answers.validity.estimate, unanswered=answers.unanswered)
    if student is None:
        return gate
    found = {
        "score": answers.against(student, margin=margin),
        "validity": answers.against(student, "valid", margin=margin),
    }
    lost = [name for name, each in found.items() if each.keeps_up is False]
    needed = [each.needed(to_keep_up=True) for each in found.values() if each.keeps_up is None]
    if lost:
        passed, said = False, f"fails: {' and '.join(lost)} lower by more than {margin:g}"
    elif needed:
        enough = 10 * math.ceil(max(needed) * len(set(answers.frame["example"])) / found["score"].difference.n / 10)
        passed, said = None, f"{CANT_TELL}: needs about {enough:,} items"
    else:
        passed, said = True, "passes"
    return replace(
        gate,
        difference=found["score"].difference,
        valid_difference=found["validity"].difference,
        passed=passed,
        said=said,
    )


def push_student(report_folder: str | Path, repository: str, what: What = "merged", *, private: bool = True) -> str:
    """Push an export to the hub, with its model card; returns the address.

    Parameters
    ----------
    report_folder : the target of `export_student`.
    what : the LoRA adapter, the merged safetensors, or the GGUF files with their Modelfile.

    Raises
    ------
    InvalidInput : there is no export, or no adapter in it, or the hub refuses the token.
    Unavailable : the hub can't be reached.
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
    return push_folder(place, repository, "model", allow=allow, message=message, private=private)


def _check(source: Path, folder: Path, formats: Sequence[str]) -> None:
    wrong = [each for each in formats if each not in get_args(Quantisation)]
    if wrong or len(set(formats)) < len(formats):
        raise InvalidInput(
            f"formats must be different ones of {', '.join(get_args(Quantisation))}, got {list(formats)}."
        )
    if not any((source / file).is_file() for file in ("adapter_config.json", "config.json")):
        raise InvalidInput(f"{shown(source)} is no student: give the folder of a LoRA adapter or of a whole model.")
    if not any(source.glob("*.safetensors")):
        raise InvalidInput(f"{shown(source)} holds no weights: its training was not finished.")
    mark = folder / ".student"
    if folder.exists() and any(folder.iterdir()) and not mark.is_file():
        raise InvalidInput(f"{shown(folder)} is a folder with other things in it: choose another name.")
    digest = weights_digest(str(source))
    if mark.is_file() and mark.read_text(encoding="ascii") != digest:
        raise InvalidInput(f"{shown(folder)} holds the export of another student: choose another name or delete it.")
    write_atomically(mark, digest)


def _merge(source: Path, merged: Path) -> LoadedModel:
    """The student with its adapter merged into the base, saved as safetensors in the base's own number format."""
    import torch
    from transformers import AutoConfig

    if merged.is_dir():
        return load_model(str(merged), device="cpu")
    loaded = load_model(str(source), device="cpu", dtype="float32")
    kept = AutoConfig.from_pretrained(loaded.model.config.name_or_path).dtype or torch.float32
    with placed(merged) as temporary, quiet():
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
    return told if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", told) else shown(resolve(source))


def _copied(adapter: Path, target: Path, template: str) -> Path:
    """The adapter as it is pushed: its weights and facts and the chat template it was taught by, without checkpoints."""
    target.mkdir(exist_ok=True)
    for pattern in ("adapter_*", "tokenizer*", "chat_template*", "special_tokens*", "training_info.json"):
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
    merged: Path, paths: Mapping[Quantisation, Path], llama_cpp: str | Path | None, tell: Callable[[str], None]
) -> None:
    """Write the files that are not there yet; one conversion serves all quantised ones."""
    missing = {kind: path for kind, path in paths.items() if not path.is_file()}
    quantised = {kind: path for kind, path in missing.items() if kind != "f16"}
    if not missing:
        return
    sources = llama_cpp_sources(llama_cpp)
    if find_spec("llama_cpp") is None and quantised.keys() <= {"q8_0"}:
        direct, quantised = missing, {}  # the converter itself writes q8_0
    else:
        direct = {kind: path for kind, path in missing.items() if kind == "f16"}
    for kind, path in direct.items():
        tell(kind)
        convert(merged, path, sources=sources, outtype=kind)
    if quantised:
        with tempfile.TemporaryDirectory(dir=merged.parent) as scratch:
            whole = Path(scratch) / "whole.gguf"
            tell("convert")
            convert(merged, whole, sources=sources, outtype="auto")
            for kind, path in quantised.items():
                tell(kind)
                quantise(whole, path, kind)


def _gate(
    specs: Mapping[str, str],
    folder: Path,
    role: Role,
    examples: Sequence[Example],
    max_tokens: int,
    margin: float,
    tell: Callable[[str], None],
    on_progress: Callable[[Asking], None] | None,
) -> tuple[list[Gate], dict[str, str]]:
    """The gate of each form, and why a GGUF file that transformers does not read back has none."""
    gates: list[Gate] = []
    unread: dict[str, str] = {}
    reference: Answers | None = None

    def standing(this: Asking) -> None:
        if on_progress:
            done, total = len(gates) * len(examples) + this.done, len(specs) * len(examples)
            eta_s = (total - done) / this.rate if this.rate else None
            on_progress(replace(this, done=done, total=total, eta_s=eta_s))

    for form, spec in specs.items():
        tell(f"score of {form}")
        unpacked = "transformers, weights unpacked from the GGUF file"
        asked_by = unpacked if spec.endswith(".gguf") else spec.partition(":")[0]
        provider = parse_spec(spec).open()
        try:
            answers = ask(
                provider.complete, examples, role=role, model=identity(spec), runs=1, temperature=0.0,
                max_tokens=max_tokens, path=folder / "answers" / f"{form}.jsonl",
                concurrency=provider.capabilities.concurrency, on_progress=standing,
            )  # fmt: skip
        except InvalidInput as error:
            if not spec.endswith(".gguf"):
                raise
            unread[f"score of {form}"] = str(error)
            continue
        finally:
            provider.close()
        gates.append(gate_of(form, asked_by, answers, reference, margin=margin))
        reference = reference or answers
    return gates, unread


def _model_yaml(report: ExportReport) -> str:
    import yaml

    head = (
        "# The student as a model for other notebooks and params files: copy one line into `models` of\n"
        "# the benchmark of models, or into `teachers` of a generation.\n"
    )
    listed: str = yaml.safe_dump({"name": Path(report.folder).name, "models": dict(report.specs)}, sort_keys=False)
    return head + listed
