"""The devices of a worker process: exactly those it was given, with memory growth on.

Written for CUDA GPUs. Where there is none, the tests use stand-ins.
"""

import logging
import os
import subprocess
from collections.abc import Sequence

import tensorflow as tf

from trialrun.errors import DeviceError
from trialrun.host import available_memory_bytes

_log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the machine, is out of memory.

    XLA's runtime reports it as an internal error whose text begins with the status code.
    """
    is_named = isinstance(error, MemoryError | tf.errors.ResourceExhaustedError)
    return is_named or (isinstance(error, tf.errors.OpError) and "RESOURCE_EXHAUSTED" in str(error))


def claim_gpus(assigned: Sequence[str]) -> str:
    """Claims the GPUs that Ray assigned to this process; must run before TensorFlow computes.

    Memory growth lets several processes share a GPU: TensorFlow then takes the memory that it
    needs instead of all there is.

    Args:
        assigned: What Ray put into CUDA_VISIBLE_DEVICES; empty for a CPU task. On a machine
            without GPUs Ray may offer logical ones (`num_gpus=2`); TensorFlow then sees none.

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
            " take memory on GPUs of other tasks. Does something change CUDA_VISIBLE_DEVICES after"
            " Ray has set it?"
        )
    for gpu in visible:
        if not tf.config.experimental.get_memory_growth(gpu):
            tf.config.experimental.set_memory_growth(gpu, True)
    if not visible:
        if assigned:
            _log.warning("given GPU %s, but TensorFlow sees none: the CPU is used", assigned)
        return "CPU"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in visible]
    return "; ".join(
        ", ".join(filter(None, [f"GPU {index}: {name or 'unknown'}", _memory_of(index)]))
        for index, name in zip(assigned, names, strict=False)
    )


def free_memory_bytes() -> int:
    """Free memory of the device that computes, in bytes: the GPU's, or else this machine's."""
    if not tf.config.list_physical_devices("GPU"):
        return available_memory_bytes()
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0] or "0"
    free = _query(gpu, "memory.free", "--format=csv,noheader,nounits")
    if not free.isdecimal():
        return available_memory_bytes()
    used = tf.config.experimental.get_memory_info("GPU:0")
    # TensorFlow can also reuse memory that it has taken and does not use now.
    return (int(free) << 20) + used["peak"] - used["current"]


def _memory_of(gpu: str) -> str:
    """A GPU's memory as the NVIDIA driver reports it, e.g. `40960 MiB`; empty if it cannot."""
    return _query(gpu, "memory.total", "--format=csv,noheader")


def _query(gpu: str, what: str, how: str) -> str:
    """What the NVIDIA driver reports of a GPU; empty if it cannot."""
    query = ["nvidia-smi", f"--id={gpu}", f"--query-gpu={what}", how]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
