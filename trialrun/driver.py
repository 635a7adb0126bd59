"""The story of a run, from a job to the best model. Needs no TensorFlow in this process."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.aggregate import (
    Leaderboard,
    PooledMatrices,
    build_leaderboard,
    confusion_matrices,
    count_trials,
    pool_matrices,
    run_summary,
    split_by_variant,
    variant_rows,
)
from trialrun.datasets import check_data
from trialrun.environment import write_environment
from trialrun.errors import ClusterLost, ExportError, FileError, InputError
from trialrun.export import ExportProcess
from trialrun.files import write_json
from trialrun.interrupts import EXIT_INTERRUPTED, Interrupted, Interrupts, kill_descendants
from trialrun.job import DataSpec, LoadedJob, dump_job
from trialrun.lease import Lease, hold
from trialrun.packing import make_packs
from trialrun.plan import Pack, Trial, plan_trials
from trialrun.progress import ProgressLine
from trialrun.records import parameter_kinds
from trialrun.report import build_report
from trialrun.results import Checkpoint, PackResult, Progress
from trialrun.resume import missing_trials, packs_with_checkpoints, referenced_functions
from trialrun.sources import collect_files
from trialrun.store import RunFolder
from trialrun.training import PackTask

if TYPE_CHECKING:
    import pandas as pd

    from trialrun.cluster import Cluster

_log = logging.getLogger(__name__)

_MAX_DATA_CHECKS = 10
# A thousand devices are heard every five seconds, two every fifth of one.
_PROGRESS_INTERVAL_S = 0.2
_PROGRESS_S_PER_DEVICE = 0.005
# The best trials' arrays stay for runs that grow later: seeds are added, another variant wins.
_MAX_STATES_BYTES = 256 << 20
_TRIALS_WITH_MATRICES = 2048


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: The run folder.
        num_completed: Trials that completed.
        num_failed: Trials that failed (diverged ones are a result, not a failure).
        has_winner: Whether a variant was selected and its best model saved.
        interrupted: None, or what ended the run early; `resume` will finish it.
    """

    run: RunFolder
    num_completed: int
    num_failed: int
    has_winner: bool
    interrupted: Interrupted | None = None


@dataclass(frozen=True, slots=True)
class _Work:
    """What every chapter of the story needs."""

    loaded: LoadedJob
    run: RunFolder
    lease: Lease
    progress: ProgressLine
    interrupts: Interrupts
    timings_s: dict[str, float]


def run_job(
    loaded: LoadedJob,
    *,
    runs_dir: Path,
    resume: Path | None = None,
    address: str | None = None,
    command: Sequence[str] = (),
    progress: ProgressLine,
) -> Outcome:
    """Trains every trial of a job, selects on validation, saves the best model and the report.

    Args:
        loaded: The job.
        runs_dir: Where run folders are made.
        resume: A run folder of this job: what it holds is kept, and only what is missing is done.
        address: Of a Ray cluster; see `cluster.connect`.
        command: The command line, for environment.json.
        progress: Shows how far the run is.

    Raises:
        InputError: The job's data or model is wrong, or the run folder is not one of this job.
        ClusterError: Ray cannot be reached.
        ExportError: The saved best model is not the trained one.
        RunLost: Another driver has taken over.
    """
    started = time.perf_counter()
    job = loaded.spec
    trials = plan_trials(job)
    _check_first_data(trials, loaded)
    if resume is None:
        run = RunFolder.create(runs_dir, job.name)
        run.write_job(dump_job(job))
    else:
        run = RunFolder.open(resume)
    interrupts = Interrupts(lambda: progress.say(f"stopping, within {job.resources.grace_s:g} s"))
    with (
        _logging_to(run.log_file),
        progress,
        interrupts,
        hold(run.lease_dir, progress.say) as lease,
    ):
        work = _Work(loaded, run, lease, progress, interrupts, {})
        missing = _begin(work, trials)
        if not missing and run.summary_file.exists():
            return _ended(run)
        _unfinish(run)
        try:
            model_summary = _train_and_export(work, trials, missing, address, command)
            return _finish(work, started, model_summary=model_summary)
        except KeyboardInterrupt as error:  # inside Ray's calls ours becomes a plain one
            interrupted = error if isinstance(error, Interrupted) else interrupts.error()
        except SystemExit as error:  # Ray's own handler of SIGTERM, until ours replaces it
            if error.code != signal.SIGTERM:
                raise
            interrupted = Interrupted(EXIT_INTERRUPTED)
        except ClusterLost as error:
            _log.error("%s", error)
            interrupted = Interrupted(EXIT_INTERRUPTED, str(error))
        except FileError as error:
            hint = f"What was finished is safe; go on with: trialrun resume {run.path}"
            raise FileError(f"{error}\n{hint}") from error
        return _finish(work, started, interrupted=interrupted)


def _begin(work: _Work, trials: Sequence[Trial]) -> list[Trial]:
    """Looks at what the run folder holds, and takes over the job; returns what is to be trained."""
    for line in work.run.set_aside_broken():
        work.progress.warn(line)
    missing = missing_trials(work.run, work.loaded, trials, work.progress.warn)
    if work.run.job_file.read_text() != (text := dump_job(work.loaded.spec)):
        _unfinish(work.run)
        work.run.write_job(text)
    return missing


def _unfinish(run: RunFolder) -> None:
    """Takes back the word that the run has ended; the report comes last of all and goes first."""
    run.report_file.unlink(missing_ok=True)
    run.summary_file.unlink(missing_ok=True)


def _train_and_export(
    work: _Work,
    trials: Sequence[Trial],
    missing: Sequence[Trial],
    address: str | None,
    command: Sequence[str],
) -> str:
    """Trains what is missing and saves the best model; returns Keras's summary of it."""
    # The export process imports TensorFlow while packs are trained, and exports while Ray stops.
    with ExportProcess(work.run.log_file) as exporter, ThreadPoolExecutor(1) as background:
        with ExitStack() as connection:
            cluster: Cluster | None = None
            if missing:
                cluster = _connect(work, connection, address, command)
                with _timed(work.timings_s, "train"):
                    _train_missing(work, trials, missing, cluster)
            leaderboard = _leaderboard(work)
            tried: set[str] = set()
            while (best := _best_without_state(work, leaderboard)) is not None:
                if best in tried:
                    raise ExportError(f"trial {best} could not be trained again; see the run's log")
                tried.add(best)
                if cluster is None:
                    cluster = _connect(work, connection, address, command)
                _train_missing(work, trials, [t for t in trials if t.trial_id == best], cluster)
                leaderboard = _leaderboard(work)
            if leaderboard is None or leaderboard.selection is None:
                return ""
            work.progress.say("saving the best model")
            export = background.submit(_export, exporter, work, leaderboard)
        return export.result()


def _connect(
    work: _Work, connection: ExitStack, address: str | None, command: Sequence[str]
) -> "Cluster":
    from trialrun.cluster import connect, remove_temporary_folders

    def give_up(reason: str) -> None:
        text = f"{reason}. Go on with: trialrun resume {work.run.path}"
        print(text, file=sys.stderr, flush=True)
        remove_temporary_folders()
        kill_descendants()
        os._exit(EXIT_INTERRUPTED)

    work.progress.say("starting Ray")
    # A signal that is raised inside Ray's start can leave it waiting for ever, with Python's lock.
    with _timed(work.timings_s, "connect"), work.interrupts.gracefully():
        cluster = connection.enter_context(connect(address, work.loaded.spec.resources, give_up))
    if 0 < cluster.needs.gpus < 1:
        work.progress.warn(
            f"resources.gpus is {cluster.needs.gpus:g}: packs share a GPU and its memory, and one"
            " that takes too much brings down the others"
        )
    work.interrupts.before_exit = remove_temporary_folders
    work.interrupts.install()
    write_environment(work.run, work.loaded, cluster.describe(), command)
    return cluster


class _PackListener:
    """What packs say goes to the progress line and the run folder; see `cluster.Listener`."""

    def __init__(self, work: _Work) -> None:
        self._work = work

    def on_progress(self, progress: Progress) -> None:
        self._work.progress.advance(progress)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._work.lease.check()
        self._work.run.kept.write_checkpoint(checkpoint)

    def checkpoint_of(self, pack: Pack) -> Checkpoint | None:
        return self._work.run.kept.read_checkpoint(pack)

    def should_stop(self) -> bool:
        return self._work.interrupts.requested


def _train_missing(
    work: _Work, trials: Sequence[Trial], missing: Sequence[Trial], cluster: "Cluster"
) -> None:
    """Trains packs of trials; each pack's results are in the run folder before they count."""
    run, job = work.run, work.loaded.spec
    kinds = parameter_kinds(tuple({t.variant.variant_id: t.variant for t in trials}.values()))
    recorded = {pack.pack_id for pack in run.read_packs()}
    begun, fresh = packs_with_checkpoints(run.kept.read_checkpoints(), missing, recorded)
    packs = begun + list(
        make_packs(
            job,
            fresh,
            cluster.num_devices,
            num_threads=cluster.num_threads,
            first_number=run.next_pack_number(),
        )
    )
    num_wrong = 0
    wrong_input: dict[str, None] = {}
    work.progress.start(missing, job.select)
    with work.interrupts.gracefully():
        for result in _run_packs(work, packs, cluster):
            work.lease.check()
            run.kept.write_states(result)
            run.write_pack(result, kinds)
            run.kept.remove_checkpoint(result.pack_id)
            work.progress.finish(result)
            if result.is_input_error:
                num_wrong += len(result.trials)
                wrong_input |= dict.fromkeys(trial.error for trial in result.trials)
            del result  # its arrays fill Ray's object store, where the next one needs room
    run.kept.remove_checkpoints()
    if num_wrong == len(trials):  # nothing could be trained: the job is wrong, not the run
        raise InputError("\n".join(map(work.loaded.locate, wrong_input)))


def _run_packs(work: _Work, packs: Sequence[Pack], cluster: "Cluster") -> Iterator[PackResult]:
    from trialrun.cluster import run_packs

    job, folder = work.loaded.spec, work.loaded.folder
    files = collect_files(referenced_functions(work.loaded))
    interval_s = max(_PROGRESS_INTERVAL_S, _PROGRESS_S_PER_DEVICE * cluster.num_devices)
    tasks = [
        PackTask(
            pack,
            folder,
            job.select,
            cluster.num_threads,
            files=files,
            progress_interval_s=interval_s,
        )
        for pack in packs
    ]
    return run_packs(tasks, cluster, job.resources, _PackListener(work))


def _check_first_data(trials: Sequence[Trial], loaded: LoadedJob) -> None:
    """Generates the data of one trial per data setting, so that wrong data is known at once."""
    checked: list[DataSpec] = []
    for trial in trials:
        data = trial.variant.data
        if data not in checked and len(checked) < _MAX_DATA_CHECKS:
            checked.append(data)
            try:
                check_data(data, loaded.folder, trial.seed)
            except InputError as error:
                raise InputError(loaded.locate(str(error))) from error


def _leaderboard(work: _Work) -> Leaderboard | None:
    """The ranked variants of the trials in the run folder; None if there is none."""
    trials = work.run.read_trials("numbers")
    return None if trials.empty else _rank(work, trials)


def _rank(work: _Work, trials: "pd.DataFrame", pooled: PooledMatrices | None = None) -> Leaderboard:
    select = work.loaded.spec.select
    return build_leaderboard(
        trials, work.run.read_parameters(), pooled, metric=select.metric, goal=select.goal
    )


def _best_without_state(work: _Work, leaderboard: Leaderboard | None) -> str | None:
    """The best trial, if its arrays are kept no more: it is trained again, and its row replaced."""
    if leaderboard is None or leaderboard.selection is None:
        return None
    best = leaderboard.selection.trial_id
    return None if work.run.kept.has_state(best) else best


def _export(exporter: ExportProcess, work: _Work, leaderboard: Leaderboard) -> str:
    selection, run = leaderboard.selection, work.run
    assert selection is not None  # asked before
    parameters = run.read_parameters()[selection.variant_id]
    trials = run.read_trials("numbers").set_index("trial_id")
    row = trials.loc[selection.trial_id].filter(regex="^test_").dropna()
    metrics = {str(name): float(value) for name, value in row.astype(float).to_dict().items()}
    with _timed(work.timings_s, "export"):
        return exporter.export(run, parameters, selection.trial_id, metrics)


def _finish(
    work: _Work,
    started: float,
    *,
    model_summary: str = "",
    interrupted: Interrupted | None = None,
) -> Outcome:
    """Writes what follows from the trials in the run folder, however many there are."""
    work.progress.say("writing the report")
    work.timings_s["total"] = time.perf_counter() - started
    run = work.run
    trials = run.read_trials("numbers")
    if trials.empty:
        return Outcome(run, 0, 0, False, interrupted)
    leaderboard = _rank(work, trials, pool_matrices(run.read_matrices(trials)))
    class_names = next((p.class_names for p in run.read_packs() if p.class_names), ())
    work.lease.check()
    run.write_variants(variant_rows(leaderboard))
    run.write_confusion_matrices(class_names, _matrices_by_variant(run, trials))
    if interrupted is None:
        summary = run_summary(
            work.loaded.spec.name,
            leaderboard,
            trials,
            timings_s=work.timings_s,
            model_summary=model_summary,
        )
        write_json(run.summary_file, summary)
        run.kept.limit_states(_MAX_STATES_BYTES)
        build_report(run)
    counts = count_trials(trials)
    has_winner = leaderboard.selection is not None
    return Outcome(run, counts["completed"], counts["failed"], has_winner, interrupted)


def _matrices_by_variant(run: RunFolder, trials: "pd.DataFrame") -> Iterator[dict[str, Any]]:
    """What confusion_matrices.json says of the variants, some at a time to keep memory small."""
    import pandas as pd

    for some in split_by_variant(trials, _TRIALS_WITH_MATRICES):
        yield confusion_matrices(pd.concat(run.read_matrices(some)))


def _ended(run: RunFolder) -> Outcome:
    """The outcome of a run that ended before, or was killed while its report was made."""
    if not run.report_file.exists():
        build_report(run)
    summary = run.read_summary()
    assert summary is not None  # asked before
    counts = summary["counts"]
    has_winner = summary["selection"] is not None
    return Outcome(run, counts["completed"], counts["failed"], has_winner)


@contextmanager
def _timed(timings_s: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        timings_s[stage] = time.perf_counter() - start


class _LogFile(logging.FileHandler):
    """A log that goes without what a full disk does not take."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Prints no traceback: the disk is reported where something is lost by it."""


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
