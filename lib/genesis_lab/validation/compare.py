"""Two datasets side by side: size, quality, distributions, and which of them teaches better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from genesis_lab.bias.measures import independence_p
from genesis_lab.dataset import Dataset
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.stats import CANT_TELL, holm, paired, total_variation

Report = Mapping[str, Any]
Pair = tuple[Report | None, Report | None]
ALPHA = 0.05
_WORDS = {
    "better": "a is better",
    "better but small": "a is better",
    "worse": "b is better",
    "equivalent": "equivalent",
}


def compare(
    a: Dataset,
    b: Dataset,
    *,
    quality: Pair = (None, None),
    scorecards: Pair = (None, None),
    rng: np.random.Generator | None = None,
) -> dict[str, Any]:
    """Compare two datasets of one domain, by their reports of quality and worth and by planned attributes; JSON-safe.

    Differences are a − b with p-values corrected over attributes and classifiers (Holm); `rng` is for tests by
    simulation.
    """
    if a.domain != b.domain:
        raise InvalidInput(f"Datasets of one domain can be compared, got {a.domain!r} and {b.domain!r}.")
    both = (a.name, b.name)
    missing = {"worth": _lacking("scorecard", scorecards, both), "quality": _lacking("quality report", quality, both)}
    spread, gone = _spread(a, b, get_domain(a.domain).facets.attributes, rng or np.random.default_rng(0))
    worth: list[dict[str, Any]] = []
    if not missing["worth"]:
        worth, missing["worth"] = _worth(scorecards, both)
    verdict = f"Worth not compared: {missing['worth']}."
    on = (scorecards[0] or {}).get("reference") if worth else None
    reference = f"{on['name']} {on['split']} (n = {on['n']:,})" if on else None
    if worth:
        shown = (f"{w['title']} {w['difference']['estimate']:+.3f}, p = {w['p_holm']:.2g}" for w in worth)
        verdict = f"{_said(worth, *both)} on {reference} ({'; '.join(shown)})."
    left, right = (_numbers(one or {}) for one in quality)
    return {
        "name_a": both[0],
        "name_b": both[1],
        "sizes": {"all": (a.total, b.total)}
        | {split: (a.counts.get(split, 0), b.counts.get(split, 0)) for split in sorted({*a.counts, *b.counts})},
        "quality": {} if missing["quality"] else {n: (left.get(n), right.get(n)) for n in [*left, *right]},
        "attributes": spread,
        "worth": worth,
        "reference": reference,
        "not_measured": {what: why for what, why in (missing | gone).items() if why},
        "verdict": verdict,
    }


def _lacking(kind: str, pair: Pair, names: tuple[str, str]) -> str:
    return next((f"no {kind} of {name}" for name, one in zip(names, pair, strict=True) if one is None), "")


def _said(worth: Sequence[Report], name_a: str, name_b: str) -> str:
    words = {one["verdict"] for one in worth}
    if {"a is better", "b is better"} <= words:
        return "The classifiers disagree"
    if {"a is better", "b is better"} & words:
        return f"{name_a if 'a is better' in words else name_b} teaches better"
    return "Both teach equally well" if words == {"equivalent"} else "No difference in worth is shown"


def _spread(
    a: Dataset, b: Dataset, attributes: Sequence[str], rng: np.random.Generator
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A row for each attribute, and why there is none for others."""
    found, gone = [], {}
    for name in attributes:
        column = '"' + name.replace('"', '""') + '"'
        query = f"SELECT {column}::VARCHAR AS value, count(*) AS n FROM data WHERE {column} IS NOT NULL"
        counts = [dataset.sql(f"{query} GROUP BY 1 ORDER BY 1").set_index("value")["n"] for dataset in (a, b)]
        table = pd.concat(counts, axis=1, keys=["a", "b"]).fillna(0).sort_index()
        if (table.sum() == 0).any():
            gone[name] = "no values on one side"
            continue
        shares = table / table.sum()
        most = str((shares["a"] - shares["b"]).abs().idxmax())
        row: dict[str, Any] = {"attribute": name, "total_variation": total_variation(table["a"], table["b"])}
        p = independence_p(table.to_numpy(dtype=np.int64), rng)[0] if len(table) > 1 else None
        found.append(row | {"p": p, "p_holm": None, "differs": False, "most_different": most})
    tested = [row for row in found if row["p"] is not None]
    for row, p in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row |= {"p_holm": p, "differs": p < ALPHA}
    return found, gone


def _numbers(report: Report, prefix: str = "") -> dict[str, float]:
    """The numbers of a report by dotted name."""
    found: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


def _worth(cards: Pair, names: tuple[str, str]) -> tuple[list[dict[str, Any]], str]:
    """One row for each classifier trained on both; or why there are none."""
    a, b = (card or {} for card in cards)
    for card, name in zip((a, b), names, strict=True):
        if not card["students"]:
            return [], f"{name}: {card['not_measured'].get('scorecard', 'no student could be trained')}"
    if a["reference"]["digest"] != b["reference"]["digest"]:
        return [], "the two scorecards were measured on different reference items"
    rows, others = [], {student["student"]: student for student in b["students"]}
    compared = []
    for student in (student for student in a["students"] if student["student"] in others):
        pair = (student, others[student["student"]])  # right answers, or errors of series with a minus, at most 1
        sides = [np.array(list(s["correct"])) == "1" if "correct" in s else -np.clip(s["errors"], 0, 1) for s in pair]
        found = paired(*sides)
        compared.append(found)
        row = {"student": student["student"], "title": student["title"], "difference": found.difference.to_dict()}
        mean_a, mean_b = (abs(float(side.mean())) for side in sides)
        rows.append(row | {"accuracy_a": mean_a, "accuracy_b": mean_b, "p": found.p})
    for row, found, p in zip(rows, compared, holm([found.p for found in compared]), strict=True):
        row |= {"p_holm": p, "verdict": _WORDS.get(found.corrected(p).verdict, CANT_TELL)}
    return rows, "" if rows else "the two scorecards have no student in common"
