"""The importance of parameters, against Optuna called directly and tables made up by hand."""

import importlib.metadata
import warnings

import numpy as np
import pytest
from made_up_runs import broken, completed, make_variants, write_run

from trialrun.analysis.importance import (
    Importance,
    NoImportance,
    find_importance,
    importance_content,
)
from trialrun.analysis.parameters import ABSENT
from trialrun.report.overview import load_overview
from trialrun.store.columns import parameter_kinds
from trialrun.trials.results import PackResult

optuna = pytest.importorskip("optuna")

LR, UNITS, MOMENTUM = "training.learning_rate", "model.args.units", "training.optimizer.momentum"
# Only the units matter: of [32, 32] all variants are better than all others.
ASSIGNMENTS = [
    {LR: round(10 ** (-4 + 0.1 * index), 6), UNITS: [[16], [32, 32]][index % 3 == 0]}
    for index in range(30)
]


def loss_of(variant, seed):
    index = int(variant.variant_id[1:])
    return (0.2 if index % 3 == 0 else 0.6) + 0.01 * ((7 * index) % 30) + 0.001 * seed


def found_in(folder, assignments=ASSIGNMENTS, loss=loss_of, lost=(), goal="minimize", seeds=2):
    def result_of(variant, seed):
        if (variant.variant_id, seed) in lost:
            return broken(variant, seed, "diverged")
        return completed(variant, seed, val_loss=loss(variant, seed))

    variants = make_variants(assignments)
    run = write_run(folder, variants, range(seeds), result_of=result_of, goal=goal)
    overview = load_overview(run)
    return find_importance(overview.leaderboard, overview.scores)


def of_optuna(columns, losses, num_best):
    """The shares that Optuna gives for a study that somebody writes by hand."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for row, loss in enumerate(losses):
        present = {name: (kind, cells[row]) for name, (kind, cells) in columns.items()}
        present = {name: one for name, one in present.items() if one[1] is not ABSENT}
        study.add_trial(
            optuna.trial.create_trial(
                params={name: cell for name, (_, cell) in present.items()},
                distributions={name: kind for name, (kind, _) in present.items()},
                value=loss,
            )
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(
        target_quantile=(num_best - 0.5) / len(losses)
    )
    return optuna.importance.get_param_importances(study, evaluator=evaluator)


def test_a_parameter_that_decides_all_is_the_important_one_and_the_numbers_are_optunas(tmp_path):
    found = found_in(tmp_path)
    assert isinstance(found, Importance)
    assert (found.num_best, found.num_variants, found.num_seeds) == (5, 30, 2)
    units, learning_rate = found.parameters
    assert (units.path, units.is_clear) == (UNITS, True)
    assert (learning_rate.path, learning_rate.is_clear) == (LR, False)
    rates = [one[LR] for one in ASSIGNMENTS]
    log_rates = optuna.distributions.FloatDistribution(min(rates), max(rates), log=True)
    categories = optuna.distributions.CategoricalDistribution([0, 1])
    expected = of_optuna(
        {
            LR: (log_rates, rates),
            UNITS: (categories, [int(row % 3 != 0) for row in range(30)]),
        },
        [loss_of(variant, 0.5) for variant in make_variants(ASSIGNMENTS)],
        5,
    )
    assert {one.path: one.share for one in found.parameters} == pytest.approx(expected)


def test_what_is_maximized_has_its_best_at_the_top(tmp_path):
    smallest = found_in(tmp_path / "a")
    largest = found_in(tmp_path / "b", loss=lambda *of: -loss_of(*of), goal="maximize")
    assert largest == smallest


def test_a_parameter_with_a_condition_counts_where_it_is_in_effect(tmp_path):
    assignments = [
        {UNITS: row % 2} | ({MOMENTUM: 0.1 + 0.02 * row} if row % 2 else {}) for row in range(40)
    ]

    def loss(variant, seed):
        return variant.parameters.get(MOMENTUM, 2.0)

    found = found_in(tmp_path, assignments, loss)
    cells = [one.get(MOMENTUM, ABSENT) for one in assignments]
    present = [cell for cell in cells if cell is not ABSENT]
    kind = optuna.distributions.FloatDistribution(min(present), max(present))
    categories = optuna.distributions.CategoricalDistribution([0, 1])
    expected = of_optuna(
        {UNITS: (categories, [row % 2 for row in range(40)]), MOMENTUM: (kind, cells)},
        [2.0 if cell is ABSENT else cell for cell in cells],
        5,
    )
    assert {one.path: one.share for one in found.parameters} == pytest.approx(expected)
    assert found.parameters[0].path == MOMENTUM


def test_a_variant_that_lost_a_trial_is_not_among_the_best(tmp_path):
    best = [f"v{row:02d}" for row in range(0, 30, 3)]
    found = found_in(tmp_path, lost=[(name, 0) for name in best])
    shares = {one.path: one.share for one in found.parameters}
    assert found.num_best == 5
    # The five best of the others are [16] all, as are two thirds of the variants.
    losses = [np.inf if row % 3 == 0 else 0.6 + 0.01 * ((7 * row) % 30) for row in range(30)]
    categories = optuna.distributions.CategoricalDistribution([0, 1])
    rates = [one[LR] for one in ASSIGNMENTS]
    log_rates = optuna.distributions.FloatDistribution(min(rates), max(rates), log=True)
    expected = of_optuna(
        {
            LR: (log_rates, rates),
            UNITS: (categories, [int(row % 3 != 0) for row in range(30)]),
        },
        [9.0 if np.isinf(loss) else loss for loss in losses],
        5,
    )
    assert shares == pytest.approx(expected)


def test_variants_that_are_still_to_be_trained_do_not_count(tmp_path):
    variants = make_variants(ASSIGNMENTS)

    def result_of(variant, seed):
        return completed(variant, seed, val_loss=loss_of(variant, seed))

    def found(folder, most):
        run = write_run(folder, variants[:20], range(2), result_of=result_of)
        started = make_variants(ASSIGNMENTS)[20:most]
        trials = tuple(result_of(variant, 0) for variant in started)
        if trials:
            run.write_pack(PackResult("p900", trials), parameter_kinds(variants))
        overview = load_overview(run)
        return find_importance(overview.leaderboard, overview.scores)

    assert found(tmp_path / "a", 30) == found(tmp_path / "b", 20)


def test_equal_variants_have_no_important_parameter(tmp_path):
    def luck(variant, seed):
        return np.random.default_rng([seed, int(variant.variant_id[1:])]).normal()

    found = found_in(tmp_path, loss=luck)
    assert sum(one.share for one in found.parameters) == pytest.approx(1)
    assert not found.is_clear


def test_it_is_the_same_each_time_and_leaves_optuna_and_warnings_as_they_were(tmp_path):
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = found_in(tmp_path / "a")
        assert found_in(tmp_path / "b") == first
    assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    optuna.logging.set_verbosity(before)


@pytest.mark.parametrize(
    ("assignments", "loss", "reason"),
    [
        (ASSIGNMENTS[:9], loss_of, "9 variants without a lost trial, and it takes 10"),
        ([{LR: 0.1 * row} for row in range(1, 20)], loss_of, "fewer than two parameters"),
        (ASSIGNMENTS, lambda *_: 0.5, "more than half of the variants tie"),
    ],
)
def test_where_it_would_say_nothing_it_is_left_out(tmp_path, assignments, loss, reason):
    found = found_in(tmp_path, assignments, loss)
    assert isinstance(found, NoImportance)
    assert reason in found.reason
    assert not found.is_told
    assert importance_content(found) == {"method": "PED-ANOVA", "left_out": found.reason}


@pytest.mark.parametrize("installed", [None, "4.5.0"])
def test_without_optuna_it_is_left_out_with_one_line(tmp_path, monkeypatch, installed):
    def version(name):
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = found_in(tmp_path)
    assert found.is_told
    problem = "Optuna is not installed" if installed is None else "it needs Optuna 5, not 4.5.0"
    assert found.reason == f"{problem}: pip install 'trialrun[search]', then `trialrun report RUN`"
