"""Six families of small models and their made-up data, for TensorFlow and for Keras on JAX.

It is the user's own code of a job as well: `data` is its generator, `build` its builder.
"""

import math
from typing import NamedTuple

import keras
import numpy as np
from keras import layers


class Family(NamedTuple):
    """The size of a family's training."""

    num_train: int
    batch_size: int
    epochs: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.num_train / self.batch_size)


FAMILIES = {
    "mlp": Family(1890, 10, 6),
    "cnn": Family(1293, 32, 2),
    "augmented_cnn": Family(1293, 32, 2),
    "gru": Family(1080, 32, 2),
    "transformer": Family(1080, 32, 2),
    "wide_mlp": Family(1280, 128, 12),
}


def data(seed: int, family: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What the reference job's training reads, in the family's shapes: x and y of three splits."""
    rng = np.random.default_rng(seed)
    num_train = FAMILIES[family].num_train
    sizes = {"train": num_train, "validation": num_train // 9, "test": num_train // 9}
    return {name: _rows(rng, size, family) for name, size in sizes.items()}


def _rows(rng: np.random.Generator, num_rows: int, family: str) -> tuple[np.ndarray, np.ndarray]:
    if family == "mlp":
        x = rng.random((num_rows, 1), np.float32)
        return x, (x[:, 0] > 0.5).astype(np.int32)
    if family.endswith("cnn"):
        x = rng.random((num_rows, 8, 8, 1), np.float32)
        return x, rng.integers(0, 10, num_rows).astype(np.int32)
    if family == "wide_mlp":
        x = rng.standard_normal((num_rows, 100)).astype(np.float32)
        return x, (x[:, 0] > 0).astype(np.int32)
    tokens = rng.integers(1, 40, (num_rows, 16)).astype(np.int32)
    return tokens, (tokens.sum(axis=1) > 320).astype(np.int32)


def build(family: str) -> keras.Model:
    """The model, not compiled."""
    if family == "mlp":
        hidden = [layers.Dense(16, "relu"), layers.Dense(32, "relu")]
        return keras.Sequential([keras.Input((1,)), *hidden, layers.Dense(2, "softmax")])
    if family.endswith("cnn"):
        augmented = [
            layers.RandomRotation(0.05),
            layers.RandomZoom(0.1),
            layers.RandomTranslation(0.1, 0.1),
        ]
        convolutions = [
            layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")
            for filters in (8, 16)
        ]
        ends = [layers.Flatten(), layers.Dropout(0.2), layers.Dense(10, "softmax")]
        first = augmented if family == "augmented_cnn" else []
        return keras.Sequential([keras.Input((8, 8, 1)), *first, *convolutions, *ends])
    if family == "wide_mlp":
        hidden = [layers.Dense(256, "relu"), layers.Dense(256, "relu")]
        return keras.Sequential([keras.Input((100,)), *hidden, layers.Dense(2, "softmax")])
    tokens = keras.Input((16,), dtype="int32")
    if family == "gru":
        x = layers.GRU(16)(layers.Embedding(40, 8, mask_zero=True)(tokens))
    else:
        x = layers.Embedding(40, 16)(tokens)
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(16)(layers.Dense(32, "relu")(x)))
        x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(2, "softmax")(x))
