"""Checks of the losses, metrics and weights that a job gives to Keras's `compile`.

Each `check_*` gives a field's value back when it is right, and raises ValueError when it is not,
with a message that reads on from the field's name. TensorFlow is imported for none of it.
"""

from collections.abc import Mapping
from typing import Literal

from trialrun.job.keras_api.arguments import (
    LOSS_ARGUMENTS,
    METRIC_ARGUMENTS,
    Argument,
    check_arguments,
)
from trialrun.job.keras_api.names import CHOSEN_BY_SHAPES, LOSSES, METRICS
from trialrun.job.keras_api.own_terms import is_own
from trialrun.job.keras_api.terms import (
    Term,
    Terms,
    check_output_name,
    check_term,
    is_regression,
    loss_per_output,
    metric_log_name,
    split_term,
)
from trialrun.messages import show, suggest

_DEFAULT_METRICS: Terms = ("accuracy",)
_REGRESSION_METRICS: Terms = ("mae", "r2_score")


def check_loss(value: object) -> Term | dict[str, Term]:
    """The loss, or output -> loss for several outputs."""
    if isinstance(value, Mapping) and value and "name" not in value:
        return {
            check_output_name(name): _check_one_loss(loss, name) for name, loss in value.items()
        }
    return _check_one_loss(value)


def _check_one_loss(value: object, output: str = "") -> Term:
    where = f"of {output}: " if output else ""
    if not isinstance(value, str | Mapping):
        raise ValueError(f"{where}must be a name or a mapping, got {show(value)}")
    return check_term(value, "loss", LOSSES, LOSS_ARGUMENTS, where)


def check_metrics(value: object) -> Terms | dict[str, Terms]:
    """The list of metrics, or output -> list for several outputs."""
    if isinstance(value, Mapping):
        return {
            check_output_name(name): _check_metric_list(terms, name)
            for name, terms in value.items()
        }
    return _check_metric_list(value)


def _check_metric_list(value: object, output: str = "") -> Terms:
    where = f"of {output}: " if output else ""
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where}must be a list, got {show(value)}")
    metrics = tuple(_check_metric(metric, where) for metric in value)
    names = [metric_log_name(metric) for metric in metrics]
    if len(set(names)) < len(names):
        raise ValueError(f"{where}must be distinct, got {names}")
    return metrics


def _check_metric(value: object, where: str) -> Term:
    if not isinstance(value, str | Mapping):
        raise ValueError(f"{where}must hold names and mappings, got {show(value)}")
    if isinstance(value, str):
        return check_term(value, "metric", METRICS, METRIC_ARGUMENTS, where)
    log_name = value.get("as", "log")
    if not (isinstance(log_name, str) and log_name.isascii() and log_name.isidentifier()):
        raise ValueError(
            f"{where}as: must be a name of letters, digits and '_' for the logs, got"
            f" {show(log_name)}"
        )
    if log_name in METRICS or log_name == "loss":
        raise ValueError(
            f"{where}as: {log_name!r} is the name of a Keras metric or of the loss; give another"
            " name"
        )
    bare = {key: item for key, item in value.items() if key != "as"}
    checked = check_term(bare, "metric", METRICS, METRIC_ARGUMENTS, where)
    if split_term(checked)[0] in CHOSEN_BY_SHAPES and "as" in value:
        raise ValueError(f"{where}{value['name']} is always logged under its own name")
    return dict(value)


def default_metrics(loss: Term | dict[str, Term]) -> Terms | dict[str, Terms]:
    """The metrics of a job that names none; empty if the loss is the user's own."""
    per_output = {output: _default_metrics(term) for output, term in loss_per_output(loss).items()}
    return per_output.get("", per_output)


def _default_metrics(loss: Term) -> Terms:
    if is_own(split_term(loss)[0]):
        return ()
    return _REGRESSION_METRICS if is_regression(loss) else _DEFAULT_METRICS


def check_loss_weights(value: object) -> dict[str, float] | None:
    """Output -> the factor of its loss in the sum; None if each is 1."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"must be a mapping of outputs and numbers, got {show(value)}")
    for output, weight in value.items():
        check_arguments("the outputs", {check_output_name(output): weight}, {output: _WEIGHT})
    return {output: float(weight) for output, weight in value.items()}


def check_class_weight(value: object) -> Literal["balanced"] | dict[str, float] | None:
    """Class -> the weight of its training rows; `balanced`; or None if each is 1."""
    if value is None or value == "balanced":
        return value
    if isinstance(value, list | tuple):
        value = {str(number): weight for number, weight in enumerate(value)}
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            "must be 'balanced', a list with a weight per class, or a mapping of classes and"
            f" weights, got {show(value)}"
        )
    for name, weight in value.items():
        check_arguments("the classes", {str(name): weight}, {str(name): _WEIGHT})
    return {str(name): float(weight) for name, weight in value.items()}


_WEIGHT = Argument("nonnegative", nullable=False, required=False)


def check_outputs(
    loss: Term | dict[str, Term],
    metrics: Terms | dict[str, Terms],
    loss_weights: Mapping[str, float] | None,
) -> None:
    """Raises ValueError unless metrics and loss weights name the outputs that have a loss."""
    outputs = [output for output in loss_per_output(loss) if output]
    if len(outputs) > 1 and metrics and not isinstance(metrics, dict):
        raise ValueError(
            f"must be a mapping with a list for each of the outputs {', '.join(outputs)}"
        )
    if loss_weights is not None and len(outputs) < 2:
        raise ValueError("needs a loss per output: training.loss: {<output>: <loss>, ...}")
    for output in (*(metrics if isinstance(metrics, dict) else ()), *(loss_weights or ())):
        if outputs and output not in outputs:
            raise ValueError(f"has an output {output!r} without a loss; {suggest(output, outputs)}")
    missing = [output for output in outputs if loss_weights and output not in loss_weights]
    if missing:
        raise ValueError(f"must also have a weight for output {missing[0]!r}")
