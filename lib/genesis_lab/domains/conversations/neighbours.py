"""Which intents lie close together, and plain sentences that show what each is about: what a prompt tells of an intent."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from genesis_lab.domains.conversations.taxonomy import Intent, Taxonomy

_LONGEST = 20
"""Words of a sentence that is still short."""
_CHOICE = re.compile(r"\[([^\[\]|]*)\|[^\[\]]*\]")


def intent_named(taxonomy: Taxonomy, name: str) -> Intent:
    return taxonomy.intents[taxonomy.names.index(name)]


def sentences(taxonomy: Taxonomy, intent: str, language: Any) -> list[str]:
    """What customers say by the taxonomy, of each pattern its first wording; long ones and slots only where there is nothing else."""
    lines = [_CHOICE.sub(r"\1", line) for line in taxonomy.script(intent).examples[language]]
    return [line for line in lines if "{" not in line and len(line.split()) <= _LONGEST] or lines


def closest(taxonomy: Taxonomy, language: Any) -> dict[str, list[str]]:
    """Each intent to the others, closest first: by the words of their sentences and descriptions (cosine of TF-IDF); the
    same category counts as a tenth more."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    names = taxonomy.names
    said = [
        " ".join([intent.description[language], *sentences(taxonomy, intent.name, language)])
        for intent in taxonomy.intents
    ]
    vectors = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)).fit_transform(said)
    alike = (vectors @ vectors.T).toarray()
    category = np.array([taxonomy.category_of[name] for name in names])
    alike += 0.1 * (category[:, None] == category)
    order = np.argsort(-alike.round(9), axis=1, kind="stable")
    return {name: [names[j] for j in order[i] if j != i] for i, name in enumerate(names)}
