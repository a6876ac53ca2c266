"""Generated cells and rendering: the same bytes every time, nothing of this machine, no half-written file."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from genesis_lab.errors import InvalidInput, StageFailed
from genesis_lab.notebooks import find_notebook, notebook_paths
from genesis_lab.settings import get_settings
from notebook_tools import MAX_BYTES, copy, reference_here, render, sync
from tiny_notebooks import write_notebook


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    write_notebook(folder, "00_start", "n: int = 2", "n + 1", title="Start here")
    write_notebook(folder, "10_middle", "n: int = 2", "print('a'); print('b')", title="In the middle")
    write_notebook(folder, "20_end", "n: int = 2", "n", title="The end")
    return folder


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def test_sync_generates_badge_setup_and_neighbours(folder: Path) -> None:
    assert sync(folder) == [folder / f"{name}.ipynb" for name in ("00_start", "10_middle", "20_end")]
    title, badge, setup, *_, navigation = cells(folder / "10_middle.ipynb")
    assert source(title) == "# In the middle"
    place = "genesis-lab/genesis-lab/blob/main/notebooks/10_middle.ipynb"
    assert f"https://colab.research.google.com/github/{place}" in source(badge)
    assert "COLAB_RELEASE_TAG" in source(setup) and "nbval-skip" in setup["metadata"]["tags"]
    assert source(navigation).splitlines()[2:] == [
        "[Start here](00_start.ipynb)",
        "",
        "Conversations: **In the middle** → [The end](20_end.ipynb)",
    ]
    assert setup["metadata"]["jupyter"] == {"source_hidden": True}
    start, end = (source(cells(folder / name)[-1]) for name in ("00_start.ipynb", "20_end.ipynb"))
    assert "[In the middle](10_middle.ipynb) → [The end](20_end.ipynb)" in start, "the first one shows every track"
    assert "Conversations: [In the middle](10_middle.ipynb) → **The end**" in end


def test_sync_check_tells_and_changes_nothing(folder: Path) -> None:
    before = (folder / "00_start.ipynb").read_bytes()
    assert len(sync(folder, check=True)) == 3
    assert (folder / "00_start.ipynb").read_bytes() == before
    sync(folder)
    assert sync(folder, check=True) == []


def test_a_new_notebook_changes_its_neighbours_links(folder: Path) -> None:
    sync(folder)
    write_notebook(folder, "11_new", "n: int = 2", title="New")
    assert [p.stem for p in sync(folder)] == ["00_start", "11_new", "20_end"], "those of its track, and where all start"


def test_one_works_on_copies_and_nothing_of_it_is_lost(folder: Path, tmp_path: Path) -> None:
    lab, original = tmp_path / "outputs" / "notebooks", folder / "10_middle.ipynb"
    before = original.read_bytes()
    assert len(copy(lab, folder)) == 3 and copy(lab, folder) == []
    mine = lab / original.name
    mine.write_text("what I made of it")
    assert copy(lab, folder) == [] and mine.read_text() == "what I made of it" and original.read_bytes() == before
    original.write_bytes(before + b"\n")
    assert copy(lab, folder) == [mine] and mine.read_bytes() == before + b"\n"
    assert (lab / "10_middle.yours.ipynb").read_text() == "what I made of it"
    assert {path.name for path in notebook_paths(folder)} == {"00_start.ipynb", "10_middle.ipynb", "20_end.ipynb"}


def test_a_notebook_without_a_title_is_named(folder: Path) -> None:
    path = folder / "10_middle.ipynb"
    path.write_text(path.read_text().replace("# In the middle", "In the middle"))
    with pytest.raises(InvalidInput, match="must start with a Markdown cell"):
        sync(folder)


def test_render_is_the_same_bytes_every_time_and_sync_agrees(folder: Path) -> None:
    sync(folder)
    path = folder / "10_middle.ipynb"
    assert render([path]) == [path]
    first = path.read_bytes()
    assert render([path]) == [] and path.read_bytes() == first
    assert path not in sync(folder, check=True)
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == [1, 2, 3], "nbval skips cells without a count"
    assert source(code[-1]) and code[-1]["outputs"] == [
        {"name": "stdout", "output_type": "stream", "text": ["a\n", "b\n"]}
    ]
    assert not any("execution" in cell["metadata"] for cell in cells(path))


def test_rendered_notebooks_pass_nbval(folder: Path) -> None:
    code = "import random\nfrom genesis_lab.pipeline import record_metrics\nrecord_metrics({'share': n / 3})"
    path = write_notebook(folder, "30_metrics", "n: int = 2", code)
    render([path])
    (folder / "31_other.ipynb").write_text(path.read_text().replace("0.6667", "0.9"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "nbval.plugin", "--nbval", "--nbval-current-env"]
    command += ["-p", "no:cacheprovider", path.name, "31_other.ipynb"]
    environment = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | environment)
    assert re.findall(r"^(?:FAILED|ERROR) (\S+?)::", found.stdout, re.MULTILINE) == ["31_other.ipynb"], found.stdout
    assert "1 failed, 3 passed" in found.stdout, found.stdout


def test_a_notebook_says_which_real_data_it_was_measured_on_as_long_as_it_asks_for_it(folder: Path) -> None:
    """Not by its source: the package may ask for it, and what the source names may not run."""
    asks = "from genesis_lab.validation.reference import for_worth\nitems = for_worth()"
    path = write_notebook(folder, "30_measured", "real: bool = True", f"if real:\n    {asks.replace(chr(10), '; ')}")
    render([path])
    assert json.loads(path.read_text())["metadata"]["genesis"] == {"reference": reference_here()}
    assert "_asked" not in path.read_text()
    path.write_text(path.read_text().replace("real: bool = True", "real: bool = False  # load_reference"))
    render([path])
    assert "genesis" not in json.loads(path.read_text())["metadata"]


def test_widgets_leave_no_state_behind(folder: Path) -> None:
    code = "import ipywidgets\nfrom IPython.display import display\ndisplay(ipywidgets.IntSlider())\nprint('shown')"
    path = write_notebook(folder, "30_widget", "n: int = 2", code)
    render([path])
    assert "widget" not in json.dumps([json.loads(path.read_text())["metadata"], cells(path)[-1]["outputs"]])
    assert "shown" in path.read_text()


def test_each_notebook_is_rendered_with_outputs_of_its_own(folder: Path, own_output_root: Path) -> None:
    code = "from genesis_lab.files import output_root\n(output_root() / 'x').mkdir()\n"
    code += "sorted(p.name for p in output_root().iterdir())"
    path = write_notebook(folder, "30_write", "n: int = 2", code)
    render([path])
    assert "['cache', 'reference', 'x']" in path.read_text()
    assert not (own_output_root / "x").exists() and get_settings().output_root == own_output_root


def test_what_is_so_on_one_machine_is_not_committed(folder: Path) -> None:
    path = write_notebook(folder, "30_machine", "n: int = 2", "print('24 GiB')")
    notebook = json.loads(path.read_text())
    notebook["cells"][-1]["metadata"]["tags"] = ["genesis-machine"]
    path.write_text(json.dumps(notebook))
    render([path])
    shown = cells(path)[-1]["outputs"]
    assert "24 GiB" not in json.dumps(shown) and "Run this cell" in json.dumps(shown)
    assert cells(path)[-1]["execution_count"]


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        ("1 / 0", StageFailed, r"30_bad\.ipynb, cell 2: ZeroDivisionError: division by zero"),
        ("'x' * 500_000", InvalidInput, r"30_bad\.ipynb would be 50\d kB, the limit is 400 kB: cell 3 holds 50\d kB"),
        ("from pathlib import Path\nprint(Path.home() / 'x')", InvalidInput, "would show a path of this machine"),
        ("import os\nprint(os.environ['MY_TOKEN'])", InvalidInput, "would show the value of MY_TOKEN"),
    ],
)
def test_what_must_not_be_committed_is_not_written(
    folder: Path, code: str, error: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_TOKEN", "abcdefgh12345678")
    path = write_notebook(folder, "30_bad", "n: int = 2", code)
    before = path.read_bytes()
    with pytest.raises(error, match=sentence):
        render([path])
    assert path.read_bytes() == before


def test_a_notebook_is_found_by_number_name_stem_or_path(folder: Path) -> None:
    for reference in (10, "10", "middle", "10_middle", "10_middle.ipynb", str(folder / "10_middle.ipynb")):
        assert find_notebook(reference, folder) == folder / "10_middle.ipynb"
    assert find_notebook(0, folder).stem == "00_start"
    with pytest.raises(InvalidInput, match="There is no notebook '30': there are 00_start, 10_middle, 20_end"):
        find_notebook(30, folder)


COMMITTED = notebook_paths()


def test_generated_cells_of_the_committed_notebooks_are_up_to_date() -> None:
    assert sync(check=True) == [], "run: make render"


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_committed_notebooks_were_run_whole_and_are_small(path: Path) -> None:
    code = [c for c in cells(path) if c["cell_type"] == "code" and "nbval-skip" not in c["metadata"].get("tags", ())]
    assert all(cell["execution_count"] for cell in code), "nbval skips cells without a count: make render"
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error"]
    assert any("parameters" in cell["metadata"].get("tags", ()) for cell in code)
    assert path.stat().st_size <= MAX_BYTES


@pytest.mark.parametrize("path", COMMITTED, ids=lambda p: p.stem)
def test_little_code_stands_between_a_reader_and_the_results(path: Path) -> None:
    code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
    seen = [cell for cell in code if not cell["metadata"].get("jupyter", {}).get("source_hidden")]
    form = any("controls." in source(cell) for cell in code)
    assert sum(len(source(cell).splitlines()) for cell in seen) <= (40 if form else 80)
    if form:
        assert not any("parameters" in cell["metadata"].get("tags", ()) for cell in seen), "the form says it"


def test_what_the_notebooks_import_is_there() -> None:
    for path in notebook_paths():
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for source in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
            tree = ast.parse(re.sub(r"^(\s*)[%!].*", r"\1pass", source, flags=re.MULTILINE))
            for node in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
                if not (node.module or "").startswith("genesis_lab"):
                    continue
                module = import_module(str(node.module))
                for name in (one.name for one in node.names):
                    there = hasattr(module, name) or (
                        hasattr(module, "__path__") and find_spec(f"{node.module}.{name}")
                    )
                    assert there, f"{path.name}: {node.module} has no {name}"
