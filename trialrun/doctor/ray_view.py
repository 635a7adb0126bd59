"""Ray: whether it starts, what it listens at, whether it asks for a token, what nodes it has."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from trialrun.doctor.check import Check, ok, problem, warning
from trialrun.doctor.clock import ClockWatch
from trialrun.doctor.gpus import (
    Driver,
    ask_driver,
    check_driver,
    check_given,
    check_ray_gpus,
    num_gpus_from_slurm,
    visible_gpus,
)
from trialrun.doctor.machine import (
    check_cpus,
    check_memory,
    check_shared_memory,
    check_temporary_folder,
)
from trialrun.doctor.report import NodeReport
from trialrun.doctor.tensorflow_view import TensorflowView
from trialrun.doctor.versions import check_slurm, check_versions, versions_here
from trialrun.errors import ClusterError
from trialrun.host import read_limits

if TYPE_CHECKING:
    from trialrun.cluster.inspect import RayNode
    from trialrun.cluster.sockets import Listening

_PORTS = "Ray's ports"
_WORKERS = ("ray::IDLE", "ray::_")
_SAME_PACKAGE = "does `python -c 'import trialrun'` work there? Is its raylet alive (`ray status`)?"
_SET_TOKEN = (
    "give all `ray start` and trialrun RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN_PATH, or"
    " keep others off this network"
)


def check_embedded_ray(driver: Driver) -> tuple[Check, ...]:
    """Starts Ray as a run without a cluster does, and looks at it from inside a task.

    Args:
        driver: What NVIDIA's driver says.
    """
    from trialrun.cluster.inspect import answers_without_token, ask_nodes, looking

    began = time.monotonic()
    visible = visible_gpus(os.environ, driver.gpus)
    environment = dict(os.environ)
    try:
        with looking("local") as head:
            [answer] = ask_nodes(_node_itself)
            seconds = time.monotonic() - began
            is_open = answers_without_token(head)
    except ClusterError as error:
        advice = "see what it says, and `ray start --head` by hand"
        return (problem("Ray", f"does not start: {error}", advice),)
    if answer.error:
        advice = "see what it says; is memory or the number of processes limited?"
        return (problem("Ray", f"starts, but runs no task: {answer.error}", advice),)
    node = answer.value
    return (
        ok("Ray", f"starts and runs a task within {seconds:.1f} s: {node.num_cpus:g} CPU cores"),
        check_ray_gpus(node.num_gpus, environment, driver.gpus, len(visible)),
        check_ports(node, is_open),
    )


def _node_itself(node: "RayNode") -> "RayNode":
    return node


def check_ports(node: "RayNode", is_open: bool | None) -> Check:
    """What a node's Ray listens at, and whether a stranger would be answered there.

    Args:
        node: The node.
        is_open: Whether its head answers who has no token; None if unknown.
    """
    beyond = [one for one in node.listening if not one.is_loopback]
    found = f"beyond loopback: {_ports_text(beyond)}" if beyond else "loopback only"
    if is_open is None:
        return warning(
            _PORTS, f"{found}; whether it asks for a token was not found out", _SET_TOKEN
        )
    if not is_open:
        return ok(_PORTS, f"{found}; the head refuses who has no token")
    who = "who reaches them" if beyond else "who has an account on this machine"
    return warning(_PORTS, f"{found}; no token is asked for: {who} can run programs", _SET_TOKEN)


def _ports_text(sockets: "Sequence[Listening]") -> str:
    """`gcs_server 6379; raylet 40001, 40003`: programs and their ports."""
    ports: dict[str, list[str]] = {}
    for one in sockets:
        program = "workers" if one.program.startswith(_WORKERS) else one.program
        ports.setdefault(program.removeprefix("ray::"), []).append(str(one.port))
    return "; ".join(f"{program} {', '.join(found)}" for program, found in sorted(ports.items()))


def look_at_cluster(address: str) -> Iterator[NodeReport | Check]:
    """Asks every node of a cluster; first the cluster itself, then the nodes as they answer.

    Args:
        address: Of the cluster, or `auto`.
    """
    from trialrun.cluster.inspect import answers_without_token, ask_nodes, looking

    try:
        with looking(address) as head:
            yield ok("Ray cluster", f"connected to {head}")
            is_open = answers_without_token(head)
            asked = ClockWatch()
            for answer in ask_nodes(partial(look_at_node, is_open=is_open)):
                if answer.error:
                    yield _silent_node(answer.node.name, answer.error)
                else:
                    yield answer.value.with_clock_compared(asked.span())
    except ClusterError as error:
        yield problem("Ray cluster", str(error), "see the message; `ray status` on its head")


def _silent_node(name: str, error: str) -> NodeReport:
    return NodeReport(name, (problem("node", f"no answer: {error}", _SAME_PACKAGE),))


def look_at_node(node: "RayNode", *, is_open: bool | None) -> NodeReport:
    """What a task sees of its node; runs there.

    Args:
        node: The node as Ray counts on it.
        is_open: Whether the cluster's head answers who has no token; None if unknown.
    """
    watch = ClockWatch()
    environment = dict(os.environ)
    driver, limits = ask_driver(environment), read_limits()
    checks = [
        *check_versions(),
        check_slurm(environment),
        *check_driver(driver),
        *_check_given_on_node(environment, driver),
        check_ray_gpus(node.num_gpus, environment, driver.gpus, len(driver.gpus)),
        check_cpus(environment, limits, node.num_cpus),
        check_memory(environment, limits, node.memory_bytes),
        check_shared_memory(),
        check_temporary_folder(environment),
        check_ports(node, is_open),
    ]
    if node.assigned is None:
        advice = "try again when a GPU is free, to see whether packs can compute there"
        checks.append(warning("TensorFlow", "not tried: all GPUs of the node are in use", advice))
    else:
        with TensorflowView(environment, driver) as view:
            checks += view.checks()
    checks.append(watch.check())
    return NodeReport(
        node.name, tuple(checks), versions_here(), describe_hardware(driver), watch.span()
    )


def _check_given_on_node(environment: Mapping[str, str], driver: Driver) -> tuple[Check, ...]:
    """What Ray left in CUDA_VISIBLE_DEVICES is the task's part; only GPUs that are none count."""
    if not driver.gpus and num_gpus_from_slurm(environment):
        return (check_given(environment, driver.gpus),)
    return ()


def describe_hardware(driver: Driver) -> dict[str, str]:
    """What had better be the same on all nodes that have GPUs; empty for one without."""
    if not driver.gpus:
        return {}
    names = sorted({gpu.name for gpu in driver.gpus})
    return {"NVIDIA driver": driver.gpus[0].driver, "GPUs": ", ".join(names)}
