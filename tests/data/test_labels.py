"""Labels that a loss cannot mean are refused; every label that it can mean is taken."""

import numpy as np
import pytest

from trialrun.data.labels import check_labels
from trialrun.data.model_task import OutputLoss
from trialrun.errors import InputError

EYE = np.eye(3)
FRACTIONS, SIGNS = np.array([0.0, 0.25]), np.array([-1.0, 1.0])

# Family, shape of the output, labels, what is said of them.
REFUSED = [
    ("binary", (1,), np.array([1, 2]), "hold 2, first in row 1, .* takes labels from 0 to 1"),
    ("binary", (1,), np.array([1.0, 2.0]), "hold 2.0"),
    ("binary", (1,), SIGNS, "hold -1.0, first in row 0"),
    ("binary", (3,), np.array([[0, 1, 2]]), "hold 2"),
    ("binary", (3,), np.array([0, 1, 0]), r"shape \(\) per row, .* outputs of shape \(3,\)"),
    ("binary", (1,), EYE, r"shape \(3,\) per row"),
    ("categorical", (3,), np.array([0, 1, 2]), "use sparse_categorical_crossentropy"),
    ("categorical", (3,), np.array([[0], [1]]), "use sparse_categorical_crossentropy"),
    ("categorical", (4,), EYE, r"shape \(3,\) per row, .* outputs of shape \(4,\)"),
    ("categorical", (3,), np.array([[1, 1, 0]]), "sum to 2 in a row"),
    ("categorical", (3,), np.array([[0.0, 0, 0]]), "sum to 0 in a row"),
    ("categorical", (2,), np.array([[-0.5, 1.5]]), "hold -0.5"),
    ("categorical_hinge", (3,), np.array([0, 1]), "per row"),
    ("distribution", (3,), np.array([[0.5, 0.2, 0.2]]), "sum to 0.9 in a row"),
    ("distribution", (3,), np.array([[3.0, 2.0, 1.0]]), "hold 3.0"),
    ("sparse", (3,), np.array([0.0, 0.5]), "hold 0.5, .* class numbers 0, 1, 2"),
    ("sparse", (3,), np.array([0.0, -1.0]), "class label -1"),
    ("sparse", (3,), np.array([0, 3]), "class label 3, but the model has 3 outputs"),
    ("sparse", (1,), np.array([0, 1]), "class label 1, but the model has 1 outputs"),
    ("sparse", (3,), EYE, "for one-hot labels use categorical_crossentropy"),
    ("sparse", (5, 3), np.zeros((2, 4, 3)), "one class number"),
    ("hinge", (1,), np.array([0.0, 0.5]), "hold 0.5, .* 0 and 1, or -1 and 1"),
    ("hinge", (1,), np.array([1, 2]), "hold 2"),
    ("count", (1,), SIGNS, "hold -1.0, .* numbers of at least 0"),
    ("logarithm", (1,), np.array([-0.5]), "hold -0.5"),
    ("quantity", (3,), np.arange(3.0), "compares them with outputs"),
    ("quantity", (1,), EYE, r"shape \(3,\) per row"),
    ("quantity", (5, 1), np.zeros((2, 4)), r"shape \(4,\) per row"),
]


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize(("family", "shape", "labels", "said"), REFUSED)
def test_labels_that_a_loss_cannot_mean_are_refused_in_every_part(
    family, shape, labels, said, part
):
    with pytest.raises(InputError, match=f"^(the data has|{part} labels).*{said}") as error:
        check_labels([OutputLoss("the_loss", family, shape)], {part: labels})
    assert f"{part} labels" in str(error.value)
    assert "the loss the_loss" in str(error.value)
    assert ";" in str(error.value)  # what to do


@pytest.mark.parametrize(
    ("family", "shape", "labels"),
    [
        ("binary", (1,), np.array([0, 1])),
        ("binary", (1,), np.array([[0.0], [1.0]])),
        ("binary", (1,), np.array([0.2, 0.8])),  # soft
        ("binary", (), np.array([0, 1])),
        ("binary", (3,), EYE),
        ("binary", (None, None, 1), np.zeros((2, 8, 8))),
        ("categorical", (3,), EYE.astype(int)),
        ("categorical", (3,), 0.9 * EYE + 0.1 / 3),
        ("categorical", (2, 3), np.stack([EYE[:2], EYE[1:]])),
        ("sparse", (3,), np.array([0.0, 2.0])),
        ("sparse", (3,), np.array([[0], [2]])),
        ("sparse", (5, 3), np.zeros((2, 5), int)),
        ("sparse", (5, 3), np.zeros((2, 5, 1), int)),
        ("hinge", (1,), SIGNS),
        ("hinge", (1,), np.array([0, 1])),
        ("distribution", (3,), np.full((2, 3), 1 / 3, np.float32)),
        ("count", (1,), np.array([0, 12])),
        ("quantity", (1,), np.array([-3.5])),
        ("quantity", (1,), np.array([[-3.5]])),
        ("quantity", (5, 1), np.zeros((2, 5))),
        ("own", (8,), np.array([0, 99])),
        ("other", (8,), np.array([0, 99])),
    ],
)
def test_labels_that_a_loss_can_mean_are_taken(family, shape, labels):
    check_labels([OutputLoss("the_loss", family, shape)], {"train": labels, "test": labels})


def test_a_label_that_the_loss_ignores_is_taken():
    loss = OutputLoss("the_loss", "sparse", (3,), ignored_class=255)
    check_labels([loss], {"train": np.array([0, 255, 2])})
    with pytest.raises(InputError, match="class label 254"):
        check_labels([loss], {"train": np.array([0, 254])})


def test_parts_that_write_the_two_classes_of_a_hinge_in_two_ways_are_refused():
    parts = {"train": SIGNS, "test": np.array([0.0, 1.0])}
    with pytest.raises(InputError, match="train labels hold -1 and test labels hold 0"):
        check_labels([OutputLoss("hinge", "hinge", (1,))], parts)


@pytest.mark.parametrize("labels", [{"a": SIGNS, "b": SIGNS}, (SIGNS, SIGNS)])
def test_the_labels_of_each_output_are_checked(labels):
    losses = [OutputLoss("mse", "quantity", (1,), "a"), OutputLoss("bce", "binary", (1,), "b")]
    with pytest.raises(InputError, match=r"train labels of b hold -1\.0"):
        check_labels(losses, {"train": labels})
