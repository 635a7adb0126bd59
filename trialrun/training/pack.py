"""Trains one pack: data, engine, results. A Ray task calls it, but it knows nothing of Ray."""

import math
import platform
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from trialrun.data.arrays import join_outputs
from trialrun.errors import (
    CannotFuse,
    CannotShare,
    InputError,
    OutOfMemory,
    TrainingError,
    TrialrunError,
)
from trialrun.job.user_code.frames import note_frames, told
from trialrun.messages import in_short, said_by
from trialrun.training.channel import Reports
from trialrun.training.compiled.prepare import forget_programs_of_others
from trialrun.training.compiled.train import train_prepared
from trialrun.training.devices import is_out_of_memory
from trialrun.training.engine_choice import choose_engine, choose_next_engine
from trialrun.training.engine_outputs import TrainedTrial
from trialrun.training.heartbeats import reporting
from trialrun.training.keras_fit.fit import train_keras
from trialrun.training.pack_data import PackData, load_pack_data
from trialrun.training.scores import Classes, Judgment, classes_of, describe_task, judge
from trialrun.trials.results import (
    Checkpoint,
    PackResult,
    Progress,
    TrialResult,
    TrialState,
    TrialStatus,
)
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Trial
from trialrun.trials.versions import installed_versions


def train_pack(
    task: PackTask, device: str, should_stop: Callable[[], bool] = lambda: False
) -> Iterator[Progress | Checkpoint | PackResult]:
    """Yields heartbeats while a pack is trained, checkpoints, and at the end the pack's result.

    A trial whose data cannot be generated fails alone. An error that is raised has notes of where
    in the user's own code it was raised.

    Args:
        task: The pack.
        device: Name of the device that computes, for the trial rows.
        should_stop: Asked regularly; once it returns True, a last checkpoint follows and no result.

    Raises:
        ModelError: The model or its settings are wrong, for every trial of the pack.
        InputError: The user's data or model cannot be trained; the message says why.
        OutOfMemory: The pack is too large for its device.
        CannotShare: The trials differ in a number that no program can take as an input.
        TrainingError: User code, Keras or TensorFlow raised an error.
    """
    try:
        yield from _train_pack(task, device, Reports(should_stop))
    except TrialrunError as error:
        note_frames(error)
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemory(f"{device} is out of memory: {said_by(error)}") from error
        unexpected = TrainingError(in_short(error))
        note_frames(unexpected, error)
        raise unexpected from error


def _train_pack(
    task: PackTask, device: str, reports: Reports
) -> Iterator[Progress | Checkpoint | PackResult]:
    start = time.perf_counter()
    timings_s: dict[str, float] = {}
    data, without_data = load_pack_data(task.pack.trials, task.job_folder, task.samples)
    failed = _without_data(task, without_data)
    if len(failed) == len(task.pack.trials):
        yield PackResult(task.pack.pack_id, failed, is_input_error=True)
        return
    if failed:
        task = _only(task, [t for t in task.pack.trials if t.trial_id not in without_data])
    timings_s["data"] = time.perf_counter() - start
    engine, reason, trained = yield from choose_and_train(task, data, timings_s, reports)
    if trained is None:
        return
    evaluated = time.perf_counter()
    duration_s = (evaluated - start) / len(task.pack.trials)
    results, model_task = judge_trained(
        *(task, data, trained), engine=engine, device=device, duration_s=duration_s
    )
    timings_s["results"] = time.perf_counter() - evaluated
    yield PackResult(
        pack_id=task.pack.pack_id,
        trials=results + failed,
        best_states=_best_states(task, results, trained),
        class_names=data.splits[0].class_names,
        feature_names=data.splits[0].feature_names,
        reason=reason,
        model_task=model_task,
        is_compiled_by_builder=trained[0].is_compiled_by_builder,
        timings_s=timings_s,
        is_resumed=task.checkpoint is not None,
    )


def judge_trained(
    task: PackTask,
    data: PackData,
    trained: Sequence[TrainedTrial],
    *,
    engine: str,
    device: str,
    duration_s: float,
) -> tuple[tuple[TrialResult, ...], str]:
    """The results of the trials of a pack, and the description of the model's task."""
    model_task = trained[0].model_task
    classes = [classes_of(model_task, splits) for splits in data.splits]
    judged = [
        _judge(outcome, classes[0 if data.is_shared else i]) for i, outcome in enumerate(trained)
    ]
    results = _results(task, trained, judged, engine=engine, device=device, duration_s=duration_s)
    results = tuple(
        replace(result, data_fingerprint=data.of_trial(index).fingerprint)
        for index, result in enumerate(results)
    )
    return results, describe_task(model_task, classes)


def _results(
    task: PackTask,
    trained: Sequence[TrainedTrial],
    judged: Sequence[tuple[Judgment, Judgment]],
    *,
    engine: str,
    device: str,
    duration_s: float,
) -> tuple[TrialResult, ...]:
    return tuple(
        TrialResult(
            trial=trial,
            status=_status(outcome, task.select.metric),
            engine=engine,
            pack_id=task.pack.pack_id,
            attempt=task.attempt,
            epochs=max(map(len, outcome.history.values())),
            best_epoch=outcome.best_epoch,
            duration_s=duration_s,
            device=device,
            node=platform.node(),
            versions=installed_versions(),
            metrics=_final_metrics(outcome, test, task.select.metric),
            history=outcome.history,
            val_confusion_matrix=val.confusion_matrix,
            test_confusion_matrix=test.confusion_matrix,
            test_reliability=test.reliability,
        )
        for trial, outcome, (val, test) in zip(task.pack.trials, trained, judged, strict=True)
    )


def _without_data(task: PackTask, errors: Mapping[str, InputError]) -> tuple[TrialResult, ...]:
    return tuple(
        task.failed(trial, told(errors[trial.trial_id]))
        for trial in task.pack.trials
        if trial.trial_id in errors
    )


def _only(task: PackTask, trials: Sequence[Trial]) -> PackTask:
    """The task, reduced to some of its trials."""
    kept = task.checkpoint and task.checkpoint.of_trials([trial.trial_id for trial in trials])
    return replace(task, pack=replace(task.pack, trials=tuple(trials)), checkpoint=kept)


def choose_and_train(
    task: PackTask, data: PackData, timings_s: dict[str, float], reports: Reports
) -> Generator[Progress | Checkpoint, None, tuple[str, str, list[TrainedTrial] | None]]:
    """Returns the engine, the reason for it, and the trained trials; None for them if stopped."""
    try:
        return (yield from _choose_and_train(task, data, timings_s, reports))
    except CannotShare:
        if not forget_programs_of_others(task):
            raise  # the driver then submits the trials again, in separate packs
    return (yield from _choose_and_train(task, data, timings_s, reports.again()))


def _choose_and_train(
    task: PackTask, data: PackData, timings_s: dict[str, float], reports: Reports
) -> Generator[Progress | Checkpoint, None, tuple[str, str, list[TrainedTrial] | None]]:
    choice = choose_engine(task, data, timings_s)
    while choice.prepared is not None:
        try:
            training = train_prepared(choice.prepared, timings_s, reports)
            trained = yield from reporting(task, choice.engine, training)
            return choice.engine, choice.reason, trained
        except CannotShare:
            raise
        except CannotFuse as error:  # XLA could not compile it, or its first steps are wrong
            choice = choose_next_engine(choice, error, data, timings_s)
            reports = reports.again()
    training = train_keras(task, data, timings_s, reports)
    trained = yield from reporting(task, choice.engine, training)
    return choice.engine, choice.reason, trained


def _status(trained: TrainedTrial, selected: str) -> TrialStatus:
    """Diverged if a final loss is not finite; without losses, the selected metric decides."""
    if trained.is_paused:
        return "paused"
    return "completed" if _is_finite(trained, selected) else "diverged"


def _is_finite(trained: TrainedTrial, selected: str) -> bool:
    given = _given_epoch(trained)
    final = {name: values[given] for name, values in trained.history.items()}
    final |= {f"test_{name}": value for name, value in trained.test_logs.items()}
    losses = [value for name, value in final.items() if f"_{name}".endswith("_loss")]
    decisive = losses or [value for name, value in final.items() if name == selected]
    return bool(np.isfinite(decisive).all())


def _given_epoch(trained: TrainedTrial) -> int:
    """The index in the history of the epoch whose weights are the trial's result."""
    return -1 if trained.best_epoch is None else trained.best_epoch - 1


def _judge(trained: TrainedTrial, classes: Classes) -> tuple[Judgment, Judgment]:
    """The judgments of a trial's predictions on the validation and the test set."""
    if trained.is_paused:
        return Judgment(), Judgment()
    task, labels = trained.model_task, classes or {}
    streamed = {part: Judgment(matrix) for part, matrix in trained.streamed_matrices.items()}
    val, test = trained.val_predictions, trained.test_predictions
    return (
        streamed.get("val") or judge(task, labels.get("val"), val, with_probabilities=False),
        streamed.get("test") or judge(task, labels.get("test"), test),
    )


def _final_metrics(trained: TrainedTrial, test: Judgment, selected: str) -> dict[str, float]:
    """Values at the epoch whose weights are the result: train_*, then val_*, then test_*.

    Where a metric of the job has the name of a score of `Judgment`, the job's metric is kept. Those
    of a paused trial that would have diverged are NaN, so that it counts as lost.
    """
    given = _given_epoch(trained)
    final = {name: float(values[given]) for name, values in trained.history.items()}
    if trained.is_paused and not _is_finite(trained, selected):
        final = dict.fromkeys(final, math.nan)
    test_logs = dict(trained.test_logs)
    test_logs |= {name: value for name, value in test.scores.items() if name not in test_logs}
    return {
        **{f"train_{name}": v for name, v in final.items() if not name.startswith("val_")},
        **{name: v for name, v in final.items() if name.startswith("val_")},
        **{f"test_{name}": value for name, value in test_logs.items()},
    }


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
        test_predictions=join_outputs(trained.test_predictions),
    )
