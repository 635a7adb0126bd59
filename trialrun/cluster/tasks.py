"""Packs as Ray tasks: given out, listened to, and given out again when something breaks.

Each pack is one task that asks Ray for its GPU (or CPU cores) and streams signs of life,
checkpoints and its result while it trains. Worker processes are reused (`max_calls=0`: Ray's
default for GPU tasks is to start a new process, and to import TensorFlow again, for every task).
Faults are answered here by `faults`, not by Ray, so that a trial row can say which attempt it came
from.
"""

import logging
import math
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    ObjectStoreFullError,
    OutOfDiskError,
    OutOfMemoryError,
    RayError,
    RayTaskError,
)
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trialrun.cluster.connection import Cluster, count_devices
from trialrun.cluster.faults import Fault, FaultRules
from trialrun.errors import ClusterLost, InputError, ModelError, OutOfMemory, TrialrunError
from trialrun.job import ResourcesSpec
from trialrun.plan import Pack
from trialrun.results import Checkpoint, PackResult, Progress, TrialResult
from trialrun.sources import install_files
from trialrun.training import PackTask

_log = logging.getLogger(__name__)

_QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
# Slices of a pack fill the cores; XLA's own threads would only get in their way.
_ONE_THREAD_PER_PROGRAM = "--xla_cpu_multi_thread_eigen=false"
_WAIT_S = 0.5
_STOP_POLL_S = 0.5
_COUNT_S = 5.0
_MAX_UNHEARD = 4  # messages of a task: a slow driver would find Ray's object store full of them
_STORE_IS_FULL = "Ray's object store is full, and so is the disk that it overflows to"
_NOTICE_S = 1.0  # in which the head notices that a node is gone

TrainPack = Callable[
    [PackTask, str, Callable[[], bool]], Iterator[Progress | Checkpoint | PackResult]
]


class Listener(Protocol):
    """What a run of packs tells, and asks, the driver."""

    def on_progress(self, progress: Progress) -> None:
        """A pack gave a sign of life."""

    def on_checkpoint(self, checkpoint: Checkpoint) -> None:
        """A pack says where its trials stand."""

    def checkpoint_of(self, pack: Pack) -> Checkpoint | None:
        """Where the trials of a pack stand, in its order; None if they have not begun."""

    def should_stop(self) -> bool:
        """Whether to give out no more packs, and to let those that run leave a checkpoint."""


@dataclass(frozen=True, slots=True)
class _Started:
    """The first thing that a task says: where it runs."""

    node_id: str


@ray.remote(
    max_calls=0,
    max_retries=0,
    num_returns="streaming",
    _generator_backpressure_num_objects=_MAX_UNHEARD,
)
def _train(
    task: PackTask, num_gpus: float, train_pack: TrainPack | None
) -> Iterator[_Started | Progress | Checkpoint | PackResult]:
    """Trains a pack in a worker process, on the devices that Ray gave it and no others."""
    context = ray.get_runtime_context()
    yield _Started(context.get_node_id())
    should_stop = _make_should_stop(_stop_key())
    if train_pack is not None:
        yield from train_pack(task, "CPU", should_stop)
        return
    assigned = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(_QUIET_TENSORFLOW)
    os.environ.setdefault("XLA_FLAGS", _ONE_THREAD_PER_PROGRAM)
    from trialrun.training.devices import claim_gpus

    device = claim_gpus(assigned)
    install_files(task.files)
    from trialrun.training.pack import train_pack as train_for_real

    yield from train_for_real(task, device, should_stop)


def _stop_key() -> bytes:
    """The key under which a run asks its tasks to stop, in Ray's own key-value store."""
    return f"trialrun-stop-{ray.get_runtime_context().get_job_id()}".encode()


def _make_should_stop(key: bytes) -> Callable[[], bool]:
    next_look = 0.0

    def should_stop() -> bool:
        nonlocal next_look
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + _STOP_POLL_S
        return bool(internal_kv._internal_kv_exists(key))

    return should_stop


def run_packs(
    tasks: Sequence[PackTask],
    cluster: Cluster,
    resources: ResourcesSpec,
    listener: Listener,
    *,
    train_pack: TrainPack | None = None,
) -> Iterator[PackResult]:
    """Trains packs as remote tasks and yields each result as it comes, in order of completion.

    Twice as many tasks as devices are handed to Ray at a time: no device waits for the driver, and
    a hundred thousand packs do not wait inside Ray.

    Args:
        tasks: The packs.
        cluster: Where.
        resources: Limits: retries, seconds without a sign of life, seconds to stop.
        listener: Hears what happens; may ask for a stop.
        train_pack: Takes the place of `training.pack.train_pack`, for simulations.

    Yields:
        Results whose trials together are those of the tasks, unless a stop was asked for. Trials
        that cannot be trained are `failed`; the pack of a result may be a part of a task's.

    Raises:
        ClusterLost: The cluster's head, or its part on this machine, does not answer any more.
    """
    return _Run(tasks, cluster, resources, listener, train_pack).results()


@dataclass(slots=True)
class _Running:
    """A task in Ray's hands."""

    task: PackTask
    last_heard_s: float
    node_id: str = ""


class _Run:
    """Packs that wait, packs in Ray's hands, and the rules for what comes next."""

    def __init__(
        self,
        tasks: Sequence[PackTask],
        cluster: Cluster,
        resources: ResourcesSpec,
        listener: Listener,
        train_pack: TrainPack | None,
    ) -> None:
        self._waiting = list(reversed(tasks))
        self._running: dict[Any, _Running] = {}  # by the stream of what the task says
        self._cluster, self._resources, self._listener = cluster, resources, listener
        self._rules = FaultRules(resources.max_retries)
        self._train_pack = None if train_pack is None else ray.put(train_pack)
        self._bad_nodes: dict[str, str] = {}  # pack_id -> the node on which it failed
        self._room = math.inf  # tasks at a time that Ray's object store has shown it can hold
        self._stop_by_s: float | None = None
        self._devices = cluster.num_devices
        self._next_count_s = time.monotonic() + _COUNT_S

    def results(self) -> Iterator[PackResult]:
        """See `run_packs`."""
        while self._waiting or self._running:
            if self._stop_by_s is None and self._listener.should_stop():
                self._stop()
            if self._stop_by_s is None:
                self._submit()
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
            except (ObjectStoreFullError, OutOfDiskError):  # its checkpoint would lie there
                self._wait_or_start_with_less(task)

    def _start(self, task: PackTask) -> None:
        options: dict[str, Any] = {}
        if other := _another_node(self._bad_nodes.get(task.pack.pack_id, "")):
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(other, soft=True)
        needs = self._cluster.needs
        if needs.accelerator_type:
            options["accelerator_type"] = needs.accelerator_type
        stream = _train.options(num_gpus=needs.gpus, num_cpus=needs.cpus, **options).remote(
            task, needs.gpus, self._train_pack
        )
        # Its checkpoint is in Ray's hands now; the driver's memory is not for it.
        self._running[stream] = _Running(replace(task, checkpoint=None), time.monotonic())

    def _wait_or_start_with_less(self, task: PackTask) -> None:
        """For tasks that run and take the room; without them in halves, or from the beginning."""
        if self._running:
            how = "waiting for another pack to end"
            self._waiting.append(replace(task, checkpoint=None))
            self._room = len(self._running)
        elif len(task.pack.trials) > 1:
            how = "going on in halves"
            self._waiting += reversed(self._rules.answer(task, "memory"))
        else:
            how = "beginning again without it"
            self._start(replace(task, checkpoint=None))
        _log.warning("%s: its checkpoint: %s; %s", task.pack.pack_id, _STORE_IS_FULL, how)

    def _num_devices(self) -> int:
        """Packs that the cluster takes now: nodes come and go."""
        if time.monotonic() > self._next_count_s:
            self._next_count_s = time.monotonic() + _COUNT_S
            self._devices = count_devices(self._cluster.needs)
        return self._devices

    def _stop(self) -> None:
        """Asks running tasks for a last checkpoint, and takes back those that have not begun."""
        self._stop_by_s = time.monotonic() + self._resources.grace_s
        internal_kv._internal_kv_put(_stop_key(), b"1")
        for stream, running in list(self._running.items()):
            if not running.node_id:
                del self._running[stream]
                ray.cancel(stream)

    def _ready(self) -> list[Any]:
        """The streams that have something to say; empty after a while without."""
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
            if self._stop_by_s is None:
                error = TrialrunError("its task ended without a result")
                yield from self._answer(stream, "worker", error)
            else:
                del self._running[stream]
        except RayError as error:
            _require_own_node(error)
            yield from self._answer(stream, *_diagnose(error))
        else:
            match message:
                case _Started():
                    running.node_id = message.node_id
                case Progress():
                    self._listener.on_progress(message)
                case Checkpoint():
                    self._listener.on_checkpoint(message)
                case PackResult():
                    del self._running[stream]  # what happens to its worker now is nobody's loss
                    yield message

    def _answer_stalled(self) -> Iterator[PackResult]:
        limit_s = self._resources.stall_timeout_s
        deadline = time.monotonic() - limit_s
        for stream, running in list(self._running.items()):
            if running.node_id and running.last_heard_s < deadline:
                ray.cancel(stream, force=True)
                error = TrialrunError(f"no sign of life for {limit_s:g} s")
                yield from self._answer(stream, "worker", error)

    def _answer(self, stream: Any, fault: Fault, error: BaseException) -> Iterator[PackResult]:
        running = self._running.pop(stream)
        tasks = self._rules.answer(running.task, fault)
        if not tasks:
            yield _failed(running.task, fault, error)
            return
        how = "trying again" if len(tasks) == 1 else "trying again in halves"
        _log.warning("%s: %s; %s", running.task.pack.pack_id, _one_line(error), how)
        self._waiting += reversed(tasks)
        self._bad_nodes |= {task.pack.pack_id: running.node_id for task in tasks}


def _require_own_node(error: RayError) -> None:
    """Raises ClusterLost for what comes of Ray's death on this machine: no trial is to blame."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if not isinstance(cause, RayError):
        return
    if not isinstance(cause, LocalRayletDiedError):
        time.sleep(_NOTICE_S)
        own = ray.get_runtime_context().get_node_id()
        if any(node["NodeID"] == own and node["Alive"] for node in ray.nodes()):
            return
    raise ClusterLost("Ray's process on this machine has died") from error


def _another_node(node_id: str) -> str | None:
    """A living node other than the one given; None if there is none."""
    if not node_id:
        return None
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != node_id]
    return random.choice(nodes)["NodeID"] if nodes else None


def _diagnose(error: RayError) -> tuple[Fault, BaseException]:
    """What kind of fault an error is, and the error that says why."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, ObjectStoreFullError | OutOfDiskError):
            return "memory", OutOfMemory(_STORE_IS_FULL)
        if isinstance(cause, OutOfMemory | MemoryError):
            return "memory", cause
        return ("model" if isinstance(cause, ModelError) else "error"), cause
    if isinstance(error, ObjectStoreFullError | OutOfDiskError):  # with bytes for a message
        return "memory", OutOfMemory(_STORE_IS_FULL)
    if isinstance(error, OutOfMemoryError):
        return "memory", error
    return ("node" if isinstance(error, NodeDiedError) else "worker"), error


def _one_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, TrialrunError) else f"{type(error).__name__}: {error}"
    return text.strip().partition("\n")[0]


def _failed(task: PackTask, fault: Fault, error: BaseException) -> PackResult:
    """The result of a pack that could not be trained."""
    is_ours = isinstance(error, TrialrunError)
    reason = str(error) if is_ours else _one_line(error)
    _log.error("%s: %s", task.pack.pack_id, reason, exc_info=None if is_ours else error)
    return PackResult(
        pack_id=task.pack.pack_id,
        trials=tuple(
            TrialResult(
                trial=trial,
                status="failed",
                engine="",
                pack_id=task.pack.pack_id,
                attempt=task.attempt,
                error=reason,
            )
            for trial in task.pack.trials
        ),
        is_input_error=fault in ("model", "error") and isinstance(error, InputError),
    )
