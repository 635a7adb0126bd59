import json
from pathlib import Path

import numpy as np
import pytest

from trialrun.data.generator import check_generated
from trialrun.data.load import load_splits
from trialrun.data.scaling import Scaler
from trialrun.data.splits import make_splits
from trialrun.datasets import medical_trial
from trialrun.errors import InputError
from trialrun.job import DataSpec

HERE = Path(__file__).parent


def splits_of(output, scaling="minmax", validation_split=0.1, seed=0):
    check_generated(output, source="test")
    return make_splits(output, scaling=scaling, validation_split=validation_split, seed=seed)


def rows(x, y=None):
    """A generator's output with the same rows in both parts."""
    x = np.asarray(x)
    y = np.arange(len(x)) if y is None else y
    return {"train": (x, y), "test": (x, y)}


# The built-in generator ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "younger_with", "older_without", "younger_without", "older_with"),
    [("train", 50, 50, 1000, 1000), ("test", 10, 10, 200, 200)],
)
def test_the_medical_trial_has_the_participants_of_the_study(
    part, younger_with, older_without, younger_without, older_with
):
    ages, labels = medical_trial(3)[part]
    younger, with_effects = ages[:, 0] <= 64, labels == 1
    assert np.sum(younger & with_effects) == younger_with
    assert np.sum(~younger & ~with_effects) == older_without
    assert np.sum(younger & ~with_effects) == younger_without
    assert np.sum(~younger & with_effects) == older_with
    assert (ages.dtype, ages.shape) == (np.int64, (len(labels), 1))
    assert (labels.dtype, labels.ndim) == (np.int32, 1)


def test_ages_reach_both_ends_of_both_groups_and_no_further():
    output = medical_trial(0, num_train_younger_with=20_000, num_train_older_without=20_000)
    ages, _ = output["train"]
    younger, older = ages[ages <= 64], ages[ages > 64]
    assert (younger.min(), younger.max(), older.min(), older.max()) == (13, 64, 65, 100)
    # Each of the 52 younger ages is equally likely: about 400 of the 21,000, and 5 deviations.
    counts = np.bincount(younger - 13)
    assert len(counts) == 52
    assert np.abs(counts - 21_000 / 52).max() < 5 * np.sqrt(21_000 / 52)


def test_each_count_is_an_argument():
    counts = {f"num_{part}_{group}": number for part, group, number in [
        ("train", "younger_with", 1), ("train", "older_without", 2),
        ("train", "younger_without", 3), ("train", "older_with", 4),
        ("test", "younger_with", 5), ("test", "older_without", 6),
        ("test", "younger_without", 7), ("test", "older_with", 8),
    ]}  # fmt: skip
    output = medical_trial(0, **counts)
    for part, younger_with, older_with, younger, older in [
        ("train", 1, 4, 4, 6),
        ("test", 5, 8, 12, 14),
    ]:
        ages, labels = output[part]
        assert np.sum(ages <= 64) == younger
        assert np.sum(ages > 64) == older
        assert np.sum(labels[ages[:, 0] <= 64]) == younger_with
        assert np.sum(labels[ages[:, 0] > 64]) == older_with


def test_rows_of_both_parts_are_shuffled():
    for part in ("train", "test"):
        ages, _ = medical_trial(0)[part]
        halves = np.array_split(ages[:, 0] <= 64, 2)
        assert abs(halves[0].mean() - halves[1].mean()) < 0.15  # unshuffled: 1


def test_the_seed_alone_decides_the_data():
    np.testing.assert_array_equal(medical_trial(1)["train"][0], medical_trial(1)["train"][0])
    assert not np.array_equal(medical_trial(1)["train"][0], medical_trial(2)["train"][0])


# Split -----------------------------------------------------------------------------------------


@pytest.mark.tensorflow
@pytest.mark.parametrize("num_rows", [10, 11, 99, 100, 2100])
@pytest.mark.parametrize("validation_split", [0.1, 0.2, 0.3, 1 / 3, 0.5, 0.8])
def test_the_split_takes_as_many_rows_as_keras(num_rows, validation_split):
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    x = np.arange(num_rows, dtype=np.float32)
    (kept,), (held_out,) = train_validation_split((x,), validation_split)
    splits = splits_of(rows(x), validation_split=validation_split)
    assert len(splits.x_train) == len(np.asarray(kept))
    assert len(splits.x_val) == len(np.asarray(held_out))


def test_the_reference_data_is_split_into_1890_and_210_rows():
    splits = load_splits(DataSpec(), HERE, 0)
    assert (len(splits.x_train), len(splits.x_val), len(splits.x_test)) == (1890, 210, 420)


def test_a_split_keeps_each_row_once_with_its_own_label_in_shuffled_order():
    splits = splits_of(rows(np.arange(1000.0)), scaling="none")
    np.testing.assert_array_equal(splits.x_train, splits.y_train)
    np.testing.assert_array_equal(splits.x_val, splits.y_val)
    both = np.concatenate([splits.y_train, splits.y_val])
    np.testing.assert_array_equal(np.sort(both), np.arange(1000))
    assert 400 < splits.y_val.mean() < 600  # unshuffled: 950
    np.testing.assert_array_equal(splits.y_test, np.arange(1000))


def test_a_split_depends_on_its_seed():
    first, again, other = (splits_of(rows(np.arange(50.0)), seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first.y_val, again.y_val)
    assert not np.array_equal(first.y_val, other.y_val)


def test_validation_data_of_the_generator_is_taken_as_it_is():
    output = rows(np.arange(5.0)) | {"validation": (np.array([7.0, 9.0]), np.array([1, 0]))}
    splits = splits_of(output, scaling="none")
    np.testing.assert_array_equal(splits.x_val, [7, 9])
    np.testing.assert_array_equal(splits.x_train, np.arange(5))


@pytest.mark.tensorflow
@pytest.mark.parametrize(("num_rows", "validation_split"), [(1, 0.1), (3, 0.9), (10, 0.9)])
def test_too_few_rows_for_both_parts_are_refused_as_keras_does(num_rows, validation_split):
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    with pytest.raises(ValueError, match="not sufficient to split"):
        train_validation_split((np.ones(num_rows),), validation_split)
    with pytest.raises(InputError, match=f"of {num_rows} training rows leaves 0 for training"):
        splits_of(rows(np.ones(num_rows)), validation_split=validation_split)


# Scaling ---------------------------------------------------------------------------------------


def sklearn_scaler(scaling):
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    return {"minmax": MinMaxScaler, "standard": StandardScaler}[scaling]()


@pytest.mark.parametrize("scaling", ["minmax", "standard"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.uint8])
def test_scaling_is_that_of_scikit_learn_fitted_on_the_training_part(scaling, dtype):
    rng = np.random.default_rng(0)
    x = (rng.random((200, 3)) * [200, 20, 100] + [5, 9, 100]).astype(dtype)
    x[:, 2] = 7  # a constant feature must not divide by zero
    splits = splits_of(rows(x), scaling=scaling)
    oracle = sklearn_scaler(scaling).fit(x[splits.y_train].astype(np.float64))
    for scaled, raw in [
        (splits.x_train, x[splits.y_train]),
        (splits.x_val, x[splits.y_val]),
        (splits.x_test, x),
    ]:
        assert scaled.dtype == np.float32
        np.testing.assert_allclose(scaled, oracle.transform(raw.astype(np.float64)), atol=1e-6)


def test_the_test_set_has_no_part_in_its_own_scaling():
    output = medical_trial(0)
    before = splits_of(output)
    ages, labels = output["test"]
    after = splits_of(output | {"test": (ages * 10, labels)})
    assert before.scalers.to_json() == after.scalers.to_json()
    assert after.x_test.max() > 1  # ages beyond those of the training part stay beyond


def test_the_validation_part_has_no_part_in_its_own_scaling():
    x = np.arange(100.0)
    splits = splits_of(rows(x), validation_split=0.5, seed=3)
    assert splits.scalers.transform(x[splits.y_train]).max() == 1
    lowest, highest = x[splits.y_train].min(), x[splits.y_train].max()
    np.testing.assert_allclose(splits.scalers.scale, [1 / (highest - lowest)])


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 5, 3), (40, 6, 6, 2)])
def test_a_feature_is_the_last_axis_whatever_the_shape(shape):
    x = np.random.default_rng(0).normal(size=shape)
    splits = splits_of(rows(x), scaling="standard")
    num_features = shape[-1] if len(shape) > 1 else 1
    assert splits.scalers.scale.shape == (num_features,)
    assert splits.x_test.shape == shape
    flat = splits.x_train.reshape(-1, num_features)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(flat.std(0), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float64, np.float32),
        (np.float16, np.float32),
        (np.int64, np.int32),
        (np.int32, np.int32),
        (np.uint8, np.uint8),
        (np.bool_, np.bool_),
    ],
)
def test_without_scaling_values_stay_and_only_their_type_narrows(given, expected):
    x = np.array([[0], [1], [3]], dtype=given)
    splits = splits_of(rows(x), scaling="none", validation_split=0.4)
    assert splits.x_test.dtype == expected
    np.testing.assert_array_equal(splits.x_test, x)


def test_integers_that_do_not_fit_in_32_bits_are_not_cut():
    x = np.array([[1], [2], [2**40]])
    np.testing.assert_array_equal(splits_of(rows(x), "none", 0.4).x_test, x)


@pytest.mark.parametrize(
    ("given", "expected"),
    [(np.int64, np.int32), (np.uint8, np.int32), (np.bool_, np.int32), (np.float64, np.float32)],
)
def test_labels_are_int32_or_float32(given, expected):
    splits = splits_of(rows(np.ones((4, 1)), np.array([0, 1, 1, 0], given)), validation_split=0.5)
    assert {splits.y_train.dtype, splits.y_val.dtype, splits.y_test.dtype} == {np.dtype(expected)}


@pytest.mark.parametrize("scaling", ["minmax", "standard", "none"])
def test_a_scaler_survives_json_to_the_last_bit(scaling):
    scaler = splits_of(medical_trial(5), scaling=scaling).scalers
    again = Scaler.from_json(json.loads(json.dumps(scaler.to_json())))
    raw = np.arange(13, 101)[:, np.newaxis]
    assert again.transform(raw).tobytes() == scaler.transform(raw).tobytes()


def test_structures_of_arrays_keep_their_form_and_each_array_has_its_own_scaler():
    x = {"age": np.arange(10.0), "dose": np.arange(20.0).reshape(10, 2)}
    y = (np.arange(10), np.arange(10.0))
    splits = splits_of({"train": (x, y), "test": (x, y)}, validation_split=0.2)
    assert list(splits.x_train) == list(splits.scalers) == ["age", "dose"]
    assert splits.scalers["dose"].scale.shape == (2,)
    assert [array.dtype for array in splits.y_val] == [np.int32, np.float32]
    np.testing.assert_array_equal(splits.y_train[0], splits.y_train[1])


# What a generator must return ------------------------------------------------------------------

X, Y = np.arange(8.0).reshape(4, 2), np.array([0, 1, 0, 1])
GOOD = {"train": (X, Y), "test": (X, Y), "class_names": ["no", "yes"]}


def with_nan(array):
    return np.where(np.arange(array.size).reshape(array.shape) == 5, np.nan, array)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ((X, Y), "expected a dict with 'train' and 'test', got a tuple"),
        (None, "expected a dict with 'train' and 'test', got a NoneType"),
        ({"train": (X, Y)}, "the key 'test' is missing; got 'train'"),
        (GOOD | {"tset": (X, Y)}, "unknown key 'tset'; did you mean 'test'"),
        (
            GOOD | {"train": X},
            "train must be a pair (x, y), or (x, y, sample_weight), got a ndarray",
        ),
        (GOOD | {"train": (X, Y, Y, Y)}, "(x, y, sample_weight), got a tuple"),
        (GOOD | {"train": ([1, 2], Y)}, "train x must be a NumPy array"),
        (GOOD | {"train": (X, Y[:3])}, "same number of rows, but train x has 4, train y has 3"),
        (GOOD | {"test": ({"a": X, "b": X[:2]}, Y)}, "test x['a'] has 4, test x['b'] has 2"),
        (GOOD | {"test": (X[:0], Y[:0])}, "test x is empty: its shape is (0, 2)"),
        (GOOD | {"test": (X[:, :0], Y)}, "test x is empty: its shape is (4, 0)"),
        (GOOD | {"train": (np.float64(1), Y)}, "train x must be a NumPy array"),
        (GOOD | {"train": (np.array(1.0), Y)}, "train x is empty: its shape is ()"),
        (GOOD | {"train": ((), Y)}, "train x holds no arrays"),
        (GOOD | {"train": (with_nan(X), Y)}, "train x holds NaN or infinity, first in row 2"),
        (
            GOOD | {"test": (np.where(X == 6, -np.inf, X), Y)},
            "test x holds NaN or infinity, first in",
        ),
        (GOOD | {"train": (X, Y * np.nan)}, "train y holds NaN or infinity, first in row 0"),
        (GOOD | {"train": (X.astype(object), Y)}, "train x must hold numbers, got dtype object"),
        (GOOD | {"train": (X.astype(str), Y)}, "train x must hold numbers, got dtype <U"),
        (
            GOOD | {"train": (X, Y + 1)},
            "train y must hold labels from 0 to 1 for 2 class_names, got 2",
        ),
        (
            GOOD | {"test": (X, Y - 1)},
            "test y must hold labels from 0 to 1 for 2 class_names, got -1",
        ),
        ({"train": (X, Y - 1), "test": (X, Y)}, "train y must hold integer labels from 0, got -1"),
        ({"train": (X, Y + 2**31), "test": (X, Y)}, "train y must fit in 32 bits, got 2147483649"),
        (
            GOOD | {"test": (X[:, :1], Y)},
            "test x must have the same shape per row as train x, (2,), got (1,)",
        ),
        (
            GOOD | {"test": (X, Y[:, None])},
            "test y must have the same shape per row as train y, (), got (1,)",
        ),
        (
            GOOD | {"test": ({"a": X}, Y)},
            "test x must have the same shape per row as train x, (2,), got ['a']",
        ),
        (
            GOOD | {"validation": (X[:, 0], Y)},
            "validation x must have the same shape per row as train x",
        ),
        (GOOD | {"class_names": "yes"}, "class_names must be a list of texts, got 'yes'"),
        (GOOD | {"class_names": [0, 1]}, "class_names must be a list of texts, got [0, 1]"),
        (GOOD | {"class_names": ["a", "a"]}, "class_names must be distinct"),
        (
            GOOD | {"class_names": ["caf\xe9", "cafe\u0301"]},
            r"class_names must be distinct, but 'caf\xe9' and 'cafe\u0301' are the same name",
        ),
        (GOOD | {"feature_names": ["a", "a "]}, "feature_names must be distinct, but 'a' and 'a '"),
        (GOOD | {"feature_names": ["age"]}, "there are 1 feature_names for 2 features of x"),
    ],
)
def test_data_that_no_model_can_be_given_is_refused(output, message):
    with pytest.raises(InputError) as caught:
        check_generated(output, source="data.generator a.py:f (seed 3)")
    assert str(caught.value).startswith("data.generator a.py:f (seed 3): ")
    assert message in str(caught.value)


def test_good_data_is_accepted():
    check_generated(GOOD, source="test")
    check_generated(medical_trial(0), source="test")


# A user's generator ----------------------------------------------------------------------------

GENERATORS = """
import numpy as np
def good(seed, rows=20):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 2))
    return {"train": (x, x[:, 0] > 0), "test": (x, x[:, 0] > 0)}
def raises(seed): raise KeyError("age")
def nothing(seed): pass
def weightless(seed):
    x = np.arange(20.0)
    rows = x, x > 9, np.where(x == 0, 1, 0)  # at most one part has that row
    return {"train": rows, "test": rows}
def seconds(seed):
    x = 1.7e9 + 60 * np.arange(20.0)[:, None]
    return {"train": (x, x[:, 0] > x.mean()), "test": (x, x[:, 0] > 0), "feature_names": ["time"]}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "made.py").write_text(GENERATORS)
    return tmp_path


def test_a_generator_beside_the_job_file_is_called_with_seed_and_arguments(folder):
    splits = load_splits(DataSpec(generator="made.py:good", args={"rows": 50}), folder, 3)
    assert len(splits.x_test) == 50
    assert splits.class_names == ()


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("raises", {}, "made.py:raises (seed 3): when called with seed, it raised KeyError: 'age'"),
        (
            "good",
            {"row": 1},
            "called with seed, row, it raised TypeError: good() got an unexpected",
        ),
        ("nothing", {}, "made.py:nothing (seed 3): expected a dict with 'train' and 'test'"),
        (
            "weightless",
            {},
            "validation sample_weight is 0 in each of its 2 rows; give some of them",
        ),
        ("god", {}, "made.py has no function 'god'; did you mean 'good'?"),
    ],
)
def test_a_generator_that_fails_is_named_with_its_exception(folder, name, args, message):
    with pytest.raises(InputError) as caught:
        load_splits(DataSpec(generator=f"made.py:{name}", args=args), folder, 3)
    assert message in str(caught.value)


def test_features_that_float32_does_not_tell_apart_must_be_scaled(folder):
    assert (
        len(np.unique(load_splits(DataSpec(generator="made.py:seconds"), folder, 3).x_test)) == 20
    )
    with pytest.raises(InputError, match="train x column 'time' holds numbers from 1700000"):
        load_splits(DataSpec(generator="made.py:seconds", scaling="none"), folder, 3)


def test_data_differs_between_seeds_unless_the_job_fixes_it():
    per_trial = [load_splits(DataSpec(), HERE, seed) for seed in (0, 1)]
    assert not np.array_equal(per_trial[0].x_train, per_trial[1].x_train)
    fixed = [load_splits(DataSpec(seed=1), HERE, seed) for seed in (0, 1)]
    for part in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"):
        np.testing.assert_array_equal(getattr(fixed[0], part), getattr(fixed[1], part))
        np.testing.assert_array_equal(getattr(fixed[0], part), getattr(per_trial[1], part))
