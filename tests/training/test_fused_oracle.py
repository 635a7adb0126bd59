"""The fused engine against plain Keras: the same start, batches and data give the same training.

The oracle is written here, not taken from trialrun: `set_random_seed`, the builder, `compile`, and
one `model.fit(..., shuffle=False)` per epoch on rows that were put in order before.
"""

import importlib.util

import keras
import numpy as np
import pytest
from training_jobs import load_trials, make_task, train, train_with_fused

from trialrun.data.load import load_splits
from trialrun.models import mlp
from trialrun.training.batch_orders import BatchOrders

pytestmark = pytest.mark.compiled

LEARNING_RATES = (0.003, 0.03)


def test_every_kind_of_layer_is_trained_as_keras_trains_it(tmp_path):
    optimizer = {"name": "sgd", "momentum": 0.9}  # the other cases are trained by Adam
    trials = load_trials(
        tmp_path,
        builder="branches",
        seeds=[3, 11],
        learning_rates=LEARNING_RATES,
        training={"optimizer": optimizer},
    )
    fused = train_with_fused(make_task(tmp_path, trials))

    def in_python(rate):
        return keras.optimizers.SGD(rate, momentum=0.9)

    for index in (0, 3):  # another seed, another learning rate
        plain = Plain(tmp_path, trials[index], in_python, builder_in(tmp_path, "branches"))
        assert_same_training(fused[index], plain)


def test_every_trial_of_a_pack_is_trained_as_keras_trains_it(tmp_path):
    """In two slices; 8 epochs are two calls of the compiled program."""
    sections = {"data": {"seed": "per_trial"}, "training": {"epochs": 8}}
    trials = load_trials(
        tmp_path, builder="everything", seeds=[5], learning_rates=(1e-3, 3e-2), **sections
    )
    trials += load_trials(tmp_path, builder="everything", seeds=[0], **sections)
    fused = train_with_fused(make_task(tmp_path, trials, num_threads=2))
    for trained, trial in zip(fused, trials, strict=True):
        plain = Plain(tmp_path, trial, keras.optimizers.Adam, builder_in(tmp_path, "everything"))
        assert_same_training(trained, plain)


def test_a_single_trial_is_trained_as_keras_trains_it(tmp_path):
    """A pack of one: TensorFlow's `vectorized_map` would not convert its random operations."""
    trials = load_trials(tmp_path, builder="dropout", seeds=[3])
    result = train(make_task(tmp_path, trials))
    plain = Plain(tmp_path, trials[0], keras.optimizers.Adam, builder_in(tmp_path, "dropout"))
    assert_same_logs(result.trials[0].history, plain.history)
    state = result.best_states["v00"]
    assert_close(state.test_predictions, plain.test_predictions)
    for array, variable in zip(state.trainable, plain.model.trainable_variables, strict=True):
        assert_close(array, variable.numpy(), variable.path)
    expected = {f"test_{name}": value for name, value in plain.test_logs.items()}
    for name in ("loss", "accuracy"):
        expected |= {f"train_{name}": plain.history[name][-1]}
        expected |= {f"val_{name}": plain.history[f"val_{name}"][-1]}
    found = {name: result.trials[0].metrics[name] for name in expected}
    assert_same_logs(found, expected)


def test_the_built_in_model_is_trained_as_keras_trains_it(tmp_path):
    args = {"units": [12, 8], "num_classes": 3, "dropout": 0.2, "l2": 0.01}
    trials = load_trials(
        tmp_path,
        builder="trialrun.models:mlp",
        seeds=[3, 11],
        learning_rates=LEARNING_RATES,
        model={"args": args},
        data={"seed": 7},  # shared by all trials
    )
    fused = train_with_fused(make_task(tmp_path, trials))

    def build():
        model = mlp(**args)
        model.build((None, 6))
        return model

    for index in (0, 3):
        plain = Plain(tmp_path, trials[index], keras.optimizers.Adam, build)
        assert_same_training(fused[index], plain)


def test_a_bias_under_a_normalization_leaves_the_training_logs_as_keras_has_them(tmp_path):
    """The one case in which weights cannot agree, in any two programs.

    The normalization takes the bias away again. Its true gradient is zero, what is left of it is
    rounding errors, and Adam makes steps of full size of them: such biases wander at random. In
    training they have no effect. In inference they have one, as the moving mean lags behind them:
    validation logs agree only as far as one step of the wandering is small.
    """
    builder = "bias_under_normalization"
    trials = load_trials(tmp_path, builder=builder, seeds=[3, 11], learning_rates=LEARNING_RATES)
    fused = train_with_fused(make_task(tmp_path, trials))
    for index in (0, 3):
        plain = Plain(tmp_path, trials[index], keras.optimizers.Adam, builder_in(tmp_path, builder))
        for name in ("loss", "accuracy"):
            assert_close(fused[index].history[name], plain.history[name], name)


# The oracle ------------------------------------------------------------------------------------


class Plain:
    """One trial, trained as anyone would write it."""

    def __init__(self, folder, trial, optimizer, build):
        training = trial.variant.training
        splits = load_splits(trial.variant.data, folder, trial.seed)
        keras.utils.set_random_seed(trial.seed)
        model = build()
        model.compile(
            optimizer=optimizer(training.learning_rate),
            loss="sparse_categorical_crossentropy",
            metrics=["accuracy"],
            jit_compile=False,
        )
        orders = BatchOrders([trial.seed], len(splits.y_train))
        self.history = {}
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
                self.history.setdefault(name, []).append(value)
        test = (splits.x_test, splits.y_test)
        self.test_logs = model.evaluate(*test, return_dict=True, verbose=0)
        self.test_predictions = model.predict(splits.x_test, verbose=0)
        self.model = model


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
    for kind in ("trainable", "non_trainable"):
        variables = getattr(plain.model, f"{kind}_variables")
        for array, variable in zip(getattr(trained, kind), variables, strict=True):
            assert_close(array, variable.numpy(), variable.path)
    for array, variable in zip(trained.optimizer, plain.model.optimizer.variables, strict=True):
        assert_close(array, variable.numpy(), variable.path)


def assert_same_logs(logs, expected):
    assert logs.keys() == expected.keys()
    for name in expected:
        assert_close(logs[name], expected[name], name)


def assert_close(actual, expected, what=""):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5, err_msg=what)
