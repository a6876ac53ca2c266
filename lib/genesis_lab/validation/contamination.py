"""Contamination: openings that are copies of reference sentences, named by id and place, never by text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from genesis_lab.validation.aggregate import LISTED, Aggregate
from genesis_lab.validation.duplicates import THRESHOLD, copied_from, signatures
from genesis_lab.validation.scores import Part, share, unmeasured
from genesis_lab.validation.view import hashed, normalised

_MIN_WORDS = 4
"""Shorter reference sentences ("I lost my card") are what anyone would say and are not counted."""


def finish(total: Aggregate, texts: Sequence[str] | None) -> Part:
    """Openings that are a reference sentence, or nearly one (Jaccard of character 5-grams ≥ 0.8 by MinHash)."""
    sentence = f"a reference sentence of {_MIN_WORDS} words or more"
    meaning = f"share of openings that are no near-copy (Jaccard ≥ {THRESHOLD}) of {sentence}"
    if texts is None:
        return unmeasured("contamination", "records", meaning, "no reference was given")
    words = normalised(pa.array(list(texts), pa.string()))
    long = np.array([text.count(" ") + 1 >= _MIN_WORDS for text in words.to_pylist()], dtype=bool)
    opening = total.column("opening")
    ours, place = np.flatnonzero(opening != 0), np.flatnonzero(long)
    copied = copied_from(total.column("signature")[ours], signatures(words)[long])
    rows, source = ours[copied >= 0], place[copied[copied >= 0]]
    exact = np.isin(opening[rows], hashed(words)[long])
    failures = tuple(
        (int(row), f"{'is' if same else 'is nearly'} sentence {sentence} of the reference")
        for row, sentence, same in zip(rows[:LISTED], source, exact, strict=False)
    )
    return share(
        "contamination",
        len(ours),
        len(rows),
        "records",
        meaning,
        empty="no record has an opening",
        offences=total.offences(failures),
        detail={"exact": int(exact.sum()), "near": int((~exact).sum()), "reference_sentences": int(long.sum())},
    )
