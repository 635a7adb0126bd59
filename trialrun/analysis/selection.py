"""The selection of the best variant and its best trial, by validation numbers only.

All functions that rank and select take `ValidationScores`, a type that can hold only validation
numbers, so that no test number can influence a decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trialrun.analysis.trial_grid import TrialGrid
from trialrun.errors import InputError
from trialrun.job import Goal, Statistic
from trialrun.statistics.intervals import Interval, mean_interval, within_bounds
from trialrun.statistics.spread import Counts, Floats, describe
from trialrun.store.columns import metric_names

if TYPE_CHECKING:
    import pandas as pd

# Statistics that decide over seeds are rounded to so many significant digits, as what two machines,
# or packs of two sizes, compute differs in the seventh. So they decide the same.
DECISION_DIGITS = 5
_TIE = 1e-9  # means are equal within this relative tolerance, as sums in float64 are not exact


@dataclass(frozen=True, slots=True, eq=False)
class ValidationScores:
    """The selection metric of every trial, and no other result of a trial.

    Attributes:
        metric: A validation metric: its name begins with `val_`.
        variant_ids: Ids of the variants (variants,) in the order of the search.
        seeds: Seeds (seeds,), ascending.
        trial_ids: Ids (variants, seeds) in ASCII, which takes a quarter of the memory of text;
            empty where there is no trial.
        values: The metric, float64 (variants, seeds); NaN where no trial completed.
        num_unfinished: For each variant (variants,), how many of its trials diverged or failed or
            have NaN as their metric.

    Raises:
        InputError: The metric is not a validation metric.
    """

    metric: str
    variant_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    trial_ids: npt.NDArray[np.bytes_]
    values: Floats
    num_unfinished: Counts

    def __post_init__(self) -> None:
        if not self.metric.startswith("val_"):
            raise InputError(
                f"select.metric must be a validation metric (val_...), got {self.metric!r};"
                " variants are never selected by test numbers"
            )

    def restricted(self, variant_ids: Sequence[str], seeds: Sequence[int]) -> "ValidationScores":
        """The scores of some variants with some seeds, in this order, as if there were no others.

        A trial that is not among these scores counts as lost.
        """
        row_of = {variant_id: row for row, variant_id in enumerate(self.variant_ids)}
        column_of = {seed: column for column, seed in enumerate(self.seeds)}
        rows = np.array([row_of.get(variant_id, -1) for variant_id in variant_ids], np.intp)
        columns = np.array([column_of.get(seed, -1) for seed in seeds], np.intp)
        # An empty last row and column stand for what is not there.
        values = np.pad(self.values, ((0, 1), (0, 1)), constant_values=np.nan)[rows][:, columns]
        trial_ids = np.pad(self.trial_ids, ((0, 1), (0, 1)), constant_values=b"")
        return ValidationScores(
            metric=self.metric,
            variant_ids=tuple(variant_ids),
            seeds=tuple(seeds),
            trial_ids=trial_ids[rows][:, columns],
            values=values,
            num_unfinished=np.count_nonzero(np.isnan(values), axis=1),
        )


@dataclass(frozen=True, slots=True)
class Selection:
    """The winner, and the validation numbers by which it won.

    Attributes:
        variant_id: The winner, which has the best value of the statistic.
        trial_id, seed: The winner's best completed trial, which is the best model.
        metric, goal, statistic: What was compared.
        score: The winner's value of the statistic.
        mean, sd: Mean and standard deviation of the winner's metric over its completed seeds.
        low, high: The 95% interval of the mean; infinite if there are too few seeds for one.
        value: The metric of the best trial.
        num_seeds: Number of completed seeds of the winner.
        num_unfinished: How many trials of the winner diverged or failed or have NaN as their
            metric; above 0 only if every variant has such trials.
        num_variants: How many variants were compared.
        tied: Other variants with the same value of the statistic; the winner is only the first.
        is_perfect: Whether no better mean of the metric is possible.
    """

    variant_id: str
    trial_id: str
    seed: int
    metric: str
    goal: Goal
    statistic: Statistic
    score: float
    mean: float
    sd: float
    low: float
    high: float
    value: float
    num_seeds: int
    num_unfinished: int
    num_variants: int
    tied: tuple[str, ...]
    is_perfect: bool


def validation_scores(
    trials: "pd.DataFrame", metric: str, seeds: npt.NDArray[np.int64] | None = None
) -> ValidationScores:
    """The selection metric of every trial, the only input from trials that selection gets.

    Args:
        trials: As in `trials/*.parquet`. Only the trial's identity, its status and `metric` are
            used.
        metric: A validation metric.
        seeds: All seeds of the trials, perhaps more, ascending; absent: those of the trials.

    Raises:
        InputError: The metric is no validation metric, or was not recorded.
    """
    grid = TrialGrid.of(trials, seeds)
    shape = (len(grid.variant_ids), len(grid.seeds))
    given = trials["trial_id"].to_numpy(object).astype(np.bytes_)
    trial_ids = np.zeros(shape, given.dtype)
    trial_ids[grid.rows, grid.columns] = given
    values = np.full(shape, np.nan)
    completed = grid.statuses == "completed"
    if completed.any():
        _require_recorded(metric, trials)
        measured = trials.loc[completed, metric].to_numpy(np.float64)
        values[grid.rows[completed], grid.columns[completed]] = measured
    return ValidationScores(
        metric=metric,
        variant_ids=grid.variant_ids,
        seeds=grid.seeds,
        trial_ids=trial_ids,
        values=values,
        num_unfinished=grid.count("diverged") + grid.count("failed") + _count_nan(grid, values),
    )


def _count_nan(grid: TrialGrid, values: Floats) -> Counts:
    """For each variant (variants,), how many completed trials have NaN as their value."""
    is_nan = (grid.statuses == "completed") & np.isnan(values[grid.rows, grid.columns])
    return np.bincount(grid.rows[is_nan], minlength=len(values)).astype(np.int64)


def join_scores(chunks: Sequence[ValidationScores]) -> ValidationScores:
    """The scores of all variants, joined from scores of some variants each, over the same seeds.

    Args:
        chunks: At least one, in the order of the search.
    """
    return replace(
        chunks[0],
        variant_ids=tuple(variant_id for chunk in chunks for variant_id in chunk.variant_ids),
        trial_ids=np.concatenate([chunk.trial_ids for chunk in chunks]),
        values=np.concatenate([chunk.values for chunk in chunks]),
        num_unfinished=np.concatenate([chunk.num_unfinished for chunk in chunks]),
    )


def _require_recorded(metric: str, trials: "pd.DataFrame") -> None:
    known = [name for name in metric_names(list(trials.columns)) if name.startswith("val_")]
    if metric not in known:
        raise InputError(
            f"select.metric {metric!r} is not among the recorded validation metrics:"
            f" {', '.join(known) or 'there are none'}"
        )


def rank(
    scores: ValidationScores,
    goal: Goal,
    statistic: Statistic = "mean",
    digits: int | None = None,
) -> npt.NDArray[np.intp]:
    """Indices (variants,) of the variants, the best first.

    Args:
        scores: Scores of all variants.
        goal: Whether a small or a large metric is good.
        statistic: The statistic that ranks variants.
        digits: Significant digits to which the statistic is rounded before it decides; None for
            all of them.

    A variant with trials that diverged, failed or have NaN as their metric comes after all variants
    without, because its remaining trials make it look better than it is. A variant without any
    completed trial comes last. Equal variants keep the order of the search.
    """
    return _order(scores, goal, variant_scores(scores, goal, statistic, digits))


def _order(scores: ValidationScores, goal: Goal, found: Floats) -> npt.NDArray[np.intp]:
    losses = _losses(found, goal)
    is_nan = np.isnan(losses)
    # lexsort is stable, and its last key is the most important one.
    return np.lexsort((np.where(is_nan, 0.0, losses), scores.num_unfinished > 0, is_nan))


def variant_scores(
    scores: ValidationScores, goal: Goal, statistic: Statistic, digits: int | None = None
) -> Floats:
    """The statistic of each variant (variants,); NaN for a variant without a completed trial.

    Args:
        scores, goal, statistic, digits: See `rank`.
    """
    spread = describe(scores.values)
    if statistic != "confidence_bound":
        found: Floats = getattr(spread, statistic)
    else:
        interval = seeds_interval(scores.values)
        bound = interval.high if goal == "minimize" else interval.low
        # If the seeds give no interval, as they are all equal or there is one, the mean is taken.
        found = np.where(np.isinf(bound), spread.mean, bound)
    return found if digits is None else round_significant(found, digits)


def round_significant(values: Floats, digits: int) -> Floats:
    """Values (...,) rounded to some significant digits."""
    rounded = [float(f"{value:.{digits}g}") for value in np.ravel(values)]
    return np.reshape(np.array(rounded, np.float64), np.shape(values))


def seeds_interval(values: Floats) -> Interval:
    """The 95% intervals of means over seeds (..., seeds); the same in each call."""
    return mean_interval(values, np.random.default_rng(0))


def _losses(values: Floats, goal: Goal) -> Floats:
    """The values with a sign such that small is good."""
    return values if goal == "minimize" else -values


def select_best(
    scores: ValidationScores,
    goal: Goal,
    statistic: Statistic = "mean",
    bounds: tuple[float, float] = (-np.inf, np.inf),
    digits: int | None = None,
) -> Selection | None:
    """The first variant of `rank`, and that variant's seed with the best value.

    Args:
        scores: Scores of all variants.
        goal: Whether a small or a large metric is good.
        statistic: The statistic that ranks variants.
        bounds: The lowest and the highest value that the metric can have.
        digits: See `rank`.

    Returns:
        None if no completed trial has a value.
    """
    if np.isnan(scores.values).all():
        return None
    found = variant_scores(scores, goal, statistic, digits)
    winner = int(_order(scores, goal, found)[0])
    values = scores.values[winner]
    best = int(np.nanargmin(_losses(values, goal)))
    spread = describe(values)
    interval = within_bounds(seeds_interval(values), values, *map(np.asarray, bounds))
    score = float(found[winner])
    return Selection(
        variant_id=scores.variant_ids[winner],
        trial_id=scores.trial_ids[winner, best].decode(),
        seed=scores.seeds[best],
        metric=scores.metric,
        goal=goal,
        statistic=statistic,
        score=min(max(score, bounds[0]), bounds[1]) if statistic == "confidence_bound" else score,
        mean=float(spread.mean),
        sd=float(spread.sd),
        low=float(interval.low),
        high=float(interval.high),
        value=float(values[best]),
        num_seeds=int(spread.n),
        num_unfinished=int(scores.num_unfinished[winner]),
        num_variants=len(scores.variant_ids),
        tied=_tied(scores, found, winner),
        is_perfect=float(spread.mean) == (bounds[0] if goal == "minimize" else bounds[1]),
    )


def _tied(scores: ValidationScores, found: Floats, winner: int) -> tuple[str, ...]:
    """The other variants with the same value as the winner, within rounding."""
    is_tied = np.isclose(found, found[winner], rtol=_TIE, atol=0.0)
    is_tied &= (scores.num_unfinished > 0) == (scores.num_unfinished[winner] > 0)
    is_tied[winner] = False
    return tuple(scores.variant_ids[index] for index in np.flatnonzero(is_tied))
