"""How sure a selection is: what ranks, what can be told apart, what is said, variants.csv."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_runs import completed, learning_rates, write_run
from scipy import optimize, special, stats
from sklearn import metrics

from trialrun.analysis.certainty import compare_with_best
from trialrun.analysis.comparison import compare_variants
from trialrun.analysis.edges import edges
from trialrun.analysis.explanation import explain
from trialrun.analysis.metric_bounds import metric_bounds
from trialrun.analysis.run_summary import Tally
from trialrun.analysis.selection import ValidationScores, rank, select_best
from trialrun.analysis.summary_json import run_summary
from trialrun.analysis.variants import STATISTICS, rank_summaries, summarize, variant_rows
from trialrun.analysis.winner import winner_reliability
from trialrun.statistics.best import fit_prior, squeeze, trigamma_inverse
from trialrun.statistics.intervals import mean_interval, within_bounds

SEEDS = tuple(range(20))


def scores_of(values, num_unfinished=None):
    values = np.asarray(values, float)
    ids = tuple(f"v{index:02d}" for index in range(len(values)))
    none = np.zeros(len(values), np.int64)
    return ValidationScores(
        metric="val_loss",
        variant_ids=ids,
        seeds=tuple(range(values.shape[1])),
        trial_ids=np.full(values.shape, b"trial"),
        values=values,
        num_unfinished=none if num_unfinished is None else np.asarray(num_unfinished),
    )


def column(*shifts):
    return np.array(shifts)[:, np.newaxis]


# What ranks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statistic", "order"),
    [("mean", [1, 2, 0]), ("median", [0, 1, 2]), ("iqm", [1, 0, 2])],
)
def test_variants_are_ranked_by_the_statistic_that_the_job_names(statistic, order):
    values = [[0.1, 0.1, 0.1, 0.5, 2.0], [0.2, 0.2, 0.2, 0.2, 0.2], [0.3, 0.3, 0.3, 0.3, 0.3]]
    assert rank(scores_of(values), "minimize", statistic).tolist() == order
    chosen = select_best(scores_of(values), "minimize", statistic)
    middle = {"mean": np.mean, "median": np.median, "iqm": lambda x: stats.trim_mean(x, 0.25)}
    assert chosen.score == pytest.approx(middle[statistic](values[order[0]]))
    assert chosen.statistic == statistic


@pytest.mark.parametrize("goal", ["minimize", "maximize"])
def test_by_its_bound_a_variant_that_scatters_must_be_better_to_win(goal):
    rng = np.random.default_rng(0)
    sign = 1 if goal == "minimize" else -1
    steady, wild = rng.normal(0.30, 0.01, 20), rng.normal(0.29, 0.3, 20)
    wild += 0.29 - wild.mean()
    scores = scores_of(sign * np.stack([steady, wild]))
    assert rank(scores, goal).tolist() == [1, 0]
    assert rank(scores, goal, "confidence_bound").tolist() == [0, 1]
    bounds = mean_interval(scores.values[0], np.random.default_rng(0))
    chosen = select_best(scores, goal, "confidence_bound")
    assert chosen.score == (bounds.high if goal == "minimize" else bounds.low)


def test_seeds_that_are_all_equal_count_as_their_value():
    values = [[0.5, 0.6, 0.55], [0.4, 0.4, 0.4], [0.1, 0.2, 0.9]]
    assert rank(scores_of(values), "minimize", "confidence_bound").tolist() == [1, 0, 2]


# What can be told apart -------------------------------------------------------------------------


def certainty_of(values, goal="minimize", statistic="mean", **lost):
    scores = scores_of(values, **lost)
    return compare_with_best(scores, rank(scores, goal, statistic), goal)


def corrected(single):
    """The smallest of m p-values times `m (m + 1)`, the next times `m m`, ..."""
    m, order = len(single), np.argsort(single)
    steps = np.asarray(single)[order] * m * (m + 1 - np.arange(m))
    expected = np.empty(m)
    expected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return expected


def test_the_p_values_of_few_variants_are_those_of_scipys_paired_t_test():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 0.1, 12)
    values = [shared + rng.normal(shift, 0.02, 12) for shift in (0.3, 0.31, 0.32, 0.5)]
    known = certainty_of(values)
    single = [stats.ttest_rel(one, values[0], alternative="greater").pvalue for one in values[1:]]
    assert list(known.p_values) == ["v01", "v02", "v03"]
    np.testing.assert_allclose(list(known.p_values.values()), corrected(single), rtol=1e-9)
    assert known.best_set == ("v00", *known.undecided)
    assert known.num_seeds == 12
    turned = certainty_of(-np.array(values), goal="maximize")
    assert turned.p_values == known.p_values


def test_of_two_variants_it_is_the_two_sided_paired_t_test():
    values = np.random.default_rng(3).normal(0, 1, (2, 9)) + column(0.0, 0.8)
    expected = stats.ttest_rel(*values).pvalue
    assert [*certainty_of(values).p_values.values()] == [pytest.approx(expected)]


def test_variants_are_compared_over_the_seeds_that_both_completed():
    values = np.random.default_rng(0).normal(0, 0.01, (4, 8)) + column(0.1, 0.2, 0.0, 0.3)
    values[2] = np.nan
    values[0, 0] = values[3, 2:] = np.nan
    known = certainty_of(values, num_unfinished=[0, 0, 8, 0])
    single = [stats.ttest_rel(values[1, 1:], values[0, 1:], alternative="greater").pvalue, 0.5]
    assert list(known.p_values) == ["v01", "v03"]
    assert known.num_seeds == 7
    assert known.p_values["v01"] == pytest.approx(corrected(single)[0])
    assert known.p_values["v03"] > 0.05  # one pair bounds nothing


def test_luck_that_seeds_share_does_not_hide_a_difference():
    """Seed by seed a small difference shows that two separate means would not."""
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.1, 20)
    values = [luck + 0.30, luck + 0.31 + rng.normal(0, 0.002, 20)]
    assert stats.ttest_ind(*values).pvalue > 0.5
    known = certainty_of(values)
    assert known.undecided == ()
    assert known.pairing > 1000


def test_a_difference_that_is_the_same_in_every_seed_counts_as_its_signs():
    luck = np.random.default_rng(0).normal(0, 1, 5)
    assert certainty_of([luck, luck + 0.5]).p_values == {"v01": pytest.approx(2 / 2**5)}
    assert certainty_of([[0.5] * 9, [0.7] * 9]).undecided == ()


@pytest.mark.parametrize(("num_variants", "num_wild"), [(3, 1), (40, 1), (40, 15)])
def test_wild_variants_do_not_hide_the_others(num_variants, num_wild):
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 8) + rng.normal(0, 0.1, (num_variants, 8))
    values[1] += 0.4
    values[2 : 2 + num_wild] = 1e6 * rng.random((num_wild, 8))
    assert certainty_of(values).p_values["v01"] <= 0.05


@pytest.mark.parametrize("wild", [np.inf, np.nan, 1e30])
def test_what_is_not_finite_is_not_called_worse_nor_an_error(wild):
    values = np.random.default_rng(0).normal(0, 0.1, (9, 6))
    values[8] = wild
    known = certainty_of(values)
    assert known.undecided
    assert known.p_values.get("v08", 1.0) > 0.05


@pytest.mark.parametrize("part_missing", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("decimals", [0, 1, 9])
def test_whatever_is_missing_or_equal_the_p_values_are_such(part_missing, decimals):
    rng = np.random.default_rng(0)
    for _ in range(60):
        values = rng.normal(size=rng.integers(1, 14, size=2)).round(decimals)
        values[rng.random(values.shape) < part_missing] = np.nan
        values[0, 0] = 0.0
        known = certainty_of(values)
        has_value = ~np.isnan(values).all(axis=1)
        assert len(known.p_values) == has_value.sum() - 1
        assert all(0 <= p_value <= 1 for p_value in known.p_values.values())


def test_ranked_by_another_statistic_the_claim_is_still_about_means():
    rng = np.random.default_rng(0)
    steady, wild = rng.normal(0.3, 0.01, 20), rng.normal(0.2, 0.005, 20)
    wild[:3] = 1.5
    scores = scores_of([wild, steady])
    known = compare_with_best(scores, rank(scores, "minimize", "median"), "minimize")
    assert (known.winner, known.leader) == ("v00", "v01")
    assert set(known.best_set) == {"v01", "v00"}


def test_shared_variances_are_those_of_limma():
    """With the equations of R's `fitFDist` and `squeezeVar`, solved by SciPy."""
    rng = np.random.default_rng(0)
    df = np.array([3.0, 4.0, 7.0] * 20)
    variances = 0.04 * 5 / rng.chisquare(5, 60) * rng.chisquare(df) / df
    e = np.log(variances) - special.digamma(df / 2) + np.log(df / 2)
    beyond = e.var(ddof=1) - special.polygamma(1, df / 2).mean()
    half = optimize.brentq(lambda x: special.polygamma(1, x) - beyond, 1e-3, 1e6)
    prior = fit_prior(variances, df)
    assert prior.df == pytest.approx(2 * half, rel=1e-6)
    assert prior.variance == pytest.approx(
        np.exp(e.mean() + special.digamma(half) - np.log(half)), rel=1e-6
    )
    expected = (prior.df * prior.variance + df * variances) / (prior.df + df)
    np.testing.assert_allclose(squeeze(variances, df, prior), expected)


def test_the_prior_of_many_variances_is_that_which_they_were_drawn_from():
    rng = np.random.default_rng(1)
    df = np.full(20_000, 7.0)
    drawn = 0.04 * rng.chisquare(df) / df
    assert fit_prior(drawn, df).df > 500
    unequal = fit_prior(drawn * 6 / rng.chisquare(6, len(df)), df)
    assert unequal.df == pytest.approx(6, rel=0.05)
    assert unequal.variance == pytest.approx(0.04, rel=0.05)
    assert fit_prior(np.zeros(9), df[:9]).df == 0


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.3, 4.0, 200.0, 1e9])
def test_the_trigamma_function_is_inverted(value):
    assert special.polygamma(1, trigamma_inverse(value)) == pytest.approx(value, rel=1e-6)


def test_shared_variances_name_losers_where_a_test_of_each_alone_names_none():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 3, 8) + rng.normal(0, 1, (64, 8))
    values[32:] += 2
    known = certainty_of(values)
    losers = [f"v{index:02d}" for index in range(32, 64)]
    assert sum(one not in known.best_set for one in losers) > 20
    leader = values[int(known.leader[1:])]
    alone = [stats.ttest_rel(row, leader, alternative="greater").pvalue for row in values[32:]]
    assert sum(p_value * 63 * 64 <= 0.05 for p_value in alone) < 5


# What is said -----------------------------------------------------------------------------------


def board_of(values, goal="minimize", parameters=None):
    """A leaderboard of made-up validation losses (variants, seeds)."""
    values = np.asarray(values)
    lost = np.isnan(values).sum(axis=1)
    ids = [f"v{index:02d}" for index in range(len(values))]
    variant_ids, seeds = np.meshgrid(ids, np.arange(values.shape[1]), indexing="ij")
    trials = pd.DataFrame(
        {
            "variant_id": variant_ids.ravel(),
            "seed": seeds.ravel(),
            "status": "completed",
            "val_loss": values.ravel(),
            "test_loss": values.ravel() + 0.05,
        }
    )
    of = dict(zip(ids, parameters or [{} for _ in ids], strict=True))
    return rank_summaries(summarize(trials, of), scores_of(values, lost), goal)


LUCK = np.random.default_rng(0).normal(0, 0.05, 20)


def said(num_seeds, shifts, noise=0.01):
    rng = np.random.default_rng(0)
    rows = [shift + rng.normal(0, noise, num_seeds) for shift in shifts]
    return explain(board_of(rows))


def test_the_set_that_holds_the_best_is_named():
    luck = LUCK + np.random.default_rng(0).normal(0, 0.01, (10, 20))
    text = explain(board_of(luck[:4] + column(0.3, 0.3, 0.3, 0.6)))
    assert re.search(
        "With 95% confidence the lowest mean is that of (v0[012](, | or )?){3}; ", text
    )
    assert "; the other has a higher one." in text
    text = explain(board_of(luck + column(*[0.3] * 9, 0.9)))
    assert re.search(r"that of (v0\d, ){4}v0\d or 4 more; the other has a higher one\.", text)
    text = said(20, [0.3] * 10, noise=0.05)
    assert "tell none of the 10 variants apart: each may have the lowest mean." in text


def test_of_a_metric_that_is_good_when_high_the_others_are_lower():
    text = explain(board_of(LUCK + column(0.3, 0.6, 0.6) + _noise(3), goal="maximize"))
    assert re.search("the highest mean is that of v0[12] or v0[12]; the other has a lower", text)


def _noise(num_variants):
    return np.random.default_rng(1).normal(0, 0.01, (num_variants, 20))


def test_a_clear_winner_is_called_one():
    assert (
        "With 95% confidence it is the best: the other has a higher mean (corrected p below 0.0001)"
    ) in said(20, [0.3, 0.9])
    assert "it is the best: each of the 2 others has a higher mean (corrected p " in said(
        10, [0.3, 0.5, 0.9]
    )


def test_one_seed_is_said_to_tell_nothing():
    assert "1 seed can tell nothing apart: it takes at least 2." in said(1, [0.3, 0.5])
    assert "tell nothing" not in said(2, [0.3, 0.5, 0.9])


def test_a_winner_that_others_equal_is_said_to_be_flattered():
    rng = np.random.default_rng(0)
    board = board_of(LUCK + rng.normal(0.3, 0.02, (30, 20)))
    # The least of 30 normal values lies 2.04 standard deviations below their mean.
    flattery = 2.04 * 0.02 / np.sqrt(20)
    assert board.certainty.flattery == pytest.approx(flattery, rel=0.15)
    assert "flatters its mean and interval: by about 0.01 if the 30 are" in explain(board)
    assert "flatters" not in said(20, [0.3, 0.9])


def test_wild_variants_do_not_flatter_a_steady_winner():
    rng = np.random.default_rng(0)
    steady, wild = rng.normal(0.7, 0.05, (2, 3)), 2e5 + rng.normal(0, 7e4, (8, 3))
    known = certainty_of([*steady, *wild])
    assert len(known.best_set) > 6
    assert known.flattery < 3 * 0.05


def test_what_pairing_was_worth_is_said_if_it_was_worth_much():
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 3, 40)
    values = luck + rng.normal(size=(20, 40))
    text = explain(board_of(values))
    factor = float(re.search(r"seed by seed was worth about (\S+) times the seeds", text)[1])
    assert factor == pytest.approx(1 + luck.var(ddof=1), rel=0.3)
    assert "seed by seed" not in explain(board_of(rng.normal(size=(20, 40))))
    assert "seed by seed" not in explain(board_of(values[:, :5]))


def test_equal_variants_are_called_equal():
    rng = np.random.default_rng(0)
    text = explain(board_of([LUCK, LUCK + 1e-12, LUCK]))
    assert text.startswith("v00, v01 and v02 gave the same val_loss in every seed: nothing tells")
    assert "confidence" not in text
    assert "lowest" not in text
    text = explain(board_of([LUCK + 1, LUCK, LUCK + 1, LUCK]))
    assert text.startswith(
        "v01 and v03 gave the same val_loss in every seed and have the lowest mean val_loss of 4"
    )
    assert "v01 is taken because it comes first." in text
    shuffled = rng.permutation([0.25, 0.5, 0.75, 1.0])
    text = explain(board_of([shuffled + 1, shuffled, shuffled[::-1]]))
    assert text.startswith("v01 and v02 tie for the lowest mean val_loss of 3 variants: 0.625 (")


def test_equal_but_for_rounding_the_first_is_not_said_to_be_taken_for_its_place():
    text = explain(board_of([LUCK + 1, LUCK + 1 - 1e-8, LUCK + 2]))
    assert "v01 is taken by a difference of rounding." in text


@pytest.mark.parametrize("num_seeds", [2, 20])
def test_a_difference_that_is_the_same_in_every_seed_flatters_nobody(num_seeds):
    luck = np.float32(LUCK[:num_seeds])
    known = certainty_of([luck, luck + np.float32(0.1), luck + np.float32(0.1)])
    assert (known.flattery, known.pairing) == (0.0, None)


def test_a_winner_is_not_called_better_than_a_variant_that_lost_trials():
    lucky = LUCK + 0.1
    lucky[3] = np.nan
    text = explain(board_of([lucky, LUCK + 0.3, LUCK + 0.5]))
    assert text.startswith(
        "v01 has the lowest mean val_loss of the 2 variants (of 3) that lost no trial: 0.2908"
    )
    assert text.endswith(" Variants with lost trials rank after those without.")
    alone = explain(board_of([lucky, LUCK + 0.3]))
    assert "v01 has the lowest mean val_loss of the only variant" not in alone
    assert alone.startswith("v01 is the only variant of 2 that lost no trial; its mean val_loss: ")
    assert "It lost 1 trial, which its mean does not show." in explain(board_of([lucky]))


def test_a_parameter_is_written_as_in_a_job_file():
    values = ({"model.args.act": None}, {"model.args.act": True})
    text = explain(board_of([LUCK, LUCK + 1], parameters=values))
    assert text.startswith("v00 (model.args.act = null) has")


def test_seeds_without_an_interval_have_no_bound_of_their_mean():
    scores = scores_of([[0.3], [0.5]])
    chosen = select_best(scores, "minimize", "confidence_bound")
    board = replace(board_of([[0.3], [0.5]]), selection=chosen)
    assert "0.3 (the mean, as these seeds have no interval) over 1 seed." in explain(board)


def test_a_metric_that_is_nan_everywhere_is_called_that():
    board = board_of(np.full((2, 3), np.nan))
    assert explain(board) == (
        "Nothing was selected: val_loss is NaN in each of the 6 trials that completed."
    )


def test_trials_whose_metric_is_nan_count_as_lost():
    values = np.array([[0.1, 0.1, np.nan], [0.2, 0.3, 0.2]])
    board = board_of(values)
    assert board.selection.variant_id == "v01"
    text = explain(board)
    assert "val_loss is NaN in a trial that completed; it counts as lost." in text


@pytest.mark.parametrize(
    ("path", "values", "is_said"),
    [
        ("training.loss", ["mse", "mae"], True),
        ("training.loss.label_smoothing", [0.0, 0.1], True),
        ("training.loss_weights.age", [1, 2], True),
        ("training.loss.label_smoothing", [0.1, 0.1], False),
        ("training.learning_rate", [0.1, 0.2], False),
    ],
)
def test_values_of_different_losses_are_not_taken_for_better_models(path, values, is_said):
    board = board_of([LUCK, LUCK + 1], parameters=[{path: value} for value in values])
    assert ("does not say that its model is better" in explain(board)) == is_said


# Edges ------------------------------------------------------------------------------------------


def edges_of(path, values, best):
    """The edges of a board in which the variant with the value `best` wins."""
    losses = [LUCK + (0.3 if value == best else 0.9) for value in values]
    return edges(board_of(losses, parameters=[{path: value} for value in values]))


@pytest.mark.parametrize(
    ("path", "values", "best", "end"),
    [
        ("training.learning_rate", [1e-4, 1e-3, 1e-2], 1e-2, "largest"),
        ("training.learning_rate", [1e-4, 1e-3, 1e-2], 1e-4, "smallest"),
        ("training.learning_rate", [0.1, 1.0, 10.0], 10.0, "largest"),
        ("training.learning_rate", [1e-4, 1e-3, 1e-2], 1e-3, None),
        ("training.learning_rate", [1e-4, 1e-2], 1e-2, None),
        ("model.args.dropout", [0.0, 0.2, 0.4], 0.0, None),
        ("model.args.dropout", [0.0, 0.2, 0.4], 0.4, "largest"),
        ("training.optimizer.momentum", [0.0, 0.9, 1.0], 1.0, None),
        ("model.args.layers", [1, 2, 3], 1, None),
        ("model.args.layers", [1, 2, 3], 3, "largest"),
        ("model.args.units", [16, 32, 64], 16, "smallest"),
        ("model.args.activation", ["relu", "tanh", "selu"], "selu", None),
        ("model.args.units", [[16], [32], [64]], [64], None),
        ("model.args.bias", [True, False, None], True, None),
        ("data.args.fold", [0, 1, 2], 2, None),
        ("model.args.rate", [*np.linspace(0.01, 0.4, 100).tolist()], 0.01, "smallest"),
    ],
)
def test_a_winner_at_the_edge_of_what_was_tried_is_pointed_out(path, values, best, end):
    assert [edge.end for edge in edges_of(path, values, best)] == ([end] if end else [])


def test_of_a_random_search_the_outermost_values_are_the_edge():
    values = np.random.default_rng(0).uniform(1e-4, 1e-1, 100).tolist()
    third = sorted(values)[-3]
    [edge] = edges_of("training.learning_rate", values, third)
    assert (edge.end, edge.is_outermost) == ("largest", False)
    assert edges_of("training.learning_rate", values, sorted(values)[-8]) == []


def test_beyond_an_edge_nothing_is_better_than_a_perfect_score():
    board = board_of(
        [np.ones(5), [1, 1, 1, 1, 0.9], [0.8] * 5],
        goal="maximize",
        parameters=[{"model.args.units": value} for value in (64, 32, 16)],
    )
    assert [edge.end for edge in edges(board)] == ["largest"]
    perfect = select_best(scores_of(np.ones((3, 5))), "maximize", bounds=(0.0, 1.0))
    assert edges(replace(board, selection=perfect)) == []


def test_the_edge_is_said_in_words():
    values = [1e-4, 1e-3, 1e-2]
    losses = [LUCK + shift for shift in (0.9, 0.6, 0.3)]
    parameters = [{"training.learning_rate": value} for value in values]
    text = explain(board_of(losses, parameters=parameters))
    assert (
        "The best training.learning_rate is the largest tried (0.01): larger ones may be better"
        " still."
    ) in text
    equal = board_of([LUCK] * 3, parameters=parameters)
    assert "tried" not in explain(equal)


# Bounds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "name", "bounds"),
    [
        ({"metrics": ["accuracy"]}, "val_accuracy", (0, 1)),
        ({"metrics": [{"name": "auc", "curve": "PR", "as": "pr"}]}, "test_pr", (0, 1)),
        ({"metrics": ["AUC"]}, "val_AUC", (0, 1)),
        ({"metrics": ["MeanIoU"]}, "val_MeanIoU", (0, 1)),
        ({"metrics": ["r2_score"]}, "val_r2_score", (-np.inf, 1)),
        ({"metrics": ["pearson_correlation"]}, "val_pearson_correlation", (-1, 1)),
        ({"metrics": ["mae"]}, "train_mae", (0, np.inf)),
        ({"metrics": ["mine.py:accuracy_of"]}, "val_accuracy_of", (-np.inf, np.inf)),
        ({"metrics": {"age": ["mae"], "sick": ["auc"]}}, "val_sick_auc", (0, 1)),
        ({}, "test_roc_auc", (0, 1)),
        ({}, "test_brier_score", (0, 2)),
        ({}, "val_mine", (-np.inf, np.inf)),
        ({"loss": "mse"}, "val_loss", (0, np.inf)),
        ({"loss": {"name": "binary_crossentropy", "from_logits": True}}, "val_loss", (0, np.inf)),
        ({"loss": "cosine_similarity"}, "val_loss", (-1, np.inf)),
        ({"loss": "poisson"}, "val_loss", (-np.inf, np.inf)),
        ({"loss": {"age": "mse", "sick": "bce"}}, "val_sick_loss", (0, np.inf)),
        ({"loss": {"age": "mse", "sick": "bce"}}, "val_loss", (0, np.inf)),
        ({"loss": {"age": "mse", "sick": "poisson"}}, "val_loss", (-np.inf, np.inf)),
    ],
)
def test_the_bounds_of_a_metric_follow_from_the_job(training, name, bounds):
    assert metric_bounds([name], {"name": "any", "training": training}) == {name: bounds}


def test_what_is_searched_has_no_bounds():
    job = {
        "training": {"loss": "mse"},
        "search": {"parameters": {"training.loss": {"values": ["mse", "poisson"]}}},
    }
    assert metric_bounds(["val_loss"], job) == {"val_loss": (-np.inf, np.inf)}


def test_intervals_are_cut_off_at_the_bounds_and_nowhere_else():
    values = np.array([[0.9, 0.99], [0.1, 0.02], [0.5, 0.6], [0.5, 1.5], [0.7, np.nan]])
    before = mean_interval(values, np.random.default_rng(0))
    low, high = within_bounds(before, values, np.array(0.0), np.array(1.0))
    np.testing.assert_array_equal(low[:4], np.maximum(before.low[:4], 0))
    np.testing.assert_array_equal(high[:3], np.minimum(before.high[:3], 1))
    assert high[3] == before.high[3] > 1  # of a metric that is not what its name says
    assert (low[4], high[4]) == (-np.inf, np.inf)


def test_a_run_of_two_seeds_claims_no_accuracy_above_one(tmp_path):
    folder = write_run(tmp_path, learning_rates(1e-4, 1e-3), range(2), metric="val_accuracy",
                       goal="maximize", result_of=lambda variant, seed: completed(
                           variant, seed, val_accuracy=0.9 + 0.09 * seed))  # fmt: skip
    job = folder.read_job() | {"training": {"loss": "mse", "metrics": ["accuracy"]}}
    folder.job_file.write_text(json.dumps(job))
    board = Tally(folder, metric="val_accuracy", goal="maximize").standing_without_matrices()
    chosen = board.leaderboard.selection
    assert chosen.low < chosen.mean < chosen.high == 1.0
    assert board.leaderboard.variants[0].metrics["val_accuracy"].high == 1.0
    assert all(one.metrics["val_loss"].low >= 0 for one in board.leaderboard.variants)
    paired = {one.name: one.paired for one in compare_variants(folder, "v00", "v01").metrics}
    assert -1 <= paired["test_accuracy"].low <= paired["test_accuracy"].high <= 1


# One variant ------------------------------------------------------------------------------------


def test_one_variant_has_nothing_to_be_told_from():
    text = said(20, [0.3])
    assert "told" not in text
    assert "is the only variant; its mean val_loss" in text


def test_the_test_result_stands_beside_what_was_selected_by():
    text = said(20, [0.3, 0.9])
    assert "On the test set, which had no say in this, its mean test_loss is 0.3" in text
    assert "(validation minus test: -0.05)" in text


# What is written --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    rng = np.random.default_rng(5)
    losses = {
        (variant.variant_id, seed): float(0.3 + index * 0.01 + rng.normal(0, 0.02))
        for index, variant in enumerate(learning_rates(1e-4, 3e-4, 1e-3))
        for seed in SEEDS
    }

    def result_of(variant, seed):
        loss = losses[variant.variant_id, seed]
        trial = completed(variant, seed, val_loss=loss)
        is_lost = (variant.variant_id, seed) in (("v00", 3), ("v02", 4), ("v01", 5))
        bins = np.stack([[seed + 1.0] * 10, [0.5 * seed] * 10, [0.4 * seed] * 10], axis=1)
        status = "diverged" if is_lost else "completed"
        return replace(trial, status=status, test_reliability=bins)

    folder = write_run(
        tmp_path_factory.mktemp("runs"), learning_rates(1e-4, 3e-4, 1e-3), SEEDS,
        result_of=result_of,
    )  # fmt: skip
    standing = Tally(folder, metric="val_loss", goal="minimize").standing()
    folder.write_variants(variant_rows(standing.leaderboard))
    return folder


def test_every_number_of_variants_csv_follows_from_the_trials_by_pandas_and_scipy(run):
    written = pd.read_csv(run.variants_file).set_index("variant_id")
    trials = pd.concat(map(pd.read_parquet, sorted(run.path.glob("trials/*.parquet"))))
    done = trials[trials["status"] == "completed"]
    names = [name for name in trials if name.startswith(("train_", "val_", "test_"))]
    names = [name for name in names if trials[name].dtype == float]
    expected = {}
    for variant_id, rows in done.groupby("variant_id"):
        for name in names:
            x = rows[name].to_numpy()
            t = stats.t(len(x) - 1).ppf(0.975) * np.sqrt(len(x) / (len(x) - 1))
            key = int(np.random.default_rng(0).integers(1 << 62))
            bounds = stats.bootstrap(
                (x,), np.mean, n_resamples=1999, confidence_level=1 - 2 * stats.norm.cdf(-t),
                method="BCa", rng=np.random.default_rng([key, len(x)]),
            ).confidence_interval  # fmt: skip
            middles = (np.median(x), stats.trim_mean(x, 0.25))
            numbers = (x.mean(), x.std(ddof=1), *bounds, *middles, x.min(), x.max())
            expected |= dict(
                zip([(variant_id, f"{name}_{one}") for one in STATISTICS], numbers, strict=True)
            )
    for (variant_id, column), value in expected.items():
        assert written.loc[variant_id, column] == pytest.approx(value, rel=1e-9), column
    counts = trials.groupby("variant_id")["status"].value_counts().unstack(fill_value=0)
    assert (written["n"] == counts["completed"]).all()
    assert (written["diverged"] == counts["diverged"]).all()
    order = done.groupby("variant_id")["val_loss"].mean().sort_values().index
    assert list(written.sort_values("rank").index) == list(order)
    wide = done.pivot(index="seed", columns="variant_id", values="val_loss")
    single = [
        stats.ttest_rel(pair[other], pair[order[0]], alternative="greater").pvalue
        for other in order[1:]
        for pair in [wide[[other, order[0]]].dropna()]
    ]
    assert written.loc[order[1:], "p_value"].to_numpy() == pytest.approx(corrected(single))
    columns = {"rank", "p_value", "n", "diverged", "failed", "param.training.learning_rate"}
    assert set(written.columns) == columns | {column for _, column in expected}


def test_the_scores_of_pooled_matrices_are_scikit_learns(run):
    content = {}
    Tally(run, metric="val_loss", goal="minimize").standing(content.update)
    trials = run.read_trials()
    rows = trials[(trials["variant_id"] == "v01") & (trials["status"] == "completed")]
    pooled = np.sum(rows["test_confusion_matrix"].tolist(), axis=0).reshape(2, 2)
    labels, guesses = np.repeat(np.indices((2, 2)).reshape(2, -1), pooled.ravel(), axis=1)
    found = content["v01"]["test"]["scores"]
    assert found["balanced_accuracy"] == metrics.balanced_accuracy_score(labels, guesses)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, guesses, average=None))
    assert found["support"].tolist() == np.bincount(labels).tolist()


def test_the_summary_names_the_set_that_holds_the_best(run):
    standing = Tally(run, metric="val_loss", goal="minimize").standing_without_matrices()
    content = json.loads(json.dumps(run_summary("medical_trial", standing, timings_s={})))
    known = standing.leaderboard.certainty
    assert content["certainty"] == {
        "best_set": list(known.best_set),
        "undecided": list(known.undecided),
        "same": [],
        "num_compared": 2,
        "num_seeds": 19 - 1,
        "pairing": known.pairing,
        "flattery": known.flattery,
    }
    assert known.best_set[0] == content["selection"]["variant_id"]
    chosen = content["selection"]
    assert chosen["low"] < chosen["mean"] < chosen["high"]


def test_reliability_is_pooled_over_the_completed_seeds(run):
    bins = winner_reliability(run, "v00")
    seeds = [seed for seed in SEEDS if seed != 3]
    np.testing.assert_allclose(bins[:, 0], sum(seed + 1 for seed in seeds))
    np.testing.assert_allclose(bins[:, 2], 0.4 * sum(seeds))
