"""The control between epochs decides as Keras's own callbacks do, for any logs and settings."""

import warnings

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trialrun.errors import ModelError
from trialrun.job import TrainingSpec
from trialrun.training.control import Control

pytestmark = pytest.mark.tensorflow

NUM_EPOCHS = 12
_RATE = 0.02
# Few different values, so that ties, plateaus and changes of exactly min_delta are common.
_values = st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.5, 0.7, 1.0, float("nan"), float("inf")])
_steps = st.sampled_from([0.0, 0.05, 0.1, 0.3])
_monitors = st.sampled_from(["val_loss", "val_accuracy", "accuracy", "loss"])
_early_stopping = st.fixed_dictionaries(
    {
        "monitor": _monitors,
        "patience": st.integers(0, 4),
        "min_delta": _steps,
        "baseline": st.none() | _steps,
        "start_from_epoch": st.integers(0, 3),
        "restore_best_weights": st.booleans(),
    }
)
_plateau = st.fixed_dictionaries(
    {
        "monitor": _monitors,
        "factor": st.sampled_from([0.1, 0.3, 0.5]),
        "patience": st.integers(0, 3),
        "min_delta": _steps,
        "cooldown": st.integers(0, 3),
        "min_lr": st.sampled_from([0.0, 0.001, 0.004]),
    }
)
_logs = st.fixed_dictionaries(
    {
        name: st.lists(_values, min_size=NUM_EPOCHS, max_size=NUM_EPOCHS)
        for name in ("loss", "accuracy", "val_loss", "val_accuracy")
    }
)
_trial = st.tuples(_early_stopping, _plateau, _monitors, _logs)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(_trial, min_size=3, max_size=3), st.booleans())
def test_every_trial_is_controlled_as_keras_controls_it(trials, terminate_on_nan):
    """The oracle: real callbacks, called as `fit` calls them, by trials one after another."""
    trainings = [
        TrainingSpec(
            epochs=NUM_EPOCHS,
            early_stopping=stopping,
            reduce_lr_on_plateau=plateau,
            terminate_on_nan=terminate_on_nan,
        )
        for stopping, plateau, _, _ in trials
    ]
    logs = [of_trial for *_, of_trial in trials]
    told = run_control(Control(trainings, np.full(3, _RATE, np.float32)), logs)
    kept = run_control(
        Control([TrainingSpec(epochs=NUM_EPOCHS, keep_best=name) for _, _, name, _ in trials]), logs
    )
    for index, (stopping, plateau, monitor, of_trial) in enumerate(trials):
        assert told[index] == run_callbacks(stopping, plateau, terminate_on_nan, of_trial)
        assert kept[index].best_epoch == best_epoch_of_a_checkpoint(monitor, of_trial)
        assert kept[index].epochs == NUM_EPOCHS


class Told(dict):
    """Epochs trained, the epoch that is given (0: the last), the rate after each epoch."""

    __getattr__ = dict.__getitem__


def run_control(control, logs):
    rates = [[] for _ in logs]
    for epoch in range(NUM_EPOCHS):
        active = control.active.copy()
        columns = {
            name: np.array([of_trial[name][epoch] for of_trial in logs], np.float32)
            for name in logs[0]
        }
        decision = control.update(epoch, columns)
        for index in np.flatnonzero(active):
            if decision.learning_rates is not None:
                rates[index].append(float(decision.learning_rates[index]))
    return [
        Told(epochs=int(epochs), best_epoch=int(best), rates=of_trial)
        for epochs, best, of_trial in zip(control.epochs, control.best_epochs, rates, strict=True)
    ]


def direction(monitor):
    return "max" if "accuracy" in monitor else "min"


class Weights:
    """A model for callbacks: its weights say in which epoch they are."""

    def __init__(self, rate=_RATE):
        self.optimizer = keras.optimizers.SGD(rate)
        self.stop_training = False
        self.weights = self.saved = None

    def get_weights(self):
        return [self.weights]

    def set_weights(self, weights):
        [self.weights] = weights

    def save_weights(self, path, overwrite):
        self.saved = self.weights


def run_callbacks(stopping, plateau, terminate_on_nan, logs):
    model, rates = Weights(), []
    callbacks = [
        keras.callbacks.EarlyStopping(mode=direction(stopping["monitor"]), **stopping),
        keras.callbacks.ReduceLROnPlateau(mode=direction(plateau["monitor"]), **plateau),
    ]
    callbacks += [keras.callbacks.TerminateOnNaN()] if terminate_on_nan else []
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    epochs = 0
    while epochs < NUM_EPOCHS and not model.stop_training:
        of_epoch = {name: float(np.float32(values[epochs])) for name, values in logs.items()}
        model.weights = epochs + 1
        for callback in callbacks:
            callback.on_batch_end(0, {"loss": of_epoch["loss"]})
        with warnings.catch_warnings():
            # Keras reads the rate by `np.array(variable)`, which TensorFlow's only half know.
            warnings.simplefilter("ignore", DeprecationWarning)
            for callback in callbacks:
                callback.on_epoch_end(epochs, of_epoch)
        epochs += 1
        rates.append(float(model.optimizer.learning_rate.numpy()))
    for callback in callbacks:
        callback.on_train_end()
    restored = stopping["restore_best_weights"] and stopping["start_from_epoch"] < epochs
    return Told(epochs=epochs, best_epoch=model.weights if restored else 0, rates=rates)


def best_epoch_of_a_checkpoint(monitor, logs):
    model = Weights()
    callback = keras.callbacks.ModelCheckpoint(
        "never_written.weights.h5",
        monitor=monitor,
        mode=direction(monitor),
        save_best_only=True,
        save_weights_only=True,
    )
    callback.set_model(model)
    for epoch in range(NUM_EPOCHS):
        model.weights = epoch + 1
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {name: values[epoch] for name, values in logs.items()})
    return model.saved


def test_what_was_decided_is_decided_again_from_the_history():
    rng = np.random.default_rng(3)
    trainings = [
        TrainingSpec(
            epochs=NUM_EPOCHS,
            early_stopping={"patience": patience},
            reduce_lr_on_plateau={"patience": 1, "cooldown": 1},
            keep_best="val_loss",
        )
        for patience in (1, 2, 9)
    ]
    rates = np.full(3, _RATE, np.float32)
    control, again = Control(trainings, rates), Control(trainings, rates)
    history = {name: rng.random((3, 8), np.float32) for name in ("loss", "val_loss")}
    control.replay(8, history)
    ended = {
        name: np.where(np.arange(8) < control.epochs[:, None], values, np.nan)
        for name, values in history.items()
    }
    again.replay(8, ended)
    assert control.epochs.tolist() != [8, 8, 8]
    for name in ("active", "epochs", "best_epochs", "learning_rates"):
        np.testing.assert_array_equal(getattr(again, name), getattr(control, name))


def test_a_log_that_nothing_gives_is_named_with_those_that_there_are():
    control = Control([TrainingSpec(early_stopping={"monitor": "val_auc"})])
    with pytest.raises(ModelError, match=r"early_stopping.monitor: 'val_auc' is not logged.* loss"):
        control.update(0, {"loss": np.ones(1, np.float32)})


def test_a_learning_rate_that_follows_a_schedule_cannot_be_reduced():
    with pytest.raises(ModelError, match="a schedule sets the optimizer's learning rate"):
        Control([TrainingSpec(reduce_lr_on_plateau={})])
