"""Where runs write, and writing that leaves the old file or the new one, never half of one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from genesis_lab.errors import GenesisError
from genesis_lab.paths import output_root, shown
from genesis_lab.settings import get_settings

SHARED = ("cache", "reference")
"""Folders of an output root that say nothing about a run: an isolated root links to them."""


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 `text` to a temporary name beside `path`, then rename.

    Raises
    ------
    GenesisError : the folder is read-only or the disk is full; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise GenesisError(f"{shown(path)} can't be written: {error.strerror or error}.") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def use_output_root(folder: Path | None) -> None:
    """Make `folder` the output root of this process and of the processes it starts; None goes back to the default."""
    if folder is None:
        os.environ.pop("GENESIS_OUTPUT_ROOT", None)
    else:
        os.environ["GENESIS_OUTPUT_ROOT"] = str(folder.resolve())
    get_settings.cache_clear()


def isolated_root(folder: Path) -> Path:
    """A new output root at `folder` that shares only caches and fetched reference data with the present one.

    What is generated in it is its own, and an answer that was paid for elsewhere is not paid for again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        ours, link = output_root() / name, folder / name
        ours.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(ours.resolve(), target_is_directory=True)
    return folder
