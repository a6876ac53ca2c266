"""The same work in this process, in several, or on Dask; aggregates over a dataset of any size: cut, count, merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from genesis_lab.dataset import Dataset
from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Unavailable
from genesis_lab.settings import get_settings

PIECE_ROWS = 10_000
"""Records of a piece, unless the number of partitions is given."""
CONNECT = "10s"
"""How long a Dask scheduler may take to answer."""
A = TypeVar("A")
Where = Literal["inline", "threads", "processes", "dask"]
Piece = list[tuple[Path, int | None]]
"""Consecutive row groups, each by file and number; None: an empty file."""


def map_reduce(
    dataset: Dataset,
    partial: Callable[[pa.Table], A],
    merge: Callable[[A, A], A],
    *,
    partitions: int | None = None,
    executor: Where | None = None,
    columns: Sequence[str] | None = None,
) -> A:
    """``partial`` of each piece of the dataset (of an empty one: an empty table), merged from left to right.

    If ``merge`` is associative (counts and sums of integers, not of floats), the result depends neither on the pieces
    nor on the executor: ``inline``, ``threads`` or ``processes`` (`GENESIS_WORKERS`), ``dask`` (`GENESIS_DASK_ADDRESS`,
    whose workers see the dataset's folder, else a cluster here). None: Dask if an address is set, processes for several
    workers.
    """
    settings = get_settings()
    executor = executor or ("dask" if settings.dask_address else "processes" if settings.workers > 1 else "inline")
    if partitions is None:
        partitions = max(1, math.ceil(dataset.total / PIECE_ROWS), 1 if executor == "inline" else settings.workers)
    jobs = [(partial, piece, columns) for piece in cut(dataset, partitions)]
    counted: Iterator[A] = spread(_count, jobs, executor, settings.workers, settings.dask_address)
    return reduce(merge, counted)


def cut(dataset: Dataset, partitions: int) -> list[Piece]:
    """The dataset in so many pieces of as many row groups each, give or take one; fewer if it has fewer."""
    if partitions < 1:
        raise InvalidInput(f"partitions must be at least 1, got {partitions}.")
    parts = dataset.parts()
    groups: Piece = [(part, i) for part in parts for i in range(pq.read_metadata(part).num_row_groups)]
    n = len(groups := groups or [(parts[0], None)])
    bounds = [i * n // min(partitions, n) for i in range(min(partitions, n) + 1)]
    return [groups[first:last] for first, last in pairwise(bounds)]


def counting() -> duckdb.DuckDBPyConnection:
    """A connection for the tables of one piece, to be closed.

    The database behind it (one thread, in memory) is made once per process, as that takes 20 ms.
    """
    return _database().cursor()


@lru_cache(maxsize=1)
def _database() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(config={"threads": 1})


def _count(partial: Callable[[pa.Table], A], piece: Piece, columns: Sequence[str] | None) -> A:
    wanted = None if columns is None else list(columns)
    tables = []
    for path, group in piece:
        with pq.ParquetFile(path) as file:
            tables.append(file.read_row_groups([] if group is None else [group], columns=wanted))
    return partial(pa.concat_tables(tables))


def spread(
    function: Callable[..., A],
    jobs: Sequence[tuple[Any, ...]],
    where: Where,
    workers: int,
    dask_address: str | None = None,
    *,
    ordered: bool = True,
) -> Iterator[A]:
    """What `function` makes of each job's arguments, as it comes."""
    from joblib import Parallel, delayed

    with _backend(where, workers, dask_address):
        run = Parallel(return_as="generator" if ordered else "generator_unordered", pre_dispatch="all")
        try:
            yield from run(delayed(function)(*job) for job in jobs)
        except BrokenProcessPool:
            raise GenesisError("A worker process died, most likely of too little memory: use fewer workers.") from None


@contextmanager
def _backend(where: Where, workers: int, dask_address: str | None) -> Iterator[None]:
    from joblib import parallel_config

    backends = {"inline": ("sequential", 1), "threads": ("threading", workers), "processes": ("loky", workers)}
    if where in backends:
        name, n_jobs = backends[where]
        with parallel_config(name, n_jobs=n_jobs):
            yield
        return
    if where != "dask":
        raise InvalidInput(f"Unknown executor {where!r}: expected inline, threads, processes or dask.")
    try:
        from distributed import Client  # type: ignore[import-not-found,unused-ignore]  # optional
    except ImportError:
        raise MissingDependency("dask", "Work on a cluster", 'pip install "genesis-lab[dask]"') from None
    here = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
    try:
        client = Client(dask_address, timeout=CONNECT) if dask_address else Client(**here)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise Unavailable(f"The Dask scheduler at {dask_address} can't be reached: {reason}") from None
    with client, parallel_config("dask", n_jobs=-1, client=client):
        yield
