"""The standing of a run: statistics of its trials so far, read some variants at a time."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trialrun.analysis.metric_bounds import UNBOUNDED, metric_bounds
from trialrun.analysis.rounds import RoundsSummary, Wanted, require_log, rounds_summary
from trialrun.analysis.selection import ValidationScores, join_scores, validation_scores
from trialrun.analysis.variants import (
    Leaderboard,
    VariantSummary,
    confusion_matrices,
    count_trials,
    pool_matrices,
    rank_summaries,
    summarize,
)
from trialrun.job import Goal, Statistic
from trialrun.store import RunFolder
from trialrun.store.costs import read_costs
from trialrun.store.trial_tables import TRIALS_AT_A_TIME, TrialIndex

if TYPE_CHECKING:
    import pandas as pd

NUM_PROBLEMS_KEPT = 50


@dataclass(frozen=True, slots=True)
class TrialProblem:
    """A trial that diverged or failed.

    Attributes:
        trial_id, variant_id, seed: The trial.
        status: `diverged` or `failed`.
        error: Why it failed; empty for a diverged trial.
    """

    trial_id: str
    variant_id: str
    seed: int
    status: str
    error: str


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """The standing of a run: statistics of its trials, without the trials themselves.

    Attributes:
        leaderboard: The ranked variants and the selection.
        counts: `trials`, `completed`, `diverged`, `failed`, and `paused` if some are -> number of
            trials.
        num_epochs: Epochs trained, summed over all trials.
        problems: Trials that diverged or failed, by variant and seed; only the first if there are
            many.
        best_trial: Metric -> value of the selected trial; empty without a selection.
        scores: The selection metric of every trial.
    """

    leaderboard: Leaderboard
    counts: Mapping[str, int]
    num_epochs: int
    problems: tuple[TrialProblem, ...]
    best_trial: Mapping[str, float]
    scores: ValidationScores


class Tally:
    """Computes the standing of a run from chunks of whole variants, read one after the other.

    To save memory, only the selection metric and the id of each trial are kept; all else is kept
    per variant.

    Args:
        run: The run folder.
        metric: The selection metric.
        goal: Whether a small or a large metric is good.
        statistic: The statistic over seeds that ranks variants.
        max_problems: How many trials that did not complete are named; None for all.
        max_trials: The most trials of a chunk; a chunk of a single variant may have more.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        metric: str,
        goal: Goal,
        statistic: Statistic = "mean",
        max_problems: int | None = NUM_PROBLEMS_KEPT,
        max_trials: int = TRIALS_AT_A_TIME,
    ) -> None:
        self._index: TrialIndex = run.tables.index()
        # A folder without trials may also lack a job.
        self._bounds = {} if self.is_empty else metric_bounds(self._index.metrics, run.read_job())
        self._metric, self._goal, self._statistic = metric, goal, statistic
        self._max_problems, self._max_trials = max_problems, max_trials
        own_bounds = self._bounds.get(metric, UNBOUNDED)
        self._run = run
        rounds = run.rounds.read()
        require_log(run, rounds, self._index)
        self._rounds: RoundsSummary | None = None
        if rounds:
            wanted = Wanted.of(run)
            self._rounds = rounds_summary(rounds, self._index, metric, wanted, own_bounds)

    @property
    def is_empty(self) -> bool:
        """Whether no trial is recorded."""
        return not self._index.variant_ids

    def standing(self, write_matrices: Callable[[dict[str, Any]], None] | None = None) -> Standing:
        """The standing of all trials, from one pass over them.

        Args:
            write_matrices: Is given the variants of confusion_matrices.json, some at a time.

        Raises:
            InputError: The metric is no validation metric, or was not recorded.
        """
        return self._standing("results", write_matrices)

    def standing_without_matrices(self) -> Standing:
        """The same standing, but its variants have no confusion matrices."""
        return self._standing("numbers", None)

    def _standing(
        self,
        columns: Literal["results", "numbers"],
        write_matrices: Callable[[dict[str, Any]], None] | None,
    ) -> Standing:
        seeds, parameters = self._index.seeds, self._index.parameters
        if self._rounds is not None:
            seeds = np.array(self._rounds.seeds, np.int64)
        scores: list[ValidationScores] = []
        summaries: list[VariantSummary] = []
        problems: list[TrialProblem] = []
        costs = read_costs(self._run)
        counts: Counter[str] = Counter()
        num_epochs = 0
        for chunk in self._index.by_variants(columns, self._max_trials):
            counts.update(count_trials(chunk))
            num_epochs += int(chunk["epochs"].sum())
            left = None if self._max_problems is None else self._max_problems - len(problems)
            problems += islice(_problems(chunk), left)
            compared = self._compared(chunk, columns)
            scores.append(validation_scores(compared, self._metric, seeds))
            pooled = pool_matrices([compared])
            summaries += [
                replace(one, cost=costs.get(one.variant_id))
                for one in summarize(compared, parameters, pooled, seeds, self._bounds)
            ]
            if write_matrices is not None:
                write_matrices(confusion_matrices(compared))
        joined = join_scores(scores)
        bounds = self._bounds.get(self._metric, UNBOUNDED)
        board = rank_summaries(summaries, joined, self._goal, self._statistic, bounds, self._rounds)
        best_trial = self._metrics_of_best(board)
        return Standing(board, dict(counts), num_epochs, tuple(problems), best_trial, joined)

    def _compared(
        self, chunk: "pd.DataFrame", columns: Literal["results", "numbers"]
    ) -> "pd.DataFrame":
        """The trials by which variants are compared: all of them, or those of the last round."""
        if self._rounds is None:
            return chunk
        if self._rounds.has_pauses:
            variant_ids = chunk["variant_id"].unique().tolist()
            chunk = self._index.at(self._rounds.epochs).read(variant_ids, columns)
        is_left = chunk["variant_id"].isin(self._rounds.finalists)
        return chunk[is_left & chunk["seed"].isin(self._rounds.seeds)]

    def _metrics_of_best(self, board: Leaderboard) -> dict[str, float]:
        chosen = board.selection
        if chosen is None:
            return {}
        rows = self._index.read([chosen.variant_id], "numbers")
        best = rows[rows["trial_id"] == chosen.trial_id].iloc[0]
        return {name: float(best[name]) for name in self._index.metrics}


def _problems(chunk: "pd.DataFrame") -> Iterator[TrialProblem]:
    columns = ["trial_id", "variant_id", "seed", "status", "error"]
    rows = chunk.loc[chunk["status"].isin(["diverged", "failed"]), columns]
    return (TrialProblem(*row) for row in rows.itertuples(index=False, name=None))
