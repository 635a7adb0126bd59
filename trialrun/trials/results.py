"""The results of training: plain data that can be pickled, printed and saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.trials.trial import Trial

# The kinds of a model's variables, which are fields of `Checkpoint` and `TrialState`.
STATE_GROUPS = ("trainable", "non_trainable", "optimizer")

TrialStatus = Literal["completed", "diverged", "failed", "paused"]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """The result of one trial.

    Attributes:
        trial: The trial.
        status: `completed`; `diverged` if a loss is not finite (or the selection metric, if the
            model logs no loss); `failed`, for the reason in `error`; `paused` after an epoch, from
            which it may go on. A paused trial was not tested; its metrics are NaN if it would have
            diverged.
        engine: `fused`, `mapped` or `keras`; empty for a failed trial that was never trained.
        pack_id: The pack in which it was trained.
        attempt: 0 for the first attempt of its pack, then 1, 2, ...
        epochs: Number of epochs trained.
        best_epoch: The epoch, from 1, whose weights are kept; None unless the best ones are kept.
        duration_s: Wall time of its pack's training divided by the number of the pack's trials.
        device: E.g. `CPU`, `GPU 0: NVIDIA A100`.
        node: Name of the machine.
        error: The reason for a failure, else empty.
        data_fingerprint: A hash of what the generator gave; empty for other sources of data.
        versions: The versions that it was trained with, see `trials.versions`.
        metrics: `train_loss`, `val_accuracy`, `test_loss`, ... -> value at the final epoch, or at
            the best epoch if that is given.
        history: `loss`, `accuracy`, `val_loss`, ... -> float32 (epochs,).
        val_confusion_matrix: int64 (classes, classes), rows = true class; None unless the model is
            a classifier.
        test_confusion_matrix: The same on the test set.
        test_reliability: float64 (bins, 3) on the test set, see `statistics.probabilities`; None
            if the model gives no probabilities.
    """

    trial: Trial
    status: TrialStatus
    engine: str
    pack_id: str
    attempt: int
    epochs: int = 0
    best_epoch: int | None = None
    duration_s: float = 0.0
    device: str = ""
    node: str = ""
    error: str = ""
    data_fingerprint: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    val_confusion_matrix: npt.NDArray[np.int64] | None = None
    test_confusion_matrix: npt.NDArray[np.int64] | None = None
    test_reliability: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class TrialState:
    """The state of a trained model: the arrays of one trial, in the order of Keras's variables.

    Attributes:
        trial_id: The trial.
        seed: The trial's seed.
        trainable: Values of `model.trainable_variables`.
        non_trainable: Values of `model.non_trainable_variables`.
        optimizer: Values of `model.optimizer.variables`.
        test_predictions: Predictions (rows, ...) of the trained trial on the test set, or on its
            first rows if it is streamed; several outputs are put side by side.
    """

    trial_id: str
    seed: int
    trainable: tuple[npt.NDArray[np.generic], ...]
    non_trainable: tuple[npt.NDArray[np.generic], ...]
    optimizer: tuple[npt.NDArray[np.generic], ...]
    test_predictions: npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The state of a pack's trials during training: all that is needed to continue it.

    Random streams need not be stored: those of dropout are among the non-trainable variables, what
    a compiled engine draws for `tf.random` follows from a number behind the optimizer's, and batch
    orders follow from the seed and the epoch. What controls a trial between epochs, such as
    early stopping, follows from its history.

    Attributes:
        pack_id: The pack.
        trial_ids: Ids of its trials (trials,).
        epochs: Epochs trained, int64 (trials,). If it is 0, the trial's other arrays are undefined.
        history: Keras's log names -> float32 (trials, epochs); NaN for epochs not yet trained.
        trainable, non_trainable, optimizer: Arrays (trials, ...) in the order of Keras's variables.
        best: Weights of each trial's best epoch, arrays (trials, ...); empty if they are not kept.
        ended: Which trials need no more epochs, bool (trials,); None if it is those that have
            trained all epochs.
        engine: The engine that trained them; with another, numbers may differ in their last bits.
    """

    pack_id: str
    trial_ids: tuple[str, ...]
    epochs: npt.NDArray[np.int64]
    history: Mapping[str, npt.NDArray[np.float32]]
    trainable: tuple[npt.NDArray[np.generic], ...]
    non_trainable: tuple[npt.NDArray[np.generic], ...]
    optimizer: tuple[npt.NDArray[np.generic], ...]
    best: tuple[npt.NDArray[np.generic], ...] = ()
    ended: npt.NDArray[np.bool_] | None = None
    engine: str = ""

    def of_trials(self, trial_ids: Sequence[str]) -> "Checkpoint":
        """The checkpoint of some trials, in the given order; unknown trials have 0 epochs."""
        rows_by_id = {trial_id: row for row, trial_id in enumerate(self.trial_ids)}
        rows = np.array([rows_by_id.get(trial_id, 0) for trial_id in trial_ids])
        is_known = np.array([trial_id in rows_by_id for trial_id in trial_ids])
        return replace(
            self,
            trial_ids=tuple(trial_ids),
            epochs=np.where(is_known, self.epochs[rows], 0),
            history={name: values[rows] for name, values in self.history.items()},
            trainable=tuple(array[rows] for array in self.trainable),
            non_trainable=tuple(array[rows] for array in self.non_trainable),
            optimizer=tuple(array[rows] for array in self.optimizer),
            best=tuple(array[rows] for array in self.best),
            ended=None if self.ended is None else is_known & self.ended[rows],
        )

    def up_to(self, last_epoch: int) -> "Checkpoint":
        """The checkpoint without what was trained beyond an epoch: such trials have 0 epochs."""
        within = self.epochs <= last_epoch
        ended = None if self.ended is None else within & self.ended
        return replace(self, epochs=np.where(within, self.epochs, 0), ended=ended)


@dataclass(frozen=True, slots=True)
class PackResult:
    """The result of one pack.

    Attributes:
        pack_id: The pack.
        trials: One result per trial of the pack, in the pack's order.
        best_states: variant_id -> state of the variant's best trial of this pack on validation.
        class_names: Names of the classes; empty if the data has none.
        feature_names: Names of the input columns; empty if the data gives none.
        model_task: The task of the built model and its reason, as text; empty if none was built.
        is_compiled_by_builder: Whether loss, metrics and optimizer are the builder's own.
        reason: Why this engine was used, if another could not be, and what is to be known of its
            numbers; mostly empty for `fused`.
        timings_s: Stage, e.g. `data`, `build`, `compile`, `train` -> seconds of wall time.
        is_input_error: Whether all trials failed because the user's input is wrong.
        is_resumed: Whether it went on from a checkpoint, so that its times are those of a part.
    """

    pack_id: str
    trials: tuple[TrialResult, ...]
    best_states: Mapping[str, TrialState] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    feature_names: tuple[str, ...] = ()
    reason: str = ""
    model_task: str = ""
    is_compiled_by_builder: bool = False
    timings_s: Mapping[str, float] = field(default_factory=dict)
    is_input_error: bool = False
    is_resumed: bool = False

    @property
    def has_failures(self) -> bool:
        """Whether a trial of the pack failed."""
        return any(trial.status == "failed" for trial in self.trials)


@dataclass(frozen=True, slots=True)
class Output:
    """What a pack's process wrote to its standard output and error.

    Attributes:
        pack_id: The pack.
        attempt: The attempt of the pack.
        text: What it wrote; of very much, the beginning and the end.
    """

    pack_id: str
    attempt: int
    text: str


@dataclass(frozen=True, slots=True)
class PackStart:
    """A pack whose training begins on a worker.

    Attributes:
        pack_id: The pack.
        num_trials: How many trials it has.
        last_epoch: The epoch after which they are paused or end.
        attempt: 0 for the first try.
        node: Name of the machine.
        device: E.g. `CPU`, `GPU 0`.
        num_waiting: How many packs wait for a device then.
        variants: Variant -> how many of its trials the pack has.
    """

    pack_id: str
    num_trials: int
    last_epoch: int
    attempt: int
    node: str
    device: str
    num_waiting: int
    variants: Mapping[str, int]


class SoFar(NamedTuple):
    """What trials of one variant have come to while they are trained; may be added up over packs.

    Attributes:
        num_trials: How many trials.
        num_epochs: Epochs trained, summed over them.
        num_finite: How many of them have a finite value of the selection metric.
        total: The sum of these values, each of its trial's newest epoch.
    """

    num_trials: int
    num_epochs: int
    num_finite: int
    total: float

    def plus(self, other: "SoFar") -> "SoFar":
        """These trials and others of the variant."""
        return SoFar(
            self.num_trials + other.num_trials,
            self.num_epochs + other.num_epochs,
            self.num_finite + other.num_finite,
            self.total + other.total,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress that a pack reports while it is trained.

    Attributes:
        pack_id: The pack.
        epochs_done: Epochs trained so far, summed over the pack's trials; a trial that stopped
            early counts as if it had trained all of its epochs.
        best: Best value of the selection metric among the pack's trials at their last epoch.
        engine: The engine that trains it.
        variants: Variant -> what its trials in the pack have come to; None in most heartbeats.
    """

    pack_id: str
    epochs_done: int
    best: float | None = None
    engine: str = ""
    variants: Mapping[str, SoFar] | None = None
