"""Optuna's searches in `scripts/simulate_rounds`, where the truth is made up by hand."""

import sys

import numpy as np
import optuna
import pytest
from commands import ROOT
from made_up_runs import make_variants, write_run

sys.path.append(str(ROOT / "scripts" / "benchmarks"))
from rounds_peers import Space, rungs, tpe_and_hyperband, wilcoxon
from simulate_rounds import Ended, print_ended, read_curves, read_table

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def made_up(num_variants=12, num_seeds=5, num_epochs=9):
    """Losses of variants of which the first is the best; the parameter is the loss."""
    rng = np.random.default_rng(0)
    means = np.linspace(0.1, 2.0, num_variants)
    falling = 1.0 / np.arange(1, num_epochs + 1)
    losses = means[:, None, None] + falling + rng.normal(0, 0.01, (num_variants, num_seeds, 1))
    return losses, means[:, None]


def test_a_point_stands_for_the_nearest_variant():
    rng = np.random.default_rng(1)
    parameters = np.column_stack([10 ** rng.uniform(-4, 0, 30), rng.uniform(size=30)])
    space = Space(parameters)
    for row, (rate, momentum) in enumerate(parameters):
        point = {"p0": rate * 1.0001, "p1": momentum}
        point["p0"] = min(point["p0"], parameters[:, 0].max())
        assert space.suggest(optuna.trial.FixedTrial(point)) == row


def test_hyperband_looks_at_powers_of_its_factor_and_at_the_end():
    assert rungs(27) == [1, 3, 9, 27]
    assert rungs(30) == [1, 3, 9, 27, 30]
    assert rungs(1) == [1]


def test_optuna_trains_the_budget_and_claims_the_value_of_its_best_trial():
    losses, parameters = made_up()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    claims = [
        tpe_and_hyperband(losses, Space(parameters), 400, np.random.default_rng(3))
        for _ in range(2)
    ]
    assert claims[0] == claims[1]
    claim = claims[0]
    assert claim.row == 0
    assert claim.value in losses[0, :, -1]
    assert 400 <= claim.cost < 400 + losses.shape[2]
    assert claim.num_trials * losses.shape[2] > claim.cost  # some were stopped early


def test_the_pruner_stops_what_loses_to_the_best_so_far():
    shared = np.random.default_rng(0).normal(size=20)
    raced = wilcoxon(np.stack([shared + mean for mean in (1.0, 0.0, 2.0)]))
    assert raced.dropped == {2}
    assert 40 < raced.num_trials < 60


def test_a_run_gives_its_curves_and_its_parameters_as_numbers(tmp_path):
    variants = make_variants(
        [
            {"training.learning_rate": rate, "training.optimizer.name": name}
            for rate in (0.1, 0.01)
            for name in ("adam", "sgd")
        ]
    )
    run = write_run(tmp_path, variants, range(3))
    table = read_curves(run.path)
    assert table.losses.shape == (4, 3, 4)
    np.testing.assert_allclose(table.losses[:, :, -1], read_table(run.path), rtol=1e-6)
    assert table.parameters.tolist() == [[0.1, 0], [0.1, 1], [0.01, 0], [0.01, 1]]


def test_a_run_whose_variants_have_other_parameters_is_refused(tmp_path):
    assignments = [{"training.learning_rate": 0.1, "model.args.depth": 2}, {"model.args.depth": 3}]
    run = write_run(tmp_path, make_variants(assignments), range(2))
    with pytest.raises(SystemExit, match=r"some variants do not have training\.learning_rate"):
        read_curves(run.path)


def test_regret_and_flattery_are_those_of_the_table(capsys):
    table = np.array([[0.0, 2.0], [1.0, 5.0]])  # means 1 and 3; paired sd 0 and 1.414
    print_ended("search", [Ended(0, 1.0, 10), Ended(1, 0.0, 30)], table)
    said = capsys.readouterr().out
    paired, sd = np.median([0, np.sqrt(2)]), np.median([np.sqrt(2), np.sqrt(8)])
    assert f"20 epochs; regret {2 / paired / 2:.3f}" in said
    assert (
        f"more than 0.5 in 50%; says {3 / sd / 2:+.2f} sd too good, more than 1 sd in 50%" in said
    )
