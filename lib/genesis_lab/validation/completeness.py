"""Completeness: is everything there, and is every record one of its own?"""

from __future__ import annotations

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genesis_lab.validation.aggregate import LISTED, Aggregate, Check
from genesis_lab.validation.scores import Part, Score, mean_score, share
from genesis_lab.validation.view import TEXT_FIELDS, View, hashed, present

FIELDS = (*TEXT_FIELDS, "turns", "provenance")


def checks(view: View) -> dict[str, Check]:
    """Presence of every field, and words and a speaker in every turn."""
    missing = {name: ~present(array) for name, array in view.fields.items()}
    missing["turns"] = view.lengths == 0
    missing["provenance"] = ~view.has_provenance
    found = {
        f"has.{name}": Check.of(view.n, np.flatnonzero(mask), partial(_missing, name)) for name, mask in missing.items()
    }
    holes = np.flatnonzero(~present(view.text) | ~present(view.speaker))
    rows = view.turn_row[holes]
    texts = present(view.text)
    found["turn"] = Check.of(
        len(view.turn_row),
        rows,
        lambda k: f"turn {view.position[holes[k]] + 1} has no {'speaker' if texts[holes[k]] else 'text'}",
    )
    return found


def finish(total: Aggregate) -> Score:
    """Mean of three shares: fields filled, turns filled, records with an id that none before them has."""
    fields = [(name, total.checks[f"has.{name}"]) for name in FIELDS]
    first = sorted((offence for _, check in fields for offence in check.first), key=lambda pair: pair[0])
    parts = [
        share(
            "fields",
            sum(check.checked for _, check in fields),
            sum(check.failed for _, check in fields),
            "fields",
            f"share of the {len(FIELDS)} fields of the schema that are there and not empty, over all records",
            empty="the dataset has no records",
            offences=total.offences(tuple(first[:LISTED])),
            detail={"missing": {name: check.failed for name, check in fields if check.failed}},
        ),
        share(
            "turns",
            total.checks["turn"].checked,
            total.checks["turn"].failed,
            "turns",
            "share of turns with a speaker and text",
            empty="no record has turns",
            offences=total.offences(total.checks["turn"].first),
        ),
        _unique_ids(total),
    ]
    return mean_score("completeness", total.n, parts)


def _missing(name: str, _: int) -> str:
    return f"{name} is missing"


def _unique_ids(total: Aggregate) -> Part:
    ids = pa.chunked_array(total.ids, pa.string()).combine_chunks()
    has = present(ids)
    rows = np.flatnonzero(has)
    distinct, first, inverse = np.unique(hashed(ids.filter(pa.array(has))), return_index=True, return_inverse=True)
    repeats = np.flatnonzero(first[inverse] != np.arange(len(rows)))
    original = rows[first[inverse[repeats]]]
    reason = "the id of row {} again"
    failures = [(int(rows[i]), reason.format(int(o))) for i, o in zip(repeats, original, strict=True)]
    failures += [(int(row), "there is no id") for row in np.flatnonzero(~has)]
    return share(
        "unique_ids",
        total.n,
        len(failures),
        "records",
        "share of records whose id is there and is no earlier record's",
        empty="the dataset has no records",
        offences=total.offences(tuple(sorted(failures)[:LISTED])),
        detail={"distinct": len(distinct), "missing": int(pc.sum(pc.is_null(ids)).as_py() or 0)},
    )
