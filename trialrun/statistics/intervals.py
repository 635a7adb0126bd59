"""Confidence intervals of the mean over all possible seeds, from the seeds that were run.

SciPy is imported inside the functions, because importing it takes a second.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Floats, groups_of_equal_count

CONFIDENCE = 0.95

# The bootstrap needs about ten values to know the shape of their distribution. With hundreds of
# values the mean is normally distributed, and Student's interval is the same but costs nothing.
_BOOTSTRAP_COUNTS = range(10, 201)
_NUM_RESAMPLES = 1999
_ROWS_AT_A_TIME = 4096


class Interval(NamedTuple):
    """Bounds of means, one entry per group of seeds.

    Attributes:
        low: (...,) lower bound; -inf where the values give no bound.
        high: (...,) upper bound; inf where the values give no bound.
    """

    low: Floats
    high: Floats


def mean_interval(
    values: npt.ArrayLike, rng: np.random.Generator, *, confidence: float = CONFIDENCE
) -> Interval:
    """The confidence interval of the mean over the last axis.

    For 10 to 200 values this is the bias-corrected and accelerated bootstrap. Its confidence is
    expanded, because resampled means of few values lie too close together: `a` becomes
    `2 * Phi(-sqrt(n / (n - 1)) * t)`, with `t` the quantile `1 - a/2` of Student's distribution
    with `n - 1` degrees of freedom. For other numbers of values it is Student's interval,
    `mean -+ t * sd / sqrt(n)`.

    A single value gives no bounds, nor do values that are all equal: a spread that did not show in
    a few seeds is not known to be zero. In both cases the interval is from -inf to inf, also if a
    value is infinite. The interval of a group depends on its own values and on `rng`, not on the
    other groups.

    Args:
        values: (..., seeds); NaN where a seed has no value.
        rng: Draws the resamples.
        confidence: The share of such intervals that hold the true mean, between 0 and 1.

    References:
        Efron, "Better Bootstrap Confidence Intervals" (JASA, 1987); Hesterberg, "What Teachers
        Should Know About the Bootstrap" (The American Statistician, 2015), section 4.3.
    """
    values = np.asarray(values, np.float64)
    low, high = np.full(values.shape[:-1], -np.inf), np.full(values.shape[:-1], np.inf)
    key = int(rng.integers(1 << 62))
    for indices, rows in groups_of_equal_count(values):
        with np.errstate(invalid="ignore"):  # infinity minus infinity
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
        low.flat[indices[bounded]], high.flat[indices[bounded]] = found
    return Interval(low, high)


def cautious_interval(values: npt.ArrayLike, rng: np.random.Generator) -> Interval:
    """The 95% interval of the mean over the last axis, for a statement that stands by itself.

    At each end it is the wider one of `mean_interval` and Student's interval. From twenty values
    with heavy tails the bootstrap holds the true mean too seldom, with skewed ones Student's does
    (`scripts/simulate_rounds choice` prints how often).

    Args:
        values, rng: See `mean_interval`.
    """
    values = np.asarray(values, np.float64)
    low, high = mean_interval(values, rng)
    for indices, rows in groups_of_equal_count(values):
        bounded = np.isfinite(low.flat[indices])
        if bounded.any():
            lower, upper = _student(rows[bounded], CONFIDENCE)
            own = indices[bounded]
            low.flat[own] = np.minimum(low.flat[own], lower)
            high.flat[own] = np.maximum(high.flat[own], upper)
    return Interval(low, high)


def within_bounds(interval: Interval, values: npt.ArrayLike, low: Floats, high: Floats) -> Interval:
    """Intervals cut off at the bounds of a metric; they hold the true mean as often as before.

    A bound is ignored if some value lies beyond it. Infinite ends stay infinite, because seeds that
    give no bounds have no interval.

    Args:
        interval: (...,) the intervals of the means.
        values: (..., seeds) the values of these means; NaN where a seed has no value.
        low, high: The metric's bounds, (...,) or a shape that broadcasts to it; infinite for no
            bound.
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
    """The BCa interval of each row (groups, n), with the same resamples for all rows."""
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
    """The mean, always summed in the same order, whatever the memory layout of the values."""
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
