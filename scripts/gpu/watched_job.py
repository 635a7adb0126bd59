"""The data and the model of the jobs that `run_checks` runs; its workers say what they see.

The builder is where a user's code runs inside a worker: after it has claimed its GPU, and before
its pack is checked against free memory.
"""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import ray
import tensorflow as tf

from trialrun.training import engine_choice

PATIENCE_S = 25.0
WHAT_THERE_IS, MORE_THAN_THERE_IS = "what there is", "more than there is"
_free_memory_bytes = engine_choice.free_memory_bytes
_has_told = False


def rows(seed: int, *, num_rows: int, num_features: int) -> dict[str, Any]:
    """Numbers and labels, nothing to be learned."""
    rng = np.random.default_rng(seed)

    def part(num: int) -> tuple[Any, Any]:
        x = rng.normal(size=(num, num_features)).astype("float32")
        return x, (x[:, 0] > 0).astype("int32")

    return {"train": part(num_rows), "validation": part(16), "test": part(16)}


def build(units: int, notes: str = "", others: int = 0, free: str = WHAT_THERE_IS) -> keras.Model:
    """A small model.

    Args:
        units: Of its hidden layer.
        notes: A file for what a worker sees; empty for no notes.
        others: For how many other workers the first build of a worker waits.
        free: The free memory that a pack is checked against: what there is, more than there is, or
            a number of bytes.
    """
    global _has_told
    if ray.is_initialized():  # in a worker; the process that saves the best model builds it too
        told = {WHAT_THERE_IS: _free_memory_bytes, MORE_THAN_THERE_IS: lambda: 1 << 60}
        engine_choice.free_memory_bytes = told.get(free) or (lambda: int(free.split()[0]))
        if notes and not _has_told:
            _has_told = True
            _tell(Path(notes), others)
    layers = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(2, "softmax")]
    return keras.Sequential(layers)


def _tell(notes: Path, others: int) -> None:
    gpus = tf.config.list_physical_devices("GPU")
    growth = [bool(tf.config.experimental.get_memory_growth(gpu)) for gpu in gpus]
    tf.constant(0.0).numpy()  # now TensorFlow has the memory that it takes at its start
    visible = [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu]
    note = {
        "pid": os.getpid(),
        "visible": visible,
        "gpus": [gpu.name for gpu in gpus],
        "growth": growth,
        "memory_mib": _memory_mib(visible) if gpus else None,
    }
    _append(notes, note)
    deadline = time.monotonic() + PATIENCE_S
    while (num_here := _num_workers(notes)) <= others and time.monotonic() < deadline:
        time.sleep(0.05)
    _append(notes, note | {"met": num_here > others > 0})


def _append(notes: Path, note: dict[str, Any]) -> None:
    with notes.open("a") as file:
        file.write(json.dumps(note) + "\n")


def _num_workers(notes: Path) -> int:
    return len({json.loads(line)["pid"] for line in notes.read_text().splitlines()})


def _memory_mib(visible: list[str]) -> list[int] | None:
    """Used and total memory of the first visible GPU; None if nvidia-smi does not tell."""
    query = ["--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits"]
    try:
        command = ["nvidia-smi", f"--id={visible[0]}", *query]
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return [int(number) for number in told.stdout.split(",")]
    except (OSError, ValueError, IndexError, subprocess.SubprocessError):
        return None
