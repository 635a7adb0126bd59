"""Recurrent layers as loops over all trials give what Keras's own give for each trial."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from oracle_table import TABLE
from training_jobs import make_task

from trialrun.errors import CannotFuse
from trialrun.training.internals import keras_model
from trialrun.training.internals.keras_tracing import recurrence_by
from trialrun.training.internals.tensorflow_graph import operations_within
from trialrun.training.model.initial import make_compiled_model
from trialrun.training.pack_data import load_pack_data
from trialrun.training.recurrence.rnn import rolled_or_unrolled
from trialrun.training.vectorize.vectorize import vectorize

pytestmark = pytest.mark.tensorflow

NUM_TRIALS = 2


@keras.saving.register_keras_serializable("recurrence")
class Sums(layers.Layer):
    """A cell of one's own, which counts in a state of its own and has a weight used twice."""

    state_size = (3, 1)
    output_size = 3

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3), name="kernel")

    def call(self, x, states):
        total, count = states
        out = keras.ops.tanh(x[:, :3] @ self.kernel + total) * self.kernel[0]
        return out, [total + out, count + 1]


def recurrent_layers():
    drop = {"dropout": 0.3, "recurrent_dropout": 0.3, "seed": 1}
    return [
        layers.LSTM(3, return_sequences=True, return_state=True, **drop),
        layers.GRU(3, reset_after=False, zero_output_for_mask=True, recurrent_dropout=0.2, seed=2),
        layers.SimpleRNN(3, go_backwards=True, return_sequences=True, zero_output_for_mask=True),
        layers.RNN(Sums()),
        layers.RNN([layers.GRUCell(2), layers.LSTMCell(3)], return_sequences=True),
    ]


def outputs_and_gradients(recurrent, weights):
    """A function of a trial's inputs, mask and weights; the last layer is not masked."""

    def of_trial(x, mask, *values):
        scope = keras.StatelessScope(list(zip(weights, values, strict=True)))
        with scope, tf.GradientTape() as tape:
            tape.watch([x, *values])
            outputs = [layer(x, mask=mask, training=True) for layer in recurrent[:-1]]
            outputs = tf.nest.flatten([*outputs, recurrent[-1](x, training=True)])
            loss = tf.add_n([tf.reduce_sum(tf.sin(output + i)) for i, output in enumerate(outputs)])
        return [*outputs, *tape.gradient(loss, [x, *values])]

    return of_trial


def test_all_trials_at_once_give_what_keras_gives_for_each():
    """Values and gradients, with masks and without; what dropout draws too."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(NUM_TRIALS, 2, 4, 5)).astype("float32")
    mask = rng.random((NUM_TRIALS, 2, 4)) < 0.6
    mask[:, :, 0] = False  # states are what they were at first
    recurrent = recurrent_layers()
    for layer in recurrent:
        layer(x[0])
    weights = [weight for layer in recurrent for weight in layer.trainable_variables]
    stacks = [np.stack([weight.numpy(), weight.numpy() + 0.1]) for weight in weights]
    of_trial = outputs_and_gradients(recurrent, weights)
    one_by_one = [
        of_trial(*map(tf.constant, (x[i], mask[i], *(stack[i] for stack in stacks))))
        for i in range(NUM_TRIALS)
    ]
    together = tf.function(lambda *all_: vectorize(of_trial, all_), autograph=False)
    with recurrence_by(rolled_or_unrolled):
        found = together(*map(tf.constant, (x, mask, *stacks)))
    for ours, *theirs in zip(found, *one_by_one, strict=True):
        np.testing.assert_allclose(ours, np.stack(theirs), rtol=1e-5, atol=1e-5)


def traced(of_trial, num_steps):
    """The operations of a function of sequences (batch, time, features), of all trials."""
    specs = tf.TensorSpec([NUM_TRIALS, 2, num_steps, 3], tf.float32)
    function = tf.function(lambda x: vectorize(of_trial, [x]), autograph=False)
    with recurrence_by(rolled_or_unrolled):
        return function.get_concrete_function(specs).graph


class Draws(Sums):
    """A cell with a draw per step, which is part of the state of the model."""

    def build(self, shape):
        super().build(shape)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x, states):
        return super().call(keras.random.dropout(x, 0.5, seed=self.seeds), states)


def test_a_long_sequence_is_a_loop_and_a_cell_that_draws_is_unrolled():
    def outputs_of(cell):
        def of_trial(x):
            values = [(variable, tf.identity(variable.value)) for variable in layer.variables]
            with keras.StatelessScope(values):
                return layer(x)

        layer = layers.RNN(cell)
        layer(np.zeros((2, 4, 3), "float32"))
        return of_trial

    rolled = outputs_of(Sums())
    sizes = [len(traced(rolled, num_steps).get_operations()) for num_steps in (10, 1000)]
    assert sizes[0] == sizes[1]
    assert operations_within(traced(rolled, 1000)) & {"While", "StatelessWhile"}
    unrolled = outputs_of(Draws())
    assert not operations_within(traced(unrolled, 4)) & {"While", "StatelessWhile"}
    with pytest.raises(CannotFuse, match="101 steps are too many"):
        traced(unrolled, 101)


def test_an_unrolled_cell_draws_what_keras_draws_in_its_loop():
    """Before the loop, Keras takes a step whose results it discards."""
    layer, x = layers.RNN(Draws()), np.ones((2, 4, 3), "float32")
    layer(x)
    seeds = layer.cell.seeds.state
    start = seeds.numpy()
    plain, end = layer(x), seeds.numpy()
    seeds.assign(start)
    with recurrence_by(rolled_or_unrolled):
        np.testing.assert_allclose(layer(x), plain, atol=1e-6)
    np.testing.assert_array_equal(seeds.numpy(), end)


def test_the_gradient_of_a_gradient_is_refused():
    layer = layers.GRU(2)
    layer(np.zeros((2, 4, 3), "float32"))

    def of_trial(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            values = [(variable, tf.identity(variable.value)) for variable in layer.variables]
            with keras.StatelessScope(values), tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(layer(x))
            gradient = inner.gradient(loss, x)
        return outer.gradient(gradient, x)

    with pytest.raises(CannotFuse, match="gradient of a recurrent layer's gradient"):
        traced(of_trial, 4)


def test_a_layer_that_a_cell_builds_when_it_is_called_is_trained_too(tmp_path):
    """The optimizer is built for its weights, and it begins as in a build under each seed."""
    task = make_task(tmp_path, TABLE["RNN_with_a_layer_in_its_cell"].plan(tmp_path, 2, "auto"))
    first = task.pack.trials[0]
    splits = load_pack_data(task.pack.trials, tmp_path)[0].of_trial(0)
    built = make_compiled_model(first.variant, tmp_path, splits, first.seed)
    weights = built.model.trainable_variables
    assert [variable.path for variable in weights if "normalization/gamma" in variable.path]
    assert keras_model.built_for(built.model.optimizer) == weights
    assert len(built.initial.initial_variables([first.seed])) == len(built.model.variables)
