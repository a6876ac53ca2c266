from __future__ import annotations

import os
from collections import Counter

import pyarrow as pa
import pytest

from genesis_lab.dataset import writing
from genesis_lab.errors import GenesisError, InvalidInput, Unavailable
from genesis_lab.parallel import cut, map_reduce
from genesis_lab.settings import get_settings
from records import conversation, write


def seen(table: pa.Table) -> tuple[list[str], Counter[str]]:
    return table["conversation_id"].to_pylist(), Counter(table["intent"].to_pylist())


def join(a, b):
    return a[0] + b[0], a[1] + b[1]


def die(table: pa.Table) -> None:
    os._exit(9)


def fail(table: pa.Table) -> None:
    raise InvalidInput("no such thing")


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "GROUP_ROWS", 10)
    monkeypatch.setattr(writing, "PART_ROWS", 40)
    records = [conversation(i) for i in range(107)]
    return write(tmp_path / "d", {"train": records[:95], "test": records[95:]})


@pytest.fixture
def two_workers(monkeypatch):
    monkeypatch.setenv("GENESIS_WORKERS", "2")
    get_settings.cache_clear()


@pytest.mark.parametrize("partitions", [None, 1, 3, 17, 1_000])
def test_the_result_is_the_same_however_the_data_is_cut(dataset, partitions):
    ids, intents = map_reduce(dataset, seen, join, partitions=partitions)
    assert ids == dataset.frame()["conversation_id"].tolist()
    assert sum(intents.values()) == 107


def test_pieces_are_of_as_many_row_groups_and_cover_each_once(dataset):
    pieces = cut(dataset, 5)
    assert {len(piece) for piece in pieces} == {2, 3}
    groups = [group for piece in pieces for group in piece]
    assert len(groups) == len(set(groups)) == 12 == len(cut(dataset, 1_000))


def test_an_empty_dataset_is_one_empty_table(tmp_path):
    assert map_reduce(write(tmp_path / "e", []), seen, join, partitions=4) == ([], Counter())


@pytest.mark.parametrize("executor", ["threads", "processes", "dask"])
def test_other_processes_give_the_same(dataset, executor, two_workers):
    if executor == "dask":
        pytest.importorskip("distributed")
    expected = map_reduce(dataset, seen, join, executor="inline")
    assert map_reduce(dataset, seen, join, partitions=5, executor=executor) == expected


def test_more_than_one_worker_means_processes(dataset, two_workers):
    with pytest.raises(GenesisError, match="worker process died"):
        map_reduce(dataset, die, join)


def test_an_error_in_a_worker_comes_back_as_it_is(dataset):
    with pytest.raises(InvalidInput, match="no such thing"):
        map_reduce(dataset, fail, join, executor="processes")


@pytest.mark.parametrize("partitions", [0, -3])
def test_fewer_than_one_partition_is_refused(dataset, partitions):
    with pytest.raises(InvalidInput, match="partitions must be at least 1"):
        map_reduce(dataset, seen, join, partitions=partitions)


def test_an_unknown_executor_is_refused(dataset):
    with pytest.raises(InvalidInput, match="Unknown executor 'spark': expected inline, threads, processes or dask"):
        map_reduce(dataset, seen, join, executor="spark")


def test_a_dask_scheduler_that_is_not_there_is_one_sentence(dataset, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setenv("GENESIS_DASK_ADDRESS", "tcp://127.0.0.1:9")
    get_settings.cache_clear()
    monkeypatch.setattr("genesis_lab.parallel.CONNECT", "0.5s")
    with pytest.raises(Unavailable, match=r"scheduler at tcp://127.0.0.1:9 can't be reached"):
        map_reduce(dataset, seen, join)
