"""The standing of a run: statistics of its trials so far, read some variants at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.aggregate import (
    Leaderboard,
    VariantSummary,
    confusion_matrices,
    count_trials,
    pool_matrices,
    rank_summaries,
    summarize,
)
from trialrun.bounds import UNBOUNDED, metric_bounds
from trialrun.certainty import Certainty
from trialrun.edges import edges
from trialrun.explanation import explain
from trialrun.job import Goal, Statistic
from trialrun.records import RELIABILITY_COLUMN
from trialrun.selection import ValidationScores, join_scores, validation_scores
from trialrun.statistics.spread import Floats
from trialrun.store import RunFolder
from trialrun.tables import TRIALS_AT_A_TIME, TrialIndex

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


def winner_curves(
    run: RunFolder, variant_id: str, index: TrialIndex | None = None
) -> dict[str, Floats]:
    """The learning curves of one variant's completed trials, one row per seed.

    Args:
        run: The run folder.
        variant_id: The variant.
        index: The index of the run; read if absent.

    Returns:
        `loss`, `accuracy`, `val_loss`, ... -> recorded values, float32 (seeds, epochs), seeds
        ascending; NaN after a trial's last epoch. Empty if no epochs are recorded.
    """
    rows = (index or run.tables.index()).read([variant_id], "identity")
    rows = rows[rows["status"] == "completed"]
    seeds = rows["seed"].to_numpy(np.int64)
    curves: dict[str, Any] = {}
    for epochs in run.tables.read_history_by_part(rows):
        positions = (
            epochs["epoch"].to_numpy() - 1,
            np.searchsorted(seeds, epochs["seed"].to_numpy()),
        )
        for name in epochs.columns[2:]:
            held = curves.get(name, np.zeros((0, len(seeds)), np.float32))
            curves[name] = _with_epochs(held, epochs["epoch"].max())
            curves[name][positions] = epochs[name].to_numpy()
    num_epochs = max(map(len, curves.values()), default=0)
    order = sorted(curves, key=lambda name: name.startswith("val_"))
    return {name: _with_epochs(curves[name], num_epochs).T for name in order}


def winner_reliability(
    run: RunFolder, variant_id: str, index: TrialIndex | None = None
) -> Floats | None:
    """How often the predicted class was right on the test set, by its predicted probability.

    Args:
        run, variant_id, index: See `winner_curves`.

    Returns:
        Sums (bins, 3) over the variant's completed trials, see `statistics.probabilities`; None if
        the model gives no probabilities.
    """
    rows = (index or run.tables.index()).read([variant_id], "reliability")
    if RELIABILITY_COLUMN not in rows:
        return None
    bins = rows.loc[rows["status"] == "completed", RELIABILITY_COLUMN].dropna()
    return np.sum([np.reshape(counts, (-1, 3)) for counts in bins], axis=0) if len(bins) else None


def _with_epochs(curves: Any, num_epochs: int) -> Any:
    """The curves (epochs, seeds), extended with NaN to at least a number of epochs."""
    num_more = max(0, num_epochs - len(curves))
    missing = np.full((num_more, curves.shape[1]), np.nan, curves.dtype)
    return np.concatenate([curves, missing]) if num_more else curves


def run_summary(
    job_name: str,
    standing: Standing,
    *,
    timings_s: Mapping[str, float],
    model_summary: str = "",
    best_model: Mapping[str, Any] | None = None,
    data: Sequence[Mapping[str, Any]] = (),
    model_tasks: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of summary.json: what was selected and why, counts, timings, throughput.

    Args:
        job_name: Name of the job.
        standing: The standing of all trials.
        timings_s: Stage -> seconds of wall time; `total` is the whole run.
        model_summary: Keras's text about the best model, shown in the report.
        best_model: The formats in which it was saved and proved, and why it was not in others.
        data: For one trial per data setting, its seed and the census of its parts.
        model_tasks: The tasks of the models with their reasons.
    """
    board = standing.leaderboard
    return {
        "job": job_name,
        "selection": _selection_content(standing),
        "certainty": certainty_content(board.certainty),
        "explanation": explain(board),
        "counts": {**standing.counts, "variants": len(board.variants)},
        "timings_s": dict(timings_s),
        "throughput": _throughput(standing, timings_s.get("total")),
        "best_model": best_model,
        "model_summary": model_summary,
        "data": list(data),
        "model_tasks": list(model_tasks),
    }


def data_warnings(data: Sequence[Mapping[str, Any]]) -> list[str]:
    """The warnings about the data that `run_summary` gets, each text once."""
    texts = (
        f"{text} (data of seed {entry['seed']})"
        for entry in data
        for text in entry.get("warnings", ())
    )
    return list(dict.fromkeys(texts))


def _selection_content(standing: Standing) -> dict[str, Any] | None:
    """The selection, with all metrics of the best trial."""
    chosen = standing.leaderboard.selection
    if chosen is None:
        return None
    return {
        "variant_id": chosen.variant_id,
        "parameters": dict(standing.leaderboard.variants[0].parameters),
        "trial_id": chosen.trial_id,
        "seed": chosen.seed,
        "metric": chosen.metric,
        "goal": chosen.goal,
        "statistic": chosen.statistic,
        "score": chosen.score,
        "mean": chosen.mean,
        "sd": chosen.sd,
        "low": chosen.low,
        "high": chosen.high,
        "num_seeds": chosen.num_seeds,
        "tied": list(chosen.tied),
        "edges": [
            {"parameter": edge.path, "value": edge.value, "end": edge.end}
            for edge in edges(standing.leaderboard)
        ],
        "best_trial": dict(standing.best_trial),
    }


def certainty_content(known: Certainty | None) -> dict[str, Any] | None:
    """Which variants may have the best mean, without the p-values, which are in variants.csv."""
    if known is None:
        return None
    return {
        "best_set": list(known.best_set),
        "undecided": list(known.undecided),
        "same": list(known.same),
        "num_compared": len(known.p_values),
        "num_seeds": known.num_seeds,
        "pairing": known.pairing,
        "flattery": known.flattery,
    }


def _throughput(standing: Standing, total_s: float | None) -> dict[str, float]:
    if not total_s:
        return {}
    return {
        "trials_per_s": standing.counts["trials"] / total_s,
        "epochs_per_s": standing.num_epochs / total_s,
    }
