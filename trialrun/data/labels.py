"""Labels as a loss understands them: class numbers, and checks that refuse labels without meaning.

Keras itself trains on nearly any labels: a class number 2 with only two classes gives losses below
zero, labels of another width are broadcast against the outputs, and a fraction is truncated to a
class number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.model_task import ModelTask, OutputLoss
from trialrun.errors import InputError

# The sum of a row of one-hot labels or of a distribution, in float32, may differ so much from 1.
_SUM_TOLERANCE = 1e-3

Labels = npt.NDArray[Any]


def class_numbers(y: Any, num_classes: int) -> npt.NDArray[np.int64] | None:
    """The class of each row, from 0; None if the labels are not one class per row.

    Args:
        y: Whole numbers of any type, (rows,) or (rows, 1); two classes may also be -1 and 1. Or
            one-hot labels (rows, classes).
        num_classes: The number of classes.
    """
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf" or y.ndim not in (1, 2):
        return None
    if y.ndim == 2 and y.shape[1] == num_classes > 1:
        is_one_hot = ((y == 0) | (y == 1)).all() and (y.sum(1) == 1).all()
        return y.argmax(1).astype(np.int64) if is_one_hot else None
    if y.size != len(y) or not y.size:
        return None
    numbers = y.ravel()
    if num_classes == 2 and numbers.min() == -1 and np.isin(numbers, (-1, 1)).all():
        return (numbers > 0).astype(np.int64)
    if numbers.min() < 0 or numbers.max() >= num_classes:
        return None
    classes = numbers.astype(np.int64)
    return classes if np.array_equal(classes, numbers) else None


def classes_of_parts(
    task: ModelTask, parts: Mapping[str, Any]
) -> Mapping[str, npt.NDArray[np.int64]] | None:
    """The class of each row of every part.

    Args:
        task: The task of the model.
        parts: Part -> labels.

    Returns:
        Part -> int64 (rows,); None if the model is no classifier, or if the labels of some part are
        not one class per row (as with smoothed labels).
    """
    if not task.num_classes:
        return None
    found = {part: class_numbers(y, task.num_classes) for part, y in parts.items()}
    known = {part: classes for part, classes in found.items() if classes is not None}
    return known if len(known) == len(found) else None


def check_labels(losses: Sequence[OutputLoss], parts: Mapping[str, Any]) -> None:
    """Raises InputError unless the labels have a meaning for each loss.

    Args:
        losses: The losses of the model's outputs.
        parts: Part -> labels: an array, or a dict or tuple of arrays, one per output.

    Raises:
        InputError: Labels have no meaning for a loss. The message says which labels of which part,
            what the loss takes, and what to do.
    """
    for index, loss in enumerate(losses):
        labels_of_parts = {
            f"{part} labels" + (f" of {loss.output}" if loss.output else ""): labels
            for part, y in parts.items()
            if (labels := labels_of(y, loss.output, index)) is not None
        }
        for where, labels in labels_of_parts.items():
            _CHECKS.get(loss.family, _check_nothing)(loss, labels, where)
        if loss.family == "hinge":
            _check_same_sign(loss, labels_of_parts)


def labels_of(y: Any, output: str, index: int) -> Labels | None:
    """The labels of an output; None if they are missing or not an array of numbers.

    Args:
        y: The labels of all outputs: an array, or a dict or tuple of arrays.
        output: The name of the output; empty if it is the only one.
        index: The index of the output among all outputs.
    """
    if isinstance(y, Mapping):
        y = y.get(output) if output else next(iter(y.values())) if len(y) == 1 else None
    elif isinstance(y, tuple):
        y = y[index] if index < len(y) else None
    return y if isinstance(y, np.ndarray) and y.dtype.kind in "biuf" and y.ndim else None


def _check_nothing(loss: OutputLoss, labels: Labels, where: str) -> None:
    """Does nothing: only the user's own loss knows what its labels mean."""


def _check_shape(loss: OutputLoss, labels: Labels, where: str) -> None:
    """Refuses labels that Keras would broadcast to the outputs; a last axis of 1 may be missing."""
    shape, wanted = labels.shape[1:], loss.shape
    if len(shape) == len(wanted) + 1 and shape[-1] == 1:
        shape = shape[:-1]
    elif len(wanted) == len(shape) + 1 and wanted[-1] == 1:
        wanted = wanted[:-1]
    same = len(shape) == len(wanted) and all(
        there is None or here == there for here, there in zip(shape, wanted, strict=True)
    )
    if same:
        return
    several = loss.num_outputs or 0
    classes = loss.family in ("binary", "categorical", "categorical_hinge", "distribution")
    remedy = "give labels the shape of the outputs, or give the model outputs of the labels' shape"
    if classes and several > 1 and labels.size == len(labels):
        remedy = (
            "for class numbers use sparse_categorical_crossentropy with a softmax, or give one-hot"
            " labels"
        )
    raise InputError(
        f"{where} have the shape {labels.shape[1:]} per row, but the loss {loss.name} compares them"
        f" with outputs of shape {loss.shape} per row; {remedy}"
    )


def _check_binary(loss: OutputLoss, labels: Labels, where: str) -> None:
    _check_shape(loss, labels, where)
    remedy = (
        "label the two classes 0 and 1; for more classes use sparse_categorical_crossentropy, with"
        " labels from 0 and a softmax of one output per class"
    )
    _check_range(loss, labels, where, allowed="labels from 0 to 1", low=0, high=1, remedy=remedy)


def _check_sparse(loss: OutputLoss, labels: Labels, where: str) -> None:
    num_outputs = loss.num_outputs
    has_axis = labels.ndim == len(loss.shape) + 1 and labels.shape[-1] == 1
    bare = labels[..., 0] if has_axis else labels
    if bare.ndim != len(loss.shape):
        raise InputError(
            f"{where} have the shape {labels.shape[1:]} per row, but the loss {loss.name} takes one"
            f" class number for outputs of shape {loss.shape} per row; for one-hot labels use"
            " categorical_crossentropy"
        )
    judged = bare if loss.ignored_class is None else bare[bare != loss.ignored_class]
    if not judged.size:
        return
    is_whole = judged == np.floor(judged)
    if not is_whole.all():
        raise InputError(
            f"{where} hold {judged[~is_whole][0]}, but the loss {loss.name} takes class numbers 0,"
            " 1, 2, ...; for quantities use a loss such as mse"
        )
    lowest, highest = int(judged.min()), int(judged.max())
    if lowest < 0:
        raise InputError(
            f"{where} hold class label {lowest}, but the loss {loss.name} takes class numbers from"
            " 0; number the classes 0, 1, 2, ..."
        )
    if num_outputs is not None and highest >= num_outputs:
        raise InputError(
            f"the data has class label {highest}, but the model has {num_outputs} outputs"
            f" (classes 0 to {num_outputs - 1}), in {where} for the loss {loss.name}; give the"
            f" model more outputs, e.g. model.args.num_classes: {highest + 1}"
        )


def _check_distribution(loss: OutputLoss, labels: Labels, where: str) -> None:
    _check_shape(loss, labels, where)
    allowed = "one column per class with values from 0 to 1 that sum to 1 in each row"
    remedy = "give one-hot labels or probabilities"
    _check_range(loss, labels, where, allowed=allowed, low=0, high=1, remedy=remedy)
    sums = labels.reshape(-1, labels.shape[-1]).sum(1, dtype=np.float64)
    is_wrong = np.abs(sums - 1) > _SUM_TOLERANCE
    if is_wrong.any():
        raise InputError(
            f"{where} sum to {sums[is_wrong][0]:g} in a row, but the loss {loss.name} takes"
            f" {allowed}; {remedy}, or use binary_crossentropy with a sigmoid for labels that do"
            " not exclude each other"
        )


def _check_hinge(loss: OutputLoss, labels: Labels, where: str) -> None:
    _check_shape(loss, labels, where)
    is_known = np.isin(labels, (-1, 0, 1))
    if not is_known.all():
        raise InputError(
            f"{where} hold {labels[~is_known][0]}, but the loss {loss.name} takes 0 and 1, or -1"
            " and 1; label the two classes 0 and 1"
        )


def _check_same_sign(loss: OutputLoss, labels_of_parts: Mapping[str, Labels]) -> None:
    """Refuses labels with both 0 and -1: Keras reads 0 as -1 only in batches without any -1."""
    negative = next(
        (where for where, labels in labels_of_parts.items() if (labels == -1).any()), None
    )
    zero = next((where for where, labels in labels_of_parts.items() if (labels == 0).any()), None)
    if negative and zero:
        raise InputError(
            f"{negative} hold -1 and {zero} hold 0, but the loss {loss.name} takes 0 and 1, or -1"
            " and 1; label the two classes 0 and 1 everywhere"
        )


def _check_quantity(loss: OutputLoss, labels: Labels, where: str) -> None:
    _check_shape(loss, labels, where)


def _check_nonnegative(loss: OutputLoss, labels: Labels, where: str) -> None:
    _check_shape(loss, labels, where)
    remedy = "add a constant to them, or use a loss that takes any number, such as mse"
    _check_range(loss, labels, where, allowed="numbers of at least 0", low=0, remedy=remedy)


def _check_range(
    loss: OutputLoss,
    labels: Labels,
    where: str,
    *,
    allowed: str,
    low: float,
    remedy: str,
    high: float = np.inf,
) -> None:
    is_wrong = (labels < low) | (labels > high)
    if is_wrong.any():
        row = int(np.argwhere(is_wrong)[0, 0])
        raise InputError(
            f"{where} hold {labels[is_wrong][0]}, first in row {row}, but the loss {loss.name}"
            f" takes {allowed}; {remedy}"
        )


_CHECKS = {
    "binary": _check_binary,
    "sparse": _check_sparse,
    "categorical": _check_distribution,
    "categorical_hinge": _check_distribution,
    "distribution": _check_distribution,
    "hinge": _check_hinge,
    "quantity": _check_quantity,
    "count": _check_nonnegative,
    "logarithm": _check_nonnegative,
}
