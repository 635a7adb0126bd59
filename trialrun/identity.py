"""The id of a trial, from all its settings, and the signature that trials of one program share."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.arguments import LOSS_ARGUMENTS, OPTIMIZER_ARGUMENTS, SCHEDULE_ARGUMENTS, is_real
from trialrun.compilation import class_name, ignores_learning_rate, loss_per_output, split_term
from trialrun.document import canonical_json
from trialrun.job import REFERENCE_PATHS, Settings, TrainingSpec
from trialrun.ownterms import OWN_FIELDS, is_own, map_references, own_terms
from trialrun.references import portable_reference
from trialrun.sources import file_digest, source_digest

if TYPE_CHECKING:
    from trialrun.plan import Variant

# The keys from the root of the settings to a number: ("training", "optimizer", "momentum").
NumberPath = tuple[str, ...]


def hash_settings(variant: "Variant") -> "hashlib._Hash":
    """A hash of all settings that make a trial what it is; `with_seed` completes it."""
    settings = _portable_settings(variant)
    for name in _HOW_NOT_WHAT:
        del settings["training"][name]
    return hashlib.sha256(canonical_json(settings).encode())


def with_seed(settings_hash: "hashlib._Hash", seed: int) -> str:
    """The id of the trial with these settings and this seed: 16 hex digits."""
    digest = settings_hash.copy()
    digest.update(f"|seed={seed}".encode())
    return digest.hexdigest()[:16]


def exact_signature_of(variant: "Variant") -> str:
    """A hash, 16 hex digits, of all settings that are compiled into a program.

    Left out are the learning rate, which is a variable of the optimizer, and what is decided
    between two epochs: when a trial stops, and which weights it keeps.
    """
    return _hash(_settings_of_program(variant))


def signature_of(variant: "Variant", built_in: Collection[NumberPath] = ()) -> str:
    """A hash, 16 hex digits, that is equal for variants whose trials may share a program.

    In comparison with `exact_signature_of`, numbers that a program can take as input (see
    `numbers_inside`) are left out too. Only whether there is a number, and whether it is 0, counts,
    because the program is built differently for 0.

    Args:
        variant: The variant whose settings are hashed.
        built_in: Numbers that are known to be compiled into the program; they are not left out.
    """
    settings = _settings_of_program(variant)
    for path, value in numbers_inside(variant).items():
        if path in built_in:
            continue
        *sections, name = path
        holder: Any = settings
        for key in sections:
            holder = holder[key]
        holder[name] = "0" if value == 0 else "a number"
    if "class_weight" in settings["training"]:
        settings["training"]["class_weight"] = True  # class weights become weights of rows
    return _hash(settings)


def numbers_inside(variant: "Variant") -> dict[NumberPath, float]:
    """Path in the settings -> number that may differ between the trials of one program.

    These are the arguments of optimizer, schedule and loss that are real numbers, the learning rate
    with which a schedule begins, and arguments of the model's builder that are floats, such as a
    dropout rate or a penalty. Whether a builder's argument can really differ is found out when the
    model is built.
    """
    training = variant.training
    numbers: dict[NumberPath, float] = {}
    numbers |= _arguments(("training", "optimizer"), training.optimizer, OPTIMIZER_ARGUMENTS)
    schedule = training.learning_rate_schedule
    if schedule is not None and not any(own_terms(schedule)):
        path = ("training", "learning_rate_schedule")
        numbers |= _arguments(path, schedule, SCHEDULE_ARGUMENTS)
        if not ignores_learning_rate(schedule):
            numbers["training", "learning_rate"] = training.learning_rate
    for output, loss in loss_per_output(training.loss).items():
        output_path = (output,) if output else ()
        numbers |= _arguments(("training", "loss", *output_path), loss, LOSS_ARGUMENTS)
    numbers |= {
        ("model", "args", name): value
        for name, value in variant.model.args.items()
        if isinstance(value, float)
    }
    return numbers


def numbers_key(variant: "Variant") -> tuple[float, ...]:
    """The values of `numbers_inside`, in which variants of one signature differ inside a program.

    A worker can compute it even without the user's files, which a signature needs.
    """
    return tuple(numbers_inside(variant).values())


def with_number(variant: "Variant", path: NumberPath, value: float) -> "Variant":
    """The variant with another number at a path of `numbers_inside`."""
    section, field, *keys = path
    spec = getattr(variant, section)
    changed = spec.model_copy(update={field: _put(getattr(spec, field), keys, value)})
    return replace(variant, **{section: changed})


def _put(holder: Any, keys: list[str], value: float) -> Any:
    if not keys:
        return value
    return {**holder, keys[0]: _put(holder[keys[0]], keys[1:], value)}


# Kinds of arguments (see `arguments`) that are real numbers.
_REAL_KINDS = ("number", "positive", "nonnegative", "nonpositive", "share", "beta")
# Arguments that are part of the optimizer's initial state.
_BUILT_IN = ("initial_accumulator_value", "loss_scale_factor")


def _arguments(path: NumberPath, term: Any, tables: Mapping[str, Any]) -> dict[NumberPath, float]:
    name, given = split_term(term)
    if not given or is_own(name):  # it is unknown what a function of the user's does with a number
        return {}
    known = tables[class_name(name)]
    return {
        (*path, argument): float(value)
        for argument, value in given.items()
        if is_real(value)
        and argument in known
        and known[argument].kind in _REAL_KINDS
        and argument not in _BUILT_IN
    }


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16]


def _settings_of_program(variant: "Variant") -> dict[str, dict[str, Any]]:
    settings = _portable_settings(variant)
    training = settings["training"]
    del training["check_engine"]
    if variant.training.learning_rate_schedule is None:
        del training["learning_rate"]
    for name in _CONTROLS:
        if name in training:
            training[name] = True
    return settings


# Fields that take effect between two epochs, for each trial by itself.
_CONTROLS = ("early_stopping", "reduce_lr_on_plateau", "keep_best")
# Fields that are left out of the hash at their defaults, so that trials keep the ids that they had
# before these fields existed.
_LATER_FIELDS = (
    *_CONTROLS,
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


def _portable_settings(variant: "Variant") -> dict[str, dict[str, Any]]:
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
    if variant.data.files:
        settings["data"] |= {
            name: Path(path).name for name, path in settings["data"].items() if name in _FILE_FIELDS
        }
        settings["data"]["source"] = [file_digest(path) for path in variant.data.files]
    return settings
