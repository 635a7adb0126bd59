"""Checkpoints of a pack, put together from threads that each train some of its trials."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.training.state import ModelState
from trialrun.trials.results import STATE_GROUPS, Checkpoint
from trialrun.trials.task import PackTask


@dataclass(frozen=True, slots=True, eq=False)
class TrialsState:
    """The state of some trials of a pack after an epoch.

    Attributes:
        indices: Their indices in the pack; one may be repeated.
        epochs: Epochs trained: one number, or int64 (trials,).
        history: Keras's log names -> float32 (trials, epochs).
        state: Arrays or tensors (trials, ...).
        best: Arrays or tensors (trials, ...): the weights of each trial's best epoch; empty if
            they are not kept.
        ended: bool (trials,) which trials need no more epochs; None if `epochs` alone tells it.
    """

    indices: Sequence[int]
    epochs: int | npt.NDArray[np.int64]
    history: Mapping[str, npt.NDArray[np.float32]]
    state: ModelState
    best: Sequence[Any] = ()
    ended: npt.NDArray[np.bool_] | None = None


class CheckpointMaker:
    """Remembers the last state that was reported for each trial; copies no array until `make`.

    Args:
        task: The pack; it may itself start from a checkpoint.
        engine: The engine that trains it.
    """

    def __init__(self, task: PackTask, engine: str) -> None:
        self._engine = engine
        self._pack_id = task.pack.pack_id
        self._trial_ids = tuple(trial.trial_id for trial in task.pack.trials)
        self._num_epochs = task.pack.trials[0].variant.training.epochs
        self._heard: dict[tuple[int, ...], TrialsState] = {}
        if (begin := task.checkpoint) is not None:
            state = ModelState(*(list(getattr(begin, name)) for name in STATE_GROUPS))
            everything = range(len(self._trial_ids))
            self.put(
                TrialsState(everything, begin.epochs, begin.history, state, begin.best, begin.ended)
            )

    def put(self, heard: TrialsState) -> None:
        """Remembers the newest state of some trials."""
        key = tuple(heard.indices)
        self._heard.pop(key, None)
        self._heard[key] = heard

    def make(self) -> Checkpoint | None:
        """The checkpoint of all trials; None before any trial's state was reported."""
        if not self._heard:
            return None
        num_trials = len(self._trial_ids)
        first = next(iter(self._heard.values()))
        epochs = np.zeros(num_trials, np.int64)
        ended = np.zeros(num_trials, np.bool_)
        best = tuple(_room_for(num_trials, array) for array in first.best)
        # In their order, which the columns of tables then have.
        names = dict.fromkeys(name for heard in self._heard.values() for name in heard.history)
        history = {
            name: np.full((num_trials, self._num_epochs), np.nan, np.float32) for name in names
        }
        groups = {
            name: tuple(_room_for(num_trials, array) for array in getattr(first.state, name))
            for name in STATE_GROUPS
        }
        for heard in self._heard.values():  # the newest last
            indices = list(heard.indices)
            epochs[indices] = heard.epochs
            ended[indices] = epochs[indices] == self._num_epochs
            if heard.ended is not None:
                ended[indices] |= heard.ended
            for name, values in heard.history.items():
                history[name][indices, : values.shape[1]] = values
            for name in STATE_GROUPS:
                for room, array in zip(groups[name], getattr(heard.state, name), strict=True):
                    room[indices] = np.asarray(array)
            for room, array in zip(best, heard.best, strict=True):
                room[indices] = np.asarray(array)
        return Checkpoint(
            self._pack_id,
            self._trial_ids,
            epochs,
            history,
            **groups,
            best=best,
            ended=ended,
            engine=self._engine,
        )


def _room_for(num_trials: int, array: Any) -> npt.NDArray[Any]:
    like = np.asarray(array)
    return np.zeros((num_trials, *like.shape[1:]), like.dtype)
