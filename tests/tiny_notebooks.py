"""Notebooks of a few cells, for the tests of what runs notebooks."""

from __future__ import annotations

from pathlib import Path

import nbformat


def write_notebook(folder: Path, name: str, parameters: str, *code: str, title: str | None = None) -> Path:
    """``<folder>/<name>.ipynb`` with a title, a parameters cell and code cells."""
    cells = [nbformat.v4.new_markdown_cell(f"# {title or name}", id="title")]
    cells.append(nbformat.v4.new_code_cell(parameters, id="parameters", metadata={"tags": ["parameters"]}))
    cells += [nbformat.v4.new_code_cell(source, id=f"cell-{i}") for i, source in enumerate(code)]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)
    return path
