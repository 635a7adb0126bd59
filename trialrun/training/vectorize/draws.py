"""Random numbers in a program: those that TensorFlow draws outside of XLA.

XLA's own random generators give others. So while a program is traced, TensorFlow's functions of
stateless draws are replaced. What follows from constants alone, such as a draw with a seed of the
user's, is drawn once, by TensorFlow's own kernel, and is a constant of the program. `pfor` would
leave such a draw as it is. The other draws are made by `converters`, or by arithmetic here where
nothing is vectorized.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import tensorflow_graph
from trialrun.training.vectorize import philox

Draw = Callable[..., Any]

_MOST_CONSTANTS = 2**24  # numbers of one draw that are kept in a program, 64 MB of float32


@contextlib.contextmanager
def constant_draws_as_outside_xla() -> Iterator[None]:
    """Within this context, draws that follow from constants alone are traced as constants."""

    def replacement(name: str, original: Draw) -> Draw:
        return functools.partial(_drawn_once, original, original)

    with tensorflow_graph.random_operations_replaced(replacement):
        yield


@contextlib.contextmanager
def draws_as_outside_xla() -> Iterator[None]:
    """Within this context, the other draws are traced as our own arithmetic, or are refused."""
    arithmetic: dict[str, Draw] = {
        "stateless_random_get_key_counter": _key_and_counter,
        "stateless_random_uniform_v2": _uniform,
        "stateless_random_normal_v2": _normal,
        "stateless_random_uniform_int_v2": _uniform_int,
    }

    def replacement(name: str, original: Draw) -> Draw:
        return functools.partial(_drawn_once, original, arithmetic.get(name, _refuse))

    with tensorflow_graph.random_operations_replaced(replacement):
        yield


def _drawn_once(original: Draw, otherwise: Draw, *args: Any, **kwargs: Any) -> Any:
    """What TensorFlow draws from constants, as constants; else what another function gives."""
    flat = tf.nest.flatten((args, kwargs))
    known = [tensorflow_graph.constant_of(own) if tf.is_tensor(own) else own for own in flat]
    if any(value is None and tf.is_tensor(own) for value, own in zip(known, flat, strict=True)):
        return otherwise(*args, **kwargs)
    known_args, known_kwargs = tf.nest.pack_sequence_as((args, kwargs), known)
    with tf.init_scope():
        drawn = original(*known_args, **known_kwargs)
        arrays = tf.nest.map_structure(lambda tensor: tensor.numpy(), drawn)
    if sum(array.size for array in tf.nest.flatten(arrays)) > _MOST_CONSTANTS:
        return otherwise(*args, **kwargs)
    return tf.nest.map_structure(tf.constant, arrays)


def _key_and_counter(seed: Any, **_: Any) -> tuple[tf.Tensor, tf.Tensor]:
    keys, counters = philox.key_and_counter(tf.convert_to_tensor(seed)[None])
    return keys[0], counters[0]


def _draw(
    distribution: philox.Distribution, shape: Any, key: Any, counter: Any, dtype: Any
) -> tf.Tensor:
    size = tensorflow_graph.constant_of(tf.convert_to_tensor(shape))
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
