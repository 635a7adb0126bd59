"""A variant, a trial and a pack: what is trained, before it is. `identity` makes their ids."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trialrun.job import DataSpec, ModelSpec, TrainingSpec


@dataclass(frozen=True, slots=True)
class Variant:
    """One assignment of the searched hyperparameters.

    Attributes:
        variant_id: `v00`, `v01`, ... in the order of the search; zero-padded to equal width.
        parameters: Searched dotted path -> value, e.g. `{"training.learning_rate": 1e-3}`.
        data, model, training: The job's sections with this variant's values.
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
        trial_id: 16 hex digits that depend only on the resolved settings, the source code of the
            user's generator, builder and callbacks, the content of data files, and the seed.
        variant: The variant that is trained.
        seed: The seed of every random stream of the trial.
    """

    trial_id: str
    variant: Variant
    seed: int


@dataclass(frozen=True, slots=True)
class Pack:
    """Trials of one signature that one task trains together on one device.

    Attributes:
        pack_id: `p000`, `p001`, ...
        signature: 16 hex digits that are equal for trials that can share one program.
        trials: At least one trial.
    """

    pack_id: str
    signature: str
    trials: tuple[Trial, ...]


def is_part(pack_id: str, whole: str) -> bool:
    """Whether a pack such as `p003ab` was made by halving another, `p003` or `p003a`."""
    return pack_id.startswith(whole) and pack_id.removeprefix(whole).isalpha()
