"""Trials as a table of variants by seeds: the row and the column of each trial."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Counts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class TrialGrid:
    """The position of each trial in a table of variants by seeds.

    Attributes:
        variant_ids: Ids of the variants (variants,), sorted, which is the order of the search.
        seeds: Seeds (seeds,), ascending.
        rows, columns: For each trial (trials,) its indices in `variant_ids` and `seeds`.
        statuses: The status of each trial (trials,), as text.
    """

    variant_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    statuses: npt.NDArray[np.object_]

    @classmethod
    def of(cls, trials: "pd.DataFrame", seeds: npt.NDArray[np.int64] | None = None) -> "TrialGrid":
        """The grid of the trials in `trials/*.parquet`.

        Args:
            trials: The trials.
            seeds: All seeds of the trials, perhaps more, ascending; absent: those of the trials.
        """
        import pandas as pd

        rows, variant_ids = pd.factorize(trials["variant_id"], sort=True)
        trial_seeds = trials["seed"].to_numpy(np.int64)
        seeds = np.unique(trial_seeds) if seeds is None else seeds
        return cls(
            tuple(variant_ids.tolist()),
            tuple(seeds.tolist()),
            rows,
            np.searchsorted(seeds, trial_seeds),
            trials["status"].to_numpy(object),
        )

    def count(self, status: str) -> Counts:
        """For each variant (variants,), how many of its trials have a status."""
        return np.bincount(self.rows[self.statuses == status], minlength=len(self.variant_ids))
