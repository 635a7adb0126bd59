"""Within which bounds the mean over all seeds lies, as far as the seeds that were run can say.

SciPy is imported inside the functions: it takes a second.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Floats, groups_of_equal_count

CONFIDENCE = 0.95

# The bootstrap needs some ten values to know the shape of their distribution; with hundreds the
# mean is normal, and Student's interval is the same for no cost.
_BOOTSTRAP_COUNTS = range(10, 201)
_NUM_RESAMPLES = 1999
_ROWS_AT_A_TIME = 4096


class Interval(NamedTuple):
    """Bounds of means, one entry per group of seeds.

    Attributes:
        low: (...,) lower bound; -inf where the values bound nothing.
        high: (...,) upper bound; inf where the values bound nothing.
    """

    low: Floats
    high: Floats


def mean_interval(
    values: npt.ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE
) -> Interval:
    """The confidence interval of the mean over the last axis.

    From 10 to 200 values: the bias-corrected and accelerated bootstrap, at a confidence that is
    expanded because resampled means of few values lie too close together: `a` becomes
    `2 * Phi(-sqrt(n / (n - 1)) * t)`, with `t` the quantile `1 - a/2` of Student's distribution of
    `n - 1` degrees of freedom. Otherwise Student's, `mean -+ t * sd / sqrt(n)`.

    One value bounds nothing. Nor do values that are all equal: a spread that did not show in a few
    seeds is not known to be zero. Both have the interval from -inf to inf, as has a group with an
    infinite value. The interval of a group depends on its own values and on `rng`, not on the
    groups beside it.

    Args:
        values: (..., seeds); NaN where a seed has no value.
        rng: Draws the resamples.
        confidence: How often such intervals hold the mean, between 0 and 1.

    References:
        Efron, "Better Bootstrap Confidence Intervals" (JASA, 1987); Hesterberg, "What Teachers
        Should Know About the Bootstrap" (The American Statistician, 2015), section 4.3.
    """
    values = np.asarray(values, np.float64)
    low, high = np.full(values.shape[:-1], -np.inf), np.full(values.shape[:-1], np.inf)
    key = int(rng.integers(1 << 62))
    for places, rows in groups_of_equal_count(values):
        with np.errstate(invalid="ignore"):  # of infinities
            bounded = np.ptp(rows, axis=-1) > 0
        bounded &= np.isfinite(rows).all(axis=-1)
        if not bounded.any():
            continue
        num_values = rows.shape[1]
        if num_values in _BOOTSTRAP_COUNTS:
            draws = np.random.default_rng([key, num_values])
            found = _bootstrap(rows[bounded], draws, confidence)
        else:
            found = _student(rows[bounded], confidence)
        low.flat[places[bounded]], high.flat[places[bounded]] = found
    return Interval(low, high)


def within_bounds(interval: Interval, values: npt.ArrayLike, low: Floats, high: Floats) -> Interval:
    """Intervals cut off where a metric ends; the true mean is held as often as before.

    What has a value beyond a bound does not have that bound. Infinite ends stay infinite: seeds
    that bound nothing have no interval.

    Args:
        interval: (...,) of means.
        values: (..., seeds) of which they are; NaN where a seed has no value.
        low, high: (...,), or of a shape that is broadcast to it; infinite where there is no bound.
    """
    values = np.asarray(values, np.float64)
    present = ~np.isnan(values)
    lowest = values.min(axis=-1, where=present, initial=np.inf)
    highest = values.max(axis=-1, where=present, initial=-np.inf)
    return Interval(
        np.where(
            np.isfinite(interval.low) & (lowest >= low), np.maximum(interval.low, low), interval.low
        ),
        np.where(
            np.isfinite(interval.high) & (highest <= high),
            np.minimum(interval.high, high),
            interval.high,
        ),
    )


def _bootstrap(rows: Floats, rng: np.random.Generator, confidence: float) -> Interval:
    """The BCa interval of each row (groups, n): the same resamples for all of them."""
    from scipy import stats

    num_values = rows.shape[1]
    quantile = stats.t.ppf((1 + confidence) / 2, num_values - 1)
    expanded = 1 - 2 * stats.norm.cdf(-np.sqrt(num_values / (num_values - 1)) * quantile)
    state = rng.bit_generator.state
    chunks = []
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        rng.bit_generator.state = state
        result = stats.bootstrap(
            (rows[start : start + _ROWS_AT_A_TIME],),
            _mean,
            axis=-1,
            n_resamples=_NUM_RESAMPLES,
            batch=100,
            confidence_level=expanded,
            method="BCa",
            rng=rng,
        )
        chunks.append(result.confidence_interval)
    return Interval(*(np.concatenate(bounds) for bounds in zip(*chunks, strict=True)))


def _mean(values: Floats, axis: int) -> Floats:
    """The mean, summed in the same order however the values lie in memory."""
    mean: Floats = np.ascontiguousarray(values).mean(axis=axis)
    return mean


def _student(rows: Floats, confidence: float) -> Interval:
    """Student's interval of each row (groups, n), n at least 2."""
    from scipy import stats

    num_values = rows.shape[1]
    mean = rows.mean(axis=-1)
    quantile = stats.t.ppf((1 + confidence) / 2, num_values - 1)
    half = quantile * rows.std(axis=-1, ddof=1) / np.sqrt(num_values)
    return Interval(mean - half, mean + half)
