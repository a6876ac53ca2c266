"""Where things are, whatever the working directory, and writing that leaves the old file or folder or the new one."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.settings import get_settings, project_root

SHARED = ("cache", "reference")
"""Folders of an output root that say nothing about a run: an isolated root links to them."""
LONGEST_NAME = 200
"""Bytes of a file's or folder's name: file systems take 255, and what is written beside it has a longer one."""


def output_root() -> Path:
    """The folder that runs write to: ``GENESIS_OUTPUT_ROOT``, else ``outputs/`` of the checkout."""
    return get_settings().output_root or project_root() / "outputs"


def resolve(path: str | Path) -> Path:
    """An absolute path: relative ones start at the project root, ``outputs/…`` at the output root, wherever that is."""
    path = Path(path).expanduser()
    if path.parts[:1] == ("outputs",):
        return output_root().joinpath(*path.parts[1:])
    return project_root() / path


def named(kind: str, name: str | Path) -> Path:
    """The folder of a dataset or model given by bare name (under ``outputs/<kind>``) or by path."""
    text, path = str(name), Path(name)
    if not text.strip() or path.name in ("", "..") or any(unicodedata.category(c) in ("Cc", "Cs") for c in text):
        wrong = f"{text!r} names no folder"
    elif any(len(part.encode()) > LONGEST_NAME for part in path.parts):
        wrong = f"{text[:40]!r}… is longer than a folder's name can be ({LONGEST_NAME} bytes)"
    elif text.startswith("~") and path.parts[0] != "~":
        wrong = f"{text!r} begins with another user's home"
    else:
        bare = len(path.parts) == 1 and not text.startswith((".", "~"))
        return output_root() / kind / path if bare else resolve(path)
    raise InvalidInput(f"{wrong}: give a name of letters, digits, - and _, or the path of a folder.")


def dataset_path(name: str | Path) -> Path:
    """The folder of a dataset given by bare name (under ``outputs/datasets``) or by path; see `named`."""
    return named("datasets", name)


def shown(path: Path) -> str:
    """`path` as reports and notebooks show it: relative to the project, or as given; never a machine's own path."""
    path = Path(path)
    for root, prefix in ((output_root(), "outputs"), (project_root(), "")):
        if path.is_relative_to(root):
            return (Path(prefix) / path.relative_to(root)).as_posix()
    return path.as_posix() if not path.is_absolute() and ".." not in path.parts else path.name


def findable(path: Path) -> str:
    """`path` as a parameter can name it: as `shown`, but in full where that is found from nowhere else."""
    short = shown(path)
    return short if resolve(short) == Path(path) else str(path)


def write_atomically(path: Path, text: str) -> None:
    """Write UTF-8 `text` to a temporary name beside `path`, then rename; what fails leaves what was there before."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise write_error(error, path) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def placed(target: Path, *, replace: bool = False, ours: Callable[[Path], bool] = Path.is_file) -> Iterator[Path]:
    """A temporary path beside `target` to write a file or a folder to; it becomes `target` on a clean exit.

    What is replaced (only if `replace`, and if `ours` says so of it) goes last, when the new is whole. A kill leaves
    the old or the new; see `recovered`. One sentence where `target` is in the way, being written, or can't be written.
    """
    temporary, old, lock = (target.with_name(f".{target.name}.{role}") for role in ("writing", "old", "lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            try:
                _undo(old, target)
                _remove(temporary)
                check_free(target, replace=replace, ours=ours)
                yield temporary
                for file in [temporary, *temporary.rglob("*")]:
                    if file.is_file():
                        with file.open("rb+") as handle:
                            os.fsync(handle.fileno())
                check_free(target, replace=replace, ours=ours)
                if target.is_dir():
                    target.rename(old)
                temporary.replace(target)
                _remove(old)
            finally:
                _remove(temporary)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise InvalidInput(f"Another process is writing {shown(target)}: wait for it or choose another name.") from None
    except OSError as error:
        raise write_error(error, target) from None


def recovered(target: Path) -> Path:
    """`target`; where a kill came just as it was being replaced, what was replaced is put back first."""
    old, lock = target.with_name(f".{target.name}.old"), target.with_name(f".{target.name}.lock")
    if old.exists() and not target.exists():
        with suppress(OSError, Timeout), FileLock(lock, timeout=1):
            _undo(old, target)
            lock.unlink(missing_ok=True)
    return target


def check_free(target: Path, *, replace: bool, ours: Callable[[Path], bool]) -> None:
    """Refuse to write where something is that is not ours, or that is not to be replaced; an empty folder is free."""
    if not os.path.lexists(target) or (target.is_dir() and not os.path.ismount(target) and not any(target.iterdir())):
        return
    if not ours(target):
        what = "a folder with other things in it" if target.is_dir() else "a file, or something else that is no folder"
        raise InvalidInput(f"{shown(target)} is {what}: choose another name.")
    if not replace:
        raise InvalidInput(f"{shown(target)} exists already: choose another name, or have it replaced.")


def write_error(error: OSError, target: Path) -> GenesisError:
    """The one sentence for a failed write."""
    why = f"can't be written: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return GenesisError(f"The disk is full while writing {shown(target)}: free some space and run the same again.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why = "can't be written, its folder is read-only: GENESIS_OUTPUT_ROOT sets where outputs go"
    return GenesisError(f"{shown(target)} {why}.")


def _undo(old: Path, target: Path) -> None:
    """Put back what was to be replaced when a kill came between the two renames; else remove what is left of it."""
    if os.path.lexists(target):
        _remove(old)
    elif os.path.lexists(old):
        old.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def use_output_root(folder: Path | None) -> None:
    """Make `folder` the output root of this process and of the processes it starts; None goes back to the default."""
    os.environ.pop("GENESIS_OUTPUT_ROOT", None)
    if folder is not None:
        os.environ["GENESIS_OUTPUT_ROOT"] = str(folder.resolve())
    get_settings.cache_clear()


def isolated_root(folder: Path) -> Path:
    """A new output root at `folder` that shares only caches and fetched reference data with the present one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        ours, link = output_root() / name, folder / name
        ours.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(link):
            link.symlink_to(ours.resolve(), target_is_directory=True)
    return folder


def digest(*paths: Path) -> str:
    """SHA-256 over the content of these files, in this order."""
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()
