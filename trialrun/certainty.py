"""How sure a ranking is: every variant compared with the winner, seed by seed, on validation.

The winner was chosen by the same seeds, which favors it; the correction for all variants and the
two-sided test make up for some of that. Fresh seeds would tell for sure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trialrun.selection import ValidationScores
from trialrun.statistics.paired import holm, num_seeds_needed, sign_flip_p_values

LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Certainty:
    """What the seeds tell apart.

    Attributes:
        p_values: variant_id -> p-value of its difference from the winner, by the sign-flip test
            over the seeds that both completed, corrected by Holm for all variants compared; the
            best ranked first. Variants without a completed trial are not compared.
        num_seeds: The most seeds that any of them shares with the winner.
        num_needed: With fewer seeds no difference could reach 5%.
    """

    p_values: Mapping[str, float]
    num_seeds: int
    num_needed: int

    @property
    def undecided(self) -> tuple[str, ...]:
        """The variants that cannot be told from the winner at 5%."""
        return tuple(one for one, p_value in self.p_values.items() if p_value > LEVEL)

    @property
    def has_too_few_seeds(self) -> bool:
        """Whether nothing could have been told apart, however large the differences."""
        return bool(self.p_values) and self.num_seeds < self.num_needed


def compare_with_winner(scores: ValidationScores, order: npt.NDArray[np.intp]) -> Certainty:
    """Compares the winner with every other variant that has a completed trial.

    Args:
        scores: Of all variants.
        order: Indices of the variants, the best first, as of `rank`.
    """
    winner, others = order[:1], order[1:]
    others = others[~np.isnan(scores.values[others]).all(axis=1)]
    differences = scores.values[others] - scores.values[winner]
    p_values = holm(sign_flip_p_values(differences, np.random.default_rng(0)))
    num_pairs = np.count_nonzero(~np.isnan(differences), axis=1)
    return Certainty(
        p_values={
            scores.variant_ids[index]: float(p_value)
            for index, p_value in zip(others, p_values, strict=True)
        },
        num_seeds=int(num_pairs.max(initial=0)),
        num_needed=num_seeds_needed(len(others), level=LEVEL),
    )
