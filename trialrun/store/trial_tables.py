"""The trial tables of a run folder, read whole, or some variants at a time to keep memory small."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from trialrun.errors import FileError
from trialrun.messages import command_for
from trialrun.store.columns import DATA_FINGERPRINT, TrialColumns, metric_names
from trialrun.store.parquet import by_pack_file, columns_in, list_pack_files, read_pack_file
from trialrun.store.rows import as_if_ended, latest_trials, parameters_by_variant, unite_history

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

# Rows of a chunk: about 20 MB of numbers and matrices, so that few chunks read each file again.
TRIALS_AT_A_TIME = 1 << 15


@dataclass(frozen=True, slots=True)
class TrialTables:
    """The Parquet files in `trials/` and `history/` of one run.

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
        with adding_the_remedy(self.path):
            return latest_trials(
                [
                    read_pack_file(file, columns, trial_ids=trial_ids)
                    for file in list_pack_files(self.trials_dir)
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
        """One row per epoch of some trials, as from `RunFolder.read_history`.

        Args:
            trials: Rows of `read_trials`.
        """
        wanted = by_pack_file(trials).items()
        return unite_history(
            [
                read_pack_file(self.history_dir / f"{name}.parquet", trial_ids=trial_ids)
                for name, trial_ids in wanted
            ]
        )

    def read_history_by_file(self, trials: "pd.DataFrame") -> "Iterator[pd.DataFrame]":
        """The seeds, epochs and logs of some trials, one file after the other.

        Args:
            trials: Rows of `read_trials`.
        """
        for name, trial_ids in by_pack_file(trials).items():
            file = self.history_dir / f"{name}.parquet"
            yield read_pack_file(file, "curves", trial_ids=trial_ids).to_pandas()

    def origins(self) -> "Origins":
        """Where the numbers of the trials come from, as far as they say it."""
        fingerprints: dict[str, str] = {}
        versions: dict[str, set[str]] = {}
        with adding_the_remedy(self.path):
            for file in list_pack_files(self.trials_dir):
                rows = read_pack_file(file, "origin").to_pydict()
                ids, prints = rows.pop("trial_id"), rows.pop(DATA_FINGERPRINT, ())
                fingerprints |= dict(zip(ids, prints, strict=False))
                for name, values in rows.items():
                    versions.setdefault(name, set()).update(filter(None, values))
        return Origins(fingerprints, versions)

    def index(self) -> "TrialIndex":
        """The index of the files, which are read one at a time to save memory."""
        with adding_the_remedy(self.path):
            return _index(self)


@dataclass(frozen=True, slots=True)
class Origins:
    """Where the numbers of a run's trials come from.

    Attributes:
        fingerprints: trial_id -> a hash of the trial's data as it was generated, if there is one.
        versions: Column, see `store.columns.version_column` -> the versions of the trials.
    """

    fingerprints: Mapping[str, str]
    versions: Mapping[str, set[str]]


@contextmanager
def adding_the_remedy(run: Path) -> Iterator[None]:
    """Adds to an error about a file what to do about it."""
    try:
        yield
    except FileError as error:
        raise FileError(
            f"{error}\n`{command_for('resume', run)}` sets the file aside and trains its trials"
            " again"
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class TrialIndex:
    """Which variants the Parquet files of a run hold; its memory grows with variants, not trials.

    All rows of a trial that was trained more than once belong to one variant. Therefore whole
    variants can be read, with the latest row of each trial, without the other variants.

    Attributes:
        variant_ids: Ids of the variants (variants,), sorted, which is the order of the search.
        seeds: The seeds of all variants together, int64 (seeds,), ascending.
        metrics: The metric columns that some file has.
        parameters: variant_id -> searched dotted path -> value.
    """

    variant_ids: tuple[str, ...]
    seeds: npt.NDArray[np.int64]
    metrics: tuple[str, ...]
    parameters: Mapping[str, Mapping[str, Any]]
    _tables: TrialTables
    _files_of: Mapping[str, Sequence[Path]]
    _hidden: frozenset[int] = frozenset()
    _change: "Callable[[Sequence[pa.Table]], list[pa.Table]] | None" = None

    def without(self, seeds: Collection[int]) -> "TrialIndex":
        """The index of the trials that have other seeds."""
        left = self.seeds[~np.isin(self.seeds, list(seeds))]
        return replace(self, seeds=left, _hidden=self._hidden | frozenset(seeds))

    def at(self, epochs: int | None) -> "TrialIndex":
        """The index of the trials as if all training ended after an epoch; see `as_if_ended`."""
        return replace(self, _change=partial(as_if_ended, epochs=epochs))

    def by_variants(
        self, columns: TrialColumns, max_trials: int = TRIALS_AT_A_TIME
    ) -> "Iterator[pd.DataFrame]":
        """All trials as from `read_trials`, in chunks of whole variants.

        Without trials there is one empty chunk.

        Args:
            columns: See `read_trials`.
            max_trials: The most trials of a chunk; a chunk of a single variant may have more.
        """
        step = max(1, max_trials // max(1, len(self.seeds)))
        for start in range(0, max(1, len(self.variant_ids)), step):
            yield self.read(self.variant_ids[start : start + step], columns)

    def read(self, variant_ids: Sequence[str], columns: TrialColumns) -> "pd.DataFrame":
        """All trials of some variants as from `read_trials`, with the metrics of all variants."""
        files = dict.fromkeys(
            file for variant_id in variant_ids for file in self._files_of.get(variant_id, ())
        )
        with adding_the_remedy(self._tables.path):
            rows = [read_pack_file(file, columns, variant_ids=variant_ids) for file in files]
        if self._change is not None:
            rows = self._change(rows)
        found = latest_trials(rows, self.metrics if columns in _WITH_METRICS else ())
        if not self._hidden:
            return found
        return found[~found["seed"].isin(self._hidden)].reset_index(drop=True)


_WITH_METRICS: tuple[TrialColumns, ...] = ("all", "numbers", "results")


def _index(tables: TrialTables) -> TrialIndex:
    files_of: dict[str, list[Path]] = {}
    names: dict[str, None] = {}
    parameters: dict[str, Mapping[str, Any]] = {}
    seeds = np.zeros(0, np.int64)
    for file in list_pack_files(tables.trials_dir):
        names |= dict.fromkeys(columns_in(file))
        rows = read_pack_file(file, "variants")
        found = parameters_by_variant([rows])
        parameters |= {variant: found[variant] for variant in found if variant not in parameters}
        for variant_id in found:
            files_of.setdefault(variant_id, []).append(file)
        seeds = np.union1d(seeds, rows["seed"].to_numpy())
    return TrialIndex(
        variant_ids=tuple(sorted(files_of)),
        seeds=seeds,
        metrics=tuple(metric_names(list(names))),
        parameters=parameters,
        _tables=tables,
        _files_of=files_of,
    )
