"""A run from its beginning to its end, from a job to the best model; imports no TensorFlow."""

import logging
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.aggregate import variant_rows
from trialrun.best import export_best, try_saving
from trialrun.datasets import census_of, check_data
from trialrun.environment import write_environment
from trialrun.errors import (
    ClusterError,
    ClusterLost,
    ExportError,
    FileError,
    InputError,
)
from trialrun.export import ExportProcess, SavedModel
from trialrun.files import write_json
from trialrun.interrupts import EXIT_INTERRUPTED, Interrupted, Interrupts
from trialrun.job import DataSpec, LoadedJob, dump_job
from trialrun.lease import hold
from trialrun.merge import adopt_packs, check_shards
from trialrun.places import describe_place
from trialrun.plan import Trial, plan_trials, shard_trials
from trialrun.progress import ProgressLine
from trialrun.report import build_report
from trialrun.resume import missing_trials, only_output_differs
from trialrun.standing import Standing, Tally, data_warnings, run_summary
from trialrun.store import RunFolder, distinct_tasks
from trialrun.trackers import require_packages, show_in_trackers
from trialrun.trainer import Work, connect_to_cluster, timed, train_missing

if TYPE_CHECKING:
    from trialrun.cluster import Cluster

_log = logging.getLogger(__name__)

_MAX_DATA_CHECKS = 10
# Weights of the best trials are kept, because a run may grow later: with more seeds, another
# variant may win.
_MAX_STATES_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: The run folder.
        num_completed: Trials that completed.
        num_failed: Trials that failed (diverged ones are a result, not a failure).
        has_winner: Whether a variant was selected.
        has_model: Whether the best model was saved in at least one format that loads again.
        interrupted: What ended the run early, so that `resume` can finish it; None if nothing did.
        standing: Statistics of the trials; None if they were not computed.
    """

    run: RunFolder
    num_completed: int
    num_failed: int
    has_winner: bool
    has_model: bool
    interrupted: Interrupted | None = None
    standing: Standing | None = None


def run_job(
    loaded: LoadedJob,
    *,
    runs_dir: Path,
    run_folder: Path | None = None,
    address: str | None = None,
    command: Sequence[str] = (),
    progress: ProgressLine,
) -> Outcome:
    """Trains the trials of a job, selects on validation, saves the best model and the report.

    Args:
        loaded: The job; with `resources.shard`, only the trials of this shard are trained.
        runs_dir: The folder in which run folders are made.
        run_folder: The folder of the run, which is made if it does not exist. Trials that it holds
            are kept, and only missing ones are trained. None makes a new folder in `runs_dir`.
        address: The address of a Ray cluster; see `cluster.connect`.
        command: The command line, for environment.json.
        progress: Shows how far the run is.

    Raises:
        InputError: The job's data or model is wrong, or the run folder belongs to another job.
        ClusterError: Ray cannot be reached.
        RunLost: Another driver has taken over the run folder.
    """
    trials = plan_trials(loaded.spec)
    own = _own_trials(loaded, trials)
    _check_trackers(loaded)
    census = _check_first_data(own, loaded, progress)
    with _at_work(loaded, trials, runs_dir, run_folder, progress, census) as work:
        own_ids = {trial.trial_id for trial in own}
        missing = [trial for trial in _begin(work) if trial.trial_id in own_ids]
        if not missing and _has_ended_well(work.run):
            return _ended(work)
        return _complete(work, missing, address, command)


def merge_runs(
    loaded: LoadedJob,
    sources: Sequence[RunFolder],
    *,
    runs_dir: Path,
    run_folder: Path | None = None,
    command: Sequence[str] = (),
    progress: ProgressLine,
) -> Outcome:
    """Merges the runs of a job's shards: selects, saves the best model and the report.

    Args:
        loaded: The job, without a shard.
        sources: The runs of its shards; they are not changed.
        runs_dir, run_folder, command, progress: See `run_job`.

    Raises:
        InputError: A run belongs to another job, or trials are missing. The message says which.
    """
    if run_folder is not None and run_folder.resolve() in {s.path.resolve() for s in sources}:
        raise InputError(f"{run_folder}: is one of the runs to merge; give another folder")
    trials = plan_trials(loaded.spec)
    _check_trackers(loaded)
    check_shards(sources, loaded, trials)
    census = next(
        (summary["data"] for s in sources if (summary := s.read_summary()) and "data" in summary),
        (),
    )
    with _at_work(loaded, trials, runs_dir, run_folder, progress, census) as work:
        _begin(work)
        try:
            for source in sources:
                adopt_packs(work.run, source, work.lease.check)
        except KeyboardInterrupt:
            progress.warn(
                f"{work.run.path} holds only some of the trials; give the same command again"
            )
            raise
        write_environment(work.run, loaded, {"merged": [s.path for s in sources]}, command)
        return _complete(work, (), None, command)


def _own_trials(loaded: LoadedJob, trials: Sequence[Trial]) -> Sequence[Trial]:
    shard = loaded.spec.resources.shard
    own = shard_trials(trials, shard)
    if not own:
        text = (
            f"resources.shard {shard}: has no trial to train, as the job has only {len(trials)};"
            " take fewer shards"
        )
        raise InputError(loaded.locate(text))
    return own


@contextmanager
def _at_work(
    loaded: LoadedJob,
    trials: Sequence[Trial],
    runs_dir: Path,
    run_folder: Path | None,
    progress: ProgressLine,
    census: Sequence[Mapping[str, Any]],
) -> Iterator[Work]:
    """The work on a run: its folder is held against other drivers, its log and signals are set."""
    job = loaded.spec
    run = RunFolder.create(runs_dir, job.name) if run_folder is None else RunFolder.at(run_folder)
    if not run.job_file.exists():
        run.write_job(dump_job(job))
    elif not run.lease_dir.exists() and run.job_file.read_text() != dump_job(job):
        raise InputError(
            f"{run.path}: holds a job.yaml but no run of this job; give another folder"
        )
    interrupts = Interrupts(lambda: progress.say(f"stopping, within {job.resources.grace_s:g} s"))
    with (
        _logging_to(run.log_file),
        progress,
        interrupts,
        hold(run.lease_dir, progress.say) as lease,
    ):
        progress.tell(f"Run folder: {describe_place(run.path)}")
        for warning in data_warnings(census):
            progress.warn(warning)
        started_s = time.perf_counter()
        yield Work(loaded, tuple(trials), run, lease, progress, interrupts, started_s, {}, census)


def _complete(
    work: Work, missing: Sequence[Trial], address: str | None, command: Sequence[str]
) -> Outcome:
    """Trains missing trials and ends the run, or records why it ended early."""
    _unfinish(work.run)
    try:
        return _finish(work, saved=_train_and_export(work, missing, address, command))
    except KeyboardInterrupt as error:  # Ray turns our Interrupted into a plain KeyboardInterrupt
        interrupted = error if isinstance(error, Interrupted) else work.interrupts.error()
    except SystemExit as error:  # from Ray's handler of SIGTERM, until ours replaces it
        if error.code != signal.SIGTERM:
            raise
        interrupted = Interrupted(EXIT_INTERRUPTED)
    except ClusterLost as error:
        _log.error("%s", error)
        interrupted = Interrupted(EXIT_INTERRUPTED, str(error))
    except FileError as error:
        hint = f"Finished trials are safe; to continue: trialrun resume {work.run.path}"
        raise FileError(f"{error}\n{hint}") from error
    return _finish(work, interrupted=interrupted)


def _begin(work: Work) -> list[Trial]:
    """Prepares the run folder for this job; returns the trials that are missing from it."""
    for line in work.run.set_aside_broken():
        work.progress.warn(line)
    missing = missing_trials(work.run, work.loaded, work.trials, work.progress.warn)
    if work.run.job_file.read_text() != (text := dump_job(work.loaded.spec)):
        if not only_output_differs(work.run, work.loaded):
            _unfinish(work.run)
        work.run.write_job(text)
    return missing


def _unfinish(run: RunFolder) -> None:
    """Marks the run unfinished again; the report, written last, is removed first."""
    run.report_file.unlink(missing_ok=True)
    run.summary_file.unlink(missing_ok=True)


def _has_ended_well(run: RunFolder) -> bool:
    """Whether a run has ended and its best model, if it has one, was saved."""
    summary = run.read_summary()
    return summary is not None and (summary.get("best_model") or {"proved": True})["proved"]


def _train_and_export(
    work: Work, missing: Sequence[Trial], address: str | None, command: Sequence[str]
) -> SavedModel | None:
    """Trains missing trials and saves the best model; None if nothing could be selected.

    Once trials are recorded, an error in saving is part of the result and not raised, so that the
    report is still written. Only what ends the run early is raised.
    """
    # The export process imports TensorFlow while packs are trained, and it exports the best model
    # while Ray shuts down.
    with ThreadPoolExecutor(1) as background, ExportProcess(work.run.log_file) as exporter:
        with ExitStack() as connection:
            cluster: Cluster | None = None
            if missing:
                cluster = connect_to_cluster(work, connection, address, command)
                background.submit(try_saving, exporter, work, missing)
                with timed(work.timings_s, "train"):
                    train_missing(work, missing, cluster)
            standing = _standing(work)
            try:
                while (best := _best_without_state(work, standing)) is not None:
                    if cluster is None:
                        cluster = connect_to_cluster(work, connection, address, command)
                    standing = _train_again(work, best, cluster)
            except (ExportError, InputError, ClusterError) as error:
                if isinstance(error, ClusterLost):
                    raise
                return SavedModel.lost(f"the best trial cannot be trained again: {error}")
            if standing is None or standing.leaderboard.selection is None:
                return None
            work.progress.say("saving the best model")
            export = background.submit(export_best, exporter, work, standing)
        return export.result()


def _train_again(work: Work, trial_id: str, cluster: "Cluster") -> Standing | None:
    """Trains a trial again whose weights are no longer kept; afterwards another may be the best."""
    train_missing(work, [trial for trial in work.trials if trial.trial_id == trial_id], cluster)
    if not work.run.kept.has_state(trial_id):
        raise ExportError(f"trial {trial_id} failed; see the run's log")
    return _standing(work)


def _check_trackers(loaded: LoadedJob) -> None:
    try:
        require_packages(loaded.spec.output)
    except InputError as error:
        raise InputError(loaded.locate(str(error))) from error


def _check_first_data(
    trials: Sequence[Trial], loaded: LoadedJob, progress: ProgressLine
) -> list[dict[str, Any]]:
    """Loads the data of one trial per data setting, so that wrong data is found at once.

    Returns:
        For summary.json, per data setting: the trial's seed and the census of its parts.
    """
    checked: list[DataSpec] = []
    census = []
    notes: dict[str, None] = {}
    for trial in trials:
        data = trial.variant.data
        if data not in checked and len(checked) < _MAX_DATA_CHECKS:
            checked.append(data)
            try:
                raw = check_data(data, loaded.folder, trial.seed)
            except InputError as error:
                raise InputError(loaded.locate(str(error))) from error
            census.append({"seed": trial.seed, **census_of(raw).to_json()})
            notes |= dict.fromkeys(() if raw.summary is None else raw.summary.notes)
    for note in notes:
        progress.warn(note)
    return census


def _tally(work: Work) -> Tally:
    select = work.loaded.spec.select
    return Tally(work.run, metric=select.metric, goal=select.goal, statistic=select.statistic)


def _standing(work: Work) -> Standing | None:
    """The statistics of the trials in the run folder, without matrices; None without trials."""
    tally = _tally(work)
    return None if tally.is_empty else tally.take_numbers().standing()


def _best_without_state(work: Work, standing: Standing | None) -> str | None:
    """The id of the best trial if its weights are no longer kept, so that it is trained again."""
    if standing is None or standing.leaderboard.selection is None:
        return None
    best = standing.leaderboard.selection.trial_id
    return None if work.run.kept.has_state(best) else best


def _finish(
    work: Work, *, saved: SavedModel | None = None, interrupted: Interrupted | None = None
) -> Outcome:
    """Writes the tables and, unless interrupted, the summary and the report of a run."""
    work.progress.say("writing the report")
    work.timings_s["total"] = time.perf_counter() - work.started_s
    run = work.run
    tally = _tally(work)
    if tally.is_empty:
        return Outcome(run, 0, 0, False, False, interrupted)
    packs = run.read_packs()
    class_names = next((pack.class_names for pack in packs if pack.class_names), ())
    work.lease.check()
    run.write_confusion_matrices(class_names, tally.matrices())
    standing = tally.standing()
    run.write_variants(variant_rows(standing.leaderboard))
    if interrupted is None:
        summary = run_summary(
            work.loaded.spec.name,
            standing,
            timings_s=work.timings_s,
            model_summary="" if saved is None else saved.summary,
            best_model=None if saved is None else saved.to_json(),
            data=work.census,
            model_tasks=distinct_tasks(packs),
        )
        write_json(run.summary_file, summary)
        run.kept.remove_checkpoints()
        run.kept.limit_states(_MAX_STATES_BYTES)
        build_report(run, standing)
        _show_in_trackers(work)
    counts = standing.counts
    return Outcome(
        run,
        num_completed=counts["completed"],
        num_failed=counts["failed"],
        has_winner=standing.leaderboard.selection is not None,
        has_model=saved is not None and saved.is_proved,
        interrupted=interrupted,
        standing=standing,
    )


def _show_in_trackers(work: Work) -> None:
    """Writes the run to TensorBoard and MLflow if its job says so; failures are only warnings."""
    work.progress.say("writing to trackers")
    for problem in show_in_trackers(work.run, work.loaded.spec.output):
        again = f"the run itself is complete; to try again: trialrun report {work.run.path}"
        work.progress.warn(f"{problem}; {again}")


def _ended(work: Work) -> Outcome:
    """The outcome of a run that has already ended, or was killed after its summary was written.

    It is written to its trackers again: it may have been killed in doing so, or its job may have
    named a tracker only afterwards.
    """
    run = work.run
    if not run.report_file.exists():
        build_report(run)
    _show_in_trackers(work)
    summary = run.read_summary()
    assert summary is not None  # `_has_ended_well` has checked it
    counts = summary["counts"]
    has_winner = summary["selection"] is not None
    return Outcome(run, counts["completed"], counts["failed"], has_winner, has_winner)


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
