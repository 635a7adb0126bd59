"""Keras's metrics on outputs that are logits: which are right, with which arguments.

Most metrics take a model's outputs for probabilities, whatever its loss was told: they cut them at
0.5. Where an argument makes one right, it is given; every other is refused. The outputs under a
hinge loss are cut at 0 too.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trialrun.compilation import Term, class_name, split_term
from trialrun.errors import InputError
from trialrun.labels import labels_of
from trialrun.modeltask import OutputLoss
from trialrun.vocabulary import METRICS

if TYPE_CHECKING:
    import keras

# Right on any outputs that order the classes: they take the largest, or are made for such.
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
    """Whether 0, and not 0.5, is the border between two classes of an output."""
    return loss.from_logits or loss.family == "hinge"


def fit_metric(metric: Term, loss: OutputLoss) -> Term:
    """A metric of a job with the arguments that make it right on an output.

    >>> fit_metric("auc", OutputLoss("bce", "binary", (1,), from_logits=True))
    {'name': 'auc', 'from_logits': True}

    Raises:
        InputError: No argument does.
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


def check_metrics(model: "keras.Model", losses: Sequence[OutputLoss]) -> None:
    """Nothing, if what a builder compiled measures is right on logits.

    Raises:
        InputError: Which metric is not, and what to do.
    """
    for place, loss in enumerate(losses):
        if not cuts_at_zero(loss):
            continue
        for metric in _metrics_of(model, loss.output, place):
            name, given = _known_metric(metric)
            if not name:
                continue
            fitted_name, arguments = _fitted(name, given, loss, "model.builder")
            if (fitted_name, arguments) != (name, given):
                shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
                raise InputError(
                    f"model.builder: {name!r} takes outputs for probabilities, but those under"
                    f" {_shown(loss)}; compile with"
                    f" keras.metrics.{class_name(fitted_name)}({shown})"
                )


def check_signed_labels(
    model: "keras.Model", losses: Sequence[OutputLoss], parts: Mapping[str, Any]
) -> None:
    """Nothing, if labels -1 and 1 meet no metric of Keras's that only knows 0 and 1.

    Raises:
        InputError: Which metric, and what to do.
    """
    for place, loss in enumerate(losses):
        labels = [labels_of(y, loss.output, place) for y in parts.values()]
        is_signed = any(one is not None and (one == -1).any() for one in labels)
        if loss.family != "hinge" or not is_signed:
            continue
        for metric in _metrics_of(model, loss.output, place):
            name, _ = _known_metric(metric)
            if name and (name in _ACCURACIES or class_name(name) not in _OF_SIGNS):
                raise InputError(
                    f"training.metrics: {name!r} takes labels 0 and 1, but the data's are -1 and"
                    f" 1; label the classes 0 and 1, which the loss {loss.name} takes for the"
                    " same, or measure hinge alone"
                )


def _fitted(
    name: str, given: Mapping[str, Any], loss: OutputLoss, where: str
) -> tuple[str, Mapping[str, Any]]:
    """The name and the arguments of a metric that is right on such outputs."""
    is_several = loss.num_outputs != 1
    is_exclusive = is_several and loss.family != "binary"
    if name in _ACCURACIES:  # of several outputs, Keras takes the largest
        return (name, given) if is_several else ("binary_accuracy", {"threshold": 0.0})
    kind = class_name(name)
    takes_largest = given.get("top_k") is not None or (
        kind in ("F1Score", "FBetaScore") and is_several and given.get("threshold") is None
    )
    if kind in (*_OF_LARGEST, *_OF_SIGNS) or takes_largest:
        return name, given
    if kind == "BinaryAccuracy" and not is_exclusive:
        return name, {"threshold": 0.0, **given}
    if kind == "AUC" and not is_exclusive:  # a sigmoid keeps the order of a hinge's outputs too
        return name, {**given, "from_logits": True}
    if kind in _CROSSENTROPIES and loss.from_logits:
        return name, {**given, "from_logits": True}
    raise InputError(
        f"{where}: {name!r} takes outputs for probabilities, but those under"
        f" {_shown(loss)}; give the last layer {'a softmax' if is_exclusive else 'a sigmoid'} and a"
        " loss that takes probabilities, or use accuracy" + ("" if is_exclusive else ", or auc")
    )


def _shown(loss: OutputLoss) -> str:
    of_output = f" of {loss.output}" if loss.output else ""
    what = "logits" if loss.from_logits else "scores with 0 between the classes"
    return f"the loss {loss.name}{of_output} are {what}"


def _metrics_of(model: "keras.Model", output: str, place: int) -> Iterator[Any]:
    """The metrics of an output that a builder gave to `compile`."""
    compiled = model._compile_metrics
    if compiled is None:
        return
    for given in (compiled._user_metrics, compiled._user_weighted_metrics):
        of_output = given
        if isinstance(given, Mapping):
            of_output = given.get(output) if output else next(iter(given.values()), None)
        elif isinstance(given, list | tuple) and any(isinstance(m, list | tuple) for m in given):
            of_output = given[place] if place < len(given) else None
        yield from of_output if isinstance(of_output, list | tuple) else filter(None, [of_output])


def _known_metric(metric: Any) -> tuple[str, Mapping[str, Any]]:
    """Name and arguments, but for those at their default; no name for a metric of the user's."""
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
