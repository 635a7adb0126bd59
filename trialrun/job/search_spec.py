"""The section `search` of a job: which parameters are searched, and over which values."""

import math
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from trialrun.errors import InputError
from trialrun.job.document import canonical_json
from trialrun.job.fields import REFERENCE_PATHS, SEED_LIMIT, PositiveInt, Section, is_int
from trialrun.job.keras_api.own_terms import OWN_FIELDS, map_references
from trialrun.job.rounds_spec import BudgetSpec, Confirm, ConfirmSpec, Rounds
from trialrun.job.user_code.functions import absolute_reference
from trialrun.messages import show


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {show(value)}")
    return value


Number = Annotated[int | float, BeforeValidator(_check_number)]


def _as_lists(when: object) -> object:
    """The condition with each value as a list of values."""
    if not isinstance(when, Mapping):
        raise ValueError(f"must be a mapping of searched paths to values, got {show(when)}")
    return {
        path: tuple(values) if isinstance(values, list | tuple) else (values,)
        for path, values in when.items()
    }


When = Annotated[dict[str, tuple[Any, ...]], BeforeValidator(_as_lists)]


class _Parameter(Section):
    """What a job file does not say of a parameter without a condition."""

    @model_serializer(mode="wrap")
    def _leave_out_no_condition(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        return {name: value for name, value in content.items() if name != "when" or value}


class ValueList(_Parameter):
    """A searched parameter that takes each of the listed values."""

    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]
    """The values that the parameter takes.

    Allowed: a list of at least one value. Example: `[1e-4, 1e-3]`.
    """
    when: When = Field(default_factory=dict)
    """Where the parameter is searched: only in variants in which each of these other searched
    parameters has the value, or one of the list of values. In the others it is left out. Without
    it, the parameter is searched in all variants.

    Allowed: a mapping of searched paths to a value or a list of values. Example:
    `{training.optimizer.name: sgd}`.
    """


class Range(_Parameter):
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
    when: When = Field(default_factory=dict)
    """Where the parameter is searched: only in variants in which each of these other searched
    parameters has the value, or one of the list of values. In the others it is left out. Without
    it, the parameter is searched in all variants.

    Allowed: a mapping of searched paths to a value or a list of values. Example:
    `{training.optimizer.name: sgd}`.
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

    def value_of(self, drawn: float) -> int | float:
        """A drawn number as a value of the parameter.

        A float is rounded to six digits, which are readable in tables and do not depend on the last
        bits of exp(), which differ between machines. So a trial has the same id everywhere.
        """
        if self.distribution == "int_uniform":
            return int(drawn)
        return min(max(float(f"{drawn:.6g}"), float(self.min)), float(self.max))


def _parameter_kind(value: object) -> str | None:
    if isinstance(value, ValueList) or (isinstance(value, Mapping) and "values" in value):
        return "\0values"
    is_range = isinstance(value, Mapping) and not {"min", "max", "distribution"}.isdisjoint(value)
    return "\0range" if is_range or isinstance(value, Range) else None


ParameterSpec = Annotated[
    Annotated[ValueList, Tag("\0values")] | Annotated[Range, Tag("\0range")],
    Discriminator(_parameter_kind),
]


def _check_rows(value: object) -> object:
    if value is None:
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a CSV file or a list of mappings, got {show(value)}")
    if not value:
        raise ValueError("must not be empty: it lists the variants")
    for row in value:
        if not isinstance(row, Mapping) or not row:
            raise ValueError(
                f"must give each variant as a mapping of dotted paths to values, got {show(row)}"
            )
    return value


Rows = Annotated[tuple[dict[str, Any], ...], Field(strict=False)]


# Each batch is a pause until its last trial has ended, but its proposals know of those before. From
# fewer than ten results, Optuna itself draws at random.
_NUM_BATCHES, _SMALLEST_BATCH = 6, 10


class SearchSpec(Section):
    """The search for variants: dotted paths of fields, and the values that each may have."""

    method: Literal["grid", "random", "tpe", "from"] = "grid"
    """`grid` takes every combination of all values, `random` draws `num_variants` distinct ones,
    `tpe` proposes as many in batches, each by the results of those before, and `from` takes those
    of a table.

    Example: `random`.
    """
    rows: Annotated[Rows | None, BeforeValidator(_check_rows)] = Field(default=None, alias="from")
    """The table of variants for `method: from`, one in each row. A column for each searched
    parameter is called by its dotted path, or as in an earlier run's `variants.csv`. A run keeps
    the rows in its own job file.

    Allowed: a CSV file, with its path starting at the job's folder, or a list of mappings of dotted
    paths to values. Example: `variants.csv`.
    """
    num_variants: PositiveInt | None = None
    """How many variants a random search draws, where more of them begin with the same ones, or
    `tpe` proposes.

    Example: `50`.
    """
    batch: PositiveInt | None = None
    """How many variants `tpe` proposes at a time; the first ones are drawn at random. Without it,
    it is a sixth of `num_variants`, but at least 10.

    Example: `16`.
    """
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    """Keys what a random search draws and what `tpe` proposes. Example: `1`."""
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
    budget: BudgetSpec | None = None
    """The most that the rounds and the confirmation may take. Example: `{trials: 300}`."""
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

    @property
    def batch_size(self) -> int:
        """How many variants `tpe` proposes at a time; the last batch may have fewer."""
        assert self.num_variants is not None, "the job file refuses tpe without a count"
        return self.batch or max(_SMALLEST_BATCH, math.ceil(self.num_variants / _NUM_BATCHES))

    @cached_property
    def domains(self) -> Mapping[str, ValueList | Range]:
        """What each searched parameter may be: `parameters`, or the columns of the table."""
        if self.rows is None:
            return self.parameters
        return {
            path: ValueList(values=values) for path, values in distinct_columns(self.rows).items()
        }

    @cached_property
    def distinct_rows(self) -> tuple[Mapping[str, Any], ...]:
        """The variants of the table, each once."""
        distinct: dict[str, Mapping[str, Any]] = {}
        for row in self.rows or ():
            distinct.setdefault(canonical_json(row), row)
        return tuple(distinct.values())

    @property
    def deciding_field(self) -> str:
        """What decides on trials while others are still to be trained; empty if nothing does."""
        fields = {
            "method: tpe": self.method == "tpe",
            "rounds": self.rounds is not None,
            "confirm": self.confirmation is not None,
        }
        return next((field for field, is_used in fields.items() if is_used), "")

    def may_be_absent(self, path: str) -> bool:
        """Whether there may be variants without a searched parameter."""
        if self.rows is None:
            return bool(self.parameters[path].when)
        return not all(path in row for row in self.rows)

    @field_validator("rows")
    @classmethod
    def _make_rows_absolute(cls, rows: Rows | None, info: ValidationInfo) -> Rows | None:
        if rows is None or info.context is None:
            return rows
        folder: Path = info.context["folder"]
        return tuple(
            {path: _absolute(path, value, folder) for path, value in row.items()} for row in rows
        )

    @field_validator("parameters")
    @classmethod
    def _make_references_absolute(
        cls, parameters: dict[str, ValueList | Range], info: ValidationInfo
    ) -> dict[str, ValueList | Range]:
        return {
            path: _with_absolute_references(path, parameter, info)
            for path, parameter in parameters.items()
        }


def _with_absolute_references(
    path: str, parameter: ValueList | Range, info: ValidationInfo
) -> ValueList | Range:
    """The parameter with absolute references in its values, and in those of its condition."""
    if info.context is None:
        return parameter
    folder: Path = info.context["folder"]
    changed: dict[str, Any] = {
        "when": {
            parent: _absolute(parent, values, folder) for parent, values in parameter.when.items()
        }
    }
    if isinstance(parameter, ValueList):
        changed["values"] = _absolute(path, parameter.values, folder)
    return parameter.model_copy(update=changed)


def _absolute(path: str, values: Any, folder: Path) -> Any:
    """Values of a searched path, with absolute references if they may refer to the user's code."""
    if not may_hold_references(path):
        return values

    def absolute(reference: str) -> str:
        try:
            return absolute_reference(reference, folder)
        except InputError:
            return reference  # the error is reported where the value is checked

    return map_references(values, absolute)


def distinct_columns(rows: Collection[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The different values of each column of a table of variants, in the order of its rows.

    >>> distinct_columns([{"a": 1, "c": 2}, {"a": 1, "b": 0, "c": 1}])
    {'a': (1,), 'b': (0,), 'c': (2, 1)}
    """
    columns: dict[str, dict[str, Any]] = {path: {} for path in searched_paths(rows)}
    for row in rows:
        for path, value in row.items():
            columns[path].setdefault(canonical_json(value), value)
    return {path: tuple(distinct.values()) for path, distinct in columns.items()}


def searched_paths(assignments: Iterable[Mapping[str, Any]]) -> list[str]:
    """The paths that any of some assignments has, in the order of the search.

    The longest assignments decide the order. A path that they lack stands before the next that they
    share with its own assignment.

    >>> searched_paths([{"a": 1, "c": 3}, {"a": 1, "b": 2, "c": 3}])
    ['a', 'b', 'c']
    """
    paths: list[str] = []
    known: set[str] = set()
    for own in sorted(dict.fromkeys(map(tuple, assignments)), key=len, reverse=True):
        place = len(paths)
        for path in reversed(own):
            if path in known:
                place = paths.index(path)
            else:
                paths.insert(place, path)
        known |= set(own)
    return paths


def domains_in(search: Mapping[str, Any]) -> Mapping[str, Any]:
    """Searched path -> what it may be, from the section `search` of a resolved job as plain values.

    Jobs of older runs lack some of the fields.
    """
    if rows := search.get("from"):
        columns = distinct_columns(rows)
        return {path: {"values": list(values)} for path, values in columns.items()}
    parameters: Mapping[str, Any] = search.get("parameters", {})
    return parameters


def may_hold_references(path: str) -> bool:
    """Whether the values of a searched path may refer to the user's own code."""
    section, field = f"{path}.".split(".")[:2]
    return path in REFERENCE_PATHS or (section == "training" and field in OWN_FIELDS)
