"""Where entries of the cache are kept for this machine and these libraries."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from trialrun.training.compilation_cache.folder import chosen_folder, is_on, machine_key


class Place(NamedTuple):
    """The cache folder, and a key of what its entries count for.

    Attributes:
        folder: The cache folder.
        key: A hash, 16 hex digits, of the machine, the libraries and the threads of TensorFlow.
    """

    folder: Path
    key: str


def find_place() -> Place | None:
    """The place for entries; None without a cache."""
    folder = chosen_folder(os.environ)
    if folder is None or not is_on(os.environ):
        return None
    built = (tf.version.GIT_VERSION, tf.version.COMPILER_VERSION)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    try:
        text = f"{machine_key()} {built} {threads}"
    except OSError:  # a system that does not tell its processor
        return None
    return Place(folder, hashlib.sha256(text.encode()).hexdigest()[:16])
