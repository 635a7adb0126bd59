"""The values that come back from training: plain data that can be pickled, printed and saved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from trialrun.plan import Trial

# The kinds of variables of a model: fields of `Checkpoint` and `TrialState`.
STATE_GROUPS = ("trainable", "non_trainable", "optimizer")

Status = Literal["completed", "diverged", "failed"]


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What one trial gave.

    Attributes:
        trial: The trial.
        status: `completed`; `diverged` (a loss is not finite, or what is
            selected by, of a model that logs no loss); `failed` (`error` says why).
        engine: `fused`, `mapped` or `keras`; empty for a failed trial that was never trained.
        pack_id: The pack it was trained in.
        attempt: 0 for the first try of its pack, then 1, 2, ...
        epochs: Epochs trained.
        best_epoch: The epoch, from 1, whose weights the trial gives; None unless it keeps its best.
        duration_s: Seconds of wall time of its pack's training divided by the pack's trials.
        device: e.g. `CPU`, `GPU 0: NVIDIA A100`.
        node: Name of the machine.
        error: Reason of a failure, else empty.
        metrics: `train_loss`, `val_accuracy`, `test_loss`, ...: values at the final epoch, or
            at the best one where that is given.
        history: `loss`, `accuracy`, `val_loss`, ...: float32 arrays (epochs,).
        val_confusion_matrix: int64 (classes, classes), rows = true class; None for no classifier.
        test_confusion_matrix: The same on the test set.
        test_reliability: float64 (bins, 3) of the test set, see `statistics.probabilities`; None
            for a model that gives no probabilities.
    """

    trial: Trial
    status: Status
    engine: str
    pack_id: str
    attempt: int
    epochs: int = 0
    best_epoch: int | None = None
    duration_s: float = 0.0
    device: str = ""
    node: str = ""
    error: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    val_confusion_matrix: npt.NDArray[np.int64] | None = None
    test_confusion_matrix: npt.NDArray[np.int64] | None = None
    test_reliability: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class TrialState:
    """All that a trained model is: the arrays of one trial, in the order of Keras's variables.

    Attributes:
        trial_id: Whose state it is.
        seed: The trial's seed.
        trainable: `model.trainable_variables`.
        non_trainable: `model.non_trainable_variables`.
        optimizer: `model.optimizer.variables`.
        test_predictions: (rows, ...) of the trained trial on the test set, or on its first rows
            where it is streamed; those of several outputs side by side.
    """

    trial_id: str
    seed: int
    trainable: tuple[npt.NDArray[np.generic], ...]
    non_trainable: tuple[npt.NDArray[np.generic], ...]
    optimizer: tuple[npt.NDArray[np.generic], ...]
    test_predictions: npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Where the trials of a pack stand: all that is needed to go on from there.

    Random streams need no place of their own: dropout's are among the non-trainable variables, and
    batch orders follow from the seed and the epoch. What controls a trial between epochs follows
    from its history.

    Attributes:
        pack_id: The pack.
        trial_ids: (trials,) its trials.
        epochs: int64 (trials,) epochs trained. Where it is 0, the arrays below mean nothing.
        history: Keras's log names -> float32 (trials, epochs); NaN where not trained yet.
        trainable, non_trainable, optimizer: Arrays (trials, ...) in the order of Keras's variables.
        best: Arrays (trials, ...) of the weights of each trial's best epoch; empty if none is kept.
        ended: bool (trials,) which trials need no more epochs; None if those that have had all.
        engine: That trained them; another's numbers may differ in their last bits.
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
        """The rows of some trials, in the order given; one that it does not know has not begun."""
        places = {trial_id: place for place, trial_id in enumerate(self.trial_ids)}
        rows = np.array([places.get(trial_id, 0) for trial_id in trial_ids])
        is_known = np.array([trial_id in places for trial_id in trial_ids])
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


@dataclass(frozen=True, slots=True)
class PackResult:
    """What one pack gave.

    Attributes:
        pack_id: The pack.
        trials: One result per trial of the pack, in the pack's order.
        best_states: variant_id -> state of the variant's best trial of this pack on validation.
        class_names: Names of the classes; empty when the data has none.
        feature_names: Names of the input columns; empty when the data gives none.
        model_task: What the built model is and why, as text; empty if none was built.
        is_compiled_by_builder: Whether loss, metrics and optimizer are the builder's own.
        reason: Why this engine: empty for `fused`, else what stood in the way of the others.
        timings_s: Seconds of wall time by stage, e.g. `data`, `build`, `compile`, `train`.
        is_input_error: Whether all trials failed because the user's input is wrong.
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


@dataclass(frozen=True, slots=True)
class Progress:
    """A pack's sign of life.

    Attributes:
        pack_id: The pack.
        epochs_done: Sum over the pack's trials of epochs trained so far; a trial that stopped early
            counts as if it had trained them all.
        best: Best value of the selection metric among the pack's trials at their last epoch.
    """

    pack_id: str
    epochs_done: int
    best: float | None = None
