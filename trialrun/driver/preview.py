"""Prints the plan of a job: variants, trials, packs and engine, and why. Starts no run."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trialrun.analysis.parameters import ABSENT
from trialrun.data.arrays import Array, leaves
from trialrun.data.load import RawData, census_of, check_data
from trialrun.driver.preview_data import print_table_data
from trialrun.driver.preview_rounds import print_rounds
from trialrun.errors import InputError
from trialrun.host import num_local_cpus, quiet_tensorflow, stdout_for_results
from trialrun.job import (
    JobSpec,
    LoadedJob,
    ModelSpec,
    Settings,
    TrainingSpec,
    ValueList,
    settings_of,
)
from trialrun.job.conditions import Conditions
from trialrun.job.user_code.builder_source import COMPILED_FIELDS, may_compile
from trialrun.job.variants_table import rows_by_value
from trialrun.messages import bytes_text, counted
from trialrun.report.format import condition_text, parameter_text
from trialrun.search.schedule import check_budget, schedule_of
from trialrun.trials.packing import choose_cpus_per_pack, make_packs, shard_trials
from trialrun.trials.plan import plan_trials
from trialrun.trials.signature import signature_of
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack, Trial, Variant

_MAX_ROWS = 20
_MAX_MODELS_TRIED = 3
_ENGINES = {
    "auto": "fused: one program trains all trials of a pack together. A model that cannot be"
    " vectorized is trained by one program, one trial after another (mapped), and a model that"
    " cannot be compiled by plain model.fit (keras); this is decided when the model is built",
    "fused": "fused: the job asks for it; a model that cannot be vectorized is an error",
    "mapped": "mapped: the job asks for one program that trains one trial after another; a model"
    " that cannot be compiled is an error",
    "keras": "keras: the job asks for plain model.fit, one trial after another",
}


def print_plan(console: Console, loaded: LoadedJob, *, trace: bool = False) -> None:
    """Prints what a run of the job would do on this machine.

    Args:
        console: The console to print to.
        loaded: The job.
        trace: Whether to build and compile the programs to find their engines and memory, and to
            try saving the models.

    Raises:
        InputError: The job's data is wrong.
    """
    job = loaded.spec
    trials, shard = plan_trials(job), job.resources.shard
    own = shard_trials(trials, shard)
    cpus = job.resources.cpus
    num_threads = choose_cpus_per_pack(num_local_cpus()) if cpus == "auto" else cpus
    num_devices = max(1, num_local_cpus() // num_threads)
    variants = {trial.variant.variant_id: trial.variant for trial in trials}
    check_budget(loaded, len(variants))
    first = _first_to_train(job, own, len(variants))
    packs = make_packs(job, first, num_devices, num_threads=num_threads)
    sizes = {} if trace else _data_sizes(loaded, packs)
    num_variants = job.search.num_variants or len(variants)  # `tpe` proposes some of them later
    _print_variants(console, job, list(variants.values()), num_variants)
    _print_parameters(console, job)
    in_shard = "" if shard is None else f", {len(own)} of them in shard {shard}"
    _print_data(console, loaded, own or trials)
    console.print(
        f"\n{counted(num_variants, 'variant')} x {counted(len(job.seed_list), 'seed')} ="
        f" {counted(num_variants * len(job.seed_list), 'trial')} of"
        f" {_epochs(trials)} epochs{in_shard}; packs: {len(packs)}, signatures:"
        f" {len({pack.signature for pack in packs})}"
    )
    print_rounds(console, job, num_variants)
    console.print(f"Engine {_engine(job.training)}.")
    console.print(
        f"On this machine, without GPUs: packs at a time: {num_devices}, threads each:"
        f" {num_threads}. On a cluster or with GPUs the run makes other packs when it starts; no"
        " result depends on the packs.\n"
    )
    if trace:
        tasks = [PackTask(pack, loaded.folder, job.select, num_threads) for pack in packs]
        _print_traced(console, loaded, tasks)
    else:
        is_whole = len(first) == len(own) and len(variants) == num_variants
        _print_packs(console, packs, sizes, is_whole=is_whole)


def _print_variants(
    console: Console, job: JobSpec, variants: Sequence[Variant], num_in_all: int
) -> None:
    console.print(Text(f"{job.name}: variants", style="italic"))
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    for path in job.search.domains:
        table.add_column(path, overflow="fold")
    for variant in variants[:_MAX_ROWS]:
        # Text, so that a value with brackets is not taken for markup.
        values = (variant.parameters.get(path, ABSENT) for path in job.search.domains)
        table.add_row(variant.variant_id, *(Text(_value_text(value)) for value in values))
    console.print(table)
    _print_rest(console, len(variants), "variants")
    if (num_more := num_in_all - len(variants)) > 0:
        console.print(
            f"{len(variants)} are drawn at random; {num_more} more are proposed by what those"
            f" before reached, {job.search.batch_size} at a time: {num_in_all} in all"
        )


def _value_text(value: Any) -> str:
    """A value as it may be written in a job file, floats with all their digits."""
    return str(value) if isinstance(value, float) else parameter_text(value)


def _print_data(console: Console, loaded: LoadedJob, trials: Sequence[Trial]) -> None:
    """Prints how a file was read, for the first trial; a generator is not called for this."""
    first = trials[0]
    if first.variant.data.generator is not None:
        return
    raw = _check_data(loaded, first)
    print_table_data(console, raw, shown=f"{first.variant.variant_id} with seed {first.seed}")
    census = census_of(raw)
    warnings = [f"Warning: {warning}" for warning in census.warnings]
    for text in filter(None, [*warnings, "; ".join(census.notes)]):
        console.print(f"\nData of seed {first.seed}: {text}.", highlight=False, markup=False)


def _check_data(loaded: LoadedJob, trial: Trial) -> RawData:
    try:
        with stdout_for_results():
            return check_data(trial.variant.data, loaded.folder, trial.seed)
    except InputError as error:
        raise InputError(loaded.locate(str(error))) from error


def _print_parameters(console: Console, job: JobSpec) -> None:
    if not job.search.domains:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("\nsearched", overflow="fold")
    table.add_column("\nin one program?")
    has_conditions = any(one.when for one in job.search.domains.values())
    if has_conditions:
        table.add_column("\nsearched only", overflow="fold")
    conditions = Conditions.of(job.search.domains)
    for path, parameter in job.search.domains.items():
        cells = [path, _sharing(job, conditions, path)]
        if has_conditions:
            cells.append(condition_text(parameter.when))
        table.add_row(*map(Text, cells))
    console.print(table)


def _sharing(job: JobSpec, conditions: Conditions, path: str) -> str:
    """A text on whether trials that differ only in one parameter share one program."""
    parameter = job.search.domains[path]
    if isinstance(parameter, ValueList):
        values: Sequence[Any] = parameter.values
    else:
        is_int = parameter.distribution == "int_uniform"
        kind: Callable[[float], float] = int if is_int else float
        values = [kind(parameter.min), kind(parameter.max)]
    variants = [
        Variant("", one, *settings_of(job, one))
        for one in _assignments(job, conditions, path, values)
    ]
    num_programs = len({signature_of(variant) for variant in variants})
    if num_programs == len(variants) > 1:
        return "no: a program for each value" + _unless_compiled(job, path)
    how = "yes" if num_programs == 1 else f"yes, except 0: {num_programs} programs"
    is_users = job.model.builder != ModelSpec().builder
    if path.startswith("model.args.") and is_users:
        how += " if the builder passes the number to Keras unchanged, otherwise no"
    return how + _unless_compiled(job, path)


def _assignments(
    job: JobSpec, conditions: Conditions, path: str, values: Sequence[Any]
) -> Sequence[Mapping[str, Any]]:
    """Assignments that are right, one with each value, and that differ in little else."""
    if job.search.rows is None:
        around = conditions.contexts(path)[0]
        return [conditions.completed({**around, path: value}) for value in values]
    rows = [job.search.rows[index] for index in rows_by_value(job.search.rows, path)]
    for around in ({}, rows[0]):
        assignments = [{**around, path: value} for value in values]
        if all(_is_right(job, one) for one in assignments):
            return assignments
    return rows


def _is_right(job: JobSpec, assignment: Mapping[str, Any]) -> bool:
    try:
        settings_of(job, assignment)
    except (ValidationError, InputError):
        return False
    return True


def _unless_compiled(job: JobSpec, path: str) -> str:
    """A note on a field that a model ignores if its builder compiles it; empty otherwise."""
    section, field = path.split(".")[:2]
    is_compiled = section == "training" and field in COMPILED_FIELDS
    if not (is_compiled and may_compile(job.model.builder, Path())):
        return ""
    return "; refused if the builder compiles the model"


def _first_to_train(job: JobSpec, trials: Sequence[Trial], num_variants: int) -> Sequence[Trial]:
    """The trials that are trained first: all of them, or those of the first round."""
    schedule = schedule_of(job, num_variants)
    seeds = set(schedule.seeds[: schedule.counts[0]])
    return [trial for trial in trials if trial.seed in seeds]


def _engine(training: TrainingSpec) -> str:
    if training.callbacks:
        return "keras: only model.fit calls training.callbacks, one trial after another"
    return _ENGINES[training.engine]


def _epochs(trials: tuple[Trial, ...]) -> str:
    at_most = "at most " if trials[0].variant.training.early_stopping else ""
    counts = sorted({trial.variant.training.epochs for trial in trials})
    return at_most + (str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")


def _print_packs(
    console: Console, packs: tuple[Pack, ...], sizes: Mapping[str, int | None], *, is_whole: bool
) -> None:
    title = "Packs" if is_whole else "Packs of the first round"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("pack", "signature", "variants"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "data memory"):
        table.add_column(name, justify="right")
    for pack in packs[:_MAX_ROWS]:
        is_shared = pack.trials[0].variant.data.seed != "per_trial"
        num_copies = 1 if is_shared else len(pack.trials)
        own = sizes[pack.signature]
        size = "streamed" if own is None else bytes_text(own * num_copies)
        trials = str(len(pack.trials))
        table.add_row(pack.pack_id, pack.signature, _variants_of(pack), trials, size)
    console.print(table)
    _print_rest(console, len(packs), "packs")
    console.print(
        "\nData memory is what the pack's data takes on its device; while an epoch is shuffled it"
        " is twice that. Weights, optimizer slots and activations come on top: `plan --trace`"
        " builds and compiles the model to find their size, and the engine that trains it."
    )


def _variants_of(pack: Pack) -> str:
    names = list(dict.fromkeys(trial.variant.variant_id for trial in pack.trials))
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"


def _print_traced(console: Console, loaded: LoadedJob, tasks: Sequence[PackTask]) -> None:
    """Prints the packs with what was found by compiling the first pack of each signature."""
    with quiet_tensorflow():
        from trialrun.training.dry_run import examine
    table = Table(title="Packs", title_justify="left", box=None, pad_edge=False)
    for name in ("pack", "variants", "engine"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "compiled in", "memory per trial"):
        table.add_column(name, justify="right")
    reasons: dict[str, None] = {}
    model_tasks: dict[str, list[str]] = {}
    known: dict[str, list[Any]] = {}
    for task in tasks[:_MAX_ROWS]:
        signature = task.pack.signature
        try:
            with stdout_for_results():
                found = known[signature] = known.get(signature) or examine(task)
        except InputError as error:
            raise InputError(loaded.locate(str(error))) from error
        is_whole = len(found) == 1
        for result in found:
            pack = task.pack if is_whole else result.pack
            variants = _variants_of(pack)
            model_tasks.setdefault(result.model_task, []).append(variants)
            if result.reason:
                reasons[result.reason] = None
            size = result.bytes_per_trial
            table.add_row(
                pack.pack_id,
                variants,
                result.engine,
                str(len(pack.trials)),
                "" if result.compile_s is None else f"{result.compile_s:.1f} s",
                "" if size is None else bytes_text(size),
            )
    console.print(table)
    _print_rest(console, len(tasks), "packs")
    for model_task, names in model_tasks.items():
        shown = ", ".join(dict.fromkeys(names))
        console.print(f"\n{shown}: {model_task}.", soft_wrap=True, highlight=False, markup=False)
    first_results = [found[0] for found in known.values()]
    for reason in [*reasons, *_what_will_not_be_saved(first_results, loaded.folder)]:
        console.print(f"\n{reason}.", soft_wrap=True, highlight=False, markup=False)
    console.print(
        "\nThe memory is an estimate for data, weights, the optimizer's variables, and what a step"
        " needs."
    )


def _what_will_not_be_saved(examined: Sequence[Any], job_folder: Path) -> list[str]:
    """Sentences on what cannot be saved, found by trying to save the first untrained models."""
    from trialrun.export.check import what_will_be_missing
    from trialrun.export.save import try_formats

    lines: dict[str, None] = {}
    for result in examined[:_MAX_MODELS_TRIED]:
        variant = result.pack.trials[0].variant
        settings = Settings(variant.data, variant.model, variant.training)
        found = try_formats(settings, job_folder, result.rows)
        lines |= dict.fromkeys(what_will_be_missing(found))
    return list(lines)


def _print_rest(console: Console, num_rows: int, kind: str) -> None:
    if num_rows > _MAX_ROWS:
        console.print(f"... and {num_rows - _MAX_ROWS} more {kind}")


def _data_sizes(loaded: LoadedJob, packs: tuple[Pack, ...]) -> dict[str, int | None]:
    """Signature -> bytes of one trial's data, for the packs that are shown; None if streamed."""
    sizes: dict[str, int | None] = {}
    for pack in packs[:_MAX_ROWS]:
        if pack.signature not in sizes:
            sizes[pack.signature] = _data_bytes(_check_data(loaded, pack.trials[0]))
    return sizes


def _data_bytes(raw: RawData) -> int | None:
    """Bytes of one trial's data on its device, at most 4 per number; None if it is streamed."""
    if raw.streams:
        return None
    parts = [raw.output[part] for part in ("train", "test", "validation") if part in raw.output]
    return sum(
        _device_bytes(array) for part in parts for arrays in part for _, array in leaves(arrays)
    )


def _device_bytes(array: Array) -> int:
    return math.prod(array.shape) * min(4, np.dtype(array.dtype).itemsize)
