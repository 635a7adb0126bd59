"""Prints the plan of a job: variants, trials, packs and engine, and why. Starts no run."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trialrun.analysis.parameters import ABSENT
from trialrun.data.load import census_of
from trialrun.driver.preview.cluster import PlannedPacks, Times, times_of
from trialrun.driver.preview.data import MAX_ROWS, check_first, print_rest, print_table_data
from trialrun.driver.preview.devices import Gpus, devices_here, devices_of
from trialrun.driver.preview.packs import data_groups, print_packs
from trialrun.driver.preview.rounds import print_rounds
from trialrun.errors import InputError
from trialrun.job import (
    JobSpec,
    LoadedJob,
    ModelSpec,
    TrainingSpec,
    ValueList,
    settings_of,
)
from trialrun.job.conditions import Conditions
from trialrun.job.user_code.builder_source import COMPILED_FIELDS, may_compile
from trialrun.job.variants_table import rows_by_value
from trialrun.messages import counted
from trialrun.report.format import condition_text, parameter_text
from trialrun.search.schedule import check_budget, schedule_of
from trialrun.store import RunFolder
from trialrun.store.round_log import Schedule
from trialrun.trials.packing import make_packs, own_trials
from trialrun.trials.plan import plan_trials
from trialrun.trials.signature import signature_of
from trialrun.trials.trial import Trial, Variant

_ENGINES = {
    "auto": "fused: one program trains all trials of a pack together. A model that cannot be"
    " vectorized is trained by one program, one trial after another (mapped), and a model that"
    " cannot be compiled by plain model.fit (keras); this is decided when the model is built",
    "fused": "fused: the job asks for it; a model that cannot be vectorized is an error",
    "mapped": "mapped: the job asks for one program that trains one trial after another; a model"
    " that cannot be compiled is an error",
    "keras": "keras: the job asks for plain model.fit, one trial after another",
}


def print_plan(
    console: Console,
    loaded: LoadedJob,
    *,
    trace: bool = False,
    gpus: Gpus | None = None,
    measured: RunFolder | None = None,
) -> None:
    """Prints what a run of the job would do on this machine, or on a cluster with GPUs.

    Args:
        console: The console to print to.
        loaded: The job.
        trace: Whether to build and compile the programs to find their engines and memory, and to
            try saving the models.
        gpus: The GPUs of the cluster; None for this machine.
        measured: An earlier run of the job that tells how long packs take.

    Raises:
        InputError: The job's data is wrong, its shard has no trial, it uses no GPUs, or the run has
            none of its trials.
    """
    job = loaded.spec
    trials, shard = plan_trials(job), job.resources.shard
    own = own_trials(loaded, trials)
    devices = devices_here(job) if gpus is None else devices_of(loaded, gpus)
    variants = {trial.variant.variant_id: trial.variant for trial in trials}
    check_budget(loaded, len(variants))
    schedule = schedule_of(job, len(variants))
    times = None if measured is None else _times_of(loaded, schedule, measured, trials)
    first = _first_to_train(schedule, own)
    num_variants = job.search.num_variants or len(variants)  # `tpe` proposes some of them later
    is_whole = len(first) == len(own) and len(variants) == num_variants
    packs = make_packs(job, first, devices.num, num_threads=devices.num_threads)
    title = "Packs" if is_whole else "Packs of the first round"
    planned = PlannedPacks(loaded, packs, devices, title, are_paused=bool(schedule.pauses))
    groups = None if trace else data_groups(planned)
    _print_variants(console, job, list(variants.values()), num_variants)
    _print_parameters(console, job)
    in_shard = "" if shard is None else f", {len(own)} of them in shard {shard}"
    _print_data(console, loaded, own)
    console.print(
        f"\n{counted(num_variants, 'variant')} x {counted(len(job.seed_list), 'seed')} ="
        f" {counted(num_variants * len(job.seed_list), 'trial')} of"
        f" {_epochs(trials)} epochs{in_shard}; packs: {len(packs)}, signatures:"
        f" {len({pack.signature for pack in packs})}"
    )
    print_rounds(console, job, num_variants)
    console.print(f"Engine {_engine(job.training)}.")
    console.print(f"{devices.describe()}\n")
    print_packs(console, planned, groups, times)


def _print_variants(
    console: Console, job: JobSpec, variants: Sequence[Variant], num_in_all: int
) -> None:
    console.print(Text(f"{job.name}: variants", style="italic"))
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    for path in job.search.domains:
        table.add_column(path, overflow="fold")
    for variant in variants[:MAX_ROWS]:
        # Text, so that a value with brackets is not taken for markup.
        values = (variant.parameters.get(path, ABSENT) for path in job.search.domains)
        table.add_row(variant.variant_id, *(Text(_value_text(value)) for value in values))
    console.print(table)
    print_rest(console, len(variants), "variants")
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
    raw = check_first(loaded, first)
    print_table_data(console, raw, shown=f"{first.variant.variant_id} with seed {first.seed}")
    census = census_of(raw)
    warnings = [f"Warning: {warning}" for warning in census.warnings]
    for text in filter(None, [*warnings, "; ".join(census.notes)]):
        console.print(f"\nData of seed {first.seed}: {text}.", highlight=False, markup=False)


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


def _first_to_train(schedule: Schedule, trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials that are trained first: all of them, or those of the first round."""
    seeds = set(schedule.seeds[: schedule.counts[0]])
    return [trial for trial in trials if trial.seed in seeds]


def _times_of(
    loaded: LoadedJob, schedule: Schedule, run: RunFolder, trials: Sequence[Trial]
) -> Times:
    if schedule.pauses:
        text = (
            "search.rounds pauses trials after some of their epochs, but --measured tells only how"
            " long whole trainings take; leave it out"
        )
        raise InputError(loaded.locate(text))
    return times_of(run, trials)


def _engine(training: TrainingSpec) -> str:
    if training.callbacks:
        return "keras: only model.fit calls training.callbacks, one trial after another"
    return _ENGINES[training.engine]


def _epochs(trials: tuple[Trial, ...]) -> str:
    at_most = "at most " if trials[0].variant.training.early_stopping else ""
    counts = sorted({trial.variant.training.epochs for trial in trials})
    return at_most + (str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")
