"""Compares the first steps of a program with plain Keras, for a model with steps of its own.

As in `verify`, gradients are compared as optimizers' slots hold them, and weights only where no
optimizer with slots updates them. All that the steps log is compared, one test step included.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from trialrun.training.internals import keras_model
from trialrun.training.model.build import in_order_of_outputs
from trialrun.training.model.first_steps import optimizers_of
from trialrun.training.program.own_epochs import OwnEpochs
from trialrun.training.program.own_steps import OwnStepsModel
from trialrun.training.program.verify import (
    NUM_WITHOUT_SLOTS,
    are_close,
    different_logs,
    different_shapes,
    different_start,
    differing_variable,
    tolerance_of,
)
from trialrun.training.state import ModelState


def why_own_steps_differ(
    own: OwnStepsModel,
    model: keras.Model,
    epochs: OwnEpochs,
    state: ModelState,
    batches: Sequence[tuple[Any, ...]],
    *,
    val: tuple[Any, ...],
    index: int,
) -> str:
    """How one of several trials differs from plain Keras after some steps.

    Args:
        own: The model as pure functions.
        model: The trial's compiled model; its variables are overwritten.
        epochs: What was traced for the program.
        state: Tensors (trials, ...) before the first step.
        batches: Inputs, targets and perhaps weights (trials, batch, ...) of each step.
        val: Validation data (trials, rows, ...), or (rows, ...) of shared data.
        index: The trial's index.

    Returns:
        The difference in words; empty if there is none.
    """
    variables = own.variables_of(model)
    if different := different_shapes(own, variables) or different_start(own, variables):
        return different
    for variable, tensor in variables.with_values(state):
        variable.assign(tensor[index])
    before = _iterations(model)
    tolerance = tolerance_of(model)
    for number, batch in enumerate(batches, start=1):
        state, logs = epochs.step(state, batch)
        rows = keras.tree.map_structure(lambda a: a[index], batch)
        with own.stream.drawing_in_plain_keras():
            expected = keras_model.metrics_or_logs(model, model.train_step(rows))
        if different := different_logs(logs, expected, index, tolerance):
            return f"after {number} steps {different}"
    used = {name for name, count in _iterations(model).items() if count != before[name]}
    if different := _different_state(own, model, state, index=index, used=used):
        return f"after {len(batches)} steps {different}"
    batch = epochs.first_test_batch(val)
    state, logs = epochs.test(state, batch)
    rows = epochs.of_trial(batch, index)
    with own.stream.drawing_in_plain_keras():
        logs_of_keras = model.test_step(in_order_of_outputs(model, rows))
    expected = keras_model.metrics_or_logs(model, logs_of_keras)
    if different := different_logs(logs, expected, index, tolerance):
        return f"in a test step {different}"
    x = epochs.first_to_predict(val)
    *_, predicted = epochs.predict(state, x)
    with own.stream.drawing_in_plain_keras():
        expected = model.predict_step((epochs.of_trial(x, index),))
    return _different_predictions(predicted, expected, index, tolerance)


def _different_predictions(got: Any, expected: Any, index: int, tolerance: float) -> str:
    pairs = zip(keras.tree.flatten(got), keras.tree.flatten(expected), strict=True)
    for tensor, plain in pairs:
        values = np.asarray(plain).astype(float)
        allowed = tolerance * max(np.abs(values[np.isfinite(values)]).max(initial=0), 1e-12)
        if not are_close(tensor[index].numpy().astype(float), values, float(allowed)):
            return "the predictions differ"
    return ""


def _iterations(model: keras.Model) -> dict[str, float]:
    return {name: float(held.iterations) for name, held in optimizers_of(model).items()}


def _different_state(
    own: OwnStepsModel, model: keras.Model, state: ModelState, *, index: int, used: set[str]
) -> str:
    """How the variables of a trial differ from those of plain Keras; empty if they do not.

    Args:
        own: The model as pure functions.
        model: The plain model.
        state: Tensors (trials, ...).
        index: The trial's index.
        used: Names of the optimizers that have taken steps.
    """
    variables = own.variables_of(model)
    values = {
        id(variable): tensor[index].numpy() for variable, tensor in variables.with_values(state)
    }
    optimizers = optimizers_of(model)
    groups = [model.non_trainable_variables, *(held.variables for held in optimizers.values())]
    with_slots = [o for name, o in optimizers.items() if name in used and _has_slots(o)]
    covered = {id(weight) for held in with_slots for weight in keras_model.built_for(held)}
    groups.append([w for w in model.trainable_variables if id(w) not in covered])
    grouped = {id(variable) for group in groups for variable in group} | covered
    groups += [[v] for v in variables.optimizer if id(v) not in grouped]  # of a metric each
    for group in groups:
        own_values = [values[id(variable)] for variable in group]
        if path := differing_variable(group, own_values, tolerance_of(model)):
            return f"{path} differs"
    return ""


def _has_slots(optimizer: keras.optimizers.Optimizer) -> bool:
    return len(optimizer.variables) > NUM_WITHOUT_SLOTS
