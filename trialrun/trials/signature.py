"""What trials of one program share, their signature, and the numbers in which they may differ."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trialrun.job.document import canonical_json
from trialrun.job.keras_api.arguments import (
    LOSS_ARGUMENTS,
    OPTIMIZER_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    is_real,
)
from trialrun.job.keras_api.optimizers import ignores_learning_rate
from trialrun.job.keras_api.own_terms import is_own, own_terms
from trialrun.job.keras_api.terms import class_name, loss_per_output, split_term
from trialrun.trials.identity import CONTROLS, portable_settings

if TYPE_CHECKING:
    from trialrun.trials.trial import Variant

# The keys from the root of the settings to a number: ("training", "optimizer", "momentum").
NumberPath = tuple[str, ...]


def exact_signature_of(variant: "Variant") -> str:
    """A hash, 16 hex digits, of all settings that are compiled into a program.

    Left out are the learning rate, which is a variable of Keras's optimizers, and what is decided
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
    with which a schedule begins or that a function of the user's makes an optimizer of, and
    arguments of the model's builder that are floats, such as a dropout rate or a penalty. Whether
    what is given to the user's code can really differ is found out when the model is built.
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
    elif schedule is None and _has_own_optimizer(variant):
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


def is_given_to_user(path: NumberPath, variant: "Variant") -> bool:
    """Whether a number of `numbers_inside` is given to the user's code, which may decide by it."""
    rates = ("learning_rate", "learning_rate_schedule")
    return path[0] == "model" or (path[1] in rates and _has_own_optimizer(variant))


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


def _has_own_optimizer(variant: "Variant") -> bool:
    return is_own(split_term(variant.training.optimizer)[0])


def _hash(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16]


def _settings_of_program(variant: "Variant") -> dict[str, dict[str, Any]]:
    settings = portable_settings(variant)
    training = settings["training"]
    del training["check_engine"]
    if variant.training.learning_rate_schedule is None and not _has_own_optimizer(variant):
        del training["learning_rate"]
    for name in CONTROLS:
        if name in training:
            training[name] = True
    return settings
