"""The same work in this process, in several, or on Dask; and aggregates over a dataset of any size: cut, count, merge."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
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

PIECE_ROWS = 10_000
"""Records of a piece, unless the number of partitions is given."""
CONNECT = "10s"
"""How long a Dask scheduler may take to answer."""

A = TypeVar("A")
Where = Literal["inline", "threads", "processes", "dask"]


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
    executor: Where | None = None,
    columns: Sequence[str] | None = None,
    split: str | None = None,
) -> A:
    """``partial`` of each piece of the dataset, merged from left to right in the dataset's order.

    The result depends neither on the number of pieces nor on where they are counted, if ``merge`` is associative: keep
    counts and sums of integers, not of floats.

    Parameters
    ----------
    partial : aggregate of a table. An empty dataset is one empty table.
    merge : the aggregate of two neighbouring pieces.
    partitions : number of pieces; None: as many as keep each under `PIECE_ROWS` records and every worker busy. Never
        more than there are records.
    executor : ``inline``, ``threads`` or ``processes`` (`GENESIS_WORKERS` of them), ``dask`` (`GENESIS_DASK_ADDRESS`, whose
        workers must see the dataset's folder, else a cluster on this machine). None: Dask if an address is set,
        processes if there is more than one worker, else inline.

    Raises
    ------
    InvalidInput : the number of partitions is below 1, or the executor is unknown.
    Unavailable : the Dask scheduler can't be reached.
    GenesisError : a worker process died.
    """
    settings = get_settings()
    executor = executor or ("dask" if settings.dask_address else "processes" if settings.workers > 1 else "inline")
    total = sum(n for name, n in dataset.counts.items() if split in (None, name))
    if partitions is None:
        partitions = max(1, math.ceil(total / PIECE_ROWS), 1 if executor == "inline" else settings.workers)
    pieces = cut(dataset, partitions, split)
    jobs = [(partial, piece, columns) for piece in pieces]
    counted: Iterator[A] = spread(_count, jobs, executor, settings.workers, settings.dask_address)
    return reduce(merge, counted)


def spread(
    function: Callable[..., A],
    jobs: Sequence[tuple[Any, ...]],
    where: Where,
    workers: int,
    dask_address: str | None = None,
    *,
    ordered: bool = True,
) -> Iterator[A]:
    """What `function` makes of each job's arguments, as it comes; see `map_reduce` for the errors."""
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
        import distributed
    except ImportError:
        raise MissingDependency("dask", "Work on a cluster", 'pip install "genesis-lab[dask]"') from None
    dask: Any = distributed
    try:
        here = {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        client = dask.Client(dask_address, timeout=CONNECT) if dask_address else dask.Client(**here)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise Unavailable(f"The Dask scheduler at {dask_address} can't be reached: {reason}") from None
    with client, parallel_config("dask", n_jobs=-1, client=client):
        yield


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
