"""Contrast rounds: a set, what it mixes up, more of that, and whether it gained."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from genesis_lab import rounds
from genesis_lab.cli import main
from genesis_lab.dataset import open_dataset, read_reports
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for
from genesis_lab.training import contrast
from genesis_lab.validation.reference import for_worth

pytestmark = pytest.mark.usefixtures("words_only")
CHOSEN = ("card_arrival", "card_delivery_estimate", "exchange_rate", "card_linking")


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    items, _ = for_worth()
    with (path := tmp_path / "seeds.csv").open("w", encoding="utf-8", newline="") as file:
        rows = [(text, label, "en") for text, label in zip(items.texts, items.labels, strict=True) if label in CHOSEN]
        csv.writer(file).writerows([("text", "label", "language"), *rows])
    return path


def config(**options):
    return config_for()(**{"dataset": "mine", "records": "utterances", "intents": CHOSEN, "total": 40} | options)


def test_rounds_ask_for_what_is_mixed_up_and_say_what_it_brought(seeds: Path) -> None:
    told = rounds.improve(config(english_share=1.0), str(seeds), rounds=2, per_round=20)
    first, *others = told["rounds"]
    assert (first["round"], first["gain"], first["cost_usd"]) == (0, None, 0.0) and first["accuracy"]["n"] == 24
    assert others and all(row["gain"]["n"] <= 24 and row["verdict"] for row in others)
    plain, steered = (open_dataset(f"mine_round{k}").manifest["config"] for k in (0, 1))
    assert not plain["seeds"] and steered["seeds"].endswith("mine_seeds.csv"), "shown where lines are mixed up"
    asked = open_dataset("mine_round1").manifest["generation"]["options"]["cells"]
    assert sum(cell["n"] for cell in asked) == 20 and all(cell["against"] for cell in asked)
    assert told["seeds"]["shown"] + told["seeds"]["held_out"] == 48
    whole = open_dataset("mine_all")
    gained = [row for row in told["rounds"] if row["verdict"] in (None, *rounds.GAINS)]
    assert whole.total == gained[-1]["records"] and read_reports(whole)["rounds"] == told
    assert told["kept"] == gained[-1]["round"], "a round that was no gain stays apart"
    texts = [record["turns"][0]["text"].lower() for batch in whole.batches() for record in batch.to_pylist()]
    assert len(texts) == len(set(texts))
    assert rounds.improve(config(english_share=1.0), str(seeds), rounds=2, per_round=20) == told, "made once"


def test_a_round_without_a_gain_is_the_last(seeds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = contrast.gain
    monkeypatch.setattr(rounds, "gain", lambda *texts: measure(*texts) | {"verdict": "can't be told"})
    told = rounds.improve(config(english_share=1.0), str(seeds), rounds=5, per_round=10)
    assert len(told["rounds"]) == 2 and told["stopped"] == "round 1 was no gain: can't be told"


def test_what_has_no_cells_or_is_somebody_elses_is_refused(seeds: Path) -> None:
    with pytest.raises(InvalidInput, match="which examples do not have"):
        rounds.improve(config_for("requirements")(total=12), str(seeds))
    rounds.generate(config(dataset="mine_all"))
    with pytest.raises(InvalidInput, match="mine_all was not made by rounds"):
        rounds.improve(config(), str(seeds), rounds=1)


def test_the_command_prints_a_line_a_round(seeds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(
        "stages: [10]\ndataset: mine\ntotal: 40\nrecords: utterances\n"
        f"intents: [{', '.join(CHOSEN)}]\nenglish_share: 1.0\n"
    )
    with pytest.raises(SystemExit, match="0"):
        main(["improve", str(params), "--seeds", str(seeds), "--rounds", "1", "--per-round", "10"])
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("round 0: 40 records, 40 requests, 0.00 USD, accuracy on real messages 0.")
    assert second.startswith("round 1: ") and "gain " in second
    assert last.endswith("the records up to round 0 are in mine_all") or last.endswith("up to round 1 are in mine_all")
