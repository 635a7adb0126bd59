"""Trials as a table of variants by seeds: which row and column each one has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trialrun.statistics import Counts

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
    def of(cls, trials: "pd.DataFrame") -> "TrialGrid":
        """The grid of the trials in `trials/*.parquet`."""
        import pandas as pd

        rows, variant_ids = pd.factorize(trials["variant_id"], sort=True)
        columns, seeds = pd.factorize(trials["seed"], sort=True)
        return cls(
            tuple(variant_ids.tolist()),
            tuple(seeds.tolist()),
            rows,
            columns,
            trials["status"].to_numpy(object),
        )

    def count(self, status: str) -> Counts:
        """(variants,) trials with a status."""
        return np.bincount(self.rows[self.statuses == status], minlength=len(self.variant_ids))
