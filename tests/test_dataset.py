from __future__ import annotations

import errno
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from genesis_lab.dataset import (
    DatasetWriter,
    assign_splits,
    dataset_names,
    open_dataset,
    writing,
)
from genesis_lab.dataset.schema import arrow_schema, schema_of
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.generation import config_for, generate
from records import conversation, write


def conversations(n: int) -> list[dict]:
    return [conversation(i) for i in range(n)]


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_read_back(tmp_path):
    records = conversations(25)
    dataset = write(tmp_path / "d", {"train": records[:20], "test": records[20:]})
    assert dataset.counts == {"train": 20, "test": 5} and dataset.total == 25 and dataset.domain == "conversations"
    assert dataset.frame()["conversation_id"].tolist() == [r["conversation_id"] for r in records]
    assert dataset.frame("test", ["turns"])["turns"].iloc[0][0]["text"] == records[20]["turns"][0]["text"]
    assert [b.num_rows for b in dataset.batches(8, columns=["intent"], split="train")] == [8, 8, 4]
    assert leftovers(tmp_path) == ["d"]


def test_hugging_face_datasets_opens_the_folder_as_it_is(tmp_path, monkeypatch):
    import datasets

    dataset = write(tmp_path / "d", {"train": conversations(6), "test": [conversation(7)]})
    (dataset.path / "reports").mkdir()
    (dataset.path / "reports" / "quality.json").write_text("{}")
    loaded = datasets.load_dataset(str(dataset.path), cache_dir=str(tmp_path / "cache"))
    assert {split: part.num_rows for split, part in loaded.items()} == {"train": 6, "test": 1}
    assert loaded["train"][1]["turns"][0] == conversation(1)["turns"][0]


def test_parts_hold_fifty_thousand_rows_however_the_records_arrive(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "GROUP_ROWS", 10)
    monkeypatch.setattr(writing, "PART_ROWS", 50)
    whole = write(tmp_path / "whole", conversations(123))
    with DatasetWriter(tmp_path / "drops", "conversations") as writer:
        for record in conversations(123):
            writer.write([record])
    drops = open_dataset(tmp_path / "drops")
    assert [part.name for part in whole.parts()] == [f"train-0000{i}-of-00003.parquet" for i in range(3)]
    assert [pq.read_metadata(part).num_rows for part in whole.parts()] == [50, 50, 23]
    assert [part.read_bytes() for part in whole.parts()] == [part.read_bytes() for part in drops.parts()]
    assert whole.frame()["provenance"].map(lambda p: p["spec_index"]).tolist() == list(range(123))


def test_the_content_hash_knows_every_word_but_not_the_clock(tmp_path):
    records = conversations(5)
    later = [r | {"provenance": r["provenance"] | {"generated_at": datetime(2026, 1, 1, tzinfo=UTC)}} for r in records]
    other = [*records[:4], records[4] | {"sentiment": "negative"}]
    hashes = [
        write(tmp_path / name, some).content_hash
        for name, some in zip("abcd", (records, later, other, records[::-1]), strict=True)
    ]
    assert hashes[0] == hashes[1] and len(set(hashes)) == 3


def test_the_content_hash_is_sha256_of_canonical_json(tmp_path):
    import hashlib

    dataset = write(tmp_path / "d", conversations(3))
    digest = hashlib.sha256()
    for record in pq.read_table(dataset.parts()[0]).to_pylist():
        del record["provenance"]["generated_at"]
        digest.update(json.dumps(record, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    assert dataset.content_hash == digest.hexdigest()


def test_a_dataset_without_records_can_be_read(tmp_path):
    dataset = write(tmp_path / "d", [])
    assert dataset.total == 0 and dataset.frame().empty and list(dataset.batches()) == []
    assert dataset.sql("SELECT count(*) AS n FROM data")["n"].item() == 0
    assert write(tmp_path / "again", []).content_hash == dataset.content_hash


def test_sql_sees_every_split_and_odd_folder_names(tmp_path):
    dataset = write(tmp_path / "my [1] d*ta's", {"train": conversations(6), "test": conversations(2)})
    found = dataset.sql("SELECT split, count(*) AS n FROM data WHERE language = ? GROUP BY split ORDER BY n", ["en"])
    assert found.to_dict("list") == {"split": ["test", "train"], "n": [1, 3]}


def test_a_wrong_query_column_or_split_is_one_sentence(tmp_path):
    dataset = write(tmp_path / "d", conversations(2))
    with pytest.raises(InvalidInput, match=r"query can't be answered.*intnt"):
        dataset.sql("SELECT intnt FROM data")
    with pytest.raises(InvalidInput, match=r"no column 'intnt'.*intent"):
        dataset.frame(columns=["intnt"])
    with pytest.raises(InvalidInput, match="no split 'dev': it has train"):
        dataset.frame("dev")


def test_the_card_escapes_what_came_from_outside(tmp_path):
    from ruamel.yaml import YAML

    evil = 'x": [}\n---\n<script>alert(1)</script> | # [a](b)'
    dataset = write(
        tmp_path / "d", conversations(4), generation={"provider": evil, "model": evil}, drop_reasons={evil: 3}
    )
    card = (dataset.path / "README.md").read_text()
    _, header, body = card.split("---\n", 2)
    parsed = YAML(typ="safe").load(header)
    assert (
        parsed["language"] == ["en", "es"] and parsed["size_categories"] == ["n<1K"] and "synthetic" in parsed["tags"]
    )
    assert "<script" not in body and "\n---" not in body and r"\[a\](b)" in body


def test_an_error_leaves_nothing_behind(tmp_path):
    with pytest.raises(ZeroDivisionError), DatasetWriter(tmp_path / "d", "conversations") as writer:
        writer.write(conversations(3))
        1 / 0  # noqa: B018
    assert leftovers(tmp_path) == []


def test_a_killed_writer_leaves_no_dataset_and_the_next_one_cleans_up(tmp_path):
    script = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from records import conversation\n"
        "from genesis_lab.dataset import DatasetWriter\n"
        "with DatasetWriter(Path(sys.argv[1]), 'conversations') as writer:\n"
        "    writer.write([conversation(i) for i in range(10_001)])\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = [str(Path(__file__).parent), str(Path(writing.__file__).parents[2])]
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "d"), path[0]], env={"PYTHONPATH": path[1]})
    assert done.returncode == -9 and leftovers(tmp_path) != []
    with pytest.raises(InvalidInput, match="no dataset"):
        open_dataset(tmp_path / "d")
    assert write(tmp_path / "d", conversations(2)).total == 2
    assert leftovers(tmp_path) == ["d"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [(errno.ENOSPC, "disk is full while writing d"), (errno.EROFS, "read-only.*GENESIS_OUTPUT_ROOT")],
)
def test_a_failing_write_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch, code, sentence):
    def fail(*_, **__):
        raise OSError(code, "what the system says")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", fail)
    with pytest.raises(GenesisError, match=sentence):
        write(tmp_path / "d", conversations(3))
    assert leftovers(tmp_path) == []


def test_a_full_device_is_one_sentence(tmp_path, monkeypatch):
    """A real ENOSPC by way of Arrow: the part is written to /dev/full."""
    real = pq.ParquetWriter
    monkeypatch.setattr(pq, "ParquetWriter", lambda path, *a, **k: real("/dev/full", *a, **k))
    with pytest.raises(GenesisError, match="disk is full while writing d"):
        write(tmp_path / "d", conversations(3))
    assert leftovers(tmp_path) == []


def test_a_read_only_folder_is_one_sentence(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(GenesisError, match="read-only"):
        write(tmp_path / "sub" / "d", conversations(3))


def test_an_existing_dataset_is_only_replaced_on_demand(tmp_path):
    first = write(tmp_path / "d", conversations(3))
    with pytest.raises(InvalidInput, match="exists already"):
        write(tmp_path / "d", conversations(4))
    assert open_dataset(tmp_path / "d").content_hash == first.content_hash
    with DatasetWriter(tmp_path / "d", "conversations", replace=True) as writer:
        writer.write(conversations(4))
    assert open_dataset(tmp_path / "d").total == 4 and leftovers(tmp_path) == ["d"]


def test_a_folder_with_other_things_is_never_replaced(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with (
        pytest.raises(InvalidInput, match="other things"),
        DatasetWriter(tmp_path / "photos", "conversations", replace=True),
    ):
        pass
    assert leftovers(tmp_path / "photos") == ["cat.jpg"]


def test_two_writers_of_one_dataset_are_refused(tmp_path):
    with (
        DatasetWriter(tmp_path / "d", "conversations"),
        pytest.raises(InvalidInput, match="Another process"),
        DatasetWriter(tmp_path / "d", "conversations"),
    ):
        pass


def test_a_record_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="does not fit domain 'conversations'"):
        write(tmp_path / "d", [conversation(1, turn_count="two")])
    with pytest.raises(InvalidInput, match="does not fit domain 'conversations'"):
        write(tmp_path / "d", [conversation(1, provenance={"generated_at": "yesterday"})])
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("harm", ["manifest", "json", "part", "torn"])
def test_a_damaged_dataset_is_named(tmp_path, harm):
    dataset = write(tmp_path / "d", conversations(3))
    if harm == "manifest":
        (dataset.path / "manifest.json").unlink()
    elif harm == "json":
        (dataset.path / "manifest.json").write_text('{"counts": ')
    elif harm == "part":
        dataset.parts()[0].unlink()
    else:
        dataset.parts()[0].write_bytes(dataset.parts()[0].read_bytes()[:100])
    with pytest.raises(InvalidInput, match=r"no dataset folder|damaged"):
        open_dataset(tmp_path / "d")


def test_an_unknown_name_lists_the_known_ones(own_output_root):
    write(own_output_root / "datasets" / "mine", conversations(1))
    with pytest.raises(InvalidInput, match="There is no dataset outputs/datasets/other: there are mine"):
        open_dataset("other")
    assert open_dataset("mine").total == 1


def test_the_columns_of_conversations():
    schema = schema_of("conversations")
    assert schema.field("turn_count").type == pa.int32()
    assert schema.field("turns").type == pa.list_(pa.struct([("speaker", pa.string()), ("text", pa.string())]))
    provenance = schema.field("provenance").type
    assert provenance.field("attempts").type == pa.int32() and provenance.field("spec_index").type == pa.int64()
    assert provenance.field("generated_at").type == pa.timestamp("us", "UTC")
    assert all(field.nullable for field in schema)


def test_an_unknown_domain_is_one_sentence(tmp_path):
    with pytest.raises(InvalidInput, match="Unknown domain 'poems'"):
        DatasetWriter(tmp_path / "d", "poems")


def test_a_domain_of_ones_own_gets_its_columns_from_its_model():
    class Point(BaseModel):
        at: float | None
        tags: list[str]

    class Series(BaseModel):
        series_id: str
        points: tuple[Point, ...]
        good: bool = True

    point = pa.struct([("at", pa.float64()), ("tags", pa.list_(pa.string()))])
    expected = [("series_id", pa.string()), ("points", pa.list_(point)), ("good", pa.bool_())]
    assert arrow_schema(Series) == pa.schema(expected)

    class Odd(BaseModel):
        what: int | str

    with pytest.raises(TypeError, match="'what'"):
        arrow_schema(Odd)


THIRDS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_a_split_keeps_groups_whole_and_labels_even():
    groups = np.arange(200) // 4 * 4 + np.arange(200) % 2  # pairs
    labels = np.arange(200) % 4
    assigned, again, other = (
        assign_splits(groups, THIRDS, labels=labels, rng=np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert np.bincount(assigned).tolist() == [160, 20, 20]
    assert all(len(set(assigned[groups == group])) == 1 for group in set(groups))
    assert all(38 <= n <= 42 for n in np.bincount(labels[assigned == 0]))
    assert (assigned == again).all() and (assigned != other).any()


@pytest.mark.parametrize("per_label", [1, 3, 7, 10])
def test_totals_come_out_right_even_where_a_label_is_too_rare_for_every_split(per_label):
    labels = np.repeat(np.arange(77), per_label)
    assigned = assign_splits(
        np.arange(len(labels)),
        {"train": 0.8, "validation": 0.1, "test": 0.1},
        labels=labels,
        rng=np.random.default_rng(0),
    )
    wanted = np.array([0.8, 0.1, 0.1]) * len(labels)
    assert (np.abs(np.bincount(assigned) - wanted) <= 1).all()
    for label in range(77):
        counts = np.bincount(assigned[labels == label], minlength=3)
        assert (np.abs(counts - np.array([0.8, 0.1, 0.1]) * per_label) < 2).all()


@pytest.mark.parametrize(
    ("n", "fractions", "sentence"),
    [
        (10, {"train": 0.8, "test": 0.1}, "add up to 1, got 0.9"),
        (10, {"train": 1.5, "test": -0.5}, "'train' must be above 0"),
        (10, {"../train": 0.5, "test": 0.5}, "name"),
        (1, {"train": 0.8, "test": 0.2}, "Too few records for 2 splits: of 1, only 1"),
        (3, {"train": 0.99, "test": 0.01}, "'test' would stay empty"),
    ],
)
def test_a_split_that_can_not_be_is_one_sentence(n, fractions, sentence):
    with pytest.raises(InvalidInput, match=sentence):
        assign_splits(np.arange(n), fractions, rng=np.random.default_rng(0))


def test_a_report_is_made_again_only_when_its_settings_change(tmp_path):
    from genesis_lab.dataset import DatasetWriter, open_dataset, remembered

    with DatasetWriter(tmp_path / "d", "conversations") as writer:
        writer.write([{"conversation_id": "a"}])
    dataset, made = open_dataset(tmp_path / "d"), []

    def make():
        made.append(1)
        return {"score": len(made)}

    reports = [remembered(dataset, "scorecard", {"seed": seed}, make) for seed in (1, 1, 2)]
    assert [report["score"] for report in reports] == [1, 1, 2]


def test_a_query_may_ask_for_times(tmp_path) -> None:
    found = write(tmp_path / "d", conversations(2)).sql("SELECT *, provenance.generated_at AS at FROM data")
    assert found["at"].iloc[0] == datetime(2025, 3, 1, 12, tzinfo=UTC)


def test_datasets_are_listed_with_what_they_hold(own_output_root: Path) -> None:
    assert dataset_names() == {}
    generate(config_for()(dataset="mine", total=10, intents=("card_arrival",)))
    (own_output_root / "datasets" / "broken").mkdir()
    (own_output_root / "datasets" / "broken" / "manifest.json").write_text("{")
    held = dataset_names()
    assert list(held) == ["broken", "mine"] and held["mine"] == "10 conversations"
    assert "can't be read" in held["broken"]
