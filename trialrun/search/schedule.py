"""The rounds that a job asks for, before anything is trained, and what they cost."""

from collections.abc import Sequence
from typing import NamedTuple

from trialrun.job import JobSpec, RaceSpec, share_of
from trialrun.store.round_log import Schedule

# A third of the variants goes on after 0.15 and after 0.35 of the seeds. On tables of real runs
# this chose as well as all seeds for all variants, at a third of the cost.
_AUTO_SHARES, _AUTO_KEEP, _AUTO_FEWEST = (0.15, 0.35), "1/3", 3
_FEWEST_TO_CHOOSE = 2
# A race looks at the variants after so many seeds, then each time the seeds have grown by 1.6.
_LOOKS, _GROWTH = (3, 5, 8, 12, 20), 1.6


def schedule_of(job: JobSpec) -> Schedule:
    """The schedule of a job that begins now; without `search.rounds` it has one round."""
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
    )


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
        num_trials: The trials that are trained in it; of a race, the most.
    """

    stage: str
    num_variants: int
    num_seeds: int
    num_trials: int


def expected_rounds(job: JobSpec, num_variants: int) -> list[RoundCost]:
    """The rounds of a job and their trials, if no two variants tie at a cut."""
    schedule = schedule_of(job)
    stage = "choose" if schedule.level is None else "race"
    costs, before, left = [], 0, num_variants
    for index, count in enumerate(schedule.counts):
        costs.append(RoundCost(stage, left, count, left * (count - before)))
        before = count
        if index < len(schedule.keeps):
            left = num_going_on(schedule, index, left)
    if (confirm := job.search.confirmation) is not None:
        num = min(confirm.variants, left)
        costs.append(RoundCost("confirm", num, confirm.seeds, num * confirm.seeds))
    return costs


def num_going_on(schedule: Schedule, index: int, num_variants: int) -> int:
    """How many of a round's variants go on by their rank, if none of them tie.

    Args:
        schedule: The schedule.
        index: The round's position in it, from 0; not the last.
        num_variants: How many variants are in the round.
    """
    return max(share_of(schedule.keeps[index], num_variants), min(schedule.fewest, num_variants))
