"""What the trials of a run say so far, from its folder, some variants at a time."""

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
    """Where a run stands: what is said of its trials, without the trials.

    Attributes:
        leaderboard: The ranked variants and the selection.
        counts: `trials`, `completed`, `diverged`, `failed`.
        num_epochs: Epochs trained, of all trials together.
        problems: Trials that diverged or failed, by variant and seed; the first if there are many.
        best_trial: Metric -> value, of the selected trial; empty without a selection.
        scores: The selection metric of every trial.
    """

    leaderboard: Leaderboard
    counts: Mapping[str, int]
    num_epochs: int
    problems: tuple[TrialProblem, ...]
    best_trial: Mapping[str, float]
    scores: ValidationScores


class Tally:
    """Takes the trials in, a chunk of whole variants after the other.

    It holds a number per trial, of the selection metric, and its id; the rest is per variant.

    Args:
        run: The run folder.
        metric: The selection metric.
        goal: Whether a small or a large metric is good.
        statistic: Of the seeds of a variant, by which variants are ranked.
        max_problems: How many of the trials that did not complete are named; None for all.
        max_trials: Of a chunk; only one variant alone may have more.
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
        # Without trials there may be no job either.
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
        """Takes all trials in, confusion matrices included."""
        for chunk in self._index.by_variants("results", self._max_trials):
            self._take(chunk)
        return self

    def take_numbers(self) -> "Tally":
        """Takes all trials in, without confusion matrices."""
        for chunk in self._index.by_variants("numbers", self._max_trials):
            self._take(chunk)
        return self

    def matrices(self) -> Iterator[dict[str, Any]]:
        """The same as `take_all`; gives what confusion_matrices.json says on the way."""
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
        """What was taken in.

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
        index: Of the run; absent, it is read.

    Returns:
        `loss`, `accuracy`, `val_loss`, ... -> (seeds, epochs) float32 as they were recorded, seeds
        ascending; NaN after a trial's last epoch. Nothing without epochs.
    """
    rows = (index or run.tables.index()).read([variant_id], "identity")
    rows = rows[rows["status"] == "completed"]
    seeds = rows["seed"].to_numpy(np.int64)
    curves: dict[str, Any] = {}
    for part in run.tables.read_history_by_part(rows):
        places = part["epoch"].to_numpy() - 1, np.searchsorted(seeds, part["seed"].to_numpy())
        for name in part.columns[2:]:
            held = curves.get(name, np.zeros((0, len(seeds)), np.float32))
            curves[name] = _with_epochs(held, part["epoch"].max())
            curves[name][places] = part[name].to_numpy()
    num_epochs = max(map(len, curves.values()), default=0)
    order = sorted(curves, key=lambda name: name.startswith("val_"))
    return {name: _with_epochs(curves[name], num_epochs).T for name in order}


def winner_reliability(
    run: RunFolder, variant_id: str, index: TrialIndex | None = None
) -> Floats | None:
    """How often the predicted class was right on the test set, by how probable it was.

    Args:
        run, variant_id, index: As of `winner_curves`.

    Returns:
        (bins, 3) of one variant's completed trials together, see `statistics.probabilities`; None
        for a model that gives no probabilities.
    """
    rows = (index or run.tables.index()).read([variant_id], "reliability")
    if RELIABILITY_COLUMN not in rows:
        return None
    bins = rows.loc[rows["status"] == "completed", RELIABILITY_COLUMN].dropna()
    return np.sum([np.reshape(of, (-1, 3)) for of in bins], axis=0) if len(bins) else None


def _with_epochs(curves: Any, num_epochs: int) -> Any:
    """The curves (epochs, seeds), with NaN for epochs that are more than they have."""
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
        standing: Of all its trials.
        timings_s: Seconds of wall time by stage; `total` is the whole run.
        model_summary: Keras's text about the best model, shown in the report.
        best_model: In which formats it was saved and proved, and why not in others.
        data: Of one trial per data setting, its seed and the census of its parts.
        model_tasks: What the models are, and why.
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
    """What a reader has to know of the data, of which `run_summary` was told; each text once."""
    texts = (
        f"{text} (data of seed {one['seed']})" for one in data for text in one.get("warnings", ())
    )
    return list(dict.fromkeys(texts))


def _selection_content(standing: Standing) -> dict[str, Any] | None:
    """The selection, and beside it all that the best trial measured."""
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
    """Which variants may have the best mean; the p-values of all are in variants.csv."""
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
