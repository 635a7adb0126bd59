"""The model of a trial: built by the user's builder, and compiled if that did not do it.

Keras is imported inside functions, as the doors of `export` do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.data.model_task import OutputLoss
from trialrun.errors import InputError
from trialrun.job import ModelSpec, TrainingSpec
from trialrun.job.keras_api.names import CHOSEN_BY_SHAPES
from trialrun.job.keras_api.optimizers import ignores_learning_rate, in_epochs_name
from trialrun.job.keras_api.own_terms import is_own
from trialrun.job.keras_api.terms import (
    Term,
    Terms,
    class_name,
    loss_per_output,
    metric_log_name,
    split_term,
)
from trialrun.job.user_code.functions import load_function, portable_reference
from trialrun.messages import in_short
from trialrun.training.model.inputs import symbolic_inputs
from trialrun.training.model.logit_metrics import fit_metric
from trialrun.training.model.outputs import output_losses
from trialrun.training.model.own_objects import own_loss, own_metric, own_optimizer, own_schedule

if TYPE_CHECKING:
    import keras


def build_model(model: ModelSpec, job_folder: Path, x: Any) -> "keras.Model":
    """The model of the user's builder, built for inputs like `x`.

    Args:
        model: The section `model` of the job.
        job_folder: The folder to which the path of a builder's file is relative.
        x: A batch of inputs: an array, or a dict or tuple of arrays.

    Raises:
        InputError: The builder cannot be loaded, raises an error or returns no model, or the model
            cannot take such inputs.
    """
    built = call_builder(model, job_folder)
    try:
        built(symbolic_inputs(x))  # builds layers that wait for their first input
    except Exception as error:
        raise InputError(
            f"{_source(model)}: the model cannot take the data's inputs: {in_short(error)}"
        ) from error
    return built


def call_builder(model: ModelSpec, job_folder: Path) -> "keras.Model":
    """The model that the user's builder returns; it may not be built before its first input.

    Raises:
        InputError: The builder cannot be loaded, raises an error, or returns no model.
    """
    import keras

    builder = load_function(model.builder, job_folder)
    try:
        built = builder(**model.args)
    except Exception as error:
        raise InputError(f"{_source(model)}: it raised {in_short(error)}") from error
    if not isinstance(built, keras.Model):
        kind = type(built).__name__
        raise InputError(f"{_source(model)}: must return a keras.Model, got a {kind}")
    return built


def _source(model: ModelSpec) -> str:
    return f"model.builder {portable_reference(model.builder)}"


def compile_model(
    model: "keras.Model", training: TrainingSpec, steps_per_epoch: int, x: Any
) -> None:
    """Compiles the model as the job says; a model that the builder has compiled is not changed.

    The job's metrics get the arguments that make them right on logits.

    Args:
        model: A built model.
        training: The section `training` of the job.
        steps_per_epoch: Batches per epoch, with which a learning rate schedule in epochs is
            converted to steps.
        x: Some rows of the model's inputs.

    Raises:
        InputError: Keras refuses the optimizer's arguments, the loss or a metric; or a metric is
            wrong on logits.
    """
    if model.compiled:
        return
    try:
        loss = _per_output(_loss, training.loss)
        losses = output_losses(model, loss, x) if _needs_fitting(training) else ()
        model.compile(
            optimizer=_optimizer(training, steps_per_epoch),
            loss=loss,
            loss_weights=training.loss_weights,
            metrics=_metrics("metrics", training.metrics, losses),
            weighted_metrics=_metrics("weighted_metrics", training.weighted_metrics, losses)
            or None,
            jit_compile=False,
        )
    except (ValueError, TypeError) as error:
        raise InputError(f"training: Keras cannot compile the model: {in_short(error)}") from error


def in_order_of_outputs(model: "keras.Model", data: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs, labels and weights in a structure that Keras 3.15 can evaluate.

    Keras does not find the weights of rows if labels are a dict but the model's outputs a list.
    """
    import keras

    x, y, *weights = data
    if not weights or not isinstance(y, dict) or not isinstance(model.output, list | tuple):
        return data
    (weight,) = weights
    names = model.output_names
    weights_of_outputs = [weight[name] if isinstance(weight, dict) else weight for name in names]
    return (
        x,
        keras.tree.pack_sequence_as(model.output, [y[name] for name in names]),
        weights_of_outputs,
    )


def forgets_loss_arguments(training: TrainingSpec) -> bool:
    """Whether a saved model has another loss than the one with which it was trained.

    Keras 3.15 does not save the delta of a Huber loss in any format.
    """
    return any(
        class_name(name) == "Huber" and arguments.get("delta", 1) != 1
        for name, arguments in map(split_term, loss_per_output(training.loss).values())
        if name not in CHOSEN_BY_SHAPES and not is_own(name)
    )


def _optimizer(training: TrainingSpec, steps_per_epoch: int) -> "keras.optimizers.Optimizer":
    import keras

    name, arguments = split_term(training.optimizer)
    scaling = arguments.pop("loss_scaling", None)
    if training.learning_rate_schedule is None:
        rate: Any = training.learning_rate
    else:
        rate = _schedule(training.learning_rate_schedule, training.learning_rate, steps_per_epoch)
    optimizer: keras.optimizers.Optimizer
    if is_own(name):
        optimizer = own_optimizer(name, arguments, rate)
    else:
        optimizer = getattr(keras.optimizers, class_name(name))(learning_rate=rate, **arguments)
    if scaling is None:
        return optimizer
    scaling = {} if scaling is True else scaling
    return keras.optimizers.LossScaleOptimizer(optimizer, **scaling)


def _schedule(
    schedule: Term, learning_rate: float, steps_per_epoch: int
) -> "keras.optimizers.schedules.LearningRateSchedule":
    import keras

    name, arguments = split_term(schedule)
    if is_own(name):
        return own_schedule(name, arguments, learning_rate)
    for step_name in ("decay_steps", "first_decay_steps", "warmup_steps"):
        epochs = arguments.pop(in_epochs_name(step_name), None)
        if epochs is not None:
            arguments[step_name] = max(1, round(epochs * steps_per_epoch)) if epochs else 0
    boundaries = arguments.pop(in_epochs_name("boundaries"), None)
    if boundaries is not None:
        arguments["boundaries"] = [round(epochs * steps_per_epoch) for epochs in boundaries]
    if not ignores_learning_rate(schedule):
        arguments["initial_learning_rate"] = learning_rate
    made: keras.optimizers.schedules.LearningRateSchedule = getattr(
        keras.optimizers.schedules, class_name(name)
    )(**arguments)
    return made


def _loss(loss: Term) -> Any:
    import keras

    name, arguments = split_term(loss)
    if is_own(name):
        return own_loss("training.loss", name, arguments)
    if arguments:
        return getattr(keras.losses, class_name(name))(**arguments)
    return name if name in CHOSEN_BY_SHAPES else keras.losses.get(name)


def _needs_fitting(training: TrainingSpec) -> bool:
    """Whether metrics need other arguments because the border between classes may not be 0.5."""
    terms = map(split_term, loss_per_output(training.loss).values())
    return any(
        is_own(name) or arguments.get("from_logits") or "hinge" in name.lower()
        for name, arguments in terms
    )


def _metrics(field: str, metrics: Terms | dict[str, Terms], losses: Sequence[OutputLoss]) -> Any:
    losses_by_output = {loss.output: loss for loss in losses}

    def make_metrics(terms: Terms, output: str = "") -> list[Any]:
        loss = losses[0] if len(losses) == 1 else losses_by_output.get(output)
        return [_fitted_metric(field, term, loss) for term in terms]

    if isinstance(metrics, dict):
        return {output: make_metrics(terms, output) for output, terms in metrics.items()}
    return make_metrics(metrics)


def _fitted_metric(field: str, metric: Term, loss: OutputLoss | None) -> Any:
    """A metric that is right on the output of this loss; a metric of the user's is not changed."""
    if loss is None or is_own(split_term(metric)[0]):
        return _metric(field, metric)
    return _metric(field, fit_metric(metric, loss))


def _metric(field: str, metric: Term) -> Any:
    import keras

    name, arguments = split_term(metric)
    arguments.pop("as", None)
    if is_own(name):
        return own_metric(f"training.{field}", name, arguments, metric_log_name(metric))
    if isinstance(metric, str) or name in CHOSEN_BY_SHAPES:
        return name
    return getattr(keras.metrics, class_name(name))(name=metric_log_name(metric), **arguments)


def _per_output(make: Callable[[Any], Any], value: Any) -> Any:
    """The result of `make` for a value, or a dict of results if the value is one per output."""
    if isinstance(value, dict) and "name" not in value:
        return {output: make(term) for output, term in value.items()}
    return make(value)
