"""What `trialrun plan` says of packs on a cluster that is not here: rounds, memory and time."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from trialrun.driver.preview.data import MAX_ROWS, print_rest
from trialrun.driver.preview.devices import Devices
from trialrun.driver.preview.measured import Measured, measured_by, time_of
from trialrun.job import LoadedJob
from trialrun.messages import bytes_text, counted, listed
from trialrun.report.format import duration_text
from trialrun.store import RunFolder
from trialrun.store.foreign import reading_run
from trialrun.trials.packing import SHARE_OF_FREE, parts_of, trials_that_fit
from trialrun.trials.trial import Pack, Trial


class Memory(NamedTuple):
    """The memory that packs of a signature need on their device.

    Attributes:
        shared_bytes: What a pack needs however many trials it has.
        bytes_per_trial: What each of its trials adds.
        is_all: Whether that is all that they need; else it is the data alone.
        width: How many trials a program trains at a time; a pack is filled up to a multiple of it.
    """

    shared_bytes: int
    bytes_per_trial: int
    is_all: bool
    width: int = 1

    def num_rows(self, num_trials: int) -> int:
        """The trials of a pack with those that fill it up."""
        return math.ceil(num_trials / self.width) * self.width

    @property
    def of_one_trial(self) -> int:
        """The bytes that a trial needs by itself, in a pack that is not filled up."""
        return self.shared_bytes + self.bytes_per_trial

    def of(self, num_trials: int) -> int:
        """The bytes that a pack needs."""
        return self.shared_bytes + self.bytes_per_trial * self.num_rows(num_trials)


class Group(NamedTuple):
    """The packs of a signature.

    Attributes:
        packs: The packs.
        memory: What they need; None if it is not known, or does not grow with a pack.
        engine: What trains them; empty if it is not known.
        is_split: Whether a run splits them further, into an unknown number of packs.
    """

    packs: Sequence[Pack]
    memory: Memory | None = None
    engine: str = ""
    is_split: bool = False

    @property
    def signature(self) -> str:
        """The signature."""
        return self.packs[0].signature

    @property
    def largest(self) -> int:
        """The most trials of a pack."""
        return max(len(pack.trials) for pack in self.packs)

    def most_that_fit(self, free_bytes: int | None) -> int:
        """The most trials of a pack that a run would train together in so much free memory."""
        if self.memory is None or not self.memory.is_all or free_bytes is None:
            return self.largest
        fit = trials_that_fit(
            self.memory.of(self.largest),
            self.memory.bytes_per_trial,
            self.memory.num_rows(self.largest),
            free_bytes,
        )
        return self.largest if fit is None else max(1, min(fit, self.largest - 1))


class Times(NamedTuple):
    """What was measured of packs.

    Attributes:
        measured: What they took.
        what: What took that time, in words.
        where: Where it was measured, in words.
        note: A sentence on what the times hold.
    """

    measured: Measured
    what: str
    where: str
    note: str


class PlannedPacks(NamedTuple):
    """The packs of a plan.

    Attributes:
        loaded: The job.
        packs: The packs.
        devices: What trains them.
        title: Which packs they are.
        are_paused: Whether their trials are paused before their last epoch.
    """

    loaded: LoadedJob
    packs: Sequence[Pack]
    devices: Devices
    title: str
    are_paused: bool

    @property
    def by_signature(self) -> list[list[Pack]]:
        """The packs of each signature, in their order."""
        found: dict[str, list[Pack]] = {}
        for pack in self.packs:
            found.setdefault(pack.signature, []).append(pack)
        return list(found.values())


def times_of(run: RunFolder, trials: Sequence[Trial]) -> Times:
    """What an earlier run tells of packs of these trials; see `measured.measured_by`."""
    note = (
        "The shorter time counts no compiling, the longer compiles every program anew for every"
        " pack. Starting, and what follows the training, comes on top"
    )
    with reading_run(run.path):
        return Times(measured_by(run, trials), "Training", f"in {run.path}", note)


def print_groups(console: Console, groups: Sequence[Group], title: str) -> None:
    """Prints a row per signature: how many packs it has, how wide they are, what they need."""
    names = ["signature", "variants", "packs x trials"]
    names += ["engine"] if any(group.engine for group in groups) else []
    is_all = any(group.memory is not None and group.memory.is_all for group in groups)
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    table.add_column(f"{'memory' if is_all else 'data'} of a pack", justify="right")
    for group in groups[:MAX_ROWS]:
        cells = [group.signature, variants_of(group.packs), _widths(group.packs)]
        cells += [group.engine] if "engine" in names else []
        known = "" if group.memory is None else bytes_text(group.memory.of(group.largest))
        table.add_row(*cells, known)
    console.print(table)
    print_rest(console, len(groups), "signatures")


def variants_of(packs: Sequence[Pack]) -> str:
    """The variants of packs: `v00`, or the first and the last."""
    names = list(dict.fromkeys(trial.variant.variant_id for p in packs for trial in p.trials))
    return names[0] if len(names) == 1 else f"{names[0]} ... {names[-1]}"


def _widths(packs: Sequence[Pack]) -> str:
    """How many packs have how many trials: `3 x 512, 1 x 511`."""
    counts = Counter(len(pack.trials) for pack in packs)
    return ", ".join(f"{count:,} x {num:,}" for num, count in sorted(counts.items(), reverse=True))


def print_known(
    console: Console, groups: Sequence[Group], devices: Devices, times: Times | None
) -> None:
    """Prints what is known of packs: in how many rounds they are trained, memory, time."""
    for sentence in _sentences(groups, devices, times):
        console.print(f"\n{sentence}.", highlight=False, markup=False)


def _sentences(groups: Sequence[Group], devices: Devices, times: Times | None) -> Iterator[str]:
    free_bytes = devices.bytes_per_pack
    parts = [
        (group.signature, num_trials)
        for group in groups
        for pack in group.packs
        for num_trials in parts_of(len(pack.trials), group.most_that_fit(free_bytes))
    ]
    split = [group.signature for group in groups if group.is_split]
    yield ("At least " if split else "") + _rounds(len(parts), devices.num)
    if split:
        yield f"A run splits packs of {listed(split)} further: their trials cannot share a program"
    if free_bytes is not None:
        yield from _memory(groups, free_bytes)
    if times is not None and not split:
        yield from _time(parts, devices, times)


def _rounds(num_packs: int, num_devices: int) -> str:
    rounds = math.ceil(num_packs / num_devices)
    text = (
        f"{counted(num_packs, 'pack')} on {counted(num_devices, 'device')}:"
        f" {counted(rounds, 'round')} of packs"
    )
    last = num_packs - (rounds - 1) * num_devices
    if rounds > 1 and last < num_devices:
        return f"{text}, the last of {counted(last, 'pack')}"
    if idle := num_devices - last:
        return (
            f"{text}, and no pack for {counted(idle, 'device')}: none gets fewer than 8 trials only"
            " to keep a device busy. While devices are idle, a run continues the pack that would"
            " take longest in halves"
        )
    return text


def _memory(groups: Sequence[Group], free_bytes: int) -> Iterator[str]:
    known = [(group, group.memory) for group in groups if group.memory is not None]
    if not known:
        return
    room = f"{bytes_text(free_bytes)} that a pack has"
    group, memory = max(known, key=lambda pair: pair[1].of(pair[0].largest))
    largest = f"{counted(group.largest, 'trial')} of {group.signature}"
    needed = bytes_text(memory.of(group.largest))
    if not memory.is_all:
        yield (
            f"The data of {largest} takes {needed} of the {room}. What else they need, and whether"
            " they fit, `--trace` finds; a run continues packs that do not fit in halves"
        )
        return
    room_bytes = SHARE_OF_FREE * free_bytes
    too_large = [(one, own) for one, own in known if own.of(one.largest) > room_bytes]
    if not too_large:
        who = "All packs" if len(known) == len(groups) else "Packs whose memory is known"
        yield (
            f"{who} fit: {largest} need about {needed} of the {room}, and may take"
            f" {SHARE_OF_FREE:.0%} of what is free there"
        )
    for one, own in too_large[:MAX_ROWS]:
        share = f"{SHARE_OF_FREE:.0%} of the {room}"
        if own.of_one_trial > room_bytes:
            yield (
                f"{one.signature}: not even one trial fits into {share}, for it needs about"
                f" {bytes_text(own.of_one_trial)}; a run tries each trial by itself all the same"
            )
            continue
        fit = counted(one.most_that_fit(free_bytes), "trial")
        yield (
            f"{one.signature}: packs of at most about {fit} fit into {share};"
            " a run continues its packs in halves until they fit"
        )


def _time(parts: Sequence[tuple[str, int]], devices: Devices, times: Times) -> Iterator[str]:
    unknown = list(dict.fromkeys(name for name, _ in parts if name not in times.measured))
    if unknown:
        yield f"How long it takes is not known: nothing was measured of {listed(unknown)}"
        return
    known = [one for name in dict.fromkeys(dict(parts)) for one in times.measured[name]]
    kinds = list(dict.fromkeys(one.device for one in known))
    ends = map(duration_text, time_of(parts, times.measured, devices.num))
    yield (
        f"{times.what} takes {' to '.join(dict.fromkeys(ends))} if each device is as fast as"
        f" the {listed(kinds, 'or')} {times.where}. {times.note}"
    )
    if (devices.gpus is not None) == ("CPU" in kinds):
        what = "a GPU" if devices.gpus is not None else "this machine"
        yield f"That was measured on {listed(kinds)}; how fast {what} is, is not known"
    widest = max(one.num_trials for one in known)
    if max(num for _, num in parts) > widest:
        yield (
            f"The packs that were measured have at most {counted(widest, 'trial')}; wider ones may"
            " take less time per trial"
        )
