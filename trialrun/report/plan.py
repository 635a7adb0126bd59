"""The plan of a job as text: variants, trials, packs, and why. Starts nothing."""

import math
from collections.abc import Mapping

import numpy as np
from rich.console import Console
from rich.table import Table

from trialrun.arrays import Array, leaves
from trialrun.datasets import check_data
from trialrun.errors import InputError
from trialrun.host import num_local_cpus
from trialrun.job import LoadedJob, TrainingSpec
from trialrun.packing import choose_cpus_per_pack, make_packs
from trialrun.plan import Pack, Trial, plan_trials, shard_trials

_MAX_ROWS = 20
_ENGINES = {
    "auto": "fused: all trials of a pack as one program; a model that cannot be vectorized is"
    " trained in one program trial after trial (mapped), and one that cannot be compiled by plain"
    " model.fit (keras), which shows when it is built",
    "fused": "fused: the job asks for it; a model that cannot be vectorized is an error",
    "mapped": "mapped: the job asks for one program that trains trial after trial; a model that"
    " cannot be compiled is an error",
    "keras": "keras: the job asks for plain model.fit, one trial after another",
}


def print_plan(console: Console, loaded: LoadedJob) -> None:
    """Prints what a run of the job would do on this machine.

    Raises:
        InputError: The job's data is wrong.
    """
    job = loaded.spec
    trials, shard = plan_trials(job), job.resources.shard
    own = shard_trials(trials, shard)
    cpus = job.resources.cpus
    num_threads = choose_cpus_per_pack(num_local_cpus()) if cpus == "auto" else cpus
    num_devices = max(1, num_local_cpus() // num_threads)
    packs = make_packs(job, own, num_devices, num_threads=num_threads)
    sizes = _data_sizes(loaded, packs)
    variants = {trial.variant.variant_id: trial.variant for trial in trials}
    table = Table(title=f"{job.name}: variants", title_justify="left", box=None, pad_edge=False)
    table.add_column("variant")
    for path in job.search.parameters:
        table.add_column(path, overflow="fold")
    for variant in list(variants.values())[:_MAX_ROWS]:
        table.add_row(variant.variant_id, *(str(v) for v in variant.parameters.values()))
    console.print(table)
    _print_rest(console, len(variants), "variants")
    of_shard = "" if shard is None else f", {len(own)} of them in shard {shard}"
    console.print(
        f"\n{len(variants)} variants x {len(job.seed_list)} seeds = {len(trials)} trials of"
        f" {_epochs(trials)} epochs{of_shard}; packs: {len(packs)}, signatures:"
        f" {len({pack.signature for pack in packs})}"
    )
    console.print(f"Engine {_engine(job.training)}.")
    console.print(
        f"On this machine, without GPUs: packs at a time: {num_devices}, threads each:"
        f" {num_threads}. A cluster or a GPU machine packs anew when the run starts; no result"
        " depends on it.\n"
    )
    _print_packs(console, packs, sizes)


def _engine(training: TrainingSpec) -> str:
    if training.callbacks:
        return "keras: only model.fit calls training.callbacks, one trial after another"
    return _ENGINES[training.engine]


def _epochs(trials: tuple[Trial, ...]) -> str:
    at_most = "at most " if trials[0].variant.training.early_stopping else ""
    counts = sorted({trial.variant.training.epochs for trial in trials})
    return at_most + (str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}")


def _print_packs(console: Console, packs: tuple[Pack, ...], sizes: Mapping[str, int]) -> None:
    table = Table(title="Packs", title_justify="left", box=None, pad_edge=False)
    for name in ("pack", "signature", "variants"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "data memory"):
        table.add_column(name, justify="right")
    for pack in packs[:_MAX_ROWS]:
        names = list(dict.fromkeys(trial.variant.variant_id for trial in pack.trials))
        shown = names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"
        is_shared = pack.trials[0].variant.data.seed != "per_trial"
        num_copies = 1 if is_shared else len(pack.trials)
        size = _human_bytes(sizes[pack.signature] * num_copies)
        table.add_row(pack.pack_id, pack.signature, shown, str(len(pack.trials)), size)
    console.print(table)
    _print_rest(console, len(packs), "packs")
    console.print(
        "\nData memory is what the pack's data takes on its device, twice while an epoch is"
        " shuffled. Weights, optimizer slots and activations come on top: they are known when the"
        " model is built."
    )


def _print_rest(console: Console, num_rows: int, kind: str) -> None:
    if num_rows > _MAX_ROWS:
        console.print(f"... and {num_rows - _MAX_ROWS} more {kind}")


def _data_sizes(loaded: LoadedJob, packs: tuple[Pack, ...]) -> dict[str, int]:
    """Signature -> bytes of one trial's data, of the packs that are shown."""
    sizes: dict[str, int] = {}
    for pack in packs[:_MAX_ROWS]:
        if pack.signature not in sizes:
            try:
                sizes[pack.signature] = _data_bytes(loaded, pack.trials[0])
            except InputError as error:
                raise InputError(loaded.locate(str(error))) from error
    return sizes


def _data_bytes(loaded: LoadedJob, trial: Trial) -> int:
    """Bytes of one trial's data as the device holds it: at most 4 per number."""
    output = check_data(trial.variant.data, loaded.folder, trial.seed)
    parts = [output[part] for part in ("train", "test", "validation") if part in output]
    return sum(
        _device_bytes(array) for part in parts for arrays in part for _, array in leaves(arrays)
    )


def _device_bytes(array: Array) -> int:
    return math.prod(array.shape) * min(4, np.dtype(array.dtype).itemsize)


def _human_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
