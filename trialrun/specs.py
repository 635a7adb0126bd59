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
    """The function that returns the `keras.Model`; it is called with `args`.

    Allowed: `module:function`, or `file.py:function` with the path starting at the job's folder.
    Example: `mine.py:my_model`.
    """
    args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the builder.

    Allowed: a mapping. Example: `{units: [32, 64], activation: tanh}`.
    """


class EarlyStoppingSpec(Section):
    """When a trial ends before its last epoch, as in `keras.callbacks.EarlyStopping`.

    Whether larger or smaller values of `monitor` are better follows from its name.
    """

    monitor: Monitor = "val_loss"
    """A log of training or validation, which is watched epoch by epoch.

    Allowed: the name of a log. Example: `val_accuracy`.
    """
    patience: NumEpochs = 5
    """Epochs without an improvement after which a trial stops. Example: `3`."""
    min_delta: Amount = 0.0
    """A smaller change than this is no improvement. Example: `1e-3`."""
    baseline: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """A change counts as an improvement only where this value is beaten too. Example: `0.5`."""
    start_from_epoch: NumEpochs = 0
    """Epochs at the beginning that are not watched. Example: `10`."""
    restore_best_weights: bool = False
    """Whether a trial that stops gives the weights of its best epoch, not of its last one.

    Example: `true`.
    """


class ReduceLROnPlateauSpec(Section):
    """When a trial's learning rate is reduced, as in `keras.callbacks.ReduceLROnPlateau`."""

    monitor: Monitor = "val_loss"
    """A log of training or validation, which is watched epoch by epoch.

    Allowed: the name of a log. Example: `loss`.
    """
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """What the learning rate is multiplied by each time. Example: `0.5`."""
    patience: NumEpochs = 10
    """Epochs without an improvement after which the learning rate shrinks. Example: `3`."""
    min_delta: Amount = 1e-4
    """A smaller change than this is no improvement. Example: `1e-3`."""
    cooldown: NumEpochs = 0
    """Epochs after a reduction in which nothing is counted. Example: `2`."""
    min_lr: Amount = 0.0
    """The learning rate never becomes smaller than this. Example: `1e-6`."""


def _term(check: Callable[[object], Any]) -> PlainValidator:
    """Accepts what `check` accepts; references become absolute if the job's folder is known."""

    def validate(value: object, info: ValidationInfo) -> Any:
        checked, folder = check(value), folder_of(info)
        return checked if folder is None else resolve_own(str(info.field_name), checked, folder)

    return PlainValidator(validate)


class TrainingSpec(Section):
    """How the model is trained: what Keras's `compile`, `fit` and callbacks take, and the engine.

    A reference to the user's own code is checked in `trialrun.ownterms`.
    """

    engine: Literal["auto", "fused", "mapped", "keras"] = "auto"
    """Which engine trains the packs. `auto` takes the first of the three that can, or the fastest
    where it pays to find out which that is. Any other engine is forced: a model that it cannot
    train is an error.

    Example: `mapped`.
    """
    check_engine: bool = True
    """Whether the first steps of a compiled program are compared with plain Keras before its
    results count.

    Example: `false`.
    """
    optimizer: Annotated[Term, _term(check_optimizer)] = "adam"
    """The optimizer. Numbers that it is given may differ between the trials of one program.

    Allowed: a Keras name, yours (`file.py:function`), or a mapping of `name` and arguments.
    Example: `{name: sgd, momentum: 0.9}`.
    """
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-4
    """The optimizer's learning rate; a schedule begins at it. Example: `1e-3`."""
    learning_rate_schedule: Annotated[Term | None, _term(check_schedule)] = None
    """How the learning rate changes from step to step. Keras's arguments in steps may be given in
    epochs instead: `decay_epochs` for `decay_steps`, `boundary_epochs` for `boundaries`.

    Allowed: a mapping of a Keras schedule's `name` and its arguments, or yours
    (`file.py:function`). Example: `{name: cosine_decay, decay_epochs: 20}`.
    """
    loss: Annotated[Term | dict[str, Term], _term(check_loss)] = "sparse_categorical_crossentropy"
    """The loss, which is minimized. A model with several outputs has one for each, by the output's
    name.

    Allowed: a Keras name, yours (`file.py:function`), a mapping of `name` and arguments, or a
    mapping of outputs to these. Example: `{name: categorical_crossentropy, label_smoothing: 0.1}`.
    """
    loss_weights: Annotated[dict[str, float] | None, PlainValidator(check_loss_weights)] = None
    """The factor of each output's loss in the sum; without it, each counts once.

    Allowed: a mapping of outputs to numbers of at least 0. Example: `{price: 1.0, kind: 0.2}`.
    """
    metrics: Annotated[Terms | dict[str, Terms], _term(check_metrics)] = Field(
        default_factory=lambda fields: default_metrics(fields["loss"])
    )
    """What is logged beside the loss. If it is not given: accuracy for classes, `mae` and
    `r2_score` for quantities, nothing beside a loss of your own.

    Allowed: a list of Keras names, yours (`file.py:function`), and mappings of `name`, arguments
    and `as`, the name in the logs; or a mapping of outputs to such lists. Example:
    `[accuracy, {name: auc, curve: PR, as: pr_auc}]`.
    """
    weighted_metrics: Annotated[Terms | dict[str, Terms], _term(check_metrics)] = ()
    """Metrics that count each row by its weight, as Keras's `weighted_metrics`.

    Allowed: as `metrics`. Example: `[accuracy]`.
    """
    class_weight: Annotated[
        Literal["balanced"] | dict[str, float] | None, PlainValidator(check_class_weight)
    ] = None
    """The weight of a training row by its class; it is multiplied by the row's own weight.
    `balanced` gives rare classes more weight, by scikit-learn's formula.

    Allowed: `balanced`, a list with a weight per class, or a mapping of classes to weights of at
    least 0. Example: `{sick: 5, well: 1}`.
    """
    batch_size: PositiveInt = 10
    """Training rows per step; the last step of an epoch takes what is left. Example: `32`."""
    epochs: PositiveInt = 30
    """How often the training rows are gone through. Example: `50`."""
    checkpoint_every: PositiveInt | None = None
    """Epochs between two checkpoints of the packs in training; without it, checkpoints are written
    only on an interrupt.

    Example: `10`.
    """
    early_stopping: EarlyStoppingSpec | None = None
    """When a trial stops before its last epoch. Example: `{monitor: val_loss, patience: 5}`."""
    reduce_lr_on_plateau: ReduceLROnPlateauSpec | None = None
    """When a trial's learning rate shrinks. Example: `{factor: 0.5, patience: 3}`."""
    keep_best: Monitor | None = None
    """A trial gives the weights of the epoch in which this log was best, stopped early or not, and
    not those of its last epoch. Where both are given, it takes precedence over
    `early_stopping.restore_best_weights`.

    Allowed: the name of a log of training or validation. Example: `val_accuracy`.
    """
    terminate_on_nan: bool = False
    """Whether a trial stops at the first batch whose loss is not finite. Example: `true`."""
    callbacks: Annotated[tuple[Reference, ...], Field(strict=False)] = ()
    """Functions without arguments that return a `keras.callbacks.Callback`, called for each trial.
    A job that has any is trained by the engine `keras`.

    Allowed: a list of `file.py:function` or `module:function`. Example: `[mine.py:my_callback]`.
    """

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
    """`grid` takes every combination of all values, `random` draws `num_variants` distinct ones.

    Example: `random`.
    """
    num_variants: PositiveInt | None = None
    """How many variants a random search draws; more of them begin with the same ones.

    Example: `50`.
    """
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    """Keys the draws of a random search. Example: `1`."""
    parameters: dict[str, ParameterSpec] = Field(default_factory=dict)
    """What is searched: dotted paths into the job file, and the values that each may have.

    Allowed: a mapping of dotted paths below `data`, `model` and `training` to `{values: ...}` or a
    range. Example: `{training.learning_rate: {values: [1e-4, 1e-3]}}`.
    """

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
    """How the winner is selected: by a statistic, over seeds, of a validation metric."""

    metric: Annotated[str, AfterValidator(_check_selection_metric)] = "val_loss"
    """The validation metric that variants are ranked by.

    Allowed: `val_loss`, or `val_` and a metric that is logged; never a test metric. Example:
    `val_accuracy`.
    """
    goal: Goal = Field(default_factory=lambda fields: natural_goal(fields["metric"]) or "minimize")
    """Whether a smaller or a larger value is better. If it is not given, it follows from the
    metric's name; it must be given where no name tells.

    Example: `maximize`.
    """
    statistic: Statistic = "mean"
    """How the values of a variant's seeds become one number: `iqm` is the interquartile mean,
    `confidence_bound` the worse end of the mean's 95% interval: a variant whose seeds scatter
    must be better on average to win.

    Example: `median`.
    """

    @field_validator("goal")
    @classmethod
    def _check_goal(cls, goal: Goal, info: ValidationInfo) -> Goal:
        metric = info.data.get("metric")
        natural = natural_goal(metric or "")
        if natural is not None and goal != natural:
            raise ValueError(f"must be {natural!r} for {metric}, got {goal!r}")
        return goal


class ResourcesSpec(Section):
    """What a run may use. `auto` uses what the machine or the cluster has."""

    gpus: Annotated[Literal["auto"] | float, BeforeValidator(_check_gpus)] = "auto"
    """What each pack is given: 1 GPU, a share of one if packs are to share it, or 0 for the
    CPU. `auto` is 1 where there are any.

    Allowed: `auto`, or a number from 0 to 1. Example: `0.5`.
    """
    accelerator_type: Annotated[str, Field(min_length=1)] | None = None
    """The kind of GPU that packs are sent to, in Ray's words. Example: `A100`."""
    cpus: Annotated[Literal["auto"] | int, word_or_int("auto", 1)] = "auto"
    """CPU cores of each pack. `auto` is 1 where a GPU computes, else what the smallest machine has,
    at most 4.

    Allowed: `auto`, or an integer of at least 1. Example: `1`.
    """
    max_trials_per_pack: Annotated[Literal["auto"] | int, word_or_int("auto", 1)] = "auto"
    """The most trials that one task trains together. `auto` is 512 where one thread trains a pack,
    as with a GPU, else 128 for each thread, and less where memory is short.

    Allowed: `auto`, or an integer of at least 1. Example: `64`.
    """
    max_retries: Annotated[int, Field(ge=0)] = 2
    """How often a pack is tried again whose machine or process was lost. Example: `5`."""
    stall_timeout_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1800.0
    """A pack whose worker sends no heartbeat for so many seconds is stopped and tried again.

    Example: `600.0`.
    """
    grace_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 20.0
    """Seconds that an interrupted run waits for checkpoints. Example: `60`."""
    shard: Annotated[str, BeforeValidator(_check_shard)] | None = None
    """Which of the job's trials this run trains.

    Allowed: `I/N`, the I-th of N shards. Example: `2/8`.
    """


class OutputSpec(Section):
    """Trackers to which a run is written, in addition to its own folder."""

    tensorboard: bool = False
    """Whether `tensorboard/` is written into the run folder. Example: `true`."""
    mlflow: Annotated[str, AfterValidator(check_tracking_uri)] | None = None
    """Where MLflow keeps the run. A SQLite file lies beside the job file.

    Allowed: the address of an MLflow server (`http://host:5000`) or database
    (`sqlite:///mlflow.db`), without a password. Example: `sqlite:///mlflow.db`.
    """


class JobSpec(Section):
    """A whole job. Every field except the name has a default."""

    name: Annotated[str, AfterValidator(_check_name)]
    """The name of the job, and of the folder of its runs: `runs/<name>/`.

    Allowed: 1 to 100 letters, digits, `_`, `-` and `.`, the first a letter or digit. Example:
    `medical_trial`.
    """
    data: DataSpec = Field(default_factory=DataSpec)
    """Where the data comes from and how it is prepared. Example: `{scaling: standard}`."""
    model: ModelSpec = Field(default_factory=ModelSpec)
    """What is trained. Example: `{builder: "mine.py:my_model"}`."""
    training: TrainingSpec = Field(default_factory=TrainingSpec)
    """How it is trained. Example: `{epochs: 50, batch_size: 32}`."""
    seeds: Annotated[int | tuple[int, ...], BeforeValidator(_check_seeds)] = 5
    """The seeds of every variant: a count n means 0, 1, ... n - 1.

    Allowed: an integer of at least 1, or a list of distinct integers of at least 0. Example:
    `[3, 14, 15]`.
    """
    search: SearchSpec = Field(default_factory=SearchSpec)
    """Which variants there are. Without it there is one.

    Example: `{parameters: {training.batch_size: {values: [16, 32]}}}`.
    """
    select: SelectSpec = Field(default_factory=SelectSpec)
    """Which variant wins. Example: `{metric: val_accuracy}`."""
    resources: ResourcesSpec = Field(default_factory=ResourcesSpec)
    """What the run may use. Example: `{gpus: 0}`."""
    output: OutputSpec = Field(default_factory=OutputSpec)
    """Where the run is shown beside its own folder. Example: `{tensorboard: true}`."""

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
