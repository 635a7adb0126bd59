"""One trial in `model.fit`: where it starts, the data it is given, and what it reports."""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.data.splits import Part, Splits, steps_per_epoch
from trialrun.errors import InputError
from trialrun.messages import in_short
from trialrun.training.batch_orders import BatchOrders
from trialrun.training.channel import Reports
from trialrun.training.checkpoints import TrialsState
from trialrun.training.control import wants_best_weights
from trialrun.training.engine_outputs import Advance, TrainedTrial, is_ended
from trialrun.training.keras_fit.callbacks import Controls, refuse_schedule, users_callbacks
from trialrun.training.keras_fit.streaming import (
    evaluation_batches,
    reading_streams,
    streamed_confusion,
    training_batches,
)
from trialrun.training.model.build import in_order_of_outputs
from trialrun.training.model.initial import CompiledModel, initial_optimizer, kept_variables
from trialrun.training.model.inputs import with_text_tensors
from trialrun.training.model.ownership import has_other_state, why_unknown
from trialrun.training.state import ModelState
from trialrun.trials.results import STATE_GROUPS, Checkpoint
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Trial

# AutoGraph would leave the sources that it generates in the temporary folder.
_as_written = tf.autograph.experimental.do_not_convert


class TrialFit(keras.callbacks.Callback):
    """One trial in `fit`: reports its state after each epoch, and stops it when asked to.

    It must be the last of the callbacks, because it uses what the others logged and decided.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        trial: Trial,
        index: int,
        reports: Reports,
        task: PackTask,
    ) -> None:
        super().__init__()
        self._compiled, self._trial, self._index, self._reports = compiled, trial, index, reports
        self._last_epoch = task.last_epoch
        self._epoch = 0
        self._is_ended = False
        self._history: dict[str, list[float]] = {}
        model, training = compiled.model, trial.variant.training
        self._variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        self._kept = kept_variables(model)
        self._has_other_state = bool(why_unknown(model)) and has_other_state(model)
        keras.utils.set_random_seed(trial.seed)
        if training.reduce_lr_on_plateau:
            refuse_schedule(model.optimizer)
        self._controls = Controls(training)
        self._callbacks = users_callbacks(training, task.job_folder)

    def set_back(self) -> None:
        """Resets the model to the trial's start, whatever it was trained on before."""
        compiled, trial = self._compiled, self._trial
        start = compiled.initial.initial_variables([trial.seed])
        start += initial_optimizer(compiled, [trial.variant.training.learning_rate], start)
        self._assign([array[0] for array in start])
        keras.utils.set_random_seed(trial.seed)

    def can_go_on_from(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint holds what the trial's training has come to, and nothing else.

        What a user's callbacks remember is in no checkpoint. One of a compiled engine may hold the
        variables of optimizers and metrics that only a model's own steps know.
        """
        is_begun = bool(checkpoint.epochs[self._index]) and not self._callbacks
        is_own = len(checkpoint.optimizer) == len(self._variables[2])
        return is_own and (is_begun or is_ended(checkpoint, self._index))

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        """Restores the model's state from a checkpoint of the trial."""
        self._epoch = int(checkpoint.epochs[self._index])
        self._is_ended = is_ended(checkpoint, self._index)
        self._history = {
            name: values[self._index, : self._epoch].tolist()
            for name, values in checkpoint.history.items()
        }
        model = self._compiled.model
        self._controls.set_model(model)
        self._controls.replay(self._history, self._epoch)
        arrays = [array for name in STATE_GROUPS for array in getattr(checkpoint, name)]
        self._assign([array[self._index] for array in arrays])
        if checkpoint.best:
            by_id = {
                id(variable): array[self._index]
                for variable, array in zip(self._kept, checkpoint.best, strict=True)
            }
            self._controls.set_best_weights([by_id[id(v)] for v in model.weights])

    def _assign(self, arrays: Sequence[Any]) -> None:
        variables = [variable for group in self._variables for variable in group]
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def train(self, splits: Splits) -> TrainedTrial | None:
        """The trained or paused trial; None if it was stopped before."""
        if self._goes_on and not self._reports.stopping:
            self._fit(splits)
        if self._goes_on:
            return None
        if not self._is_ended:
            return self._paused()
        self._report_state()
        return self._evaluate(splits)

    @property
    def _goes_on(self) -> bool:
        """Whether the trial needs another epoch before it ends or is paused."""
        return not self._is_ended and self._epoch < self._last_epoch

    def _paused(self) -> TrainedTrial:
        return TrainedTrial(
            history=self._history_arrays(),
            model_task=self._compiled.task,
            is_paused=True,
            is_compiled_by_builder=self._compiled.is_compiled_by_builder,
            best_epoch=self._controls.best_epoch,
        )

    def _fit(self, splits: Splits) -> None:
        model, training = self._compiled.model, self._trial.variant.training
        # XLA draws other random numbers for dropout than TensorFlow; the engines must not differ.
        model.jit_compile = False
        # With more, the last steps of an epoch would take batches of the next one.
        model.steps_per_execution = 1
        try:
            with reading_streams(splits):
                model.fit(
                    **self._data_to_fit(splits),
                    initial_epoch=self._epoch,
                    epochs=training.epochs,
                    shuffle=False,
                    verbose=0,
                    callbacks=[*self._callbacks, self._controls, self],
                )
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise InputError(
                f"Keras cannot train the model on this data: {in_short(error)}"
            ) from error

    def _data_to_fit(self, splits: Splits) -> dict[str, Any]:
        """The arguments of `fit` that are data: rows in memory, or streamed batches."""
        model, batch_size = self._compiled.model, self._trial.variant.training.batch_size
        if "train" in splits.streams:
            batches = training_batches(splits, batch_size, self._trial.seed, lambda: self._epoch)
            given: dict[str, Any] = {"x": batches}
        else:
            given = {
                "x": _batches(self._trial, splits, first_epoch=self._epoch),
                "steps_per_epoch": steps_per_epoch(splits, batch_size),
            }
        if "val" in splits.streams:
            return given | {"validation_data": evaluation_batches(model, splits, "val", batch_size)}
        x, *rest = in_order_of_outputs(model, splits.part("val"))
        val = (with_text_tensors(x), *rest)
        return given | {"validation_data": val, "validation_batch_size": batch_size}

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Called by Keras."""
        logs = logs or {}
        training = self._trial.variant.training
        for name, value in logs.items():
            before = self._history.setdefault(name, [math.nan] * self._epoch)
            before.append(float(value))
        self._epoch = epoch + 1
        self._is_ended = self._epoch == training.epochs or self._compiled.model.stop_training
        newest = {name: np.asarray([value], np.float32) for name, value in logs.items()}
        left_out = self._last_epoch - self._epoch if self._is_ended else 0
        self._reports.put(Advance(1 + left_out, newest, [self._index], self._epoch))
        if self._is_ended:
            return  # `fit` may still change the weights, e.g. to their moving average
        is_due = training.checkpoint_every and self._epoch % training.checkpoint_every == 0
        stops = self._reports.stopping or self._epoch == self._last_epoch
        if is_due or stops:
            self._report_state()
        if stops:
            self._compiled.model.stop_training = True

    def _report_state(self) -> None:
        # A checkpoint would not hold it, nor what a user's callbacks remember: such a trial starts
        # again.
        if self._has_other_state or (self._callbacks and not self._is_ended):
            return
        arrays = ([variable.numpy()[None] for variable in group] for group in self._variables)
        history = {name: values[None] for name, values in self._history_arrays().items()}
        self._reports.put(
            TrialsState(
                [self._index],
                self._epoch,
                history,
                ModelState(*arrays),
                self._best_arrays(),
                np.array([self._is_ended]),
            )
        )

    def _best_arrays(self) -> list[npt.NDArray[np.generic]]:
        """The weights of the best epoch (1, ...), or the current ones before there is one."""
        if not wants_best_weights(self._trial.variant.training):
            return []
        model = self._compiled.model
        best = self._controls.best_weights or model.get_weights()
        by_id = {id(variable): array for variable, array in zip(model.weights, best, strict=True)}
        return [by_id[id(variable)][None] for variable in self._kept]

    def _history_arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        return {name: np.asarray(values, np.float32) for name, values in self._history.items()}

    def _evaluate(self, splits: Splits) -> TrainedTrial:
        model, training = self._compiled.model, self._trial.variant.training
        with reading_streams(splits):
            test_logs = model.evaluate(
                **self._data_to_evaluate(splits), verbose=0, return_dict=True
            )
            matrices: dict[Part, npt.NDArray[np.int64] | None] = {
                part: streamed_confusion(
                    model, splits, part, self._compiled.task, training.batch_size
                )
                for part in splits.streams
                if part != "train"
            }
        trainable, non_trainable, optimizer = (
            tuple(variable.numpy() for variable in group) for group in self._variables
        )
        return TrainedTrial(
            history=self._history_arrays(),
            test_logs={name: float(value) for name, value in test_logs.items()},
            val_predictions=model.predict(with_text_tensors(splits.x_val), verbose=0),
            test_predictions=model.predict(with_text_tensors(splits.x_test), verbose=0),
            trainable=trainable,
            non_trainable=non_trainable,
            optimizer=optimizer,
            model_task=self._compiled.task,
            is_compiled_by_builder=self._compiled.is_compiled_by_builder,
            best_epoch=self._controls.best_epoch,
            streamed_matrices=matrices,
        )

    def _data_to_evaluate(self, splits: Splits) -> dict[str, Any]:
        model, batch_size = self._compiled.model, self._trial.variant.training.batch_size
        if "test" in splits.streams:
            return {"x": evaluation_batches(model, splits, "test", batch_size)}
        x, y, *weights = in_order_of_outputs(model, splits.part("test"))
        sample_weight = weights[0] if weights else None
        x = with_text_tensors(x)
        return {"x": x, "y": y, "sample_weight": sample_weight, "batch_size": batch_size}


def _batches(trial: Trial, splits: Splits, *, first_epoch: int) -> tf.data.Dataset:
    """All batches from `first_epoch` on, epoch after epoch, in the trial's own order."""
    training = trial.variant.training
    orders = BatchOrders([trial.seed], _num_rows(splits.y_train))
    orders.skip(first_epoch)
    epochs = np.concatenate([orders.next_epoch() for _ in range(first_epoch, training.epochs)])
    rows = keras.tree.map_structure(tf.constant, splits.part("train"))
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


def _num_rows(y: Any) -> int:
    return len(keras.tree.flatten(y)[0])
