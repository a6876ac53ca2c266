"""What is put in place is the old or the new, whole, and never anything of somebody else's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genesis_lab.dataset import DatasetWriter, open_dataset
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.files import dataset_path, placed
from records import conversation

KILLED = """
import os, sys
from pathlib import Path
from genesis_lab.dataset import DatasetWriter
from records import conversation
left = [int(sys.argv[2])]
def die(event, arguments):
    if event in ("os.rename", "os.remove", "os.rmdir"):
        left[0] -= 1
        if not left[0]:
            os._exit(9)
with DatasetWriter(Path(sys.argv[1]), "conversations", replace=True) as writer:
    writer.write(conversation(i) for i in range(4))
    sys.addaudithook(die)
"""
"""Dies at the n-th time that something is renamed or removed."""


def write(path: Path, n: int, replace: bool = False) -> None:
    with DatasetWriter(path, "conversations", replace=replace) as writer:
        writer.write(conversation(i) for i in range(n))


def test_a_kill_at_any_moment_of_replacing_leaves_the_old_or_the_new_dataset(tmp_path: Path) -> None:
    path = os.pathsep.join(filter(None, sys.path))
    for moment in range(1, 100):
        write(tmp_path / "d", 3, replace=True)
        code = [sys.executable, "-c", KILLED, str(tmp_path / "d"), str(moment)]
        status = subprocess.run(code, env=os.environ | {"PYTHONPATH": path}).returncode
        assert open_dataset(tmp_path / "d").total in ((3, 4) if status else (4,))
        if status == 0:
            break
        assert status == 9
    assert moment > 3
    write(tmp_path / "d", 5, replace=True)
    assert open_dataset(tmp_path / "d").total == 5 and [p.name for p in tmp_path.iterdir()] == ["d"]


def test_what_fails_while_it_replaces_leaves_the_old(tmp_path: Path) -> None:
    write(tmp_path / "d", 3)
    with pytest.raises(RuntimeError), DatasetWriter(tmp_path / "d", "conversations", replace=True):
        raise RuntimeError
    assert open_dataset(tmp_path / "d").total == 3 and [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize(
    "files",
    [
        {"manifest.json": "{}"},
        {"manifest.json": json.dumps({"name": "my extension", "manifest_version": 3})},
        {"manifest.json": json.dumps({"format": 1, "domain": "farming"}), "data/x.parquet": ""},
        {"dataset_dict.json": "{}"},
        {"model.json": "{}"},
    ],
)
def test_a_folder_of_somebody_else_is_never_replaced(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_text(text)
    with pytest.raises(InvalidInput, match="other things"):
        write(tmp_path / "d", 3, replace=True)
    assert all((tmp_path / "d" / name).read_text() == text for name, text in files.items())


@pytest.mark.parametrize("name", ["notes.txt", "data/raw.csv"])
def test_a_file_of_the_users_in_a_dataset_is_not_removed_with_it(tmp_path: Path, name: str) -> None:
    write(tmp_path / "d", 3)
    (tmp_path / "d" / name).write_text("mine")
    with pytest.raises(InvalidInput, match="other things"):
        write(tmp_path / "d", 4, replace=True)
    assert (tmp_path / "d" / name).read_text() == "mine" and open_dataset(tmp_path / "d").total == 3


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("mine")
    with pytest.raises(InvalidInput, match="no folder"):
        write(tmp_path / "d", 3, replace=True)
    assert (tmp_path / "d").read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["", " ", ".", "..", "a/..", "x" * 300, "ñ" * 150, "a/" + "b" * 300, "a\0b", "a\nb", "\ud800"]
)
def test_a_name_that_no_folder_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="give a name"):
        dataset_path(name)


def test_a_link_to_a_dataset_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    write(tmp_path / "real", 3)
    (tmp_path / "d").symlink_to(tmp_path / "real")
    write(tmp_path / "d", 4, replace=True)
    assert open_dataset(tmp_path / "d").total == 4 and open_dataset(tmp_path / "real").total == 3


def test_a_full_disk_while_a_file_is_replaced_leaves_the_old(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("old")
    with pytest.raises(GenesisError, match="disk is full"), placed(tmp_path / "f", replace=True) as temporary:
        temporary.write_text("half")
        raise OSError(28, "No space left on device")
    assert (tmp_path / "f").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["f"]
