"""Which metrics see every batch, and how differences in them are found.

`test_training_oracle` and `test_checkpoints` train with some, and the oracle with many more.
"""

from functools import partial
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import losses, metrics
from oracle_cases_metrics import METRIC_CASES, METRIC_JOBS, Recall, build, of_rows
from oracle_table import TABLE
from training_jobs import make_task

from trialrun.errors import CannotFuse
from trialrun.training.compiled.program_cache import ProgramCache
from trialrun.training.internals import keras_model
from trialrun.training.internals.keras_tracing import names_of_a_new_process
from trialrun.training.model.python_state import PythonState
from trialrun.training.pack_data import load_pack_data
from trialrun.training.program.batch_metrics import BatchMetrics, own_metrics
from trialrun.training.program.pure_model import FunctionalModel
from trialrun.training.program.verify import why_different
from trialrun.training.state import ModelState
from trialrun.training.vectorize.other_numbers import refuse_operations

pytestmark = pytest.mark.tensorflow

ROWS = np.linspace(-1, 1, 48, dtype="float32").reshape(8, 6), np.eye(3, dtype="float32")[[0, 1] * 4]


@pytest.mark.parametrize("name", METRIC_JOBS)
def test_every_case_is_a_right_job(tmp_path, name):
    assert len(TABLE[f"job_{name}"].plan(tmp_path, 2, "auto")) == 2


@pytest.mark.parametrize(
    ("metric", "is_own", "sees_batches"),
    [
        ("accuracy", False, False),
        (metrics.AUC(), False, False),
        (keras.metrics.mean_absolute_error, False, False),
        (metrics.MeanMetricWrapper(keras.metrics.mean_absolute_error), False, False),
        (metrics.CosineSimilarity(axis=0), False, True),
        (losses.Huber(), False, True),
        (metrics.MeanSquaredError(dtype="bfloat16"), False, True),
        (losses.dice, False, True),
        (Recall(), True, True),
        (Recall, True, True),
        (of_rows, True, True),
        (partial(keras.metrics.mean_absolute_error), True, True),
        (metrics.MeanMetricWrapper(of_rows), True, True),
    ],
)
def test_only_sums_over_rows_are_updated_once_per_epoch(metric, is_own, sees_batches):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "mse", metrics=[metric])
    assert bool(own_metrics(model)) is is_own
    assert keras_model.all_variables(model)  # Keras makes a metric of a class when it is built
    keras_model.build_symbolically(model, tuple(map(tf.constant, ROWS)))
    assert bool(BatchMetrics(model).metrics) is sees_batches


def test_a_metric_that_shares_a_variable_with_one_of_ones_own_sees_batches_too():
    several = METRIC_CASES["several_results"].build
    model = several()
    shared = keras_model.given_metrics(model)[0].parts[0]
    model.compile("sgd", "mse", metrics=[shared, *keras_model.given_metrics(model)])
    keras_model.build_symbolically(model, tuple(map(tf.constant, ROWS)))
    assert BatchMetrics(model).metrics[0] is shared


def test_metrics_that_only_fit_can_run_are_left_to_it(tmp_path):
    """They are updated by functions which `fit` makes of Python code, or assign in conditionals."""
    task = make_task(tmp_path, TABLE["metric_only_in_fit"].plan(tmp_path, 2, "auto"))
    data, _ = load_pack_data(task.pack.trials, tmp_path)
    with pytest.raises(CannotFuse, match=r"only model.fit can run its metrics: .*accessed from"):
        ProgramCache(1).get(task, data, "fused")


def test_what_a_metric_counts_in_python_is_found():
    model = build("counts_in_python")
    keras_model.build_symbolically(model, tuple(map(tf.constant, ROWS)))
    before = PythonState(model)
    model.reset_metrics()
    assert before.changed(model) == "CountsInPython.resets"


@pytest.mark.parametrize(
    ("function", "left_out", "reason"),
    [
        (lambda x: tf.random.normal([2]) + x[0, 0], False, "own random stream"),
        (lambda x: tf.unique(x[0])[0][0], False, "depends on the values"),
        (lambda x: tf.numpy_function(np.sum, [x], tf.float32), True, "leave out"),
        (lambda x: [tf.print(x), x][1], True, "leave out"),
    ],
)
def test_what_a_program_would_compute_otherwise_is_in_none(function, left_out, reason):
    traced = tf.function(function).get_concrete_function(tf.TensorSpec([2, 3], tf.float32))
    with pytest.raises(CannotFuse, match=reason):
        refuse_operations(traced.graph, left_out=left_out)


# Verification -----------------------------------------------------------------------------------


def build_one():
    with names_of_a_new_process():
        return build("no_sum")


@pytest.fixture(scope="module")
def after_a_step():
    """The model as functions, and what plain Keras makes of its state and metrics."""
    own = FunctionalModel(build_one(), tuple(map(tf.constant, ROWS)))
    plain = build_one()
    variables = own.variables_of(plain)
    for group, others in zip(variables[:3], own.variables[:3], strict=True):
        for variable, other in zip(group, others, strict=True):
            variable.assign(other)
    loss = keras_model.train_on_batch(plain, ROWS)
    after = ModelState(*([v.numpy()[None] for v in group] for group in variables[:3]))
    plain.reset_metrics()
    logs = {name: [float(value)] for name, value in plain.test_step(ROWS).items()}
    return own, loss, after, logs


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("nothing", ""),
        ("loss", "the loss is"),
        ("optimizer", "optimizer's variables differ"),
        ("metric", "the metrics' variables differ: worst_batch/batches"),
        ("logs", "in a test step worst_batch is"),
    ],
)
def test_steps_and_metrics_that_are_not_those_of_plain_keras_are_found(after_a_step, changed, said):
    own, loss, after, logs = after_a_step
    optimizer, state = [array.copy() for array in after.optimizer], own.variables
    if changed in ("optimizer", "metric"):
        optimizer[-1 if changed == "metric" else 2] += 1
    after = after._replace(optimizer=optimizer)
    after = ModelState(*([tf.constant(array) for array in group] for group in after[:3]))
    if changed == "logs":
        logs = {**logs, "worst_batch": [9.0]}
    epochs = SimpleNamespace(
        reset=lambda state: state,
        step=lambda *_: (after, tf.constant([loss + (changed == "loss")]), None),
        first_test_batch=lambda val: val,
        test=lambda *_: (after, logs),
        of_trial=lambda batch, index: batch,
    )
    start = ModelState(*([tf.constant(v.numpy())[None] for v in group] for group in state[:3]))
    batch = tuple(rows[None] for rows in ROWS)
    found = why_different(own, build_one(), epochs, start, [batch], val=ROWS, index=0)
    assert said in found
    assert bool(said) is bool(found)


def test_what_acts_in_inference_only_is_found_where_no_metric_sees_batches():
    def built(scale):
        model = keras.Sequential([keras.Input((6,)), OnlyInInference(scale)])
        model.add(keras.layers.Dense(3, "softmax"))
        model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
        return model

    own = FunctionalModel(built(1.0), tuple(map(tf.constant, ROWS)))
    state = ModelState(*([v.numpy()[None] for v in group] for group in own.variables[:3]))
    state = tf.nest.map_structure(tf.constant, state)
    epochs = SimpleNamespace(first_test_batch=lambda val: val, of_trial=lambda batch, index: batch)
    given = {"val": tuple(map(tf.constant, ROWS)), "index": 0}
    assert not why_different(own, built(1.0), epochs, state, [], **given)
    found = why_different(own, built(2.0), epochs, state, [], **given)
    assert found.startswith("in a test step loss is")


class OnlyInInference(keras.layers.Layer):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def call(self, x, training=False):
        return x if training else x * self.scale
