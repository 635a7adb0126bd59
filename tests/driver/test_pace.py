"""The rate of a run and the time that is left, with its spread."""

import numpy as np
import pytest

from trialrun.driver.pace import Pace


def pace_of(times, amounts):
    pace = Pace(0.0)
    for time_s, done in zip(times, amounts, strict=True):
        pace.mark(time_s, done)
    return pace


def test_nothing_is_known_before_something_is_done():
    assert pace_of([1, 2, 3], [0, 0, 0]).left(4, 0, 10) is None
    assert Pace(0.0).left(0.0, 0, 10) is None


def test_a_steady_pace_has_no_spread_and_the_right_end():
    left = pace_of(range(1, 41), range(2, 82, 2)).left(40, 80, 100)
    assert left == pytest.approx((10, 10, 10))


def test_the_time_that_compiling_took_does_not_slow_the_rest():
    times = np.arange(1, 101)
    done = np.maximum(0, times - 40.0)
    assert pace_of(times, done).left(100, 60.0, 70)[0] == pytest.approx(10)


def test_of_a_few_marks_no_spread_is_told():
    assert pace_of([1, 2], [1, 2]).left(2, 2, 4) == pytest.approx((2, None, None))


def test_the_spread_holds_the_true_time_nearly_always():
    """Packs that end at random moments; how long the second half really takes is known."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(200):
        ends = np.cumsum(rng.exponential(1.0, 400))
        left = pace_of(ends[:200], range(1, 201)).left(ends[199], 200, 400)
        held.append(left.low_s <= ends[399] - ends[199] <= (left.high_s or np.inf))
    assert np.mean(held) > 0.8  # the rest is luck of its own, of which the marks know nothing


def test_marks_are_few_however_long_it_takes():
    times = np.arange(0, 5_000)
    pace = pace_of(times, times)
    assert len(pace._marks) <= 48
    assert pace.left(5_000, 5_000, 6_000)[0] == pytest.approx(1_000)
