"""Intervals, tests and effect sizes against worked examples and their own laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis_lab import stats
from genesis_lab.errors import InvalidInput
from genesis_lab.stats import Interval, above, paired

weights = st.lists(st.integers(0, 1000), min_size=1, max_size=8).filter(any)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_an_interval_reads_as_a_sentence_and_as_json() -> None:
    interval = stats.Interval(0.8111, 0.7777, 0.8444, 539)
    assert str(interval) == "0.81 [0.78–0.84]"
    assert interval.to_dict() == {"estimate": 0.8111, "low": 0.7777, "high": 0.8444, "n": 539}


def test_wilson_interval_of_a_textbook_case() -> None:
    assert stats.proportion_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("successes", "edge", "at"), [(0, 0, 0.0), (7, 1, 1.0)])
def test_wilson_interval_touches_the_edge_exactly_when_all_or_none_succeed(
    successes: int, edge: int, at: float
) -> None:
    assert stats.proportion_interval(successes, 7)[edge] == at


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (5, 4), (-1, 4)])
def test_an_impossible_proportion_is_refused(successes: int, n: int) -> None:
    with pytest.raises(InvalidInput, match=f"{successes} of {n}"):
        stats.proportion_interval(successes, n)


def test_paired_difference_is_tighter_than_two_separate_intervals() -> None:
    a = rng().random(400) < 0.7
    b = a.copy()
    b[:40] = False
    difference, one = paired(a, b).difference, stats.mean_interval(a)
    assert difference.low > 0
    assert difference.high - difference.low < one.high - one.low


def test_sign_flips_of_ten_equal_differences() -> None:
    assert stats.sign_flip_p([0.5] * 10, rng=rng(), n=20_000) == 2 / 1024
    assert stats.sign_flip_p([0.0] * 10, rng=rng()) == 1.0


@pytest.mark.parametrize(("wins", "losses"), [(10, 2), (3, 0), (9, 9)])
def test_right_or_wrong_is_compared_as_mcnemar_does(wins: int, losses: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(wins, wins + losses).pvalue
    one, other = [1] * wins + [0] * losses + [1] * 50, [0] * wins + [1] * losses + [1] * 50
    assert paired(one, other).p == pytest.approx(expected, rel=0.05)


def test_holm_adjusts_step_by_step() -> None:
    assert stats.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert stats.holm([]) == []


def test_distances_of_equal_and_of_disjoint_distributions() -> None:
    for distance in (stats.total_variation, stats.jensen_shannon):
        assert distance([2, 1], [4, 2]) == pytest.approx(0)
        assert distance([1, 0], [0, 3]) == pytest.approx(1)
    assert stats.total_variation([0.5, 0.5], [0.75, 0.25]) == pytest.approx(0.25)


@given(weights, weights)
def test_distances_are_symmetric_and_stay_between_zero_and_one(p: list[int], q: list[int]) -> None:
    size = max(len(p), len(q))
    p, q = p + [0] * (size - len(p)), q + [0] * (size - len(q))
    for distance in (stats.total_variation, stats.jensen_shannon):
        assert -1e-9 <= distance(p, q) <= 1 + 1e-9
        assert distance(p, q) == pytest.approx(distance(q, p), abs=1e-9)


@pytest.mark.parametrize(("p", "q"), [([1, 2], [1, 2, 3]), ([1, -1], [1, 1]), ([0, 0], [1, 1])])
def test_what_is_no_distribution_is_refused(p: list[int], q: list[int]) -> None:
    with pytest.raises(InvalidInput, match="istribution"):
        stats.jensen_shannon(p, q)


def test_the_mean_interval_is_students() -> None:
    found = stats.mean_interval([1, 2, 3, 4, 5], scale=(1, 5))
    assert (found.estimate, found.n) == (3, 5)
    assert (found.low, found.high) == pytest.approx((1.0368, 4.9632), abs=1e-4)  # 3 ± 2.7764 · 1.5811 / √5
    with pytest.raises(InvalidInput, match="at least one value"):
        stats.mean_interval([])


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_one_value_says_nothing_about_the_next_and_equal_ones_a_little_more_each(value: float) -> None:
    found = [stats.mean_interval([value] * n) for n in (1, 3, 24, 1000)]
    assert (found[0].low, found[0].high) == (0, 1)
    widths = [each.high - each.low for each in found]
    assert widths == sorted(widths, reverse=True) and 0 < widths[-1] < 0.005
    assert all(each.low <= value <= each.high for each in found)


def test_resamples_that_never_differ_leave_room_for_what_was_not_seen() -> None:
    found = stats.percentile_interval(1.0, [1.0] * 500, 30)
    assert (found.low, found.high) == (stats.mean_interval([1.0] * 30).low, 1.0) and found.low < 0.9
    same = stats.percentile_interval(0.0, [0.0] * 500, 30, scale=(-1, 1))
    assert same.low == -same.high < 0


def test_power_and_the_detectable_difference_belong_together() -> None:
    assert stats.paired_power(0.5, 1.0, 34) == pytest.approx(0.808, abs=0.001)  # G*Power 3.1: n = 34, power 0.808
    assert stats.paired_power(0.0, 1.0, 34) == pytest.approx(0.05)
    assert stats.paired_power(5.0, 0.1, 500) == 1
    for n in (5, 30, 600):
        detectable = stats.detectable_difference(0.37, n)
        assert detectable and stats.paired_power(detectable, 0.37, n) == pytest.approx(0.8, abs=0.02)
    assert stats.detectable_difference(0.37, 1) is None


def right(n: int, of: int) -> list[int]:
    return [1] * n + [0] * (of - n)


def test_a_difference_within_chance_can_not_be_told():
    found = paired(right(21, 24), right(24, 24), margin=0.03)
    assert found.verdict == "can't be told" and found.keeps_up is None
    assert (found.wins, found.ties, found.losses) == (0, 21, 3)


def test_few_items_that_all_agree_prove_nothing_and_many_do():
    assert paired(right(24, 24), right(24, 24), margin=0.03).verdict == "can't be told"
    assert paired(right(500, 500), right(500, 500), margin=0.03).verdict == "equivalent"


def test_one_small_change_among_few_equal_items_proves_no_more_than_none():
    found = paired([0.99, *right(23, 23)], right(24, 24), margin=0.03)
    assert found.verdict == "can't be told" and found.keeps_up is None


@pytest.mark.parametrize(("a", "b", "verdict"), [(80, 60, "better"), (60, 80, "worse"), (63, 60, "can't be told")])
def test_a_proven_difference_has_its_word(a, b, verdict):
    assert paired(right(a, 100), right(b, 100)).verdict == verdict


def test_items_of_one_group_count_once():
    alone = paired([1, 0] * 10, [0, 0] * 10)
    grouped = paired([1, 0] * 10, [0, 0] * 10, groups=[i // 2 for i in range(20)])
    assert (alone.difference.n, grouped.difference.n) == (20, 10)
    assert grouped.difference.estimate == alone.difference.estimate == 0.5
    assert paired([1, 1], [0, 0], groups=["x", "x"]).verdict == "can't be told"


def test_a_correction_can_take_a_verdict_back():
    found = paired(right(80, 100), right(60, 100))
    assert found.corrected(0.2).verdict == "can't be told"


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("n", [12, 24, 100])
def test_nothing_is_called_better_too_often_where_nothing_is(chance, n):
    rng = np.random.default_rng(1)
    verdicts = [paired(rng.random(n) < chance, rng.random(n) < chance, flips=400).verdict for _ in range(400)]
    assert sum(v in ("better", "better but small", "worse") for v in verdicts) / 400 <= 0.075
    assert sum(v in ("better", "better but small") for v in verdicts) / 400 <= 0.045


@pytest.mark.parametrize(("a", "b", "groups"), [([], [], None), ([1], [1, 0], None), ([1, 0], [0, 0], ["x"])])
def test_sides_that_do_not_match_are_refused(a, b, groups):
    with pytest.raises(InvalidInput, match="paired comparison needs"):
        paired(a, b, groups)


@pytest.mark.parametrize(("threshold", "answer"), [(0.4, True), (0.6, None), (0.9, False)])
def test_a_threshold_within_the_interval_can_not_be_told(threshold, answer):
    assert above(Interval(0.6, 0.5, 0.7, 10), threshold) is answer


def test_how_many_items_would_be_enough():
    few = paired(right(21, 24), right(24, 24), margin=0.03)
    assert few.needed(to_keep_up=True) == 100  # (2.80 · 0.338 / (0.125 − 0.03))²
    same = paired(right(24, 24), right(24, 24), margin=0.03)
    assert paired([1] * same.needed(), [1] * same.needed(), margin=0.03).keeps_up is True
    assert paired([1] * 5, [1] * 5).needed() > 5 and paired([1] * 5, [1] * 5, margin=0.9).keeps_up is None
