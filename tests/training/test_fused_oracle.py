"""The fused engine against plain Keras: the same start, batches and data give the same training.

The oracle is written here, not taken from trialrun: `set_random_seed`, the builder, `compile`, and
one `model.fit(..., shuffle=False)` on batches that were put in order before. Packs of several
slices are compared in `test_checkpoints` and `test_early_stopping`.
"""

import importlib.util
import warnings
from typing import NamedTuple

import keras
import numpy as np
import pytest
from oracle import set_to_start
from scipy.special import expit
from sklearn import metrics
from sklearn.metrics import confusion_matrix
from training_jobs import (
    FEW_ROWS,
    load_trials,
    make_task,
    train,
    train_with_fused,
)

from trialrun.data.load import load_splits
from trialrun.training.batch_orders import BatchOrders

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A pack of one: its folder, its trial, and its result.

    TensorFlow's `vectorized_map` would not convert its random operations. Its batches would take
    more rows than there are.
    """
    folder = tmp_path_factory.mktemp("alone")
    (trial,) = load_trials(
        folder,
        builder="logit",
        seeds=[3],
        data={"args": {**FEW_ROWS, "num_test": 23, "num_classes": 2}},
        training={
            "engine": "fused",
            "batch_size": 1000,
            "loss": {"name": "binary_crossentropy", "from_logits": True},
            "metrics": ["accuracy"],
        },
    )
    return folder, trial, train(make_task(folder, [trial]))


def test_a_single_trial_is_trained_as_keras_trains_it(alone):
    folder, trial, result = alone
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    given = {"metrics": [keras.metrics.BinaryAccuracy("accuracy", threshold=0)], "eagerly": True}
    oracle = Oracle(folder, builder_in(folder, "logit"), loss=loss, **given)
    plain = oracle.train(trial)
    assert_same_logs(result.trials[0].history, plain.history)
    state = result.best_states["v00"]
    assert_close(state.test_predictions, plain.test_predictions)
    for array, (path, value) in zip(state.trainable, plain.trainable, strict=True):
        assert_close(array, value, path)
    expected = {f"test_{name}": value for name, value in plain.test_logs.items()}
    for name in ("loss", "accuracy"):
        expected |= {f"train_{name}": plain.history[name][-1]}
        expected |= {f"val_{name}": plain.history[f"val_{name}"][-1]}
    found = {name: result.trials[0].metrics[name] for name in expected}
    assert_same_logs(found, expected)


def test_a_logit_is_judged_as_the_probability_that_it_stands_for(alone):
    """After whatever engine; this one gives outputs with an axis of trials."""
    folder, trial, result = alone
    (row,) = result.trials
    labels = load_splits(trial.variant.data, folder, trial.seed).y_test
    probabilities = expit(result.best_states["v00"].test_predictions[:, 0])
    expected = confusion_matrix(labels, probabilities > 0.5)
    np.testing.assert_array_equal(row.test_confusion_matrix, expected)
    assert row.metrics["test_accuracy"] == pytest.approx(np.trace(expected) / 23)
    roc_auc = metrics.roc_auc_score(labels, probabilities)
    assert row.metrics["test_roc_auc"] == pytest.approx(roc_auc)
    brier = metrics.brier_score_loss(labels, probabilities)
    assert row.metrics["test_brier_score"] == pytest.approx(brier)
    said = "classifier of 2 classes (loss binary_crossentropy, from_logits)"
    assert result.model_task == said


def test_a_bias_under_a_normalization_leaves_the_training_logs_as_keras_has_them(tmp_path):
    """The one case in which weights cannot agree, in any two programs.

    The normalization takes the bias away again. Its true gradient is zero, what is left of it is
    rounding errors, and Adam makes steps of full size of them: such biases wander at random. In
    training they have no effect. In inference they have one, as the moving mean lags behind them:
    validation logs agree only as far as one step of the wandering is small. The verification of the
    program knows that.
    """
    builder = "bias_under_normalization"
    trials = load_trials(
        tmp_path,
        builder=builder,
        seeds=[3, 11],
        data={"args": FEW_ROWS},
        training={"check_engine": True},
    )
    fused = train_with_fused(make_task(tmp_path, trials))
    oracle = Oracle(tmp_path, builder_in(tmp_path, builder), eagerly=True)
    plain = oracle.train(trials[1])  # the program is traced from the other
    for name in ("loss", "accuracy"):
        assert_close(fused[1].history[name], plain.history[name], name)


# The oracle ------------------------------------------------------------------------------------


class Oracle:
    """Trials in one `model.fit` each, as anyone would write it; one model serves all of them.

    Each begins as a new model does under its seed. For a few batches, it takes less
    time to trace nothing (`eagerly`).
    """

    def __init__(
        self,
        folder,
        build,
        *,
        loss="sparse_categorical_crossentropy",
        metrics=("accuracy",),
        eagerly=False,
    ):
        self._folder, self._build, self._model = folder, build, None
        self._compiled = {"loss": loss, "metrics": list(metrics), "run_eagerly": eagerly}

    def train(self, trial, *callbacks):
        """The trial in plain Keras."""
        training = trial.variant.training
        splits = load_splits(trial.variant.data, self._folder, trial.seed)
        model = self._model_of(trial)
        num_rows = len(splits.y_train)
        orders = BatchOrders([trial.seed], num_rows)

        def batches():
            for _ in range(training.epochs):
                (order,) = orders.next_epoch()
                for start in range(0, num_rows, training.batch_size):
                    taken = order[start : start + training.batch_size]
                    yield splits.x_train[taken], splits.y_train[taken]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Keras's way to read the rate
            history = model.fit(
                batches(),
                steps_per_epoch=-(-num_rows // training.batch_size),
                epochs=training.epochs,
                shuffle=False,
                validation_data=(splits.x_val, splits.y_val),
                callbacks=list(callbacks),
                verbose=0,
            ).history
        test_logs = model.evaluate(splits.x_test, splits.y_test, return_dict=True, verbose=0)
        predictions = model(splits.x_test, training=False).numpy()
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        arrays = [[(variable.path, variable.numpy()) for variable in group] for group in groups]
        return Plain(history, test_logs, predictions, *arrays)

    def _model_of(self, trial):
        keras.utils.set_random_seed(trial.seed)
        fresh, rate = self._build(), trial.variant.training.learning_rate
        if self._model is not None:
            set_to_start(self._model, fresh, rate)
            return self._model
        fresh.compile(keras.optimizers.Adam(rate), **self._compiled, jit_compile=False)
        self._model = fresh
        return fresh


class Plain(NamedTuple):
    """What plain Keras made of a trial; variables with their paths."""

    history: dict
    test_logs: dict
    test_predictions: np.ndarray
    trainable: list
    non_trainable: list
    optimizer: list


def builder_in(folder, name):
    """A builder of the job's own file, imported the ordinary way."""
    spec = importlib.util.spec_from_file_location("nets_of_the_oracle", folder / "nets.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


def assert_same_training(trained, plain):
    assert_same_logs(trained.history, plain.history)
    assert_same_logs(trained.test_logs, plain.test_logs)
    assert_close(trained.test_predictions, plain.test_predictions)
    for group in ("trainable", "non_trainable", "optimizer"):
        pairs = zip(getattr(trained, group), getattr(plain, group), strict=True)
        for array, (path, expected) in pairs:
            assert_close(array, expected, path)


def assert_same_logs(logs, expected):
    assert logs.keys() == expected.keys()
    for name in expected:
        assert_close(logs[name], expected[name], name)


def assert_close(actual, expected, what=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5, err_msg=what)
