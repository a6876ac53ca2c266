"""Notebook 40 as a user runs it: it trains, saves and promotes what was asked for and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from genesis_lab import registry
from genesis_lab.errors import StageFailed
from genesis_lab.notebooks import find_notebook
from genesis_lab.pipeline import run_pipeline, single_stage
from genesis_lab.training.models import load_model
from labelled_texts import labelled, write_dataset


def run(**parameters: str) -> None:
    quick = {"dataset": "small", "embeddings": "false", "reference": "none", "sentences": '["my card has not arrived"]'}
    run_pipeline(single_stage(find_notebook("40"), quick | parameters))


def versions() -> list[list[str]]:
    """The aliases of each version of the model, the oldest first."""
    from mlflow import MlflowClient

    found = MlflowClient(registry.tracking_uri()).search_model_versions("name = 'intents'")
    numbers = sorted((one.version for one in found), key=int)
    return [registry.lineage("intents", version=str(number))["model"]["aliases"] for number in numbers]


def test_nothing_is_trained_replaced_or_promoted_unasked(
    own_output_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    first = write_dataset(own_output_root / "datasets" / "small", labelled())
    run()
    assert versions() == [[]]
    assert [path.name for path in (own_output_root / "datasets").iterdir() if path.is_dir()] == ["small"]

    write_dataset(own_output_root / "datasets" / "other", labelled()[::2])
    with pytest.raises(StageFailed, match="outputs/models/intents holds another model"):
        run(dataset="other")
    assert load_model("intents").card.sources[0].content_hash == first.content_hash
    assert len(versions()) == 1

    run(dataset="other", replace="true", champion="true")
    assert load_model("intents").card.sources[0].name == "other"
    assert versions() == [[], ["champion"]]
