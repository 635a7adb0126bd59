"""What a generator may give for arrays; oracle: NumPy, pandas and SciPy by hand."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from trialrun.data.generator import check_generated
from trialrun.data.generator_arrays import as_arrays
from trialrun.data.splits import make_splits
from trialrun.errors import InputError

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
Y = np.array([0, 1, 0])
FRAME = pd.DataFrame(X, columns=["age", "dose"])


def given(x=X, y=Y, *, test=None, **more):
    output = {"train": (x, y), "test": (x, y) if test is None else test, **more}
    output = as_arrays(output, source="here")
    check_generated(output, source="here")
    return output


@pytest.mark.parametrize(
    "x",
    [
        np.matrix(X),
        np.ma.array(X, mask=False),
        scipy.sparse.csr_matrix(X),
        scipy.sparse.coo_array(X),
        X.astype(object),
        X.astype(np.longdouble),
        X.astype(np.float16),
        FRAME,
        FRAME.astype("Int64"),
        FRAME.astype("Float64"),
        FRAME.astype("int64[pyarrow]"),
        FRAME.astype({"age": bool}).astype({"age": int}) * [0, 1] + FRAME * [1, 0],
    ],
    ids=str,
)
def test_what_keras_takes_as_numbers_is_the_same_array(x):
    for part in ("train", "test"):
        array = given(x)[part][0]
        assert type(array) is np.ndarray
        np.testing.assert_array_equal(array.astype(float), X)


@pytest.mark.tensorflow
def test_a_tensor_is_an_array():
    import tensorflow as tf

    output = given(tf.constant(X), tf.constant(Y), test=(X, Y))
    np.testing.assert_array_equal(output["train"][0], X)
    np.testing.assert_array_equal(output["train"][1], Y)


def test_structures_of_series_and_lists_of_arrays_are_several_inputs():
    output = given({"a": FRAME["age"], "b": FRAME["dose"]})
    np.testing.assert_array_equal(output["train"][0]["b"], [2, 4, 6])
    output = given([X, FRAME["age"]], [Y, X[:, 0]])
    assert [array.shape for array in output["train"][0]] == [(3, 2), (3,)]
    assert isinstance(output["train"][1], tuple)


def test_columns_become_feature_names():
    assert given(FRAME)["feature_names"] == ["age", "dose"]
    assert given(FRAME, feature_names=["a", "d"])["feature_names"] == ["a", "d"]
    assert "feature_names" not in given(pd.DataFrame(X))
    assert "feature_names" not in given({"a": FRAME["age"]})


def test_an_index_says_nothing_as_in_keras():
    shuffled = FRAME.sample(frac=1, random_state=1)
    np.testing.assert_array_equal(given(shuffled)["train"][0], shuffled.to_numpy())


def test_a_frame_of_whole_numbers_and_truths_stays_whole():
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [True, False, True]})
    array = given(frame)["train"][0]
    assert array.dtype.kind == "i"
    np.testing.assert_array_equal(array, [[1, 1], [2, 0], [3, 1]])


# Texts -------------------------------------------------------------------------------------------

TEXTS = ["good film", "bad film", "ünique"]


@pytest.mark.parametrize(
    "x",
    [
        np.array(TEXTS),
        np.array(TEXTS, object),
        np.array([text.encode() for text in TEXTS]),
        pd.Series(TEXTS),
        pd.Series(TEXTS, dtype="category"),
        pd.Series(TEXTS, dtype="string[pyarrow]"),
        np.array(TEXTS, np.dtypes.StringDType()),
    ],
    ids=lambda x: f"{type(x).__name__} {x.dtype}",
)
def test_texts_are_texts_whatever_holds_them_and_are_never_scaled(x):
    output = given({"text": x, "n": X})
    splits = make_splits(output, scaling="minmax", validation_split=0.3, seed=0)
    assert splits.x_test["text"].dtype == object
    assert splits.x_test["text"].tolist() == TEXTS
    assert splits.scalers["text"].kind == "none"
    assert splits.x_test["n"].dtype == np.float32


@pytest.mark.parametrize("kind", [str, object, "S3", "category"])
def test_labels_of_text_are_classes_by_the_alphabet_of_all_parts(kind):
    y, y_test = (
        pd.Series(own).astype(kind) for own in (["dog", "cat", "dog"], ["fox", "cat", "cat"])
    )
    if kind == "S3":
        y, y_test = (np.array(own, "S3") for own in (["dog", "cat", "dog"], ["fox", "cat", "cat"]))
    output = given(X, y, test=(X, y_test))
    assert output["class_names"] == ["cat", "dog", "fox"]
    assert output["train"][1].tolist() == [1, 0, 1]
    assert output["test"][1].tolist() == [2, 0, 0]


def test_labels_that_look_alike_are_one_class_or_refused():
    assert given(X, np.array(["caf\xe9", "tea ", "cafe\u0301"]))["class_names"] == [
        "caf\xe9",
        "tea",
    ]
    y = np.array(["yes", "no", "Yes"])
    with pytest.raises(
        InputError, match="y holds 'Yes' and 'yes', which are probably the same class"
    ):
        given(X, y)
    np.testing.assert_array_equal(
        given(X, y, class_names=["no", "yes", "Yes"])["train"][1], [1, 0, 2]
    )


def test_class_names_of_the_generator_say_the_order_of_text_labels():
    y = np.array([["high"], ["low"], ["high"]])
    output = given(X, y, class_names=["low", "mid", "high"])
    assert output["train"][1].tolist() == [[2], [0], [2]]
    with pytest.raises(
        InputError, match="train y holds 'high', which is not among the class_names"
    ):
        given(X, y, class_names=["low", "mid"])


# Types of the parts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        (Y, Y.astype(float), "f"),
        (Y, Y.astype(np.uint8), "i"),
        (Y == 1, Y, "i"),
        (Y.astype(np.float32), Y + 0.5, "f"),
    ],
)
def test_the_parts_get_one_type_that_holds_all_values(train, test, kind):
    output = given(X, train, test=(X, test))
    assert output["train"][1].dtype == output["test"][1].dtype
    assert output["test"][1].dtype.kind == kind
    np.testing.assert_array_equal(output["test"][1], test)


# Refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ma.array(X, mask=X == 4), "train x holds masked values, first in row 1; fill"),
        (np.array([[1], [2, 3], [4]], object), "train x holds rows of different lengths; pad"),
        (
            np.array([1, "a", 2], object),
            "train x holds 'a' in row 1; it must hold either only numbers",
        ),
        (np.array(["a", None, "b"], object), "train x lacks a value in row 1; fill it in"),
        (np.array([{}, {}, {}]), "train x holds {} in row 0; it must hold"),
        (X + 1j, "train x holds complex numbers; give real and imaginary part"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "train x holds dates; give numbers"),
        (np.array([1, 2, 3], "m8[s]"), "train x holds durations; give numbers"),
        (np.zeros(3, [("a", int)]), "train x holds records; give a dict of arrays"),
        (np.array([datetime.date(2020, 1, 1)] * 3), "train x holds datetime.date(2020, 1, 1)"),
        (
            X.tolist(),
            "train x must be a NumPy array (or a dict or tuple of them), got a list; make",
        ),
        (range(3), "train x must be a NumPy array (or a dict or tuple of them), got a range"),
        (
            FRAME.assign(sex="m"),
            "train x column 'sex' holds text, but is in a table with other columns; give a dict",
        ),
        (FRAME.assign(day=pd.Timestamp("2020-01-01")), "train x column 'day' holds dates"),
        (FRAME.where(FRAME != 4), "train x column 'dose' lacks a value in 1 of 3 rows; fill"),
        (FRAME.astype("Int64").where(FRAME != 4), "column 'dose' lacks a value in 1 of 3 rows"),
        (FRAME.iloc[:, :0], "train x is a DataFrame without columns"),
        (np.array([b"\xff", b"a", b"b"]), "train x holds bytes that are not UTF-8 text"),
        (np.array(["a", np.nan, "b"], object), "train x lacks a value in row 1; fill it in"),
        (np.array(["a", "b", pd.NA], object), "train x lacks a value in row 2; fill it in"),
        (X * 1e39, "train x holds 1e+39 in row 0, but float32 holds no number beyond 3.4e+38"),
        (np.array([1, 2, decimal.Decimal("1e300")], object), "holds 1e+300 in row 2, but float32"),
        (np.zeros((3, 0)), "train x is empty: its shape is (3, 0)"),
    ],
    ids=str,
)
def test_what_is_no_array_without_a_guess_is_refused_by_name_with_the_remedy(x, message):
    with pytest.raises(InputError) as caught:
        given(x)
    assert str(caught.value).startswith("here: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"train": X, "test": X}, "got a ndarray; for an autoencoder give (x, x), and for a model"),
        ({"train": (X,), "test": (X,)}, "got a tuple; for an autoencoder give (x, x)"),
        ({"train": (X, Y), "test": (X.astype(str), Y)}, "test x holds text, but train x holds num"),
        (
            {"train": (X, {"a": Y.astype(str)}), "test": (X, {"a": Y.astype(str)})},
            "train y['a'] holds text; if there are several targets, give class numbers",
        ),
        (dict.fromkeys(("train", "test"), (X, np.array(["a"] * 3))), "y holds only one class, 'a'"),
        (
            {"train": (FRAME, Y), "test": (FRAME[["dose", "age"]], Y)},
            "test x has the columns dose, age, but train x has age, dose",
        ),
        ({"train": (X, Y * 1e300), "test": (X, Y)}, "train y holds 1e+300 in row 1, but float32"),
        ({"train": (X, Y, Y * 1e39), "test": (X, Y)}, "train sample_weight holds 1e+39 in row 1"),
        ({"train": (X, Y), "test": (X, Y, Y.astype(str))}, "test sample_weight must hold numbers"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused(output, message):
    with pytest.raises(InputError) as caught:
        check_generated(as_arrays(output, source="here"), source="here")
    assert message in str(caught.value)


@pytest.mark.tensorflow
def test_a_ragged_tensor_is_refused():
    import tensorflow as tf

    with pytest.raises(InputError, match="train x is a RaggedTensor; pad it"):
        given(tf.ragged.constant([[1], [2, 3], [4]]))


def test_a_value_that_scaling_takes_beyond_float32_is_refused():
    tiny = np.array([[1e-10], [2e-10], [3e-10]])
    output = given(tiny, test=(np.array([[1e35]]), np.array([0])))
    with pytest.raises(InputError, match="it does not fit in float32 after scaling"):
        make_splits(output, scaling="minmax", validation_split=0.3, seed=0)


SECONDS = 1.7e9 + 60.0 * np.arange(6)  # float32 knows one value in 128 of them


def test_targets_that_float32_does_not_tell_apart_are_refused():
    x = np.arange(6.0)
    with pytest.raises(
        InputError, match="train y holds numbers from 1700000000 to 1700000300, who"
    ):
        given(x, SECONDS)
    with pytest.raises(InputError, match="whose differences float32 cannot hold"):
        given(x, SECONDS.astype(np.int32))


@pytest.mark.parametrize(
    "y", [np.full(6, 0.1), 0.3 + 1e-17 * np.arange(6), SECONDS * np.arange(6), np.arange(6) * 1e-30]
)
def test_targets_that_float32_rounds_harmlessly_are_taken(y):
    given(np.arange(6.0), y, test=(np.arange(6.0), SECONDS))
