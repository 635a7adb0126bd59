"""The functions of TensorFlow and Keras that layers of images call, replaced in programs."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.tensorflow import image as keras_images

_resize_by_keras = keras_images.resize
_crop_by_keras = keras.layers.RandomCrop.transform_images


@contextlib.contextmanager
def image_functions_replaced(
    transform: Callable[..., Any], resize: Callable[..., Any]
) -> Iterator[None]:
    """Within this context, Keras's layers of images ask for nothing that XLA cannot compile.

    Args:
        transform: Takes the place of `tf.raw_ops.ImageProjectiveTransformV3`.
        resize: Takes the place of `tf.image.resize`.
    """
    with contextlib.ExitStack() as stack:
        for owner, name, function in (
            (tf.raw_ops, "ImageProjectiveTransformV3", transform),
            (tf.image, "resize", resize),
            (keras_images, "resize", _resize_padded),
            (keras.layers.RandomCrop, "transform_images", _crop),
        ):
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


def _crop(layer: Any, images: Any, transformation: Any, training: bool = True) -> Any:
    """As RandomCrop, which cuts out a slice whose end is a tensor: XLA cannot know its size."""
    if not training or not any(map(tf.is_tensor, transformation)):
        return _crop_by_keras(layer, images, transformation, training)
    images = tf.cast(images, layer.compute_dtype)
    axes = (len(images.shape) + axis for axis in (layer.height_axis, layer.width_axis))
    sizes = (layer.height, layer.width)
    for axis, start, length in zip(axes, transformation, sizes, strict=True):
        images = tf.gather(images, start + tf.range(length), axis=axis)
    return images


def _resize_padded(images: Any, size: Sequence[int], **how: Any) -> Any:
    """As Keras's `resize`, which pads to an aspect ratio in a conditional of unequal branches."""
    if how.get("pad_to_aspect_ratio") and not how.get("crop_to_aspect_ratio"):
        fill = tf.cast(how.get("fill_value", 0.0), images.dtype)
        paddings = _paddings(images.shape, size, how.get("data_format"))
        images = tf.pad(images, paddings, constant_values=fill)
        how["pad_to_aspect_ratio"] = False
    return _resize_by_keras(images, size, **how)


def _paddings(shape: Any, size: Sequence[int], data_format: str | None) -> list[list[int]]:
    """How many pixels are added at each end of each axis, rounded as Keras rounds."""
    layout = data_format or keras.config.image_data_format()
    axes = [axis + len(shape) for axis in ((-3, -2) if layout == "channels_last" else (-2, -1))]
    paddings = [[0, 0] for _ in shape]
    for (axis, own), (other, others) in (
        zip(axes, size, strict=True),
        zip(axes[::-1], tuple(size)[::-1], strict=True),
    ):
        wanted = int(np.float32(shape[other] * own) / np.float32(others))
        paddings[axis] = [int(max(wanted - shape[axis], 0) / 2)] * 2
    return paddings
