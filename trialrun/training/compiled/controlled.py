"""A slice whose trials are controlled between epochs: some stop early, learning rates shrink.

The program goes on computing a trial that has stopped, but the results are thrown away: the trial's
rows of the state stay as they were. When half of the rows are of that kind, and it saves time, the
other rows move into a narrower state. The compiled program knows nothing of all this.
"""

import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.training.checkpoints import TrialsState
from trialrun.training.compiled.prepare import compiling
from trialrun.training.compiled.slices import Slice
from trialrun.training.control import LEARNING_RATE, Bools, Control
from trialrun.training.engine_outputs import Advance
from trialrun.training.program.loops import select_trials
from trialrun.training.program.program import Program
from trialrun.training.state import ModelState


class ControlledSlice:
    """The trials of a slice while they are trained epoch by epoch.

    Args:
        program: Trains their epochs.
        own: The slice; it must have a control.
    """

    def __init__(self, program: Program, own: Slice) -> None:
        assert own.control is not None
        self._program = program
        self._own = own
        self.control: Control = own.control
        self._epoch = own.epoch
        self.history = dict(own.history)
        self._positions = np.arange(len(own.indices))  # row of the state -> trial of the slice
        self._state, self._best = own.state, own.best
        self._train, self._val = own.train, own.val
        # State and best weights of all trials, from when the state was last made narrower.
        self._aside: tuple[ModelState, list[npt.NDArray[Any]]] | None = None
        self._counts = np.zeros(len(own.indices), np.bool_)  # False for a trial's repetitions
        self._counts[np.unique(own.indices, return_index=True)[1]] = True

    @property
    def epoch(self) -> int:
        """Epochs trained."""
        return self._epoch

    @property
    def goes_on(self) -> bool:
        """Whether a trial needs another epoch before it ends or is paused."""
        return self._epoch < self._own.last_epoch and bool(self.control.active.any())

    def train_epoch(self) -> Advance:
        """Trains the active trials for one epoch and decides which of them continue."""
        start = time.perf_counter()
        active = self.control.active.copy()
        orders = self._own.orders.next_epoch()[self._positions]
        state, by_epoch = self._program.train_epochs(
            self._state, self._train, tf.constant(orders[None]), self._val
        )
        logs = {name: values.numpy()[0] for name, values in by_epoch.items()}
        epoch_s = time.perf_counter() - start
        may_end = (active & self.control.ends_on_nan)[self._positions]
        if may_end.any() and (ends := may_end & ~np.isfinite(logs["loss"])).any():
            state, logs = self._end_within(ends, orders, (state, logs))
        self._state = _select(active[self._positions], state, self._state)
        newest = {name: self._of_all(values, active) for name, values in logs.items()}
        if (rates := self.control.learning_rates) is not None:
            newest[LEARNING_RATE] = np.where(active, rates, np.float32(np.nan))
        self._decide(newest)
        for name, values in newest.items():
            before = self.history.get(name, np.empty((len(values), 0), np.float32))
            self.history[name] = np.concatenate([before, values[:, None]], 1)
        self._epoch += 1
        num_left = self._own.last_epoch - self._epoch
        if num_left:
            self._narrow(epoch_s, num_left)
        ended = active & ~self.control.active & self._counts
        num_epochs = int((active & self._counts).sum()) + int(ended.sum()) * num_left
        last = {name: values[active] for name, values in newest.items()}
        return Advance(num_epochs, last, np.asarray(self._own.indices)[active], self._epoch)

    def _end_within(
        self, ends: Bools, orders: npt.NDArray[np.int32], trained: tuple[ModelState, Any]
    ) -> tuple[ModelState, dict[str, npt.NDArray[np.float32]]]:
        """State and logs of an epoch; of some trials at the batch that made their loss not finite.

        A mean over an epoch is not finite exactly if it was not finite after some batch. That is
        rare, so only such an epoch is trained once more, by a program that checks every batch.
        """
        with compiling(self._program):
            ended = self._program.train_until_not_finite(
                self._state, self._train, tf.constant(orders), self._val
            )
        state, logs = _select(ends, ended, trained)
        return state, {name: np.asarray(values) for name, values in logs.items()}

    def standing(self) -> TrialsState:
        """The current state of the slice's trials; later epochs do not change it."""
        state, best = self._all_rows()
        epochs, ended = self.control.epochs.copy(), ~self.control.active
        return TrialsState(self._own.indices, epochs, dict(self.history), state, best, ended)

    def given_state(self) -> ModelState:
        """The state that is each trial's result: of its last epoch, with its best weights."""
        state, best = self._all_rows()
        state = ModelState(*([tf.convert_to_tensor(array) for array in group] for group in state))
        state = self._program.finalize(state)  # `fit` does, and then its callbacks restore the best
        if not best:
            return state
        given = self.control.best_epochs > 0
        best = [tf.convert_to_tensor(array) for array in best]
        return self._own.with_weights(state, _select(given, best, self._own.weights_in(state)))

    def _of_all(self, values: npt.NDArray[np.float32], active: Bools) -> npt.NDArray[np.float32]:
        """Spreads values of the state's rows over all trials; NaN for those that stopped."""
        by_trial = np.full(len(active), np.nan, np.float32)
        by_trial[self._positions] = values
        return np.where(active, by_trial, np.float32(np.nan))

    def _decide(self, logs: dict[str, npt.NDArray[np.float32]]) -> None:
        decision = self.control.update(self._epoch, logs)
        is_best = decision.is_best[self._positions]
        if self._best and is_best.any():
            self._best = _select(is_best, self._own.weights_in(self._state), self._best)
        index = self._own.learning_rate_index
        if decision.learning_rates is not None and index is not None:
            optimizer = list(self._state.optimizer)
            optimizer[index] = tf.constant(decision.learning_rates[self._positions])
            self._state = self._state._replace(optimizer=optimizer)

    def _narrow(self, epoch_s: float, num_left: int) -> None:
        """Moves the active trials into a narrower state if that saves time."""
        active = np.flatnonzero(self.control.active[self._positions])
        width = narrower_width(len(self._positions), len(active))
        if not len(active) or width == len(self._positions):
            return
        is_compiled = width in self._program.compiled_widths
        compile_s = 0.0 if is_compiled else self._program.longest_compile_s()
        # How long the others continue is not known. The guess: as long as they already have.
        saved_s = epoch_s * (1 - width / len(self._positions)) * min(num_left, self._epoch)
        if not is_worth_compiling(saved_s, compile_s):
            return
        self._aside = self._with_rows_put_back()
        rows = np.resize(active, width)  # repeats trials if there are fewer than rows
        rows.sort()
        self._positions = self._positions[rows]
        self._state = ModelState(*([tf.gather(a, rows) for a in group] for group in self._state))
        self._best = [tf.gather(array, rows) for array in self._best]
        if not self._own.is_shared:
            self._train, self._val = keras.tree.map_structure(
                lambda array: tf.gather(array, rows), (self._train, self._val)
            )

    def _all_rows(self) -> tuple[ModelState, Sequence[Any]]:
        """State and best weights of all trials of the slice."""
        return (self._state, self._best) if self._aside is None else self._with_rows_put_back()

    def _with_rows_put_back(self) -> tuple[ModelState, list[npt.NDArray[Any]]]:
        if self._aside is None:  # the state still has all rows, in their order
            numpy = [[tensor.numpy() for tensor in group] for group in self._state]
            return ModelState(*numpy), [tensor.numpy() for tensor in self._best]

        def put(whole: npt.NDArray[Any], rows: tf.Tensor) -> npt.NDArray[Any]:
            whole = whole.copy()
            whole[self._positions] = rows.numpy()
            return whole

        state, best = self._aside
        groups = [
            [put(a, b) for a, b in zip(whole, rows, strict=True)]
            for whole, rows in zip(state, self._state, strict=True)
        ]
        return ModelState(*groups), [put(a, b) for a, b in zip(best, self._best, strict=True)]


def narrower_width(width: int, num_active: int) -> int:
    """A width, halved while the active trials still fit: few widths mean few programs.

    >>> narrower_width(64, 33), narrower_width(64, 32), narrower_width(64, 5)
    (64, 32, 8)
    """
    while num_active <= (half := -(-width // 2)) < width:
        width = half
    return width


def is_worth_compiling(saved_s: float, compile_s: float) -> bool:
    """Whether a narrower program saves more time than it takes to compile."""
    return saved_s > compile_s


def _select(mask: Bools, new: Any, old: Any) -> Any:
    """Rows of `new` where the mask says so, else of `old`."""
    if mask.all():
        return new
    return select_trials(mask, new, old)
