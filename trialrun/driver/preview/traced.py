"""What `trialrun plan --trace` finds by building and compiling programs. It loads TensorFlow."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from trialrun.driver.preview.cluster import (
    Group,
    Memory,
    PlannedPacks,
    Times,
    print_groups,
    variants_of,
)
from trialrun.driver.preview.data import MAX_ROWS, print_rest
from trialrun.driver.preview.measured import MeasuredPack
from trialrun.driver.rounds import wants_rounds
from trialrun.errors import InputError
from trialrun.host import quiet_tensorflow, stdout_for_results
from trialrun.job import Settings
from trialrun.messages import bytes_text
from trialrun.training.compilation_cache import folder as compilation_cache
from trialrun.trials.packing import WIDTH_ON_GPU
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

if TYPE_CHECKING:
    from trialrun.training.dry_run import Examined

_MAX_MODELS_TRIED = 3


def print_traced(console: Console, planned: PlannedPacks) -> None:
    """Prints the packs with what was found by compiling the first pack of each signature."""
    table = Table(title=planned.title, title_justify="left", box=None, pad_edge=False)
    for name in ("pack", "variants", "engine"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "compiled in", "memory per trial"):
        table.add_column(name, justify="right")
    known: dict[str, list[Examined]] = {}
    shown: list[Examined] = []
    for pack in planned.packs[:MAX_ROWS]:
        signature = pack.signature
        found = known[signature] = known.get(signature) or _examine(planned, pack)
        for result in [replace(found[0], pack=pack)] if len(found) == 1 else found:
            shown.append(result)
            size = result.bytes_per_trial
            table.add_row(
                result.pack.pack_id,
                variants_of([result.pack]),
                result.engine,
                str(len(result.pack.trials)),
                "" if result.compile_s is None else f"{result.compile_s:.1f} s",
                "" if size is None else bytes_text(size),
            )
    console.print(table)
    print_rest(console, len(planned.packs), "packs")
    _print_findings(console, planned, shown, [found[0] for found in known.values()])
    console.print(
        "\nThe memory is an estimate for data, weights, the optimizer's variables, and what a step"
        " needs."
    )


def print_traced_groups(console: Console, planned: PlannedPacks) -> tuple[list[Group], Times]:
    """Prints each signature with what was found by compiling the largest of its packs here.

    Returns:
        The packs, and how long their steps take here.
    """
    groups: list[Group] = []
    measured: dict[str, list[MeasuredPack]] = {}
    shown: list[Examined] = []
    for own in planned.by_signature[:MAX_ROWS]:
        largest = max(own, key=lambda pack: len(pack.trials))
        first, *others = found = _examine(planned, largest)
        shown += found
        groups.append(_group(planned, own, first, is_split=bool(others)))
        if (step := _measure(planned, first)) is not None:
            measured[first.pack.signature] = [step]
    groups += [Group(own) for own in planned.by_signature[MAX_ROWS:]]
    print_groups(console, groups, planned.title)
    _print_findings(console, planned, shown, shown)
    note = "Data, compiling, validation, and what follows the training come on top"
    return groups, Times(measured, "Computing the steps", "here", note)


def _group(
    planned: PlannedPacks, packs: Sequence[Pack], found: "Examined", *, is_split: bool
) -> Group:
    if found.bytes_per_trial is None:
        return Group(packs, None, found.engine, is_split)
    width = _width(planned) or 1
    memory = Memory(found.shared_bytes, found.bytes_per_trial, is_all=True, width=width)
    return Group(packs, memory, found.engine, is_split)


def _measure(planned: PlannedPacks, found: "Examined") -> MeasuredPack | None:
    from trialrun.training.dry_run import device_here, seconds_of_trial

    with stdout_for_results():
        trial_s = seconds_of_trial(_task_of(planned, found.pack), found.engine)
    if trial_s is None:
        return None
    num_trials = len(found.pack.trials)
    return MeasuredPack(num_trials, trial_s * num_trials, 0.0, device_here())


def _examine(planned: PlannedPacks, pack: Pack) -> "list[Examined]":
    compilation_cache.turn_on(os.environ)
    with quiet_tensorflow():
        from trialrun.training.dry_run import examine
    try:
        with stdout_for_results():
            return examine(_task_of(planned, pack))
    except InputError as error:
        raise InputError(planned.loaded.locate(str(error))) from error


def _task_of(planned: PlannedPacks, pack: Pack) -> PackTask:
    loaded, devices = planned.loaded, planned.devices
    threads = devices.num_threads
    return PackTask(pack, loaded.folder, loaded.spec.select, threads, _width(planned))


def _width(planned: PlannedPacks) -> int | None:
    """How many trials a program trains at a time on a cluster; None for as many as a pack has."""
    if planned.devices.gpus is None or not wants_rounds(planned.loaded.spec):
        return None
    return WIDTH_ON_GPU


def _print_findings(
    console: Console,
    planned: PlannedPacks,
    shown: "Sequence[Examined]",
    of_signatures: "Sequence[Examined]",
) -> None:
    """Prints what the models are, why engines were chosen, and what cannot be saved."""
    names: dict[str, dict[str, None]] = {}
    for one in shown:
        names.setdefault(one.model_task, {})[variants_of([one.pack])] = None
    sentences = [f"{', '.join(variants)}: {model_task}" for model_task, variants in names.items()]
    sentences += dict.fromkeys(one.reason for one in shown if one.reason)
    sentences += _what_will_not_be_saved(of_signatures, planned.loaded.folder)
    for sentence in sentences:
        console.print(f"\n{sentence}.", soft_wrap=True, highlight=False, markup=False)


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
