"""Terms of `training` that name something of the user's: `file.py:focal`, `module:focal`.

A loss, a metric, an optimizer or a schedule may be one, alone or as the `name` of a mapping with
arguments. One rule says what it means (`is_itself`); here it is checked against the source, without
running it, and `trialrun.ownobjects` makes Keras's object of it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trialrun.errors import InputError
from trialrun.references import (
    absolute_reference,
    check_reference,
    parse_reference,
    portable_reference,
)
from trialrun.vocabulary import suggest

# The fields that may name one, and the argument that each of their functions is given besides.
OWN_FIELDS: Mapping[str, str] = {
    "optimizer": "learning_rate",
    "learning_rate_schedule": "initial_learning_rate",
    "loss": "",
    "metrics": "",
    "weighted_metrics": "",
}


def is_own(name: str) -> bool:
    """Whether a name is a reference to something of the user's, and none of Keras's names."""
    return ":" in name


def check_own(name: str) -> str:
    """The function of a reference that is written as one should be.

    Raises:
        ValueError: It is not; reads as the end of a sentence that begins with the field.
    """
    try:
        return parse_reference(name).function
    except InputError as error:
        raise ValueError(f"must be a name of Keras's or one of yours: {error}") from None


def map_references(value: Any, change: Callable[[str], Any]) -> Any:
    """A field's value with another thing in the place of each reference; arguments stay."""
    if isinstance(value, str):
        return change(value) if is_own(value) else value
    if isinstance(value, list | tuple):
        return type(value)(map_references(one, change) for one in value)
    if isinstance(value, Mapping):
        if "name" in value:
            return {**value, "name": map_references(value["name"], change)}
        return {output: map_references(of_one, change) for output, of_one in value.items()}
    return value


def own_terms(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The references in a field's value, each with the arguments that it is given."""
    if isinstance(value, str):
        if is_own(value):
            yield value, {}
    elif isinstance(value, list | tuple):
        for one in value:
            yield from own_terms(one)
    elif isinstance(value, Mapping):
        if "name" not in value:
            for of_one in value.values():
                yield from own_terms(of_one)
        elif is_own(str(value["name"])):
            left_out = ("name", "as", "loss_scaling")
            yield value["name"], {k: item for k, item in value.items() if k not in left_out}


def is_itself(required: Sequence[str], given: Mapping[str, Any]) -> bool:
    """Whether a function is the loss or metric itself, a function of (y_true, y_pred).

    It is, if two of the arguments that it requires are not given; it makes one, if none is.

    Raises:
        ValueError: Neither.
    """
    missing = [name for name in required if name not in given]
    if len(missing) not in (0, 2):
        raise ValueError(
            f"needs an argument {missing[0]!r}; give it, or let two arguments be left, which are"
            " y_true and y_pred"
        )
    return len(missing) == 2


def resolve_own(field: str, value: Any, folder: Path) -> Any:
    """A field's value with absolute paths in its references, which exist and take what is given.

    Raises:
        ValueError: One does not; reads as the end of a sentence that begins with the field.
    """
    try:
        for reference, given in own_terms(value):
            _check_arguments(field, reference, given, folder)
        return map_references(value, lambda reference: absolute_reference(reference, folder))
    except InputError as error:
        raise ValueError(str(error)) from error


def _check_arguments(field: str, reference: str, given: Mapping[str, Any], folder: Path) -> None:
    """Refuses what a function does not take or lacks, as far as its source tells."""
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
