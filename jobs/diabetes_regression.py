"""How far diabetes went within a year, from ten measurements; and a network for such amounts."""

import keras
import numpy as np
from sklearn.datasets import load_diabetes


def diabetes(seed, *, num_test=88):
    """The 442 patients that come with scikit-learn, in a random order; the last are the test set.

    The target is an amount, 25 to 346. It is a float: integers would be taken for classes.
    """
    data = load_diabetes(scaled=False)
    order = np.random.default_rng(seed).permutation(len(data.target))
    train, test = order[:-num_test], order[-num_test:]
    return {
        "train": (data.data[train], data.target[train]),
        "test": (data.data[test], data.target[test]),
        "feature_names": data.feature_names,  # by these `trialrun predict` finds the columns
    }


def regressor(*, units=(32,), l2=1e-2, mean=150.0, deviation=80.0):
    """Dense layers, and one output without an activation.

    The output is stretched to about the target's size, so that training need not begin far away.
    """
    penalty = keras.regularizers.L2(l2)
    hidden = [keras.layers.Dense(n, "relu", kernel_regularizer=penalty) for n in units]
    output = [keras.layers.Dense(1), keras.layers.Rescaling(deviation, offset=mean)]
    return keras.Sequential([keras.Input((10,)), *hidden, *output])
