"""What a dataset is worth in real data, whatever its records are: the learner that its facets name is asked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset, remembered
from genesis_lab.dataset.sources import real_records
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.training import forecasts, worth
from genesis_lab.validation.reference import HUB_NAME, for_worth, load_reference


def real_data(dataset: Dataset, reference: str) -> Any:
    """What is meant by the name of a reference for records of this kind: labelled texts or series; None where there is nothing."""
    domain = get_domain(dataset.domain)
    if domain.facets.worth == "forecast":  # of which no reference can be fetched
        return real_records(reference, domain) if reference not in ("", "none", HUB_NAME) else None
    return load_reference(reference) if reference != "none" else None


def scorecard(
    dataset: Dataset, *, reference: str = "banking77", taxonomy: str = "banking77", seed: int = 0,
    embeddings: bool = True, max_records: int = 20_000, on_progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the dataset is worth in real data, by the learner that its facets name; made once with the same settings, and kept."""
    if get_domain(dataset.domain).facets.worth == "forecast":
        real = real_data(dataset, reference)
        settings: dict[str, Any] = {"reference": real and real.digest, "seed": seed}
        options: dict[str, Any] = {"seed": seed, "on_progress": on_progress}
        return remembered(dataset, "scorecard", settings, partial(forecasts.scorecard, dataset, real, **options))
    items, pool = for_worth(reference) if reference != "none" else (None, None)
    whose: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain, taxonomy=taxonomy)
    labels = whose.taxonomy.names
    options = {"embeddings": embeddings, "max_records": max_records}
    options["intents"] = labels if items and len(labels) < len(items.intents) else None
    settings = {"reference": [r and r.digest for r in (items, pool)], "seed": seed, **options}
    options |= {"pool": pool, "rng": np.random.default_rng(seed), "on_progress": on_progress}
    return remembered(dataset, "scorecard", settings, partial(worth.worth, dataset, items, **options))
