"""The data that trackers show of a run: curves and final numbers of its trials or variants.

It is read from the run folder alone, for some variants at a time, because all epochs of all trials
may not fit into memory.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.store import RunFolder
from trialrun.store.columns import HISTORY_IDENTITY, METRIC_PREFIXES, PARAMETER_PREFIX
from trialrun.store.files import reading
from trialrun.store.trial_tables import TrialIndex

if TYPE_CHECKING:
    import pandas as pd

_EPOCHS_AT_A_TIME = 1 << 20
_IDENTITY = ("rank", "variant_id")

Curves = Mapping[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class VariantRow:
    """A row of variants.csv.

    Attributes:
        variant_id: The variant.
        parameters: Searched dotted path -> value, with the type that it has in the job.
        numbers: Column -> number, for all statistics that are known: `val_loss_mean`, ...
    """

    variant_id: str
    parameters: Mapping[str, Any]
    numbers: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """What one line of a tracker shows: a trial, or the mean of a variant's completed trials.

    Attributes:
        name: `v00/seed_3` for a trial, `v00` for a variant.
        variant_id: The variant.
        is_completed: Whether the trial, or any trial of the variant, completed.
        epochs: (epochs,) int64, counted from 1.
        curves: Log -> (epochs,) float64: `loss`, `val_loss`, ...
        finals: Metric -> value at the end; empty for a trial that did not complete.
    """

    name: str
    variant_id: str
    is_completed: bool
    epochs: npt.NDArray[np.int64]
    curves: Curves
    finals: Mapping[str, float]


def variant_rows_of(run: RunFolder) -> list[VariantRow]:
    """The rows of variants.csv, the best variant first."""
    parameters = run.read_parameters()
    with reading(run.variants_file), run.variants_file.open(encoding="utf-8", newline="") as file:
        return [
            VariantRow(row["variant_id"], parameters[row["variant_id"]], _numbers_in(row))
            for row in csv.DictReader(file)
        ]


def ended_summary(run: RunFolder) -> Mapping[str, Any]:
    """The content of summary.json of a run that has ended."""
    summary = run.read_summary()
    assert summary is not None  # only runs that ended are shown
    return summary


def trial_series(run: RunFolder, variant_ids: Sequence[str]) -> Iterator[Series]:
    """One series per trial of some variants, without those of fresh seeds and paused ones."""
    metrics = run.tables.index().metrics
    for _, trials, history in _chunks(run, run.choosing_trials(), variant_ids):
        epochs_of = history.groupby("trial_id", sort=False).indices
        for row in trials[trials["status"] != "paused"].to_dict("records"):
            is_completed = row["status"] == "completed"
            own = history.take(np.asarray(epochs_of.get(row["trial_id"], ()), np.int64))
            yield Series(
                name=f"{row['variant_id']}/seed_{row['seed']}",
                variant_id=row["variant_id"],
                is_completed=is_completed,
                epochs=own["epoch"].to_numpy(np.int64),
                curves=_curves(own),
                finals=_known({name: row[name] for name in metrics}) if is_completed else {},
            )


def variant_series(run: RunFolder, rows: Sequence[VariantRow]) -> Iterator[Series]:
    """One series per variant, in the order of the rows: the mean over its completed trials.

    An epoch's mean is taken over the trials that reached it: if some stopped early, the last epochs
    are means over the others.

    Args:
        run: The run folder.
        rows: The variants, with their means at the end.
    """
    row_of = {row.variant_id: row for row in rows}
    for variant_ids, trials, history in _chunks(run, run.choosing_trials(), list(row_of)):
        completed = trials.loc[trials["status"] == "completed", "trial_id"]
        history = history[history["trial_id"].isin(completed)]
        names = _log_columns(history)
        means = history.astype(dict.fromkeys(names, np.float64))
        means = means.groupby(["variant_id", "epoch"])[names].mean().reset_index()
        epochs_of = means.groupby("variant_id", sort=False).indices
        for variant_id in variant_ids:
            own = means.take(np.asarray(epochs_of.get(variant_id, ()), np.int64))
            numbers = row_of[variant_id].numbers
            yield Series(
                name=variant_id,
                variant_id=variant_id,
                is_completed=numbers["n"] > 0,
                epochs=own["epoch"].to_numpy(np.int64),
                curves=_curves(own),
                finals={
                    name.removesuffix("_mean"): value
                    for name, value in numbers.items()
                    if name.startswith(METRIC_PREFIXES) and name.endswith("_mean")
                },
            )


def _chunks(
    run: RunFolder, index: TrialIndex, variant_ids: Sequence[str]
) -> "Iterator[tuple[Sequence[str], pd.DataFrame, pd.DataFrame]]":
    """Some variants at a time, their trials with metrics, and the epochs of these trials."""
    longest = max((int(rows["epochs"].max()) for rows in index.by_variants("identity")), default=0)
    step = max(1, _EPOCHS_AT_A_TIME // max(1, longest * len(index.seeds)))
    for start in range(0, len(variant_ids), step):
        some = variant_ids[start : start + step]
        trials = index.read(some, "numbers")
        yield some, trials, run.tables.history_of(trials)


def _curves(history: "pd.DataFrame") -> Curves:
    """The logs that have a number here; a log of other trials is a column without any."""
    columns = {name: history[name].to_numpy(np.float64) for name in _log_columns(history)}
    return {name: values for name, values in columns.items() if not np.isnan(values).all()}


def _log_columns(history: "pd.DataFrame") -> list[str]:
    return [name for name in history.columns if name not in HISTORY_IDENTITY]


def _numbers_in(row: Mapping[str, str]) -> dict[str, float]:
    """The statistics of a row: the cells that are numbers."""
    cells = {
        name: cell
        for name, cell in row.items()
        if name not in _IDENTITY and not name.startswith(PARAMETER_PREFIX)
    }
    return _known({name: _number(cell) for name, cell in cells.items()})


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:  # the cell is text, or empty
        return math.nan


def _known(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in numbers.items() if not math.isnan(value)}
