"""How trials become packs for the devices there are: the measured rules behind `auto`."""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Sequence

from trialrun.errors import InputError
from trialrun.job import JobSpec, LoadedJob
from trialrun.trials.signature import NumberPath, exact_signature_of, signature_of
from trialrun.trials.trial import Pack, Trial, Variant

_MIN_TRIALS_WORTH_A_PACK = 8
# If a worker has more threads, they wait for Python's global lock between epochs.
_MAX_THREADS_PER_WORKER = 4
# Results are saved when a pack ends: small packs lose little in a crash, large ones compile less
# often.
_TRIALS_PER_THREAD = 128
_TRIALS_PER_DEVICE = 512
# Between rounds the number of trials changes, but programs are compiled for one, so that a later
# round compiles nothing. A GPU needs this many to be busy. On a CPU it is one of these, and this
# one if nothing is known of the rounds. A step of a program takes as long as so many trials of it,
# besides its trials; this was measured with jobs/medical_trial_rounds.yaml, widths of 32 and 72.
WIDTH_ON_GPU = 128
_WIDTHS_ON_CPU, _WIDTH_ON_CPU = range(24, 65), 32
_TRIALS_LIKE_A_STEP = 8
# Of free memory; the rest is for what an estimate leaves out: XLA's own buffers, other processes.
SHARE_OF_FREE = 0.7


def make_packs(
    job: JobSpec,
    trials: Sequence[Trial],
    num_devices: int,
    *,
    num_threads: int,
    first_number: int = 0,
) -> tuple[Pack, ...]:
    """The packs for a number of devices, none larger than `resources.max_trials_per_pack`.

    Args:
        job: The job.
        trials: The trials to train.
        num_devices: How many packs can be trained at the same time.
        num_threads: CPU threads per pack; 1 if GPUs compute.
        first_number: The number of the first pack.
    """
    limit = _most_per_pack(job, num_threads)
    return pack_trials(
        trials, num_devices=num_devices, max_trials_per_pack=limit, first_number=first_number
    )


def _most_per_pack(job: JobSpec, num_threads: int) -> int:
    limit = job.resources.max_trials_per_pack
    if limit != "auto":
        return limit
    return _TRIALS_PER_THREAD * num_threads if num_threads > 1 else _TRIALS_PER_DEVICE


def choose_cpus_per_pack(num_cpus: int) -> int:
    """CPU cores per task if no GPU computes: few tasks with several threads, not a task per core.

    Each task imports TensorFlow and compiles by itself, but threads of one task do so only once.
    `resources.cpus: 1` gives a task per core instead. This was measured with `trialrun run
    jobs/medical_trial.yaml`, alternately with and without `--set resources.cpus=1`, as medians of
    three runs on two cores of an AMD EPYC: 60 trials took 16.8 s in one task with two threads and
    17.7 s in two tasks; 1,000 trials (200 seeds x 5 learning rates) took 24.8 s and 27.8 s.
    """
    return max(1, min(num_cpus, _MAX_THREADS_PER_WORKER))


def pack_trials(
    trials: Sequence[Trial], *, num_devices: int, max_trials_per_pack: int, first_number: int = 0
) -> tuple[Pack, ...]:
    """The trials in as few packs as keep all devices busy.

    Trials of one signature are split, in their order, into packs whose sizes differ by at most one.
    There are more packs than the largest size requires only to give every device one, and only if
    each still has at least 8 trials: a smaller pack takes longer to compile than to train.

    Args:
        trials: Trials in the order of `plan_trials`.
        num_devices: How many packs can be trained at the same time, at least 1.
        max_trials_per_pack: The largest size of a pack, at least 1.
        first_number: The number of the first pack.

    Returns:
        Packs in the order in which their signatures first appear among the trials.
    """
    groups = _group_by(signature_of, trials)
    counts = _count_packs(
        [len(group) for group in groups.values()], num_devices, max_trials_per_pack
    )
    chunks = [
        (signature, chunk)
        for (signature, group), count in zip(groups.items(), counts, strict=True)
        for chunk in _split_evenly(group, count)
    ]
    width = max(3, len(str(first_number + len(chunks) - 1)))
    return tuple(
        Pack(f"p{number:0{width}d}", signature, chunk)
        for number, (signature, chunk) in enumerate(chunks, first_number)
    )


def shard_trials(trials: Sequence[Trial], shard: str | None) -> tuple[Trial, ...]:
    """The trials of one shard of a job; each trial is in exactly one shard.

    If there are many signatures, trials of one signature are kept together; if there are few, they
    are split evenly over the shards, so that all shards have about the same amount of work.

    Args:
        trials: All trials of the job, in the order of `plan_trials`.
        shard: `2/8` for the second of eight; None for the whole job.

    Returns:
        Trials in the order of the job; may be empty if there are fewer trials than shards.
    """
    if shard is None:
        return tuple(trials)
    number, count = map(int, shard.split("/"))
    groups = _group_by(exact_signature_of, trials).values()
    smallest = _MIN_TRIALS_WORTH_A_PACK if len(groups) >= count else 1
    loads = [0] * count
    own: set[str] = set()
    for group in sorted(groups, key=len, reverse=True):
        for piece in _split_evenly(group, min(count, math.ceil(len(group) / smallest))):
            index = loads.index(min(loads))
            loads[index] += len(piece)
            if index == number - 1:
                own.update(trial.trial_id for trial in piece)
    return tuple(trial for trial in trials if trial.trial_id in own)


def own_trials(loaded: LoadedJob, trials: Sequence[Trial]) -> Sequence[Trial]:
    """The trials of the job's own shard; all of them if it has none.

    Raises:
        InputError: The shard has no trial.
    """
    shard = loaded.spec.resources.shard
    own = shard_trials(trials, shard)
    if not own:
        text = (
            f"resources.shard {shard}: has no trial to train, as the job has only {len(trials)};"
            " take fewer shards"
        )
        raise InputError(loaded.locate(text))
    return own


def width_on_cpu(job: JobSpec, rounds: Sequence[int], num_devices: int, *, num_threads: int) -> int:
    """The width of programs for all rounds of a run, with which the least time is lost to gaps.

    Args:
        job: The job.
        rounds: How many trials each round is expected to train; empty if that is not known.
        num_devices: How many packs can be trained at the same time.
        num_threads: CPU threads per pack, which train so many slices at the same time.
    """
    if not rounds:
        return _WIDTH_ON_CPU
    limit = _most_per_pack(job, num_threads)
    sizes: list[int] = []
    for size in rounds:
        [count] = _count_packs([size], num_devices, limit)
        sizes += [math.ceil(size / count)] * math.ceil(count / num_devices)

    def cost(width: int) -> int:
        turns = sum(math.ceil(math.ceil(size / width) / num_threads) for size in sizes)
        return turns * (width + _TRIALS_LIKE_A_STEP)

    return min(_WIDTHS_ON_CPU, key=cost)


def trials_that_fit(
    needed_bytes: int, bytes_per_trial: int, num_trials: int, free_bytes: int
) -> int | None:
    """How many trials of a pack fit into the memory of a device; None if all of them do.

    Args:
        needed_bytes: What the pack needs.
        bytes_per_trial: What each of its trials takes; the rest is needed once.
        num_trials: Its trials, with those that are repeated to fill its slices.
        free_bytes: What is free.
    """
    room = SHARE_OF_FREE * free_bytes
    if needed_bytes <= room:
        return None
    shared = needed_bytes - bytes_per_trial * num_trials
    return max(1, int((room - shared) / bytes_per_trial))


def parts_of(num_trials: int, most: int) -> list[int]:
    """The sizes of what a pack becomes that is halved until no part has more than so many trials.

    >>> parts_of(512, 512), parts_of(512, 200), parts_of(9, 4)
    ([512], [128, 128, 128, 128], [3, 2, 4])
    """
    if num_trials <= most:
        return [num_trials]
    half = num_trials // 2
    return [*parts_of(num_trials - half, most), *parts_of(half, most)]


def split_by(pack: Pack, paths: frozenset[NumberPath]) -> tuple[Pack, ...]:
    """A pack split into packs whose trials have the same numbers at some paths of the settings.

    Args:
        pack: Trials that cannot share a program.
        paths: Paths of the numbers that prevent it. If empty, the trials of each new pack have the
            same numbers at all paths.
    """
    if not paths:
        return _split(pack, exact_signature_of)
    return _split(pack, functools.partial(signature_of, built_in=paths))


def take_apart(
    pack: Pack, paths: Collection[NumberPath]
) -> tuple[tuple[Pack, ...], frozenset[NumberPath]]:
    """A pack split by the numbers that are said to prevent a shared program, else by all numbers.

    Returns:
        The packs, and the paths by which they were split: empty for all numbers. If its trials
        differ in no number, only the pack itself.
    """
    for by in (frozenset(paths), frozenset[NumberPath]()):
        packs = split_by(pack, by)
        if len(packs) > 1:
            return packs, by
    return (pack,), frozenset()


def _split(pack: Pack, key_of: Callable[[Variant], str]) -> tuple[Pack, ...]:
    groups = _group_by(key_of, pack.trials)
    letters = _names(pack.pack_id, len(groups))
    return tuple(
        Pack(name, signature, tuple(trials))
        for name, (signature, trials) in zip(letters, groups.items(), strict=True)
    )


def _names(pack_id: str, count: int) -> list[str]:
    """Ids for a number of packs made from one, as halving it repeatedly would give them."""
    if count == 1:
        return [pack_id]
    first = (count + 1) // 2
    return [*_names(f"{pack_id}a", first), *_names(f"{pack_id}b", count - first)]


def _group_by(key_of: Callable[[Variant], str], trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    keys: dict[str, str] = {}
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        variant_id = trial.variant.variant_id
        if variant_id not in keys:
            keys[variant_id] = key_of(trial.variant)
        groups.setdefault(keys[variant_id], []).append(trial)
    return groups


def _count_packs(sizes: Sequence[int], num_devices: int, max_trials_per_pack: int) -> list[int]:
    """How many packs each group is split into."""
    counts = [math.ceil(size / max_trials_per_pack) for size in sizes]
    while sum(counts) < num_devices:
        trials_per_pack = [size // (count + 1) for size, count in zip(sizes, counts, strict=True)]
        if not trials_per_pack or max(trials_per_pack) < _MIN_TRIALS_WORTH_A_PACK:
            break
        counts[trials_per_pack.index(max(trials_per_pack))] += 1
    return counts


def _split_evenly(trials: Sequence[Trial], count: int) -> list[tuple[Trial, ...]]:
    bounds = [len(trials) * number // count for number in range(count + 1)]
    return [tuple(trials[start:end]) for start, end in itertools.pairwise(bounds)]
