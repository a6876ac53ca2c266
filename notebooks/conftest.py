"""For ``pytest --nbval``: notebooks don't get in each other's way, however many run at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbval.kernel
import pytest
from jupyter_client.manager import KernelManager

from genesis_lab.files import isolated_root
from genesis_lab.notebooks import kernel_config, read_notebook
from genesis_lab.settings import get_settings
from notebook_tools import reference_here

get_settings()  # Read before the environment below changes: caches stay shared with the checkout's outputs.
_sockets = []


def _kernel_manager(**options: Any) -> KernelManager:
    """A kernel manager for nbval, which takes no configuration."""
    _sockets.append(kernel_config())
    return KernelManager(config=_sockets[-1].__enter__(), **options)


nbval.kernel.KernelManager = _kernel_manager


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Give each notebook an output root of its own, as when it was rendered; its kernel inherits the environment."""
    base: Path = item.config._tmp_path_factory.getbasetemp()
    os.environ["GENESIS_OUTPUT_ROOT"] = str(isolated_root(base / item.path.stem))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the notebooks whose committed figures were measured on other real data than is here."""
    for path in {item.path for item in items if item.path.suffix == ".ipynb"}:
        notebook = read_notebook(path)
        shown = notebook.metadata.get("genesis", {}).get("reference")
        if shown is None or shown == (here := reference_here()):
            continue
        why = "no reference data here" if "none" in here else "its figures were measured on other reference data"
        for item in items:
            if item.path == path:
                item.add_marker(pytest.mark.skip(reason=f"{path.name}: {why} (see GENESIS_REFERENCE_DIR in README.md)"))
