"""A run from its beginning to its end, from a job to the best model; imports no TensorFlow."""

import logging
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trialrun.analysis.run_summary import Standing
from trialrun.data.fingerprint import DataSample
from trialrun.data.load import census_of, check_data, sample_of
from trialrun.driver.best_model import Saving
from trialrun.driver.costs import earlier_costs, merged_costs
from trialrun.driver.environment import write_environment
from trialrun.driver.finish import (
    Outcome,
    best_without_state,
    current_standing,
    finish,
    outcome_of_ended,
    unfinish,
)
from trialrun.driver.forwarded import forwarded_variables
from trialrun.driver.held_files import holding_files
from trialrun.driver.interrupts import Interrupted, Interrupts
from trialrun.driver.limits import Deadline
from trialrun.driver.merge import adopt_packs, check_shards
from trialrun.driver.origins import check_origins
from trialrun.driver.progress import ProgressLine
from trialrun.driver.prometheus import require_prometheus
from trialrun.driver.proposals import check_proposals, planned_trials, require_optuna
from trialrun.driver.resume import missing_trials, only_output_differs
from trialrun.driver.rounds import Rounds, has_rounds, recorded_fresh_trials
from trialrun.driver.status_file import writing_status
from trialrun.driver.train import Head, connect_to_cluster, train_missing
from trialrun.driver.work import Batch, Work, at_work, timed
from trialrun.errors import (
    EXIT_INTERRUPTED,
    ClusterError,
    ClusterLost,
    ExportError,
    FileError,
    InputError,
)
from trialrun.export.process import ExportProcess, SavedModel
from trialrun.host import stdout_for_results
from trialrun.job import DataSpec, Duration, LoadedJob, dump_job
from trialrun.job.user_code.frames import told
from trialrun.messages import command_for
from trialrun.search.schedule import check_budget
from trialrun.store import RunFolder
from trialrun.store.lease import require_no_driver_here
from trialrun.store.repair import set_aside_broken
from trialrun.trackers import require_packages
from trialrun.trials.packing import own_trials
from trialrun.trials.plan import plan_trials
from trialrun.trials.trial import Trial

if TYPE_CHECKING:
    from trialrun.cluster import Cluster

_log = logging.getLogger(__name__)

_MAX_DATA_CHECKS = 10


def run_job(
    loaded: LoadedJob,
    *,
    runs_dir: Path,
    run_folder: Path | None = None,
    address: str | None = None,
    allow_open_head: bool = False,
    max_time: Duration | None = None,
    command: Sequence[str] = (),
    strict_versions: bool = False,
    progress: ProgressLine,
) -> Outcome:
    """Trains the trials of a job, selects on validation, saves the best model and the report.

    Args:
        loaded: The job; with `resources.shard`, only the trials of this shard are trained.
        runs_dir: The folder in which run folders are made.
        run_folder: The folder of the run, which is made if it does not exist. Trials that it holds
            are kept, and only missing ones are trained. None makes a new folder in `runs_dir`.
        address: The address of a Ray cluster; see `cluster.connect`.
        allow_open_head: Whether its head may answer clients without a token.
        max_time: After this time the run is interrupted, and can be resumed.
        command: The command line, for environment.json.
        strict_versions: Whether a run of other versions is refused; otherwise it is warned of.
        progress: Shows how far the run is.

    Raises:
        InputError: The job's data or model is wrong, or the run folder belongs to another job.
        ClusterError: Ray cannot be reached.
        RunLost: Another driver has taken over the run folder.
        Interrupted: The run must end, and its training has not begun.
    """
    deadline = Deadline.after(max_time)
    if run_folder is not None:
        require_no_driver_here(RunFolder(run_folder).lease_dir)  # before the user's slow imports
    trials = plan_trials(loaded.spec)
    own = own_trials(loaded, trials)
    _check_needs(loaded)
    check_budget(loaded, len({trial.variant.variant_id for trial in trials}))
    with ExitStack() as stack:
        interrupts = stack.enter_context(_interrupts(loaded, progress))
        files = stack.enter_context(holding_files(loaded, trials))
        census, samples = _check_first_data(own, loaded, progress)
        known = (loaded, trials, runs_dir, run_folder, progress, census)
        begun = stack.enter_context(
            at_work(*known, files=files, interrupts=interrupts, deadline=deadline)
        )
        progress.course.recall_costs(earlier_costs(begun.run, progress.warn))
        own_ids = {trial.trial_id for trial in own}
        work, absent, rounds = _begin(replace(begun, samples=tuple(samples.values())))
        check_origins(
            [work.run], work.trials, progress.warn, samples=samples, strict=strict_versions
        )
        missing = [trial for trial in absent if trial.trial_id in own_ids]
        batches = iter([Batch(missing)]) if rounds is None else rounds.batches()
        first = next(batches, Batch())
        if not first.trials and _has_ended_well(work.run):
            return outcome_of_ended(work)
        head = Head(address, allow_open_head)
        return _complete(work, chain([first], batches), head, command)


def merge_runs(
    loaded: LoadedJob,
    sources: Sequence[RunFolder],
    *,
    runs_dir: Path,
    run_folder: Path | None = None,
    command: Sequence[str] = (),
    strict_versions: bool = False,
    progress: ProgressLine,
) -> Outcome:
    """Merges the runs of a job's shards: selects, saves the best model and the report.

    Args:
        loaded: The job, without a shard.
        sources: The runs of its shards; they are not changed, and one that is given twice counts
            once.
        runs_dir, run_folder, command, strict_versions, progress: See `run_job`.

    Raises:
        InputError: A run belongs to another job, or trials are missing. The message says which.
    """
    if run_folder is not None and run_folder.resolve() in {s.path.resolve() for s in sources}:
        raise InputError(f"{run_folder}: is one of the runs to merge; give another folder")
    if field := loaded.spec.search.deciding_field:
        text = (
            f"search.{field} has no shards to merge, because each decision needs all trials: the"
            " run is whole without"
        )
        raise InputError(loaded.locate(text))
    sources = list({source.path.resolve(): source for source in sources}.values())
    trials = plan_trials(loaded.spec)
    _check_needs(loaded)
    check_shards(sources, loaded, trials)
    check_origins(sources, trials, progress.warn, strict=strict_versions)
    census = next(
        (summary["data"] for s in sources if (summary := s.read_summary()) and "data" in summary),
        (),
    )
    with (
        _interrupts(loaded, progress) as interrupts,
        holding_files(loaded, trials) as files,
        at_work(
            *(loaded, trials, runs_dir, run_folder, progress, census),
            files=files,
            interrupts=interrupts,
        ) as work,
    ):
        _begin(work)
        try:
            progress.course.recall_costs(merged_costs(work.run, sources, progress.warn))
            for source in sources:
                adopt_packs(work.run, source, work.lease.check)
        except KeyboardInterrupt:
            progress.warn(
                f"{work.run.path} holds only some of the trials; give the same command again"
            )
            raise
        write_environment(work, {"merged": [s.path for s in sources]}, command)
        return _complete(work, iter([]), Head(), command)


def _interrupts(loaded: LoadedJob, progress: ProgressLine) -> Interrupts:
    grace_s = loaded.spec.resources.grace_s
    return Interrupts(lambda: progress.say(f"stopping, within {grace_s:g} s"))


def _complete(work: Work, batches: Iterator[Batch], head: Head, command: Sequence[str]) -> Outcome:
    """Trains missing trials and ends the run, or records why it ended early."""
    unfinish(work.run)
    with writing_status(work) as ending:
        outcome = _train_and_finish(work, batches, head, command)
        ending.interrupted = outcome.interrupted
    return outcome


def _train_and_finish(
    work: Work, batches: Iterator[Batch], head: Head, command: Sequence[str]
) -> Outcome:
    try:
        # The export process imports TensorFlow while packs are trained, and it saves the best model
        # while Ray shuts down and the report is made.
        with (
            ThreadPoolExecutor(1) as background,
            ExportProcess(work.run.log_file, work.files) as exporter,
        ):
            saving = Saving(work, exporter, background)
            _train(work, batches, saving, head, command)
            return finish(work, saving)
    except KeyboardInterrupt as error:  # Ray turns our Interrupted into a plain KeyboardInterrupt
        interrupted = error if isinstance(error, Interrupted) else work.interrupts.error()
    except SystemExit as error:  # from Ray's handler of SIGTERM, until ours replaces it
        if error.code != signal.SIGTERM:
            raise
        interrupted = Interrupted.by_signal(signal.SIGTERM)
    except ClusterLost as error:
        _log.error("%s", error)
        interrupted = Interrupted(EXIT_INTERRUPTED, str(error))
    except FileError as error:
        hint = f"Finished trials are safe; to continue: {command_for('resume', work.run.path)}"
        raise FileError(f"{error}\n{hint}") from error
    return finish(work, interrupted=interrupted)


def _begin(work: Work) -> tuple[Work, list[Trial], Rounds | None]:
    """Prepares the run folder for this job; nothing is changed in it if the job is another.

    Returns:
        The work with all trials that are planned so far, those that are missing from the run, and
        its rounds; None if it has none.
    """
    for line in set_aside_broken(work.run):
        work.progress.warn(line)
    check_proposals(work.run, work.loaded)
    work = replace(work, trials=planned_trials(work.loaded.spec, work.run.rounds.read()))
    for rows in work.run.tables.index().by_variants("identity"):
        work.progress.course.recall(Counter(rows["status"].tolist()))
    known = (*work.trials, *recorded_fresh_trials(work.run, work.trials))
    missing = missing_trials(work.run, work.loaded, known, work.progress.warn)
    rounds = Rounds(work) if has_rounds(work) else None
    if work.run.job_file.read_text() != (text := dump_job(work.loaded.spec)):
        if not only_output_differs(work.run, work.loaded):
            unfinish(work.run)
        work.run.write_job(text)
    return work, missing, rounds


def _has_ended_well(run: RunFolder) -> bool:
    """Whether a run has ended and its best model, if it has one, was saved."""
    summary = run.read_summary()
    return summary is not None and (summary.get("best_model") or {"proved": True})["proved"]


def _train(
    work: Work, batches: Iterator[Batch], saving: Saving, head: Head, command: Sequence[str]
) -> None:
    """Trains missing trials, one batch after the other, and begins to save the best model.

    Once trials are recorded, an error in saving is part of the result and not raised, so that the
    report is still written. Only what ends the run early is raised.
    """
    with ExitStack() as connection:
        cluster: Cluster | None = None
        for batch in batches:
            if not batch.trials:
                continue
            work.in_training.start(batch.trials)
            if cluster is None:
                cluster = connect_to_cluster(work, connection, head, command)
                saving.try_untrained(batch.trials)
            with timed(work.timings_s, "train"):
                train_missing(work, batch, cluster)
        standing = current_standing(work)
        if (problem := _why_no_model(standing)) is not None:
            saving.give_up(SavedModel.not_yet(problem))
            return
        try:
            while (best := best_without_state(work, standing)) is not None:
                if cluster is None:
                    cluster = connect_to_cluster(work, connection, head, command)
                standing = _train_again(work, best, cluster)
        except (ExportError, InputError, ClusterError) as error:
            if isinstance(error, ClusterLost):
                raise
            problem = f"the best trial cannot be trained again: {told(error)}"
            saving.give_up(SavedModel.lost(problem))
            return
        if standing is not None and standing.leaderboard.selection is not None:
            saving.begin(standing)


def _why_no_model(standing: Standing | None) -> str | None:
    """Why a run that has ended well has no best model yet; None if it may have one."""
    if standing is None or standing.leaderboard.selection is None:
        return None
    rounds = standing.leaderboard.rounds
    if rounds is None or rounds.epochs is None:
        return None
    return f"the trials are paused after epoch {rounds.epochs}, and `trialrun resume` goes on"


def _train_again(work: Work, trial_id: str, cluster: "Cluster") -> Standing | None:
    """Trains a trial again whose weights are no longer kept; afterwards another may be the best."""
    planned = planned_trials(work.loaded.spec, work.run.rounds.read())
    again = [trial for trial in planned if trial.trial_id == trial_id]
    train_missing(work, Batch(again), cluster)
    if not work.run.kept.has_state(trial_id):
        raise ExportError(f"trial {trial_id} failed; see the run's log")
    return current_standing(work)


def _check_needs(loaded: LoadedJob) -> None:
    """Raises InputError unless what only some jobs need is installed, and set."""
    forwarded_variables(loaded)
    try:
        require_packages(loaded.spec.output)
        require_prometheus(loaded.spec.output.prometheus)
        if loaded.spec.search.method == "tpe":
            require_optuna()
    except InputError as error:
        raise InputError(loaded.locate(str(error))) from error


def _check_first_data(
    trials: Sequence[Trial], loaded: LoadedJob, progress: ProgressLine
) -> tuple[list[dict[str, Any]], dict[str, DataSample]]:
    """Loads the data of one trial per data setting, so that wrong data is found at once.

    Returns:
        For summary.json, per data setting: the trial's seed and the census of its parts. And the id
        of each trial whose data was generated -> that data in short.
    """
    samples: dict[str, DataSample] = {}
    checked: list[DataSpec] = []
    census = []
    notes: dict[str, None] = {}
    for trial in trials:
        data = trial.variant.data
        if data not in checked and len(checked) < _MAX_DATA_CHECKS:
            checked.append(data)
            try:
                with stdout_for_results():
                    raw = check_data(data, loaded.folder, trial.seed)
            except InputError as error:
                raise InputError(loaded.locate(str(error))) from error
            if data.generator is not None:
                samples[trial.trial_id] = sample_of(data, trial.seed, raw)
            census.append({"seed": trial.seed, **census_of(raw).to_json()})
            notes |= dict.fromkeys(() if raw.summary is None else raw.summary.notes)
    for note in notes:
        progress.warn(note)
    return census, samples
