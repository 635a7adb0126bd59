"""Terms of `training`: a Keras name alone, or a name with arguments, for each output or for all."""

from collections.abc import Mapping
from typing import Any, Literal

from trialrun.job.keras_api.arguments import (
    LOSS_ARGUMENTS,
    METRIC_ARGUMENTS,
    OPTIMIZER_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    Arguments,
    check_arguments,
)
from trialrun.job.keras_api.names import CHOSEN_BY_SHAPES, METRICS_WITH_ARGUMENTS, REGRESSION_LOSSES
from trialrun.job.keras_api.own_terms import check_own, is_own
from trialrun.messages import show, suggest

Goal = Literal["minimize", "maximize"]
Statistic = Literal["mean", "median", "iqm", "confidence_bound"]
# A Keras name, a reference to an object of the user's, or a mapping of `name` and arguments.
Term = str | dict[str, Any]
Terms = tuple[Term, ...]

# Names that are not their class's name in another spelling.
_SHORT_NAMES = {
    "bce": "BinaryCrossentropy",
    "mae": "MeanAbsoluteError",
    "mape": "MeanAbsolutePercentageError",
    "mse": "MeanSquaredError",
    "msle": "MeanSquaredLogarithmicError",
    "kld": "KLDivergence",
}
_CLASS_NAMES = {
    name.lower(): name
    for table in (OPTIMIZER_ARGUMENTS, SCHEDULE_ARGUMENTS, LOSS_ARGUMENTS, METRIC_ARGUMENTS)
    for name in table
} | _SHORT_NAMES


def class_name(name: str) -> str:
    """The Keras class with this name.

    >>> class_name("mse"), class_name("log_cosh"), class_name("AUC")
    ('MeanSquaredError', 'LogCosh', 'AUC')
    """
    return _CLASS_NAMES[name.replace("_", "").lower()]


def split_term(term: Term) -> tuple[str, dict[str, Any]]:
    """The name and the arguments of a term."""
    if isinstance(term, str):
        return term, {}
    return term["name"], {key: value for key, value in term.items() if key != "name"}


def known_arguments(field: str) -> list[str]:
    """All arguments that some class of a field takes, for hints."""
    tables: dict[str, Mapping[str, Arguments]] = {
        "optimizer": OPTIMIZER_ARGUMENTS,
        "learning_rate_schedule": SCHEDULE_ARGUMENTS,
        "loss": LOSS_ARGUMENTS,
    }
    return sorted({name for known in tables[field].values() for name in known})


def loss_per_output(loss: Term | dict[str, Term]) -> dict[str, Term]:
    """Output -> its loss; the key is empty if the job has a single loss."""
    if isinstance(loss, dict) and "name" not in loss:
        return loss
    return {"": loss}


def is_regression(loss: Term | dict[str, Term]) -> bool:
    """Whether all losses are for regression."""
    return all(split_term(term)[0] in REGRESSION_LOSSES for term in loss_per_output(loss).values())


def metric_log_name(metric: Term) -> str:
    """The metric's name in Keras's logs: `as` if given, else the name that the job writes.

    >>> metric_log_name("mae"), metric_log_name("mine.py:macro_recall")
    ('mae', 'macro_recall')
    """
    name, arguments = split_term(metric)
    return str(arguments.get("as", check_own(name) if is_own(name) else name))


def check_term(
    value: str | Mapping[str, Any],
    kind: str,
    names: tuple[str, ...],
    table: Mapping[str, Arguments],
    where: str,
) -> Term:
    """A term of a field, right in its name and in its arguments."""
    name = value if isinstance(value, str) else value.get("name")
    if not isinstance(name, str):
        raise ValueError(f"{where}must have a name, got {show(value)}")
    if is_own(name):
        if kind == "metric" and check_own(name) == "loss" and "as" not in value:
            raise ValueError(
                f"{where}{name} would be logged as 'loss'; give it another name with `as`"
            )
        check_own(name)
        return value if isinstance(value, str) else dict(value)
    known_name(kind, names, name, where)
    given = {} if isinstance(value, str) else {k: v for k, v in value.items() if k != "name"}
    try:
        if name in CHOSEN_BY_SHAPES:
            check_arguments(name, given, {})
        elif given or name in METRICS_WITH_ARGUMENTS:
            check_arguments(name, given, table[class_name(name)])
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    return value if isinstance(value, str) else dict(value)


def known_name(kind: str, known: tuple[str, ...], value: str, where: str = "") -> str:
    """The name, if Keras knows it as a `kind`."""
    if value not in known:
        raise ValueError(f"{where}must be a Keras {kind}, got {value!r}; {suggest(value, known)}")
    return value


def check_output_name(name: object) -> str:
    """The name of an output, which is a key."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"must have names of outputs as keys, got {show(name)}")
    return name
