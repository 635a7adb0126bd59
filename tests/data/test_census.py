"""Rows that two parts share: counted as Python's sets count them, and told from natural repeats."""

import numpy as np
import pytest

from trialrun.data.census import row_hashes, shared_rows, take_census
from trialrun.data.splits import with_validation
from trialrun.datasets import medical_trial

RNG = np.random.default_rng(0)


def census_of(output, seed=0, validation_split=0.1):
    return take_census(with_validation(output, validation_split, seed))


def in_parts(x, y=None, *, num_test=40):
    y = np.zeros(len(x)) if y is None else y
    return {"train": (x[num_test:], y[num_test:]), "test": (x[:num_test], y[:num_test])}


def copied(output):
    return [one for one in census_of(output).shared if one.are_copies]


# Counting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        RNG.integers(0, 4, (50, 3)),
        RNG.integers(0, 9, 50).astype(np.float32),
        RNG.integers(0, 2, (50, 2, 3), np.uint8),
        RNG.choice(np.array(["a", "b", "c"], object), (50, 2)),
        np.asfortranarray(RNG.integers(0, 4, (50, 3))),
        RNG.integers(0, 4, (100, 3))[::2],
    ],
    ids=lambda x: f"{x.dtype} {x.shape}",
)
def test_rows_are_shared_as_sets_of_tuples_say(x):
    train, _ = (
        {tuple(row.ravel().tolist()) for row in x[rows]} for rows in (slice(30), slice(30, None))
    )
    expected = sum(tuple(row.ravel().tolist()) in train for row in x[30:])
    (shared,) = shared_rows({"train": x[:30], "test": x[30:]})
    assert (shared.part, shared.other) == ("test", "train")
    assert (shared.num_shared, shared.num_rows) == (expected, 20)
    assert len(set(row_hashes(x[:30]).tolist())) == len(train)


def test_a_row_is_all_of_its_inputs():
    a, b = np.array([1, 1, 2]), np.array([[5], [6], [5]])
    assert len(set(row_hashes({"a": a, "b": b}).tolist())) == 3
    assert len(set(row_hashes((a, np.array(["x", "x", "y"], object))).tolist())) == 2


def test_zero_has_no_sign():
    first, second = row_hashes(np.array([0.0, -0.0]))
    assert first == second


def test_parts_that_share_nothing_say_nothing():
    assert shared_rows({"train": np.arange(9.0), "test": np.arange(9.0) + 9}) == ()


# Copies ------------------------------------------------------------------------------------------


@pytest.mark.tensorflow
def test_a_dataset_that_is_shuffled_anew_for_each_part_is_noticed():
    import tensorflow as tf

    from trialrun.data.generator_arrays import as_arrays
    from trialrun.data.streams import read_streams

    rows = tf.data.Dataset.from_tensor_slices((RNG.normal(size=(60, 4)), np.arange(60) % 2))
    shuffled = rows.shuffle(60, seed=3)
    output, _ = read_streams(
        {
            "train": shuffled.take(40).batch(8),
            "validation": shuffled.skip(40).take(10).batch(8),
            "test": shuffled.skip(50).batch(8),
        },
        source="here",
    )
    census = take_census(as_arrays(output, source="here"))
    train, val = (set(map(tuple, output[part][0])) for part in ("train", "validation"))
    (first, *_) = census.shared
    assert (first.part, first.num_shared) == ("validation", len(train & val))
    assert first.are_copies
    assert census.warnings[0].startswith(f"{len(train & val)} of 10 validation rows are among the")


NORMAL = RNG.normal(size=(400, 5))
ROUNDED = np.round(RNG.normal(size=(400, 3)), 2)


@pytest.mark.parametrize(
    "output",
    [
        {"train": (NORMAL[:300], NORMAL[:300]), "test": (NORMAL[250:], NORMAL[250:])},
        {"train": (NORMAL, NORMAL), "test": (NORMAL, NORMAL)},
        in_parts(np.concatenate([ROUNDED, ROUNDED])[RNG.permutation(800)], num_test=160),
        in_parts(np.concatenate([ROUNDED, *[ROUNDED[:20]] * 19])[RNG.permutation(780)]),
        in_parts(np.tile(RNG.integers(0, 255, (90, 8, 8), np.uint8), (2, 1, 1))),
    ],
    ids=["overlap", "the same", "a file twice", "a class repeated before", "images twice"],
)
def test_copies_are_told_from_chance(output):
    found = copied(output)
    assert ("test", "train") in {(one.part, one.other) for one in found}
    assert (
        "more than chance explains: with copies, a model looks better than it is"
        in census_of(output).warnings[0]
    )


AGE = RNG.integers(13, 100, 2000)
SEX, CLASS = RNG.integers(0, 2, 2000), RNG.integers(0, 3, 2000)


@pytest.mark.parametrize(
    "output",
    [
        medical_trial(0),
        in_parts(AGE[:, None] * 1.0),
        in_parts(np.stack([AGE, SEX, CLASS], 1)),
        in_parts(np.stack([AGE, AGE // 10, AGE > 64, SEX], 1)),
        in_parts(np.eye(12)[RNG.integers(0, 12, 800)]),
        in_parts((RNG.random((1000, 20)) < 0.1).astype(np.uint8)),
        in_parts(np.round(RNG.normal(size=500), 2)),
        in_parts(np.round(NORMAL[:, :2], 1)),
        in_parts(RNG.choice(np.array(["good", "bad", "so so"], object), 300)),
        in_parts(RNG.zipf(1.5, (600, 2)).clip(max=1000)),
    ],
    ids=[
        *("medical trial", "ages", "few columns", "columns that follow", "one-hot", "sparse bits"),
        *("rounded", "rounded pairs", "short texts", "zipf"),
    ],
)
def test_rows_that_repeat_by_nature_are_counted_and_not_warned_of(output):
    for seed in range(5):
        census = census_of(output, seed)
        assert census.shared
        assert census.warnings == []


# Classes -----------------------------------------------------------------------------------------


def test_rows_of_each_class_are_counted_in_each_part():
    x, y = np.arange(8.0), np.array([0, 1, 1, 2, 0, 1, 0, 1])
    output = {"train": (x[:4], y[:4]), "validation": (x[4:6], y[4:6]), "test": (x[6:], y[6:])}
    census = take_census(output | {"class_names": ["a", "b", "c"]})
    assert census.num_rows == {"train": 4, "validation": 2, "test": 2}
    assert census.class_counts == {"train": (1, 2, 1), "validation": (1, 1, 0), "test": (1, 1, 0)}
    assert census.warnings == [
        "the validation part has no row of class 'c' (1 of 'a', 1 of 'b', 0 of 'c')",
        "the test part has no row of class 'c' (1 of 'a', 1 of 'b', 0 of 'c')",
    ]
    alone = take_census({**output, "test": (x[7:], y[7:]), "class_names": ["a", "b", "c"]})
    assert alone.warnings[1].startswith("the test part has no row of 2 of 3 classes, 'a', 'c' (")
    assert census.to_json()["class_counts"]["train"] == [1, 2, 1]
    unnamed = take_census(output)
    assert (unnamed.class_names, unnamed.warnings) == (("0", "1", "2"), [])
    (warning,) = take_census({"train": (x[:3], y[:3]), "test": (x[3:], y[3:])}).warnings
    assert warning == "the training part has no row of class '2' (1 of '0', 2 of '1', 0 of '2')"


def test_amounts_have_no_classes():
    x = np.arange(4.0)
    census = take_census({"train": (x, x + 0.5), "test": (x + 9, x)})
    assert (census.class_names, census.class_counts, census.warnings) == ((), {}, [])
