"""Images moved, turned, zoomed and sheared by arithmetic, as XLA has no operation for it.

Keras's RandomRotation, RandomZoom, RandomTranslation, RandomShear and RandomPerspective all ask for
TensorFlow's `ImageProjectiveTransformV3`. Here that is a gather, with the rules of TensorFlow's
kernel: which coordinates are read, how those outside of an image are mapped into it, and in which
order float32 rounds. So the nearest pixel is the same one, and others agree to rounding.

References:
    tensorflow/core/kernels/image/image_ops.h of TensorFlow 2.21.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals.image_functions import image_functions_replaced
from trialrun.training.vectorize.resizing import resize


@contextlib.contextmanager
def images_by_arithmetic() -> Iterator[None]:
    """Within this context, images are transformed, resized and cropped by what XLA can compile."""
    with image_functions_replaced(projective_transform, resize):
        yield


def projective_transform(
    images: Any,
    transforms: Any,
    output_shape: Any,
    fill_value: Any,
    interpolation: str,
    fill_mode: str = "CONSTANT",
    name: str | None = None,
) -> tf.Tensor:
    """What `tf.raw_ops.ImageProjectiveTransformV3` gives for the same arguments.

    Args:
        images: (batch, height, width, channels), of any type that the operation takes.
        transforms: float32 (batch or 1, 8). The pixel (x, y) of an output is that of the image at
            ((t0 x + t1 y + t2) / k, (t3 x + t4 y + t5) / k) with k = t6 x + t7 y + 1.
        output_shape: Height and width of the outputs, known when this is traced.
        fill_value: What is outside of an image.
        interpolation: `NEAREST` or `BILINEAR`.
        fill_mode: `CONSTANT`, `NEAREST`, `REFLECT` or `WRAP`.
        name: Not used.

    Returns:
        (batch, *output_shape, channels), of the images' type. Like TensorFlow, its gradient is the
        upstream gradient moved back, which is not the derivative of an interpolation.

    Raises:
        CannotFuse: Whole numbers are to be interpolated. TensorFlow cuts their fractions off, so
            that a rounding error may change them by 1.
    """
    images = tf.convert_to_tensor(images)
    if images.dtype.is_integer and interpolation == "BILINEAR":
        raise CannotFuse(f"interpolated pixels of type {images.dtype.name} may differ by 1")
    transforms = tf.convert_to_tensor(transforms, tf.float32)
    fill = tf.cast(tf.convert_to_tensor(fill_value, tf.float32), images.dtype)
    height, width = tf.fill(output_shape, 0).shape  # which TensorFlow infers where it can
    if height is None or width is None:
        raise CannotFuse("the size of a transformed image is not known when it is traced")

    @tf.custom_gradient
    def transform(images: tf.Tensor) -> Any:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            own = images.shape[1:3]
            return projective_transform(
                upstream, _inverse(transforms), own, 0.0, interpolation, fill_mode
            )

        source = _source(transforms, height, width)
        y, x = (
            _INSIDE[fill_mode](coordinates, float(length), source.zero)
            for coordinates, length in zip((source.y, source.x), images.shape[1:3], strict=True)
        )
        read = _nearest if interpolation == "NEAREST" else _bilinear
        pixels = read(images, y, x, fill)
        return tf.where(source.is_infinite[..., None], fill, pixels), gradient

    return transform(images)


class _Source(NamedTuple):
    """Where each pixel of the outputs comes from.

    Attributes:
        y, x: Coordinates in the image, float32 (batch or 1, height, width).
        is_infinite: Whether that is infinitely far away, bool of the same shape.
        zero: Zeros (batch or 1, 1, 1) of which XLA does not know that they are zero.
    """

    y: tf.Tensor
    x: tf.Tensor
    is_infinite: tf.Tensor
    zero: tf.Tensor


def _source(transforms: tf.Tensor, height: int, width: int) -> _Source:
    """Where each pixel comes from, rounded as TensorFlow's kernel rounds.

    That is each product before it is added to another. XLA would do both in one operation, which
    rounds once, and a coordinate next to a half would be rounded to another pixel.
    """
    t = tf.unstack(transforms[:, :, None, None], axis=1)  # 8 of (batch or 1, 1, 1)
    zero = tf.cast(tf.not_equal(t[0], t[0]), tf.int32)

    def rounded(product: tf.Tensor) -> tf.Tensor:
        return tf.bitcast(tf.bitcast(product, tf.int32) + zero, tf.float32)

    def at(along_x: tf.Tensor, along_y: tf.Tensor, offset: Any) -> tf.Tensor:
        return rounded(along_x * x) + rounded(along_y * y) + offset

    x = tf.range(width, dtype=tf.float32)[None, None, :]
    y = tf.range(height, dtype=tf.float32)[None, :, None]
    scale = at(t[6], t[7], 1.0)
    return _Source(
        at(t[3], t[4], t[5]) / scale,
        at(t[0], t[1], t[2]) / scale,
        tf.equal(scale, 0.0),
        tf.cast(zero, tf.float32),
    )


# ------------------------------------------------------------------ coordinates outside of an image


def _unchanged(coordinates: tf.Tensor, length: float, zero: tf.Tensor) -> tf.Tensor:
    return coordinates


def _clamped(coordinates: tf.Tensor, length: float, zero: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(coordinates, 0.0, length - 1)


def _reflected(coordinates: tf.Tensor, length: float, zero: tf.Tensor) -> tf.Tensor:
    """`abcd` is continued as `dcba|abcd|dcba`."""
    if length <= 1:
        return _clamped(coordinates, length, zero)
    period = 2 * length
    num_periods = tf.floor(tf.abs(coordinates) / (period + zero))
    below = period * num_periods + coordinates
    below = tf.where(below < -length, below + period, -below - 1)
    above = coordinates - period * num_periods
    above = tf.where(above >= length, period - above - 1, above)
    return _within(coordinates, length, zero, below, above)


def _wrapped(coordinates: tf.Tensor, length: float, zero: tf.Tensor) -> tf.Tensor:
    """`abcd` is continued as `abcd|abcd|abcd`."""
    if length <= 1:
        return _clamped(coordinates, length, zero)
    # XLA would multiply by the inverse of a constant, which may be below a whole number of times.
    num_times = tf.floor(tf.abs(coordinates) / (length - 1 + zero))
    below = coordinates + length * (num_times + 1)
    above = coordinates - length * num_times
    return _within(coordinates, length, zero, below, above)


def _within(
    coordinates: tf.Tensor, length: float, zero: tf.Tensor, below: tf.Tensor, above: tf.Tensor
) -> tf.Tensor:
    inside = tf.where(coordinates > length - 1, above, coordinates)
    return _clamped(tf.where(coordinates < 0, below, inside), length, zero)


_INSIDE = {
    "CONSTANT": _unchanged,
    "NEAREST": _clamped,
    "REFLECT": _reflected,
    "WRAP": _wrapped,
}

# --------------------------------------------------------------------------------- reading an image


def _nearest(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    return _pixels(images, _rounded_away(y), _rounded_away(x), fill)


def _bilinear(images: tf.Tensor, y: tf.Tensor, x: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    y_floor, x_floor = tf.floor(y), tf.floor(x)
    y_ceil, x_ceil = y_floor + 1, x_floor + 1

    def along_x(row: tf.Tensor) -> tf.Tensor:
        left, right = (_pixels(images, row, column, fill) for column in (x_floor, x_ceil))
        return (
            tf.cast(left, tf.float32) * (x_ceil - x)[..., None]
            + tf.cast(right, tf.float32) * (x - x_floor)[..., None]
        )

    above, below = along_x(y_floor), along_x(y_ceil)
    between = above * (y_ceil - y)[..., None] + below * (y - y_floor)[..., None]
    return tf.cast(between, images.dtype)


def _pixels(images: tf.Tensor, rows: tf.Tensor, columns: tf.Tensor, fill: tf.Tensor) -> tf.Tensor:
    """Pixels (batch, height, width, channels) at whole coordinates, `fill` outside of an image.

    Args:
        images: (batch, *size, channels).
        rows, columns: float32 (batch or 1, height, width), or not finite.
        fill: A scalar of the images' type.
    """
    num_images, height, width, num_channels = images.shape
    is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    y, x = (tf.cast(tf.where(is_inside, c, 0.0), tf.int32) for c in (rows, columns))
    shape = [num_images, *is_inside.shape[1:]]
    flat = tf.reshape(images, [num_images, height * width, num_channels])
    indices = tf.reshape(tf.broadcast_to(y * width + x, shape), [num_images, -1])
    read = tf.gather(flat, indices, axis=1, batch_dims=1)
    return tf.where(is_inside[..., None], tf.reshape(read, [*shape, num_channels]), fill)


def _rounded_away(coordinates: tf.Tensor) -> tf.Tensor:
    """Whole numbers; halves are rounded away from zero, where `tf.round` takes the even one."""
    sizes = tf.abs(coordinates)
    floors = tf.floor(sizes)
    whole = floors + tf.cast(sizes - floors >= 0.5, tf.float32)
    return tf.where(coordinates < 0, -whole, whole)


def _inverse(transforms: tf.Tensor) -> tf.Tensor:
    """The transforms (n, 8) that move pixels back."""
    a, b, c, d, e, f, g, h = tf.unstack(tf.cast(transforms, tf.float64), axis=1)
    entries = [
        *(e - f * h, c * h - b, b * f - c * e),
        *(f * g - d, a - c * g, c * d - a * f),
        *(d * h - e * g, b * g - a * h),
    ]
    return tf.cast(tf.stack(entries, 1) / (a * e - b * d)[:, None], tf.float32)
