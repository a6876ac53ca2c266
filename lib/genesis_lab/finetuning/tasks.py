"""What a dataset asks of a language model: a role's questions, or intents to tell apart; and the same as token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset, assign_splits
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Example, Role, Score
from genesis_lab.domains.reading import spoken
from genesis_lab.errors import InvalidInput
from genesis_lab.providers.base import Request
from genesis_lab.providers.chat_templates import after_answer
from genesis_lab.providers.local import chat_tokens
from genesis_lab.texts import indented, normal
from genesis_lab.training.examples import read_examples
from genesis_lab.yamls import read_yaml

Examples = dict[str, list[Example]]
"""By split."""
TEXTS = Path(__file__).parent / "prompts.yaml"
_VALIDATION_SHARE = 0.1
_INTENT_SHARES = {"train": 0.2, "validation": 0.4, "test": 0.4}


class IntentTask:
    """Naming the intent of a customer's first words among `intents`: as much of a `Role` as asking and scoring need."""

    name = "intents"

    def __init__(self, intents: Sequence[str]) -> None:
        self.intents = tuple(intents)

    def score(self, text: str, example: Example) -> Score:
        """1 for the right intent and 0 for another; valid is the name of an intent and nothing else."""
        said = normal(spoken(text).strip())
        right = said == example.answer
        problems = () if right else (f"{said[:60]!r} instead of {example.answer!r}",)
        return Score(float(right), said in self.intents, {"accuracy": float(right)}, problems)

    def answer_grammar(self) -> str:
        return "start: " + " | ".join(json.dumps(name) for name in self.intents) + "\n"


def task_of(dataset: Dataset, *, intents: Sequence[str] = (), seed: int = 42) -> tuple[Any, Examples]:
    """What the dataset asks, as something that scores answers, and its examples by split: `role_of`, or for records
    with intents telling `intents` (empty: all) apart. `InvalidInput` where it asks nothing, or has too little of it."""
    domain = recorded_domain(dataset.manifest) or get_domain(dataset.domain)
    if not hasattr(domain, "example") and domain.facets.label:
        return _intents(dataset, intents, seed)
    return role_of(dataset, seed=seed)


def role_of(dataset: Dataset, *, seed: int = 42) -> tuple[Role, Examples]:
    """The role that a dataset teaches, with the options it was generated with, and its examples by split.
    Without a split ``validation``, a tenth of the concepts in ``train`` becomes one."""
    role: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain)
    if not hasattr(role, "example"):
        instead = "give a dataset of a role, such as requirements"
        raise InvalidInput(f"Dataset {dataset.name} holds {dataset.domain}, which teach no student: {instead}.")
    found: Examples = {
        split: [role.example(record) for batch in dataset.batches(split=split) for record in batch.to_pylist()]
        for split in dataset.counts
    }
    train = found.get("train", [])
    if not train:
        raise InvalidInput(f"Dataset {dataset.name} has no records to learn from: its split train is empty or missing.")
    if not found.get("validation"):
        groups = [example.group for example in train]
        if (concepts := len(set(groups))) < 2:
            needed = "at least two are needed, one to learn and one to check on"
            raise InvalidInput(f"Dataset {dataset.name} teaches a single concept: {needed}.")
        held = max(_VALIDATION_SHARE, 1 / concepts)
        split = assign_splits(groups, {"train": 1 - held, "validation": held}, rng=np.random.default_rng(seed))
        for number, name in enumerate(("train", "validation")):
            found[name] = [example for example, at in zip(train, split, strict=True) if at == number]
    return role, found


def _intents(dataset: Dataset, intents: Sequence[str], seed: int) -> tuple[IntentTask, Examples]:
    """Equal wordings stay in one split."""
    read, _ = read_examples(dataset)
    found = tuple(dict.fromkeys(str(label) for label in read.labels))
    if unknown := [name for name in intents if name not in found]:
        raise InvalidInput(f"Dataset {dataset.name} has no intent {unknown[0]!r}: it has {', '.join(found[:12])}.")
    names = tuple(intents) or found
    if len(names) < 2:
        raise InvalidInput(f"Telling intents apart needs at least two, dataset {dataset.name} has {len(names)}.")
    chosen, rng = read.take(np.isin(read.labels, names)), np.random.default_rng(seed)
    split = np.asarray(chosen.split)
    if set(split) != set(_INTENT_SHARES):
        at = assign_splits(chosen.groups, _INTENT_SHARES, labels=chosen.labels, rng=np.random.default_rng(seed))
        split = np.asarray(list(_INTENT_SHARES))[at]
    told = read_yaml(TEXTS)["intents"]
    examples: Examples = {name: [] for name in _INTENT_SHARES}
    for i in rng.permutation(len(chosen)):
        language = str(chosen.languages[i]) if chosen.languages[i] in told else "en"
        system = told[language]["system"].format(intents=", ".join(names))
        question = told[language]["question"].format(text=indented(chosen.texts[i]))
        one = Example(f"i{i:06d}", f"g{chosen.groups[i]}", language, system, question, str(chosen.labels[i]))
        examples[split[i]].append(one)
    return IntentTask(names), examples


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as token ids: what the student is given, and what it shall answer (with the token that ends it)."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def question_of(example: Example) -> Request:
    """The request that asks an example; key, limits and sampling are the caller's to set."""
    return Request(key="", system=example.system, messages=(("user", example.question),))


def encode(
    tokenizer: Any, eos_ids: Sequence[int], examples: Iterable[Example], max_length: int
) -> tuple[list[Encoded], list[Encoded]]:
    """The examples through the student's own chat template, as provider ``local`` asks them, and those that are longer
    than `max_length` tokens. `InvalidInput` where there is no template, or an answer is empty."""
    ids = tokenizer(after_answer(tokenizer), add_special_tokens=False)["input_ids"]
    ends = [*(i for i in ids if i in eos_ids), tokenizer.eos_token_id, *eos_ids]
    end = int(next(i for i in ends if i is not None))  # what the template puts there, where that ends generation
    encoded = []
    for example in examples:
        answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
        if not answer:
            raise InvalidInput(f"The answer of example {example.id} is empty, which teaches nothing: take it out.")
        encoded.append(Encoded(example.id, tuple(chat_tokens(tokenizer, question_of(example))), (*answer, end)))
    return [e for e in encoded if len(e) <= max_length], [e for e in encoded if len(e) > max_length]
