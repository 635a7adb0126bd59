"""From a job to its variants and trials. Starts nothing."""

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from trialrun.errors import InputError
from trialrun.job import JobSpec, Settings, settings_of
from trialrun.job.problems import to_problems
from trialrun.job.user_code.files import hashing_once
from trialrun.trials.identity import hash_settings, trial_id_of
from trialrun.trials.search_space import Assignment, expand
from trialrun.trials.trial import Trial, Variant


def plan_variants(job: JobSpec, proposed: Sequence[Assignment] = ()) -> tuple[Variant, ...]:
    """The variants of a job, in the order of its search.

    Args:
        job: The job.
        proposed: What `tpe` has proposed so far; without it, these are the first batch.

    Raises:
        InputError: The search has too few variants, or values that are wrong together.
    """
    assignments = expand(job, proposed)
    num_in_all = max(len(assignments), job.search.num_variants or 0)  # `tpe` adds some later
    width = max(2, len(str(num_in_all - 1)))
    return tuple(
        Variant(f"v{index:0{width}d}", parameters, *_settings_of(job, parameters))
        for index, parameters in enumerate(assignments)
    )


def _settings_of(job: JobSpec, parameters: Assignment) -> Settings:
    """The settings of a variant; each value is known to be right without the others."""
    try:
        return settings_of(job, parameters)
    except ValidationError as error:
        wrong = "; ".join(problem.message for problem in to_problems(error))
        together = ", ".join(f"{path} = {value!r}" for path, value in parameters.items())
        raise InputError(
            "search.parameters: with `when`, search a parameter only where it is right; wrong"
            f" together are {together}: {wrong}"
        ) from error


def plan_trials(job: JobSpec, proposed: Sequence[Assignment] = ()) -> tuple[Trial, ...]:
    """Every variant with every seed: all seeds of the first variant, then of the second, ..."""
    return trials_of(plan_variants(job, proposed), job.seed_list)


def trials_of(variants: Iterable[Variant], seeds: Iterable[int]) -> tuple[Trial, ...]:
    """Some variants with some seeds: all seeds of the first variant, then of the second, ..."""
    trials: list[Trial] = []
    seeds = list(seeds)  # to share the numbers' memory between variants
    with hashing_once():
        for variant in variants:
            settings_hash = hash_settings(variant)  # once per variant, as it is most of the work
            trials += (Trial(trial_id_of(settings_hash, seed), variant, seed) for seed in seeds)
    return tuple(trials)
