"""A small made-up reference whose difficulty is known, and datasets of openings for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset
from genesis_lab.validation.reference import Reference

INTENTS = ("buy_bread", "find_bicycle", "paint_wall", "water_plants")
_OWN = {
    "buy_bread": ["bread", "loaf", "baker", "flour", "crust", "oven", "roll", "dough", "wheat", "slice"],
    "find_bicycle": ["bicycle", "pedal", "saddle", "wheel", "chain", "brake", "helmet", "spoke", "ride", "bell"],
    "paint_wall": ["paint", "brush", "wall", "colour", "ladder", "primer", "coat", "bucket", "roller", "stain"],
    "water_plants": ["water", "plant", "leaf", "soil", "garden", "pot", "seed", "root", "flower", "fern"],
}
_COMMON = [
    "please",
    "could",
    "you",
    "tell",
    "me",
    "about",
    "how",
    "where",
    "when",
    "much",
    "today",
    "again",
    "really",
    "need",
    "help",
    "with",
    "this",
]


def utterances(
    intents: Sequence[str], each: int, rng: np.random.Generator, clear: float = 0.25
) -> tuple[list[str], list[str]]:
    """`each` made-up utterances per intent; `clear` is the share of words that give the intent away."""
    texts, labels = [], []
    for intent in intents:
        for _ in range(each):
            words = [str(rng.choice(_OWN[intent] if rng.random() < clear else _COMMON)) for _ in range(8)]
            texts.append(" ".join(words))
            labels.append(intent)
    return texts, labels


def reference(split: Any = "test", each: int = 40, seed: int = 1) -> Reference:
    texts, labels = utterances(INTENTS, each, np.random.default_rng(seed))
    return Reference("errands", split, tuple(texts), tuple(labels), "en", "made up")


def dataset(
    path: Path, texts: Sequence[str], labels: Sequence[str], languages: Sequence[str | None] | None = None
) -> Dataset:
    """A conversations dataset that opens with these texts; the agent speaks first in every second one."""
    blank = dict.fromkeys(
        ("category", "sentiment", "complexity", "emotion_arc", "resolution_time", "resolution_status")
    )
    with DatasetWriter(path, "conversations", {}) as writer:
        for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
            turns = [{"speaker": "customer", "text": text}, {"speaker": "customer", "text": "and one more thing"}]
            hello = [{"speaker": "agent", "text": "Hello, how can I help?"}] if i % 2 else []
            record = {"conversation_id": f"c{i}", "intent": label, "turns": hello + turns, "provenance": None}
            language = languages[i] if languages else "en"
            writer.write([blank | record | {"language": language, "turn_count": len(hello) + 2}])
    return open_dataset(path)
