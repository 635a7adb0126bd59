"""Trials as a table of variants by seeds: which row and column each one has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trialrun.statistics.spread import Counts

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, eq=False)
class TrialGrid:
    """Where each trial stands in a table of variants by seeds.

    Attributes:
        variant_ids: (variants,) sorted, which is the order of the search.
        seeds: (seeds,) ascending.
        rows, columns: (trials,) indices into `variant_ids` and `seeds`.
        statuses: (trials,) text.
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
            seeds: Ascending, all of the trials' and perhaps more; absent: the trials'.
        """
        import pandas as pd

        rows, variant_ids = pd.factorize(trials["variant_id"], sort=True)
        of_trials = trials["seed"].to_numpy(np.int64)
        seeds = np.unique(of_trials) if seeds is None else seeds
        return cls(
            tuple(variant_ids.tolist()),
            tuple(seeds.tolist()),
            rows,
            np.searchsorted(seeds, of_trials),
            trials["status"].to_numpy(object),
        )

    def count(self, status: str) -> Counts:
        """(variants,) trials with a status."""
        return np.bincount(self.rows[self.statuses == status], minlength=len(self.variant_ids))
