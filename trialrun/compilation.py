"""The fields of `training` for Keras's `compile`: optimizer, schedule, losses, metrics, weights.

Each `check_*` returns a field's value if it is right. Otherwise it raises ValueError with a message
that continues a sentence after the field's name. TensorFlow is never imported. `logs_of` knows the
names that Keras will log, and for each whether small or large values are good.
"""

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from trialrun.arguments import (
    LOSS_ARGUMENTS,
    LOSS_SCALING_ARGUMENTS,
    METRIC_ARGUMENTS,
    OPTIMIZER_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    Argument,
    Arguments,
    check_arguments,
)
from trialrun.document import show
from trialrun.ownterms import check_own, is_own
from trialrun.vocabulary import (
    CHOSEN_BY_SHAPES,
    LARGER_IS_BETTER,
    LOSSES,
    METRICS,
    METRICS_WITH_ARGUMENTS,
    OPTIMIZERS,
    REGRESSION_LOSSES,
    SCHEDULES,
    SMALLER_IS_BETTER,
    suggest,
)

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
_DEFAULT_METRICS: Terms = ("accuracy",)
_REGRESSION_METRICS: Terms = ("mae", "r2_score")


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


# Optimizer and schedule -------------------------------------------------------------------------


def check_optimizer(value: object) -> Term:
    """The optimizer: a name, or a mapping of `name`, its arguments and perhaps `loss_scaling`."""
    if isinstance(value, str):
        if is_own(value):
            check_own(value)
            return value
        return _known("optimizer", OPTIMIZERS, value.lower())
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(
            f"must be a name, or a mapping with a name such as {{name: sgd, momentum: 0.9}},"
            f" got {show(value)}"
        )
    if "learning_rate" in value:
        raise ValueError("holds a learning_rate; give it as training.learning_rate instead")
    if is_own(value["name"]):
        check_own(value["name"])
        if "loss_scaling" in value:
            _check_loss_scaling(value["loss_scaling"])
        return dict(value)
    name = _known("optimizer", OPTIMIZERS, value["name"].lower())
    given = {key: item for key, item in value.items() if key not in ("name", "loss_scaling")}
    known = dict(OPTIMIZER_ARGUMENTS[class_name(name)])
    if "loss_scaling" in value:
        _check_loss_scaling(value["loss_scaling"])
        known.pop("loss_scale_factor")  # Keras would ignore it
    else:
        # Listed so that a hint for a misspelled argument can name it.
        known["loss_scaling"] = Argument("flag", nullable=False, required=False)
    check_arguments(name, given, known)
    clips = [key for key in ("clipnorm", "clipvalue", "global_clipnorm") if given.get(key)]
    if len(clips) > 1:
        raise ValueError(
            f"holds {' and '.join(clips)}; an optimizer clips in only one way, so give one of them"
        )
    return {**value, "name": name}


def _check_loss_scaling(value: object) -> None:
    if value is True:
        return
    if not isinstance(value, Mapping):
        known = ", ".join(LOSS_SCALING_ARGUMENTS)
        raise ValueError(f"loss_scaling must be true or a mapping of {known}, got {show(value)}")
    check_arguments("loss_scaling", value, LOSS_SCALING_ARGUMENTS)


def check_schedule(value: object) -> Term | None:
    """The schedule: a mapping of its `name` and arguments; None for a constant learning rate."""
    if value is None:
        return None
    if isinstance(value, str) and is_own(value):
        check_own(value)
        return value
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError(
            "must be a mapping with a name such as {name: cosine_decay, decay_steps: 1000},"
            f" got {show(value)}"
        )
    given = {key: item for key, item in value.items() if key != "name"}
    if "initial_learning_rate" in given:
        raise ValueError(
            "holds an initial_learning_rate; give it as training.learning_rate instead"
        )
    if is_own(value["name"]):
        check_own(value["name"])
        return dict(value)
    name = _known("schedule", SCHEDULES, value["name"])
    known = SCHEDULE_ARGUMENTS[class_name(name)]
    check_arguments(name, given, _with_epochs(known, given))
    if "values" in known and len(given["values"]) != 1 + len(_boundaries(given)):
        raise ValueError(
            f"{name} needs one value more than boundaries, got {len(given['values'])} values and"
            f" {len(_boundaries(given))} boundaries"
        )
    return dict(value)


def _with_epochs(known: Arguments, given: Mapping[str, Any]) -> Arguments:
    """The arguments of a schedule, in epochs where the job gives epochs instead of steps."""
    replaced: dict[str, Argument] = {}
    optional: dict[str, Argument] = {}
    for name, argument in known.items():
        in_epochs = in_epochs_name(name)
        if in_epochs in given and name in given:
            raise ValueError(f"holds both {name} and {in_epochs}; give one of them")
        if in_epochs in given:
            kind = "rising" if name == "boundaries" else "nonnegative"
            kind = "positive" if argument.kind == "count" else kind
            replaced[in_epochs] = Argument(kind, argument.nullable, argument.required)
            continue
        replaced[name] = argument
        if in_epochs:
            optional[in_epochs] = Argument(argument.kind, argument.nullable, required=False)
    return replaced | optional


def in_epochs_name(name: str) -> str:
    """The name of a schedule's argument in steps when it is given in epochs; empty for others.

    >>> in_epochs_name("decay_steps"), in_epochs_name("boundaries"), in_epochs_name("alpha")
    ('decay_epochs', 'boundary_epochs', '')
    """
    if name == "boundaries":
        return "boundary_epochs"
    return f"{name.removesuffix('steps')}epochs" if name.endswith("_steps") else ""


def _boundaries(given: Mapping[str, Any]) -> Sequence[float]:
    boundaries: Sequence[float] = given.get("boundaries") or given["boundary_epochs"]
    return boundaries


def ignores_learning_rate(schedule: Term | None) -> bool:
    """Whether training.learning_rate has no effect under a schedule."""
    return schedule is not None and split_term(schedule)[0] == "piecewise_constant_decay"


# Losses and metrics -----------------------------------------------------------------------------


def check_loss(value: object) -> Term | dict[str, Term]:
    """The loss, or output -> loss for several outputs."""
    if isinstance(value, Mapping) and value and "name" not in value:
        return {_output(name): _check_one_loss(loss, name) for name, loss in value.items()}
    return _check_one_loss(value)


def _check_one_loss(value: object, output: str = "") -> Term:
    where = f"of {output}: " if output else ""
    if not isinstance(value, str | Mapping):
        raise ValueError(f"{where}must be a name or a mapping, got {show(value)}")
    return _check_term(value, "loss", LOSSES, LOSS_ARGUMENTS, where)


def loss_per_output(loss: Term | dict[str, Term]) -> dict[str, Term]:
    """Output -> its loss; the key is empty if the job has a single loss."""
    if isinstance(loss, dict) and "name" not in loss:
        return loss
    return {"": loss}


def is_regression(loss: Term | dict[str, Term]) -> bool:
    """Whether all losses are for regression."""
    return all(split_term(term)[0] in REGRESSION_LOSSES for term in loss_per_output(loss).values())


def check_metrics(value: object) -> Terms | dict[str, Terms]:
    """The list of metrics, or output -> list for several outputs."""
    if isinstance(value, Mapping):
        return {_output(name): _check_metric_list(terms, name) for name, terms in value.items()}
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
        return _check_term(value, "metric", METRICS, METRIC_ARGUMENTS, where)
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
    checked = _check_term(bare, "metric", METRICS, METRIC_ARGUMENTS, where)
    if split_term(checked)[0] in CHOSEN_BY_SHAPES and "as" in value:
        raise ValueError(f"{where}{value['name']} is always logged under its own name")
    return dict(value)


def metric_log_name(metric: Term) -> str:
    """The metric's name in Keras's logs: `as` if given, else the name that the job writes.

    >>> metric_log_name("mae"), metric_log_name("mine.py:macro_recall")
    ('mae', 'macro_recall')
    """
    name, arguments = split_term(metric)
    return str(arguments.get("as", check_own(name) if is_own(name) else name))


def default_metrics(loss: Term | dict[str, Term]) -> Terms | dict[str, Terms]:
    """The metrics of a job that names none; empty if the loss is the user's own."""
    per_output = {output: _default_metrics(term) for output, term in loss_per_output(loss).items()}
    return per_output.get("", per_output)


def _default_metrics(loss: Term) -> Terms:
    if is_own(split_term(loss)[0]):
        return ()
    return _REGRESSION_METRICS if is_regression(loss) else _DEFAULT_METRICS


def _check_term(
    value: str | Mapping[str, Any],
    kind: str,
    names: tuple[str, ...],
    table: Mapping[str, Arguments],
    where: str,
) -> Term:
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
    _known(kind, names, name, where)
    given = {} if isinstance(value, str) else {k: v for k, v in value.items() if k != "name"}
    try:
        if name in CHOSEN_BY_SHAPES:
            check_arguments(name, given, {})
        elif given or name in METRICS_WITH_ARGUMENTS:
            check_arguments(name, given, table[class_name(name)])
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    return value if isinstance(value, str) else dict(value)


def _known(kind: str, known: tuple[str, ...], value: str, where: str = "") -> str:
    if value not in known:
        raise ValueError(f"{where}must be a Keras {kind}, got {value!r}; {suggest(value, known)}")
    return value


def _output(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise ValueError(f"must have names of outputs as keys, got {show(name)}")
    return name


# Weights ----------------------------------------------------------------------------------------


def check_loss_weights(value: object) -> dict[str, float] | None:
    """Output -> the factor of its loss in the sum; None if each is 1."""
    if value is None:
        return None
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"must be a mapping of outputs and numbers, got {show(value)}")
    for output, weight in value.items():
        check_arguments("the outputs", {_output(output): weight}, {output: _WEIGHT})
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


# Logs -------------------------------------------------------------------------------------------


def logs_of(
    loss: Term | dict[str, Term],
    metrics: Terms | dict[str, Terms],
    weighted_metrics: Terms | dict[str, Terms],
) -> dict[str, Goal | None]:
    """Names that Keras logs for an epoch of training -> the direction in which each is better.

    The direction is None for a metric of the user's own; `probable_goal` may guess it. With several
    outputs the names are `<output>_loss` and `<output>_<metric>`. A weighted metric that is also
    among the metrics is called `weighted_<metric>`.
    """
    logs: dict[str, Goal | None] = {"loss": "minimize"}
    outputs = list(loss_per_output(loss))
    if len(outputs) > 1:
        logs |= {f"{output}_loss": "minimize" for output in outputs}
    only = outputs[0] if len(outputs) == 1 else ""
    for prefix, metric in _named(metrics, only):
        logs[f"{prefix}{metric_log_name(metric)}"] = _metric_goal(metric)
    for prefix, metric in _named(weighted_metrics, only):
        name = f"{prefix}{metric_log_name(metric)}"
        if name in logs:
            name = f"{prefix}weighted_{metric_log_name(metric)}"
        logs[name] = _metric_goal(metric)
    return logs


def _named(metrics: Terms | dict[str, Terms], only_output: str) -> Iterator[tuple[str, Term]]:
    """Each metric with the prefix of its name in the logs."""
    per_output = metrics if isinstance(metrics, dict) else {"": metrics}
    for output, terms in per_output.items():
        prefix = "" if output == only_output else f"{output}_"
        yield from ((prefix, metric) for metric in terms)


def _metric_goal(metric: Term) -> Goal | None:
    name, _ = split_term(metric)
    if is_own(name):
        return None
    return "minimize" if name in SMALLER_IS_BETTER else "maximize"


def natural_goal(metric: str) -> Goal | None:
    """The direction in which a validation metric is better; None if its name does not tell.

    A number at the end is ignored: Keras calls the second metric of one class `auc_1`.

    >>> natural_goal("val_loss"), natural_goal("val_auc_1"), natural_goal("val_mine")
    ('minimize', 'maximize', None)
    """
    return _goals_by_name().get(_bare(metric))


def probable_goal(metric: str) -> Goal | None:
    """The direction that the end of a name suggests, e.g. of `cls_accuracy`; None if it does not.

    >>> probable_goal("val_macro_recall"), probable_goal("val_g_loss"), probable_goal("val_mine")
    ('maximize', 'minimize', None)
    """
    bare, goals = _bare(metric), _goals_by_name()
    ends = [name for name in goals if bare == name or bare.endswith(f"_{name}")]
    return goals[max(ends, key=len)] if ends else None


def _bare(metric: str) -> str:
    return re.sub(r"_\d+$", "", metric.removeprefix("val_").removeprefix("weighted_"))


@functools.cache
def _goals_by_name() -> dict[str, Goal]:
    larger: dict[str, Goal] = dict.fromkeys(
        (*LARGER_IS_BETTER, *METRICS_WITH_ARGUMENTS), "maximize"
    )
    return larger | dict.fromkeys((*SMALLER_IS_BETTER, "loss"), "minimize")
