"""New variants, proposed by Optuna's tree-structured Parzen estimator from those before.

A pure function: a study is made anew for each batch, from the assignments and what decided on them,
and its sampler is seeded by the job's seed and the number of the batch. Nothing is stored.

References:
    Bergstra et al., 2011, Algorithms for Hyper-Parameter Optimization.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from trialrun.analysis.quiet_optuna import quiet_optuna
from trialrun.job import Goal, Range, ValueList
from trialrun.job.conditions import Conditions
from trialrun.job.document import canonical_json
from trialrun.store.round_log import Decision, Proposals

if TYPE_CHECKING:
    import optuna

Assignment = Mapping[str, Any]

# Of more variants than these, the best and the latest are told, because the time that a proposal
# takes grows with them.
_MAX_TOLD = 200
# At most so many of the best are what Optuna calls good.
_NUM_BEST = 25
# How many proposals are asked for each new variant; those that are not new are left out.
_MAX_ASKED = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What a sampler is told.

    Attributes:
        assignments: All variants so far in the order of the search, by id.
        decision: Their scores, and who lost a trial.
        goal: Whether a small or a large score is good.
    """

    assignments: Mapping[str, Assignment]
    decision: Decision
    goal: Goal

    def values(self) -> dict[str, float]:
        """The value of each variant; the worst of all scores for one that lost a trial."""
        decision = self.decision
        scores = {
            variant_id: score for variant_id, score in decision.scores.items() if score is not None
        }
        worst = (max if self.goal == "minimize" else min)(scores.values())
        return {
            variant_id: worst if variant_id in decision.lost else scores.get(variant_id, worst)
            for variant_id in self.assignments
        }


def propose(
    parameters: Mapping[str, ValueList | Range],
    proposals: Proposals,
    told: Told,
    draws: Sequence[Assignment],
) -> list[Assignment]:
    """The assignments of the next batch; none of them is known yet.

    Args:
        parameters: Searched dotted path -> what it may be.
        proposals: How many are wanted, and the seed.
        told: All variants so far.
        draws: As many distinct assignments as there will be variants. They take the place of
            proposals that are not new, which happens in a small space.
    """
    num_known = len(told.assignments)
    wanted = min(proposals.batch, proposals.num_variants - num_known)
    seen = set(map(canonical_json, told.assignments.values()))
    found: list[Assignment] = []
    seed = _seed(proposals.seed, num_known // proposals.batch)
    conditions = Conditions.of(parameters)
    with quiet_optuna():  # `multivariate` and `group` are experimental
        study = _study(parameters, told, seed)
        asked = (_ask(study, conditions) for _ in range(_MAX_ASKED * wanted))
        for one in chain(asked, draws):
            if (key := canonical_json(one)) not in seen:
                seen.add(key)
                found.append(one)
            if len(found) == wanted:
                break
    return found


def _seed(seed: int, batch: int) -> int:
    return int(np.random.SeedSequence([seed, batch]).generate_state(1)[0])


def _study(
    parameters: Mapping[str, ValueList | Range], told: Told, seed: int
) -> "optuna.study.Study":
    import optuna

    sampler = optuna.samplers.TPESampler(
        seed=seed, multivariate=True, group=True, constant_liar=True
    )
    study = optuna.create_study(direction=told.goal, sampler=sampler)
    distributions = {path: _distribution(spec) for path, spec in parameters.items()}
    for assignment, value in _history(told):
        trial = optuna.trial.create_trial(
            params={path: _number(parameters[path], one) for path, one in assignment.items()},
            distributions={path: distributions[path] for path in assignment},
            value=value,
        )
        study.add_trial(trial)
    return study


def _history(told: Told) -> list[tuple[Assignment, float]]:
    """The variants that are told with their values, in the order of the search."""
    values = told.values()
    best = sorted(values, key=values.__getitem__, reverse=told.goal == "maximize")[:_NUM_BEST]
    rest = [variant_id for variant_id in values if variant_id not in set(best)]
    kept = {*best, *rest[-(_MAX_TOLD - _NUM_BEST) :]}
    return [(told.assignments[one], value) for one, value in values.items() if one in kept]


def _distribution(spec: ValueList | Range) -> "optuna.distributions.BaseDistribution":
    """What Optuna draws from: of a list the position, as it may hold lists and mappings."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(spec, ValueList):
        return CategoricalDistribution(tuple(range(len(spec.values))))
    if spec.distribution == "int_uniform":
        return IntDistribution(int(spec.min), int(spec.max))
    is_log = spec.distribution == "log_uniform"
    return FloatDistribution(float(spec.min), float(spec.max), log=is_log)


def _number(spec: ValueList | Range, value: Any) -> Any:
    """A value as Optuna knows it."""
    if isinstance(spec, Range):
        return value
    return list(map(canonical_json, spec.values)).index(canonical_json(value))


def _ask(study: "optuna.study.Study", conditions: Conditions) -> Assignment:
    trial = study.ask()
    drawn: dict[str, Any] = {}
    for path in conditions.order:
        if conditions.is_active(path, drawn):
            drawn[path] = _suggest(trial, path, conditions.parameters[path])
    return {path: drawn[path] for path in conditions.parameters if path in drawn}


def _suggest(trial: "optuna.trial.Trial", path: str, spec: ValueList | Range) -> Any:
    if isinstance(spec, ValueList):
        return spec.values[trial.suggest_categorical(path, range(len(spec.values)))]
    if spec.distribution == "int_uniform":
        return spec.value_of(trial.suggest_int(path, int(spec.min), int(spec.max)))
    is_log = spec.distribution == "log_uniform"
    return spec.value_of(trial.suggest_float(path, float(spec.min), float(spec.max), log=is_log))
