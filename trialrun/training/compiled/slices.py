"""How a compiled engine cuts a pack into slices, one per thread, and epochs into calls."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.data.splits import PARTS, Part
from trialrun.errors import CannotFuse
from trialrun.job import TrainingSpec
from trialrun.training.batch_orders import BatchOrders
from trialrun.training.control import Control, is_controlled, wants_best_weights
from trialrun.training.model.initial import (
    CompiledModel,
    index_of_learning_rate,
    initial_optimizer,
    kept_variables,
)
from trialrun.training.pack_data import PackData
from trialrun.training.program.trial_stream import stream_starts
from trialrun.training.state import ModelState
from trialrun.trials.results import STATE_GROUPS, Checkpoint
from trialrun.trials.task import PackTask

# On a CPU, wider slices use the same time per trial (measured: 16 to 512 trials) and more memory.
MOST_ON_CPU = 128
# On a GPU, a step of small operations is the time in which its kernels start, whatever the width.
_MOST_ON_GPU = 1 << 14
_MAX_EPOCHS_PER_CALL = 6


def cut_slices(task: PackTask) -> list[list[int]]:
    """The slices of a pack, as trial indices; trials at different epochs never share a slice."""
    num_trials = len(task.pack.trials)
    most = most_per_slice()
    slices = slice_trials(num_trials, task.num_threads, task.width, most)
    if task.checkpoint is None:
        return slices
    epochs, ended = task.checkpoint.epochs, task.checkpoint.ended
    ended = np.zeros(num_trials, np.bool_) if ended is None else ended
    if all(_stand_together(epochs[indices], ended[indices]) for indices in slices):
        return slices  # as when the checkpoint was made, so the results are the same bit for bit
    last_epochs = np.where(ended, -1, epochs)
    groups = [np.flatnonzero(last_epochs == epoch).tolist() for epoch in np.unique(last_epochs)]
    return [
        [group[position] for position in positions]
        for group in groups
        for positions in slice_trials(len(group), task.num_threads, task.width, most)
    ]


def _stand_together(epochs: npt.NDArray[np.int64], ended: npt.NDArray[np.bool_]) -> bool:
    """Whether trials can form one slice: all at one epoch, or ended at that epoch or before."""
    going = set(epochs[~ended].tolist())
    return not going or (len(going) == 1 and max(epochs) <= min(going))


def most_per_slice() -> int:
    """The most trials of a slice on the device that computes, if memory allows."""
    return _MOST_ON_GPU if tf.config.list_physical_devices("GPU") else MOST_ON_CPU


def slice_trials(
    num_trials: int, num_threads: int, width: int | None = None, most: int = MOST_ON_CPU
) -> list[list[int]]:
    """Indices of trials cut into slices of one width, so that one program serves all.

    The last slice repeats its last trial to reach that width.

    Args:
        num_trials: How many trials there are.
        num_threads: How many slices are trained at the same time.
        width: The width of the slices; None for one that gives each thread as much.
        most: The greatest width, if none is given.

    >>> slice_trials(5, 2), slice_trials(1, 2, width=3)
    ([[0, 1, 2], [3, 4, 4]], [[0, 0, 0]])
    """
    if width is None:
        num_threads = min(num_threads, num_trials)
        rounds = -(-num_trials // (num_threads * most))
        width = -(-num_trials // (num_threads * rounds))
    return [
        [min(index, num_trials - 1) for index in range(start, start + width)]
        for start in range(0, num_trials, width)
    ]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many epochs each call trains, and when checkpoints are made.

    Attributes:
        epochs: The epoch after which the pack's trials are paused or end.
        is_pause: Whether they are paused then, unless they have ended before.
        per_call: Epochs that each call of the program trains.
        checkpoint_every: Epochs between checkpoints; None for no checkpoints.
    """

    epochs: int
    is_pause: bool
    per_call: int
    checkpoint_every: int | None

    @classmethod
    def of(cls, task: PackTask) -> "Schedule":
        """The schedule of a pack: calls end at pauses, checkpoints and epochs already trained."""
        training = task.pack.trials[0].variant.training
        epochs, every = task.last_epoch, training.checkpoint_every
        is_pause = epochs < training.epochs
        if is_controlled(training):  # something is decided after each epoch
            return cls(epochs, is_pause, 1, every)
        begun = [] if task.checkpoint is None else task.checkpoint.epochs.tolist()
        stops = (epochs, training.epochs, every or 0, *task.pauses, *begun)
        return cls(epochs, is_pause, _epochs_per_call(math.gcd(*stops)), every)


def _epochs_per_call(epochs: int) -> int:
    """Epochs that one call trains: few enough to show progress, and a divisor of `epochs`.

    Each call costs about two milliseconds for passing tensors, as much as a tenth of an epoch of
    the reference job.

    >>> _epochs_per_call(30), _epochs_per_call(7)
    (6, 1)
    """
    return max(count for count in range(1, _MAX_EPOCHS_PER_CALL + 1) if epochs % count == 0)


class Slice:
    """Trials of a pack that one thread trains: their state, data and batch orders.

    Everything is stacked over the slice's trials on axis 0, except shared data, which all slices
    have in common.

    Args:
        compiled: The model.
        task: The pack, and perhaps a checkpoint to continue from.
        data: The data of all trials of the pack.
        indices: The indices of the slice's trials in the pack; one may be repeated.
        numbers: The hyperparameters of each trial of the pack that the program takes as inputs.

    Attributes:
        epoch: Epochs that the checkpoint has trained; 0 without one.
        history: Log names -> float32 (trials, epochs so far).
        state: The state at that epoch.
        control: Decides between epochs; None if nothing is decided there.
        best: The weights of each trial's best epoch so far, as `weights_in` gives them; empty if
            they are not kept.
        learning_rate_index: Index of the learning rate among the optimizer's variables; None if a
            schedule sets it.
        num_optimizer: How many variables `model.optimizer` has; a state may hold more behind them.
    """

    def __init__(
        self,
        compiled: CompiledModel,
        task: PackTask,
        data: PackData,
        indices: Sequence[int],
        numbers: Sequence[Sequence[float]],
    ) -> None:
        self.indices = indices
        self.model_task = compiled.task
        self.is_compiled_by_builder = compiled.is_compiled_by_builder
        self.is_shared = data.is_shared
        self.train, self.val, self.test = (_on_device(data, part, indices) for part in PARTS)
        own = [task.pack.trials[index] for index in indices]
        seeds = [trial.seed for trial in own]
        trainings = [trial.variant.training for trial in own]
        self.last_epoch = task.last_epoch
        num_rows = len(keras.tree.flatten(data.of_trial(indices[0]).y_train)[0])
        self.orders = BatchOrders(seeds, num_rows)
        self.order_shape = (len(own), num_rows)
        self.numbers = [numbers[index] for index in indices]
        by_location = zip(*self.numbers, strict=True)
        hyperparameters = [tf.constant(values, tf.float64) for values in by_location]
        kept = _with_stream(task, compiled)
        self.epoch = 0 if kept is None else int(kept.epochs[indices].max())
        self.history: dict[str, npt.NDArray[np.float32]] = {}
        if kept is not None and self.epoch:
            if len(kept.optimizer) != len(compiled.optimizer_start):
                raise CannotFuse("model.fit made the checkpoint, which does not hold all its state")
            self.orders.skip(self.epoch)
            self.history = {
                name: values[indices, : self.epoch] for name, values in kept.history.items()
            }
            self.state = _kept_state(kept, indices, hyperparameters)
        else:
            rates = [training.learning_rate for training in trainings]
            self.state = _initial_state(compiled, seeds, rates, hyperparameters)
        self.learning_rate_index = index_of_learning_rate(compiled.model)
        self.num_optimizer = len(compiled.model.optimizer.variables)
        self._kept_non_trainable = _kept_non_trainable(compiled.model)
        self.control = self._begun_control(compiled, trainings)
        self.best: list[tf.Tensor] = []
        if any(map(wants_best_weights, trainings)):  # until some epoch is the best, the current
            self.best = self.weights_in(self.state)
            if kept is not None and self.epoch:
                self.best = [tf.constant(array[indices]) for array in kept.best]

    def _begun_control(
        self, compiled: CompiledModel, trainings: Sequence[TrainingSpec]
    ) -> Control | None:
        """The control, which has decided what the epochs of the history decide."""
        if not is_controlled(trainings[0]):
            return None
        rates = None
        if self.learning_rate_index is not None:
            rates = np.array([training.learning_rate for training in trainings], np.float32)
            if compiled.learning_rate_index is None:  # the builder's own
                rates[:] = compiled.optimizer_start[self.learning_rate_index]
        control = Control(trainings, rates)
        control.replay(self.epoch, self.history)
        return control

    def weights_in(self, state: ModelState) -> list[Any]:
        """What `model.get_weights` would give of a state: trainable ones first, then others."""
        return [*state.trainable, *(state.non_trainable[i] for i in self._kept_non_trainable)]

    def with_weights(self, state: ModelState, weights: Sequence[Any]) -> ModelState:
        """A state that has other weights, in the order of `weights_in`."""
        num_trainable = len(state.trainable)
        non_trainable = list(state.non_trainable)
        for index, weight in zip(self._kept_non_trainable, weights[num_trainable:], strict=True):
            non_trainable[index] = weight
        return state._replace(trainable=list(weights[:num_trainable]), non_trainable=non_trainable)


def _kept_non_trainable(model: keras.Model) -> list[int]:
    """Indices of the non-trainable variables that `model.get_weights` gives."""
    kept = {id(variable) for variable in kept_variables(model)}
    variables = enumerate(model.non_trainable_variables)
    return [index for index, variable in variables if id(variable) in kept]


def _with_stream(task: PackTask, compiled: CompiledModel) -> Checkpoint | None:
    """The checkpoint of a task; one of an older version gets the start of each trial's stream.

    The programs of that version drew nothing from `tf.random`.
    """
    kept, index = task.checkpoint, compiled.stream_index
    if kept is None or index is None or len(kept.optimizer) + 1 != len(compiled.optimizer_start):
        return kept
    start = stream_starts([trial.seed for trial in task.pack.trials])
    return replace(kept, optimizer=(*kept.optimizer[:index], start, *kept.optimizer[index:]))


def _kept_state(
    kept: Checkpoint, indices: Sequence[int], hyperparameters: list[tf.Tensor]
) -> ModelState:
    groups = [
        [tf.constant(array[indices]) for array in getattr(kept, group)] for group in STATE_GROUPS
    ]
    return ModelState(*groups)._replace(hyperparameters=hyperparameters)


def _initial_state(
    compiled: CompiledModel,
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    hyperparameters: list[tf.Tensor],
) -> ModelState:
    initial = compiled.initial.initial_variables(seeds)
    variables = [tf.constant(array) for array in initial]
    num_trainable = len(compiled.model.trainable_variables)
    start = initial_optimizer(compiled, learning_rates, initial)
    if compiled.stream_index is not None:
        start[compiled.stream_index] = stream_starts(seeds)
    optimizer = [tf.constant(array) for array in start]
    return ModelState(
        variables[:num_trainable], variables[num_trainable:], optimizer, hyperparameters
    )


def _on_device(data: PackData, part: Part, indices: Sequence[int]) -> tuple[Any, ...]:
    """Inputs, targets and perhaps weights of a part as tensors; stacked unless they are shared."""
    if data.is_shared:
        return data.on_device[part]
    parts = [data.splits[index].part(part) for index in indices]
    return keras.tree.map_structure(lambda *arrays: tf.constant(np.stack(arrays)), *parts)
