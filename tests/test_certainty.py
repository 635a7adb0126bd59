"""How sure a selection is: what ranks, what can be told apart, what is said, variants.csv."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from made_up_runs import completed, learning_rates, write_run
from scipy import stats
from sklearn import metrics
from statsmodels.stats.multitest import multipletests

from trialrun.aggregate import STATISTICS, rank_summaries, summarize, variant_rows
from trialrun.certainty import compare_with_winner
from trialrun.explanation import explain
from trialrun.selection import ValidationScores, rank, select_best
from trialrun.standing import Tally, run_summary, winner_reliability
from trialrun.statistics.intervals import mean_interval

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


def test_the_p_values_are_scipys_and_statsmodels():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 0.1, 12)
    values = [shared + rng.normal(shift, 0.02, 12) for shift in (0.3, 0.31, 0.32, 0.5)]
    known = compare_with_winner(scores_of(values), np.arange(4))
    single = [
        stats.permutation_test(
            (one, values[0]),
            lambda first, second, axis: (first - second).mean(axis),
            permutation_type="samples",
            n_resamples=np.inf,
        ).pvalue
        for one in values[1:]
    ]
    expected = multipletests(single, method="holm")[1]
    assert list(known.p_values) == ["v01", "v02", "v03"]
    np.testing.assert_allclose(list(known.p_values.values()), expected, rtol=1e-9)
    assert known.undecided == tuple(
        one for one, p_value in known.p_values.items() if p_value > 0.05
    )
    assert (known.num_seeds, known.num_needed, known.has_too_few_seeds) == (12, 7, False)


def test_variants_are_compared_over_the_seeds_that_both_completed():
    values = np.array([[0.1] * 8, [0.2] * 8, [np.nan] * 8, [0.3] * 8])
    values[0, 0] = values[3, 2:] = np.nan
    known = compare_with_winner(scores_of(values), np.array([0, 1, 3, 2]))
    assert list(known.p_values) == ["v01", "v03"]
    assert known.num_seeds == 7
    assert known.p_values["v01"] == pytest.approx(2 * 2 / 2**7)
    assert known.p_values["v03"] == 1.0


def test_luck_that_seeds_share_does_not_hide_a_difference():
    """Seed by seed a small difference shows that two separate means would not."""
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 0.1, 20)
    values = [luck + 0.30, luck + 0.31 + rng.normal(0, 0.002, 20)]
    assert stats.ttest_ind(*values).pvalue > 0.5
    assert compare_with_winner(scores_of(values), np.arange(2)).undecided == ()


# What is said -----------------------------------------------------------------------------------


def board_of(values, goal="minimize"):
    """A leaderboard of made-up validation losses (variants, seeds)."""
    values = np.asarray(values)
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
    summaries = summarize(trials, {one: {} for one in ids})
    return rank_summaries(summaries, scores_of(values), goal)


LUCK = np.random.default_rng(0).normal(0, 0.05, 20)


def said(num_seeds, shifts, noise=0.01):
    rng = np.random.default_rng(0)
    rows = [shift + rng.normal(0, noise, num_seeds) for shift in shifts]
    return explain(board_of(rows))


def test_all_that_cannot_be_told_from_the_winner_are_named():
    board = board_of([shift + LUCK for shift in (0.3, 0.3, 0.3, 0.6)])
    assert "At 5% it cannot be told from v01 and v02." in explain(board)
    board = board_of([shift + LUCK for shift in (*[0.3] * 9, 0.9)])
    assert "told from v01, v02, v03, v04, v05 and 3 more." in explain(board)
    assert "At 5% it cannot be told from any of the 9 others." in said(20, [0.3] * 10, noise=0.05)


def test_a_clear_winner_is_called_one():
    assert "It can be told from the other at 5% (corrected p below 0.0001)." in said(20, [0.3, 0.9])
    assert "It can be told from each of the 2 others at 5% (corrected p at most 0.0039)." in said(
        10, [0.3, 0.5, 0.9]
    )


def test_too_few_seeds_are_said_to_tell_nothing():
    assert "5 seeds can tell nothing apart: with 3 variants it takes at least 7." in said(
        5, [0.3, 0.5, 0.9]
    )
    assert "1 seed can tell nothing apart" in said(1, [0.3, 0.5])
    assert "tell nothing" not in said(7, [0.3, 0.5, 0.9])


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
    standing = Tally(folder, metric="val_loss", goal="minimize").take_all().standing()
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
        stats.permutation_test(
            (pair[other].to_numpy(), pair[order[0]].to_numpy()),
            lambda first, second, axis: (first - second).mean(axis),
            permutation_type="samples", n_resamples=np.inf, batch=1 << 14,
        ).pvalue
        for other in order[1:]
        for pair in [wide[[other, order[0]]].dropna()]
    ]  # fmt: skip
    corrected = multipletests(single, method="holm")[1]
    assert written.loc[order[1:], "p_value"].to_numpy() == pytest.approx(corrected, rel=1e-9)
    columns = {"rank", "p_value", "n", "diverged", "failed", "param.training.learning_rate"}
    assert set(written.columns) == columns | {column for _, column in expected}


def test_the_scores_of_pooled_matrices_are_scikit_learns(run):
    content = {}
    for chunk in Tally(run, metric="val_loss", goal="minimize").matrices():
        content |= chunk
    trials = run.read_trials()
    rows = trials[(trials["variant_id"] == "v01") & (trials["status"] == "completed")]
    pooled = np.sum(rows["test_confusion_matrix"].tolist(), axis=0).reshape(2, 2)
    labels, guesses = np.repeat(np.indices((2, 2)).reshape(2, -1), pooled.ravel(), axis=1)
    found = content["v01"]["test"]["scores"]
    assert found["balanced_accuracy"] == metrics.balanced_accuracy_score(labels, guesses)
    assert found["f1"] == pytest.approx(metrics.f1_score(labels, guesses, average=None))
    assert found["support"].tolist() == np.bincount(labels).tolist()


def test_the_summary_names_what_cannot_be_told_from_the_winner(run):
    standing = Tally(run, metric="val_loss", goal="minimize").take_numbers().standing()
    content = json.loads(json.dumps(run_summary("medical_trial", standing, timings_s={})))
    known = standing.leaderboard.certainty
    assert content["certainty"] == {
        "undecided": list(known.undecided),
        "num_compared": 2,
        "num_seeds": 19 - 1,
        "num_seeds_needed": 7,
    }
    chosen = content["selection"]
    assert chosen["low"] < chosen["mean"] < chosen["high"]


def test_reliability_is_pooled_over_the_completed_seeds(run):
    bins = winner_reliability(run, "v00")
    seeds = [seed for seed in SEEDS if seed != 3]
    np.testing.assert_allclose(bins[:, 0], sum(seed + 1 for seed in seeds))
    np.testing.assert_allclose(bins[:, 2], 0.4 * sum(seeds))
