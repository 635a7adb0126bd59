"""Trains one pack: data, engine, results. What a Ray task runs; knows nothing of Ray."""

import math
import platform
import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.errors import CannotFuse, InputError
from trialrun.plan import Trial
from trialrun.results import PackResult, Progress, Status, TrialResult, TrialState
from trialrun.training import PackTask
from trialrun.training.fused import train_fused
from trialrun.training.keras_fit import train_keras
from trialrun.training.trained import Advance, PackData, TrainedTrial, load_pack_data

_PROGRESS_INTERVAL_S = 0.2


def train_pack(task: PackTask, device: str) -> Iterator[Progress | PackResult]:
    """Signs of life while a pack is trained, and at the end what it gave.

    Args:
        task: The pack.
        device: Name of the device that computes, for the trial rows.

    Raises:
        InputError: The user's data, model or settings cannot be trained; says why.
    """
    start = time.perf_counter()
    timings_s: dict[str, float] = {}
    trials = task.pack.trials
    data = load_pack_data(trials, task.job_folder)
    timings_s["data"] = time.perf_counter() - start
    engine, reason, trained = yield from _train(task, data, timings_s)
    evaluated = time.perf_counter()
    duration_s = (evaluated - start) / len(trials)
    results = tuple(
        TrialResult(
            trial=trial,
            status=_status(outcome),
            engine=engine,
            pack_id=task.pack.pack_id,
            attempt=task.attempt,
            epochs=trial.variant.training.epochs,
            duration_s=duration_s,
            device=device,
            node=platform.node(),
            metrics=_final_metrics(outcome),
            history=outcome.history,
            val_confusion_matrix=_confusion(data.of_trial(i).y_val, outcome.val_predictions),
            test_confusion_matrix=_confusion(data.of_trial(i).y_test, outcome.test_predictions),
        )
        for i, (trial, outcome) in enumerate(zip(trials, trained, strict=True))
    )
    timings_s["results"] = time.perf_counter() - evaluated
    yield PackResult(
        pack_id=task.pack.pack_id,
        trials=results,
        best_states=_best_states(task, results, trained),
        class_names=data.splits[0].class_names,
        feature_names=data.splits[0].feature_names,
        reason=reason,
        timings_s=timings_s,
    )


def _train(
    task: PackTask, data: PackData, timings_s: dict[str, float]
) -> Generator[Progress, None, tuple[str, str, list[TrainedTrial]]]:
    """Engine, the reason for it, and the trained trials."""
    wanted = task.pack.trials[0].variant.training.engine
    reason = "training.engine is keras"
    if wanted != "keras":
        try:
            return "fused", "", (yield from _reporting(task, train_fused(task, data, timings_s)))
        except CannotFuse as error:
            if wanted == "fused":
                raise InputError(f"training.engine: fused is not possible: {error}") from error
            reason = str(error)
    return "keras", reason, (yield from _reporting(task, train_keras(task, data, timings_s)))


def _reporting(
    task: PackTask, engine: Generator[Advance, None, list[TrainedTrial]]
) -> Generator[Progress, None, list[TrainedTrial]]:
    """Turns an engine's advances into signs of life, not more often than a person can read."""
    pick = max if task.select.goal == "maximize" else min
    epochs_done, last_sign = 0, 0.0
    best: float | None = None
    while True:
        try:
            advance = next(engine)
        except StopIteration as end:
            return end.value
        epochs_done += advance.num_epochs
        values = advance.logs.get(task.select.metric, np.empty(0))
        finite = [float(value) for value in values if np.isfinite(value)]
        best = pick([*finite, *([] if best is None else [best])], default=None)
        if time.perf_counter() - last_sign >= _PROGRESS_INTERVAL_S:
            last_sign = time.perf_counter()
            yield Progress(task.pack.pack_id, epochs_done, best)


def _status(trained: TrainedTrial) -> Status:
    losses = (trained.history["loss"][-1], trained.history["val_loss"][-1])
    return "completed" if np.isfinite([*losses, trained.test_logs["loss"]]).all() else "diverged"


def _final_metrics(trained: TrainedTrial) -> dict[str, float]:
    """Values after the last epoch: train_*, then val_*, then test_*."""
    final = {name: float(values[-1]) for name, values in trained.history.items()}
    return {
        **{f"train_{name}": v for name, v in final.items() if not name.startswith("val_")},
        **{name: v for name, v in final.items() if name.startswith("val_")},
        **{f"test_{name}": value for name, value in trained.test_logs.items()},
    }


def _confusion(y: Any, predictions: Any) -> npt.NDArray[np.int64] | None:
    """The confusion matrix of a classifier, rows = true class; None for any other model.

    A classifier has integer labels and either one probability per class or, for two classes, one
    probability in a single column.
    """
    from sklearn.metrics import confusion_matrix

    is_array = isinstance(y, np.ndarray) and isinstance(predictions, np.ndarray)
    if not is_array or predictions.ndim != 2 or y.size != len(y) or y.dtype.kind not in "iu":
        return None
    if not np.isfinite(predictions).all():
        return None
    num_outputs = predictions.shape[1]
    classes = predictions.argmax(1) if num_outputs > 1 else (predictions[:, 0] > 0.5).astype(int)
    matrix: npt.NDArray[np.int64] = confusion_matrix(
        y.ravel(), classes, labels=np.arange(max(num_outputs, 2))
    )
    return matrix


def _best_states(
    task: PackTask, results: Sequence[TrialResult], trained: Sequence[TrainedTrial]
) -> dict[str, TrialState]:
    """variant_id -> the state of its best completed trial on validation, the first among equals."""
    sign = -1.0 if task.select.goal == "maximize" else 1.0
    best: dict[str, int] = {}

    def score(index: int) -> float:
        return sign * results[index].metrics.get(task.select.metric, math.inf)

    for index, result in enumerate(results):
        variant_id = result.trial.variant.variant_id
        if result.status == "completed":
            best[variant_id] = min(best.get(variant_id, index), index, key=score)
    return {
        variant_id: _state(results[index].trial, trained[index])
        for variant_id, index in best.items()
    }


def _state(trial: Trial, trained: TrainedTrial) -> TrialState:
    return TrialState(
        trial_id=trial.trial_id,
        seed=trial.seed,
        trainable=trained.trainable,
        non_trainable=trained.non_trainable,
        optimizer=trained.optimizer,
        test_predictions=np.asarray(trained.test_predictions),
    )
