"""What series are worth: baselines that any model must beat, and how many real series teach as much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genesis_lab.dataset import import_dataset, open_dataset
from genesis_lab.dataset.sources import real_records
from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for, generate
from genesis_lab.reporting.views import view
from genesis_lab.training import scorecard as cards
from genesis_lab.training.forecasts import (
    FORECASTERS,
    LEVELS,
    baselines,
    foreseen,
    hours_of,
    mase,
    naive_scale,
    scorecard,
    trained,
    windows,
    worth,
)
from genesis_lab.training.models import load_model, save_model
from genesis_lab.validation import quality
from genesis_lab.validation.gates import verdict_on

LENGTH = 500
HOURS = np.arange(LENGTH)


def weekly(n: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Days of one shape with a peak of its own each, weaker at weekends."""
    rng = np.random.default_rng(seed)
    peak = rng.uniform(6, 20, (n, 1))
    shape = np.exp(-(((HOURS % 24 - peak + 12) % 24 - 12) ** 2) / 8) * np.where(HOURS // 24 % 7 >= 5, 0.5, 1.0)
    return shape + noise * rng.standard_normal((n, LENGTH))


def records(values: np.ndarray, **more: object) -> list[dict]:
    """As a file of series holds them; 2024-01-01 is a Monday."""
    rows = [[None if np.isnan(v) else float(v) for v in row] for row in values]
    about = {"frequency": "1h", "start": "2024-01-01"}
    return [{"item_id": f"s{i}", "target": row} | about | more for i, row in enumerate(rows)]


def hours(values: np.ndarray, **more: object):
    domain = get_domain("timeseries")
    reader = domain.reader({})
    return domain.lessons([reader.read(record)[0] for record in records(values, **more)], LENGTH, 380)


DOMAIN = get_domain("timeseries")


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def errors(values: np.ndarray) -> dict[str, np.ndarray]:
    what, scale, every = windows(hours(values)), naive_scale(values), np.arange(len(values))
    return {name: mase(made, what, scale, every) for name, made in baselines(what).items()}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory):
    """Forty imported series, and a file of twenty-four real ones of the same kind."""
    folder = tmp_path_factory.mktemp("series")
    source = write(folder / "mine.jsonl", records(weekly(40, 0.1, 1)))
    dataset, _ = import_dataset(source, folder / "mine", domain="timeseries")
    return dataset, write(folder / "real.jsonl", records(weekly(24, 0.1)))


QUICK = {"forecasters": ("ridge",), "shots": (1, 2, 5, 10), "splits": 3}


def test_last_week_and_the_mean_of_two_foresee_what_repeats_by_the_week():
    found = errors(weekly(4))
    assert found["naive 168"].max() < 1e-6 and found["two-week mean"].max() < 1e-6 < found["naive 24"].min()


@pytest.mark.parametrize(("scale", "level"), [(1e-12, 0.0), (1e20, 0.0), (1.0, 1e9)])
def test_errors_and_worth_do_not_depend_on_the_unit(scale, level):
    values = weekly(12, noise=0.2)
    values[0, 100:300] = values[0, 100]  # a week that stands still
    for name, found in errors(values * scale + level).items():
        assert found == pytest.approx(errors(values)[name], rel=1e-3), name
    options = {"forecasters": ("ridge",), "shots": (1, 2), "splits": 2}
    one, other = (worth(hours(weekly(8, 0.1, 1)), hours(real), **options) for real in (values, values * scale + level))
    assert other["students"][0]["errors"] == pytest.approx(one["students"][0]["errors"], rel=1e-3)


def test_a_constant_series_has_no_error_and_is_counted():
    assert np.isnan(naive_scale(np.vstack([weekly(1, 0.1), np.full((1, LENGTH), 7.0)]))).tolist() == [False, True]
    real = np.vstack([weekly(10, 0.1), np.full((1, LENGTH), 7.0), np.full((1, LENGTH), 8.0)])
    found = worth(hours(weekly(8, 0.1, 1)), hours(real), forecasters=("ridge",), shots=(1, 2), splits=2)
    assert (found["series"], found["constant"]) == (10, 2)


def test_series_of_the_same_kind_are_worth_many_and_noise_is_worth_nothing():
    real, steps = hours(weekly(24, 0.1)), []
    alike = worth(hours(weekly(40, 0.1, 1)), real, on_progress=lambda *step: steps.append(step), **QUICK)
    noise = worth(hours(np.random.default_rng(0).standard_normal((40, LENGTH))), real, **QUICK)
    good, bad = alike["students"][0], noise["students"][0]
    assert (good["equivalence"]["k"] or 99) >= 5 and good["ratio_to_real"] < 1.05 < bad["ratio_to_real"]
    assert bad["beats_floor"] is False and bad["above_floor"]["high"] < 0
    assert [done for done, _, _ in steps] == list(range(1, steps[-1][1] + 1)), "the progress ends at its end"
    assert good["coverage"]["estimate"] == pytest.approx(0.8, abs=0.06)


def test_the_scorecard_of_series_is_a_report_like_any_other(series):
    dataset, real = series
    card = scorecard(dataset, real_records(str(real), DOMAIN), **QUICK)
    json.dumps(card, allow_nan=False)
    assert card["verdict"].startswith("MASE") and card["reference"]["n"] == 24
    assert [gate["outcome"] for gate in verdict_on({"scorecard": card})["gates"]] == ["pass"]
    none = cards.scorecard(dataset)
    assert none["verdict"] == "not measured: no reference series" and none["students"] == []
    assert verdict_on({"scorecard": none})["gates"][0]["outcome"] == "not measured"


@pytest.mark.parametrize("length", [0, 1, 24, 30, 331])
def test_a_reference_that_is_too_short_is_said_in_a_sentence(series, tmp_path, length):
    dataset, _ = series
    file = write(tmp_path / "short.jsonl", [*records(weekly(8)[:, :length]), {"item_id": "x", "target": [1.0]}])
    card = scorecard(dataset, real_records(str(file), DOMAIN))
    assert "got 0 of" in card["verdict"] and "are shorter than 380 hours" in card["verdict"]


def test_copies_nulls_and_other_steps_are_accounted_for():
    values = weekly(6, 0.1)
    values[0] = np.nan
    values[1, :40] = np.nan
    twice = [*records(values), *records(values)[2:4], *records(values, frequency="1D")[:1]]
    quarter = records(np.repeat(weekly(1, 0.1, 3), 4, axis=1), frequency="15min")[0] | {"item_id": "q"}
    reader = get_domain("timeseries").reader({})
    found = get_domain("timeseries").lessons([reader.read(row)[0] for row in [*twice, quarter]], LENGTH, 380)
    assert found.left_out == {
        "have no value that was measured": 1,
        "have the id or the values of an earlier one": 2,
        "are not measured every hour or more often": 1,
    }
    assert np.allclose(found.values[-1], weekly(1, 0.1, 3)[0]), "a mean of quarters of an hour"
    assert np.isfinite(naive_scale(found.values)).all(), "nulls in front do no harm"


def test_a_reference_is_a_file_a_dataset_or_a_folder(series, tmp_path, monkeypatch):
    dataset, real = series
    monkeypatch.setenv("GENESIS_REFERENCE_DIR", str(tmp_path))
    from genesis_lab.settings import get_settings

    get_settings.cache_clear()
    (tmp_path / "meters").mkdir()
    write(tmp_path / "meters" / "a.jsonl", records(weekly(3)))
    found = [real_records(name, DOMAIN) for name in (str(real), str(dataset.path), "meters")]
    assert [len(one.records) for one in found] == [24, 40, 3]
    write(tmp_path / "meters" / "b.jsonl", records(weekly(3)))
    with pytest.raises(InvalidInput, match="one file of records"):
        real_records("meters", DOMAIN)
    with pytest.raises(InvalidInput, match="holds no series"):
        real_records(str(write(tmp_path / "texts.jsonl", [{"text": "hello", "label": "greet"}])), DOMAIN)
    assert cards.real_data(dataset, "none") is None and cards.real_data(dataset, "banking77") is None
    get_settings.cache_clear()


def test_too_few_real_series_are_named():
    with pytest.raises(InvalidInput, match=r"needs 6 real series .* got 4 of 4"):
        worth(hours(weekly(4, 0.1)), hours(weekly(4, 0.2)))


@pytest.mark.parametrize("name", FORECASTERS)
def test_a_saved_forecaster_forecasts_the_same_with_its_bands(series, tmp_path, name):
    dataset, real = series
    model = trained(dataset, name)
    loaded = load_model(save_model(model, tmp_path / "model"))
    what = windows(hours_of("timeseries", real_records(str(real), DOMAIN).records))
    made, quantiles = foreseen(loaded, what)
    assert np.array_equal(made, foreseen(model, what)[0]) and len(quantiles) == len(LEVELS)
    assert (np.diff(quantiles, axis=0) >= 0).all()
    with pytest.raises(InvalidInput, match="reads series, not texts"):
        loaded.predict(["hello"])


def test_series_that_are_too_short_to_learn_from_are_said_so(own_output_root, series):
    short = generate(config_for("timeseries")(dataset="short", total=8, length=336))
    card = cards.scorecard(short, reference=str(series[1]))
    assert "short has none" in card["verdict"] and "8 series are shorter than 380 hours" in card["verdict"]
    assert open_dataset("short").total == 8


def test_realism_of_series_has_figures_beside_the_reference_and_a_gate(series, tmp_path):
    dataset, real = series
    alike = quality.validate(dataset, reference=real_records(str(real), DOMAIN))
    noise = write(tmp_path / "noise.jsonl", records(np.random.default_rng(0).standard_normal((24, LENGTH))))
    other = quality.validate(dataset, reference=real_records(str(noise), DOMAIN))
    outcomes = [next(g for g in one["gates"] if g["name"] == "like real records") for one in (alike, other)]
    assert outcomes[0]["value"] > outcomes[1]["value"] and outcomes[1]["outcome"] == "fail"
    assert "mean KS over 49 features" in view("quality", "realism", alike).text
    nothing = quality.validate(dataset)
    assert nothing["realism"]["reason"] == "no reference was given" and view("quality", "realism", nothing) == []
