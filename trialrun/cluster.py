"""Ray: connecting, and running packs as remote tasks. The only module that imports it.

Each pack is one task that asks Ray for its GPU (or CPU cores) and streams signs of life while it
trains. Worker processes are reused (`max_calls=0`: Ray's default for GPU tasks is to start a new
process, and to import TensorFlow again, for every task). Lost workers and nodes are answered here,
not by Ray, so that a trial row can say which attempt it came from.
"""

import contextlib
import logging
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from trialrun.errors import ClusterError, InputError, TrialrunError
from trialrun.job import ResourcesSpec
from trialrun.packing import choose_cpus_per_pack, num_local_cpus
from trialrun.results import PackResult, Progress, TrialResult
from trialrun.training import PackTask

_log = logging.getLogger(__name__)

_QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
# Slices of a pack fill the cores; XLA's own threads would only get in their way.
_ONE_THREAD_PER_PROGRAM = "--xla_cpu_multi_thread_eigen=false"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a connected Ray offers.

    Attributes:
        address: Of the cluster, or `local` for embedded Ray.
        num_devices: Packs that can be trained at the same time.
        gpus_per_pack: 1, or 0 when the CPU computes.
        cpus_per_pack: CPU cores that each pack's task reserves.
        num_threads: Slices of a pack trained side by side.
    """

    address: str
    num_devices: int
    gpus_per_pack: int
    cpus_per_pack: int
    num_threads: int


@contextlib.contextmanager
def connect(address: str | None, resources: ResourcesSpec) -> Iterator[Cluster]:
    """A connection to Ray, closed at the end.

    Args:
        address: Of a running cluster, or `auto`. None takes RAY_ADDRESS (set inside a Ray job), or
            else starts Ray inside this process: no dashboard, no usage statistics, and a token
            that only this run's processes know.
        resources: GPUs and CPUs the job may use.

    Raises:
        ClusterError: Ray cannot be reached, or has not what the job asks for.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        if address == "local":
            _start_embedded(resources)
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise ClusterError(f"Ray cannot be reached at {address!r}: {error}") from error
    try:
        # Ray prints what it has to say of a lost worker on stdout, which is for the final table.
        with contextlib.redirect_stdout(sys.stderr):
            yield _describe(address, resources)
    finally:
        ray.shutdown()


def _start_embedded(resources: ResourcesSpec) -> None:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A new local cluster turns token authentication on unless this variable says otherwise. The
    # token is given by environment, so that Ray does not write it to a file in the home folder.
    os.environ.pop("RAY_AUTH_MODE", None)
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Without it a task that asks for no GPU would see all of them.
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "1"
    ray.init(
        address="local",
        num_cpus=num_local_cpus(),
        num_gpus=None if resources.gpus == "auto" else resources.gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _describe(address: str, resources: ResourcesSpec) -> Cluster:
    total = ray.cluster_resources()
    num_cpus, num_gpus = int(total.get("CPU", 0)), int(total.get("GPU", 0))
    wanted_gpus = num_gpus if resources.gpus == "auto" else resources.gpus
    if wanted_gpus > num_gpus:
        raise ClusterError(f"resources.gpus asks for {wanted_gpus}, but Ray has {num_gpus}")
    smallest_node = min(
        (int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1
    )
    if wanted_gpus:
        cpus = 1 if resources.cpus == "auto" else resources.cpus
        return Cluster(address, wanted_gpus, 1, cpus, 1)
    cpus = choose_cpus_per_pack(smallest_node) if resources.cpus == "auto" else resources.cpus
    if cpus > smallest_node:
        raise ClusterError(
            f"resources.cpus asks for {cpus} per pack, but a node has {smallest_node}"
        )
    return Cluster(address, max(1, num_cpus // cpus), 0, cpus, cpus)


# --------------------------------------------------------------------------------------- the task


@ray.remote(max_calls=0, max_retries=0, num_returns="streaming")
def _train(task: PackTask, num_gpus: int) -> Iterator[Progress | PackResult]:
    """Trains a pack in a worker process, on the devices that Ray gave it and no others."""
    assigned = [str(gpu) for gpu in ray.get_gpu_ids()]
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(_QUIET_TENSORFLOW)
    os.environ.setdefault("XLA_FLAGS", _ONE_THREAD_PER_PROGRAM)
    from trialrun.training.devices import claim_gpus

    device = claim_gpus(assigned)
    from trialrun.training.pack import train_pack

    yield from train_pack(task, device)


def run_packs(
    tasks: Sequence[PackTask],
    cluster: Cluster,
    *,
    max_retries: int,
    on_progress: Callable[[Progress], None],
) -> Iterator[PackResult]:
    """Trains packs as remote tasks and yields each result as it comes, in order of completion.

    Twice as many tasks as devices are handed to Ray at a time: no device waits for the driver, and
    a hundred thousand packs do not wait inside Ray.

    Args:
        tasks: The packs.
        cluster: Where.
        max_retries: How often a pack is tried again when its worker or node is lost.
        on_progress: Called with each sign of life.

    Yields:
        One result per pack; the trials of a pack that cannot be trained are `failed`.
    """
    waiting = list(reversed(tasks))
    running: dict[Any, PackTask] = {}  # by the stream of what the task says
    submit = _train.options(num_gpus=cluster.gpus_per_pack, num_cpus=cluster.cpus_per_pack)
    while waiting or running:
        while waiting and len(running) < 2 * cluster.num_devices:
            task = waiting.pop()
            stream = submit.remote(task, cluster.gpus_per_pack)
            running[stream] = task
        ready, _ = ray.wait(list(running), num_returns=1, fetch_local=False)
        for stream in ready:
            task = running[stream]
            try:
                message = ray.get(next(stream))
            except StopIteration:
                del running[stream]
                continue
            except RayTaskError as error:
                del running[stream]
                yield _failed(task, error.cause)
                continue
            except RayError as error:  # the worker or its node is gone
                del running[stream]
                reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                if task.attempt < max_retries:
                    _log.warning("%s: %s; trying again", task.pack.pack_id, reason)
                    waiting.append(replace(task, attempt=task.attempt + 1))
                else:
                    yield _failed(task, ClusterError(reason))
                continue
            if isinstance(message, PackResult):
                yield message
            else:
                on_progress(message)


def _failed(task: PackTask, error: BaseException) -> PackResult:
    """The result of a pack that could not be trained."""
    is_expected = isinstance(error, TrialrunError)
    reason = str(error) if is_expected else f"{type(error).__name__}: {error}"
    _log.error("%s: %s", task.pack.pack_id, reason, exc_info=None if is_expected else error)
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
        is_input_error=isinstance(error, InputError),
    )
