"""Two datasets side by side: size, quality, distributions, and which of them teaches better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from genesis_lab.bias.significance import independence_p
from genesis_lab.errors import InvalidInput
from genesis_lab.stats import CANT_TELL, Interval, cramers_v, holm, paired, total_variation

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

Verdict = Literal["a is better", "b is better", "equivalent", "can't be told"]
ATTRIBUTES = ("intent", "category", "language", "sentiment", "complexity", "resolution_status")
ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class AttributeDifference:
    """How differently one attribute is spread. `p` is `significance.independence_p`'s, `p_holm` corrected over the attributes.

    `total_variation` is the share of records that would have to change value. `most_different` is the value whose
    share differs most, with its shares in a and b.
    """

    attribute: str
    total_variation: float
    cramers_v: float | None
    p: float | None
    p_holm: float | None
    differs: bool
    most_different: str
    share_a: float
    share_b: float


@dataclass(frozen=True, slots=True)
class WorthDifference:
    """One student trained on a and on b, tested on the same real items. `difference` is accuracy of a − b.

    `p` is of the paired comparison (`stats.paired`), `p_holm` corrected over the students.
    """

    student: str
    title: str
    accuracy_a: float
    accuracy_b: float
    difference: Interval
    p: float
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two datasets side by side. What could not be compared is in `not_measured`, with why."""

    name_a: str
    name_b: str
    sizes: dict[str, tuple[int, int]]
    quality: dict[str, tuple[float | None, float | None]]
    attributes: tuple[AttributeDifference, ...]
    worth: tuple[WorthDifference, ...]
    reference: str | None
    not_measured: dict[str, str] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """Which dataset teaches better, in one sentence."""
        if not self.worth:
            return f"Worth not compared: {self.not_measured.get('worth', 'no student in common')}."
        words = {one.verdict for one in self.worth}
        shown = "; ".join(f"{one.title} {one.difference.estimate:+.3f}, p = {one.p_holm:.2g}" for one in self.worth)
        if {"a is better", "b is better"} <= words:
            said = "The students disagree"
        elif "a is better" in words:
            said = f"{self.name_a} teaches better"
        elif "b is better" in words:
            said = f"{self.name_b} teaches better"
        elif words == {"equivalent"}:
            said = "Both teach equally well"
        else:
            said = "No difference in worth is shown"
        return f"{said} on {self.reference} ({shown})."

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields, with the verdict."""
        return asdict(self) | {"verdict": self.verdict}


def compare(
    a: Dataset,
    b: Dataset,
    *,
    quality: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
    scorecards: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None] = (None, None),
    attributes: Sequence[str] = ATTRIBUTES,
    names: tuple[str, str] | None = None,
    rng: np.random.Generator | None = None,
) -> Comparison:
    """Compare two datasets of the same domain.

    Parameters
    ----------
    quality : the reports of both, as dicts: every score in them that is a number is put side by side.
    scorecards : `Scorecard.to_dict()` of both, measured on the same reference items.
    attributes : columns whose distributions are compared.
    names : what to call them (default: the folders' names).
    rng : for tests by simulation (default: seeded with 0).

    Raises
    ------
    InvalidInput : the datasets are of different domains.
    """
    if a.domain != b.domain:
        raise InvalidInput(f"Datasets of one domain can be compared, got {a.domain!r} and {b.domain!r}.")
    name_a, name_b = names or (a.name, b.name)
    not_measured: dict[str, str] = {}
    splits = sorted({*a.counts, *b.counts})
    sizes = {"all": (a.total, b.total)} | {s: (a.counts.get(s, 0), b.counts.get(s, 0)) for s in splits}
    counts = {name: (_counts(a, name), _counts(b, name)) for name in attributes}
    differences = _attribute_differences(counts, not_measured, rng or np.random.default_rng(0))
    scores: dict[str, tuple[float | None, float | None]] = {}
    if quality[0] is None or quality[1] is None:
        not_measured["quality"] = f"no quality report of {name_a if quality[0] is None else name_b}"
    else:
        scores = _scores(quality[0], quality[1])
    worth: tuple[WorthDifference, ...] = ()
    if why := _not_comparable(scorecards, (name_a, name_b)):
        not_measured["worth"] = why
    else:
        worth = _worth(scorecards)
    on = (scorecards[0] or {}).get("reference") if worth else None
    return Comparison(
        name_a,
        name_b,
        sizes,
        scores,
        differences,
        worth,
        f"{on['name']} {on['split']} (n = {on['n']:,})" if on else None,
        not_measured,
    )


def _counts(dataset: Dataset, attribute: str) -> pd.Series[int]:
    """How often each value occurs; missing values are left out."""
    quoted = '"' + attribute.replace('"', '""') + '"'
    rows = dataset.sql(
        f"SELECT {quoted}::VARCHAR AS value, count(*) AS n FROM data WHERE {quoted} IS NOT NULL GROUP BY 1 ORDER BY 1"
    )
    return rows.set_index("value")["n"]


def _attribute_differences(
    counts: Mapping[str, tuple[pd.Series[int], pd.Series[int]]], not_measured: dict[str, str], rng: np.random.Generator
) -> tuple[AttributeDifference, ...]:
    tables = {}
    for name, (of_a, of_b) in counts.items():
        table = pd.concat([of_a, of_b], axis=1, keys=["a", "b"]).fillna(0).sort_index()
        if (table.sum() == 0).any():
            not_measured[name] = "no values on one side"
        else:
            tables[name] = table
    pvalues = {n: independence_p(t.to_numpy(dtype=np.int64), rng)[0] for n, t in tables.items() if len(t) > 1}
    adjusted = dict(zip(pvalues, holm(list(pvalues.values())), strict=True))
    found = []
    for name, table in tables.items():
        shares = table / table.sum()
        most = str((shares["a"] - shares["b"]).abs().idxmax())
        found.append(
            AttributeDifference(
                attribute=name,
                total_variation=total_variation(table["a"], table["b"]),
                cramers_v=cramers_v(table),
                p=pvalues.get(name),
                p_holm=adjusted.get(name),
                differs=adjusted.get(name, 1.0) < ALPHA,
                most_different=most,
                share_a=float(shares.loc[most, "a"]),
                share_b=float(shares.loc[most, "b"]),
            )
        )
    return tuple(found)


def _scores(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    """Numbers of two reports by dotted name, side by side; one that only one report holds is None on the other side."""
    left, right = _numbers(a), _numbers(b)
    return {name: (left.get(name), right.get(name)) for name in dict.fromkeys([*left, *right])}


def _numbers(report: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in report.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found[f"{prefix}{key}"] = float(value)
    return found


def _not_comparable(
    cards: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None], names: tuple[str, str]
) -> str | None:
    for card, name in zip(cards, names, strict=True):
        if card is None:
            return f"no scorecard of {name}"
        if not card["students"]:
            return f"{name}: {card['not_measured'].get('scorecard', 'no student could be trained')}"
    a, b = cards
    assert a is not None and b is not None
    if a["reference"]["digest"] != b["reference"]["digest"]:
        return "the two scorecards were measured on different reference items"
    if not {s["student"] for s in a["students"]} & {s["student"] for s in b["students"]}:
        return "the two scorecards have no student in common"
    return None


def _worth(cards: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]) -> tuple[WorthDifference, ...]:
    left, right = ({s["student"]: s for s in (card or {})["students"]} for card in cards)
    right_or_wrong = {
        n: [np.array(list(side[n]["correct"])) == "1" for side in (left, right)] for n in left if n in right
    }
    compared = {name: paired(*both) for name, both in right_or_wrong.items()}
    adjusted = holm([found.p for found in compared.values()])
    words: dict[str, Verdict] = {"better": "a is better", "better but small": "a is better", "worse": "b is better"}
    words |= {"equivalent": "equivalent"}
    return tuple(
        WorthDifference(
            student=name,
            title=left[name]["title"],
            accuracy_a=float(right_or_wrong[name][0].mean()),
            accuracy_b=float(right_or_wrong[name][1].mean()),
            difference=found.difference,
            p=found.p,
            p_holm=p,
            verdict=words.get(found.corrected(p).verdict, CANT_TELL),
        )
        for (name, found), p in zip(compared.items(), adjusted, strict=True)
    )
