"""The rounds of a run: which trials come next, written down before they are trained."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trialrun.analysis.selection import ValidationScores, join_scores, validation_scores
from trialrun.driver.logged_rounds import are_all_recorded, follows, search_of
from trialrun.driver.proposals import new_variants, planned_trials
from trialrun.driver.work import Batch, Work
from trialrun.errors import InputError, TrialrunError
from trialrun.job import FRESH_SEEDS, JobSpec
from trialrun.messages import counted
from trialrun.search.strategy import Search, next_round
from trialrun.store.round_log import (
    Decision,
    Round,
    fresh_seeds_of,
    joined,
    last_choosing,
)
from trialrun.trials.plan import trials_of
from trialrun.trials.trial import Trial

if TYPE_CHECKING:
    import pandas as pd

    from trialrun.store import RunFolder


def has_rounds(work: Work) -> bool:
    """Whether variants of a run are proposed or chosen in rounds, or its winner is confirmed."""
    return wants_rounds(work.loaded.spec) or bool(work.run.rounds.read())


def wants_rounds(job: JobSpec) -> bool:
    """Whether a job asks for that."""
    search = job.search
    wanted = search.rounds is not None or search.confirmation is not None
    return wanted or search.method == "tpe"


def recorded_fresh_trials(run: "RunFolder", trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """The trials of fresh seeds that a run holds, which are not among the job's own.

    Args:
        run: The run folder.
        trials: The job's trials.
    """
    rows = run.read_trials("identity")
    fresh = rows[rows["seed"].isin(FRESH_SEEDS)]
    return _fresh_trials(trials, zip(fresh["variant_id"], fresh["seed"].tolist(), strict=True))


def _fresh_trials(trials: Sequence[Trial], pairs: Iterable[tuple[str, int]]) -> tuple[Trial, ...]:
    """The trials of some variants with fresh seeds, in the order of the search."""
    seeds_of: dict[str, set[int]] = {}
    for variant_id, seed in pairs:
        seeds_of.setdefault(variant_id, set()).add(seed)
    variants = {trial.variant.variant_id: trial.variant for trial in trials}
    return tuple(
        trial
        for variant_id, variant in variants.items()
        if variant_id in seeds_of
        for trial in trials_of([variant], sorted(seeds_of[variant_id]))
    )


class Rounds:
    """The rounds of a run, continued from its log.

    Args:
        work: The work on the run; it holds the folder.

    Raises:
        InputError: The job asks for other rounds than those that the run began with.
        TrialrunError: The log does not follow from the run's trials.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._trials = work.trials
        self._log = work.run.rounds
        self._rounds = list(self._log.read())
        self._search = search_of(work, self._rounds)
        self._num_before = len(self._rounds)  # those that earlier commands began
        self._num_checked = 0
        self._trained: dict[str, set[int | None]] = {}  # trial id -> to which epochs
        self._check_log()

    def batches(self) -> Iterator[Batch]:
        """The trials of each round that have no result yet, in the order of the job.

        A round is in the log before its trials are given. Each trial is given once, so that one
        that failed is tried again only by the next driver.
        """
        while True:
            if (batch := self._missing()).trials:
                for trial in batch.trials:
                    self._trained.setdefault(trial.trial_id, set()).add(batch.pause_after)
                if batch.pause_after == self._rounds[-1].epochs:
                    self._forget_dropped()
                yield batch
                continue
            self._check_log()
            if self._num_checked < len(self._rounds):  # it asks for trials that the job lacks
                raise self._changed(self._rounds[self._num_checked])
            scores = self._scores_after(self._rounds)
            coming = next_round(self._search, self._rounds, scores, self._propose)
            if coming is None or self._is_out_of_time(coming):
                return
            self._check_extension(coming)
            self._work.lease.check()
            self._log.write(coming)
            self._rounds.append(coming)
            self._num_checked += 1
            if coming.stage == "propose":
                self._trials = planned_trials(self._work.loaded.spec, self._rounds)
            self._work.progress.tell(line_of(coming))

    def _propose(self, decision: Decision | None) -> Mapping[str, Mapping[str, Any]]:
        return new_variants(self._work.loaded.spec, self._rounds, decision)

    def _is_out_of_time(self, coming: Round) -> bool:
        """Whether `search.budget.time` is over; each command begins one round, however late."""
        budget = self._work.loaded.spec.search.budget
        passed_s = time.perf_counter() - self._work.started_s
        if budget is None or passed_s < budget.seconds or len(self._rounds) == self._num_before:
            return False
        self._work.progress.warn(
            f"search.budget.time: {budget.time} is over, so that {_name(coming)} is not begun"
        )
        return True

    def _check_extension(self, coming: Round) -> None:
        """Refuses what a run gets later if its budget of trials does not allow it.

        That is more seeds, with the confirmation that follows them, or another confirmation.
        """
        budget = self._work.loaded.spec.search.budget
        is_another = coming.stage == "confirm" and bool(fresh_seeds_of(self._rounds))
        if budget is None or budget.trials is None or not (is_another or coming.stage == "extend"):
            return
        num_trials = len(_pairs([*self._rounds, coming]))
        if coming.stage == "extend":
            num_trials += _most_confirming(self._search, self._rounds, coming)
        if num_trials > budget.trials:
            number = len(coming.seeds)
            what = f"{number} fresh seeds" if is_another else f"{number} seeds and a confirmation"
            raise InputError(
                f"{self._work.run.path}: search.budget.trials is {budget.trials}, but with {what}"
                f" the run may have {num_trials} trials; give more"
            )

    def _forget_dropped(self) -> None:
        """Removes the states of paused trials that will not go on."""
        if self._search.schedule.epochs:
            left = set(last_choosing(joined(self._rounds)).variants)
            trials = self._trials
            dropped = {t.trial_id for t in trials if t.variant.variant_id not in left}
            self._work.run.kept.forget_trials(dropped)

    def _missing(self) -> Batch:
        """Trials without a result, and failed ones of the variants that are still in the search.

        Rounds that pause their trials after different epochs are looked at one after the other.
        """
        for epochs in dict.fromkeys(one.epochs for one in self._rounds):
            rounds = [one for one in self._rounds if one.epochs == epochs]
            if missing := self._missing_in(rounds, epochs):
                return Batch(missing, epochs)
        return Batch()

    def _missing_in(self, rounds: Sequence[Round], epochs: int | None) -> list[Trial]:
        wanted = _pairs(rounds)
        left = _pairs(
            [one for one in _still_counting(joined(self._rounds)) if one.epochs == epochs]
        )
        trials = self._trials
        confirming = _pairs([one for one in rounds if one.stage == "confirm"])
        of_rounds = [
            trial
            for trial in (*trials, *_fresh_trials(trials, confirming))
            if (trial.variant.variant_id, trial.seed) in wanted
            and epochs not in self._trained.get(trial.trial_id, ())
        ]
        rows = self._rows(of_rounds, epochs)
        status_of = dict(zip(rows["trial_id"], rows["status"], strict=True))
        return [
            trial
            for trial in of_rounds
            if (status := status_of.get(trial.trial_id)) is None
            or (
                status == "failed"
                and (trial.variant.variant_id, trial.seed) in left
                and trial.trial_id not in self._trained
            )
        ]

    def _rows(self, trials: Sequence[Trial], epochs: int | None) -> "pd.DataFrame":
        """The identity of trials that have ended after an epoch, or were paused then."""
        run = self._work.run
        if not self._search.schedule.epochs:
            return run.read_trials("identity", [trial.trial_id for trial in trials])
        variant_ids = tuple(dict.fromkeys(trial.variant.variant_id for trial in trials))
        return run.tables.index().at(epochs).read(variant_ids, "identity")

    def _scores_after(self, rounds: Sequence[Round]) -> ValidationScores:
        """The selection metric of all trials after the epochs of the last round that chose."""
        index = self._work.run.tables.index()
        if rounds and self._search.schedule.epochs:
            index = index.at(last_choosing(rounds).epochs)
        chunks = index.by_variants("numbers")
        metric = self._search.schedule.metric
        return join_scores([validation_scores(chunk, metric, index.seeds) for chunk in chunks])

    def _check_log(self) -> None:
        """Compares each round of the log with what the run's trials lead to.

        A round that was decided on trials which are now missing, because their files were damaged,
        is compared when they have been trained again.
        """
        if self._num_checked == len(self._rounds):
            return
        read: dict[int | None, ValidationScores] = {}
        while self._num_checked < len(self._rounds):
            before, one = self._rounds[: self._num_checked], self._rounds[self._num_checked]
            if one.decision is not None:
                last = last_choosing(joined(before))
                if last.epochs not in read:
                    read[last.epochs] = self._scores_after(before)
                scores = read[last.epochs]
                if not are_all_recorded(scores, last):
                    return
                if not follows(one, one.decision, before, self._search, scores):
                    raise self._changed(one)
            self._num_checked += 1

    def _changed(self, one: Round) -> TrialrunError:
        return TrialrunError(
            f"{self._log.file_of(one.number)}: does not follow from the trials of this run, so that"
            " a file of the log or the trials were changed. Put back what was changed, or start a"
            " new run"
        )


def _name(one: Round) -> str:
    return "the confirmation" if one.stage == "confirm" else f"round {one.number}"


def line_of(one: Round) -> str:
    """A round in one line, for the terminal."""
    num_variants, seeds = len(one.variants), counted(len(one.seeds), "seed")
    if one.stage == "propose" and one.decision is not None:
        return f"Round {one.number}: {counted(num_variants, 'new variant')} x {seeds}"
    if one.stage == "confirm":
        names = ", ".join(one.variants)
        return f"Round {one.number}: {names} on {len(one.seeds)} fresh seeds"
    pause = "" if one.epochs is None else f", to epoch {one.epochs}"
    return f"Round {one.number}: {counted(num_variants, 'variant')} x {seeds}{pause}"


def _pairs(rounds: Sequence[Round]) -> set[tuple[str, int]]:
    return {
        (variant_id, seed) for one in rounds for variant_id in one.variants for seed in one.seeds
    }


def _most_confirming(search: Search, rounds: Sequence[Round], coming: Round) -> int:
    """How many trials the confirmation after a round may add, whichever variants it is of."""
    if search.confirm is None:
        return 0
    known, fresh = _pairs(rounds), search.fresh_seeds
    numbers = [sum((one, seed) not in known for seed in fresh) for one in coming.variants]
    return sum(sorted(numbers, reverse=True)[: search.confirm.variants])


def _still_counting(rounds: Sequence[Round]) -> list[Round]:
    """The last round of choosing, which asks for all seeds of its variants, and what follows it."""
    choosing = [position for position, one in enumerate(rounds) if one.stage != "confirm"]
    return list(rounds[choosing[-1] :]) if choosing else []
