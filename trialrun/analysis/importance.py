"""Which parameters separate the best variants from the others: PED-ANOVA, computed by Optuna."""

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trialrun.analysis.parameters import ABSENT
from trialrun.analysis.quiet_optuna import quiet_optuna
from trialrun.analysis.selection import ValidationScores, variant_scores
from trialrun.analysis.variants import Leaderboard
from trialrun.job import Goal, searched_paths
from trialrun.job.keras_api.arguments import is_real
from trialrun.statistics.spread import Floats, spans_decades

# The best tenth, as in the paper, but not less than five variants, which Optuna advises.
_BEST_SHARE, _FEWEST_BEST = 0.1, 5
_FEWEST_VARIANTS, _MOST_VARIANTS = 10, 5000  # with more, it would take minutes
_MOST_CATEGORIES = 10  # numbers with more values are a range
_NUM_SHUFFLES, _LEVEL = 99, 0.05
_OPTUNA = "5"
_HOW_TO_GET_IT = "pip install 'trialrun[search]', then `trialrun report RUN`"


class ParameterImportance(NamedTuple):
    """One parameter.

    Attributes:
        path: Its dotted path.
        share: Its importance as a share of that of all parameters, 0 to 1.
        p_value: How often shuffled results make any parameter as important, compared with what is
            usual for it.
    """

    path: str
    share: float
    p_value: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than luck."""
        return self.p_value <= _LEVEL


@dataclass(frozen=True, slots=True)
class Importance:
    """How much each parameter separates the best variants from the others.

    Attributes:
        parameters: The most important first.
        num_best, num_variants: How many variants were the best, of how many.
        num_seeds: Over how many seeds they were compared.
        epochs: The epoch after which they were compared; None if it was the last.
    """

    parameters: tuple[ParameterImportance, ...]
    num_best: int
    num_variants: int
    num_seeds: int
    epochs: int | None = None

    @property
    def is_clear(self) -> bool:
        """Whether any parameter's importance is more than luck."""
        return any(one.is_clear for one in self.parameters)


@dataclass(frozen=True, slots=True)
class NoImportance:
    """Why the importance of parameters is not known.

    Attributes:
        reason: The reason.
        is_told: Whether people expect to be told of it.
    """

    reason: str
    is_told: bool = False


class _Compared(NamedTuple):
    """What is compared: the names of variants, and a loss for each; NaN for those that lost trials.

    All losses are over the same seeds.
    """

    names: Sequence[str]
    losses: Floats
    num_seeds: int
    epochs: int | None = None


def find_importance(board: Leaderboard, scores: ValidationScores) -> Importance | NoImportance:
    """The importance of the searched parameters.

    In a run with rounds, variants are compared by the scores of the first round, which has all of
    them with the same seeds.

    Args:
        board: The leaderboard.
        scores: The selection metric of its variants.

    References:
        Watanabe, Bansal and Hutter (2023), "PED-ANOVA: Efficiently Quantifying Hyperparameter
        Importance in Arbitrary Subspaces", IJCAI.
    """
    compared = _compared(board, scores)
    parameters = _parameters(board, compared.names)
    is_known = ~np.isnan(compared.losses)
    if len(parameters) < 2:
        return NoImportance("fewer than two parameters have several values")
    if (num_known := int(is_known.sum())) < _FEWEST_VARIANTS:
        return NoImportance(
            f"{num_known} variants without a lost trial, and it takes {_FEWEST_VARIANTS}"
        )
    if len(compared.names) > _MOST_VARIANTS:
        return NoImportance(
            f"{len(compared.names):,} variants, and with more than {_MOST_VARIANTS:,} it would take"
            " minutes",
            is_told=True,
        )
    # Only the order counts: a variant that lost a trial is not among the best.
    losses = np.where(is_known, compared.losses, np.inf)
    best = losses <= np.sort(losses)[max(_FEWEST_BEST, math.ceil(_BEST_SHARE * num_known)) - 1]
    if 2 * (num_best := int(best.sum())) > len(best):
        return NoImportance("more than half of the variants tie for the best")
    if problem := _problem_with_optuna():
        return NoImportance(f"{problem}: {_HOW_TO_GET_IT}", is_told=True)
    found = _importances(parameters, best)
    return Importance(found, num_best, len(best), compared.num_seeds, compared.epochs)


def importance_content(found: Importance | NoImportance) -> dict[str, Any]:
    """The importance as values for JSON."""
    if isinstance(found, NoImportance):
        return {"method": "PED-ANOVA", "left_out": found.reason}
    return {
        "method": "PED-ANOVA",
        "num_best": found.num_best,
        "num_variants": found.num_variants,
        "num_seeds": found.num_seeds,
        "epochs": found.epochs,
        "parameters": [
            {
                "parameter": one.path,
                "share": one.share,
                "p_value": one.p_value,
                "is_clear": one.is_clear,
            }
            for one in found.parameters
        ],
    }


# What is compared --------------------------------------------------------------------------------


def _compared(board: Leaderboard, scores: ValidationScores) -> _Compared:
    if board.rounds is not None and board.rounds.judged:
        first = board.rounds.judged[0]
        found = [
            np.nan if value is None or name in first.lost else value
            for name, value in first.scores.items()
        ]
        return _Compared(
            list(first.scores), _losses(found, board.goal), first.num_seeds, first.epochs
        )
    statistic = "mean" if board.selection is None else board.selection.statistic
    values = variant_scores(scores, board.goal, statistic)
    values = np.where(scores.num_unfinished > 0, np.nan, values)
    rows = np.flatnonzero((scores.trial_ids != b"").all(axis=1))  # not those still to be trained
    names = [scores.variant_ids[row] for row in rows]
    return _Compared(names, _losses(values[rows], board.goal), len(scores.seeds))


def _losses(values: npt.ArrayLike, goal: Goal) -> Floats:
    array = np.asarray(values, np.float64)
    return array if goal == "minimize" else -array


def _parameters(board: Leaderboard, names: Sequence[str]) -> dict[str, list[Any]]:
    """Path -> value or `ABSENT` in each variant; those that have at least two values."""
    by_name = {one.variant_id: one.parameters for one in board.variants}
    if board.rounds is not None:
        by_name |= {one.variant_id: one.parameters for one in board.rounds.dropped}
    found = {
        path: [by_name[name].get(path, ABSENT) for name in names]
        for path in searched_paths(by_name[name] for name in names)
    }
    return {path: values for path, values in found.items() if len(set(_keys(values))) > 1}


def _keys(values: Sequence[Any]) -> list[Any]:
    """What tells values apart; those that are absent are left out."""
    present = [value for value in values if value is not ABSENT]
    return [float(value) if is_real(value) else repr(value) for value in present]


# Optuna ------------------------------------------------------------------------------------------


def _problem_with_optuna() -> str:
    """What is wrong with Optuna here; empty if nothing is."""
    try:
        found = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError:
        return "Optuna is not installed"
    return "" if found.split(".")[0] == _OPTUNA else f"it needs Optuna {_OPTUNA}, not {found}"


def _importances(
    parameters: Mapping[str, Sequence[Any]], best: npt.NDArray[np.bool_]
) -> tuple[ParameterImportance, ...]:
    """The importances of parameters, compared with those of shuffled results.

    Shares add up to 1 even if nothing matters, so each importance is divided by what is usual for
    its parameter, and the largest of these ratios in each shuffle (Westfall and Young, 1993) says
    how large one becomes by luck.
    """
    rng = np.random.default_rng(0)
    losses = np.where(best, 0.0, 1.0)
    results = [losses, *(rng.permutation(losses) for _ in range(_NUM_SHUFFLES))]
    # It warns that a target is minimized, as is meant here, and of parameters that very few
    # variants have, which then count nothing.
    with quiet_optuna(UserWarning):
        found = _ped_anova(parameters, results)  # (1 + shuffles, parameters)
    usual = found.mean(axis=0)
    ratios = np.divide(found, usual, out=np.zeros_like(found), where=usual > 0)
    p_values = (ratios.max(axis=1)[:, np.newaxis] >= ratios[0]).mean(axis=0)
    shares = found[0] / (found[0].sum() or 1.0)
    named = map(ParameterImportance, parameters, shares.tolist(), p_values.tolist())
    return tuple(sorted(named, key=lambda one: -one.share))


def _ped_anova(parameters: Mapping[str, Sequence[Any]], results: Sequence[Floats]) -> Floats:
    """Importances (results, parameters) of Optuna, for several losses of the same variants."""
    import optuna

    columns = {path: _column(values) for path, values in parameters.items()}
    study = optuna.create_study()
    for row in range(len(results[0])):
        present = [path for path, (_, cells) in columns.items() if cells[row] is not ABSENT]
        study.add_trial(
            optuna.trial.create_trial(
                params={path: columns[path][1][row] for path in present},
                distributions={path: columns[path][0] for path in present},
                value=0.0,
            )
        )
    found = []
    for losses in results:
        share = (np.count_nonzero(losses == losses.min()) - 0.5) / len(losses)
        importances = optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(target_quantile=share),
            target=lambda trial, losses=losses: float(losses[trial.number]),
            normalize=False,
        )
        found.append([importances[path] for path in parameters])
    return np.array(found)


def _column(values: Sequence[Any]) -> tuple[Any, list[Any]]:
    """Optuna's distribution of a parameter, and its value in each variant.

    Many numbers are a range; all else are categories, by index, as lists and mappings may be.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    keys = list(dict.fromkeys(_keys(values)))
    if len(keys) > _MOST_CATEGORIES and all(is_real(key) for key in keys):
        distribution = FloatDistribution(min(keys), max(keys), log=spans_decades(keys))
        return distribution, [one if one is ABSENT else float(one) for one in values]
    index_of = {key: index for index, key in enumerate(keys)}
    indices = [one if one is ABSENT else index_of[_keys([one])[0]] for one in values]
    return CategoricalDistribution(range(len(keys))), indices
