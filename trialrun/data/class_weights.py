"""Weights of training rows by their class, as in Keras's `fit(class_weight=...)`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from trialrun.data.splits import Splits
from trialrun.errors import InputError
from trialrun.job.table_spelling import canonical_text, number_of, told_apart
from trialrun.messages import suggest

ClassWeight = Literal["balanced"] | Mapping[str, float]


def weigh_classes(splits: Splits, class_weight: ClassWeight | None) -> Splits:
    """The splits with the weight of each training row multiplied by the weight of its class.

    Args:
        splits: Splits with one array of labels: class numbers, or one column per class.
        class_weight: Number or name of a class -> weight; a class without an entry has weight 1.
            `balanced` means scikit-learn's weights, inversely proportional to the number of a
            class's training rows. With None, the splits are returned unchanged.

    Raises:
        InputError: The rows have several labels or labels that are not classes, or the data lacks a
            class that has a weight.
    """
    if class_weight is None:
        return splits
    if not isinstance(splits.y_train, np.ndarray):
        raise InputError("training.class_weight is for models with a single output")
    classes = _classes(splits.y_train)
    if (stream := splits.streams.get("train")) is not None:
        weights = _weights_of_stream(classes, class_weight, splits.class_names)
        weighed = replace(stream, class_weights=weights)
        return replace(splits, streams={**splits.streams, "train": weighed})
    weights = _weights(classes, class_weight, splits.class_names)[classes]
    own = cast(Any, splits.w_train)  # one array, because there is one array of labels
    return replace(splits, w_train=weights if own is None else weights * own)


def _classes(y: npt.NDArray[np.generic]) -> npt.NDArray[np.int64]:
    """The class number of each row; the arithmetic is Keras's."""
    if y.ndim > 1:
        y = y.argmax(-1) if y.shape[-1] != 1 else y[..., 0]
    classes = np.asarray(np.round(np.asarray(y, np.float64)), np.int64)
    if classes.ndim != 1 or classes.min() < 0 or not np.array_equal(classes, y):
        raise InputError("training.class_weight: the data's labels are not one class per row")
    return classes


def _weights_of_stream(
    first_classes: npt.NDArray[np.int64], class_weight: ClassWeight, class_names: tuple[str, ...]
) -> npt.NDArray[np.float32]:
    """The weights if only the first rows are known: numbers that the job gives count as classes."""
    if class_weight == "balanced":
        raise InputError(
            "training.class_weight: balanced needs the classes of all training rows, but these are"
            " streamed; give a weight for each class"
        )
    numbers = [] if class_names else [int(name) for name in class_weight if name.isdecimal()]
    return _weights(np.append(first_classes, numbers).astype(np.int64), class_weight, class_names)


def _weights(
    classes: npt.NDArray[np.int64], class_weight: ClassWeight, class_names: tuple[str, ...]
) -> npt.NDArray[np.float32]:
    """The weight of each class, float32 (classes,)."""
    num_classes = max(int(classes.max()) + 1, len(class_names))
    weights = np.ones(num_classes, np.float32)
    if class_weight == "balanced":
        from sklearn.utils.class_weight import compute_class_weight

        present = np.unique(classes)
        weights[present] = compute_class_weight("balanced", classes=present, y=classes)
        return weights
    # Where a class is called by a number, another number is no class, and not a position.
    by_name: dict[str, int] = {}
    if all(number_of(name) is None for name in class_names):
        by_name = {str(number): number for number in range(num_classes)}
    by_name |= {canonical_text(name): number for number, name in enumerate(class_names)}
    by_name |= {name: number for number, name in enumerate(class_names)}
    given: dict[int, str] = {}
    for name, weight in class_weight.items():
        number = by_name.get(name, by_name.get(canonical_text(name)))
        if number is None:
            hint = suggest(name, class_names or by_name)
            raise InputError(f"training.class_weight: the data has no class {name!r}; {hint}")
        if number in given:
            twice = " and ".join(told_apart(given[number], name))
            raise InputError(
                f"training.class_weight: {twice} are the same class; give it one weight"
            )
        given[number] = name
        weights[number] = weight
    return weights
