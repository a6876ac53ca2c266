"""Notebook 40 with a user's parameters: it trains, saves and promotes what was asked for and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from IPython.display import display

from genesis_lab import registry
from genesis_lab.errors import InvalidInput
from genesis_lab.notebooks import find_notebook, read_notebook
from genesis_lab.pipeline import single_stage
from genesis_lab.training.models import load_model
from labelled_texts import labelled, write_dataset


def run(**parameters: str) -> None:
    """The notebook's cells in this process: `make test-notebooks` runs them in a kernel."""
    quick = {"dataset": "small", "embeddings": "false", "reference": "none", "sentences": '["my card has not arrived"]'}
    (stage,) = single_stage(find_notebook("40"), quick | parameters).stages
    names: dict[str, Any] = {"display": display}
    for cell in read_notebook(stage.notebook).cells:
        if cell.cell_type == "code" and "nbval-skip" not in cell.metadata.get("tags", ()):
            exec(cell.source, names)  # noqa: S102
            if "parameters" in cell.metadata.get("tags", ()):
                names |= stage.parameters


def versions() -> list[list[str]]:
    """The aliases of each version of the model, the oldest first."""
    from mlflow import MlflowClient

    found = MlflowClient(registry.tracking_uri()).search_model_versions("name = 'intents'")
    numbers = sorted((one.version for one in found), key=int)
    return [registry.lineage("intents", version=str(number))["model"]["aliases"] for number in numbers]


def test_nothing_is_trained_replaced_or_promoted_unasked(own_output_root: Path) -> None:
    first = write_dataset(own_output_root / "datasets" / "small", labelled())
    run()
    assert versions() == [[]]
    assert [path.name for path in (own_output_root / "datasets").iterdir() if path.is_dir()] == ["small"]

    write_dataset(own_output_root / "datasets" / "other", labelled()[::2])
    with pytest.raises(InvalidInput, match="outputs/models/intents holds another model"):
        run(dataset="other")
    assert load_model("intents").card.sources[0].content_hash == first.content_hash
    assert len(versions()) == 1

    run(dataset="other", replace="true", champion="true")
    assert load_model("intents").card.sources[0].name == "other"
    assert versions() == [[], ["champion"]]
