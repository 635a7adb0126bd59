"""The fields of a job: their types, limits and defaults, each section a frozen model.

What two fields must say about each other (a searched path, a selected metric) is checked in
`trialrun.job`, where the lines of the file are known.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    PlainValidator,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from trialrun.compilation import (
    Goal,
    Statistic,
    Term,
    Terms,
    check_class_weight,
    check_loss,
    check_loss_weights,
    check_metrics,
    check_optimizer,
    check_outputs,
    check_schedule,
    default_metrics,
    logs_of,
    natural_goal,
)
from trialrun.dataspec import DataSpec
from trialrun.document import put, show
from trialrun.references import absolute_reference
from trialrun.section import SEED_LIMIT, Reference, Section, is_int, word_or_int
from trialrun.tracking import check_tracking_uri

REFERENCE_PATHS = ("data.generator", "model.builder")
CALLBACKS_PATH = "training.callbacks"


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
    if is_int(value):
        if not 1 <= value <= SEED_LIMIT:  # type: ignore[operator]
            raise ValueError(f"must be at least 1 and at most 2**32, got {value}")
        return value
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be a count or a list of integers, got {show(value)}")
    if not value:
        raise ValueError("must not be empty: each variant needs at least one seed")
    seen = set()
    for seed in value:
        if not is_int(seed) or not 0 <= seed < SEED_LIMIT:
            raise ValueError(f"must be integers from 0 to 2**32 - 1, got {show(seed)}")
        if seed in seen:
            raise ValueError(f"must be distinct, got {seed} twice")
        seen.add(seed)
    return tuple(value)


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


def _check_selection_metric(value: str) -> str:
    if value.startswith("val_"):
        return value
    reason = "selection only ever sees validation numbers"
    bare = value.removeprefix("test_").removeprefix("train_")
    raise ValueError(f"must be a validation metric, got {value!r}: {reason}; try 'val_{bare}'")


def _check_monitor(value: str) -> str:
    if value.startswith("test_"):
        reason = "training must not see test numbers"
        bare = value.removeprefix("test_")
        raise ValueError(
            f"must be a validation or training log, got {value!r}: {reason}; try 'val_{bare}'"
        )
    return value


def _check_number(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"must be a finite number, got {show(value)}")
    return value


Number = Annotated[int | float, BeforeValidator(_check_number)]
PositiveInt = Annotated[int, Field(ge=1, lt=2**31)]
NumEpochs = Annotated[int, Field(ge=0, lt=2**31)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Monitor = Annotated[str, AfterValidator(_check_monitor)]


class ModelSpec(Section):
    """What is trained."""

    builder: Reference = "trialrun.models:mlp"
    args: dict[str, Any] = Field(default_factory=dict)


class EarlyStoppingSpec(Section):
    """When a trial ends before its last epoch, as `keras.callbacks.EarlyStopping` has it.

    Whether more or less of what is monitored is better follows from its name.
    """

    monitor: Monitor = "val_loss"
    patience: NumEpochs = 5
    min_delta: Amount = 0.0
    baseline: Annotated[float, Field(allow_inf_nan=False)] | None = None
    start_from_epoch: NumEpochs = 0
    restore_best_weights: bool = False


class ReduceLROnPlateauSpec(Section):
    """When a trial's learning rate shrinks, as `keras.callbacks.ReduceLROnPlateau` has it."""

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: NumEpochs = 10
    min_delta: Amount = 1e-4
    cooldown: NumEpochs = 0
    min_lr: Amount = 0.0


class TrainingSpec(Section):
    """How it is trained.

    Optimizer, loss and metrics are names, or mappings of `name` and arguments; a metric's `as` is
    its name in the logs. `learning_rate_schedule` begins at `learning_rate`. A model with several
    outputs has a loss, a list of metrics and perhaps a loss weight for each, by the output's name.
    `class_weight` weighs training rows by their class. `check_engine` compares the first steps of a
    compiled engine with plain Keras. Every `checkpoint_every` epochs the state of the trials in
    training is kept in the run folder. `keep_best` names a log, such as `val_loss`: a trial gives
    the weights of the epoch in which it was best, whether or not it stopped early, and not those of
    its last epoch; it goes before `early_stopping.restore_best_weights`. `callbacks` are functions
    that return a `keras.callbacks.Callback`, called for each trial.
    """

    engine: Literal["auto", "fused", "mapped", "keras"] = "auto"
    check_engine: bool = True
    optimizer: Annotated[Term, PlainValidator(check_optimizer)] = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    learning_rate_schedule: Annotated[Term | None, PlainValidator(check_schedule)] = None
    loss: Annotated[Term | dict[str, Term], PlainValidator(check_loss)] = (
        "sparse_categorical_crossentropy"
    )
    loss_weights: Annotated[dict[str, float] | None, PlainValidator(check_loss_weights)] = None
    metrics: Annotated[Terms | dict[str, Terms], PlainValidator(check_metrics)] = Field(
        default_factory=lambda fields: default_metrics(fields["loss"])
    )
    weighted_metrics: Annotated[Terms | dict[str, Terms], PlainValidator(check_metrics)] = ()
    class_weight: Annotated[
        Literal["balanced"] | dict[str, float] | None, PlainValidator(check_class_weight)
    ] = None
    batch_size: PositiveInt = 10
    epochs: PositiveInt = 30
    checkpoint_every: PositiveInt | None = None
    early_stopping: EarlyStoppingSpec | None = None
    reduce_lr_on_plateau: ReduceLROnPlateauSpec | None = None
    keep_best: Monitor | None = None
    terminate_on_nan: bool = False
    callbacks: Annotated[tuple[Reference, ...], Field(strict=False)] = ()

    @field_validator("loss_weights", "metrics", "weighted_metrics")
    @classmethod
    def _check_outputs(cls, value: Any, info: ValidationInfo) -> Any:
        if "loss" in info.data:
            is_weights = info.field_name == "loss_weights"
            check_outputs(
                info.data["loss"], () if is_weights else value, value if is_weights else None
            )
        return value

    @property
    def logs(self) -> dict[str, Goal]:
        """What is logged for an epoch, and the direction in which each is better."""
        return logs_of(self.loss, self.metrics, self.weighted_metrics)

    def goal_of(self, log: str) -> Goal:
        """The direction in which a log of training or validation is better."""
        name = log.removeprefix("val_")
        return self.logs.get(name) or natural_goal(name) or "minimize"


def monitors_of(training: TrainingSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """The fields that watch a log of each epoch, and the log."""
    for name in ("early_stopping", "reduce_lr_on_plateau"):
        if (section := getattr(training, name)) is not None:
            yield ("training", name, "monitor"), section.monitor
    if training.keep_best is not None:
        yield ("training", "keep_best"), training.keep_best


class Values(Section):
    """A searched parameter that takes each of the listed values."""

    values: Annotated[tuple[Any, ...], Field(strict=False, min_length=1)]


class Range(Section):
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
        if self.distribution == "int_uniform" and not (is_int(self.min) and is_int(self.max)):
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


class SearchSpec(Section):
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


class SelectSpec(Section):
    """Which variant wins: by a statistic over seeds of a validation metric.

    `iqm` is the interquartile mean. `confidence_bound` is the end of the mean's 95% interval that
    is the worse one: a variant whose seeds scatter must be better on average to win.
    """

    metric: Annotated[str, AfterValidator(_check_selection_metric)] = "val_loss"
    goal: Goal = Field(default_factory=lambda fields: natural_goal(fields["metric"]) or "minimize")
    statistic: Statistic = "mean"

    @field_validator("goal")
    @classmethod
    def _check_goal(cls, goal: Goal, info: ValidationInfo) -> Goal:
        metric = info.data.get("metric")
        natural = natural_goal(metric or "")
        if natural is not None and goal != natural:
            raise ValueError(f"must be {natural!r} for {metric}, got {goal!r}")
        return goal


class ResourcesSpec(Section):
    """What a run may use. `auto` takes what the machine or the cluster has.

    `gpus` is what each pack is given: 1, a part of one that it shares, or 0 for the CPU.
    `accelerator_type` names the kind of GPU, as Ray does: `A100`, `T4`, ...
    A pack that gives no sign of life for `stall_timeout_s` is tried again elsewhere; an interrupt
    waits up to `grace_s` for checkpoints. `shard` is the part of the trials that this run trains,
    `2/8` for the second of eight.
    """

    gpus: Annotated[Literal["auto"] | float, BeforeValidator(_check_gpus)] = "auto"
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    cpus: Annotated[Literal["auto"] | int, word_or_int("auto", 1)] = "auto"
    max_trials_per_pack: Annotated[Literal["auto"] | int, word_or_int("auto", 1)] = "auto"
    max_retries: Annotated[int, Field(ge=0)] = 2
    stall_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1800.0
    grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    shard: Annotated[str, BeforeValidator(_check_shard)] | None = None


class OutputSpec(Section):
    """Where a run is shown beside its own folder.

    `tensorboard` writes `tensorboard/` in the run folder. `mlflow` is where MLflow keeps runs:
    `http://host:5000`, `sqlite:///file.db`, ...
    """

    tensorboard: bool = False
    mlflow: Annotated[str, AfterValidator(check_tracking_uri)] | None = None


class JobSpec(Section):
    """A whole job. Everything but the name has a default."""

    name: Annotated[str, AfterValidator(_check_name)]
    data: DataSpec = Field(default_factory=DataSpec)
    model: ModelSpec = Field(default_factory=ModelSpec)
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    seeds: Annotated[int | tuple[int, ...], BeforeValidator(_check_seeds)] = 5
    search: SearchSpec = Field(default_factory=SearchSpec)
    select: SelectSpec = Field(default_factory=SelectSpec)
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    output: OutputSpec = Field(default_factory=OutputSpec)

    @field_validator("select", mode="before")
    @classmethod
    def _fill_goal(cls, select: object, info: ValidationInfo) -> object:
        """The goal of a metric whose name alone does not tell it."""
        training = info.data.get("training")
        if training is None or not isinstance(select, Mapping) or "goal" in select:
            return select
        goal = training.logs.get(str(select.get("metric", "val_loss")).removeprefix("val_"))
        return select if goal is None else {**select, "goal": goal}

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of every variant: a count n means 0, 1, ... n - 1."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds

    @property
    def num_seeds(self) -> int:
        """How many trials a variant has."""
        return self.seeds if isinstance(self.seeds, int) else len(self.seeds)


class Settings(NamedTuple):
    """The sections that make a trial what it is."""

    data: DataSpec
    model: ModelSpec
    training: TrainingSpec

    @property
    def references(self) -> tuple[str, ...]:
        """The user's functions: generator, builder, callbacks."""
        generator = () if self.data.generator is None else (self.data.generator,)
        return (*generator, self.model.builder, *self.training.callbacks)


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
