"""TensorFlow's stateless random numbers as plain arithmetic, for many keys at once.

They equal what TensorFlow's own operations give for one trial at a time outside of XLA: uniform
numbers and integers bit for bit, normal ones except for the last bits of logarithm, sine and
cosine. (Inside XLA the same operations give other numbers.)

References:
    Philox4x32-10 of Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011).
    Box and Muller, "A Note on the Generation of Random Normal Deviates" (1958).
"""

import math
from typing import Literal

import tensorflow as tf

Distribution = Literal["uniform", "normal", "bits"]

_U32, _U64 = tf.uint32, tf.uint64
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# TensorFlow scrambles a seed into key and counter with one Philox call under this fixed key.
_SCRAMBLE_KEY = (0x3EC8F720, 0x02461E29)

Words = tuple[tf.Tensor, ...]
# type -> (unsigned integer of its width, bits of the mantissa, the exponent of numbers in [1, 2))
_FLOATS = {
    tf.float32: (tf.uint32, 0x7FFFFF, 127 << 23),
    tf.float16: (tf.uint16, 0x3FF, 15 << 10),
    tf.bfloat16: (tf.uint16, 0x7F, 127 << 7),
}


def _philox(counter: Words, key: Words) -> Words:
    """Four random uint32 words for each counter of four and key of two uint32 words."""
    xor = tf.bitwise.bitwise_xor
    # Constants are made once: each use of a Python number would add a node to the graph.
    multipliers = [tf.constant(word, _U64) for word in _MULTIPLIERS]
    increments = [tf.constant(word, _U32) for word in _KEY_INCREMENTS]
    low_half, half_width = tf.constant(0xFFFFFFFF, _U64), tf.constant(32, _U64)

    def multiply(words: tf.Tensor, multiplier: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        product = tf.cast(words, _U64) * multiplier
        high = tf.cast(tf.bitwise.right_shift(product, half_width), _U32)
        return high, tf.cast(tf.bitwise.bitwise_and(product, low_half), _U32)

    for round_number in range(_ROUNDS):
        if round_number:
            key = (key[0] + increments[0], key[1] + increments[1])
        high0, low0 = multiply(counter[0], multipliers[0])
        high1, low1 = multiply(counter[2], multipliers[1])
        counter = (
            xor(xor(high1, counter[1]), key[0]),
            low1,
            xor(xor(high0, counter[3]), key[1]),
            low0,
        )
    return counter


def _split(words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Low and high half of uint64 words, as uint32."""
    low = tf.bitwise.bitwise_and(words, tf.constant(0xFFFFFFFF, _U64))
    return tf.cast(low, _U32), tf.cast(tf.bitwise.right_shift(words, tf.constant(32, _U64)), _U32)


def _join(low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    shifted = tf.bitwise.left_shift(tf.cast(high, _U64), tf.constant(32, _U64))
    return tf.bitwise.bitwise_or(tf.cast(low, _U64), shifted)


def key_and_counter(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The start of each trial's stream.

    Args:
        seeds: Integers (trials, 2).

    Returns:
        Keys (trials, 1) and counters (trials, 2), uint64.
    """
    words = tf.cast(tf.cast(seeds, tf.int64), _U64)
    counter = _split(words[:, 0]) + _split(words[:, 1])
    zero = tf.zeros_like(counter[0])
    key = tuple(zero + tf.constant(word, _U32) for word in _SCRAMBLE_KEY)
    mixed = _philox(counter, key)
    return (
        _join(mixed[0], mixed[1])[:, None],
        tf.stack([_join(zero, zero), _join(mixed[2], mixed[3])], 1),
    )


def _random_bits(keys: tf.Tensor, counters: tf.Tensor, num_calls: int) -> tf.Tensor:
    """Keys (trials, 1), counters (trials, 2) -> random uint32 words (trials, 4 * num_calls)."""
    key = _split(keys[:, 0:1])
    call_numbers = tf.cast(tf.range(num_calls), _U64)[None]
    counter_low, counter_high = _split(counters[:, 0:1] + call_numbers), _split(counters[:, 1:2])
    zeros = tf.zeros_like(counter_low[0])
    words = _philox(
        (*counter_low, counter_high[0] + zeros, counter_high[1] + zeros),
        (key[0] + zeros, key[1] + zeros),
    )
    return tf.reshape(tf.stack(words, -1), [-1, 4 * num_calls])


def can_draw(distribution: Distribution, dtype: tf.DType) -> bool:
    """Whether `draw` supports this distribution and type; for `bits` the type of the integers."""
    if distribution == "bits":
        return tf.as_dtype(dtype) in (tf.int32, tf.int64)
    return tf.as_dtype(dtype) in (tf.float32, tf.float16, tf.bfloat16)


def draw(
    distribution: Distribution,
    keys: tf.Tensor,
    counters: tf.Tensor,
    num_values: int,
    dtype: tf.DType,
) -> tf.Tensor:
    """Random numbers of each trial.

    Args:
        distribution: `uniform` in [0, 1), standard `normal`, or `bits` for integers.
        keys: uint64 (trials, 1).
        counters: uint64 (trials, 2).
        num_values: The number of values per trial.
        dtype: A type that `can_draw` accepts.

    Returns:
        (trials, num_values) of that type; for `bits` the unsigned type of its width.
    """
    num_words = num_values * (2 if tf.as_dtype(dtype) == tf.int64 else 1)
    # Always whole calls of four words, because normal numbers are made in pairs.
    bits = _random_bits(keys, counters, -(-num_words // 4))
    match distribution:
        case "uniform":
            values = _unit_floats(bits, tf.as_dtype(dtype))
        case "normal":
            values = tf.cast(_normal_floats(bits), dtype)
        case "bits" if tf.as_dtype(dtype) == tf.int64:
            values = _join(bits[:, 0::2], bits[:, 1::2])
        case "bits":
            values = bits
    return values[:, :num_values]


def integers_between(bits: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Random words as wide as `low` -> integers from `low` to below `high`, of their type."""
    size = tf.cast(high - low, bits.dtype)
    return low + tf.cast(tf.math.floormod(bits, size), low.dtype)


def _unit_floats(bits: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Random uint32 words -> floats in [0, 1), as TensorFlow makes them of the low bits."""
    word, mantissa_mask, exponent = _FLOATS[dtype]
    mantissa = tf.cast(tf.bitwise.bitwise_and(bits, tf.constant(mantissa_mask, _U32)), word)
    one_to_two = tf.bitwise.bitwise_or(mantissa, tf.constant(exponent, word))
    return tf.bitcast(one_to_two, dtype) - tf.ones([], dtype)


def _normal_floats(bits: tf.Tensor) -> tf.Tensor:
    """Random uint32 words (trials, 4n) -> standard normals (trials, 4n)."""
    uniform = _unit_floats(bits)
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(uniform[:, 0::2], 1e-7)))
    # Like TensorFlow, with the product in float64. In float32 it would be off by 5e-7.
    angle = tf.cast(2 * math.pi * tf.cast(uniform[:, 1::2], tf.float64), tf.float32)
    return tf.reshape(
        tf.stack([tf.sin(angle) * radius, tf.cos(angle) * radius], -1), tf.shape(bits)
    )
