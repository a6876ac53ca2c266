"""Intent recognition as a task for a language model: the customer's first words in, the intent's name out."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from genesis_lab.dataset import Dataset, assign_splits
from genesis_lab.domains.base import Example, Score
from genesis_lab.domains.reading import spoken
from genesis_lab.errors import InvalidInput
from genesis_lab.finetuning.prompt_candidates import texts
from genesis_lab.texts import indented, normal
from genesis_lab.training.examples import read_examples

_SHARES = {"train": 0.2, "validation": 0.4, "test": 0.4}


class IntentTask:
    """As much of a `Role` as asking and scoring need.

    Parameters
    ----------
    intents : the names to choose among.
    """

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


def intent_examples(
    dataset: Dataset, *, intents: Sequence[str] = (), seed: int = 42
) -> tuple[IntentTask, dict[str, list[Example]]]:
    """The task and its examples by split, from a dataset of conversations. Equal wordings stay in one split.

    Parameters
    ----------
    intents : those to tell apart; empty: all that the dataset has.

    Raises
    ------
    InvalidInput : an intent is not in the dataset, or there are fewer than two.
    """
    read, _ = read_examples(dataset)
    found = tuple(dict.fromkeys(str(label) for label in read.labels))
    unknown = [name for name in intents if name not in found]
    if unknown:
        raise InvalidInput(f"Dataset {dataset.name} has no intent {unknown[0]!r}: it has {', '.join(found[:12])}.")
    names = tuple(intents) or found
    if len(names) < 2:
        raise InvalidInput(f"Telling intents apart needs at least two, dataset {dataset.name} has {len(names)}.")
    chosen = read.take(np.isin(read.labels, names))
    split = np.asarray(chosen.split)
    if set(split) != set(_SHARES):
        at = assign_splits(chosen.groups, _SHARES, labels=chosen.labels, rng=np.random.default_rng(seed))
        split = np.asarray(list(_SHARES))[at]
    asked = texts()["intents"]
    order = np.random.default_rng(seed).permutation(len(chosen))
    examples: dict[str, list[Example]] = {name: [] for name in _SHARES}
    for i in order:
        language = str(chosen.languages[i]) if chosen.languages[i] in asked else "en"
        own = asked[language]
        examples[split[i]].append(
            Example(
                id=f"i{i:06d}",
                group=f"g{chosen.groups[i]}",
                language=language,
                system=own["system"].format(intents=", ".join(names)),
                question=own["question"].format(text=indented(chosen.texts[i])),
                answer=str(chosen.labels[i]),
            )
        )
    return IntentTask(names), examples
