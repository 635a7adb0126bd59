"""The fields of a job with their types, limits and defaults; each section is a frozen model.

Conditions between several fields (a searched path, a selected metric) are checked in
`trialrun.jobchecks`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
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
    probable_goal,
)
from trialrun.dataspec import DataSpec
from trialrun.document import put, show
from trialrun.errors import InputError
from trialrun.ownterms import OWN_FIELDS, map_references, own_terms, resolve_own
from trialrun.references import absolute_reference
from trialrun.section import SEED_LIMIT, Reference, Section, folder_of, is_int, word_or_int
from trialrun.tracking import check_tracking_uri

REFERENCE_PATHS = ("data.generator", "model.builder")
CALLBACKS_PATH = "training.callbacks"


def _check_name(value: str) -> str:
    rest = value.replace("_", "").replace("-", "").replace(".", "")
    is_word = value.isascii() and (rest.isalnum() or not rest)
    if not (is_word and value[:1].isalnum() and len(value) <= 100):
        raise ValueError(
            "must be 1 to 100 letters, digits, '_', '-' and '.', beginning with a letter or digit,"
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
        f"must be 'auto' or a number from 0 to 1, the share of a GPU that each pack gets,"
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
    reason = "variants are selected only by validation numbers"
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
    """The model that is trained: the function that builds it and its arguments."""

    builder: Reference = "trialrun.models:mlp"
    args: dict[str, Any] = Field(default_factory=dict)


class EarlyStoppingSpec(Section):
    """When a trial ends before its last epoch, as in `keras.callbacks.EarlyStopping`.

    Whether larger or smaller values of `monitor` are better follows from its name.
    """

    monitor: Monitor = "val_loss"
    patience: NumEpochs = 5
    min_delta: Amount = 0.0
    baseline: Annotated[float, Field(allow_inf_nan=False)] | None = None
    start_from_epoch: NumEpochs = 0
    restore_best_weights: bool = False


class ReduceLROnPlateauSpec(Section):
    """When a trial's learning rate is reduced, as in `keras.callbacks.ReduceLROnPlateau`."""

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: NumEpochs = 10
    min_delta: Amount = 1e-4
    cooldown: NumEpochs = 0
    min_lr: Amount = 0.0


def _term(check: Callable[[object], Any]) -> PlainValidator:
    """Accepts what `check` accepts; references become absolute if the job's folder is known."""

    def validate(value: object, info: ValidationInfo) -> Any:
        checked, folder = check(value), folder_of(info)
        return checked if folder is None else resolve_own(str(info.field_name), checked, folder)

    return PlainValidator(validate)


class TrainingSpec(Section):
    """How the model is trained.

    Optimizer, schedule, loss and metrics are names, or mappings of `name` and arguments; `as` of a
    metric is its name in the logs. A name may also be a reference to the user's own code,
    `file.py:function` or `module:function`, see `trialrun.ownterms`. `learning_rate_schedule`
    begins with `learning_rate`. For a model with several outputs, `loss`, `metrics` and
    `loss_weights` are mappings by the names of the outputs.

    `class_weight` weights training rows by their class. `check_engine` compares the first steps of
    a compiled engine with plain Keras. Every `checkpoint_every` epochs the state of trials in
    training is saved in the run folder. `keep_best` names a log, such as `val_loss`: the trial then
    keeps the weights of the epoch in which this log was best instead of those of its last epoch,
    whether or not it stopped early. It takes precedence over `early_stopping.restore_best_weights`.
    `callbacks` are functions that return a `keras.callbacks.Callback`; they are called for each
    trial.
    """

    engine: Literal["auto", "fused", "mapped", "keras"] = "auto"
    check_engine: bool = True
    optimizer: Annotated[Term, _term(check_optimizer)] = "adam"
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    learning_rate_schedule: Annotated[Term | None, _term(check_schedule)] = None
    loss: Annotated[Term | dict[str, Term], _term(check_loss)] = "sparse_categorical_crossentropy"
    loss_weights: Annotated[dict[str, float] | None, PlainValidator(check_loss_weights)] = None
    metrics: Annotated[Terms | dict[str, Terms], _term(check_metrics)] = Field(
        default_factory=lambda fields: default_metrics(fields["loss"])
    )
    weighted_metrics: Annotated[Terms | dict[str, Terms], _term(check_metrics)] = ()
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
    def logs(self) -> dict[str, Goal | None]:
        """Name that is logged for an epoch -> the direction in which it is better; None if unknown.

        A model that its builder compiled may have other logs: see `training.built`.
        """
        return logs_of(self.loss, self.metrics, self.weighted_metrics)

    def goal_of(self, log: str) -> Goal:
        """The direction in which a log of training or validation is better."""
        return self.known_goal_of(log) or "minimize"

    def known_goal_of(self, log: str) -> Goal | None:
        """The direction in which a log is better; None if it is unknown."""
        return self.logs.get(log.removeprefix("val_")) or probable_goal(log)

    @property
    def own_references(self) -> tuple[str, ...]:
        """References to the user's own losses, metrics, optimizers and schedules."""
        fields = (getattr(self, name) for name in OWN_FIELDS)
        return tuple(reference for value in fields for reference, _ in own_terms(value))


def monitors_of(training: TrainingSpec) -> Iterator[tuple[tuple[str, ...], str]]:
    """The path of each field that monitors a log of each epoch, with the name of the log."""
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
    """The search for variants: dotted paths of fields, and the values that each may have."""

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
            path: _absolute_values(parameter, info) if may_hold_references(path) else parameter
            for path, parameter in parameters.items()
        }


def _absolute_values(parameter: Values | Range, info: ValidationInfo) -> Values | Range:
    if isinstance(parameter, Range) or info.context is None:
        return parameter
    folder: Path = info.context["folder"]

    def absolute(reference: str) -> str:
        try:
            return absolute_reference(reference, folder)
        except InputError:
            return reference  # the error is reported where the value is checked

    return Values(values=map_references(parameter.values, absolute))


def may_hold_references(path: str) -> bool:
    """Whether the values of a searched path may refer to the user's own code."""
    section, field = f"{path}.".split(".")[:2]
    return path in REFERENCE_PATHS or (section == "training" and field in OWN_FIELDS)


class SelectSpec(Section):
    """How the winner is selected: by a statistic, over seeds, of a validation metric.

    `iqm` is the interquartile mean. `confidence_bound` is the worse end of the mean's 95% interval,
    so that a variant whose seeds vary much must be better on average to win.
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
    """What a run may use. `auto` uses what the machine or the cluster has.

    `gpus` is the share of a GPU for each pack: 1, a fraction if packs share a GPU, or 0 for the
    CPU. `accelerator_type` names the kind of GPU, as Ray does: `A100`, `T4`, ...
    A pack that sends no heartbeat for `stall_timeout_s` is tried again elsewhere; an interrupt
    waits up to `grace_s` for checkpoints. `shard` names the trials that this run trains: `2/8` for
    the second of eight shards.
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
    """Trackers to which a run is written, in addition to its own folder.

    `tensorboard` writes `tensorboard/` in the run folder. `mlflow` is the address of MLflow's
    server or database: `http://host:5000`, `sqlite:///file.db`, ...
    """

    tensorboard: bool = False
    mlflow: Annotated[str, AfterValidator(check_tracking_uri)] | None = None


class JobSpec(Section):
    """A whole job. Every field except the name has a default."""

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
        """Fills in the goal that follows from `training`, even if the metric's name is not enough.

        Otherwise the goal follows from the name, or is missing.
        """
        training = info.data.get("training")
        if training is None or not isinstance(select, Mapping) or "goal" in select:
            return select
        goal = training.known_goal_of(str(select.get("metric", "val_loss")))
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
        """References to all functions of the user: generator, builder, callbacks and own terms."""
        generator = () if self.data.generator is None else (self.data.generator,)
        training = self.training
        return (*generator, self.model.builder, *training.callbacks, *training.own_references)


def settings_of(
    job: JobSpec, parameters: Mapping[str, Any], context: Mapping[str, Any] | None = None
) -> Settings:
    """The job's settings, with values replaced at dotted paths.

    Args:
        job: The job; it is not changed.
        parameters: Dotted path -> value, e.g. `{"training.learning_rate": 1e-3}`.
        context: `{"folder": ...}`, if references are to be checked too.

    Raises:
        pydantic.ValidationError: A value is outside its limits.
        InputError: A value along a path is no mapping.
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
