"""How sure a ranking is: which variants may be the best, compared seed by seed, on validation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trialrun.job import Goal
from trialrun.selection import ValidationScores, rank
from trialrun.statistics.best import LEVEL, luck_of_the_first, same_values, worse_than_leader
from trialrun.statistics.spread import describe

# A pairing that is worth less is not worth a sentence; of fewer seeds its worth is not known.
_LEAST_PAIRING, _FEWEST_PAIRED = 1.5, 10


@dataclass(frozen=True, slots=True)
class Certainty:
    """What the seeds say of the means of all variants, whatever statistic ranks them.

    Attributes:
        winner: The variant that was selected.
        leader: The variant with the best mean, with which the others are compared; the winner
            where the mean ranks them.
        p_values: variant_id -> the smallest level at which the variant leaves the set that holds
            the best mean, see `statistics.best.worse_than_leader`; the best ranked first, without
            the leader and variants without a completed trial.
        same: The variants that gave what the winner gave, in every seed.
        num_seeds: The most seeds that any of them shares with the leader.
        pairing: As if there were as many times the seeds: the median over variants of what
            comparing seed by seed was worth; None where it is little or not known.
        flattery: By how much choosing the best of the undecided flatters its mean if they are
            all equal, in units of the metric; 0 if there is one.
    """

    winner: str
    leader: str
    p_values: Mapping[str, float]
    same: tuple[str, ...]
    num_seeds: int
    pairing: float | None
    flattery: float

    @property
    def best_set(self) -> tuple[str, ...]:
        """The variants that hold the best mean with 95% confidence, the leader first."""
        return (self.leader, *(one for one, p in self.p_values.items() if p > LEVEL))

    @property
    def undecided(self) -> tuple[str, ...]:
        """The variants other than the winner that may have the best mean."""
        return tuple(one for one in self.best_set if one != self.winner)

    @property
    def has_too_few_seeds(self) -> bool:
        """Whether nothing could have been told apart, however large the differences."""
        return bool(self.p_values) and self.num_seeds < 2


def compare_with_best(
    scores: ValidationScores, order: npt.NDArray[np.intp], goal: Goal
) -> Certainty:
    """Compares the variant with the best mean with every other that has a completed trial.

    Args:
        scores: Of all variants.
        order: Indices of the variants, the best first, as of `rank`.
        goal: Whether a small or a large metric is good.
    """
    losses = scores.values if goal == "minimize" else -scores.values
    winner, leader = int(order[0]), int(rank(scores, goal)[0])
    found = worse_than_leader(losses, leader)
    compared = [index for index in order if not np.isnan(found.p_values[index])]
    p_values = {scores.variant_ids[index]: float(found.p_values[index]) for index in compared}
    undecided = [index for index in compared if found.p_values[index] > LEVEL]
    return Certainty(
        winner=scores.variant_ids[winner],
        leader=scores.variant_ids[leader],
        p_values=p_values,
        same=tuple(
            scores.variant_ids[index] for index in np.flatnonzero(same_values(losses, winner))
        ),
        num_seeds=int(found.num_pairs[compared].max(initial=0)),
        pairing=_pairing(found.pairing[compared], found.num_pairs[compared]),
        flattery=_flattery(found.variances[undecided], found.num_pairs[undecided], losses[leader]),
    )


def _pairing(gains: npt.NDArray[np.float64], num_pairs: npt.NDArray[np.int64]) -> float | None:
    """The median of what is known well enough; None if that is little."""
    known = gains[np.isfinite(gains) & (num_pairs >= _FEWEST_PAIRED)]
    median = float(np.median(known)) if len(known) else 0.0
    return median if median >= _LEAST_PAIRING else None


def _flattery(
    variances: npt.NDArray[np.float64],
    num_pairs: npt.NDArray[np.int64],
    leader: npt.NDArray[np.float64],
) -> float:
    """Half of the typical variance of a difference is that of one variant's own luck.

    Wild variants do not flatter a steady one: of more than twice the leader's own deviation it is
    not said to have profited.
    """
    known = np.isfinite(variances) & (num_pairs > 1)
    if not known.any():
        return 0.0
    most = 2 * np.square(2 * describe(leader).sd)
    error = np.sqrt(np.median(np.minimum(variances[known], most) / num_pairs[known]) / 2)
    return float(error) * luck_of_the_first(1 + int(known.sum()))
