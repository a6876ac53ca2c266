"""How openings are written beside how people write: their length, and how many ask, greet or are all in lower case."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from genesis_lab.domains.base import Domain
from genesis_lab.domains.conversations.openings import manner_of
from genesis_lab.errors import GenesisError
from genesis_lab.stats import proportion_interval
from genesis_lab.validation.checks import Counted

FEWEST = 30
"""Openings below which nothing can be told of them."""
KINDS = {"question": "questions", "lower_case": "all in lower case", "greeting": "with a greeting"}
_QUANTILES = {0.05: "words, 5 %", 0.25: "words, lower quartile", 0.5: "words, median", 0.75: "words, upper quartile", 0.95: "words, 95 %"}  # fmt: skip
_LENGTHS = {"1–5": 5, "6–10": 10, "11–15": 15, "16–20": 20, "21–30": 30, "over 30": np.inf}


def openings(total: Counted, domain: Domain, reference: Any) -> dict[str, Any] | str:
    """The sample's openings `against` real ones of their language, else what the domain documents of people's; or why not.

    `rows` hold what was measured (with 95 % interval) and expected, `distance` is that of Kolmogorov and Smirnov between
    the lengths, `lengths` the shares of classes of them.
    """
    sample, unit = total.sample.sort_values("row"), domain.facets.unit
    if reference is not None and (sample["language"] == reference.language).any():
        sample = sample[sample["language"] == reference.language]
        expected = manner_of(reference.texts) | {"whose": f"those of {reference.name}"}
    else:
        try:
            known = domain.manner
        except GenesisError as error:  # the real messages that it was planned after are gone
            return str(error)
        if known is None:
            return f"no reference was given, and how people write {unit} is not documented"
        expected = dict(known)
    n = len(sample)
    if n < FEWEST:
        return f"{n} openings are too few"
    texts = sample["text"].tolist()
    words = np.array([len(text.split()) for text in texts], dtype=float)
    ours = pd.Series(words).value_counts(normalize=True).sort_index()
    people = pd.Series({float(count): share for count, share in expected["words"].items()}).sort_index()
    rows: list[dict[str, Any]] = []
    for at, name in _QUANTILES.items():
        value, wanted = float(np.quantile(words, at)), float(people.index[(people.cumsum() < at - 1e-9).sum()])
        measured = _median(words) if at == 0.5 else value
        rows.append({"name": name, "measured": measured, "expected": wanted, "ratio": value / wanted})
    manner = manner_of(texts)
    for kind, name in KINDS.items():
        low, high = proportion_interval(round(manner[kind] * n), n)
        measured = {"estimate": manner[kind], "low": low, "high": high}
        rows.append({"name": name, "measured": measured, "expected": expected[kind], "ratio": None})
    both = pd.concat([ours, people], axis=1, keys=["ours", "people"]).sort_index().fillna(0.0).cumsum()
    distance = float((both["ours"] - both["people"]).abs().max())
    rows.append({"name": "distance of the lengths (KS)", "measured": distance, "expected": 0.0, "ratio": None})
    lengths = {"this dataset": _classes(ours), "people": _classes(people)}
    return {"against": expected["whose"], "n": n, "rows": rows, "distance": distance, "lengths": lengths}


def _median(words: Any) -> dict[str, float]:
    """With its interval by order statistics: exact, whatever the distribution (Conover 1999, section 3.2)."""
    from scipy.stats import quantile_test

    ends = quantile_test(words, p=0.5).confidence_interval()
    return {"estimate": float(np.median(words)), "low": float(ends.low), "high": float(ends.high)}


def _classes(shares: pd.Series) -> dict[str, float]:
    classes = pd.cut(shares.index, [0, *_LENGTHS.values()], labels=[*_LENGTHS])
    return {str(name): float(share) for name, share in shares.groupby(classes, observed=False).sum().items()}
