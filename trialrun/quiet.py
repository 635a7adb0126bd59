"""Importing TensorFlow without its output, in a process whose output people read."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Hides what TensorFlow's C++ code writes during its import; later only errors are shown.

    This also hides Keras's warnings about each HDF5 file, whose format it calls legacy.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - a device, not a file
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
    if "absl.logging" in sys.modules:  # only then is the logger `absl` of absl's own class
        logging.getLogger("absl").setLevel(logging.ERROR)
