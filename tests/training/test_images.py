"""Images are transformed in programs as TensorFlow's own kernel transforms them."""

import numpy as np
import pytest
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.vectorize.images import projective_transform
from trialrun.training.vectorize.vectorize import vectorize

pytestmark = pytest.mark.tensorflow

FILL_MODES = ("CONSTANT", "REFLECT", "WRAP", "NEAREST")
NUM_TRIALS, NUM_IMAGES, HEIGHT, WIDTH = 2, 48, 7, 8


def transforms():
    """(trials, images, 8): turned, by quarters and thirds (halves to be rounded), in perspective.

    Many coordinates lie outside of the image, some of them infinitely far away.
    """
    rng = np.random.default_rng(0)
    num = NUM_TRIALS * NUM_IMAGES // 4
    angles, zeros = rng.uniform(-3, 3, num), np.zeros(num)
    offsets = rng.uniform(-WIDTH, 2 * WIDTH, (2, num))
    turned = [np.cos(angles), -np.sin(angles), offsets[0], np.sin(angles), np.cos(angles)]
    flat = [np.stack([*turned, offsets[1], zeros, zeros], 1)]
    for part in (4, 3):
        flat.append(rng.integers(-9, 10, (num, 8)) / part * [1, 1, 5, 1, 1, 5, 0, 0])
    flat.append(np.concatenate([rng.normal(size=(num, 6)), rng.integers(-2, 3, (num, 2)) / 4], 1))
    shuffled = rng.permutation(np.concatenate(flat).astype("float32"))
    return tf.constant(shuffled.reshape(NUM_TRIALS, NUM_IMAGES, 8))


def transform_all(operation, images, transforms):
    """In all ways: (type of the images, interpolation, fill mode) -> the results.

    Whole numbers are moved in one mode: a mode decides where a pixel comes from, not what it is.
    """
    return {
        (dtype.name, interpolation, mode): operation(
            images=tf.cast(images, dtype),
            transforms=transforms,
            output_shape=[6, 9],
            fill_value=3.0,
            interpolation=interpolation,
            fill_mode=mode,
        )
        for dtype, interpolation, modes in (
            (tf.uint8, "NEAREST", FILL_MODES[:1]),
            (tf.float32, "NEAREST", FILL_MODES),
            (tf.float32, "BILINEAR", FILL_MODES),
        )
        for mode in modes
    }


def test_images_are_transformed_as_by_tensorflows_kernel_in_every_mode():
    """The nearest pixels are the same, although XLA would add to a product without rounding it."""
    shape = (NUM_TRIALS, NUM_IMAGES, HEIGHT, WIDTH, 2)
    images = tf.constant(np.random.default_rng(1).integers(0, 256, shape), tf.float32)
    together = tf.function(
        lambda *stacks: vectorize(
            lambda *own: transform_all(projective_transform, *own), list(stacks)
        ),
        jit_compile=True,
        autograph=False,
    )(images, transforms())
    for trial, own in enumerate(transforms()):
        expected = transform_all(tf.raw_ops.ImageProjectiveTransformV3, images[trial], own)
        for how, pixels in expected.items():
            got = together[how][trial].numpy()
            assert got.dtype == pixels.numpy().dtype
            # TensorFlow computes interpolated pixels from numbers up to 255.
            np.testing.assert_allclose(got, pixels, atol=1e-4 if "BILINEAR" in how else 0)


def test_whole_numbers_are_not_interpolated_because_their_fractions_are_cut_off():
    with pytest.raises(CannotFuse, match="uint8 may differ by 1"):
        projective_transform(
            tf.zeros([1, 2, 2, 1], tf.uint8), tf.zeros([1, 8]), [2, 2], 0.0, "BILINEAR"
        )
