"""The job that every peer trains: its numbers and its data.

The data is defined here again, independently of trialrun, so that no peer runs any of trialrun's
code. `keras_fit.py` does not even import this file, because it is a user's plain script.
"""

import numpy as np
import numpy.typing as npt

NUM_TRAIN, NUM_VALIDATION = 1890, 210
BATCH_SIZE = 10
EPOCHS = 30
LEARNING_RATE = 1e-4
LEARNING_RATES = (1e-4, 3e-4, 1e-3)
LAYER_SIZES = (1, 16, 32, 2)

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]


def training_data(seed: int) -> tuple[Rows, Rows]:
    """Training and validation rows of one seed: ages scaled to 0..1 (rows, 1), labels (rows,)."""
    rng = np.random.default_rng(seed)
    groups = [(13, 64, 1, 50), (65, 100, 0, 50), (13, 64, 0, 1000), (65, 100, 1, 1000)]
    ages = np.concatenate([rng.integers(low, high + 1, count) for low, high, _, count in groups])
    labels = np.repeat([label for *_, label, _ in groups], [count for *_, count in groups])
    order = rng.permutation(len(ages))
    ages, y = ages[order], labels[order].astype(np.int32)
    low, high = ages.min(), ages.max()
    x = ((ages - low) / (high - low)).astype(np.float32)[:, None]
    return (x[:NUM_TRAIN], y[:NUM_TRAIN]), (x[NUM_TRAIN:], y[NUM_TRAIN:])
