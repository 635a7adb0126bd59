"""What a pack tells of itself while it is trained: heartbeats, made of an engine's advances."""

import time
from collections.abc import Generator

import numpy as np

from trialrun.training.engine_outputs import Advance, TrainedTrial
from trialrun.trials.results import Checkpoint, Progress, SoFar
from trialrun.trials.task import PackTask

# What the single variants have come to is told less often than the rest, for it is more to send.
_VARIANTS_INTERVAL_S = 2.0
_VARIANTS_INTERVAL = 10  # in intervals of heartbeats


def reporting(
    task: PackTask,
    engine: str,
    training: Generator[Advance | Checkpoint, None, list[TrainedTrial] | None],
) -> Generator[Progress | Checkpoint, None, list[TrainedTrial] | None]:
    """Turns an engine's advances into heartbeats, at most one per `progress_interval_s`.

    Args:
        task: The pack.
        engine: The name of the engine.
        training: Its advances and checkpoints, and in the end the trained trials.
    """
    heartbeats = _Heartbeats(task, engine)
    while True:
        try:
            report = next(training)
        except StopIteration as end:
            return end.value
        if isinstance(report, Checkpoint):
            yield report
        else:
            heartbeats.take(report)
            yield from heartbeats.due()


class _Heartbeats:
    """What a pack has come to, and when that is told next."""

    def __init__(self, task: PackTask, engine: str) -> None:
        self._task, self._engine = task, engine
        self._pick = max if task.select.goal == "maximize" else min
        num_trials = len(task.pack.trials)
        self._epochs = np.zeros(num_trials, np.int64)
        self._values = np.full(num_trials, np.nan)
        self._epochs_done = 0
        self._best: float | None = None
        self._last_s = self._last_of_variants_s = 0.0
        if (kept := task.checkpoint) is not None:
            ended = False if kept.ended is None else kept.ended
            self._epochs[:] = np.where(ended, task.last_epoch, kept.epochs)
            self._epochs_done = int(self._epochs.sum())

    def take(self, advance: Advance) -> None:
        """Takes what an engine reports."""
        self._epochs_done += advance.num_epochs
        self._epochs[advance.indices] = advance.epoch
        values = advance.logs.get(self._task.select.metric)
        if values is None:
            return
        self._values[advance.indices] = values
        finite = [float(value) for value in values if np.isfinite(value)]
        known = [] if self._best is None else [self._best]
        self._best = self._pick([*finite, *known], default=None)

    def due(self) -> Generator[Progress, None, None]:
        """Yields a heartbeat if it is time for one."""
        now_s, interval_s = time.perf_counter(), self._task.progress_interval_s
        if now_s - self._last_s < interval_s:
            return
        self._last_s = now_s
        variants = None
        if now_s - self._last_of_variants_s >= max(
            _VARIANTS_INTERVAL_S, _VARIANTS_INTERVAL * interval_s
        ):
            self._last_of_variants_s = now_s
            variants = self._variants()
        pack_id = self._task.pack.pack_id
        yield Progress(pack_id, self._epochs_done, self._best, self._engine, variants)

    def _variants(self) -> dict[str, SoFar]:
        found: dict[str, SoFar] = {}
        trials = self._task.pack.trials
        for trial, epochs, value in zip(
            trials, self._epochs.tolist(), self._values.tolist(), strict=True
        ):
            is_finite = bool(np.isfinite(value))
            own = SoFar(1, epochs, int(is_finite), value if is_finite else 0.0)
            name = trial.variant.variant_id
            found[name] = found[name].plus(own) if name in found else own
        return found
