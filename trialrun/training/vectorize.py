"""Vectorizes a function of one trial over the trial axis, and teaches TensorFlow how.

TensorFlow's `pfor` converts a traced function operation by operation. Three things are missing
for training, and are registered here on import: `Bitcast` (in the accuracy metric), the random
generators (dropout, noise: every trial has its own key), and a fast product of tiny matrices.

The random converters give what the operations give one trial at a time: uniform numbers bit for
bit, normal ones but for the last bits of logarithm, sine and cosine. They are Philox4x32-10 of
Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011), with TensorFlow's way of
making key and counter from a seed.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trialrun.training import internals
from trialrun.training.internals import PForInput, register_converter, stacked


def vectorize(function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
    """The results of `function` for every trial, stacked on axis 0, computed together.

    Args:
        function: Maps one trial's tensors to a structure of tensors; traced once.
        arguments: Structures of tensors `(trials, ...)`, one per parameter of `function`.

    Raises:
        ValueError: An operation in `function` has no vectorized form; names the operation.
    """
    stacks = tuple(arguments)
    num_trials = tf.nest.flatten(stacks)[0].shape[0]
    # `tf.vectorized_map` would leave a single trial unconverted: its dropout would be drawn by
    # XLA's own generators, which give other numbers.
    return internals.for_every_index(
        lambda index: function(*tf.nest.map_structure(lambda s: tf.gather(s, index), stacks)),
        num_trials,
    )


# ------------------------------------------------------------------------------ random generators

_U32, _U64 = tf.uint32, tf.uint64
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
# TensorFlow scrambles a seed into key and counter with one Philox call under this fixed key.
_SCRAMBLE_KEY = (0x3EC8F720, 0x02461E29)

Words = tuple[tf.Tensor, ...]


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


def _key_and_counter(seeds: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Seeds (trials, 2) -> keys (trials, 1) and counters (trials, 2), uint64."""
    words = tf.cast(tf.cast(seeds, tf.int64), _U64)
    counter = _split(words[:, 0]) + _split(words[:, 1])
    zero = tf.zeros_like(counter[0])
    key = tuple(zero + tf.constant(word, _U32) for word in _SCRAMBLE_KEY)
    mixed = _philox(counter, key)
    return (
        _join(mixed[0], mixed[1])[:, None],
        tf.stack([_join(zero, zero), _join(mixed[2], mixed[3])], 1),
    )


def _random_bits(keys: tf.Tensor, counters: tf.Tensor, num_words: int) -> tf.Tensor:
    """Keys (trials, 1), counters (trials, 2) -> random uint32 words (trials, num_words)."""
    num_calls = -(-num_words // 4)
    key = _split(keys[:, 0:1])
    call_numbers = tf.cast(tf.range(num_calls), _U64)[None]
    counter_low, counter_high = _split(counters[:, 0:1] + call_numbers), _split(counters[:, 1:2])
    zeros = tf.zeros_like(counter_low[0])
    words = _philox(
        (*counter_low, counter_high[0] + zeros, counter_high[1] + zeros),
        (key[0] + zeros, key[1] + zeros),
    )
    return tf.reshape(tf.stack(words, -1), [-1, 4 * num_calls])[:, :num_words]


def _unit_floats(bits: tf.Tensor) -> tf.Tensor:
    """Random uint32 words -> float32 in [0, 1), as TensorFlow makes them: 23 bits of mantissa."""
    mantissa = tf.bitwise.bitwise_and(bits, tf.constant(0x7FFFFF, _U32))
    return tf.bitcast(tf.bitwise.bitwise_or(mantissa, tf.constant(127 << 23, _U32)), tf.float32) - 1


def _normal_floats(bits: tf.Tensor) -> tf.Tensor:
    """Random uint32 words (trials, 4n) -> standard normals (trials, 4n): Box and Muller (1958)."""
    uniform = _unit_floats(bits)
    radius = tf.sqrt(-2.0 * tf.math.log(tf.maximum(uniform[:, 0::2], 1e-7)))
    # As TensorFlow: the product in float64. Rounded in float32 it would be off by 5e-7.
    angle = tf.cast(2 * math.pi * tf.cast(uniform[:, 1::2], tf.float64), tf.float32)
    return tf.reshape(
        tf.stack([tf.sin(angle) * radius, tf.cos(angle) * radius], -1), tf.shape(bits)
    )


def _convert_random(pfor: PForInput, distribution: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    shape = tf.get_static_value(pfor.unstacked_input(0))
    if shape is None or pfor.get_attr("dtype") != tf.float32:
        return internals.run_in_loop(pfor)
    pfor.stack_inputs([1, 2])
    num_values = math.prod(int(size) for size in shape)
    # Whole calls of four words: a normal needs its pair.
    bits = _random_bits(pfor.stacked_input(1), pfor.stacked_input(2), -(-num_values // 4) * 4)
    values = distribution(bits)[:, :num_values]
    return stacked(tf.reshape(values, [-1, *(int(size) for size in shape)]), True)


@register_converter("StatelessRandomGetKeyCounter")
def _convert_key_counter(pfor: PForInput) -> Any:
    keys, counters = _key_and_counter(pfor.stacked_input(0))
    return stacked(keys, True), stacked(counters, True)


@register_converter("StatelessRandomUniformV2")
def _convert_uniform(pfor: PForInput) -> Any:
    return _convert_random(pfor, _unit_floats)


@register_converter("StatelessRandomNormalV2")
def _convert_normal(pfor: PForInput) -> Any:
    return _convert_random(pfor, _normal_floats)


for _name in (
    "StatelessTruncatedNormalV2",
    "StatelessRandomUniformIntV2",
    "StatelessRandomUniformFullIntV2",
):
    internals.loop_converter(_name)


@register_converter("Bitcast")
def _convert_bitcast(pfor: PForInput) -> Any:
    return stacked(tf.bitcast(pfor.stacked_input(0), pfor.get_attr("type")), True)


internals.flattened_batch_converter("InTopKV2", [0, 1])

# ------------------------------------------------------------------------------- tiny matrices


def _multiply_and_sum_is_faster(
    rows: int, inner: int, columns: int, *, transpose_a: bool, transpose_b: bool
) -> bool:
    """Whether XLA's CPU backend multiplies matrices of this size faster without its dot.

    Its batched dot runs tiny shapes at 0.5 to 8 GFLOP/s, as it calls a kernel per matrix; a
    product and a sum are fused into one vectorized loop. The limits are measured
    (`scripts/benchmark.py` shows the sum of it) and concern the CPU only.
    """
    if transpose_a and not transpose_b:  # gradient of a kernel: (features, batch) x (batch, units)
        return inner <= 16 and rows <= 256 and columns <= 256
    if transpose_b and not transpose_a:  # gradient of a layer's input
        return inner <= 4
    if not transpose_a and not transpose_b:  # forward pass
        return columns <= 4 and inner <= 64
    return False


def _register_matmul(op_type: str, transpose_a_name: str, transpose_b_name: str) -> None:
    convert_with_dot = internals.take_converter(op_type)

    @register_converter(op_type)
    def _convert_matmul(pfor: PForInput) -> Any:
        transpose_a, transpose_b = pfor.get_attr(transpose_a_name), pfor.get_attr(transpose_b_name)
        left, right = pfor.input(0), pfor.input(1)
        if not (_is_stack_of_matrices(left) and _is_stack_of_matrices(right)):
            return convert_with_dot(pfor)
        a = tf.transpose(left.t, [0, 2, 1]) if transpose_a else left.t
        b = tf.transpose(right.t, [0, 2, 1]) if transpose_b else right.t
        (_, rows, inner), columns = a.shape, b.shape[2]
        if not _multiply_and_sum_is_faster(
            rows, inner, columns, transpose_a=transpose_a, transpose_b=transpose_b
        ):
            return convert_with_dot(pfor)
        return stacked(tf.reduce_sum(a[:, :, :, None] * b[:, None, :, :], 2), True)


def _is_stack_of_matrices(value: Any) -> bool:
    shape = value.t.shape
    return bool(
        value.is_stacked
        and shape.rank == 3
        and shape.is_fully_defined()
        and value.t.dtype == tf.float32
    )


if not tf.config.list_physical_devices("GPU"):
    _register_matmul("MatMul", "transpose_a", "transpose_b")
    _register_matmul("BatchMatMulV2", "adj_x", "adj_y")
