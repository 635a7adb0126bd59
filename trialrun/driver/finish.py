"""Writes what follows from a run's trials: variants.csv, summary.json, report.html, trackers."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from trialrun.analysis.importance import find_importance
from trialrun.analysis.run_summary import Standing, Tally
from trialrun.analysis.summary_json import run_summary
from trialrun.analysis.variants import variant_rows
from trialrun.driver.best_model import Saving
from trialrun.driver.interrupts import Interrupted
from trialrun.driver.work import Work
from trialrun.export.process import SavedModel
from trialrun.messages import command_for, counted
from trialrun.report import build_report, draw_report
from trialrun.report.rounds import dropped_rows
from trialrun.store import RunFolder
from trialrun.store.confusion_matrices import writing_confusion_matrices
from trialrun.store.costs import write_costs
from trialrun.store.files import write_json
from trialrun.store.pack_records import distinct_tasks
from trialrun.trackers import show_in_trackers

_log = logging.getLogger(__name__)

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
        is_paused: Whether there is no best model yet, because the trials are paused.
        not_begun: A sentence on the rounds that were not begun; empty if there are none.
        interrupted: What ended the run early, so that `resume` can finish it; None if nothing did.
        kept: What was kept then and what was not, as lines for the user.
        standing: Statistics of the trials; None if they were not computed.
    """

    run: RunFolder
    num_completed: int
    num_failed: int
    has_winner: bool
    has_model: bool
    is_paused: bool = False
    not_begun: str = ""
    interrupted: Interrupted | None = None
    kept: Sequence[str] = ()
    standing: Standing | None = None


def unfinish(run: RunFolder) -> None:
    """Marks the run unfinished again; the report, written last, is removed first."""
    run.report_file.unlink(missing_ok=True)
    run.summary_file.unlink(missing_ok=True)


def _tally(work: Work) -> Tally:
    select = work.loaded.spec.select
    return Tally(work.run, metric=select.metric, goal=select.goal, statistic=select.statistic)


def current_standing(work: Work) -> Standing | None:
    """The statistics of the trials in the run folder, without matrices; None without trials."""
    tally = _tally(work)
    return None if tally.is_empty else tally.standing_without_matrices()


def best_without_state(work: Work, standing: Standing | None) -> str | None:
    """The id of the best trial if its weights are no longer kept, so that it is trained again."""
    if standing is None or standing.leaderboard.selection is None:
        return None
    best = standing.leaderboard.selection.trial_id
    return None if work.run.kept.has_state(best) else best


def finish(
    work: Work, saving: Saving | None = None, *, interrupted: Interrupted | None = None
) -> Outcome:
    """Writes the tables and, unless interrupted, the summary and the report of a run.

    The best model may still be saved while tables and figures are made; summary and page wait.
    """
    run = work.run
    tally = _tally(work)
    if tally.is_empty:
        kept = _account(work, 0, interrupted)
        return Outcome(run, 0, 0, False, False, interrupted=interrupted, kept=kept)
    packs = run.read_packs()
    class_names = next((pack.class_names for pack in packs if pack.class_names), ())
    work.lease.check()
    write_costs(run, work.progress.course.costs())
    with writing_confusion_matrices(run.confusion_matrices_file, class_names) as write:
        standing = tally.standing(write)
    run.write_variants(variant_rows(standing.leaderboard))
    if (rounds := standing.leaderboard.rounds) is not None:
        run.write_dropped(dropped_rows(rounds))
    saved = None
    if interrupted is None:
        saved = _report(work, standing, saving, distinct_tasks(packs))
    counts = standing.counts
    has_winner = standing.leaderboard.selection is not None
    return Outcome(
        run,
        num_completed=counts["completed"],
        num_failed=counts["failed"],
        has_winner=has_winner,
        has_model=saved is not None and saved.is_proved,
        is_paused=saved is not None and saved.is_to_come,
        not_begun=rounds.not_begun if rounds is not None and has_winner else "",
        interrupted=interrupted,
        kept=_account(work, counts["trials"] - counts["failed"], interrupted),
        standing=standing,
    )


def _report(
    work: Work, standing: Standing, saving: Saving | None, model_tasks: Sequence[str]
) -> SavedModel | None:
    """Writes summary, report and trackers of a run that has ended; gives the best model."""
    run, rounds = work.run, standing.leaderboard.rounds
    importance = find_importance(standing.leaderboard, standing.scores)
    drawn = draw_report(run, standing, importance)
    saved = None if saving is None else saving.result()
    work.progress.say("writing the report")
    work.timings_s["total"] = time.perf_counter() - work.started_s
    summary = run_summary(
        work.loaded.spec.name,
        standing,
        timings_s=work.timings_s,
        model_summary="" if saved is None else saved.summary,
        best_model=None if saved is None else saved.to_json(),
        data=work.census,
        model_tasks=model_tasks,
        importance=importance,
        cost=work.progress.course.cost()._asdict(),
    )
    write_json(run.summary_file, summary)
    if rounds is None or not rounds.num_to_come:  # else paused trials may go on
        run.kept.remove_checkpoints()
    run.kept.limit_states(_MAX_STATES_BYTES)
    build_report(run, standing, importance, drawn)
    _show_in_trackers(work)
    return saved


def _account(work: Work, num_ended: int, interrupted: Interrupted | None) -> tuple[str, ...]:
    """What a run that was interrupted has kept and what it has not, also for its log."""
    if interrupted is None:
        return ()
    was_asked = work.interrupts.requested
    grace_s = work.loaded.spec.resources.grace_s if was_asked else None
    of_training = work.in_training.account(work.run.kept.trials_of_checkpoints(), grace_s)
    lines = (
        f"{interrupted.reason}. Kept: {counted(num_ended, 'trial')} with a result",
        *(of_training or ("Not made: the best model and the report",)),
    )
    for line in lines:
        _log.info(line)
    return lines


def _show_in_trackers(work: Work) -> None:
    """Writes the run to TensorBoard and MLflow if its job says so; failures are only warnings."""
    work.progress.say("writing to trackers")
    for problem in show_in_trackers(work.run, work.loaded.spec.output):
        again = f"{command_for('report', work.run.path)} --trackers"
        work.progress.warn(f"{problem}; the run itself is complete; to try again: {again}")


def outcome_of_ended(work: Work) -> Outcome:
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
