"""From closed rounds to the next one: a pure function of the job and of validation numbers.

Only rounds whose trials have all ended are looked at, and only their trials. So neither the order
in which trials end, nor devices, packs, retries or resumes can change what is decided.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trialrun.analysis.selection import (
    DECISION_DIGITS,
    ValidationScores,
    rank,
    round_significant,
    variant_scores,
)
from trialrun.job import FRESH_SEEDS, ConfirmSpec, Goal, Statistic
from trialrun.messages import counted
from trialrun.search.schedule import num_going_on
from trialrun.statistics.race import race_p_values
from trialrun.store.round_log import Decision, Round, Schedule, joined, last_choosing

_P_DIGITS = 3
# From fewer seeds, the bound of a mean says more about the luck of their spread than about it.
_FEWEST_FOR_A_BOUND = 10


@dataclass(frozen=True, slots=True)
class Search:
    """What the rounds of a run follow from, besides the trials.

    Attributes:
        variant_ids: All variants of the job, in the order of the search.
        seeds: The seeds that the job has now; those that it began with come first.
        goal, statistic: What decides, see the job's section `select`.
        schedule: The schedule with which the first round began.
        confirm: The confirmation; None if there is none.
    """

    variant_ids: tuple[str, ...]
    seeds: tuple[int, ...]
    goal: Goal
    statistic: Statistic
    schedule: Schedule
    confirm: ConfirmSpec | None

    @property
    def fresh_seeds(self) -> tuple[int, ...]:
        """The seeds of the confirmation."""
        count = 0 if self.confirm is None else self.confirm.seeds
        return tuple(FRESH_SEEDS[:count])


# From what decides on all variants so far, None before the first, to new ones: id -> assignment.
Propose = Callable[[Decision | None], Mapping[str, Mapping[str, Any]]]


def next_round(
    search: Search,
    rounds: Sequence[Round],
    scores: ValidationScores,
    propose: Propose | None = None,
) -> Round | None:
    """The round that comes after some closed rounds; None if there is nothing more to train.

    Args:
        search: What the rounds follow from.
        rounds: All rounds so far, from the first.
        scores: The selection metric of their trials after the epochs of the last round that chose;
            others are not looked at.
        propose: What proposes variants, if the schedule says that they are proposed.
    """
    schedule, stage = search.schedule, search.schedule.stage
    if not rounds:
        return _first_round(search, propose)
    number = len(rounds) + 1
    rounds = joined(rounds)
    if schedule.proposals is not None:
        search = replace(search, variant_ids=rounds[0].variants)
    scheduled = [one for one in rounds if one.stage == stage]
    last = last_choosing(rounds)
    # Sorted, because an interval that is drawn depends on the order of the values.
    seen = scores.restricted(last.variants, sorted(last.seeds))
    if np.isnan(seen.values).all():
        return None
    if _is_proposing(schedule, rounds):
        assert propose is not None, "the schedule says that variants are proposed"
        decision = _decision(seen, search, _statistic_for_cuts(search, seen), {})
        like = replace(last, number=number, decision=decision, schedule=None)
        return _proposed(like, propose(decision))
    if len(scheduled) < len(schedule.counts) and not _is_decided(scheduled):
        kept, dropped = (_cut if schedule.level is None else _race)(search, scheduled, seen)
        count = schedule.counts[len(scheduled)]
        if schedule.level is not None and len(kept) == 1 and dropped:  # nobody is left to race
            count = len(last.seeds)
        decision = _decision(seen, search, _statistic_for_cuts(search, seen), dropped)
        epochs = schedule.pause_of(len(scheduled))
        return Round(number, stage, kept, schedule.seeds[:count], decision, epochs=epochs)
    return _after_the_schedule(number, search, rounds, last, seen)


def _first_round(search: Search, propose: Propose | None) -> Round:
    schedule = search.schedule
    seeds = schedule.seeds[: schedule.counts[0]]
    first = Round(1, schedule.stage, search.variant_ids, seeds, schedule=schedule)
    first = replace(first, epochs=schedule.pause_of(0))
    if schedule.proposals is None:
        return first
    assert propose is not None, "the schedule says that variants are proposed"
    return _proposed(first, propose(None))


def _is_proposing(schedule: Schedule, rounds: Sequence[Round]) -> bool:
    """Whether there are more variants to propose after these rounds, those that propose joined."""
    proposals = schedule.proposals
    return proposals is not None and len(rounds[0].variants) < proposals.num_variants


def _proposed(one: Round, new: Mapping[str, Mapping[str, Any]]) -> Round:
    """A round like another in which new variants are proposed."""
    return replace(one, stage="propose", variants=tuple(new), assignments=new)


def _is_decided(scheduled: Sequence[Round]) -> bool:
    """Whether a race has left one variant of several."""
    last = scheduled[-1]
    return last.stage == "race" and len(last.variants) == 1 < len(scheduled[0].variants)


def _after_the_schedule(
    number: int, search: Search, rounds: Sequence[Round], last: Round, seen: ValidationScores
) -> Round | None:
    """Seeds that the job got since it began, and then the confirmation."""
    schedule = search.schedule
    variants = last.variants if len(schedule.counts) > 1 else search.variant_ids
    has_more_seeds = len(search.seeds) > len(schedule.seeds) and last.seeds != search.seeds
    if has_more_seeds or variants != last.variants:
        decision = _decision(seen, search, search.statistic, {})
        return Round(number, "extend", variants, search.seeds, decision)
    if search.confirm is None:
        return None
    order = [index for index in _order(seen, search, search.statistic) if _has_value(seen)[index]]
    best = tuple(seen.variant_ids[index] for index in order[: search.confirm.variants])
    before = rounds[-1]
    if before.stage == "confirm" and (before.variants, before.seeds) == (best, search.fresh_seeds):
        return None
    decision = _decision(seen, search, search.statistic, {})
    return Round(number, "confirm", best, search.fresh_seeds, decision)


# Decisions ---------------------------------------------------------------------------------------


def _cut(
    search: Search, scheduled: Sequence[Round], seen: ValidationScores
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The variants that go on by their rank, and the rule for each of the others."""
    statistic = _statistic_for_cuts(search, seen)
    order = _order(seen, search, statistic)
    found = variant_scores(seen, search.goal, statistic, DECISION_DIGITS)
    keys = [(seen.num_unfinished[index] > 0, found[index]) for index in order]
    num_wanted = num_going_on(search.schedule, [len(one.variants) for one in scheduled])
    last_key = keys[min(num_wanted, int(_has_value(seen).sum())) - 1]
    # Equal keys stand side by side, as the variants are ordered by them.
    num_kept = max(position for position, key in enumerate(keys, 1) if key == last_key)
    epochs = scheduled[-1].epochs
    when = "" if epochs is None else f" at epoch {epochs}"
    rules = {
        seen.variant_ids[index]: f"rank {position} of {len(order)}{when}, and {num_kept} go on"
        for position, index in enumerate(order, 1)
        if position > num_kept
    }
    return _in_order(seen, rules), rules


def _race(
    search: Search, scheduled: Sequence[Round], seen: ValidationScores
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The variants that are not shown to be worse than the leader, and the rule for the others.

    The p-values of `race_p_values` are multiplied by the number of other variants, as any of them
    may lead, and divided by the look's share of the level (Bonferroni). The shares are as the
    numbers of seeds, because later looks see more. So the best of all variants is dropped with a
    chance of at most the level. A variant that lost a trial leaves, unless all of them did.
    """
    schedule = search.schedule
    losses = seen.values if search.goal == "minimize" else -seen.values
    leader = int(_order(seen, search, "mean")[0])
    num_variants = len(scheduled[0].variants)
    share = len(seen.seeds) / sum(schedule.counts[:-1])
    p_values = race_p_values(losses, leader) * (num_variants - 1) / share
    corrected = round_significant(np.minimum(p_values, 1.0), _P_DIGITS)
    rules = {}
    for index, variant_id in enumerate(seen.variant_ids):
        num_lost = int(seen.num_unfinished[index])
        if num_lost and not seen.num_unfinished[leader]:
            rules[variant_id] = f"lost {counted(num_lost, 'trial')}"
        elif index != leader and corrected[index] <= schedule.level:
            worse = f"worse than {seen.variant_ids[leader]}"
            rules[variant_id] = f"{worse}, corrected p {corrected[index]:.{_P_DIGITS}g}"
    return _in_order(seen, rules), rules


def _in_order(seen: ValidationScores, rules: dict[str, str]) -> tuple[str, ...]:
    return tuple(variant_id for variant_id in seen.variant_ids if variant_id not in rules)


def _decision(
    seen: ValidationScores, search: Search, statistic: Statistic, dropped: dict[str, str]
) -> Decision:
    found = variant_scores(seen, search.goal, statistic, DECISION_DIGITS)
    order = _order(seen, search, statistic)
    values = round_significant(seen.values, DECISION_DIGITS)
    rows = [
        [variant_id, *(None if np.isnan(value) else value for value in row)]
        for variant_id, row in zip(seen.variant_ids, values.tolist(), strict=True)
    ]
    return Decision(
        seeds=seen.seeds,
        scores={
            seen.variant_ids[index]: float(found[index]) if np.isfinite(found[index]) else None
            for index in order
        },
        lost={
            variant_id: tuple(
                seed for seed, value in zip(seen.seeds, row, strict=True) if np.isnan(value)
            )
            for variant_id, row in zip(seen.variant_ids, seen.values, strict=True)
            if np.isnan(row).any()
        },
        dropped=dropped,
        digest=hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    )


def _order(seen: ValidationScores, search: Search, statistic: Statistic) -> list[int]:
    return [int(index) for index in rank(seen, search.goal, statistic, DECISION_DIGITS)]


def _has_value(seen: ValidationScores) -> npt.NDArray[np.bool_]:
    num_values: npt.NDArray[np.intp] = np.count_nonzero(~np.isnan(seen.values), axis=1)
    return num_values > 0


def _statistic_for_cuts(search: Search, seen: ValidationScores) -> Statistic:
    few = len(seen.seeds) < _FEWEST_FOR_A_BOUND
    return "mean" if search.statistic == "confidence_bound" and few else search.statistic
