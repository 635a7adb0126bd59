"""The rounds that a job asks for, before anything is trained, and what they cost."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from trialrun.errors import InputError
from trialrun.job import JobSpec, LoadedJob, RaceSpec, is_number, share_of
from trialrun.store.round_log import Proposals, Schedule

# A third of the variants goes on after 0.15 and after 0.35 of the seeds. On tables of real runs
# this chose as well as all seeds for all variants, at a third of the cost.
_AUTO_SHARES, _AUTO_KEEP, _AUTO_FEWEST = (0.15, 0.35), "1/3", 3
_FEWEST_TO_CHOOSE = 2
# A race looks at the variants after so many seeds, then each time the seeds have grown by 1.6.
_LOOKS, _GROWTH = (3, 5, 8, 12, 20), 1.6


def schedule_of(job: JobSpec, num_variants: int) -> Schedule:
    """The schedule of a job that begins now; without `search.rounds` it has one round.

    With `search.budget.trials`, the share that goes on is as large as the budget allows.

    Args:
        job: The job.
        num_variants: How many variants it has; if they are proposed, perhaps only so far.

    Raises:
        InputError: The budget is too small.
    """
    if job.search.method == "tpe":
        assert job.search.num_variants is not None, "the job file refuses tpe without a count"
        num_variants = job.search.num_variants
    asked = _asked_schedule(job)
    budget = job.search.budget
    if budget is None or budget.trials is None:
        return asked
    fitting = [asked]
    if job.search.rounds == "auto":
        fitting += [_with_keep(asked, f"{percent}/100") for percent in range(33, 0, -1)]
    for schedule in fitting:
        if (needed := _num_trials(job, schedule, num_variants)) <= budget.trials:
            return schedule
    cure = "give more, or fewer variants, seeds or confirmed ones"
    if job.search.rounds != "auto":
        cure += "; search.rounds: auto is fitted to a budget"
    raise InputError(
        f"search.budget.trials must be at least {needed} for {num_variants} variants and their"
        f" rounds, got {budget.trials}: {cure}"
    )


def check_budget(loaded: LoadedJob, num_variants: int) -> None:
    """Refuses a budget that is too small for the rounds of a job.

    Raises:
        InputError: It is; the message says where, and how much is needed.
    """
    try:
        schedule_of(loaded.spec, num_variants)
    except InputError as error:
        raise InputError(loaded.locate(str(error))) from error


def _with_keep(schedule: Schedule, keep: str) -> Schedule:
    return replace(schedule, keeps=(keep,) * len(schedule.keeps))


def _num_trials(job: JobSpec, schedule: Schedule, num_variants: int) -> int:
    return sum(cost.num_trials for cost in _costs(job, schedule, num_variants))


def _asked_schedule(job: JobSpec) -> Schedule:
    rounds, seeds, level = job.search.rounds, job.seed_list, None
    keeps: Sequence[str] = ()
    fewest = 1
    if rounds is None:
        counts: Sequence[int] = (len(seeds),)
    elif rounds == "auto":
        counts = _auto_counts(len(seeds))
        keeps, fewest = [_AUTO_KEEP] * (len(counts) - 1), _AUTO_FEWEST
    elif isinstance(rounds, RaceSpec):
        counts, level = rounds.looks or _auto_looks(len(seeds)), rounds.level
    else:
        counts = [one.seeds for one in rounds]
        keeps = [str(one.keep) for one in rounds[:-1]]
    select = job.select
    return Schedule(
        metric=select.metric,
        goal=select.goal,
        statistic=select.statistic,
        seeds=seeds,
        counts=tuple(counts),
        keeps=tuple(keeps),
        fewest=fewest,
        level=level,
        proposals=proposals_of(job),
        epochs=_epochs(job),
    )


def proposals_of(job: JobSpec) -> Proposals | None:
    """How the variants of a job are proposed; None if all are known beforehand."""
    search = job.search
    if search.method != "tpe":
        return None
    assert search.num_variants is not None, "the job file refuses tpe without a count"
    return Proposals(search.method, search.num_variants, search.batch_size, search.seed)


def _epochs(job: JobSpec) -> tuple[int, ...]:
    """The epoch after which the trials of each round are paused or end; empty without pauses."""
    rounds = job.search.rounds
    if not isinstance(rounds, tuple) or all(one.epochs is None for one in rounds):
        return ()
    return tuple(one.epochs or job.training.epochs for one in rounds)


def _auto_counts(num_seeds: int) -> list[int]:
    """Seeds after each round of `auto`.

    >>> _auto_counts(20), _auto_counts(5), _auto_counts(3)
    ([3, 7, 20], [2, 5], [2, 3])
    """
    early = [max(_FEWEST_TO_CHOOSE, round(share * num_seeds)) for share in _AUTO_SHARES]
    return sorted({*early, num_seeds})


def _auto_looks(num_seeds: int) -> list[int]:
    """Seeds at each look of a race.

    >>> _auto_looks(20), _auto_looks(40)
    ([3, 5, 8, 12, 20], [3, 5, 8, 12, 20, 32, 40])
    """
    looks = list(_LOOKS)
    while looks[-1] < num_seeds:
        looks.append(round(looks[-1] * _GROWTH))
    return [look for look in looks if look < num_seeds] + [num_seeds]


class RoundCost(NamedTuple):
    """What one round of a schedule costs.

    Attributes:
        stage: `choose`, `race` or `confirm`.
        num_variants: The variants in it; of a race, the most.
        num_seeds: The seeds that each of them has after it.
        num_trials: The trials that begin in it; of a race, the most.
        num_epochs: The epochs that are trained in it, summed over trials.
        pause_after: The epoch after which its trials are paused; None if they end.
        num_rounds: How many rounds it stands for: those that propose variants are one here.
    """

    stage: str
    num_variants: int
    num_seeds: int
    num_trials: int
    num_epochs: int
    pause_after: int | None = None
    num_rounds: int = 1


def expected_rounds(job: JobSpec, num_variants: int) -> list[RoundCost]:
    """The rounds of a job and their trials, if no two variants tie at a cut.

    Args:
        job: The job.
        num_variants: How many variants it has in all.

    Raises:
        InputError: The job's budget is too small.
    """
    return _costs(job, schedule_of(job, num_variants), num_variants)


def _costs(job: JobSpec, schedule: Schedule, num_variants: int) -> list[RoundCost]:
    whole, stage = job.training.epochs, schedule.stage
    costs, before, sizes = [], 0, [num_variants]
    for index, count in enumerate(schedule.counts):
        num_trials, work = sizes[-1] * (count - before), sizes[-1] * schedule.work_of(index)
        num_epochs = work if schedule.epochs else work * whole
        pause = schedule.pause_of(index)
        costs.append(RoundCost(stage, sizes[-1], count, num_trials, num_epochs, pause))
        before = count
        if index < len(schedule.keeps):
            sizes.append(num_going_on(schedule, sizes))
    if (proposals := schedule.proposals) is not None:
        costs[0] = costs[0]._replace(num_rounds=math.ceil(num_variants / proposals.batch))
    if (confirm := job.search.confirmation) is not None:
        num = min(confirm.variants, sizes[-1])
        num_trials = num * confirm.seeds
        costs.append(RoundCost("confirm", num, confirm.seeds, num_trials, num_trials * whole))
    return costs


def num_going_on(schedule: Schedule, sizes: Sequence[int]) -> int:
    """How many variants of the last of some rounds go on by their rank, if none of them tie.

    A share is taken of the variants that would be in the round if none had tied so far. What those
    cost that went on in a tie is saved here, and as many ties are expected again, so that rounds do
    not cost more than planned.

    Args:
        schedule: The schedule.
        sizes: How many variants are in each round so far; at least one round is to come.

    >>> schedule = Schedule("val_loss", "minimize", "mean", (), (3, 7, 20), ("1/3", "1/3"))
    >>> [num_going_on(schedule, sizes) for sizes in ([60], [60, 20], [60, 26])]
    [20, 7, 3]
    """
    planned, num_extra, rate = sizes[0], 0, 1.0
    for index, (keep, size) in enumerate(zip(schedule.keeps, sizes, strict=False)):
        num_extra += (size - planned) * schedule.work_of(index)
        rate = planned / size
        planned = max(share_of(keep, planned), min(schedule.fewest, planned))
    last = len(sizes) - 1
    if is_number(schedule.keeps[last]):
        return planned
    wanted = math.floor((planned - num_extra / schedule.work_of(last + 1)) * rate)
    return max(wanted, min(schedule.fewest, sizes[-1]))
