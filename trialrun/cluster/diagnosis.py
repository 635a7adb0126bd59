"""What an error of Ray means for a pack: the fault, its words, and the result of giving up."""

import logging
import time
from collections import Counter

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

from trialrun.cluster.faults import Fault
from trialrun.errors import (
    CannotShare,
    ClusterLost,
    InputError,
    ModelError,
    OutOfMemory,
    TrialrunError,
)
from trialrun.job.user_code.frames import told
from trialrun.messages import counted
from trialrun.trials.results import PackResult
from trialrun.trials.task import PackTask

_log = logging.getLogger(__name__)

STORE_IS_FULL = "Ray's object store is full, and so is the disk that it overflows to"
_NOTICE_S = 1.0  # how long the head takes to notice that a node is gone


def diagnose(error: RayError) -> tuple[Fault, BaseException]:
    """The kind of fault that an error is, and the error that explains it."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, ObjectStoreFullError | OutOfDiskError):
            return "memory", OutOfMemory(STORE_IS_FULL)
        if isinstance(cause, OutOfMemory | MemoryError):
            return "memory", cause
        if isinstance(cause, CannotShare):
            return "share", cause
        return ("model" if isinstance(cause, ModelError) else "error"), cause
    if isinstance(error, ObjectStoreFullError | OutOfDiskError):  # its own message is just bytes
        return "memory", OutOfMemory(STORE_IS_FULL)
    if isinstance(error, OutOfMemoryError):
        return "memory", error
    return ("node" if isinstance(error, NodeDiedError) else "worker"), error


def require_own_node(error: RayError) -> None:
    """Raises ClusterLost if an error comes from Ray's death on this machine, not from a trial."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    is_memory = isinstance(cause, OutOfMemoryError | ObjectStoreFullError | OutOfDiskError)
    if is_memory or not isinstance(cause, RayError):
        return
    if not isinstance(cause, LocalRayletDiedError):
        time.sleep(_NOTICE_S)
        own = ray.get_runtime_context().get_node_id()
        if any(node["NodeID"] == own and node["Alive"] for node in ray.nodes()):
            return
    raise ClusterLost("Ray's process on this machine has died") from error


def log_failures(result: PackResult) -> None:
    """Logs why trials of a pack failed that came to its end, one record per reason."""
    counts = Counter(trial.error for trial in result.trials if trial.status == "failed")
    for reason, count in counts.items():
        _log.error("%s: %s failed: %s", result.pack_id, counted(count, "trial"), reason)


def failed(task: PackTask, fault: Fault, error: BaseException) -> PackResult:
    """The result of a pack that could not be trained."""
    is_ours = isinstance(error, TrialrunError)
    reason = told(error)
    _log.error("%s: %s", task.pack.pack_id, reason, exc_info=None if is_ours else error)
    return PackResult(
        pack_id=task.pack.pack_id,
        trials=tuple(task.failed(trial, reason) for trial in task.pack.trials),
        is_input_error=fault in ("model", "error") and isinstance(error, InputError),
    )
