"""Prepares a pack for a compiled engine: traces its program and sets its trials to their start."""

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import keras
import tensorflow as tf

from trialrun.errors import CannotFuse, CannotShare, InputError, OutOfMemory
from trialrun.messages import bytes_text
from trialrun.training.compiled.program_cache import ProgramCache, form_of
from trialrun.training.compiled.slices import MOST_ON_CPU, Schedule, Slice, cut_slices
from trialrun.training.devices import is_out_of_memory
from trialrun.training.model.initial import build_compiled
from trialrun.training.pack_data import PackData
from trialrun.training.program.memory import tensor_bytes
from trialrun.training.program.program import CompiledEngine, Program
from trialrun.training.program.reasons import short_reason
from trialrun.training.program.traced_number import guilty_paths
from trialrun.trials.packing import SHARE_OF_FREE, trials_that_fit
from trialrun.trials.task import PackTask

_MAX_PROGRAMS_KEPT = 4


@dataclass(frozen=True, slots=True, eq=False)
class PreparedPack:
    """What an engine needs to train a pack.

    Attributes:
        task: The pack.
        data: The data of its trials.
        engine: How the program runs the trials.
        program: The program, traced for the slices.
        traced_seed: The seed of the model that the program was traced from.
        slices: The slices of the pack, all of one width.
        schedule: How many epochs each call trains, and when checkpoints are made.
    """

    task: PackTask
    data: PackData
    engine: CompiledEngine
    program: Program
    traced_seed: int
    slices: list[Slice]
    schedule: Schedule

    @property
    def width(self) -> int:
        """How many trials each slice has; the last may be one trial again and again."""
        return len(self.slices[0].indices)

    @property
    def num_active(self) -> int:
        """How many slices are trained at the same time."""
        return min(self.task.num_threads, len(self.slices))

    def verify(self) -> None:
        """Raises CannotFuse if the first steps are not those of plain Keras; once per program."""
        trials = self.task.pack.trials
        if trials[0].variant.training.check_engine and not self.program.is_verified:
            other_seeds = {i for i, trial in enumerate(trials) if trial.seed != self.traced_seed}
            self.program.verify(self.slices, self.plain_model, other_seeds)

    def plain_model(self, index: int) -> keras.Model:
        """The model of a trial, ready for its first step in plain Keras."""
        trial, splits = self.task.pack.trials[index], self.data.of_trial(index)
        return build_compiled(trial.variant, self.task.job_folder, splits, trial.seed)


def forget_programs_of_others(task: PackTask) -> bool:
    """Forgets programs of this process; see `ProgramCache.forget_those_of_others`."""
    return _programs_of_this_process().forget_those_of_others(task)


@functools.cache
def _programs_of_this_process() -> ProgramCache:
    return ProgramCache(_MAX_PROGRAMS_KEPT)  # of one run: a worker process serves no other


def prepare(
    task: PackTask, data: PackData, engine: CompiledEngine, timings_s: dict[str, float]
) -> PreparedPack:
    """Builds the model of a pack, traces its program, and sets its trials to their start.

    Args:
        task: The pack, and perhaps a checkpoint to continue from.
        data: Its data.
        engine: How the program is to run its trials.
        timings_s: Gets seconds of wall time under `build` and `trace`.

    Raises:
        CannotFuse: No such program can be built.
        CannotShare: The trials differ in a number that the program cannot take as an input.
    """
    trials = task.pack.trials
    if len({form_of(splits) for splits in data.splits}) > 1:
        raise CannotFuse("the trials' data differ in shape")
    start = time.perf_counter()
    built = _programs_of_this_process().get(task, data, engine)
    for splits in data.splits:
        built.compiled.check_data(splits)
    numbers = built.numbers_of([trial.variant for trial in trials])
    slices = [Slice(built.compiled, task, data, indices, numbers) for indices in cut_slices(task)]
    schedule = Schedule.of(task)
    timings_s["build"] = time.perf_counter() - start
    _trace(built.program, slices[0], schedule)
    for trial_numbers in numbers:
        built.program.check_numbers(trial_numbers)
    timings_s["trace"] = time.perf_counter() - start - timings_s["build"]
    return PreparedPack(task, data, engine, built.program, built.seed, slices, schedule)


def _trace(program: Program, first: Slice, schedule: Schedule) -> None:
    orders = tf.zeros([schedule.per_call, *first.order_shape], tf.int32)
    try:
        program.trace_epochs(first.state, first.train, orders, first.val)
    except CannotShare as error:
        raise CannotShare.of(
            short_reason(error, program.keras_model), guilty_paths(error)
        ) from error
    except InputError:
        raise
    except Exception as error:  # Keras and TensorFlow may raise anything while they trace
        if is_out_of_memory(error):
            raise
        raise CannotFuse(short_reason(error, program.keras_model)) from error


@contextlib.contextmanager
def compiling(program: Program) -> Iterator[None]:
    """Turns an error of XLA's compiler into CannotFuse; to be put around a program's first call."""
    try:
        yield
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
        raise CannotFuse(short_reason(error, program.keras_model)) from error


def required_bytes(prepared: "PreparedPack") -> tuple[int, int]:
    """Bytes that a pack needs on its device, and bytes that each further trial would take."""
    shared, held, computed = _bytes_of_parts(prepared)
    num_rows = sum(len(own.indices) for own in prepared.slices)  # repeated trials included
    return shared + held + computed, (held + computed) // num_rows


def _bytes_of_parts(prepared: "PreparedPack") -> tuple[int, int, int]:
    """Bytes of data that all trials share, of what all slices hold, and of those in training.

    All slices hold their trials' state and data; those that are being trained also need memory for
    the computation.
    """
    own, num_slices = prepared.slices[0], len(prepared.slices)
    peak, inputs = prepared.program.memory_bytes(prepared.width)
    shared = sum(map(tensor_bytes, tf.nest.flatten((own.train, own.val)))) if own.is_shared else 0
    return shared, (inputs - shared) * num_slices, (peak - inputs) * prepared.num_active


def fitted_to_memory(
    prepared: "PreparedPack", free_bytes: int, timings_s: dict[str, float]
) -> "PreparedPack":
    """The pack with slices that are so narrow that it needs no more memory than is free.

    Slices as wide as on a CPU are not made narrower: then fewer trials must do.

    Args:
        prepared: The pack.
        free_bytes: What is free on its device.
        timings_s: As for `prepare`.

    Raises:
        OutOfMemory: So many trials do not fit; says how many do.
    """
    task, width = prepared.task, prepared.width
    shared, held, computed = _bytes_of_parts(prepared)
    room = SHARE_OF_FREE * free_bytes - shared - held
    if task.width is None and width > MOST_ON_CPU and computed > room:
        num_trials = len(task.pack.trials)
        num_slices = -(-num_trials // max(MOST_ON_CPU, int(width * room / computed)))
        task = replace(task, width=-(-num_trials // num_slices))
        prepared = prepare(task, prepared.data, prepared.engine, timings_s)
    require_device_memory(prepared, free_bytes)
    return prepared


def require_device_memory(prepared: "PreparedPack", free_bytes: int) -> None:
    """Refuses a pack that needs more than is free; a single trial is always tried.

    Raises:
        OutOfMemory: Says how many trials fit.
    """
    num_trials = len(prepared.task.pack.trials)
    needed, per_trial = required_bytes(prepared)
    num_rows = sum(len(own.indices) for own in prepared.slices)  # repeated trials included
    fit = trials_that_fit(needed, per_trial, num_rows, free_bytes)
    if fit is None or num_trials == 1:
        return
    raise OutOfMemory(
        f"{num_trials} trials need about {bytes_text(needed)}, {bytes_text(per_trial)} each, and"
        f" {bytes_text(free_bytes)} are free",
        max_trials=min(fit, num_trials - 1),
    )
