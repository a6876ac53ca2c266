"""What a model is told before its question: an instruction and demonstrations, kept as a JSON artefact."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from genesis_lab.domains.base import Example
from genesis_lab.errors import InvalidInput
from genesis_lab.files import resolve, shown, write_atomically
from genesis_lab.providers.base import Message

_KIND = "prompt_program"


class Demonstration(NamedTuple):
    """A solved question; shown to examples of its language, or to all when that is empty."""

    question: str
    answer: str
    language: str = ""


@dataclass(frozen=True, slots=True)
class PromptProgram:
    """How to ask one task.

    Parameters
    ----------
    instruction : the system text; empty keeps the example's own, the one it was taught with.
    demonstrations : solved questions that come first, each as a question and the answer that should be copied in form.
    translations : the instruction for a language that has its own, by language code.
    trace : file with the search that found it, relative to the program's own folder.
    """

    instruction: str = ""
    demonstrations: tuple[Demonstration, ...] = ()
    translations: Mapping[str, str] = field(default_factory=dict)
    trace: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "demonstrations", tuple(Demonstration(*each) for each in self.demonstrations))

    def system(self, example: Example) -> str:
        """The system text for `example`."""
        return self.translations.get(example.language) or self.instruction or example.system

    def messages(self, example: Example) -> tuple[Message, ...]:
        """The demonstrations, then `example`'s question; the question itself is never among its demonstrations."""
        shown_before = [
            each
            for each in self.demonstrations
            if each.language in ("", example.language) and each.question != example.question
        ]
        solved: list[Message] = []
        for each in shown_before:
            solved += [("user", each.question), ("assistant", each.answer)]
        return (*solved, ("user", example.question))

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {
            "kind": _KIND,
            "instruction": self.instruction,
            "translations": dict(self.translations),
            "demonstrations": [each._asdict() for each in self.demonstrations],
            "trace": self.trace,
        }

    def save(self, path: Path) -> None:
        """Write the program as JSON; raises `GenesisError` where the disk does not take it."""
        write_atomically(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")


def load_program(path: str | Path) -> PromptProgram:
    """Read what `PromptProgram.save` wrote, or ``prompt.json`` of a search's folder.

    Raises
    ------
    InvalidInput : there is no such file, or it holds something else.
    """
    file = resolve(path)
    if file.is_dir():
        file /= "prompt.json"
    if not file.is_file():
        raise InvalidInput(f"There is no prompt {shown(file)}: write one with notebook 51.")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found.pop("kind", None) != _KIND:
            raise ValueError
        demonstrations = [Demonstration(**each) for each in found.pop("demonstrations")]
        return TypeAdapter(PromptProgram).validate_python({**found, "demonstrations": demonstrations})
    except (ValueError, TypeError, AttributeError, KeyError, ValidationError):
        raise InvalidInput(
            f"{shown(file)} is no prompt: it must be a JSON file that PromptProgram.save wrote."
        ) from None


def from_dspy(path: str | Path, *, question: str = "question", answer: str = "answer") -> PromptProgram:
    """The instruction and demonstrations of a one-step program that dspy saved as JSON; its scores are not taken over.

    Parameters
    ----------
    question, answer : the fields of dspy's signature that hold them; demonstrations without both are left out.

    Raises
    ------
    InvalidInput : there is no such file, it is no program of dspy, or one of several steps.
    """
    file = resolve(path)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        steps = [each for each in (found, *found.values()) if isinstance(each, dict) and "signature" in each]
        (step,) = steps
        given = [each for each in step["demos"] if each.get(question) and each.get(answer)]
        solved = tuple(Demonstration(str(each[question]), str(each[answer])) for each in given)
        return PromptProgram(str(step["signature"]["instructions"]), solved)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InvalidInput(
            f"{shown(file)} can't be taken over: it must be the JSON that save() of a dspy program of one step writes."
        ) from None
