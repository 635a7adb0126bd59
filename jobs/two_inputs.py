"""Patients of several clinics: measurements and the clinic's number, two inputs of one model."""

import keras
import numpy as np


def patients(seed, *, num_train=1500, num_test=500, num_clinics=12):
    """Four measurements per patient, and a clinic whose devices are off by an amount of their own.

    x is a dict: each input has a name, by which the model and `data.scaling` know it.
    """
    rng = np.random.default_rng(seed)
    num_rows = num_train + num_test
    health = rng.normal(size=(num_rows, 4))
    is_ill = (health.sum(1) > 0).astype(int)
    clinics = rng.integers(num_clinics, size=(num_rows, 1))
    offsets = np.random.default_rng(0).normal(scale=3, size=(num_clinics, 4))  # in every seed
    x = {"measurements": 100 + 15 * (health + offsets[clinics[:, 0]]), "clinic": clinics}

    def rows(part):
        return {name: values[part] for name, values in x.items()}, is_ill[part]

    train, test = slice(num_train), slice(num_train, None)
    return {"train": rows(train), "test": rows(test), "class_names": ["well", "ill"]}


def two_inputs(*, units=32, num_clinics=12):
    """A functional model: the clinic's number becomes a learned vector beside the measurements."""
    measurements = keras.Input((4,), name="measurements")
    clinic = keras.Input((1,), name="clinic", dtype="int32")
    vector = keras.layers.Flatten()(keras.layers.Embedding(num_clinics, 4)(clinic))
    joined = keras.layers.Concatenate()([measurements, vector])
    hidden = keras.layers.Dense(units, activation="relu")(joined)
    output = keras.layers.Dense(2, activation="softmax")(hidden)
    return keras.Model({"measurements": measurements, "clinic": clinic}, output)
