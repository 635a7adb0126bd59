"""Optuna's searches on values that are known beforehand: peers of `simulate_rounds`.

What a user of Optuna does is done with Optuna's own code: ask, train, report, prune, tell.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import optuna

from trialrun.statistics.spread import spans_decades

Floats = npt.NDArray[np.float64]

# What Hyperband looks at: between these epochs it never stops a trial.
REDUCTION = 3


class Claim(NamedTuple):
    """The end of a search: the row of the variant that it names the best, and what it says of it.

    Attributes:
        row: The variant.
        value: The loss that is said to be its own.
        cost: Epochs that were trained, summed over trials.
        num_trials: How many trials were begun.
    """

    row: int
    value: float
    cost: int
    num_trials: int


class Space:
    """A table's parameters as a space of Optuna, and the variant that is nearest to a point of it.

    Each parameter is a range from its smallest to its largest number in the table; logarithmic if
    the numbers lie so more evenly. A point stands for the variant that is nearest to it, when each
    range has the length 1.

    Args:
        parameters: (variants, parameters) numbers.
    """

    def __init__(self, parameters: Floats) -> None:
        self._low, self._high = parameters.min(axis=0), parameters.max(axis=0)
        self._is_log = np.array([spans_decades(column) for column in parameters.T])
        self._points = self._scaled(parameters)

    def suggest(self, trial: optuna.Trial) -> int:
        """The row of the variant that a trial is of."""
        ends = zip(self._low, self._high, self._is_log, strict=True)
        point = [
            trial.suggest_float(f"p{index}", float(low), float(high), log=bool(is_log))
            for index, (low, high, is_log) in enumerate(ends)
        ]
        distances = np.square(self._points - self._scaled(np.array([point]))).sum(axis=1)
        return int(distances.argmin())

    def _scaled(self, points: Floats) -> Floats:
        low, high, points = (
            np.where(self._is_log, np.log(np.where(self._is_log, part, 1)), part)
            for part in (self._low, self._high, points)
        )
        scaled: Floats = (points - low) / (high - low)
        return scaled


def tpe_and_hyperband(losses: Floats, space: Space, budget: int, rng: np.random.Generator) -> Claim:
    """Optuna's TPE with its Hyperband pruner over epochs, until the budget is trained.

    Each trial is one training with a seed of its own, drawn from the table. The claim is
    `study.best_trial`.

    Args:
        losses: (variants, seeds, epochs); small is good.
        space: The variants.
        budget: Epochs.
        rng: Draws the seeds of trials, and the seed of the sampler.
    """
    num_seeds, num_epochs = losses.shape[1:]
    study = optuna.create_study(
        study_name="peer",  # Hyperband draws the brackets from it
        sampler=optuna.samplers.TPESampler(seed=int(rng.integers(2**31))),
        pruner=optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=num_epochs, reduction_factor=REDUCTION
        ),
    )
    rows: list[int] = []
    cost = 0
    while cost < budget:
        trial = study.ask()
        row = space.suggest(trial)
        rows.append(row)
        curve = losses[row, rng.integers(num_seeds)]
        num_trained = _train(trial, curve)
        cost += num_trained
        if num_trained < num_epochs:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, float(curve[-1]))
    best = study.best_trial
    return Claim(rows[best.number], float(best.value or 0.0), cost, len(rows))


def _train(trial: optuna.Trial, curve: Floats) -> int:
    """How many epochs are trained until the pruner stops the trial, or all of them."""
    for epoch in rungs(len(curve)):
        trial.report(float(curve[epoch - 1]), epoch)
        if epoch < len(curve) and trial.should_prune():
            return epoch
    return len(curve)


def rungs(num_epochs: int) -> list[int]:
    """The epochs at which Hyperband may stop a trial, and the last.

    >>> rungs(27), rungs(30)
    ([1, 3, 9, 27], [1, 3, 9, 27, 30])
    """
    found = [1]
    while found[-1] * REDUCTION <= num_epochs:
        found.append(found[-1] * REDUCTION)
    return found if found[-1] == num_epochs else [*found, num_epochs]


class Raced(NamedTuple):
    """Which variants were dropped, and how many trials were trained."""

    dropped: frozenset[int]
    num_trials: int


def wilcoxon(values: Floats) -> Raced:
    """Optuna's WilcoxonPruner over paired seeds: each variant in turn, against the best so far.

    Args:
        values: (variants, seeds); small is good.
    """
    study = optuna.create_study(pruner=optuna.pruners.WilcoxonPruner())
    dropped: set[int] = set()
    num_trials = 0
    for row, losses in enumerate(values):
        trial = study.ask()
        for seed, loss in enumerate(losses):
            trial.report(float(loss), seed)
            num_trials += 1
            if trial.should_prune():
                dropped.add(row)
                break
        study.tell(trial, float(losses[: seed + 1].mean()))
    return Raced(frozenset(dropped), num_trials)
