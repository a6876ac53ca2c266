"""For ``pytest --nbval``: every notebook has an output root of its own, as when it was rendered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from genesis_lab.outputs import isolated_root
from genesis_lab.settings import get_settings

get_settings()  # Read before the environment below changes: caches stay shared with the checkout's outputs.


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Runs before nbval starts the notebook's kernel, which inherits the environment."""
    base: Path = item.config._tmp_path_factory.getbasetemp()
    os.environ["GENESIS_OUTPUT_ROOT"] = str(isolated_root(base / item.path.stem))
