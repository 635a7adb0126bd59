"""What stands in `training` means in the engines what it means in plain Keras.

The cases are in `oracle_cases_training`; here are the lines that differ in kind.
"""

import keras
import numpy as np
import oracle_cases_metrics
import pytest
from oracle import compare, largest_difference
from oracle_cases_control import CONTROL_CASES
from oracle_cases_metrics import Largest
from oracle_cases_training import TRAINING_CASES
from oracle_table import TABLE, training_line
from training_jobs import load_trials, make_task, train, train_with_fused, train_with_keras

from trialrun.errors import InputError

pytestmark = pytest.mark.tensorflow


def with_two_curves():
    """Muon, gradients of several batches, class weights, weighted metrics, two of the curves.

    And a metric of one's own, with the weights, that is no sum and outlives epochs.
    """
    case, file = unverified(TRAINING_CASES["many_at_once"]), oracle_cases_metrics.__file__
    first, *_, last = case.training["metrics"]

    def compiled():
        keywords = case.compile()
        first, *_, last = keywords["metrics"]
        weighted = ["accuracy", Largest("heavy")]
        return {**keywords, "metrics": [first, last], "weighted_metrics": weighted}

    weighted = ["accuracy", {"name": f"{file}:Largest", "as": "heavy"}]
    training = {**case.training, "metrics": [first, last], "weighted_metrics": weighted}
    return case._replace(training=training, compile=compiled, builder="one_neuron")


def of_whole_batches():
    """Early stopping of a moving average of the weights, with padded outputs."""
    case = unverified(CONTROL_CASES["early_stopping_averaged"])
    return case._replace(generator="sequences_in_whole_batches")


def unverified(case):
    """A case whose program is compared here alone."""
    return case._replace(training={**case.training, "check_engine": False})


@pytest.mark.parametrize("make_case", [with_two_curves, of_whole_batches])
def test_the_fused_engine_trains_as_keras_does(tmp_path, make_case):
    """Cases of the table, made smaller: each part takes long to compile."""
    line = training_line(make_case())
    result = compare(line, tmp_path, compared=[-1], eagerly=True)
    assert (result.engine, result.reason) == ("fused", "")
    assert max(result.weights, result.logs) <= line.tolerance


def test_the_plain_engine_trains_as_keras_does(tmp_path):
    line = TABLE["job_schedule_free"]
    result = compare(line, tmp_path, engine="keras", compared=[-1], eagerly=True)
    assert result.engine == "keras"
    assert max(result.weights, result.logs) <= line.tolerance


def test_a_loss_that_is_not_finite_ends_a_trial_at_its_batch(tmp_path, subtests):
    """One of two; what was trained and logged until then stays."""
    case, plainly = unverified(CONTROL_CASES["terminate_on_nan"]), {}
    line = training_line(case._replace(training={**case.training, "epochs": 2}))
    for engine in ("fused", "keras"):
        with subtests.test(engine=engine):
            given = {"engine": engine, "compared": [0, 1], "plainly": plainly, "eagerly": True}
            result = compare(line, tmp_path, **given)
            assert result.engine == engine
            assert max(result.weights, result.logs) <= line.tolerance


@pytest.mark.parametrize("name", [*TRAINING_CASES, *CONTROL_CASES])
def test_every_case_is_a_right_job(tmp_path, name):
    assert len(TABLE[f"job_{name}"].plan(tmp_path, 2, "auto")) == 2


def test_a_regression_has_errors_for_metrics_and_no_confusion_matrix(tmp_path):
    """Even of whole numbers."""
    training = {"loss": "mse", "engine": "keras"}
    trials = load_trials(tmp_path, builder="regression", seeds=[1], training=training)
    (row,) = train(make_task(tmp_path, trials)).trials
    assert {"val_mae", "val_r2_score", "test_r2_score"} < row.metrics.keys()
    assert row.val_confusion_matrix is None
    assert row.test_confusion_matrix is None


def test_two_outputs_under_a_rate_per_trial_inside_loss_scaling_are_trained_as_keras_does(tmp_path):
    """With losses, weights and metrics for each, and rows that count for more or less."""
    case = unverified(TRAINING_CASES["two_outputs_weighted"])
    case = case._replace(generator="both_weighted_in_two_parts")
    scaling = {"initial_scale": 1024.0, "dynamic_growth_steps": 5}

    def line_of(rate):
        def compiled():
            optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(rate), **scaling)
            return {**case.compile(), "optimizer": optimizer}

        optimizer = {"name": "sgd", "loss_scaling": scaling}
        training = {**case.training, "learning_rate": rate, "optimizer": optimizer}
        return training_line(case._replace(training=training, compile=compiled))

    lines = [line_of(rate) for rate in (0.001, 0.1)]
    trials = [line.plan(tmp_path, 2, "auto")[place] for place, line in enumerate(lines)]
    first, last = train_with_fused(make_task(tmp_path, trials))  # traced from the first
    plain = lines[-1].train_plainly(trials[-1], tmp_path)
    assert largest_difference([*last.trainable, *last.non_trainable], plain.weights) <= 1e-5
    for logs, expected in ((last.history, plain.history), (last.test_logs, plain.test_logs)):
        assert logs.keys() == expected.keys()
        for name, values in expected.items():
            assert logs[name] == pytest.approx(values, abs=1e-5)
    assert abs(first.history["loss"][-1] - last.history["loss"][-1]) > 0.01


def test_a_schedule_in_epochs_needs_epochs_of_one_length(tmp_path):
    schedule = {"name": "cosine_decay", "decay_epochs": 2}
    trials = load_trials(
        tmp_path,
        builder="dense",
        seeds=[1, 9],
        data={"generator": "data.py:growing"},
        training={"learning_rate_schedule": schedule, "engine": "keras"},
    )
    with pytest.raises(InputError, match="the trials' epochs have 6 to 7 batches; count steps"):
        train(make_task(tmp_path, trials))


PER_EXECUTION = """
import keras


def build(steps):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", steps_per_execution=steps)
    return model
"""


def test_batches_per_execution_change_no_number(tmp_path):
    """Six batches an epoch: the second four may not take two of the next epoch's."""
    (tmp_path / "compiled.py").write_text(PER_EXECUTION)
    trained = []
    for steps in (1, 4):
        trials = load_trials(
            tmp_path,
            builder="compiled.py:build",
            seeds=[1],
            model={"args": {"steps": steps}},
            search={"parameters": {}},
        )
        trained += train_with_keras(make_task(tmp_path, trials))
    one, four = trained
    np.testing.assert_array_equal(four.history["loss"], one.history["loss"])
    np.testing.assert_array_equal(four.trainable[0], one.trainable[0])
