"""Series in long and wide tables: in and out without loss, and what was wrong with a table is said by row."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from genesis_lab.cli import main
from genesis_lab.dataset import export_dataset, import_dataset, open_dataset
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for, generate
from genesis_lab.validation import quality
from records import conversation, write


def imported(tmp_path, text, **options):
    file = tmp_path / "table.csv"
    file.write_text(text)
    data, report = import_dataset(file, tmp_path / "found", domain="timeseries", replace=True, **options)
    return data.frame().set_index("series_id"), [problem.reason for problem in report.problems], report


def long(stamps, name="a", values=None):
    return "".join(f"{name},{stamp},{i if values is None else values[i]}\n" for i, stamp in enumerate(stamps))


HOURS = pd.date_range("2024-01-01", periods=30, freq="h").strftime("%Y-%m-%dT%H:%M").tolist()


@pytest.mark.parametrize("form", ["long", "wide"])
def test_what_goes_out_comes_in_again(tmp_path, form):
    config = config_for("timeseries")(dataset=str(tmp_path / "made"), total=12, length=48, frequency_shares={"1h": 1})
    made = generate(config)
    export_dataset(made, tmp_path / "out.csv", form)
    again, report = import_dataset(tmp_path / "out.csv", tmp_path / "again", domain="timeseries")
    ours, theirs = (each.frame().set_index("series_id") for each in (made, again))
    assert again.total == 12 and not [p for p in report.problems if "rows" in p.reason or "no row" in p.reason]
    for name, record in ours.iterrows():
        assert pd.Series(theirs.loc[name, "target"]).equals(pd.Series(record["target"])), name
        assert (theirs.loc[name, "start"], theirs.loc[name, "frequency"]) == (record["start"], record["frequency"])


def test_rows_out_of_order_repeated_missing_and_unreadable_are_named(tmp_path):
    stamps = HOURS[:]
    stamps[4], stamps[5] = stamps[5], stamps[4]
    del stamps[20:23]
    frame, reasons, report = imported(tmp_path, "id,timestamp,value\n" + long([*stamps, stamps[-1], "soon"]))
    assert report.read == report.kept == 1
    target = list(frame.loc["a", "target"])
    assert (
        target[4:6] == [5.0, 4.0]
        and len(target) == 30
        and [i for i, v in enumerate(target) if pd.isna(v)] == [20, 21, 22]
    )
    assert "start: rows 29 have no stamp that can be read and were left out" in reasons
    assert "start: rows 6 were out of order and were sorted in" in reasons
    assert "start: rows 28 repeat a stamp: the first of each was kept" in reasons
    assert "target: 3 stamps have no row and became nulls, the first is 2024-01-01T20:00:00+00:00" in reasons
    assert [(g["start"], g["length"]) for g in frame.loc["a", "missing"]] == [(20, 3)]


def test_nulls_nan_and_infinities_become_nulls_and_are_counted(tmp_path):
    values = ["", "NaN", "inf", *range(27)]
    frame, reasons, _ = imported(tmp_path, "id,timestamp,value\n" + long(HOURS, values=values))
    assert frame.loc["a", "target"][3] == 0 and pd.isna(frame.loc["a", "target"][:3]).all()
    assert "target: 2 values that are no numbers became nulls" in reasons


def test_local_stamps_with_a_repeated_hour_are_told_apart_by_their_order(tmp_path):
    local = (
        pd.date_range("2024-10-26T22:00Z", periods=30, freq="h").tz_convert("Europe/Madrid").strftime("%Y-%m-%d %H:%M")
    )
    rows = "".join(f"a,{stamp},{i},Europe/Madrid\n" for i, stamp in enumerate(local))
    frame, reasons, _ = imported(tmp_path, "id,timestamp,value,timezone\n" + rows)
    assert list(frame.loc["a", "target"]) == list(range(30)) and frame.loc["a", "start"] == "2024-10-26T22:00:00+00:00"
    assert not [reason for reason in reasons if "rows" in reason or "UTC" in reason]


def test_a_wide_table_with_other_names_and_steps_between_the_steps(tmp_path):
    stamps = [*HOURS, "2024-01-02T06:20"]
    text = "when,north,south\n" + "".join(f"{stamp},{i},{-i}\n" for i, stamp in enumerate(stamps))
    frame, reasons, _ = imported(tmp_path, text, field_map={"start": "when"})
    assert list(frame.index) == ["north", "south"] and list(frame.loc["south", "target"]) == [-i for i in range(30)]
    assert reasons.count("start: rows 31 lie between steps of 1h and were left out") == 2


def test_a_stamp_centuries_away_and_an_unknown_step_are_said(tmp_path):
    _, reasons, _ = imported(tmp_path, "id,timestamp,value\n" + long([*HOURS, "2199-01-01T00:00"]))
    assert "target: 31 values over 1,534,032 steps of 1h are as they came, without nulls between" in reasons
    assert "start: the stamps name no zone and were read as UTC" in reasons
    assert [reason for reason in reasons if "rows" in reason] == []
    months = pd.date_range("2020-01-01", periods=30, freq="MS").strftime("%Y-%m-%d")
    frame, reasons, _ = imported(tmp_path, "id,timestamp,value\n" + long(months))
    assert any(reason.startswith("frequency: the usual step is none of") for reason in reasons)
    assert len(frame.loc["a", "target"]) == 30


def test_priors_are_tuned_to_a_table_from_the_command_line(tmp_path, capsys):
    made = tmp_path / "made"
    config = config_for("timeseries")(
        dataset=str(made), total=24, length=200, series_types=("residential_consumption",), quality_shares={"clean": 1}
    )
    export_dataset(generate(config), tmp_path / "mine.csv", "wide")
    call = ["tune", str(tmp_path / "mine.csv"), "--out", str(tmp_path / "priors.yaml"), "--seconds", "2"]
    with pytest.raises(SystemExit) as done:
        main([*call, "--type", "residential_consumption"])
    said = capsys.readouterr()
    assert done.value.code == 0 and "24 of 24 series, every 1h, the first 200 values of each" in said.err
    assert "before" in said.out and "nearest, generated to real" in said.out and "nearest, real to real" in said.out
    tuned = config_for("timeseries")(dataset=str(tmp_path / "tuned"), total=3, priors=str(tmp_path / "priors.yaml"))
    assert generate(tuned).total == 3
    with pytest.raises(SystemExit) as done:
        main(call)
    assert done.value.code == 1 and "priors.yaml" in capsys.readouterr().err, "a file that is there is not replaced"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("few.jsonl", '{"target": [1, 2, 3]}\n', "20 series or more: 0 of the 1 are"),
        ("flat.jsonl", ('{"target": [' + "5, " * 199 + "5]}\n") * 25, "0 of the 25 are of frequency 1h"),
        ("none.csv", "", "20 series or more: 0 of the 0"),
        ("odd.bin", "\0\0", "odd.bin has an unknown ending"),
    ],
)
def test_what_priors_cannot_be_tuned_to_is_one_sentence(tmp_path, capsys, name, text, sentence):
    (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as done:
        main(["tune", str(tmp_path / name), "--out", str(tmp_path / "priors.yaml")])
    error = capsys.readouterr().err
    assert done.value.code == 1 and sentence in error and error.count("\n") == 1
    assert not (tmp_path / "priors.yaml").exists()


def test_other_records_have_no_such_table(tmp_path):
    write(tmp_path / "chats", [conversation(1)])
    with pytest.raises(InvalidInput, match="conversations have no wide table"):
        export_dataset(open_dataset(tmp_path / "chats"), tmp_path / "x.csv", "wide")


def jsonl(tmp_path, *rows):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps({"start": "2024-01-01", **row}) for row in rows) + "\n")
    data, report = import_dataset(tmp_path / "rows.jsonl", tmp_path / "found", domain="timeseries", replace=True)
    return data, [(problem.record_id, problem.reason) for problem in report.problems]


def test_frequencies_of_others_are_read_and_unknown_ones_are_named(tmp_path):
    known = {"1H": "1h", "H": "1h", "15T": "15min", "W-SUN": "1W", "D": "1D"}
    data, said = jsonl(tmp_path, *({"item_id": name, "freq": name, "target": [1, 2]} for name in (*known, "M", "2h")))
    assert dict(zip(data.frame()["series_id"], data.frame()["frequency"], strict=True)) == known | {
        "M": "M",
        "2h": "2h",
    }
    assert [name for name, why in said if "is none of 15min, 30min, 1h, 1D, 1W" in why] == ["M", "2h"]
    with pytest.raises(InvalidInput, match="Series M has no stamps for a table"):
        export_dataset(data, tmp_path / "out.csv", "long")
    assert not (tmp_path / "out.csv").exists()


def test_whole_numbers_switches_and_hundredths_are_kept_to_the_last_digit(tmp_path):
    values = {
        "switch": [0, 1, 1, 0] * 6,
        "count": [3, 1_000_003, 0] * 8,
        "cents": [0.1, 0.29, 1.15, 2.01] * 6,
        "still": [7.35] * 24,
    }
    data, _ = jsonl(tmp_path, *({"item_id": name, "freq": "1h", "target": row} for name, row in values.items()))
    for form in ("csv", "jsonl", "long", "wide"):
        export_dataset(data, tmp_path / f"out-{form}.{'jsonl' if form == 'jsonl' else 'csv'}", form)
    for file in sorted(tmp_path.glob("out-*")):
        again, _ = import_dataset(file, tmp_path / file.stem, domain="timeseries")
        found = again.frame().set_index("series_id")["target"]
        assert {name: list(found[name]) for name in values} == values, file.name


def test_two_series_with_one_id_empty_ones_and_impossible_values_are_named(tmp_path):
    load = {"freq": "1h", "series_type": "grid_demand", "scale": "physical"}
    data, said = jsonl(
        tmp_path,
        {"item_id": "a", "target": [1.0] * 30, **load},
        {"item_id": "a", "target": [2.0] * 30, **load},
        {"item_id": "negative", "target": [5.0, -4.0], **load},
        {"item_id": "nothing", "target": [None] * 30, **load},
        {"item_id": "empty", "target": [], **load},
        {"item_id": "one", "target": [1.0], **load},
    )
    assert ("a", "series_id: the same as in row 1") in said and data.total == 6
    report = quality.validate(data)
    faults = [
        o for score in ("consistency", "completeness") for part in report[score]["parts"] for o in part["offences"]
    ]
    reasons = {(fault["record_id"], fault["reason"]) for fault in faults}
    assert ("negative", "the least value is -4.0, grid_demand is never below 0.0") in reasons
    assert {("nothing", "no value was measured"), ("empty", "no value was measured")} <= reasons
    assert report["verdict"] == "FAIL"
