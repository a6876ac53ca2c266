"""The numbered notebooks: finding and reading them, and what a failed cell says."""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from genesis_lab import errors
from genesis_lab.errors import InvalidInput, instead
from genesis_lab.files import shown
from genesis_lab.settings import project_root, redact


def notebook_paths(folder: Path | None = None) -> list[Path]:
    """The numbered notebooks (``10_generate_conversations.ipynb``), in order; from ``notebooks/`` by default."""
    folder = folder or project_root() / "notebooks"
    return sorted(path for path in folder.glob("[0-9][0-9]_*.ipynb"))


def find_notebook(reference: str | int, folder: Path | None = None) -> Path:
    """The notebook with this number (``10``), name (``generate_conversations``), stem or path."""
    path, known = Path(str(reference)), notebook_paths(folder)
    if path.suffix == ".ipynb" and path.is_file():
        return path.resolve()
    stem = path.name.removesuffix(".ipynb")
    for candidate in known:
        number, _, name = candidate.stem.partition("_")
        if stem in (candidate.stem, name) or (stem.isdigit() and int(stem) == int(number)):
            return candidate
    raise InvalidInput(f"There is no notebook {str(reference)!r}: {instead(stem, [path.stem for path in known])}")


def read_notebook(path: Path) -> Any:
    """The notebook as a node of nbformat, in format 4."""
    if unread := "nbformat" not in sys.modules and "rfc3987_syntax" not in sys.modules:
        # It builds grammars for a second, and nobody asks it.
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]  # which makes an import fail
    import nbformat

    if unread:
        del sys.modules["rfc3987_syntax"]
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise InvalidInput(f"{shown(path)} does not exist.") from None
    except Exception:  # a validator's, a reader's and a converter's, each of its own tree
        raise InvalidInput(f"{shown(path)} is not a Jupyter notebook.") from None


@contextmanager
def kernel_config() -> Iterator[Any]:
    """A traitlets Config whose kernel is reached by files of its own.

    By TCP ports kernels that start at once take one another's and die, and whoever has a login here could read along.
    """
    from jupyter_client.manager import AsyncKernelManager
    from traitlets.config import Config

    class Kernel(AsyncKernelManager):
        """After Ctrl-C it is not waited for: what goes on from a kill -9 needs no farewell."""

        async def shutdown_kernel(self, now: bool = False, restart: bool = False) -> None:  # type: ignore[override]
            stopped = isinstance(sys.exc_info()[1], KeyboardInterrupt)
            await super().shutdown_kernel(now or stopped, restart)
            if stopped:
                self.context.destroy(linger=0)  # else what it was still to be told is waited for

    with tempfile.TemporaryDirectory(prefix="genesis-", ignore_cleanup_errors=True) as folder:
        # It keeps its own troubles to itself: we say what happened.
        quiet = {"extra_arguments": ["--Application.log_level=50"], "kernel_manager_class": Kernel}
        config = Config(NotebookClient=quiet)
        if sys.platform != "win32":
            config.merge({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})
        yield config


def failure(notebook: str, cell: Any, name: str, value: str) -> str:
    """One line for a cell that failed: notebook and error; the cell's number where the error is none of ours."""
    message = " ".join(redact(value).split())[:2_000]
    if issubclass(getattr(errors, name, object), errors.GenesisError):
        return f"{notebook}: {message}"
    return f"{notebook}, cell {cell.execution_count}: {name}: {message}"


def title(notebook: Any, path: Path) -> str:
    """The text of the H1 that every notebook starts with."""
    first = notebook.cells[0] if notebook.cells else None
    heading = re.match(r"# (.+)", first.source) if first is not None and first.cell_type == "markdown" else None
    if heading is None:
        raise InvalidInput(f"{shown(path)} must start with a Markdown cell whose first line is '# <title>'.")
    return heading[1].strip()
