"""Lines of the oracle's table: models of all kinds, trained as plain Keras trains them."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from oracle import fit_plainly, fitting_eagerly, largest_difference
from oracle_cases import CASES
from training_jobs import load_trials, make_task, train_with_fused

from trialrun.job.user_code.functions import load_function
from trialrun.training.internals.keras_model import build_symbolically
from trialrun.training.program.verify import can_evaluate_at_once, differing_variable

pytestmark = pytest.mark.tensorflow


MANY_KINDS = """
import keras
import numpy as np
from keras import layers


def images_and_words(seed):
    rng = np.random.default_rng(seed)

    def part(num_rows):
        words = rng.integers(1, 9, (num_rows, 3))
        words[:, 2:] *= rng.integers(0, 2, (num_rows, 1))  # 0 pads some rows
        images = rng.normal(size=(num_rows, 6, 6, 2))
        x = {"images": images.astype("float32"), "words": words.astype("int32")}
        return x, rng.integers(0, 3, num_rows)

    return {"train": part(16), "validation": part(8), "test": part(8)}


def build():
    images = keras.Input((6, 6, 2), name="images")
    words = keras.Input((3,), name="words", dtype="int32")
    seen = layers.SpectralNormalization(layers.Conv2D(4, 3, activation="relu"))(images)
    seen = layers.RandomZoom(0.2)(layers.RandomCrop(3, 3)(seen))
    seen = layers.Resizing(4, 4, interpolation="bicubic")(seen)
    seen = layers.Flatten()(layers.MaxPooling2D()(seen))
    read = layers.LSTM(4)(layers.Embedding(9, 4, mask_zero=True)(words))
    outputs = layers.Dense(3, activation="softmax")(layers.Concatenate()([seen, read]))
    return keras.Model({"images": images, "words": words}, outputs)
"""


def test_every_kind_of_layer_is_trained_as_plain_keras_trains_it(tmp_path):
    """Padding is skipped; the LSTM is a loop over three steps. The table has them alone.

    Images are augmented after the convolution, so that gradients go through it too. Layers that
    normalize, drop or penalize are in `test_checkpoints` and `test_early_stopping`.
    """
    (tmp_path / "many_kinds.py").write_text(MANY_KINDS)
    data = {"generator": "many_kinds.py:images_and_words", "scaling": "none"}
    first, *_, last = load_trials(
        tmp_path,
        builder="many_kinds.py:build",
        seeds=2,
        learning_rates=(0.01, 0.05),
        data=data,
        training={"optimizer": {"name": "sgd", "momentum": 0.9}},
    )

    def build():
        model = load_function("many_kinds.py:build", tmp_path)()
        optimizer = keras.optimizers.SGD(last.variant.training.learning_rate, momentum=0.9)
        loss = "sparse_categorical_crossentropy"
        model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
        return model

    _, trained = train_with_fused(make_task(tmp_path, [first, last]))  # traced from the first
    with fitting_eagerly():
        plain = fit_plainly(build, last, tmp_path)
    weights = [*trained.trainable, *trained.non_trainable]
    assert largest_difference(weights, plain.weights) <= 1e-5
    for ours, theirs in ((trained.history, plain.history), (trained.test_logs, plain.test_logs)):
        assert ours.keys() == theirs.keys()
        assert largest_difference([ours[name] for name in theirs], list(theirs.values())) <= 1e-5


def test_numbers_that_are_not_finite_on_one_side_only_are_as_far_apart_as_can_be():
    numbers = np.array([1.0, np.nan, np.inf])
    assert largest_difference([numbers], [numbers]) == 0
    for other in ([1.0, 2.0, np.inf], [1.0, np.nan, -np.inf], [np.nan, np.nan, np.inf]):
        assert largest_difference([numbers], [np.array(other)]) == math.inf
    assert largest_difference([np.array([100.0])], [np.array([101.0])]) == 1 / 101


@pytest.mark.parametrize(
    ("others", "slot", "got", "differs"),
    [
        ([np.uint32([2**31, 7])], np.float32([0.01, 0.02]), np.float32([0.01, 0.021]), True),
        ([np.int64(3)], np.float32([1e-5]), np.float32([2e-5]), True),
        ([np.float32(0.9)], np.float32([1e-5]), np.float32([2e-5]), True),
        ([np.float32([5.0])], np.float32([1e-9]), np.float32([2e-9]), False),
        ([], np.uint32([2**31, 7]), np.uint32([2**31, 8]), True),
        ([], np.float32([np.nan]), np.float32([0.0]), True),
    ],
    ids=[
        "seed beside",
        "count beside",
        "number beside",
        "rounding",
        "a seed's state",
        "not finite",
    ],
)
def test_no_large_number_of_another_kind_hides_a_difference(others, slot, got, differs):
    group = [keras.Variable(a, dtype=a.dtype.name, trainable=False) for a in (*others, slot)]
    assert bool(differing_variable(group, [*others, got], 1e-3)) is differs


@pytest.mark.parametrize(("case", "at_once"), [("Dense", True), ("LSTM_dropout", False)])
def test_cells_that_draw_in_inference_are_evaluated_in_the_batches_of_keras(case, at_once):
    model = CASES[case].build()
    x = tf.random.stateless_normal([19, *model.input_shape[1:]], [1, 2]).numpy()
    y = tf.zeros([19], tf.int32).numpy()
    build_symbolically(model, (x, y))
    assert can_evaluate_at_once(model, (x, y), 8) is at_once


@pytest.mark.parametrize("num_rows", [1, 2, 5, 19])
def test_what_depends_on_its_batch_is_not_evaluated_at_once(num_rows):
    """Also where all rows that are looked at are fewer than a batch."""
    centered = keras.layers.Lambda(lambda x: x - keras.ops.mean(x, axis=0))
    last = keras.layers.Dense(3, activation="softmax")
    model = keras.Sequential([keras.Input((6,)), centered, last])
    model.compile("sgd", "sparse_categorical_crossentropy")
    rows = np.random.default_rng(1).normal(size=(num_rows, 6)), np.zeros(num_rows, "int32")
    dense = CASES["Dense"].build()
    for one in (model, dense):
        build_symbolically(one, rows)
    assert not can_evaluate_at_once(model, rows, 8)
    assert can_evaluate_at_once(dense, rows, 8) is (num_rows > 1)
