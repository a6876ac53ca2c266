"""Two datasets side by side: size, quality, distributions, and which of them teaches better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from genesis_lab.bias.significance import independence_p
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.stats import CANT_TELL, cramers_v, holm, paired, total_variation

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

Report = Mapping[str, Any]
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
    quality: tuple[Report | None, Report | None] = (None, None),
    scorecards: tuple[Report | None, Report | None] = (None, None),
    attributes: Sequence[str] | None = None,
    names: tuple[str, str] | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, Any]:
    """Compare two datasets of the same domain; JSON-safe.

    Parameters
    ----------
    quality : the reports of both: every score in them that is a number is put side by side.
    scorecards : the worth of both, measured on the same reference items.
    attributes : columns whose distributions are compared (default: those that the domain plans).
    names : what to call them (default: the folders' names).
    rng : for tests by simulation (default: seeded with 0).

    Returns
    -------
    ``attributes`` with the share of records that would have to change value (``total_variation``), `independence_p`'s p and
    the value whose share differs most; ``worth`` with `stats.paired`'s difference in accuracy, a − b, for each classifier that
    was trained on both. Their p-values are corrected over the attributes and the classifiers (Holm). ``verdict`` says
    which dataset teaches better; what could not be compared is in ``not_measured``, with why.

    Raises
    ------
    InvalidInput : the datasets are of different domains.
    """
    if a.domain != b.domain:
        raise InvalidInput(f"Datasets of one domain can be compared, got {a.domain!r} and {b.domain!r}.")
    name_a, name_b = names or (a.name, b.name)
    missing = {}
    for kind, pair in (("quality", quality), ("scorecard", scorecards)):
        if without := [name for name, one in zip((name_a, name_b), pair, strict=True) if one is None]:
            missing["worth" if kind == "scorecard" else kind] = (
                f"no {kind if kind == 'scorecard' else 'quality report'} of {without[0]}"
            )
    columns = get_domain(a.domain).facets.attributes if attributes is None else attributes
    spread, gone = _spread(a, b, columns, rng or np.random.default_rng(0))
    left, right = (_numbers(one or {}) for one in quality)
    scores = {n: (left.get(n), right.get(n)) for n in [*left, *right]} if "quality" not in missing else {}
    worth: list[dict[str, Any]] = []
    if "worth" not in missing:
        worth, missing["worth"] = _worth(scorecards, (name_a, name_b))
    on = (scorecards[0] or {}).get("reference") if worth else None
    reference = f"{on['name']} {on['split']} (n = {on['n']:,})" if on else None
    splits = sorted({*a.counts, *b.counts})
    return {
        "name_a": name_a,
        "name_b": name_b,
        "sizes": {"all": (a.total, b.total)} | {s: (a.counts.get(s, 0), b.counts.get(s, 0)) for s in splits},
        "quality": scores,
        "attributes": spread,
        "worth": worth,
        "reference": reference,
        "not_measured": {what: why for what, why in (missing | gone).items() if why},
        "verdict": _verdict(worth, reference, name_a, name_b) if worth else f"Worth not compared: {missing['worth']}.",
    }


def _verdict(worth: Sequence[Report], reference: str | None, name_a: str, name_b: str) -> str:
    words = {one["verdict"] for one in worth}
    said = "No difference in worth is shown"
    if {"a is better", "b is better"} <= words:
        said = "The classifiers disagree"
    elif {"a is better", "b is better"} & words:
        said = f"{name_a if 'a is better' in words else name_b} teaches better"
    elif words == {"equivalent"}:
        said = "Both teach equally well"
    shown = "; ".join(f"{one['title']} {one['difference']['estimate']:+.3f}, p = {one['p_holm']:.2g}" for one in worth)
    return f"{said} on {reference} ({shown})."


def _spread(
    a: Dataset, b: Dataset, attributes: Sequence[str], rng: np.random.Generator
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    tables, gone = {}, {}
    for name in attributes:
        column = '"' + name.replace('"', '""') + '"'
        query = f"SELECT {column}::VARCHAR AS value, count(*) AS n FROM data WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 1"
        counts = [dataset.sql(query).set_index("value")["n"] for dataset in (a, b)]
        table = pd.concat(counts, axis=1, keys=["a", "b"]).fillna(0).sort_index()
        if (table.sum() == 0).any():
            gone[name] = "no values on one side"
        else:
            tables[name] = table
    pvalues = {n: independence_p(t.to_numpy(dtype=np.int64), rng)[0] for n, t in tables.items() if len(t) > 1}
    adjusted = dict(zip(pvalues, holm(list(pvalues.values())), strict=True))
    found = []
    for name, table in tables.items():
        shares = table / table.sum()
        most = str((shares["a"] - shares["b"]).abs().idxmax())
        found.append(
            {
                "attribute": name,
                "total_variation": total_variation(table["a"], table["b"]),
                "cramers_v": cramers_v(table),
                "p": pvalues.get(name),
                "p_holm": adjusted.get(name),
                "differs": adjusted.get(name, 1.0) < ALPHA,
                "most_different": most,
                "share_a": float(shares.loc[most, "a"]),
                "share_b": float(shares.loc[most, "b"]),
            }
        )
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


def _worth(cards: tuple[Report | None, Report | None], names: tuple[str, str]) -> tuple[list[dict[str, Any]], str]:
    """One row for each classifier trained on both; or why there are none."""
    left, right = ({s["student"]: s for s in (card or {})["students"]} for card in cards)
    for card, name in zip(cards, names, strict=True):
        if card is not None and not card["students"]:
            return [], f"{name}: {card['not_measured'].get('scorecard', 'no student could be trained')}"
    if len({(card or {})["reference"]["digest"] for card in cards}) > 1:
        return [], "the two scorecards were measured on different reference items"
    both = {n: [np.array(list(side[n]["correct"])) == "1" for side in (left, right)] for n in left if n in right}
    compared = {name: paired(*sides) for name, sides in both.items()}
    adjusted = holm([found.p for found in compared.values()])
    rows = [
        {
            "student": name,
            "title": left[name]["title"],
            "accuracy_a": float(both[name][0].mean()),
            "accuracy_b": float(both[name][1].mean()),
            "difference": found.difference.to_dict(),
            "p": found.p,
            "p_holm": p,
            "verdict": _WORDS.get(found.corrected(p).verdict, CANT_TELL),
        }
        for (name, found), p in zip(compared.items(), adjusted, strict=True)
    ]
    return rows, "" if rows else "the two scorecards have no student in common"
