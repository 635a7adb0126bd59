"""What runs in a worker process: one pack at a time, on the GPUs that the process claimed first.

TensorFlow never releases a GPU or its memory while its process lives. So a process is used again
for the next pack of the run if Ray gives it the same GPU, and it is ended and replaced if Ray gives
it another. After the last packs it ends by itself, so that no waiting process holds memory. Reuse
saves the import of TensorFlow and, for packs of one shape, the compilation:
`jobs/medical_trial.yaml` as four packs of 15 trials on one logical GPU, on two cores of an AMD
EPYC, is trained in 12 s by one process and in 30 s by a process per pack.
"""

import functools
import os
import platform
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import ray
from ray.experimental import internal_kv

from trialrun.cluster.output import CaughtOutput, OutputPlace
from trialrun.errors import CannotShare
from trialrun.job.user_code.files import install_files
from trialrun.job.user_code.frames import note_frames
from trialrun.training.compilation_cache import folder as compilation_cache
from trialrun.training.internals.lean_import import importing_tensorflow
from trialrun.trials.results import Checkpoint, Output, PackResult, Progress
from trialrun.trials.task import PackTask

_QUIET_TENSORFLOW = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}
# The slices of a pack already use all cores; XLA's own threads would only disturb them.
_ONE_THREAD_PER_PROGRAM = "--xla_cpu_multi_thread_eigen=false"
_STOP_POLL_S = 0.5
_MAX_UNHEARD = 4  # unread messages of a task: with a slow driver they would fill the object store

TrainPack = Callable[
    [PackTask, str, Callable[[], bool]], Iterator[Progress | Checkpoint | PackResult]
]


@dataclass(frozen=True, slots=True)
class Started:
    """A task's first message: where it runs, and where what its process writes is.

    Attributes:
        node_id: The node, in Ray's words.
        node: Name of the machine.
        device: E.g. `CPU`, `GPU 0`.
        output: Where what its process writes is; None if the pack does not begin.
    """

    node_id: str
    node: str
    device: str
    output: OutputPlace | None = None


@dataclass(frozen=True, slots=True)
class WrongProcess:
    """A task's message that its process holds another GPU than it was given and must be killed."""


Message = Started | WrongProcess | Progress | Checkpoint | Output | PackResult


def _train(
    task: PackTask, num_gpus: float, train_pack: TrainPack | None, output_name: str
) -> Iterator[Message]:
    """Trains a pack in a worker process, on the devices that Ray gave it and no others.

    Args:
        task: The pack.
        num_gpus: The number of GPUs that it asked Ray for.
        train_pack: Replaces `training.pack.train_pack`, if it is not None.
        output_name: The name under which what the process writes is caught.
    """
    node_id = ray.get_runtime_context().get_node_id()
    gpus = tuple(map(str, ray.get_gpu_ids()))
    started = Started(node_id, platform.node(), f"GPU {', '.join(gpus)}" if gpus else "CPU")
    if _gpus_of_this_process() != gpus:
        yield started
        yield WrongProcess()
        threading.Event().wait()
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ.update(task.variables)
    with CaughtOutput(output_name) as output:
        yield replace(started, output=output.place)
        yield from _with_output(task, output, _training(task, gpus, train_pack))


def _with_output(
    task: PackTask, output: CaughtOutput, messages: Iterator[Message]
) -> Iterator[Message]:
    """The messages of a pack, and before its end what its process wrote, if that is wanted."""
    pack_id, attempt = task.pack.pack_id, task.attempt
    try:
        for message in messages:
            output.trim()
            if isinstance(message, PackResult) and (task.keeps_output or message.has_failures):
                yield Output(pack_id, attempt, output.text())
            yield message
    except CannotShare:
        raise
    except Exception as error:
        note_frames(error)
        traceback.print_exc()
        yield Output(pack_id, attempt, output.text())
        raise


def _training(
    task: PackTask, gpus: tuple[str, ...], train_pack: TrainPack | None
) -> Iterator[Progress | Checkpoint | PackResult]:
    should_stop = _make_should_stop(stop_key(task.pack.pack_id))
    if train_pack is not None:
        yield from train_pack(task, "CPU", should_stop)
        return
    os.environ.update(_QUIET_TENSORFLOW)
    os.environ.setdefault("XLA_FLAGS", _ONE_THREAD_PER_PROGRAM)
    compilation_cache.turn_on(os.environ)
    with importing_tensorflow():
        from trialrun.training.devices import claim_gpus

        device = claim_gpus(gpus)
        install_files(task.files)
        from trialrun.training.pack import train_pack as train_for_real

    yield from train_for_real(task, device, should_stop)


_streaming = functools.partial(
    ray.remote,
    max_retries=0,  # the driver decides about retries
    num_returns="streaming",
    _generator_backpressure_num_objects=_MAX_UNHEARD,
)
# Ray's default for GPU tasks is one task per process.
train_and_stay = _streaming(max_calls=0)(_train)
train_and_leave = _streaming(max_calls=1)(_train)


@functools.cache
def _gpus_of_this_process() -> tuple[str, ...]:
    """The GPUs that Ray gave to the first task of this process."""
    return tuple(map(str, ray.get_gpu_ids()))


def stop_key(pack_id: str) -> bytes:
    """The key under which a run asks a task to stop, in Ray's own key-value store."""
    return f"trialrun-stop-{ray.get_runtime_context().get_job_id()}-{pack_id}".encode()


def _make_should_stop(key: bytes) -> Callable[[], bool]:
    next_look = 0.0

    def should_stop() -> bool:
        nonlocal next_look
        if time.monotonic() < next_look:
            return False
        next_look = time.monotonic() + _STOP_POLL_S
        return bool(internal_kv._internal_kv_exists(key))

    return should_stop
