"""Scores of predicted probabilities, for one trial at a time, while its predictions are in memory.

scikit-learn has these scores too, and the tests compare ours with them. But its functions spend
milliseconds on checking their arguments, a quarter of the time that training a small trial takes.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Floats

NUM_BINS = 10


class ProbabilityScores(NamedTuple):
    """Scores of predicted class probabilities.

    Attributes:
        roc_auc: Area under the ROC curve: how often a sample of a class has a higher probability
            of that class than a sample of another class. For two classes it is that of the second
            one; for more, the mean over classes, each against the rest. NaN if a class has no
            sample.
        average_precision: Area under the precision-recall curve, `sum((R_k - R_{k-1}) * P_k)` over
            thresholds; for the same classes as `roc_auc`.
        calibration_error: Expected calibration error: `sum(n_b / n * |accuracy_b - confidence_b|)`
            over 10 bins of equal width of the confidence, the probability of the predicted class.
        brier_score: Mean squared error of the probabilities. For two classes it is that of the
            second one's probability; for more, the sum over classes.

    References:
        Fawcett, "An introduction to ROC analysis" (2006); Guo et al., "On Calibration of Modern
        Neural Networks" (ICML 2017), section 2; Brier, "Verification of Forecasts Expressed in
        Terms of Probability" (1950).
    """

    roc_auc: float
    average_precision: float
    calibration_error: float
    brier_score: float


def as_probabilities(predictions: npt.ArrayLike) -> Floats | None:
    """Predictions (rows, outputs) as probabilities (rows, classes); None if they are not.

    A single output is the probability of the second of two classes. Logits are not probabilities.
    """
    given = np.asarray(predictions, np.float64)
    # NaN fails this test too. In half precision, sums are off by a thousandth.
    if not (given.size and given.min() >= 0 and given.max() <= 1 + 1e-6):
        return None
    if given.shape[1] == 1:
        return np.concatenate([1 - given, given], axis=1)
    return given if np.abs(given.sum(axis=1) - 1).max() < 0.01 else None


def probability_scores(labels: npt.ArrayLike, probabilities: Floats) -> ProbabilityScores:
    """The scores of the predicted probabilities of some rows.

    Args:
        labels: (rows,) integers from 0, the true classes.
        probabilities: (rows, classes), at least two classes.
    """
    labels = np.asarray(labels)
    num_classes = probabilities.shape[1]
    is_class = labels[:, np.newaxis] == np.arange(num_classes)
    judged = range(1, 2) if num_classes == 2 else range(num_classes)
    ranked = [_rank_scores(is_class[:, k], probabilities[:, k]) for k in judged]
    roc_auc, average_precision = np.mean(ranked, axis=0).tolist()
    errors = np.square(probabilities - is_class)
    return ProbabilityScores(
        roc_auc=roc_auc,
        average_precision=average_precision,
        calibration_error=calibration_error(reliability_bins(labels, probabilities)),
        brier_score=float(errors[:, 1].mean() if num_classes == 2 else errors.sum(axis=1).mean()),
    )


def _rank_scores(is_class: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, float]:
    """ROC AUC and average precision of one class against the rest; NaN if one is empty."""
    num_inside, num_all = int(is_class.sum()), len(is_class)
    if num_inside in (0, num_all):
        return np.nan, np.nan
    order = np.argsort(-scores, kind="stable")
    # Rows with equal scores pass a threshold together, so only the last of them ends a step.
    ends = np.nonzero(np.append(np.diff(scores[order]) != 0, True))[0]
    found = np.cumsum(is_class[order])[ends]
    others = ends + 1 - found
    roc_auc = np.trapezoid(np.append(0, found), np.append(0, others))
    new = np.diff(found, prepend=0)
    average_precision = (new * found / (ends + 1)).sum() / num_inside
    return float(roc_auc / (num_inside * (num_all - num_inside))), float(average_precision)


def reliability_bins(labels: npt.ArrayLike, probabilities: Floats) -> Floats:
    """How often the predicted class was right, by the probability that the model gave it.

    Args:
        labels: (rows,) integers from 0.
        probabilities: (rows, classes).

    Returns:
        (10, 3): for each tenth of the confidence, from [0, 0.1) to [0.9, 1], the number of rows,
        the sum of their confidences, and how many were right. They are sums, so that seeds can be
        pooled.
    """
    confidences = np.minimum(probabilities.max(axis=1), 1.0)
    right = probabilities.argmax(axis=1) == np.asarray(labels)
    bins = np.minimum((confidences * NUM_BINS).astype(np.intp), NUM_BINS - 1)
    weights = (np.ones(len(bins)), confidences, right)
    return np.stack([np.bincount(bins, column, minlength=NUM_BINS) for column in weights], axis=1)


def calibration_error(bins: Floats) -> float:
    """The expected calibration error from `reliability_bins`, of one seed or summed over seeds."""
    counts = bins[:, 0]
    return float(np.abs(bins[:, 2] - bins[:, 1]).sum() / counts.sum()) if counts.any() else np.nan
