"""Two variants of a run, compared seed by seed: the numbers of `trialrun compare`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.analysis.metric_bounds import Bounds, metric_bounds
from trialrun.analysis.parameters import ABSENT
from trialrun.errors import InputError
from trialrun.job import Goal, searched_paths
from trialrun.messages import suggest
from trialrun.statistics.paired import Comparison, compare
from trialrun.store import RunFolder
from trialrun.store.round_log import schedule_in

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of two variants over the seeds that both completed.

    Attributes:
        name: `val_loss`, `test_accuracy`, ...
        first, second: The variants' means over these seeds; NaN if there are none.
        paired: The first compared with the second, seed by seed.
    """

    name: str
    first: float
    second: float
    paired: Comparison


@dataclass(frozen=True, slots=True)
class VariantComparison:
    """Two variants of a run.

    Attributes:
        job_name: The run's job.
        first, second: The variants' ids.
        parameters: Searched dotted path -> both values, for parameters that differ; `ABSENT` where
            a variant does not have the parameter.
        num_seeds: Number of seeds that both completed.
        metric, goal: What the job selects by.
        num_variants: Number of variants in the run.
        has_rounds: Whether the seeds compared also chose which variants got more of them, so that
            variants.csv has no p-values.
        metrics: The selection metric first, then validation, test, training.
    """

    job_name: str
    first: str
    second: str
    parameters: Mapping[str, tuple[Any, Any]]
    num_seeds: int
    metric: str
    goal: Goal
    num_variants: int
    has_rounds: bool
    metrics: tuple[MetricComparison, ...]


def compare_variants(folder: RunFolder, first: str, second: str) -> VariantComparison:
    """Two variants of a run, finished or not, compared over the seeds that both completed.

    Raises:
        InputError: There is no such variant, both are the same, or one's trials are paused.
    """
    index = folder.choosing_trials()
    for variant_id in (first, second):
        if variant_id not in index.variant_ids:
            hint = suggest(variant_id, index.variant_ids[:20])
            raise InputError(f"{folder.path}: there is no variant {variant_id!r}; {hint}")
    if first == second:
        raise InputError(f"{first} and {second}: give two different variants")
    job = folder.read_job()
    select = job.get("select", {})
    metric = select.get("metric", "val_loss")
    own = [index.parameters[first], index.parameters[second]]
    pairs = {path: [one.get(path, ABSENT) for one in own] for path in searched_paths(own)}
    trials = index.read([first, second], "numbers")
    _refuse_paused(folder, trials)
    both = _both_completed(trials, first, second)
    names = sorted(index.metrics, key=lambda name: (name != metric, _PARTS.index(_part(name))))
    bounds = metric_bounds(names, job)
    return VariantComparison(
        job_name=job["name"],
        first=first,
        second=second,
        parameters={
            path: (ours, theirs) for path, (ours, theirs) in pairs.items() if ours != theirs
        },
        num_seeds=len(both[0]),
        metric=metric,
        goal=select.get("goal", "minimize"),
        num_variants=len(index.variant_ids),
        has_rounds=_has_rounds(folder),
        metrics=tuple(_compare_metric(name, *both, bounds[name]) for name in names),
    )


def _has_rounds(folder: RunFolder) -> bool:
    schedule = schedule_in(folder.rounds.read())
    return schedule is not None and len(schedule.counts) > 1


_PARTS = ("val", "test", "train")


def _part(metric: str) -> str:
    return metric.split("_", 1)[0]


def _refuse_paused(folder: RunFolder, trials: "pd.DataFrame") -> None:
    """Refuses a variant whose trials are paused: what ended early among them says little of it."""
    paused = trials[trials["status"] == "paused"]
    if len(paused):
        variant_id, epochs = paused["variant_id"].iloc[0], paused["epochs"].iloc[0]
        raise InputError(
            f"{folder.path}: the trials of {variant_id} are paused after epoch {epochs}, and only"
            " trials that have ended can be compared; `trialrun show --rounds` tells what decided"
        )


def _both_completed(
    trials: "pd.DataFrame", first: str, second: str
) -> tuple["pd.DataFrame", "pd.DataFrame"]:
    """The rows of both variants for the seeds that both completed, ordered by seed."""
    completed = trials[trials["status"] == "completed"].set_index("seed")
    ours, theirs = (completed[completed["variant_id"] == name] for name in (first, second))
    seeds = ours.index.intersection(theirs.index).sort_values()
    return ours.loc[seeds], theirs.loc[seeds]


def _compare_metric(
    name: str, ours: "pd.DataFrame", theirs: "pd.DataFrame", bounds: Bounds
) -> MetricComparison:
    first, second = (rows[name].to_numpy(np.float64) for rows in (ours, theirs))
    known = ~np.isnan(first) & ~np.isnan(second)
    if not known.any():
        means = (math.nan, math.nan)
    else:
        means = (float(first[known].mean()), float(second[known].mean()))
    paired = compare(first, second, np.random.default_rng(0))
    # No difference is larger than the range of the metric.
    largest = bounds[1] - bounds[0]
    if (np.abs(first[known] - second[known]) <= largest).all() and math.isfinite(paired.low):
        paired = paired._replace(low=max(paired.low, -largest), high=min(paired.high, largest))
    return MetricComparison(name, *means, paired)
