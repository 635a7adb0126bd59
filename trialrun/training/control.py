"""Decides after each epoch which trials continue, their learning rates, and whose weights are best.

The rules of `keras.callbacks.EarlyStopping`, `ReduceLROnPlateau`, `ModelCheckpoint` (the best only)
and `TerminateOnNaN`, for all trials of a slice at once, as NumPy arrays (trials,). The decisions
follow from the logs alone, so a checkpoint does not hold them: `replay` makes them again.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trialrun.errors import ModelError
from trialrun.job import EarlyStoppingSpec, Goal, ReduceLROnPlateauSpec, TrainingSpec

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]
Float32 = npt.NDArray[np.float32]
LEARNING_RATE = "learning_rate"  # what `ReduceLROnPlateau` adds to the logs


def is_controlled(training: TrainingSpec) -> bool:
    """Whether something is decided about a trial between its epochs."""
    return training.terminate_on_nan or any(
        field is not None
        for field in (training.early_stopping, training.reduce_lr_on_plateau, training.keep_best)
    )


def wants_best_weights(training: TrainingSpec) -> bool:
    """Whether a trial's result holds the weights of its best epoch instead of its last one."""
    stopping = training.early_stopping
    return training.keep_best is not None or (
        stopping is not None and stopping.restore_best_weights
    )


def loss_logs(logs: Iterable[str]) -> list[str]:
    """The logs of training that are losses: `loss`, or, where there is none, `<name>_loss`.

    >>> loss_logs(["g_loss", "kl", "val_g_loss"]), loss_logs(["loss", "out_loss"])
    (['g_loss'], ['loss'])
    """
    names = [name for name in logs if not name.startswith("val_")]
    return ["loss"] if "loss" in names else [name for name in names if name.endswith("_loss")]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is decided after an epoch.

    Attributes:
        goes_on: bool (trials,) which trials are trained for another epoch.
        is_best: bool (trials,) which trials keep these weights as their best so far.
        learning_rates: float32 (trials,) for the next epoch; None if nothing reduces them.
    """

    goes_on: Bools
    is_best: Bools
    learning_rates: Float32 | None


class Control:
    """The control of several trials, each by its own settings.

    Args:
        trainings: One per trial; a section that one trial has, all have.
        learning_rates: float32 (trials,) at the start; only `reduce_lr_on_plateau` needs them.

    Attributes:
        active: bool (trials,) the trials that are still trained.
        epochs: int64 (trials,) epochs trained.
        best_epochs: int64 (trials,) the epoch, from 1, whose weights are a trial's result; 0 if
            it is the last one.
        ends_on_nan: bool (trials,) which trials end at the batch whose loss is not finite.
    """

    def __init__(
        self, trainings: Sequence[TrainingSpec], learning_rates: Float32 | None = None
    ) -> None:
        num_trials = len(trainings)
        self.active: Bools = np.ones(num_trials, np.bool_)
        self.epochs: Ints = np.zeros(num_trials, np.int64)
        self.best_epochs: Ints = np.zeros(num_trials, np.int64)
        self._max_epochs = np.array([training.epochs for training in trainings])
        self.ends_on_nan: Bools = np.array([training.terminate_on_nan for training in trainings])
        stopping = [t.early_stopping for t in trainings if t.early_stopping is not None]
        reducing = [t.reduce_lr_on_plateau for t in trainings if t.reduce_lr_on_plateau]
        keeping = [t.keep_best for t in trainings if t.keep_best is not None]
        goal_of = trainings[0].goal_of  # metrics are the same in every variant
        self._stopping = _EarlyStopping(stopping, goal_of) if stopping else None
        self._plateau = _Plateau(reducing, learning_rates, goal_of) if reducing else None
        self._best = _Monitor("keep_best", keeping, 0.0, goal_of) if keeping else None

    def update(self, epoch: int, logs: Mapping[str, Float32]) -> Decision:
        """Decides after an epoch.

        Args:
            epoch: Its number, from 0.
            logs: Keras's log names -> float32 (trials,); the values of trials that were not active
                are not used.

        Raises:
            ModelError: A monitored name is not among the logs.
        """
        active = self.active
        self.epochs[active] = epoch + 1
        is_best = np.zeros_like(active)
        is_finite = [np.isfinite(logs[name]) for name in loss_logs(logs)]
        ends = self.ends_on_nan & ~np.logical_and.reduce(is_finite)
        if self._stopping is not None:
            is_best, stops = self._stopping.update(epoch, logs, active)
            ends = ends | stops
        if self._best is not None:
            is_best = self._best.improve(logs, active)
        if self._plateau is not None:
            self._plateau.update(logs, active)
        self.best_epochs[is_best] = epoch + 1
        self.active = active & ~ends & (self.epochs < self._max_epochs)
        return Decision(self.active, is_best, self.learning_rates)

    @property
    def learning_rates(self) -> Float32 | None:
        """The current learning rates, float32 (trials,); None if nothing reduces them."""
        return None if self._plateau is None else self._plateau.rates

    def replay(self, num_epochs: int, history: Mapping[str, Float32]) -> None:
        """Makes the decisions of the first epochs again.

        Args:
            num_epochs: The number of epochs.
            history: Log names -> (trials, epochs); NaN after a trial's end.
        """
        for epoch in range(num_epochs):
            self.update(epoch, {name: values[:, epoch] for name, values in history.items()})


class _Monitor:
    """The best value so far of each trial's monitored log; trials may monitor different logs.

    Keras compares float32: `float32(value - min_delta) < float32(best)` where less is better. The
    first value is always an improvement, and nothing improves on NaN.
    """

    def __init__(
        self,
        field: str,
        names: Sequence[str],
        min_delta: float | npt.NDArray[np.float64],
        goal_of: Callable[[str], Goal],
    ) -> None:
        self._field = field
        self._names = list(names)
        is_less = np.array([goal_of(name) == "minimize" for name in names])
        self._sign = np.where(is_less, np.float32(-1), np.float32(1))
        self._min_delta = np.where(is_less, -1.0, 1.0) * np.abs(min_delta)
        self._best = np.zeros(len(names), np.float32)
        self._has_best = np.zeros(len(names), np.bool_)

    def values(self, logs: Mapping[str, Float32]) -> Float32:
        """The value that each trial monitors, (trials,)."""
        for name in self._names:
            if name not in logs:
                raise ModelError(
                    f"training.{self._field}: {name!r} is not logged; epochs log {', '.join(logs)}"
                )
        picked = [logs[name][trial] for trial, name in enumerate(self._names)]
        return np.array(picked, np.float32)

    def improves_on(self, values: Float32, reference: Float32) -> Bools:
        """Which values are better than the reference by more than the least change that counts."""
        lowered = (values.astype(np.float64) - self._min_delta).astype(np.float32)
        better: Bools = self._sign * lowered > self._sign * reference
        return better

    def improve(self, logs: Mapping[str, Float32], among: Bools) -> Bools:
        """Updates the best values; returns bool (trials,): for which trials they improved."""
        values = self.values(logs)
        improved = among & (~self._has_best | self.improves_on(values, self._best))
        self._best = np.where(improved, values, self._best)
        self._has_best |= improved
        return improved


class _EarlyStopping:
    """`keras.callbacks.EarlyStopping` of each trial."""

    def __init__(self, specs: Sequence[EarlyStoppingSpec], goal_of: Callable[[str], Goal]) -> None:
        self._monitor = _Monitor(
            "early_stopping.monitor",
            [spec.monitor for spec in specs],
            np.array([spec.min_delta for spec in specs], np.float64),
            goal_of,
        )
        self._patience = np.array([spec.patience for spec in specs])
        self._first_epoch = np.array([spec.start_from_epoch for spec in specs])
        self._has_baseline = np.array([spec.baseline is not None for spec in specs])
        self._baseline = np.array([spec.baseline or 0.0 for spec in specs], np.float32)
        self._restores = np.array([spec.restore_best_weights for spec in specs])
        self._wait = np.zeros(len(specs), np.int64)

    def update(self, epoch: int, logs: Mapping[str, Float32], active: Bools) -> tuple[Bools, Bools]:
        """bool (trials,) whose weights are the best so far and will be restored, and who stops."""
        watched = active & (epoch >= self._first_epoch)
        self._wait[watched] += 1
        improved = self._monitor.improve(logs, watched)
        beats = self._monitor.improves_on(self._monitor.values(logs), self._baseline)
        self._wait[improved & (beats | ~self._has_baseline)] = 0
        stops = watched & ~improved & (self._wait >= self._patience) & (epoch > 0)
        return improved & self._restores, stops


class _Plateau:
    """`keras.callbacks.ReduceLROnPlateau` of each trial."""

    def __init__(
        self,
        specs: Sequence[ReduceLROnPlateauSpec],
        rates: Float32 | None,
        goal_of: Callable[[str], Goal],
    ) -> None:
        if rates is None:
            raise ModelError(
                "training.reduce_lr_on_plateau: a schedule sets the optimizer's learning rate, so"
                " nothing else can; use one of the two"
            )
        self.rates: Float32 = np.array(rates, np.float32)
        self._monitor = _Monitor(
            "reduce_lr_on_plateau.monitor",
            [spec.monitor for spec in specs],
            np.array([spec.min_delta for spec in specs], np.float64),
            goal_of,
        )
        self._factor = np.array([spec.factor for spec in specs], np.float64)
        self._patience = np.array([spec.patience for spec in specs])
        self._cooldown = np.array([spec.cooldown for spec in specs])
        self._min_rate = np.array([spec.min_lr for spec in specs], np.float64)
        self._wait = np.zeros(len(specs), np.int64)
        self._cooling = np.zeros(len(specs), np.int64)

    def update(self, logs: Mapping[str, Float32], active: Bools) -> None:
        """Reduces the learning rate of trials that have not improved for too long."""
        cooling = active & (self._cooling > 0)
        self._cooling[cooling] -= 1
        self._wait[cooling] = 0
        improved = self._monitor.improve(logs, active)
        self._wait[improved] = 0
        waits = active & ~improved & (self._cooling == 0)
        self._wait[waits] += 1
        is_above = self.rates > self._min_rate.astype(np.float32)
        reduced = waits & (self._wait >= self._patience) & is_above
        smaller = np.maximum(self.rates.astype(np.float64) * self._factor, self._min_rate)
        self.rates = np.where(reduced, smaller.astype(np.float32), self.rates)
        self._cooling[reduced] = self._cooldown[reduced]
        self._wait[reduced] = 0
