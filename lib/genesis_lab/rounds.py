"""Contrast rounds: what a set mixes up is asked for on both sides of the line, as long as it gains on real messages."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import numpy as np

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset, write_report
from genesis_lab.dataset.writing import assign_splits
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import dataset_path, output_root, shown, write_atomically
from genesis_lab.generation import GenerationConfig, generate
from genesis_lab.stats import CANT_TELL, Interval
from genesis_lab.texts import same_words
from genesis_lab.training.contrast import confusions, gain
from genesis_lab.training.examples import labelled_texts

Row = dict[str, Any]
PER_CELL = 10
"""Records that are asked for on one side of a line, where a round has so many."""
GAINS = ("better", "better but small")


def improve(
    config: GenerationConfig,
    seeds: Any,
    *,
    rounds: int = 3,
    per_round: int = 200,
    holdout: float = 0.5,
    on_round: Callable[[Row], object] | None = None,
) -> Row:
    """Generate a set, then rounds of records for what it mixes up; stops where a gain can't be told, or after `rounds`.

    The first set is asked for as `config` says; real messages are shown where a line is mixed up. Each round is a
    dataset ``<name>_round<k>``, those that gained together ``<name>_all``, which keeps this report as ``rounds``. The
    same call goes on where it stopped. Never sees what a scorecard is measured on.

    Parameters
    ----------
    seeds : real labelled messages, as `labelled_texts` takes them: the share `holdout` of each label is only tested on,
        the others are shown, in the rounds, to the model that writes.
    on_round : called with the row of each round: records so far, requests, cost, accuracy on what is held out, gain
        over the round before with interval and verdict.
    """
    if "cells" not in type(config).model_fields or "seeds" not in type(config).model_fields:
        raise InvalidInput(f"Rounds are made of cells and seeds, which {config.domain.facets.unit} do not have.")
    real = labelled_texts(seeds)
    shares = {"shown": 1 - holdout, "held": holdout}
    part = assign_splits(real.groups, shares, labels=real.labels, rng=np.random.default_rng(0))
    taught, tested = real.take(part == 0), real.take(part == 1)
    file, text = output_root() / "cache" / "rounds" / f"{dataset_path(config.dataset).name}_seeds.csv", io.StringIO()
    csv.writer(text).writerows(
        [("text", "label", "language"), *zip(taught.texts, taught.labels, taught.languages, strict=True)]
    )
    write_atomically(file, text.getvalue())

    made: list[Dataset] = []
    rows: list[Row] = []
    cells: list[Row] = []
    stopped, options = f"{rounds} rounds are made", config.model_dump()
    for number in range(rounds + 1):
        chosen = {"cells": cells, "total": sum(c["n"] for c in cells), "seeds": shown(file)} if number else {}
        made.append(generate(type(config)(**options | chosen | {"dataset": f"{config.dataset}_round{number}"})))
        union = _together(f"{config.dataset}_all", made)
        found = gain([taught, *made[:-1]] if number else None, [taught, *made], tested)
        rows.append({"round": number, "records": union.total, **_paid(made[-1]), **found})
        if on_round:
            on_round(rows[-1])
        if number and found["verdict"] not in GAINS:
            stopped = f"round {number} was no gain: {found['verdict'] or CANT_TELL}"
            union = _together(union.name, made[:-1])  # what brought nothing stays apart
            break
        mixed = confusions(union, taught, top=max(1, per_round // (2 * PER_CELL)))[:per_round]
        cells = [cell | {"n": (per_round + i) // len(mixed)} for i, cell in enumerate(mixed)]
        if not cells:
            stopped = "nothing is mixed up any more"
            break
    alone = gain(None, taught, tested)["accuracy"]
    told = {"seeds": {"shown": len(taught), "held_out": len(tested), "accuracy_alone": alone}, "stopped": stopped}
    kept = len(union.manifest["rounds"]) - 1
    report = {"dataset": union.name, "kept": kept, "rounds": rows, **told}
    write_report(union, "rounds", report)
    return report


def sentence(row: Row) -> str:
    """A round in one line."""
    cost = "price unknown" if row["cost_usd"] is None else f"{row['cost_usd']:,.2f} USD"
    gained = f", gain {Interval(**row['gain'])} ({row['verdict']})" if row["gain"] else ""
    reach = f"accuracy on real messages {Interval(**row['accuracy'])}{gained}"
    return f"round {row['round']}: {row['records']:,} records, {row['requests']:,} requests, {cost}, {reach}"


def _paid(dataset: Dataset) -> Row:
    """Requests whose answers were kept, and what the dataset cost; None where no price is known."""
    keys = dataset.sql("SELECT DISTINCT provenance.request_key AS key FROM data")["key"].dropna()
    return {"requests": len(keys) or dataset.total, "cost_usd": dataset.manifest["cost_usd"]}


def _together(name: str, parts: list[Dataset]) -> Dataset:
    """The records of all parts as one dataset, of those that say the same words the first."""
    path, first = dataset_path(name), parts[0]
    if path.exists() and "rounds" not in open_dataset(path).manifest:
        raise InvalidInput(f"{shown(path)} was not made by rounds: choose another name.")
    facets, seen = get_domain(first.domain).facets, set[str]()
    manifest = {"config": first.manifest["config"], "rounds": {part.name: part.content_hash for part in parts}}
    with DatasetWriter(path, first.domain, manifest, replace=True) as writer:
        for part in parts:
            texts = dict(part.sql(f"SELECT {facets.id}, {facets.text} FROM data").itertuples(index=False, name=None))
            for batch in part.batches():
                fresh = []
                for record in batch.to_pylist():
                    words = same_words(texts[record[facets.id]] or "")
                    if words not in seen:
                        fresh.append(record)
                    seen.add(words)
                writer.write(fresh)
    return open_dataset(path)
