"""Private names of Keras that read a model, its losses, metrics and optimizer, or take a step."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras.src import backend as keras_backend
from keras.src.backend.common import global_state
from keras.src.losses import losses as losses_module
from keras.src.ops.function import Function
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer

from trialrun.training.internals.keras_tracing import decays_in_fit

# Functions that give one number for a whole batch, and not one for each row.
_LOSSES_OF_WHOLE_BATCHES = ("dice", "tversky", "circle")


def build_symbolically(model: keras.Model, batch: Any) -> None:
    """Builds what `fit` would build on its first batch: weights, metrics, optimizer slots.

    Args:
        model: A compiled model.
        batch: `(x, y)` or `(x, y, sample_weight)` of tensors of one batch; only shapes and dtypes
            are used.
    """
    model._symbolic_build(data_batch=batch)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def own_steps(model: keras.Model) -> list[str]:
    """What trains, tests or logs batch by batch in a way of the model's own.

    The names of the methods that its class overrides or that were set on the model itself, and of
    metrics that its layers or its `compute_loss` update.
    """
    names = ("train_step", "test_step", "predict_step", "compute_metrics", "get_metrics_result")
    return [
        *_overridden(model, (*names, "reset_metrics", "metrics")),
        *(metric.name for metric in metrics_of_layers(model)),
    ]


def own_loops(model: keras.Model) -> list[str]:
    """The names of the methods that loop over batches and that the model overrides."""
    made = ("make_train_function", "make_test_function", "make_predict_function")
    return _overridden(model, ("fit", "evaluate", "predict", *made))


def _overridden(model: keras.Model, names: Sequence[str]) -> list[str]:
    return [name for name in names if _is_overridden(model, name)]


def _is_overridden(model: keras.Model, name: str) -> bool:
    """Whether a model's method is not Keras's: that of its class, or one set on the object."""
    return name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name)


def metrics_or_logs(model: keras.Model, logs: Any) -> dict[str, Any]:
    """What Keras logs for an epoch whose last step gave these logs."""
    return dict(model._get_metrics_result_or_logs(logs))


def live_logs(model: keras.Model, logs: Any) -> dict[str, keras.Variable]:
    """The variables of metrics that Keras logs for an epoch instead of what they were in a step."""
    results = model._get_metrics_result_or_logs(logs)
    if results is logs:
        return {}
    return {name: value for name, value in results.items() if isinstance(value, keras.Variable)}


def runs_eagerly(model: keras.Model) -> bool:
    """Whether the model was compiled to run Python code in each step."""
    return bool(model.run_eagerly)


def call_model(model: keras.Model, x: Any, *, training: bool) -> Any:
    """The model's outputs, calling it as Keras's own train and test steps do."""
    return model(x, training=training) if model._call_has_training_arg else model(x)


def compute_loss(
    model: keras.Model, x: Any, y: Any, predictions: Any, sample_weight: Any, *, training: bool
) -> Any:
    """The scalar loss of a batch with everything Keras adds to it: regularizers, weights."""
    return model._compute_loss(
        x=x, y=y, y_pred=predictions, sample_weight=sample_weight, training=training
    )


def output_loss_trackers(model: keras.Model) -> list[keras.metrics.Mean]:
    """The metrics in which Keras averages the loss of each output; none for a single output."""
    return list(model._compile_loss.metrics) if model._compile_loss is not None else []


def loss_is_mean_over_rows(model: keras.Model) -> bool:
    """Whether the compiled loss of many rows is the mean of what each row alone would give.

    False where it is not known, e.g. of a user's own loss.
    """
    if _is_overridden(model, "compute_loss"):
        return False
    losses = [entry.loss for entry in model._compile_loss._flat_losses]
    return all(
        type(loss).__module__ == losses_module.__name__
        and loss.reduction in ("sum_over_batch_size", "mean")
        and loss.fn.__module__ == losses_module.__name__
        and loss.fn.__name__ not in _LOSSES_OF_WHOLE_BATCHES
        and loss._fn_kwargs.get("ignore_class") is None
        for loss in losses
    )


def compiled_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that were given to `compile`."""
    return list(model._compile_metrics.metrics) if model._compile_metrics is not None else []


def given_metrics(model: keras.Model) -> list[Any]:
    """What was given to `compile` as metrics: names, functions, classes, objects."""
    given = model._compile_metrics
    if given is None:
        return []
    both = keras.tree.flatten([given._user_metrics, given._user_weighted_metrics])
    return [metric for metric in both if metric is not None]


def given_to_compile(model: keras.Model) -> dict[str, Any]:
    """What a model was compiled with, as it was given; nothing if it is not compiled.

    And which of its weights decay, if its optimizer lets any.
    """
    if not model.compiled:
        return {}
    loss, optimizer = model._compile_loss, _innermost(model.optimizer)
    return {
        "optimizer": model.optimizer,
        "weight_decay": [decays_in_fit(optimizer, v) for v in model.trainable_variables],
        "loss": model.loss,
        "loss_weights": None if loss is None else loss._user_loss_weights,
        "metrics": given_metrics(model),
    }


def function_of(metric: Any) -> Any:
    """The function whose values a metric averages; the metric itself if there is none."""
    return getattr(metric, "_fn", metric)


def compares_rows(metric: keras.metrics.Metric) -> bool:
    """Whether a metric of Keras's compares the rows of a batch, or averages over batches."""
    if not isinstance(metric, keras.metrics.MeanMetricWrapper):
        return False
    gives_one_number = isinstance(metric._fn, keras.losses.Loss) or (
        getattr(metric._fn, "__name__", "") in _LOSSES_OF_WHOLE_BATCHES
    )
    axis = getattr(metric, "axis", metric._fn_kwargs.get("axis", -1))
    return gives_one_number or 0 in (axis if isinstance(axis, list | tuple) else [axis])


def update_compiled_metrics(
    model: keras.Model, y: Any, predictions: Any, sample_weight: Any
) -> None:
    """Updates the metrics that were given to `compile`, as Keras does after a step."""
    if model._compile_metrics is not None:
        model._compile_metrics.update_state(y, predictions, sample_weight)


def metrics_of_layers(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that layers or the model itself update on their own."""
    known = [model._loss_tracker, model._compile_metrics, *output_loss_trackers(model)]
    return [metric for metric in model.metrics if not any(metric is other for other in known)]


def mask_of(prediction: Any) -> Any:
    """The mask that a layer left on its output; None if there is none."""
    return keras_backend.get_keras_mask(prediction)


def set_mask(prediction: Any, mask: Any) -> None:
    """Leaves a mask on a prediction, as a layer would."""
    keras_backend.set_keras_mask(prediction, mask)


def train_on_batch(model: keras.Model, batch: tuple[Any, Any]) -> float:
    """The loss before the update in one step, taken as `fit` takes it but eagerly.

    The model's metrics go on from batch to batch.
    """
    loss_tracker(model).reset_state()
    key_variables_in_both_ways(model.optimizer)
    return float(model.train_step(batch)["loss"])


def make_step_of_fit(model: keras.Model, batch: Any) -> Callable[[], None]:
    """A function that trains one step of one trial as `fit` does it, and compiled in the same way.

    Args:
        model: Compiled; it is trained.
        batch: `(x, y)` or `(x, y, sample_weight)` (1, batch, ...).
    """
    x, y, *weights = keras.tree.map_structure(lambda rows: rows[0], batch)

    def take_step() -> None:
        model.train_on_batch(x, y, *weights)

    return take_step


def loss_tracker(model: keras.Model) -> keras.metrics.Mean:
    """The metric in which Keras averages the loss over batches."""
    return model._loss_tracker


def all_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The model and every layer in it, nested ones too."""
    return list(model._flatten_layers())


def connections(function: Any) -> list[Any]:
    """How the operations of a functional model are connected, equal for models of equal graphs.

    Args:
        function: A model, or a layer in it.

    Returns:
        At first what it gives, and then of each call, from the outputs to the inputs, the operation
        and its arguments. Texts stand for tensors, variables and layers. Empty if it is not made of
        symbolic tensors.
    """
    if not isinstance(function, Function):
        return []
    inputs = {id(tensor): number for number, tensor in enumerate(function.inputs)}
    numbers: dict[int, int] = {}  # `id` of a call or an operation -> when it was found
    calls: list[Any] = []

    def shown(value: Any) -> Any:
        if isinstance(value, keras.Variable):
            return value.path
        if not isinstance(value, keras.KerasTensor):
            return value
        if id(value) in inputs:
            return f"input {inputs[id(value)]}"
        operation, index, output = value._keras_history
        call = operation._inbound_nodes[index]
        if id(call) not in numbers:
            calls.append(call)
        return f"call {numbers.setdefault(id(call), len(numbers))}, output {output}"

    found: list[Any] = [keras.tree.map_structure(shown, function.outputs)]
    for call in calls:  # which grows
        operation, given = call.operation, call.arguments
        number = numbers.setdefault(id(operation), len(numbers))
        named = f"{type(operation).__name__} {number}"
        found.append(
            {
                "operation": named if isinstance(operation, keras.layers.Layer) else operation,
                "args": keras.tree.map_structure(shown, given.args),
                "kwargs": keras.tree.map_structure(shown, given.kwargs),
            }
        )
    return found


def layers_of_graph(function: Any) -> list[keras.layers.Layer]:
    """The layers that a functional model, or a `keras.Function`, calls."""
    return [one for one in function._operations if isinstance(one, keras.layers.Layer)]


def has_unbuilt_cells(model: keras.Model) -> bool:
    """Whether a recurrent layer's cell holds a layer that only a call with a batch builds."""
    cells = (layer.cell for layer in all_layers(model) if isinstance(layer, keras.layers.RNN))
    return any(not layer.built for cell in cells for layer in cell._flatten_layers())


def num_recurrent_cells(model: keras.Model) -> int:
    """The number of cells of a model's recurrent layers."""
    recurrent = [layer for layer in all_layers(model) if isinstance(layer, keras.layers.RNN)]
    return sum(len(getattr(layer.cell, "cells", [layer.cell])) for layer in recurrent)


def learning_rate_variable(optimizer: keras.optimizers.Optimizer) -> keras.Variable | None:
    """The variable that holds the learning rate; None when a schedule computes it."""
    rate = _innermost(optimizer)._learning_rate
    return rate if isinstance(rate, keras.Variable) else None


def copied_weights(optimizer: keras.optimizers.Optimizer) -> dict[int, int]:
    """The optimizer's variables that start as copies of weights: own index -> weight's index.

    Args:
        optimizer: Built for all trainable variables of a model.
    """
    inner = _innermost(optimizer)
    if not isinstance(inner, keras.optimizers.ScheduleFreeAdamW):
        return {}
    indices = {id(variable): index for index, variable in enumerate(optimizer.variables)}
    return {indices[id(copy)]: index for index, copy in enumerate(inner._momentums)}


def finalizes_weights(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether `fit` ends with a change of the weights: a moving average replaces them."""
    inner = _innermost(optimizer)
    is_own = type(inner).finalize_variable_values is not BaseOptimizer.finalize_variable_values
    return is_own or bool(inner.use_ema)


def _innermost(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    while isinstance(optimizer, LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


def built_for(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The weights that an optimizer was built to update; none if it is not built."""
    return list(optimizer._trainable_variables)


def key_variables_in_both_ways(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets the optimizer find its slots inside of `pure_optimizers` (by `id`) and outside of it.

    It was built in one of them, and is used in the other.
    """
    while optimizer is not None:
        optimizer._trainable_variables_indices |= {
            key: index
            for index, variable in enumerate(optimizer._trainable_variables)
            for key in (id(variable), optimizer._var_key(variable))
        }
        optimizer = getattr(optimizer, "inner_optimizer", None)


def all_variables(model: keras.Model) -> list[keras.Variable]:
    """Every variable of a model, of its optimizer, and of the metrics given to `compile`."""
    owners: list[Any] = [model]
    if model.compiled:
        given = given_metrics(model)  # of a class, Keras makes a metric later
        owners += [model.optimizer, *(metric for metric in given if not isinstance(metric, type))]
    return [variable for owner in owners for variable in getattr(owner, "variables", [])]


def frozen_variables(model: keras.Model) -> list[keras.Variable]:
    """The weights of layers with `trainable` False that no training step of Keras changes.

    The states of dropout's seed generators are not among them, as they still change, nor is what a
    layer of another kind updates on its own.
    """
    frozen = [layer for layer in all_layers(model) if not layer.trainable]
    classes = (keras.layers.BatchNormalization, keras.layers.Normalization)
    with_statistics = [layer for layer in frozen if type(layer) in classes]
    return [
        *(variable for layer in frozen for variable in layer._trainable_variables),
        *(v for layer in with_statistics for v in layer._non_trainable_variables),
    ]


def global_dtype_policy() -> Any:
    """The dtype policy that was set for new layers; None if none was set and `floatx` decides."""
    return global_state.get_global_attribute("dtype_policy")


def set_global_dtype_policy(policy: Any) -> None:
    """Sets the dtype policy for new layers to what `global_dtype_policy` gave."""
    global_state.set_global_attribute("dtype_policy", policy)
