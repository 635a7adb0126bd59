"""Trains packs. This module is what the driver needs: the task; TensorFlow is in the others.

`pack.train_pack` is the entry; `fused` and `keras_fit` are the engines.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trialrun.job import SelectSpec
from trialrun.plan import Pack
from trialrun.results import Checkpoint

__all__ = ["PackTask"]


@dataclass(frozen=True, slots=True)
class PackTask:
    """A pack and all that a worker needs to train it.

    Attributes:
        pack: What is trained.
        job_folder: Where the paths of the user's files start.
        select: Which of a variant's trials is kept as its best.
        num_threads: CPU threads that train slices of the pack side by side; 1 on a GPU.
        attempt: 0 for the first try.
        files: Path -> content of the user's Python files, for machines that have not got them.
        is_continued: Whether trials of the run were trained before.
        checkpoint: Where the pack's trials stand, in the pack's order; None to begin.
        progress_interval_s: Seconds between two signs of life, at least.
    """

    pack: Pack
    job_folder: Path
    select: SelectSpec
    num_threads: int = 1
    attempt: int = 0
    files: Mapping[str, bytes] = field(default_factory=dict)
    is_continued: bool = False
    checkpoint: Checkpoint | None = None
    progress_interval_s: float = 0.2
