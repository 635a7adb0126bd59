"""From a job to the packs that are trained: variants, trials, packs. Starts nothing."""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialrun.document import canonical_json
from trialrun.job import (
    REFERENCE_PATHS,
    DataSpec,
    JobSpec,
    ModelSpec,
    Settings,
    TrainingSpec,
    settings_of,
)
from trialrun.references import portable_reference
from trialrun.search import expand
from trialrun.sources import file_digest, source_digest


@dataclass(frozen=True, slots=True)
class Variant:
    """One assignment of the searched hyperparameters.

    Attributes:
        variant_id: `v00`, `v01`, ... in the order of the search; zero-padded to equal width.
        parameters: Searched dotted path -> value, e.g. `{"training.learning_rate": 1e-3}`.
        data, model, training: The job's sections with this variant's values put in.
    """

    variant_id: str
    parameters: Mapping[str, Any]
    data: DataSpec
    model: ModelSpec
    training: TrainingSpec


@dataclass(frozen=True, slots=True)
class Trial:
    """One independent training: a variant and a seed.

    Attributes:
        trial_id: 16 hex digits derived from the resolved settings, the source of the user's
            generator, builder and callbacks, the content of data files, and the seed alone.
        variant: What is trained.
        seed: Keys every random stream of the trial.
    """

    trial_id: str
    variant: Variant
    seed: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Trials of one signature that one task trains together on one device.

    Attributes:
        pack_id: `p000`, `p001`, ...
        signature: 16 hex digits: equal for trials that can share one program.
        trials: At least one trial.
    """

    pack_id: str
    signature: str
    trials: tuple[Trial, ...]


def plan_variants(job: JobSpec) -> tuple[Variant, ...]:
    """The variants of a job, in the order of its search."""
    assignments = expand(job)
    width = max(2, len(str(len(assignments) - 1)))
    return tuple(
        Variant(f"v{index:0{width}d}", parameters, *settings_of(job, parameters))
        for index, parameters in enumerate(assignments)
    )


def plan_trials(job: JobSpec) -> tuple[Trial, ...]:
    """Every variant with every seed: all seeds of the first variant, then of the second, ..."""
    trials: list[Trial] = []
    seeds = list(job.seed_list)  # the same numbers in memory for all variants
    for variant in plan_variants(job):
        settings_hash = _hash_settings(variant)  # once per variant: it is most of the work
        trials += (Trial(_with_seed(settings_hash, seed), variant, seed) for seed in seeds)
    return tuple(trials)


def pack_trials(
    trials: Sequence[Trial], *, num_devices: int, max_trials_per_pack: int, first_number: int = 0
) -> tuple[Pack, ...]:
    """The trials in as few packs as fill the devices.

    Trials of one signature are split, in their order, into packs whose sizes differ by at most one.
    There are more packs than the largest size demands only to give every device one, and only while
    each keeps at least 8 trials: below that a pack costs more to compile than to train.

    Args:
        trials: In the order of `plan_trials`.
        num_devices: Packs that can be trained at the same time, at least 1.
        max_trials_per_pack: At least 1.
        first_number: Packs are numbered from here.

    Returns:
        Packs in the order in which their signatures first appear among the trials.
    """
    groups = _group_by_signature(trials)
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
    """The trials of one shard of a job: shards share no trial, and together they are all.

    Trials of one signature are kept together where there are many signatures, and split evenly over
    the shards where there are few, so that each shard has about as much to do as another.

    Args:
        trials: Of the whole job, in the order of `plan_trials`.
        shard: `2/8` for the second of eight; None for the whole job.

    Returns:
        In the order of the job; empty when there are fewer trials than shards.
    """
    if shard is None:
        return tuple(trials)
    number, count = map(int, shard.split("/"))
    groups = _group_by_signature(trials).values()
    smallest = _MIN_TRIALS_WORTH_A_PACK if len(groups) >= count else 1
    loads = [0] * count
    own: set[str] = set()
    for group in sorted(groups, key=len, reverse=True):
        for piece in _split_evenly(group, min(count, math.ceil(len(group) / smallest))):
            place = loads.index(min(loads))
            loads[place] += len(piece)
            if place == number - 1:
                own.update(trial.trial_id for trial in piece)
    return tuple(trial for trial in trials if trial.trial_id in own)


def signature_of(variant: Variant) -> str:
    """16 hex digits over all settings but those that may differ inside one program.

    These are the learning rate, and when a trial stops or what it keeps. Under a schedule the rate
    that it begins at is built into the program.
    """
    settings = _portable_settings(variant)
    training = settings["training"]
    del training["check_engine"]
    if variant.training.learning_rate_schedule is None:
        del training["learning_rate"]
    for name in _CONTROLS:
        if name in training:
            training[name] = True
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16]


_MIN_TRIALS_WORTH_A_PACK = 8


def _group_by_signature(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    signatures: dict[str, str] = {}
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        variant_id = trial.variant.variant_id
        if variant_id not in signatures:
            signatures[variant_id] = signature_of(trial.variant)
        groups.setdefault(signatures[variant_id], []).append(trial)
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
    bounds = [len(trials) * part // count for part in range(count + 1)]
    return [tuple(trials[start:end]) for start, end in itertools.pairwise(bounds)]


def _hash_settings(variant: Variant) -> "hashlib._Hash":
    settings = _portable_settings(variant)
    for name in _HOW_NOT_WHAT:
        del settings["training"][name]
    return hashlib.sha256(canonical_json(settings).encode())


def _with_seed(settings_hash: "hashlib._Hash", seed: int) -> str:
    digest = settings_hash.copy()
    digest.update(f"|seed={seed}".encode())
    return digest.hexdigest()[:16]


# What decides between two epochs, one trial apart from the other.
_CONTROLS = ("early_stopping", "reduce_lr_on_plateau", "keep_best")
# Absent from the hash at their defaults: ids of trials are on disks from before there were these.
_LATER_FIELDS = (
    *_CONTROLS,
    "terminate_on_nan",
    "callbacks",
    "learning_rate_schedule",
    "loss_weights",
    "weighted_metrics",
    "class_weight",
)
# How a trial is computed is not what it is.
_HOW_NOT_WHAT = ("engine", "check_engine", "checkpoint_every")
_FILE_FIELDS = ("csv", "npz", "parquet", "test")


def _portable_settings(variant: Variant) -> dict[str, dict[str, Any]]:
    """The settings as plain values that are the same in every folder and on every machine.

    The source of the user's functions and the content of data files are among them: an edited
    model or another file makes other trials.
    """
    settings = {name: getattr(variant, name).model_dump() for name in Settings._fields}
    training = settings["training"]
    for name in _LATER_FIELDS:
        if training[name] == TrainingSpec.model_fields[name].default:
            del training[name]
    if callbacks := variant.training.callbacks:
        training["callbacks"] = [
            [portable_reference(reference), source_digest(reference)] for reference in callbacks
        ]
    for reference_path in REFERENCE_PATHS:
        section, field = reference_path.split(".")
        reference = settings[section].get(field)
        if reference is None:
            continue
        settings[section][field] = portable_reference(reference)
        if digest := source_digest(reference):
            settings[section]["source"] = digest
    if variant.data.files:
        settings["data"] |= {
            name: Path(path).name for name, path in settings["data"].items() if name in _FILE_FIELDS
        }
        settings["data"]["source"] = [file_digest(path) for path in variant.data.files]
    return settings
