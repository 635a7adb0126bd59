"""Converters for convolutions whose kernel differs between trials.

TensorFlow's own converters for `pfor` fold the trials into the batch, so all trials must share one
kernel. Here the patches under the kernel are laid side by side and multiplied by it, with one
matrix product per trial (Chellapilla et al., "High Performance Convolutional Neural Networks for
Document Processing", 2006). A grouped convolution, one group per trial, is four times slower on
the CPU.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import tensorflow_graph
from trialrun.training.internals.tensorflow_graph import Converter, PForInput, stacked


def convolution_converters() -> dict[str, Converter]:
    """The name of an operation -> its converter, for convolutions and their gradients.

    Where all trials share a kernel, they call the converter that is registered for the operation
    when this is called.
    """
    return {
        **_converters_of("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"),
        **_converters_of("Conv3D", "Conv3DBackpropInputV2", "Conv3DBackpropFilterV2"),
    }


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a kernel moves over its input.

    Attributes:
        strides, dilations: One number per spatial axis.
        padding: `SAME` or `VALID`, with TensorFlow's meaning.
    """

    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str


def convolve(x: tf.Tensor, kernels: tf.Tensor, geometry: Geometry) -> tf.Tensor:
    """The convolution of each trial's inputs with its own kernel.

    Args:
        x: (trials, batch, *spatial, channels).
        kernels: (trials, *kernel, channels per group, filters).
        geometry: Strides, dilations, padding.

    Returns:
        (trials, batch, *outputs, filters).
    """
    num_trials, num_rows, *spatial, channels = x.shape
    _, *kernel, group_channels, num_filters = kernels.shape
    num_groups = channels // group_channels
    if geometry.padding == "SAME":
        x = _pad_same(x, spatial, kernel, geometry)
        spatial = x.shape[2:-1]
    outputs = [
        (length - (size - 1) * dilation - 1) // stride + 1
        for length, size, stride, dilation in zip(
            spatial, kernel, geometry.strides, geometry.dilations, strict=True
        )
    ]
    patches = tf.stack(
        [
            _under(x, offsets, outputs, geometry)
            for offsets in itertools.product(*(range(size) for size in kernel))
        ],
        -2,
    )  # (trials, batch, *outputs, kernel, channels)
    num_positions, num_kernel = num_rows * math.prod(outputs), math.prod(kernel)
    inner = num_kernel * group_channels
    if num_groups == 1:
        left = tf.reshape(patches, [num_trials, num_positions, inner])
        right = tf.reshape(kernels, [num_trials, inner, num_filters])
        return tf.reshape(tf.matmul(left, right), [num_trials, num_rows, *outputs, num_filters])
    by_group = tf.reshape(
        patches, [num_trials, num_positions, num_kernel, num_groups, group_channels]
    )
    left = tf.reshape(
        tf.transpose(by_group, [0, 3, 1, 2, 4]), [num_trials, num_groups, num_positions, inner]
    )
    right = tf.transpose(
        tf.reshape(kernels, [num_trials, inner, num_groups, num_filters // num_groups]),
        [0, 2, 1, 3],
    )
    product = tf.transpose(tf.matmul(left, right), [0, 2, 1, 3])
    return tf.reshape(product, [num_trials, num_rows, *outputs, num_filters])


def _pad_same(
    x: tf.Tensor, spatial: Sequence[int], kernel: Sequence[int], geometry: Geometry
) -> tf.Tensor:
    paddings = [[0, 0], [0, 0]]
    for length, size, stride, dilation in zip(
        spatial, kernel, geometry.strides, geometry.dilations, strict=True
    ):
        num_outputs = -(-length // stride)
        missing = max((num_outputs - 1) * stride + (size - 1) * dilation + 1 - length, 0)
        paddings.append([missing // 2, missing - missing // 2])
    return tf.pad(x, [*paddings, [0, 0]])


def _under(
    x: tf.Tensor, offsets: Sequence[int], outputs: Sequence[int], geometry: Geometry
) -> tf.Tensor:
    """The inputs that lie under one element of the kernel at each of the kernel's positions."""
    positions = tuple(
        slice(offset * dilation, offset * dilation + (number - 1) * stride + 1, stride)
        for offset, number, stride, dilation in zip(
            offsets, outputs, geometry.strides, geometry.dilations, strict=True
        )
    )
    return x[(slice(None), slice(None), *positions)]


def _geometry(pfor: PForInput) -> Geometry:
    padding = pfor.get_attr("padding").decode()
    layout = pfor.get_attr("data_format").decode()
    if layout not in ("NHWC", "NDHWC") or padding not in ("SAME", "VALID"):
        raise CannotFuse(f"{pfor.op_type} with data format {layout} and padding {padding}")
    strides, dilations = pfor.get_attr("strides"), pfor.get_attr("dilations")
    return Geometry(tuple(strides[1:-1]), tuple(dilations[1:-1]), padding)


def _converters_of(op_type: str, input_gradient: str, kernel_gradient: str) -> dict[str, Converter]:
    """Converters of a convolution and of its two gradients.

    A gradient gets the shape of its result as an input.
    """
    with_one_kernel = tensorflow_graph.converter_of(op_type)
    gradient_with_one_kernel = tensorflow_graph.converter_of(input_gradient)

    def convert(pfor: PForInput) -> Any:
        if not pfor.input(1).is_stacked and with_one_kernel is not None:
            return with_one_kernel(pfor)
        pfor.stack_inputs([0, 1])
        return stacked(
            convolve(pfor.stacked_input(0), pfor.stacked_input(1), _geometry(pfor)), True
        )

    def convert_input_gradient(pfor: PForInput) -> Any:
        if not pfor.input(1).is_stacked and gradient_with_one_kernel is not None:
            return gradient_with_one_kernel(pfor)
        pfor.stack_inputs([1, 2])
        kernels, geometry = pfor.stacked_input(1), _geometry(pfor)
        return _gradient(pfor, lambda x: convolve(x, kernels, geometry))

    def convert_kernel_gradient(pfor: PForInput) -> Any:
        pfor.stack_inputs([0, 2])
        x, geometry = pfor.stacked_input(0), _geometry(pfor)
        return _gradient(pfor, lambda kernels: convolve(x, kernels, geometry))

    return {
        op_type: convert,
        input_gradient: convert_input_gradient,
        kernel_gradient: convert_kernel_gradient,
    }


def _gradient(pfor: PForInput, linear: Callable[[tf.Tensor], tf.Tensor]) -> Any:
    """The gradient of a linear function with respect to an input of the output's shape.

    It is the same at any point, so it is taken at zero.
    """
    upstream, shape = pfor.stacked_input(2), pfor.output(0).shape
    if not shape.is_fully_defined():
        raise CannotFuse(f"{pfor.op_type} has a shape that is not known when it is traced")
    point = tf.zeros([upstream.shape[0], *shape], upstream.dtype)
    with tf.GradientTape() as tape:
        tape.watch(point)
        outputs = linear(point)
    return stacked(tape.gradient(outputs, point, upstream), True)
