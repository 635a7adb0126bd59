"""Whether two calls of a generator gave the same data, and how it is told if they did not."""

import numpy as np
import pytest

from trialrun.data.fingerprint import difference, take_sample


def output(**changes):
    x = np.linspace(0, 1, 600).reshape(200, 3)
    y = np.arange(200) % 2
    words = np.array(["a", "b"] * 100, object)
    parts = {"train": ({"x": x, "word": words}, y), "test": (x[:9], y[:9], np.ones(9))}
    return parts | {"class_names": ["well", "ill"]} | changes


def sample(**changes):
    return take_sample("settings", 3, output(**changes))


def test_the_same_data_has_the_same_fingerprint():
    assert sample().fingerprint == sample().fingerprint
    assert difference(sample(), sample()) == ""


X, Y = output()["test"][:2]
FAR = X.copy()
FAR[2, 1] += 0.5
LONG = np.arange(5000, dtype=np.float64)
LONG_EDITED = LONG + (np.arange(5000) == 7)  # a row that is not among those that are kept


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"test": (X[:8], Y[:8])}, "test x has the shape (9, 3) there and (8, 3) here"),
        ({"test": (X, Y.astype(np.int8))}, "test y has the dtype int64 there and int8 here"),
        ({"test": (FAR, Y)}, "test x[2, 1] is 0.0116861 there and 0.511686 here"),
        ({"test": (X, 1 - Y)}, "test y[0] is 0 there and 1 here"),
        ({"class_names": ["ill", "well"]}, "class_names are well, ill there and ill, well here"),
        ({"train": (X, Y)}, "it gave train x['x'], train x['word'], train y, test x, test y there"),
        ({"test": (X * (1 + 1e-15), Y)}, ""),  # another processor rounds in another way
    ],
)
def test_the_first_difference_is_told(changes, expected):
    there, here = sample(test=(X, Y)), sample(**{"test": (X, Y), **changes})
    assert there.fingerprint != here.fingerprint
    text = difference(there, here)
    assert text.startswith(expected)
    assert bool(text) == bool(expected)


def test_a_difference_between_the_rows_that_are_kept_is_found():
    there, here = sample(test=(LONG, Y)), sample(test=(LONG_EDITED, Y))
    assert difference(there, here) == "test x differs in some of its 5000 rows"


def test_a_text_that_differs_is_shown():
    words = np.array(["a", "é"], object)
    there = take_sample("", 0, {"train": (words, Y)})
    here = take_sample("", 0, {"train": (words[[0, 0]], Y)})
    assert difference(there, here) == "train x[1] is 'é' there and 'a' here"
