"""How the values of seeds lie: mean, standard deviation, median, interquartile mean, range."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Spread(NamedTuple):
    """How values lie over the seeds, one entry per group of seeds.

    Attributes:
        mean: (...,) arithmetic mean; NaN without values.
        sd: (...,) sample standard deviation, `sqrt(sum((x - mean)^2) / (n - 1))`; NaN for fewer
            than two values, because one seed says nothing about the spread.
        min: (...,) smallest value; NaN without values.
        max: (...,) largest value; NaN without values.
        n: (...,) int64 number of values.
        median: (...,) middle value, or the mean of the middle two; NaN without values.
        iqm: (...,) interquartile mean: the mean of what is left without the lowest and the highest
            quarter of the values, `floor(n / 4)` of them each (Agarwal et al., 2021, section 4.3);
            NaN without values.
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
    # Infinities are values like others: their mean is infinite and their sd is NaN, silently.
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
    for places, rows in groups_of_equal_count(values):
        ordered, cut = np.sort(rows, axis=-1), rows.shape[1] // 4
        median.flat[places] = np.median(ordered, axis=-1)
        iqm.flat[places] = ordered[:, cut : rows.shape[1] - cut].mean(axis=-1)
    return median, iqm


def groups_of_equal_count(values: Floats) -> Iterator[tuple[npt.NDArray[np.intp], Floats]]:
    """The values without NaN: rows that have as many of them, together; none without any.

    Args:
        values: (..., seeds).

    Yields:
        The flat indices of some rows, and their values (rows, n), in the order of the seeds.
    """
    flat = values.reshape(math.prod(values.shape[:-1]), values.shape[-1])
    present = ~np.isnan(flat)
    counts = present.sum(axis=-1)
    for n in np.unique(counts[counts > 0]):
        places = np.flatnonzero(counts == n)
        yield places, flat[places][present[places]].reshape(-1, n)


def _divide(sums: Floats, counts: Counts) -> Floats:
    """Quotients; NaN where nothing was counted."""
    quotients = np.full(np.shape(sums), np.nan)
    np.divide(sums, counts, out=quotients, where=counts > 0)
    return quotients
