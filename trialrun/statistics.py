"""Pure functions on arrays: spread over seeds, confusion matrices. Knows no file and no plot."""

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
    """

    mean: Floats
    sd: Floats
    min: Floats
    max: Floats
    n: Counts


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
    lowest = values.min(axis=-1, where=present, initial=np.inf)
    highest = values.max(axis=-1, where=present, initial=-np.inf)
    return Spread(mean, sd, np.where(n, lowest, np.nan), np.where(n, highest, np.nan), n)


def _divide(sums: Floats, counts: Counts) -> Floats:
    """Quotients; NaN where nothing was counted."""
    quotients = np.full(np.shape(sums), np.nan)
    np.divide(sums, counts, out=quotients, where=counts > 0)
    return quotients


def pool_confusion_matrices(matrices: npt.ArrayLike) -> Counts:
    """The sum over seeds: every prediction of every seed counted once.

    Args:
        matrices: (seeds, classes, classes) counts, rows = true class.

    Returns:
        (classes, classes) int64.
    """
    pooled: Counts = np.asarray(matrices, np.int64).sum(axis=0)
    return pooled


def accuracy(matrix: npt.ArrayLike) -> float:
    """The part of the predictions that are right, 0 to 1; NaN for a matrix without predictions.

    Args:
        matrix: (classes, classes) counts, rows = true class.
    """
    matrix = np.asarray(matrix, np.int64)
    return float(_divide(np.trace(matrix), matrix.sum()))


def normalize_rows(matrix: npt.ArrayLike) -> Floats:
    """Of each true class, the part that was predicted as each class; its diagonal is the recall.

    Args:
        matrix: (classes, classes) counts, rows = true class.

    Returns:
        (classes, classes), rows that sum to 1; a class without samples has a row of zeros.
    """
    matrix = np.asarray(matrix, np.float64)
    totals = matrix.sum(axis=1, keepdims=True)
    rows = np.zeros_like(matrix)
    np.divide(matrix, totals, out=rows, where=totals > 0)
    return rows
