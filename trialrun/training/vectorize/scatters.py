"""Converters of operations that put values at places of a tensor, of all trials at once.

They are in gradients of `top_k` and `gather_nd`, and in `keras.ops.scatter`. The number of the
trial becomes the first index of each place.
"""

import functools
from typing import Any

import tensorflow as tf

from trialrun.training.internals.tensorflow_graph import Converter, PForInput, stacked

_INTO_A_TENSOR = ("TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin")


def scatter_converters() -> dict[str, Converter]:
    """The name of an operation -> its converter."""
    return {
        "ScatterNd": _convert_scatter,
        **{name: functools.partial(_convert_into, name) for name in _INTO_A_TENSOR},
    }


def _convert_scatter(pfor: PForInput) -> Any:
    pfor.stack_inputs([0, 1])
    places, values = _of_trials(pfor.stacked_input(0)), pfor.stacked_input(1)
    shape = pfor.unstacked_input(2)
    whole = tf.concat([tf.cast(tf.shape(values)[:1], shape.dtype), shape], 0)
    return stacked(tf.scatter_nd(places, values, whole), True)


def _convert_into(name: str, pfor: PForInput) -> Any:
    pfor.stack_inputs([0, 1, 2])
    tensor, values = pfor.stacked_input(0), pfor.stacked_input(2)
    operation = getattr(tf.raw_ops, name)
    places = _of_trials(pfor.stacked_input(1))
    return stacked(operation(tensor=tensor, indices=places, updates=values), True)


def _of_trials(places: tf.Tensor) -> tf.Tensor:
    """Places in a trial's tensor (trials, ..., axes) -> in the stacked one (..., 1 + axes)."""
    shape = [*tf.unstack(tf.shape(places))[:-1], 1]
    numbers = tf.range(tf.shape(places)[0])
    column = tf.reshape(numbers, [-1, *[1] * (places.shape.rank - 1)])
    return tf.concat([tf.cast(tf.broadcast_to(column, shape), places.dtype), places], -1)
