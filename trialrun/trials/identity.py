"""What makes a trial itself: its id, from its resolved settings and its seed alone."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.job import REFERENCE_PATHS, Settings, TrainingSpec
from trialrun.job.document import canonical_json
from trialrun.job.keras_api.own_terms import OWN_FIELDS, map_references
from trialrun.job.user_code.depends_on import dependencies_digest
from trialrun.job.user_code.files import file_digest, source_digest
from trialrun.job.user_code.functions import portable_reference

if TYPE_CHECKING:
    from trialrun.trials.trial import Variant


def hash_settings(variant: "Variant") -> "hashlib._Hash":
    """A hash of all settings that make a trial what it is; `trial_id_of` completes it."""
    settings = portable_settings(variant)
    for name in _HOW_NOT_WHAT:
        del settings["training"][name]
    return hashlib.sha256(canonical_json(settings).encode())


def trial_id_of(settings_hash: "hashlib._Hash", seed: int) -> str:
    """The id of the trial with these settings and this seed: 16 hex digits."""
    digest = settings_hash.copy()
    digest.update(f"|seed={seed}".encode())
    return digest.hexdigest()[:16]


# Fields that take effect between two epochs, for each trial by itself.
CONTROLS = ("early_stopping", "reduce_lr_on_plateau", "keep_best")
# Fields that are left out of the hash at their defaults, so that trials keep the ids that they had
# before these fields existed.
_LATER_FIELDS = (
    *CONTROLS,
    "terminate_on_nan",
    "callbacks",
    "learning_rate_schedule",
    "loss_weights",
    "weighted_metrics",
    "class_weight",
)
# Fields that decide how a trial is computed, which does not change what it is.
_HOW_NOT_WHAT = ("engine", "check_engine", "checkpoint_every")
_FILE_FIELDS = ("csv", "npz", "parquet", "test")


def portable_settings(variant: "Variant") -> dict[str, dict[str, Any]]:
    """The settings as plain values that are the same in every folder and on every machine.

    They include the source code of the user's functions and the content of data files, so that an
    edited model or another file makes other trials.
    """
    settings = {name: getattr(variant, name).model_dump() for name in Settings._fields}
    training = settings["training"]
    for name in _LATER_FIELDS:
        if training[name] == TrainingSpec.model_fields[name].default:
            del training[name]
    for name in OWN_FIELDS:
        if name in training:
            training[name] = map_references(
                training[name],
                lambda reference: [portable_reference(reference), source_digest(reference)],
            )
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
    for section in ("data", "model"):
        if patterns := settings[section].pop("depends_on", ()):
            settings[section]["depends_on"] = dependencies_digest(patterns)
    if variant.data.files:
        settings["data"] |= {
            name: Path(path).name for name, path in settings["data"].items() if name in _FILE_FIELDS
        }
        settings["data"]["source"] = [file_digest(path) for path in variant.data.files]
    return settings
