"""Whether the rounds of a run's log are those that its job and its trials lead to."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from trialrun.analysis.selection import ValidationScores
from trialrun.driver.work import Work
from trialrun.errors import InputError
from trialrun.job import ConfirmSpec, LoadedJob
from trialrun.search.schedule import schedule_of
from trialrun.search.strategy import Propose, Search, next_round
from trialrun.store.round_log import (
    Decision,
    Round,
    Schedule,
    fresh_seeds_of,
    joined,
    last_choosing,
    schedule_in,
)

# A trial that is trained again on another machine may differ in its last bits, and a mean with five
# digits then in its last digit.
_SAME = 3e-4


def search_of(work: Work, rounds: Sequence[Round]) -> Search:
    """What the rounds of a run choose among, and by which rules: those that the run began with.

    Args:
        work: The work on the run.
        rounds: Those of its log.

    Raises:
        InputError: The job asks for other rounds, or the run cannot begin any.
    """
    job = work.loaded.spec
    variant_ids = tuple(dict.fromkeys(trial.variant.variant_id for trial in work.trials))
    schedule = schedule_of(job, len(variant_ids))
    if not rounds and (problem := _why_no_rounds(work)):
        raise InputError(f"{work.run.path}: {problem}")
    if (logged := schedule_in(rounds)) is not None:
        if problem := _why_another(work.loaded, logged, rounds, variant_ids):
            raise InputError(f"{work.run.path}: {problem}")
        schedule = logged
    select, confirm = job.select, job.search.confirmation
    return Search(variant_ids, job.seed_list, select.goal, select.statistic, schedule, confirm)


def _why_no_rounds(work: Work) -> str:
    """Why rounds cannot begin with what a run holds: its variants were not chosen by them."""
    asked = work.loaded.spec.search.rounds is not None
    if asked and work.run.tables.index().variant_ids:
        before = work.run.read_job().get("search", {}).get("rounds")
        if before is None:
            return "this run began without search.rounds; start a new run for them"
    return ""


def _why_another(
    loaded: LoadedJob, logged: Schedule, rounds: Sequence[Round], variant_ids: tuple[str, ...]
) -> str:
    """Why the rounds of a run cannot go on with a job; empty if they can."""
    job, again = loaded.spec, "start a new run for other rounds"
    for name in ("metric", "goal", "statistic"):
        before, now = getattr(logged, name), getattr(job.select, name)
        if before != now:
            return f"select.{name} was {before} when it chose variants, and is {now} now; {again}"
    if job.seed_list[: len(logged.seeds)] != logged.seeds:
        return f"seeds may only be added after those that the run began with; {again}"
    now = schedule_of(job.model_copy(update={"seeds": logged.seeds}), len(rounds[0].variants))
    if job.search.budget is not None and job.search.budget.trials is not None:
        now = replace(now, keeps=logged.keeps)  # a budget is fitted once, and may be raised later
    if now != logged:
        return f"search.rounds differs from what the run began with; {again}"
    if used := fresh_seeds_of(rounds).intersection(job.seed_list):
        return (
            f"seeds: {min(used)} has confirmed the winner of this run, and cannot choose; {again}"
        )
    if len(logged.counts) > 1 and variant_ids != joined(rounds)[0].variants:
        return f"search.parameters: no variants can be added to a run with rounds; {again}"
    return ""


def follows(
    one: Round,
    decision: Decision,
    before: Sequence[Round],
    search: Search,
    scores: ValidationScores,
) -> bool:
    """Whether a round is what the rounds and trials before it lead to, but for rounding.

    Args:
        one: The round.
        decision: Its decision.
        before: The rounds before it.
        search: What the run chooses among.
        scores: The selection metric of the trials that were trained then.
    """
    last = last_choosing(joined(before))
    known = _with_losses(scores, last, decision)
    expected = next_round(_as_it_was(search, last, one), before, known, _proposing_again(one))
    return expected is not None and _agree(one, decision, expected)


def _proposing_again(one: Round) -> Propose:
    """What was proposed once stays proposed: another Optuna may propose something else."""
    return lambda decision: one.assignments or {}


def are_all_recorded(scores: ValidationScores, one: Round) -> bool:
    """Whether all trials of a round have ended, in whatever way."""
    return bool((scores.restricted(one.variants, one.seeds).trial_ids != b"").all())


def _as_it_was(search: Search, last: Round, one: Round) -> Search:
    """What a round followed from, when it was decided: the job may have got more seeds since."""
    if one.stage == "confirm":
        confirm = ConfirmSpec(seeds=len(one.seeds), variants=len(one.variants))
        return replace(search, variant_ids=last.variants, seeds=last.seeds, confirm=confirm)
    return replace(search, variant_ids=one.variants, seeds=one.seeds)


def _with_losses(scores: ValidationScores, last: Round, decision: Decision) -> ValidationScores:
    """The scores as they were when a round was decided: trials that had failed have no value."""
    known = scores.restricted(last.variants, last.seeds)
    for row, variant_id in enumerate(known.variant_ids):
        lost = np.isin(known.seeds, decision.lost.get(variant_id, ()))
        known.values[row, lost] = np.nan
    return known


def _agree(logged: Round, before: Decision, expected: Round) -> bool:
    """Whether a round of the log is what its trials lead to, or differs by rounding alone."""
    now = expected.decision
    if now is None or (logged.stage, before.seeds) != (expected.stage, now.seeds):
        return False
    if before.digest == now.digest:
        return logged.to_json() == expected.to_json()
    return before.lost == now.lost and all(
        _is_close(score, now.scores.get(variant_id)) for variant_id, score in before.scores.items()
    )


def _is_close(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=_SAME)
