"""Is this dataset good? Gates and their verdict, four scores, and what is wrong with which record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.domains.base import Domain
from genesis_lab.errors import InvalidInput
from genesis_lab.parallel import map_reduce
from genesis_lab.validation import gates, variety
from genesis_lab.validation.checks import (
    LISTED,
    SAMPLE_PER_CELL,
    UNKNOWN_CELL,
    Counted,
    count,
    merge,
    parts_of,
    share,
)  # fmt: skip
from genesis_lab.validation.text import hashed

if TYPE_CHECKING:
    from genesis_lab.dataset import Dataset

SCORES = ("completeness", "consistency", "realism", "diversity")
_EMPTY = "the dataset has no records"


def validate(
    dataset: Dataset,
    *,
    domain: Domain | None = None,
    reference: variety.ReferenceTexts | None = None,
    embed: variety.Embed | None = None,
    sample_per_cell: int = SAMPLE_PER_CELL,
    seed: int = 0,
    partitions: int | None = None,
    executor: Any = None,
) -> dict[str, Any]:
    """Measure a dataset, anyone's and however broken; what the report holds is in `finish`.

    Parameters
    ----------
    domain : whose values may occur (a taxonomy's intents). Default: the one the dataset was generated with; where there is
        none, checks that need it are not measured.
    reference : real utterances; without them realism is not measured.
    embed : texts to vectors of shape (n, d), for duplicates in meaning and a better eye on labels; None does without.
    sample_per_cell : records of each label and language in the sample on which classifiers and pairwise comparisons run.
    partitions, executor : how the work is cut and who does it (`genesis_lab.parallel`); no number depends on it.

    Raises
    ------
    InvalidInput : the dataset's records have no checks.
    """
    made = recorded_domain(dataset.manifest)
    whose = domain or made or get_domain(dataset.domain)
    if not whose.checks():
        raise InvalidInput(
            f"The four quality scores are not of {whose.facets.unit}, and {dataset.name} is a dataset of {dataset.domain}: "
            f"use genesis audit {dataset.name}."
        )
    planned = bool(domain or made)
    work = partial(count, domain=whose, planned=planned, sample_per_cell=sample_per_cell, seed=seed)
    total: Counted = map_reduce(dataset, work, merge, partitions=partitions, executor=executor)
    targets = {target.name: target.shares for target in made.targets()} if made else {}
    return finish(
        total, whose, targets=targets, reference=reference, embed=embed, sample_per_cell=sample_per_cell, seed=seed
    )


def finish(
    total: Counted,
    domain: Domain,
    *,
    targets: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    reference: variety.ReferenceTexts | None = None,
    embed: variety.Embed | None = None,
    sample_per_cell: int = SAMPLE_PER_CELL,
    seed: int = 0,
) -> dict[str, Any]:
    """The report of what was counted, JSON-safe; parameters as for `validate`, `targets` are the plan's shares.

    Returns
    -------
    ``gates`` decide the ``verdict`` (`gates.verdict`); what a dataset is worth is not asked here. ``overall`` is the mean of
    the scores that could be measured, times 100, and decides nothing; ``overall_basis`` says which those are.
    ``not_measured`` maps each score or ``score.part`` without a value to the reason. ``personal_data`` counts turns.
    """
    checks, facets = domain.checks(), domain.facets
    complete = [_fields(total), *parts_of(total, checks, "completeness"), _unique_ids(total)]
    consistent = parts_of(total, checks, "consistency")
    if facets.label:
        consistent += [_one_label(total), variety.label_fidelity(total, facets.unit, seed, embed)]
    real, compared, why = variety.realism(total, reference, seed)
    scores = {
        "completeness": _score("completeness", total.n, complete),
        "consistency": _score("consistency", total.n, consistent, None if total.n else _EMPTY),
        "realism": _score("realism", compared, real, why),
        "diversity": _score(
            "diversity", total.n, variety.diversity(total, embed) if total.n else [], None if total.n else _EMPTY
        ),
    }
    copies = variety.copies(total, None if reference is None else reference.texts)
    apart = variety.separation(total, seed)
    decided = gates.form_gates(total, checks, facets, scores, copies, apart, targets, reference)
    measured = {name: score["value"] for name, score in scores.items() if score["value"] is not None}
    left_out = [f"{name} ({score['reason']})" for name, score in scores.items() if score["value"] is None]
    basis = f"mean of {', '.join(measured)} × 100" + f"; left out: {', '.join(left_out)}" * bool(left_out)
    reasons = {name: score["reason"] for name, score in scores.items() if score["reason"]}
    reasons |= {f"{name}.{p['name']}": p["reason"] for name, s in scores.items() for p in s["parts"] if p["reason"]}
    return {
        "records": total.n,
        **total.elements,
        "verdict": gates.verdict(decided),
        "gates": decided,
        "overall": 100 * float(np.mean(list(measured.values()))) if measured else None,
        "overall_basis": basis if measured else "none of the four scores could be measured",
        **scores,
        "contamination": copies,
        "personal_data": {
            p["name"]: p | {"value": None, "interval": None, "reason": "counted, not scored"}
            for p in parts_of(total, checks, "personal_data")
        },
        "unreadable_columns": total.unreadable,
        "sample_size": len(total.sample),
        "sample_note": f"the {sample_per_cell} of each known intent and language, and the {UNKNOWN_CELL:,} others, whose "
        f"id and opening have the smallest hash (seed {seed})",
        "not_measured": reasons | ({"contamination": copies["reason"]} if copies["reason"] else {}),
    }


def _score(name: str, n: int, parts: Sequence[dict[str, Any]], reason: str | None = None) -> dict[str, Any]:
    """The mean of the parts that could be measured, in [0, 1]; None when `reason` is given or none could."""
    values = [one["value"] for one in parts if one["value"] is not None]
    if reason is None and not values:
        reasons = {one["reason"] for one in parts if one["reason"]}
        reason = reasons.pop() if len(reasons) == 1 else "none of its parts could be measured"
    value = None if reason else float(sum(values) / len(values))
    return {"name": name, "value": value, "n": n, "parts": list(parts), "reason": reason}


def _fields(total: Counted) -> dict[str, Any]:
    fields = {name[4:]: found for name, found in total.found.items() if name.startswith("has.")}
    first = sorted((offence for _, _, offences in fields.values() for offence in offences), key=lambda pair: pair[0])
    checked, failed = sum(found[0] for found in fields.values()), sum(found[1] for found in fields.values())
    meaning = f"share of the {len(fields)} fields of the schema that are there and not empty, over all records"
    missing = {name: found[1] for name, found in fields.items() if found[1]}
    return share(
        "fields",
        checked,
        failed,
        "fields",
        meaning,
        _EMPTY,
        offences=total.offences(first),
        detail={"missing": missing},
    )


def _unique_ids(total: Counted) -> dict[str, Any]:
    ids = pa.chunked_array(total.ids, pa.string()).combine_chunks()
    has = ids.is_valid()
    rows = np.flatnonzero(has)
    distinct, first, inverse = np.unique(hashed(ids.filter(has)), return_index=True, return_inverse=True)
    repeats = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    failures = [(int(rows[i]), f"the id of row {rows[first[inverse[i]]]} again") for i in repeats]
    failures += [(int(row), "there is no id") for row in np.flatnonzero(pc.invert(has))]
    return share(
        "unique_ids", total.n, len(failures), "records", "share of records whose id is there and is no earlier record's",
        _EMPTY, offences=total.offences(sorted(failures)), detail={"distinct": len(distinct), "missing": ids.null_count},
    )  # fmt: skip


def _one_label(total: Counted) -> dict[str, Any]:
    """Records whose opening also occurs under another label."""
    import pandas as pd

    frame = pd.DataFrame({"text": total.column("text"), "label": total.column("label")})
    told = frame[(frame["text"] != 0) & (frame["label"] != 0)]
    rows = told.index[told.groupby("text")["label"].transform("nunique") > 1]
    failures = [(int(row), "the same opening has another intent elsewhere") for row in rows[:LISTED]]
    return share(
        "one_label", len(told), len(rows), "records", "share whose opening does not occur under another intent as well",
        "no record has an intent and an opening", offences=total.offences(failures),
    )  # fmt: skip


__all__ = ["count", "finish", "merge", "validate"]
