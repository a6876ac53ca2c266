"""The model card of a student that is exported or pushed."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from genesis_lab.files import resolve
from genesis_lab.providers.local_models import BUNDLED, BUNDLED_HUB

if TYPE_CHECKING:
    from genesis_lab.finetuning.export import ExportReport


def model_card(
    report: ExportReport,
    student: Path,
    evaluation: Mapping[str, Any] | None = None,
    *,
    what: Literal["adapter", "merged", "gguf"] = "merged",
) -> str:
    """The README of the student: where it comes from, what it scored, in each form, and how to run it.

    Parameters
    ----------
    what : what lies beside it and is pushed with it; decides by which library the hub says to load it.
    """
    import yaml

    library = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}[what]
    header = {"library_name": library, "pipeline_tag": "text-generation", "tags": ["genesis-lab", "lora"]}
    if report.base == BUNDLED:
        header["base_model"] = BUNDLED_HUB
    elif re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", report.base) and not resolve(report.base).exists():
        header["base_model"] = report.base
    name = Path(report.folder).name
    lines = ["---", yaml.safe_dump(header, sort_keys=False).rstrip(), "---", "", f"# {_cell(name)}", ""]
    base = f"{BUNDLED_HUB}, its weights rounded to four bits (Q4_1)," if report.base == BUNDLED else _cell(report.base)
    lines += [f"A student of {base} trained and exported with Genesis Lab.", ""]
    info = student / "training_info.json"
    trained = json.loads(info.read_text(encoding="utf-8")) if info.is_file() else {}
    if limits := trained.get("limits"):
        lines += [f"**A smoke run, not a finished student**: trained with limits {_cell(limits)}.", ""]
    if notes := trained.get("notes"):
        lines += [*(_cell(note) for note in notes), ""]
    if report.gates:
        lines += [
            "Task score on the test items after export (95 % interval; difference to the student as it was trained):",
            "",
        ]
        lines += ["| form | run by | score | valid | difference | verdict |", "|---|---|---|---|---|---|"]
        for gate in report.gates:
            difference = f"{gate.difference.estimate:+.3f}" if gate.difference else ""
            cells = (gate.form, gate.asked_by, gate.score, f"{gate.valid:.0%}", difference, gate.said)
            lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
        lines.append("")
    for title, facts in (("Evaluation", evaluation or {}), ("Training", trained)):
        plain = {key: value for key, value in facts.items() if isinstance(value, str | int | float)}
        if plain:
            lines += [f"## {title}", "", "| | |", "|---|---|"]
            lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in plain.items()] + [""]
    if report.not_measured:
        lines += [
            "Not measured or done: " + "; ".join(f"{_cell(k)}: {_cell(v)}" for k, v in report.not_measured.items()),
            "",
        ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    text = " ".join(str(value).split())[:200]
    for character in "\\`*_|[]#":
        text = text.replace(character, f"\\{character}")
    return html.escape(text, quote=False)
