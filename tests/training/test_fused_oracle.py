"""The fused engine against plain Keras: the same start, batches and data give the same training.

The oracle is written here, not taken from trialrun: `set_random_seed`, the builder, `compile`, and
one `model.fit(..., shuffle=False)` per epoch on rows that were put in order before.
"""

import importlib.util
from typing import NamedTuple

import keras
import numpy as np
import pytest
from oracle import set_to_start
from training_jobs import (
    FEW_ROWS,
    PARTIAL_BATCH,
    load_trials,
    make_task,
    train,
    train_with_fused,
)

from trialrun.data.load import load_splits
from trialrun.models import mlp
from trialrun.training.batch_orders import BatchOrders

pytestmark = pytest.mark.compiled

LEARNING_RATES = (0.003, 0.03)


def test_every_kind_of_layer_is_trained_as_keras_trains_it(tmp_path):
    """On data that all trials share."""
    optimizer = {"name": "sgd", "momentum": 0.9}  # the other cases are trained by Adam
    trials = load_trials(
        tmp_path,
        builder="branches",
        seeds=[3, 11],
        learning_rates=LEARNING_RATES,
        data={"seed": 7},
        training={"optimizer": optimizer},
    )
    fused = train_with_fused(make_task(tmp_path, trials))

    def in_python(rate):
        return keras.optimizers.SGD(rate, momentum=0.9)

    oracle = Oracle(tmp_path, in_python, builder_in(tmp_path, "branches"))
    for index in (0, 3):  # another seed, another learning rate
        assert_same_training(fused[index], oracle.train(trials[index]))


def test_every_trial_of_a_pack_is_trained_as_keras_trains_it(tmp_path):
    """The built-in model, in two slices; 8 epochs are two calls of the compiled program."""
    args = {"units": [12], "num_classes": 3, "dropout": 0.2, "l2": 0.01}
    sections = {
        "builder": "trialrun.models:mlp",
        "model": {"args": args},
        "data": {"seed": "per_trial", "args": PARTIAL_BATCH},
        "training": {"epochs": 8},
    }
    trials = load_trials(tmp_path, seeds=[5], learning_rates=(1e-3, 3e-2), **sections)
    trials += load_trials(tmp_path, seeds=[0], **sections)
    fused = train_with_fused(make_task(tmp_path, trials, num_threads=2))

    def build():
        model = mlp(**args)
        model.build((None, 6))
        return model

    oracle = Oracle(tmp_path, keras.optimizers.Adam, build)
    for trained, trial in zip(fused, trials, strict=True):
        assert_same_training(trained, oracle.train(trial))


def test_a_single_trial_is_trained_as_keras_trains_it(tmp_path):
    """A pack of one: TensorFlow's `vectorized_map` would not convert its random operations.

    Its batches would take more rows than there are.
    """
    trials = load_trials(tmp_path, builder="dropout", seeds=[3], training={"batch_size": 1000})
    result = train(make_task(tmp_path, trials))
    assert result.trials[0].engine == "fused"
    oracle = Oracle(tmp_path, keras.optimizers.Adam, builder_in(tmp_path, "dropout"))
    plain = oracle.train(trials[0])
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


def test_a_bias_under_a_normalization_leaves_the_training_logs_as_keras_has_them(tmp_path):
    """The one case in which weights cannot agree, in any two programs.

    The normalization takes the bias away again. Its true gradient is zero, what is left of it is
    rounding errors, and Adam makes steps of full size of them: such biases wander at random. In
    training they have no effect. In inference they have one, as the moving mean lags behind them:
    validation logs agree only as far as one step of the wandering is small.
    """
    builder = "bias_under_normalization"
    trials = load_trials(tmp_path, builder=builder, seeds=[3, 11], data={"args": FEW_ROWS})
    fused = train_with_fused(make_task(tmp_path, trials))
    oracle = Oracle(tmp_path, keras.optimizers.Adam, builder_in(tmp_path, builder))
    for index in (0, 1):
        plain = oracle.train(trials[index])
        for name in ("loss", "accuracy"):
            assert_close(fused[index].history[name], plain.history[name], name)


# The oracle ------------------------------------------------------------------------------------


class Oracle:
    """Trials, each trained as anyone would write it; one model serves all of them."""

    def __init__(self, folder, optimizer, build):
        self._folder, self._optimizer, self._build, self._model = folder, optimizer, build, None

    def train(self, trial):
        """The trial in plain Keras, from the start of a new model under its seed."""
        training = trial.variant.training
        splits = load_splits(trial.variant.data, self._folder, trial.seed)
        keras.utils.set_random_seed(trial.seed)
        fresh = self._build()
        if self._model is None:
            self._model = fresh
            fresh.compile(
                optimizer=self._optimizer(training.learning_rate),
                loss="sparse_categorical_crossentropy",
                metrics=["accuracy"],
                jit_compile=False,
            )
        else:
            set_to_start(self._model, fresh, training.learning_rate)
        model = self._model
        orders = BatchOrders([trial.seed], len(splits.y_train))
        history = {}
        for _ in range(training.epochs):
            (order,) = orders.next_epoch()
            logs = model.fit(
                splits.x_train[order],
                splits.y_train[order],
                batch_size=training.batch_size,
                shuffle=False,
                validation_data=(splits.x_val, splits.y_val),
                verbose=0,
            ).history
            for name, (value,) in logs.items():
                history.setdefault(name, []).append(value)
        test_logs = model.evaluate(splits.x_test, splits.y_test, return_dict=True, verbose=0)
        predictions = model.predict(splits.x_test, verbose=0)
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        arrays = [[(variable.path, variable.numpy()) for variable in group] for group in groups]
        return Plain(history, test_logs, predictions, *arrays)


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
