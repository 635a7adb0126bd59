"""How certain a ranking is: which variants may be best, compared seed by seed on validation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trialrun.analysis.selection import ValidationScores, rank
from trialrun.job import Goal
from trialrun.statistics.best import LEVEL, luck_of_the_first, same_values, worse_than_leader
from trialrun.statistics.spread import describe

# A smaller gain from pairing is not worth mentioning; from fewer seeds it cannot be estimated.
_LEAST_PAIRING, _FEWEST_PAIRED = 1.5, 10


@dataclass(frozen=True, slots=True)
class Certainty:
    """What the seeds show about the means of all variants, whatever statistic ranks them.

    Attributes:
        winner: The variant that was selected.
        leader: The variant with the best mean, with which the others are compared; it is the
            winner if variants are ranked by the mean.
        p_values: variant_id -> the smallest level at which the variant leaves the set that holds
            the best mean, see `statistics.best.worse_than_leader`. The best ranked comes first; the
            leader and variants without a completed trial are left out.
        same: The variants whose value equals the winner's in every seed.
        num_seeds: The largest number of seeds that a variant shares with the leader.
        pairing: What comparing seed by seed gains, as a factor: it does as much as this many times
            the seeds. The median over variants; None where it is small or unknown.
        flattery: By how much the best of the undecided variants looks better than it is, if all of
            them are equal, because it was chosen; in units of the metric. 0 if none is undecided.
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
        """The variants among which is the best mean with 95% confidence, the leader first."""
        return (self.leader, *(variant_id for variant_id, p in self.p_values.items() if p > LEVEL))

    @property
    def undecided(self) -> tuple[str, ...]:
        """The variants other than the winner that may have the best mean."""
        return tuple(variant_id for variant_id in self.best_set if variant_id != self.winner)

    @property
    def has_too_few_seeds(self) -> bool:
        """Whether there are too few seeds to tell variants apart, however large the differences."""
        return bool(self.p_values) and self.num_seeds < 2


def compare_with_best(
    scores: ValidationScores, order: npt.NDArray[np.intp], goal: Goal
) -> Certainty:
    """Compares the variant with the best mean with every other that has a completed trial.

    Args:
        scores: Scores of all variants.
        order: Indices of the variants, the best first, from `rank`.
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
    """The median gain over variants with enough seeds; None if it is small."""
    known = gains[np.isfinite(gains) & (num_pairs >= _FEWEST_PAIRED)]
    median = float(np.median(known)) if len(known) else 0.0
    return median if median >= _LEAST_PAIRING else None


def _flattery(
    variances: npt.NDArray[np.float64],
    num_pairs: npt.NDArray[np.int64],
    leader: npt.NDArray[np.float64],
) -> float:
    """See `Certainty.flattery`.

    Half of the typical variance of a difference comes from one variant's own luck. A variant whose
    seeds vary little gains nothing from others that vary much, so that each variance is limited to
    that of a variant with twice the leader's standard deviation.
    """
    known = np.isfinite(variances) & (num_pairs > 1)
    if not known.any():
        return 0.0
    most = 2 * np.square(2 * describe(leader).sd)
    error = np.sqrt(np.median(np.minimum(variances[known], most) / num_pairs[known]) / 2)
    return float(error) * luck_of_the_first(1 + int(known.sum()))
