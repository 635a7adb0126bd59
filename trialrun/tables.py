"""The trial tables of a run folder, read whole, or some variants at a time to keep memory small."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.errors import FileError
from trialrun.parts import by_part, column_names, list_parts, read_part
from trialrun.records import (
    TrialColumns,
    latest_trials,
    metric_names,
    parameters_by_variant,
    unite_history,
)

if TYPE_CHECKING:
    import pandas as pd

# Rows of a chunk: some 20 MB of numbers and matrices, and few chunks to read a part for.
TRIALS_AT_A_TIME = 1 << 15


@dataclass(frozen=True, slots=True)
class TrialTables:
    """The parts of `trials/` and `history/` of one run.

    Attributes:
        path: The run folder.
    """

    path: Path

    @property
    def trials_dir(self) -> Path:
        """One Parquet file per pack: one row per trial."""
        return self.path / "trials"

    @property
    def history_dir(self) -> Path:
        """One Parquet file per pack: one row per trial and epoch."""
        return self.path / "history"

    def read_trials(
        self, columns: TrialColumns, trial_ids: Sequence[str] | None = None
    ) -> "pd.DataFrame":
        """See `RunFolder.read_trials`."""
        with naming_the_cure(self.path):
            return latest_trials(
                [
                    read_part(part, columns, trial_ids=trial_ids)
                    for part in list_parts(self.trials_dir)
                ]
            )

    def read_history(self, variant_id: str | None = None) -> "pd.DataFrame":
        """See `RunFolder.read_history`."""
        if variant_id is None:
            trials = self.read_trials("identity")
        else:
            trials = self.index().read([variant_id], "identity")
        return self.history_of(trials)

    def history_of(self, trials: "pd.DataFrame") -> "pd.DataFrame":
        """One row per epoch of some trials, as `RunFolder.read_history` gives them.

        Args:
            trials: Rows of `read_trials`.
        """
        wanted = by_part(trials).items()
        return unite_history(
            [
                read_part(self.history_dir / f"{name}.parquet", trial_ids=trial_ids)
                for name, trial_ids in wanted
            ]
        )

    def read_history_by_part(self, trials: "pd.DataFrame") -> "Iterator[pd.DataFrame]":
        """The seeds, epochs and logs of some trials, one part after the other.

        Args:
            trials: Rows of `read_trials`.
        """
        for name, trial_ids in by_part(trials).items():
            part = self.history_dir / f"{name}.parquet"
            yield read_part(part, "curves", trial_ids=trial_ids).to_pandas()

    def index(self) -> "TrialIndex":
        """What the parts hold; no more than one of them is in memory."""
        with naming_the_cure(self.path):
            return _index(self)


@contextmanager
def naming_the_cure(run: Path) -> Iterator[None]:
    """Adds to an error about a part what to do about it."""
    try:
        yield
    except FileError as error:
        raise FileError(f"{error}\n`trialrun resume {run}` sets it aside") from error


@dataclass(frozen=True, slots=True, eq=False)
class TrialIndex:
    """Which variants the parts of a run hold, and where: memory for variants, not for trials.

    A trial that was tried more than once is one of one variant, so that of whole variants the
    latest rows can be told without the others.

    Attributes:
        variant_ids: (variants,) sorted, which is the order of the search.
        seeds: (seeds,) int64 ascending, of all variants together.
        metrics: The metric columns that any part has.
        parameters: variant_id -> searched dotted path -> value.
    """

    variant_ids: tuple[str, ...]
    seeds: npt.NDArray[np.int64]
    metrics: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    _tables: TrialTables
    _parts_of: Mapping[str, Sequence[Path]]

    def by_variants(
        self, columns: TrialColumns, max_trials: int = TRIALS_AT_A_TIME
    ) -> "Iterator[pd.DataFrame]":
        """All trials as `read_trials` gives them, in chunks of whole variants.

        Without trials there is one chunk, which is empty.

        Args:
            columns: As of `read_trials`.
            max_trials: Of a chunk; only one variant alone may have more.
        """
        step = max(1, max_trials // max(1, len(self.seeds)))
        for start in range(0, max(1, len(self.variant_ids)), step):
            yield self.read(self.variant_ids[start : start + step], columns)

    def read(self, variant_ids: Sequence[str], columns: TrialColumns) -> "pd.DataFrame":
        """All trials of some variants, as `read_trials` gives them, with the metrics of all."""
        parts = dict.fromkeys(part for one in variant_ids for part in self._parts_of.get(one, ()))
        with naming_the_cure(self._tables.path):
            rows = [read_part(part, columns, variant_ids=variant_ids) for part in parts]
        return latest_trials(rows, self.metrics if columns in _WITH_METRICS else ())


_WITH_METRICS: tuple[TrialColumns, ...] = ("all", "numbers", "results")


def _index(tables: TrialTables) -> TrialIndex:
    parts_of: dict[str, list[Path]] = {}
    names: dict[str, None] = {}
    parameters: dict[str, Mapping[str, Any]] = {}
    seeds = np.zeros(0, np.int64)
    for part in list_parts(tables.trials_dir):
        names |= dict.fromkeys(column_names(part))
        rows = read_part(part, "places")
        found = parameters_by_variant([rows])
        parameters |= {one: found[one] for one in found if one not in parameters}
        for variant_id in found:
            parts_of.setdefault(variant_id, []).append(part)
        seeds = np.union1d(seeds, rows["seed"].to_numpy())
    return TrialIndex(
        variant_ids=tuple(sorted(parts_of)),
        seeds=seeds,
        metrics=tuple(metric_names(list(names))),
        parameters=parameters,
        _tables=tables,
        _parts_of=parts_of,
    )
