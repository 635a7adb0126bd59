"""Chooses the engine that trains a pack: the first that can, or the fastest if measuring can pay.

Small dense models are always fastest with `fused`: their thousands of operations take less time
than starting them does. Where one step of one trial is much work by itself, as in a recurrent net
or a large convolution, another engine may win, and measuring takes little time compared with the
training. Where the training is short and compiling is long, as for recurrent nets, the time to
compile decides. On a CPU, `model.fit` wins for large convolutions.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import keras
import tensorflow as tf

from trialrun.data.arrays import is_text, leaves
from trialrun.data.splits import Splits, steps_per_epoch
from trialrun.errors import CannotFuse, CannotShare, InputError, ModelError
from trialrun.job import TrainingSpec
from trialrun.job.user_code.functions import portable_reference
from trialrun.training.compilation_cache.measured import keep_seconds, read_seconds
from trialrun.training.compiled.prepare import (
    PreparedPack,
    compiling,
    fitted_to_memory,
    prepare,
)
from trialrun.training.devices import free_memory_bytes
from trialrun.training.internals import keras_model
from trialrun.training.model.initial import build_compiled
from trialrun.training.pack_data import PackData
from trialrun.training.process_settings import settings_in_force
from trialrun.training.program.memory import traffic_bytes
from trialrun.training.program.program import CompiledEngine
from trialrun.training.program.trial_stream import draws_in_a_step
from trialrun.training.program.verify import first_batches
from trialrun.trials.task import PackTask

_COMPILED_ENGINES: tuple[CompiledEngine, ...] = ("fused", "mapped")  # tried in this order
Reasons = dict[str, list[str]]  # reason -> the engines that it rules out

# Bytes that the operations of one trial's step write. Below this, nothing is faster than `fused`.
_MIN_BYTES_PER_STEP = 200_000
# Longer than it takes to compile a step once more.
_MIN_SECONDS = 20.0
# The least that one core writes in such steps; 4e9 to 8e9 were measured for convolutions and LSTM.
# A low guess is the better one: it measures more often, and to measure takes less time than to
# compile the whole fused program of such a step.
_BYTES_PER_SECOND = 1e9
# What compilation costs, in seconds of one core: about 3 for the loop of a recurrent cell,
# however long it is. A step of `model.fit` takes 2 to 4 ms for a small model: that is Keras's
# overhead.
_SECONDS_PER_RECURRENT_CELL = 3.0
_SECONDS_PER_STEP_OF_FIT = 0.003
_MOST_RECURRENT_CELLS = 30  # where `fit` takes longer than compiling so many, none are counted
_NUM_REPEATS = 3
_LONG_ENOUGH_S = 2.0  # a total time that is long enough to be measured well
_CLEARLY = 0.9  # a time below this share of another is clearly shorter, not just noise


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """An engine for a pack.

    Attributes:
        engine: `fused`, `mapped` or `keras`.
        reason: Why no better engine is used, and what is to be known of its numbers; empty if there
            is nothing to say.
        prepared: The pack, ready for this engine; None for `keras`.
        reasons: The reasons against the engines that were ruled out.
    """

    engine: str
    reason: str
    prepared: PreparedPack | None
    reasons: Reasons


def choose_engine(task: PackTask, data: PackData, timings_s: dict[str, float]) -> Choice:
    """The engine for a pack, with the pack prepared for it.

    A pack that continues from a checkpoint stays with the engine that wrote the checkpoint.

    Args:
        task: The pack.
        data: Its data.
        timings_s: Gets seconds of wall time under `build`, `trace` and, if engines were measured,
            `measure`.

    Raises:
        ModelError: The engine that the job asks for is not possible.
        CannotShare: The trials differ in a number that no program can be given.
        OutOfMemory: So many trials do not fit.
    """
    training, reasons = _training(task), Reasons()
    if reason := _why_only_keras(training, data):
        if training.engine in _COMPILED_ENGINES:
            raise ModelError(f"training.engine: {training.engine} is not possible: {reason}")
        reasons = {reason: list(_COMPILED_ENGINES)}
    elif _wanted_engine(task) == "auto":
        reasons = _not_worth_compiling(task, data)
    return _first_possible(task, data, timings_s, reasons)


def choose_next_engine(
    choice: Choice, error: CannotFuse, data: PackData, timings_s: dict[str, float]
) -> Choice:
    """The engine for a pack after the chosen one has turned out not to be possible.

    Args:
        choice: What was chosen, a compiled engine.
        error: Why it is not possible.
        data: The data of the pack.
        timings_s: As for `choose_engine`.

    Raises:
        ModelError: The job asks for the engine that is not possible.
        CannotShare: See `choose_engine`.
        OutOfMemory: See `choose_engine`.
    """
    assert choice.prepared is not None, "model.fit does not fail with CannotFuse"
    task = choice.prepared.task
    reasons = _reasons_after(error, choice.engine, choice.reasons, _training(task))
    return _first_possible(task, data, timings_s, reasons)


def _first_possible(
    task: PackTask, data: PackData, timings_s: dict[str, float], reasons: Reasons
) -> Choice:
    """The first engine that can train a pack, of those that no reason rules out."""
    training, wanted = _training(task), _wanted_engine(task)
    tried = {engine for engines in reasons.values() for engine in engines}
    for engine in _COMPILED_ENGINES:
        if engine in tried or wanted not in ("auto", engine):
            continue
        try:
            prepared = prepare(task, data, engine, timings_s)
            prepared = fitted_to_memory(prepared, free_memory_bytes(), timings_s)
            reason = "; ".join(filter(None, [_join(reasons), prepared.program.note]))
            choice = Choice(engine, reason, prepared, reasons)
            if wanted == "auto" and is_worth_measuring(prepared):
                return _fastest_choice(choice, timings_s)
            return choice
        except CannotShare:
            raise
        except CannotFuse as error:
            reasons = _reasons_after(error, engine, reasons, training)
    reason = _join(reasons) or f"training.engine is {training.engine}"
    return Choice("keras", reason, None, reasons)


def _why_only_keras(training: TrainingSpec, data: PackData) -> str:
    """Why no compiled engine can train a pack, known before one is built; empty if one may."""
    if training.callbacks:
        names = ", ".join(portable_reference(reference) for reference in training.callbacks)
        return f"only model.fit calls training.callbacks ({names})"
    if data.why_streamed:
        return f"{data.why_streamed}, so model.fit reads it as a stream"
    if any(is_text(array) for _, array in leaves(data.splits[0].x_train)):
        return "an input is text, which no compiled program takes"
    return ""


def _not_worth_compiling(task: PackTask, data: PackData) -> Reasons:
    """The engines that take longer to compile a recurrent model than `fit` takes to train it."""
    trials = task.pack.trials
    training, splits = trials[0].variant.training, data.of_trial(0)
    num_steps = steps_per_epoch(splits, training.batch_size) * training.epochs * len(trials)
    fit_s = num_steps * _SECONDS_PER_STEP_OF_FIT
    if fit_s > _MOST_RECURRENT_CELLS * _SECONDS_PER_RECURRENT_CELL:
        return {}
    try:
        model = build_compiled(trials[0].variant, task.job_folder, splits, trials[0].seed)
    except InputError as error:
        raise ModelError(str(error)) from error
    reasons = engines_not_worth_compiling(keras_model.num_recurrent_cells(model), num_steps)
    # How many trials a pack has must not decide which numbers they draw.
    return {} if reasons and _draws_from_tensorflow(model, splits, training) else reasons


def _draws_from_tensorflow(model: keras.Model, splits: Splits, training: TrainingSpec) -> bool:
    batch = keras.tree.map_structure(
        lambda rows: tf.constant(rows[: training.batch_size]), splits.part("train")
    )
    with settings_in_force(model):
        return draws_in_a_step(model, batch)


def engines_not_worth_compiling(num_cells: int, num_steps: int) -> Reasons:
    """Why engines are ruled out because compiling takes most of the time; empty if it does not.

    Counts decide this, not measurements, so that a job uses the same engine wherever it runs.

    Args:
        num_cells: Number of the model's recurrent cells.
        num_steps: Number of training steps of all trials of the pack.

    >>> engines_not_worth_compiling(num_cells=2, num_steps=10_000)
    {}
    """
    compile_s = num_cells * _SECONDS_PER_RECURRENT_CELL
    if compile_s <= num_steps * _SECONDS_PER_STEP_OF_FIT:
        return {}
    cells = "a recurrent cell takes" if num_cells == 1 else f"{num_cells} recurrent cells take"
    reason = (
        f"{cells} longer to compile (about {compile_s:.0f} s) than model.fit takes for the"
        f" training's {num_steps} steps"
    )
    return {reason: list(_COMPILED_ENGINES)}


def _fastest_choice(first: Choice, timings_s: dict[str, float]) -> Choice:
    """The fastest engine for a pack that a compiled engine can train.

    What was measured on this machine for the same program is not measured again.

    Args:
        first: The first engine that can train it.
        timings_s: Gets seconds of wall time under `measure`.

    Raises:
        CannotFuse: The first engine turns out not to be able to.
    """
    begin, prepared = time.perf_counter(), first.prepared
    assert prepared is not None
    name = f"{prepared.program.name} {first.engine} {prepared.width} {prepared.num_active}"
    seconds = read_seconds(name)
    if not seconds:
        seconds = _measure(prepared)
        keep_seconds(name, seconds)
    timings_s["measure"] = time.perf_counter() - begin
    fastest = min(seconds, key=lambda engine: seconds[engine])
    if not is_clearly_faster(seconds[fastest], seconds[first.engine]):
        return first
    other: PreparedPack | None = None
    if fastest == "mapped":
        try:
            other = prepare(prepared.task, prepared.data, "mapped", {})
        except CannotFuse:
            return first
    reason = (
        f"{fastest} is faster: {seconds[fastest] * 1e6:,.0f} us per step and trial,"
        f" {first.engine} {seconds[first.engine] * 1e6:,.0f} us"
    )
    reason = "; ".join(filter(None, [first.reason, reason]))
    return Choice(fastest, reason, other, first.reasons)


def _measure(prepared: PreparedPack) -> dict[str, float]:
    """Engine -> seconds per step and trial, of an engine that can train a pack, and of others."""
    prepared.verify()
    seconds: dict[str, float] = {prepared.engine: seconds_per_step(prepared)}
    if not prepared.program.note:  # else `fit` would draw other numbers, where it is faster
        seconds["keras"] = seconds_per_step_of_keras(prepared)
    if prepared.engine == "fused":
        with contextlib.suppress(CannotFuse):
            mapped = prepare(prepared.task, prepared.data, "mapped", {})
            mapped.verify()
            seconds["mapped"] = seconds_per_step(mapped)
    return seconds


def _training(task: PackTask) -> TrainingSpec:
    return task.pack.trials[0].variant.training


def _wanted_engine(task: PackTask) -> str:
    """The engine that the job asks for, or that wrote the checkpoint; else `auto`."""
    engine = _training(task).engine
    if engine != "auto" or task.checkpoint is None:
        return engine
    return task.checkpoint.engine or "auto"


def _reasons_after(
    error: CannotFuse, engine: str, reasons: Reasons, training: TrainingSpec
) -> Reasons:
    """The reasons, with the one against an engine that has failed.

    Raises:
        ModelError: The job asks for this engine, so no other may train its trials.
    """
    if training.engine == engine:
        raise ModelError(f"training.engine: {engine} is not possible: {error}") from error
    return {**reasons, str(error): [*reasons.get(str(error), ()), engine]}


def _join(reasons: Reasons) -> str:
    return "; ".join(f"not {' or '.join(engines)}: {reason}" for reason, engines in reasons.items())


def is_worth_measuring(prepared: PreparedPack) -> bool:
    """Whether another engine may be faster, and the training is long enough for that to matter."""
    own, training = prepared.slices[0], _training(prepared.task)
    num_trials, num_rows = len(prepared.task.pack.trials), own.order_shape[1]
    width = prepared.width if prepared.engine == "fused" else 1
    per_step = traffic_bytes(prepared.program.step_function) / width
    num_steps = math.ceil(num_rows / training.batch_size) * training.epochs
    expected_s = num_steps * num_trials * per_step / _BYTES_PER_SECOND / prepared.task.num_threads
    return per_step > _MIN_BYTES_PER_STEP and expected_s > _MIN_SECONDS


def seconds_per_step(prepared: PreparedPack) -> float:
    """Seconds of wall time per step and trial, while every thread trains a slice of its own.

    Raises:
        CannotFuse: XLA cannot compile it.
    """
    own = prepared.slices[0]
    with compiling(prepared.program):
        seconds = _fastest(prepared.program.compile_step(own))
    width = prepared.width if prepared.engine == "fused" else 1
    return seconds / width / prepared.num_active


def seconds_per_step_of_keras(prepared: PreparedPack) -> float:
    """Seconds of wall time of a step in plain Keras, which trains one trial with all threads."""
    model, own = prepared.plain_model(0), prepared.slices[0]
    batch_size = prepared.task.pack.trials[0].variant.training.batch_size
    batch = first_batches(own.train, batch_size, slice(0, 1), len(own.indices), own.is_shared)[0]
    return _fastest(keras_model.make_step_of_fit(model, batch))


def _fastest(step: Callable[[], None]) -> float:
    step()  # compiles
    times: list[float] = []
    while len(times) < _NUM_REPEATS and sum(times) < _LONG_ENOUGH_S:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times)


def is_clearly_faster(seconds: float, than: float) -> bool:
    """Whether a measured time is shorter than another by more than their noise."""
    return seconds < _CLEARLY * than
