"""The random streams of the whole process, set while a user's code runs, and then put back."""

import contextlib
import random
import sys
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def streams_seeded(seed: int) -> Iterator[None]:
    """While it lasts, the random streams of the whole process are those of a seed.

    Code that draws from them draws the same whatever the process did before.
    """
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.random.set_seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
