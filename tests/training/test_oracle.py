"""Lines of the oracle's table: models of all kinds, trained as plain Keras trains them."""

import math

import numpy as np
import pytest
import tensorflow as tf
from oracle import compare, largest_difference
from oracle_cases import CASES
from oracle_table import TABLE

from trialrun.training.internals.keras_model import build_symbolically
from trialrun.training.program.verify import can_evaluate_at_once, why_different
from trialrun.training.state import ModelState

pytestmark = pytest.mark.compiled


@pytest.mark.parametrize("name", ["Conv2D", "Embedding_masked_LSTM", "SpectralNormalization"])
def test_a_model_is_trained_as_plain_keras_trains_it(tmp_path, name):
    result = compare(TABLE[name], tmp_path)
    assert (result.engine, result.reason) == (TABLE[name].engine, "")
    assert max(result.weights, result.logs) <= TABLE[name].tolerance


def test_numbers_that_are_not_finite_on_one_side_only_are_as_far_apart_as_can_be():
    numbers = np.array([1.0, np.nan, np.inf])
    assert largest_difference([numbers], [numbers]) == 0
    for other in ([1.0, 2.0, np.inf], [1.0, np.nan, -np.inf], [np.nan, np.nan, np.inf]):
        assert largest_difference([numbers], [np.array(other)]) == math.inf
    assert largest_difference([np.array([100.0])], [np.array([101.0])]) == 1 / 101


def test_a_step_that_is_not_plain_keras_is_found():
    model = CASES["Dense"].build()
    model.optimizer.build(model.trainable_variables)
    state = ModelState(
        *(
            [tf.constant(variable.numpy())[None] for variable in variables]
            for variables in (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
            )
        )
    )
    batch = (tf.ones([1, 8, 6]), tf.zeros([1, 8], tf.int32))
    expected = model.evaluate(batch[0][0], batch[1][0], verbose=0, return_dict=True)["loss"]

    def changes_nothing(loss):
        return lambda state, batch: (state, tf.constant([loss]), None)

    assert "the loss is" in why_different(model, changes_nothing(9.0), state, [batch])
    assert "optimizer's variables" in why_different(
        model, changes_nothing(expected), state, [batch]
    )


@pytest.mark.parametrize(("case", "at_once"), [("Dense", True), ("LSTM_dropout", False)])
def test_cells_that_draw_in_inference_are_evaluated_in_the_batches_of_keras(case, at_once):
    model = CASES[case].build()
    x = tf.random.stateless_normal([19, *model.input_shape[1:]], [1, 2]).numpy()
    y = tf.zeros([19], tf.int32).numpy()
    build_symbolically(model, (x, y))
    assert can_evaluate_at_once(model, (x, y), 8) is at_once
