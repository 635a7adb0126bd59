"""The winner's learning curves and its reliability, read from the run folder."""

from typing import Any

import numpy as np

from trialrun.statistics.spread import Floats
from trialrun.store import RunFolder
from trialrun.store.columns import RELIABILITY_COLUMN
from trialrun.store.trial_tables import TrialIndex


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
    for epochs in run.tables.read_history_by_file(rows):
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
