"""Keras objects made from the user's own losses, metrics, optimizers and schedules.

A job names either a function of (y_true, y_pred), which is the loss or metric itself, or a class or
a function that makes the object and is called with the job's arguments. The result is checked here:
an optimizer that ignored the job's learning rate, for example, would train another trial than the
job describes.
"""

import functools
import inspect
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import InputError
from trialrun.job.keras_api.own_terms import is_itself
from trialrun.job.user_code.functions import load_function, portable_reference
from trialrun.messages import in_short

if TYPE_CHECKING:
    import keras


def own_loss(field: str, reference: str, arguments: Mapping[str, Any]) -> Any:
    """The user's loss as `compile` takes it.

    A function with arguments is renamed with them (`focal_gamma_3.0`), so that whoever loads the
    saved model must provide exactly this loss and does not get the function with its defaults.

    Args:
        field: Dotted path of the job's field, for messages.
        reference: The user's function or class, with an absolute path.
        arguments: The arguments that the job gives.

    Raises:
        InputError: The reference cannot be loaded, raises an error, or gives no loss.
    """
    function = load_function(reference, Path())
    if not _is_itself(field, reference, function, arguments):
        made = _call(field, reference, function, arguments)
        return _callable(field, reference, made, "a keras.losses.Loss")
    if not arguments:
        return function
    given = "_".join(f"{name}_{value}" for name, value in arguments.items())

    @functools.wraps(function)
    def loss(y_true: Any, y_pred: Any) -> Any:
        return function(y_true, y_pred, **arguments)

    loss.__name__ = re.sub(r"[^A-Za-z0-9_.]", "_", f"{function.__name__}_{given}")
    return loss


def own_metric(
    field: str, reference: str, arguments: Mapping[str, Any], log_name: str
) -> "keras.metrics.Metric":
    """The user's metric, logged under `log_name`.

    Raises:
        InputError: The reference cannot be loaded, raises an error, or gives no metric.
    """
    import keras

    function, rest = load_function(reference, Path()), dict(arguments)
    if not _is_itself(field, reference, function, arguments):
        function, rest = _call(field, reference, function, arguments), {}
    if isinstance(function, keras.metrics.Metric):
        function.name = log_name
        return function
    function = _callable(field, reference, function, "a keras.metrics.Metric")
    return keras.metrics.MeanMetricWrapper(function, name=log_name, **rest)


def own_schedule(
    reference: str, arguments: Mapping[str, Any], learning_rate: float
) -> "keras.optimizers.schedules.LearningRateSchedule":
    """The user's schedule, which begins with the given learning rate.

    Raises:
        InputError: The reference cannot be loaded, raises an error, or gives no schedule.
    """
    import keras

    field, kind = "training.learning_rate_schedule", keras.optimizers.schedules.LearningRateSchedule
    given = {"initial_learning_rate": learning_rate, **arguments}
    made = _call(field, reference, load_function(reference, Path()), given)
    if not isinstance(made, kind):
        raise _wrong_kind(field, reference, "a Keras LearningRateSchedule", made)
    return made


def own_optimizer(
    reference: str, arguments: Mapping[str, Any], learning_rate: Any
) -> "keras.optimizers.Optimizer":
    """The user's optimizer with the given learning rate or schedule.

    Raises:
        InputError: The reference cannot be loaded, raises an error, or gives no optimizer or one
            with another learning rate, or with a constant one instead of a schedule.
    """
    import keras

    from trialrun.training.internals import keras_model

    field = "training.optimizer"
    given = {"learning_rate": learning_rate, **arguments}
    made = _call(field, reference, load_function(reference, Path()), given)
    if not isinstance(made, keras.optimizers.Optimizer):
        raise _wrong_kind(field, reference, "a keras.optimizers.Optimizer", made)
    is_schedule = isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule)
    expected = float(learning_rate(0)) if is_schedule else learning_rate
    found = float(made.learning_rate.numpy())
    if not math.isclose(found, expected, rel_tol=1e-6):
        raise InputError(
            f"{field} {portable_reference(reference)}: was given the learning rate {expected:g},"
            f" but its optimizer has {found:g}; pass the learning rate to Keras unchanged"
        )
    if is_schedule and keras_model.learning_rate_variable(made) is not None:
        raise InputError(
            f"{field} {portable_reference(reference)}: was given a learning rate schedule, but its"
            f" optimizer has the constant learning rate {found:g}; pass the schedule to Keras"
            " unchanged"
        )
    return made


def _is_itself(
    field: str, reference: str, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> bool:
    if inspect.isclass(function):
        return False
    any_number = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    required = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in any_number and parameter.default is inspect.Parameter.empty
    ]
    try:
        return is_itself(required, arguments)
    except ValueError as error:
        raise InputError(f"{field} {portable_reference(reference)}: {error}") from None


def _call(
    field: str, reference: str, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> Any:
    try:
        return function(**arguments)
    except Exception as error:
        raise InputError(
            f"{field} {portable_reference(reference)}: it raised {in_short(error)}"
        ) from error


def _callable(field: str, reference: str, made: Any, expected: str) -> Any:
    if not callable(made) or inspect.isclass(made):
        expected = f"{expected} or a function of (y_true, y_pred)"
        raise _wrong_kind(field, reference, expected, made)
    return made


def _wrong_kind(field: str, reference: str, expected: str, made: Any) -> InputError:
    kind = type(made).__name__
    return InputError(
        f"{field} {portable_reference(reference)}: must return {expected}, got a {kind}"
    )
