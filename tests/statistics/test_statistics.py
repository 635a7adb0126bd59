import sys
import warnings

import hypothesis.extra.numpy
import numpy as np
import pytest
from commands import ROOT
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from trialrun.statistics.intervals import mean_interval
from trialrun.statistics.matrices import (
    accuracy,
    matrix_scores,
    normalize_rows,
    pool_confusion_matrices,
)
from trialrun.statistics.paired import compare, holm, num_seeds_needed, sign_flip_p_values
from trialrun.statistics.probabilities import (
    as_probabilities,
    calibration_error,
    probability_scores,
    reliability_bins,
)
from trialrun.statistics.spread import describe

sys.path.append(str(ROOT / "scripts" / "benchmarks"))

import simulate_seeds


def test_the_spread_is_scipys():
    values = np.random.default_rng(0).normal(3.0, 2.0, (5, 20))
    spread = describe(values)
    expected = stats.describe(values, axis=-1, ddof=1)
    np.testing.assert_allclose(spread.mean, expected.mean, rtol=1e-14)
    np.testing.assert_allclose(spread.sd, np.sqrt(expected.variance), rtol=1e-14)
    np.testing.assert_array_equal(spread.min, expected.minmax[0])
    np.testing.assert_array_equal(spread.max, expected.minmax[1])
    np.testing.assert_array_equal(spread.n, [20] * 5)


def test_seeds_without_a_value_are_left_out():
    values = np.random.default_rng(1).normal(size=(2, 3, 8))
    values[0, 1, [0, 5]] = np.nan
    values[1, 2, 3] = np.nan
    spread = describe(values)
    for index in np.ndindex(2, 3):
        present = values[index][~np.isnan(values[index])]
        alone = [spread.mean[index], spread.sd[index], spread.n[index]]
        expected = [np.mean(present), np.std(present, ddof=1), len(present)]
        np.testing.assert_allclose(alone, expected, rtol=1e-14)


def test_one_seed_has_a_mean_but_no_standard_deviation():
    spread = describe([4.0])
    assert (spread.mean, spread.min, spread.max, spread.n) == (4.0, 4.0, 4.0, 1)
    assert np.isnan(spread.sd)


@pytest.mark.parametrize("values", [[], [np.nan, np.nan]])
def test_no_value_gives_nan_without_a_warning(values):
    spread = describe(values)
    assert spread.n == 0
    assert np.isnan([spread.mean, spread.sd, spread.min, spread.max]).all()


def test_a_large_offset_costs_no_digits_of_the_standard_deviation():
    values = np.array([1.0, 2.0, 4.0])
    np.testing.assert_allclose(describe(values + 1e9).sd, np.std(values, ddof=1), rtol=1e-9)


def test_an_infinite_value_is_a_value_and_warns_not():
    spread = describe([1.0, np.inf])
    assert (spread.mean, spread.max, spread.n) == (np.inf, np.inf, 2)


@pytest.fixture
def predictions():
    rng = np.random.default_rng(2)
    labels = rng.integers(3, size=(4, 50))
    return labels, np.where(rng.random(labels.shape) < 0.7, labels, rng.integers(3, size=(4, 50)))


def test_the_pooled_matrix_is_that_of_all_predictions_together(predictions):
    labels, guesses = predictions
    matrices = [
        metrics.confusion_matrix(*seed, labels=range(3))
        for seed in zip(labels, guesses, strict=True)
    ]
    pooled = pool_confusion_matrices(matrices)
    np.testing.assert_array_equal(pooled, metrics.confusion_matrix(labels.ravel(), guesses.ravel()))
    assert pooled.dtype == np.int64


def test_accuracy_is_scikit_learns(predictions):
    labels, guesses = (part.ravel() for part in predictions)
    matrix = metrics.confusion_matrix(labels, guesses)
    assert accuracy(matrix) == pytest.approx(metrics.accuracy_score(labels, guesses), abs=1e-15)
    assert np.isnan(accuracy(np.zeros((2, 2))))


def test_normalized_rows_are_scikit_learns_also_for_a_class_without_samples(predictions):
    labels, guesses = (part.ravel() for part in predictions)
    present = labels != 1
    expected = metrics.confusion_matrix(
        labels[present], guesses[present], labels=range(3), normalize="true"
    )
    matrix = metrics.confusion_matrix(labels[present], guesses[present], labels=range(3))
    np.testing.assert_allclose(normalize_rows(matrix), expected, rtol=1e-15)
    assert not normalize_rows(matrix)[1].any()


# Middles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_seeds", [1, 2, 3, 4, 5, 8, 20, 21])
def test_median_and_interquartile_mean_are_numpys_and_scipys(num_seeds):
    values = np.random.default_rng(num_seeds).gamma(2.0, size=(4, num_seeds + 2))
    values[:, [0, -1]] = np.nan
    spread = describe(values)
    np.testing.assert_allclose(spread.median, np.median(values[:, 1:-1], axis=1), rtol=1e-14)
    np.testing.assert_allclose(spread.iqm, stats.trim_mean(values[:, 1:-1], 0.25, axis=1))


# Intervals ------------------------------------------------------------------------------------


def expected_interval(values, rng):
    """What one call of SciPy says of one group."""
    n = len(values)
    t = stats.t(n - 1).ppf(0.975)
    if not 10 <= n <= 200:
        return stats.t(n - 1, values.mean(), stats.sem(values)).interval(0.95)
    level = 1 - 2 * stats.norm.cdf(-t * np.sqrt(n / (n - 1)))
    key = int(rng.integers(1 << 62))
    found = stats.bootstrap(
        (values,), np.mean, n_resamples=1999, confidence_level=level, method="BCa",
        rng=np.random.default_rng([key, n]),
    )  # fmt: skip
    return found.confidence_interval


@pytest.mark.parametrize("num_seeds", [2, 3, 9, 10, 20, 200, 201])
def test_an_interval_is_scipys(num_seeds):
    values = np.random.default_rng(num_seeds).gamma(2.0, size=(3, num_seeds))
    low, high = mean_interval(values, np.random.default_rng(7))
    for row, bounds in zip(values, zip(low, high, strict=True), strict=True):
        expected = expected_interval(row, np.random.default_rng(7))
        np.testing.assert_allclose(bounds, expected, rtol=1e-12)
        assert bounds[0] < row.mean() < bounds[1]


def test_an_interval_depends_on_no_other_group():
    values = np.random.default_rng(0).normal(size=(5, 20))
    values[1, 3:6] = np.nan
    together = mean_interval(values, np.random.default_rng(1))
    for index, row in enumerate(values):
        alone = mean_interval(row, np.random.default_rng(1))
        assert (together.low[index], together.high[index]) == tuple(alone)


@pytest.mark.parametrize(
    "values",
    [[], [np.nan], [3.0], [0.5, 0.5], [1.0] * 3, [1.0] * 20, [1.0, np.inf], [np.inf] * 12],
)
def test_what_bounds_nothing_has_no_bounds_and_no_warning(values):
    assert mean_interval(values, np.random.default_rng(0)) == (-np.inf, np.inf)


@pytest.mark.parametrize("num_seeds", [10, 20, 200])
def test_one_seed_that_stands_out_gives_an_interval_around_the_mean(num_seeds):
    values = np.ones((2, num_seeds))
    values[:, 0] = 0.9, 1e6
    low, high = mean_interval(values, np.random.default_rng(0))
    mean = values.mean(axis=1)
    assert (low < mean).all()
    assert (mean < high).all()


# Two variants, seed by seed -------------------------------------------------------------------


@pytest.mark.parametrize("num_seeds", [2, 3, 6, 9, 12])
def test_the_exact_test_is_scipys_permutation_test(num_seeds):
    rng = np.random.default_rng(num_seeds)
    first, second = rng.normal(0.4, 1.0, size=(2, 3, num_seeds)).round(1)  # with ties and zeros
    found = sign_flip_p_values(first - second, rng)
    expected = stats.permutation_test(
        (first, second),
        lambda one, other, axis: (one - other).mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
        axis=1,
    )
    np.testing.assert_allclose(found, expected.pvalue, rtol=1e-12)


def test_24_seeds_are_counted_exactly():
    """Whole numbers: the distribution of the sum of signs is then that of a random walk."""
    rng = np.random.default_rng(0)
    steps = np.ones(24)
    steps[:5] = -1
    sums = 2 * np.arange(25) - 24
    expected = stats.binom(24, 0.5).pmf(np.arange(25))[np.abs(sums) >= 14].sum()
    assert sign_flip_p_values(steps, rng) == pytest.approx(expected, rel=1e-12)


def test_more_seeds_are_drawn_and_their_p_value_is_never_zero():
    rng = np.random.default_rng(0)
    differences = np.stack([np.ones(40), rng.normal(0.3, 1.0, 40), np.zeros(40)])
    found = sign_flip_p_values(differences, np.random.default_rng(3))
    assert found[0] == 1 / 10_000
    # The t-test's p-value is the limit; 9,999 draws have a standard error of 0.005 at most.
    assert found[1] == pytest.approx(stats.ttest_1samp(differences[1], 0).pvalue, abs=0.02)
    assert found[2] == 1.0
    np.testing.assert_array_equal(found, sign_flip_p_values(differences, np.random.default_rng(3)))


def test_the_p_value_of_thousands_of_seeds_is_the_limit_of_the_drawn_one():
    differences = np.random.default_rng(1).normal(0.03, 1.0, size=(3, 1001))
    many = sign_flip_p_values(differences, np.random.default_rng(0))
    drawn = sign_flip_p_values(differences[:, :1000], np.random.default_rng(0))
    expected = [stats.ttest_1samp(row, 0).pvalue for row in differences]
    np.testing.assert_allclose(many, expected, atol=0.002)
    np.testing.assert_allclose(many, drawn, atol=0.03)  # one seed less, and the draws' own error
    assert sign_flip_p_values(np.zeros(2000), np.random.default_rng(0)) == 1.0


def test_seeds_that_one_variant_lacks_are_left_out_of_the_comparison():
    first = np.array([0.5, 0.7, np.nan, 0.9, 0.4, 0.8, 0.6])
    second = np.array([0.4, np.nan, 0.2, 0.7, 0.4, 0.5, 0.7])
    both = np.array([0, 3, 4, 5, 6])
    found = compare(first, second, np.random.default_rng(0))
    assert found == compare(first[both], second[both], np.random.default_rng(0))
    assert found.n == 5
    assert found.difference == pytest.approx(0.1)
    assert found.probability_first_higher == pytest.approx((3 + 0.5) / 5)


def test_without_a_common_seed_nothing_is_known():
    found = compare([1.0, np.nan], [np.nan, 2.0], np.random.default_rng(0))
    assert (found.n, found.low, found.high, found.p_value) == (0, -np.inf, np.inf, 1.0)
    assert np.isnan([found.difference, found.probability_first_higher]).all()


@pytest.mark.parametrize("num_tests", [1, 2, 7, 40])
def test_holm_is_what_statsmodels_makes_of_it(num_tests):
    from statsmodels.stats.multitest import multipletests

    p_values = np.random.default_rng(num_tests).uniform(0, 0.2, num_tests)
    p_values[: num_tests // 3] = 0.01  # equal ones
    expected = multipletests(p_values, method="holm")[1]
    np.testing.assert_allclose(holm(p_values), expected, rtol=1e-14)
    assert num_tests < 40 or expected.max() == 1


def test_holm_of_no_tests_is_nothing():
    assert holm([]).shape == (0,)


@pytest.mark.parametrize("num_tests", [1, 2, 19, 999])
def test_fewer_seeds_than_are_needed_can_tell_nothing_apart(num_tests):
    needed = num_seeds_needed(num_tests)
    rng = np.random.default_rng(0)
    for num_seeds, is_enough in ((needed - 1, False), (needed, True)):
        smallest = sign_flip_p_values(np.arange(1.0, num_seeds + 1), rng)
        assert (holm([float(smallest), *[1.0] * (num_tests - 1)])[0] <= 0.05) == is_enough


# Confusion matrices ---------------------------------------------------------------------------

MATRICES = hypothesis.extra.numpy.arrays(
    np.int64, st.integers(1, 5).map(lambda n: (n, n)), elements=st.integers(0, 40)
)


@hypothesis.given(MATRICES)
@hypothesis.settings(max_examples=60, deadline=None, database=None, derandomize=True)
def test_the_scores_of_a_matrix_are_scikit_learns(matrix):
    labels, guesses = np.repeat(np.indices(matrix.shape).reshape(2, -1), matrix.ravel(), axis=1)
    found = matrix_scores(matrix)
    if not len(labels):
        assert np.isnan([found.accuracy, found.balanced_accuracy, found.matthews_correlation]).all()
        return
    names = range(len(matrix))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of classes without samples
        expected = metrics.precision_recall_fscore_support(
            labels, guesses, labels=names, zero_division=np.nan
        )
        balanced = metrics.balanced_accuracy_score(labels, guesses)
        correlation = metrics.matthews_corrcoef(labels, guesses)
    np.testing.assert_allclose(found[3:], expected, rtol=1e-12)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, guesses), rel=1e-12)
    assert found.balanced_accuracy == pytest.approx(balanced, rel=1e-12)
    assert found.matthews_correlation == pytest.approx(correlation, abs=1e-12)


# Probabilities --------------------------------------------------------------------------------


def predictions_of(num_classes, rng, rows=300):
    """Labels, and probabilities that know something of them; rounded, so that there are ties."""
    labels = rng.integers(num_classes, size=rows)
    logits = rng.normal(size=(rows, num_classes)) + 1.5 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if num_classes == 2:
        second = probabilities[:, 1].round(2)
        return labels, np.stack([1 - second, second], axis=1)
    return labels, probabilities


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_the_scores_of_probabilities_are_scikit_learns(num_classes):
    labels, probabilities = predictions_of(num_classes, np.random.default_rng(num_classes))
    found = probability_scores(labels, probabilities)
    if num_classes == 2:
        second = probabilities[:, 1]
        roc_auc = metrics.roc_auc_score(labels, second)
        precision = metrics.average_precision_score(labels, second)
        brier = metrics.brier_score_loss(labels, second)
    else:
        roc_auc = metrics.roc_auc_score(labels, probabilities, multi_class="ovr")
        precision = metrics.average_precision_score(np.eye(num_classes)[labels], probabilities)
        brier = metrics.brier_score_loss(labels, probabilities)
    assert found.roc_auc == pytest.approx(roc_auc, rel=1e-12)
    assert found.average_precision == pytest.approx(precision, rel=1e-12)
    assert found.brier_score == pytest.approx(brier, rel=1e-12)


def test_the_calibration_error_is_its_definition_also_of_pooled_seeds():
    rng = np.random.default_rng(0)
    seeds = [predictions_of(3, rng) for _ in range(4)]
    labels = np.concatenate([one for one, _ in seeds])
    probabilities = np.concatenate([other for _, other in seeds])
    confidences, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    expected = 0.0
    for bin_number in range(10):
        inside = (confidences >= bin_number / 10) & (confidences < (bin_number + 1) / 10)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidences[inside].mean())
    pooled = sum(reliability_bins(*seed) for seed in seeds)
    assert calibration_error(pooled) == pytest.approx(expected, rel=1e-12)
    assert pooled[:, 0].sum() == 1200


def test_a_class_without_samples_leaves_the_areas_unknown_and_the_rest_known():
    labels, probabilities = predictions_of(3, np.random.default_rng(1))
    found = probability_scores(np.where(labels == 2, 0, labels), probabilities)
    assert np.isnan([found.roc_auc, found.average_precision]).all()
    assert np.isfinite([found.calibration_error, found.brier_score]).all()


def test_logits_and_numbers_are_no_probabilities():
    for no_probabilities in (
        [[2.0, -1.0]],
        [[0.2, 0.3]],
        [[np.nan, 1.0]],
        [[1.7]],
        np.zeros((0, 2)),
    ):
        assert as_probabilities(no_probabilities) is None
    np.testing.assert_allclose(as_probabilities([[0.25], [1.0]]), [[0.75, 0.25], [0, 1]])


# How often they are right ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("distribution", simulate_seeds.DISTRIBUTIONS)
def test_intervals_of_20_seeds_hold_the_true_mean_95_times_in_100(distribution):
    assert 0.92 <= simulate_seeds.coverage(distribution, num_seeds=20) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("distribution", simulate_seeds.DISTRIBUTIONS)
def test_equal_variants_are_told_apart_6_times_in_100_at_most(distribution):
    assert simulate_seeds.false_alarms(distribution, num_seeds=10) <= 0.06


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "num_variants", "num_seeds"),
    [
        *(("normal", 2, 5), ("skewed", 3, 20), ("unequal", 8, 5)),
        *(("skewed", 64, 8), ("unequal", 64, 8), ("normal", 64, 20)),
    ],
)
def test_of_equal_variants_any_is_called_worse_in_6_runs_of_100_at_most(
    noise, num_variants, num_seeds
):
    found = simulate_seeds.equal_variants(
        simulate_seeds.EQUAL[noise], num_variants=num_variants, num_seeds=num_seeds
    )
    assert found.false_claims <= 0.06
    # What the summary says of the winner's luck is true but for a third.
    assert found.flattery_said == pytest.approx(found.flattery, rel=0.33)


@pytest.mark.slow
@pytest.mark.parametrize(("num_variants", "num_seeds"), [(3, 8), (64, 8), (64, 20)])
def test_the_set_holds_the_best_that_is_better_by_half_a_deviation(num_variants, num_seeds):
    found = simulate_seeds.some_lose(
        num_variants=num_variants, num_seeds=num_seeds, num_losers=num_variants - 1, by=0.5
    )
    assert found.holds_best >= 0.94


@pytest.mark.slow
def test_at_8_seeds_losers_among_64_variants_are_named():
    found = simulate_seeds.some_lose(num_variants=64, num_seeds=8, num_losers=32, by=1.5)
    assert found.named >= 0.35
    assert found.holds_best >= 0.94


@pytest.mark.slow
def test_what_pairing_is_said_to_be_worth_is_what_it_is_worth():
    """Luck three times as large as noise: separate means have ten times the variance."""
    found = simulate_seeds.some_lose(num_variants=64, num_seeds=20, num_losers=32, by=1.5)
    low, middle, high = found.pairing
    assert middle == pytest.approx(10, rel=0.15)
    assert low >= 4
    assert high <= 20
