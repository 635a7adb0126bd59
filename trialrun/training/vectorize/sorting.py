"""Numbers sorted as TensorFlow sorts them, for whom XLA has another order."""

import contextlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trialrun.training.internals.tensorflow_graph import operation_replaced


def sorting_as_outside_xla() -> contextlib.AbstractContextManager[Any]:
    """Within this context, 0 and -0 are sorted as equal numbers.

    To XLA, -0 is less than 0, so that `top_k` and `argsort` would give other indices for what has
    been rounded, negated or multiplied by a mask.
    """
    return operation_replaced("top_kv2", _with_one_zero)


def _with_one_zero(top_k: Callable[..., Any], input: Any, *args: Any, **kwargs: Any) -> Any:
    values = tf.convert_to_tensor(input)
    if values.dtype.is_floating:
        negated = tf.where(values == 0, -values, tf.zeros_like(values))
        values += tf.stop_gradient(negated)  # -0 + 0 is 0
    return top_k(values, *args, **kwargs)
