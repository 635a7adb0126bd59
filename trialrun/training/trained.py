"""The inputs and results of an engine, the same for every engine."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.builttask import output_losses
from trialrun.datasets import PARTS, Part, Splits, steps_per_epoch
from trialrun.errors import InputError, ModelError
from trialrun.job import Settings
from trialrun.labels import check_labels
from trialrun.logitmetrics import check_metrics, check_signed_labels
from trialrun.lookups import looked_up_features
from trialrun.models import build_model, compile_model
from trialrun.modeltask import ModelTask, OutputLoss, task_of
from trialrun.plan import Trial, Variant
from trialrun.references import portable_reference
from trialrun.results import Checkpoint
from trialrun.sizes import require_memory
from trialrun.training import internals
from trialrun.training.ownership import refuse_shared
from trialrun.training.randomness import SeededBuild, build_seeded
from trialrun.training.repeatable import load_repeatable
from trialrun.training.settings import (
    import_with_settings,
    note_settings,
    settings_kept,
    settings_of,
)
from trialrun.weights import weigh_classes


@dataclass(frozen=True, eq=False)
class PackData:
    """The data of a pack's trials.

    Attributes:
        splits: One entry per trial, or a single one that all trials share.
        is_shared: Whether all trials share one entry, as they do if the data's seed is fixed.
    """

    splits: tuple[Splits, ...]
    is_shared: bool

    def of_trial(self, index: int) -> Splits:
        """The data of the trial with this index in the pack."""
        return self.splits[0 if self.is_shared else index]

    @functools.cached_property
    def on_device(self) -> Mapping[Part, tuple[Any, ...]]:
        """The parts of shared data as tensors: made once, for every slice and engine."""
        (shared,) = self.splits
        return {part: keras.tree.map_structure(tf.constant, shared.part(part)) for part in PARTS}

    @property
    def why_streamed(self) -> str:
        """The part that does not fit into memory, and why; empty if all parts of all trials do."""
        streams = (item for splits in self.splits for item in splits.streams.items())
        return next((f"{part} {stream.reason}" for part, stream in streams), "")


@dataclass(frozen=True, slots=True)
class Advance:
    """An engine's heartbeat.

    Attributes:
        num_epochs: Epochs trained since the last heartbeat, summed over trials. Epochs that a
            trial skips because it stopped early are counted when it stops.
        logs: Keras's log names -> float32 (trials,): the newest epoch of those trials.
    """

    num_epochs: int
    logs: Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class TrainedTrial:
    """One trained trial.

    Attributes:
        history: Keras's log names -> float32 (epochs,).
        test_logs: Keras's log names -> value on the test set.
        val_predictions, test_predictions: (rows, ...); for a streamed part, of its first rows.
        trainable, non_trainable, optimizer: Variables in Keras's order.
        model_task: What the model is.
        is_compiled_by_builder: Whether the builder compiled the model, not the job's `training`.
        best_epoch: The epoch, from 1, whose weights these are; None in a trial that does not keep
            its best, whose weights are those of the last epoch.
        streamed_matrices: The confusion matrices of streamed parts; None if the model is no
            classifier.
    """

    history: Mapping[str, npt.NDArray[np.float32]]
    test_logs: Mapping[str, float]
    val_predictions: Any
    test_predictions: Any
    trainable: tuple[npt.NDArray[np.generic], ...]
    non_trainable: tuple[npt.NDArray[np.generic], ...]
    optimizer: tuple[npt.NDArray[np.generic], ...]
    model_task: ModelTask
    is_compiled_by_builder: bool = False
    best_epoch: int | None = None
    streamed_matrices: Mapping[Part, npt.NDArray[np.int64] | None] = field(default_factory=dict)


def load_pack_data(trials: Sequence[Trial], job_folder: Path) -> tuple[PackData, dict[str, str]]:
    """Generates, splits, scales and weighs the data of trials of one signature.

    Returns:
        The data of the trials whose data could be loaded, and trial_id -> error of the others.

    Raises:
        OutOfMemory: The data of this many trials does not fit into memory.
    """
    data = trials[0].variant.data
    class_weights = [trial.variant.training.class_weight for trial in trials]

    looked_up = looked_up_features(trials[0].variant.model, job_folder)

    def load(trial: Trial) -> Splits:
        with settings_kept():
            import_with_settings(filter(None, [data.generator]), job_folder)
            splits = load_repeatable(data, job_folder, trial.seed, looked_up)
        return weigh_classes(splits, trial.variant.training.class_weight)

    if data.seed != "per_trial" and all(weight == class_weights[0] for weight in class_weights):
        try:
            shared = load(trials[0])
            require_memory(shared, num_trials=1)
            return PackData((shared,), True), {}
        except InputError as error:
            return PackData((), True), dict.fromkeys((t.trial_id for t in trials), str(error))
    splits: list[Splits] = []
    errors: dict[str, str] = {}
    for trial in trials:
        try:
            loaded = load(trial)
            if splits:
                _require_same_classes(loaded, trial.seed, splits[0])
            splits.append(loaded)
            if len(splits) == 1:
                require_memory(splits[0], num_trials=len(trials))
        except InputError as error:
            errors[trial.trial_id] = str(error)
    return PackData(tuple(splits), False), errors


def _require_same_classes(splits: Splits, seed: int, first: Splits) -> None:
    """Refuses data whose classes differ from those of the first trial of a pack."""
    if splits.class_names != first.class_names:
        own, others = (", ".join(data.class_names) or "none" for data in (splits, first))
        raise InputError(
            f"the data of seed {seed} has the classes {own}, that of other seeds {others};"
            " let the generator return class_names, the same for every seed"
        )


@dataclass(frozen=True, slots=True)
class CompiledModel:
    """A compiled model and how it starts under any seed.

    Attributes:
        model: The model, built and compiled under its first seed; its optimizer is built too.
        initial: Gives the initial variables under other seeds.
        optimizer_start: The optimizer's variables before the first step.
        is_compiled_by_builder: Whether the builder compiled the model, not the job's `training`.
        learning_rate_index: Index of the learning rate among the optimizer's variables; None if
            the builder's own `compile` or a schedule decides it.
        copied_weights: Index of an optimizer's variable -> index of the trainable variable that it
            starts as a copy of.
        losses: The model's outputs and their losses.
    """

    model: keras.Model
    initial: SeededBuild
    optimizer_start: tuple[npt.NDArray[np.generic], ...]
    is_compiled_by_builder: bool
    learning_rate_index: int | None
    copied_weights: Mapping[int, int]
    losses: tuple[OutputLoss, ...]

    @property
    def task(self) -> ModelTask:
        """What the model is."""
        return task_of(self.losses)

    def check_labels(self, splits: Splits) -> None:
        """Raises ModelError for labels that do not fit a loss; of a stream, only the first rows."""
        labels: dict[str, Any] = {part: splits.part(part)[1] for part in PARTS}
        try:
            check_labels(self.losses, labels)
            check_signed_labels(self.model, self.losses, labels)
        except InputError as error:
            raise ModelError(str(error)) from error


def make_compiled_model(
    variant: Variant, job_folder: Path, splits: Splits, seed: int
) -> CompiledModel:
    """Builds and compiles a variant's model for data like `splits`.

    Raises:
        ModelError: Building or compiling failed, or the labels do not fit the losses.
    """
    try:
        return _make_compiled_model(variant, job_folder, splits, seed)
    except InputError as error:
        raise ModelError(str(error)) from error


def build_compiled(variant: Variant, job_folder: Path, splits: Splits, seed: int) -> keras.Model:
    """A variant's model under a seed, compiled.

    Raises:
        InputError: Building or compiling failed.
    """
    model = build_seeded(_builder_of(variant, job_folder, splits), seed)
    _compile(model, variant, splits)
    return model


def _builder_of(variant: Variant, job_folder: Path, splits: Splits) -> Callable[[], keras.Model]:
    """A function that builds a variant's model as if it were the first one in this process."""
    references = Settings(variant.data, variant.model, variant.training).references
    with settings_kept():  # imported before a seed is set, because an import may change the streams
        import_with_settings(references, job_folder)

    def build() -> keras.Model:
        with settings_kept():
            import_with_settings(references, job_folder)
            model = build_model(variant.model, job_folder, splits.x_train)
            note_settings(model)
        refuse_shared(model, f"model.builder {portable_reference(variant.model.builder)}")
        return model

    return build


def _compile(model: keras.Model, variant: Variant, splits: Splits) -> None:
    num_steps = steps_per_epoch(splits, variant.training.batch_size)
    with settings_of(model):
        compile_model(model, variant.training, num_steps, splits.x_train)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


def _make_compiled_model(
    variant: Variant, job_folder: Path, splits: Splits, seed: int
) -> CompiledModel:
    initial = SeededBuild(_builder_of(variant, job_folder, splits), seed)
    model = initial.model
    is_compiled_by_builder = model.compiled
    _compile(model, variant, splits)
    losses = output_losses(model, model.loss, splits.x_train, splits.y_train)
    if is_compiled_by_builder:
        check_metrics(model, losses)
    index = learning_rate_place(model)
    compiled = CompiledModel(
        model=model,
        initial=initial,
        optimizer_start=tuple(variable.numpy() for variable in model.optimizer.variables),
        is_compiled_by_builder=is_compiled_by_builder,
        learning_rate_index=None if is_compiled_by_builder else index,
        copied_weights=internals.copied_weights(model.optimizer),
        losses=losses,
    )
    compiled.check_labels(splits)
    return compiled


def learning_rate_place(model: keras.Model) -> int | None:
    """Index of the learning rate among the optimizer's variables; None when a schedule sets it."""
    rate = internals.learning_rate_variable(model.optimizer)
    return next((i for i, v in enumerate(model.optimizer.variables) if v is rate), None)


def initial_optimizer(
    compiled: CompiledModel,
    learning_rates: Sequence[float],
    variables: Sequence[npt.NDArray[np.generic]],
) -> list[npt.NDArray[np.generic]]:
    """The optimizer's variables (trials, ...) before the first step, one rate per trial.

    Args:
        compiled: The model.
        learning_rates: (trials,).
        variables: The model's initial variables (trials, ...), the trainable ones first.
    """
    num_trials = len(learning_rates)
    arrays = [
        np.broadcast_to(value, (num_trials, *value.shape)) for value in compiled.optimizer_start
    ]
    if compiled.learning_rate_index is not None:
        arrays[compiled.learning_rate_index] = np.asarray(learning_rates, np.float32)
    for own_index, weight_index in compiled.copied_weights.items():
        arrays[own_index] = variables[weight_index]
    return arrays


def is_ended(checkpoint: Checkpoint, index: int) -> bool:
    """Whether a trial of a pack needs no more epochs."""
    return checkpoint.ended is not None and bool(checkpoint.ended[index])


def kept_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables of `model.get_weights`, the trainable ones first, then the non-trainable."""
    kept = {id(variable) for variable in model.weights}
    everything = [*model.trainable_variables, *model.non_trainable_variables]
    return [variable for variable in everything if id(variable) in kept]
