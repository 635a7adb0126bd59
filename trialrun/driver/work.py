"""What a driver works with while it is at work on a run: the folder, held, and its log."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trialrun.analysis.summary_json import data_warnings
from trialrun.data.fingerprint import DataSample
from trialrun.driver.forwarded import changed_variables, forwarded_variables
from trialrun.driver.interrupts import Interrupts
from trialrun.driver.kept import InTraining
from trialrun.driver.limits import Deadline, limited
from trialrun.driver.progress import ProgressLine
from trialrun.errors import FileError, InputError
from trialrun.job import LoadedJob, dump_job
from trialrun.job.user_code.files import UserFiles
from trialrun.store import RunFolder
from trialrun.store.lease import Lease, hold
from trialrun.store.runs_dir import location_text
from trialrun.trials.trial import Trial


@dataclass(frozen=True, slots=True)
class Work:
    """The work on a run: all that the steps of a run need.

    Attributes:
        loaded: The job.
        trials: All trials of the job, including those of other shards.
        run: The run folder.
        lease: The right to write into the folder.
        progress: Shows how far the run is.
        interrupts: Tells whether the run was asked to end.
        started_s: When the run began, by `time.perf_counter`.
        timings_s: Stage -> seconds of wall time.
        census: What summary.json holds about the data, see `analysis.summary_json.run_summary`.
        files: The user's files as they were when the run began.
        samples: What generators gave here, with which workers compare what they get.
        variables: Environment variables that workers are given.
        in_training: Which trials have no result yet, and how far they are.
    """

    loaded: LoadedJob
    trials: tuple[Trial, ...]
    run: RunFolder
    lease: Lease
    progress: ProgressLine
    interrupts: Interrupts
    started_s: float
    timings_s: dict[str, float]
    census: Sequence[Mapping[str, Any]]
    files: UserFiles = field(default_factory=UserFiles)
    samples: tuple[DataSample, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    in_training: InTraining = field(default_factory=InTraining)


@dataclass(frozen=True, slots=True)
class Batch:
    """Trials that are trained before the next decision.

    Attributes:
        trials: The trials.
        pause_after: The epoch after which they are paused; None to train them to their end.
    """

    trials: Sequence[Trial] = ()
    pause_after: int | None = None


@contextmanager
def timed(timings_s: dict[str, float], stage: str) -> Iterator[None]:
    """Adds to `timings_s` how many seconds a stage took."""
    start = time.perf_counter()
    try:
        yield
    finally:
        timings_s[stage] = timings_s.get(stage, 0.0) + time.perf_counter() - start


@contextmanager
def at_work(
    loaded: LoadedJob,
    trials: Sequence[Trial],
    runs_dir: Path,
    run_folder: Path | None,
    progress: ProgressLine,
    census: Sequence[Mapping[str, Any]],
    *,
    files: UserFiles,
    interrupts: Interrupts,
    deadline: Deadline | None = None,
) -> Iterator[Work]:
    """The work on a run: its folder is held against other drivers, and its log and limits are set.

    Args:
        loaded, trials, progress, census, files, interrupts: See `Work`.
        runs_dir, run_folder: See `run.run_job`.
        deadline: When the run must begin to end.
    """
    job = loaded.spec
    run = RunFolder.create(runs_dir, job.name) if run_folder is None else RunFolder.at(run_folder)
    progress.course.run_folder = run.path
    if not run.job_file.exists():
        run.write_job(dump_job(job))
    elif not run.lease_dir.exists() and run.job_file.read_text() != dump_job(job):
        raise InputError(
            f"{run.path}: holds a job.yaml but no run of this job; give another folder"
        )
    with (
        _logging_to(run.log_file),
        progress,
        hold(run.lease_dir, progress.say) as lease,
        limited(lease, interrupts, deadline),
    ):
        progress.tell(f"Run folder: {location_text(run.path)}")
        for warning in data_warnings(census):
            progress.warn(warning)
        started_s = time.perf_counter()
        variables = forwarded_variables(loaded)
        for line in changed_variables(run, variables):
            progress.warn(line)
        known = (loaded, tuple(trials), run, lease, progress, interrupts)
        yield Work(*known, started_s, {}, census, files, variables=variables)


class _LogFile(logging.FileHandler):
    """A log file that drops records if the disk is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Does nothing: a full disk is reported where it causes a loss."""


@contextmanager
def _logging_to(log_file: Path) -> Iterator[None]:
    """Sends trialrun's log records to the run's own file."""
    try:
        handler = _LogFile(log_file)
    except OSError as error:
        raise FileError(f"{log_file}: cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("trialrun")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
