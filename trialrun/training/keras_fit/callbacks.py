"""The callbacks of one trial in `model.fit`: Keras's own for the job's fields, and the user's."""

import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from trialrun.errors import ModelError
from trialrun.job import TrainingSpec
from trialrun.job.user_code.functions import load_function, portable_reference
from trialrun.messages import in_short
from trialrun.training.control import loss_logs, wants_best_weights
from trialrun.training.internals import keras_model

_OF_EARLIER_TRIALS: "weakref.WeakValueDictionary[int, Any]" = weakref.WeakValueDictionary()


class Controls(keras.callbacks.Callback):
    """The Keras callbacks that a job asks for, as one callback whose state can be restored.

    Args:
        training: The trial's settings.
    """

    def __init__(self, training: TrainingSpec) -> None:
        super().__init__()
        stopping, plateau = training.early_stopping, training.reduce_lr_on_plateau
        self._keeper: keras.callbacks.EarlyStopping | None = None
        self._callbacks: list[keras.callbacks.Callback] = []
        if stopping is not None:
            given = stopping.model_dump()
            given["restore_best_weights"] &= training.keep_best is None
            mode = _mode(training, stopping.monitor)
            self._keeper = keras.callbacks.EarlyStopping(mode=mode, **given)
            self._callbacks.append(self._keeper)
        if training.keep_best is not None:
            # This one never stops a trial; it keeps what `ModelCheckpoint(save_best_only=True)`
            # would.
            self._keeper = keras.callbacks.EarlyStopping(
                monitor=training.keep_best,
                mode=_mode(training, training.keep_best),
                patience=training.epochs + 1,
                restore_best_weights=True,
            )
            self._callbacks.append(self._keeper)
        if plateau is not None:
            self._callbacks.append(
                keras.callbacks.ReduceLROnPlateau(
                    mode=_mode(training, plateau.monitor), **plateau.model_dump()
                )
            )
        self._ends_on_nan = training.terminate_on_nan
        if not wants_best_weights(training):
            self._keeper = None
        self._is_replayed = False

    @property
    def best_weights(self) -> list[Any] | None:
        """`model.get_weights()` of the best epoch so far; None if none is kept."""
        return None if self._keeper is None else self._keeper.best_weights

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, whose weights are kept; None if none are."""
        if self._keeper is None or self._keeper.best_weights is None:
            return None
        return int(self._keeper.best_epoch) + 1

    def set_model(self, model: keras.Model) -> None:
        """Called by Keras."""
        super().set_model(model)
        for callback in self._callbacks:
            callback.set_model(model)

    def on_train_begin(self, logs: Any = None) -> None:
        """Called by Keras."""
        if self._is_replayed:
            return  # `replay` has restored the callbacks' state
        for callback in self._callbacks:
            callback.on_train_begin(logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Called by Keras: does what `TerminateOnNaN` does, without printing a line."""
        logs = logs or {}
        if self._ends_on_nan and not all(np.isfinite(logs[name]) for name in loss_logs(logs)):
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Called by Keras."""
        with warnings.catch_warnings():
            # Keras reads the learning rate in a way that NumPy 2 has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            for callback in self._callbacks:
                callback.on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Called by Keras."""
        for callback in self._callbacks:
            callback.on_train_end(logs)

    def replay(self, history: Mapping[str, Sequence[float]], num_epochs: int) -> None:
        """Replays the decisions of trained epochs; the model must have its first learning rate."""
        for callback in self._callbacks:
            callback.on_train_begin()
        for epoch in range(num_epochs):
            self.on_epoch_end(epoch, {name: values[epoch] for name, values in history.items()})
        self._is_replayed = True

    def set_best_weights(self, weights: list[Any]) -> None:
        """Restores the weights of the best epoch, if there was one."""
        if self._keeper is not None and self._keeper.best_weights is not None:
            self._keeper.best_weights = weights


def _mode(training: TrainingSpec, monitor: str) -> str:
    return "max" if training.goal_of(monitor) == "maximize" else "min"


def refuse_schedule(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises ModelError if no variable holds the learning rate because a schedule computes it."""
    if keras_model.learning_rate_variable(optimizer) is None:
        raise ModelError(
            "training.reduce_lr_on_plateau: a schedule sets the optimizer's learning rate, so"
            " nothing else can; use one of the two"
        )


def users_callbacks(training: TrainingSpec, job_folder: Path) -> list[keras.callbacks.Callback]:
    """New callbacks, one from each of the user's functions.

    Raises:
        ModelError: A function cannot be loaded, raises, or returns something that is not a
            callback or that it returned before.
    """
    callbacks = []
    for reference in training.callbacks:
        source = f"training.callbacks {portable_reference(reference)}"
        make = load_function(reference, job_folder)
        try:
            callback = make()
        except Exception as error:
            raise ModelError(f"{source}: it raised {in_short(error)}") from error
        if not isinstance(callback, keras.callbacks.Callback):
            kind = type(callback).__name__
            raise ModelError(f"{source}: must return a keras.callbacks.Callback, got a {kind}")
        if _OF_EARLIER_TRIALS.get(id(callback)) is callback:
            raise ModelError(
                f"{source}: it returned a callback that it returned before, which may remember"
                " another trial; let it make one each time it is called"
            )
        _OF_EARLIER_TRIALS[id(callback)] = callback
        callbacks.append(callback)
    return callbacks
