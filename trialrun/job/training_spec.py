"""The section `training` of a job: how each trial is trained, and when it stops."""

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, ValidationInfo, field_validator

from trialrun.job.fields import PositiveInt, ReferenceText, Section, folder_of
from trialrun.job.keras_api.logs import logs_of, probable_goal
from trialrun.job.keras_api.losses import (
    check_class_weight,
    check_loss,
    check_loss_weights,
    check_metrics,
    check_outputs,
    default_metrics,
)
from trialrun.job.keras_api.optimizers import check_optimizer, check_schedule
from trialrun.job.keras_api.own_terms import OWN_FIELDS, own_terms, resolve_own
from trialrun.job.keras_api.terms import Goal, Term, Terms


def _check_monitor(value: str) -> str:
    if value.startswith("test_"):
        reason = "training must not see test numbers"
        bare = value.removeprefix("test_")
        raise ValueError(
            f"must be a validation or training log, got {value!r}: {reason}; try 'val_{bare}'"
        )
    return value


NumEpochs = Annotated[int, Field(ge=0, lt=2**31)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Monitor = Annotated[str, AfterValidator(_check_monitor)]


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

    A reference to the user's own code is checked in `trialrun.job.keras_api.own_terms`.
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
    callbacks: Annotated[tuple[ReferenceText, ...], Field(strict=False)] = ()
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

        A model that its builder compiled may have other logs: see `training.model.built`.
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
