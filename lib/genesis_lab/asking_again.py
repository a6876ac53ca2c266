"""Asking again for what a person dropped: the same plan cells, by the same or another teacher, at a known cost."""

from __future__ import annotations

import json
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from genesis_lab.dataset import Dataset
from genesis_lab.dataset.curation import standing
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import GenerationConfig, config_for


def ask_again(dataset: Dataset, target: str | Path | None = None, *, teacher: str = "") -> GenerationConfig:
    """What generates a record for each that was dropped, in its cell of the plan; see `estimates` before `generate`.

    The dataset it writes is `target` (default ``<name>_again``); `curation.apply` adds it to the rest. `teacher` is one
    line such as ``bedrock:<model>``; empty: those who wrote what was dropped, each as much again.
    """
    domain = get_domain(dataset.domain)
    config_type = config_for(dataset.domain)
    if "cells" not in config_type.model_fields:
        raise InvalidInput(
            f"{domain.facets.unit.capitalize()} are not planned in cells, so what was dropped can't be asked for again "
            "one by one: generate a dataset of another seed and add it with genesis dataset apply "
            f"{dataset.name} --add."
        )
    dropped = {row for row, one in standing(dataset).items() if one["verdict"] == "drop"}
    if not dropped:
        raise InvalidInput(f"Nothing of {dataset.name} was dropped, so there is nothing to ask for again.")
    cell = get_args(config_type.model_fields["cells"].annotation)[0]
    names = [name for name in domain.facets.attributes if name in cell.model_fields and name in dataset.schema.names]
    frame = dataset.frame(columns=names).iloc[sorted(dropped)]
    counted = Counter(tuple(row) for row in frame.astype(object).where(frame.notna(), None).itertuples(index=False))
    cells = [
        {"n": n} | {name: value for name, value in zip(names, values, strict=True) if value is not None}
        for values, n in sorted(counted.items(), key=str)
    ]
    kept = {name: v for name, v in (dataset.manifest.get("config") or {}).items() if name in config_type.model_fields}
    ids = json.dumps(sorted(dropped)) + dataset.content_hash
    seed = zlib.crc32(ids.encode()) % 2**31  # another one for each set of records, so that no answer comes twice
    who = {teacher: 1.0} if teacher else _teachers(dataset, dropped)
    options: dict[str, Any] = kept | {"cells": cells, "seed": seed, "total": len(dropped), "teachers": who}
    get_domain(dataset.domain, **options).specs(len(dropped), seed)  # says which cell is none of the plan's
    options |= {"dataset": str(target or f"{dataset.path}_again"), "replace": False}
    again: GenerationConfig = config_type(**options)
    return again


def _teachers(dataset: Dataset, dropped: set[int]) -> dict[str, float]:
    """Who wrote the records, each with its share, as one line names them."""
    made = dataset.frame(columns=["provenance"])["provenance"].iloc[sorted(dropped)]
    wrote = Counter((one["provider"], one["model"]) if one else ("", "") for one in made)
    if ("", "") in wrote or any(provider is None for provider, _ in wrote):
        raise InvalidInput(f"{dataset.name} does not say who wrote its records: name the teacher to ask.")
    return {name if name == "offline" else f"{name}:{model}": float(n) for (name, model), n in wrote.items()}
