"""The compiled engines: all trials of a pack in one XLA program, `fused` or `mapped`."""

import contextlib
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.training.channel import Reports
from trialrun.training.checkpoints import CheckpointMaker, TrialsState
from trialrun.training.compiled.controlled import ControlledSlice
from trialrun.training.compiled.prepare import PreparedPack, compiling, prepare
from trialrun.training.compiled.slices import Schedule, Slice
from trialrun.training.engine_outputs import Advance, TrainedTrial
from trialrun.training.pack_data import PackData
from trialrun.training.program.program import CompiledEngine, Program
from trialrun.training.state import ModelState
from trialrun.trials.results import Checkpoint
from trialrun.trials.task import PackTask


def train_compiled(
    task: PackTask,
    data: PackData,
    engine: CompiledEngine,
    timings_s: dict[str, float],
    reports: Reports,
) -> Generator[Advance | Checkpoint, None, list[TrainedTrial] | None]:
    """Trains a pack; yields each slice's newest logs after every call, and checkpoints.

    Args:
        task: The pack, and perhaps a checkpoint to continue from.
        data: Its data.
        engine: How the program runs its trials.
        timings_s: Gets seconds of wall time under `build`, `trace` and `train`.
        reports: What the slices report; can ask them to stop.

    Returns:
        The trained trials; None if training was stopped, after a last checkpoint.

    Raises:
        CannotFuse: No such program can be built; nothing was trained.
    """
    return (yield from train_prepared(prepare(task, data, engine, timings_s), timings_s, reports))


def train_prepared(
    prepared: PreparedPack, timings_s: dict[str, float], reports: Reports
) -> Generator[Advance | Checkpoint, None, list[TrainedTrial] | None]:
    """Trains a pack whose program is traced; see `train_compiled`."""
    start = time.perf_counter()
    known = prepared.program.compiled_widths
    outcomes = yield from _train_slices(prepared, reports)
    timings_s["train"] = time.perf_counter() - start
    # Part of `train`: the first epochs of widths that no earlier pack has compiled.
    timings_s["compile"] = prepared.program.longest_compile_s(but_for=known)
    if outcomes is None:
        return None
    by_index = {
        index: trained
        for own, outcome in zip(prepared.slices, outcomes, strict=True)
        for index, trained in zip(own.indices, outcome, strict=True)
    }
    return [by_index[index] for index in range(len(prepared.task.pack.trials))]


def _train_slices(
    prepared: PreparedPack, reports: Reports
) -> Generator[Advance | Checkpoint, None, list[list[TrainedTrial]] | None]:
    """Trains all slices in threads; compiled code does not hold Python's global lock."""
    task, program = prepared.task, prepared.program
    slices, schedule = prepared.slices, prepared.schedule
    maker = CheckpointMaker(task, prepared.engine)
    num_new = 0
    with ThreadPoolExecutor(task.num_threads, thread_name_prefix="slice") as pool:
        futures = [pool.submit(_train_slice, program, own, schedule, reports) for own in slices]
        # While the threads wait for the first epoch to be compiled, verify the program and compile
        # the evaluation.
        try:
            prepared.verify()
            with compiling(program):
                program.compile_evaluation(slices[0])
        except BaseException:
            reports.stop()
            raise
        for report in reports.drain(futures):
            if isinstance(report, Advance):
                yield report
                continue
            maker.put(report)
            num_new += 1
            if schedule.checkpoint_every and num_new >= min(task.num_threads, len(slices)):
                num_new = 0
                yield from filter(None, [maker.make()])
    outcomes = [future.result() for future in futures]
    trained = [outcome for outcome in outcomes if outcome is not None]
    is_stopped = len(trained) < len(slices)
    if is_stopped or schedule.is_pause:
        yield from filter(None, [maker.make()])
    return None if is_stopped else trained


def _train_slice(
    program: Program, own: Slice, schedule: Schedule, reports: Reports
) -> list[TrainedTrial] | None:
    """The trials of a slice, trained or paused; None if it was stopped. It reports its state."""
    if own.control is not None:
        return _train_controlled_slice(program, own, schedule, reports)
    num_trials = len(set(own.indices))
    state, history, epoch = own.state, own.history, own.epoch
    is_first_call = True

    def report_state() -> None:
        reports.put(TrialsState(own.indices, epoch, history, state))

    while epoch < schedule.epochs and not reports.stopping:
        orders = np.stack([own.orders.next_epoch() for _ in range(schedule.per_call)])
        with compiling(program) if is_first_call else contextlib.nullcontext():
            state, logs = program.train_epochs(state, own.train, tf.constant(orders), own.val)
        is_first_call = False
        epoch += schedule.per_call
        newest = {name: values.numpy().T for name, values in logs.items()}
        history = {
            name: np.concatenate([history[name], values], 1) if history else values
            for name, values in newest.items()
        }
        last = {name: values[:, -1] for name, values in newest.items()}
        reports.put(Advance(num_trials * schedule.per_call, last, own.indices, epoch))
        if schedule.checkpoint_every and epoch % schedule.checkpoint_every == 0:
            report_state()
    if epoch == schedule.epochs > own.epoch and not schedule.is_pause:
        state = program.finalize(state)
    if epoch:
        report_state()
    if epoch < schedule.epochs:
        return None
    if schedule.is_pause:
        return [_paused(own, history, index) for index in range(len(own.indices))]
    return _evaluate(program, own, state, history)


def _train_controlled_slice(
    program: Program, own: Slice, schedule: Schedule, reports: Reports
) -> list[TrainedTrial] | None:
    """Like `_train_slice`, for trials that may stop early."""
    controlled = ControlledSlice(program, own)
    is_first_call = True
    control = controlled.control
    while controlled.goes_on and not reports.stopping:
        with compiling(program) if is_first_call else contextlib.nullcontext():
            reports.put(controlled.train_epoch())
        is_first_call = False
        if schedule.checkpoint_every and controlled.epoch % schedule.checkpoint_every == 0:
            reports.put(controlled.standing())
    if controlled.epoch:
        reports.put(controlled.standing())
    if controlled.goes_on:
        return None
    trained = [_paused(own, controlled.history, index) for index in range(len(own.indices))]
    if not control.active.all():
        evaluated = _evaluate(program, own, controlled.given_state(), controlled.history)
        pairs = zip(trained, evaluated, strict=True)
        trained = [
            paused if is_active else ended
            for is_active, (paused, ended) in zip(control.active, pairs, strict=True)
        ]
    return [
        replace(
            outcome,
            history={name: values[:epochs] for name, values in outcome.history.items()},
            best_epoch=int(best_epoch) or None,
        )
        for outcome, epochs, best_epoch in zip(
            trained, control.epochs, control.best_epochs, strict=True
        )
    ]


def _paused(own: Slice, history: dict[str, npt.NDArray[np.float32]], index: int) -> TrainedTrial:
    """A trial of a slice whose training is not over."""
    return TrainedTrial(
        history={name: values[index] for name, values in history.items()},
        model_task=own.model_task,
        is_paused=True,
        is_compiled_by_builder=own.is_compiled_by_builder,
    )


def _evaluate(
    program: Program,
    own: Slice,
    state: ModelState,
    history: dict[str, npt.NDArray[np.float32]],
) -> list[TrainedTrial]:
    val_predictions, test_logs, test_predictions = keras.tree.map_structure(
        lambda tensor: tensor.numpy(), program.evaluate(state, own.val, own.test)
    )
    stacked = TrainedTrial(
        history=history,
        test_logs=test_logs,
        val_predictions=val_predictions,
        test_predictions=test_predictions,
        trainable=tuple(tensor.numpy() for tensor in state.trainable),
        non_trainable=tuple(tensor.numpy() for tensor in state.non_trainable),
        optimizer=tuple(tensor.numpy() for tensor in state.optimizer[: own.num_optimizer]),
        model_task=own.model_task,
        is_compiled_by_builder=own.is_compiled_by_builder,
    )
    return [_take_trial(stacked, index) for index in range(len(own.indices))]


def _take_trial(stacked: TrainedTrial, index: int) -> TrainedTrial:
    """One trial of several whose arrays are stacked on axis 0."""

    def take(structure: Any) -> Any:
        return keras.tree.map_structure(lambda array: array[index], structure)

    return TrainedTrial(
        history=take(stacked.history),
        test_logs={name: float(value) for name, value in take(stacked.test_logs).items()},
        val_predictions=take(stacked.val_predictions),
        test_predictions=take(stacked.test_predictions),
        trainable=take(stacked.trainable),
        non_trainable=take(stacked.non_trainable),
        optimizer=take(stacked.optimizer),
        model_task=stacked.model_task,
        is_compiled_by_builder=stacked.is_compiled_by_builder,
    )
