"""Compares a program's first steps with plain Keras, so that no model is silently trained wrong.

The comparison must not depend on how rounding errors grow. A bias before a normalization, for
example, has a gradient of nothing but rounding errors, which Adam turns into steps of full size. So
the gradients are compared, as the optimizer's slots hold them, and the losses. The weights are
compared only if the optimizer has no slots.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.training.internals import keras_model
from trialrun.training.state import ModelState

_NUM_STEPS = 3
_TOLERANCE, _TOLERANCE_OF_HALVES = 1e-3, 5e-2
NUM_WITHOUT_SLOTS = 2  # variables of an optimizer: iteration and learning rate


def why_different(
    model: keras.Model,
    step: Callable[..., Any],
    state: ModelState,
    batches: Sequence[tuple[Any, ...]],
    index: int = 0,
) -> str:
    """How one of several trials differs from plain Keras after some steps.

    Args:
        model: The compiled model; its variables are overwritten.
        step: A program's step: (state, batch) -> (new state, losses (trials,), predictions).
        state: Tensors (trials, ...) before the first step.
        batches: Inputs, targets and perhaps weights (trials, batch, ...) of each step.
        index: The trial's index; the model must have its hyperparameters.

    Returns:
        The difference in words; empty if there is none.
    """
    variables = ModelState(
        model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
    )
    for group, tensors in zip(variables[:3], state[:3], strict=True):
        for variable, tensor in zip(group, tensors, strict=True):
            variable.assign(tensor[index])
    tolerance = tolerance_of(model)
    for number, batch in enumerate(batches, start=1):
        state, losses, _ = step(state, batch)
        own = keras.tree.map_structure(lambda rows: rows[index], batch)
        expected = keras_model.train_on_batch(model, own)
        got = float(tf.reshape(losses[index], [-1])[0])
        if not is_close(got, expected, tolerance):
            return f"after {number} steps the loss is {got:.6g}, in plain Keras {expected:.6g}"
    compared = {
        "non-trainable variables": (variables.non_trainable, state.non_trainable),
        "optimizer's variables": (variables.optimizer, state.optimizer),
    }
    if len(variables.optimizer) <= NUM_WITHOUT_SLOTS:
        compared["weights"] = (variables.trainable, state.trainable)
    for kind, (group, tensors) in compared.items():
        values = [tensor[index].numpy() for tensor in tensors]
        if path := differing_variable(group, values, tolerance):
            return f"after {len(batches)} steps the {kind} differ: {path}"
    return ""


def differing_variable(
    group: Sequence[keras.Variable], values: Sequence[npt.NDArray[Any]], tolerance: float
) -> str:
    """The path of the first variable of a group that differs from its value; empty if none does.

    Whole numbers, such as counts and the states of seeds, must be equal, and a single number is
    compared by its own size. An array may differ by a share of the largest number in the group's
    arrays, because a small one may hold nothing but rounding errors.
    """
    plain = [variable.numpy() for variable in group]
    arrays = [a.astype(float) for a in plain if a.ndim and not _is_whole(a)]
    largest = max((np.abs(a[np.isfinite(a)]).max(initial=0) for a in arrays), default=0.0)
    allowed = tolerance * max(float(largest), 1e-12)
    for variable, expected, got in zip(group, plain, values, strict=True):
        if _is_whole(expected):
            same = np.array_equal(got, expected)
        elif expected.ndim:
            same = are_close(got.astype(float), expected.astype(float), allowed)
        else:
            same = is_close(got, expected, tolerance)
        if not same:
            return str(variable.path)
    return ""


def _is_whole(array: npt.NDArray[Any]) -> bool:
    return array.dtype.kind in "iub"


def are_close(
    values: npt.NDArray[np.float64], others: npt.NDArray[np.float64], allowed: float
) -> bool:
    """Whether values are finite at the same positions, and close to each other there."""
    finite = np.isfinite(others)
    near = np.abs(values[finite] - others[finite]) <= allowed
    return np.array_equal(np.isfinite(values), finite) and bool(near.all())


def first_batches(
    train: tuple[Any, ...], batch_size: int, trials: slice, num_trials: int, shared: bool
) -> list[Any]:
    """The first batches of training data, stacked over some trials.

    Args:
        train: Inputs, targets, perhaps weights (trials, rows, ...), or (rows, ...) when data is
            shared.
        batch_size: Rows of a batch.
        trials: Selects the trials.
        num_trials: Number of trials to select from.
        shared: Whether all trials see the same rows.
    """
    width = len(range(num_trials)[trials])
    num_rows = keras.tree.flatten(train[1])[0].shape[0 if shared else 1]
    batch_size = min(batch_size, num_rows)

    def rows(start: int) -> Any:
        own = slice(start, start + batch_size)
        return keras.tree.map_structure(
            lambda a: tf.stack([a[own]] * width) if shared else a[trials, own], train
        )

    starts = range(0, num_rows - batch_size + 1, batch_size)
    return [rows(start) for start in starts[:_NUM_STEPS]]


def can_evaluate_at_once(model: keras.Model, data: tuple[Any, ...], batch_size: int) -> bool:
    """Whether a model gives the same results for many rows at once as for a few at a time.

    It must also change no state: a recurrent cell with dropout draws random numbers for each batch.

    Args:
        model: A compiled model.
        data: Inputs, targets and perhaps weights (rows, ...), NumPy.
        batch_size: Rows that Keras would evaluate together.
    """
    if keras_model.output_loss_trackers(model) or not keras_model.loss_is_mean_over_rows(model):
        return False
    num_rows = min(_NUM_STEPS * batch_size, len(keras.tree.flatten(data[1])[0]))
    starts = range(0, num_rows, batch_size)
    sizes = [min(batch_size, num_rows - start) for start in starts]

    def evaluate(rows: slice) -> tuple[Any, float]:
        x, y, *weights = keras.tree.map_structure(lambda a: tf.constant(a[rows]), data)
        predictions = keras_model.call_model(model, x, training=False)
        loss = keras_model.compute_loss(
            model, x, y, predictions, *(weights or [None]), training=False
        )
        return keras.tree.flatten(predictions), float(loss)

    before = [variable.numpy() for variable in model.non_trainable_variables]
    together, loss = evaluate(slice(num_rows))
    if not all(map(np.array_equal, before, [v.numpy() for v in model.non_trainable_variables])):
        return False
    if any(keras_model.mask_of(prediction) is not None for prediction in together):
        return False
    apart = [evaluate(slice(start, start + batch_size)) for start in starts]
    expected = float(np.average([batch_loss for _, batch_loss in apart], weights=sizes))
    tolerance = tolerance_of(model)
    return is_close(loss, expected, tolerance) and all(
        is_close(whole.numpy(), np.concatenate([batch.numpy() for batch in batches]), tolerance)
        for whole, *batches in zip(together, *(outputs for outputs, _ in apart), strict=True)
    )


def tolerance_of(model: keras.Model) -> float:
    """How far numbers of a model may be apart, as a share of their size."""
    types = [str(layer.compute_dtype) for layer in keras_model.all_layers(model)]
    return _TOLERANCE_OF_HALVES if any("16" in name for name in types) else _TOLERANCE


def is_close(got: Any, expected: Any, tolerance: float) -> bool:
    """Whether numbers are no further apart than a share of their size."""
    got, expected = np.asarray(got, float), np.asarray(expected, float)
    return bool(np.allclose(got, expected, rtol=tolerance, atol=tolerance / 10, equal_nan=True))
