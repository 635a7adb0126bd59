"""From a job to its variants and trials. Starts nothing."""

from collections.abc import Sequence

from trialrun.job import JobSpec, settings_of
from trialrun.trials.identity import hash_settings, with_seed
from trialrun.trials.search import expand
from trialrun.trials.trial import Trial, Variant


def plan_variants(job: JobSpec) -> tuple[Variant, ...]:
    """The variants of a job, in the order of its search."""
    assignments = expand(job)
    width = max(2, len(str(len(assignments) - 1)))
    return tuple(
        Variant(f"v{index:0{width}d}", parameters, *settings_of(job, parameters))
        for index, parameters in enumerate(assignments)
    )


def plan_trials(job: JobSpec, fresh_seeds: Sequence[int] = ()) -> tuple[Trial, ...]:
    """Every variant with every seed: all seeds of the first variant, then of the second, ...

    Args:
        job: The job.
        fresh_seeds: Further seeds, by which variants may be confirmed.
    """
    trials: list[Trial] = []
    seeds = [*job.seed_list, *fresh_seeds]  # to share the numbers' memory between variants
    for variant in plan_variants(job):
        settings_hash = hash_settings(variant)  # once per variant, as it is most of the work
        trials += (Trial(with_seed(settings_hash, seed), variant, seed) for seed in seeds)
    return tuple(trials)
