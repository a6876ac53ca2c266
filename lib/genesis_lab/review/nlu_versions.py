"""What was edited in a bot's training data, written whole or not at all: a version with a backup each, put back, committed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from genesis_lab.errors import InvalidInput, MissingDependency
from genesis_lab.files import output_root, placed, shown
from genesis_lab.review.nlu import Row, base_of, text_of
from genesis_lab.review.nlu_merge import Merge


def write(merge: Merge, author: str) -> list[Row]:
    """Write what was planned: all files or none. Returns the new versions.

    What was there before and what is there now is kept under ``outputs/nlu``, with a line per version: who, when, what.
    """
    history = _history(merge.folder)
    history.mkdir(parents=True, exist_ok=True)
    made: list[Row] = []
    for name, texts in merge.files.items():
        path = merge.folder / name
        if (text_of(path) if path.exists() else "") != texts[0]:
            raise InvalidInput(f"{name} was changed since the merge was planned: plan it again.")
        for text in texts:
            (history / f"{_hash(text)}.backup").write_bytes(text.encode())
        added, removed = (sum(row["file"] == name for row in rows) for rows in (merge.added, merge.removed))
        made.append({
            "file": name, "author": author, "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "before": _hash(texts[0]), "after": _hash(texts[1]), "added": added, "removed": removed,
        })  # fmt: skip
    with ExitStack() as back:  # all files are put back where one can't be written
        for name, texts in merge.files.items():
            _put(merge.folder / name, texts[1])
            back.callback(_put, merge.folder / name, texts[0])
        back.pop_all()
    with (history / "versions.jsonl").open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(version, ensure_ascii=False) + "\n" for version in made)
    return made


def versions(folder: Path) -> list[Row]:
    """The versions that were written of a data folder, the first one first."""
    path = _history(base_of(folder)) / "versions.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def restored(folder: Path, file: str, version: str) -> Merge:
    """What puts `file` back to a content, by the beginning of a hash in `versions`; nothing is written.

    `InvalidInput` where the file is not as the last version left it: a person changed it since.
    """
    base, known = base_of(folder), [one for one in versions(folder) if one["file"] == file]
    found = {one[side] for one in known for side in ("before", "after") if version and one[side].startswith(version)}
    if len(found) != 1:
        raise InvalidInput(f"{file} had {len(found)} contents {version!r}: genesis review nlu versions lists them.")
    now = text_of(base / file) if (base / file).exists() else ""
    if _hash(now) != known[-1]["after"]:
        told = "was changed by hand since {author} wrote it ({when}), which would be lost".format(**known[-1])
        raise InvalidInput(f"{file} {told}: undo that, or keep a copy, first.")
    return Merge(base, {file: (now, text_of(_history(base) / f"{found.pop()}.backup"))})


def on_branch(folder: Path, branch: str) -> None:
    """Be on a branch of the bot's git repository, made where it is not there; `InvalidInput` where the folder is not committed."""
    if changed := _git(folder, "status", "--porcelain", "--", "."):
        raise InvalidInput(f"{shown(folder)} has changes that are not committed: {changed.splitlines()[0].strip()}.")
    there = branch in _git(folder, "branch", "--format=%(refname:short)").splitlines()
    _git(folder, "switch", "--quiet", *([] if there else ["--create"]), branch)


def commit(merge: Merge, message: str) -> str:
    """Commit the files of a merge that was written, and nothing else; the commit's short hash."""
    _git(merge.folder, "add", "--", *merge.files)
    _git(merge.folder, "commit", "--quiet", "--message", message, "--", *merge.files)
    return _git(merge.folder, "rev-parse", "--short", "HEAD")


def _git(folder: Path, *arguments: str) -> str:
    where = base_of(folder)
    try:
        done = subprocess.run(["git", "-C", str(where), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise MissingDependency("git", "branches", "https://git-scm.com/downloads") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it says nothing"]
        raise InvalidInput(f"git {arguments[0]} in {shown(where)} failed: {said[0].rstrip('.')}.")
    return done.stdout.strip()


def _history(folder: Path) -> Path:
    return output_root() / "nlu" / f"{folder.name}-{_hash(str(folder.resolve()))}"


def _put(path: Path, text: str) -> None:
    if not text:  # as before there was one
        return path.unlink(missing_ok=True)
    target = path.resolve()  # through a link, not over it
    with placed(target, replace=True) as temporary:
        temporary.write_bytes(text.encode())
        if target.exists():
            shutil.copymode(target, temporary)
    return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
