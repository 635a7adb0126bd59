"""The parts of a trial's data, ready for its model: training, validation and test."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from trialrun.data.arrays import Array, Arrays, leaves, map_leaves
from trialrun.data.census import integer_classes
from trialrun.data.holdout import split_rows, with_every_class
from trialrun.data.scaling import (
    LookedUp,
    Scalers,
    Scaling,
    check_scaling,
    fit_scaler,
    transform,
    without_looked_up,
)
from trialrun.data.streams import Stream
from trialrun.data.table.encoding import TableEncoder

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True, slots=True, eq=False)
class Splits:
    """The data of a trial, ready for its model.

    Attributes:
        x_train, x_val, x_test: Scaled inputs (rows, ...): an array, or a dict or tuple of arrays;
            texts are object arrays of `str`.
        y_train, y_val, y_test: Labels (rows, ...): int32 for integers and booleans, else float32.
        class_names: Empty if the generator names no classes.
        feature_names: Empty if the generator names no features.
        scalers: One per array of x, in the same structure: raw input -> model input.
        w_train, w_val, w_test: float32 weights of the rows, one array or one per output; None if
            the generator gives none.
        encoder: Makes the raw input from a table's columns; None for other sources.
        streams: The parts that do not fit into memory; the arrays hold only their first rows.
        fingerprint: A hash of what the generator gave, see `fingerprint`; empty for other sources.
    """

    x_train: Arrays
    y_train: Arrays
    x_val: Arrays
    y_val: Arrays
    x_test: Arrays
    y_test: Arrays
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    scalers: Scalers
    w_train: Arrays | None = None
    w_val: Arrays | None = None
    w_test: Arrays | None = None
    encoder: TableEncoder | None = None
    streams: Mapping[Part, Stream] = field(default_factory=dict)
    fingerprint: str = ""

    def part(self, name: Part) -> tuple[Any, ...]:
        """Inputs and labels of a part, and its weights if it has some."""
        kinds = ("x", "y") if getattr(self, f"w_{name}") is None else ("x", "y", "w")
        return tuple(getattr(self, f"{kind}_{name}") for kind in kinds)


def first_rows(splits: Splits, num_rows: int) -> Splits:
    """The same with at most this number of rows in each part, without streams."""
    arrays = {
        name: map_leaves(lambda array: array[:num_rows], value)
        for name in (f"{kind}_{part}" for kind in "xyw" for part in PARTS)
        if (value := getattr(splits, name)) is not None
    }
    return replace(splits, **arrays, streams={})


def steps_per_epoch(splits: Splits, batch_size: int) -> int:
    """The number of batches in an epoch, including a partial one."""
    stream = splits.streams.get("train")
    num_rows = len(next(leaves(splits.y_train))[1]) if stream is None else stream.num_rows
    return math.ceil(num_rows / batch_size)


def make_splits(
    output: Mapping[str, Any],
    *,
    scaling: Scaling | Mapping[str, Scaling],
    validation_split: float,
    seed: int,
    codes: Sequence[bool] = (),
    looked_up: LookedUp | None = None,
) -> Splits:
    """Training, validation and test data, scaled by scalers that are fitted on training data only.

    Args:
        output: What a generator returned, checked; see `with_validation`.
        scaling: `minmax` (0 to 1), `standard` (mean 0, standard deviation 1) or `none`; or name of
            an input -> one of these.
        validation_split: Share of the training rows, above 0 and below 1.
        seed: Decides the shuffle.
        codes: For each feature, whether it stands for a category; such features are not scaled.
        looked_up: See `load_splits`.

    Raises:
        InputError: There are too few rows for both parts, or a feature that the model looks up
            holds numbers that are not whole.
    """
    output = with_validation(output, validation_split, seed)
    x_train, y_train, w_train = _with_weights(*output["train"])
    x_val, y_val, w_val = _with_weights(*output["validation"])
    x_test, y_test, w_test = _with_weights(*output["test"])
    if isinstance(scaling, Mapping):
        check_scaling(x_train, scaling)
        scalers: Any = {name: fit_scaler(x, scaling[name], codes) for name, x in x_train.items()}
    else:
        scalers = map_leaves(lambda x: fit_scaler(x, scaling, codes), x_train)
    if looked_up is not None and any(scaler.kind != "none" for _, scaler in leaves(scalers)):
        scalers = without_looked_up(scalers, (x_train, x_val, x_test), looked_up)
    return Splits(
        x_train=transform(scalers, x_train),
        y_train=map_leaves(_to_labels, y_train),
        x_val=transform(scalers, x_val),
        y_val=map_leaves(_to_labels, y_val),
        x_test=transform(scalers, x_test),
        y_test=map_leaves(_to_labels, y_test),
        class_names=tuple(output.get("class_names", ())),
        feature_names=tuple(output.get("feature_names", ())),
        scalers=scalers,
        w_train=w_train,
        w_val=w_val,
        w_test=w_test,
    )


def with_validation(
    output: Mapping[str, Any], validation_split: float, seed: int
) -> Mapping[str, Any]:
    """A generator's output with a `validation` part, if it has none of its own.

    The training rows are shuffled and the last of them become validation data, as many as in
    Keras's `fit(validation_split=...)`. If both parts have room for a row of every class but one
    lacks a class, rows are exchanged, see `with_every_class`.

    Args:
        output: What a generator returned, checked.
        validation_split: Share of the training rows, above 0 and below 1.
        seed: Decides the shuffle.

    Raises:
        InputError: There are too few rows for both parts.
    """
    if "validation" in output:
        return output
    train = output["train"]
    num_rows = len(next(leaves(train[0]))[1])
    rows, val_rows = split_rows(num_rows, validation_split, seed)
    labels = integer_classes(train[1])
    if labels is not None and labels.min() >= 0 and labels.max() < num_rows:
        num_classes = np.count_nonzero(np.bincount(labels))
        if num_classes <= min(len(rows), len(val_rows)):
            rows, val_rows = with_every_class(labels, rows, val_rows)
    taken = {
        part: tuple(_take(value, own) for value in train)
        for part, own in (("train", rows), ("validation", val_rows))
    }
    return {**output, **taken}


def _to_labels(array: Array) -> Array:
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _with_weights(x: Arrays, y: Arrays, weights: Arrays | None = None) -> tuple[Any, Any, Any]:
    """x, y and the weights of a part as a generator returned it; weights are float32 or None."""
    if weights is None:
        return x, y, None
    return x, y, map_leaves(lambda array: array.astype(np.float32), weights)


def _take(value: Arrays | None, rows: npt.NDArray[np.int64]) -> Any:
    return None if value is None else map_leaves(lambda leaf: leaf[rows], value)
