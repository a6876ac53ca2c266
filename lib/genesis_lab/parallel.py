"""Aggregates over a dataset of any size: cut it, count each piece, merge. In this process, in several, or on Dask."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from genesis_lab.dataset import Dataset
from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Unavailable
from genesis_lab.settings import get_settings

PIECE_ROWS = 50_000
"""Records of a piece, unless the number of partitions is given."""

A = TypeVar("A")
T = TypeVar("T")
CONNECT = "10s"
"""How long a Dask scheduler may take to answer."""
Where = Literal["inline", "processes", "dask"]


@dataclass(frozen=True)
class Piece:
    """Some consecutive records: rows ``start:stop`` of each file, in order."""

    slices: tuple[tuple[Path, int, int], ...]

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The records; reads only the row groups that hold them."""
        return pa.concat_tables([_rows(path, start, stop, columns) for path, start, stop in self.slices])


def map_reduce(
    dataset: Dataset,
    partial: Callable[[pa.Table], A],
    merge: Callable[[A, A], A],
    *,
    partitions: int | None = None,
    executor: Executor | Where | None = None,
    columns: Sequence[str] | None = None,
    split: str | None = None,
) -> A:
    """``partial`` of each piece of the dataset, merged from left to right in the dataset's order.

    The result depends neither on the number of pieces nor on where they are counted, if ``merge`` is associative: keep
    counts and sums of integers, not of floats.

    Parameters
    ----------
    partial : aggregate of a table; a function at the top of a module (or `functools.partial` of one), to be sent to
        other processes. An empty dataset is one empty table.
    merge : the aggregate of two neighbouring pieces.
    partitions : number of pieces; None: as many as keep each under `PIECE_ROWS` records and every worker busy. Never
        more than there are records.
    executor : ``inline``, ``processes`` (`GENESIS_WORKERS` of them), ``dask`` (`GENESIS_DASK_ADDRESS`, whose workers
        must see the dataset's folder, else a cluster on this machine), or any `concurrent.futures.Executor`. None: Dask
        if an address is set, processes if there is more than one worker, else inline.

    Raises
    ------
    InvalidInput : the number of partitions is below 1, or the executor is unknown.
    Unavailable : the Dask scheduler can't be reached.
    GenesisError : a worker process died.
    """
    settings = get_settings()
    if executor is None:
        executor = "dask" if settings.dask_address else "processes" if settings.workers > 1 else "inline"
    total = sum(n for name, n in dataset.counts.items() if split in (None, name))
    if partitions is None:
        partitions = max(1, math.ceil(total / PIECE_ROWS), 1 if executor == "inline" else settings.workers)
    pieces = cut(dataset, partitions, split)
    if executor == "inline":
        return reduce(merge, (partial(piece.table(columns)) for piece in pieces))
    with _pool(executor, settings.workers, settings.dask_address) as pool:
        waiting = [pool.submit(_count, partial, piece, columns) for piece in pieces]
        try:
            return reduce(merge, (future.result() for future in _released(waiting)))
        except BrokenProcessPool:
            raise GenesisError("A worker process died, most likely of too little memory: use fewer workers.") from None
        finally:
            for future in waiting:
                future.cancel()


def cut(dataset: Dataset, partitions: int, split: str | None = None) -> list[Piece]:
    """The dataset in `partitions` pieces of equal size, give or take one record, in order; fewer if it is too small."""
    if partitions < 1:
        raise InvalidInput(f"partitions must be at least 1, got {partitions}.")
    sizes = [(part, pq.read_metadata(part).num_rows) for part in dataset.parts(split)]
    total = sum(n for _, n in sizes)
    if not total:
        return [Piece(((sizes[0][0], 0, 0),))]
    partitions = min(partitions, total)
    bounds = [i * total // partitions for i in range(partitions + 1)]
    pieces = []
    for first, last in pairwise(bounds):
        slices, begin = [], 0
        for part, n in sizes:
            start, stop = max(first - begin, 0), min(last - begin, n)
            if start < stop:
                slices.append((part, start, stop))
            begin += n
        pieces.append(Piece(tuple(slices)))
    return pieces


def _rows(path: Path, start: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
    with pq.ParquetFile(path) as file:
        groups: list[int] = []
        first = begin = 0
        for group in range(file.num_row_groups):
            n = file.metadata.row_group(group).num_rows
            if begin < stop and begin + n > start:
                first = first if groups else begin
                groups.append(group)
            begin += n
        wanted = None if columns is None else list(columns)
        return file.read_row_groups(groups, columns=wanted).slice(start - first, stop - start)


def _count(partial: Callable[[pa.Table], A], piece: Piece, columns: Sequence[str] | None) -> A:
    return partial(piece.table(columns))


def _released(waiting: list[T]) -> Iterator[T]:
    """Each future in order; the list lets go of it, so that a merged aggregate is not kept."""
    waiting.reverse()
    while waiting:
        yield waiting.pop()


@contextmanager
def _pool(executor: Executor | Where, workers: int, dask_address: str | None) -> Iterator[Executor]:
    if executor == "processes":
        # Not fork: Arrow and DuckDB have threads, which a forked process would inherit half dead.
        import multiprocessing

        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
            yield pool
    elif executor == "dask":
        with _dask(workers, dask_address) as pool:
            yield pool
    elif isinstance(executor, Executor):
        yield executor
    else:
        raise InvalidInput(f"Unknown executor {executor!r}: expected inline, processes or dask.")


@contextmanager
def _dask(workers: int, address: str | None) -> Iterator[Executor]:
    try:
        import distributed
    except ImportError:
        raise MissingDependency("dask", "counting on a cluster", 'pip install "dask[distributed]"') from None
    dask: Any = distributed
    if address:
        try:
            client = dask.Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise Unavailable(f"The Dask scheduler at {address} can't be reached: {reason}") from None
        with client:
            yield client.get_executor(pure=False)
        return
    with (
        dask.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None) as cluster,
        dask.Client(cluster, set_as_default=False) as client,
    ):
        yield client.get_executor(pure=False)
