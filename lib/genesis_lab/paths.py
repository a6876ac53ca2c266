"""Where things are, whatever the working directory (nbval, papermill and JupyterLab each use another)."""

from __future__ import annotations

from pathlib import Path

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


def dataset_path(name: str | Path) -> Path:
    """The folder of a dataset given by bare name (under ``outputs/datasets``) or by path."""
    if len(Path(name).parts) == 1 and not str(name).startswith((".", "~")):
        return output_root() / "datasets" / name
    return resolve(name)


def shown(path: Path) -> str:
    """`path` as it is written into reports and notebooks: relative to the project, never a machine's own path."""
    path = Path(path)
    for root, prefix in ((output_root(), "outputs"), (project_root(), "")):
        if path.is_relative_to(root):
            return (Path(prefix) / path.relative_to(root)).as_posix()
    return path.name
