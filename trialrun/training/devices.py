"""The devices of a worker process: exactly those it was given, with memory growth on.

Written for CUDA GPUs; on a machine without one it has been run against stand-ins only.
"""

import logging
import subprocess
from collections.abc import Sequence

import tensorflow as tf

from trialrun.errors import DeviceError

_log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, has no more memory.

    XLA's runtime reports it as an internal error whose text begins with the status code.
    """
    is_named = isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)
    return is_named or (isinstance(error, tf.errors.OpError) and "RESOURCE_EXHAUSTED" in str(error))


def claim_gpus(assigned: Sequence[str]) -> str:
    """Takes the GPUs that Ray assigned to this process; must run before TensorFlow computes.

    Memory growth lets several processes share a GPU and makes TensorFlow ask for what it needs
    instead of all there is.

    Args:
        assigned: What Ray put into CUDA_VISIBLE_DEVICES; empty for a CPU task. On a machine
            without GPUs Ray can be told to pretend (`num_gpus=2`): TensorFlow then sees none.

    Returns:
        The device that computes, e.g. `CPU` or `GPU 3: NVIDIA A100-SXM4-40GB, 40960 MiB`.

    Raises:
        DeviceError: TensorFlow sees more GPUs than were assigned.
    """
    visible = tf.config.list_physical_devices("GPU")
    if len(visible) > len(assigned):
        raise DeviceError(
            f"this task was given {len(assigned)} GPU(s) ({', '.join(assigned) or 'none'}) but"
            f" TensorFlow sees {len(visible)}: {', '.join(gpu.name for gpu in visible)}. It would"
            " take memory on GPUs of other tasks. Is CUDA_VISIBLE_DEVICES changed after Ray set it?"
        )
    for gpu in visible:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if not visible:
        if assigned:
            _log.warning("given GPU %s, but TensorFlow sees none: the CPU computes", assigned)
        return "CPU"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in visible]
    return "; ".join(
        ", ".join(filter(None, [f"GPU {index}: {name or 'unknown'}", _memory_of(index)]))
        for index, name in zip(assigned, names, strict=False)
    )


def _memory_of(gpu: str) -> str:
    """A GPU's memory as the NVIDIA driver names it, e.g. `40960 MiB`; empty if it cannot tell."""
    query = ["nvidia-smi", f"--id={gpu}", "--query-gpu=memory.total", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
