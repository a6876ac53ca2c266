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
from genesis_lab.dataset import DatasetWriter, open_dataset
from records import conversation
path = Path(sys.argv[1])
def write(n, moment=0):
    left = [moment]
    def die(event, arguments):
        if event in ("os.rename", "os.remove", "os.rmdir"):
            left[0] -= 1
            if not left[0]:
                os._exit(9)
    with DatasetWriter(path, "conversations", replace=True) as writer:
        writer.write(conversation(i) for i in range(n))
        if moment:
            sys.addaudithook(die)
for moment in range(1, 100):
    write(3)
    child = os.fork()
    if not child:
        write(4, moment)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, open_dataset(path).total)
    if not status:
        break
"""
"""A copy of the process dies at the n-th time that something is renamed or removed, until n is beyond the last."""


def write(path: Path, n: int, replace: bool = False) -> None:
    with DatasetWriter(path, "conversations", replace=replace) as writer:
        writer.write(conversation(i) for i in range(n))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_kill_at_any_moment_of_replacing_leaves_the_old_or_the_new_dataset(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    code = [sys.executable, "-c", KILLED, str(tmp_path / "d")]
    said = subprocess.run(code, env=environment, capture_output=True, text=True, check=True).stdout
    *killed, whole = [tuple(map(int, line.split())) for line in said.splitlines()]
    assert len(killed) > 3 and set(killed) <= {(9, 3), (9, 4)} and whole == (0, 4)
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
