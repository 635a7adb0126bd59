"""The plain engine: `model.fit` for one trial after another. The oracle, and the last fallback."""

import math
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.datasets import Splits
from trialrun.errors import InputError
from trialrun.plan import Trial
from trialrun.results import STATE_GROUPS, Checkpoint
from trialrun.training import PackTask
from trialrun.training.checkpoints import CheckpointMaker, TrialsState
from trialrun.training.functional import ModelState
from trialrun.training.randomness import BatchOrders
from trialrun.training.reports import Reports
from trialrun.training.trained import (
    Advance,
    CompiledModel,
    PackData,
    TrainedTrial,
    initial_optimizer,
    make_compiled_model,
)


def train_keras(
    task: PackTask, data: PackData, timings_s: dict[str, float], reports: Reports
) -> Generator[Advance | Checkpoint, None, list[TrainedTrial] | None]:
    """Trains a pack's trials in turn; yields a sign of life after each epoch, and checkpoints.

    One model serves all trials: its variables are set to each trial's start, so that Keras traces
    its train step once. `fit` runs in a thread, so that it is not cut into pieces to be heard.

    Args:
        task: The pack, and perhaps where it stands.
        data: Its data.
        timings_s: Gets seconds of wall time under `build` and `train`.
        reports: From the thread; may ask it to stop.

    Returns:
        The trained trials; None if training was stopped, after a last checkpoint.
    """
    maker = CheckpointMaker(task)
    with ThreadPoolExecutor(1, thread_name_prefix="fit") as pool:
        future = pool.submit(_train_trials, task, data, timings_s, reports)
        for report in reports.drain([future]):
            if isinstance(report, Advance):
                yield report
                continue
            maker.put(report)
            if task.pack.trials[0].variant.training.checkpoint_every:
                yield from filter(None, [maker.make()])
    trained = future.result()
    if trained is None:
        yield from filter(None, [maker.make()])
    return trained


def _train_trials(
    task: PackTask, data: PackData, timings_s: dict[str, float], reports: Reports
) -> list[TrainedTrial] | None:
    trials = task.pack.trials
    start = time.perf_counter()
    compiled = make_compiled_model(
        trials[0].variant, task.job_folder, data.of_trial(0), trials[0].seed
    )
    timings_s["build"] = time.perf_counter() - start
    trained = []
    for index, trial in enumerate(trials):
        run = _TrialRun(compiled, trial, index, reports)
        if task.checkpoint is not None and task.checkpoint.epochs[index]:
            run.go_on_from(task.checkpoint)
        outcome = run.train(data.of_trial(index))
        if outcome is None:
            return None
        trained.append(outcome)
    timings_s["train"] = time.perf_counter() - start - timings_s["build"]
    return trained


class _TrialRun(keras.callbacks.Callback):
    """One trial in `fit`: says where it stands after each epoch, and ends it when asked to."""

    def __init__(self, compiled: CompiledModel, trial: Trial, index: int, reports: Reports) -> None:
        super().__init__()
        self._compiled, self._trial, self._index, self._reports = compiled, trial, index, reports
        self._epoch = 0
        self._history: dict[str, list[float]] = {}
        model = compiled.model
        self._variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        keras.utils.set_random_seed(trial.seed)
        start = compiled.initial.initial_variables([trial.seed])
        start += initial_optimizer(compiled, [trial.variant.training.learning_rate])
        self._assign([array[0] for array in start])

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Puts the model where the trial stood."""
        self._epoch = int(checkpoint.epochs[self._index])
        self._history = {
            name: values[self._index, : self._epoch].tolist()
            for name, values in checkpoint.history.items()
        }
        arrays = [array for name in STATE_GROUPS for array in getattr(checkpoint, name)]
        self._assign([array[self._index] for array in arrays])

    def _assign(self, arrays: Sequence[Any]) -> None:
        variables = [variable for group in self._variables for variable in group]
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def train(self, splits: Splits) -> TrainedTrial | None:
        """The trained trial; None if it was stopped before its end."""
        training = self._trial.variant.training
        if self._epoch < training.epochs and not self._reports.stopping:
            self._fit(splits)
        if self._epoch < training.epochs:
            return None
        self._report_state()
        return self._evaluate(splits)

    def _fit(self, splits: Splits) -> None:
        model, training = self._compiled.model, self._trial.variant.training
        # XLA draws other random numbers for dropout than TensorFlow does; one meaning everywhere.
        model.jit_compile = False
        try:
            model.fit(
                _batches(self._trial, splits, first_epoch=self._epoch),
                initial_epoch=self._epoch,
                epochs=training.epochs,
                steps_per_epoch=math.ceil(_num_rows(splits.y_train) / training.batch_size),
                validation_data=(splits.x_val, splits.y_val),
                validation_batch_size=training.batch_size,
                shuffle=False,
                verbose=0,
                callbacks=[self],
            )
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise InputError(f"Keras cannot train the model on this data: {error}") from error

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras."""
        logs = logs or {}
        self._epoch = epoch + 1
        for name, value in logs.items():
            self._history.setdefault(name, []).append(value)
        newest = {name: np.asarray([value], np.float32) for name, value in logs.items()}
        self._reports.put(Advance(1, newest))
        training = self._trial.variant.training
        if self._epoch == training.epochs:
            return  # `fit` may still change the weights, as a moving average of them does
        is_due = training.checkpoint_every and self._epoch % training.checkpoint_every == 0
        if is_due or self._reports.stopping:
            self._report_state()
        if self._reports.stopping:
            self._compiled.model.stop_training = True

    def _report_state(self) -> None:
        arrays = ([variable.numpy()[None] for variable in group] for group in self._variables)
        history = {name: values[None] for name, values in self._history_arrays().items()}
        self._reports.put(TrialsState([self._index], self._epoch, history, ModelState(*arrays)))

    def _history_arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return {name: np.asarray(values, np.float32) for name, values in self._history.items()}

    def _evaluate(self, splits: Splits) -> TrainedTrial:
        model = self._compiled.model
        test_logs = model.evaluate(
            splits.x_test,
            splits.y_test,
            batch_size=self._trial.variant.training.batch_size,
            verbose=0,
            return_dict=True,
        )
        trainable, non_trainable, optimizer = (
            tuple(variable.numpy() for variable in group) for group in self._variables
        )
        return TrainedTrial(
            history=self._history_arrays(),
            test_logs={name: float(value) for name, value in test_logs.items()},
            val_predictions=model.predict(splits.x_val, verbose=0),
            test_predictions=model.predict(splits.x_test, verbose=0),
            trainable=trainable,
            non_trainable=non_trainable,
            optimizer=optimizer,
        )


def _batches(trial: Trial, splits: Splits, *, first_epoch: int) -> tf.data.Dataset:
    """Every batch from an epoch on, epoch after epoch, in the trial's own order."""
    training = trial.variant.training
    orders = BatchOrders([trial.seed], _num_rows(splits.y_train))
    orders.skip(first_epoch)
    epochs = np.concatenate([orders.next_epoch() for _ in range(first_epoch, training.epochs)])
    rows = keras.tree.map_structure(tf.constant, (splits.x_train, splits.y_train))
    return (
        tf.data.Dataset.from_tensor_slices(epochs)
        .flat_map(
            _as_written(
                lambda order: tf.data.Dataset.from_tensor_slices(order).batch(training.batch_size)
            )
        )
        .map(
            _as_written(
                lambda taken: keras.tree.map_structure(lambda array: tf.gather(array, taken), rows)
            )
        )
    )


# AutoGraph would leave the source that it writes in the temporary folder.
_as_written = tf.autograph.experimental.do_not_convert


def _num_rows(y: Any) -> int:
    return len(keras.tree.flatten(y)[0])
