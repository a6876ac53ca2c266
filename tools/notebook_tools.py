"""Keep this repository's notebooks in order: ``python tools/notebook_tools.py sync [--check]`` and ``render [NOTEBOOK]…``,
``copy FOLDER``.

``sync`` generates badge, setup and the links to the other notebooks; ``render`` executes notebooks as committed; ``copy
FOLDER`` makes copies to work on.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat

from genesis_lab.errors import GenesisError, InvalidInput, StageFailed
from genesis_lab.files import isolated_root, use_output_root, write_atomically
from genesis_lab.notebooks import failure, find_notebook, kernel_config, notebook_paths, read_notebook, title
from genesis_lab.settings import found_in, get_settings, project_root

MAX_BYTES = 400_000
"""What one committed notebook may weigh."""
BADGE, SETUP, NAVIGATION = "genesis-badge", "genesis-setup", "genesis-navigation"
"""Ids and tags of the generated cells."""
MACHINE = "genesis-machine"
"""Tag of cells that say what is so on the machine they run on: their outputs are not committed."""
TRACKS = {
    "Conversations": ("10", "20", "30", "40", "70"),
    "Students": ("12", "50", "51", "52", "53", "70"),
    "Time series": ("11", "20", "41", "70"),
    "Real conversations": ("60", "61", "62", "63", "71", "70"),
}
"""The ways through the notebooks, by their numbers."""

_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
_WATCH = """\
def _asked(names=set()):
    from genesis_lab.validation import reference

    if reference.load_reference.__module__ != __name__:
        load = reference.load_reference
        reference.load_reference = lambda *a, **k: (names.add((*a, k.get("name", reference.HUB_NAME))[0]), load(*a, **k))[1]
    return reference.HUB_NAME in names
_asked()"""
"""Run as a kernel starts: from then on ``_asked()`` tells whether its notebook asked for the data of `reference_here`."""
_KERNEL = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sync(folder: Path | None = None, *, check: bool = False) -> list[Path]:
    """Generate badge, setup and links of every notebook; return the notebooks that changed.

    Parameters
    ----------
    check : change nothing, only tell what would change.

    Raises
    ------
    InvalidInput : a notebook has no title, or pyproject.toml names no repository.
    """
    paths = notebook_paths(folder)
    notebooks = [read_notebook(path) for path in paths]
    titles = [title(notebook, path) for notebook, path in zip(notebooks, paths, strict=True)]
    repository = _repository()
    changed = []
    for path, notebook in zip(paths, notebooks, strict=True):
        counts = {c.id: c.get("execution_count") for c in notebook.cells if c.get("id") == SETUP}
        own = [cell for cell in notebook.cells if not {BADGE, SETUP, NAVIGATION} & set(cell.metadata.get("tags", ()))]
        notebook.cells = [
            own[0],
            _markdown(BADGE, _badge(repository, path.name)),
            _setup(repository, counts.get(SETUP)),
            *own[1:],
            _markdown(NAVIGATION, _navigation(path, dict(zip(paths, titles, strict=True)))),
        ]
        notebook.metadata.update(nbformat.from_dict(_KERNEL))
        text = _text(notebook)
        if text != path.read_text(encoding="utf-8"):
            changed.append(path)
            if not check:
                write_atomically(path, text)
    return changed


def render(
    paths: Sequence[Path], *, timeout_s: int | None = 1800, on_notebook: Callable[[Path, float], None] | None = None
) -> list[Path]:
    """Execute the notebooks as the repository holds them and write back those that changed, which are returned.

    Each runs with its default parameters and an output root of its own, so what it shows does not depend on what was
    run before. Timing metadata and widget state are left out, execution counts stay: a second call changes nothing.

    Parameters
    ----------
    timeout_s : seconds one cell may take.
    on_notebook : called with each notebook done and its seconds.

    Raises
    ------
    StageFailed : a cell failed; the message names notebook, cell and error, and the file is as it was.
    InvalidInput : the result is over 400 kB, or shows a path of this machine or a secret.
    """
    changed = []
    before = get_settings().output_root
    for path in paths:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="genesis-render-") as scratch:
            use_output_root(isolated_root(Path(scratch)))
            try:
                with kernel_config() as config:
                    text = _executed(path, timeout_s, config)
            finally:
                use_output_root(before)
            _refuse_machine_facts(path, text, (Path(scratch), project_root(), Path.home()))
        if text != path.read_text(encoding="utf-8"):
            write_atomically(path, text)
            changed.append(path)
        if on_notebook:
            on_notebook(path, time.perf_counter() - started)
    return changed


def copy(target: Path, folder: Path | None = None) -> list[Path]:
    """Copy the notebooks to `target`, to work on there; return the copies that are new.

    A copy that is there stays as it is; where the original has been changed since, it is kept as ``<name>.yours.ipynb``.
    """
    made = []
    target.mkdir(parents=True, exist_ok=True)
    for path in notebook_paths(folder):
        mine, origin = target / path.name, target / f".{path.stem}.origin"
        if mine.exists() and origin.exists() and origin.read_bytes() == path.read_bytes():
            continue
        if mine.exists() and not (origin.exists() and origin.read_bytes() == mine.read_bytes()):
            mine.replace(mine.with_suffix(".yours.ipynb"))
        for to in (mine, origin):
            shutil.copyfile(path, to)
        made.append(mine)
    return made


def reference_here() -> str:
    """The real data that notebooks measure against on this machine: the digests of its items, or ``none``.

    A rendered notebook that asked for it says which it was under ``genesis.reference`` of its metadata: its figures can be
    compared only where it is the same.
    """
    from genesis_lab.validation.reference import load_reference

    parts = [load_reference(split=split) for split in (None, "train")]
    return "+".join(part.digest[:16] if part else "none" for part in parts)


def _executed(path: Path, timeout_s: int | None, config: Any) -> str:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = read_notebook(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells.append(nbformat.v4.new_code_cell("print(_asked())"))
    client = NotebookClient(
        notebook,
        config=config,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        timeout=timeout_s,
        extra_arguments=[f"--IPKernelApp.exec_lines={_WATCH}"],
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute()
    except CellExecutionError as error:
        failed = next(c for c in reversed(notebook.cells) if c.cell_type == "code" and c.execution_count)
        raise StageFailed(failure(path.name, failed, error.ename, error.evalue)) from None
    except (DeadKernelError, CellTimeoutError) as error:
        raise StageFailed(f"{path.name}: {' '.join(str(error).split())[:200]}") from None
    asked = notebook.cells.pop().outputs[0].text.strip() == "True"
    for cell in notebook.cells:
        if MACHINE in cell.metadata.get("tags", ()):
            cell.outputs = [nbformat.v4.new_output("stream", text="Run this cell to see what is so on your machine.\n")]
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if _WIDGET_VIEW not in o.get("data", ())]
    notebook.metadata = nbformat.from_dict({**notebook.metadata, **_KERNEL})
    notebook.metadata.pop("widgets", None)
    notebook.metadata.pop("genesis", None)
    if asked:
        notebook.metadata["genesis"] = {"reference": reference_here()}
    return _text(notebook)


def _refuse_machine_facts(path: Path, text: str, folders: Sequence[Path]) -> None:
    size = len(text.encode())
    if size > MAX_BYTES:
        sizes = [(len(json.dumps(c)), i) for i, c in enumerate(json.loads(text)["cells"])]
        most, cell = max(sizes)
        raise InvalidInput(
            f"{path.name} would be {size // 1000} kB, the limit is {MAX_BYTES // 1000} kB: cell {cell + 1} holds {most // 1000} kB."
        )
    if names := found_in(text):
        raise InvalidInput(f"{path.name} would show the value of {names[0]}: it was not written.")
    for folder in folders:
        if len(folder.parts) > 1 and str(folder) + "/" in text:
            raise InvalidInput(
                f"{path.name} would show a path of this machine ({folder}/…): use genesis_lab.files.shown."
            )


def _text(notebook: Any) -> str:
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return f"{nbformat.writes(notebook)}\n"


def _repository() -> str:
    """The one place that names the repository: ``[project.urls] Repository`` in pyproject.toml."""
    path = project_root() / "pyproject.toml"
    try:
        with path.open("rb") as file:
            url: str = tomllib.load(file)["project"]["urls"]["Repository"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise InvalidInput("pyproject.toml must name the repository under [project.urls] Repository.") from None
    if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", url):
        raise InvalidInput(f"Repository in pyproject.toml must be https://github.com/<owner>/<name>, got {url!r}.")
    return url


def _badge(repository: str, name: str) -> str:
    place = repository.removeprefix("https://github.com/")
    link = f"https://colab.research.google.com/github/{place}/blob/main/notebooks/{name}"
    return f"<small>[Open in Colab]({link})</small>"


def _setup(repository: str, execution_count: int | None) -> Any:
    source = f"""\
# Installs Genesis Lab when this notebook is opened in Colab; a cell that is stopped says what became of its work.
import os

if "COLAB_RELEASE_TAG" in os.environ:
    %pip install -q "genesis-lab @ git+{repository}"

from genesis_lab.reporting.frontend import answer_interrupts

answer_interrupts()
"""
    cell = nbformat.v4.new_code_cell(source.rstrip(), id=SETUP, execution_count=execution_count)
    cell.metadata.update(tags=[SETUP, "nbval-skip"], jupyter={"source_hidden": True})
    return cell


def _navigation(here: Path, titles: dict[Path, str]) -> str:
    """The tracks that the notebook is part of, each with its place in it; all of them where it is part of none."""
    shown = {name: [path for path in titles if path.stem[:2] in numbers] for name, numbers in TRACKS.items()}
    mine = {name: paths for name, paths in shown.items() if here in paths} or shown

    def link(path: Path) -> str:
        return f"**{titles[path]}**" if path == here else f"[{titles[path]}]({path.name})"

    start = [link(path) for path in titles if path.stem[:2] == "00" and path != here]
    return "\n\n".join(
        ["---", *start, *(f"{name}: {' → '.join(map(link, paths))}" for name, paths in mine.items() if paths)]
    )


def _markdown(identity: str, source: str) -> Any:
    cell = nbformat.v4.new_markdown_cell(source, id=identity)
    cell.metadata.tags = [identity]
    return cell


def main(arguments: Sequence[str]) -> int:
    match list(arguments):
        case ["sync", *options] if options in ([], ["--check"]):
            changed = sync(check=bool(options))
            for path in changed:
                print(f"{'would change' if options else 'changed'} {path.name}")
            return int(bool(options and changed))
        case ["render", *references]:
            paths = [find_notebook(reference) for reference in references] or notebook_paths()
            changed = render(
                paths, on_notebook=lambda path, seconds: print(f"{path.stem}  {seconds:.1f} s", flush=True)
            )
            print(f"{len(changed)} of {len(paths)} changed")
            return 0
        case ["copy", folder]:
            print("\n".join(f"copied {path.name}" for path in copy(Path(folder))) or f"{folder} is up to date")
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except GenesisError as error:
        sys.exit(f"notebooks: {error}")
