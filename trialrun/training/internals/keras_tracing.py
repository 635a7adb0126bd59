"""Private names of Keras and TensorFlow that are replaced while a program is traced."""

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import keras
import tensorflow as tf
from keras.src import backend as keras_backend
from keras.src import ops as keras_ops
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.tensorflow.optimizer import TFOptimizer
from keras.src.layers.regularization import gaussian_dropout
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer
from keras.src.utils import tf_utils

# What TFOptimizer overrides only for tf.distribute and tf.IndexedSlices on tf.Variables.
_DISTRIBUTED_METHODS = (
    "assign",
    "assign_add",
    "assign_sub",
    "_apply_weight_decay",
    "_var_key",
    "_overwrite_model_variables_with_average_value",
    "_backend_increment_gradient_accumulators",
    "_clip_by_norm",
)
_KEY_IN_FIT = TFOptimizer._var_key


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
    calls `super()`. What an optimizer decides by a variable's name, it decides as in `fit`.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(
            mock.patch.object(TFOptimizer, "_backend_update_step", _update_by_names_of_fit)
        )
        stack.enter_context(mock.patch.object(BaseOptimizer, "_use_weight_decay", decays_in_fit))
        for name in _DISTRIBUTED_METHODS:
            stack.enter_context(mock.patch.object(TFOptimizer, name, BaseOptimizer.__dict__[name]))
        stack.enter_context(
            mock.patch.object(LossScaleOptimizer, "_tf_apply", LossScaleOptimizer._common_apply)
        )
        yield


def _update_by_names_of_fit(
    optimizer: Any, gradients: Iterable[Any], variables: Iterable[Any], learning_rate: Any
) -> None:
    """In `fit` a `tf.Variable` is updated, which has the path of Keras's variable in its name."""
    for gradient, variable in zip(gradients, variables, strict=True):
        with mock.patch.object(variable, "_name", variable._value.name):
            optimizer.update_step(gradient, variable, learning_rate)


def decays_in_fit(optimizer: Any, variable: keras.Variable) -> bool:
    """Whether an optimizer lets a variable decay in `fit`, which asks by its `tf.Variable`."""
    key = _KEY_IN_FIT(optimizer, variable._value)
    if key in getattr(optimizer, "_exclude_from_weight_decay", ()):
        return False
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return pattern is None or re.search(pattern, variable._value.name) is None


@contextlib.contextmanager
def keyed_by_identity(optimizers: Iterable[keras.optimizers.Optimizer]) -> Iterator[None]:
    """Within this context, optimizers find their slots as `pure_optimizers` looks for them.

    They must be built outside of it. Each key is there once, because `apply` counts them.
    """
    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            inner: keras.optimizers.Optimizer | None = optimizer
            while inner is not None:
                weights = enumerate(inner._trainable_variables)
                indices = {id(variable): index for index, variable in weights}
                stack.enter_context(
                    mock.patch.object(inner, "_trainable_variables_indices", indices)
                )
                inner = getattr(inner, "inner_optimizer", None)
        yield


@contextlib.contextmanager
def square_root_of_dropout(square_root: Callable[[float], float]) -> Iterator[None]:
    """Within this context, GaussianDropout takes the square root of its rate by another function.

    Python's own gives a float, so that it cannot be traced.
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


@contextlib.contextmanager
def recurrence_by(rnn: Callable[..., Any]) -> Iterator[None]:
    """Within this context, recurrent layers iterate over time by a function like Keras's `rnn`.

    Args:
        rnn: Takes Keras's own function as its first argument, and then what that takes.
    """

    def not_here(*_: Any, **__: Any) -> Any:
        raise NotImplementedError  # Keras then takes its own loop, and not that of cuDNN

    with contextlib.ExitStack() as stack:
        for name in ("lstm", "gru", "bidirectional_lstm", "bidirectional_gru"):
            stack.enter_context(mock.patch.object(keras_backend, name, not_here))
        own = functools.partial(rnn, keras_backend.rnn)
        stack.enter_context(mock.patch.object(keras_backend, "rnn", own))
        yield


def leaves_scope_alone(function: Callable[[], None]) -> bool:
    """Whether a function leaves the stateless scope around it as it was; it is put back anyway."""
    scope = get_stateless_scope()
    if scope is None:
        function()
        return True
    values, losses = dict(scope.state_mapping), list(scope.losses or [])
    function()
    now = scope.state_mapping
    is_same = now.keys() == values.keys() and all(now[key] is values[key] for key in values)
    is_same &= len(scope.losses or []) == len(losses)
    scope.state_mapping.clear()
    scope.state_mapping.update(values)
    if scope.losses is not None:
        scope.losses[:] = losses
    return is_same
