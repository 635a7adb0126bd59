"""Trains the missing trials of a run on a cluster, and records their results as they come."""

import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from trialrun.driver.environment import write_environment
from trialrun.driver.interrupts import kill_descendants
from trialrun.driver.resume import packs_with_checkpoints
from trialrun.driver.work import Batch, Work, timed
from trialrun.errors import EXIT_INTERRUPTED, InputError, TrialrunError
from trialrun.messages import command_for, counted
from trialrun.search.schedule import expected_rounds
from trialrun.store import RunFolder
from trialrun.store.columns import ParameterKind, domain_kinds, parameter_kinds
from trialrun.store.round_log import schedule_in
from trialrun.training.compilation_cache import folder as compilation_cache
from trialrun.trials.packing import WIDTH_ON_GPU, make_packs, width_on_cpu
from trialrun.trials.results import Checkpoint, Output, PackResult, PackStart, Progress
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

if TYPE_CHECKING:
    from trialrun.cluster import Cluster

_log = logging.getLogger(__name__)

_MAX_OUTPUT_BYTES = 256 << 20
# Packs report their progress every 0.2 s; with very many devices less often, every 5 s for 1,000.
_PROGRESS_INTERVAL_S = 0.2
_PROGRESS_S_PER_DEVICE = 0.005


class Head(NamedTuple):
    """The Ray to train on.

    Attributes:
        address: Of its head; see `cluster.connect`.
        may_be_open: Whether it may answer clients without a token.
    """

    address: str | None = None
    may_be_open: bool = False


def connect_to_cluster(
    work: Work, connection: ExitStack, head: Head, command: Sequence[str]
) -> "Cluster":
    """A cluster to train on while `connection` is open; see `cluster.connect`."""
    from trialrun.cluster import connect

    def give_up(reason: str) -> None:
        text = f"{reason}. To continue: {command_for('resume', work.run.path)}"
        print(text, file=sys.stderr, flush=True)
        kill_descendants()
        os._exit(EXIT_INTERRUPTED)

    work.progress.say("starting Ray")
    # If a signal raised an exception while Ray starts, Ray could wait forever and hold Python's
    # global lock.
    with timed(work.timings_s, "connect"), work.interrupts.gracefully():
        resources = work.loaded.spec.resources
        connecting = connect(head.address, resources, give_up, head.may_be_open)
        cluster = connection.enter_context(connecting)
    if cluster.is_open:
        work.progress.warn(
            f"the Ray at {cluster.address} answers clients that have no token (--allow-open-head):"
            " whoever reaches it can run programs as its user"
        )
    if 0 < cluster.needs.gpus < 1:
        work.progress.warn(
            f"resources.gpus is {cluster.needs.gpus:g}: packs share a GPU and its memory, and a"
            " pack that takes too much memory makes the others fail"
        )
    if cluster.address == "local" and (problem := _problem_with_cache()):
        work.progress.warn(problem)
    work.interrupts.install()
    write_environment(work, cluster.describe(), command)
    return cluster


def _problem_with_cache() -> str | None:
    """Why the workers of this machine cannot use the compilation cache; None if they can."""
    folder = compilation_cache.chosen_folder(os.environ)
    problem = None if folder is None else compilation_cache.problem_with(folder)
    if problem is None:
        return None
    return (
        f"what is compiled cannot be kept for later runs: {problem}"
        f" ({compilation_cache.VARIABLE} chooses another folder, or `off`)"
    )


class _PackListener:
    """Passes reports of packs to the progress line and the run folder; see `cluster.Listener`."""

    def __init__(self, work: Work, pause_after: int | None) -> None:
        self._work, self._pause_after = work, pause_after
        self._output_bytes = 0

    def on_begin(self, pack: Pack, start: PackStart) -> None:
        self._work.in_training.begin(pack)
        self._work.progress.course.start(start)

    def on_progress(self, progress: Progress) -> None:
        self._work.in_training.hear(progress)
        self._work.progress.advance(progress)

    def on_leave(self, pack_id: str) -> None:
        self._work.progress.course.leave(pack_id)

    def on_retry(self, pack_id: str, why: str) -> None:
        self._work.progress.course.retry(pack_id)

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._work.lease.check()
        self._work.run.kept.write_checkpoint(checkpoint)
        self._work.in_training.keep(checkpoint.pack_id, is_stopping=self.should_stop())

    def on_output(self, output: Output) -> None:
        self._work.lease.check()
        if self._output_bytes > _MAX_OUTPUT_BYTES:
            return
        self._output_bytes += len(output.text)
        self._work.run.write_output(output)
        _log.info("%s: what it wrote is in logs/%s.log", output.pack_id, output.pack_id)
        if self._output_bytes > _MAX_OUTPUT_BYTES:
            _log.warning("logs/ is large enough: what further packs write is not kept")

    def checkpoint_of(self, pack: Pack) -> Checkpoint | None:
        self._work.in_training.submit(pack)
        kept = self._work.run.kept.read_checkpoint(pack)
        if kept is None or self._pause_after is None:
            return kept
        return kept.up_to(self._pause_after)

    def should_stop(self) -> bool:
        return self._work.interrupts.requested


def train_missing(work: Work, batch: Batch, cluster: "Cluster") -> None:
    """Trains trials in packs and writes the results of each pack to the run folder.

    A pack whose trials were paused is continued from the checkpoint that they were left in.

    Raises:
        InputError: No trial of the run could be trained, because of the user's input.
        Interrupted: A signal has arrived; finished trials are in the run folder.
        ClusterLost: The cluster is gone.
    """
    run, job = work.run, work.loaded.spec
    kinds = column_kinds(work)
    recorded = {pack.pack_id for pack in run.read_packs()}
    missing, pauses = batch.trials, _pauses(work)
    begun, fresh = packs_with_checkpoints(run.kept.trials_of_checkpoints(), missing, recorded)
    if pauses:
        _warn_of_lost_states(work, batch)
    packs = begun + list(
        make_packs(
            job,
            fresh,
            cluster.num_devices,
            num_threads=cluster.num_threads,
            first_number=run.next_pack_number(),
        )
    )
    wrong_input: dict[str, None] = {}
    num_results = 0
    rounds = run.rounds.read()
    work.progress.start(
        missing,
        job.select,
        batch.pause_after,
        num_packs=len(packs),
        round_number=rounds[-1].number if rounds else None,
    )
    with work.interrupts.gracefully():
        for result in _run_packs(work, packs, cluster, batch.pause_after, pauses):
            work.lease.check()
            _record(run, result, kinds, has_pauses=bool(pauses))
            work.progress.finish(result)
            work.in_training.finish(result)
            num_results += len(result.trials)
            if result.is_input_error:
                wrong_input |= dict.fromkeys(trial.error for trial in result.trials)
            del result  # to make room for the next one's arrays in Ray's object store
    work.progress.tell_of_packs()
    if num_results != len(missing):
        raise TrialrunError(
            f"only {num_results} of {len(missing)} trials gave a result; to continue: trialrun"
            f" resume {run.path}"
        )
    chunks = run.tables.index().by_variants("identity") if wrong_input else iter(())
    if wrong_input and all((rows["status"] == "failed").all() for rows in chunks):
        # No trial could be trained, so that the job is wrong.
        raise InputError("\n".join(map(work.loaded.locate, wrong_input)))


def _record(
    run: RunFolder, result: PackResult, kinds: Mapping[str, ParameterKind], *, has_pauses: bool
) -> None:
    """Writes what a pack gave, and removes the states that it has left behind.

    The log tells which engine trained it and why.
    """
    run.kept.write_states(result)
    run.write_pack(result, kinds)
    for engine in dict.fromkeys(one.engine for one in result.trials if one.engine):
        _log.info("%s: %s", result.pack_id, ": ".join(filter(None, [engine, result.reason])))
    if has_pauses:
        run.kept.forget_older(result)
    else:
        run.kept.remove_checkpoint(result.pack_id)


def column_kinds(work: Work) -> dict[str, ParameterKind]:
    """How each searched parameter is stored, the same for all packs of a run."""
    search = work.loaded.spec.search
    if search.method == "tpe":
        return domain_kinds(search.parameters)
    return parameter_kinds(tuple({t.variant.variant_id: t.variant for t in work.trials}.values()))


def _pauses(work: Work) -> tuple[int, ...]:
    """All epochs after which trials of the run may be paused; empty if none are."""
    schedule = schedule_in(work.run.rounds.read())
    return () if schedule is None else schedule.pauses


def _warn_of_lost_states(work: Work, batch: Batch) -> None:
    """Says how many paused trials are trained again from the start, as they left no state."""
    ids = [trial.trial_id for trial in batch.trials]
    rows = work.run.read_trials("identity", ids)
    paused = set(rows.loc[rows["status"] == "paused", "trial_id"])
    last_epoch = batch.pause_after or max(t.variant.training.epochs for t in batch.trials)
    for kept in work.run.kept.trials_of_checkpoints():
        pairs = zip(kept.trial_ids, kept.epochs, strict=True)
        paused -= {trial_id for trial_id, epochs in pairs if 0 < epochs <= last_epoch}
    if paused:
        text = (
            f"{counted(len(paused), 'paused trial')} left no state to go on from, and"
            " will be trained from the start"
        )
        _log.warning(text)
        work.progress.warn(text)


def _width(work: Work, cluster: "Cluster") -> int | None:
    """The width of programs in a run with rounds, so that a later round compiles nothing."""
    job, schedule = work.loaded.spec, schedule_in(work.run.rounds.read())
    if schedule is None:
        return None
    if cluster.needs.gpus > 0:
        return WIDTH_ON_GPU
    expected: list[int] = []
    # Where trials are paused, the width is the same on all machines, and so are their numbers.
    if schedule.keeps and schedule.proposals is None and not schedule.epochs:
        num_variants = len({trial.variant.variant_id for trial in work.trials})
        expected = [one.num_trials for one in expected_rounds(job, num_variants)]
    return width_on_cpu(job, expected, cluster.num_devices, num_threads=cluster.num_threads)


def _run_packs(
    work: Work,
    packs: Sequence[Pack],
    cluster: "Cluster",
    pause_after: int | None,
    pauses: tuple[int, ...],
) -> Iterator[PackResult]:
    from trialrun.cluster import run_packs

    job, folder = work.loaded.spec, work.loaded.folder
    statuses = work.run.tables.index().by_variants("identity")
    is_continued = any((rows["status"] != "failed").any() for rows in statuses)
    width = _width(work, cluster)
    interval_s = max(_PROGRESS_INTERVAL_S, _PROGRESS_S_PER_DEVICE * cluster.num_devices)
    tasks = [
        PackTask(
            pack,
            folder,
            job.select,
            cluster.num_threads,
            width=width,
            files=work.files,
            samples=work.samples,
            variables={**compilation_cache.for_workers(os.environ), **work.variables},
            is_continued=is_continued,
            progress_interval_s=interval_s,
            pause_after=pause_after,
            pauses=pauses,
            keeps_output=job.output.keep_logs,
        )
        for pack in packs
    ]
    return run_packs(tasks, cluster, job.resources, _PackListener(work, pause_after))
