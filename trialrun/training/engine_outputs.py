"""What every engine gives while it trains, and when it has trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.data.model_task import ModelTask
from trialrun.data.splits import Part
from trialrun.trials.results import Checkpoint


@dataclass(frozen=True, slots=True)
class Advance:
    """An engine's heartbeat.

    Attributes:
        num_epochs: Epochs trained since the last heartbeat, summed over trials. Epochs up to the
            pack's last one that a trial skips because it stopped early are counted when it stops.
        logs: Keras's log names -> float32 (trials,): the newest epoch of those trials.
        indices: Which trials of the pack these are (trials,).
        epoch: The epoch that they have reached.
    """

    num_epochs: int
    logs: Mapping[str, npt.NDArray[np.float32]]
    indices: Sequence[int] | npt.NDArray[np.int64]
    epoch: int


@dataclass(frozen=True, slots=True)
class TrainedTrial:
    """One trained trial, or one that is paused.

    Attributes:
        history: Keras's log names -> float32 (epochs,).
        model_task: What the model is.
        is_paused: Whether its training is not over; it then has no predictions, no test logs and no
            variables, which are in a checkpoint.
        test_logs: Keras's log names -> value on the test set.
        val_predictions, test_predictions: (rows, ...); for a streamed part, of its first rows.
        trainable, non_trainable, optimizer: Variables in Keras's order.
        is_compiled_by_builder: Whether the builder compiled the model, not the job's `training`.
        best_epoch: The epoch, from 1, whose weights these are; None in a trial that does not keep
            its best, whose weights are those of the last epoch.
        streamed_matrices: The confusion matrices of streamed parts; None if the model is no
            classifier.
    """

    history: Mapping[str, npt.NDArray[np.float32]]
    model_task: ModelTask
    is_paused: bool = False
    test_logs: Mapping[str, float] = field(default_factory=dict)
    val_predictions: Any = None
    test_predictions: Any = None
    trainable: tuple[npt.NDArray[np.generic], ...] = ()
    non_trainable: tuple[npt.NDArray[np.generic], ...] = ()
    optimizer: tuple[npt.NDArray[np.generic], ...] = ()
    is_compiled_by_builder: bool = False
    best_epoch: int | None = None
    streamed_matrices: Mapping[Part, npt.NDArray[np.int64] | None] = field(default_factory=dict)


def is_ended(checkpoint: Checkpoint, index: int) -> bool:
    """Whether a trial of a pack needs no more epochs."""
    return checkpoint.ended is not None and bool(checkpoint.ended[index])
