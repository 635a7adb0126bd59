"""What is wrong with the rounds of a job, beside its seeds and its resources."""

import itertools
from collections.abc import Iterator, Sequence

from trialrun.job.document import KeyPath
from trialrun.job.problems import Problem, dotted
from trialrun.job.rounds_spec import FEWEST_SEEDS, FRESH_SEEDS, BudgetSpec, RaceSpec, RoundSpec
from trialrun.job.spec import JobSpec

_ROUNDS: KeyPath = ("search", "rounds")
_FEWEST_IN_A_LOOK = 2


def check_rounds(job: JobSpec) -> Iterator[Problem]:
    """Problems of `search.rounds` and `search.confirm`."""
    rounds = job.search.rounds
    if rounds == "auto":
        if job.num_seeds < FEWEST_SEEDS:
            yield Problem(
                _ROUNDS,
                f"search.rounds: auto needs at least {FEWEST_SEEDS} seeds, got {job.num_seeds};"
                " give more seeds",
            )
    elif isinstance(rounds, RaceSpec):
        looks = rounds.looks or ()
        paths = [(*_ROUNDS, "looks", index) for index in range(len(looks))]
        yield from _check_counts(looks, paths, job.num_seeds)
        if looks and looks[0] < _FEWEST_IN_A_LOOK:
            what = f"must be at least {_FEWEST_IN_A_LOOK}, as one seed tests nothing"
            yield Problem(paths[0], f"{dotted(paths[0])} {what}, got {looks[0]}")
    elif rounds == ():
        yield Problem(_ROUNDS, "search.rounds must be a list of at least 1 round, got []")
    elif rounds is not None:
        inner = [(*_ROUNDS, index, "seeds") for index in range(len(rounds))]
        yield from _check_counts([one.seeds for one in rounds], inner, job.num_seeds)
        yield from _check_keeps(rounds)
        yield from _check_epochs(rounds, job)
    yield from _check_budget(job)
    yield from _check_fresh_seeds(job)
    yield from _check_shard(job)


def _check_counts(
    counts: Sequence[int], paths: Sequence[KeyPath], num_seeds: int
) -> Iterator[Problem]:
    """Numbers of seeds that do not grow from round to round, or are more than the job has."""
    for path, (before, count) in zip(paths[1:], itertools.pairwise(counts), strict=True):
        if count <= before:
            message = f"must be more than the {before} before it, got {count}"
            yield Problem(path, f"{dotted(path)} {message}")
    for path, count in zip(paths, counts, strict=True):
        if count > num_seeds:
            message = f"must be at most {num_seeds}, the number of seeds of the job, got {count}"
            yield Problem(path, f"{dotted(path)} {message}")


def _check_keeps(rounds: Sequence[RoundSpec]) -> Iterator[Problem]:
    *early, last = rounds
    for index, one in enumerate(early):
        if one.keep is None:
            path: KeyPath = (*_ROUNDS, index)
            yield Problem(
                path, f"{dotted(path)}.keep is missing; give the share that goes on, such as 1/3"
            )
    if last.keep is not None:
        path = (*_ROUNDS, len(early), "keep")
        yield Problem(path, f"{dotted(path)}: after the last round nothing goes on; leave it out")


def _check_budget(job: JobSpec) -> Iterator[Problem]:
    """A budget that says nothing, or that nothing can keep to."""
    search, path = job.search, ("search", "budget")
    if (budget := search.budget) is None:
        return
    if budget == BudgetSpec():
        yield Problem(path, "search.budget must give trials or time, got neither")
    elif search.rounds is None and search.confirmation is None and search.method != "tpe":
        yield Problem(
            path,
            "search.budget: without rounds every variant gets every seed; give search.rounds, such"
            " as auto, or leave the budget out",
        )
    elif isinstance(search.rounds, RaceSpec) and budget.trials is not None:
        yield Problem(
            (*path, "trials"),
            "search.budget.trials: a race takes as many trials as its tests need; give"
            " search.budget.time, or search.rounds: auto",
        )


def _check_epochs(rounds: Sequence[RoundSpec], job: JobSpec) -> Iterator[Problem]:
    """Epochs at which rounds cannot pause, or that are no earlier than those of a round before."""
    paths: list[KeyPath] = [(*_ROUNDS, index, "epochs") for index in range(len(rounds))]
    given = [(path, one.epochs) for path, one in zip(paths, rounds, strict=True) if one.epochs]
    if not given:
        return
    if "training.epochs" in job.search.domains:
        yield Problem(
            given[0][0],
            f"{dotted(given[0][0])}: cannot be used while training.epochs is searched, because"
            " variants that end at different epochs cannot be compared at one; leave out one of the"
            " two",
        )
    if rounds[-1].epochs is not None:
        what = "the last round trains its trials to their end; leave it out"
        yield Problem(paths[-1], f"{dotted(paths[-1])}: {what}")
    for path, epochs in given:
        if epochs >= job.training.epochs and path != paths[-1]:
            most = f"must be less than training.epochs, {job.training.epochs}, got {epochs}"
            yield Problem(path, f"{dotted(path)} {most}")
    for path, (before, one) in zip(paths[1:], itertools.pairwise(rounds), strict=True):
        if one.epochs is not None and path != paths[-1]:
            if before.epochs is None:
                what = "the round before it trains its trials to their end; leave it out"
                yield Problem(path, f"{dotted(path)}: {what}")
            elif one.epochs < before.epochs:
                message = f"must not be less than the {before.epochs} before it, got {one.epochs}"
                yield Problem(path, f"{dotted(path)} {message}")


def _check_fresh_seeds(job: JobSpec) -> Iterator[Problem]:
    """A seed of the job that belongs to the confirmation."""
    if job.search.rounds is None and job.search.confirmation is None:
        return
    taken = [seed for seed in job.seed_list if seed in FRESH_SEEDS]
    if taken:
        yield Problem(
            ("seeds",),
            f"seeds: {taken[0]} is one of the seeds {FRESH_SEEDS[0]} to {FRESH_SEEDS[-1]}, which"
            " are kept for confirming the winner; give another",
        )


def _check_shard(job: JobSpec) -> Iterator[Problem]:
    """Shards, of which none knows the trials by which a round is decided."""
    field = job.search.deciding_field
    if job.resources.shard is not None and field:
        yield Problem(
            ("resources", "shard"),
            f"resources.shard: a job with search.{field} cannot be sharded, because each decision"
            " needs the trials of all shards; train it on one Ray cluster",
        )
