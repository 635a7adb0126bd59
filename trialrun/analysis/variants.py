"""From trials to variants: statistics over seeds, the leaderboard, and tables for the run folder.

The selection itself is made in `trialrun.analysis.selection`, which sees validation numbers only;
here its choice is put beside the test numbers, for people to read.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.analysis.certainty import Certainty, compare_with_best
from trialrun.analysis.metric_bounds import UNBOUNDED, Bounds
from trialrun.analysis.rounds import RoundsSummary
from trialrun.analysis.selection import (
    DECISION_DIGITS,
    Selection,
    ValidationScores,
    rank,
    seeds_interval,
    select_best,
)
from trialrun.analysis.trial_grid import TrialGrid
from trialrun.job import Goal, Statistic
from trialrun.statistics.intervals import within_bounds
from trialrun.statistics.matrices import matrix_scores, pool_confusion_matrices
from trialrun.statistics.spread import Counts, describe
from trialrun.store.columns import CONFUSION_MATRIX_COLUMNS, metric_names
from trialrun.store.costs import Cost

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MetricSummary:
    """One metric of one variant over its completed seeds.

    Attributes:
        mean, sd, min, max, n, median, iqm: See `statistics.spread.Spread`.
        low, high: The 95% interval of the mean; infinite where there are too few seeds for one.
    """

    mean: float
    sd: float
    min: float
    max: float
    n: int
    median: float
    iqm: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class VariantSummary:
    """The results of one variant over its seeds.

    Attributes:
        variant_id: The variant.
        parameters: Searched dotted path -> value.
        num_completed, num_diverged, num_failed: How many of its trials have each status.
        metrics: `train_loss`, ..., `val_loss`, ..., `test_loss`, ... over the completed seeds.
        val_confusion_matrix: (classes, classes) sum over completed seeds; None if there is none.
        test_confusion_matrix: The same on the test set.
        rank: 1 for the best; 0 before variants are ranked.
        cost: What it has cost; None if that is not known.
    """

    variant_id: str
    parameters: Mapping[str, Any]
    num_completed: int
    num_diverged: int
    num_failed: int
    metrics: Mapping[str, MetricSummary]
    val_confusion_matrix: Counts | None
    test_confusion_matrix: Counts | None
    rank: int = 0
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class Leaderboard:
    """All variants, the best first, and what was selected.

    Attributes:
        metric, goal: What ranks the variants.
        variants: The best first.
        selection: None if no completed trial has a value of the metric.
        certainty: Which variants may have the best mean; None without a selection, and if variants
            were dropped in rounds: the seeds that dropped the others say nothing more.
        rounds: The rounds in which the other variants were dropped, and what fresh seeds say; None
            if there are none.
    """

    metric: str
    goal: Goal
    variants: tuple[VariantSummary, ...]
    selection: Selection | None
    certainty: Certainty | None
    rounds: RoundsSummary | None = None


def rank_summaries(
    summaries: Sequence[VariantSummary],
    scores: ValidationScores,
    goal: Goal,
    statistic: Statistic = "mean",
    bounds: Bounds = UNBOUNDED,
    rounds: RoundsSummary | None = None,
) -> Leaderboard:
    """The variants ranked by their scores, and what was selected.

    Args:
        summaries: From `summarize`.
        scores: From `validation_scores`, of the same variants.
        goal: Whether a small or a large metric is good.
        statistic: How the seeds of a variant become one number.
        bounds: The lowest and the highest value that the metric can have.
        rounds: The rounds that left these variants; None if there are none.
    """
    digits = None if rounds is None else DECISION_DIGITS
    by_id = {summary.variant_id: summary for summary in summaries}
    order = rank(scores, goal, statistic, digits)
    selection = select_best(scores, goal, statistic, bounds, digits)
    return Leaderboard(
        metric=scores.metric,
        goal=goal,
        variants=tuple(
            replace(by_id[scores.variant_ids[index]], rank=position)
            for position, index in enumerate(order, start=1)
        ),
        selection=selection,
        certainty=None
        if selection is None or (rounds is not None and rounds.has_rounds)
        else compare_with_best(scores, order, goal),
        rounds=rounds,
    )


def summarize(
    trials: "pd.DataFrame",
    parameters: Mapping[str, Mapping[str, Any]],
    pooled: "PooledMatrices | None" = None,
    seeds: npt.NDArray[np.int64] | None = None,
    bounds: Mapping[str, Bounds] | None = None,
) -> tuple[VariantSummary, ...]:
    """One summary per variant, in the order of the search.

    Args:
        trials: As in `trials/*.parquet`.
        parameters: variant_id -> searched dotted path -> value.
        pooled: From `pool_matrices`.
        seeds: All seeds of the trials, perhaps more, ascending; absent: those of the trials.
        bounds: Metric -> its lowest and highest possible value; a metric that is absent has none.
    """
    val_pooled, test_pooled = ((pooled or {}).get(name, {}) for name in CONFUSION_MATRIX_COLUMNS)
    grid = TrialGrid.of(trials, seeds)
    completed = grid.statuses == "completed"
    names = metric_names(list(trials.columns))
    values = np.full((len(grid.variant_ids), len(names), len(grid.seeds)), np.nan)
    measured = trials.loc[completed, names].to_numpy(np.float64)
    values[grid.rows[completed], :, grid.columns[completed]] = measured
    ends = [(bounds or {}).get(name, UNBOUNDED) for name in names]
    low, high = np.reshape(ends, (-1, 2)).T
    intervals = within_bounds(seeds_interval(values), values, low, high)
    columns = [numbers.tolist() for numbers in (*describe(values), *intervals)]
    counts = [grid.count(status).tolist() for status in ("completed", "diverged", "failed")]
    return tuple(
        VariantSummary(
            variant_id=variant_id,
            parameters=parameters[variant_id],
            num_completed=counts[0][row],
            num_diverged=counts[1][row],
            num_failed=counts[2][row],
            metrics={
                name: MetricSummary(*(column[row][index] for column in columns))
                for index, name in enumerate(names)
            },
            val_confusion_matrix=val_pooled.get(variant_id),
            test_confusion_matrix=test_pooled.get(variant_id),
        )
        for row, variant_id in enumerate(grid.variant_ids)
    )


# For each metric variants.csv has a column `<metric>_<statistic>` for each of these.
STATISTICS = ("mean", "sd", "low", "high", "median", "iqm", "min", "max")

# Name of a column of confusion matrices -> variant_id -> sum over its completed seeds, (classes,
# classes).
PooledMatrices = Mapping[str, Mapping[str, Counts]]


def pool_matrices(parts: Iterable["pd.DataFrame"]) -> PooledMatrices:
    """The confusion matrices of every variant summed over its completed seeds.

    Args:
        parts: Tables of trials with their matrices; together they hold all trials.

    Returns:
        Variants without any matrix are left out.
    """
    pooled: dict[str, dict[str, Counts]] = {name: {} for name in CONFUSION_MATRIX_COLUMNS}
    for some_trials in parts:
        for name, totals in pooled.items():
            for variant_id, matrices in _completed_matrices(some_trials, name):
                total = pool_confusion_matrices([_square(flat) for flat in matrices])
                totals[variant_id] = totals.get(variant_id, 0) + total
    return pooled


def _completed_matrices(
    trials: "pd.DataFrame", column: str
) -> Iterator[tuple[str, "pd.Series[Any]"]]:
    """Pairs: a variant_id, and seed -> flat confusion matrix of its completed trials."""
    if column in trials.columns:
        completed = trials[(trials["status"] == "completed") & trials[column].notna()]
        for variant_id, matrices in completed.set_index("seed").groupby("variant_id")[column]:
            yield str(variant_id), matrices


def _square(flat: npt.ArrayLike) -> Counts:
    """A confusion matrix, stored flat, as (classes, classes)."""
    flat = np.asarray(flat, np.int64)
    num_classes = round(len(flat) ** 0.5)
    return flat.reshape(num_classes, num_classes)


def variant_rows(leaderboard: Leaderboard) -> list[dict[str, Any]]:
    """The rows of variants.csv, the best first.

    Returns:
        Dictionaries with keys in this order: rank, variant_id, `param.<path>`, n, diverged, failed,
        p_value, the fields of `Cost`, then `<metric>_mean` and so on for each of `STATISTICS`. The
        selection metric comes first, then the other validation metrics, test, training. p_value is
        the smallest level at which the variant leaves the set that holds the best mean (see
        `certainty.Certainty`); the variant with the best mean has none. A parameter that a variant
        does not have is absent, and so is a cost that is not known.
    """
    names = ordered_metrics(leaderboard)
    p_values = leaderboard.certainty.p_values if leaderboard.certainty else {}
    return [
        {
            "rank": variant.rank,
            "variant_id": variant.variant_id,
            **{f"param.{path}": value for path, value in variant.parameters.items()},
            "n": variant.num_completed,
            "diverged": variant.num_diverged,
            "failed": variant.num_failed,
            "p_value": p_values.get(variant.variant_id),
            **({} if variant.cost is None else variant.cost._asdict()),
            **{
                f"{name}_{statistic}": getattr(variant.metrics[name], statistic)
                for name in names
                for statistic in STATISTICS
            },
        }
        for variant in leaderboard.variants
    ]


def ordered_metrics(leaderboard: Leaderboard) -> list[str]:
    """The metrics in the order shown: the selection metric, other validation, test, training."""
    names = list(leaderboard.variants[0].metrics) if leaderboard.variants else []
    order = ("val_", "test_", "train_")
    return sorted(
        names,
        key=lambda name: (name != leaderboard.metric, order.index(name.split("_")[0] + "_")),
    )


def confusion_matrices(trials: "pd.DataFrame") -> dict[str, Any]:
    """The content of confusion_matrices.json for some variants: pooled over seeds and per seed.

    Args:
        trials: All trials of these variants, with their matrices.

    Returns:
        `{variant_id: {"validation": {"pooled", "scores", "per_seed": {seed: matrix}}, "test": {}}}`
        of completed trials, with the `MatrixScores` of the pooled matrix. Empty unless the trials
        are of a classifier.
    """
    variants: dict[str, dict[str, Any]] = {}
    for name, part in zip(CONFUSION_MATRIX_COLUMNS, ("validation", "test"), strict=True):
        for variant_id, matrices in _completed_matrices(trials, name):
            per_seed = {str(seed): _square(flat) for seed, flat in matrices.items()}
            pooled = pool_confusion_matrices(list(per_seed.values()))
            variants.setdefault(variant_id, {})[part] = {
                "pooled": pooled,
                "scores": matrix_scores(pooled)._asdict(),
                "per_seed": per_seed,
            }
    return variants


def count_trials(trials: "pd.DataFrame") -> dict[str, int]:
    """How many trials there are, and how many of each status; `paused` only if some are."""
    statuses = trials["status"].value_counts()
    names = ["completed", "diverged", "failed", *(["paused"] if "paused" in statuses else [])]
    return {"trials": len(trials), **{name: int(statuses.get(name, 0)) for name in names}}
