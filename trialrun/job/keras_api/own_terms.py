"""Terms of `training` that refer to the user's own code: `file.py:focal` or `module:focal`.

A loss, a metric, an optimizer or a schedule may be such a term, alone or as the `name` of a mapping
with arguments. `is_itself` decides whether it is the loss or metric itself or makes it. Here terms
are checked against the source code without running it; `trialrun.training.model.own_objects` makes
Keras objects from them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trialrun.errors import InputError
from trialrun.job.user_code.functions import (
    absolute_reference,
    check_reference,
    parse_reference,
    portable_reference,
)
from trialrun.messages import suggest

# Field that may refer to the user's code -> an argument that its function always gets, if any.
OWN_FIELDS: Mapping[str, str] = {
    "optimizer": "learning_rate",
    "learning_rate_schedule": "initial_learning_rate",
    "loss": "",
    "metrics": "",
    "weighted_metrics": "",
}


def is_own(name: str) -> bool:
    """Whether a name is a reference to the user's own code instead of a Keras name."""
    return ":" in name


def check_own(name: str) -> str:
    """The name of the function in a reference.

    Raises:
        ValueError: The reference is not well-formed. The message continues a sentence that begins
            with the field's name.
    """
    try:
        return parse_reference(name).function
    except InputError as error:
        raise ValueError(f"must be a Keras name or a reference to your own code: {error}") from None


def map_references(value: Any, change: Callable[[str], Any]) -> Any:
    """A field's value with each reference replaced by `change` of it; arguments are kept."""
    if isinstance(value, str):
        return change(value) if is_own(value) else value
    if isinstance(value, list | tuple):
        return type(value)(map_references(item, change) for item in value)
    if isinstance(value, Mapping):
        if "name" in value:
            return {**value, "name": map_references(value["name"], change)}
        return {output: map_references(terms, change) for output, terms in value.items()}
    return value


def own_terms(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The references in a field's value, each with the arguments that the job gives it."""
    if isinstance(value, str):
        if is_own(value):
            yield value, {}
    elif isinstance(value, list | tuple):
        for term in value:
            yield from own_terms(term)
    elif isinstance(value, Mapping):
        if "name" not in value:
            for terms in value.values():
                yield from own_terms(terms)
        elif is_own(str(value["name"])):
            left_out = ("name", "as", "loss_scaling")
            yield value["name"], {k: item for k, item in value.items() if k not in left_out}


def is_itself(required: Sequence[str], given: Mapping[str, Any]) -> bool:
    """Whether a function is itself the loss or metric, i.e. a function of (y_true, y_pred).

    It is if two of its required arguments are not given. If none is missing, it is a function that
    makes the loss or metric.

    Raises:
        ValueError: Another number of required arguments is missing.
    """
    missing = [name for name in required if name not in given]
    if len(missing) not in (0, 2):
        raise ValueError(
            f"needs an argument {missing[0]!r}; give it, or leave exactly two required arguments,"
            " y_true and y_pred, without a value"
        )
    return len(missing) == 2


def resolve_own(field: str, value: Any, folder: Path) -> Any:
    """A field's value with absolute paths in its references, which are checked.

    Raises:
        ValueError: A reference does not exist or does not take the given arguments. The message
            continues a sentence that begins with the field's name.
    """
    try:
        for reference, given in own_terms(value):
            _check_arguments(field, reference, given, folder)
        return map_references(value, lambda reference: absolute_reference(reference, folder))
    except InputError as error:
        raise ValueError(str(error)) from error


def _check_arguments(field: str, reference: str, given: Mapping[str, Any], folder: Path) -> None:
    """Refuses arguments that a function does not take or lacks, as far as its source shows."""
    parameters = check_reference(reference, folder)
    if parameters is None:
        return
    shown, besides = portable_reference(reference), OWN_FIELDS[field]
    for name in (*given, *filter(None, [besides])):
        if name not in parameters.names and not parameters.takes_any:
            hint = suggest(name, parameters.names)
            raise ValueError(f"{shown} takes no argument {name!r}; {hint}")
    try:
        if not besides:
            is_itself(parameters.required, given)
    except ValueError as error:
        raise ValueError(f"{shown} {error}") from None
    for name in parameters.required if besides else ():
        if name != besides and name not in given:
            raise ValueError(f"{shown} needs an argument {name!r}")
