"""The section `search` of a job: which parameters are searched, and over which values."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trialrun.errors import InputError
from trialrun.job.fields import REFERENCE_PATHS, SEED_LIMIT, PositiveInt, Section, is_int
from trialrun.job.keras_api.own_terms import OWN_FIELDS, map_references
from trialrun.job.rounds_spec import Confirm, ConfirmSpec, Rounds
from trialrun.job.user_functions import absolute_reference
from trialrun.messages import show


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {show(value)}")
    return value


Number = Annotated[int | float, BeforeValidator(_check_number)]


class ValueList(Section):
    """A searched parameter that takes each of the listed values."""

    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]
    """The values that the parameter takes.

    Allowed: a list of at least one value. Example: `[1e-4, 1e-3]`.
    """


class Range(Section):
    """A searched parameter that is drawn from `min` to `max`, both included."""

    min: Number
    """The least value. Allowed: a number. Example: `1e-5`."""
    max: Number
    """The greatest value. Allowed: a number greater than `min`. Example: `1e-2`."""
    distribution: Literal["uniform", "log_uniform", "int_uniform"]
    """How values are drawn: uniformly, uniformly in their logarithm, or uniformly from the
    integers.

    Example: `log_uniform`.
    """

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if not self.min < self.max:
            raise ValueError(f"min must be less than max, got {self.min} and {self.max}")
        if self.distribution == "log_uniform" and self.min <= 0:
            raise ValueError(f"log_uniform needs a min greater than 0, got {self.min}")
        if self.distribution == "int_uniform" and not (is_int(self.min) and is_int(self.max)):
            raise ValueError(f"int_uniform needs integers, got {self.min} and {self.max}")
        return self


def _parameter_kind(value: object) -> str | None:
    if isinstance(value, ValueList) or (isinstance(value, Mapping) and "values" in value):
        return "\0values"
    is_range = isinstance(value, Mapping) and not {"min", "max", "distribution"}.isdisjoint(value)
    return "\0range" if is_range or isinstance(value, Range) else None


ParameterSpec = Annotated[
    Annotated[ValueList, Tag("\0values")] | Annotated[Range, Tag("\0range")],
    Discriminator(_parameter_kind),
]


class SearchSpec(Section):
    """The search for variants: dotted paths of fields, and the values that each may have."""

    method: Literal["grid", "random"] = "grid"
    """`grid` takes every combination of all values, `random` draws `num_variants` distinct ones.

    Example: `random`.
    """
    num_variants: PositiveInt | None = None
    """How many variants a random search draws; more of them begin with the same ones.

    Example: `50`.
    """
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    """Keys the draws of a random search. Example: `1`."""
    rounds: Rounds | None = None
    """Which variants get more seeds: those that go on from round to round. Without it, every
    variant gets every seed. `auto` has three rounds of 0.15, 0.35 and all of the seeds, with a
    third of the variants going on.

    Allowed: `auto`, a list of rounds, or a race: `{method: race}`. Example:
    `[{seeds: 2, keep: 1/3}, {seeds: 5}]`.
    """
    confirm: Confirm | None = None
    """How the winner is confirmed by fresh seeds, which chose nothing. `true` stands for a mapping
    with its defaults, `false` for no confirmation. Without it, there is one if there are `rounds`.

    Allowed: `true`, `false`, or a mapping. Example: `{seeds: 20, variants: 2}`.
    """
    parameters: dict[str, ParameterSpec] = Field(default_factory=dict)
    """What is searched: dotted paths into the job file, and the values that each may have.

    Allowed: a mapping of dotted paths below `data`, `model` and `training` to `{values: ...}` or a
    range. Example: `{training.learning_rate: {values: [1e-4, 1e-3]}}`.
    """

    @property
    def confirmation(self) -> ConfirmSpec | None:
        """The confirmation that is made; None if there is none."""
        if isinstance(self.confirm, ConfirmSpec):
            return self.confirm
        wanted = self.rounds is not None if self.confirm is None else self.confirm
        return ConfirmSpec() if wanted else None

    @field_validator("parameters")
    @classmethod
    def _make_references_absolute(
        cls, parameters: dict[str, ValueList | Range], info: ValidationInfo
    ) -> dict[str, ValueList | Range]:
        return {
            path: _absolute_values(parameter, info) if may_hold_references(path) else parameter
            for path, parameter in parameters.items()
        }


def _absolute_values(parameter: ValueList | Range, info: ValidationInfo) -> ValueList | Range:
    if isinstance(parameter, Range) or info.context is None:
        return parameter
    folder: Path = info.context["folder"]

    def absolute(reference: str) -> str:
        try:
            return absolute_reference(reference, folder)
        except InputError:
            return reference  # the error is reported where the value is checked

    return ValueList(values=map_references(parameter.values, absolute))


def may_hold_references(path: str) -> bool:
    """Whether the values of a searched path may refer to the user's own code."""
    section, field = f"{path}.".split(".")[:2]
    return path in REFERENCE_PATHS or (section == "training" and field in OWN_FIELDS)
