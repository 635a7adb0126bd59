"""Runs a function of one trial for one trial after another, inside a compiled program.

Where `vectorize` changes the operations, this changes none: what XLA can compile for one trial, it
can compile in a loop over trials. But XLA's own random generators give other numbers than
TensorFlow's do outside of XLA, so they are replaced while such a program is traced.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import tensorflow_graph
from trialrun.training.vectorize import philox


def apply_to_the_only(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for a single trial; tensors and results keep a trial axis of 1.

    Args:
        function: Maps one trial's tensors to a structure of tensors.
        arguments: Structures of tensors (1, ...), one per parameter of `function`.
    """
    results = function(*tf.nest.map_structure(lambda stack: stack[0], tuple(arguments)))
    return tf.nest.map_structure(lambda tensor: tf.expand_dims(tensor, 0), results)


def run_in_turn(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for every trial, stacked on axis 0, computed one by one.

    Args:
        function: Maps stacks of one trial, (1, ...), to a structure of such stacks.
        arguments: Structures of tensors (trials, ...), one per parameter of `function`.
    """
    stacks = tuple(arguments)
    specs = tf.nest.map_structure(lambda s: tf.TensorSpec([1, *s.shape[1:]], s.dtype), stacks)
    # A function of its own, so that one trace serves both its results' shapes and the loop.
    traced = tf.function(function, autograph=False)
    results = traced.get_concrete_function(*specs).structured_outputs
    num_trials = tf.nest.flatten(stacks)[0].shape[0]
    recorders = [
        tf.TensorArray(result.dtype, num_trials, element_shape=result.shape[1:])
        for result in tf.nest.flatten(results)
    ]

    def body(index: tf.Tensor, recorders: list[Any]) -> Any:
        own = tf.nest.flatten(traced(*tf.nest.map_structure(lambda s: s[index][None], stacks)))
        written = zip(recorders, own, strict=True)
        return index + 1, [recorder.write(index, tensor[0]) for recorder, tensor in written]

    # Not by `tf.map_fn`: with its bound on the iterations, XLA does not know the loop's length.
    _, recorders = tf.while_loop(lambda index, _: index < num_trials, body, (0, recorders))
    return tf.nest.pack_sequence_as(results, [recorder.stack() for recorder in recorders])


@contextlib.contextmanager
def numbers_as_outside_xla() -> Iterator[None]:
    """Within this context, stateless random operations are traced as our own arithmetic."""
    operations: dict[str, Callable[..., Any]] = {
        "stateless_random_get_key_counter": _key_and_counter,
        "stateless_random_uniform_v2": _uniform,
        "stateless_random_normal_v2": _normal,
        "stateless_random_uniform_int_v2": _uniform_int,
        "stateless_random_uniform_full_int_v2": _refuse,
        "stateless_truncated_normal_v2": _refuse,
        "stateless_random_gamma_v3": _refuse,
    }
    with tensorflow_graph.random_operations_replaced(operations):
        yield


def _key_and_counter(seed: Any, **_: Any) -> tuple[tf.Tensor, tf.Tensor]:
    keys, counters = philox.key_and_counter(tf.convert_to_tensor(seed)[None])
    return keys[0], counters[0]


def _draw(
    distribution: philox.Distribution, shape: Any, key: Any, counter: Any, dtype: Any
) -> tf.Tensor:
    size = tf.get_static_value(tf.convert_to_tensor(shape))
    if size is None or not philox.can_draw(distribution, dtype):
        raise CannotFuse(f"random numbers of type {tf.as_dtype(dtype).name} differ inside XLA")
    values = philox.draw(distribution, key[None], counter[None], math.prod(size), dtype)
    return tf.reshape(values, size)


def _uniform(shape: Any, key: Any, counter: Any, alg: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return _draw("uniform", shape, key, counter, dtype)


def _normal(shape: Any, key: Any, counter: Any, alg: Any, dtype: Any, **_: Any) -> tf.Tensor:
    return _draw("normal", shape, key, counter, dtype)


def _uniform_int(
    shape: Any, key: Any, counter: Any, alg: Any, minval: Any, maxval: Any, **_: Any
) -> tf.Tensor:
    bits = _draw("bits", shape, key, counter, minval.dtype)
    return philox.integers_between(bits, minval, maxval)


def _refuse(*_: Any, **__: Any) -> Any:
    raise CannotFuse("a layer draws random numbers that XLA cannot draw as TensorFlow does")
