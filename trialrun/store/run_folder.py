"""The run folder: every path in it, and how each file is written and read.

Every file is written whole or not at all (`files`). Refuses to know what the numbers mean:
`columns` and `rows` give the tables, `trialrun.analysis` the statistics.
"""

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.errors import InputError
from trialrun.job.document import read_document
from trialrun.messages import show
from trialrun.store.best_files import BestFiles
from trialrun.store.columns import ParameterKind, TrialColumns, pack_file_name
from trialrun.store.files import write_bytes, write_text
from trialrun.store.foreign import read_mapping, require_plain
from trialrun.store.kept_arrays import KeptArrays
from trialrun.store.pack_records import PackRecord, facts_of, read_pack_records
from trialrun.store.parquet import list_pack_files, write_pack_file
from trialrun.store.round_log import RoundLog
from trialrun.store.rows import history_table, trial_table
from trialrun.store.runs_dir import require_lasting, what_is_at
from trialrun.store.trial_tables import TrialIndex, TrialTables
from trialrun.store.variants_csv import write_variants_csv
from trialrun.trials.results import Output, PackResult

if TYPE_CHECKING:
    import pandas as pd

_MAX_LOG_CHARACTERS = 1 << 20
_SECTIONS = ("data", "model", "training", "search", "select", "resources", "output")
_NUMBER_OF_PACK = re.compile(r"p(\d+)")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """One run folder: `create` makes a new one, `open` opens an existing one.

    Attributes:
        path: The folder. It is a run folder as soon as it holds `job.yaml`.
    """

    path: Path

    @classmethod
    def create(cls, runs_dir: str | Path, job_name: str) -> "RunFolder":
        """A new empty folder `<runs_dir>/<job_name>/<UTC time>-<short id>`.

        Args:
            runs_dir: The folder of run folders; it is made if it does not exist.
            job_name: Name of the job, which must be usable as a folder's name.

        Raises:
            InputError: The name cannot be a folder's name, or the folder cannot be made, or lies
                where Ray will delete it.
        """
        if job_name in {"", ".", ".."} or "/" in job_name or "\0" in job_name:
            raise InputError(f"a job's name must be usable as a folder's name, got {job_name!r}")
        started = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        path = Path(runs_dir) / job_name / f"{started}-{secrets.token_hex(3)}"
        require_lasting(path)
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise InputError(
                f"{path}: cannot make the run folder: {error.strerror}; choose another --runs-dir"
            ) from error
        return cls(path)

    @classmethod
    def at(cls, path: str | Path) -> "RunFolder":
        """The run folder at `path`, or an empty folder there that will become one.

        Raises:
            InputError: Something else is there, or the folder cannot be made, or lies where Ray
                will delete it.
        """
        folder = cls(Path(path))
        require_lasting(folder.path)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            names = [name.name for name in folder.path.iterdir() if not name.name.startswith(".")]
        except OSError as error:
            raise InputError(f"{path}: cannot make the run folder: {error.strerror}") from error
        if names and not folder.job_file.is_file():
            raise InputError(
                f"{path}: is neither a run folder nor empty: it holds {names[0]} but no job.yaml;"
                " give another folder"
            )
        return folder

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """The run folder at `path`.

        Raises:
            InputError: It is no run folder, and the message says what is there instead; or it holds
                what no run folder holds, see `foreign.require_plain`.
        """
        folder = cls(Path(path))
        if not folder.job_file.is_file():
            raise InputError(f"{path}: is not a run folder: {what_is_at(folder.path)}")
        require_plain(folder.path)
        return folder

    @property
    def job_file(self) -> Path:
        """The resolved job."""
        return self.path / "job.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, git revision, command line, devices, Ray address."""
        return self.path / "environment.json"

    @property
    def trials_dir(self) -> Path:
        """One Parquet file per pack: one row per trial."""
        return self.tables.trials_dir

    @property
    def history_dir(self) -> Path:
        """One Parquet file per pack: one row per trial and epoch."""
        return self.tables.history_dir

    @property
    def lease_dir(self) -> Path:
        """The leases of drivers that work on this run."""
        return self.path / "lease"

    @property
    def set_aside_dir(self) -> Path:
        """Files that were damaged or did not belong to this run."""
        return self.path / "set_aside"

    @property
    def status_file(self) -> Path:
        """How far the run is, written every few seconds while a driver works on it."""
        return self.path / "status.json"

    @property
    def costs_file(self) -> Path:
        """What each variant has cost, written together with the status."""
        return self.path / "costs.json"

    @property
    def variants_file(self) -> Path:
        """One row per variant."""
        return self.path / "variants.csv"

    @property
    def dropped_file(self) -> Path:
        """One row per variant that was dropped in a round; only in runs with rounds."""
        return self.path / "dropped_variants.csv"

    @property
    def summary_file(self) -> Path:
        """What was selected and why; it exists only if the run has ended."""
        return self.path / "summary.json"

    @property
    def confusion_matrices_file(self) -> Path:
        """Confusion matrices per variant, pooled and per seed."""
        return self.path / "confusion_matrices.json"

    @property
    def figures_dir(self) -> Path:
        """The figures as PNG and SVG files."""
        return self.path / "figures"

    @property
    def report_file(self) -> Path:
        """The report, a self-contained page."""
        return self.path / "report.html"

    @property
    def tensorboard_dir(self) -> Path:
        """Files for TensorBoard, if the job asks for them."""
        return self.path / "tensorboard"

    @property
    def tracking_file(self) -> Path:
        """The ids by which MLflow finds the run again."""
        return self.path / "tracking.json"

    @property
    def log_file(self) -> Path:
        """The log of the run."""
        return self.path / "run.log"

    @property
    def logs_dir(self) -> Path:
        """What the processes of packs wrote, of packs that failed."""
        return self.path / "logs"

    @property
    def rounds(self) -> RoundLog:
        """The rounds of the search, as they were decided; empty if there are none."""
        return RoundLog(self.path / "search")

    @property
    def kept(self) -> KeptArrays:
        """States of the best trials, and checkpoints."""
        return KeptArrays(self.path)

    @property
    def tables(self) -> TrialTables:
        """The tables of trials and their history."""
        return TrialTables(self.path)

    def choosing_trials(self) -> TrialIndex:
        """The index of all trials but those of fresh seeds, which only confirm."""
        return self.tables.index().without(self.rounds.fresh_seeds())

    def best(self, job_name: str) -> BestFiles:
        """The paths of the best model's files."""
        return BestFiles(self.path / "best", job_name)

    def write_job(self, text: str) -> None:
        """Writes the resolved job, which makes the folder a run folder."""
        write_text(self.job_file, text)

    def read_job(self) -> dict[str, Any]:
        """The resolved job as plain values, without checks of its fields: trialrun wrote it.

        Raises:
            InputError: The file cannot be read, or its name or a section is not what it should be,
                as `resume` would say.
        """
        document = read_document(self.job_file)
        job: dict[str, Any] = document.value
        for key in ("name", *_SECTIONS):
            value, kind = job.get(key, {}), str if key == "name" else dict
            if not isinstance(value, kind):
                what = "text" if key == "name" else "a mapping"
                problem = (
                    f"{key} must be {what}, got {show(value)}" if key in job else "name is missing"
                )
                raise InputError(f"{document.location_of((key,))}: {problem}")
        return job

    def write_pack(self, result: PackResult, kinds: Mapping[str, ParameterKind]) -> None:
        """Writes the trials of a pack and their history; replaces only files of the same attempt.

        The history is written first, so that every recorded trial has its history.

        Args:
            result: The result of the pack.
            kinds: Column types of the searched parameters, from `columns.parameter_kinds`.
        """
        name = pack_file_name(result.pack_id, result.trials[0].attempt) + ".parquet"
        write_pack_file(self.history_dir / name, history_table(result))
        write_pack_file(self.trials_dir / name, trial_table(result, kinds), facts_of(result))

    def read_trials(
        self, columns: TrialColumns = "all", trial_ids: Sequence[str] | None = None
    ) -> "pd.DataFrame":
        """One row per trial, sorted by variant and seed.

        Lists and mappings among the searched parameters are JSON text, as in the files;
        `read_parameters` gives their values.

        Args:
            columns: See `columns.columns_of`.
            trial_ids: Only these trials are read; absent: all.
        """
        return self.tables.read_trials(columns, trial_ids)

    def read_history(self, variant_id: str | None = None) -> "pd.DataFrame":
        """One row per trial and epoch, in the order of the trials.

        Args:
            variant_id: Only the trials of this variant are read; absent: all.
        """
        return self.tables.read_history(variant_id)

    def read_parameters(self) -> Mapping[str, Mapping[str, Any]]:
        """variant_id -> searched dotted path -> value, for every variant that has a trial."""
        return self.tables.index().parameters

    def read_packs(self) -> tuple[PackRecord, ...]:
        """The facts about each pack as a whole, from its last attempt."""
        return read_pack_records(self.trials_dir)

    def next_pack_number(self) -> int:
        """The number after the highest that a pack of this run has used."""
        names = [
            path.stem
            for path in (*list_pack_files(self.trials_dir), *list_pack_files(self.history_dir))
        ]
        names += [path.stem for path in self.kept.files()]
        numbers = [_NUMBER_OF_PACK.match(name.removeprefix("part-")) for name in names]
        return 1 + max((int(found[1]) for found in numbers if found), default=-1)

    def write_variants(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes variants.csv from rows of `analysis.variants.variant_rows`."""
        write_variants_csv(self.variants_file, rows)

    def write_dropped(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes dropped_variants.csv, as `write_variants` does variants.csv."""
        write_variants_csv(self.dropped_file, rows)

    def read_summary(self) -> dict[str, Any] | None:
        """The content of summary.json; None if the run has not ended."""
        if not self.summary_file.exists():
            return None
        return read_mapping(self.summary_file)

    def read_environment(self) -> dict[str, Any] | None:
        """The content of environment.json; None if it does not exist.

        Raises:
            TrialrunError: The file is damaged.
        """
        if not self.environment_file.exists():
            return None
        return read_mapping(self.environment_file)

    def read_environments(self) -> list[dict[str, Any]]:
        """What environment.json says of each command that has trained or merged, the last first.

        Raises:
            TrialrunError: The file is damaged.
        """
        last = self.read_environment()
        return [] if last is None else [last, *last.get("earlier", [])]

    def write_output(self, output: Output) -> None:
        """Adds what a pack's process wrote to `logs/<pack>.log`, below that of earlier attempts."""
        file = self.logs_dir / f"{output.pack_id}.log"
        before = file.read_text(errors="replace") if file.is_file() else ""
        heading = f"=== {output.pack_id}, attempt {output.attempt} ==="
        text = f"{before}{heading}\n{output.text.rstrip() or '(nothing was written)'}\n"
        write_bytes(file, text[-_MAX_LOG_CHARACTERS:].encode(errors="replace"))

    def write_figure(self, name: str, *, png: bytes, svg: bytes) -> None:
        """Writes `figures/<name>.png` and `figures/<name>.svg`."""
        write_bytes(self.figures_dir / f"{name}.png", png)
        write_bytes(self.figures_dir / f"{name}.svg", svg)
