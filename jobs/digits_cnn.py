"""Handwritten digits of 8 x 8 pixels, and a small convolutional network that reads them."""

import keras
import numpy as np
from sklearn.datasets import load_digits


def digits(seed, *, num_test=360):
    """The 1,797 images that come with scikit-learn, in a random order; the last are the test set.

    Pixels are 0 to 16. An image is (8, 8, 1): the last axis is its one channel, as Keras wants it.
    """
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8, 1)
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:-num_test], order[-num_test:]
    return {
        "train": (images[train], labels[train]),
        "test": (images[test], labels[test]),
        "class_names": [str(digit) for digit in range(10)],
    }


def cnn(*, filters=8, dropout=0.2):
    """Two convolutions that each halve the image, then a softmax over the ten digits."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Conv2D(2 * filters, 3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dropout(dropout),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
