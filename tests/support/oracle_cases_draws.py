"""Cases of the oracle's table whose own code draws from `tf.random`, as public tutorials do.

Plain Keras draws them from the trial's stream too: see `oracle.stream_of`. `build` and `data` are a
job's builder and generator.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops, optimizers
from oracle_cases_steps import StepCase, rows_of
from tensorflow.keras import backend


def build(case: str) -> keras.Model:
    """The compiled model of a case: a job's builder."""
    return DRAW_CASES[case].build()


def data(seed: int, *, case: str) -> dict[str, Any]:
    """The data of a case: a job's generator."""
    return rows_of(seed, weighted=DRAW_CASES[case].weighted)


class Drawing(layers.Layer):
    """What a function makes of a batch, in training alone or always."""

    def __init__(self, function: Callable[[Any], Any], *, always: bool = False) -> None:
        super().__init__()
        self.function, self.always = function, always

    def call(self, x: Any, training: bool = False) -> Any:
        return self.function(x) if training or self.always else x


def _net(*hidden: layers.Layer, **given: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3, "softmax")])
    given = {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"], **given}
    model.compile(optimizers.Adam(0.01), **given, jit_compile=False)
    return model


def _with_noise(x: Any) -> Any:
    return x * tf.random.uniform((tf.shape(x)[0], 1), 0.5, 2.0)


def _as_tensors_say(x: Any) -> Any:
    x += tf.random.normal(tf.shape(x), seed=3)
    if tf.reduce_sum(x) > 0:  # AutoGraph makes a branch of it
        x *= 2.0
    return x


def _of_all_kinds(x: Any) -> Any:
    num_rows = tf.shape(x)[0]
    x += tf.random.truncated_normal(tf.shape(x), stddev=0.5)
    x += tf.cast(tf.random.uniform((num_rows, 6), 0, 4, tf.int32), x.dtype)
    x += tf.one_hot(tf.random.categorical(x, 2)[:, 1], 6)
    x *= tf.random.gamma((num_rows, 1), [0.4, 2.0, 1.0, 3.0, 1.0, 5.0])[:, 0]
    x += backend.random_normal((num_rows, 6)) + backend.random_normal((num_rows, 6))
    return x + 0.3 * tf.random.shuffle(x)


def _flipped(x: Any) -> Any:
    images = tf.image.random_flip_left_right(tf.reshape(x, (-1, 2, 3, 1)))
    return tf.reshape(tf.image.random_brightness(images, 0.3), tf.shape(x))


def _noisy_loss(y: Any, predictions: Any) -> Any:
    losses = keras.losses.sparse_categorical_crossentropy(y, predictions)
    return losses * tf.random.uniform(tf.shape(losses), 0.8, 1.2)


class NoisyCell(layers.Layer):
    """Draws at each step."""

    state_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(4, "tanh")

    def call(self, x: Any, states: Any, training: bool = False) -> Any:
        new = self.dense(ops.concatenate([x, states[0]], 1))
        if training:
            new += tf.random.normal(tf.shape(new), stddev=0.1)
        return new, [new]


DRAW_CASES: dict[str, StepCase] = {
    name: StepCase(function, "mapped" if name == "in_a_function" else "fused", kind="tf.random")
    for name, function in {
        "dropout": lambda: _net(layers.Dense(8), Drawing(lambda x: tf.nn.dropout(x, 0.3))),
        "noise_in_inference": lambda: _net(Drawing(_with_noise, always=True), layers.Dense(4)),
        "in_a_function": lambda: _net(Drawing(tf.function(_as_tensors_say)), layers.Dense(4)),
        "of_all_kinds": lambda: _net(Drawing(_of_all_kinds), layers.Dense(4)),
        "images": lambda: _net(Drawing(_flipped), layers.Dense(4)),
        "recurrent_cell": lambda: _net(layers.Reshape((3, 2)), layers.RNN(NoisyCell())),
        "loss": lambda: _net(layers.Dense(4), loss=_noisy_loss),
    }.items()
}
