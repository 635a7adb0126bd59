"""Checks of `training.optimizer` and `training.learning_rate_schedule`: names and arguments.

As in `losses`, each `check_*` gives the value back, or raises ValueError. Which optimizers there
are is in `names`, and which arguments they take in `arguments`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from trialrun.job.keras_api.arguments import (
    LOSS_SCALING_ARGUMENTS,
    OPTIMIZER_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    Argument,
    Arguments,
    check_arguments,
)
from trialrun.job.keras_api.names import OPTIMIZERS, SCHEDULES
from trialrun.job.keras_api.own_terms import check_own, is_own
from trialrun.job.keras_api.terms import Term, class_name, known_name, split_term
from trialrun.messages import show


def check_optimizer(value: object) -> Term:
    """The optimizer: a name, or a mapping of `name`, its arguments and perhaps `loss_scaling`."""
    if isinstance(value, str):
        if is_own(value):
            check_own(value)
            return value
        return known_name("optimizer", OPTIMIZERS, value.lower())
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(
            f"must be a name, or a mapping with a name such as {{name: sgd, momentum: 0.9}},"
            f" got {show(value)}"
        )
    if "learning_rate" in value:
        raise ValueError("holds a learning_rate; give it as training.learning_rate instead")
    if is_own(value["name"]):
        check_own(value["name"])
        if "loss_scaling" in value:
            _check_loss_scaling(value["loss_scaling"])
        return dict(value)
    name = known_name("optimizer", OPTIMIZERS, value["name"].lower())
    given = {key: item for key, item in value.items() if key not in ("name", "loss_scaling")}
    known = dict(OPTIMIZER_ARGUMENTS[class_name(name)])
    if "loss_scaling" in value:
        _check_loss_scaling(value["loss_scaling"])
        known.pop("loss_scale_factor")  # Keras would ignore it
    else:
        # Listed so that a hint for a misspelled argument can name it.
        known["loss_scaling"] = Argument("flag", nullable=False, required=False)
    check_arguments(name, given, known)
    clips = [key for key in ("clipnorm", "clipvalue", "global_clipnorm") if given.get(key)]
    if len(clips) > 1:
        raise ValueError(
            f"holds {' and '.join(clips)}; an optimizer clips in only one way, so give one of them"
        )
    return {**value, "name": name}


def _check_loss_scaling(value: object) -> None:
    if value is True:
        return
    if not isinstance(value, Mapping):
        known = ", ".join(LOSS_SCALING_ARGUMENTS)
        raise ValueError(f"loss_scaling must be true or a mapping of {known}, got {show(value)}")
    check_arguments("loss_scaling", value, LOSS_SCALING_ARGUMENTS)


def check_schedule(value: object) -> Term | None:
    """The schedule: a mapping of its `name` and arguments; None for a constant learning rate."""
    if value is None:
        return None
    if isinstance(value, str) and is_own(value):
        check_own(value)
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(
            "must be a mapping with a name such as {name: cosine_decay, decay_steps: 1000},"
            f" got {show(value)}"
        )
    given = {key: item for key, item in value.items() if key != "name"}
    if "initial_learning_rate" in given:
        raise ValueError(
            "holds an initial_learning_rate; give it as training.learning_rate instead"
        )
    if is_own(value["name"]):
        check_own(value["name"])
        return dict(value)
    name = known_name("schedule", SCHEDULES, value["name"])
    known = SCHEDULE_ARGUMENTS[class_name(name)]
    check_arguments(name, given, _with_epochs(known, given))
    if "values" in known and len(given["values"]) != 1 + len(_boundaries(given)):
        raise ValueError(
            f"{name} needs one value more than boundaries, got {len(given['values'])} values and"
            f" {len(_boundaries(given))} boundaries"
        )
    return dict(value)


def _with_epochs(known: Arguments, given: Mapping[str, Any]) -> Arguments:
    """The arguments of a schedule, in epochs where the job gives epochs instead of steps."""
    replaced: dict[str, Argument] = {}
    optional: dict[str, Argument] = {}
    for name, argument in known.items():
        in_epochs = in_epochs_name(name)
        if in_epochs in given and name in given:
            raise ValueError(f"holds both {name} and {in_epochs}; give one of them")
        if in_epochs in given:
            kind = "rising" if name == "boundaries" else "nonnegative"
            kind = "positive" if argument.kind == "count" else kind
            replaced[in_epochs] = Argument(kind, argument.nullable, argument.required)
            continue
        replaced[name] = argument
        if in_epochs:
            optional[in_epochs] = Argument(argument.kind, argument.nullable, required=False)
    return replaced | optional


def in_epochs_name(name: str) -> str:
    """The name of a schedule's argument in steps when it is given in epochs; empty for others.

    >>> in_epochs_name("decay_steps"), in_epochs_name("boundaries"), in_epochs_name("alpha")
    ('decay_epochs', 'boundary_epochs', '')
    """
    if name == "boundaries":
        return "boundary_epochs"
    return f"{name.removesuffix('steps')}epochs" if name.endswith("_steps") else ""


def _boundaries(given: Mapping[str, Any]) -> Sequence[float]:
    boundaries: Sequence[float] = given.get("boundaries") or given["boundary_epochs"]
    return boundaries


def ignores_learning_rate(schedule: Term | None) -> bool:
    """Whether training.learning_rate has no effect under a schedule."""
    return schedule is not None and split_term(schedule)[0] == "piecewise_constant_decay"
