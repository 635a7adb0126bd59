"""Images resized by matrix products, where XLA has no operation for the interpolation.

Each interpolation of TensorFlow is linear, and along one axis after the other. So an axis is
resized by a matrix, and the matrix is what TensorFlow gives for images of a single bright pixel.
"""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

_resize_by_tensorflow = tf.image.resize
_COMPILED = ("bilinear", "nearest")  # without antialiasing


def resize(
    images: Any,
    size: Sequence[int],
    method: str = "bilinear",
    preserve_aspect_ratio: bool = False,
    antialias: bool = False,
    name: str | None = None,
) -> tf.Tensor:
    """What `tf.image.resize` gives for the same arguments.

    Args:
        images: ([batch,] height, width, channels).
        size: Height and width of the results.
        method: An interpolation.
        preserve_aspect_ratio: Whether the results are only as large as the aspect ratio permits.
        antialias: Whether a smaller image is smoothed; `nearest` never is.
        name: Of the operation.

    Returns:
        ([batch,] *size, channels), float32; the images' type for `nearest`.
    """
    images = tf.convert_to_tensor(images)
    length_in, new = images.shape[-3:-1], tf.get_static_value(tf.convert_to_tensor(size))
    is_compiled = method in _COMPILED and (method == "nearest" or not antialias)
    if is_compiled or preserve_aspect_ratio or new is None:
        return _resize_by_tensorflow(images, size, method, preserve_aspect_ratio, antialias, name)
    rows, columns = (
        _weights(int(length), int(new_length), method, antialias)
        for length, new_length in zip(length_in, new, strict=True)
    )
    if method == "bicubic" and not antialias and images.dtype not in (tf.float32, tf.float64):
        images = tf.stop_gradient(images)  # TensorFlow gives none for these types
    wide = tf.einsum("...hwc,wx->...hxc", tf.cast(images, tf.float32), columns)
    return tf.einsum("...hxc,hy->...yxc", wide, rows)


def _weights(length: int, new_length: int, method: str, antialias: bool) -> tf.Tensor:
    """How much of each pixel is in each new one along an axis, float32 (length, new length)."""
    with tf.init_scope():  # the numbers themselves, by TensorFlow's own kernel
        bright = tf.eye(length)[:, :, None, None]
        resized = _resize_by_tensorflow(bright, (new_length, 1), method, antialias=antialias)
        weights = resized[:, :, 0, 0].numpy()
    return tf.constant(weights)
