"""Converters of operations that TensorFlow's `pfor` lacks and training needs.

They are for `Bitcast` (in the accuracy metric), `Squeeze` of a single trial, `L2Loss`, padding,
rolling, what is done to images, the random generators (for dropout and noise every trial has its
own key), and products of small matrices.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Never

import numpy as np
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import tensorflow_graph
from trialrun.training.internals.tensorflow_graph import (
    Converter,
    PForInput,
    fold_trials_into_batch,
    stacked,
)
from trialrun.training.vectorize import philox
from trialrun.training.vectorize.products import product_converters


def own_converters() -> dict[str, Converter]:
    """The name of an operation -> its converter, for all but convolutions and scatters.

    Some call the converter that is registered for the operation when this is called.
    """
    converters: dict[str, Converter] = {
        "StatelessRandomGetKeyCounter": _convert_key_counter,
        "StatelessRandomUniformV2": _convert_uniform,
        "StatelessRandomNormalV2": _convert_normal,
        "StatelessRandomUniformIntV2": _convert_uniform_int,
        "StatelessTruncatedNormalV2": _refuse,
        "StatelessRandomUniformFullIntV2": _refuse,
        "Bitcast": _convert_bitcast,
        "Squeeze": _convert_squeeze,
        "L2Loss": _convert_l2_loss,
        "PadV2": _convert_pad,
        "MirrorPad": _convert_mirror_pad,
        "MirrorPadGrad": _convert_mirror_pad,
        "Roll": _convert_roll,
        "InTopKV2": functools.partial(fold_trials_into_batch, inputs=[0, 1]),
        "ExtractImagePatches": functools.partial(fold_trials_into_batch, inputs=[0]),
        "LRN": functools.partial(fold_trials_into_batch, inputs=[0]),
        "LRNGrad": functools.partial(fold_trials_into_batch, inputs=[0, 1, 2]),
        "ResizeBilinear": functools.partial(fold_trials_into_batch, inputs=[0]),
        "ResizeBilinearGrad": functools.partial(fold_trials_into_batch, inputs=[0, 1]),
        "ResizeNearestNeighbor": functools.partial(fold_trials_into_batch, inputs=[0]),
        "ResizeNearestNeighborGrad": functools.partial(fold_trials_into_batch, inputs=[0]),
        "RGBToHSV": _convert_colors(tf.raw_ops.RGBToHSV),
        "HSVToRGB": _convert_colors(tf.raw_ops.HSVToRGB),
        "DepthwiseConv2dNative": _with_own_kernels("DepthwiseConv2dNative", [0, 1]),
        "DepthwiseConv2dNativeBackpropInput": _with_own_kernels(
            "DepthwiseConv2dNativeBackpropInput", [1, 2]
        ),
    }
    return converters | product_converters()


# ------------------------------------------------------------------------------ random generators


def _convert_key_counter(pfor: PForInput) -> Any:
    keys, counters = philox.key_and_counter(pfor.stacked_input(0))
    return stacked(keys, True), stacked(counters, True)


def _convert_uniform(pfor: PForInput) -> Any:
    return stacked(_draw_together(pfor, "uniform", pfor.get_attr("dtype")), True)


def _convert_normal(pfor: PForInput) -> Any:
    return stacked(_draw_together(pfor, "normal", pfor.get_attr("dtype")), True)


def _convert_uniform_int(pfor: PForInput) -> Any:
    low, high = pfor.input(4), pfor.input(5)
    if low.is_stacked or high.is_stacked:
        return _refuse(pfor)
    bits = _draw_together(pfor, "bits", low.t.dtype)
    return stacked(philox.integers_between(bits, low.t, high.t), True)


def _draw_together(pfor: PForInput, distribution: philox.Distribution, dtype: Any) -> tf.Tensor:
    """The numbers of all trials (trials, ...)."""
    shape = tensorflow_graph.constant_of(pfor.unstacked_input(0))
    if shape is None or not philox.can_draw(distribution, dtype):
        return _refuse(pfor)
    pfor.stack_inputs([1, 2])
    size = [int(length) for length in shape]
    values = philox.draw(
        distribution, pfor.stacked_input(1), pfor.stacked_input(2), math.prod(size), dtype
    )
    return tf.reshape(values, [-1, *size])


def _refuse(pfor: PForInput) -> Never:
    raise CannotFuse(f"{pfor.op_type} draws other numbers inside XLA than outside")


# ------------------------------------------------------------------------------- other operations


def _convert_bitcast(pfor: PForInput) -> Any:
    return stacked(tf.bitcast(pfor.stacked_input(0), pfor.get_attr("type")), True)


def _convert_squeeze(pfor: PForInput) -> Any:
    # Without axes, TensorFlow's own converter squeezes the axis of a single trial as well.
    value = pfor.stacked_input(0)
    axes = pfor.get_attr("squeeze_dims") or [
        axis for axis, length in enumerate(value.shape[1:]) if length == 1
    ]
    if not axes:
        return stacked(value, True)
    return stacked(tf.squeeze(value, [axis + 1 if axis >= 0 else axis for axis in axes]), True)


def _convert_l2_loss(pfor: PForInput) -> Any:  # of global norms, by which gradients are clipped
    value = pfor.stacked_input(0)
    return stacked(tf.reduce_sum(tf.square(value), range(1, value.shape.rank)) / 2, True)


def _convert_pad(pfor: PForInput) -> Any:
    # TensorFlow's own converter pads with zeros, whatever the constant is.
    pfor.stack_inputs([0])
    value, constant = pfor.stacked_input(0), pfor.input(2)
    paddings = _also_of_trials(pfor.unstacked_input(1))
    if not constant.is_stacked:
        return stacked(tf.pad(value, paddings, constant_values=constant.t), True)
    is_inside = tf.pad(tf.ones_like(value, tf.bool), paddings)
    constants = tf.reshape(constant.t, [-1, *[1] * (value.shape.rank - 1)])
    return stacked(tf.where(is_inside, tf.pad(value, paddings), constants), True)


def _convert_mirror_pad(pfor: PForInput) -> Any:
    operation = getattr(tf.raw_ops, pfor.op_type)
    value, paddings = pfor.stacked_input(0), _also_of_trials(pfor.unstacked_input(1))
    mode = pfor.get_attr("mode").decode()
    return stacked(operation(input=value, paddings=paddings, mode=mode), True)


def _also_of_trials(paddings: tf.Tensor) -> tf.Tensor:
    """Paddings of a trial's axes (axes, 2) -> of the stacked axes, of which the first has none."""
    return tf.pad(paddings, [[1, 0], [0, 0]])


def _convert_roll(pfor: PForInput) -> Any:
    # TensorFlow's own converter takes the last axis, -1, for that of the trials.
    pfor.stack_inputs([0])
    value, shifts = pfor.stacked_input(0), pfor.input(1)
    axes = tf.get_static_value(pfor.unstacked_input(2))
    if axes is None:
        raise CannotFuse("the axes of Roll are known only when it is computed")
    own_axes = [int(axis) % (value.shape.rank - 1) + 1 for axis in np.ravel(axes)]
    if not shifts.is_stacked:
        return stacked(tf.roll(value, tf.reshape(shifts.t, [-1]), own_axes), True)
    of_axes = tf.unstack(tf.reshape(shifts.t, [-1, len(own_axes)]), axis=1)
    for axis, shift in zip(own_axes, of_axes, strict=True):
        places = tf.range(value.shape[axis], dtype=shift.dtype)
        sources = (places - shift[:, None]) % value.shape[axis]
        value = tf.gather(value, sources, axis=axis, batch_dims=1)
    return stacked(value, True)


def _convert_colors(operation: Callable[..., tf.Tensor]) -> Converter:
    return lambda pfor: stacked(operation(images=pfor.stacked_input(0)), True)


def _with_own_kernels(op_type: str, inputs: list[int]) -> Converter:
    """TensorFlow's own converter, which needs a kernel for each trial: a constant one is copied."""
    convert = tensorflow_graph.converter_of(op_type)
    assert convert is not None

    def convert_stacked(pfor: PForInput) -> Any:
        pfor.stack_inputs(inputs)
        return convert(pfor)

    return convert_stacked
