"""A trial's compiled model, and how it starts under any seed."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from trialrun.data.labels import check_labels
from trialrun.data.model_task import ModelTask, OutputLoss, task_of
from trialrun.data.splits import PARTS, Splits, steps_per_epoch
from trialrun.errors import InputError, ModelError
from trialrun.job import Settings
from trialrun.job.user_code.functions import portable_reference
from trialrun.training.internals import keras_model
from trialrun.training.model.build import build_model, compile_model
from trialrun.training.model.gathers import Gathers, find_gathers, may_gather
from trialrun.training.model.inputs import with_text_tensors
from trialrun.training.model.logit_metrics import check_compiled_metrics, check_signed_labels
from trialrun.training.model.outputs import output_losses
from trialrun.training.model.ownership import refuse_shared, why_unknown
from trialrun.training.model.seeded_build import SeededBuild, build_seeded
from trialrun.training.process_settings import (
    import_with_settings,
    note_settings,
    settings_in_force,
    settings_kept,
)
from trialrun.trials.trial import Variant


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
        gathers: What the model looks up by numbers of its inputs.
        stream_index: Index of the stream of `tf.random` in `optimizer_start`; None without one.
    """

    model: keras.Model
    initial: SeededBuild
    optimizer_start: tuple[npt.NDArray[np.generic], ...]
    is_compiled_by_builder: bool
    learning_rate_index: int | None
    copied_weights: Mapping[int, int]
    losses: tuple[OutputLoss, ...]
    gathers: Gathers
    stream_index: int | None = None

    @property
    def task(self) -> ModelTask:
        """What the model is."""
        return task_of(self.losses)

    def check_data(self, splits: Splits) -> None:
        """Raises ModelError for labels that do not fit a loss, and for inputs without an embedding.

        Of a stream, only the first rows are checked.
        """
        labels: dict[str, Any] = {part: splits.part(part)[1] for part in PARTS}
        try:
            check_labels(self.losses, labels)
            check_signed_labels(self.model, self.losses, labels)
            self.gathers.check({part: splits.part(part)[0] for part in PARTS})
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
    with settings_in_force(model):
        compile_model(model, variant.training, num_steps, splits.x_train)
        if keras_model.has_unbuilt_cells(model):
            _call_once(model, variant, splits)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)


def _call_once(model: keras.Model, variant: Variant, splits: Splits) -> None:
    """Lets a cell build its layers before the optimizer is built for their weights, as `fit` does.

    What does not fit the data is said where models are checked.
    """
    batch = keras.tree.map_structure(
        lambda rows: rows[: variant.training.batch_size], splits.part("train")
    )
    with contextlib.suppress(ValueError, TypeError, KeyError):
        keras_model.build_symbolically(model, with_text_tensors(batch))


def _make_compiled_model(
    variant: Variant, job_folder: Path, splits: Splits, seed: int
) -> CompiledModel:
    build = _builder_of(variant, job_folder, splits)
    initial = SeededBuild(build, seed, lambda model: _compile(model, variant, splits))
    model, is_compiled_by_builder = initial.model, initial.is_compiled_by_builder
    losses = output_losses(model, model.loss, splits.x_train, splits.y_train)
    if is_compiled_by_builder:
        check_compiled_metrics(model, losses)
    index = index_of_learning_rate(model)
    compiled = CompiledModel(
        model=model,
        initial=initial,
        optimizer_start=initial.optimizer_start,
        is_compiled_by_builder=is_compiled_by_builder,
        learning_rate_index=None if is_compiled_by_builder else index,
        copied_weights=keras_model.copied_weights(model.optimizer),
        losses=losses,
        gathers=_gathers_of(model, build, splits, seed),
    )
    compiled.check_data(splits)
    return compiled


def _gathers_of(
    model: keras.Model, build: Callable[[], keras.Model], splits: Splits, seed: int
) -> Gathers:
    """What a compiled model looks up; it is called only if it is Keras's alone.

    Something of the user's may count how often it is called. Such a model is built once more.
    """
    if not may_gather(model, splits.x_train):
        return Gathers()
    called = build_seeded(build, seed) if why_unknown(model) else model
    with settings_in_force(called):
        return find_gathers(called, splits.x_train)


def index_of_learning_rate(model: keras.Model) -> int | None:
    """Index of the learning rate among the optimizer's variables; None when a schedule sets it."""
    rate = keras_model.learning_rate_variable(model.optimizer)
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


def kept_variables(model: keras.Model) -> list[keras.Variable]:
    """The variables of `model.get_weights`, the trainable ones first, then the non-trainable."""
    kept = {id(variable) for variable in model.weights}
    everything = [*model.trainable_variables, *model.non_trainable_variables]
    return [variable for variable in everything if id(variable) in kept]
