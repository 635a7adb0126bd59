import numpy as np
import pytest

from trialrun.data.census import check_classes, class_counts, integer_classes
from trialrun.data.holdout import ClassLabels, hold_out, with_every_class
from trialrun.data.load import load_splits
from trialrun.data.splits import with_validation
from trialrun.errors import InputError
from trialrun.job import DataSpec


def three_parts(labels, seed, shares=(0.2, 0.1)):
    classes = ClassLabels(labels, [f"c{n}" for n in range(labels.max() + 1)])
    rows, test = hold_out(
        np.arange(len(labels)), shares[0], seed, "data.test_split", classes, num_kept_parts=2
    )
    rows, val = hold_out(rows, shares[1], seed, "data.validation_split", classes)
    return rows, val, test


@pytest.mark.parametrize("counts", [(60, 57, 3), (3, 3, 200), (50, 5, 4, 3), (100, 3), (40, 4)])
@pytest.mark.parametrize("shares", [(0.2, 0.1), (0.5, 0.3), (0.1, 0.5)])
def test_every_class_is_in_every_part_and_every_row_in_one(counts, shares):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for seed in range(30):
        parts = three_parts(labels, seed, shares)
        assert [set(labels[part]) for part in parts] == [set(range(len(counts)))] * 3
        np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
        sizes = [len(part) for part in parts]
        assert sizes[2] == len(labels) - np.floor(len(labels) * (1 - shares[0]))


def test_a_split_in_which_scikit_learn_leaves_no_class_out_is_its_own():
    from sklearn.model_selection import train_test_split

    labels = np.repeat([0, 1, 2], [50, 30, 20])
    rows, test = hold_out(
        np.arange(100), 0.2, 5, "data.test_split", ClassLabels(labels, "abc"), num_kept_parts=2
    )
    state = int(np.random.default_rng([5, 0x7E57]).integers(2**32))
    kept, held_out = train_test_split(
        np.arange(100), test_size=20, random_state=state, stratify=labels
    )
    np.testing.assert_array_equal(rows, kept)
    np.testing.assert_array_equal(test, held_out)


def test_parts_that_have_every_class_are_left_as_they_are():
    labels = np.array([0, 1, 0, 1, 1])
    kept, held_out = with_every_class(labels, np.array([4, 0, 1]), np.array([2, 3]))
    assert (kept.tolist(), held_out.tolist()) == ([4, 0, 1], [2, 3])


def test_a_class_that_is_too_rare_is_refused_with_the_counts_of_all():
    labels = np.repeat([0, 1, 2], [40, 30, 2])
    with pytest.raises(InputError) as caught:
        three_parts(labels, 0)
    assert str(caught.value) == (
        "data.test_split 0.2: class 'c2' has 2 rows for 3 parts, but each part needs one of every"
        " class (40 of 'c0', 30 of 'c1', 2 of 'c2'); give more rows, leave the class out, or give"
        " data.stratify: false"
    )


# A generator's rows ------------------------------------------------------------------------------


def generated(counts, names=None):
    labels = np.repeat(np.arange(len(counts)), counts)
    part = (np.arange(float(len(labels))), labels)
    return {"train": part, "test": part} | ({} if names is None else {"class_names": names})


def test_chance_leaves_no_class_out_of_the_validation_part_or_of_training():
    for seed in range(40):
        output = with_validation(generated((60, 37, 2, 1)), 0.1, seed)
        assert set(output["validation"][1]) == {0, 1, 2}  # of the last there is one row
        assert set(output["train"][1]) == {0, 1, 2, 3}
        x = np.concatenate([output["train"][0], output["validation"][0]])
        np.testing.assert_array_equal(np.sort(x), np.arange(100.0))


def test_weights_stay_with_the_rows_that_are_exchanged():
    x, y = generated((60, 37, 3))["train"]
    output = with_validation({"train": (x, y, x + 0.5), "test": (x, y)}, 0.05, 3)
    for own, _, weights in (output["train"], output["validation"]):
        np.testing.assert_array_equal(weights, own + 0.5)


@pytest.mark.parametrize(
    ("y", "numbers"),
    [
        (np.array([2, 0, 1]), [2, 0, 1]),
        (np.array([[1], [0]]), [1, 0]),
        (np.array([True, False]), [1, 0]),
        (np.array([1.0, 0.0]), [1, 0]),
        (np.eye(3, dtype="f4")[[2, 0]], [2, 0]),
        (np.array([0.5, 1.0]), None),
        (np.array([[1, 1], [0, 1]]), None),
        ((np.array([1]), np.array([1])), None),
    ],
)
def test_classes_are_known_by_whole_numbers_or_by_a_column_each(y, numbers):
    found = integer_classes(y)
    assert (found if found is None else found.tolist()) == numbers


def test_counts_are_not_classes_without_names():
    y = np.array([0, 3, 17, 2])
    assert class_counts({"train": (y, y), "test": (y, y)}) == {}


def test_a_named_class_that_is_judged_by_and_never_trained_on_is_refused(tmp_path):
    code = """
import numpy as np
def data(seed):
    y = np.array([0, 1] * 20)
    test = np.where(np.arange(40) < 3, 2, y)
    return {"train": (y * 1.0, y), "test": (y * 1.0, test), "class_names": ["a", "b", "c"]}
"""
    (tmp_path / "made.py").write_text(code)
    with pytest.raises(InputError) as caught:
        load_splits(DataSpec(generator="made.py:data"), tmp_path, 0)
    message = str(caught.value)
    assert message.startswith(
        "data.generator made.py:data (seed 0): class 'c' has rows in the test"
    )
    assert "0 of 'c'" in message
    assert "3 of 'c'" in message


def test_without_names_nothing_is_said_of_classes():
    y = np.array([0, 1])
    check_classes({"train": (y, y), "test": (y, y + 5)})
