"""Rates from a confusion matrix: over all classes and for each class."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Counts, Floats


class MatrixScores(NamedTuple):
    """Rates of a confusion matrix, as scikit-learn defines them.

    Attributes:
        accuracy: The share of the predictions that are right.
        balanced_accuracy: The mean recall of the classes that have samples.
        matthews_correlation: -1 to 1, 0 for chance; 0 if it is not defined.
        precision: (classes,) the share of a class's predictions that are right; NaN if there are
            none.
        recall: (classes,) the share of a class's samples that are found; NaN if there are none.
        f1: (classes,) `2 * right / (samples + predictions)` for a class; NaN if it has neither.
        support: (classes,) int64 number of samples of each class.

    References:
        Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient"
        (2004), for the correlation.
    """

    accuracy: float
    balanced_accuracy: float
    matthews_correlation: float
    precision: Floats
    recall: Floats
    f1: Floats
    support: Counts


def pool_confusion_matrices(matrices: npt.ArrayLike) -> Counts:
    """The sum over seeds: every prediction of every seed counted once.

    Args:
        matrices: (seeds, classes, classes) counts, rows = true class.

    Returns:
        (classes, classes) int64.
    """
    pooled: Counts = np.asarray(matrices, np.int64).sum(axis=0)
    return pooled


def matrix_scores(matrix: npt.ArrayLike) -> MatrixScores:
    """The rates of a confusion matrix; rates over all classes are NaN if it has no predictions.

    Args:
        matrix: (classes, classes) counts, rows = true class.
    """
    matrix = np.asarray(matrix, np.int64)
    right, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    recall = _parts(right, support, without=np.nan)
    return MatrixScores(
        accuracy=accuracy(matrix),
        balanced_accuracy=float(recall[support > 0].mean()) if support.any() else np.nan,
        matthews_correlation=_matthews_correlation(matrix),
        precision=_parts(right, predicted, without=np.nan),
        recall=recall,
        f1=_parts(2 * right, support + predicted, without=np.nan),
        support=support,
    )


def accuracy(matrix: npt.ArrayLike) -> float:
    """The share of the predictions that are right, 0 to 1; NaN for a matrix without predictions.

    Args:
        matrix: (classes, classes) counts, rows = true class.
    """
    matrix = np.asarray(matrix, np.int64)
    return float(np.trace(matrix) / matrix.sum()) if matrix.any() else np.nan


def normalize_rows(matrix: npt.ArrayLike) -> Floats:
    """The share of each true class that was predicted as each class; the diagonal is the recall.

    Args:
        matrix: (classes, classes) counts, rows = true class.

    Returns:
        (classes, classes), rows that sum to 1; a class without samples has a row of zeros.
    """
    matrix = np.asarray(matrix, np.float64)
    return _parts(matrix, matrix.sum(axis=1, keepdims=True))


def _parts(counts: npt.ArrayLike, totals: npt.ArrayLike, without: float = 0.0) -> Floats:
    """The counts divided by the totals; `without` where a total is 0."""
    shares = np.full(np.shape(counts), without)
    np.divide(counts, totals, out=shares, where=np.asarray(totals) > 0)
    return shares


def _matthews_correlation(matrix: Counts) -> float:
    """The covariance of true and predicted classes, divided by the root of both variances."""
    # float64, because products of counts overflow int64 at some billion predictions.
    true, predicted = (matrix.sum(axis=axis).astype(np.float64) for axis in (1, 0))
    total = float(matrix.sum())
    covariance = np.trace(matrix) * total - true @ predicted
    variances = (total**2 - true @ true) * (total**2 - predicted @ predicted)
    if not total:
        return np.nan
    return float(covariance / np.sqrt(variances)) if variances > 0 else 0.0
