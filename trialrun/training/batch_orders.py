"""The order of the training rows in each epoch of a trial, keyed by its seed alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_BATCH_ORDER_STREAM = 1


class BatchOrders:
    """The order in which each of several trials sees its training rows, epoch after epoch.

    Args:
        seeds: One seed per trial; the only thing a trial's orders depend on.
        num_rows: Rows of the training set.

    References:
        SFC64 of PractRand (C. Doty-Humphrey), the fastest of NumPy's streams for permutations.
    """

    def __init__(self, seeds: Sequence[int], num_rows: int) -> None:
        self._num_rows = num_rows
        self._streams = [
            np.random.Generator(np.random.SFC64([seed, _BATCH_ORDER_STREAM])) for seed in seeds
        ]

    def skip(self, num_epochs: int) -> None:
        """Skips the orders of epochs that were trained before."""
        for _ in range(num_epochs):
            self.next_epoch()

    def next_epoch(self) -> npt.NDArray[np.int32]:
        """Row numbers (trials, num_rows); each trial's is a new permutation."""
        orders = np.empty((len(self._streams), self._num_rows), np.int32)
        for order, stream in zip(orders, self._streams, strict=True):
            order[:] = stream.permutation(self._num_rows)
        return orders
