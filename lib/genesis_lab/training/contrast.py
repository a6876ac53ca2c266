"""Contrast rounds: which labels are mixed up, so that more is asked for on both sides, and what that gained."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset
from genesis_lab.domains import get_domain
from genesis_lab.domains.language import NAMES
from genesis_lab.errors import MissingDependency, Unavailable
from genesis_lab.stats import paired
from genesis_lab.training.evaluation import Row, share
from genesis_lab.training.examples import Examples, labelled_texts, make_folds, read_examples
from genesis_lab.training.scorecard import Correct, Labels, learn_and_answer
from genesis_lab.validation.embeddings import embedder_for

FOLDS = 5
MOST = 8
"""Mixed-up texts that a row holds, real ones first."""


def confusions(dataset: Dataset, seeds: Any = None, *, top: int = 10, seed: int = 0) -> list[Row]:
    """The `top` pairs of labels that are mixed up most, worst first: two rows each, as a domain's `cells` take them.

    A row says the label and language in the columns of the dataset's domain, ``against``, ``n`` (texts of the two that
    were mixed up) and ``mixed`` (text to its label). Records are predicted by cross-validation, `seeds` (real labelled
    texts, never those that the gain is measured on) by a model of the records. Pairs go by the share of their texts
    that is mixed up: one of five seeds weighs as much as 20 of 100 records.
    """
    facets, examples = get_domain(dataset.domain).facets, read_examples(dataset)[0]
    real, found = labelled_texts(seeds) if seeds is not None else None, list[tuple[float, Row]]()
    for language in np.unique(examples.languages).tolist():
        mine = examples.take(examples.languages == language)
        if len(np.unique(mine.labels)) < 2:
            continue
        judged = [(mine, mine.labels.copy())]
        for kept, held in make_folds(mine, FOLDS, seed, []):
            judged[0][1][held] = _answers(_pairs(mine.take(kept)), mine.take(held), language)
        if real is not None:
            known = real.take((real.languages == language) & np.isin(real.labels, mine.labels))
            judged = [(known, _answers(_pairs(mine), known, language)), *judged] if len(known) else judged
        shares, mixed = defaultdict[tuple[str, str], float](float), defaultdict[tuple[str, str], dict[str, str]](dict)
        for texts, said in judged:
            sizes = dict(zip(*np.unique(texts.labels, return_counts=True), strict=True))
            for i in np.flatnonzero(texts.labels != said):
                one, other = sorted((str(texts.labels[i]), str(said[i])))
                shares[one, other] += 1 / sizes[texts.labels[i]]
                mixed[one, other][texts.texts[i]] = str(texts.labels[i])
        for (one, other), size in shares.items():
            told: Row = {"n": len(mixed[one, other]), "mixed": dict(list(mixed[one, other].items())[:MOST])}
            for label, against in ((one, other), (other, one)):
                row: Row = {str(facets.label): label, "against": against, **told}
                if facets.language and language != "unknown":
                    row[facets.language] = language
                found.append((size, row))
    found.sort(key=lambda each: -each[0])
    return [row for _, row in found[: 2 * top]]


def gain(before: Any, after: Any, held_out: Any) -> Row:
    """What a model of `after` gets right of real texts held out, beside one of `before` (None: nothing yet).

    ``accuracy``, and ``gain`` with its interval, ``p`` and ``verdict`` by `stats.paired`: each language with a model of
    its own, near-duplicates counting once. All three as `labelled_texts` takes them, or lists of such.
    """
    tested = labelled_texts(held_out)
    now = _right(after, tested)
    found: Row = {"accuracy": share(now).to_dict(), "gain": None, "p": None, "verdict": None}
    if before is not None:
        compared = paired(now, _right(before, tested), tested.groups.tolist())
        found |= {"gain": compared.difference.to_dict(), "p": compared.p, "verdict": compared.verdict}
    return found


def _right(sources: Any, tested: Examples) -> Correct:
    """Which of the tested texts a model of these sources answers rightly."""
    several = [labelled_texts(one) for one in (sources if isinstance(sources, list | tuple) else [sources])]
    right = np.zeros(len(tested), dtype=bool)
    for language in np.unique(tested.languages).tolist():
        asked = tested.take(tested.languages == language)
        if taught := [pair for one in several for pair in _pairs(one.take(one.languages == language))]:
            right[tested.languages == language] = _answers(taught, asked, language) == asked.labels
    return right


def _pairs(examples: Examples) -> list[tuple[str, str]]:
    return list(zip(examples.texts.tolist(), examples.labels.tolist(), strict=True))


def _answers(taught: list[tuple[str, str]], asked: Examples, language: str) -> Labels:
    """By the scorecard's embedding classifier where its model reads the language and is at hand, else by TF-IDF."""
    texts, labels = zip(*taught, strict=True)
    embed, items = embedder_for({language: 1}), asked.texts.tolist()
    try:
        every = [*texts, *items] if embed.note is None and language in (*NAMES, "unknown") else []
        vectors = dict(zip(every, embed(every), strict=True)) if every else None
    except (MissingDependency, Unavailable):
        vectors = None
    return learn_and_answer(texts, labels, items, vectors)
