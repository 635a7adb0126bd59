"""What a trial's predictions say of it, computed where they are: they never leave the worker."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.statistics.probabilities import (
    as_probabilities,
    probability_scores,
    reliability_bins,
)


@dataclass(frozen=True, slots=True)
class Judgment:
    """What predictions on one part of the data say; empty for a model that does not classify.

    Attributes:
        confusion_matrix: int64 (classes, classes), rows = true class.
        scores: `roc_auc`, `average_precision`, `calibration_error`, `brier_score`, as far as they
            are defined.
        reliability: float64 (bins, 3), see `reliability_bins`.
    """

    confusion_matrix: npt.NDArray[np.int64] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reliability: npt.NDArray[np.float64] | None = None


def judge(y: Any, predictions: Any, *, with_probabilities: bool = True) -> Judgment:
    """What a classifier's predictions say.

    A classifier has integer labels, and either one probability per class or, for two classes, one
    probability in a single column.

    Args:
        y: Labels (rows,) or (rows, 1).
        predictions: (rows, outputs).
        with_probabilities: Whether more than the confusion matrix is wanted.
    """
    if not _classifies(y, predictions):
        return Judgment()
    labels = y.ravel()
    matrix = _confusion_matrix(labels, predictions)
    probabilities = as_probabilities(predictions) if with_probabilities else None
    if probabilities is None:
        return Judgment(matrix)
    scores = probability_scores(labels, probabilities)._asdict()
    known = {name: value for name, value in scores.items() if np.isfinite(value)}
    return Judgment(matrix, known, reliability_bins(labels, probabilities))


def _classifies(y: Any, predictions: Any) -> bool:
    is_array = isinstance(y, np.ndarray) and isinstance(predictions, np.ndarray)
    if not is_array or predictions.ndim != 2 or y.size != len(y) or y.dtype.kind not in "iu":
        return False
    return bool(np.isfinite(predictions).all())


def _confusion_matrix(
    labels: npt.NDArray[np.integer[Any]], predictions: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    from sklearn.metrics import confusion_matrix

    num_outputs = predictions.shape[1]
    classes = predictions.argmax(1) if num_outputs > 1 else (predictions[:, 0] > 0.5).astype(int)
    matrix: npt.NDArray[np.int64] = confusion_matrix(
        labels, classes, labels=np.arange(max(num_outputs, 2))
    )
    return matrix
