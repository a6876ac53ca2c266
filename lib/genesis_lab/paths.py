"""Where things are, whatever the working directory (nbval, papermill and JupyterLab each use another)."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from genesis_lab.errors import InvalidInput
from genesis_lab.settings import get_settings, project_root


def output_root() -> Path:
    """The folder that runs write to: ``GENESIS_OUTPUT_ROOT``, else ``outputs/`` of the checkout."""
    return get_settings().output_root or project_root() / "outputs"


def resolve(path: str | Path) -> Path:
    """An absolute path; a relative one is read from the project root, as in parameters and the README.

    ``outputs/…`` is what `shown` writes of the output root, so it is read from there, wherever that is.
    """
    path = Path(path).expanduser()
    if path.parts[:1] == ("outputs",):
        return output_root().joinpath(*path.parts[1:])
    return path if path.is_absolute() else project_root() / path


LONGEST_NAME = 200
"""Bytes of a file's or folder's name: file systems take 255, and what is written beside it has a longer one."""


def named(kind: str, name: str | Path) -> Path:
    """The folder of a dataset or model given by bare name (under ``outputs/<kind>``) or by path.

    Raises
    ------
    InvalidInput : nothing can have that name.
    """
    text, path = str(name), Path(name)
    if not text.strip() or path.name in ("", "..") or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        wrong = f"{text!r} names no folder"
    elif any(len(part.encode()) > LONGEST_NAME for part in path.parts):
        wrong = f"{text[:40]!r}… is longer than a folder's name can be ({LONGEST_NAME} bytes)"
    elif text.startswith("~") and path.parts[0] != "~":
        wrong = f"{text!r} begins with another user's home"
    elif len(path.parts) == 1 and not text.startswith((".", "~")):
        return output_root() / kind / path
    else:
        return resolve(path)
    raise InvalidInput(f"{wrong}: give a name of letters, digits, - and _, or the path of a folder.")


def dataset_path(name: str | Path) -> Path:
    """The folder of a dataset given by bare name (under ``outputs/datasets``) or by path; see `named`."""
    return named("datasets", name)


def shown(path: Path) -> str:
    """`path` as it is written into reports and notebooks: relative to the project, never a machine's own path."""
    path = Path(path)
    for root, prefix in ((output_root(), "outputs"), (project_root(), "")):
        if path.is_relative_to(root):
            return (Path(prefix) / path.relative_to(root)).as_posix()
    return path.name


def findable(path: Path) -> str:
    """`path` as a parameter can name it: as `shown`, but in full where that is found from nowhere else."""
    short = shown(path)
    return short if resolve(short) == Path(path) else str(path)
