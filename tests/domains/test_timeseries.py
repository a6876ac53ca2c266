"""Series: exact plans, checked recipes, values that their kind can have, the same wherever they are rendered."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from genesis_lab.domains.base import Provenance
from genesis_lab.domains.quotas import largest_remainder
from genesis_lab.domains.timeseries.domain import Timeseries, TimeseriesConfig
from genesis_lab.domains.timeseries.kinds import kinds
from genesis_lab.domains.timeseries.realism import SEASON, features, mean_ks, realism
from genesis_lab.domains.timeseries.record import ANOMALIES
from genesis_lab.domains.timeseries.render import clock, gaps, stamps_of, with_anomalies
from genesis_lab.domains.timeseries.tuning import sample, tune_priors
from genesis_lab.errors import InvalidInput, ParseFailure

PROVENANCE = Provenance(provider="test", model="test", prompt_version="1")
PLAIN = {"trend_shares": {"none": 1}, "quality_shares": {"clean": 1}, "anomaly_shares": {"0": 1}}


def domain(**options) -> Timeseries:
    return Timeseries(TimeseriesConfig(**options))


def made(of: Timeseries, spec):
    return of.render(of.parse(of.offline_text(spec, 0), spec), spec, PROVENANCE)


def series(**options):
    of = domain(**options)
    return [made(of, spec) for spec in of.specs(of.config.total, of.config.seed)]


@pytest.mark.parametrize("total", [10, 77, 300])
def test_a_plan_meets_every_share_exactly(total):
    of = domain(total=total)
    specs = of.specs(total, 5)
    for target in of.targets():
        found = Counter(str(spec.attributes[target.name]) for spec in specs)
        if target.name != "sector":
            assert found == {v: n for v, n in largest_remainder(target.shares, total).items() if n}, target.name
    if total == 300:
        assert Counter(spec.attributes["sector"] for spec in specs) == {
            "electricity": 150,
            "energy": 60,
            "sensors": 60,
            "financial": 30,
        }


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(sorted(kinds())),
    frequency=st.sampled_from(["15min", "30min", "1h", "1D", "1W"]),
    length=st.sampled_from([24, 30, 168, 400]),
    seed=st.integers(0, 10_000),
    scale=st.sampled_from(["physical", "standardised"]),
)
def test_whatever_is_drawn_has_the_exact_length_and_values_its_kind_can_have(kind, frequency, length, seed, scale):
    of = domain(total=1, series_types=(kind,), frequency_shares={frequency: 1}, length=length, seed=seed, scale=scale)
    (one,) = [made(of, spec) for spec in of.specs(1, seed)]
    known = np.array([value for value in one.target if value is not None])
    assert one.length == len(one.target) == length and np.isfinite(known).all()
    assert sum(gap.length for gap in one.missing) == one.target.count(None)
    if scale == "physical":
        limits = of.kinds[kind]
        assert limits.low <= known.min() and known.max() <= limits.high
        steps = known / limits.resolution
        assert np.allclose(steps, np.round(steps), rtol=1e-6, atol=1e-3)
    json.loads(one.model_dump_json())


def test_a_dataset_rendered_side_by_side_has_the_same_records_as_one_by_one():
    shares = {"15min": 0.3, "1h": 0.4, "1D": 0.2, "1W": 0.1}
    for options in ({"group_size": 3}, {"mode": "direct", "length": 24}):
        of = domain(**({"total": 96, "frequency_shares": shares, "length": 60} | options))
        specs = of.specs(of.config.total, 2)
        answered = [(of.parse(of.offline_text(spec, 0), spec), spec, PROVENANCE) for spec in specs]
        assert list(of.render_all(answered)) == [of.render(*one).model_dump() for one in answered]


@pytest.mark.slow
def test_cases_of_every_length_and_frequency_are_exact_within_bounds_and_the_same_in_another_process(request, tmp_path):
    script = tmp_path / "cases.py"
    script.write_text(CASES)
    each = "340" if request.config.option.markexpr == "slow" else "16"  # ten thousand where slow ones are asked for
    said = [subprocess.run([sys.executable, script, each], capture_output=True, text=True) for _ in range(2)]
    assert said[0].stdout == said[1].stdout and said[0].stdout.startswith(f"{30 * int(each)} cases"), said[0].stderr


CASES = """
import hashlib, itertools, sys
import numpy as np
from genesis_lab.domains.base import Provenance
from genesis_lab.domains.timeseries.domain import Timeseries, TimeseriesConfig
from genesis_lab.domains.timeseries.record import Series

by, each, cases, seen = Provenance(provider="t", model="t", prompt_version="1"), int(sys.argv[1]), 0, hashlib.sha256()
forms = itertools.product([24, 30, 31, 100, 168, 337], ["15min", "30min", "1h", "1D", "1W"])
for seed, (length, frequency) in enumerate(forms):
    length = min(length, 100) if frequency == "1W" else length
    config = TimeseriesConfig(total=each, seed=seed, length=length, frequency_shares={frequency: 1})
    of = Timeseries(config)
    specs = of.specs(each, seed)
    answered = [(of.parse(of.offline_text(spec, 0), spec), spec, by) for spec in specs]
    for i, record in enumerate(map(Series.model_validate, of.render_all(answered))):
        known, kind = np.array([v for v in record.target if v is not None]), of.kinds[record.series_type]
        assert record.length == len(record.target) == length and np.isfinite(known).all(), record
        assert kind.low <= known.min() and known.max() <= kind.high, record
        assert i % 5 or record == of.render(*answered[i]), record
        seen.update(record.model_dump_json().encode())
        cases += 1
print(cases, "cases", seen.hexdigest())
"""


def test_the_sun_does_not_shine_at_night():
    for one in series(total=8, series_types=("solar_generation",), countries=("ES",), length=24 * 20, **PLAIN):
        stamps = stamps_of(one.start, one.length, "1h").tz_convert(one.timezone)
        values = np.array(one.target)
        assert not values[(stamps.hour < 7) | (stamps.hour > 20)].any() and values[stamps.hour == 13].mean() > 0


def test_prices_have_the_stylised_facts():
    returns = [
        np.diff(np.log(one.target)) for one in series(total=30, series_types=("stock_price",), length=2000, **PLAIN)
    ]

    def acf(x, lag):
        x = x - x.mean()
        return (x[lag:] * x[:-lag]).mean() / x.var()

    assert abs(np.mean([acf(x, 1) for x in returns])) < 0.1
    assert np.median([((x - x.mean()) ** 4).mean() / x.var() ** 2 for x in returns]) > 4
    assert all(np.mean([acf(np.abs(x), lag) for x in returns]) > 0 for lag in (1, 5, 10, 20))


def test_wind_is_between_none_and_rated_and_its_speeds_are_weibull_like():
    plants = series(total=20, series_types=("wind_generation",), length=4000, **PLAIN)
    shares = [np.array(one.target) / max(one.target) for one in plants]
    assert all(share.min() >= 0 for share in shares) and np.mean([(share < 0.02).mean() for share in shares]) > 0.05
    assert np.mean([(share > 0.98).mean() for share in shares]) > 0.02
    assert 0.15 < np.mean([share.mean() for share in shares]) < 0.55, "the capacity factor of a wind farm"
    assert np.mean([np.corrcoef(share[1:], share[:-1])[0, 1] for share in shares]) > 0.9, "wind lasts"
    # Of Weibull speeds of shape 2 cubes are skewed: most hours give less than the mean.
    assert np.mean([np.median(share) < share.mean() for share in shares]) > 0.8


def test_humidity_is_a_share_that_is_highest_before_dawn():
    for one in series(total=10, series_types=("humidity",), length=24 * 60, **PLAIN):
        values = np.array(one.target)
        assert values.min() >= 0 and values.max() <= 100 and (values == np.round(values)).all()
        hours = np.asarray(stamps_of(one.start, one.length, "1h").tz_convert(one.timezone).hour)
        by_hour = [values[hours == hour].mean() for hour in range(24)]
        assert int(np.argmax(by_hour)) <= 7 and 11 <= int(np.argmin(by_hour)) <= 19


@pytest.mark.parametrize(
    ("frequency", "left"), [("1h", {"daily", "weekly", "yearly"}), ("1D", {"weekly", "yearly"}), ("1W", {"yearly"})]
)
def test_a_season_that_does_not_fit_the_frequency_is_not_claimed(frequency, left):
    (one,) = series(total=1, series_types=("residential_consumption",), frequency_shares={frequency: 1}, length=30)
    assert set(one.seasonality_types) == left


@pytest.mark.parametrize("day", range(1, 8))
def test_weeks_start_on_the_day_of_the_first_stamp(day):
    (one,) = series(total=1, frequency_shares="W", length=30, start=f"2024-01-{day:02d}", countries=("ES",))
    stamps = stamps_of(one.start, 30, one.frequency)
    assert set(stamps.day_name()) == {stamps[0].day_name()} and stamps[0].day == day and len(one.target) == 30


def test_the_longest_series_is_whole():
    (one,) = series(total=1, series_types=("grid_demand",), length=8_760)
    assert len(one.target) == 8_760 and stamps_of(one.start, 8_760, "1h")[-1].isoformat() == "2024-12-30T23:00:00+00:00"


def test_both_clock_changes_of_madrid_keep_the_length_and_the_local_shape():
    spring = clock("2024-03-30T00:00", 72, "1h", "Europe/Madrid")
    autumn = clock("2024-10-26T00:00", 72, "1h", "Europe/Madrid")
    assert len(spring.hour) == len(autumn.hour) == 72
    assert Counter(spring.hour.tolist())[2.0] == 2 and Counter(autumn.hour.tolist())[2.0] == 4
    assert Counter(spring.day.tolist())[1] == 23 and Counter(autumn.day.tolist())[1] == 25


def test_a_holiday_is_a_sunday():
    days = clock("2024-05-01T00:00", 48, "1h", "Europe/Madrid", "ES").weekday
    assert set(days[:22]) == {6} and set(days[24:40]) == {3}


@pytest.mark.parametrize(("said", "meant"), [("1H", "1h"), ("15T", "15min"), ("D", "1D"), ("W-SUN", "1W")])
def test_other_spellings_of_a_frequency_are_read(said, meant):
    assert TimeseriesConfig(frequency_shares=said).frequency_shares[meant] == 1.0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frequency_shares": {"M": 1.0}}, "unknown value 'M', expected 15min"),
        ({"length": 1}, "greater than or equal to 24"),
        ({"length": 10_000_000}, "less than or equal to 8760"),
        ({"start": "yesterday-ish"}, "'yesterday-ish' is no date"),
        ({"countries": ("XX",)}, "unknown country 'XX'"),
        ({"trend_shares": {"none": 0.5}}, "must add up to 1"),
    ],
)
def test_impossible_options_are_refused_by_name(options, sentence):
    with pytest.raises(ValidationError, match=sentence):
        TimeseriesConfig(**options)


def test_an_unknown_type_is_named():
    with pytest.raises(InvalidInput, match="Unknown series type 'tides'"):
        domain(series_types=("tides",)).targets()


def test_a_users_own_kind_needs_no_python(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "cold_store: {sector: electricity, family: load, unit: kW, low: 0, level: [10, 50], resolution: 0.1, "
        "en: a cold store, es: un almacén frío}"
    )
    (one,) = series(total=1, kinds=str(file), series_types=("cold_store",), english_share=1.0)
    assert one.unit == "kW" and "a cold store" in one.context
    file.write_text("cold_store: {sector: electricity, family: load, unit: kW, level: [10, 50], resolution: 0}")
    with pytest.raises(InvalidInput, match=r"kind cold_store: .*resolution"):
        domain(kinds=str(file)).targets()


def test_labelled_anomalies_are_really_there_and_none_lie_on_each_other():
    rng = np.random.default_rng(1)
    base = 10 + np.sin(np.arange(500) * 2 * np.pi / 24) + 0.1 * rng.standard_normal(500)
    changed, marks, refused = with_anomalies(base, ANOMALIES, 24, 0, np.inf, rng)
    assert len(marks) + refused == len(ANOMALIES) and len(marks) >= 6
    inside = np.zeros(500, dtype=int)
    for mark in marks:
        span = slice(mark["start"], mark["start"] + mark["length"])
        inside[span] += 1
        assert np.abs(changed[span] - base[span]).max() > 0 and mark["effect"] >= 3
    assert inside.max() == 1 and np.array_equal(changed[inside == 0], base[inside == 0])


def test_a_simple_detector_finds_the_labelled_anomalies():
    """Per series a threshold with at most 0.4 % false alarms: residual of the daily shape, jump, run, change of level."""
    found, alarms = Counter(), []
    of = domain(total=240, length=500, seed=4, **(PLAIN | {"anomaly_shares": {"1": 1}}))
    for spec in of.specs(240, 4):
        kind = spec.attributes["anomalies"]
        looked = {"spike": "ra", "drop": "ra", "outage": "rn", "stuck": "rn", "level_shift": "rl"}.get(kind)
        if not looked or not (one := made(of, spec)).anomalies:
            continue
        values, (mark,) = np.array(one.target), one.anomalies
        begin, end = mark.start, mark.start + mark.length
        away = np.ones(500, dtype=bool)
        away[max(0, begin - 26) : end + 26] = False
        scores = anomaly_scores(values)
        flags = [scores[name] > np.quantile(scores[name][away], 0.998) for name in looked]
        alarms.append(np.any(flags, axis=0)[away].mean())
        margin = 12 if kind == "level_shift" else 0
        found[kind, bool(np.any(flags, axis=0)[max(0, begin - margin) : end + margin].any())] += 1
    assert np.mean(alarms) <= 0.005
    for kind, least in {"spike": 0.95, "drop": 0.95, "outage": 0.95, "stuck": 0.95, "level_shift": 0.85}.items():
        assert found[kind, True] >= least * (found[kind, True] + found[kind, False]) > 10, (kind, found)


def anomaly_scores(v, day=24):
    around = np.lib.stride_tricks.sliding_window_view
    rest = v - np.resize(np.median(v[: len(v) // day * day].reshape(-1, day), axis=0), len(v))
    runs = np.array([len(list(run)) for _, run in itertools.groupby(v)])
    level = np.convolve(rest, np.ones(day) / day, "valid")
    change = np.zeros(len(v))
    change[day : len(v) - day + 1] = np.abs(level[day:] - level[:-day])
    return {
        "r": np.abs(rest - np.median(around(np.pad(rest, day, "reflect"), 2 * day + 1), axis=1)),
        "a": np.abs(v - np.median(around(np.pad(v, 2, "reflect"), 5), axis=1)),
        "n": np.repeat(runs, runs),
        "l": change,
    }


def test_more_anomalies_than_fit_and_constant_series_are_refused_and_counted():
    rng = np.random.default_rng(1)
    _, marks, refused = with_anomalies(np.ones(100), ["spike"] * 3, 24, 0, np.inf, rng)
    assert (marks, refused) == ([], 3)
    _, marks, refused = with_anomalies(rng.standard_normal(30), ["level_shift"] * 20, 24, -np.inf, np.inf, rng)
    assert len(marks) + refused == 20 and refused > 10


def test_gaps_are_as_many_as_asked_and_apart():
    found = gaps(1000, 0.05, np.random.default_rng(3))
    assert sum(gap["length"] for gap in found) == 50
    ends = [(gap["start"], gap["start"] + gap["length"]) for gap in found]
    assert all(one[1] < other[0] for one, other in itertools.pairwise(ends))


def test_the_peak_hour_is_told_only_where_two_days_were_seen():
    quarter, hour = (
        series(total=1, series_types=("grid_demand",), frequency_shares=step, length=60, english_share=1.0)[0]
        for step in ("15min", "1h")
    )
    assert "highest hour" in hour.description and "highest hour" not in quarter.description


def test_a_description_states_measured_facts_in_the_records_language():
    for one in series(total=20, series_types=("grid_demand",), **(PLAIN | {"anomaly_shares": {"1": 1}})):
        low = min(one.target)
        assert f"{low:.6g}" in one.description
        assert ("Between" if one.language == "en" else "Entre") in one.description
        if one.anomalies:
            assert ("Marked" if one.language == "en" else "Marcado") in one.description


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"noise": 50}, "noise must be between 0.005 and 1, got 50"),
        ({"noise": "much"}, "noise must be a number, got 'much'"),
        ({"level": -5}, "level must be between"),
        ({"morning": 0, "midday": 0, "evening": 0}, "a load needs a peak"),
        ({"context": "x"}, "context has 1 characters"),
        ({"description": "El consumo sube por la tarde y baja por la noche en este hogar."}, "must be in 'en'"),
    ],
)
def test_a_recipe_that_is_absurd_or_contradictory_is_sent_back_with_the_reason(change, reason):
    of = domain(total=1, series_types=("residential_consumption",), english_share=1.0)
    spec = of.specs(1, 1)[0]
    recipe = json.loads(of.offline_text(spec, 0)) | change
    with pytest.raises(ParseFailure, match=reason):
        of.parse(json.dumps(recipe), spec)


def test_a_recipe_with_a_missing_field_is_sent_back():
    of = domain(total=1, series_types=("stock_price",))
    spec = of.specs(1, 1)[0]
    recipe = json.loads(of.offline_text(spec, 0))
    del recipe["volatility"]
    with pytest.raises(ParseFailure, match="volatility"):
        of.parse(json.dumps(recipe), spec)


@pytest.mark.parametrize("language", ["en", "es"])
def test_the_prompt_names_every_parameter_and_its_bounds(language):
    of = domain(total=1, series_types=("wind_generation",), english_share=float(language == "en"))
    prompt = of.prompt(of.specs(1, 1)[0])
    task = prompt.messages[-1][1]
    assert "weibull" in task and "1.4 to 3" in task and ("wind farm" if language == "en" else "parque eólico") in task
    assert set(prompt.schema["required"]) >= {"level", "speed", "context"}


@pytest.fixture(scope="module")
def load():
    chosen = {name: kind for name, kind in kinds().items() if kind.sector == "electricity"}
    return tuple(sample(chosen, {}, "2024-01-01", "1h", 504, seed, 80) for seed in (1, 2))


def test_realism_falls_with_every_way_of_spoiling(load):
    real, other = load
    as_good = mean_ks(features(other), features(real))
    rng = np.random.default_rng(0)
    sd = other.std(1, keepdims=True)
    smooth = np.stack([np.convolve(row, np.ones(5) / 5, "same") for row in other])
    spoilt = {
        "noise": [other + amount * sd * rng.standard_normal(other.shape) for amount in (0.3, 1.0)],
        "smoothing": [smooth, np.stack([np.convolve(row, np.ones(25) / 25, "same") for row in other])],
        "a ramp": [other + amount * sd * np.linspace(0, 1, 504) for amount in (1.0, 4.0)],
        "a shift": [np.roll(other, hours, axis=1) for hours in (2, 6)],
        "a lost mode": [other[:40], other[:12]],  # kinds stand one after the other
        "collapse": [np.repeat(other[:10], 8, axis=0), np.repeat(other[:1], 80, axis=0)],
    }
    for what, (some, much) in spoilt.items():
        a, b = (mean_ks(features(x), features(real)) for x in (some, much))
        assert as_good < a < b, what


def test_realism_says_what_trees_tell_apart_beside_what_halves_of_the_real_ones_are(load):
    real, other = load[0][:40], load[1][:40]
    found, spoilt = (realism(values, real) for values in (other, np.cumsum(other, axis=1)))
    good, bad = ({row["what"]: row for row in each} for each in (found, spoilt))
    for what in ("mean KS over 49 features", "AUC, 49 features", "AUC, 8 features"):
        assert good[what]["estimate"] < good[what]["floor"] + 0.15 < bad[what]["estimate"], what
    assert json.loads(json.dumps(found)) == found and [row["n"] for row in found] == [40] * 3
    few = realism(other, real[:5])
    assert [row["estimate"] for row in few] == [None] * 3 and "20 series on either side are needed" in few[0]["why"]


@pytest.mark.parametrize(("frequency", "day"), [("15min", 96), ("30min", 48), ("1D", 7), ("1W", 52)])
def test_features_know_the_seasons_of_a_frequency(frequency, day):
    assert SEASON[frequency] == day
    t, rng = np.arange(day * 16), np.random.default_rng(0)
    values = np.sin(2 * np.pi * t / day) + 0.1 * rng.standard_normal((3, len(t)))
    found = features(values, day)
    assert len(found) == 49 and (found["daily_strength"] > 0.9).all() and (found["acf_24"] > 0.9).all()
    assert (found["power_day"] > 0.9).all() and (found["acf_12"] < -0.7).all()


def test_there_are_forty_nine_features_whatever_the_scale(load):
    found = features(load[0])
    assert len(found) == 49 and all(np.isfinite(value).all() for value in found.values())
    for scale, level in ((1e6, 1e9), (1e-12, 0.0), (1e20, 0.0)):
        assert mean_ks(found, features(load[0] * scale + level)) < 0.02


def test_priors_move_towards_what_they_are_shown(load):
    chosen = {name: kind for name, kind in kinds().items() if name == "commercial_consumption"}
    found = tune_priors(load[0][:20], chosen, start="2024-01-01", seconds=60, generations=3)
    assert found["mean_ks"]["after"] < found["mean_ks"]["before"]
    assert found["nearest"]["generated to real"] > 0


def test_edited_priors_are_noticed_and_are_other_knowledge(tmp_path):
    file, found = tmp_path / "mine.priors", []
    for shift in (0.0, 3.0):
        file.write_text(f"moves: {{load.noise: [{shift}, 0.0]}}")
        of = domain(total=1, series_types=("grid_demand",), priors=str(file))
        found.append((json.loads(of.offline_text(of.specs(1, 1)[0], 0))["noise"], of.knowledge()["priors"]))
    assert found[0][0] < found[1][0] and found[0][1] != found[1][1]
    file.write_text("moves: {load.colour: [1, 0]}")
    with pytest.raises(InvalidInput, match="holds no priors"):
        domain(priors=str(file)).moves  # noqa: B018


def test_a_group_shares_its_weather_and_is_whole(load):
    of = domain(total=24, series_types=("temperature",), countries=("ES", "DE"), group_size=4, length=500, **PLAIN)
    records = [made(of, spec) for spec in of.specs(24, 1)]
    groups = Counter(one.group_id for one in records)
    assert sorted(groups.values()) == [4] * 6 and all(one.group_id.startswith(one.country) for one in records)
    apart = {True: [], False: []}
    for one, other in itertools.combinations(records, 2):
        daily = [np.array(x.target)[:480].reshape(-1, 24).mean(1) for x in (one, other)]
        apart[one.group_id == other.group_id].append(np.corrcoef(*daily)[0, 1])
    assert np.mean(apart[True]) > 0.5 and abs(np.mean(apart[False])) < 0.3
    assert made(domain(total=1), domain(total=1).specs(1, 1)[0]).group_id is None


DIRECT = {"mode": "direct", "series_types": ("humidity",), "length": 48, "english_share": 1.0}


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v: v[:-1], "values must be a list of 48 numbers, got 47 of them"),
        (lambda v: "many", "values must be a list, got 'many'"),
        (lambda v: ["a", [], *v[2:]], "2 of the values are no finite numbers"),
        (lambda v: [101.0, *v[1:]], r"values must be between 0 and 100 %, got 101"),
    ],
)
def test_values_that_a_model_wrote_itself_are_checked(spoil, reason):
    of = domain(total=1, **DIRECT)
    spec = of.specs(1, 1)[0]
    answer = json.loads(of.offline_text(spec, 0))
    with pytest.raises(ParseFailure, match=reason):
        of.parse(json.dumps(answer | {"values": spoil(answer["values"])}), spec)


def test_values_that_a_model_wrote_itself_are_the_series():
    of = domain(total=1, **DIRECT, **PLAIN)
    spec = of.specs(1, 1)[0]
    prompt = of.prompt(spec)
    assert "exactly 48 values" in prompt.messages[-1][1] and prompt.schema["properties"]["values"]["minItems"] == 48
    answer = of.parse(of.offline_text(spec, 0), spec)
    assert of.render(answer, spec, PROVENANCE).target == answer["values"]
    with pytest.raises(ValidationError, match="at most 200 values, length is 500"):
        TimeseriesConfig(mode="direct")


def test_priors_need_twenty_series(load):
    with pytest.raises(InvalidInput, match="20 series or more, got 3"):
        tune_priors(load[0][:3], kinds(), start="2024-01-01")


def test_cells_are_made_exactly_and_what_they_leave_open_as_planned():
    cells = [
        {"n": 3, "series_type": "solar_generation", "language": "es", "anomaly_count": 2},
        {"n": 8, "quality": "noisy"},
    ]
    of = domain(cells=cells, length=48)
    found = [spec.attributes for spec in of.specs(of.config.total, 7)]
    asked = [a for a in found if (a["series_type"], a["language"], a["anomaly_count"]) == ("solar_generation", "es", 2)]
    assert of.config.total == len(found) == 11 and len(asked) >= 3
    assert sum(a["quality"] == "noisy" for a in found) >= 8 and len({a["series_type"] for a in found}) > 2
    with pytest.raises(InvalidInput, match="series_type 'steam', which is not among those planned"):
        domain(cells=[{"n": 1, "series_type": "steam"}]).specs(1, 7)
