"""Keras's metrics on outputs that are logits: which metrics are right, and with which arguments.

Most metrics take a model's outputs as probabilities and compare them with 0.5, whatever arguments
its loss has. If an argument makes a metric right on logits, it is given; otherwise the metric is
refused. The same holds for outputs under a hinge loss, where classes are also divided at 0.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trialrun.data.labels import labels_of
from trialrun.data.model_task import OutputLoss
from trialrun.errors import InputError
from trialrun.job.keras_api.names import METRICS
from trialrun.job.keras_api.terms import Term, class_name, split_term

if TYPE_CHECKING:
    import keras

# Metrics that only ask for the largest outputs, and so are right on logits too.
_OF_LARGEST = (
    *("CategoricalAccuracy", "SparseCategoricalAccuracy", "TopKCategoricalAccuracy"),
    *("SparseTopKCategoricalAccuracy", "OneHotIoU", "OneHotMeanIoU"),
)
_OF_SIGNS = ("Hinge", "SquaredHinge", "CategoricalHinge")
_CROSSENTROPIES = (
    *("BinaryCrossentropy", "CategoricalCrossentropy", "SparseCategoricalCrossentropy"),
)
_ACCURACIES = ("accuracy", "acc")


def cuts_at_zero(loss: OutputLoss) -> bool:
    """Whether the border between two classes of an output is 0 instead of 0.5."""
    return loss.from_logits or loss.family == "hinge"


def fit_metric(metric: Term, loss: OutputLoss) -> Term:
    """A metric of a job, with the arguments that make it right on an output.

    >>> fit_metric("auc", OutputLoss("bce", "binary", (1,), from_logits=True))
    {'name': 'auc', 'from_logits': True}

    Raises:
        InputError: No argument makes it right.
    """
    if not cuts_at_zero(loss):
        return metric
    name, given = split_term(metric)
    bare = {key: value for key, value in given.items() if key != "as"}
    fitted_name, arguments = _fitted(name, bare, loss, "training.metrics")
    if (fitted_name, arguments) == (name, bare):
        return metric
    as_name = {"as": given.get("as", name)} if fitted_name != name or "as" in given else {}
    return {"name": fitted_name, **arguments, **as_name}


def check_compiled_metrics(model: "keras.Model", losses: Sequence[OutputLoss]) -> None:
    """Raises InputError unless metrics that a builder compiled are right on the model's outputs.

    Raises:
        InputError: A metric is wrong on logits. The message says which, and what to do.
    """
    for index, loss in enumerate(losses):
        if not cuts_at_zero(loss):
            continue
        for metric in _metrics_of(model, loss.output, index):
            name, given = _known_metric(metric)
            if not name:
                continue
            fitted_name, arguments = _fitted(name, given, loss, "model.builder")
            if (fitted_name, arguments) != (name, given):
                shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
                raise InputError(
                    f"model.builder: {name!r} takes outputs as probabilities, but those under"
                    f" {_shown(loss)}; compile the model with"
                    f" keras.metrics.{class_name(fitted_name)}({shown})"
                )


def check_signed_labels(
    model: "keras.Model", losses: Sequence[OutputLoss], parts: Mapping[str, Any]
) -> None:
    """Raises InputError if labels are -1 and 1 but a Keras metric takes only 0 and 1.

    Raises:
        InputError: A metric does not take the labels. The message says which, and what to do.
    """
    for index, loss in enumerate(losses):
        labels = [labels_of(y, loss.output, index) for y in parts.values()]
        is_signed = any(array is not None and (array == -1).any() for array in labels)
        if loss.family != "hinge" or not is_signed:
            continue
        for metric in _metrics_of(model, loss.output, index):
            name, _ = _known_metric(metric)
            if name and (name in _ACCURACIES or class_name(name) not in _OF_SIGNS):
                raise InputError(
                    f"training.metrics: {name!r} takes labels 0 and 1, but the data's are -1 and"
                    f" 1; label the classes 0 and 1, which the loss {loss.name} takes as well, or"
                    " use only metrics such as hinge"
                )


def _fitted(
    name: str, given: Mapping[str, Any], loss: OutputLoss, where: str
) -> tuple[str, Mapping[str, Any]]:
    """The name and the arguments with which a metric is right on such outputs."""
    is_several = loss.num_outputs != 1
    is_exclusive = is_several and loss.family != "binary"
    if name in _ACCURACIES:  # if there are several outputs, Keras asks only for the largest
        return (name, given) if is_several else ("binary_accuracy", {"threshold": 0.0})
    kind = class_name(name)
    takes_largest = given.get("top_k") is not None or (
        kind in ("F1Score", "FBetaScore") and is_several and given.get("threshold") is None
    )
    if kind in (*_OF_LARGEST, *_OF_SIGNS) or takes_largest:
        return name, given
    if kind == "BinaryAccuracy" and not is_exclusive:
        return name, {"threshold": 0.0, **given}
    if kind == "AUC" and not is_exclusive:  # the sigmoid keeps the order of outputs, hinge's too
        return name, {**given, "from_logits": True}
    if kind in _CROSSENTROPIES and loss.from_logits:
        return name, {**given, "from_logits": True}
    raise InputError(
        f"{where}: {name!r} takes outputs as probabilities, but those under"
        f" {_shown(loss)}; give the last layer {'a softmax' if is_exclusive else 'a sigmoid'} and a"
        " loss that takes probabilities, or use accuracy" + ("" if is_exclusive else ", or auc")
    )


def _shown(loss: OutputLoss) -> str:
    output = f" of {loss.output}" if loss.output else ""
    what = "logits" if loss.from_logits else "scores, with the border between classes at 0"
    return f"the loss {loss.name}{output} are {what}"


def _metrics_of(model: "keras.Model", output: str, index: int) -> Iterator[Any]:
    """The metrics that a builder gave to `compile` for an output."""
    compiled = model._compile_metrics
    if compiled is None:
        return
    for given in (compiled._user_metrics, compiled._user_weighted_metrics):
        metrics = given
        if isinstance(given, Mapping):
            metrics = given.get(output) if output else next(iter(given.values()), None)
        elif isinstance(given, list | tuple) and any(isinstance(m, list | tuple) for m in given):
            metrics = given[index] if index < len(given) else None
        yield from metrics if isinstance(metrics, list | tuple) else filter(None, [metrics])


def _known_metric(metric: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments, without those at their default; empty for a metric of the user's own."""
    import keras

    if isinstance(metric, keras.metrics.Metric):
        kind = type(metric)
        if kind.__name__ not in METRICS or getattr(keras.metrics, kind.__name__, None) is not kind:
            return "", {}
        parameters = inspect.signature(kind).parameters
        given = {
            key: value
            for key, value in metric.get_config().items()
            if key in parameters and key not in ("name", "dtype")
            if value != parameters[key].default
        }
        return kind.__name__, given
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "")
    is_keras = isinstance(metric, str) or getattr(keras.metrics, name, None) is metric
    return (name, {}) if is_keras and name in METRICS else ("", {})
