"""Numbers of the data for which a model has no embedding are found before it is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from trialrun.errors import InputError
from trialrun.training.model.gathers import find_gathers, may_gather

pytestmark = pytest.mark.tensorflow

WORDS = np.tile(np.arange(20, dtype="int32"), (3, 1)).T  # (20, 3)


class Words(layers.Layer):
    """By a weight of its own: counted from 1, and with no places from the end."""

    def build(self, shape):
        self.table = self.add_weight(shape=(21, 2), name="table")
        self.places = layers.Embedding(3, 2)

    def call(self, x):
        places = self.places(ops.arange(x.shape[1]))
        return tf.gather(self.table, tf.cast(x, "int64") + 1) + places


class Drawn(layers.Layer):
    """By numbers that depend on more than the inputs."""

    def __init__(self):
        super().__init__()
        self.embedding, self.seeds = layers.Embedding(20, 2), keras.random.SeedGenerator(1)
        self.memory = self.add_weight(shape=(7, 2), name="memory")
        self.places = self.add_weight(shape=(7, 2), name="places")

    def call(self, x):
        replaced = keras.random.uniform(ops.shape(x), seed=self.seeds) > 0.5
        of_the_batch = ops.take(self.memory, ops.arange(ops.shape(x)[0]), axis=0)
        by_order = ops.take(self.places, ops.argsort(x[:, 0]), axis=0)
        return self.embedding(ops.where(replaced, 0, x)) + (of_the_batch + by_order)[:, None]


def sequential(*stack):
    return keras.Sequential([keras.Input((3,), dtype="int32"), *stack, layers.Flatten()])


def table():
    """Its second column is a category."""
    x = keras.Input((3,))
    words = layers.Embedding(20, 2, name="category")(x[:, 1:2])
    return keras.Model(x, layers.Concatenate()([x, layers.Flatten()(words)]))


def two_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", dtype="int32")
    words = layers.Bidirectional(layers.GRU(2))(layers.Embedding(20, 2, mask_zero=True)(b))
    return keras.Model({"a": a, "b": b}, layers.Concatenate()([a, words]))


def changed(row, column, number):
    words = WORDS.copy()
    words[row, column] = number
    return words


CASES = [
    (sequential(layers.Embedding(20, 2)), lambda words: words, 20, "row 13: .* 'embedding.* 20, "),
    (sequential(layers.Embedding(20, 2)), lambda words: words, -21, "number -21, .* 0 to 19;"),
    (sequential(Words()), lambda words: words, 20, "'words' .* number 21"),
    (sequential(Words()), lambda words: words, -2, "number -1, .* 0 to 20;"),
    (table(), lambda words: words.astype("float32"), 22, "'category' .* number 22"),
    (two_inputs(), lambda words: {"a": words * 0.1, "b": words}, 20, "number 20"),
]


@pytest.mark.parametrize(("model", "inputs", "number", "said"), CASES)
def test_a_number_without_a_row_is_found_wherever_it_is(model, inputs, number, said):
    assert may_gather(model, inputs(WORDS))
    gathers = find_gathers(model, inputs(WORDS))
    gathers.check({"train": inputs(WORDS), "val": inputs(changed(3, 1, 0))})
    with pytest.raises(InputError, match=said):
        gathers.check({"train": inputs(WORDS), "val": inputs(changed(13, 1, number))})


def test_what_cannot_be_told_from_the_inputs_is_not_judged():
    """Two tables have a row for each row of a batch, and the data has more of them."""
    gathers = find_gathers(sequential(Drawn()), WORDS)
    gathers.check({"train": changed(13, 1, 20)})
    assert not may_gather(keras.Sequential([keras.Input((3,)), layers.Dense(2)]), WORDS)
