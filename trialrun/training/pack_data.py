"""The data of a pack's trials, loaded and weighed, if it fits into memory."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from trialrun.data.arrays import leaves
from trialrun.data.class_weights import weigh_classes
from trialrun.data.fingerprint import DataSample
from trialrun.data.splits import PARTS, Part, Splits
from trialrun.errors import InputError, OutOfMemory
from trialrun.host import available_memory_bytes
from trialrun.messages import bytes_text
from trialrun.training.model.lookups import looked_up_features
from trialrun.training.process_settings import import_with_settings, settings_kept
from trialrun.training.repeatable import load_repeatable
from trialrun.training.same_data import require_same_data
from trialrun.trials.trial import Trial


@dataclass(frozen=True, eq=False)
class PackData:
    """The data of a pack's trials.

    Attributes:
        splits: One entry per trial, or a single one that all trials share.
        is_shared: Whether all trials share one entry, as they do if the data's seed is fixed.
    """

    splits: tuple[Splits, ...]
    is_shared: bool

    def of_trial(self, index: int) -> Splits:
        """The data of the trial with this index in the pack."""
        return self.splits[0 if self.is_shared else index]

    @functools.cached_property
    def on_device(self) -> Mapping[Part, tuple[Any, ...]]:
        """The parts of shared data as tensors: made once, for every slice and engine."""
        (shared,) = self.splits
        return {part: keras.tree.map_structure(tf.constant, shared.part(part)) for part in PARTS}

    @property
    def why_streamed(self) -> str:
        """The part that does not fit into memory, and why; empty if all parts of all trials do."""
        streams = (item for splits in self.splits for item in splits.streams.items())
        return next((f"{part} {stream.reason}" for part, stream in streams), "")


def splits_bytes(splits: Splits) -> int:
    """The bytes of all arrays of a trial's data."""
    arrays = (
        pair for part in PARTS for structure in splits.part(part) for pair in leaves(structure)
    )
    return sum(int(array.nbytes) for _, array in arrays)


def require_memory(splits: Splits, num_trials: int, free_bytes: int | None = None) -> None:
    """Raises OutOfMemory unless the data of a number of trials fits into memory.

    Args:
        splits: The data of the first trial, which is already in memory.
        num_trials: How many trials have data of their own; 1 if all share it.
        free_bytes: The free memory; absent: that of this machine.

    Raises:
        OutOfMemory: The data of the other trials, and the device's copy of all data, need more.
    """
    own = splits_bytes(splits)
    needed = own * (2 * num_trials - 1)
    free = available_memory_bytes() if free_bytes is None else free_bytes
    if needed > free:
        raise OutOfMemory(
            f"the data of one trial takes {bytes_text(own)}; {num_trials} trials, with the"
            f" device's copy, need {bytes_text(needed)} more, but only {bytes_text(free)} are"
            f" free. With a fixed data.seed all trials share one copy"
        )


def load_pack_data(
    trials: Sequence[Trial], job_folder: Path, samples: Sequence[DataSample] = ()
) -> tuple[PackData, dict[str, InputError]]:
    """Generates, splits, scales and weighs the data of trials of one signature.

    Args:
        trials: The trials.
        job_folder: The folder that the paths of the user's files are relative to.
        samples: What the generator gave where the run was started.

    Returns:
        The data of the trials whose data could be loaded, and trial_id -> error of the others.

    Raises:
        ModelError: The generator gives other data than where the run was started.
        OutOfMemory: The data of this many trials does not fit into memory.
    """
    data = trials[0].variant.data
    class_weights = [trial.variant.training.class_weight for trial in trials]

    looked_up = looked_up_features(trials[0].variant.model, job_folder)

    with settings_kept():
        import_with_settings(filter(None, [data.generator]), job_folder)
        require_same_data(samples, data, job_folder)

    def load(trial: Trial) -> Splits:
        with settings_kept():
            import_with_settings(filter(None, [data.generator]), job_folder)
            splits = load_repeatable(data, job_folder, trial.seed, looked_up)
        return weigh_classes(splits, trial.variant.training.class_weight)

    if data.seed != "per_trial" and all(weight == class_weights[0] for weight in class_weights):
        try:
            shared = load(trials[0])
            require_memory(shared, num_trials=1)
            return PackData((shared,), True), {}
        except InputError as error:
            return PackData((), True), dict.fromkeys((t.trial_id for t in trials), error)
    splits: list[Splits] = []
    errors: dict[str, InputError] = {}
    for trial in trials:
        try:
            loaded = load(trial)
            if splits:
                _require_same_classes(loaded, trial.seed, splits[0])
            splits.append(loaded)
            if len(splits) == 1:
                require_memory(splits[0], num_trials=len(trials))
        except InputError as error:
            errors[trial.trial_id] = error
    return PackData(tuple(splits), False), errors


def _require_same_classes(splits: Splits, seed: int, first: Splits) -> None:
    """Refuses data whose classes differ from those of the first trial of a pack."""
    if splits.class_names != first.class_names:
        own, others = (", ".join(data.class_names) or "none" for data in (splits, first))
        raise InputError(
            f"the data of seed {seed} has the classes {own}, that of other seeds {others};"
            " let the generator return class_names, the same for every seed"
        )
