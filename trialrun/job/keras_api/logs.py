"""What Keras will call what a job logs, and which way each of it is better."""

import functools
import re
from collections.abc import Iterator

from trialrun.job.keras_api.names import LARGER_IS_BETTER, METRICS_WITH_ARGUMENTS, SMALLER_IS_BETTER
from trialrun.job.keras_api.own_terms import is_own
from trialrun.job.keras_api.terms import (
    Goal,
    Term,
    Terms,
    loss_per_output,
    metric_log_name,
    split_term,
)


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
