"""How long packs take, by what an earlier run of the same job measured."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trialrun.errors import InputError
from trialrun.messages import visible
from trialrun.store import RunFolder
from trialrun.store.pack_records import PackRecord
from trialrun.trials.signature import signature_of
from trialrun.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

_ENDS = ("completed", "diverged")
# Packs with a smaller share of the most trials say little of those that have as many.
_WIDE = 0.5
_LONGEST_S = 1e9  # decades: no pack takes longer


@dataclass(frozen=True, slots=True)
class MeasuredPack:
    """A pack that was trained from its beginning to its end.

    Attributes:
        num_trials: Its trials.
        whole_s: Seconds of wall time from its data to its last epoch.
        compile_s: The part of it in which its program was traced and compiled, with its first
            epochs.
        device: What trained it, such as `CPU`.
    """

    num_trials: int
    whole_s: float
    compile_s: float
    device: str

    def shortest_s(self, num_trials: int) -> float:
        """How long a pack of other trials takes if its program is there, and has been warmed up."""
        return max(0.0, self.whole_s - self.compile_s) * num_trials / self.num_trials

    def longest_s(self, num_trials: int) -> float:
        """How long it takes at most, whether or not compiling grows with the trials."""
        share = num_trials / self.num_trials
        return max(self.whole_s * share, self.compile_s + (self.whole_s - self.compile_s) * share)


Measured = Mapping[str, Sequence[MeasuredPack]]  # by signature


def measured_by(run: RunFolder, trials: Sequence[Trial]) -> Measured:
    """What packs took in an earlier run, by those of its trials that are among the given ones.

    Left out are packs that went on from a checkpoint, were tried again or halved, or have a trial
    that failed: their times are not those of whole packs.

    Raises:
        InputError: The run has no such pack.
        ValueError: The times of a pack are none that trialrun wrote.
    """
    variants = {trial.variant.variant_id: trial.variant for trial in trials}
    signature_by = {name: signature_of(variant) for name, variant in variants.items()}
    signatures = {trial.trial_id: signature_by[trial.variant.variant_id] for trial in trials}
    rows = run.read_trials("identity")
    records = {record.pack_id: record for record in run.read_packs()}
    found: dict[str, list[MeasuredPack]] = {}
    for pack_id, own in rows.groupby("pack_id"):
        signature = next((signatures[i] for i in own["trial_id"] if i in signatures), None)
        if signature is None or (record := records.get(str(pack_id))) is None:
            continue
        if (pack := _whole_pack(own, record)) is not None:
            found.setdefault(signature, []).append(pack)
    if not found:
        raise InputError(
            f"{run.path}: holds no pack of this job's trials that was trained in one go, so that it"
            " tells no times; give a run of the same job with fewer seeds"
        )
    return {signature: _widest(packs) for signature, packs in found.items()}


def _whole_pack(rows: "pd.DataFrame", record: PackRecord) -> MeasuredPack | None:
    is_whole = rows["status"].isin(_ENDS).all() and not rows["attempt"].any()
    if not is_whole or record.is_resumed or record.pack_id[-1].isalpha():
        return None
    compile_s = sum(record.timings_s.get(stage, 0.0) for stage in ("trace", "compile"))
    whole_s = float(rows["duration_s"].sum(skipna=False))
    if not (0 <= compile_s <= _LONGEST_S and 0 <= whole_s <= _LONGEST_S):
        raise ValueError(f"{record.pack_id} took {whole_s} s, of which compiling {compile_s} s")
    name = visible(str(rows["device"].iloc[0]))
    device = name.partition(": ")[2] or name  # without the GPU's number
    return MeasuredPack(len(rows), whole_s, compile_s, device)


def _widest(packs: Sequence[MeasuredPack]) -> list[MeasuredPack]:
    most = max(pack.num_trials for pack in packs)
    return [pack for pack in packs if pack.num_trials >= _WIDE * most]


def time_of(
    packs: Sequence[tuple[str, int]], measured: Measured, num_devices: int
) -> tuple[float, float]:
    """The shortest and the longest that packs are expected to take, in seconds of wall time.

    Args:
        packs: The signature of each pack and how many trials it has, in the order of training.
        measured: What packs of all their signatures took.
        num_devices: How many packs are trained at a time.
    """
    shortest = [min(one.shortest_s(num) for one in measured[name]) for name, num in packs]
    longest = [max(one.longest_s(num) for one in measured[name]) for name, num in packs]
    return until_last(shortest, num_devices), until_last(longest, num_devices)


def until_last(seconds: Sequence[float], num_devices: int) -> float:
    """When the last of some packs ends, if each device takes the next as soon as it is free.

    >>> until_last([3, 1, 1, 2], 2)
    4.0
    """
    free_s = [0.0] * min(num_devices, len(seconds))
    for lasts_s in seconds:
        heapq.heapreplace(free_s, free_s[0] + lasts_s)
    return max(free_s)
