"""Is this dataset good? Gates and their verdict, four scores, and what is wrong with which record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from genesis_lab.dataset import Dataset
from genesis_lab.domains import get_domain, language, recorded_domain
from genesis_lab.domains.base import Domain, Facets
from genesis_lab.errors import InvalidInput
from genesis_lab.parallel import map_reduce
from genesis_lab.validation import checks as counting
from genesis_lab.validation import gates, variety
from genesis_lab.validation.checks import LISTED, UNKNOWN_CELL, Counted, Part, part, parts_of, share
from genesis_lab.validation.reference import STAND_IN
from genesis_lab.validation.text import hashed

_LARGE = 50_000
"""Records from which what counting leaves in memory is given back before near-copies are looked for."""
_EMPTY = "the dataset has no records"


def validate(
    dataset: Dataset,
    *,
    domain: Domain | None = None,
    reference: Any = None,
    embed: variety.Embed | None = None,
    seed: int = 0,
    partitions: int | None = None,
    executor: Any = None,
) -> dict[str, Any]:
    """Measure a dataset, anyone's and however broken; what the report holds is in `finish`.

    `domain` says which values may occur (default: the one the dataset was generated with, else none are checked);
    without a `reference` realism is not measured, without `embed` no paraphrases. No number depends on how it is cut.
    """
    made = recorded_domain(dataset.manifest)
    whose = domain or made or get_domain(dataset.domain)
    if not whose.checks():
        raise InvalidInput(
            f"The four quality scores are not of {whose.facets.unit}, and {dataset.name} is a dataset of "
            f"{dataset.domain}: use genesis audit {dataset.name}."
        )
    work = partial(counting.count, domain=whose, planned=bool(domain or made), seed=seed)
    total: Counted = map_reduce(dataset, work, counting.merge, partitions=partitions, executor=executor)
    if total.n >= _LARGE:
        pa.default_memory_pool().release_unused()  # of the partitions
        language.forget()
    targets = {target.name: target.shares for target in made.targets()} if made else {}
    numbers = None if whose.facets.text else _beside(whose, dataset, reference, seed)
    return finish(total, whose, targets=targets, reference=reference, embed=embed, seed=seed, numbers=numbers)


def finish(
    total: Counted,
    domain: Domain,
    *,
    targets: Mapping[str, Mapping[str, float]] | None = None,
    reference: Any = None,
    embed: variety.Embed | None = None,
    seed: int = 0,
    numbers: tuple[list[Part], int, str | None] | None = None,
) -> dict[str, Any]:
    """The report of what was counted, JSON-safe; `targets` are the plan's shares.

    ``gates`` decide the ``verdict``; ``overall`` is the mean of the scores that could be measured, times 100, and
    decides nothing. ``not_measured`` maps each score or ``score.part`` without a value to the reason. ``personal_data``
    counts turns.
    """
    checks, facets = domain.checks(), domain.facets
    # In this order memory peaks least: near-copies take most of it, and cleanlab's imports never give theirs back
    diverse, empty = (variety.diversity(total, embed), None) if total.n else ([], _EMPTY)
    copies, apart = variety.copies(total, getattr(reference, "texts", None)), variety.separation(total, seed)
    complete = [_fields(total, facets), *parts_of(total, checks, "completeness"), _unique_ids(total)]
    consistent = parts_of(total, checks, "consistency")
    if facets.label:
        consistent += [_one_label(total), variety.label_fidelity(total, facets.unit, seed, embed)]
    real = reference if getattr(reference, "kind", "real") == "real" else None
    realism, compared, why = numbers or variety.realism(total, real, seed)
    why = f"{reference.name} is a {STAND_IN}" if reference is not None and real is None else why
    scores = {
        "completeness": _score("completeness", total.n, complete),
        "consistency": _score("consistency", total.n, consistent, empty),
        "realism": _score("realism", compared, realism, why),
        "diversity": _score("diversity", total.n, diverse, empty),
    }
    parts = {one["name"]: one for score in scores.values() for one in score["parts"]}
    beside = variety.openings(total, domain, real) if facets.text else f"{facets.unit} have no openings"
    parts |= {"contamination": copies, "separation": apart}
    decided = gates.form_gates(total, checks, facets, parts, targets or {}, beside)
    if numbers and realism:
        decided.append(gates.like_real(realism[0]))
    measured = [score["value"] for score in scores.values() if score["value"] is not None]
    reasons = {name: score["reason"] for name, score in scores.items() if score["reason"]}
    reasons |= {"openings": beside} if isinstance(beside, str) else {}
    reasons |= {f"{name}.{p['name']}": p["reason"] for name, s in scores.items() for p in s["parts"] if p["reason"]}
    return {
        "records": total.n,
        **total.elements,
        "verdict": gates.verdict(decided),
        "gates": decided,
        "overall": 100 * float(np.mean(measured)) if measured else None,
        **scores,
        "contamination": copies,
        "openings": None if isinstance(beside, str) else beside,
        "personal_data": {
            one["name"]: one | {"value": None, "interval": None, "reason": "counted, not scored"}
            for one in parts_of(total, checks, "personal_data")
        },
        "unreadable_columns": total.unreadable,
        "embedder": getattr(embed, "name", None),
        "embedder_note": getattr(embed, "note", None),
        "sample_size": len(total.sample),
        "not_measured": reasons | ({"contamination": copies["reason"]} if copies["reason"] else {}),
    }


def _beside(domain: Domain, dataset: Dataset, reference: Any, seed: int) -> tuple[list[Part], int, str | None]:
    """The parts of realism of records that no text tells, see `Domain.realism`; of how many, and why there are none."""
    if reference is None:
        return [], 0, "no reference was given"
    every = -(-dataset.total // UNKNOWN_CELL)
    rows = (record for batch in dataset.batches(size=500) for record in batch.to_pylist())
    try:
        found = domain.realism(islice(rows, 0, None, every), reference.records, seed)
    except InvalidInput as error:
        return [], 0, str(error)
    parts = []
    for row in found["rows"] if found else ():
        of = None if row["estimate"] is None else min(1.0, (1 - row["estimate"]) / (1 - row["floor"]))
        means = f"(1 − {row['what']}) ÷ (1 − that between halves of the reference), at most 1"
        parts.append(part(row["what"], of, row["n"], "records", meaning=means, detail=row, reason=row["why"]))
    return parts, min(dataset.total, UNKNOWN_CELL), None if parts else "its realism is not measured"


def _score(name: str, n: int, parts: list[Part], reason: str | None = None) -> dict[str, Any]:
    """The mean of the parts that could be measured, in [0, 1]; None when `reason` is given or none could."""
    values = [one["value"] for one in parts if one["value"] is not None]
    if not reason and not values:
        reasons = {one["reason"] for one in parts}
        reason = reasons.pop() if len(reasons) == 1 else "none of its parts could be measured"
    value = None if reason else float(np.mean(values))
    return {"name": name, "value": value, "n": n, "parts": parts, "reason": reason}


def _fields(total: Counted, facets: Facets) -> Part:
    """What no record has, but for label and text, was not there to be had: it is named, and counts for nothing."""
    fields = {name[4:]: found for name, found in total.found.items() if name.startswith("has.")}
    needed = {facets.label, *re.findall(r"\w+", facets.text or "")}
    absent = [name for name, found in fields.items() if found[1] == total.n and name not in needed]
    there = {name: found for name, found in fields.items() if name not in absent}
    first = sorted((offence for found in there.values() for offence in found[2]), key=lambda pair: pair[0])
    checked, failed = sum(found[0] for found in there.values()), sum(found[1] for found in there.values())
    detail = {"missing": {name: found[1] for name, found in fields.items() if found[1]}, "not_there": absent}
    return share("fields", checked, failed, offences=total.offences(first), detail=detail)


def _unique_ids(total: Counted) -> Part:
    ids = pa.concat_tables(total.rows)["id"].combine_chunks()
    rows = np.flatnonzero(ids.is_valid())
    if total.n and not len(rows):
        return part("unique_ids", None, 0, reason="no record has an id: they are told by their number")
    again = variety.repeated(hashed(ids.drop_null()))
    failures = [(int(rows[i]), f"the id of row {rows[first]} again") for i, first in again]
    failures += [(int(row), "there is no id") for row in np.flatnonzero(pc.is_null(ids))]
    detail = {"distinct": len(rows) - len(again), "missing": ids.null_count}
    return share("unique_ids", total.n, len(failures), offences=total.offences(sorted(failures)), detail=detail)


def _one_label(total: Counted) -> Part:
    """Records whose opening also occurs under another label."""
    frame = pd.DataFrame({"text": total.column("text"), "label": total.column("label")})
    told = frame[(frame != 0).all(axis=1)]
    rows = told.index[told.groupby("text")["label"].transform("nunique") > 1]
    failures = [(int(row), "the same opening has another intent elsewhere") for row in rows[:LISTED]]
    return share("one_label", len(told), len(rows), offences=total.offences(failures))
