"""The standing of a run: statistics of its trials so far, read some variants at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from trialrun.analysis.metric_bounds import UNBOUNDED, metric_bounds
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
        counts: `trials`, `completed`, `diverged`, `failed` -> number of trials.
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
    """Computes the standing from chunks of whole variants that are read one after the other.

    To save memory, it keeps only the selection metric and the id of each trial; all else is kept
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
        self._scores: list[ValidationScores] = []
        self._summaries: list[VariantSummary] = []
        self._counts: dict[str, int] = {}
        self._problems: list[TrialProblem] = []
        self._num_epochs = 0

    @property
    def is_empty(self) -> bool:
        """Whether no trial is recorded."""
        return not self._index.variant_ids

    def take_all(self) -> "Tally":
        """Reads all trials, including confusion matrices; returns itself."""
        for chunk in self._index.by_variants("results", self._max_trials):
            self._take(chunk)
        return self

    def take_numbers(self) -> "Tally":
        """Reads all trials without confusion matrices; returns itself."""
        for chunk in self._index.by_variants("numbers", self._max_trials):
            self._take(chunk)
        return self

    def matrices(self) -> Iterator[dict[str, Any]]:
        """Reads all trials as `take_all` does, and yields the content of confusion_matrices.json.

        The standing is complete only after all has been yielded.
        """
        for chunk in self._index.by_variants("results", self._max_trials):
            self._take(chunk)
            yield confusion_matrices(chunk)

    def _take(self, chunk: "pd.DataFrame") -> None:
        seeds = self._index.seeds
        self._scores.append(validation_scores(chunk, self._metric, seeds))
        self._summaries += summarize(
            chunk, self._index.parameters, pool_matrices([chunk]), seeds, self._bounds
        )
        for name, count in count_trials(chunk).items():
            self._counts[name] = self._counts.get(name, 0) + count
        self._num_epochs += int(chunk["epochs"].sum())
        columns = ["trial_id", "variant_id", "seed", "status", "error"]
        rows = chunk.loc[chunk["status"] != "completed", columns]
        room = None if self._max_problems is None else self._max_problems - len(self._problems)
        named = islice(rows.itertuples(index=False, name=None), room)
        self._problems += (TrialProblem(*row) for row in named)

    def standing(self) -> Standing:
        """The standing of the trials that were read.

        Raises:
            InputError: The metric is no validation metric, or was not recorded.
        """
        scores = join_scores(self._scores)
        bounds = self._bounds.get(self._metric, UNBOUNDED)
        board = rank_summaries(self._summaries, scores, self._goal, self._statistic, bounds)
        best_trial: dict[str, float] = {}
        if chosen := board.selection:
            rows = self._index.read([chosen.variant_id], "numbers")
            best = rows[rows["trial_id"] == chosen.trial_id].iloc[0]
            best_trial = {name: float(best[name]) for name in self._index.metrics}
        problems = tuple(self._problems)
        return Standing(board, self._counts, self._num_epochs, problems, best_trial, scores)
