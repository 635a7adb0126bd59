"""Examines every node of a Ray cluster, each from inside a task that runs there."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trialrun.cluster.connection import connect
from trialrun.cluster.sockets import Listening, listening_sockets
from trialrun.job import ResourcesSpec

_PATIENCE_S = 30.0  # how long to wait for a GPU that others may be using
_LIMIT_S = 300.0  # how long to wait for a node's answer
_POLL_S = 0.5
_PROBE_S = 30.0


@dataclass(frozen=True, slots=True)
class RayNode:
    """A node with the resources that Ray assumes, and those of the task that examines it.

    Attributes:
        name: Its host's name, with the beginning of the node's id if a host has several nodes.
        node_id: Ray's id of the node.
        num_cpus: CPU cores that Ray gives to tasks there.
        num_gpus: GPUs that Ray gives to tasks there.
        memory_bytes: Memory that Ray counts on there, including the object store.
        assigned: GPUs that the task was given; None if all of the node's GPUs are in use.
        listening: The sockets at which the node's Ray processes listen.
    """

    name: str
    node_id: str
    num_cpus: float
    num_gpus: float
    memory_bytes: float
    assigned: tuple[str, ...] | None = ()
    listening: tuple[Listening, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a node answered: a value, or the reason why there is none."""

    node: RayNode
    value: Any = None
    error: str = ""


@contextmanager
def looking(address: str | None) -> Iterator[str]:
    """Connects to Ray to examine its nodes, and yields the address of the head.

    Args:
        address: See `connect`.

    Raises:
        ClusterError: Ray cannot be started or reached.
    """
    with connect(address, ResourcesSpec(), _give_up, allow_open=True):
        yield str(ray.get_runtime_context().gcs_address)


def _give_up(reason: str) -> None:
    sys.stderr.write(f"Error: {reason}\n")
    os._exit(1)


def is_open_head(head: str) -> bool | None:
    """Whether the head answers a client without a token; None if that could not be found out.

    Args:
        head: The head's address.
    """
    command = [sys.executable, "-m", "trialrun.cluster.unauthorized", head]
    hidden = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment["RAY_AUTH_MODE"] = "disabled"
    with suppress(subprocess.TimeoutExpired):
        told = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PROBE_S,
            check=False,
        )
        if told.returncode == 0:
            return told.stdout == "answers"
    return None


def ask_nodes(look: Callable[[RayNode], Any]) -> Iterator[Answer]:
    """Runs a function on every living node and yields each result as it comes.

    It takes no CPU core of the cluster. On a node with GPUs it is given one, if one becomes free
    in time.

    Args:
        look: A function that the nodes can import; what it returns must be picklable.
    """
    questions = [_Question(look, node) for node in _nodes()]
    while questions:
        streams = [question.stream for question in questions]
        ready, _ = ray.wait(streams, num_returns=1, timeout=_POLL_S, fetch_local=False)
        for question in list(questions):
            answer = question.listen() if question.stream in ready else question.look_at_clock()
            if answer:
                questions.remove(question)
                yield answer


def _nodes() -> list[RayNode]:
    alive = [node for node in ray.nodes() if node["Alive"]]
    num_of_host = Counter(node["NodeManagerHostname"] for node in alive)
    nodes = []
    for node in alive:
        host, has = node["NodeManagerHostname"], node["Resources"]
        nodes.append(
            RayNode(
                name=host if num_of_host[host] == 1 else f"{host} ({node['NodeID'][:8]})",
                node_id=node["NodeID"],
                num_cpus=has.get("CPU", 0.0),
                num_gpus=has.get("GPU", 0.0),
                memory_bytes=has.get("memory", 0.0) + has.get("object_store_memory", 0.0),
            )
        )
    return sorted(nodes, key=lambda node: node.name)


class _Question:
    """A task on a node, which first reports that it runs and then what it found."""

    def __init__(self, look: Callable[[RayNode], Any], node: RayNode) -> None:
        self._look = look
        self._node = node
        self._asked_s = time.monotonic()
        self._runs = False
        self._ask(min(1.0, node.num_gpus))

    def _ask(self, num_gpus: float) -> None:
        pinned = NodeAffinitySchedulingStrategy(self._node.node_id, soft=False)
        options = {"num_cpus": 0, "num_gpus": num_gpus, "scheduling_strategy": pinned}
        self._waits_for_gpu = num_gpus > 0
        self.stream = _run_there.options(**options).remote(self._look, self._node, num_gpus)

    def listen(self) -> Answer | None:
        """Takes the task's next message; returns the answer if the message is the answer."""
        try:
            value = ray.get(next(self.stream))
        except StopIteration:
            return Answer(self._node, error="its task ended without an answer")
        except RayError as error:
            return Answer(self._node, error=_reason(error))
        if not self._runs:
            self._runs = True
            return None
        return Answer(self._node, value)

    def look_at_clock(self) -> Answer | None:
        """Asks again without a GPU, or gives up, if the answer takes too long."""
        waited_s = time.monotonic() - self._asked_s
        if waited_s > _LIMIT_S:
            ray.cancel(self.stream, force=True)
            return Answer(self._node, error=f"no answer within {_LIMIT_S:g} s")
        if self._waits_for_gpu and not self._runs and waited_s > _PATIENCE_S:
            ray.cancel(self.stream)
            self._ask(0)
        return None


@ray.remote(max_retries=0, num_returns="streaming")
def _run_there(look: Callable[[RayNode], Any], node: RayNode, num_gpus: float) -> Iterator[Any]:
    yield "runs"
    is_without = node.num_gpus > 0 and not num_gpus
    assigned = None if is_without else tuple(str(gpu) for gpu in ray.get_gpu_ids())
    if not num_gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    yield look(replace(node, assigned=assigned, listening=_sockets_of_node()))


def _sockets_of_node() -> tuple[Listening, ...]:
    """The listening sockets on this machine of Ray's processes of this task's cluster."""
    session = ray.get_runtime_context().get_session_name()
    raylet = os.getppid()
    return listening_sockets(
        lambda pid, line: session in line or pid == raylet or _parent(pid) == raylet
    )


def _parent(pid: int) -> int:
    with suppress(OSError):  # it has ended
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def _reason(error: RayError) -> str:
    cause = error.cause if isinstance(error, RayTaskError) else error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1] if lines else 'no reason given'}"
