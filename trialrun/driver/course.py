"""The course of a run so far, as it is shown while it goes on and written to status.json."""

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialrun.driver.costs import CostAccount, cost_of, weights_of
from trialrun.driver.pace import Pace, TimeLeft
from trialrun.job import SelectSpec
from trialrun.store.costs import Cost, Costs
from trialrun.trials.results import PackResult, PackStart, Progress, SoFar
from trialrun.trials.trial import Trial

MAX_PACKS_SHOWN = 100
MAX_VARIANTS_SHOWN = 20
# Adding up what the variants of all packs have come to may take this share of the time, at most.
_SHARE_OF_TIME = 0.005


@dataclass(slots=True)
class _Running:
    """A pack in training.

    Attributes:
        since_s, heard_s: When it began, and when it was last heard of, by `time.monotonic`.
        start: Where it is trained.
        progress: Its last heartbeat.
        variants: What its variants have come to.
    """

    since_s: float
    heard_s: float
    start: PackStart | None = None
    progress: Progress | None = None
    variants: Mapping[str, SoFar] | None = None

    @property
    def epochs_done(self) -> int:
        """Epochs trained, summed over its trials."""
        return 0 if self.progress is None else self.progress.epochs_done

    def cost_by(self, now_s: float) -> Cost:
        """What it has cost since it began."""
        return Cost(device_s=now_s - self.since_s)

    @property
    def weights(self) -> Mapping[str, float]:
        """What its cost is divided by among its variants; see `driver.costs`."""
        return {} if self.start is None else self.start.variants


class Course:
    """What a run has come to; one thread changes it, others may read it.

    Attributes:
        stage: What the run is doing, in words.
        run_folder: The run folder; None before there is one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.stage = "starting"
        self.run_folder: Path | None = None
        self._began_s = self._stage_s = time.monotonic()
        self._select = SelectSpec()
        self._trials: Sequence[Trial] = ()
        self._pause_after: int | None = None
        self._round: int | None = None
        self._earlier = 0  # trials that ended before those that are trained now
        self._num_done = 0  # of those that are trained now
        self._num_epochs = self._epochs_done = 0
        self._running: dict[str, _Running] = {}
        self._epochs_running = 0  # the sum over the packs in training
        self._packs_done = self._num_waiting = self._num_retries = 0
        self._statuses: Counter[str] = Counter()
        self._costs = CostAccount()
        self._best: float | None = None
        self._pace = Pace(self._began_s)
        self._parameters: dict[str, Mapping[str, Any]] = {}
        self._shown_variants: dict[str, Any] | None = None
        self._next_variants_s = 0.0

    def enter(self, stage: str) -> None:
        """Begins another stage."""
        self.stage, self._stage_s = stage, time.monotonic()

    def recall(self, statuses: Mapping[str, int]) -> None:
        """Takes the trials that the run folder already holds, as counts by status."""
        self._statuses.update({name: statuses.get(name, 0) for name in ("completed", "diverged")})
        self._earlier = self._statuses.total()

    def recall_costs(self, costs: Costs) -> None:
        """Adds what earlier commands have cost, see `store.costs`."""
        self._costs.recall(costs)

    def begin(
        self,
        trials: Sequence[Trial],
        select: SelectSpec,
        *,
        pause_after: int | None = None,
        num_packs: int = 0,
        round_number: int | None = None,
    ) -> None:
        """Begins the training of some trials."""
        self.enter("training" if round_number is None else f"training, round {round_number}")
        with self._lock:
            self._trials, self._select, self._round = trials, select, round_number
            self._pause_after = pause_after
            self._statuses.pop("paused", None)  # they go on now, or are not wanted any more
            self._earlier = self._statuses.total()
            self._num_done = self._epochs_done = 0
            self._num_epochs = sum(map(self._epochs_of, trials))
            self._running, self._epochs_running, self._num_waiting = {}, 0, num_packs
            self._parameters, self._shown_variants = {}, None
            self._pace = Pace(time.monotonic())

    def start(self, start: PackStart) -> None:
        """Takes that a pack's training begins on a worker."""
        now_s = time.monotonic()
        with self._lock:
            self._running[start.pack_id] = _Running(now_s, now_s, start)
            self._num_waiting = start.num_waiting

    def advance(self, progress: Progress) -> None:
        """Takes a heartbeat."""
        now_s = time.monotonic()
        with self._lock:
            running = self._running.setdefault(progress.pack_id, _Running(now_s, now_s))
            self._epochs_running += progress.epochs_done - running.epochs_done
            running.heard_s, running.progress = now_s, progress
            running.variants = progress.variants or running.variants
            if progress.best is not None:
                self._take_best([progress.best])
            self._pace.mark(now_s, self._epochs_by_now())

    def leave(self, pack_id: str) -> None:
        """Takes that a pack has left its worker without a result."""
        with self._lock:
            self._leave(pack_id)

    def retry(self, pack_id: str) -> None:
        """Takes that a pack will be tried again, before it leaves its worker."""
        with self._lock:
            self._num_retries += 1
            if (running := self._running.get(pack_id)) is not None:
                lost_s = time.monotonic() - running.since_s
                self._costs.add(Cost(lost_s=lost_s), running.weights)

    def finish(self, result: PackResult) -> None:
        """Takes that a pack has ended, and that its results are on disk."""
        metric = self._select.metric
        values = [
            value
            for one in result.trials
            if one.status == "completed"
            and math.isfinite(value := one.metrics.get(metric, math.nan))
        ]
        with self._lock:
            device_s = self._drop(result.pack_id)
            self._costs.add(cost_of(result, device_s), weights_of(result))
            self._packs_done += 1
            self._num_done += len(result.trials)
            self._epochs_done += sum(self._epochs_of(one.trial) for one in result.trials)
            self._statuses.update(one.status for one in result.trials)
            self._take_best(values)
            self._pace.mark(time.monotonic(), self._epochs_by_now())

    def close(self) -> None:
        """Takes that nothing is in training any more."""
        with self._lock:
            for pack_id in tuple(self._running):
                self._leave(pack_id)

    def _leave(self, pack_id: str) -> None:
        if (running := self._running.get(pack_id)) is not None:
            self._costs.add(Cost(device_s=self._drop(pack_id)), running.weights)

    def _drop(self, pack_id: str) -> float:
        """Removes a pack from those in training; returns for how many seconds it was there."""
        if (running := self._running.pop(pack_id, None)) is None:
            return 0.0
        self._epochs_running -= running.epochs_done
        return time.monotonic() - running.since_s

    def _take_best(self, values: Sequence[float]) -> None:
        pick = max if self._select.goal == "maximize" else min
        known = [] if self._best is None else [self._best]
        self._best = pick([*known, *values], default=None)

    def _epochs_of(self, trial: Trial) -> int:
        in_all = trial.variant.training.epochs
        return in_all if self._pause_after is None else min(self._pause_after, in_all)

    def _epochs_by_now(self) -> int:
        return self._epochs_done + self._epochs_running

    # What it has come to ------------------------------------------------------------------------

    @property
    def num_trials(self) -> int:
        """The trials of the run that are known of."""
        return self._earlier + len(self._trials)

    @property
    def num_trials_done(self) -> int:
        """How many of them have ended, counting those in training by their share of epochs."""
        with self._lock:
            return self._earlier + int(self._share() * len(self._trials))

    @property
    def num_running(self) -> int:
        """How many packs are in training."""
        return len(self._running)

    @property
    def best(self) -> float | None:
        """The best value of the selection metric so far."""
        return self._best

    @property
    def metric(self) -> str:
        """The selection metric."""
        return self._select.metric

    @property
    def stage_s(self) -> float:
        """For how many seconds the stage has lasted."""
        return time.monotonic() - self._stage_s

    def _share(self) -> float:
        return self._epochs_by_now() / self._num_epochs if self._num_epochs else 0.0

    def rate(self) -> tuple[float, TimeLeft | None]:
        """Trials per second, and how long the rest takes; None if unknown, or if there is none."""
        with self._lock:
            now_s, done = time.monotonic(), self._epochs_by_now()
            per_trial = self._num_epochs / len(self._trials) if self._trials else 1.0
            rate = self._pace.rate(now_s, done) / per_trial
            if done >= self._num_epochs:
                return rate, None
            return rate, self._pace.left(now_s, done, self._num_epochs)

    def cost(self) -> Cost:
        """What the run has cost so far."""
        with self._lock:
            return self._costs_by(time.monotonic()).total

    def costs(self) -> dict[str, Cost]:
        """What each variant has cost so far; together that is what the run has cost."""
        with self._lock:
            return self._costs_by(time.monotonic()).by_variant()

    def _costs_by(self, now_s: float) -> CostAccount:
        costs = self._costs.copy()
        for running in self._running.values():
            costs.add(running.cost_by(now_s), running.weights)
        return costs

    def content(self) -> dict[str, Any]:
        """All of it, as values for JSON."""
        rate, left = self.rate()
        with self._lock:
            now_s = time.monotonic()
            return {
                "stage": self.stage,
                "stage_s": round(now_s - self._stage_s, 1),
                "elapsed_s": round(now_s - self._began_s, 1),
                "round": self._round,
                "trials": {
                    "done": self._earlier + self._num_done,
                    "total": self.num_trials,
                    **{name: count for name, count in self._statuses.items() if count},
                },
                "packs": {
                    "done": self._packs_done,
                    "running": len(self._running),
                    "waiting": self._num_waiting,
                    "retries": self._num_retries,
                },
                "cost": self._costs_by(now_s).total._asdict(),
                "trials_per_s": rate,
                "left_s": None if left is None else left._asdict(),
                "best": {
                    "metric": self._select.metric,
                    "goal": self._select.goal,
                    "value": self._best,
                },
                "running": self._running_content(now_s),
                "variants": self._variants_content(now_s),
            }

    def _running_content(self, now_s: float) -> list[dict[str, Any]]:
        """The packs in training, those first that were not heard of for longest."""
        by_silence = sorted(self._running.items(), key=lambda item: item[1].heard_s)
        return [_pack_content(name, one, now_s) for name, one in by_silence[:MAX_PACKS_SHOWN]]

    def _variants_content(self, now_s: float) -> dict[str, Any] | None:
        """What the variants in training have come to, the best first; None if none has been told.

        With very many variants it is added up less often.
        """
        if not self._running:
            return None
        if now_s >= self._next_variants_s:
            self._shown_variants = self._add_up_variants()
            self._next_variants_s = now_s + (time.monotonic() - now_s) / _SHARE_OF_TIME
        return self._shown_variants

    def _add_up_variants(self) -> dict[str, Any] | None:
        found: dict[str, SoFar] = {}
        for running in self._running.values():
            for name, own in (running.variants or {}).items():
                found[name] = found[name].plus(own) if name in found else own
        if not found:
            return None
        sign = -1.0 if self._select.goal == "maximize" else 1.0
        order = sorted(found, key=lambda name: _rank_of(found[name], sign))[:MAX_VARIANTS_SHOWN]
        if not self._parameters:
            self._parameters = {t.variant.variant_id: t.variant.parameters for t in self._trials}
        return {
            "metric": self._select.metric,
            "count": len(found),
            "shown": [
                {
                    "variant": name,
                    "parameters": self._parameters.get(name, {}),
                    "trials": found[name].num_trials,
                    "epoch": round(found[name].num_epochs / found[name].num_trials, 1),
                    "mean": _mean(found[name]),
                }
                for name in order
            ],
        }


def _pack_content(pack_id: str, running: _Running, now_s: float) -> dict[str, Any]:
    start, progress = running.start, running.progress
    num_trials = 0 if start is None else start.num_trials
    return {
        "pack": pack_id,
        "node": "" if start is None else start.node,
        "device": "" if start is None else start.device,
        "engine": "" if progress is None else progress.engine,
        "attempt": 0 if start is None else start.attempt,
        "trials": num_trials,
        "epoch": running.epochs_done // num_trials if num_trials else 0,
        "epochs": 0 if start is None else start.last_epoch,
        "for_s": round(now_s - running.since_s, 1),
        "heard_s": round(now_s - running.heard_s, 1),
    }


def _mean(so_far: SoFar) -> float | None:
    return so_far.total / so_far.num_finite if so_far.num_finite else None


def _rank_of(so_far: SoFar, sign: float) -> tuple[bool, float]:
    mean = _mean(so_far)
    return mean is None, 0.0 if mean is None else sign * mean
