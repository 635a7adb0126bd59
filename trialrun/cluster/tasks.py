"""Runs packs as Ray tasks: submits them, listens to them, and submits them again after a fault.

Each pack is one task that asks Ray for its GPU (or CPU cores) and streams heartbeats, checkpoints
and its result while it trains; `worker` is the other end. The rules of `faults` decide about
retries, not Ray, so that a trial row can say which attempt it came from; `diagnosis` says which
fault an error of Ray is.
"""

import logging
import math
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
from ray.exceptions import ObjectStoreFullError, OutOfDiskError, RayError
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trialrun.cluster.connection import Cluster, count_devices, count_idle_devices
from trialrun.cluster.diagnosis import (
    STORE_IS_FULL,
    diagnose,
    failed,
    log_failures,
    require_own_node,
)
from trialrun.cluster.faults import Fault, FaultRules, halves
from trialrun.cluster.output import OutputPlace, last_words, new_name
from trialrun.cluster.worker import (
    Started,
    TrainPack,
    WrongProcess,
    stop_key,
    train_and_leave,
    train_and_stay,
)
from trialrun.errors import CannotShare, OutOfMemory, TrialrunError
from trialrun.job import ResourcesSpec
from trialrun.job.user_code.frames import told
from trialrun.trials.results import Checkpoint, Output, PackResult, PackStart, Progress
from trialrun.trials.task import PackTask
from trialrun.trials.trial import Pack

_log = logging.getLogger(__name__)

_WAIT_S = 0.5
_COUNT_S = 5.0
# A pack that is split has to start processes and compile programs again, which takes some 10 s.
_WORTH_SPLITTING_S = 60.0


class Listener(Protocol):
    """What the training of packs tells the driver, and asks it."""

    def on_begin(self, pack: Pack, start: PackStart) -> None:
        """Called when a worker has begun a pack."""

    def on_progress(self, progress: Progress) -> None:
        """Called when a pack has sent a heartbeat."""

    def on_leave(self, pack_id: str) -> None:
        """Called when a pack has left its worker without a result."""

    def on_retry(self, pack_id: str, why: str) -> None:
        """Called when a pack, which could not be trained, will be tried again; it leaves then."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Called when a pack has sent the state of its trials."""

    def on_output(self, output: Output) -> None:
        """Called with what a pack's process wrote, if the pack failed or the job wants it."""

    def checkpoint_of(self, pack: Pack) -> Checkpoint | None:
        """The latest state of a pack's trials, in the pack's order; None if they have not begun."""

    def should_stop(self) -> bool:
        """Whether to submit no more packs, and to let running ones leave a checkpoint and stop."""


def run_packs(
    tasks: Sequence[PackTask],
    cluster: Cluster,
    resources: ResourcesSpec,
    listener: Listener,
    *,
    train_pack: TrainPack | None = None,
) -> Iterator[PackResult]:
    """Trains packs as remote tasks and yields each result as it comes, in order of completion.

    Up to twice as many tasks as devices are submitted at a time. So no device waits for the driver,
    and a hundred thousand packs do not wait inside Ray.

    Args:
        tasks: The packs.
        cluster: The cluster that trains them.
        resources: Limits: retries, seconds without a heartbeat, seconds to stop.
        listener: Is told what happens; can ask for a stop.
        train_pack: Replaces `training.pack.train_pack`, for simulations.

    Yields:
        Results that together hold all trials of the tasks, unless a stop was asked for. Trials
        that cannot be trained are `failed`. A task whose pack was split has several results.

    Raises:
        ClusterLost: The cluster's head, or its node on this machine, does not answer any more.
    """
    return _Run(tasks, cluster, resources, listener, train_pack).results()


@dataclass(slots=True)
class _Running:
    """A task that was submitted to Ray.

    Attributes:
        task: The pack.
        last_heard_s: When its last message came, by the monotonic clock.
        node_id: The node where it runs; empty until it does.
        first_sign: When its first heartbeat came, and the epochs done by then.
        epochs_done: The epochs done at its last heartbeat.
        is_splitting: Whether it was asked to stop in order to be halved.
        output_name: The name of what its process writes; empty once it has sent that itself.
        output: Where that is, if the process has said so.
    """

    task: PackTask
    last_heard_s: float
    node_id: str = ""
    first_sign: tuple[float, int] | None = None
    epochs_done: int = 0
    is_splitting: bool = False
    output_name: str = ""
    output: OutputPlace | None = None

    def hear(self, progress: Progress) -> None:
        """Takes a heartbeat."""
        self.epochs_done = progress.epochs_done
        if self.first_sign is None:
            self.first_sign = time.monotonic(), progress.epochs_done

    def left_s(self) -> float:
        """Seconds that are left at the speed so far; 0 if that is not known."""
        if self.first_sign is None:
            return 0.0
        began_s, began_epochs = self.first_sign
        if (done := self.epochs_done - began_epochs) <= 0:
            return 0.0
        in_all = self.task.last_epoch * len(self.task.pack.trials)
        return (time.monotonic() - began_s) / done * (in_all - self.epochs_done)


class _Run:
    """Packs that wait, packs that were submitted, and the rules for what happens next."""

    def __init__(
        self,
        tasks: Sequence[PackTask],
        cluster: Cluster,
        resources: ResourcesSpec,
        listener: Listener,
        train_pack: TrainPack | None,
    ) -> None:
        self._waiting = list(reversed(tasks))
        self._running: dict[Any, _Running] = {}  # by the stream of the task's messages
        self._cluster, self._resources, self._listener = cluster, resources, listener
        self._rules = FaultRules(resources.max_retries)
        self._train_pack = None if train_pack is None else ray.put(train_pack)
        self._bad_nodes: dict[str, str] = {}  # pack_id -> the node on which it failed
        self._room = math.inf  # how many tasks at a time fit into Ray's object store
        self._stop_by_s: float | None = None
        self._devices = cluster.num_devices
        self._next_count_s = self._next_split_s = time.monotonic() + _COUNT_S

    def results(self) -> Iterator[PackResult]:
        """Trains the packs; see `run_packs`."""
        while self._waiting or self._running:
            if self._stop_by_s is None and self._listener.should_stop():
                for stream in self._ready():  # a task may have begun just now
                    yield from self._listen(stream)
                self._stop()
            if self._stop_by_s is None:
                self._submit()
                self._split_straggler()
            elif not self._running or time.monotonic() > self._stop_by_s:
                return
            for stream in self._ready():
                yield from self._listen(stream)
            yield from self._answer_stalled()
            self._cluster.head.check()

    def _submit(self) -> None:
        while self._waiting and len(self._running) < min(2 * self._num_devices(), self._room):
            task, *rest = self._rules.fit(self._waiting.pop())
            self._waiting += reversed(rest)
            task = replace(task, checkpoint=self._listener.checkpoint_of(task.pack))
            try:
                self._start(task)
                self._room = math.inf
            except (ObjectStoreFullError, OutOfDiskError):  # there is no room for its checkpoint
                self._wait_or_start_with_less(task)

    def _start(self, task: PackTask) -> None:
        options: dict[str, Any] = {}
        if other := _another_node(self._bad_nodes.get(task.pack.pack_id, "")):
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(other, soft=True)
        needs = self._cluster.needs
        if needs.accelerator_type:
            options["accelerator_type"] = needs.accelerator_type
        # A process that gets no further pack must not keep a GPU's memory.
        is_last = needs.gpus and len(self._waiting) < self._num_devices()
        train = train_and_leave if is_last else train_and_stay
        stream = train.options(num_gpus=needs.gpus, num_cpus=needs.cpus, **options).remote(
            task, needs.gpus, self._train_pack, name := new_name(task.pack.pack_id)
        )
        # Ray holds its checkpoint now, so the driver need not keep it in memory.
        self._running[stream] = _Running(
            replace(task, checkpoint=None), time.monotonic(), output_name=name
        )

    def _wait_or_start_with_less(self, task: PackTask) -> None:
        """Waits for running tasks to make room; if there are none, starts with less to store."""
        if self._running:
            how = "waiting for another pack to end"
            self._waiting.append(replace(task, checkpoint=None))
            self._room = len(self._running)
        elif len(task.pack.trials) > 1:
            how = "continuing in halves"
            self._waiting += reversed(self._rules.answer(task, "memory"))
        else:
            how = "starting from epoch 0 without it"
            self._start(replace(task, checkpoint=None))
        _log.warning(
            "%s: no room for its checkpoint: %s; %s", task.pack.pack_id, STORE_IS_FULL, how
        )

    def _num_devices(self) -> int:
        """The number of packs that the cluster can train now; nodes come and go."""
        if time.monotonic() > self._next_count_s:
            self._next_count_s = time.monotonic() + _COUNT_S
            self._devices = count_devices(self._cluster.needs)
        return self._devices

    def _split_straggler(self) -> None:
        """Asks the slowest pack to stop, so that it can be halved, if devices are idle."""
        is_queue = self._waiting or not all(r.node_id for r in self._running.values())
        if is_queue or time.monotonic() < self._next_split_s:
            return
        self._next_split_s = time.monotonic() + _COUNT_S
        candidates = [r for r in self._running.values() if len(r.task.pack.trials) > 1]
        slowest = max(candidates, key=_Running.left_s, default=None)
        if slowest is None or any(running.is_splitting for running in candidates):
            return
        if slowest.left_s() > _WORTH_SPLITTING_S and count_idle_devices(self._cluster.needs):
            slowest.is_splitting = True
            _ask_to_stop(slowest)

    def _stop(self) -> None:
        """Asks running tasks for a last checkpoint, and cancels those that have not begun."""
        self._stop_by_s = time.monotonic() + self._resources.grace_s
        for stream, running in list(self._running.items()):
            if running.node_id:
                _ask_to_stop(running)
            else:
                del self._running[stream]
                ray.cancel(stream)

    def _ready(self) -> list[Any]:
        """The streams that have a message; empty if none has one for a while."""
        streams = list(self._running)
        ready, _ = ray.wait(streams, num_returns=1, timeout=_WAIT_S, fetch_local=False)
        if ready:
            ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
        return list(ready)

    def _listen(self, stream: Any) -> Iterator[PackResult]:
        running = self._running[stream]
        running.last_heard_s = time.monotonic()
        try:
            message = ray.get(next(stream))
        except StopIteration:
            yield from self._end_without_result(stream)
        except RayError as error:
            require_own_node(error)
            yield from self._answer(stream, *diagnose(error))
        else:
            match message:
                case Started():
                    running.node_id, running.output = message.node_id, message.output
                    self._listener.on_begin(
                        running.task.pack, self._start_of(running.task, message)
                    )
                case WrongProcess():
                    del self._running[stream]
                    self._listener.on_leave(running.task.pack.pack_id)
                    ray.cancel(stream, force=True)
                    self._waiting.append(running.task)
                case Progress():
                    running.hear(message)
                    self._listener.on_progress(message)
                case Output():
                    running.output_name = ""
                    self._listener.on_output(message)
                case Checkpoint():
                    self._listener.on_checkpoint(message)
                case PackResult():
                    del self._running[stream]  # a fault of its worker does not matter any more
                    log_failures(message)
                    yield message

    def _start_of(self, task: PackTask, message: Started) -> PackStart:
        submitted = sum(not running.node_id for running in self._running.values())
        return PackStart(
            pack_id=task.pack.pack_id,
            num_trials=len(task.pack.trials),
            last_epoch=task.last_epoch,
            attempt=task.attempt,
            node=message.node,
            device=message.device,
            num_waiting=len(self._waiting) + submitted,
            variants=Counter(trial.variant.variant_id for trial in task.pack.trials),
        )

    def _end_without_result(self, stream: Any) -> Iterator[PackResult]:
        running = self._running[stream]
        if self._stop_by_s is None and not running.is_splitting:
            error = TrialrunError("its task ended without a result")
            yield from self._answer(stream, "worker", error)
            return
        del self._running[stream]
        self._listener.on_leave(running.task.pack.pack_id)
        if self._stop_by_s is None:
            _log.info("%s: halved, because devices are idle", running.task.pack.pack_id)
            self._waiting += reversed(halves(running.task, tried=False))

    def _answer_stalled(self) -> Iterator[PackResult]:
        limit_s = self._resources.stall_timeout_s
        deadline = time.monotonic() - limit_s
        for stream, running in list(self._running.items()):
            if running.node_id and running.last_heard_s < deadline:
                ray.cancel(stream, force=True)
                error = TrialrunError(f"no heartbeat for {limit_s:g} s")
                yield from self._answer(stream, "worker", error)

    def _answer(self, stream: Any, fault: Fault, error: BaseException) -> Iterator[PackResult]:
        running = self._running.pop(stream)
        if running.output_name and fault != "share":  # its process could not send it
            said = last_words(
                *(running.output, running.output_name, running.node_id),
                is_node_lost=fault == "node",
            )
            self._listener.on_output(Output(running.task.pack.pack_id, running.task.attempt, said))
        if running.is_splitting:
            internal_kv._internal_kv_del(stop_key(running.task.pack.pack_id))
        max_trials = error.max_trials if isinstance(error, OutOfMemory) else None
        paths = error.paths if isinstance(error, CannotShare) else ()
        tasks = self._rules.answer(running.task, fault, max_trials, paths)
        if not tasks:
            yield failed(running.task, fault, error)
            return
        how = "trying again in halves" if len(tasks) > 1 else "trying again"
        if fault == "share":
            how = f"training its trials in {len(tasks)} packs"
        said = told(error).partition("\n")[0]
        _log.warning("%s: %s; %s", running.task.pack.pack_id, said, how)
        self._listener.on_retry(running.task.pack.pack_id, f"{said}; {how}")
        self._listener.on_leave(running.task.pack.pack_id)
        self._waiting += reversed(tasks)
        self._bad_nodes |= {task.pack.pack_id: running.node_id for task in tasks}


def _ask_to_stop(running: _Running) -> None:
    internal_kv._internal_kv_put(stop_key(running.task.pack.pack_id), b"1")


def _another_node(node_id: str) -> str | None:
    """A living node other than the one given; None if there is none."""
    if not node_id:
        return None
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != node_id]
    return random.choice(nodes)["NodeID"] if nodes else None
