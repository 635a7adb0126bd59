"""The random streams of the whole process, seeded while a user's code runs and then restored."""

import contextlib
import random
import sys
from collections.abc import Iterator

import numpy as np


@contextlib.contextmanager
def streams_seeded(seed: int) -> Iterator[None]:
    """Inside this context, the random streams of the whole process are seeded.

    Code that draws from them draws the same numbers whatever the process did before.
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
