"""Operations of TensorFlow over all trials at once give what they give for each."""

import numpy as np
import pytest
import tensorflow as tf

from trialrun.training.vectorize.sorting import sorting_as_outside_xla
from trialrun.training.vectorize.vectorize import vectorize

pytestmark = pytest.mark.tensorflow


def of_each_trial(function, *, is_compiled=False):
    """What all trials at once give, what a trial alone gives, and its name; of three trials."""
    x = tf.constant(np.arange(-8.0, 10.0, dtype="float32").reshape(3, 2, 3))
    together = tf.function(
        lambda t: vectorize(function, [t]), autograph=False, jit_compile=is_compiled
    )(x)
    for trial, own in enumerate(x):
        for name, expected in function(own).items():
            yield together[name][trial], expected, name


def with_gradient(functions, left_out):
    """The values of functions of a trial by name, and the gradient of those not left out."""

    def values_of(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values = {name: function(x) for name, function in functions.items()}
            others = [value for name, value in values.items() if left_out not in name]
            total = tf.add_n([tf.reduce_sum(tf.square(value)) for value in others])
        return {**values, "gradient": tape.gradient(total, x)}

    return values_of


@pytest.mark.parametrize("num_trials", [1, 3])
@pytest.mark.parametrize(("shape", "axes"), [((1, 3), None), ((3, 1, 1), [-1]), ((2, 3), None)])
def test_a_squeeze_keeps_the_trials_apart_even_if_there_is_one(num_trials, shape, axes):
    x = np.arange(num_trials * np.prod(shape), dtype="float32").reshape(num_trials, *shape)
    together = tf.function(
        lambda t: vectorize(lambda own: tf.squeeze(own, axes), [t]), autograph=False
    )
    expected = np.stack([tf.squeeze(own, axes).numpy() for own in x])
    np.testing.assert_array_equal(together(tf.constant(x)).numpy(), expected)


PADDINGS = [[1, 0], [0, 2]]
PADDED = {
    "by a constant": lambda x: tf.pad(x, PADDINGS, constant_values=5.0),
    "by a number of the trial": lambda x: tf.pad(x, PADDINGS, constant_values=x[0, 0]),
    "a constant by such": lambda x: tf.pad(tf.ones([2, 3]), PADDINGS, constant_values=x[0, 0]),
    "with what is not finite": lambda x: tf.pad(x / 0.0, PADDINGS, constant_values=x[1, 1]),
    "by reflection": lambda x: tf.pad(x, PADDINGS, "REFLECT"),
    "symmetrically": lambda x: tf.pad(x, PADDINGS, "SYMMETRIC"),
}


@pytest.mark.parametrize("is_compiled", [False, True])
def test_what_is_padded_has_the_borders_and_gradients_of_one_trial(is_compiled):
    padded = with_gradient(PADDED, left_out="finite")
    for found, expected, name in of_each_trial(padded, is_compiled=is_compiled):
        np.testing.assert_array_equal(found, expected, err_msg=name)


ROLLED = {
    "last axis": lambda x: tf.roll(x, 1, -1),
    "first axis": lambda x: tf.roll(x, 1, 0),
    "two axes": lambda x: tf.roll(x, [1, 2], [0, -1]),
    "one axis twice": lambda x: tf.roll(x, [1, 1], [-1, 1]),
    "by the trial": lambda x: tf.roll(x, tf.cast(x[0, 0], tf.int32), -1),
    "two by the trial": lambda x: tf.roll(x, tf.cast(x[0, :2], tf.int32), [-1, 0]),
    "constant by the trial": lambda x: tf.roll(tf.range(4), tf.cast(x[0, 0], tf.int32), -1),
}


def test_what_is_rolled_stays_within_its_trial():
    rolled = lambda own: {name: roll(own) for name, roll in ROLLED.items()}  # noqa: E731
    for found, expected, name in of_each_trial(rolled):
        np.testing.assert_array_equal(found, expected, err_msg=name)


PLACES = [[[0, 1], [1, 2]], [[0, 1], [0, 1]]]  # two of them the same
PUT = {
    "at constant places": lambda x: tf.scatter_nd(PLACES, [[1.0, 2.0], [x[0, 0], x[1, 1]]], [2, 3]),
    "constants at its places": lambda x: tf.scatter_nd(places_of(x), [1.0, 2.0], [3, 2]),
    "at its places": lambda x: tf.scatter_nd(places_of(x), x[:, 1], tf.shape(tf.transpose(x))),
    "rows": lambda x: tf.scatter_nd(places_of(x)[:, :1], x, [3, 3]),
    "added": lambda x: tf.tensor_scatter_nd_add(x, places_of(x)[:, ::-1], x[:, 0]),
    "taken from a constant": lambda x: tf.tensor_scatter_nd_sub(
        tf.ones([2, 3]), places_of(x)[:, ::-1], x[:, 0]
    ),
    "the greater": lambda x: tf.tensor_scatter_nd_max(x, places_of(x)[:, ::-1], x[:, 0]),
    "the smaller": lambda x: tf.tensor_scatter_nd_min(x, PLACES[0], x[:, 0]),
    "the largest": lambda x: tf.math.top_k(x, 2).values,
    "gathered": lambda x: tf.gather_nd(x, PLACES),
    "of images": lambda x: tf.image.extract_patches(
        tf.reshape(x, [1, 2, 3, 1]), [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "SAME"
    ),
    "normalized": lambda x: tf.nn.local_response_normalization(tf.reshape(x, [1, 1, 2, 3]), 1),
}


def places_of(x):
    """Two places in a trial's (3, 2)."""
    return tf.cast(tf.stack([tf.abs(x[0, :2]) % 3, tf.abs(x[1, :2]) % 2], 1), tf.int32)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_what_is_put_somewhere_stays_within_its_trial(is_compiled):
    put = with_gradient(PUT, left_out="of images")
    for found, expected, name in of_each_trial(put, is_compiled=is_compiled):
        np.testing.assert_allclose(found, expected, 1e-6, err_msg=name)


def test_both_zeros_are_sorted_as_equal_inside_xla_too():
    x = tf.constant([0.0, -0.0, 2.0, -0.0, 0.0, -1.0])

    def order(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            values, indices = tf.math.top_k(x, 4)
            total = tf.reduce_sum(values * tf.range(1.0, 5.0))
        return indices, tf.argsort(x), tape.gradient(total, x)

    with sorting_as_outside_xla():
        compiled = tf.function(order, autograph=False, jit_compile=True)(x)
    for own, expected in zip(compiled, order(x), strict=True):
        np.testing.assert_array_equal(own, expected)
