"""Importing TensorFlow in a process that people look at."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hides what TensorFlow's C++ writes while it is imported; later only errors are shown.

    Of Keras too, which warns of each file of a format that it calls legacy.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a path of ours
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    if "absl.logging" in sys.modules:  # before that it is no logger of absl's kind
        logging.getLogger("absl").setLevel(logging.ERROR)
