"""How values spread over seeds: mean, standard deviation, median, interquartile mean, range."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Spread(NamedTuple):
    """How values spread over seeds, one entry per group of seeds.

    Attributes:
        mean: (...,) arithmetic mean; NaN without values.
        sd: (...,) sample standard deviation, `sqrt(sum((x - mean)^2) / (n - 1))`; NaN for fewer
            than two values, because one seed says nothing about the spread.
        min: (...,) smallest value; NaN without values.
        max: (...,) largest value; NaN without values.
        n: (...,) int64 number of values.
        median: (...,) middle value, or the mean of the middle two; NaN without values.
        iqm: (...,) interquartile mean: the mean without the lowest and the highest quarter of the
            values, `floor(n / 4)` of them each (Agarwal et al., 2021, section 4.3); NaN without
            values.
    """

    mean: Floats
    sd: Floats
    min: Floats
    max: Floats
    n: Counts
    median: Floats
    iqm: Floats


def describe(values: npt.ArrayLike) -> Spread:
    """The spread over the last axis of the values that are not NaN.

    >>> describe([[1.0, 2.0, np.nan], [5.0, np.nan, np.nan]]).mean
    array([1.5, 5. ])

    Args:
        values: (..., seeds); NaN where a seed has no value.

    Returns:
        Arrays of shape (...,).
    """
    values = np.asarray(values, np.float64)
    present = ~np.isnan(values)
    n = present.sum(axis=-1)
    # Infinities are values like others: the mean is infinite and the sd NaN, without a warning.
    with np.errstate(invalid="ignore"):
        mean = _divide(values.sum(axis=-1, where=present), n)
        deviations = values - mean[..., np.newaxis]
        sd = np.sqrt(_divide(np.square(deviations).sum(axis=-1, where=present), n - 1))
        median, iqm = _middles(values)
    lowest = values.min(axis=-1, where=present, initial=np.inf)
    highest = values.max(axis=-1, where=present, initial=-np.inf)
    smallest, largest = np.where(n, lowest, np.nan), np.where(n, highest, np.nan)
    return Spread(mean, sd, smallest, largest, n, median, iqm)


def _middles(values: Floats) -> tuple[Floats, Floats]:
    """Median and interquartile mean over the last axis."""
    median, iqm = np.full((2, *values.shape[:-1]), np.nan)
    for indices, rows in groups_of_equal_count(values):
        ordered, cut = np.sort(rows, axis=-1), rows.shape[1] // 4
        median.flat[indices] = np.median(ordered, axis=-1)
        iqm.flat[indices] = ordered[:, cut : rows.shape[1] - cut].mean(axis=-1)
    return median, iqm


def groups_of_equal_count(values: Floats) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
    """The values without NaN, in groups of rows that have equally many; rows without any are left
    out.

    Args:
        values: (..., seeds).

    Yields:
        The flat indices of some rows, and their values (rows, n), in the order of the seeds.
    """
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    present = ~np.isnan(flat)
    counts = present.sum(axis=-1)
    for n in np.unique(counts[counts > 0]):
        indices = np.flatnonzero(counts == n)
        yield indices, flat[indices][present[indices]].reshape(-1, n)


def _divide(sums: Floats, counts: Counts) -> Floats:
    """The sums divided by the counts; NaN where a count is 0."""
    quotients = np.full(np.shape(sums), np.nan)
    np.divide(sums, counts, out=quotients, where=counts > 0)
    return quotients


def spans_decades(values: npt.ArrayLike) -> bool:
    """Whether numbers that were tried lie more evenly on a logarithmic axis than on a linear one.

    They do if they span at least a decade, and their median is then nearer to the middle of the
    axis. Values that are not finite are left out.
    """
    array = np.asarray(values, np.float64)
    known = np.unique(array[np.isfinite(array)])
    low, median, high = np.quantile(known, [0, 0.5, 1])
    if not (low > 0 and high >= 10 * low):
        return False
    linear = (median - low) / (high - low)
    return bool(abs(np.log(median / low) / np.log(high / low) - 0.5) < abs(linear - 0.5))
