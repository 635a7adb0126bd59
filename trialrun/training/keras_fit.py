"""The plain engine: `model.fit` for one trial after another. The oracle, and the last fallback."""

import math
import time
from collections.abc import Generator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trialrun.datasets import Splits
from trialrun.errors import InputError
from trialrun.plan import Trial
from trialrun.training import PackTask
from trialrun.training.randomness import BatchOrders
from trialrun.training.trained import (
    Advance,
    CompiledModel,
    PackData,
    TrainedTrial,
    initial_optimizer,
    make_compiled_model,
)


def train_keras(
    task: PackTask, data: PackData, timings_s: dict[str, float]
) -> Generator[Advance, None, list[TrainedTrial]]:
    """Trains a pack's trials in turn; yields a sign of life after each, returns them all.

    One model serves all trials: its variables are set to each trial's start, so that Keras traces
    its train step once.

    Args:
        task: The pack.
        data: Its data.
        timings_s: Gets seconds of wall time under `build` and `train`.
    """
    trials = task.pack.trials
    start = time.perf_counter()
    compiled = make_compiled_model(
        trials[0].variant, task.job_folder, data.of_trial(0), trials[0].seed
    )
    timings_s["build"] = time.perf_counter() - start
    trained = []
    for index, trial in enumerate(trials):
        trained.append(_train_trial(compiled, trial, data.of_trial(index)))
        newest = {name: values[-1:] for name, values in trained[-1].history.items()}
        yield Advance(trial.variant.training.epochs, newest)
    timings_s["train"] = time.perf_counter() - start - timings_s["build"]
    return trained


def _train_trial(compiled: CompiledModel, trial: Trial, splits: Splits) -> TrainedTrial:
    model, training = compiled.model, trial.variant.training
    _restart(compiled, trial)
    # XLA draws other random numbers for dropout than TensorFlow does; one meaning everywhere.
    model.jit_compile = False
    try:
        history = model.fit(
            _batches_of_all_epochs(trial, splits),
            epochs=training.epochs,
            steps_per_epoch=math.ceil(_num_rows(splits.y_train) / training.batch_size),
            validation_data=(splits.x_val, splits.y_val),
            validation_batch_size=training.batch_size,
            shuffle=False,
            verbose=0,
        ).history
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise InputError(f"Keras cannot train the model on this data: {error}") from error
    test_logs = model.evaluate(
        splits.x_test,
        splits.y_test,
        batch_size=training.batch_size,
        verbose=0,
        return_dict=True,
    )
    return TrainedTrial(
        history={name: np.asarray(values, np.float32) for name, values in history.items()},
        test_logs={name: float(value) for name, value in test_logs.items()},
        val_predictions=model.predict(splits.x_val, verbose=0),
        test_predictions=model.predict(splits.x_test, verbose=0),
        trainable=tuple(variable.numpy() for variable in model.trainable_variables),
        non_trainable=tuple(variable.numpy() for variable in model.non_trainable_variables),
        optimizer=tuple(variable.numpy() for variable in model.optimizer.variables),
    )


def _restart(compiled: CompiledModel, trial: Trial) -> None:
    """Puts the model and its optimizer where the trial begins."""
    keras.utils.set_random_seed(trial.seed)
    arrays = compiled.initial.initial_variables([trial.seed])
    for variable, array in zip(compiled.initial.variables, arrays, strict=True):
        variable.assign(array[0])
    learning_rates = [trial.variant.training.learning_rate]
    slots = initial_optimizer(compiled, learning_rates)
    for variable, array in zip(compiled.model.optimizer.variables, slots, strict=True):
        variable.assign(array[0])


def _batches_of_all_epochs(trial: Trial, splits: Splits) -> tf.data.Dataset:
    """Every batch of the training, epoch after epoch, in the trial's own order."""
    training = trial.variant.training
    orders = BatchOrders([trial.seed], _num_rows(splits.y_train))
    epochs = np.concatenate([orders.next_epoch() for _ in range(training.epochs)])
    rows = keras.tree.map_structure(tf.constant, (splits.x_train, splits.y_train))
    return (
        tf.data.Dataset.from_tensor_slices(epochs)
        .flat_map(
            lambda order: tf.data.Dataset.from_tensor_slices(order).batch(training.batch_size)
        )
        .map(lambda taken: keras.tree.map_structure(lambda array: tf.gather(array, taken), rows))
    )


def _num_rows(y: Any) -> int:
    return len(keras.tree.flatten(y)[0])
