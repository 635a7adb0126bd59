"""Operations of TensorFlow over all trials at once give what they give for each."""

import numpy as np
import pytest
import tensorflow as tf

from trialrun.training.vectorize.vectorize import vectorize


@pytest.mark.parametrize("num_trials", [1, 3])
@pytest.mark.parametrize(("shape", "axes"), [((1, 3), None), ((3, 1, 1), [-1]), ((2, 3), None)])
def test_a_squeeze_keeps_the_trials_apart_even_if_there_is_one(num_trials, shape, axes):
    x = np.arange(num_trials * np.prod(shape), dtype="float32").reshape(num_trials, *shape)
    together = tf.function(
        lambda t: vectorize(lambda own: tf.squeeze(own, axes), [t]), autograph=False
    )
    expected = np.stack([tf.squeeze(own, axes).numpy() for own in x])
    np.testing.assert_array_equal(together(tf.constant(x)).numpy(), expected)
