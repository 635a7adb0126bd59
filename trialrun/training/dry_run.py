"""Finds out how a pack would be trained: its program is built and compiled, but not run."""

import time
from dataclasses import dataclass, replace

import tensorflow as tf

from trialrun.data.model_task import ModelTask
from trialrun.data.splits import Splits, first_rows, steps_per_epoch
from trialrun.errors import CannotFuse, CannotShare, ModelError, OutOfMemory
from trialrun.training.compiled.prepare import (
    PreparedPack,
    compiling,
    forget_programs_of_others,
    prepare,
    required_bytes,
)
from trialrun.training.engine_choice import choose_engine, choose_next_engine, seconds_per_step
from trialrun.training.model.built import check_built, check_logs
from trialrun.training.model.initial import make_compiled_model
from trialrun.training.pack_data import PackData, load_pack_data
from trialrun.training.scores import classes_of, describe_task
from trialrun.trials.packing import take_apart
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

_NUM_ROWS = 10


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found out about a pack.

    Attributes:
        pack: The pack.
        engine: The engine that will train it.
        reason: Why no better engine is used, and what is to be known of its numbers; empty if there
            is nothing to say.
        model_task: What the model is, and why.
        rows: The first rows of the first trial's data.
        compile_s: Seconds of wall time to trace and compile its program; None for `keras`.
        bytes_per_trial: Estimated memory per trial on the device; None for `keras`.
        shared_bytes: Estimated memory that a pack takes however many trials it has.
    """

    pack: Pack
    engine: str
    reason: str
    model_task: str
    rows: Splits
    compile_s: float | None = None
    bytes_per_trial: int | None = None
    shared_bytes: int = 0


def examine(task: PackTask) -> list[Examined]:
    """The findings about a pack, or about the packs that it must be split into.

    A pack is split if its trials cannot share a program, or do not fit into memory.

    Raises:
        InputError: The data or the model is wrong.
    """
    try:
        return [_examine(task)]
    except CannotShare as error:
        if forget_programs_of_others(task):
            return examine(task)
        packs, by = take_apart(task.pack, error.paths)
        if len(packs) == 1:
            raise ModelError(str(error)) from error
        names = ", ".join(".".join(path) for path in sorted(by))
        how = f"a program for each value of {names}" if by else "not one program for all variants"
        found = [result for pack in packs for result in examine(replace(task, pack=pack))]
        return [_with_reason(result, f"{how}: {error}") for result in found]
    except OutOfMemory as error:
        fit = error.max_trials or (len(task.pack.trials) + 1) // 2
        fitting = replace(task, pack=replace(task.pack, trials=task.pack.trials[:fit]))
        reason = f"only {fit} trials fit: {error}"
        return [_with_reason(result, reason) for result in examine(fitting)]


def _examine(task: PackTask) -> Examined:
    data, errors = load_pack_data(task.pack.trials, task.job_folder)
    if errors:
        raise next(iter(errors.values()))
    rows = first_rows(data.of_trial(0), _NUM_ROWS)
    timings_s: dict[str, float] = {}
    choice = choose_engine(task, data, timings_s)
    while choice.prepared is not None:
        try:
            choice.prepared.verify()
            compile_s = timings_s["trace"] + _seconds_to_compile(choice.prepared)
            needed, per_trial = required_bytes(choice.prepared)
            shared = needed - per_trial * sum(len(own.indices) for own in choice.prepared.slices)
            said = _describe(choice.prepared.slices[0].model_task, data)
            return Examined(
                *(task.pack, choice.engine, choice.reason, said, rows),
                *(compile_s, per_trial, shared),
            )
        except CannotShare:
            raise
        except CannotFuse as error:
            choice = choose_next_engine(choice, error, data, timings_s)
    first = task.pack.trials[0]
    compiled = make_compiled_model(first.variant, task.job_folder, data.of_trial(0), first.seed)
    check_logs(check_built(compiled, task, data).logs, task)
    said = _describe(compiled.task, data)
    return Examined(task.pack, choice.engine, choice.reason, said, rows)


def seconds_of_trial(task: PackTask, engine: str) -> float | None:
    """Seconds of wall time that all steps of one trial take here, as a part of its pack.

    Args:
        task: A pack that `examine` has found to be trained as it is.
        engine: The engine that trains it.

    Returns:
        None for `keras`, whose steps are not measured.
    """
    if engine not in ("fused", "mapped"):
        return None
    data, _ = load_pack_data(task.pack.trials, task.job_folder)
    prepared = prepare(task, data, "fused" if engine == "fused" else "mapped", {})
    batch_size = task.pack.trials[0].variant.training.batch_size
    num_steps = steps_per_epoch(data.of_trial(0), batch_size) * task.last_epoch
    return seconds_per_step(prepared) * num_steps


def device_here() -> str:
    """What computes in this process: `CPU`, or the name of its first GPU."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "CPU"
    return str(tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU"))


def _describe(model_task: ModelTask, data: PackData) -> str:
    return describe_task(model_task, [classes_of(model_task, splits) for splits in data.splits])


def _seconds_to_compile(prepared: PreparedPack) -> float:
    start = time.perf_counter()
    with compiling(prepared.program):
        prepared.program.compile_only(prepared.slices[0], prepared.schedule.per_call)
    return time.perf_counter() - start


def _with_reason(examined: Examined, reason: str) -> Examined:
    return replace(examined, reason="; ".join(filter(None, [reason, examined.reason])))
