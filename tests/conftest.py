"""What every test shares: an output root of its own, and no network by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from genesis_lab.settings import get_settings


@pytest.fixture(autouse=True)
def own_output_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs go to a temporary folder; hubs are told to be offline."""
    root = tmp_path / "outputs"
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    get_settings.cache_clear()
    yield root
    get_settings.cache_clear()
