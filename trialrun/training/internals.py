"""The only module that uses private names of Keras and TensorFlow.

Keras's TensorFlow backend keeps its state in `tf.Variable`s and its optimizers go through
`tf.distribute`. To use its layers, losses, metrics and optimizers as pure functions, a handful of
private methods have to be called or, while a program is traced, replaced. Each is named here once,
so that a new Keras or TensorFlow version is checked in one place: versions are pinned in
pyproject.toml and `tests/test_fused_oracle.py` compares the result with plain `model.fit`.

The replacements hold for the whole process while they last. Programs are traced by one thread at a
time (`program` holds a lock); running a traced program needs none of them.
"""

import contextlib
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
from keras.src import backend as keras_backend
from keras.src import ops as keras_ops
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.tensorflow import random as backend_random
from keras.src.backend.tensorflow.core import Variable as BackendVariable
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.initializers.random_initializers import RandomInitializer
from keras.src.layers.regularization import gaussian_dropout
from keras.src.losses import losses as losses_module
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer
from keras.src.random import seed_generator
from keras.src.utils import tf_utils
from tensorflow.python.ops import control_flow_util
from tensorflow.python.ops import gen_stateless_random_ops_v2 as random_operations
from tensorflow.python.ops.parallel_for import control_flow_ops
from tensorflow.python.ops.parallel_for import pfor as parallel_for

# What TFOptimizer overrides only for tf.distribute and tf.IndexedSlices on tf.Variables.
_DISTRIBUTED_METHODS = (
    "assign",
    "assign_add",
    "assign_sub",
    "_backend_update_step",
    "_apply_weight_decay",
    "_var_key",
    "_overwrite_model_variables_with_average_value",
    "_backend_increment_gradient_accumulators",
    "_clip_by_norm",
)

# ---------------------------------------------------------------------------------------- models


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
    """The names of the methods that train, test or log and that the model's class overrides."""
    names = ("train_step", "test_step", "compute_metrics", "get_metrics_result")
    return [name for name in names if getattr(type(model), name) is not getattr(keras.Model, name)]


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
    if type(model).compute_loss is not keras.Model.compute_loss:
        return False
    losses = [entry.loss for entry in model._compile_loss._flat_losses]
    return all(
        type(loss).__module__ == losses_module.__name__
        and loss.reduction in ("sum_over_batch_size", "mean")
        and loss.fn.__module__ == losses_module.__name__
        and loss.fn.__name__ not in ("dice", "tversky", "circle")
        and loss._fn_kwargs.get("ignore_class") is None
        for loss in losses
    )


def compiled_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that were given to `compile`."""
    return list(model._compile_metrics.metrics) if model._compile_metrics is not None else []


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
    """The loss before the update in one step, taken as `fit` takes it but eagerly."""
    model.reset_metrics()
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


def num_recurrent_steps(model: keras.Model) -> int:
    """The number of steps in time of a built model's recurrent layers; unknown lengths count 0."""
    total = 0
    for layer in all_layers(model):
        if isinstance(layer, keras.layers.RNN):
            config = layer.get_build_config() or {}
            shape = config.get("input_shape") or config.get("sequences_shape") or (None, None)
            total += (shape[1] or 0) * len(getattr(layer.cell, "cells", [layer.cell]))
    return total


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
        given = model._compile_metrics
        metrics = [] if given is None else [given._user_metrics, given._user_weighted_metrics]
        owners += [model.optimizer, *keras.tree.flatten(metrics)]
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


# --------------------------------------------------------------------------------------- tracing


@contextlib.contextmanager
def names_of_a_new_process() -> Iterator[None]:
    """Within this context, Keras names layers and metrics as in a new process.

    Otherwise it goes on counting `dense`, `dense_1`, ... from model to model, and a log would have
    another name, because it has the name of its metric.
    """
    counts = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", None)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", counts)


@contextlib.contextmanager
def pure_optimizers() -> Iterator[None]:
    """Within this context, Keras's TensorFlow optimizers update Keras variables, not tf.Variables.

    The base class's methods are put in one by one instead of changing the class, because Nadam
    calls `super()`.
    """
    with contextlib.ExitStack() as stack:
        for name in _DISTRIBUTED_METHODS:
            stack.enter_context(mock.patch.object(TFOptimizer, name, BaseOptimizer.__dict__[name]))
        stack.enter_context(
            mock.patch.object(LossScaleOptimizer, "_tf_apply", LossScaleOptimizer._common_apply)
        )
        yield


@contextlib.contextmanager
def square_root_of_dropout(square_root: Callable[[float], float]) -> Iterator[None]:
    """Within this context, GaussianDropout takes the square root of its rate by another function.

    Python's own reads the value of any float directly, so a subclass of float cannot trace it.
    """
    replaced = SimpleNamespace(sqrt=square_root)
    with mock.patch.object(gaussian_dropout, "math", replaced):
        yield


@contextlib.contextmanager
def selecting_cond() -> Iterator[None]:
    """Within this context, `keras.ops.cond` runs both branches and selects what they gave.

    An assignment inside a traced branch would otherwise leak the branch's tensor out of it.
    """
    with mock.patch.object(keras_ops, "cond", _select_between_branches):
        yield


@contextlib.contextmanager
def encoding_without_bincount() -> Iterator[None]:
    """Within this context, Keras counts categories by its portable code: one column per category.

    Its TensorFlow shortcut, `bincount`, has no vectorized form, and XLA cannot know its size.
    """

    def not_possible(*_: Any, **__: Any) -> Any:
        raise ValueError  # Keras then uses its portable code

    with mock.patch.object(tf_utils, "tf_encode_categorical_inputs", not_possible):
        yield


def _select_between_branches(
    predicate: Any, true_fn: Callable[[], Any], false_fn: Callable[[], Any]
) -> Any:
    scope = get_stateless_scope()
    before = dict(scope.state_mapping)
    true_result, true_state = true_fn(), dict(scope.state_mapping)
    scope.state_mapping.clear()
    scope.state_mapping.update(before)
    false_result, false_state = false_fn(), dict(scope.state_mapping)
    for key in true_state.keys() | false_state.keys():
        if_true, if_false = true_state.get(key), false_state.get(key)
        same = if_true is if_false
        scope.state_mapping[key] = if_true if same else tf.where(predicate, if_true, if_false)
    return tf.nest.map_structure(
        lambda a, b: tf.where(predicate, a, b) if tf.is_tensor(a) else a,
        true_result,
        false_result,
    )


# ------------------------------------------------------------------------------- initial weights


class SeedDraw(int):
    """A seed that Keras drew for an initializer or a seed generator, and which draw it was."""

    index: int


class BuildRecord:
    """What was drawn and initialized while a model was built.

    Attributes:
        draws: All default seeds, in the order in which Keras drew them.
        initializers: `id(variable)` -> the initializer that made it.
    """

    def __init__(self) -> None:
        self.draws: list[int] = []
        self.initializers: dict[int, Any] = {}


@contextlib.contextmanager
def recording_build() -> Iterator[BuildRecord]:
    """Records the seed draws and initializers of everything built within this context."""
    record = BuildRecord()
    draw_seed, initialize = (
        seed_generator.make_default_seed,
        BackendVariable._initialize_with_initializer,
    )

    def recorded_draw() -> SeedDraw:
        draw = SeedDraw(draw_seed())
        draw.index = len(record.draws)
        record.draws.append(int(draw))
        return draw

    def recorded_initialize(variable: Any, initializer: Any) -> None:
        record.initializers[id(variable)] = initializer
        initialize(variable, initializer)

    with contextlib.ExitStack() as stack:
        for module in _modules_that_draw_seeds(draw_seed):
            stack.enter_context(mock.patch.object(module, "make_default_seed", recorded_draw))
        stack.enter_context(
            mock.patch.object(BackendVariable, "_initialize_with_initializer", recorded_initialize)
        )
        yield record


def _modules_that_draw_seeds(draw_seed: Callable[[], int]) -> list[Any]:
    return [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("keras.src") and vars(module).get("make_default_seed") is draw_seed
    ]


def replay_draws(seed: int, num_draws: int) -> list[int]:
    """The default seeds Keras would draw after `keras.utils.set_random_seed(seed)`."""
    stream = random.Random(seed)
    return [stream.randint(1, int(1e9)) for _ in range(num_draws)]


def seed_draw_of(initializer: Any) -> int | None:
    """Which draw seeds this initializer; None when its values do not depend on a drawn seed."""
    if not isinstance(initializer, RandomInitializer):
        return None
    return initializer.seed.index if isinstance(initializer.seed, SeedDraw) else None


def seed_generator_states(model: keras.Model) -> dict[int, int]:
    """`id(state variable)` -> seed value, of every seed generator whose seed Keras drew.

    Keras drew it when the generator was made. That may have been before the model was built, in a
    layer of the user's file.
    """
    return {
        id(generator.state): int(generator.state.numpy()[0])
        for layer in all_layers(model)
        for generator in getattr(layer, "_seed_generators", [])
        if generator._initial_seed is None
    }


def initialize_with_seed(initializer: Any, variable: keras.Variable, seed: tf.Tensor) -> tf.Tensor:
    """What the initializer gives for this variable under a traced scalar seed."""
    state = tf.stack([seed, tf.zeros([], seed.dtype)])
    with mock.patch.object(backend_random, "draw_seed", return_value=state):
        return tf.cast(initializer(variable.shape, dtype=variable.dtype), variable.dtype)


# ------------------------------------------------------------------------------- compiled programs


@contextlib.contextmanager
def random_operations_replaced(operations: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Within this context, TensorFlow's generated functions with these names are replaced.

    Args:
        operations: `stateless_random_uniform_v2`, ... -> a function with the same parameters.
    """
    with contextlib.ExitStack() as stack:
        for name, function in operations.items():
            stack.enter_context(mock.patch.object(random_operations, name, function))
        yield


@contextlib.contextmanager
def unrolled_recurrence(model: keras.Model) -> Iterator[None]:
    """Within this context, recurrent layers are unrolled, because loops do not vectorize well."""
    with contextlib.ExitStack() as stack:
        for layer in all_layers(model):
            if isinstance(layer, keras.layers.RNN):
                stack.enter_context(mock.patch.object(layer, "unroll", True))
        yield


def graph_of(graph: Any, function_name: str) -> Any:
    """The graph of a function that operations of a graph call."""
    return graph._get_function(function_name).graph


def is_traced_for_xla() -> bool:
    """Whether the graph that is being traced is part of a program for XLA."""
    return bool(control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()))


# --------------------------------------------------------------------------------- vectorization

PForInput = Any
register_converter = parallel_for.RegisterPFor
stacked = parallel_for.wrap


def for_every_index(function: Callable[[tf.Tensor], Any], num_indices: int) -> Any:
    """The results of `function(0)`, `function(1)`, ... stacked on axis 0, computed together.

    Raises:
        ValueError: An operation in `function` has no converter.
    """
    # Under XLA `pfor` makes a tf.function of its own. AutoGraph would rewrite the source of all
    # that it calls, take a third of the time, and leave the sources in the temporary folder.
    pfor = tf.autograph.experimental.do_not_convert(control_flow_ops.pfor)
    return pfor(function, num_indices, fallback_to_while_loop=False)


def flattened_batch_converter(op_type: str, dims: list[int]) -> None:
    """Registers a converter that folds the trial axis into the operation's batch axis."""
    parallel_for.RegisterPForWithArgs(op_type, dims=dims)(parallel_for._convert_flatten_batch)


def run_in_loop(pfor: PForInput) -> Any:
    """Converts one operation into a loop over trials."""
    return parallel_for._fallback_converter(pfor, warn=False)


def take_converter(op_type: str) -> Any:
    """Removes TensorFlow's own converter and returns it, to be called where ours does not apply.

    Returns:
        The converter; None if there is none.
    """
    return parallel_for._pfor_converter_registry.pop(op_type, None)
