"""A program that prints what TensorFlow sees, and whether each device computes, as a line of JSON.

`python -m trialrun.training.device_view [GPU ...]` claims the GPUs it is given as a pack's task
does. `trialrun doctor` runs it in a process of its own, because TensorFlow is noisy and may crash.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trialrun.messages import said_by
from trialrun.training.devices import claim_gpus

_SIZE = 256


def look(assigned: Sequence[str]) -> dict[str, Any]:
    """TensorFlow's view of this process's devices.

    Args:
        assigned: The GPUs that this process was given.
    """
    device = claim_gpus(assigned)
    physical = tf.config.list_physical_devices("GPU")
    logical = tf.config.list_logical_devices()  # after this call no device setting can be changed
    build = tf.sysconfig.get_build_info()
    return {
        "device": device,
        "forced_growth": os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", ""),
        "cuda": str(build.get("cuda_version", "")),
        "floatx": keras.config.floatx(),
        "backend": keras.backend.backend(),
        "memory_growth": {
            gpu.name: bool(tf.config.experimental.get_memory_growth(gpu)) for gpu in physical
        },
        "computes": {
            device.name: compute(device.name) for device in logical if device.device_type != "TPU"
        },
    }


def compute(device: str) -> dict[str, Any]:
    """The outcome of a compiled matrix product on a device, compared with NumPy's.

    The numbers are small integers, so that neither the order of the sums nor a shorter float type
    rounds anything.

    Args:
        device: A logical device.

    Returns:
        `seconds` of wall time, `is_right`, and `error` (empty if there is none).
    """
    a, b = np.random.default_rng(0).integers(0, 8, (2, _SIZE, _SIZE)).astype(np.float32)
    began = time.monotonic()
    try:
        with tf.device(device):
            product = tf.function(tf.matmul, jit_compile=True)(tf.constant(a), tf.constant(b))
            is_right = bool(np.array_equal(product.numpy(), a @ b))
        # TensorFlow silently uses another device when one cannot be used.
        if not product.device.endswith(device.removeprefix("/")):
            return _failed(f"computed on {product.device} instead")
    except tf.errors.OpError as error:
        return _failed(said_by(error))
    return {"seconds": time.monotonic() - began, "is_right": is_right, "error": ""}


def _failed(why: str) -> dict[str, Any]:
    return {"seconds": 0.0, "is_right": False, "error": why}


def seconds_since_start() -> float:
    """The age of this process in seconds, most of which was spent on importing TensorFlow."""
    ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    started_s = int(ticks) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s


if __name__ == "__main__":
    view = {"import_s": seconds_since_start(), **look(sys.argv[1:])}
    sys.stdout.write(json.dumps(view) + "\n")
