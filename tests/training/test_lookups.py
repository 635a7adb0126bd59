"""What a model looks up is not scaled: words, categories and pixels stay whole numbers."""

import json

import numpy as np
import pytest

from trialrun.data.load import load_splits
from trialrun.data.scaling import Scaler
from trialrun.errors import InputError
from trialrun.job import DataSpec, ModelSpec
from trialrun.training.model.lookups import looked_up_features

CODE = """
import keras, numpy as np
from keras import layers, ops
def words(dtype): return lambda: keras.Sequential([
    keras.Input((None,), dtype=dtype), layers.Embedding(30, 2), layers.GlobalAveragePooling1D()])
as_int, as_float = words("int32"), words("float32")
def no_input(): return keras.Sequential([layers.Embedding(30, 2), layers.Flatten()])
class Words(layers.Layer):
    def __init__(self):
        super().__init__(); self.word, self.place = layers.Embedding(40, 2), layers.Embedding(9, 2)
    def call(self, x): return self.word(x + 1) + self.place(ops.arange(x.shape[-1]))
def own_layer():
    x = keras.Input((5,)); return keras.Model(x, layers.Flatten()(Words()(x)))
class Own(keras.Model):
    def build(self, shape): self.words = layers.Embedding(30, 2)
    def call(self, x): return ops.mean(self.words(ops.cast(x, "int32")), 1)
def own(): return Own()
def positions():  # of its own, whatever the input holds
    x = keras.Input((5,)); h = layers.Dense(2)(x[..., None])
    return keras.Model(x, h + layers.Embedding(5, 2)(np.arange(5)))
def dense(): return keras.Sequential([layers.Dense(2)])
def lookup():
    layer = layers.IntegerLookup(vocabulary=list(range(30)))
    return keras.Sequential([layer, layers.Embedding(31, 2)])
def pixels(dtype="uint8"): return keras.Sequential([
    keras.Input((4, 4, 1), dtype=dtype), layers.Rescaling(1 / 255), layers.Flatten()])
def table():  # the second column is a category
    x = keras.Input((3,)); c = layers.Flatten()(layers.Embedding(30, 2)(x[:, 1:2]))
    return keras.Model(x, layers.Concatenate()([x, c]))
def named(dtype="float32"):
    a, b = keras.Input((1,), name="a"), keras.Input((2,), name="b", dtype=dtype)
    words = layers.Flatten()(layers.Embedding(30, 2)(b))
    return keras.Model([a, b], layers.Concatenate()([a, words]))
def siamese():
    a, b = keras.Input((2,)), keras.Input((2,)); words = layers.Embedding(30, 2)
    return keras.Model([a, b], words(a) + words(b))
"""
WORDS = np.random.default_rng(0).integers(0, 30, (40, 5))
WORDS[:, 4] = 0  # padding
NUMBERS = np.random.default_rng(1).normal(size=(40, 1))

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.py").write_text(CODE)
    return tmp_path


def found(folder, builder, x):
    features = looked_up_features(ModelSpec(builder=f"m.py:{builder}"), folder)(x)
    return [one.tolist() for one in features]


@pytest.mark.parametrize(
    "builder", ["as_int", "as_float", "no_input", "own_layer", "own", "lookup"]
)
@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float64])
def test_words_are_looked_up_whatever_the_model_says_of_its_input(folder, builder, dtype):
    assert found(folder, builder, WORDS.astype(dtype)) == [[True] * 5]


@pytest.mark.parametrize("builder", ["dense", "positions"])
def test_whole_numbers_that_no_layer_looks_up_are_amounts(folder, builder):
    assert found(folder, builder, WORDS) == [[False] * 5]


def test_pixels_are_whole_where_the_input_says_so(folder):
    images = np.random.default_rng(0).integers(0, 255, (8, 4, 4, 1), np.uint8)
    assert found(folder, "pixels", images) == [[True]]
    assert found(folder, "dense", images) == [[False]]


def test_one_column_of_a_table_may_be_looked_up(folder):
    x = np.hstack([NUMBERS, WORDS[:, :1], NUMBERS * 2])
    assert found(folder, "table", x) == [[False, True, False]]


def test_inputs_are_told_apart_by_name_or_place(folder):
    x = {"b": WORDS[:, :2], "a": NUMBERS}
    assert found(folder, "named", x) == [[True, True], [False]]
    assert found(folder, "named", (NUMBERS, WORDS[:, :2])) == [[False], [True, True]]
    assert found(folder, "siamese", (WORDS[:, :2], WORDS[:, 2:4])) == [[True] * 2] * 2


def test_keras_is_as_it_was(folder):
    import keras

    before = keras.layers.Embedding.call
    found(folder, "own", WORDS)
    assert keras.layers.Embedding.call is before


# Scaling -----------------------------------------------------------------------------------------

DATA = """
import numpy as np
def data(seed, kind="words"):
    r = np.random.default_rng(seed)
    words, numbers = r.integers(0, 30, (40, 5)), r.normal(50, 9, (40, 1))
    x = {"words": words, "table": np.hstack([numbers, words[:, :1], numbers])}[kind]
    y = np.arange(40) % 2
    return {"train": (x, y), "test": (x + 0.5 if seed == 9 else x, y)}
"""


def splits_of(folder, builder, seed=0, **data):
    (folder / "d.py").write_text(DATA)
    looked_up = looked_up_features(ModelSpec(builder=f"m.py:{builder}"), folder)
    return load_splits(DataSpec(generator="d.py:data", **data), folder, seed, looked_up)


@pytest.mark.parametrize("scaling", ["minmax", "standard", "none"])
def test_words_reach_the_model_as_they_are(folder, scaling):
    splits = splits_of(folder, "as_float", scaling=scaling)
    raw = load_splits(DataSpec(generator="d.py:data", scaling="none"), folder, 0)
    assert splits.x_train.dtype == np.int32
    np.testing.assert_array_equal(splits.x_train, raw.x_train)
    again = Scaler.from_json(json.loads(json.dumps(splits.scalers.to_json())))
    np.testing.assert_array_equal(again.transform(raw.x_test), splits.x_test)


def test_other_columns_are_scaled_as_before(folder):
    splits = splits_of(folder, "table", args={"kind": "table"})
    plain = load_splits(DataSpec(generator="d.py:data", args={"kind": "table"}), folder, 0)
    np.testing.assert_array_equal(splits.x_test[:, [0, 2]], plain.x_test[:, [0, 2]])
    assert splits.x_test[:, 1].max() == 29


def test_amounts_are_scaled_as_before(folder):
    splits = splits_of(folder, "dense")
    plain = load_splits(DataSpec(generator="d.py:data"), folder, 0)
    np.testing.assert_array_equal(splits.x_train, plain.x_train)


def test_a_fraction_that_would_be_looked_up_is_refused(folder):
    with pytest.raises(InputError, match=r"x holds .*, but the model takes it as a whole number"):
        splits_of(folder, "as_float", seed=9)
