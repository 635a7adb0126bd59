"""Metrics that a program updates batch by batch, as `model.fit` does.

The state of a metric of Keras's is a sum over rows, so one update with all rows of an epoch gives
the same and costs a fraction. A metric of the user's may be anything: a mean over batches, a
maximum, a best value that `reset_state` keeps from epoch to epoch. So its variables are part of a
trial's state, and it sees the batches that Keras would show it, in their order.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from trialrun.errors import CannotFuse
from trialrun.training.internals import gradient_tapes, keras_model


class BatchMetrics:
    """Those of a compiled model's metrics that must see its batches one by one.

    Args:
        model: The model, built with its metrics.

    Attributes:
        metrics: Those given to `compile` that must.
        others: Those that need not, and those in which Keras averages losses.
        variables: All of `metrics`' variables, each once.
        start: Their values before the first epoch.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self.metrics = _metrics_of(model)
        ours = set(map(id, self.metrics))
        losses = [keras_model.loss_tracker(model), *keras_model.output_loss_trackers(model)]
        compiled = keras_model.compiled_metrics(model)
        self.others = [*losses, *(metric for metric in compiled if id(metric) not in ours)]
        self.variables = variables_of(model)
        self.start: list[npt.NDArray[np.generic]] = [v.numpy() for v in self.variables]

    def update(self, y: Any, predictions: Any, sample_weight: Any) -> None:
        """Shows them a batch; none of the others sees it."""
        if not self.metrics:
            return
        with only(self.metrics, self._model), gradient_tapes.functions_inlined():
            keras_model.update_compiled_metrics(self._model, y, predictions, sample_weight)

    def update_others(self, y: Any, predictions: Any, sample_weight: Any) -> None:
        """Shows the others rows; none of these sees them."""
        with only(self.others, self._model):
            keras_model.update_compiled_metrics(self._model, y, predictions, sample_weight)

    def reset(self) -> None:
        """As Keras does at the beginning of an epoch and of an evaluation."""
        for metric in self.metrics:
            metric.reset_state()

    def reset_others(self) -> None:
        """The same of the others."""
        for metric in self.others:
            metric.reset_state()


@contextlib.contextmanager
def only(metrics: Sequence[keras.metrics.Metric], model: keras.Model) -> Iterator[None]:
    """Within this context, no metric that was given to `compile` is updated but these."""
    updated = set(map(id, metrics))
    with contextlib.ExitStack() as stack:
        for metric in keras_model.compiled_metrics(model):
            if id(metric) not in updated:
                stack.enter_context(mock.patch.object(metric, "update_state", _see_nothing))
        yield


def _see_nothing(*_: Any, **__: Any) -> None:
    pass


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """The variables of a built model's metrics that see batches, each once.

    None of them is a variable of the model or of its optimizer.
    """
    known = {id(variable) for variable in (*model.variables, *model.optimizer.variables)}
    found = {id(v): v for metric in _metrics_of(model) for v in metric.variables}
    return [variable for key, variable in found.items() if key not in known]


def own_metrics(model: keras.Model) -> list[str]:
    """The names of the metrics given to `compile` that are not Keras's own."""
    given = keras_model.given_metrics(model)
    return [_name_of(metric) for metric in given if not _is_of_keras(metric)]


def flat_logs(logs: Mapping[str, Any], *, by_name: bool = False) -> dict[str, Any]:
    """Logs with nested ones beside the others.

    Args:
        logs: Name -> value, or more logs.
        by_name: Whether to sort them, as Keras does for callbacks; else they keep their order.
    """
    flat: dict[str, Any] = {}
    for name, value in sorted(logs.items()) if by_name else logs.items():
        is_nested = isinstance(value, Mapping)
        flat |= flat_logs(value, by_name=by_name) if is_nested else {name: value}
    return flat


def as_scalars(logs: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """Logs as float32 scalars.

    Raises:
        CannotFuse: One of them is not one number.
    """
    scalars = {name: tf.cast(tf.convert_to_tensor(v), tf.float32) for name, v in logs.items()}
    for name, value in scalars.items():
        if value.shape.rank != 0:
            raise CannotFuse(f"{name!r} is logged, which is not one number")
    return scalars


def _metrics_of(model: keras.Model) -> list[keras.metrics.Metric]:
    """Those that must see batches, and those that share a variable with one of them."""
    compiled = keras_model.compiled_metrics(model)
    held = {id(v) for metric in compiled if _sees_batches(metric) for v in metric.variables}
    return [
        metric
        for metric in compiled
        if _sees_batches(metric) or any(id(v) in held for v in metric.variables)
    ]


def _sees_batches(metric: keras.metrics.Metric) -> bool:
    """Whether a metric's state may be another thing than a sum over rows.

    A sum in half precision is one of what has been rounded batch by batch.
    """
    is_rounded = any(v.dtype in ("float16", "bfloat16") for v in metric.variables)
    return is_rounded or not _is_of_keras(metric) or keras_model.compares_rows(metric)


def _is_of_keras(metric: Any) -> bool:
    """Whether all of a metric's code is Keras's; it is an object, a class, a function or a name."""
    if isinstance(metric, str):
        return True
    kind = metric if isinstance(metric, type) else type(metric)
    function = keras_model.function_of(metric)
    owners = (kind, function) if isinstance(metric, keras.metrics.Metric) else (function,)
    return all(str(getattr(one, "__module__", "")).startswith("keras.") for one in owners)


def _name_of(metric: Any) -> str:
    return str(getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__))
