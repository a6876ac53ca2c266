"""From a dataset of a role to what a student reads: the same text in training and in every later use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset, assign_splits
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Example, Role
from genesis_lab.errors import InvalidInput
from genesis_lab.providers.base import Request
from genesis_lab.providers.chat_templates import after_answer
from genesis_lab.providers.local import chat_tokens

_VALIDATION_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as token ids: what the student is given, and what it shall answer (with the token that ends it)."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True, slots=True)
class TooLong:
    """An example that is left out because it exceeds max_length."""

    id: str
    tokens: int


def role_of(dataset: Dataset) -> Role:
    """The role that a dataset's records teach, with the options it was generated with.

    Raises
    ------
    InvalidInput : its domain teaches no student.
    """
    domain: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain)
    if not hasattr(domain, "example"):
        raise InvalidInput(
            f"Dataset {dataset.name} holds {dataset.domain}, which teach no student: "
            "give a dataset of a role, such as requirements."
        )
    return domain  # type: ignore[no-any-return]  # a domain with examples is a role


def role_examples(dataset: Dataset, *, seed: int = 42) -> dict[str, list[Example]]:
    """The examples of each split. Without a split ``validation``, a tenth of the concepts in ``train`` becomes one.

    Raises
    ------
    InvalidInput : the dataset teaches no student, or it has no records to learn from, or a single concept.
    """
    role = role_of(dataset)
    found = {
        split: [role.example(record) for batch in dataset.batches(split=split) for record in batch.to_pylist()]
        for split in dataset.counts
    }
    train = found.get("train", [])
    if not train:
        raise InvalidInput(f"Dataset {dataset.name} has no records to learn from: its split train is empty or missing.")
    if not found.get("validation"):
        groups = [example.group for example in train]
        if len(set(groups)) < 2:
            raise InvalidInput(
                f"Dataset {dataset.name} teaches a single concept: at least two are needed, one to learn and one to "
                "check on."
            )
        held = max(_VALIDATION_SHARE, 1 / len(set(groups)))
        shares = {"train": 1 - held, "validation": held}
        split = assign_splits(groups, shares, rng=np.random.default_rng(seed))
        found["train"] = [example for example, at in zip(train, split, strict=True) if at == 0]
        found["validation"] = [example for example, at in zip(train, split, strict=True) if at == 1]
    return found


def question_of(example: Example) -> Request:
    """The request that asks an example; key, limits and sampling are the caller's to set."""
    return Request(key="", system=example.system, messages=(("user", example.question),))


def encode(
    tokenizer: Any, eos_ids: Sequence[int], examples: Iterable[Example], max_length: int
) -> tuple[list[Encoded], list[TooLong]]:
    """The examples through the student's own chat template, and those that are longer than `max_length` tokens.

    The prompt's ids are those that provider ``local`` sends (`providers.local.chat_tokens`).

    Raises
    ------
    InvalidInput : the tokenizer has no chat template, or one that leaves something out; or an answer is empty.
    """
    if not tokenizer.chat_template:
        raise InvalidInput(
            "The base model has no chat template, so nothing says how a question is put to it: choose its instruct "
            "or chat version."
        )
    end = _end_of_answer(tokenizer, eos_ids)
    kept, too_long = [], []
    for example in examples:
        prompt = chat_tokens(tokenizer, question_of(example))
        answer = tokenizer(example.answer, add_special_tokens=False)["input_ids"]
        if not answer:
            raise InvalidInput(f"The answer of example {example.id} is empty, which teaches nothing: take it out.")
        encoded = Encoded(example.id, tuple(prompt), (*answer, end))
        if len(encoded) > max_length:
            too_long.append(TooLong(example.id, len(encoded)))
        else:
            kept.append(encoded)
    return kept, too_long


def _end_of_answer(tokenizer: Any, eos_ids: Sequence[int]) -> int:
    """The token that the template puts after an answer, where it is one that ends generation."""
    ids = tokenizer(after_answer(tokenizer), add_special_tokens=False)["input_ids"]
    ends = [*(i for i in ids if i in eos_ids), tokenizer.eos_token_id, *eos_ids]
    return int(next(i for i in ends if i is not None))
