"""The fields of a job: their types, limits and defaults, each section a frozen model.

What two fields must say about each other (a searched path, a selected metric) is checked in
`trialrun.job`, where the lines of the file are known.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trialrun.document import put, show
from trialrun.errors import InputError
from trialrun.references import absolute_reference, check_reference
from trialrun.vocabulary import LARGER_IS_BETTER, LOSSES, METRICS, OPTIMIZERS, suggest

Goal = Literal["minimize", "maximize"]
SEED_LIMIT = 2**32  # what every random generator of NumPy, Keras and TensorFlow takes
REFERENCE_PATHS = ("data.generator", "model.builder")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _known(kind: str, known: tuple[str, ...], value: str) -> str:
    if value not in known:
        raise ValueError(f"must be a Keras {kind}, got {value!r}; {suggest(value, known)}")
    return value


def _check_name(value: str) -> str:
    rest = value.replace("_", "").replace("-", "").replace(".", "")
    is_word = value.isascii() and (rest.isalnum() or not rest)
    if not (is_word and value[:1].isalnum() and len(value) <= 100):
        raise ValueError(
            "must be 1 to 100 letters, digits, '_', '-' and '.', the first a letter or digit,"
            f" got {show(value)}"
        )
    return value


def _check_seeds(value: object) -> object:
    if _is_int(value):
        if not 1 <= value <= SEED_LIMIT:  # type: ignore[operator]
            raise ValueError(f"must be at least 1 and at most 2**32, got {value}")
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a count or a list of integers, got {show(value)}")
    if not value:
        raise ValueError("must not be empty: each variant needs at least one seed")
    seen = set()
    for seed in value:
        if not _is_int(seed) or not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"must be integers from 0 to 2**32 - 1, got {show(seed)}")
        if seed in seen:
            raise ValueError(f"must be distinct, got {seed} twice")
        seen.add(seed)
    return tuple(value)


def _word_or_int(word: str, minimum: int, limit: int | None = None) -> BeforeValidator:
    """Accepts one word, or an integer from `minimum` to below `limit`."""

    def check(value: object) -> object:
        is_small = limit is None or not _is_int(value) or value < limit  # type: ignore[operator]
        if value == word or (_is_int(value) and value >= minimum and is_small):  # type: ignore[operator]
            return value
        raise ValueError(f"must be {word!r} or an integer of at least {minimum}, got {show(value)}")

    return BeforeValidator(check)


def _check_gpus(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (is_number and 0 <= value <= 1):  # type: ignore[operator]
        return value
    raise ValueError(
        f"must be 'auto' or a number from 0 to 1, the part of a GPU that each pack is given,"
        f" got {show(value)}"
    )


def _check_shard(value: object) -> object:
    number, slash, count = value.partition("/") if isinstance(value, str) else ("", "", "")
    are_numbers = slash and all(
        n.isascii() and n.isdecimal() and len(n) < 9 for n in (number, count)
    )
    if not (are_numbers and 1 <= int(number) <= int(count)):
        raise ValueError(f"must be I/N, such as 2/8 for the second of eight, got {show(value)}")
    return value


def _check_optimizer(value: object) -> object:
    if isinstance(value, str):
        return _known("optimizer", OPTIMIZERS, value.lower())
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(
            f"must be a name, or a mapping with a name such as {{name: sgd, momentum: 0.9}},"
            f" got {show(value)}"
        )
    if "learning_rate" in value:
        raise ValueError("holds a learning_rate; it belongs in training.learning_rate")
    return {**value, "name": _known("optimizer", OPTIMIZERS, value["name"].lower())}


def _check_metrics(values: tuple[str, ...]) -> tuple[str, ...]:
    for metric in values:
        _known("metric", METRICS, metric)
    if len(set(values)) < len(values):
        raise ValueError(f"must be distinct, got {list(values)}")
    return values


def _check_reference(value: str, info: ValidationInfo) -> str:
    """The reference made absolute and known to exist, where the job's folder is known."""
    if info.context is None:
        return value
    folder: Path = info.context["folder"]
    try:
        check_reference(value, folder)
        return absolute_reference(value, folder)
    except InputError as error:
        raise ValueError(str(error)) from error


def _check_selection_metric(value: str) -> str:
    if value.startswith("val_"):
        return value
    reason = "selection only ever sees validation numbers"
    bare = value.removeprefix("test_").removeprefix("train_")
    raise ValueError(f"must be a validation metric, got {value!r}: {reason}; try 'val_{bare}'")


def natural_goal(metric: str) -> Goal:
    """The direction in which a validation metric is better.

    >>> natural_goal("val_loss"), natural_goal("val_accuracy")
    ('minimize', 'maximize')
    """
    return "maximize" if metric.removeprefix("val_") in LARGER_IS_BETTER else "minimize"


def _check_generator_args(value: dict[str, Any]) -> dict[str, Any]:
    if "seed" in value:
        raise ValueError("holds a seed, which the generator is given anyway; see data.seed")
    return value


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {show(value)}")
    return value


Reference = Annotated[str, AfterValidator(_check_reference)]
Number = Annotated[int | float, BeforeValidator(_check_number)]
PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]


class _Section(BaseModel):
    """Strict types (`2.5` and `true` are no integers), no unknown keys, never changed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DataSpec(_Section):
    """Where the data comes from and how it is prepared."""

    generator: Reference = "trialrun.datasets:medical_trial"
    args: Annotated[dict[str, Any], AfterValidator(_check_generator_args)] = Field(
        default_factory=dict
    )
    seed: Annotated[Literal["per_trial"] | int, _word_or_int("per_trial", 0, SEED_LIMIT)] = (
        "per_trial"
    )
    scaling: Literal["minmax", "standard", "none"] = "minmax"
    validation_split: Annotated[float, Field(gt=0, lt=1)] = 0.1


class ModelSpec(_Section):
    """What is trained."""

    builder: Reference = "trialrun.models:mlp"
    args: dict[str, Any] = Field(default_factory=dict)


class TrainingSpec(_Section):
    """How it is trained. An optimizer is a name, or a mapping of `name` and its arguments.

    Every `checkpoint_every` epochs the state of the trials in training is kept in the run folder.
    """

    engine: Literal["auto", "fused", "mapped", "keras"] = "auto"
    optimizer: Annotated[str | dict[str, Any], BeforeValidator(_check_optimizer)] = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    loss: Annotated[str, AfterValidator(lambda value: _known("loss", LOSSES, value))] = (
        "sparse_categorical_crossentropy"
    )
    # strict=False: YAML gives a list. Text stays strict inside it.
    metrics: Annotated[tuple[str, ...], Field(strict=False), AfterValidator(_check_metrics)] = (
        "accuracy",
    )
    batch_size: PositiveInt = 10
    epochs: PositiveInt = 30
    checkpoint_every: PositiveInt | None = None


class Values(_Section):
    """A searched parameter that takes each of the listed values."""

    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]


class Range(_Section):
    """A searched parameter that is drawn from `min` to `max`, both included."""

    min: Number
    max: Number
    distribution: Literal["uniform", "log_uniform", "int_uniform"]

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if not self.min < self.max:
            raise ValueError(f"min must be less than max, got {self.min} and {self.max}")
        if self.distribution == "log_uniform" and self.min <= 0:
            raise ValueError(f"log_uniform needs a min greater than 0, got {self.min}")
        if self.distribution == "int_uniform" and not (_is_int(self.min) and _is_int(self.max)):
            raise ValueError(f"int_uniform needs integers, got {self.min} and {self.max}")
        return self


def _parameter_kind(value: object) -> str | None:
    if isinstance(value, Values) or (isinstance(value, Mapping) and "values" in value):
        return "\0values"
    is_range = isinstance(value, Mapping) and not {"min", "max", "distribution"}.isdisjoint(value)
    return "\0range" if is_range or isinstance(value, Range) else None


ParameterSpec = Annotated[
    Annotated[Values, Tag("\0values")] | Annotated[Range, Tag("\0range")],
    Discriminator(_parameter_kind),
]


class SearchSpec(_Section):
    """Which variants there are: dotted paths into the job and what each may be."""

    method: Literal["grid", "random"] = "grid"
    num_variants: PositiveInt | None = None
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    parameters: dict[str, ParameterSpec] = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _make_references_absolute(
        cls, parameters: dict[str, Values | Range], info: ValidationInfo
    ) -> dict[str, Values | Range]:
        return {
            path: _absolute_values(parameter, info) if path in REFERENCE_PATHS else parameter
            for path, parameter in parameters.items()
        }


def _absolute_values(parameter: Values | Range, info: ValidationInfo) -> Values | Range:
    if isinstance(parameter, Range) or info.context is None:
        return parameter
    folder: Path = info.context["folder"]
    values = (
        absolute_reference(value, folder) if isinstance(value, str) and ":" in value else value
        for value in parameter.values
    )
    return Values(values=tuple(values))


class SelectSpec(_Section):
    """Which variant wins: by the mean over seeds of a validation metric."""

    metric: Annotated[str, AfterValidator(_check_selection_metric)] = "val_loss"
    goal: Goal = Field(default_factory=lambda fields: natural_goal(fields["metric"]))

    @field_validator("goal")
    @classmethod
    def _check_goal(cls, goal: Goal, info: ValidationInfo) -> Goal:
        metric = info.data.get("metric")
        if metric is not None and goal != natural_goal(metric):
            raise ValueError(f"must be {natural_goal(metric)!r} for {metric}, got {goal!r}")
        return goal


class ResourcesSpec(_Section):
    """What a run may use. `auto` takes what the machine or the cluster has.

    `gpus` is what each pack is given: 1, a part of one that it shares, or 0 for the CPU.
    `accelerator_type` names the kind of GPU, as Ray does: `A100`, `T4`, ...
    A pack that gives no sign of life for `stall_timeout_s` is tried again elsewhere; an interrupt
    waits up to `grace_s` for checkpoints. `shard` is the part of the trials that this run trains,
    `2/8` for the second of eight.
    """

    gpus: Annotated[Literal["auto"] | float, BeforeValidator(_check_gpus)] = "auto"
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    cpus: Annotated[Literal["auto"] | int, _word_or_int("auto", 1)] = "auto"
    max_trials_per_pack: Annotated[Literal["auto"] | int, _word_or_int("auto", 1)] = "auto"
    max_retries: Annotated[int, Field(ge=0)] = 2
    stall_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1800.0
    grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    shard: Annotated[str, BeforeValidator(_check_shard)] | None = None


class JobSpec(_Section):
    """A whole job. Everything but the name has a default."""

    name: Annotated[str, AfterValidator(_check_name)]
    data: DataSpec = Field(default_factory=DataSpec)
    model: ModelSpec = Field(default_factory=ModelSpec)
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    seeds: Annotated[int | tuple[int, ...], BeforeValidator(_check_seeds)] = 5
    search: SearchSpec = Field(default_factory=SearchSpec)
    select: SelectSpec = Field(default_factory=SelectSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of every variant: a count n means 0, 1, ... n - 1."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


class Settings(NamedTuple):
    """The sections that make a trial what it is."""

    data: DataSpec
    model: ModelSpec
    training: TrainingSpec


def settings_of(
    job: JobSpec, parameters: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> Settings:
    """The job's settings with values put in at dotted paths.

    Args:
        job: The job; it is not changed.
        parameters: Dotted path -> value, e.g. `{"training.learning_rate": 1e-3}`.
        context: `{"folder": ...}` to check references too.

    Raises:
        pydantic.ValidationError: A value is outside its limits.
        InputError: A path leads through something that is no mapping.
    """
    changed: dict[str, Any] = {}
    for path, value in parameters.items():
        section, *keys = path.split(".")
        raw = changed[section] if section in changed else getattr(job, section).model_dump()
        changed[section] = put(raw, tuple(keys), value)
    sections: dict[str, Any] = {
        name: type(getattr(job, name)).model_validate(changed[name], context=context)
        if name in changed
        else getattr(job, name)
        for name in Settings._fields
    }
    return Settings(**sections)
