"""Scores and confusion matrices of a trial, computed on the worker: predictions never leave it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.labels import classes_of_parts
from trialrun.data.model_task import ModelTask
from trialrun.data.splits import PARTS, Splits
from trialrun.errors import TrialrunError
from trialrun.statistics.probabilities import as_probabilities, probability_scores, reliability_bins

# Part -> class numbers (rows,); None if not every row has one class.
Classes = Mapping[str, npt.NDArray[np.int64]] | None


@dataclass(frozen=True, slots=True)
class Judgment:
    """What is computed from predictions on one part of the data; empty for a non-classifier.

    Attributes:
        confusion_matrix: int64 (classes, classes), rows = true class.
        scores: `roc_auc`, `average_precision`, `calibration_error`, `brier_score`, those of them
            that are defined.
        reliability: float64 (bins, 3), see `reliability_bins`.
    """

    confusion_matrix: npt.NDArray[np.int64] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    reliability: npt.NDArray[np.float64] | None = None


def classes_of(task: ModelTask, splits: Splits) -> Classes:
    """The class of each row of each part; None if the model is no classifier or a row has none."""
    return classes_of_parts(task, {part: splits.part(part)[1] for part in PARTS})


def describe_task(task: ModelTask, classes: Sequence[Classes]) -> str:
    """A sentence on what a model is, why, and what cannot be computed for it.

    Args:
        task: The model's task.
        classes: The classes in the data of each trial.
    """
    notes = [task.describe(), task.warning]
    if task.num_classes and None in classes:
        notes.append("the labels are not one class per row, so there is no confusion matrix")
    return "; ".join(filter(None, notes))


def judge(
    task: ModelTask,
    labels: npt.NDArray[np.int64] | None,
    predictions: Any,
    *,
    with_probabilities: bool = True,
) -> Judgment:
    """The confusion matrix of a classifier's predictions, and what their probabilities give.

    Args:
        task: What the model is.
        labels: (rows,) class numbers; None if the labels are not one class per row.
        predictions: (rows, outputs), or (rows,) for a single output.
        with_probabilities: Whether to compute more than the confusion matrix.

    Raises:
        TrialrunError: A row is missing in the confusion matrix, which is a bug of trialrun.
    """
    if labels is None or not task.num_classes or not isinstance(predictions, np.ndarray):
        return Judgment()
    outputs = predictions.reshape(len(predictions), -1)
    if outputs.shape[1] != task.num_outputs or not np.isfinite(outputs).all():
        return Judgment()
    matrix = _confusion_matrix(labels, task.classes(outputs), task.num_classes)
    probabilities = None
    if with_probabilities and task.outputs != "scores":
        probabilities = as_probabilities(task.probabilities(outputs))
    if probabilities is None:
        return Judgment(matrix)
    scores = probability_scores(labels, probabilities)._asdict()
    known = {name: value for name, value in scores.items() if np.isfinite(value)}
    return Judgment(matrix, known, reliability_bins(labels, probabilities))


def _confusion_matrix(
    labels: npt.NDArray[np.int64], predicted: npt.NDArray[np.int64], num_classes: int
) -> npt.NDArray[np.int64]:
    """(classes, classes) counts, rows = true class.

    scikit-learn's takes a millisecond for checks, which is a tenth of what a small trial takes.
    """
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise TrialrunError(
            f"a confusion matrix of {len(labels)} rows would not count all of them: labels from"
            f" {labels.min()} to {labels.max()}, {num_classes} classes"
        )
    counts = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)
