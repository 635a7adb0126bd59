"""The story of a run, from a job to the best model. Needs no TensorFlow in this process."""

import logging
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from trialrun.aggregate import (
    Leaderboard,
    build_leaderboard,
    confusion_matrices,
    count_trials,
    run_summary,
    variant_rows,
)
from trialrun.datasets import check_data
from trialrun.errors import InputError
from trialrun.export import ExportProcess
from trialrun.files import write_json
from trialrun.job import DataSpec, JobSpec, LoadedJob, dump_job
from trialrun.packing import make_packs
from trialrun.plan import Trial, plan_trials
from trialrun.progress import ProgressLine
from trialrun.records import parameter_kinds
from trialrun.store import RunFolder
from trialrun.training import PackTask

if TYPE_CHECKING:
    from trialrun.cluster import Cluster

_MAX_DATA_CHECKS = 10
_PACKAGES = ("trialrun", "tensorflow", "keras", "ray", "numpy", "scikit-learn", "pandas", "pyarrow")


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: stop as on Ctrl-C, and tell the scheduler that the run was interrupted."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: The run folder.
        num_completed: Trials that completed.
        num_failed: Trials that failed (diverged ones are a result, not a failure).
        has_winner: Whether a variant was selected and its best model saved.
        interrupted: None, or the interrupt that ended the run early.
    """

    run: RunFolder
    num_completed: int
    num_failed: int
    has_winner: bool
    interrupted: KeyboardInterrupt | None = None


def run_job(
    loaded: LoadedJob,
    *,
    runs_dir: Path,
    address: str | None = None,
    command: Sequence[str] = (),
    progress: ProgressLine,
) -> Outcome:
    """Trains every trial of a job, selects on validation, saves the best model and the report.

    Args:
        loaded: The job.
        runs_dir: Where run folders are made.
        address: Of a Ray cluster; see `cluster.connect`.
        command: The command line, for environment.json.
        progress: Shows how far the run is.

    Raises:
        InputError: The job's data or model is wrong.
        ClusterError: Ray cannot be reached.
        ExportError: The saved best model is not the trained one.
    """
    started = time.perf_counter()
    job = loaded.spec
    trials = plan_trials(job)
    _check_first_data(trials, loaded)
    run = RunFolder.create(runs_dir, job.name)
    run.write_job(dump_job(job))
    timings_s: dict[str, float] = {}
    terminated = threading.Event()
    with _logging_to(run.log_file), progress, _terminable(terminated):
        try:
            model_summary = _train_and_export(
                loaded, trials, run, address, command, progress, timings_s, terminated
            )
            interrupt: KeyboardInterrupt | None = None
        except KeyboardInterrupt as error:  # inside Ray's calls ours becomes a plain one
            model_summary, interrupt = "", Terminated() if terminated.is_set() else error
        except SystemExit as error:  # Ray's own handler of SIGTERM, until ours replaces it
            if error.code != signal.SIGTERM:
                raise
            model_summary, interrupt = "", Terminated()
        progress.say("writing the report")
        timings_s["total"] = time.perf_counter() - started
        return _finish(run, job, model_summary, timings_s, interrupt)


def _train_and_export(
    loaded: LoadedJob,
    trials: Sequence[Trial],
    run: RunFolder,
    address: str | None,
    command: Sequence[str],
    progress: ProgressLine,
    timings_s: dict[str, float],
    terminated: threading.Event,
) -> str:
    """Trains all trials and saves the best model; returns Keras's summary of it."""
    from trialrun.cluster import connect

    job = loaded.spec
    # The export process imports TensorFlow while packs are trained, and exports while Ray stops.
    with ExportProcess(run.log_file) as exporter, ThreadPoolExecutor(1) as background:
        progress.say("starting Ray")
        with _timed(timings_s, "connect"):
            connection = ExitStack()
            cluster = connection.enter_context(connect(address, job.resources))
        with connection, _terminable(terminated):
            write_json(run.environment_file, _environment(loaded, cluster, command))
            with _timed(timings_s, "train"):
                _train_all(loaded, trials, run, cluster, progress)
            leaderboard = _leaderboard(run, job)
            if leaderboard is None or leaderboard.selection is None:
                return ""
            progress.say("saving the best model")
            export = background.submit(_export, exporter, run, leaderboard, timings_s)
        return export.result()


def _train_all(
    loaded: LoadedJob,
    trials: Sequence[Trial],
    run: RunFolder,
    cluster: "Cluster",
    progress: ProgressLine,
) -> None:
    """Trains all trials; each pack's results are in the run folder before they count."""
    from trialrun.cluster import run_packs

    job = loaded.spec
    kinds = parameter_kinds(tuple({t.variant.variant_id: t.variant for t in trials}.values()))
    packs = make_packs(job, trials, cluster.num_devices, num_threads=cluster.num_threads)
    tasks = [PackTask(p, loaded.folder, job.select, cluster.num_threads) for p in packs]
    wrong_input: list[str] = []
    progress.start(trials, job.select)
    for result in run_packs(
        tasks, cluster, max_retries=job.resources.max_retries, on_progress=progress.advance
    ):
        run.write_pack(result, kinds)
        run.write_states(result)
        progress.finish(result)
        if result.is_input_error:
            wrong_input.append(result.trials[0].error)
    if len(wrong_input) == len(packs):  # nothing could be trained: the job is wrong, not the run
        raise InputError("\n".join(loaded.locate(error) for error in dict.fromkeys(wrong_input)))


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


def _leaderboard(run: RunFolder, job: JobSpec) -> Leaderboard | None:
    """The ranked variants of the trials in the run folder; None if there is none."""
    trials = run.read_trials()
    if trials.empty:
        return None
    return build_leaderboard(
        trials, run.read_parameters(), metric=job.select.metric, goal=job.select.goal
    )


def _export(
    exporter: ExportProcess, run: RunFolder, leaderboard: Leaderboard, timings_s: dict[str, float]
) -> str:
    selection = leaderboard.selection
    assert selection is not None  # asked before
    parameters = run.read_parameters()[selection.variant_id]
    trials = run.read_trials().set_index("trial_id")
    row = trials.loc[selection.trial_id].filter(regex="^test_(?!confusion_matrix)").dropna()
    metrics = {str(name): float(value) for name, value in row.astype(float).to_dict().items()}
    with _timed(timings_s, "export"):
        summary = exporter.export(run, parameters, selection.trial_id, metrics)
    run.remove_states()
    return summary


def _finish(
    run: RunFolder,
    job: JobSpec,
    model_summary: str,
    timings_s: dict[str, float],
    interrupt: KeyboardInterrupt | None,
) -> Outcome:
    """Writes what follows from the trials in the run folder, however many there are."""
    leaderboard = _leaderboard(run, job)
    trials = run.read_trials()
    if leaderboard is None:
        return Outcome(run, 0, 0, False, interrupt)
    class_names = next((p.class_names for p in run.read_packs() if p.class_names), ())
    run.write_variants(variant_rows(leaderboard))
    write_json(run.confusion_matrices_file, confusion_matrices(trials, class_names), indent=None)
    if interrupt is None:
        summary = run_summary(
            job.name, leaderboard, trials, timings_s=timings_s, model_summary=model_summary
        )
        write_json(run.summary_file, summary)
        from trialrun.report import build_report

        build_report(run)
    counts = count_trials(trials)
    return Outcome(
        run, counts["completed"], counts["failed"], leaderboard.selection is not None, interrupt
    )


def _environment(loaded: LoadedJob, cluster: "Cluster", command: Sequence[str]) -> dict[str, Any]:
    """What the run ran on, for environment.json."""
    git = subprocess.run(
        ["git", "-C", str(loaded.folder), "describe", "--always", "--dirty", "--abbrev=40"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "job_file": str(loaded.path),
        "command": list(command),
        "git_revision": git.stdout.strip() or None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "node": platform.node(),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "ray": asdict(cluster),
    }


@contextmanager
def _timed(timings_s: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        timings_s[stage] = time.perf_counter() - start


@contextmanager
def _logging_to(log_file: Path) -> Iterator[None]:
    """Sends trialrun's log records to the run's own file."""
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("trialrun")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _terminable(terminated: threading.Event) -> Iterator[None]:
    """While it lasts, SIGTERM sets the event and raises; Ray takes the handler when it starts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        terminated.set()
        raise Terminated

    previous = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
