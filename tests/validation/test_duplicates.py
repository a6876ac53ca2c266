"""Near duplicates as groups for a split."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.validation.duplicates import groups, near_pairs, signatures
from genesis_lab.validation.view import normalised


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
    words = normalised(pa.array(texts, pa.string()))
    alone = [signatures(words.slice(i, 1))[0].tolist() for i in range(len(texts))]
    assert signatures(words).tolist() == alone
    first, second = near_pairs(signatures(words), np.array([w != "" for w in words.to_pylist()], dtype=bool))
    assert all(i < j for i, j in zip(first, second, strict=True))
