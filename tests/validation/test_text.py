"""Near duplicates as groups for a split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.validation.text import THRESHOLD, clusters, copied_from, near_pairs, normalised, signatures


def groups(texts: list[str], threshold: float = THRESHOLD) -> np.ndarray:
    """Cluster number of each text, by first appearance."""
    words = normalised(texts)
    usable = np.array([word != "" for word in words.to_pylist()])
    return clusters(*near_pairs(signatures(words), usable, threshold), len(texts))


def test_texts_that_differ_in_case_accents_and_a_word_share_a_group() -> None:
    texts = [
        "¿Dónde está mi reembolso de la tienda? Llevo dos semanas esperando.",
        "Where is my card?",
        "donde esta mi reembolso de la tienda, llevo dos semanas esperando",
        "",
        "¿Dónde está mi reembolso de la tienda? Llevo tres semanas esperando.",
        "",
    ]
    found = groups(texts, threshold=0.7).tolist()
    assert found == [0, 1, 0, 2, 0, 3]


def test_the_estimate_agrees_with_the_true_similarity() -> None:
    words = ["".join(chr(97 + (i * 7 + j * j) % 26) for j in range(60)) for i in range(40)]
    texts = words + [w[: 50 - i // 2] + "x" * (10 + i // 2) for i, w in enumerate(words)]
    signature = signatures(pa.array(texts))

    def shingles(text: str) -> set[str]:
        return {text[i : i + 5] for i in range(len(text) - 4)}

    errors = [
        (signature[i] == signature[i + 40]).mean()
        - len(shingles(texts[i]) & shingles(texts[i + 40])) / len(shingles(texts[i]) | shingles(texts[i + 40]))
        for i in range(40)
    ]
    assert abs(float(np.mean(errors))) < 0.03 and float(np.std(errors)) < 0.08


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=12))
def test_any_text_has_a_signature_that_does_not_depend_on_its_neighbours(texts: list[str]) -> None:
    texts = [t.encode("utf-8", "ignore").decode() for t in texts]
    words = normalised(texts)
    alone = [signatures(words.slice(i, 1))[0].tolist() for i in range(len(texts))]
    assert signatures(words).tolist() == alone
    first, second = near_pairs(signatures(words), np.array([w != "" for w in words.to_pylist()], dtype=bool))
    assert all(i < j for i, j in zip(first, second, strict=True))


@pytest.mark.parametrize("crowd", [2, 9, 40, 600])
def test_copies_are_found_in_a_crowd_of_any_size(crowd: int) -> None:
    """Two copies of one sentence, far apart in a crowd that shares its frame and nothing else."""
    frame = "I ordered a new card two weeks ago and it has still not arrived here, "
    rng = np.random.default_rng(crowd)
    others = [frame + "".join(rng.choice(list("bcdfghjklmnpqrstvwxz"), 30)) for _ in range(crowd)]
    copy = frame + "the postman knows nothing about it either"
    found = groups([copy, *others, copy + " today", copy.upper() + "!"]).tolist()
    assert found[-2] == found[-1] == 0 and len(set(found)) == crowd + 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000), st.sampled_from([0.6, 0.8, 0.95, 1.0]))
def test_groups_are_what_comparing_all_pairs_links(n: int, seed: int, threshold: float) -> None:
    rng = np.random.default_rng(seed)
    signature = np.repeat(rng.integers(0, 5, size=(1, 64)), n, axis=0).astype(np.uint16)
    for row in signature:
        changed = rng.choice(64, rng.integers(0, 30), replace=False)
        row[changed] = rng.integers(0, 6, len(changed))
    near = (signature[:, None] == signature[None]).mean(axis=2) >= threshold
    first, second = near_pairs(signature, np.ones(n, dtype=bool), threshold)
    assert clusters(first, second, n).tolist() == clusters(*np.nonzero(near), n).tolist()
    m = n // 2
    expected = [next((j for j in range(m) if near[i, j]), -1) for i in range(m, n)]
    assert copied_from(signature[m:], signature[:m], threshold).tolist() == expected
