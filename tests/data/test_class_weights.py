"""Weights of training rows: by class as Keras and scikit-learn make them, and of a generator."""

import re
from dataclasses import replace

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_sample_weight

from trialrun.data.class_weights import weigh_classes
from trialrun.data.generator import check_generated
from trialrun.data.splits import make_splits
from trialrun.errors import InputError

RNG = np.random.default_rng(4)
LABELS = np.repeat([0, 1, 2], [20, 7, 3])
NAMES = ["few", "some", "many"]


def splits(y=LABELS, weights=None, names=()):
    part = (RNG.normal(size=(len(LABELS), 2)), y)
    part += () if weights is None else (weights,)
    output = {"train": part, "test": part, "class_names": list(names)}
    check_generated(output, source="here")
    return make_splits(output, scaling="none", validation_split=0.2, seed=1)


@pytest.mark.tensorflow
@pytest.mark.parametrize("one_hot", [False, True])
def test_rows_are_weighed_as_keras_weighs_them(one_hot):
    from keras.src.trainers.data_adapters.data_adapter_utils import class_weight_to_sample_weights

    made = splits(np.eye(3)[LABELS] if one_hot else LABELS)
    weighed = weigh_classes(made, {"0": 0.5, "2": 3.0})
    expected = class_weight_to_sample_weights(made.y_train, {0: 0.5, 2: 3.0})
    np.testing.assert_array_equal(weighed.w_train, expected)
    assert weighed.w_train.dtype == np.float32
    assert weighed.w_val is None
    assert weighed.w_test is None


def test_weights_of_rows_and_of_classes_are_multiplied():
    """As Keras 2 did it; Keras 3 refuses both together and leaves the product to its users."""
    own = RNG.uniform(0.5, 2, len(LABELS))
    made = splits(weights=own)
    of_classes = weigh_classes(replace(made, w_train=None), {"0": 0.5, "2": 3.0}).w_train
    weighed = weigh_classes(made, {"0": 0.5, "2": 3.0})
    np.testing.assert_allclose(weighed.w_train, of_classes * made.w_train, rtol=1e-6)
    assert weighed.w_train.dtype == np.float32
    np.testing.assert_array_equal(weighed.w_val, made.w_val)


def test_balanced_weights_are_scikit_learns_of_the_training_rows():
    made = splits()
    expected = compute_sample_weight("balanced", made.y_train)
    np.testing.assert_allclose(weigh_classes(made, "balanced").w_train, expected, rtol=1e-6)


def test_a_class_may_be_called_by_its_name():
    made = splits(names=NAMES)
    by_name, by_number = (weigh_classes(made, {name: 3.0}).w_train for name in ("some", "1"))
    np.testing.assert_array_equal(by_name, by_number)
    assert set(by_name) == {1, 3}


@pytest.mark.parametrize(
    ("name", "key"),
    [("caf\xe9", "cafe\u0301"), ("cafe\u0301", "caf\xe9"), ("True", "true"), ("7", "7.0")],
)
def test_a_class_may_be_called_by_its_name_in_any_spelling(name, key):
    made = splits(names=["few", name, "many"])
    np.testing.assert_array_equal(
        weigh_classes(made, {key: 3.0}).w_train, weigh_classes(made, {name: 3.0}).w_train
    )


@pytest.mark.parametrize(
    ("names", "class_weight", "twice"),
    [
        (
            ["few", "caf\xe9", "many"],
            {"caf\xe9": 1, "cafe\u0301": 2},
            r"'caf\xe9' and 'cafe\u0301'",
        ),
        (["few", "some", "many"], {"some": 1, "1": 2}, "'some' and '1'"),
        (["0", "1", "2"], {"1": 1, "1.0": 2}, "'1' and '1.0'"),
    ],
)
def test_a_class_has_one_weight(names, class_weight, twice):
    with pytest.raises(InputError, match=re.escape(f"{twice} are the same class; give it one")):
        weigh_classes(splits(names=names), class_weight)


@pytest.mark.parametrize(
    ("made", "class_weight", "message"),
    [
        (splits(names=NAMES), {"sone": 1}, "has no class 'sone'; did you mean 'some'"),
        (splits(), {"3": 1}, "has no class '3'"),
        # Where classes are called by numbers, a number is a name and never a position.
        (splits(names=["1", "2", "3"]), {"0": 5}, "has no class '0'"),
        (splits(names=["0", "2", "4"]), {"1": 5}, "has no class '1'"),
        (splits(names=["1000", "2000", "3000"]), {"1.000": 3}, "has no class '1.000'"),
        (splits(RNG.normal(size=30)), "balanced", "labels are not one class per row"),
        (splits({"a": LABELS, "b": LABELS}), "balanced", "models with a single output"),
    ],
)
def test_what_cannot_be_weighed_is_refused(made, class_weight, message):
    with pytest.raises(InputError, match=message):
        weigh_classes(made, class_weight)


def test_the_weights_of_a_generator_go_with_their_rows():
    made = splits(weights=LABELS + 0.5)
    for name in ("train", "val", "test"):
        x, y, weights = made.part(name)
        assert len(x) == len(weights)
        np.testing.assert_array_equal(weights, y + 0.5)
    assert len(replace(made, w_test=None).part("test")) == 2


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (-np.ones(30), "train sample_weight must hold weights of at least 0, got -1.0"),
        (np.ones(29), "must have the same number of rows"),
        (np.full(30, np.nan), "train sample_weight holds NaN"),
        ([1] * 30, "train sample_weight must be a NumPy array"),
    ],
)
def test_wrong_weights_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        splits(weights=weights)
