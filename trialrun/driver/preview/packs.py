"""What `trialrun plan` says of packs: how many trials they have, and how much memory they need."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from trialrun.driver.preview.cluster import (
    Group,
    Memory,
    PlannedPacks,
    Times,
    print_groups,
    print_known,
    variants_of,
)
from trialrun.driver.preview.data import MAX_ROWS, check_first, data_bytes, print_rest
from trialrun.driver.preview.traced import print_traced, print_traced_groups
from trialrun.messages import bytes_text
from trialrun.trials.trial import Pack


def data_groups(planned: PlannedPacks) -> list[Group]:
    """The packs of each signature, with what their data takes.

    Raises:
        InputError: The data is wrong.
    """
    shown = [Group(own, _data_of(planned, own)) for own in planned.by_signature[:MAX_ROWS]]
    return [*shown, *map(Group, planned.by_signature[MAX_ROWS:])]


def print_packs(
    console: Console, planned: PlannedPacks, groups: Sequence[Group] | None, times: Times | None
) -> None:
    """Prints the packs of a plan; those on a cluster by signature.

    Args:
        console: The console to print to.
        planned: The packs.
        groups: From `data_groups`; None to build and compile their programs.
        times: What an earlier run took; None if there is none.

    Raises:
        InputError: The model is wrong.
    """
    on_cluster = planned.devices.gpus is not None
    if groups is None and on_cluster:
        groups, steps = print_traced_groups(console, planned)
        times = times or (None if planned.are_paused else steps)
    elif groups is None:
        groups = [Group(own) for own in planned.by_signature]
        print_traced(console, planned)
    elif on_cluster:
        print_groups(console, groups, planned.title)
    else:
        _print_each(console, planned, groups)
    if on_cluster or times is not None:
        print_known(console, groups, planned.devices, times)


def _data_of(planned: PlannedPacks, packs: Sequence[Pack]) -> Memory | None:
    """What the data of packs of one signature takes on a device; None if it is streamed."""
    first = packs[0].trials[0]
    own = data_bytes(check_first(planned.loaded, first))
    if own is None:
        return None
    is_shared = first.variant.data.seed != "per_trial"
    return Memory(own, 0, is_all=False) if is_shared else Memory(0, own, is_all=False)


def _print_each(console: Console, planned: PlannedPacks, groups: Sequence[Group]) -> None:
    """Prints each pack and what its data takes."""
    table = Table(title=planned.title, title_justify="left", box=None, pad_edge=False)
    for name in ("pack", "signature", "variants"):
        table.add_column(name, overflow="fold")
    for name in ("trials", "data memory"):
        table.add_column(name, justify="right")
    memory_of = {group.signature: group.memory for group in groups}
    for pack in planned.packs[:MAX_ROWS]:
        memory, num_trials = memory_of[pack.signature], len(pack.trials)
        size = "streamed" if memory is None else bytes_text(memory.of(num_trials))
        table.add_row(pack.pack_id, pack.signature, variants_of([pack]), str(num_trials), size)
    console.print(table)
    print_rest(console, len(planned.packs), "packs")
    console.print(
        "\nData memory is what the pack's data takes on its device; while an epoch is shuffled it"
        " is twice that. Weights, optimizer slots and activations come on top: `plan --trace`"
        " builds and compiles the model to find their size, and the engine that trains it."
    )
