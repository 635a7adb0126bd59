"""Compares a program's first steps with plain Keras, so that no model is silently trained wrong.

The comparison must not depend on how rounding errors grow. A bias before a normalization, for
example, has a gradient of nothing but rounding errors, which Adam turns into steps of full size. So
the gradients are compared, as the optimizer's slots hold them, and the losses. The weights are
compared only if the optimizer has no slots.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.training.internals import keras_model
from trialrun.training.model.build import in_order_of_outputs
from trialrun.training.program import loops
from trialrun.training.program.batch_metrics import flat_logs, variables_of
from trialrun.training.program.epochs import Epochs
from trialrun.training.program.own_steps import OwnStepsModel
from trialrun.training.program.pure_model import FunctionalModel
from trialrun.training.program.trial_stream import TrialStream
from trialrun.training.state import ModelState

_NUM_STEPS = 3
_TOLERANCE, _TOLERANCE_OF_HALVES = 1e-3, 5e-2
NUM_WITHOUT_SLOTS = 2  # variables of an optimizer: iteration and learning rate


def why_different(
    own: FunctionalModel,
    model: keras.Model,
    epochs: Epochs,
    state: ModelState,
    batches: Sequence[tuple[Any, ...]],
    *,
    val: tuple[Any, ...],
    index: int,
) -> str:
    """How one of several trials differs from plain Keras after some steps.

    Args:
        own: The model as pure functions.
        model: The trial's compiled model, with its hyperparameters; its variables are overwritten.
        epochs: What was traced for the program.
        state: Tensors (trials, ...) before the first step.
        batches: Inputs, targets and perhaps weights (trials, batch, ...) of each step.
        val: Validation data (trials, rows, ...), or (rows, ...) of shared data.
        index: The trial's index.

    Returns:
        The difference in words; empty if there is none.
    """
    variables = own.variables_of(model)
    if different := different_shapes(own, variables):
        return different
    if own.sees_batches and (different := different_start(own, variables)):
        return different
    for variable, tensor in variables.with_values(state):
        variable.assign(tensor[index])
    if own.sees_batches:
        model.reset_metrics()
        state = epochs.reset(state)
    for number, batch in enumerate(batches, start=1):
        state, losses, _ = epochs.step(state, batch)
        rows = keras.tree.map_structure(lambda a: a[index], batch)
        with own.stream.drawing_in_plain_keras():
            expected = keras_model.train_on_batch(model, rows)
        got = float(tf.reshape(losses[index], [-1])[0])
        if not is_close(got, expected, tolerance_of(model)):
            return f"after {number} steps the loss is {got:.6g}, in plain Keras {expected:.6g}"
    if different := _different_state(own, model, state, index):
        return f"after {len(batches)} steps {different}"
    if own.sees_batches:
        return _different_metrics(own, model, epochs, state, val=val, index=index)
    rows = epochs.of_trial(epochs.first_test_batch(val), index)
    return _different_evaluation(own, model, state, rows, index)


def _different_evaluation(
    own: FunctionalModel, model: keras.Model, state: ModelState, rows: tuple[Any, ...], index: int
) -> str:
    """How all logs of a batch of one trial differ when the traced model evaluates it."""
    state = tf.nest.map_structure(lambda tensor: tensor[index], state)
    for variable, tensor in own.variables_of(model).with_values(state):
        variable.assign(tensor)
    num_rows = keras.tree.flatten(rows[1])[0].shape[0]

    @tf.function(autograph=False)  # eagerly, TensorFlow would see a traced number as a float
    def evaluate(state: ModelState, rows: tuple[Any, ...]) -> dict[str, tf.Tensor]:
        _, loss, outputs = own.test_step(state, *rows)
        return own.epoch_logs(state, rows[1:], outputs, loss[None], [num_rows])

    logs = loops.traced(evaluate, state, rows)
    model.reset_metrics()
    with own.stream.drawing_in_plain_keras():
        expected = model.test_step(in_order_of_outputs(model, rows))
    stacked = {name: value[None] for name, value in logs.items()}
    different = different_logs(stacked, expected, 0, tolerance_of(model))
    return f"in a test step {different}" if different else ""


def _different_state(
    own: FunctionalModel, model: keras.Model, state: ModelState, index: int
) -> str:
    optimizer, stream = model.optimizer.variables, own.stream.variables
    compared = {
        "non-trainable variables": (model.non_trainable_variables, state.non_trainable),
        "optimizer's variables": (optimizer, state.optimizer[: len(optimizer)]),
        "draws": (stream, state.optimizer[len(optimizer) :][: len(stream)]),
    }
    if len(optimizer) <= NUM_WITHOUT_SLOTS:
        compared["weights"] = (model.trainable_variables, state.trainable)
    for kind, (group, tensors) in compared.items():
        values = [tensor[index].numpy() for tensor in tensors]
        if path := differing_variable(group, values, tolerance_of(model)):
            return f"the {kind} differ: {path}"
    return ""


# Metrics that every batch updates ---------------------------------------------------------------


def _different_metrics(
    own: FunctionalModel,
    model: keras.Model,
    epochs: Epochs,
    state: ModelState,
    *,
    val: tuple[Any, ...],
    index: int,
) -> str:
    """How they differ after the steps of training, and after a batch that is evaluated."""
    tolerance, others = tolerance_of(model), variables_of(model)
    num_before = len(state.optimizer) - len(others)
    for variable, tensor in zip(others, state.optimizer[num_before:], strict=True):
        if path := differing_variable([variable], [tensor[index].numpy()], tolerance):
            return f"after the first steps the metrics' variables differ: {path}"
    model.reset_metrics()
    batch = epochs.first_test_batch(val)
    _, logs = epochs.test(state, batch)
    with own.stream.drawing_in_plain_keras():
        expected = model.test_step(in_order_of_outputs(model, epochs.of_trial(batch, index)))
    if different := different_logs(logs, expected, index, tolerance):
        return f"in a test step {different}"
    return ""


def different_shapes(own: FunctionalModel | OwnStepsModel, variables: ModelState) -> str:
    """How another model's variables cannot take the values of the traced one's."""
    for group, others in zip(own.variables[:3], variables[:3], strict=True):
        if [tuple(v.shape) for v in group] != [tuple(v.shape) for v in others]:
            return "other variables are trained than those of the traced model"
    return ""


def different_start(own: FunctionalModel | OwnStepsModel, variables: ModelState) -> str:
    """How another model's further optimizers and metrics begin otherwise than the traced one's."""
    others = variables.optimizer[len(variables.optimizer) - len(own.others) :]
    for variable, start in zip(others, own.others_start, strict=True):
        if not np.array_equal(variable.numpy(), start, equal_nan=True):
            return f"{variable.path} begins with {variable.numpy()}, not {start}"
    return ""


def different_logs(logs: Any, expected: Any, index: int, tolerance: float) -> str:
    """How the logs (trials,) of a trial differ from those of plain Keras; empty if they do not."""
    flat = flat_logs(expected)
    if flat.keys() != logs.keys():
        return f"it logs {', '.join(logs)}, and plain Keras {', '.join(flat)}"
    for name, value in flat.items():
        got, plain = float(logs[name][index]), float(value)
        if not is_close(got, plain, tolerance):
            return f"{name} is {got:.6g}, in plain Keras {plain:.6g}"
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
        data: Inputs, targets and perhaps weights (rows, ...), NumPy: of any part, as what is
            evaluated may be fewer rows than show a difference.
        batch_size: Rows that Keras would evaluate together.
    """
    if keras_model.output_loss_trackers(model) or not keras_model.loss_is_mean_over_rows(model):
        return False
    num_rows = min(_NUM_STEPS * batch_size, len(keras.tree.flatten(data[1])[0]))
    if num_rows == 1:
        return False  # nothing to compare
    cut = max(1, num_rows // 3)  # two parts, of different size: what depends on it differs
    parts, sizes = (slice(cut), slice(cut, num_rows)), (cut, num_rows - cut)

    def evaluate(rows: slice) -> tuple[Any, float]:
        x, y, *weights = keras.tree.map_structure(lambda a: tf.constant(a[rows]), data)
        predictions = keras_model.call_model(model, x, training=False)
        loss = keras_model.compute_loss(
            model, x, y, predictions, *(weights or [None]), training=False
        )
        return keras.tree.flatten(predictions), float(loss)

    stream = TrialStream(model)
    changing = [*model.non_trainable_variables, *stream.variables]
    before = [variable.numpy() for variable in changing]
    with stream.drawing():
        together, loss = evaluate(slice(num_rows))
    if not all(map(np.array_equal, before, [variable.numpy() for variable in changing])):
        return False
    if any(keras_model.mask_of(prediction) is not None for prediction in together):
        return False
    apart = list(map(evaluate, parts))
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
