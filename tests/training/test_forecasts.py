"""What series are worth: baselines that any model must beat, and how many real series teach as much."""

from __future__ import annotations

import numpy as np
import pytest

from genesis_lab.errors import InvalidInput
from genesis_lab.training.forecasts import baselines, mase, naive_scale, windows, worth

LENGTH = 500
HOURS = np.arange(LENGTH)


def clock(n: int):
    return np.broadcast_to(HOURS % 24, (n, LENGTH)), np.broadcast_to(HOURS // 24 % 7, (n, LENGTH))


def weekly(n: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Days of one shape with a peak of its own each, weaker at weekends."""
    rng = np.random.default_rng(seed)
    peak = rng.uniform(6, 20, (n, 1))
    shape = np.exp(-(((HOURS % 24 - peak + 12) % 24 - 12) ** 2) / 8) * np.where(HOURS // 24 % 7 >= 5, 0.5, 1.0)
    return shape + noise * rng.standard_normal((n, LENGTH))


def errors(values: np.ndarray) -> dict[str, np.ndarray]:
    what, scale, every = windows(values, clock(len(values))), naive_scale(values), np.arange(len(values))
    return {name: mase(made, what, scale, every) for name, made in baselines(what).items()}


def test_last_week_and_the_mean_of_two_foresee_what_repeats_by_the_week():
    found = errors(weekly(4))
    assert found["naive 168"].max() < 1e-6 and found["two-week mean"].max() < 1e-6 < found["naive 24"].min()


@pytest.mark.parametrize(("scale", "level"), [(1e-12, 0.0), (1e20, 0.0), (1.0, 1e9)])
def test_errors_do_not_depend_on_the_unit(scale, level):
    values = weekly(3, noise=0.2)
    for name, found in errors(values * scale + level).items():
        assert found == pytest.approx(errors(values)[name], rel=1e-3), name


def test_a_constant_series_has_no_error_and_is_counted():
    assert np.isnan(naive_scale(np.vstack([weekly(1, 0.1), np.full((1, LENGTH), 7.0)]))).tolist() == [False, True]
    real = np.vstack([weekly(10, 0.1), np.full((3, LENGTH), 7.0)])
    found = worth(weekly(8, 0.1, 1), clock(8), real, clock(13), forecasters=("ridge",), shots=(1, 2), splits=2)
    assert (found["real_series"], found["constant_real_series"]) == (10, 3)


def test_series_of_the_same_kind_are_worth_many_and_noise_is_worth_none():
    real, steps = weekly(24, 0.1), []
    options = {"forecasters": ("ridge",), "shots": (1, 2, 5, 10), "splits": 3}
    alike = worth(
        weekly(40, 0.1, 1), clock(40), real, clock(24), on_progress=lambda *step: steps.append(step), **options
    )
    noise = worth(np.random.default_rng(0).standard_normal((40, LENGTH)), clock(40), real, clock(24), **options)
    good, bad = alike["forecasters"][0], noise["forecasters"][0]
    assert good["worth"]["k"] >= 5 > bad["worth"]["k"] and good["ratio_to_real"] < 1.05 < bad["ratio_to_real"]
    assert good["worth"]["low"] <= good["worth"]["k"] <= good["worth"]["high"]
    assert [done for done, _, _ in steps] == list(range(1, steps[-1][1] + 1)), "the progress ends at its end"


def test_too_few_real_series_and_too_short_ones_are_named():
    with pytest.raises(InvalidInput, match="needs 6 real series that are not constant, got 4"):
        worth(weekly(4), clock(4), weekly(4), clock(4))
    with pytest.raises(InvalidInput, match="series of 380 points or more, got 200"):
        windows(weekly(2)[:, :200], tuple(part[:, :200] for part in clock(2)))
