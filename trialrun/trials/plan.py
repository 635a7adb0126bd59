"""From a job to its variants and trials. Starts nothing."""

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


def plan_trials(job: JobSpec) -> tuple[Trial, ...]:
    """Every variant with every seed: all seeds of the first variant, then of the second, ..."""
    trials: list[Trial] = []
    seeds = list(job.seed_list)  # to share the numbers' memory between variants
    for variant in plan_variants(job):
        settings_hash = hash_settings(variant)  # once per variant, as it is most of the work
        trials += (Trial(with_seed(settings_hash, seed), variant, seed) for seed in seeds)
    return tuple(trials)
