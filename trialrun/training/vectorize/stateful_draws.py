"""TensorFlow's stateful draws in the same distributions, each under a seed that it is given.

Each function here has the parameters of the one that TensorFlow generated. Of random numbers only
uniform ones, integers and normal ones are asked for, which are alike in XLA and outside of it.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals.tensorflow_graph import constant_of

_NUM_CANDIDATES = 8  # of each number of a gamma distribution
_WITHIN = 0.954499736103641  # how much of a normal distribution is within two deviations

NextSeed = Callable[[Any], tf.Tensor]


def draws_by(next_seed: NextSeed) -> dict[str, Callable[..., tf.Tensor]]:
    """The name of TensorFlow's generated function -> what takes its place.

    Args:
        next_seed: Takes the seed that the user gave to a draw, or None; gives that of the draw,
            integers (2,).
    """
    return {name: functools.partial(draw, next_seed) for name, draw in _DRAWS.items()}


def _normal(next_seed: NextSeed, shape: Any, dtype: Any, seed: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_normal(_known(shape), next_seed(seed), dtype=dtype)


def _uniform(next_seed: NextSeed, shape: Any, dtype: Any, seed: Any, **_: Any) -> tf.Tensor:
    return tf.random.stateless_uniform(_known(shape), next_seed(seed), dtype=dtype)


def _integers(
    next_seed: NextSeed, shape: Any, minval: Any, maxval: Any, seed: Any, **_: Any
) -> tf.Tensor:
    low, high = tf.convert_to_tensor(minval), tf.convert_to_tensor(maxval)
    return tf.random.stateless_uniform(
        *(_known(shape), next_seed(seed), _known(low), _known(high)), dtype=low.dtype
    )


def _truncated_normal(
    next_seed: NextSeed, shape: Any, dtype: Any, seed: Any, **_: Any
) -> tf.Tensor:
    """By the inverse of the distribution function."""
    uniform = tf.random.stateless_uniform(_known(shape), next_seed(seed))
    normal = tf.math.ndtri((1 - _WITHIN) / 2 + _WITHIN * uniform)
    return tf.cast(tf.clip_by_value(normal, -2.0, 2.0), dtype)


def _gamma(next_seed: NextSeed, shape: Any, alpha: Any, seed: Any, **_: Any) -> tf.Tensor:
    """The first of some candidates that is accepted; none is once in 10**10 times.

    References:
        Marsaglia and Tsang, "A Simple Method for Generating Gamma Variables" (2000).
    """
    alpha = tf.convert_to_tensor(alpha)
    if constant_of(alpha) is None:  # its gradient would be lost
        raise CannotFuse("it draws by tf.random.gamma with an alpha that the program computes")
    size = _known(tf.concat([shape, tf.shape(alpha)], 0))
    candidates = _known(tf.concat([size, [_NUM_CANDIDATES]], 0))
    above_1 = tf.cast(tf.where(alpha < 1, alpha + 1, alpha), tf.float32)
    scale = above_1 - 1 / 3
    normal = tf.random.stateless_normal(candidates, next_seed(seed))
    uniform = tf.maximum(tf.random.stateless_uniform(candidates, next_seed(None)), 2**-24)
    cube = (1 + normal / tf.sqrt(9 * scale)[..., None]) ** 3
    bound = normal**2 / 2 + scale[..., None] * (1 - cube + tf.math.log(tf.maximum(cube, 2**-24)))
    is_accepted = (cube > 0) & (tf.math.log(uniform) < bound)
    first = tf.argmax(tf.cast(is_accepted, tf.int32), -1)
    values = scale * tf.gather(cube, first, axis=-1, batch_dims=cube.shape.rank - 1)
    shrunk = tf.maximum(tf.random.stateless_uniform(size, next_seed(None)), 2**-24)
    below_1 = tf.cast(alpha, tf.float32)
    values *= tf.where(below_1 < 1, shrunk ** (1 / below_1), 1.0)
    return tf.cast(values, alpha.dtype)


def _categories(
    next_seed: NextSeed,
    logits: Any,
    num_samples: Any,
    seed: Any,
    output_dtype: Any = tf.int64,
    **_: Any,
) -> tf.Tensor:
    """The largest of the logits, to each of which a number of a Gumbel distribution is added."""
    logits = tf.cast(logits, tf.float32)
    size = tf.stack([tf.shape(logits)[0], num_samples, tf.shape(logits)[1]])
    uniform = tf.random.stateless_uniform(_known(size), next_seed(seed))
    gumbel = -tf.math.log(-tf.math.log(tf.maximum(uniform, 2**-24)))
    return tf.argmax(logits[:, None] + gumbel, 2, output_dtype)


def _shuffled(next_seed: NextSeed, value: Any, seed: Any, **_: Any) -> tf.Tensor:
    """Rows in the order of integers, of which two are equal once in 2**31 times."""
    value = tf.convert_to_tensor(value)
    size = tf.shape(value)[:1]
    integers = tf.random.stateless_uniform(
        _known(size), next_seed(seed), 0, tf.int32.max, dtype=tf.int32
    )
    return tf.gather(value, tf.argsort(integers, stable=True))


def _known(value: Any) -> Any:
    """A shape or bound as an array where it follows from constants, else as it is."""
    known = constant_of(tf.convert_to_tensor(value))
    return value if known is None else known


_DRAWS: dict[str, Callable[..., tf.Tensor]] = {
    "random_standard_normal": _normal,
    "random_uniform": _uniform,
    "random_uniform_int": _integers,
    "truncated_normal": _truncated_normal,
    "multinomial": _categories,
    "random_gamma": _gamma,
    "random_shuffle": _shuffled,
}
