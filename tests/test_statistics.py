import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from trialrun.statistics import accuracy, describe, normalize_rows, pool_confusion_matrices


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
